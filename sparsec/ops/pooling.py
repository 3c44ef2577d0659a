"""Pooling over windows and reductions over whole axes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import numpy as np

from sparsec.ir import Array, Attrs, Dim, TensorType
from sparsec.ops.base import (
    Attribute,
    Kind,
    Op,
    expect_float,
    given,
    ints,
    normal_axis,
    register,
    required,
)
from sparsec.ops.channels import AlongSpace, Positional
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


class _Reduce(Op):
    inputs = ("x",)
    attributes: ClassVar = {"axes": Attribute(Kind.INTS), "keepdims": Attribute(Kind.BOOL, False)}

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x = required(inputs, 0, "x")
        expect_float(x, "x")
        axes = {normal_axis(axis, x.rank) for axis in ints(attrs, "axes")}
        kept: list[Dim] = []
        for axis, dim in enumerate(x.shape):
            if axis not in axes:
                kept.append(dim)
            elif attrs["keepdims"]:
                kept.append(1)
        return (TensorType(x.dtype, tuple(kept)),)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        return (self.reduce(given(inputs[0]), ints(attrs, "axes"), attrs["keepdims"] is True),)

    def reduce(self, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
        """The reduction of an array."""
        raise NotImplementedError


@register
class ReduceMean(_Reduce):
    """The mean over whole axes."""

    name = "reduce_mean"
    channels: ClassVar = AlongSpace("axes", selects=False)

    def reduce(self, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
        return np.asarray(x.mean(axis=axes, keepdims=keepdims))


@register
class ReduceMax(_Reduce):
    """The maximum over whole axes."""

    name = "reduce_max"
    channels: ClassVar = AlongSpace("axes", orders=True)

    def reduce(self, x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
        return np.asarray(x.max(axis=axes, keepdims=keepdims))
