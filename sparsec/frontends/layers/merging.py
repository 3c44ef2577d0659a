"""Layers that merge several values."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.frontends.layer import Layer, Value, reads
from sparsec.frontends.layers.dtypes import promoted
from sparsec.frontends.layers.masks import concatenated_mask, either, merged_mask, merges_by_any, over_channels


def _aligned(layer: Layer, values: Sequence[Value]) -> list[Value]:
    """The values with equal ranks, by Keras' rule: axes of size 1 are inserted after the batch axis."""
    rank = max(value.rank for value in values)

    def expand(value: Value) -> Value:
        if value.rank == rank:
            return value
        sizes = [layer.size(value, axis) for axis in range(1, value.rank)]
        return layer.emit("reshape", value, shape=(0, *(1,) * (rank - value.rank), *sizes))

    return [expand(value) for value in values]


def _fold(layer: Layer, op: str) -> Value:
    values = layer.inputs
    if len(values) < 2:
        layer.refuse(f"{len(values)} inputs where at least two were expected")
    result, *others = _aligned(layer, promoted(layer, values))
    for value in others:
        result = layer.emit(op, result, value)
    return layer.masked(result, merged_mask(layer, values))


def _masks_that_select(layer: Layer) -> list[Value | None]:
    """The masks over the channels by which Multiply, Maximum and Minimum leave out what does not count; ``None`` for none.

    Keras does so since it merges masks by "any"; an input to which it must give more axes loses its mask by that.
    """
    values, rank = layer.inputs, max(value.rank for value in layer.inputs)
    masks = [value.mask if merges_by_any(layer) and value.rank == rank else None for value in values]
    return [None if mask is None else over_channels(layer, mask) for mask in masks]


def _select(layer: Layer, op: str) -> Value:
    """The greatest or least of what counts: an input that does not count at a position takes the other's value there."""
    masks = _masks_that_select(layer)
    if all(mask is None for mask in masks):
        return _fold(layer, op)
    result, *others = _aligned(layer, promoted(layer, layer.inputs))
    known = masks[0]
    for value, mask in zip(others, masks[1:], strict=True):
        chosen = value if mask is None else layer.emit("where", mask, value, result)
        kept = result if known is None else layer.emit("where", known, result, chosen)
        known = None if mask is None or known is None else either(layer, known, mask)
        result = layer.emit(op, kept, chosen)
    return layer.masked(result, merged_mask(layer, layer.inputs))


@reads("Add")
def add(layer: Layer) -> Value:
    """Add."""
    return _fold(layer, "add")


@reads("Multiply")
def multiply(layer: Layer) -> Value:
    """Multiply: what does not count is a factor of 1, and the product 0 where nothing counts."""
    masks = _masks_that_select(layer)
    if all(mask is None for mask in masks):
        return _fold(layer, "mul")
    values = _aligned(layer, promoted(layer, layer.inputs))
    factors = [
        value if mask is None else layer.emit("where", mask, value, layer.like(value, 1.0))
        for value, mask in zip(values, masks, strict=True)
    ]
    result = factors[0]
    for factor in factors[1:]:
        result = layer.emit("mul", result, factor)
    mask = merged_mask(layer, layer.inputs)
    if mask is None:
        return result
    return layer.masked(layer.emit("where", over_channels(layer, mask), result, layer.like(result, 0.0)), mask)


@reads("Maximum")
def maximum(layer: Layer) -> Value:
    """Maximum."""
    return _select(layer, "maximum")


@reads("Minimum")
def minimum(layer: Layer) -> Value:
    """Minimum."""
    return _select(layer, "minimum")


@reads("Subtract")
def subtract(layer: Layer) -> Value:
    """Subtract: the second input from the first."""
    if len(layer.inputs) != 2:
        layer.refuse(f"{len(layer.inputs)} inputs where two were expected")
    return _fold(layer, "sub")


@reads("CustomScaleLayer")
def scaled_sum(layer: Layer) -> Value:
    """CustomScaleLayer of keras.applications' InceptionResNetV2: the first input plus a multiple of the second."""
    if len(layer.inputs) != 2:
        layer.refuse(f"{len(layer.inputs)} inputs where two were expected")
    x, residual = layer.inputs
    return layer.emit("add", x, layer.emit("mul", residual, layer.like(residual, layer.number("scale", 1.0))))


@reads("Average")
def average(layer: Layer) -> Value:
    """Average."""
    total = _fold(layer, "add")
    if not total.is_float:
        layer.refuse("the average of integers is not read; cast them to float32 first")
    return layer.masked(layer.emit("mul", total, layer.like(total, 1.0 / len(layer.inputs))), total.mask)


@reads("Concatenate")
def concatenate(layer: Layer) -> Value:
    """Concatenate along one axis."""
    values = layer.inputs
    if len(values) < 2:
        return layer.input
    (axis,) = layer.axes("axis", values[0].rank)
    if axis == 0:
        layer.refuse("concatenates along the batch axis, which is not read")
    result = layer.emit("concat", *promoted(layer, values), axis=axis - values[0].rank)
    return layer.masked(result, concatenated_mask(layer, values, axis))
