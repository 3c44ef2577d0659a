"""Normalisation operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from sparsec.ir import Array, Attrs, Shape, TensorType
from sparsec.ops.base import (
    Attribute,
    Kind,
    Op,
    expect_dtype,
    expect_float,
    expect_shape,
    given,
    integer,
    ints,
    normal_axis,
    number,
    optional,
    optional_array,
    register,
    required,
)
from sparsec.ops.channels import Scaling


@register
class BatchNorm(Op):
    """``(x - mean) / sqrt(variance + epsilon) * gamma + beta`` with stored statistics, per channel of one axis.

    Ioffe and Szegedy 2015, algorithm 2.
    """

    name = "batch_norm"
    inputs = ("x", "gamma?", "beta?", "mean", "variance")
    channels: ClassVar = Scaling(factor=1)
    attributes: ClassVar = {"axis": Attribute(Kind.INT, -1), "epsilon": Attribute(Kind.FLOAT)}

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x = required(inputs, 0, "x")
        expect_float(x, "x")
        axis = normal_axis(integer(attrs, "axis"), x.rank)
        required(inputs, 3, "mean")
        required(inputs, 4, "variance")
        for index, label in enumerate(("gamma", "beta", "mean", "variance"), start=1):
            expect_dtype(optional(inputs, index), x.dtype, label)
            expect_shape(optional(inputs, index), (x.shape[axis],), label)
        return (x,)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        x, gamma, beta, mean, variance = inputs
        x = given(x)
        shape = [1] * x.ndim
        shape[integer(attrs, "axis")] = -1
        scale = 1.0 / np.sqrt(given(variance) + number(attrs, "epsilon"))
        if gamma is not None:
            scale = scale * gamma
        y = (x - given(mean).reshape(shape)) * scale.reshape(shape)
        if beta is not None:
            y += beta.reshape(shape)
        return (y,)


@register
class LayerNorm(Op):
    """``(x - mean) / sqrt(variance + epsilon) * gamma + beta`` with statistics over ``axes`` of each sample.

    ``gamma`` and ``beta`` have the sizes of those axes. Ba, Kiros and Hinton 2016, equation 3.
    """

    name = "layer_norm"
    inputs = ("x", "gamma?", "beta?")
    attributes: ClassVar = {"axes": Attribute(Kind.INTS), "epsilon": Attribute(Kind.FLOAT)}

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x = required(inputs, 0, "x")
        expect_float(x, "x")
        axes = sorted(normal_axis(axis, x.rank) for axis in ints(attrs, "axes"))
        shape: Shape = tuple(x.shape[axis] for axis in axes)
        for index, label in enumerate(("gamma", "beta"), start=1):
            expect_dtype(optional(inputs, index), x.dtype, label)
            expect_shape(optional(inputs, index), shape, label)
        return (x,)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        x = given(inputs[0])
        axes = tuple(sorted(normal_axis(axis, x.ndim) for axis in ints(attrs, "axes")))
        shape = [x.shape[axis] if axis in axes else 1 for axis in range(x.ndim)]
        centred = x - x.mean(axis=axes, keepdims=True)
        variance = np.square(centred).mean(axis=axes, keepdims=True)
        y = centred / np.sqrt(variance + number(attrs, "epsilon"))
        gamma, beta = optional_array(inputs, 1), optional_array(inputs, 2)
        if gamma is not None:
            y *= gamma.reshape(shape)
        if beta is not None:
            y += beta.reshape(shape)
        return (y,)
