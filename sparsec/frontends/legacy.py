"""Variables in a legacy ``.h5`` file: one group a top-level layer, with the names of its weights in order.

The weights of a nested model stand in its group as one flat list, trainable ones first; they find their layers by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sparsec.errors import FormatError
from sparsec.frontends.source import Config, LayerEntry, LayerPath, Variable, is_wrapper_variable, layer_entries
from sparsec.frontends.tree import h5_variable

if TYPE_CHECKING:
    import h5py


def legacy_variables(root: h5py.Group, config: Config, where: str) -> dict[LayerPath, Sequence[Variable]]:
    """The variables of every layer of the model that ``config`` describes.

    Raises:
        FormatError: a weight cannot be assigned to a layer without doubt.
    """
    found: dict[LayerPath, Sequence[Variable]] = {}
    for entry in layer_entries(config, where):
        if entry.key not in root:
            continue
        group = root[entry.key]
        names = [name for name in _weight_names(group) if not (entry.wrapped and is_wrapper_variable(name))]
        variables = [(name, _variable(group, name, where)) for name in names]
        if entry.is_model:
            for path, own in _distribute(entry, variables, where):
                found[path] = own
        elif variables:
            found[(entry.key,)] = [variable for _, variable in variables]
    return found


def _weight_names(group: h5py.Group) -> list[str]:
    names: Any = group.attrs.get("weight_names", ())
    if not len(names):
        # Lists that do not fit into one attribute are stored in numbered chunks.
        chunk = 0
        names = []
        while f"weight_names{chunk}" in group.attrs:
            names.extend(group.attrs[f"weight_names{chunk}"])
            chunk += 1
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _variable(group: h5py.Group, name: str, where: str) -> Variable:
    if name not in group:
        raise FormatError(f"{where}: layer {group.name!r} lists a weight {name!r} that the file does not hold")
    return h5_variable(group[name])


def _leaves(entry: LayerEntry, path: LayerPath, where: str) -> Iterator[tuple[LayerPath, LayerEntry]]:
    for inner in layer_entries(entry.config, where):
        if inner.is_model:
            yield from _leaves(inner, (*path, inner.key), where)
        else:
            yield (*path, inner.key), inner


def _distribute(
    entry: LayerEntry, variables: Sequence[tuple[str, Variable]], where: str
) -> Iterator[tuple[LayerPath, list[Variable]]]:
    leaves = list(_leaves(entry, (entry.key,), where))
    assigned: dict[LayerPath, list[Variable]] = {}
    for name, variable in variables:
        prefix = name.rsplit("/", 1)[0]
        candidates = {path: len("/".join(path)) for path, leaf in leaves if _names_layer(prefix, leaf)}
        if not candidates:
            raise FormatError(
                f"{where}: weight {name!r} of the nested model {entry.name!r} belongs to none of its layers by name; "
                "save the model as .keras"
            )
        paths = [path for path in candidates if _full_match(prefix, path)] or list(candidates)
        if len(paths) > 1:
            raise FormatError(
                f"{where}: weight {name!r} of the nested model {entry.name!r} may belong to "
                f"{' or '.join('/'.join(path) for path in paths)}; save the model as .keras"
            )
        leaf = dict(leaves)[paths[0]]
        if not (leaf.wrapped and is_wrapper_variable(name)):
            assigned.setdefault(paths[0], []).append(variable)
    yield from assigned.items()


def _names_layer(prefix: str, leaf: LayerEntry) -> bool:
    return any(prefix == name or prefix.endswith("/" + name) for name in (leaf.key, leaf.name))


def _full_match(prefix: str, path: LayerPath) -> bool:
    return "/".join(path) == prefix or "/".join(path).endswith("/" + prefix) or prefix.endswith("/".join(path))
