"""How convolutions gather their windows: as rows or as columns of a matrix, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from sparsec.ir import Array
from sparsec.kernels.base import Task
from sparsec.ops.base import integer, ints
from sparsec.ops.windows import axis_pads, blocks, columns, padded, taps


@dataclass(frozen=True)
class Geometry:
    """The sizes of one convolution.

    Attributes:
        window: the spatial sizes of the kernel.
        strides: per axis.
        dilations: per axis.
        pads: before and after each axis.
        groups: of channels.
    """

    window: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    groups: int

    @classmethod
    def of(cls, task: Task) -> Geometry:
        """The sizes that follow from a task's attributes and shapes."""
        window, attrs = task.weight.shape[:-2], task.attrs
        pads = tuple(axis_pads(attrs, task.x[1:-1], window))
        return cls(window, ints(attrs, "strides"), ints(attrs, "dilations"), pads, integer(attrs, "groups"))

    @property
    def taps(self) -> int:
        """The number of elements of the window."""
        return prod(self.window)


def positions_as_rows(geometry: Geometry, x: Array) -> Array:
    """The input positions that a window of one element meets, ``[N * positions, C]``."""
    x = padded(x, geometry.pads)[(slice(None), *(slice(None, None, step) for step in geometry.strides))]
    return x.reshape(-1, x.shape[-1])


def windows_as_rows(geometry: Geometry, x: Array, y: Array, limit: int) -> Iterator[tuple[Array, Array]]:
    """Gather windows as rows, in runs of the neighbours along the last spatial axis.

    Args:
        geometry: of the convolution.
        x: the input, ``[N, *spatial, C]``.
        y: the output, ``[N, *positions, out]``.
        limit: about how many bytes to gather at a time.

    Yields:
        windows ``[n, taps * C]``, valid until the next ones, and the part ``[n, out]`` of ``y`` that they produce.
    """
    if geometry.taps == 1:
        flat, target = positions_as_rows(geometry, x), y.reshape(-1, y.shape[-1])
        step = max(limit // (flat.shape[1] * x.itemsize), 1)
        for first in range(0, flat.shape[0], step):
            yield flat[first : first + step], target[first : first + step]
        return
    x = padded(x, geometry.pads)
    for samples, rows, block in columns(x, geometry.window, geometry.strides, geometry.dilations, limit):
        yield block, y[samples, rows].reshape(-1, y.shape[-1])


def windows_as_columns(geometry: Geometry, x: Array, y: Array, limit: int) -> Iterator[tuple[Array, Array]]:
    """Gather windows as columns, in runs of neighbouring positions.

    Args:
        geometry: of the convolution.
        x: the input, ``[N, *spatial, C]``.
        y: the output, ``[N, *positions, out]``.
        limit: about how many bytes to gather at a time, outputs included.

    Yields:
        windows ``[groups, taps * C / groups, n]``, valid until the next ones, and the part ``[n, out]`` of ``y`` that they
        produce.
    """
    # With channels first, the positions of one channel are runs in memory.
    planes = np.ascontiguousarray(np.moveaxis(padded(x, geometry.pads), -1, 0))
    views = taps(np.moveaxis(planes, 0, -1), geometry.window, geometry.strides, geometry.dilations)
    shifted = [np.moveaxis(view, -1, 0) for _, view in views]
    groups, channels = geometry.groups, x.shape[-1] // geometry.groups
    scratch: Array | None = None
    for block in blocks(y.shape[:-1], (geometry.taps * x.shape[-1] + y.shape[-1]) * x.itemsize, limit):
        target = y[block]
        shape = (groups, geometry.taps, channels, *target.shape[:-1])
        if scratch is None:
            # The first block is the largest.
            scratch = np.empty(prod(shape), x.dtype)
        gathered = scratch[: prod(shape)].reshape(shape)
        for tap, view in enumerate(shifted):
            gathered[:, tap] = view[(slice(None), *block)].reshape(groups, channels, *target.shape[:-1])
        part = target.reshape(-1, y.shape[-1])
        yield gathered.reshape(groups, -1, len(part)), part
