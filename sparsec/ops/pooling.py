"""Pooling over windows, reductions over whole axes, and sums along one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import ClassVar

import numpy as np

from sparsec.ir import Array, Attrs, Shape, TensorType
from sparsec.ops.base import (
    Attribute,
    Kind,
    Op,
    expect_float,
    expect_number,
    given,
    integer,
    ints,
    normal_axis,
    register,
    required,
)
from sparsec.ops.channels import AlongSpace, Constants, NodeView, Positional
from sparsec.ops.windows import (
    WINDOW_ATTRIBUTES,
    axis_pads,
    check_window_attrs,
    expect_spatial,
    output_sizes,
    padded,
    taps,
)


class _Pool(Op):
    inputs = ("x",)
    attributes: ClassVar = {"window": Attribute(Kind.INTS), **WINDOW_ATTRIBUTES}

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x = required(inputs, 0, "x")
        expect_float(x, "x")
        check_window_attrs(attrs, expect_spatial(x))
        sizes = output_sizes(attrs, x.shape[1:-1], ints(attrs, "window"))
        return (TensorType(x.dtype, (x.shape[0], *sizes, x.shape[-1])),)


@register
class MaxPool(_Pool):
    """The maximum over each window; padding never wins."""

    name = "max_pool"
    channels: ClassVar = Positional(orders=True)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        x, window = given(inputs[0]), ints(attrs, "window")
        x = padded(x, axis_pads(attrs, x.shape[1:-1], window), -np.inf)
        result: Array | None = None
        for _, view in taps(x, window, ints(attrs, "strides"), ints(attrs, "dilations")):
            result = view.copy() if result is None else np.maximum(result, view, out=result)
        return (given(result),)


@register
class AvgPool(_Pool):
    """The mean over each window, over the positions that are not padding."""

    name = "avg_pool"
    channels: ClassVar = Positional(selects=False)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        x, window = given(inputs[0]), ints(attrs, "window")
        pads = axis_pads(attrs, x.shape[1:-1], window)
        total = self._sums(attrs, padded(x, pads))
        if any(before or after for before, after in pads):
            ones = np.ones((1, *x.shape[1:-1], 1), x.dtype)
            return (total / self._sums(attrs, padded(ones, pads)),)
        return (total / prod(window),)

    def _sums(self, attrs: Attrs, x: Array) -> Array:
        views = taps(x, ints(attrs, "window"), ints(attrs, "strides"), ints(attrs, "dilations"))
        total: Array | None = None
        for _, view in views:
            if total is None:
                total = view.copy()
            else:
                total += view
        return given(total)


class SumsAlongSpace(AlongSpace):
    """Sums over positions: only the constant 0 stays what it is, however many there are."""

    def constants(self, view: NodeView, facts: Mapping[str, Constants]) -> Constants:
        result = super().constants(view, facts)
        return Constants.of(result.known & (result.values == 0), result.values)


class _Reduce(Op):
    inputs = ("x",)
    attributes: ClassVar = {"axes": Attribute(Kind.INTS), "keepdims": Attribute(Kind.BOOL, False)}

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x = required(inputs, 0, "x")
        self.expect(x)
        return (TensorType(x.dtype, _left(x, ints(attrs, "axes"), attrs["keepdims"] is True)),)

    def expect(self, x: TensorType) -> None:
        """Check the dtype of the input."""
        expect_number(x, "x")

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        return (self.reduce(given(inputs[0]), ints(attrs, "axes"), attrs["keepdims"] is True),)

    def reduce(self, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
        """The reduction of an array."""
        raise NotImplementedError


def _left(x: TensorType, axes: Sequence[int], keepdims: bool) -> Shape:
    """The shape of ``x`` once ``axes`` are reduced."""
    reduced = {normal_axis(axis, x.rank) for axis in axes}
    sizes = [(1 if axis in reduced else size) for axis, size in enumerate(x.shape) if keepdims or axis not in reduced]
    return tuple(sizes)


@register
class ReduceMean(_Reduce):
    """The mean over whole axes."""

    name = "reduce_mean"
    channels: ClassVar = AlongSpace("axes", selects=False)

    def expect(self, x: TensorType) -> None:
        expect_float(x, "x")

    def reduce(self, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
        return np.asarray(x.mean(axis=axes, keepdims=keepdims))


@register
class ReduceMax(_Reduce):
    """The maximum over whole axes; of bool values, whether any holds."""

    name = "reduce_max"
    channels: ClassVar = AlongSpace("axes", orders=True)

    def expect(self, x: TensorType) -> None:
        """Any dtype has an order."""

    def reduce(self, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
        return np.asarray(x.max(axis=axes, keepdims=keepdims))


@register
class ReduceSum(_Reduce):
    """The sum over whole axes."""

    name = "reduce_sum"
    channels: ClassVar = SumsAlongSpace("axes")

    def reduce(self, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
        return np.asarray(x.sum(axis=axes, keepdims=keepdims, dtype=x.dtype))


@register
class ReduceProd(_Reduce):
    """The product over whole axes."""

    name = "reduce_prod"

    def reduce(self, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
        return np.asarray(x.prod(axis=axes, keepdims=keepdims, dtype=x.dtype))


@register
class Argmax(Op):
    """Where along an axis the maximum stands, the first of several."""

    name = "argmax"
    inputs = ("x",)
    attributes: ClassVar = {"axis": Attribute(Kind.INT), "keepdims": Attribute(Kind.BOOL, False)}

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x = required(inputs, 0, "x")
        expect_number(x, "x")
        return (TensorType("int64", _left(x, [integer(attrs, "axis")], attrs["keepdims"] is True)),)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        found = given(inputs[0]).argmax(axis=integer(attrs, "axis"), keepdims=attrs["keepdims"] is True)
        return (np.asarray(found, np.int64),)


@register
class Cumsum(Op):
    """Along an axis the sum of each element and those before it."""

    name = "cumsum"
    inputs = ("x",)
    channels: ClassVar = SumsAlongSpace("axis")
    attributes: ClassVar = {"axis": Attribute(Kind.INT)}

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x = required(inputs, 0, "x")
        expect_number(x, "x")
        normal_axis(integer(attrs, "axis"), x.rank)
        return (x,)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        x = given(inputs[0])
        return (x.cumsum(axis=integer(attrs, "axis"), dtype=x.dtype),)
