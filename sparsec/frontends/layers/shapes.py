"""Reshaping where sizes may be open."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.frontends.layer import Layer, Value
from sparsec.ir import Dim


def reshaped(layer: Layer, x: Value, sizes: Sequence[Dim]) -> Value:
    """``x`` in another shape; open sizes are copied from their axis, and one may stand elsewhere."""
    if x.shape == tuple(sizes):
        return x
    entries: list[int] = []
    for axis, size in enumerate(sizes):
        if isinstance(size, int):
            entries.append(size)
        elif axis < x.rank and x.shape[axis] == size:
            entries.append(0)
        elif -1 not in entries:
            entries.append(-1)
        else:
            layer.refuse(f"several open sizes of {x.type} would change places; give them with --input-shape")
    return layer.emit("reshape", x, shape=entries)


def transposed(layer: Layer, x: Value, order: Sequence[int]) -> Value:
    """``x`` with its axes in another order."""
    return x if list(order) == list(range(x.rank)) else layer.emit("transpose", x, permutation=tuple(order))


def with_axis(layer: Layer, x: Value, axis: int) -> Value:
    """``x`` with an axis of size 1 before ``axis``, whatever is open."""
    last = layer.emit("reshape", x, shape=(*(0,) * x.rank, 1))
    return transposed(layer, last, (*range(axis), x.rank, *range(axis, x.rank)))
