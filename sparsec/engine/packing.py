"""Weights in the forms that native kernels take."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate
from math import prod
from typing import Any, Final

import numpy as np

from sparsec.encodings import Csr
from sparsec.encodings.stored import from_matrix
from sparsec.engine.arrangement import Arrangement
from sparsec.engine.steps import Product
from sparsec.ir import Array
from sparsec.kernels import Packing, Weight
from sparsec.kernels.filters import EvaluatedFilters, FilterGroups
from sparsec.kernels.library import Slicing
from sparsec.kernels.streams import Blocks, Places, SliceStream, Stream, rows_of
from sparsec.kernels.weights import Examination, Source

SHARED: Final = 4
"""The rows of a group that shares its columns."""

SAMPLED: Final = 64
"""The rows that are looked at to see whether sharing pays."""

SLICED: Final = 256
"""The rows that are cut into slices to see how many entries these would have."""


Piece = Stream | SliceStream | FilterGroups | EvaluatedFilters
"""A weight, or some of its rows, in a form that kernels take."""


@dataclass(frozen=True)
class Packed:
    """A weight of which each group is packed as one or more pieces, each with the rows that follow those of the one before.

    Attributes:
        groups: the pieces of each group.
    """

    groups: tuple[tuple[Piece, ...], ...]

    @cached_property
    def structures(self) -> tuple[Any, ...]:
        """For each group, an array of the C structures of its pieces."""
        return tuple(_structures(pieces) for pieces in self.groups)

    @property
    def nbytes(self) -> int:
        """The bytes of all pieces."""
        return sum(piece.nbytes for pieces in self.groups for piece in pieces)

    def csr(self) -> Csr:
        """The compressed rows of all groups."""
        parts = [piece.csr() for pieces in self.groups for piece in pieces]
        ends = np.cumsum([0, *(len(part.values) for part in parts)])
        pointers = [part.pointers[1:] + end for part, end in zip(parts, ends, strict=False)]
        joined = np.concatenate([np.zeros(1, pointers[0].dtype), *pointers])
        return Csr(joined, np.concatenate([part.indices for part in parts]), np.concatenate([part.values for part in parts]))


def _structures(pieces: Sequence[Piece]) -> Any:
    kind: Any = type(pieces[0].structure)
    return (kind * len(pieces))(*(piece.structure for piece in pieces))


@dataclass(frozen=True)
class PackedSource:
    """A weight of which a packed form is at hand, of the weight itself or as it is arranged."""

    packed: Packed
    weight: Weight
    arrangement: Arrangement | None = None

    def tensor(self) -> Array:
        """The tensor, filled from the entries."""
        csr = self.csr()
        matrix = np.zeros(self.weight.matrix_shape, np.float32)
        matrix[np.repeat(np.arange(len(matrix)), np.diff(csr.pointers)), csr.indices] = csr.values
        return from_matrix(matrix, self.weight.shape, self.weight.rows)

    def csr(self) -> Csr:
        """The compressed rows."""
        csr = self.packed.csr()
        return csr if self.arrangement is None else self.arrangement.restore(csr, self.weight)

    def nonzeros(self) -> int:
        """Counted over the values."""
        return int(np.count_nonzero(self.packed.csr().values))


def _packing(name: str, pack: Any, product: Product) -> Packing:
    groups, rows, arrangement = product.groups, product.rows, product.arrangement

    def make(source: Source, weight: Weight, attrs: Any) -> Packed:
        csr, weight = _arrange(source.csr(), weight, arrangement)
        parts = _cut(csr, [weight.matrix_shape[0] // groups] * groups)
        return Packed(tuple(tuple(piece for each in _cut(part, rows) for piece in pack(each, weight)) for part in parts))

    def back(packed: Packed, weight: Weight) -> PackedSource:
        return PackedSource(packed, weight, arrangement)

    name = "/".join((name, str(groups), *map(str, rows), *([] if arrangement is None else [arrangement.name])))
    return Packing(name, make, back, lambda attrs: None, lambda packed: int(packed.nbytes))


def _arrange(csr: Csr, weight: Weight, arrangement: Arrangement | None) -> tuple[Csr, Weight]:
    return (csr, weight) if arrangement is None else (arrangement.arrange(csr, weight), arrangement.weight(weight))


def stream(blocks: Blocks, height: int, pieces: int, product: Product, places: Places | None = None) -> Packing:
    """Rows one by one, or in groups of ``height`` that share their columns, cut into blocks of channels.

    Args:
        blocks: how channels are cut.
        height: of a group.
        pieces: into which rows are divided; where the product has rows of its own, each part for itself.
        product: what the weight is used for.
        places: of the columns, for ``windows``.
    """

    def pack(csr: Csr, weight: Weight) -> list[Stream]:
        return Stream.pieces(csr, weight.shape[-2], prod(weight.shape[:-2]), blocks, height, pieces, places)

    name = f"stream/{blocks.least}-{blocks.most}-{blocks.entries}/{height}/{pieces}"
    return _packing(name if places is None else f"{name}/{places.name}", pack, product)


def filling(csr: Csr, weight: Weight) -> float:
    """How many times as many elements are multiplied where four rows share their columns; from a sample of the rows."""
    rows, columns = weight.matrix_shape
    sample = min(rows, SAMPLED)
    stop = int(csr.pointers[sample])
    row = np.repeat(np.arange(sample), np.diff(csr.pointers[: sample + 1]))
    taken = np.zeros((-(-sample // SHARED), columns), bool)
    taken[row // SHARED, csr.indices[:stop]] = True
    return SHARED * int(np.count_nonzero(taken)) / max(stop, 1)


@cache
def slots(slicing: Slicing) -> Examination:
    """What tells how many times as many elements slices multiply as are not zero; from a sample of the rows."""

    def examine(csr: Csr, weight: Weight) -> float:
        sample = rows_of(csr, 0, min(weight.matrix_shape[0], SLICED))
        return SliceStream.slots(sample, slicing) / max(len(sample.values), 1)

    return examine


@cache
def arranged(examination: Examination, arrangement: Arrangement | None) -> Examination:
    """The same figure about a weight as it is arranged, where it is."""
    if arrangement is None:
        return examination
    return lambda csr, weight: examination(*_arrange(csr, weight, arrangement))


def slices(slicing: Slicing, pieces: int, product: Product) -> Packing:
    """Slices of rows, cut in this way; other arguments as in :func:`stream`."""

    def pack(csr: Csr, weight: Weight) -> list[SliceStream]:
        return SliceStream.pieces(csr, prod(weight.shape[:-1]), slicing, pieces)

    return _packing(f"slices/{slicing.height}x{slicing.width}/{pieces}", pack, product)


def filters(most: int, product: Product) -> Packing:
    """All elements, zeros as well.

    Args:
        most: rows of a group.
        product: what the weight is used for.
    """

    def pack(csr: Csr, weight: Weight) -> list[FilterGroups]:
        return [FilterGroups.pack(csr, weight.shape[-2], prod(weight.shape[:-2]), most)]

    return _packing(f"filters/{most}", pack, product)


def evaluated(most: int, product: Product) -> Packing:
    """All elements, the rows of windows evaluated for ``winograd``; arguments as in :func:`filters`."""

    def pack(csr: Csr, weight: Weight) -> list[EvaluatedFilters]:
        return [EvaluatedFilters.pack(csr, weight.shape[-2], weight.shape[:-2], most)]

    return _packing(f"evaluated/{most}", pack, product)


def _cut(csr: Csr, rows: Sequence[int]) -> list[Csr]:
    """Parts of so many rows each; the whole where there is but one."""
    if len(rows) <= 1:
        return [csr]
    return [rows_of(csr, stop - count, stop) for count, stop in zip(rows, accumulate(rows), strict=True)]


def address(array: Array | None) -> int | None:
    """Where an array lies."""
    return None if array is None else int(array.ctypes.data)


def pointer(structure: Any) -> int:
    """Where a C structure, or an array of them, lies."""
    return ctypes.addressof(structure)
