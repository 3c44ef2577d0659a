"""The native kernels that multiply one vector, and models that several threads call at once; with every instruction set."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_steps import Memory, post, run_step

from sparsec.encodings import Csr
from sparsec.engine import packing
from sparsec.ir import BATCH, Graph, Input, Port, TensorType, symbol
from sparsec.kernels import Weight, library
from sparsec.kernels.filters import FilterGroups
from sparsec.kernels.streams import Blocks, SliceStream, Stream
from sparsec.lowering import lower
from sparsec.ops import make_node
from sparsec.runtime import Model

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")
many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def sparse(rng, shape, density):
    return np.where(rng.random(shape) < density, rng.standard_normal(shape), 0).astype(np.float32)


KINDS = ("vector", "dense", "few", "narrow", "wide")
"""The kernels without slices, and the kinds of slices."""


def csr_of(matrix):
    row, column = np.nonzero(matrix)
    pointers = np.r_[0, np.cumsum(np.bincount(row, minlength=len(matrix)))]
    return Csr(pointers.astype(np.int32), column.astype(np.int32), matrix[row, column])


def packed(kind, matrix, count=1, columns=512):
    """A matrix ``[rows, columns]`` as some pieces, and the C structures of those, which live as long as the pieces."""
    if kind == "vector":
        pieces = Stream.pieces(csr_of(matrix), matrix.shape[1], 1, Blocks(1, columns, columns), 1, count)
    elif kind == "dense":
        pieces = [FilterGroups.pack(csr_of(matrix), matrix.shape[1], 1, library.status().library.isa.lanes)]
    else:
        slicing = next(each for each in library.status().library.isa.slicings if each.kind == kind)
        pieces = SliceStream.pieces(csr_of(matrix), matrix.shape[1], slicing, count)
    return pieces, (type(pieces[0].structure) * len(pieces))(*(piece.structure for piece in pieces))


@pytest.fixture(params=KINDS)
def kind(request, isa):
    """What the instruction set has kernels for."""
    if request.param not in ("vector", "dense", *(each.kind for each in library.status().library.isa.slicings)):
        pytest.skip(f"{isa} has no slices of this kind")
    return request.param


def kernel_of(kind):
    return kind if kind in ("vector", "dense") else "slices"


@many
@given(data=st.data())
def test_vectors(kind, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    columns, rows = data.draw(st.integers(1, 400)), data.draw(st.integers(1, 100))
    matrix = sparse(rng, (rows, columns), data.draw(st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0])))
    matrix[rng.random(rows) < data.draw(st.sampled_from([0, 0.5]))] = 0
    x, bias, residual, channel = (rng.standard_normal(size).astype(np.float32) for size in (columns, rows, rows, rows))
    pieces, structures = packed(kind, matrix, data.draw(st.sampled_from([1, 3])), data.draw(st.sampled_from([1, 40, 512])))
    memory, shape = Memory(), (1, 1, 1, rows)
    y = run_step(
        *(kernel_of(kind), x.reshape(1, 1, 1, -1), shape),
        weights=structures,
        pieces=len(pieces),
        bias=bias,
        residual=residual.reshape(shape),
        low=-1,
        high=2,
        posts=[post(memory, "multiply", "channel", channel=channel)],
        memory=memory,
        threads=data.draw(st.sampled_from([1, 3])),
    )
    expected = np.clip(matrix.astype(float) @ x + bias + residual, -1, 2) * channel
    scale = (np.abs(matrix).astype(float) @ np.abs(x) + np.abs(bias) + np.abs(residual)) * np.abs(channel)
    assert np.all(np.abs(y.reshape(-1) - expected) <= 1e-5 * scale)


@pytest.mark.parametrize("rows", [1, 50])
def test_entries_may_lie_far_apart(kind, rows):
    """Farther than from one window to the next, and before columns that have none."""
    x = np.arange(1, 5001, dtype=np.float32)
    matrix = np.zeros((rows, 5000), np.float32)
    matrix[:, 4001] = matrix[0, :3] = matrix[-1, 2500] = 1
    pieces, structures = packed(kind, matrix)
    y = run_step(kernel_of(kind), x.reshape(1, 1, 1, -1), (1, 1, 1, rows), weights=structures)
    del pieces
    np.testing.assert_array_equal(y.reshape(-1), matrix @ x)


def test_large_matrices(kind):
    """So large that kernels fetch ahead, which they must not notice at the end."""
    rng = np.random.default_rng(3)
    matrix, x = sparse(rng, (1500, 1000), 0.3), rng.standard_normal(1000).astype(np.float32)
    pieces, structures = packed(kind, matrix, 1)
    y = run_step(kernel_of(kind), x.reshape(1, 1, 1, -1), (1, 1, 1, 1500), weights=structures).reshape(-1)
    del pieces
    assert np.all(np.abs(y - matrix.astype(float) @ x) <= 1e-5 * (np.abs(matrix).astype(float) @ np.abs(x)))


EVERY = dict.fromkeys(slicing for isa in library.ISAS for slicing in isa.slicings)
SLICINGS = [pytest.param(slicing, id=f"{slicing.height}x{slicing.width}") for slicing in EVERY]


@pytest.mark.parametrize("slicing", SLICINGS)
@many
@given(data=st.data())
def test_slices_keep_every_entry(slicing, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    shape = data.draw(st.tuples(st.integers(1, 50), st.sampled_from([1, 7, 300, 9000])))
    csr = csr_of(sparse(rng, shape, data.draw(st.sampled_from([0.0, 0.001, 0.05, 0.3, 1.0]))))
    pieces = SliceStream.pieces(csr, shape[1], slicing, data.draw(st.sampled_from([1, 3])))
    found = [piece.csr() for piece in pieces]
    assert sum(piece.rows for piece in pieces) == shape[0]
    np.testing.assert_array_equal(np.concatenate([part.values for part in found]), csr.values)
    np.testing.assert_array_equal(np.concatenate([part.indices for part in found]), csr.indices)
    np.testing.assert_array_equal(np.concatenate([np.diff(part.pointers) for part in found]), np.diff(csr.pointers))


@pytest.mark.parametrize("slicing", SLICINGS)
def test_padding_is_known_before_slices_are_packed(slicing):
    """For the cost model, from some of the rows."""
    csr = csr_of(sparse(np.random.default_rng(4), (1000, 1000), 0.1))
    stream = SliceStream.pack(csr, 1000, slicing)
    assert SliceStream.slots(csr, slicing) == stream.values.size
    assert packing.slots(slicing)(csr, Weight("w", (1000, 1000), (1,), np.dtype(np.float32))) == pytest.approx(
        stream.values.size / len(csr.values), rel=0.05
    )
    assert stream.nbytes < 10 * len(csr.values)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_reaches_what_it_is_multiplied_with(kind, bad):
    rng = np.random.default_rng(2)
    x, matrix = rng.standard_normal(80).astype(np.float32), sparse(rng, (50, 80), 0.2)
    x[33] = bad
    with np.errstate(invalid="ignore"):
        expected = np.where(matrix != 0, x.astype(float) * matrix, 0).sum(axis=1)
    # The padding of slices multiplies by zero, as a dense product does.
    compared = matrix[:, 33] != 0 if kind != "vector" else slice(None)
    for low, wanted in ((-np.inf, expected), (0, np.where(np.isnan(expected), np.nan, np.maximum(expected, 0)))):
        pieces, structures = packed(kind, matrix)
        y = run_step(kernel_of(kind), x.reshape(1, 1, 1, -1), (1, 1, 1, 50), weights=structures, low=low).reshape(-1)
        del pieces
        np.testing.assert_allclose(y[compared], wanted[compared], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_may_call_one_model(threads, isa):
    rng = np.random.default_rng(5)
    window = {"strides": (1, 1), "dilations": (1, 1), "padding": "same"}
    nodes = (
        make_node("conv", "c", ["x", "c/kernel"], ["c"], **window),
        make_node("depthwise_conv", "w", ["c", "w/kernel"], ["w"], **window),
        make_node("conv", "p", ["w", "p/kernel"], ["p"], **window),
        make_node("reduce_mean", "m", ["p"], ["m"], axes=(1, 2)),
        make_node("dense", "d", ["m", "d/kernel"], ["d"]),
    )
    weights = {
        "c/kernel": sparse(rng, (3, 3, 32, 64), 0.1),
        "w/kernel": sparse(rng, (3, 3, 64, 1), 1),
        "p/kernel": sparse(rng, (1, 1, 64, 256), 0.1),
        "d/kernel": sparse(rng, (256, 900), 0.1),
    }
    x = Input("x", TensorType("float32", (symbol(BATCH), 14, 14, 32)))
    model = Model(lower(Graph((x,), (Port("y", "d"),), nodes, weights)), threads=threads)
    assert all(step.kernel.startswith("native/") for step in model.plan(1))
    inputs = [rng.standard_normal((1 + i % 3, 14, 14, 32)).astype(np.float32) for i in range(12)]
    expected = [model(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for y, wanted in zip(pool.map(model, inputs), expected, strict=True):
            np.testing.assert_array_equal(y, wanted)
