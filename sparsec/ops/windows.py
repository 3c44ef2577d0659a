"""Sliding windows over spatial axes: the arithmetic of padding and output sizes, shared by convolutions and pooling.

Values are channels-last, ``[N, *spatial, C]`` with one to three spatial axes. Padding is either the word ``same``, which means
TensorFlow's rule (the output has ``ceil(size / stride)`` positions, the odd one of the padding goes to the end), or explicit counts
``(before_1, after_1, before_2, after_2, ...)`` in the order of the axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    return np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=value)


def taps(
    x: Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Every kernel position with the strided view of padded ``x`` that it meets, each ``[N, *positions, C]``."""
    positions = [
        (size - extent(k, d)) // s + 1 for size, k, s, d in zip(x.shape[1:-1], kernel, strides, dilations, strict=True)
    ]
    for tap in np.ndindex(*kernel):
        window = tuple(
            slice(t * d, t * d + (p - 1) * s + 1, s)
            for t, d, p, s in zip(tap, dilations, positions, strides, strict=True)
        )
        yield tap, x[(slice(None), *window)]


def columns(
    x: Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Iterator[tuple[slice, slice, Array]]:
    """The windows of padded ``x`` as matrices, a bounded block at a time.

    Yields:
        the samples and the positions of the first spatial axis that a block covers, and its windows,
        ``[samples * positions, prod(kernel) * C]``, columns in the kernel's order.
    """
    views = np.lib.stride_tricks.sliding_window_view(
        x, [extent(k, d) for k, d in zip(kernel, dilations, strict=True)], axis=tuple(range(1, x.ndim - 1))
    )
    rank = len(kernel)
    steps = (
        slice(None),
        *(slice(None, None, s) for s in strides),
        slice(None),
        *(slice(None, None, d) for d in dilations),
    )
    views = views[steps]
    # [N, *positions, C, *kernel] -> [N, *positions, *kernel, C]
    views = np.moveaxis(views, rank + 1, -1)
    row_length = prod(kernel) * x.shape[-1]
    row_bytes = max(prod(views.shape[2 : rank + 1]) * row_length * x.itemsize, 1)
    rows = max(COLUMN_BYTES // row_bytes, 1)
    samples = max(rows // max(views.shape[1], 1), 1)
    for first in range(0, views.shape[0], samples):
        for row in range(0, views.shape[1], rows):
            block = slice(first, first + samples), slice(row, row + rows)
            yield *block, views[block].reshape(-1, row_length)


def expect_spatial(x: TensorType) -> int:
    """The number of spatial axes of a channels-last value.

    Raises:
        GraphError: the value has no, or more than three, spatial axes.
    """
    rank = x.rank - 2
    if not 1 <= rank <= 3:
        raise GraphError(f"a value [N, spatial..., C] with 1 to 3 spatial axes was expected, not {x}")
    return rank
