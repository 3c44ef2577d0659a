"""Variables in the tree of a ``model.weights.h5``, the weights file inside ``.keras``.

Below each model there is one group a layer, named after its class in snake case and numbered (``conv2d``, ``conv2d_1``), with
its variables ``vars/0``, ``vars/1``, ... in the order of ``layer.weights``. Files from recent versions of Keras also hold the
layer's name, as an attribute of ``vars``; without it the groups of a class, in the order of their numbers, are its layers in
the order of the configuration. The numbers themselves say less: Keras 2.13 counts a layer with weights twice. The parts of a
composite layer (the cell of a recurrent one, the projections of attention) are groups within its group, named after the
layer's attributes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from sparsec.errors import FormatError
from sparsec.frontends.hdf5 import MAX_DEPTH, H5Group
from sparsec.frontends.source import INNER, Config, LayerEntry, LayerPath, Variable, layer_entries

CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
"""The group that holds a model's layers: now, and in files that Keras 2.12 to 2.14 wrote."""

RANDOM_STATE = frozenset({"generator", "seed_generator", "_random_generator"})
"""Parts of layers that hold the state of random numbers, which inference does not draw."""

VARIABLES = "vars"


def snake_case(class_name: str) -> str:
    """The name under which Keras counts a class: ``BatchNormalization`` is ``batch_normalization``, ``Conv2D`` ``conv2d``."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def numbered_names(class_names: Sequence[str]) -> list[str]:
    """The names of the layers of these classes in a list that a layer holds."""
    counts: dict[str, int] = defaultdict(int)
    names = []
    for class_name in class_names:
        name = snake_case(class_name)
        names.append(f"{name}_{counts[name]}" if counts[name] else name)
        counts[name] += 1
    return names


Assets = Mapping[str, Variable]
"""What layers keep outside of the weights file, by the group that each would have in it."""


def tree_variables(root: H5Group, config: Config, where: str, assets: Assets) -> dict[LayerPath, Sequence[Variable]]:
    """The variables of every layer of the model that ``config`` describes, and of the parts of composite layers.

    An asset of a layer stands behind its variables.

    Raises:
        FormatError: layers and groups do not match one to one.
    """
    return dict(_model_variables(root, config, (), where, assets))


def _model_variables(
    model: H5Group, config: Config, path: LayerPath, where: str, assets: Assets
) -> Iterator[tuple[LayerPath, Sequence[Variable]]]:
    for entry, layer in _match(layer_entries(config, where), _layer_groups(model, where), where):
        layer_path = (*path, entry.key)
        if entry.is_model:
            yield from _model_variables(layer, entry.config, layer_path, where, assets)
        elif entry.wrapped and layer.holds("layer"):
            yield from _layer_variables(layer.group("layer"), layer_path, where, assets)
        elif entry.inner_model is not None and layer.holds(INNER):
            yield from _layer_variables(layer, layer_path, where, assets, skip=INNER)
            yield from _model_variables(layer.group(INNER), entry.inner_model, (*layer_path, INNER), where, assets)
        else:
            yield from _layer_variables(layer, layer_path, where, assets)


def _layer_groups(model: H5Group, where: str) -> dict[str, H5Group]:
    for container in CONTAINERS:
        if model.holds(container):
            return model.group(container).groups()
    if set(model.names()) <= {VARIABLES}:
        return {}
    raise FormatError(f"{where}: {model.name!r} in the weights file holds none of the groups {', '.join(CONTAINERS)}")


def _match(entries: Sequence[LayerEntry], groups: Mapping[str, H5Group], where: str) -> Iterator[tuple[LayerEntry, H5Group]]:
    stored = {key: layer.group(VARIABLES).text("name") if layer.holds(VARIABLES) else None for key, layer in groups.items()}
    keys = {name: key for key, name in stored.items() if name is not None}
    if len(keys) < len(groups):
        keys = _by_class(entries, groups)
    matched = set()
    for entry in entries:
        if entry.key in keys:
            matched.add(keys[entry.key])
            yield entry, groups[keys[entry.key]]
    for key in sorted(groups.keys() - matched):
        dataset = groups[key].first_dataset()
        if dataset is not None:
            raise FormatError(
                f"{where}: the weights file holds {dataset!r}, which cannot be assigned to a layer of the configuration; "
                "the two do not belong together: save the model again"
            )


def _by_class(entries: Sequence[LayerEntry], groups: Mapping[str, H5Group]) -> dict[str, str]:
    """The group of each layer, as far as its class has as many groups as layers."""
    listed: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        listed[snake_case(entry.stored_class_name.rpartition(">")[2])].append(entry.key)
    numbered: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for key in groups:
        base, _, number = key.rpartition("_")
        if key in listed or not number.isdecimal():
            base, number = key, "0"
        numbered[base].append((int(number), key))
    pairs = [(layers, sorted(numbered[base])) for base, layers in listed.items() if len(numbered[base]) == len(layers)]
    return {layer: key for layers, keys in pairs for layer, (_, key) in zip(layers, keys, strict=True)}


def _layer_variables(
    layer: H5Group, path: LayerPath, where: str, assets: Assets, skip: str = ""
) -> Iterator[tuple[LayerPath, Sequence[Variable]]]:
    """The variables of one layer, in order, and below its path those of its parts."""
    if len(path) > MAX_DEPTH:
        raise FormatError(f"{where}: the groups in {layer.name!r} are nested too deeply")
    for key, part in layer.groups().items():
        if key == VARIABLES:
            names = sorted((name for name in part.names() if name.isdecimal()), key=int)
            variables = [part.variable(name) for name in names]
            if layer.name in assets:
                variables.append(assets[layer.name])
            if variables:
                yield path, variables
        elif key not in RANDOM_STATE and key != skip:
            yield from _layer_variables(part, (*path, key), where, assets)
