"""Layers that move, pad, cut or repeat."""

from __future__ import annotations

from typing import Any

from sparsec.frontends.layer import Layer, Value, reads
from sparsec.frontends.layers.convolutional import spatial_rank
from sparsec.frontends.layers.formats import in_channels_last, is_channels_first, to_channels_last
from sparsec.ops import TO_THE_END


@reads("Flatten")
def flatten(layer: Layer) -> Value:
    """Flatten; of a channels-first input Keras flattens the channels-last order."""
    x = layer.input
    if is_channels_first(layer) and x.rank > 2:
        x = to_channels_last(layer, x)
    if x.rank == 2:
        return x
    return layer.emit("reshape", x, shape=(0, -1))


@reads("Reshape")
def reshape(layer: Layer) -> Value:
    """Reshape of everything but the batch axis."""
    target = layer.option("target_shape", ())
    # A target of 0 cannot be meant, and -1 or None is the axis that takes what is left.
    sizes = [-1 if size is None else int(size) for size in target]
    return layer.emit("reshape", layer.input, shape=(0, *sizes))


@reads("Permute")
def permute(layer: Layer) -> Value:
    """Permute; axes count from 1 in Keras."""
    return layer.emit("transpose", layer.input, permutation=(0, *layer.option("dims", ())))


@reads("RepeatVector")
def repeat_vector(layer: Layer) -> Value:
    """RepeatVector: ``[N, C]`` to ``[N, n, C]``."""
    x = layer.input
    row = layer.emit("reshape", x, shape=(0, 1, layer.channels(x)))
    return layer.emit("tile", row, repeats=(1, layer.integer("n"), 1))


def _pairs(layer: Layer, name: str, rank: int) -> list[tuple[int, int]]:
    """An option that is one number, one a spatial axis, or a pair a spatial axis."""
    value: Any = layer.option(name, 1)
    if isinstance(value, int):
        return [(value, value)] * rank
    if rank == 1 and len(value) == 2 and all(isinstance(item, int) for item in value):
        return [(value[0], value[1])]
    if len(value) != rank:
        layer.refuse(f"{name} = {value!r}, {rank} entries were expected")
    return [(item, item) if isinstance(item, int) else (int(item[0]), int(item[1])) for item in value]


@reads("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D")
def zero_padding(layer: Layer) -> Value:
    """ZeroPadding1D, 2D and 3D."""
    pads = tuple(count for pair in _pairs(layer, "padding", spatial_rank(layer)) for count in pair)
    return in_channels_last(layer, layer.input, lambda x: layer.emit("pad", x, pads=pads))


@reads("Cropping1D", "Cropping2D", "Cropping3D")
def cropping(layer: Layer) -> Value:
    """Cropping1D, 2D and 3D: one slice for each axis that loses something."""
    x = layer.input
    first = 2 if is_channels_first(layer) else 1
    for axis, (before, after) in enumerate(_pairs(layer, "cropping", spatial_rank(layer)), start=first):
        if before or after:
            x = layer.emit("slice", x, axis=axis, start=before, stop=-after if after else TO_THE_END)
    return x


@reads("UpSampling1D", "UpSampling2D", "UpSampling3D")
def up_sampling(layer: Layer) -> Value:
    """UpSampling1D, 2D and 3D by whole factors, nearest or bilinear."""
    rank = spatial_rank(layer)
    factors = layer.integers("size", rank, 2)
    method = _resize_method(layer, str(layer.option("interpolation", "nearest")))
    sizes = tuple(-factor for factor in factors)
    return in_channels_last(layer, layer.input, lambda x: layer.emit("resize", x, sizes=sizes, method=method))


@reads("Resizing")
def resizing(layer: Layer) -> Value:
    """Resizing to a fixed size, nearest or bilinear, where it is a plain resampling."""
    for option in ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias"):
        if layer.option(option, False):
            layer.refuse(f"{option} = True is not read")
    method = _resize_method(layer, str(layer.option("interpolation", "bilinear")))
    sizes = (layer.integer("height"), layer.integer("width"))

    def body(x: Value) -> Value:
        if not x.type.dtype.startswith("float"):
            x = layer.emit("cast", x, dtype="float32")
        return layer.emit("resize", x, sizes=sizes, method=method)

    return in_channels_last(layer, layer.input, body)


def _resize_method(layer: Layer, interpolation: str) -> str:
    methods = {"nearest": "nearest", "bilinear": "linear"}
    if interpolation.lower() not in methods:
        layer.refuse(f"interpolation = {interpolation!r} is not read; sparsec reads {', '.join(methods)}")
    return methods[interpolation.lower()]
