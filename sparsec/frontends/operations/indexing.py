"""Parts of tensors: slices, single positions, and positions that a list names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from sparsec.frontends.layer import Layer, Value, reads_operation
from sparsec.frontends.layers.shapes import with_axis
from sparsec.frontends.operations.operands import Arguments, arguments, as_array, as_indices
from sparsec.frontends.operations.shaping import without_axes
from sparsec.ops import TO_THE_END, TO_THE_START


def cut(layer: Layer, x: Value, axis: int, part: slice) -> Value:
    """A slice of one axis; nothing where it is the whole axis."""
    ends = [part.start, part.stop, part.step]
    if any(end is not None and type(end) is not int for end in ends):
        layer.refuse("an end of a slice is computed or no integer, which is not read")
    step = 1 if part.step is None else part.step
    if step == 0:
        layer.refuse("a slice has the step 0")
    if step == 1 and part.start in (None, 0) and part.stop is None:
        return x
    if axis == 0:
        layer.refuse("takes a part of the batch, which is not read")
    start = part.start if part.start is not None else 0 if step > 0 else -1
    stop = part.stop if part.stop is not None else TO_THE_END if step > 0 else TO_THE_START
    result = layer.emit("slice", x, axis=axis if axis < x.rank - 1 else -1, start=start, stop=stop, step=step)
    if result.shape[axis] == 0:
        layer.refuse(f"the slice {start}:{stop}:{step} of axis {axis} of {x.type} is empty")
    return result


def flipped(layer: Layer, x: Value, axes: Sequence[int]) -> Value:
    """``x`` backwards along axes."""
    for axis in axes:
        x = cut(layer, x, axis, slice(None, None, -1))
    return x


def picked(layer: Layer, x: Value, axis: int, positions: np.ndarray) -> Value:
    """The positions of one axis that an array names, whose axes take the place of that one; a scalar removes it."""
    size = x.shape[axis]
    if isinstance(size, int) and not ((positions >= -size) & (positions < size)).all():
        layer.refuse(f"an index is outside of axis {axis} of {x.type}")
    if isinstance(size, int) and not positions.ndim:
        position = int(positions) % size
        return without_axes(layer, cut(layer, x, axis, slice(position, position + 1)), (axis,))
    return layer.emit("gather", x, layer.constant("indices", positions, "int32"), axis=axis)


# --- x[...] ------------------------------------------------------------------------------------------------------------


@reads_operation("GetItem", "__operators__.getitem")
def get_item(layer: Layer) -> Value:
    """``x[...]`` with slices, positions, ``...`` and new axes."""
    given = arguments(layer, "x|tensor", "key|slice_spec")
    x, key = given.tensor("x"), given.option("key")
    if key is None:
        layer.refuse("its index is missing, or a new axis before the batch, which is not read")
    return _subscripted(layer, x, list(key) if isinstance(key, list | tuple) else [key])


def _subscripted(layer: Layer, x: Value, keys: list[Any]) -> Value:
    taken = sum(key is not None and key is not Ellipsis for key in keys)
    if taken > x.rank or sum(key is Ellipsis for key in keys) > 1:
        layer.refuse(f"its index names {taken} axes of {x.type}")
    if not any(key is Ellipsis for key in keys):
        keys = [*keys, Ellipsis]
    place = next(index for index, key in enumerate(keys) if key is Ellipsis)
    keys[place : place + 1] = [slice(None)] * (x.rank - taken)
    axis = 0
    for key in keys:
        if key is None:
            if axis == 0:
                layer.refuse("a new axis before the batch is not read")
            x = with_axis(layer, x, axis)
        elif isinstance(key, slice):
            x = cut(layer, x, axis, key)
        elif type(key) is int and axis:
            x = picked(layer, x, axis, np.asarray(key))
            continue
        else:
            layer.refuse("its index is computed, or takes samples out of the batch, which is not read; use take")
        axis += 1
    return x


# --- by name -----------------------------------------------------------------------------------------------------------


@reads_operation("slice")
def plain_slice(layer: Layer) -> Value:
    """A part that starts somewhere and has a size; -1 goes to the end."""
    given = arguments(layer, "x|input_", "begin", "size")
    x = given.tensor("x")
    starts, sizes = (_listed(given, name, x.rank) for name in ("begin", "size"))
    for axis, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        whole = start == 0 and (size == -1 or size == x.shape[axis])
        x = x if whole else cut(layer, x, axis, slice(start, None if size == -1 else start + size))
    return x


def _listed(given: Arguments, name: str, count: int) -> list[int]:
    values = [int(value) for value in as_indices(given, name).reshape(-1)]
    if len(values) != count:
        given.refuse(f"{name} = {values}, {count} integers were expected")
    return values


@reads_operation("strided_slice")
def strided_slice(layer: Layer) -> Value:
    """``tf.strided_slice``, where its masks say nothing beyond ends that are left open."""
    given = arguments(
        layer,
        "x|input_",
        "begin",
        "end",
        "strides",
        "begin_mask",
        "end_mask",
        "ellipsis_mask",
        "new_axis_mask",
        "shrink_axis_mask",
    )
    if any(given.integer(name, 0) for name in ("ellipsis_mask", "new_axis_mask", "shrink_axis_mask")):
        layer.refuse("its masks are not read; write x[...] instead")
    x = given.tensor("x")
    starts, stops = ([int(v) for v in as_indices(given, name).reshape(-1)] for name in ("begin", "end"))
    steps = [1] * len(starts) if given.option("strides") is None else [int(v) for v in as_indices(given, "strides").reshape(-1)]
    if not len(starts) == len(stops) == len(steps) <= x.rank:
        layer.refuse("begin, end and strides have different lengths")
    open_starts, open_stops = given.integer("begin_mask", 0), given.integer("end_mask", 0)
    for axis, (start, stop, step) in enumerate(zip(starts, stops, steps, strict=True)):
        part = slice(None if open_starts >> axis & 1 else start, None if open_stops >> axis & 1 else stop, step)
        x = cut(layer, x, axis, part)
    return x


@reads_operation("Take", "compat.v1.gather")
def take(layer: Layer) -> Value:
    """The positions of an axis that an array names; or the rows of a constant that a tensor names."""
    given = arguments(layer, "x|params", "indices", "axis", "batch_dims", "validate_indices")
    x, indices = given.option("x"), given.option("indices")
    if given.integer("batch_dims", 0):
        layer.refuse("gathers for each sample, which is not read")
    if isinstance(indices, Value):
        if isinstance(x, Value):
            layer.refuse("takes positions that are computed out of a tensor that is computed, which is not read")
        return _looked_up(layer, given, as_array(layer, x), indices)
    x, positions = given.tensor("x"), as_indices(given, "indices")
    given.inner_axes("axis", x.rank)
    return picked(layer, x, given.axis("axis", x.rank), positions)


def _looked_up(layer: Layer, given: Arguments, table: np.ndarray, indices: Value) -> Value:
    if given.integer("axis", 0) % max(table.ndim, 1) or not table.ndim or indices.is_float:
        layer.refuse("looks up along another axis than the first, or by numbers that are no integers")
    dtype = "float32" if table.dtype.kind == "f" and not isinstance(given.option("x"), np.ndarray) else table.dtype.name
    return layer.emit("gather", layer.constant("table", table, dtype), indices, axis=0)


@reads_operation("Split", "split")
def split(layer: Layer) -> tuple[Value, ...]:
    """Parts of an axis: so many of equal size, of the sizes that TensorFlow lists, or between the ends that Keras 3 lists."""
    given = arguments(layer, "x|value", "parts|indices_or_sections|num_or_size_splits", "axis", "num")
    x = given.tensor("x")
    axis = given.axis("axis", x.rank, 0)
    size = layer.size(x, axis)
    parts = as_indices(given, "parts")
    if not parts.ndim:
        if int(parts) < 1 or size % int(parts):
            layer.refuse(f"does not divide the {size} positions of axis {axis} into {parts} parts")
        ends = list(range(0, size + 1, size // int(parts)))
    elif layer.saved_by.generation == 3:
        ends = [0, *(int(end) if end >= 0 else int(end) + size for end in parts), size]
    else:
        sizes = [int(part) for part in parts]
        rest = size - sum(part for part in sizes if part >= 0)
        ends = [0]
        for part in sizes:
            ends.append(ends[-1] + (part if part >= 0 else rest))
    if sorted(set(ends)) != ends or ends[-1] != size:
        layer.refuse(f"its parts of the {size} positions of axis {axis} overlap, are empty, or leave some out")
    return tuple(cut(layer, x, axis, slice(*pair)) for pair in pairwise(ends))


@reads_operation("Unstack", "unstack")
def unstack(layer: Layer) -> tuple[Value, ...]:
    """Each position of an axis by itself."""
    given = arguments(layer, "x|value", "num", "axis")
    x = given.tensor("x")
    axis = given.axis("axis", x.rank, 0)
    return tuple(picked(layer, x, axis, np.asarray(position)) for position in range(layer.size(x, axis)))


@reads_operation("Flip", "reverse")
def flip(layer: Layer) -> Value:
    """Axes backwards."""
    given = arguments(layer, "x|tensor", "axis")
    x = given.tensor("x")
    return flipped(layer, x, given.inner_axes("axis", x.rank))


@reads_operation("Roll", "roll")
def roll(layer: Layer) -> Value:
    """Axes moved along, what leaves at the end comes in at the start."""
    given = arguments(layer, "x|input", "shift", "axis")
    x = given.tensor("x")
    axes = given.inner_axes("axis", x.rank)
    shifts = [int(shift) for shift in as_indices(given, "shift").reshape(-1)]
    if len(shifts) != len(axes):
        layer.refuse(f"{len(shifts)} shifts for {len(axes)} axes")
    for axis, shift in zip(axes, shifts, strict=True):
        moved = shift % layer.size(x, axis)
        if moved:
            parts = cut(layer, x, axis, slice(-moved, None)), cut(layer, x, axis, slice(None, -moved))
            x = layer.emit("concat", *parts, axis=axis - x.rank)
    return x
