"""From a ShrinkPlan, which speaks of weights and nodes, to what happens to each layer of the source and its variables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sparsec.errors import InputError
from sparsec.frontends import Variable
from sparsec.frontends.source import Config, LayerEntry, LayerPath, Source, layer_entries
from sparsec.ir import Array, Graph, Node
from sparsec.passes.shrink import ShrinkPlan, WeightEdit


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

    variables: dict[int, WeightEdit] = field(default_factory=dict)
    constants: dict[str, WeightEdit] = field(default_factory=dict)
    bias: AddedBias | None = None
    nodes: list[tuple[Node, Node]] = field(default_factory=list)


Edits = Mapping[LayerPath, LayerEdit]


@dataclass(frozen=True)
class Interpreted:
    """A source and what the front-end made of it.

    Attributes:
        source: the configuration and the variables by layer.
        graph: what the model computes.
        variables: the variable behind each weight of the graph that has one.
    """

    source: Source
    graph: Graph
    variables: Mapping[str, Variable]


def walk(config: Config, where: str, prefix: LayerPath = ()) -> Iterator[tuple[LayerPath, LayerEntry, dict[str, Any]]]:
    """Every layer of a model, those of nested models after it, with its serialised object."""
    for entry, item in zip(layer_entries(config, where), config["layers"], strict=True):
        path = (*prefix, entry.key)
        yield path, entry, item
        if entry.is_model:
            yield from walk(entry.config, where, path)


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
            self._edits.setdefault(layer, LayerEdit()).variables[index] = edit
        else:
            name, _, constant = path.rpartition("/")
            self._edits.setdefault(self._layer(name), LayerEdit()).constants[constant] = edit

    def _place(self, weight: str) -> tuple[LayerPath, int]:
        return self._places[self._model.variables[weight].location]

    def _layer(self, name: str) -> LayerPath:
        paths = self._named.get(name, [])
        if len(paths) != 1:
            what = "two layers share that name" if paths else "there is no such layer"
            raise InputError(f"{self._where}: layer {name!r} shrinks, but cannot be written back: {what}")
        return paths[0]
