"""Sliding windows over spatial axes: the arithmetic of padding and output sizes, shared by convolutions and pooling.

Values are channels-last, ``[N, *spatial, C]`` with one to three spatial axes. Padding is either the word ``same``, which means
TensorFlow's rule (the output has ``ceil(size / stride)`` positions, the odd one of the padding goes to the end), or
explicit counts ``(before_1, after_1, before_2, after_2, ...)`` in the order of the axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod

import numpy as np

from sparsec.errors import GraphError
from sparsec.ir import Array, Attrs, Dim, Shape, TensorType, ceil_div, format_shape
from sparsec.ops.base import REQUIRED, Attribute, Kind, ints

COLUMN_BYTES = 1 << 25
"""Convolutions gather at most about this many bytes of windows at a time."""

WINDOW_ATTRIBUTES = {
    "strides": Attribute(Kind.INTS),
    "padding": Attribute(Kind.STR, choices=("same", "explicit")),
    "pads": Attribute(Kind.INTS, ()),
    "dilations": Attribute(Kind.INTS, REQUIRED),
}


def extent(kernel: int, dilation: int) -> int:
    """How many positions a dilated kernel spans."""
    return (kernel - 1) * dilation + 1


def same_pads(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """The padding before and after one axis under TensorFlow's ``SAME`` rule."""
    positions = -(-size // stride)
    total = max((positions - 1) * stride + extent(kernel, dilation) - size, 0)
    return total // 2, total - total // 2


def axis_pads(attrs: Attrs, sizes: Sequence[int], kernel: Sequence[int]) -> list[tuple[int, int]]:
    """The padding before and after each spatial axis for known sizes."""
    if attrs["padding"] == "same":
        steps = zip(sizes, kernel, ints(attrs, "strides"), ints(attrs, "dilations"), strict=True)
        return [same_pads(*step) for step in steps]
    pads = ints(attrs, "pads")
    return [(pads[2 * i], pads[2 * i + 1]) for i in range(len(kernel))]


def check_window_attrs(attrs: Attrs, rank: int) -> None:
    """Check the lengths and signs of the window attributes for ``rank`` spatial axes.

    Raises:
        GraphError: an attribute does not fit.
    """
    if not 1 <= rank <= 3:
        raise GraphError(f"windows slide over 1 to 3 spatial axes, not {rank}")
    for name in ("strides", "dilations"):
        values = ints(attrs, name)
        if len(values) != rank or min(values) < 1:
            raise GraphError(f"attribute {name!r} is {values}, {rank} positive integers were expected")
    pads = ints(attrs, "pads")
    wanted = 0 if attrs["padding"] == "same" else 2 * rank
    if len(pads) != wanted or min(pads, default=0) < 0:
        raise GraphError(f"attribute 'pads' is {pads}, {wanted} counts were expected with padding {attrs['padding']!r}")


def output_sizes(attrs: Attrs, spatial: Shape, kernel: Sequence[int]) -> Shape:
    """The spatial output sizes of a convolution or pooling.

    Raises:
        GraphError: the kernel does not fit into the padded input.
    """
    strides, dilations = ints(attrs, "strides"), ints(attrs, "dilations")
    sizes: list[Dim] = []
    for axis, size in enumerate(spatial):
        if attrs["padding"] == "same":
            sizes.append(ceil_div(size, strides[axis]))
            continue
        pads = ints(attrs, "pads")
        room = size + (pads[2 * axis] + pads[2 * axis + 1] - extent(kernel[axis], dilations[axis]))
        if isinstance(room, int) and room < 0:
            raise GraphError(f"a kernel of size {kernel[axis]} does not fit into spatial shape {format_shape(spatial)}")
        sizes.append(room // strides[axis] + 1)
    return tuple(sizes)


def padded(x: Array, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Array:
    """``x`` with ``value`` around its spatial axes."""
    if not any(before or after for before, after in pads):
        return x
    # One assignment; numpy.pad fills each side of each axis by itself, which takes longer than a small convolution.
    sizes = [before + size + after for size, (before, after) in zip(x.shape[1:-1], pads, strict=True)]
    y = np.full((x.shape[0], *sizes, x.shape[-1]), value, x.dtype)
    y[(slice(None), *(slice(before, before + n) for n, (before, _) in zip(x.shape[1:-1], pads, strict=True)))] = x
    return y


def taps(
    x: Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Every kernel position with the strided view of padded ``x`` that it meets, each ``[N, *positions, C]``."""
    positions = [
        (size - extent(k, d)) // s + 1 for size, k, s, d in zip(x.shape[1:-1], kernel, strides, dilations, strict=True)
    ]
    for tap in np.ndindex(*kernel):
        window = tuple(
            slice(t * d, t * d + (p - 1) * s + 1, s) for t, d, p, s in zip(tap, dilations, positions, strides, strict=True)
        )
        yield tap, x[(slice(None), *window)]


def scatter(
    products: Iterable[Array], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], crops: Sequence[int]
) -> Array:
    """The sum of values spread out by a transposed convolution.

    Args:
        products: for every kernel position, in order, the values ``[N, *positions, C]`` that it adds at ``position * stride``.
        kernel: the window.
        strides: per axis.
        dilations: per axis.
        crops: positions cut off before and after each axis; a negative one after an axis appends zeros.
    """
    y: Array | None = None
    for tap, product in zip(np.ndindex(*kernel), products, strict=True):
        steps = list(zip(tap, product.shape[1:-1], strides, dilations, strict=True))
        if y is None:
            full = [(n - 1) * s + extent(k, d) for (_, n, s, d), k in zip(steps, kernel, strict=True)]
            room = [size + max(-crops[2 * axis + 1], 0) for axis, size in enumerate(full)]
            keep = [slice(crops[2 * axis], size - crops[2 * axis + 1]) for axis, size in enumerate(full)]
            y = np.zeros((product.shape[0], *room, product.shape[-1]), product.dtype)
        place = [slice(t * d, t * d + (n - 1) * s + 1, s) for t, n, s, d in steps]
        y[(slice(None), *place)] += product
    assert y is not None
    return y[(slice(None), *keep)]


def blocks(positions: Sequence[int], position_bytes: int, limit: int) -> Iterator[tuple[slice, slice]]:
    """Cuts ``[N, *positions]`` into blocks of at most about ``limit`` bytes, though never less than one row.

    Args:
        positions: the samples, then the sizes of the spatial axes.
        position_bytes: what one position takes.
        limit: bytes of one block.

    Yields:
        whole samples and everything in them, or one sample and some positions of the first spatial axis.
    """
    row_bytes = max(prod(positions[2:]) * position_bytes, 1)
    rows = max(limit // row_bytes, 1)
    samples = max(rows // max(positions[1], 1), 1)
    for first in range(0, positions[0], samples):
        for row in range(0, positions[1], rows):
            yield slice(first, first + samples), slice(row, row + rows)


def columns(
    x: Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], limit: int = COLUMN_BYTES
) -> Iterator[tuple[slice, slice, Array]]:
    """The windows of padded ``x`` as matrices, a block of at most about ``limit`` bytes at a time.

    Yields:
        the samples and the positions of the first spatial axis that a block covers, and its windows,
        ``[samples * positions, prod(kernel) * C]``, columns in the kernel's order; each block overwrites the one before.
    """
    views = _window_views(np.ascontiguousarray(x), kernel, strides, dilations)
    row_length = prod(kernel) * x.shape[-1]
    scratch: Array | None = None
    for block in blocks(views.shape[: x.ndim - 1], row_length * x.itemsize, limit):
        part = views[block]
        if scratch is None:
            # The first block is the largest. New memory for each would cost more than the copy.
            scratch = np.empty(part.size, x.dtype)
        gathered = scratch[: part.size]
        gathered.reshape(part.shape)[...] = part
        yield *block, gathered.reshape(-1, row_length)


def _window_views(x: Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Array:
    """A view ``[N, *positions, *kernel, C]`` of contiguous ``x``; the last two axes are one if they are one run in memory."""
    positions = [
        (size - extent(k, d)) // s + 1 for size, k, s, d in zip(x.shape[1:-1], kernel, strides, dilations, strict=True)
    ]
    steps = x.strides[1:-1]
    shape = (x.shape[0], *positions, *kernel, x.shape[-1])
    moves = (
        x.strides[0],
        *(step * s for step, s in zip(steps, strides, strict=True)),
        *(step * d for step, d in zip(steps, dilations, strict=True)),
        x.strides[-1],
    )
    if dilations[-1] == 1:
        # Copied as one run, which is several times as fast: NumPy does not see that by itself.
        shape, moves = (*shape[:-2], shape[-2] * shape[-1]), (*moves[:-2], moves[-1])
    return np.lib.stride_tricks.as_strided(x, shape, moves, writeable=False)


def expect_spatial(x: TensorType) -> int:
    """The number of spatial axes of a channels-last value.

    Raises:
        GraphError: the value has no, or more than three, spatial axes.
    """
    rank = x.rank - 2
    if not 1 <= rank <= 3:
        raise GraphError(f"a value [N, spatial..., C] with 1 to 3 spatial axes was expected, not {x}")
    return rank
