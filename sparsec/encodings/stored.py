"""The stored tensor: a weight as it lies in a bundle, and its 2-D view.

An encoding is a pair: *positions* say which elements of the matrix view are stored, *values* say how those elements are
written. Each side is a table of its own (:mod:`sparsec.encodings.positions`, :mod:`sparsec.encodings.values`), and each entry
of one joins each entry of the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Final

import numpy as np

from sparsec.errors import InputError
from sparsec.ir import DTYPES, Array

MAX_ELEMENTS: Final = 2**31 - 1
"""The largest number of elements of a tensor: flat indices are int32."""


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in one encoding.

    Attributes:
        shape: the shape of the decoded tensor.
        dtype: the dtype of the decoded tensor, one of :data:`sparsec.ir.DTYPES`.
        rows: the axes, not negative, that make up the rows of the 2-D view, in order; the other axes, in order, are its
            columns. ``()`` makes one row of everything.
        positions: name of the positions in :data:`sparsec.encodings.POSITIONS`.
        values: name of the values in :data:`sparsec.encodings.VALUES`.
        arrays: the named 1-D parts that both sides declare.
    """

    shape: tuple[int, ...]
    dtype: str
    rows: tuple[int, ...]
    positions: str
    values: str
    arrays: Mapping[str, Array]

    def __post_init__(self) -> None:
        object.__setattr__(self, "arrays", MappingProxyType(dict(self.arrays)))

    @property
    def encoding(self) -> str:
        """``csr``, ``bitmap+planes`` and so on; raw values go without saying."""
        return encoding_name(self.positions, self.values)

    @property
    def nbytes(self) -> int:
        """The bytes of all parts, before compression."""
        return sum(array.nbytes for array in self.arrays.values())

    @property
    def size(self) -> int:
        """The number of elements of the decoded tensor."""
        return prod(self.shape)

    @property
    def dense_nbytes(self) -> int:
        """The bytes of the decoded tensor."""
        return self.size * np.dtype(self.dtype).itemsize

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Rows and columns of the 2-D view."""
        return matrix_shape(self.shape, self.rows)


def encoding_name(positions: str, values: str) -> str:
    """The name of an encoding in reports."""
    return positions if values == "raw" else f"{positions}+{values}"


def matrix_shape(shape: tuple[int, ...], rows: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of the 2-D view of a tensor."""
    return (
        prod(shape[axis] for axis in rows),
        prod(size for axis, size in enumerate(shape) if axis not in rows),
    )


def normal_rows(rows: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """``rows`` counted from the front.

    Raises:
        InputError: an axis does not exist or is named twice.
    """
    if any(not -rank <= axis < rank for axis in rows) or len({axis % rank for axis in rows}) != len(rows):
        raise InputError(f"rows {rows} are not distinct axes of a tensor of rank {rank}")
    return tuple(axis % rank for axis in rows)


def _order(rank: int, rows: tuple[int, ...]) -> tuple[int, ...]:
    return (*rows, *(axis for axis in range(rank) if axis not in rows))


def to_matrix(array: Array, rows: tuple[int, ...]) -> Array:
    """The 2-D view of a tensor; a copy only where the memory order differs."""
    return array.transpose(_order(array.ndim, rows)).reshape(matrix_shape(array.shape, rows))


def from_matrix(matrix: Array, shape: tuple[int, ...], rows: tuple[int, ...]) -> Array:
    """The tensor, contiguous in row-major order, whose 2-D view is ``matrix`` (or its flat elements)."""
    matrix = matrix.reshape(matrix_shape(shape, rows))
    order = _order(len(shape), rows)
    if order == tuple(range(len(shape))):
        return np.ascontiguousarray(matrix).reshape(shape)
    tensor = np.empty(shape, matrix.dtype)
    view = to_matrix(tensor, rows)
    if np.may_share_memory(view, tensor):
        _copy_tiles(matrix, view)
    else:
        tensor.transpose(order)[...] = matrix.reshape([shape[axis] for axis in order])
    return tensor


def row_blocks(matrix: Array) -> Iterator[tuple[int, Array]]:
    """A matrix in blocks of rows, contiguous and of bounded size, each with the index of its first row."""
    height = max(_TILE, _BLOCK_ELEMENTS // max(matrix.shape[1], 1))
    for first in range(0, matrix.shape[0], height):
        block = matrix[first : first + height]
        if not block.flags.c_contiguous:
            copy = np.empty(block.shape, block.dtype)
            _copy_tiles(block, copy)
            block = copy
        yield first, block


_BLOCK_ELEMENTS: Final = 1 << 22
_TILE: Final = 256


def _copy_tiles(source: Array, target: Array) -> None:
    """Copy a matrix into one of another memory order; tile by tile, since a large one exhausts the address cache."""
    for row in range(0, source.shape[0], _TILE):
        for column in range(0, source.shape[1], _TILE):
            tile = slice(row, row + _TILE), slice(column, column + _TILE)
            target[tile] = source[tile]


def bits(array: Array) -> Array:
    """The elements of ``array`` as unsigned integers of the same width, without a copy where the array is contiguous.

    An element counts as zero only if all its bits are: -0.0 is stored, so that decoding is exact to the bit.
    """
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")


def expect_tensor(array: Array) -> None:
    """Require a dtype that a graph can hold, and a size that indices can.

    Raises:
        InputError: the dtype is another one, or there are too many elements.
    """
    if array.dtype.name not in DTYPES:
        raise InputError(f"a tensor of dtype {array.dtype.name} cannot be stored; use one of {', '.join(DTYPES)}")
    if array.size > MAX_ELEMENTS:
        raise InputError(f"a tensor of {array.size} elements cannot be stored; {MAX_ELEMENTS} are the most")
