"""Pooling layers."""

from __future__ import annotations

from sparsec.frontends.layer import Layer, Value, reads
from sparsec.frontends.layers.convolutional import Window, read_padding, spatial_rank
from sparsec.frontends.layers.formats import in_channels_last, is_channels_first
from sparsec.frontends.layers.masks import over_channels


def _pool(layer: Layer, op: str) -> Value:
    rank = spatial_rank(layer)
    size = layer.integers("pool_size", rank, 2)
    strides = size if layer.option("strides") is None else layer.integers("strides", rank)
    window = Window(size, strides, (1,) * rank)
    attributes = window.attributes(read_padding(layer, window))
    return in_channels_last(layer, layer.input, rank, lambda x: layer.emit(op, x, window=size, **attributes))


@reads("MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "MaxPool1D", "MaxPool2D", "MaxPool3D")
def max_pooling(layer: Layer) -> Value:
    """MaxPooling1D, MaxPooling2D, MaxPooling3D."""
    return _pool(layer, "max_pool")


@reads("AveragePooling1D", "AveragePooling2D", "AveragePooling3D", "AvgPool1D", "AvgPool2D", "AvgPool3D")
def average_pooling(layer: Layer) -> Value:
    """AveragePooling1D, AveragePooling2D, AveragePooling3D."""
    return _pool(layer, "avg_pool")


def _global(layer: Layer, op: str) -> Value:
    x = layer.input
    if x.rank != spatial_rank(layer) + 2:
        layer.refuse(f"its input has {x.rank} axes, {spatial_rank(layer) + 2} were expected")
    axes = tuple(range(2, x.rank)) if is_channels_first(layer) else tuple(range(1, x.rank - 1))
    return layer.emit(op, x, axes=axes, keepdims=layer.flag("keepdims", False))


@reads(*(f"Global{name}{rank}D" for name in ("AveragePooling", "AvgPool") for rank in (2, 3)))
def global_average_pooling(layer: Layer) -> Value:
    """GlobalAveragePooling2D and 3D."""
    return _global(layer, "reduce_mean")


@reads("GlobalAveragePooling1D", "GlobalAvgPool1D")
def global_average_pooling1d(layer: Layer) -> Value:
    """GlobalAveragePooling1D, over the steps that a mask leaves."""
    x, mask = layer.input, layer.mask
    if mask is None:
        return _global(layer, "reduce_mean")
    axes, keepdims = (2,) if is_channels_first(layer) else (1,), layer.flag("keepdims", False)
    counts = layer.emit("reshape", mask, shape=(0, 1, -1)) if is_channels_first(layer) else over_channels(layer, mask)
    total = layer.emit("reduce_mean", layer.emit("where", counts, x, layer.like(x, 0.0)), axes=axes, keepdims=keepdims)
    return layer.emit("div", total, layer.emit("reduce_mean", layer.cast(counts, x.type.dtype), axes=axes, keepdims=keepdims))


@reads(*(f"Global{name}{rank}D" for name in ("MaxPooling", "MaxPool") for rank in (1, 2, 3)))
def global_max_pooling(layer: Layer) -> Value:
    """GlobalMaxPooling1D, 2D and 3D."""
    return _global(layer, "reduce_max")
