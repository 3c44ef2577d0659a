"""Packed forms for SciPy, and the product on them that several kernels share."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sparsec.encodings import Csr
from sparsec.encodings.stored import from_matrix, normal_rows
from sparsec.ir import Array, Attrs
from sparsec.kernels.base import Epilogue, Task
from sparsec.kernels.costs import Coefficients, sparse_product
from sparsec.kernels.weights import Packing, Source, Weight
from sparsec.ops import get_op
from sparsec.ops.base import integer

if TYPE_CHECKING:
    from scipy import sparse

SCIPY_DTYPES: Final = ("float32", "float64")
"""The dtypes that ``scipy.sparse`` multiplies."""

PANEL_BYTES: Final = 1 << 19
"""A product takes about this many bytes of vectors at a time, so that it finds their elements in the second-level cache."""

PANEL_VECTORS: Final = 64
"""The least number of vectors at a time, for which reading the weights pays."""

Parts = tuple["sparse.csr_array[Any]", ...]


@dataclass(frozen=True)
class RowsSource:
    """A weight whose compressed rows are at hand, cut into parts of consecutive rows."""

    parts: Parts
    weight: Weight

    def tensor(self) -> Array:
        """The tensor, filled from the rows."""
        matrix = np.concatenate([part.toarray() for part in self.parts])
        return from_matrix(matrix, self.weight.shape, self.weight.rows)

    def csr(self) -> Csr:
        """The rows of all parts."""
        counts = np.concatenate([[0], *(np.diff(part.indptr) for part in self.parts)])
        return Csr(
            np.cumsum(counts).astype(np.int32),
            np.concatenate([part.indices for part in self.parts]),
            np.concatenate([part.data for part in self.parts]),
        )

    def nonzeros(self) -> int:
        """The number of entries."""
        return sum(int(part.nnz) for part in self.parts)


def _matrix(csr: Csr, columns: int) -> sparse.csr_array[Any]:
    from scipy import sparse

    return sparse.csr_array((csr.values, csr.indices, csr.pointers), shape=(len(csr.pointers) - 1, columns))


def _groups(attrs: Attrs) -> int:
    return integer(attrs, "groups") if "groups" in attrs else 1


def _make_rows(source: Source, weight: Weight, attrs: Attrs) -> Parts:
    pointers, indices, values = source.csr()
    rows, columns = weight.matrix_shape
    step = rows // _groups(attrs)
    parts = []
    for first in range(0, rows, step):
        begin, end = pointers[first], pointers[first + step]
        part = Csr(pointers[first : first + step + 1] - begin, indices[begin:end], values[begin:end])
        parts.append(_matrix(part, columns))
    return tuple(parts)


def _make_taps(source: Source, weight: Weight, attrs: Attrs) -> Parts:
    matrix = _matrix(source.csr(), weight.matrix_shape[1])
    channels = weight.shape[-1]
    return tuple(matrix[:, first : first + channels] for first in range(0, matrix.shape[1], channels))


def _nbytes(parts: Parts) -> int:
    return sum(int(part.data.nbytes + part.indices.nbytes + part.indptr.nbytes) for part in parts)


ROWS = Packing("csr", _make_rows, lambda packed, weight: RowsSource(packed, weight), _groups, _nbytes)
"""The 2-D view as ``scipy.sparse.csr_array``, one for each group of output channels."""

TAPS = Packing("csr by tap", _make_taps, None, lambda attrs: None, _nbytes)
"""For kernels ``[*window, out, in]``: a ``scipy.sparse.csr_array`` ``[out, in]`` for each element of the window."""


def refuse_for_scipy(task: Task) -> str:
    """Why ``scipy.sparse`` cannot run a task on the 2-D view of its weight; empty where it can."""
    if task.dtype not in SCIPY_DTYPES:
        return f"scipy.sparse has no {task.dtype}"
    wanted = normal_rows(get_op(task.op).matrix_rows[1], len(task.weight.shape))
    return "" if task.weight.rows == wanted else f"the weight is stored with rows {task.weight.rows}, not {wanted}"


def panel_vectors(elements: int, itemsize: int) -> int:
    """How many vectors a product takes at a time.

    Args:
        elements: of one vector, those it is made from and those that come out.
        itemsize: bytes of an element.
    """
    count = max(PANEL_BYTES // max(elements * itemsize, 1), PANEL_VECTORS)
    # Rows whose length is a multiple of a high power of two share the same few sets of the cache when they are transposed.
    return count // 64 * 64 + 48 if count >= 64 else count


def multiply_rows(parts: Parts, x: Array, y: Array, epilogue: Epilogue) -> None:
    """``y = epilogue(x @ matrix.T)`` in panels.

    Args:
        parts: the matrix ``[out / groups, in / groups]`` of each group.
        x: ``[vectors, in]``.
        y: ``[vectors, out]``, written to.
        epilogue: applied to every panel.
    """
    rows, columns = parts[0].shape
    step = panel_vectors(x.shape[1] + y.shape[1], x.itemsize)
    for first in range(0, x.shape[0], step):
        panel, part = x[first : first + step], y[first : first + step]
        for group, matrix in enumerate(parts):
            vectors = np.ascontiguousarray(panel[:, group * columns : (group + 1) * columns].T)
            part[:, group * rows : (group + 1) * rows] = (matrix @ vectors).T
        epilogue(part)


def rows_cost(task: Task, c: Coefficients) -> float:
    """The cost of :func:`multiply_rows`, or of one product where there is one vector."""
    vectors = task.positions
    calls = ceil(vectors / panel_vectors(task.x[-1] + task.y[-1], np.dtype(task.dtype).itemsize))
    product = sparse_product(task.nonzeros, vectors, calls, task.dtype, c)
    return product if vectors == 1 else product + vectors * (task.x[-1] + task.y[-1]) * c.transpose
