"""Images in other sizes, mirrored, or in grey."""

from __future__ import annotations

import numpy as np

from sparsec.frontends.layer import Layer, Value, reads_operation
from sparsec.frontends.layers.formats import to_channels_first, to_channels_last
from sparsec.frontends.layers.resampling import resampled
from sparsec.frontends.operations.indexing import flipped
from sparsec.frontends.operations.operands import Arguments, arguments, as_indices

GREY = (0.2989, 0.5870, 0.1140)
"""What red, green and blue count for in TensorFlow."""


def _images(layer: Layer, given: Arguments) -> Value:
    x = given.float_tensor("images")
    if x.rank != 4:
        layer.refuse(f"takes images [N, H, W, C], not {x.type}")
    return x


def _size(layer: Layer, given: Arguments) -> tuple[int, int]:
    sizes = [int(size) for size in as_indices(given, "size").reshape(-1)]
    if len(sizes) != 2 or min(sizes) < 1:
        layer.refuse(f"size = {sizes}, height and width were expected")
    return sizes[0], sizes[1]


@reads_operation("image.resize")
def resize_tensorflow(layer: Layer) -> Value:
    """``tf.image.resize``."""
    given = arguments(layer, "images", "size", "method", "preserve_aspect_ratio", "antialias")
    if given.flag("preserve_aspect_ratio", False):
        layer.refuse("preserve_aspect_ratio = True is not read")
    method = given.text("method", "bilinear").lower()
    return resampled(layer, _images(layer, given), _size(layer, given), method, given.flag("antialias", False))


@reads_operation("Resize")
def resize(layer: Layer) -> Value:
    """``keras.ops.image.resize``."""
    given = arguments(layer, "images", "size", "interpolation", "antialias", "crop_to_aspect_ratio", "pad_to_aspect_ratio")
    for option in ("crop_to_aspect_ratio", "pad_to_aspect_ratio"):
        if given.flag(option, False):
            layer.refuse(f"{option} = True is not read; use the layer Resizing")
    method, antialias = given.text("interpolation", "bilinear").lower(), given.flag("antialias", False)
    x, first = _images(layer, given), layer.text("data_format", "channels_last") == "channels_first"
    y = resampled(layer, to_channels_last(layer, x) if first else x, _size(layer, given), method, antialias)
    return to_channels_first(layer, y) if first else y


@reads_operation("image.flip_left_right", "image.flip_up_down")
def mirrored(layer: Layer) -> Value:
    """Images mirrored."""
    given = arguments(layer, "images|image")
    axis = 2 if layer.text("function", "").endswith("left_right") else 1
    return flipped(layer, _images(layer, given), [axis])


@reads_operation("image.rgb_to_grayscale")
def rgb_to_grayscale(layer: Layer) -> Value:
    """The brightness of colours."""
    x = _images(layer, arguments(layer, "images"))
    return layer.emit("dense", x, layer.constant("grey", np.asarray(GREY).reshape(3, 1), x.type.dtype))
