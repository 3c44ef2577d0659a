"""What the exporter of one node sees: its inputs in their layouts, and ways to emit ONNX nodes for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sparsec.backends.onnx.assign import Placement
from sparsec.backends.onnx.builder import Builder
from sparsec.backends.onnx.draft import AttributeValue
from sparsec.backends.onnx.layout import Demand, Layout, Order, order_of
from sparsec.backends.onnx.view import NodeFacts
from sparsec.errors import UnsupportedOperatorError
from sparsec.ir import Array, Dim, Shape


@dataclass(frozen=True)
class Site(NodeFacts):
    """A node, and the draft in which ONNX nodes are emitted for it.

    Attributes:
        builder: the draft under construction.
        placement: the node's layouts.
    """

    builder: Builder
    placement: Placement

    # --- inputs -------------------------------------------------------------------------------------------------------

    def layout(self, index: int = 0) -> Layout:
        """The layout in which an input is read."""
        demand = self.placement.demands.inputs[index]
        if self.type(index).rank < 3:
            return Layout.LAST
        if demand is Demand.FREE:
            return self.builder.available(self.node.inputs[index])
        return {Demand.FIRST: Layout.FIRST, Demand.LAST: Layout.LAST, Demand.SAME: self.placement.inner}[demand]

    def order(self, index: int = 0) -> Order:
        """The order in which an input is read."""
        return order_of(self.layout(index), self.type(index).rank)

    @property
    def result_order(self) -> Order:
        """The order in which the first output is defined."""
        return self.order_at(0)

    def order_at(self, output: int) -> Order:
        """The order in which an output is defined."""
        return order_of(self.placement.output, self.view.types[self.node.outputs[output]].rank)

    def weight(self, index: int) -> Array:
        """The elements of an input, which must be a weight.

        Raises:
            UnsupportedOperatorError: it is computed.
        """
        if not self.is_constant(index):
            raise self.refusal("a weight is computed while the model runs")
        path, permutation = self.view.root(self.node.inputs[index])
        return self.view.graph.weights[path].transpose(permutation)

    def read(self, index: int = 0) -> str:
        """The name of an input in its layout."""
        return self.builder.read(self.node.inputs[index], self.order(index))

    def sizes(self, index: int = 0) -> Shape:
        """The shape of an input as it is stored."""
        return tuple(self.type(index).shape[axis] for axis in self.order(index))

    def reshaped(
        self,
        index: int,
        expand: tuple[int, ...] | None = None,
        order: Order | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> str:
        """An input, usually a weight, in another form; see :meth:`Builder.weight`."""
        value, rank = self.node.inputs[index], self.type(index).rank
        if self.view.is_constant(value):
            return self.builder.weight(value, expand, order, shape)
        if expand is None:
            name = self.builder.read(value, order or tuple(range(rank)))
        else:
            name = self._reshape(self.builder.read(value, tuple(range(rank))), expand)
            if order is not None and order != tuple(range(len(order))):
                name = self.add("Transpose", name, perm=order)
        return name if shape is None else self._reshape(name, shape)

    def _reshape(self, name: str, shape: tuple[int, ...]) -> str:
        return self.add("Reshape", name, self.ints(shape))

    def operand(self, index: int) -> str:
        """An input that broadcasts against the output, aligned with the output's order."""
        rank, own, order = self.result.rank, self.type(index).shape, self.result_order
        if len(own) == rank:
            return self.builder.read(self.node.inputs[index], order)
        if not own or order == tuple(range(rank)):
            return self.builder.read(self.node.inputs[index], tuple(range(len(own))))
        if len(own) == 1:
            return self.vector(index, rank - 1)
        full = (1,) * (rank - len(own)) + tuple(self.known(size) for size in own)
        return self.reshaped(index, full, order)

    def vector(self, index: int, axis: int) -> str:
        """A vector along one axis of the graph's value, aligned with the output's order."""
        order = self.result_order
        length = self.known(self.type(index).shape[0])
        return self.reshaped(index, expand=(length, *(1,) * (len(order) - 1 - order.index(axis))))

    def known(self, dim: Dim) -> int:
        """A size that must be known.

        Raises:
            UnsupportedOperatorError: it is not.
        """
        if not isinstance(dim, int):
            raise self.refusal(f"a size is {dim}, which is not known before the model runs; give it with --input-shape")
        return dim

    def refusal(self, reason: str) -> UnsupportedOperatorError:
        """The error that says why this node cannot be exported."""
        where = f" of layer {self.node.layer!r}" if self.node.layer else ""
        return UnsupportedOperatorError(f"node {self.node.name!r} ({self.node.op}){where} as ONNX: {reason}")

    # --- constants ----------------------------------------------------------------------------------------------------

    def number(self, value: float) -> str:
        """A scalar in the dtype of the first input."""
        return self.array(np.array(value, self.type(0).dtype))

    def ints(self, values: Iterable[int]) -> str:
        """A vector of int64."""
        return self.array(np.array(tuple(values), np.int64))

    def array(self, array: Array, role: str = "constant") -> str:
        """Any constant; ``role`` names it below the node where it is not small."""
        return self.builder.constant(array, f"{self.node.name}/{role}")

    # --- nodes --------------------------------------------------------------------------------------------------------

    def add(self, op_type: str, *inputs: str, **attributes: AttributeValue) -> str:
        """Append a node for an intermediate value; the value's name."""
        name = f"{self.node.name}/{op_type}"
        return self.builder.intermediate(op_type, name, inputs, self.node.layer, **attributes)

    def finish(self, op_type: str, *inputs: str, **attributes: AttributeValue) -> None:
        """Append the node that defines the only output, or the first."""
        self.finish_at(0, op_type, *inputs, **attributes)

    def finish_at(self, index: int, op_type: str, *inputs: str, **attributes: AttributeValue) -> None:
        """Append the node that defines one of the outputs."""
        output = self.builder.define(self.node.outputs[index], self.order_at(index))
        self.builder.add(op_type, self.node.name, inputs, (output,), attributes, self.node.layer)

    def target(self, source: str, before: Sequence[Dim], after: Sequence[Dim]) -> str:
        """The target of a Reshape of the stored value ``source``; see :meth:`Builder.sizes`."""
        return self.builder.sizes(source, before, after, self.node.name)
