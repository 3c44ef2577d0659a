"""Transposed convolutions as ordinary ones.

With a stride of s the output positions q * s + r, for every q, are phase r. Element t of the window adds to positions that are
all of one phase, so a phase is a convolution of the input with the elements that add to it, and its stride is one. All phases
together are one convolution with s times as many output channels, whose weight is zero where an element is not of a phase: as
many entries as before. What it gives is as large as the output, and interleaved unless there is but one phase.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import gcd, prod
from typing import Any

import numpy as np

from sparsec.encodings import Csr
from sparsec.engine.steps import Planes, Window
from sparsec.ir import Array
from sparsec.kernels import Weight


@dataclass(frozen=True)
class Axis:
    """One axis of a transposed convolution.

    Attributes:
        size: of the window.
        stride: between what neighbouring input positions add to.
        dilation: between what neighbouring elements of the window add to.
        crop: positions that are cut off before the output begins.
    """

    size: int
    stride: int
    dilation: int
    crop: int

    @classmethod
    def of(cls, size: int, stride: int, dilation: int, crop: int, x: int, y: int) -> Axis:
        """The axis for known numbers of input and output positions."""
        if x == 1 and crop == 0 and y > (size - 1) * dilation:
            # A single position has no neighbour, so that the stride may be any: every output position is a phase of its own.
            stride = y
        return cls(size, stride, dilation, crop)

    @property
    def phases(self) -> list[int]:
        """Of each element of the window."""
        return [(t * self.dilation - self.crop) % self.stride for t in range(self.size)]

    @property
    def _shifts(self) -> list[int]:
        """For each element of the window, the input position that adds to position 0 of its phase."""
        return [
            (phase + self.crop - t * self.dilation) // self.stride
            for t, phase in zip(range(self.size), self.phases, strict=True)
        ]

    @property
    def pad(self) -> int:
        """The zeros before the input."""
        return max(-min(self._shifts), 0)

    @property
    def spacing(self) -> int:
        """The dilation of the ordinary convolution."""
        return gcd(*(shift + self.pad for shift in self._shifts)) or 1

    @property
    def places(self) -> list[int]:
        """For each element of the window, which it is in that of the ordinary convolution."""
        return [(shift + self.pad) // self.spacing for shift in self._shifts]


@dataclass(frozen=True)
class Phases:
    """A transposed convolution as an ordinary one.

    Attributes:
        axes: the two of them; one along a line has a first axis of one position.
    """

    axes: tuple[Axis, Axis]

    @property
    def strides(self) -> tuple[int, int]:
        """The phases along either axis."""
        first, second = self.axes
        return first.stride, second.stride

    @property
    def count(self) -> int:
        """The number of phases."""
        return prod(self.strides)

    @property
    def window(self) -> Window:
        """The window of the ordinary convolution."""
        (a, b), (first, second) = self._sizes, self.axes
        return Window((a, b), dilations=(first.spacing, second.spacing), pads=(first.pad, second.pad))

    @property
    def name(self) -> str:
        """Unique among the arrangements of a weight."""
        return "x".join(f"{axis.size}.{axis.stride}.{axis.dilation}.{axis.crop}" for axis in self.axes)

    def planes(self, y: Planes) -> Planes:
        """The sizes of what the ordinary convolution gives, for an output; channels are those of each phase in turn."""
        down, across = self.strides
        return Planes(y.samples, -(-y.height // down), -(-y.width // across), self.count * y.channels)

    def weight(self, weight: Weight) -> Weight:
        """The shape of the weight of the ordinary convolution, ``[*window, in, phases * out]``."""
        *_, outputs, inputs = weight.shape
        return Weight(weight.path, (*self._sizes, inputs, self.count * outputs), (3,), weight.dtype)

    def arrange(self, csr: Csr, weight: Weight) -> Csr:
        """The compressed rows of the weight of the ordinary convolution.

        Args:
            csr: those of the transposed one.
            weight: the shape of that.
        """
        *_, outputs, inputs = weight.shape
        places = (self._phases * outputs + np.arange(outputs)[:, None]) * self._size + self._places
        return moved(csr, inputs, places, self.count * outputs, self._size)

    def restore(self, csr: Csr, weight: Weight) -> Csr:
        """What :meth:`arrange` was given."""
        *_, outputs, inputs = weight.shape
        taps = np.zeros((self.count, 1, self._size), np.int64)
        taps[self._phases, 0, self._places] = np.arange(len(self._places))
        places = np.arange(outputs)[:, None] * len(self._places) + taps
        return moved(csr, inputs, places.reshape(-1, self._size), outputs, len(self._places))

    @property
    def _size(self) -> int:
        return prod(self._sizes)

    @property
    def _sizes(self) -> tuple[int, int]:
        first, second = (max(axis.places) + 1 for axis in self.axes)
        return first, second

    @cached_property
    def _phases(self) -> Array:
        """Of each element of the transposed window."""
        return _flat([axis.phases for axis in self.axes], self.strides)

    @cached_property
    def _places(self) -> Array:
        """Of each element of the transposed window, in that of the ordinary convolution."""
        return _flat([axis.places for axis in self.axes], self._sizes)


def _flat(indices: Sequence[Sequence[int]], sizes: tuple[int, int]) -> Array:
    """All combinations of indices along two axes, as flat indices."""
    flat: Any = np.ravel_multi_index(np.array(list(product(*indices))).T, sizes)
    return np.asarray(flat, np.int64)


def moved(csr: Csr, channels: int, places: Array, rows: int, taps: int) -> Csr:
    """Compressed rows in which the entries of an element of the window, for one row, are moved to another element and row.

    Args:
        csr: rows that have some channels for each element of the window.
        channels: how many.
        places: for each row and element, ``row * taps + element`` of where they go; it does not matter where there are none.
        rows: of the result.
        taps: elements of its window.
    """
    sizes = np.bincount(_segments(csr, channels, places.shape[1]), minlength=places.size)
    present = np.flatnonzero(sizes)
    order = present[np.argsort(places.reshape(-1)[present])]
    lengths, starts = sizes[order], np.cumsum(sizes) - sizes
    distances = starts[order] - (np.cumsum(lengths) - lengths)
    taken = np.arange(len(csr.values), dtype=np.int32) + np.repeat(distances.astype(np.int32), lengths)
    to_row, to_tap = np.divmod(places.reshape(-1)[order], taps)
    indices = csr.indices[taken] % channels + np.repeat((to_tap * channels).astype(np.int32), lengths)
    of_rows = np.bincount(to_row, weights=lengths, minlength=rows)
    return Csr(np.r_[0, np.cumsum(of_rows)].astype(np.int32), indices, csr.values[taken])


def _segments(csr: Csr, channels: int, taps: int) -> Array:
    """``row * taps + element`` of each entry."""
    segments = np.repeat(np.arange(len(csr.pointers) - 1) * taps, np.diff(csr.pointers))
    segments += csr.indices // channels
    return segments
