"""From arrays to stored tensors and back, and to the two forms from which kernels pack: dense, and compressed rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from sparsec.encodings.positions import POSITIONS, Pattern, flat_indices
from sparsec.encodings.stored import (
    MAX_ELEMENTS,
    StoredTensor,
    bits,
    expect_tensor,
    from_matrix,
    matrix_shape,
    normal_rows,
    row_blocks,
    to_matrix,
)
from sparsec.encodings.values import VALUES
from sparsec.errors import FormatError, InputError
from sparsec.ir import DTYPES, Array

if TYPE_CHECKING:
    from scipy import sparse

ScipyFormat = Literal["csr", "coo", "csc", "bsr", "dia", "dok", "lil"]


class Csr(NamedTuple):
    """The matrix view in compressed rows.

    Attributes:
        pointers: int32, one more than there are rows; row ``r`` is ``pointers[r]:pointers[r + 1]`` of the others.
        indices: int32, the column of each value, ascending in each row.
        values: in the tensor's dtype.
    """

    pointers: Array
    indices: Array
    values: Array


def encode(array: Array, rows: tuple[int, ...] = (), positions: str = "dense", values: str = "raw") -> StoredTensor:
    """Encode an array.

    Args:
        array: any shape, dtype one of :data:`sparsec.ir.DTYPES`. Raw dense values are a view of it, not a copy.
        rows: the axes that make up the rows of the matrix view; see :class:`StoredTensor`.
        positions: a name in :data:`sparsec.encodings.POSITIONS`.
        values: a name in :data:`sparsec.encodings.VALUES`.

    Raises:
        InputError: an encoding is unknown, or the dtype or the rows cannot be used.
    """
    expect_tensor(array)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    rows = normal_rows(rows, array.ndim)
    if positions == "dense":
        return assemble(array.shape, rows, positions, values, None, np.ascontiguousarray(array).reshape(-1))
    pattern, kept = sparsify(array, rows)
    return assemble(array.shape, rows, positions, values, pattern, kept)


def sparsify(array: Array, rows: tuple[int, ...]) -> tuple[Pattern, Array]:
    """The elements of the matrix view that have a bit set: where they are, and their values in row-major order."""
    matrix = to_matrix(array, rows)
    height, width = matrix.shape
    count = int(np.count_nonzero(bits(array)))
    mask, flat, values = np.empty(matrix.size, np.bool_), np.empty(count, np.int32), np.empty(count, array.dtype)
    done = 0
    for row, block in row_blocks(matrix):
        start, elements = row * width, block.reshape(-1)
        part = mask[start : start + len(elements)]
        np.not_equal(bits(elements), 0, out=part)
        found = np.flatnonzero(part)
        values[done : done + len(found)] = elements[found]
        flat[done : done + len(found)] = found + start
        done += len(found)
    return Pattern((height, width), mask=mask, flat=flat), values


def assemble(
    shape: tuple[int, ...], rows: tuple[int, ...], positions: str, values: str, pattern: Pattern | None, stored: Array
) -> StoredTensor:
    """A stored tensor from its pattern (``None`` for dense positions) and the values at those positions.

    Raises:
        InputError: an encoding is unknown.
    """
    for name, table, kind in ((positions, POSITIONS, "positions"), (values, VALUES, "values")):
        if name not in table:
            raise InputError(f"there is no encoding {name!r} of {kind}; use one of {', '.join(table)}")
    parts = {} if pattern is None else POSITIONS[positions].encode(pattern)
    parts.update(VALUES[values].encode(stored))
    return StoredTensor(shape, stored.dtype.name, rows, positions, values, parts)


def decode(stored: StoredTensor) -> Array:
    """The array that was encoded, exact to the bit and contiguous in row-major order; it may be a read-only view."""
    values = stored_values(stored)
    if stored.positions == "dense":
        return values.reshape(stored.shape)
    pattern = _pattern(stored)
    matrix = np.zeros(stored.size, stored.dtype)
    matrix[pattern.flat] = values
    return from_matrix(matrix, stored.shape, stored.rows)


def stored_values(stored: StoredTensor) -> Array:
    """The values at the stored positions, 1-D."""
    return VALUES[stored.values].decode(stored.arrays, stored.dtype)


def nonzeros(stored: StoredTensor) -> int:
    """The number of elements with a bit set; counted anew at every call."""
    return int(np.count_nonzero(bits(stored_values(stored))))


def _pattern(stored: StoredTensor) -> Pattern:
    return POSITIONS[stored.positions].decode(stored.arrays, stored.matrix_shape)


def to_csr(stored: StoredTensor) -> Csr:
    """The matrix view in compressed rows; a dense tensor leaves out the elements that are zero in every bit."""
    if stored.positions == "dense":
        return to_csr(encode(decode(stored), stored.rows, "csr"))
    pointers, indices = POSITIONS[stored.positions].csr(stored.arrays, stored.matrix_shape)
    return Csr(pointers.astype(np.int32), indices.astype(np.int32), stored_values(stored))


def to_scipy(stored: StoredTensor, format: ScipyFormat = "csr") -> sparse.sparray:  # noqa: A002
    """The matrix view as a ``scipy.sparse`` array.

    SciPy has no float16: such values are widened to float32, without loss. It widens small unsigned indices too: indices
    and pointers are int32. Stored values that are zero, such as -0.0, stay explicit entries where ``format`` has them.

    Args:
        stored: a tensor.
        format: one of SciPy's names.

    Raises:
        InputError: the format is unknown.
    """
    from scipy import sparse

    formats = get_args(ScipyFormat)
    if format not in formats:
        raise InputError(f"there is no scipy.sparse format {format!r}; use one of {', '.join(formats)}")
    pointers, indices, values = to_csr(stored)
    if stored.dtype == "float16":
        values = values.astype(np.float32)
    matrix = sparse.csr_array((values, indices, pointers), shape=stored.matrix_shape)
    return matrix.asformat(format)


def from_scipy(
    matrix: Any,
    shape: tuple[int, ...] | None = None,
    rows: tuple[int, ...] = (0,),
    dtype: str | None = None,
    positions: str = "csr",
    values: str = "raw",
) -> StoredTensor:
    """Encode the tensor whose matrix view is a ``scipy.sparse`` matrix or array, without making it dense.

    Args:
        matrix: two-dimensional, any format.
        shape: the shape of the tensor; by default that of the matrix.
        rows: the axes of ``shape`` that make up the rows of the matrix.
        dtype: the dtype of the tensor, such as ``float16`` for values that SciPy had to widen; by default the matrix's.
        positions: a name in :data:`sparsec.encodings.POSITIONS`.
        values: a name in :data:`sparsec.encodings.VALUES`.

    Raises:
        InputError: the shapes do not fit, or ``dtype`` does not hold every value exactly.
    """
    from scipy import sparse

    csr = sparse.csr_array(matrix, copy=True)
    csr.sum_duplicates()
    shape = tuple(int(size) for size in csr.shape) if shape is None else shape
    rows = normal_rows(rows, len(shape))
    view = matrix_shape(shape, rows)
    if csr.shape != view:
        raise InputError(f"a matrix of shape {csr.shape} is not the view {view} of a tensor {shape} with rows {rows}")
    data = np.asarray(csr.data)
    if dtype is not None:
        with np.errstate(over="ignore"):
            narrowed = data.astype(dtype)
        if not np.array_equal(bits(narrowed.astype(data.dtype)), bits(data)):
            raise InputError(f"dtype {dtype} does not hold every value of the {data.dtype.name} matrix exactly")
        data = narrowed
    expect_tensor(data)
    kept = bits(data) != 0
    flat = flat_indices(csr.indptr, csr.indices, view[1])[kept]
    pattern = Pattern(view, flat=flat)
    if positions == "dense":
        dense = np.zeros(view[0] * view[1], data.dtype)
        dense[flat] = data[kept]
        return encode(from_matrix(dense, shape, rows), rows, positions, values)
    return assemble(shape, rows, positions, values, pattern, data[kept])


def check_stored(stored: StoredTensor) -> None:
    """Check everything that decoding relies on.

    Raises:
        FormatError: the first rule that is broken.
    """
    if stored.dtype not in DTYPES:
        raise FormatError(f"dtype {stored.dtype!r} is none of {', '.join(DTYPES)}")
    for name, table, kind in ((stored.positions, POSITIONS, "positions"), (stored.values, VALUES, "values")):
        if name not in table:
            raise FormatError(f"the encoding {name!r} of {kind} is unknown; a newer version of sparsec may read it")
    positions, values = POSITIONS[stored.positions], VALUES[stored.values]
    allowed = {
        **positions.dtypes,
        **{name: (dtype,) for name, dtype in values.dtypes(stored.dtype).items()},
    }
    if stored.arrays.keys() != allowed.keys():
        raise FormatError(f"the parts are {', '.join(stored.arrays)}, but {stored.encoding} has {', '.join(allowed)}")
    for name, dtypes in allowed.items():
        array = stored.arrays[name]
        if array.ndim != 1 or array.dtype.name not in dtypes:
            raise FormatError(f"part {name!r} is {array.dtype.name} of rank {array.ndim}, not 1-D {' or '.join(dtypes)}")
    if any(size < 0 for size in stored.shape) or stored.size > MAX_ELEMENTS:
        raise FormatError(f"shape {stored.shape} has more than {MAX_ELEMENTS} elements or a negative size")
    if list(stored.rows) != list(dict.fromkeys(stored.rows)) or any(not 0 <= r < len(stored.shape) for r in stored.rows):
        raise FormatError(f"rows {stored.rows} are not distinct axes of shape {stored.shape}")
    positions.check(stored.arrays, stored.matrix_shape, values.check(stored.arrays, stored.dtype))
