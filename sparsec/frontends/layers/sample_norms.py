"""Normalisation layers whose statistics are those of each sample: LayerNormalization and its relatives.

RMSNormalization, UnitNormalization and the RMS scaling of LayerNormalization are made of elementary operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from sparsec.frontends.layer import ALWAYS, Layer, Value, reads
from sparsec.frontends.layers.formats import to_channels_first, to_channels_last

UNIT_EPSILON = 1e-12
"""UnitNormalization divides by no less: by a norm in Keras 3, by the root of a sum of squares in Keras 2."""


@reads("LayerNormalization", passes_mask=ALWAYS)
def layer_normalization(layer: Layer) -> Value:
    """LayerNormalization over one or several axes; with ``rms_scaling`` it divides by the deviation and does not centre."""
    x = layer.float_input
    axes = _ascending(layer, x)
    shape = tuple(layer.size(x, axis) for axis in axes)
    rms_scaling, epsilon = layer.flag("rms_scaling", False), layer.number("epsilon", 1e-3)
    gamma = layer.weight("gamma", shape) if rms_scaling or layer.flag("scale", True) else None
    if rms_scaling:
        centred = layer.emit("sub", x, layer.emit("reduce_mean", x, axes=axes, keepdims=True))
        return _scaled(layer, _over_root(layer, x, centred, axes, epsilon), axes, gamma)
    beta = layer.weight("beta", shape) if layer.flag("center", True) else None
    return layer.emit("layer_norm", x, gamma, beta, axes=axes, epsilon=epsilon)


@reads("RMSNormalization")
def rms_normalization(layer: Layer) -> Value:
    """RMSNormalization: divided by the root of the mean square over one or several axes.

    Keras aligns the factors with the last axes, whatever the axes of the mean are.
    """
    x = layer.float_input
    axes = tuple(sorted(layer.axes("axis", x.rank)))
    scale = layer.weight("scale", tuple(layer.size(x, axis) for axis in axes))
    y = _over_root(layer, x, x, axes, layer.number("epsilon", 1e-6))
    return layer.emit("affine" if scale.shape == x.shape[-1:] else "mul", y, scale)


@reads("UnitNormalization", passes_mask=ALWAYS)
def unit_normalization(layer: Layer) -> Value:
    """UnitNormalization: divided by the Euclidean norm over one or several axes."""
    x = layer.float_input
    axes = tuple(sorted(layer.axes("axis", x.rank)))
    total = layer.emit("reduce_sum", layer.emit("mul", x, x), axes=axes, keepdims=True)
    least = layer.like(x, UNIT_EPSILON)
    if layer.saved_by.generation == 2:
        norm = layer.emit("sqrt", layer.emit("maximum", total, least))
    else:
        norm = layer.emit("maximum", layer.emit("sqrt", total), least)
    return layer.emit("div", x, norm)


@reads("GroupNormalization", passes_mask=ALWAYS)
def group_normalization(layer: Layer) -> Value:
    """GroupNormalization: every sample's groups of channels are normalised over all positions, then scaled by channel."""
    x = layer.float_input
    (axis,) = layer.axes("axis", x.rank)
    if axis == 0:
        layer.refuse("groups of samples are not read")
    if layer.saved_by.generation == 2 and layer.mask is not None:
        layer.refuse("leaves masked positions out of its statistics, which is not read")
    to_last = (*(other for other in range(x.rank) if other != axis), axis)
    if axis != x.rank - 1:
        x = layer.emit("transpose", x, permutation=to_last)
    channels, groups = layer.channels(x), layer.integer("groups", 32)
    # Instance normalisation: a group for each channel.
    groups = channels if groups == -1 else groups
    if groups < 1 or channels % groups:
        layer.refuse(f"groups = {groups} does not divide its {channels} channels")
    gamma = layer.weight("gamma", (channels,)) if layer.flag("scale", True) else None
    beta = layer.weight("beta", (channels,)) if layer.flag("center", True) else None
    y = _grouped(layer, x, groups)
    if gamma is not None:
        y = layer.emit("affine", y, gamma, beta)
    elif beta is not None:
        y = layer.emit("add", y, beta)
    if axis != x.rank - 1:
        y = layer.emit("transpose", y, permutation=tuple(to_last.index(other) for other in range(x.rank)))
    return y


def _grouped(layer: Layer, x: Value, groups: int) -> Value:
    """The groups of channels of a channels-last value normalised, each sample's by itself."""
    channels, epsilon = layer.channels(x), layer.number("epsilon", 1e-3)
    space = [size for size in x.shape[1:-1] if isinstance(size, int)]
    if len(space) < x.rank - 2:
        kept = (0,) * (x.rank - 1)
        parts = layer.emit("reshape", x, shape=(*kept, groups, channels // groups))
        parts = layer.emit("layer_norm", parts, axes=(*range(1, x.rank - 1), x.rank), epsilon=epsilon)
        return layer.emit("reshape", parts, shape=(*kept, channels))
    # Channels-first a group is one run in memory, and a single operator normalises it.
    first = to_channels_first(layer, x)
    rows = layer.emit("reshape", first, shape=(0, groups, channels // groups * prod(space)))
    rows = layer.emit("layer_norm", rows, axes=(-1,), epsilon=epsilon)
    return to_channels_last(layer, layer.emit("reshape", rows, shape=(0, channels, *space)))


def _ascending(layer: Layer, x: Value) -> tuple[int, ...]:
    axes = layer.axes("axis", x.rank)
    if list(axes) != sorted(axes):
        layer.refuse(f"the axes {axes} are not in ascending order")
    return axes


def _over_root(layer: Layer, x: Value, of: Value, axes: Sequence[int], epsilon: float) -> Value:
    """``x / sqrt(mean(of * of) + epsilon)``, the mean over ``axes``."""
    mean = layer.emit("reduce_mean", layer.emit("mul", of, of), axes=axes, keepdims=True)
    return layer.emit("div", x, layer.emit("sqrt", layer.emit("add", mean, layer.like(x, epsilon))))


def _scaled(layer: Layer, x: Value, axes: Sequence[int], factor: Value | None) -> Value:
    """``x`` times a weight that has the sizes of ``axes``."""
    if factor is None:
        return x
    if tuple(axes) == (x.rank - 1,):
        return layer.emit("affine", x, factor)
    shape = tuple(layer.size(x, axis) if axis in axes else 1 for axis in range(x.rank))
    return layer.emit("mul", x, layer.emit("reshape", factor, shape=shape))
