"""Layers that merge several values."""

from __future__ import annotations

from collections.abc import Sequence

from sparsec.frontends.layer import Layer, Value, reads


def aligned(layer: Layer, values: Sequence[Value]) -> list[Value]:
    """The values with equal ranks, by Keras' rule: axes of size 1 are inserted after the batch axis."""
    rank = max(value.rank for value in values)

    def expand(value: Value) -> Value:
        if value.rank == rank:
            return value
        missing = rank - value.rank
        if any(not isinstance(size, int) for size in value.shape[1:]):
            layer.refuse(f"an input of shape {value.type} cannot be broadcast to rank {rank} before its sizes are known")
        return layer.emit("reshape", value, shape=(0, *(1,) * missing, *value.shape[1:]))

    return [expand(value) for value in values]


def _fold(layer: Layer, op: str) -> Value:
    values = aligned(layer, layer.inputs)
    if len(values) < 2:
        layer.refuse(f"{len(values)} inputs where at least two were expected")
    result = values[0]
    for value in values[1:]:
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
    return layer.emit("mul", total, layer.like(total, 1.0 / len(layer.inputs)))


@reads("Concatenate")
def concatenate(layer: Layer) -> Value:
    """Concatenate along one axis."""
    values = layer.inputs
    if len(values) == 1:
        return values[0]
    axis = layer.option("axis", -1)
    return layer.emit("concat", *values, axis=axis if axis < 0 else axis - values[0].rank)
