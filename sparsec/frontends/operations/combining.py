"""Tensors put together, repeated, or surrounded."""

from __future__ import annotations

import numpy as np

from sparsec.frontends.layer import Layer, Value, reads_operation
from sparsec.frontends.layers.shapes import reshaped, with_axis
from sparsec.frontends.operations.functions import cast_as_asked, filled
from sparsec.frontends.operations.indexing import cut, flipped, picked
from sparsec.frontends.operations.operands import Arguments, arguments, as_array, as_indices, as_value
from sparsec.frontends.operations.shaping import stated_sizes
from sparsec.frontends.policy import DEFAULT


def joined(layer: Layer, values: list[Value], axis: int) -> Value:
    """Values one after the other along an axis counted from the front."""
    if len(values) == 1:
        return values[0]
    return layer.emit("concat", *values, axis=axis - values[0].rank)


@reads_operation("Concatenate", "concat")
def concatenate(layer: Layer) -> Value:
    """Values one after the other along an axis."""
    given = arguments(layer, "values|xs|tensors", "axis")
    values = given.tensors("values")
    return joined(layer, values, given.axis("axis", values[0].rank, 0))


@reads_operation("Hstack", "Dstack")
def hstack(layer: Layer) -> Value:
    """Values one after the other along axis 1, or axis 2."""
    values = arguments(layer, "xs").tensors("xs")
    axis = 1 if layer.class_name == "Hstack" else 2
    if values[0].rank <= axis:
        layer.refuse(f"joins values of {values[0].rank} axes, which is not read; use concatenate or stack")
    return joined(layer, values, axis)


@reads_operation("Stack", "stack")
def stack(layer: Layer) -> Value:
    """Values one after the other along a new axis."""
    given = arguments(layer, "x|values", "axis")
    values = given.tensors("x")
    axis = given.axis("axis", values[0].rank + 1, 0)
    return joined(layer, [with_axis(layer, value, axis) for value in values], axis)


# --- repeated ----------------------------------------------------------------------------------------------------------


def tiled(layer: Layer, x: Value, repeats: list[int]) -> Value:
    """``x`` repeated as a whole along its axes."""
    if repeats[0] != 1:
        layer.refuse("repeats the batch, which is not read")
    return x if set(repeats) == {1} else layer.emit("tile", x, repeats=repeats)


@reads_operation("Tile", "tile")
def tile(layer: Layer) -> Value:
    """The value repeated as a whole."""
    given = arguments(layer, "x|input", "repeats|multiples|n")
    x = given.tensor("x")
    repeats = [int(count) for count in as_indices(given, "repeats").reshape(-1)]
    if min(repeats) < 1 or len(repeats) > x.rank:
        layer.refuse(f"repeats {x.type} {repeats} times")
    return tiled(layer, x, [1] * (x.rank - len(repeats)) + repeats)


@reads_operation("Repeat", "repeat")
def repeat(layer: Layer) -> Value:
    """Each position of an axis repeated, all as often or each as listed."""
    given = arguments(layer, "x|input", "repeats", "axis")
    x = given.tensor("x")
    given.inner_axes("axis", x.rank)
    axis, counts = given.axis("axis", x.rank), as_indices(given, "repeats").reshape(-1)
    if counts.min() < 0 or not counts.any():
        layer.refuse(f"repeats positions {counts.tolist()} times")
    if counts.size > 1:
        positions = np.repeat(np.arange(layer.size(x, axis)), counts)
        return layer.emit("gather", x, layer.constant("indices", positions, "int32"), axis=axis)
    count = int(counts[0])
    each = tiled(layer, with_axis(layer, x, axis + 1), [1] * (axis + 1) + [count] + [1] * (x.rank - axis - 1))
    return reshaped(layer, each, [*x.shape[:axis], x.shape[axis] * count, *x.shape[axis + 1 :]])


@reads_operation("BroadcastTo", "broadcast_to")
def broadcast_to(layer: Layer) -> Value:
    """Axes of size 1 repeated to other sizes; the batch stays what it is."""
    given = arguments(layer, "x|input", "shape")
    x = given.tensor("x")
    sizes = list(stated_sizes(given.option("shape", ())))
    if len(sizes) != x.rank or sizes[0] not in (-1, x.shape[0]):
        layer.refuse(f"broadcasts {x.type} to a shape of other axes, or one that fixes the size of the batch")
    repeats = [1]
    for axis, size in enumerate(sizes[1:], start=1):
        same = size in (-1, x.shape[axis])
        if not same and (x.shape[axis] != 1 or type(size) is not int):
            layer.refuse(f"broadcasts axis {axis} of {x.type} to {size}")
        repeats.append(1 if same else size)
    return tiled(layer, x, repeats)


# --- surrounded --------------------------------------------------------------------------------------------------------

MODES = {"constant": "constant", "reflect": "reflect", "symmetric": "symmetric", "edge": "edge"}


@reads_operation("Pad", "compat.v1.pad")
def pad(layer: Layer) -> Value:
    """Positions added before and after axes: a number, or what stands there."""
    given = arguments(layer, "x|tensor", "pads|pad_width|paddings", "mode", "constant_values")
    x, mode = given.tensor("x"), given.text("mode", "constant").lower()
    pairs = _pairs(layer, as_indices(given, "pads"), x.rank)
    if mode not in MODES:
        layer.refuse(f"mode = {mode!r} is not read; sparsec reads {', '.join(MODES)}")
    number = as_array(layer, given.option("constant_values", 0))
    if number.ndim:
        layer.refuse("pads with more than one number, which is not read")
    if mode != "constant":
        for axis, (before, after) in enumerate(pairs):
            x = _mirrored(layer, x, axis, before, after, mode)
        return x
    if not number and 3 <= x.rank <= 5 and pairs[-1] == (0, 0):
        return layer.emit("pad", x, pads=tuple(count for pair in pairs[1:-1] for count in pair)) if any(map(any, pairs)) else x
    fill = layer.cast(as_value(layer, number.item(), x), x.type.dtype)
    for axis, (before, after) in enumerate(pairs):
        x = _filled_around(layer, x, axis, before, after, fill)
    return x


def _pairs(layer: Layer, counts: np.ndarray, rank: int) -> list[tuple[int, int]]:
    try:
        pairs = np.broadcast_to(counts, (rank, 2)).tolist()
    except ValueError:
        layer.refuse(f"pads {counts.tolist()} do not fit a value of {rank} axes")
    if min(map(min, pairs)) < 0 or any(pairs[0]):
        layer.refuse(f"pads {counts.tolist()} are negative, or add samples to the batch")
    return [(before, after) for before, after in pairs]


def _filled_around(layer: Layer, x: Value, axis: int, before: int, after: int, fill: Value) -> Value:
    def block(count: int) -> list[Value]:
        if not count:
            return []
        first = np.zeros(1, np.int64)
        one = cut(layer, x, axis, slice(0, 1)) if isinstance(x.shape[axis], int) else picked(layer, x, axis, first)
        repeats = [count if index == axis else 1 for index in range(x.rank)]
        return [tiled(layer, filled(layer, one, fill), repeats)]

    return joined(layer, [*block(before), x, *block(after)], axis)


def _mirrored(layer: Layer, x: Value, axis: int, before: int, after: int, mode: str) -> Value:
    """Positions mirrored at the first and last one, which come twice where that is symmetric; or those two repeated."""
    if not before and not after:
        return x
    size, skipped = layer.size(x, axis), int(mode == "reflect")
    if mode != "edge" and max(before, after) > size - skipped:
        layer.refuse(f"mirrors {max(before, after)} positions of axis {axis}, which has {size}")

    def side(count: int, start: int) -> list[Value]:
        if not count:
            return []
        if mode != "edge":
            return [flipped(layer, cut(layer, x, axis, slice(start, start + count)), [axis])]
        place = 0 if start == skipped else size - 1
        repeats = [count if index == axis else 1 for index in range(x.rank)]
        return [tiled(layer, cut(layer, x, axis, slice(place, place + 1)), repeats)]

    return joined(layer, [*side(before, skipped), x, *side(after, size - skipped - after)], axis)


# --- one of many -------------------------------------------------------------------------------------------------------


@reads_operation("OneHot", "one_hot")
def one_hot(layer: Layer) -> Value:
    """A new axis that is 1 at the position that an integer names, 0 elsewhere; all 0 where there is none."""
    given = arguments(layer, "x|indices", "num_classes|depth", "on_value", "off_value", "axis", "dtype", "sparse")
    if given.flag("sparse", False):
        layer.refuse("gives a sparse tensor, which is not read")
    x, count = given.tensor("x"), given.integer("num_classes", least=1)
    if x.is_float or x.type.dtype == "bool":
        layer.refuse(f"is given {x.type.dtype} values, integers were expected")
    axis = given.axis("axis", x.rank + 1, -1)
    classes = np.arange(count).reshape(-1, *(1,) * (x.rank - axis))
    found = layer.emit("equal", with_axis(layer, x, axis), layer.constant("classes", classes, x.type.dtype))
    on, off = given.option("on_value"), given.option("off_value")
    if (on, off) == (None, None):
        return cast_as_asked(Arguments(layer, {"dtype": DEFAULT, **given.config}), layer, found)
    numbers = [layer.constant(name, as_array(layer, value), DEFAULT) for name, value in (("on", on), ("off", off or 0.0))]
    return cast_as_asked(given, layer, layer.emit("where", found, *numbers))
