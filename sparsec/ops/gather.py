"""Selecting elements by index: tables that are looked up, and positions that are picked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from sparsec.errors import GraphError, InputError
from sparsec.ir import Array, Attrs, TensorType
from sparsec.ops.base import Attribute, Kind, Op, given, integer, normal_axis, register, required
from sparsec.ops.channels import ChannelRule, Constants, Mask, NodeView, Ties


class LookingUp(ChannelRule):
    """Rows of a stored table: channel c of the output is column c of the table, constant where that is one number."""

    def applies(self, view: NodeView) -> str:
        if not view.is_weight(0) or view.computed() != [1]:
            return "gather from a computed value"
        rank = view.types[view.node.inputs[0]].rank
        if rank < 2 or view.attrs["axis"] in (-1, rank - 1):
            return "gather along the channels"
        return ""

    def tie(self, view: NodeView, ties: Ties) -> None:
        table, indices = view.node.inputs
        ids = ties.fresh(view.channels(view.node.output))
        ties.tie_weight(table, view.types[table].rank - 1, ids)
        ties.tie_value(view.node.output, ids)
        ties.pin(ties.value(indices), "gather needs every index")

    @staticmethod
    def _rows(view: NodeView) -> Array:
        table = view.weight(0)
        assert table is not None
        return table.reshape(-1, table.shape[-1])

    def constants(self, view: NodeView, facts: Mapping[str, Constants]) -> Constants:
        rows = self._rows(view)
        return Constants.of(np.asarray((rows == rows[:1]).all(axis=0)), rows[0].astype(np.float64))

    def reads(self, view: NodeView, read: Mask) -> dict[str, Mask]:
        return {view.node.inputs[1]: np.ones(view.channels(view.node.inputs[1]), bool)}


@register
class Gather(Op):
    """Elements of ``x`` along one axis, which the axes of ``indices`` take the place of; negative ones count from the end."""

    name = "gather"
    inputs = ("x", "indices")
    attributes: ClassVar = {"axis": Attribute(Kind.INT, 0)}
    matrix_rows: ClassVar = {0: (-1,)}
    channels: ClassVar = LookingUp()

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x, indices = required(inputs, 0, "x"), required(inputs, 1, "indices")
        if indices.dtype not in ("int32", "int64"):
            raise GraphError(f"input 'indices' has dtype {indices.dtype}, int32 or int64 was expected")
        axis = normal_axis(integer(attrs, "axis"), x.rank)
        return (TensorType(x.dtype, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])),)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        x, indices = given(inputs[0]), given(inputs[1])
        axis = integer(attrs, "axis")
        try:
            return (np.take(x, indices, axis=axis),)
        except IndexError:
            raise InputError(
                f"an index is outside of a table of {x.shape[axis]} entries: {indices.min()} to {indices.max()} were given"
            ) from None
