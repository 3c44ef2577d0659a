"""Encodings: exact to the bit for every dtype, shape and pair of positions and values; the choice takes the fewest bytes."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from sparsec.encodings import (
    LEVELS,
    POSITIONS,
    VALUES,
    StoredTensor,
    check_stored,
    choose,
    decode,
    encode,
    from_scipy,
    nonzeros,
    to_csr,
    to_scipy,
)
from sparsec.encodings.deflate import Strategy, compress, plan
from sparsec.encodings.stored import from_matrix, to_matrix
from sparsec.errors import FormatError, InputError
from sparsec.ir import DTYPES

PAIRS = [(positions, values) for positions in POSITIONS for values in VALUES]


@st.composite
def tensors(draw):
    """An array of any dtype with many zeros and every bit pattern, and rows for its matrix view."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    if dtype == np.bool_:
        array = draw(hnp.arrays(dtype, shape))
    else:
        raw = draw(hnp.arrays(f"u{dtype.itemsize}", shape))
        kept = draw(hnp.arrays(np.bool_, shape))
        array = np.where(kept, raw, 0).astype(raw.dtype).view(dtype).reshape(shape)
    axes = draw(st.permutations(range(len(shape))))
    return array, tuple(axes[: draw(st.integers(0, len(shape)))])


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize(("positions", "values"), PAIRS)
@given(case=tensors())
@settings(max_examples=60, deadline=None)
def test_decode_inverts_encode_to_the_bit(positions, values, case):
    array, rows = case
    stored = encode(array, rows, positions, values)
    check_stored(stored)
    assert same_bits(decode(stored), array)
    assert decode(stored).flags.c_contiguous
    assert stored.shape == array.shape
    assert stored.nbytes == sum(part.nbytes for part in stored.arrays.values())


@pytest.mark.parametrize(("positions", "values"), PAIRS)
@given(case=tensors())
@settings(max_examples=40, deadline=None)
def test_compressed_rows_hold_the_matrix_view(positions, values, case):
    array, rows = case
    stored = encode(array, rows, positions, values)
    pointers, indices, kept = to_csr(stored)
    assert pointers.dtype == indices.dtype == np.int32
    assert len(kept) == nonzeros(stored) == pointers[-1]
    height, width = stored.matrix_shape
    view = np.zeros((height, width), array.dtype)
    for row in range(height):
        at = slice(pointers[row], pointers[row + 1])
        assert np.all(np.diff(indices[at]) > 0)
        view[row, indices[at]] = kept[at]
    assert view.tobytes() == np.ascontiguousarray(to_matrix(array, stored.rows)).tobytes()


@given(case=tensors())
@settings(max_examples=60, deadline=None)
def test_matrix_view_is_inverted(case):
    array, rows = case
    assert same_bits(from_matrix(to_matrix(array, rows), array.shape, rows), array)


def test_special_values_survive():
    bits = np.array([0, 0x80000000, 1, 0x7FC00000, 0x7F800001, 0xFFC12345, 0x7F800000, 0xFF800000, 0x80000001], np.uint32)
    array = bits.view(np.float32)
    for positions, values in PAIRS:
        stored = encode(array, (), positions, values)
        assert decode(stored).tobytes() == array.tobytes()
        if positions != "dense":
            assert len(to_csr(stored).values) == 8, "only +0.0 is left out"


def test_big_endian_and_strided_arrays_are_encoded_as_they_read():
    array = np.arange(24, dtype=">f4").reshape(2, 3, 4)[:, ::2, ::-1]
    for positions, values in PAIRS:
        decoded = decode(encode(array, (1,), positions, values))
        assert decoded.dtype == np.float32
        assert np.array_equal(decoded, array)


@pytest.mark.parametrize(("columns", "dtype"), [(256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "uint32")])
def test_indices_have_the_smallest_dtype_that_holds_them(columns, dtype):
    array = np.zeros((2, columns), np.float32)
    array[1, -1] = 1
    csr = encode(array, (0,), "csr")
    assert csr.arrays["indices"].dtype == dtype
    assert csr.arrays["pointers"].dtype == "uint8"
    coo = encode(array, (0,), "coo")
    assert coo.arrays["columns"].dtype == dtype
    assert coo.arrays["rows"].dtype == "uint8"


@pytest.mark.parametrize(("count", "dtype"), [(255, "uint8"), (256, "uint16"), (65535, "uint16"), (65536, "uint32")])
def test_pointers_have_the_smallest_dtype_that_holds_the_count(count, dtype):
    array = np.zeros((512, 512), np.int32)
    array.reshape(-1)[:count] = 1
    assert encode(array, (0,), "csr").arrays["pointers"].dtype == dtype


@pytest.mark.parametrize("format_", ["csr", "csc", "coo", "bsr", "lil", "dok"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_scipy_and_back(format_, dtype):
    rng = np.random.default_rng(0)
    array = np.where(rng.random((3, 2, 5)) < 0.4, rng.integers(-9, 9, (3, 2, 5)), 0).astype(dtype)
    stored = encode(array, (2,), "bitmap")
    matrix = to_scipy(stored, format_)
    assert matrix.shape == (5, 6)
    assert matrix.dtype == ("float32" if dtype == "float16" else dtype)
    assert np.array_equal(matrix.toarray(), to_matrix(array, (2,)))
    for positions, values in PAIRS:
        back = from_scipy(matrix, array.shape, (2,), dtype, positions, values)
        check_stored(back)
        assert same_bits(decode(back), array)


def test_scipy_keeps_explicit_negative_zeros_and_widens_indices():
    array = np.array([[0.0, -0.0, 1.0]], np.float16)
    matrix = to_scipy(encode(array, (0,), "csr"))
    assert matrix.nnz == 2
    assert matrix.indices.dtype == matrix.indptr.dtype == np.int32
    assert decode(from_scipy(matrix, dtype="float16")).tobytes() == array.tobytes()


def test_from_scipy_sorts_and_sums():
    matrix = sparse.coo_array((np.float32([1, 2, 4, 0]), ([1, 0, 1, 0], [2, 1, 2, 0])), shape=(2, 3))
    stored = from_scipy(matrix, positions="coo")
    check_stored(stored)
    assert np.array_equal(decode(stored), [[0, 2, 0], [0, 0, 5]])
    assert len(stored.arrays["values"]) == 2


def test_from_scipy_refuses_loss_and_misfit():
    matrix = sparse.csr_array(np.float32([[0, 1.0001]]))
    with pytest.raises(InputError, match="float16 does not hold"):
        from_scipy(matrix, dtype="float16")
    with pytest.raises(InputError, match="not the view"):
        from_scipy(matrix, (2, 2), (0,))
    with pytest.raises(InputError, match="format"):
        to_scipy(encode(np.ones(3, np.float32)), "nonsense")


def test_bad_arguments_are_refused():
    array = np.ones((2, 3), np.float32)
    for call in (
        lambda: encode(array, (0,), "nonsense"),
        lambda: encode(array, (0,), "csr", "nonsense"),
        lambda: encode(array, (2,)),
        lambda: encode(array, (0, -2)),
        lambda: encode(array.astype(np.complex64)),
        lambda: choose(array, (), "nonsense"),
        lambda: choose(array, (), "plain", "nonsense"),
    ):
        with pytest.raises(InputError):
            call()


def test_a_huge_tensor_is_refused():
    with pytest.raises(InputError, match="elements"):
        encode(np.broadcast_to(np.float32(0), (2**16, 2**15)))


# --- checks of parts that were read -----------------------------------------------------------------------------------

MATRIX = np.array([[0, 1.5, 0, 0], [0, 0, 0, 0], [-2, 0, 0, 0.25]], np.float32)


def tampered(encoding, fields=None, **parts):
    """``MATRIX`` in an encoding, with other fields, and parts replaced or, where they are ``None``, removed."""
    stored = encode(MATRIX, (0,), *encoding.split("+"))
    arrays = {**stored.arrays, **{name: part if part is None else np.array(*part) for name, part in parts.items()}}
    arrays = {name: part for name, part in arrays.items() if part is not None}
    return replace(stored, arrays=arrays, **(fields or {}))


WRONG = {
    "pointer beyond the values": (tampered("csr", pointers=([0, 1, 1, 4], "u1")), "do not ascend from 0 to 3"),
    "first pointer": (tampered("csr", pointers=([1, 1, 1, 3], "u1")), "do not ascend"),
    "descending pointers": (tampered("csr", pointers=([0, 2, 1, 3], "u1")), "do not ascend"),
    "missing pointer": (tampered("csr", pointers=([0, 1, 3], "u1")), "do not fit 3 rows"),
    "column outside": (tampered("csr", indices=([1, 0, 4], "u1")), "index 4 is outside of 4 columns"),
    "descending columns": (tampered("csr", indices=([1, 3, 0], "u1")), "indices of a row do not ascend"),
    "repeated column": (tampered("csr", indices=([1, 3, 3], "u1")), "indices of a row do not ascend"),
    "missing index": (tampered("csr", indices=([1, 0], "u1")), "do not fit"),
    "signed indices": (tampered("csr", indices=([1, 0, 3], "i4")), "is int32"),
    "two-dimensional indices": (tampered("csr", indices=([[1, 0, 3]], "u1")), "rank 2"),
    "missing part": (tampered("csr", indices=None), "the parts are"),
    "part too many": (tampered("csr", extra=([1], "u1")), "the parts are"),
    "coordinate outside": (tampered("coo", columns=([1, 0, 4], "u1")), "index 4 in 'columns' is outside of 4"),
    "row outside": (tampered("coo", rows=([0, 2, 3], "u1")), "index 3 in 'rows' is outside of 3"),
    "descending coordinates": (tampered("coo", columns=([1, 3, 0], "u1")), "do not ascend in row-major order"),
    "missing coordinate": (tampered("coo", columns=([1, 0], "u1")), "do not fit 3 values"),
    "bits missing": (tampered("bitmap", bitmap=([2, 1], "u1")), "2 bits set for 3 values"),
    "bitmap too long": (tampered("bitmap", bitmap=([2, 9, 0], "u1")), "does not fit 12 elements"),
    "bits behind the end": (tampered("bitmap", bitmap=([2, 17 + 128], "u1")), "behind the last element"),
    "dense values missing": (tampered("dense", {"shape": (3, 5)}), "12 values for 15 elements"),
    "planes of two lengths": (tampered("csr+planes", plane1=([0, 0], "u1")), "different lengths"),
    "dtype of the values": (tampered("csr", {"dtype": "float64"}), "is float32"),
    "dtype of the tensor": (tampered("csr", {"dtype": "complex64"}), "none of"),
    "repeated row axis": (tampered("csr", {"rows": (0, 0)}), "not distinct axes"),
    "row axis outside": (tampered("csr", {"rows": (2,)}), "not distinct axes"),
    "unknown positions": (tampered("csr", {"positions": "gaps"}), "unknown"),
    "unknown values": (tampered("csr", {"values": "codebook"}), "unknown"),
    "too many elements": (tampered("csr", {"shape": (3, 2**31)}), "more than"),
    "negative size": (tampered("csr", {"shape": (-3, 4)}), "negative"),
}


@pytest.mark.parametrize(("stored", "message"), WRONG.values(), ids=WRONG)
def test_wrong_parts_are_refused(stored, message):
    with pytest.raises(FormatError, match=message):
        check_stored(stored)


@pytest.mark.parametrize(("values", "part"), [("raw", "values"), ("planes", "plane0")])
def test_a_bool_is_0_or_1(values, part):
    stored = encode(np.ones(3, np.bool_), (), "dense", values)
    two = np.array([0, 2, 1], np.uint8).view(stored.arrays[part].dtype)
    with pytest.raises(FormatError, match="neither 0 nor 1"):
        check_stored(StoredTensor(stored.shape, "bool", (), "dense", values, {part: two}))


# --- the choice -------------------------------------------------------------------------------------------------------


def pruned(shape, sparsity, seed=0):
    rng = np.random.default_rng(seed)
    array = rng.standard_normal(shape).astype(np.float32)
    array[np.abs(array) < np.quantile(np.abs(array), sparsity)] = 0
    return array


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.7, 0.9, 0.99, 0.999])
def test_choice_is_within_two_percent_of_the_smallest_encoding(level, sparsity):
    array = pruned((256, 300), sparsity)
    choice = choose(array, (1,), level)
    assert same_bits(decode(choice.stored), array)
    actual = {pair: actual_bytes(encode(array, (1,), *pair), level) for pair in PAIRS}
    assert actual_bytes(choice.stored, level) <= 1.02 * min(actual.values()) + 64
    assert choice.zeros == np.count_nonzero(array == 0)
    assert choice.candidates[choice.stored.encoding] == choice.bytes == min(choice.candidates.values())
    assert choice.bytes == pytest.approx(actual_bytes(choice.stored, level), rel=0.05, abs=400)


def actual_bytes(stored, level):
    """The bytes of a tensor, with every part compressed as well as can be."""
    if level == "stored":
        return stored.nbytes
    return sum(
        min(part.nbytes, *(len(compress(part.tobytes(), s, last=True)) for s in Strategy if s is not Strategy.STORE))
        for part in stored.arrays.values()
    )


def test_choice_knows_structure_that_counting_does_not():
    array = np.zeros((512, 512), np.float32)
    array[:, ::2] = np.arange(256, dtype=np.float32)
    choice = choose(array, (0,), "plain")
    assert choice.bytes < choose(array, (0,), "stored").bytes / 50


def test_choice_without_zeros_is_dense_and_with_only_zeros_takes_nothing():
    assert choose(np.ones((64, 64), np.float32), (0,), "stored").stored.positions == "dense"
    choice = choose(np.zeros((1000, 1000), np.float32), (0,), "stored")
    assert choice.stored.nbytes == 0
    assert choice.zeros == 10**6


@pytest.mark.parametrize("request_", list(POSITIONS))
@pytest.mark.parametrize("level", LEVELS)
def test_a_request_is_followed(request_, level):
    choice = choose(pruned((30, 40), 0.5), (0,), level, request_)
    assert choice.stored.positions == request_
    assert request_ in choice.reason


def test_reasons_and_candidates_name_the_rivals():
    array = pruned((100, 100), 0.9)
    # A bitmap of 1250 bytes and 4000 bytes of values, each padded to 64 and with 8 bytes of overhead.
    assert choose(array, (0,), "stored").reason.startswith("90.0% zeros: bitmap has the fewest bytes, 5,328; next csr 5,")
    candidates = choose(array, (0,), "plain").candidates
    assert {name.split("+")[0] for name in candidates} == set(POSITIONS)
    assert list(candidates.values()) == sorted(candidates.values())


def test_pieces_of_deflate_join_to_one_stream():
    pieces = [b"a" * 5000, bytes(range(256)) * 40, np.random.default_rng(0).bytes(3000)]
    strategies = [Strategy.RLE, Strategy.LZ77, Strategy.HUFFMAN]
    joined = b"".join(compress(p, s, last=p is pieces[-1]) for p, s in zip(pieces, strategies, strict=True))
    inflater = zlib.decompressobj(-15)
    assert inflater.decompress(joined) == b"".join(pieces)
    assert inflater.eof
    assert not inflater.unused_data


def test_plans_fit_their_data():
    rng = np.random.default_rng(0)
    assert plan(np.frombuffer(rng.bytes(100_000), np.uint8)).strategy is Strategy.STORE
    assert plan(np.zeros(0, np.uint8)).strategy is Strategy.STORE
    assert plan(rng.geometric(0.3, 100_000).astype(np.uint8)).strategy is Strategy.HUFFMAN
    assert plan(np.tile(np.frombuffer(rng.bytes(100), np.uint8), 1000)).strategy is Strategy.LZ77
    assert plan((rng.random(100_000) < 0.001).astype(np.uint8)).ratio < 0.02
