"""The packed form of weights that are multiplied with their zeros; ``native/kernels.h`` defines it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from sparsec.encodings import Csr
from sparsec.ir import Array
from sparsec.kernels import aligned
from sparsec.kernels.library import Filters


def group_height(rows: int, most: int) -> int:
    """The rows of a group: even, and such that groups of at most ``most`` rows leave few over."""
    return 2 * -(-rows // (2 * -(-rows // most)))


POINTS: Final = {3: (0, 1, -1), 5: (0, 1, -1, 2, -2)}
"""By the rows of a window, the points but infinity at which ``winograd`` multiplies; as in ``native/winograd.c``."""


@dataclass(frozen=True)
class FilterGroups:
    """``sparsec_filters``: a matrix ``[rows, taps * channels]`` in groups of ``height`` rows, ``[groups, columns, height]``."""

    rows: int
    channels: int
    values: Array

    @classmethod
    def pack(cls, csr: Csr, channels: int, taps: int, most: int) -> FilterGroups:
        """Packs compressed rows, in groups of at most ``most`` rows."""
        return cls(len(csr.pointers) - 1, channels, _grouped(_matrix(csr, channels * taps), most))

    def csr(self) -> Csr:
        """The compressed rows."""
        return _compressed(self.values.swapaxes(1, 2).reshape(-1, self.values.shape[1])[: self.rows])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, int(self.values.shape[1])

    @property
    def nbytes(self) -> int:
        """The bytes of the values."""
        return self.values.nbytes

    @cached_property
    def structure(self) -> Filters:
        """The C structure; valid as long as this object."""
        _, columns, height = self.values.shape
        return Filters(self.rows, self.channels, columns // self.channels, height, self.values.ctypes.data)


@dataclass(frozen=True)
class EvaluatedFilters:
    """``sparsec_filters`` for ``winograd``: the rows of windows as polynomials, evaluated at points.

    From values at points the weights could not be had back without a rounding, so they are there as well.
    """

    weights: Array
    filters: FilterGroups

    @classmethod
    def pack(cls, csr: Csr, channels: int, window: Sequence[int], most: int) -> EvaluatedFilters:
        """Packs compressed rows ``[*window, channels]``, in groups of at most ``most`` rows."""
        height, width = window
        points = POINTS[height]
        powers = np.vander(np.array(points, np.float64), height, increasing=True)
        factors = [np.prod([point - other for other in points if other != point]) for point in points]
        at_points = np.concatenate([powers / np.array(factors)[:, None], np.eye(height)[-1:]])
        weights = _matrix(csr, height * width * channels)
        rows = len(weights)
        evaluated = at_points @ weights.astype(np.float64).reshape(rows, height, width * channels)
        by_channel = evaluated.reshape(rows, -1, width, channels).swapaxes(2, 3)
        values = by_channel.reshape(rows, -1).astype(np.float32)
        return cls(weights, FilterGroups(rows, channels, _grouped(values, most)))

    def csr(self) -> Csr:
        """The compressed rows."""
        return _compressed(self.weights)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.weights.shape
        return rows, columns

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return self.filters.nbytes + self.weights.nbytes

    @property
    def structure(self) -> Filters:
        """The C structure; valid as long as this object."""
        return self.filters.structure


def _matrix(csr: Csr, columns: int) -> Array:
    """Compressed rows with their zeros."""
    rows = len(csr.pointers) - 1
    matrix = np.zeros((rows, columns), np.float32)
    matrix[np.repeat(np.arange(rows), np.diff(csr.pointers)), csr.indices] = csr.values
    return matrix


def _compressed(matrix: Array) -> Csr:
    """A matrix without its zeros."""
    row, column = np.nonzero(matrix)
    pointers = np.r_[0, np.cumsum(np.bincount(row, minlength=len(matrix)))].astype(np.int32)
    return Csr(pointers, column.astype(np.int32), matrix[row, column])


def _grouped(matrix: Array, most: int) -> Array:
    """``[groups, columns, height]`` of a matrix, with zeros after its last row."""
    rows, columns = matrix.shape
    height = group_height(rows, most)
    groups = -(-rows // height)
    padded = np.zeros((groups * height, columns), np.float32)
    padded[:rows] = matrix
    values = aligned.zeros((groups, columns, height), np.float32)
    values[:] = padded.reshape(groups, height, columns).swapaxes(1, 2)
    return values
