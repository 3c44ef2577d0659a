"""Weights at run time: the stored form, the packed forms that kernels want, and the store that makes each form once.

A weight is packed from its stored tensor, or from another packed form of it. Once it is packed the stored form is let go of,
unless it is mapped from a file, where it takes no memory of its own.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from math import prod
from threading import RLock
from typing import Any, Protocol

import numpy as np

from sparsec.encodings import Csr, StoredTensor, decode, encode, nonzeros, to_csr
from sparsec.encodings.stored import from_matrix, matrix_shape
from sparsec.ir import Array, Attrs


@dataclass(frozen=True)
class Weight:
    """The shape of a weight and of its 2-D view.

    Attributes:
        path: its name in the program.
        shape: of the tensor.
        rows: the axes that make up the rows of the 2-D view.
        dtype: of the tensor.
    """

    path: str
    shape: tuple[int, ...]
    rows: tuple[int, ...]
    dtype: str

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Rows and columns of the 2-D view."""
        return matrix_shape(self.shape, self.rows)

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)


class Source(Protocol):
    """Where a packing takes a weight from."""

    def tensor(self) -> Array:
        """The decoded tensor, contiguous in row-major order."""

    def csr(self) -> Csr:
        """The compressed rows of its 2-D view."""

    def nonzeros(self) -> int:
        """The number of elements that are not zero."""


@dataclass(frozen=True)
class StoredSource:
    """A weight as it lies in the program."""

    stored: StoredTensor

    def tensor(self) -> Array:
        """The tensor, decoded."""
        return decode(self.stored)

    def csr(self) -> Csr:
        """The compressed rows, decoded."""
        return to_csr(self.stored)

    def nonzeros(self) -> int:
        """Counted over the stored values."""
        return nonzeros(self.stored)


@dataclass(frozen=True)
class CsrSource:
    """A weight whose compressed rows are at hand."""

    rows: Csr
    weight: Weight

    def tensor(self) -> Array:
        """The tensor, filled from the rows."""
        matrix = np.zeros(self.weight.matrix_shape, self.rows.values.dtype)
        matrix[np.repeat(np.arange(len(matrix)), np.diff(self.rows.pointers)), self.rows.indices] = self.rows.values
        return from_matrix(matrix, self.weight.shape, self.weight.rows)

    def csr(self) -> Csr:
        """The rows themselves."""
        return self.rows

    def nonzeros(self) -> int:
        """Counted over the values."""
        return int(np.count_nonzero(self.rows.values))


@dataclass(frozen=True)
class TensorSource:
    """A weight whose decoded tensor is at hand."""

    array: Array
    rows: tuple[int, ...]

    def tensor(self) -> Array:
        """The tensor itself."""
        return self.array

    def csr(self) -> Csr:
        """The compressed rows, encoded from the tensor."""
        return to_csr(encode(self.array, self.rows, "csr"))

    def nonzeros(self) -> int:
        """Counted over the tensor."""
        return int(np.count_nonzero(self.array))


@dataclass(frozen=True)
class Packing:
    """One form of a weight.

    Attributes:
        name: unique, for summaries.
        make: packs a weight for an operator with these attributes.
        back: the packed weight as a source of other packings; ``None`` where it cannot be undone.
        key: what of the attributes the packed form depends on.
        nbytes: the bytes of the packed form.
    """

    name: str
    make: Callable[[Source, Weight, Attrs], Any]
    back: Callable[[Any, Weight], Source] | None
    key: Callable[[Attrs], Hashable]
    nbytes: Callable[[Any], int]


TENSOR = Packing(
    "dense",
    make=lambda source, weight, attrs: source.tensor(),
    back=lambda packed, weight: TensorSource(packed, weight.rows),
    key=lambda attrs: None,
    nbytes=lambda packed: int(packed.nbytes),
)
"""The tensor itself, in its own layout."""


Examination = Callable[[Csr, Weight], float]
"""A figure that depends on where the zeros of a weight are."""


class WeightStore:
    """The weights of one model, packed once for all its plans; may be used from several threads.

    Args:
        tensors: the stored tensors by path.
    """

    def __init__(self, tensors: Mapping[str, StoredTensor]) -> None:
        self._sources: dict[str, Source] = {path: StoredSource(stored) for path, stored in tensors.items()}
        self._weights = {path: Weight(path, t.shape, t.rows, t.dtype) for path, t in tensors.items()}
        self._mapped = frozenset(path for path, stored in tensors.items() if _is_mapped(stored))
        self._nonzeros: dict[str, int] = {}
        self._examined: dict[tuple[str, Examination], float] = {}
        self._packed: dict[tuple[str, str, Hashable], tuple[Packing, Any]] = {}
        self._lock = RLock()

    def __contains__(self, path: object) -> bool:
        return path in self._weights

    def weight(self, path: str) -> Weight:
        """The shape of a weight."""
        return self._weights[path]

    def nonzeros(self, path: str) -> int:
        """The number of elements of a weight that are not zero, counted at the first call."""
        with self._lock:
            if path not in self._nonzeros:
                self._nonzeros[path] = self._sources[path].nonzeros()
            return self._nonzeros[path]

    def array(self, path: str) -> Array:
        """A weight as an array in its own layout."""
        array: Array = self.packed(path, TENSOR, {})
        return array

    def packed(self, path: str, packing: Packing, attrs: Attrs) -> Any:
        """A weight in a packed form, made at the first call."""
        key = (path, packing.name, packing.key(attrs))
        with self._lock:
            if key not in self._packed:
                weight = self._weights[path]
                packed = packing.make(self._sources[path], weight, attrs)
                self._packed[key] = packing, packed
                if packing.back is not None and path not in self._mapped:
                    self._sources[path] = packing.back(packed, weight)
            return self._packed[key][1]

    def examine(self, path: str, examination: Examination) -> float:
        """A figure about a weight, found at the first call.

        The compressed rows that it is found from are kept for the packing that follows, which lets go of them.
        """
        key = (path, examination)
        with self._lock:
            if key not in self._examined:
                weight, csr = self._weights[path], self._sources[path].csr()
                self._examined[key] = examination(csr, weight)
                if isinstance(self._sources[path], StoredSource) and path not in self._mapped:
                    self._sources[path] = CsrSource(csr, weight)
            return self._examined[key]

    def pack_apart(self, path: str, packing: Packing, attrs: Attrs) -> Any:
        """A weight in a packed form that is not kept, unless it is kept already; for trials."""
        with self._lock:
            kept = self._packed.get((path, packing.name, packing.key(attrs)))
            return packing.make(self._sources[path], self._weights[path], attrs) if kept is None else kept[1]

    @property
    def nbytes(self) -> int:
        """The bytes of all packed forms, those included that are mapped from a file as they are."""
        with self._lock:
            return sum(packing.nbytes(packed) for packing, packed in self._packed.values())


def _is_mapped(stored: StoredTensor) -> bool:
    return all(_in_file(array) for array in stored.arrays.values())


def _in_file(holder: object) -> bool:
    while isinstance(holder, np.ndarray | memoryview):
        holder = holder.base if isinstance(holder, np.ndarray) else holder.obj
    return isinstance(holder, mmap.mmap)
