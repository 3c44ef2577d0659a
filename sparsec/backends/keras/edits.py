"""From a ShrinkPlan, which speaks of weights and nodes, to what happens to each layer of the source and its variables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsec.errors import InputError
from sparsec.frontends import Variable
from sparsec.frontends.source import INNER, Config, LayerEntry, LayerPath, MatrixView, Source, layer_entries
from sparsec.ir import Array, Graph, Node
from sparsec.passes.shrink import ShrinkPlan, WeightEdit


@dataclass(frozen=True)
class VariableEdit:
    """What happens to a variable.

    Attributes:
        edit: what happens to the weight behind which it stands.
        weight: that weight's path in the graph.
        view: how the weight is made of the variable; ``None`` where it is the variable itself.
        factor: what all values are multiplied by afterwards, where a number that the configuration states changes with them.
        widths: the sizes to which axes are filled up with zeros in the end, where the configuration has one number for several.
    """

    edit: WeightEdit
    weight: str = ""
    view: MatrixView | None = None
    factor: float = 1.0
    widths: Mapping[int, int] = field(default_factory=dict)

    def shape(self, before: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a variable that had the shape ``before``.

        Raises:
            InputError: what is left of axes that the weight merges is no array.
        """
        return tuple(self.widths.get(axis, size) for axis, size in enumerate(self._left(before)))

    def __call__(self, array: Array) -> Array:
        """The new values, in the dtype of the old ones; sums are done in float64 and rounded once."""
        return self._viewed(array, lambda weight: self._scaled(self.edit(weight)))

    def sliced(self, array: Array) -> Array:
        """An array that goes with the variable, such as a slot of an optimizer, without what goes."""
        return self._viewed(array, self.edit.sliced)

    def stated(self, weight: Array, before: tuple[int, ...]) -> Array:
        """The weight as it is read from what is written: of the shrunk graph's, with factor and zeros.

        Args:
            weight: of the shrunk graph.
            before: the shape of the variable before.
        """
        if self.view is None:
            return self._scaled(weight)
        return self.view.read(self._filled(self.view.stored(self._scaled(weight), self._left(before))))

    def _left(self, before: tuple[int, ...]) -> tuple[int, ...]:
        """The shape without the zeros."""
        if self.view is None:
            return self.edit.shape(before)
        after = list(before)
        for axis, merged in enumerate(self.view.merged()):
            if axis in self.edit.kept:
                for own, size in zip(merged, _left(self.edit.kept[axis], [before[own] for own in merged]), strict=True):
                    after[own] = size
        return tuple(after)

    def _viewed(self, array: Array, edit: Callable[[Array], Array]) -> Array:
        if self.view is None:
            return edit(array)
        return self._filled(self.view.stored(edit(self.view.read(array)), self._left(array.shape)))

    def _filled(self, array: Array) -> Array:
        return np.pad(array, [(0, self.widths.get(axis, size) - size) for axis, size in enumerate(array.shape)])

    def _scaled(self, weight: Array) -> Array:
        return weight if self.factor == 1.0 else (weight.astype(np.float64) * self.factor).astype(weight.dtype)


def _left(kept: Array, sizes: list[int]) -> list[int]:
    """The sizes of merged axes of which the indices ``kept`` are left: of the first one those with anything left.

    Each of them must have equally much left: of the second axis any of its indices, of further axes the same ones.
    """
    if len(sizes) < 2:
        return [kept.size] * len(sizes)
    first, *rest = np.unravel_index(kept, sizes)
    counts = [np.unique(first).size, *(np.unique(axis).size for axis in rest)]
    if len(sizes) == 2:
        counts[1] = kept.size // counts[0]
        if np.unique(np.unique(first, return_counts=True)[1]).size > 1:
            counts[1] = 0
    if int(np.prod(counts)) != kept.size:
        raise InputError("what is left of a layer's heads cannot be written back to Keras: they are not equally large")
    return counts


@dataclass(frozen=True)
class AddedBias:
    """A bias that a layer had not.

    Attributes:
        kernel: the layer's variable that it goes with.
        values: in float64, channels that go left out.
    """

    kernel: int
    values: Array


@dataclass
class LayerEdit:
    """What happens to one layer.

    Attributes:
        variables: its variables that change, by their place in ``layer.weights``.
        constants: the numbers in its configuration that change, by name; no variable stands behind them.
        bias: the bias that it gets.
        nodes: the nodes it became whose attributes change, before and after.
    """

    variables: dict[int, VariableEdit] = field(default_factory=dict)
    constants: dict[str, WeightEdit] = field(default_factory=dict)
    bias: AddedBias | None = None
    nodes: list[tuple[Node, Node]] = field(default_factory=list)


Edits = Mapping[LayerPath, LayerEdit]


def joined(edits: Iterable[LayerEdit]) -> LayerEdit:
    """What happens to a layer and its parts together, its variables left out: their places are those of the parts."""
    whole = LayerEdit()
    for edit in edits:
        whole.constants.update(edit.constants)
        whole.nodes.extend(edit.nodes)
        whole.bias = edit.bias if whole.bias is None else whole.bias
    return whole


class UnwritableError(InputError):
    """Layers cannot be written back to Keras with fewer channels.

    Attributes:
        layers: the reason of each, by path.
    """

    def __init__(self, where: str, layers: Mapping[str, str]) -> None:
        first, reason = next(iter(layers.items()))
        super().__init__(
            f"{where}: layer {first!r} loses channels, but cannot be written back to Keras: {reason}; write a bundle or "
            "ONNX, or compile without shrinking"
        )
        self.layers = layers


@dataclass(frozen=True)
class Interpreted:
    """A source and what the front-end made of it.

    Attributes:
        source: the configuration and the variables by layer.
        graph: what the model computes.
        variables: the variable behind each weight of the graph that has one.
        views: how a weight is made of its variable, where it is not the variable itself.
    """

    source: Source
    graph: Graph
    variables: Mapping[str, Variable]
    views: Mapping[str, MatrixView]


def walk(config: Config, where: str, prefix: LayerPath = ()) -> Iterator[tuple[LayerPath, LayerEntry, dict[str, Any]]]:
    """Every layer of a model, those of nested models and of models inside layers after it, with its serialised object."""
    for entry, item in zip(layer_entries(config, where), config["layers"], strict=True):
        path = (*prefix, entry.key)
        yield path, entry, item
        if entry.is_model:
            yield from walk(entry.config, where, path)
        elif entry.inner_model is not None:
            yield from walk(entry.inner_model, where, (*path, INNER))


def parts_of(path: LayerPath, entry: LayerEntry, paths: Iterable[LayerPath]) -> list[LayerPath]:
    """Those of ``paths`` that belong to a layer, or to a part of it that is no layer of :func:`walk`."""
    holds_layers = entry.is_model or entry.inner_model is not None
    return [other for other in paths if other == path or (not holds_layers and other[: len(path)] == path)]


def layer_edits(model: Interpreted, plan: ShrinkPlan, shrunk: Graph) -> dict[LayerPath, LayerEdit]:
    """What a plan does to each layer.

    Args:
        model: the source.
        plan: made for the model's graph.
        shrunk: the graph with the plan applied.

    Raises:
        InputError: the plan speaks of something that is not found in the source, or not in one place alone.
    """
    return _Collector(model).collect(plan, shrunk)


class _Collector:
    def __init__(self, model: Interpreted) -> None:
        self._model = model
        self._where = model.source.description
        self._edits: dict[LayerPath, LayerEdit] = {}
        self._places = {
            variable.location: (path, index)
            for path, variables in model.source.variables.items()
            for index, variable in enumerate(variables)
        }
        self._named: dict[str, list[LayerPath]] = {}
        for path, entry, _ in walk(model.source.config, self._where):
            self._named.setdefault("/".join((*path[:-1], entry.name)), []).append(path)

    def collect(self, plan: ShrinkPlan, shrunk: Graph) -> dict[LayerPath, LayerEdit]:
        for path, edit in plan.edits.items():
            self._add_edit(path, edit)
        for kernel, values in plan.added_biases.items():
            layer, index = self._place(kernel)
            self._edits.setdefault(layer, LayerEdit()).bias = AddedBias(index, values)
        for before, after in zip(self._model.graph.nodes, shrunk.nodes, strict=True):
            if before.attrs != after.attrs:
                self._edits.setdefault(self._layer(before.layer), LayerEdit()).nodes.append((before, after))
        return self._edits

    def _add_edit(self, path: str, edit: WeightEdit) -> None:
        if path in self._model.variables:
            layer, index = self._place(path)
            change = VariableEdit(edit, path, self._model.views.get(path))
            self._edits.setdefault(layer, LayerEdit()).variables[index] = change
        else:
            name, _, constant = path.rpartition("/")
            self._edits.setdefault(self._layer(name), LayerEdit()).constants[constant] = edit

    def _place(self, weight: str) -> tuple[LayerPath, int]:
        return self._places[self._model.variables[weight].location]

    def _layer(self, name: str) -> LayerPath:
        whole = name
        while whole not in self._named and "/" in whole:
            # The name of a part begins with that of the layer.
            whole = whole.rpartition("/")[0]
        paths = self._named.get(whole, [])
        if len(paths) != 1:
            what = "two layers share that name" if paths else "there is no such layer"
            raise UnwritableError(self._where, {name: what})
        return paths[0]
