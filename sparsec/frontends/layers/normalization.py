"""Normalisation and scaling layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsec.frontends.layer import Layer, Value, reads
from sparsec.ir import Array, Shape


def _axes(layer: Layer, x: Value) -> tuple[int, ...]:
    axis = layer.option("axis", -1)
    axes = axis if isinstance(axis, list | tuple) else [axis]
    return tuple(sorted(int(a) % x.rank for a in axes))


@reads("BatchNormalization", "SyncBatchNormalization")
def batch_normalization(layer: Layer) -> Value:
    """BatchNormalization with its moving statistics; tf_keras stores the axis as a list."""
    x = layer.input
    axes = _axes(layer, x)
    if len(axes) != 1:
        layer.refuse(f"normalisation over the axes {axes} together is not read; use one axis")
    if layer.option("renorm", False):
        layer.refuse("batch renormalisation is not read")
    shape = (x.shape[axes[0]],)
    gamma = layer.weight("gamma", shape) if layer.option("scale", True) else None
    beta = layer.weight("beta", shape) if layer.option("center", True) else None
    mean, variance = layer.weight("moving_mean", shape), layer.weight("moving_variance", shape)
    axis = -1 if axes[0] == x.rank - 1 else axes[0]
    return layer.emit("batch_norm", x, gamma, beta, mean, variance, axis=axis, epsilon=layer.number("epsilon", 1e-3))


@reads("LayerNormalization")
def layer_normalization(layer: Layer) -> Value:
    """LayerNormalization over one or several axes."""
    x = layer.input
    if layer.option("rms_scaling", False):
        layer.refuse("rms_scaling is not read")
    axes = _axes(layer, x)
    shape: Shape = tuple(x.shape[axis] for axis in axes)
    gamma = layer.weight("gamma", shape) if layer.option("scale", True) else None
    beta = layer.weight("beta", shape) if layer.option("center", True) else None
    return layer.emit("layer_norm", x, gamma, beta, axes=axes, epsilon=layer.number("epsilon", 1e-3))


@reads("LayerScale")
def layer_scale(layer: Layer) -> Value:
    """LayerScale of keras.applications' ConvNeXt: one learnt factor for each channel."""
    x = layer.input
    return layer.emit("affine", x, layer.weight("gamma", (layer.channels(x),)))


def _as_float(layer: Layer, x: Value) -> Value:
    return x if x.type.dtype.startswith("float") else layer.emit("cast", x, dtype="float32")


def _per_channel(layer: Layer, x: Value, value: Any, name: str) -> Array:
    array = np.asarray(value["config"]["value"] if isinstance(value, dict) else value, dtype=np.float64)
    if array.ndim > 1 and array.size != array.shape[-1]:
        layer.refuse(f"{name} has shape {array.shape}; a number, or one for each channel, is read")
    return np.broadcast_to(array.reshape(-1), (layer.channels(x),))


def _affine(layer: Layer, x: Value, scale: Array, shift: Array) -> Value:
    dtype = x.type.dtype
    offset = layer.constant("shift", shift.astype(dtype)) if shift.any() else None
    return layer.emit("affine", x, layer.constant("scale", scale.astype(dtype)), offset)


@reads("Rescaling")
def rescaling(layer: Layer) -> Value:
    """Rescaling: ``x * scale + offset``."""
    x = _as_float(layer, layer.input)
    scale = _per_channel(layer, x, layer.option("scale", 1.0), "scale")
    offset = _per_channel(layer, x, layer.option("offset", 0.0), "offset")
    return _affine(layer, x, scale, offset)


@reads("Normalization")
def normalization(layer: Layer) -> Value:
    """Normalization with adapted or given statistics: ``(x - mean) / max(sqrt(variance), 1e-7)``, or its inverse."""
    x = _as_float(layer, layer.input)
    axes = layer.option("axis", -1)
    axes = [] if layer.config.get("axis", -1) is None else list(axes) if isinstance(axes, list | tuple) else [axes]
    if axes and [axis % x.rank for axis in axes] != [x.rank - 1]:
        layer.refuse(f"statistics for each position of the axes {axes} are not read; use axis=-1 or axis=None")
    if layer.config.get("mean") is not None:
        mean = _per_channel(layer, x, layer.config["mean"], "mean")
        variance = _per_channel(layer, x, layer.config["variance"], "variance")
    else:
        mean, variance = (_adapted(layer, x, name, bool(axes)) for name in ("mean", "variance"))
        layer.skip_weight()  # the number of samples seen
    deviation = np.maximum(np.sqrt(variance), 1e-7)
    if layer.option("invert", False):
        return _affine(layer, x, deviation, mean)
    return _affine(layer, x, 1.0 / deviation, -mean / deviation)


def _adapted(layer: Layer, x: Value, name: str, per_channel: bool) -> Array:
    shape: Shape = (layer.channels(x),) if per_channel else ()
    return np.broadcast_to(layer.statistic(name, shape).astype(np.float64).reshape(-1), (layer.channels(x),))
