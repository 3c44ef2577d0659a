"""A graph as the exporter sees it: types, readers, and transposition resolved to the value behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparsec.backends.onnx.layout import Order, through
from sparsec.ir import ABSENT, Attrs, Graph, Node, TensorType
from sparsec.ops import OPS, infer_types
from sparsec.ops.base import ints
from sparsec.ops.elementwise import Unary

POINTWISE = frozenset(name for name, op in OPS.items() if isinstance(op, Unary) and "axis" not in op.attributes)
"""Operators that map every element by itself, so that the sequence of the elements does not matter to them."""


@dataclass(frozen=True)
class GraphView:
    """A graph and what follows from it.

    Attributes:
        graph: the graph.
        types: the type of every value.
        readers: the nodes that read each value.
        leaving: the values that leave the graph.
        roots: for the result of a ``transpose``, the value that holds its elements, and the permutation from there. Transposing
            moves nothing in this exporter: whoever reads the result reads the root in another order.
    """

    graph: Graph
    types: Mapping[str, TensorType]
    readers: Mapping[str, list[Node]]
    leaving: frozenset[str]
    roots: Mapping[str, tuple[str, Order]]

    @classmethod
    def of(cls, graph: Graph) -> GraphView:
        """The view of a graph.

        Raises:
            GraphError: a node is malformed.
        """
        roots: dict[str, tuple[str, Order]] = {}
        for node in graph.nodes:
            if node.op == "transpose":
                source = node.inputs[0]
                root, before = roots.get(source, (source, None))
                permutation = ints(node.attrs, "permutation")
                roots[node.output] = root, permutation if before is None else through(permutation, before)
        return cls(graph, infer_types(graph), graph.consumers(), graph.output_values(), roots)

    def root(self, value: str) -> tuple[str, Order]:
        """The value that holds the elements of ``value``, and the root's axis behind each of its axes."""
        return self.roots.get(value) or (value, tuple(range(self.types[value].rank)))

    def is_constant(self, value: str) -> bool:
        """Whether a value is a weight, transposed or not."""
        return self.root(value)[0] in self.graph.weights


@dataclass(frozen=True)
class NodeFacts:
    """What a rule of layouts may ask about a node."""

    view: GraphView
    node: Node

    @property
    def attrs(self) -> Attrs:
        """The node's attributes."""
        return self.node.attrs

    @property
    def result(self) -> TensorType:
        """The type of the node's first output."""
        return self.view.types[self.node.outputs[0]]

    def given(self, index: int) -> bool:
        """Whether an input is there."""
        return index < len(self.node.inputs) and self.node.inputs[index] != ABSENT

    def type(self, index: int) -> TensorType:
        """The type of an input that is given."""
        return self.view.types[self.node.inputs[index]]

    def is_constant(self, index: int) -> bool:
        """Whether an input is a weight."""
        return self.view.is_constant(self.node.inputs[index])
