"""Variables in the tree of a ``model.weights.h5``, the weights file inside ``.keras``.

Below each model there is one group a layer, named after the layer's class in snake case and counted (``conv2d``, ``conv2d_1``), its
variables under ``vars/0``, ``vars/1``, ... in the order of ``layer.weights``. Files from recent versions of Keras also hold the layer's
name, as an attribute of ``vars``; without it the classes are counted in the order of the configuration.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsec.errors import FormatError
from sparsec.frontends.source import Config, LayerEntry, LayerPath, Variable, layer_entries
from sparsec.ir import Array

if TYPE_CHECKING:
    import h5py

CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
"""The group that holds a model's layers: now, and in files that Keras 2.12 to 2.15 wrote."""


def snake_case(class_name: str) -> str:
    """The name under which Keras counts a class: ``BatchNormalization`` is ``batch_normalization``, ``Conv2D`` ``conv2d``."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def tree_variables(root: h5py.Group, config: Config, where: str) -> dict[LayerPath, Sequence[Variable]]:
    """The variables of every layer of the model that ``config`` describes.

    Raises:
        FormatError: layers and groups do not match one to one.
    """
    return dict(_model_variables(root, config, (), where))


def _model_variables(
    group: h5py.Group, config: Config, path: LayerPath, where: str
) -> Iterator[tuple[LayerPath, Sequence[Variable]]]:
    groups = _layer_groups(group, where)
    matched = _match(layer_entries(config, where), groups, "/".join((where, *path)))
    for entry, layer_group in matched:
        layer_path = (*path, entry.key)
        if entry.is_model:
            yield from _model_variables(layer_group, entry.config, layer_path, where)
            continue
        inner = layer_group.get("layer", layer_group) if entry.wrapped else layer_group
        variables = _vars(inner)
        if variables:
            yield layer_path, variables


def _layer_groups(group: h5py.Group, where: str) -> dict[str, h5py.Group]:
    for container in CONTAINERS:
        if container in group:
            return dict(group[container].items())
    if not group.keys() - {"vars"}:
        return {}
    raise FormatError(f"{where}: {group.name!r} in the weights file holds none of the groups {', '.join(CONTAINERS)}")


def _match(
    entries: Sequence[LayerEntry], groups: dict[str, h5py.Group], where: str
) -> Iterator[tuple[LayerEntry, h5py.Group]]:
    names = {key: _stored_name(group) for key, group in groups.items()}
    by_name = {name: key for key, name in names.items() if name is not None}
    if len(by_name) == len(groups):
        for entry in entries:
            if entry.key in by_name:
                yield entry, groups[by_name[entry.key]]
        return
    counts: Counter[str] = Counter()
    expected: set[str] = set()
    for entry in entries:
        base = snake_case(entry.stored_class_name)
        key = f"{base}_{counts[base]}" if counts[base] else base
        counts[base] += 1
        if key in groups:
            expected.add(key)
            yield entry, groups[key]
    unmatched = [key for key in sorted(groups.keys() - expected) if _holds_variables(groups[key])]
    if unmatched:
        raise FormatError(
            f"{where}: the weights file has a group {unmatched[0]!r} that no layer of the configuration accounts for; "
            "the file states no layer names, so the layers cannot be told apart: save the model again with a recent Keras"
        )


def _stored_name(group: h5py.Group) -> str | None:
    variables = group.get("vars")
    if variables is None or "name" not in variables.attrs:
        return None
    name = variables.attrs["name"]
    return name.decode() if isinstance(name, bytes) else str(name)


def _holds_variables(group: h5py.Group) -> bool:
    found: list[str] = []
    group.visititems(lambda name, item: found.append(name) if hasattr(item, "shape") else None)
    return bool(found)


def _vars(group: h5py.Group) -> list[Variable]:
    """The variables of one layer: its own, in order; sub-layers (seed generators and the like) are not its variables."""
    variables = group.get("vars")
    if variables is None:
        return []
    keys = sorted((key for key in variables if key.isdigit()), key=int)
    return [h5_variable(variables[key]) for key in keys]


def h5_variable(dataset: h5py.Dataset) -> Variable:
    """A variable stored as an HDF5 dataset."""
    return Variable(str(dataset.name), tuple(int(size) for size in dataset.shape), _loader(dataset))


def _loader(dataset: Any) -> Callable[[], Array]:
    return lambda: np.asarray(dataset[()])
