"""The packed form of weights that are multiplied with their zeros; ``native/kernels.h`` defines it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sparsec.encodings import Csr
from sparsec.ir import Array
from sparsec.kernels.library import Filters


def group_height(rows: int, most: int) -> int:
    """The rows of a group: even, and such that groups of at most ``most`` rows leave few over."""
    return 2 * -(-rows // (2 * -(-rows // most)))


@dataclass(frozen=True)
class FilterGroups:
    """``sparsec_filters``: a matrix ``[rows, taps * channels]`` in groups of ``height`` rows, ``[groups, columns, height]``."""

    rows: int
    channels: int
    values: Array

    @classmethod
    def pack(cls, csr: Csr, channels: int, taps: int, most: int) -> FilterGroups:
        """Packs compressed rows, in groups of at most ``most`` rows."""
        rows, columns = len(csr.pointers) - 1, channels * taps
        height = group_height(rows, most)
        groups = -(-rows // height)
        matrix = np.zeros((groups * height, columns), np.float32)
        matrix[np.repeat(np.arange(rows), np.diff(csr.pointers)), csr.indices] = csr.values
        return cls(rows, channels, np.ascontiguousarray(matrix.reshape(groups, height, columns).swapaxes(1, 2)))

    def csr(self) -> Csr:
        """The compressed rows."""
        matrix = self.values.swapaxes(1, 2).reshape(-1, self.values.shape[1])[: self.rows]
        row, column = np.nonzero(matrix)
        pointers = np.r_[0, np.cumsum(np.bincount(row, minlength=self.rows))].astype(np.int32)
        return Csr(pointers, column.astype(np.int32), matrix[row, column])

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
