"""Building a Graph while layers are read: names, weights, and types as they become known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sparsec.errors import GraphError, InputError, UnsupportedLayerError
from sparsec.frontends.layer import Value
from sparsec.frontends.source import LayerPath, SavedBy, Variable
from sparsec.ir import Array, Graph, Input, Node, Port, TensorType, weight_type
from sparsec.ops import make_node
from sparsec.ops.typing import infer_node


class GraphBuilder:
    """Collects nodes, weights and inputs.

    Attributes:
        saved_by: the version of Keras that wrote the model.
        read: the variable of the source behind each weight that has one.
    """

    def __init__(self, saved_by: SavedBy, variables: Mapping[LayerPath, Sequence[Variable]]) -> None:
        self.saved_by = saved_by
        self.read: dict[str, Variable] = {}
        self._variables = variables
        self._types: dict[str, TensorType] = {}
        self._weights: dict[str, Array] = {}
        self._nodes: list[Node] = []
        self._inputs: list[Input] = []

    def variables_of(self, path: LayerPath) -> Sequence[Variable]:
        """The stored variables of the layer at ``path``."""
        return self._variables.get(path, ())

    def input(self, name: str, type_: TensorType) -> Value:
        """Add a graph input."""
        self._define(name, type_)
        self._inputs.append(Input(name, type_))
        return Value(name, type_)

    def weight(self, path: str, variable: Variable) -> Value:
        """The weight at ``path``, read from its variable the first time.

        Raises:
            InputError: a value of it is not finite.
        """
        if path not in self._weights:
            array = variable.load()
            if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
                raise InputError(
                    f"weight {path!r} holds values that are not finite (NaN or infinity), so outputs mean nothing; "
                    "train the model again or restore an earlier checkpoint"
                )
            self.read[path] = variable
            self._add_weight(path, array)
        return Value(path, self._types[path])

    def constant(self, path: str, array: Array) -> Value:
        """The constant at ``path``; the same path always means the same constant."""
        if path not in self._weights:
            self._add_weight(path, array)
        return Value(path, self._types[path])

    def emit(self, op: str, base: str, inputs: Sequence[str], layer: str, attrs: Mapping[str, object]) -> Value:
        """Add a node whose name starts with ``base``.

        Raises:
            UnsupportedLayerError: the inputs do not fit the operator.
        """
        name = self._free_name(base, op)
        try:
            node = make_node(op, name, inputs, [name], layer, **attrs)
            (type_,) = infer_node(node, self._types)
        except GraphError as error:
            raise UnsupportedLayerError(str(error)) from None
        self._define(name, type_)
        self._nodes.append(node)
        return Value(name, type_)

    def finish(self, outputs: Sequence[tuple[str, Value]], name: str) -> Graph:
        """The graph with these outputs."""
        ports = tuple(Port(public, value.name) for public, value in outputs)
        return Graph(tuple(self._inputs), ports, tuple(self._nodes), self._weights, name)

    def _free_name(self, base: str, op: str) -> str:
        if base not in self._types:
            return base
        name, count = f"{base}/{op}", 0
        while name in self._types:
            count += 1
            name = f"{base}/{op}_{count}"
        return name

    def _define(self, name: str, type_: TensorType) -> None:
        if name in self._types:
            raise InputError(f"the model uses the name {name!r} twice")
        self._types[name] = type_

    def _add_weight(self, path: str, array: Array) -> None:
        self._define(path, weight_type(array))
        self._weights[path] = array
