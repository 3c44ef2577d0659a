"""Linear operators: each output channel is a weighted sum of input channels, plus a bias.

Weights keep the layout in which Keras stores them, so that a weight of the graph is a variable of the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from sparsec.errors import GraphError
from sparsec.ir import Array, Attrs, Dim, TensorType, product
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
    optional,
    optional_array,
    register,
    required,
    static,
)
from sparsec.ops.channels import PerChannel, Summing
from sparsec.ops.windows import (
    WINDOW_ATTRIBUTES,
    axis_pads,
    check_window_attrs,
    columns,
    expect_spatial,
    extent,
    output_sizes,
    padded,
    scatter,
    taps,
)


def _with_bias(y: Array, bias: Array | None) -> Array:
    if bias is not None:
        y += bias
    return y


def _operands(inputs: Sequence[TensorType | None]) -> tuple[TensorType, TensorType, TensorType | None]:
    """The types of x, kernel and bias, which are floating-point and of one dtype.

    Raises:
        GraphError: one is missing or has another dtype.
    """
    x, kernel, bias = required(inputs, 0, "x"), required(inputs, 1, "kernel"), optional(inputs, 2)
    expect_float(x, "x")
    expect_dtype(kernel, x.dtype, "kernel")
    expect_dtype(bias, x.dtype, "bias")
    return x, kernel, bias


def _per_element(outputs: Sequence[TensorType], products: Sequence[Dim]) -> Dim:
    """The multiply-accumulates where each element of the output sums this many products."""
    return product((*outputs[0].shape, *products))


@register
class Dense(Op):
    """``x @ kernel + bias`` over the last axis; ``kernel`` is ``[in, out]``."""

    name = "dense"
    inputs = ("x", "kernel", "bias?")
    matrix_rows: ClassVar = {1: (1,)}
    channels: ClassVar = Summing(in_axis=-2, out_axis=-1)

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x, kernel, bias = _operands(inputs)
        if x.rank < 2 or kernel.rank != 2:
            raise GraphError(f"x {x} and kernel {kernel} are not [..., in] and [in, out]")
        expect_shape(kernel, (x.shape[-1], kernel.shape[1]), "kernel")
        expect_shape(bias, (kernel.shape[1],), "bias")
        return (TensorType(x.dtype, (*x.shape[:-1], kernel.shape[1])),)

    def macs(self, attrs: Attrs, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]) -> Dim:
        return _per_element(outputs, required(inputs, 1, "kernel").shape[:1])

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        return (_with_bias(given(inputs[0]) @ given(inputs[1]), optional_array(inputs, 2)),)


@register
class Conv(Op):
    """A convolution of 1 to 3 spatial axes; ``kernel`` is ``[*window, in / groups, out]``.

    Output channels ``g * out / groups`` onwards read only the input channels of group ``g``.
    """

    name = "conv"
    inputs = ("x", "kernel", "bias?")
    attributes: ClassVar = {**WINDOW_ATTRIBUTES, "groups": Attribute(Kind.INT, 1)}
    matrix_rows: ClassVar = {1: (-1,)}
    channels: ClassVar = Summing(in_axis=-2, out_axis=-1)

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x, kernel, bias = _operands(inputs)
        rank = expect_spatial(x)
        check_window_attrs(attrs, rank)
        groups = integer(attrs, "groups")
        if kernel.rank != rank + 2:
            raise GraphError(f"kernel {kernel} has not {rank} spatial axes, as x {x} has")
        channels, filters = static(x.shape[-1], "the channel count"), static(kernel.shape[-1], "the filter count")
        if groups < 1 or channels % groups or filters % groups or kernel.shape[-2] != channels // groups:
            raise GraphError(f"x {x} and kernel {kernel} do not fit with {groups} groups")
        expect_shape(bias, (filters,), "bias")
        window = [static(size, "the window") for size in kernel.shape[:-2]]
        return (TensorType(x.dtype, (x.shape[0], *output_sizes(attrs, x.shape[1:-1], window), filters)),)

    def macs(self, attrs: Attrs, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]) -> Dim:
        return _per_element(outputs, required(inputs, 1, "kernel").shape[:-1])

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        x, kernel = given(inputs[0]), given(inputs[1])
        window, filters, groups = kernel.shape[:-2], kernel.shape[-1], integer(attrs, "groups")
        strides, dilations = ints(attrs, "strides"), ints(attrs, "dilations")
        sizes = output_sizes(attrs, x.shape[1:-1], window)
        x = padded(x, axis_pads(attrs, x.shape[1:-1], window))
        y = np.empty((x.shape[0], *(static(size, "a size") for size in sizes), filters), x.dtype)
        for group, (part, weights) in enumerate(
            zip(np.split(x, groups, axis=-1), np.split(kernel, groups, axis=-1), strict=True)
        ):
            matrix = weights.reshape(-1, weights.shape[-1])
            target = y[..., group * weights.shape[-1] : (group + 1) * weights.shape[-1]]
            for samples, rows, block in columns(part, window, strides, dilations):
                region = target[samples, rows]
                region[...] = (block @ matrix).reshape(region.shape)
        return (_with_bias(y, optional_array(inputs, 2)),)


@register
class DepthwiseConv(Op):
    """A convolution of each channel by itself; ``kernel`` is ``[*window, channels, multiplier]``.

    Output channel ``c * multiplier + m`` reads input channel ``c`` only.
    """

    name = "depthwise_conv"
    inputs = ("x", "kernel", "bias?")
    attributes: ClassVar = WINDOW_ATTRIBUTES
    matrix_rows: ClassVar = {1: (-2, -1)}
    channels: ClassVar = PerChannel()

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x, kernel, bias = _operands(inputs)
        rank = expect_spatial(x)
        check_window_attrs(attrs, rank)
        if kernel.rank != rank + 2 or kernel.shape[-2] != x.shape[-1]:
            raise GraphError(f"x {x} and depthwise kernel {kernel} do not fit")
        channels = kernel.shape[-2] * kernel.shape[-1]
        expect_shape(bias, (channels,), "bias")
        window = [static(size, "the window") for size in kernel.shape[:-2]]
        return (TensorType(x.dtype, (x.shape[0], *output_sizes(attrs, x.shape[1:-1], window), channels)),)

    def macs(self, attrs: Attrs, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]) -> Dim:
        return _per_element(outputs, required(inputs, 1, "kernel").shape[:-2])

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        x, kernel = given(inputs[0]), given(inputs[1])
        window, multiplier = kernel.shape[:-2], kernel.shape[-1]
        x = padded(x, axis_pads(attrs, x.shape[1:-1], window))
        y: Array | None = None
        for tap, view in taps(x, window, ints(attrs, "strides"), ints(attrs, "dilations")):
            weights = kernel[tap]
            part = view * weights[:, 0] if multiplier == 1 else view[..., None] * weights
            if y is None:
                y = part
            else:
                y += part
        result = given(y).reshape(*given(y).shape[: x.ndim - 1], kernel.shape[-2] * multiplier)
        return (_with_bias(result, optional_array(inputs, 2)),)


@register
class ConvTranspose(Op):
    """The transpose of a convolution; ``kernel`` is ``[*window, out, in]``.

    Every input position adds ``kernel`` times its channels at ``position * stride``; of that full result, of
    ``(size - 1) * stride + extent`` positions, ``crops`` (before and after each axis) are cut off. A negative crop after an
    axis appends positions that hold the bias alone.
    """

    name = "conv_transpose"
    inputs = ("x", "kernel", "bias?")
    attributes: ClassVar = {
        "strides": Attribute(Kind.INTS),
        "crops": Attribute(Kind.INTS),
        "dilations": Attribute(Kind.INTS),
    }
    matrix_rows: ClassVar = {1: (-2,)}
    channels: ClassVar = Summing(in_axis=-1, out_axis=-2)

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x, kernel, bias = _operands(inputs)
        rank = expect_spatial(x)
        strides, crops, dilations = ints(attrs, "strides"), ints(attrs, "crops"), ints(attrs, "dilations")
        if len(strides) != rank or len(dilations) != rank or len(crops) != 2 * rank:
            raise GraphError(f"strides {strides}, dilations {dilations} and crops {crops} do not fit {rank} axes")
        if min(strides + dilations) < 1 or min(crops[::2]) < 0:
            raise GraphError("strides and dilations are positive, and crops before an axis not negative")
        if kernel.rank != rank + 2 or kernel.shape[-1] != x.shape[-1]:
            raise GraphError(f"x {x} and transposed kernel {kernel} do not fit")
        expect_shape(bias, (kernel.shape[-2],), "bias")
        sizes: list[Dim] = []
        for axis in range(rank):
            span = extent(static(kernel.shape[axis], "the window"), dilations[axis])
            size = (x.shape[1 + axis] - 1) * strides[axis] + (span - crops[2 * axis] - crops[2 * axis + 1])
            if isinstance(size, int) and size < 1:
                raise GraphError(f"crops {crops} leave nothing of the result of {x} and {kernel}")
            sizes.append(size)
        return (TensorType(x.dtype, (x.shape[0], *sizes, kernel.shape[-2])),)

    def macs(self, attrs: Attrs, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]) -> Dim:
        return product((*required(inputs, 0, "x").shape, *required(inputs, 1, "kernel").shape[:-1]))

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        x, kernel = given(inputs[0]), given(inputs[1])
        window, crops = kernel.shape[:-2], ints(attrs, "crops")
        products = (x @ kernel[tap].T for tap in np.ndindex(*window))
        y = scatter(products, window, ints(attrs, "strides"), ints(attrs, "dilations"), crops)
        return (_with_bias(y, optional_array(inputs, 2)),)
