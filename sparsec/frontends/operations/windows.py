"""Pooling and convolution as operations, with windows and kernels that are numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from sparsec.frontends.layer import Layer, Value, reads_operation
from sparsec.frontends.layers.formats import to_channels_first, to_channels_last
from sparsec.frontends.operations.operands import Arguments, arguments, as_array
from sparsec.frontends.options import Options
from sparsec.ir import Array

CHANNELS_FIRST = ("channels_first", "NCW", "NCHW", "NCDHW")


def _per_axis(given: Arguments, name: str, rank: int, default: int | None = None) -> tuple[int, ...]:
    """One number for all spatial axes, one for each, or, as TensorFlow has it too, one for each axis of the value."""
    value = given.option(name, default)
    if isinstance(value, list | tuple) and len(value) == rank + 2:
        inner = list(value[2:]) if given.option("data_format") in CHANNELS_FIRST else list(value[1:-1])
        if prod(value) != prod(inner):
            given.refuse(f"{name} = {value!r} goes over samples or channels, which is not read")
        value = inner
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return Options({name: value}, given.subject).integers(name, rank)


def _padding(given: Arguments, count: int) -> dict[str, object]:
    padding = given.text("padding", "valid").lower()
    if padding not in ("same", "valid"):
        given.refuse(f"padding = {padding!r} is not read")
    return {"padding": "same", "pads": ()} if padding == "same" else {"padding": "explicit", "pads": (0,) * (2 * count)}


def _placed(layer: Layer, given: Arguments) -> tuple[Value, int, bool]:
    """The input with its channels last, its spatial axes, and whether they were first."""
    x = given.float_tensor("x")
    if not 3 <= x.rank <= 5:
        layer.refuse(f"windows slide over 1 to 3 spatial axes, not over {x.type}")
    first = given.option("data_format") in CHANNELS_FIRST
    return (to_channels_last(layer, x) if first else x), x.rank - 2, first


def _pool(layer: Layer, op: str) -> Value:
    given = arguments(
        layer, "x|inputs|input|value", "window|pool_size|ksize|window_shape", "strides", "padding", "data_format", "dilations"
    )
    x, rank, first = _placed(layer, given)
    window = _per_axis(given, "window", rank)
    strides = _per_axis(given, "strides", rank) if given.option("strides") is not None else window
    if given.option("dilations") is not None and set(_per_axis(given, "dilations", rank)) != {1}:
        layer.refuse("dilated pooling is not read")
    y = layer.emit(op, x, window=window, strides=strides, dilations=(1,) * rank, **_padding(given, rank))
    return to_channels_first(layer, y) if first else y


@reads_operation("MaxPool", "nn.max_pool1d", "nn.max_pool2d", "nn.max_pool3d", "compat.v1.nn.max_pool")
def max_pool(layer: Layer) -> Value:
    """The maximum over windows."""
    return _pool(layer, "max_pool")


@reads_operation("AveragePool", "nn.avg_pool1d", "nn.avg_pool2d", "nn.avg_pool3d", "nn.avg_pool")
def average_pool(layer: Layer) -> Value:
    """The mean over windows."""
    return _pool(layer, "avg_pool")


CONVOLUTION = (
    "x|inputs|input|value",
    "kernel|filter|filters",
    "strides|stride",
    "padding",
    "data_format",
    "dilations|dilation_rate|rate",
    "use_cudnn_on_gpu",
)


def _kernel(layer: Layer, given: Arguments) -> Array:
    kernel = given.option("kernel")
    if isinstance(kernel, Value) or kernel is None:
        layer.refuse("its kernel is computed, which is not read")
    return as_array(layer, kernel)


def _convolution(layer: Layer, given: Arguments, rank: int) -> dict[str, object]:
    return {
        "strides": _per_axis(given, "strides", rank, 1),
        "dilations": _per_axis(given, "dilations", rank, 1),
        **_padding(given, rank),
    }


@reads_operation(
    "Conv",
    "nn.conv1d",
    "nn.conv2d",
    "nn.conv3d",
    "compat.v1.nn.conv1d",
    "compat.v1.nn.conv2d",
    "compat.v1.nn.conv3d",
    "nn.convolution",
)
def conv(layer: Layer) -> Value:
    """A convolution with a kernel of numbers."""
    given = arguments(layer, *CONVOLUTION)
    x, rank, first = _placed(layer, given)
    kernel = _kernel(layer, given)
    _check_kernel(layer, x, kernel.shape, rank)
    groups = layer.channels(x) // kernel.shape[-2]
    weight = layer.constant("kernel", kernel, x.type.dtype)
    y = layer.emit("conv", x, weight, groups=groups, **_convolution(layer, given, rank))
    return to_channels_first(layer, y) if first else y


@reads_operation("DepthwiseConv", "compat.v1.nn.depthwise_conv2d")
def depthwise_conv(layer: Layer) -> Value:
    """A convolution of each channel by itself with a kernel of numbers."""
    given = arguments(layer, *CONVOLUTION)
    x, rank, first = _placed(layer, given)
    kernel = _kernel(layer, given)
    _check_kernel(layer, x, kernel.shape, rank)
    weight = layer.constant("kernel", kernel, x.type.dtype)
    y = layer.emit("depthwise_conv", x, weight, **_convolution(layer, given, rank))
    return to_channels_first(layer, y) if first else y


def _check_kernel(layer: Layer, x: Value, shape: Sequence[int], rank: int) -> None:
    if len(shape) != rank + 2 or layer.channels(x) % shape[-2]:
        layer.refuse(f"its kernel has shape {tuple(shape)}, which does not fit {x.type}")
