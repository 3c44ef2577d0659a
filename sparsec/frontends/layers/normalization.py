"""Normalisation by stored statistics, and scaling layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsec.frontends.layer import ALWAYS, SINCE_KERAS_3, Layer, Value, reads
from sparsec.frontends.options import array_value
from sparsec.ir import Array

MIN_DEVIATION = 1e-7
"""Normalization divides by no less than this."""

MAX_SHIFT = 256.0
"""Where a mean is more deviations than this from zero, ``x * scale + shift`` would cancel digits that ``x - mean`` keeps."""


@reads("BatchNormalization", "SyncBatchNormalization", passes_mask=ALWAYS)
def batch_normalization(layer: Layer) -> Value:
    """BatchNormalization with its moving statistics; Keras 2 states the axis as a list."""
    x = layer.float_input
    axes = layer.axes("axis", x.rank)
    if 0 in axes or not axes:
        layer.refuse(f"normalisation over the axes {axes} is not read; use axes after the batch")
    if layer.flag("renorm", False):
        layer.refuse("batch renormalisation is not read")
    if len(axes) > 1:
        return _over_axes(layer, x, axes)
    shape = (layer.size(x, axes[0]),)
    gamma = layer.weight("gamma", shape) if layer.flag("scale", True) else None
    beta = layer.weight("beta", shape) if layer.flag("center", True) else None
    mean, variance = layer.weight("moving_mean", shape), layer.weight("moving_variance", shape)
    axis = -1 if axes[0] == x.rank - 1 else axes[0]
    return layer.emit("batch_norm", x, gamma, beta, mean, variance, axis=axis, epsilon=layer.number("epsilon", 1e-3))


def _over_axes(layer: Layer, x: Value, axes: Sequence[int]) -> Value:
    """Statistics for every combination of places on several axes, as Keras 2 keeps them: with size 1 on the other axes."""
    shape = tuple(layer.size(x, axis) if axis in axes else 1 for axis in range(x.rank))
    gamma = layer.statistic("gamma", shape) if layer.flag("scale", True) else np.ones(())
    beta = layer.statistic("beta", shape) if layer.flag("center", True) else np.zeros(())
    mean, variance = layer.statistic("moving_mean", shape), layer.statistic("moving_variance", shape)
    scale = gamma / np.sqrt(variance + layer.number("epsilon", 1e-3))
    return _affine(layer, x, scale, beta - mean * scale)


@reads("LayerScale")
def layer_scale(layer: Layer) -> Value:
    """LayerScale of keras.applications' ConvNeXt: one learnt factor for each channel."""
    x = layer.float_input
    return layer.emit("affine", x, layer.weight("gamma", (layer.channels(x),)))


@reads("Rescaling", passes_mask=SINCE_KERAS_3)
def rescaling(layer: Layer) -> Value:
    """Rescaling: ``x * scale + offset``, numbers or one of each for every channel."""
    x = layer.float_input
    scale, offset = _numbers(layer, "scale", layer.option("scale", 1.0)), _numbers(layer, "offset", layer.option("offset", 0.0))
    return _affine(layer, x, scale, offset)


@reads("Normalization", passes_mask=SINCE_KERAS_3)
def normalization(layer: Layer) -> Value:
    """Normalization with adapted or given statistics: ``(x - mean) / max(sqrt(variance), 1e-7)``, or its inverse."""
    x = layer.float_input
    axes = sorted(layer.axes("axis", x.rank)) if layer.option("axis", ()) not in ((), []) else []
    if 0 in axes:
        layer.refuse("statistics for each sample of a batch are not read")
    # The shape that broadcasts over the input: sizes on the axes that keep statistics of their own, 1 elsewhere.
    shape = [layer.size(x, axis) if axis in axes else 1 for axis in range(x.rank)]
    if layer.option("mean") is not None:
        mean, variance = (_given(layer, name, axes, shape) for name in ("mean", "variance"))
    else:
        sizes = tuple(shape[axis] for axis in axes)
        mean, variance = (layer.statistic(name, sizes).reshape(shape) for name in ("mean", "variance"))
        layer.skip_weight()  # the number of samples seen
    if (variance < 0).any():
        layer.refuse("a variance is negative")
    deviation = np.maximum(np.sqrt(variance), MIN_DEVIATION)
    if layer.flag("invert", False):
        return _affine(layer, x, deviation, mean)
    if (np.abs(mean) <= MAX_SHIFT * deviation).all():
        return _affine(layer, x, 1.0 / deviation, -mean / deviation)
    centred = layer.emit("sub", x, layer.constant("mean", mean, x.type.dtype))
    return _affine(layer, centred, 1.0 / deviation, np.zeros(()))


def _given(layer: Layer, name: str, axes: Sequence[int], shape: Sequence[int]) -> Array:
    """Statistics from the configuration, their axes aligned from the right with those that keep statistics."""
    stated = _numbers(layer, name, layer.option(name))
    if stated.ndim > len(axes):
        layer.refuse(f"{name} has shape {stated.shape}, which does not fit the axes {tuple(axes)}")
    aligned = [1] * len(shape)
    for axis, size in zip(reversed(axes), reversed(stated.shape), strict=False):
        aligned[axis] = size
    try:
        return np.broadcast_to(stated.reshape(aligned), shape)
    except ValueError:
        layer.refuse(f"{name} has shape {stated.shape}, which does not fit an input of shape {tuple(shape)}")


def _numbers(layer: Layer, name: str, value: object) -> Array:
    try:
        array = np.asarray(array_value(value), dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        layer.refuse(f"{name} = {value!r}, numbers were expected")
    if not np.isfinite(array).all():
        layer.refuse(f"{name} holds values that are not finite")
    return array


def _affine(layer: Layer, x: Value, scale: Array, shift: Array) -> Value:
    """``x * scale + shift``: one operator where both are numbers or vectors over the last axis, else two that broadcast."""
    size = x.shape[-1]
    if isinstance(size, int) and all(array.size == array.shape[-1] if array.ndim else True for array in (scale, shift)):
        vectors = [np.broadcast_to(array.reshape(-1), (size,)) for array in (scale, shift) if array.size in (1, size)]
        if len(vectors) == 2:
            factor = layer.constant("scale", vectors[0], x.type.dtype)
            term = layer.constant("shift", vectors[1], x.type.dtype) if vectors[1].any() else None
            return layer.emit("affine", x, factor, term)
    y = layer.emit("mul", x, layer.constant("scale", scale, x.type.dtype))
    return layer.emit("add", y, layer.constant("shift", shift, x.type.dtype)) if shift.any() else y
