"""Operators that move, select or repeat elements and compute nothing."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import numpy as np

from sparsec.errors import GraphError
from sparsec.ir import Array, Attrs, Dim, TensorType, format_shape, product
from sparsec.ops.base import (
    Attribute,
    Kind,
    Op,
    expect_dtype,
    expect_float,
    given,
    integer,
    ints,
    normal_axis,
    register,
    required,
)
from sparsec.ops.channels import AlongSpace, Concatenating, Padding, Permuting, Positional, Repeating, Reshaping
from sparsec.ops.windows import expect_spatial

TO_THE_END = 2**31 - 1
"""The stop of a slice that goes to the end of its axis."""

TO_THE_START = -(2**31)
"""The stop of a slice backwards that goes to the start of its axis."""


@register
class Reshape(Op):
    """The same elements in another shape, in row-major order.

    An entry 0 of ``shape`` copies the input's size on that axis; one entry may be -1 and takes what is left.
    """

    name = "reshape"
    inputs = ("x",)
    channels: ClassVar = Reshaping()
    attributes: ClassVar = {"shape": Attribute(Kind.INTS)}

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x = required(inputs, 0, "x")
        entries = ints(attrs, "shape")
        if entries.count(-1) > 1 or any(entry < -1 for entry in entries):
            raise GraphError(f"{entries} is not a target shape")
        result: list[Dim] = []
        rest: list[Dim] = list(x.shape)
        fixed = 1
        for axis, entry in enumerate(entries):
            if entry == 0:
                if axis >= x.rank:
                    raise GraphError(f"target shape {entries} copies axis {axis}, which {x} has not")
                result.append(x.shape[axis])
                # A copied size cancels, so that symbols need not be divided.
                rest[axis] = 1
            else:
                result.append(entry)
                fixed *= max(entry, 1)
        total = product(rest)
        if -1 in entries:
            if isinstance(total, int) and total % fixed:
                raise GraphError(f"{x} does not fit target shape {entries}")
            result[entries.index(-1)] = total // fixed
        elif total != fixed:
            raise GraphError(f"{x} does not fit target shape {entries}")
        return (TensorType(x.dtype, tuple(result)),)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        x, entries = given(inputs[0]), ints(attrs, "shape")
        # NumPy cannot work -1 out where the batch is empty: count what is left without the copied axes.
        left = prod(size for axis, size in enumerate(x.shape) if axis >= len(entries) or entries[axis] != 0)
        rest = left // prod(entry for entry in entries if entry > 0)
        shape = [x.shape[axis] if entry == 0 else rest if entry == -1 else entry for axis, entry in enumerate(entries)]
        return (x.reshape(shape),)


@register
class Transpose(Op):
    """The axes in another order: output axis ``i`` is input axis ``permutation[i]``."""

    name = "transpose"
    inputs = ("x",)
    channels: ClassVar = Permuting()
    attributes: ClassVar = {"permutation": Attribute(Kind.INTS)}

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x, permutation = required(inputs, 0, "x"), ints(attrs, "permutation")
        if sorted(permutation) != list(range(x.rank)):
            raise GraphError(f"{permutation} does not permute the axes of {x}")
        return (TensorType(x.dtype, tuple(x.shape[axis] for axis in permutation)),)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        return (given(inputs[0]).transpose(ints(attrs, "permutation")),)


@register
class Pad(Op):
    """Zeros around the spatial axes: ``pads`` holds counts before and after each, in order."""

    name = "pad"
    inputs = ("x",)
    channels: ClassVar = Padding()
    attributes: ClassVar = {"pads": Attribute(Kind.INTS)}

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x, pads = required(inputs, 0, "x"), ints(attrs, "pads")
        rank = expect_spatial(x)
        if len(pads) != 2 * rank or min(pads) < 0:
            raise GraphError(f"attribute 'pads' is {pads}, {2 * rank} counts were expected")
        sizes = tuple(size + (pads[2 * i] + pads[2 * i + 1]) for i, size in enumerate(x.shape[1:-1]))
        return (TensorType(x.dtype, (x.shape[0], *sizes, x.shape[-1])),)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        pads = ints(attrs, "pads")
        pairs = [(pads[i], pads[i + 1]) for i in range(0, len(pads), 2)]
        return (np.pad(given(inputs[0]), ((0, 0), *pairs, (0, 0))),)


@register
class Slice(Op):
    """A part of one axis: from ``start`` to before ``stop``, every ``step``-th; negative ends count from the back.

    A ``stop`` of 2147483647 goes to the end. A negative ``step`` goes backwards, with a ``stop`` of -2147483648 to the start.
    """

    name = "slice"
    inputs = ("x",)
    channels: ClassVar = AlongSpace("axis")
    attributes: ClassVar = {
        "axis": Attribute(Kind.INT),
        "start": Attribute(Kind.INT),
        "stop": Attribute(Kind.INT),
        "step": Attribute(Kind.INT, 1),
    }

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x = required(inputs, 0, "x")
        axis = normal_axis(integer(attrs, "axis"), x.rank)
        start, stop, step = integer(attrs, "start"), integer(attrs, "stop"), integer(attrs, "step")
        if step == 0:
            raise GraphError("step 0 does not move")
        size = x.shape[axis]
        if isinstance(size, int):
            length: Dim = len(range(*slice(start, stop, step).indices(size)))
        else:
            length = (_span(size, start, stop, step) + (abs(step) - 1)) // abs(step)
        shape = list(x.shape)
        shape[axis] = length
        return (TensorType(x.dtype, tuple(shape)),)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        x = given(inputs[0])
        cut = [slice(None)] * x.ndim
        cut[integer(attrs, "axis")] = slice(integer(attrs, "start"), integer(attrs, "stop"), integer(attrs, "step"))
        return (x[tuple(cut)],)


def _span(size: Dim, start: int, stop: int, step: int) -> Dim:
    """How many elements lie between the ends of a slice of an axis whose ``size`` is open, taken to be long enough.

    Raises:
        GraphError: that cannot be told from the ends.
    """

    def place(end: int) -> Dim:
        return end if end >= 0 else size + end

    if step > 0 and (stop == TO_THE_END or stop < 0):
        return (size if stop == TO_THE_END else place(stop)) - place(start)
    if step < 0 and start < 0:
        return place(start) - (-1 if stop == TO_THE_START else place(stop))
    raise GraphError(f"a slice {start}:{stop} of an axis of size {size} is not known before the model runs")


@register
class Concat(Op):
    """Values one after the other along one axis."""

    name = "concat"
    inputs = ("x*",)
    channels: ClassVar = Concatenating()
    attributes: ClassVar = {"axis": Attribute(Kind.INT)}

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        first = required(inputs, 0, "x")
        axis = normal_axis(integer(attrs, "axis"), first.rank)
        total: Dim = 0
        for index in range(len(inputs)):
            x = required(inputs, index, "x")
            expect_dtype(x, first.dtype, "x")
            if x.rank != first.rank or any(
                a != b for i, (a, b) in enumerate(zip(x.shape, first.shape, strict=True)) if i != axis
            ):
                raise GraphError(
                    f"shapes {format_shape(first.shape)} and {format_shape(x.shape)} differ outside axis {axis}, or cannot be "
                    "shown to agree before the model runs; sizes that are open are given with --input-shape"
                )
            total = total + x.shape[axis]
        shape = list(first.shape)
        shape[axis] = total
        return (TensorType(first.dtype, tuple(shape)),)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        return (np.concatenate([given(x) for x in inputs], axis=integer(attrs, "axis")),)


@register
class Tile(Op):
    """The value repeated as a whole: ``repeats`` times along each axis."""

    name = "tile"
    inputs = ("x",)
    channels: ClassVar = Repeating()
    attributes: ClassVar = {"repeats": Attribute(Kind.INTS)}

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x, repeats = required(inputs, 0, "x"), ints(attrs, "repeats")
        if len(repeats) != x.rank or any(count < 1 for count in repeats):
            raise GraphError(f"attribute 'repeats' is {repeats}, {x.rank} positive integers were expected")
        return (TensorType(x.dtype, tuple(dim * n for dim, n in zip(x.shape, repeats, strict=True))),)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        return (np.tile(given(inputs[0]), ints(attrs, "repeats")),)


@register
class Resize(Op):
    """Spatial axes resampled with half-pixel centres.

    ``sizes`` are the target sizes; an entry ``-f`` multiplies the axis by ``f`` instead. Output position ``i`` looks at source
    coordinate ``s = (i + 0.5) * source / target``: ``nearest`` takes element ``floor(s)``, ``linear`` interpolates between the
    elements around ``s - 0.5``, clamped at the edges, one axis after the other.
    """

    name = "resize"
    inputs = ("x",)
    channels: ClassVar = Positional(selects=False)
    attributes: ClassVar = {
        "sizes": Attribute(Kind.INTS),
        "method": Attribute(Kind.STR, choices=("nearest", "linear")),
    }

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x, sizes = required(inputs, 0, "x"), ints(attrs, "sizes")
        expect_float(x, "x")
        if len(sizes) != expect_spatial(x) or 0 in sizes:
            raise GraphError(f"attribute 'sizes' is {sizes}, which does not fit {x}")
        spatial: list[Dim] = [
            target if target > 0 else size * -target for size, target in zip(x.shape[1:-1], sizes, strict=True)
        ]
        return (TensorType(x.dtype, (x.shape[0], *spatial, x.shape[-1])),)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        x = given(inputs[0])
        for axis, entry in enumerate(ints(attrs, "sizes"), start=1):
            source = x.shape[axis]
            target = entry if entry > 0 else source * -entry
            if target == source:
                continue
            centres = (np.arange(target) + 0.5) * (source / target)
            if attrs["method"] == "nearest":
                x = x.take(np.minimum(np.floor(centres).astype(np.intp), source - 1), axis=axis)
                continue
            coordinate = np.clip(centres - 0.5, 0, source - 1)
            low = np.floor(coordinate).astype(np.intp)
            shape = [1] * x.ndim
            shape[axis] = target
            weight = (coordinate - low).astype(x.dtype).reshape(shape)
            below, above = x.take(low, axis=axis), x.take(np.minimum(low + 1, source - 1), axis=axis)
            x = below + (above - below) * weight
        return (x,)
