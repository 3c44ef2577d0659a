"""Convolutional layers of one to three spatial axes."""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.frontends.layer import Layer, Value, reads
from sparsec.frontends.layers.formats import in_channels_last


@dataclass(frozen=True)
class Window:
    """How a kernel moves over the spatial axes."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]

    def attributes(self, padding: tuple[str, tuple[int, ...]]) -> dict[str, object]:
        """The attributes of a window operator."""
        return {"strides": self.strides, "dilations": self.dilations, "padding": padding[0], "pads": padding[1]}


def spatial_rank(layer: Layer) -> int:
    """The number of spatial axes, from the class name (``Conv2D`` has two)."""
    return next(int(char) for char in layer.class_name if char.isdigit())


def read_window(layer: Layer, rank: int) -> Window:
    """The window that the configuration states."""
    return Window(
        layer.integers("kernel_size", rank), layer.integers("strides", rank, 1), layer.integers("dilation_rate", rank, 1)
    )


def read_padding(layer: Layer, window: Window) -> tuple[str, tuple[int, ...]]:
    """``padding`` and ``pads`` of a window operator."""
    padding = layer.text("padding", "valid").lower()
    if padding == "same":
        return "same", ()
    if padding == "causal" and len(window.size) == 1:
        return "explicit", ((window.size[0] - 1) * window.dilations[0], 0)
    if padding != "valid":
        layer.refuse(f"padding = {padding!r}")
    return "explicit", (0,) * (2 * len(window.size))


def _bias(layer: Layer, filters: int) -> Value | None:
    return layer.weight("bias", (filters,)) if layer.flag("use_bias", True) else None


@reads("Conv1D", "Conv2D", "Conv3D", "Convolution1D", "Convolution2D", "Convolution3D")
def conv(layer: Layer) -> Value:
    """Conv1D, Conv2D, Conv3D, with groups and dilation."""
    rank = spatial_rank(layer)
    window, filters, groups = read_window(layer, rank), layer.integer("filters", least=1), layer.integer("groups", 1, least=1)
    _refuse_lora(layer)

    def body(x: Value) -> Value:
        kernel = layer.weight("kernel", (*window.size, layer.channels(x) // groups, filters))
        attributes = window.attributes(read_padding(layer, window))
        return layer.emit("conv", x, kernel, _bias(layer, filters), groups=groups, **attributes)

    return layer.activation(in_channels_last(layer, layer.float_input, rank, body))


@reads("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise_conv(layer: Layer) -> Value:
    """DepthwiseConv1D, DepthwiseConv2D."""
    rank = spatial_rank(layer)
    window, multiplier = read_window(layer, rank), layer.integer("depth_multiplier", 1, least=1)

    def body(x: Value) -> Value:
        channels = layer.channels(x)
        kernel = layer.weight("depthwise_kernel", (*window.size, channels, multiplier))
        attributes = window.attributes(read_padding(layer, window))
        return layer.emit("depthwise_conv", x, kernel, _bias(layer, channels * multiplier), **attributes)

    return layer.activation(in_channels_last(layer, layer.float_input, rank, body))


@reads("SeparableConv1D", "SeparableConv2D", "SeparableConvolution1D", "SeparableConvolution2D")
def separable_conv(layer: Layer) -> Value:
    """SeparableConv1D, SeparableConv2D: a depthwise convolution, then a pointwise one that carries the bias."""
    rank = spatial_rank(layer)
    window, filters = read_window(layer, rank), layer.integer("filters", least=1)
    multiplier = layer.integer("depth_multiplier", 1, least=1)

    def body(x: Value) -> Value:
        channels = layer.channels(x)
        depthwise = layer.weight("depthwise_kernel", (*window.size, channels, multiplier))
        pointwise = layer.weight("pointwise_kernel", (*(1,) * rank, channels * multiplier, filters))
        bias = _bias(layer, filters)
        middle = layer.emit("depthwise_conv", x, depthwise, **window.attributes(read_padding(layer, window)))
        single = Window((1,) * rank, (1,) * rank, (1,) * rank)
        return layer.emit("conv", middle, pointwise, bias, **single.attributes(("explicit", (0,) * (2 * rank))))

    return layer.activation(in_channels_last(layer, layer.float_input, rank, body))


@reads("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose", "Convolution2DTranspose", "Convolution3DTranspose")
def conv_transpose(layer: Layer) -> Value:
    """Conv1DTranspose, Conv2DTranspose, Conv3DTranspose."""
    rank = spatial_rank(layer)
    window, filters = read_window(layer, rank), layer.integer("filters", least=1)
    if layer.integer("groups", 1) != 1:
        layer.refuse("groups are not read in transposed convolutions")
    _refuse_lora(layer)
    crops = _transpose_crops(layer, window)

    def body(x: Value) -> Value:
        kernel = layer.weight("kernel", (*window.size, filters, layer.channels(x)))
        bias = _bias(layer, filters)
        return layer.emit("conv_transpose", x, kernel, bias, strides=window.strides, dilations=window.dilations, crops=crops)

    return layer.activation(in_channels_last(layer, layer.float_input, rank, body))


def _refuse_lora(layer: Layer) -> None:
    if layer.option("lora_rank") is not None:
        layer.refuse("LoRA kernels are not read")


def _transpose_crops(layer: Layer, window: Window) -> tuple[int, ...]:
    """What Keras' output size cuts off the full transposed convolution, before and after each axis.

    With size n, kernel extent k and stride s the full result has (n - 1) s + k positions. Keras asks for max(n s, full) under
    ``valid`` and n s under ``same``, or, given ``output_padding`` p, for (n - 1) s + k - 2 c + p with c = 0 and k // 2. The
    transpose of TensorFlow's ``SAME`` rule cuts half of what is too much, rounded down, before the axis.
    """
    padding = layer.text("padding", "valid").lower()
    if padding not in ("valid", "same"):
        layer.refuse(f"padding = {padding!r}")
    given = layer.option("output_padding")
    extra = layer.integers("output_padding", len(window.size), least=0) if given is not None else None
    crops: list[int] = []
    for axis, (size, stride, dilation) in enumerate(zip(window.size, window.strides, window.dilations, strict=True)):
        extent = (size - 1) * dilation + 1
        if extra is not None:
            surplus = 2 * (extent // 2 if padding == "same" else 0) - extra[axis]
        elif padding == "same":
            surplus = extent - stride
        else:
            surplus = min(extent - stride, 0)
        before = max(surplus, 0) // 2 if padding == "same" else 0
        crops += [before, surplus - before]
    return tuple(crops)
