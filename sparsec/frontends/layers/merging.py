"""Layers that merge several values."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.frontends.layer import Layer, Value, reads
from sparsec.frontends.layers.dtypes import promoted


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
    return result


@reads("Add")
def add(layer: Layer) -> Value:
    """Add."""
    return _fold(layer, "add")


@reads("Multiply")
def multiply(layer: Layer) -> Value:
    """Multiply."""
    return _fold(layer, "mul")


@reads("Maximum")
def maximum(layer: Layer) -> Value:
    """Maximum."""
    return _fold(layer, "maximum")


@reads("Minimum")
def minimum(layer: Layer) -> Value:
    """Minimum."""
    return _fold(layer, "minimum")


@reads("Subtract")
def subtract(layer: Layer) -> Value:
    """Subtract: the second input from the first."""
    if len(layer.inputs) != 2:
        layer.refuse(f"{len(layer.inputs)} inputs where two were expected")
    return _fold(layer, "sub")


@reads("Average")
def average(layer: Layer) -> Value:
    """Average."""
    total = _fold(layer, "add")
    if not total.is_float:
        layer.refuse("the average of integers is not read; cast them to float32 first")
    return layer.emit("mul", total, layer.like(total, 1.0 / len(layer.inputs)))


@reads("Concatenate")
def concatenate(layer: Layer) -> Value:
    """Concatenate along one axis."""
    values = layer.inputs
    if len(values) < 2:
        return layer.input
    (axis,) = layer.axes("axis", values[0].rank)
    if axis == 0:
        layer.refuse("concatenates along the batch axis, which is not read")
    return layer.emit("concat", *promoted(layer, values), axis=axis - values[0].rank)
