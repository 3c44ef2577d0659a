"""Positions: which elements of a matrix are stored.

Every encoding of positions turns a :class:`Pattern` into named integer parts and back. To add one, subclass :class:`Positions`,
register it, and give ``formats/encodings.md`` its worked example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Final, TypeVar

import numpy as np

from sparsec.errors import FormatError
from sparsec.ir import Array

INDEX_DTYPES: Final = ("uint8", "uint16", "uint32")
"""The dtypes of indices and pointers; writers use the smallest that holds the largest value there can be."""


def index_dtype(largest: int) -> str:
    """The smallest index dtype that holds ``largest``."""
    return next(name for name in INDEX_DTYPES if largest <= np.iinfo(name).max)


class Pattern:
    """The stored positions of a matrix, as a mask and as ascending flat indices; either is worked out from the other.

    Attributes:
        shape: rows and columns of the matrix.
    """

    def __init__(self, shape: tuple[int, int], *, mask: Array | None = None, flat: Array | None = None) -> None:
        self.shape = shape
        self._mask = mask
        self._flat = flat

    @property
    def mask(self) -> Array:
        """A flat bool array in row-major order."""
        if self._mask is None:
            self._mask = np.zeros(self.shape[0] * self.shape[1], np.bool_)
            self._mask[self.flat] = True
        return self._mask

    @property
    def flat(self) -> Array:
        """Flat indices in row-major order, ascending, int32."""
        if self._flat is None:
            self._flat = np.flatnonzero(self.mask).astype(np.int32)
        return self._flat

    @property
    def count(self) -> int:
        """How many positions are stored."""
        return int(np.count_nonzero(self.mask)) if self._flat is None else len(self._flat)

    def row_pointers(self) -> Array:
        """Where each row begins in the list of stored positions, and the count at the end; int64."""
        rows, columns = self.shape
        pointers = np.zeros(rows + 1, np.int64)
        if self._mask is not None:
            per_row = np.count_nonzero(self._mask.reshape(rows, columns), axis=1)
        else:
            per_row = np.bincount(self.rows(), minlength=rows)
        np.cumsum(per_row, out=pointers[1:])
        return pointers

    def rows(self) -> Array:
        """The row of each stored position, int32."""
        return self.flat // np.int32(max(self.shape[1], 1))

    def columns(self) -> Array:
        """The column of each stored position, int32."""
        return self.flat % np.int32(max(self.shape[1], 1))


def flat_indices(pointers: Array, columns: Array, width: int) -> Array:
    """Flat indices, int32, of compressed rows in a matrix of ``width`` columns; ``pointers`` are signed."""
    begins = np.arange(len(pointers) - 1, dtype=np.int32) * np.int32(width)
    flat = np.repeat(begins, np.diff(pointers))
    flat += columns.astype(np.int32)
    return flat


Parts = Mapping[str, Array]


class Positions(ABC):
    """An encoding of positions.

    Attributes:
        name: its name in bundles.
        dtypes: the parts in order, each with the dtypes that it may have.
    """

    name: ClassVar[str]
    dtypes: ClassVar[Mapping[str, tuple[str, ...]]]

    @abstractmethod
    def sizes(self, shape: tuple[int, int], count: int) -> dict[str, int]:
        """The bytes of each part for ``count`` stored positions in a matrix of ``shape``."""

    @abstractmethod
    def encode(self, pattern: Pattern) -> dict[str, Array]:
        """The parts that hold ``pattern``."""

    @abstractmethod
    def decode(self, parts: Parts, shape: tuple[int, int]) -> Pattern:
        """The pattern that checked ``parts`` hold."""

    @abstractmethod
    def check(self, parts: Parts, shape: tuple[int, int], count: int) -> None:
        """Check that ``parts`` hold exactly ``count`` positions inside ``shape``.

        Raises:
            FormatError: they do not.
        """

    def csr(self, parts: Parts, shape: tuple[int, int]) -> tuple[Array, Array]:
        """Row pointers and columns of checked ``parts``, in any integer dtypes."""
        pattern = self.decode(parts, shape)
        return pattern.row_pointers(), pattern.columns()


POSITIONS: dict[str, Positions] = {}
"""Every encoding of positions by name."""

PositionsClass = TypeVar("PositionsClass", bound=type[Positions])


def register(cls: PositionsClass) -> PositionsClass:
    """Enter an encoding into :data:`POSITIONS`; a class decorator."""
    POSITIONS[cls.name] = cls()
    return cls


@register
class Dense(Positions):
    """Every element is stored, in the row-major order of the tensor itself, so that reading needs no transposition."""

    name = "dense"
    dtypes: ClassVar = {}

    def sizes(self, shape: tuple[int, int], count: int) -> dict[str, int]:
        """No parts."""
        return {}

    def encode(self, pattern: Pattern) -> dict[str, Array]:
        """No parts."""
        return {}

    def decode(self, parts: Parts, shape: tuple[int, int]) -> Pattern:
        """Everywhere."""
        return Pattern(shape, mask=np.ones(shape[0] * shape[1], np.bool_))

    def check(self, parts: Parts, shape: tuple[int, int], count: int) -> None:
        """The number of values is the number of elements."""
        if count != shape[0] * shape[1]:
            raise FormatError(f"there are {count} values for {shape[0] * shape[1]} elements")


@register
class Csr(Positions):
    """Compressed rows: the columns of each row, ascending, and where each row begins."""

    name = "csr"
    dtypes: ClassVar = {"pointers": INDEX_DTYPES, "indices": INDEX_DTYPES}

    def sizes(self, shape: tuple[int, int], count: int) -> dict[str, int]:
        """``rows + 1`` pointers and ``count`` indices."""
        rows, columns = shape
        return {
            "pointers": (rows + 1) * np.dtype(index_dtype(count)).itemsize,
            "indices": count * np.dtype(index_dtype(columns - 1)).itemsize,
        }

    def encode(self, pattern: Pattern) -> dict[str, Array]:
        """Pointers and columns in the smallest dtypes."""
        pointers = pattern.row_pointers()
        return {
            "pointers": pointers.astype(index_dtype(int(pointers[-1]))),
            "indices": pattern.columns().astype(index_dtype(pattern.shape[1] - 1)),
        }

    def decode(self, parts: Parts, shape: tuple[int, int]) -> Pattern:
        """Flat indices from rows and columns."""
        return Pattern(shape, flat=flat_indices(parts["pointers"].astype(np.int64), parts["indices"], shape[1]))

    def check(self, parts: Parts, shape: tuple[int, int], count: int) -> None:
        """Pointers ascend from 0 to ``count``; columns ascend strictly inside each row."""
        rows, columns = shape
        pointers, indices = parts["pointers"], parts["indices"]
        if len(pointers) != rows + 1 or len(indices) != count:
            raise FormatError(f"{len(pointers)} pointers and {len(indices)} indices do not fit {rows} rows, {count} values")
        if pointers[0] != 0 or pointers[-1] != count or np.any(pointers[1:] < pointers[:-1]):
            raise FormatError(f"the pointers do not ascend from 0 to {count}")
        if not count:
            return
        if indices.max() >= columns:
            raise FormatError(f"index {indices.max()} is outside of {columns} columns")
        descents = indices[1:] <= indices[:-1]
        # A row may begin with a smaller column than the one before it ended with.
        inner = pointers[(pointers > 0) & (pointers < count)]
        descents[inner.astype(np.int64) - 1] = False
        if descents.any():
            raise FormatError("the indices of a row do not ascend")

    def csr(self, parts: Parts, shape: tuple[int, int]) -> tuple[Array, Array]:
        """The parts as they are."""
        return parts["pointers"], parts["indices"]


@register
class Coo(Positions):
    """Coordinates: row and column of every position, ascending in row-major order."""

    name = "coo"
    dtypes: ClassVar = {"rows": INDEX_DTYPES, "columns": INDEX_DTYPES}

    def sizes(self, shape: tuple[int, int], count: int) -> dict[str, int]:
        """``count`` rows and ``count`` columns."""
        return {
            name: count * np.dtype(index_dtype(size - 1)).itemsize
            for name, size in zip(("rows", "columns"), shape, strict=True)
        }

    def encode(self, pattern: Pattern) -> dict[str, Array]:
        """Rows and columns in the smallest dtypes."""
        rows, columns = pattern.shape
        return {
            "rows": pattern.rows().astype(index_dtype(rows - 1)),
            "columns": pattern.columns().astype(index_dtype(columns - 1)),
        }

    def decode(self, parts: Parts, shape: tuple[int, int]) -> Pattern:
        """Flat indices from rows and columns."""
        flat = parts["rows"].astype(np.int32)
        flat *= np.int32(shape[1])
        flat += parts["columns"].astype(np.int32)
        return Pattern(shape, flat=flat)

    def check(self, parts: Parts, shape: tuple[int, int], count: int) -> None:
        """Coordinates lie inside the matrix and ascend strictly in row-major order."""
        if len(parts["rows"]) != count or len(parts["columns"]) != count:
            raise FormatError(f"{len(parts['rows'])} rows and {len(parts['columns'])} columns do not fit {count} values")
        if not count:
            return
        for name, size in zip(("rows", "columns"), shape, strict=True):
            if parts[name].max() >= size:
                raise FormatError(f"index {parts[name].max()} in {name!r} is outside of {size}")
        flat = self.decode(parts, shape).flat
        if np.any(flat[1:] <= flat[:-1]):
            raise FormatError("the coordinates do not ascend in row-major order")


@register
class Bitmap(Positions):
    """One bit for every element in row-major order, 1 where it is stored; the first in the lowest bit of the first byte."""

    name = "bitmap"
    dtypes: ClassVar = {"bitmap": ("uint8",)}

    def sizes(self, shape: tuple[int, int], count: int) -> dict[str, int]:
        """One bit an element, whole bytes."""
        return {"bitmap": -(-shape[0] * shape[1] // 8)}

    def encode(self, pattern: Pattern) -> dict[str, Array]:
        """The packed mask."""
        return {"bitmap": np.packbits(pattern.mask, bitorder="little")}

    def decode(self, parts: Parts, shape: tuple[int, int]) -> Pattern:
        """The unpacked mask."""
        mask = np.unpackbits(parts["bitmap"], count=shape[0] * shape[1], bitorder="little")
        return Pattern(shape, mask=mask.view(np.bool_))

    def check(self, parts: Parts, shape: tuple[int, int], count: int) -> None:
        """As many bits are set as there are values, and none behind the last element."""
        bitmap, size = parts["bitmap"], shape[0] * shape[1]
        if len(bitmap) != -(-size // 8):
            raise FormatError(f"a bitmap of {len(bitmap)} bytes does not fit {size} elements")
        if size % 8 and bitmap[-1] >> (size % 8):
            raise FormatError("the bitmap has bits behind the last element")
        found = popcount(bitmap)
        if found != count:
            raise FormatError(f"the bitmap has {found} bits set for {count} values")


_POPCOUNT_BYTES: Final = 1 << 18
_BITS_OF_BYTE: Final = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)


def popcount(data: Array) -> int:
    """The number of bits that are set in an array of uint8."""
    # In blocks: NumPy widens what it counts to eight times the bytes.
    blocks = range(0, len(data), _POPCOUNT_BYTES)
    return sum(int(np.bincount(data[at : at + _POPCOUNT_BYTES], minlength=256) @ _BITS_OF_BYTE) for at in blocks)
