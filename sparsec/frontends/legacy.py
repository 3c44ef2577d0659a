"""Variables in a legacy ``.h5`` file: one group a top-level layer, with the names of its weights in order.

The weights of a nested model stand in its group as one flat list, trainable ones first; they find their layers by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sparsec.errors import FormatError
from sparsec.frontends.hdf5 import H5Group
from sparsec.frontends.source import INNER, Config, LayerEntry, LayerPath, Variable, is_wrapper_variable, layer_entries


def legacy_variables(root: H5Group, config: Config, where: str) -> dict[LayerPath, Sequence[Variable]]:
    """The variables of every layer of the model that ``config`` describes.

    Raises:
        FormatError: a weight cannot be assigned to a layer without doubt, or belongs to none.
    """
    found: dict[LayerPath, Sequence[Variable]] = {}
    entries = layer_entries(config, where)
    for entry in entries:
        if not root.holds(entry.key):
            continue
        layer = root.group(entry.key)
        names = [name for name in layer.texts("weight_names") if not (entry.wrapped and is_wrapper_variable(name))]
        variables = [(name, layer.variable(name)) for name in names]
        if entry.is_model:
            found.update(_distribute(entry, dict(_leaves(entry.config, (entry.key,), where)), variables, where))
        elif entry.inner_model is not None:
            found.update(_distribute(entry, dict(_leaves(entry.inner_model, (entry.key, INNER), where)), variables, where))
        elif variables:
            found[(entry.key,)] = [variable for _, variable in variables]
    for name in sorted(set(root.texts("layer_names")) - {entry.key for entry in entries}):
        if root.holds(name) and root.group(name).texts("weight_names"):
            raise FormatError(f"{where}: holds weights of {name!r}, a layer that the model's configuration does not list")
    return found


def _leaves(config: Config, path: LayerPath, where: str) -> Iterator[tuple[LayerPath, LayerEntry]]:
    for inner in layer_entries(config, where):
        if inner.is_model:
            yield from _leaves(inner.config, (*path, inner.key), where)
        else:
            yield (*path, inner.key), inner


def _distribute(
    entry: LayerEntry, leaves: Mapping[LayerPath, LayerEntry], variables: Sequence[tuple[str, Variable]], where: str
) -> dict[LayerPath, Sequence[Variable]]:
    assigned: dict[LayerPath, list[Variable]] = {}
    for name, variable in variables:
        prefix = name.rpartition("/")[0]
        candidates = [path for path, leaf in leaves.items() if _names_layer(prefix, leaf)]
        paths = [path for path in candidates if _names_path(prefix, path)] or candidates
        if len(paths) != 1:
            what = (
                f"may belong to {' or '.join('/'.join(path) for path in paths)}" if paths else "belongs to none of its layers"
            )
            raise FormatError(
                f"{where}: by its name, weight {name!r} of the nested model {entry.name!r} {what}; save the model as .keras"
            )
        if not (leaves[paths[0]].wrapped and is_wrapper_variable(name)):
            assigned.setdefault(paths[0], []).append(variable)
    return dict(assigned)


def _names_layer(prefix: str, leaf: LayerEntry) -> bool:
    return any(prefix == name or prefix.endswith("/" + name) for name in (leaf.key, leaf.name))


def _names_path(prefix: str, path: LayerPath) -> bool:
    full = "/".join(path)
    return full == prefix or full.endswith("/" + prefix) or prefix.endswith("/" + full)
