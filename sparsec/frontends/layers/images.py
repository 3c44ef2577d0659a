"""Image preprocessing that acts at inference: resizing, cropping to the centre, contrast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sparsec.frontends.layer import Layer, Value, reads
from sparsec.frontends.layers.formats import in_channels_last
from sparsec.frontends.layers.resampling import resampled

CROPS_AT_INFERENCE = (3, 6)
"""Before this version of Keras, RandomCrop does at inference what CenterCrop does with images that are too small."""

LEVELS = 255.0
"""The brightest level of the range in which AutoContrast works."""


@reads("Resizing")
def resizing(layer: Layer) -> Value:
    """Resizing to a fixed size, the image stretched, cut or padded to the shape of the target."""
    crops, pads = layer.flag("crop_to_aspect_ratio", False), layer.flag("pad_to_aspect_ratio", False)
    interpolation, antialias = layer.text("interpolation", "bilinear").lower(), layer.flag("antialias", False)
    size = _target(layer)
    if not layer.input.is_float and layer.saved_by.generation == 3:
        layer.refuse("rounds integer images; cast them to float32 before")

    def body(x: Value) -> Value:
        if crops:
            x = _cut_to_shape(layer, x, size)
        elif pads:
            x = _padded_to_shape(layer, x, size)
        return resampled(layer, x, size, interpolation, antialias)

    return in_channels_last(layer, layer.float_input, 2, body)


@reads("CenterCrop")
def center_crop(layer: Layer) -> Value:
    """CenterCrop: the middle of the image; of an image that is too small the largest part of that shape, enlarged."""
    size = _target(layer)

    def body(x: Value) -> Value:
        surplus = [layer.size(x, axis) - target for axis, target in enumerate(size, start=1)]
        if min(surplus) >= 0:
            return _window(layer, x, [extra // 2 for extra in surplus], size)
        # Keras leaves what it enlarged in single precision.
        return replace(layer.cast(resampled(layer, _cut_to_shape(layer, x, size), size, "bilinear"), "float32"), half="")

    return in_channels_last(layer, layer.float_input, 2, body)


@reads("RandomCrop")
def random_crop(layer: Layer) -> Value:
    """RandomCrop: before Keras 3.6 the largest part of the target's shape, resized; later where it leaves images alone."""
    size = _target(layer)

    def body(x: Value) -> Value:
        if layer.saved_by.release < CROPS_AT_INFERENCE:
            return layer.cast(resampled(layer, _cut_to_shape(layer, x, size), size, "bilinear"), layer.dtype)
        if size != (layer.size(x, 1), layer.size(x, 2)):
            layer.refuse(
                f"cuts {x.type} to {size[0]} x {size[1]} in training; what it does at inference depends on the version of "
                "Keras: replace it by CenterCrop or Resizing"
            )
        return x

    return in_channels_last(layer, layer.float_input if layer.saved_by.release < CROPS_AT_INFERENCE else layer.input, 2, body)


@reads("AutoContrast")
def auto_contrast(layer: Layer) -> Value:
    """AutoContrast: every image is stretched over the whole range of values, as far as it has more than one value.

    Keras takes the extremes over axes 1 and 2, whatever the data format.
    """
    low, high = sorted(value_range(layer))
    image = layer.float_input
    if image.rank != 4:
        layer.refuse(f"its input has {image.rank} axes, 4 were expected")
    x = moved(layer, image, (low, high), (0.0, LEVELS))
    greatest = layer.emit("reduce_max", x, axes=(1, 2), keepdims=True)
    negated = layer.emit("mul", x, layer.like(x, -1.0))
    # The least value with its sign turned.
    least = layer.emit("reduce_max", negated, axes=(1, 2), keepdims=True)
    spread = layer.emit("add", greatest, least)
    varies = layer.emit("greater", spread, layer.like(x, 0.0))
    scale = layer.emit("div", layer.like(x, LEVELS), layer.emit("where", varies, spread, layer.like(x, 1.0)))
    stretched = layer.emit("add", layer.emit("mul", x, scale), layer.emit("mul", least, scale))
    result = layer.emit("clip", stretched, minimum=0.0, maximum=LEVELS)
    return layer.emit("where", varies, moved(layer, result, (0.0, LEVELS), (low, high)), image)


def value_range(layer: Layer) -> tuple[float, float]:
    """The values between which an image lies, as the configuration states them."""
    bounds = layer.option("value_range", (0, LEVELS))
    if not isinstance(bounds, list | tuple) or len(bounds) != 2 or not all(isinstance(bound, int | float) for bound in bounds):
        layer.refuse(f"value_range = {bounds!r}, two numbers were expected")
    if bounds[0] == bounds[1]:
        layer.refuse(f"value_range = {bounds!r} is empty")
    return float(bounds[0]), float(bounds[1])


def moved(layer: Layer, x: Value, source: tuple[float, float], target: tuple[float, float]) -> Value:
    """Values of one range taken to another, in Keras' order of steps."""
    if source == target:
        return x
    for op, number in (
        ("sub", source[0]),
        ("div", source[1] - source[0]),
        ("mul", target[1] - target[0]),
        ("add", target[0]),
    ):
        x = layer.emit(op, x, layer.like(x, number))
    return x


# --- geometry ----------------------------------------------------------------------------------------------------------


def _target(layer: Layer) -> tuple[int, int]:
    return layer.integer("height", least=1), layer.integer("width", least=1)


def _window(layer: Layer, x: Value, starts: Sequence[int], size: Sequence[int]) -> Value:
    for axis, (start, count) in enumerate(zip(starts, size, strict=True), start=1):
        if count != x.shape[axis]:
            x = layer.emit("slice", x, axis=axis, start=start, stop=start + count)
    return x


def _opposite(layer: Layer, x: Value, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The size of the image, and the height and width that give it the target's shape with its own width and height."""
    height, width = layer.size(x, 1), layer.size(x, 2)
    # Keras divides in single precision.
    return (height, width), (
        int(np.float32(width * size[0]) / np.float32(size[1])),
        int(np.float32(height * size[1]) / np.float32(size[0])),
    )


def _cut_to_shape(layer: Layer, x: Value, size: tuple[int, int]) -> Value:
    """The largest part in the middle that has the target's shape."""
    have, want = _opposite(layer, x, size)
    kept = [max(min(a, b), 1) for a, b in zip(have, want, strict=True)]
    return _window(layer, x, [(a - b) // 2 for a, b in zip(have, kept, strict=True)], kept)


def _padded_to_shape(layer: Layer, x: Value, size: tuple[int, int]) -> Value:
    """The image with equal borders of ``fill_value``, so that it has about the target's shape."""
    if layer.text("fill_mode", "constant") != "constant":
        layer.refuse(f"fill_mode = {layer.option('fill_mode')!r} is not read")
    have, want = _opposite(layer, x, size)
    border = [max(b - a, 0) // 2 for a, b in zip(have, want, strict=True)]
    if not any(border):
        return x
    y = layer.emit("pad", x, pads=(border[0], border[0], border[1], border[1]))
    fill = layer.number("fill_value", 0.0)
    if not fill:
        return y
    frame = np.full((1, have[0] + 2 * border[0], have[1] + 2 * border[1], 1), fill)
    frame[:, border[0] : border[0] + have[0], border[1] : border[1] + have[1]] = 0.0
    return layer.emit("add", y, layer.constant("border", frame, x.type.dtype))
