"""Keras' masks as bool values: how they are made, combined, and laid over what they mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsec.frontends.layer import Layer, Value, reads

EITHER = (3, 4)
"""Since this version of Keras a merged position counts where any input counts; before, where all do."""


def differs(layer: Layer, x: Value, number: float) -> Value:
    """``x != number``."""
    return layer.cast(x if number == 0 else layer.emit("sub", x, layer.like(x, number)), "bool")


def any_channel(layer: Layer, condition: Value, keepdims: bool = False) -> Value:
    """Whether a condition holds anywhere along the last axis."""
    numbers = layer.cast(condition, "float32")
    return layer.cast(layer.emit("reduce_max", numbers, axes=(-1,), keepdims=keepdims), "bool")


def either(layer: Layer, a: Value, b: Value) -> Value:
    """``a or b``."""
    return layer.emit("where", a, a, b)


def both(layer: Layer, a: Value, b: Value) -> Value:
    """``a and b``."""
    return layer.emit("where", a, b, a)


def over_channels(layer: Layer, mask: Value) -> Value:
    """A mask with one more axis, of size 1, at its end."""
    return layer.emit("reshape", mask, shape=(*(0,) * mask.rank, 1))


def merges_by_any(layer: Layer) -> bool:
    """Whether layers that merge keep a position where any of their inputs counts."""
    return layer.saved_by.release >= EITHER


def merged_mask(layer: Layer, values: Sequence[Value]) -> Value | None:
    """The mask of an elementwise combination; an input without a mask counts everywhere."""
    masks = [value.mask for value in values if value.mask is not None]
    if not masks or (merges_by_any(layer) and len(masks) < len(values)):
        return None
    combine = either if merges_by_any(layer) else both
    result = masks[0]
    for mask in masks[1:]:
        result = combine(layer, result, mask)
    return result


def concatenated_mask(layer: Layer, values: Sequence[Value], axis: int) -> Value | None:
    """The mask of a concatenation along ``axis``, counted from the front."""
    if all(value.mask is None for value in values):
        return None
    if axis == values[0].rank - 1:
        return merged_mask(layer, values)
    if any(value.mask is not None and value.mask.rank != value.rank - 1 for value in values):
        layer.refuse("concatenates values whose masks have other axes than all but their last, which is not read")
    return layer.emit("concat", *(value.mask or _everywhere(layer, value) for value in values), axis=axis)


def _everywhere(layer: Layer, value: Value) -> Value:
    """A mask that is true everywhere."""
    channel = layer.cast(layer.emit("slice", value, axis=-1, start=0, stop=1), "bool")
    channel = either(layer, channel, layer.constant("true", np.asarray(True), "bool"))
    return layer.emit("reshape", channel, shape=(0,) * (value.rank - 1))


@reads("Masking")
def masking(layer: Layer) -> Value:
    """Masking: steps whose channels all are ``mask_value`` become zeros, and are to be skipped."""
    x = layer.float_input
    counts = any_channel(layer, differs(layer, x, layer.number("mask_value", 0.0)), keepdims=True)
    mask = layer.emit("reshape", counts, shape=(0,) * (x.rank - 1))
    return layer.masked(layer.emit("where", counts, x, layer.like(x, 0.0)), mask)
