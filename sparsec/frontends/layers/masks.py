"""Keras' masks as bool values: how they are made, combined, and laid over what they mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsec.frontends.layer import Layer, Value, reads, reads_operation

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


# --- the operations by which Keras 3 writes down masks in a functional model -------------------------------------------


def _tensor(layer: Layer, index: int, *names: str) -> Value:
    value = layer.operand(index, *names)
    if not isinstance(value, Value):
        layer.refuse("its operand is not a tensor")
    return value


@reads_operation("NotEqual")
def not_equal(layer: Layer) -> Value:
    """Whether a value differs from a number."""
    number = layer.operand(1, "x2")
    if not isinstance(number, int | float):
        layer.refuse("compares with something else than a number, which is not read")
    return differs(layer, _tensor(layer, 0, "x1"), number)


@reads_operation("Any")
def any_operation(layer: Layer) -> Value:
    """Whether a condition holds anywhere along the last axis."""
    x = _tensor(layer, 0, "x")
    if layer.option("axis") not in (-1, [-1], x.rank - 1):
        layer.refuse("is taken over other axes than the last, which is not read")
    return any_channel(layer, layer.cast(x, "bool"), layer.flag("keepdims", False))


@reads_operation("LogicalOr")
def logical_or(layer: Layer) -> Value:
    """Whether either of two conditions holds."""
    a, b = (layer.cast(_tensor(layer, index, name), "bool") for index, name in enumerate(("x1", "x2")))
    return either(layer, a, b)


@reads_operation("ExpandDims")
def expand_dims(layer: Layer) -> Value:
    """One more axis, at the end."""
    x = _tensor(layer, 0, "x")
    if layer.option("axis") not in (-1, x.rank):
        layer.refuse("inserts another axis than the last, which is not read")
    return over_channels(layer, x)


@reads_operation("ZerosLike", "OnesLike")
def constants_like(layer: Layer) -> Value:
    """False, or true, everywhere; of the size of a value."""
    answer = layer.constant("answer", np.asarray(layer.class_name == "OnesLike"), "bool")
    return layer.emit("where", layer.cast(_tensor(layer, 0, "x"), "bool"), answer, answer)


@reads_operation("Concatenate")
def concatenate_operation(layer: Layer) -> Value:
    """Values one after the other."""
    values = list(layer.inputs)
    return layer.emit("concat", *values, axis=layer.integer("axis", -1))
