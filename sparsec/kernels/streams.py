"""Packed forms for the native kernels: entries in the order in which they are read, without pointers to rows.

Both forms depend on the weight alone, not on the machine or on the sizes of the input; ``native/kernels.h`` defines them.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import ceil
from typing import Any, Final

import numpy as np

from sparsec.encodings import Csr
from sparsec.ir import Array
from sparsec.kernels import aligned, library
from sparsec.kernels.library import Matrix, Slices, Slicing


@dataclass(frozen=True)
class Blocks:
    """How a matrix is cut into blocks: what of the vectors a block meets has to fit into the first-level cache.

    Attributes:
        entries: about so many should a row have in a block, for which reading and writing its part of the output pays.
        least: columns of a block.
        most: columns of a block.
    """

    entries: int
    least: int
    most: int

    def channels(self, density: float, taps: int) -> int:
        """The number of channels in a block of a matrix with ``taps`` columns for each."""
        columns = min(max(self.entries / max(density, 1e-9), self.least), self.most)
        return max(round(columns / taps), 1)

    def scaled(self, scale: float) -> Blocks:
        """Blocks so many times as wide."""
        return Blocks(round(self.entries * scale), round(self.least * scale), round(self.most * scale))

    def within(self, columns: int) -> Blocks:
        """Blocks of at most so many columns."""
        return replace(self, least=min(self.least, columns), most=min(self.most, columns))


@dataclass(frozen=True)
class Places:
    """Where the panel of ``windows`` has what the columns of a block meet, in lines; as in ``native/windows.c``.

    Attributes:
        size: of the window.
        stride: of its rows.
        dilation: of its rows.
        most: the lines that a tile has at most.
    """

    size: tuple[int, int]
    stride: int
    dilation: int
    most: int

    @property
    def name(self) -> str:
        """A short name."""
        return f"{self.size[0]}x{self.size[1]}/{self.stride}-{self.dilation}-{self.most}"

    @property
    def _phase(self) -> int:
        return ceil(((self.most - 1) * self.stride + (self.size[0] - 1) * self.dilation + 1) / self.stride)

    @property
    def of_channel(self) -> int:
        """Lines from a channel to the next."""
        return self.size[1] * self.stride * self._phase

    @cached_property
    def _taps(self) -> Array:
        row, column = np.divmod(np.arange(self.size[0] * self.size[1]), self.size[1])
        skipped, phase = np.divmod(row * self.dilation, self.stride)
        return (column * self.stride + phase) * self._phase + skipped

    def of_columns(self, channels: int) -> Array:
        """The places of the columns of so many channels."""
        return (np.arange(channels)[:, None] * self.of_channel + self._taps).reshape(-1)

    def columns(self, places: Array) -> Array:
        """The columns that have these places."""
        channel, place = np.divmod(places, self.of_channel)
        tap = np.zeros(self.of_channel, np.int64)
        tap[self._taps] = np.arange(len(self._taps))
        return channel * len(self._taps) + tap[place]


DENSE_BLOCKS: Final = Blocks(26, 128, 512)
BATCH_BLOCKS: Final = Blocks(16, 96, 192)
POINTWISE_BLOCKS: Final = Blocks(13, 96, 256)
WINDOW_BLOCKS: Final = Blocks(13, 144, 216)

MAX_COLUMNS: Final = 1 << 16
"""The columns in a block are counted in 16 bits."""

SLICE: Final = 16
"""The most rows of a slice."""

GROUP: Final = 4
"""The entries of a row in a group of windows."""

HOP: Final = 8
"""The columns in which the way from a window to the next is counted."""


def _address(array: Array) -> int:
    return int(array.ctypes.data)


def _runs(lengths: Array, blocks: Array, count: int) -> tuple[Array, Array]:
    """Runs of equal length in each block.

    Args:
        lengths: of items sorted by block and length.
        blocks: of each item.
        count: the number of blocks.

    Returns:
        the runs of each block, ``[blocks]``, and the length and number of items of each run, ``[runs, 2]``.
    """
    starts = np.flatnonzero(np.r_[True, (np.diff(lengths) != 0) | (np.diff(blocks) != 0)] if lengths.size else [])
    sizes = np.diff(np.r_[starts, lengths.size])
    runs = np.stack([lengths[starts], sizes], axis=1).astype(np.int32)
    return np.bincount(blocks[starts], minlength=count).astype(np.int32), runs


@dataclass(frozen=True)
class Stream:
    """``sparsec_matrix``: a sparse matrix ``[rows, taps * channels]`` in blocks of channels and groups of ``height`` rows.

    With ``places`` its columns are those, for ``windows``.
    """

    rows: int
    channels: int
    taps: int
    height: int
    starts: Array
    counts: Array
    runs: Array
    order: Array
    columns: Array
    values: Array
    places: Places | None = None

    @classmethod
    def pack(
        cls, csr: Csr, channels: int, taps: int, cut: Blocks = DENSE_BLOCKS, height: int = 1, places: Places | None = None
    ) -> Stream:
        """Packs compressed rows, whose columns are the channels of each element of the window in turn."""
        rows = len(csr.pointers) - 1
        groups, columns = -(-rows // height), channels * taps
        entries = len(csr.values)
        if height > 1:
            entries = int(_Packer(csr, channels, taps, max(channels, 1), height).lengths().sum())
        width = min(cut.channels(entries / max(groups * columns, 1), taps), max(channels, 1))
        packer = _Packer(csr, channels, taps, width, height)
        lengths = packer.lengths()
        blocks = len(lengths)
        by_length = np.argsort(lengths, axis=1, kind="stable")
        sorted_lengths = np.take_along_axis(lengths, by_length, axis=1)
        begins = np.empty(lengths.shape, np.int64)
        np.put_along_axis(begins, by_length, (np.cumsum(sorted_lengths) - sorted_lengths.reshape(-1)).reshape(lengths.shape), 1)
        # The first and the last block have every row: there the output begins, and ends.
        named = sorted_lengths > 0
        named[0] = named[-1] = True
        counts, runs = _runs(sorted_lengths[named], np.nonzero(named)[0], blocks)
        starts = np.minimum(np.arange(blocks + 1) * width, channels).astype(np.int32)
        order = (by_length[named] * height).astype(np.int32)
        found, values = packer.entries(begins)
        if places is not None:
            found = places.of_columns(width).astype(np.uint16)[found]
        return cls(rows, channels, taps, height, starts, counts, runs, order, found, values, places)

    def csr(self) -> Csr:
        """The compressed rows."""
        of_run = np.repeat(np.arange(len(self.counts)), self.counts)
        per_row = np.repeat(self.runs[:, 0], self.runs[:, 1])
        block = np.repeat(np.repeat(of_run, self.runs[:, 1]), per_row)
        in_block = self.columns.astype(np.int64)
        channel, tap = np.divmod(in_block if self.places is None else self.places.columns(in_block), self.taps)
        column = tap * self.channels + self.starts[block] + channel
        first = np.repeat(self.order, per_row)
        if self.height == 1:
            return _to_csr(first, column, self.values.reshape(-1), self.rows, self.channels * self.taps)
        entry, lane = np.nonzero(self.values)
        values = self.values[entry, lane]
        return _to_csr(first[entry] + lane, column[entry], values, self.rows, self.channels * self.taps)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.channels * self.taps

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return sum(array.nbytes for array in self._arrays)

    @property
    def _arrays(self) -> tuple[Array, ...]:
        return self.starts, self.counts, self.runs, self.order, self.columns, self.values

    @cached_property
    def structure(self) -> Matrix:
        """The C structure; valid as long as this object."""
        sizes = (self.rows, self.channels, self.taps, len(self.counts), self.height, len(self.columns))
        return Matrix(*sizes, *map(_address, self._arrays))

    @classmethod
    def pieces(
        cls, csr: Csr, channels: int, taps: int, cut: Blocks, height: int, count: int, places: Places | None = None
    ) -> list[Stream]:
        """Packs compressed rows as some matrices, of about as many entries each."""
        return [cls.pack(part, channels, taps, cut, height, places) for part in _divide(csr, count)]


def _to_csr(row: Array, column: Array, values: Array, rows: int, columns: int) -> Csr:
    sequence = np.argsort(row * np.int64(columns) + column, kind="stable")
    pointers = np.r_[0, np.cumsum(np.bincount(row, minlength=rows))].astype(np.int32)
    return Csr(pointers, column[sequence].astype(np.int32), values[sequence])


@dataclass(frozen=True)
class _Packer:
    """Compressed rows on their way into a stream: in the native library, where there is one, which takes far less time."""

    csr: Csr
    channels: int
    taps: int
    width: int
    height: int

    @property
    def _groups(self) -> int:
        return -(-(len(self.csr.pointers) - 1) // self.height)

    @property
    def _blocks(self) -> int:
        return max(-(-self.channels // self.width), 1)

    def lengths(self) -> Array:
        """The entries of each group in each block, ``[blocks, groups]``."""
        packers = library.packers()
        if packers is None:
            (block, group, _), _ = self._sorted
            lengths = np.bincount(block * self._groups + group, minlength=self._blocks * self._groups)
            return lengths.reshape(self._blocks, self._groups)
        lengths = np.zeros((self._blocks, self._groups), np.int32)
        packers.count(self._structure, _address(lengths))
        return lengths

    def entries(self, begins: Array) -> tuple[Array, Array]:
        """The columns and values in the order of the stream.

        Args:
            begins: where the entries of each group in each block begin, ``[blocks, groups]``.
        """
        shape = (self.height,) if self.height > 1 else ()
        packers = library.packers()
        if packers is None:
            (block, group, column), values = self._sorted
            sequence = np.argsort(begins[block, group], kind="stable")
            return column[sequence].astype(np.uint16), values[sequence].reshape(-1, *shape)
        total = len(self.csr.values) if self.height == 1 else int(self.lengths().sum())
        columns, values = np.empty(total, np.uint16), np.empty((total, *shape), np.float32)
        packers.fill(self._structure, _address(begins), _address(columns), _address(values))
        return columns, values

    @cached_property
    def _arrays(self) -> tuple[Array, Array, Array]:
        pointers, indices = (np.ascontiguousarray(array, np.int32) for array in self.csr[:2])
        return pointers, indices, np.ascontiguousarray(self.csr.values, np.float32)

    @cached_property
    def _structure(self) -> Any:
        rows = len(self.csr.pointers) - 1
        sizes = (rows, self.channels, self.taps, self.width, self.height, 0)
        return ctypes.byref(library.CompressedRows(*sizes, *map(_address, self._arrays)))

    @cached_property
    def _sorted(self) -> tuple[tuple[Array, Array, Array], Array]:
        """Block, group and column in the block of each entry, and its values, by group and then by channel and tap."""
        row = np.repeat(np.arange(len(self.csr.pointers) - 1), np.diff(self.csr.pointers))
        tap, channel = np.divmod(self.csr.indices.astype(np.int64), max(self.channels, 1))
        columns = self.channels * self.taps
        places, entry = np.unique(row // self.height * columns + channel * self.taps + tap, return_inverse=True)
        values = np.zeros((len(places), self.height), np.float32)
        values[entry, row % self.height] = self.csr.values
        group, rank = np.divmod(places, max(columns, 1))
        block, column = np.divmod(rank, self.width * self.taps)
        return (block, group, column), values


def _divide(csr: Csr, count: int) -> list[Csr]:
    """The rows in so many parts of about as many entries each, in whole slices."""
    if count == 1:
        return [csr]
    rows = len(csr.pointers) - 1
    wanted = np.searchsorted(csr.pointers, np.arange(1, count) * int(csr.pointers[-1]) // count)
    edges = [0, *(min(round(int(row) / SLICE) * SLICE, rows) for row in wanted), rows]
    return [rows_of(csr, first, stop) for first, stop in pairwise(edges) if stop > first]


def rows_of(csr: Csr, first: int, stop: int) -> Csr:
    """Some of the rows."""
    begin, end = csr.pointers[first], csr.pointers[stop]
    return Csr(csr.pointers[first : stop + 1] - begin, csr.indices[begin:end], csr.values[begin:end])


@dataclass(frozen=True)
class SliceStream:
    """``sparsec_slices``: a sparse matrix in slices of rows, which go over the columns in windows."""

    rows: int
    columns: int
    slicing: Slicing
    lengths: Array
    order: Array
    hops: Array
    places: Array
    values: Array

    @classmethod
    def pack(cls, csr: Csr, columns: int, slicing: Slicing) -> SliceStream:
        """Packs compressed rows."""
        slicer = _Slicer(csr, slicing)
        return cls(len(slicer.order), columns, slicing, slicer.lengths, slicer.order, *slicer.streams())

    @staticmethod
    def slots(csr: Csr, slicing: Slicing) -> int:
        """The entries that compressed rows have as slices, padding included."""
        return int(_Slicer(csr, slicing).lengths.sum()) * slicing.height * GROUP

    def csr(self) -> Csr:
        """The compressed rows, without the padding."""
        windows = self.hops.shape[1]
        of_slice = np.repeat(np.arange(len(self.lengths)), self.lengths)
        reached = np.cumsum(self.hops, dtype=np.int64) * HOP
        before = np.r_[0, reached][np.r_[0, np.cumsum(self.lengths)][:-1] * windows]
        group, entry, lane = np.nonzero(self.values)
        first = reached[group * windows + entry // self.slicing.depth] - before[of_slice[group]]
        row, column = self.order[of_slice[group] * self.slicing.height + lane], first + self.places[group, lane, entry]
        return _to_csr(row, column, self.values[group, entry, lane], self.rows, self.columns)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return sum(array.nbytes for array in self._arrays)

    @property
    def _arrays(self) -> tuple[Array, ...]:
        return self.lengths, self.order, self.hops, self.places, self.values

    @cached_property
    def structure(self) -> Slices:
        """The C structure; valid as long as this object."""
        sizes = (self.slicing.height, self.slicing.width, self.slicing.depth)
        return Slices(self.rows, self.columns, len(self.values), *sizes, *map(_address, self._arrays))

    @classmethod
    def pieces(cls, csr: Csr, columns: int, slicing: Slicing, count: int) -> list[SliceStream]:
        """Packs compressed rows as some matrices, of about as many entries each."""
        return [cls.pack(part, columns, slicing) for part in _divide(csr, count)]


@dataclass(frozen=True)
class _Slicer:
    """Compressed rows on their way into slices, in the native library: without it there is no use for them."""

    csr: Csr
    slicing: Slicing

    @cached_property
    def order(self) -> Array:
        """The rows, those with the most entries first."""
        return np.argsort(-np.diff(self.csr.pointers), kind="stable").astype(np.int32)

    @cached_property
    def lengths(self) -> Array:
        """The groups of each slice."""
        lengths = np.zeros(-(-len(self.order) // self.slicing.height), np.int32)
        self._pack(lengths, None, None, None)
        return lengths

    def streams(self) -> tuple[Array, Array, Array]:
        """Hops, places and values."""
        groups, height = int(self.lengths.sum()), self.slicing.height
        hops = np.zeros((groups, GROUP // self.slicing.depth), np.uint8)
        places, values = aligned.zeros((groups, height, GROUP), np.uint8), aligned.zeros((groups, GROUP, height), np.float32)
        self._pack(self.lengths, hops, places, values)
        return hops, places, values

    def _pack(self, *into: Array | None) -> None:
        packers = library.packers()
        assert packers is not None, "slices are packed by the native library alone"
        pointers, indices = (np.ascontiguousarray(array, np.int32) for array in self.csr[:2])
        arrays = (self.order, pointers, indices, np.ascontiguousarray(self.csr.values, np.float32))
        sizes = (len(self.order), self.slicing.height, self.slicing.width, self.slicing.depth)
        rows = library.SortedRows(*sizes, *map(_address, arrays))
        packers.slices(ctypes.byref(rows), *(None if array is None else _address(array) for array in into))
