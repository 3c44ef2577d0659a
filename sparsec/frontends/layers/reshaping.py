"""Layers that move, pad, cut or repeat."""

from __future__ import annotations

from typing import Any

from sparsec.frontends.layer import Layer, Value, reads
from sparsec.frontends.layers.convolutional import spatial_rank
from sparsec.frontends.layers.formats import in_channels_last, is_channels_first, to_channels_last
from sparsec.frontends.layers.resampling import PLAIN_METHODS, resampled
from sparsec.ops import TO_THE_END


@reads("Flatten")
def flatten(layer: Layer) -> Value:
    """Flatten; of a channels-first input Keras flattens the channels-last order."""
    x = layer.input
    if is_channels_first(layer) and x.rank > 2:
        x = to_channels_last(layer, x)
    if x.rank == 2:
        return x
    return layer.emit("reshape", x, shape=(0, -1) if x.rank > 1 else (0, 1))


@reads("Reshape")
def reshape(layer: Layer) -> Value:
    """Reshape of everything but the batch axis."""
    target = layer.option("target_shape", ())
    # An open axis is -1, or null in files that state the shape which Keras worked out.
    sizes = [-1 if size is None else size for size in target] if isinstance(target, list | tuple) else [0]
    if not all(type(size) is int and (size > 0 or size == -1) for size in sizes):
        layer.refuse(f"target_shape = {target!r}")
    return layer.emit("reshape", layer.input, shape=(0, *sizes))


@reads("Permute")
def permute(layer: Layer) -> Value:
    """Permute; axes count from 1 in Keras."""
    x = layer.input
    return layer.emit("transpose", x, permutation=(0, *layer.integers("dims", x.rank - 1)))


@reads("RepeatVector")
def repeat_vector(layer: Layer) -> Value:
    """RepeatVector: ``[N, C]`` to ``[N, n, C]``."""
    x = layer.input
    row = layer.emit("reshape", x, shape=(0, 1, layer.channels(x)))
    return layer.emit("tile", row, repeats=(1, layer.integer("n", least=1), 1))


def _pairs(layer: Layer, name: str, rank: int) -> list[tuple[int, int]]:
    """An option that is one number, one a spatial axis, or a pair a spatial axis."""
    value: Any = layer.option(name, 1)
    if rank == 1 and isinstance(value, list | tuple) and len(value) == 2 and not isinstance(value[0], list | tuple):
        value = [value]
    entries = [value] * rank if isinstance(value, int) else value
    if not isinstance(entries, list | tuple) or len(entries) != rank:
        layer.refuse(f"{name} = {value!r}, {rank} entries were expected")
    pairs = [(entry, entry) if isinstance(entry, int) else entry for entry in entries]
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(type(count) is int and count >= 0 for count in pair):
            layer.refuse(f"{name} = {value!r}, counts were expected")
    return [(before, after) for before, after in pairs]


@reads("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D")
def zero_padding(layer: Layer) -> Value:
    """ZeroPadding1D, 2D and 3D."""
    rank = spatial_rank(layer)
    pads = tuple(count for pair in _pairs(layer, "padding", rank) for count in pair)
    return in_channels_last(layer, layer.input, rank, lambda x: layer.emit("pad", x, pads=pads))


@reads("Cropping1D", "Cropping2D", "Cropping3D")
def cropping(layer: Layer) -> Value:
    """Cropping1D, 2D and 3D: one slice for each axis that loses something."""
    x, rank = layer.input, spatial_rank(layer)
    if x.rank != rank + 2:
        layer.refuse(f"its input has {x.rank} axes, {rank + 2} were expected")
    first = 2 if is_channels_first(layer) else 1
    for axis, (before, after) in enumerate(_pairs(layer, "cropping", rank), start=first):
        if before or after:
            x = layer.emit("slice", x, axis=axis, start=before, stop=-after if after else TO_THE_END)
    return x


@reads("UpSampling1D", "UpSampling2D", "UpSampling3D")
def up_sampling(layer: Layer) -> Value:
    """UpSampling1D, 2D and 3D by whole factors; images with any interpolation of Resizing."""
    rank = spatial_rank(layer)
    factors = layer.integers("size", rank, 2)
    interpolation = layer.text("interpolation", "nearest").lower()

    def body(x: Value) -> Value:
        if rank != 2 or interpolation in PLAIN_METHODS:
            method = PLAIN_METHODS.get(interpolation, "nearest")
            return layer.emit("resize", x, sizes=tuple(-factor for factor in factors), method=method)
        return resampled(layer, x, (layer.size(x, 1) * factors[0], layer.size(x, 2) * factors[1]), interpolation)

    return in_channels_last(layer, layer.input, rank, body)
