"""Every kernel computes what its operator's reference evaluation computes, and the choice among them follows the costs."""

from __future__ import annotations

import gc
import weakref
from dataclasses import fields, replace
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.encodings import encode
from sparsec.ir import TensorType
from sparsec.kernels import (
    IN_PLACE,
    KERNEL_OPS,
    KERNELS,
    MEASURED,
    NATIVE,
    POINTWISE,
    TENSOR,
    Coefficients,
    Epilogue,
    Stage,
    Task,
    WeightStore,
    choose,
)
from sparsec.kernels import base as kernels_base
from sparsec.kernels.sparse import ROWS, multiply_rows
from sparsec.ops import OPS

PORTABLE = tuple(kernel for kernel in KERNELS if NATIVE not in kernel.needs)
"""The kernels that are there on every machine."""

NOT_FITTED = ("cache_bytes", "native_cache_bytes", "thread_gain")

TOLERANCE = {"float32": 2e-5, "float64": 1e-12, "float16": 2e-2}


class Case:
    """A task with its arrays, and the result of the reference evaluation."""

    def __init__(self, op, attrs, x, kernel, bias, dtype="float64"):
        self.op, self.attrs = OPS[op], OPS[op].complete(attrs)
        self.x, self.kernel, self.bias = (a.astype(dtype) for a in (x, kernel, bias))
        rank = kernel.ndim
        rows = tuple(axis % rank for axis in self.op.matrix_rows[1])
        self.store = WeightStore({"k": encode(self.kernel, rows, "csr")})
        types = [TensorType(dtype, a.shape) for a in (self.x, self.kernel, self.bias)]
        (y,) = self.op.infer(self.attrs, types)
        weight = self.store.weight("k")
        self.task = Task(op, self.attrs, x.shape, y.shape, dtype, weight, int(np.count_nonzero(kernel)))
        (self.expected,) = self.op.evaluate(self.attrs, [self.x, self.kernel, self.bias])

    def check(self, kernel):
        if kernel.missing() or kernel.refuses(self.task):
            return
        relu = Stage("relu", IN_PLACE["relu"], OPS["relu"].complete({}))
        packed = self.store.packed("k", kernel.packing, self.attrs)
        run = kernel.bind(self.task, packed, Epilogue(self.bias, (relu,)))
        before = self.x.copy()
        y = run(self.x)
        assert y.shape == self.expected.shape == self.task.y
        assert y.dtype == self.expected.dtype
        scale = max(np.abs(self.expected).max(initial=0), 1e-6)
        np.testing.assert_allclose(y, np.maximum(self.expected, 0), rtol=0, atol=scale * TOLERANCE[self.task.dtype])
        np.testing.assert_array_equal(self.x, before)
        assert not np.shares_memory(y, self.x)


def random_arrays(draw, x_shape, kernel_shape, out):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kernel = rng.standard_normal(kernel_shape)
    kernel[rng.random(kernel_shape) >= draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))] = 0
    x = rng.standard_normal(x_shape)
    if draw(st.booleans()):
        x = np.asfortranarray(x)
    return x, kernel, rng.standard_normal(out)


SMALL = st.integers(1, 4)


@st.composite
def dense_cases(draw):
    lead = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    columns, rows = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    return Case("dense", {}, *random_arrays(draw, (*lead, columns), (columns, rows), rows), draw(DTYPES))


DTYPES = st.sampled_from(["float32", "float64"])


@st.composite
def window_attrs(draw, rank):
    attrs = {
        "strides": draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank)),
        "dilations": draw(st.lists(st.integers(1, 2), min_size=rank, max_size=rank)),
        "padding": draw(st.sampled_from(["same", "explicit"])),
    }
    counts = 2 * rank if attrs["padding"] == "explicit" else 0
    attrs["pads"] = draw(st.lists(st.integers(0, 2), min_size=counts, max_size=counts))
    return attrs


@st.composite
def conv_cases(draw):
    rank = draw(st.integers(1, 3))
    groups, inside, outside = draw(st.integers(1, 3)), draw(SMALL), draw(SMALL)
    window = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    spatial = draw(st.lists(st.integers(6, 8), min_size=rank, max_size=rank))
    arrays = random_arrays(
        draw, (draw(SMALL), *spatial, groups * inside), (*window, inside, groups * outside), groups * outside
    )
    return Case("conv", {**draw(window_attrs(rank)), "groups": groups}, *arrays, draw(DTYPES))


@st.composite
def depthwise_cases(draw):
    rank = draw(st.integers(1, 3))
    channels, multiplier = draw(SMALL), draw(st.integers(1, 3))
    window = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    spatial = draw(st.lists(st.integers(6, 8), min_size=rank, max_size=rank))
    arrays = random_arrays(draw, (draw(SMALL), *spatial, channels), (*window, channels, multiplier), channels * multiplier)
    return Case("depthwise_conv", draw(window_attrs(rank)), *arrays, draw(DTYPES))


@st.composite
def transpose_cases(draw):
    rank = draw(st.integers(1, 3))
    window = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    spatial = draw(st.lists(st.integers(3, 5), min_size=rank, max_size=rank))
    attrs = {
        "strides": draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank)),
        "dilations": draw(st.lists(st.integers(1, 2), min_size=rank, max_size=rank)),
        "crops": [draw(st.integers(0, 1) if end == 0 else st.integers(-1, 1)) for _ in range(rank) for end in (0, 1)],
    }
    inside, outside = draw(SMALL), draw(SMALL)
    arrays = random_arrays(draw, (draw(SMALL), *spatial, inside), (*window, outside, inside), outside)
    return Case("conv_transpose", attrs, *arrays, draw(DTYPES))


CASES = {
    "dense": dense_cases(),
    "conv": conv_cases(),
    "depthwise_conv": depthwise_cases(),
    "conv_transpose": transpose_cases(),
}


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_kernel_equals_reference(kernel, data):
    data.draw(CASES[kernel.op]).check(kernel)


@pytest.mark.parametrize("kernel", [k for k in KERNELS if k.op == "conv"], ids=lambda kernel: kernel.name)
def test_convolution_in_many_blocks(kernel, monkeypatch):
    """Sizes at which windows are gathered in parts of one sample, whole samples, and both with a rest."""
    monkeypatch.setattr("sparsec.kernels.convolution.BLOCK_ROWS", 1)
    rng = np.random.default_rng(3)
    for limit in (1, 700, 5000, 20000):
        monkeypatch.setattr("sparsec.kernels.sparse.PANEL_BYTES", limit)
        monkeypatch.setattr("sparsec.kernels.sparse.PANEL_VECTORS", 1)
        monkeypatch.setattr("sparsec.kernels.convolution.BLOCK_BYTES", limit)
        for window in (1, 3):
            x, kernel_array = rng.standard_normal((5, 7, 6, 4)), rng.standard_normal((window, window, 2, 6))
            attrs = {"strides": (1, 2), "dilations": (1, 1), "padding": "same", "groups": 2}
            Case("conv", attrs, x, kernel_array, rng.standard_normal(6), "float32").check(kernel)


@pytest.mark.parametrize("limit", [1, 3000, 1 << 20])
@pytest.mark.parametrize("channels", [1, 3])
def test_convolution_of_few_channels_at_many_positions(limit, channels, monkeypatch):
    monkeypatch.setattr("sparsec.kernels.convolution.BLOCK_BYTES", limit)
    monkeypatch.setattr("sparsec.kernels.convolution.BLOCK_ROWS", 1)
    monkeypatch.setattr("sparsec.kernels.convolution.MANY_POSITIONS", 1)
    rng = np.random.default_rng(8)
    attrs = {"strides": (2, 1), "dilations": (1, 2), "padding": "same"}
    arrays = rng.standard_normal((5, 9, 8, channels)), rng.standard_normal((3, 3, channels, 4)), rng.standard_normal(4)
    Case("conv", attrs, *arrays, "float32").check(next(kernel for kernel in KERNELS if kernel.name == "conv/blas"))


@pytest.mark.parametrize("channels", [1, 3, 100, 256, 300])
@pytest.mark.parametrize("positions", [0, 1, 7, 1000])
def test_epilogue_adds_the_bias_once_everywhere(channels, positions):
    rng = np.random.default_rng(9)
    part, bias = rng.standard_normal((positions, channels)), rng.standard_normal(channels)
    for given_part in (part.copy(), part.copy(order="F"), np.repeat(part, 2, axis=0)[::2]):
        Epilogue(bias)(given_part)
        np.testing.assert_array_equal(given_part, part + bias)


def test_depthwise_in_many_blocks(monkeypatch):
    monkeypatch.setattr("sparsec.kernels.depthwise.BLOCK_BYTES", 100)
    rng = np.random.default_rng(4)
    attrs = {"strides": (1, 1), "dilations": (1, 1), "padding": "same"}
    case = Case("depthwise_conv", attrs, rng.standard_normal((3, 5, 5, 4)), rng.standard_normal((3, 3, 4, 2)), np.ones(8))
    case.check(next(kernel for kernel in KERNELS if kernel.op == "depthwise_conv"))


def test_dense_panels_apply_the_epilogue_once(monkeypatch):
    monkeypatch.setattr("sparsec.kernels.sparse.PANEL_BYTES", 1)
    monkeypatch.setattr("sparsec.kernels.sparse.PANEL_VECTORS", 3)
    rng = np.random.default_rng(5)
    case = Case("dense", {}, rng.standard_normal((10, 6)), rng.standard_normal((6, 4)), rng.standard_normal(4))
    y = np.empty((10, 4))
    multiply_rows(case.store.packed("k", ROWS, {}), case.x, y, Epilogue(case.bias))
    np.testing.assert_allclose(y, case.expected, rtol=1e-12)


# --- the table ------------------------------------------------------------------------------------------------------


def test_table_names_are_unique_and_say_their_operator():
    names = [kernel.name for kernel in KERNELS]
    assert len(set(names)) == len(names)
    assert all(kernel.name.split("/")[0] == kernel.op for kernel in KERNELS)


def test_the_first_kernel_of_each_operator_needs_numpy_alone_and_refuses_nothing():
    for op in KERNEL_OPS:
        first = next(kernel for kernel in KERNELS if kernel.op == op)
        assert first.needs == ()
        assert first.packing is TENSOR
        assert first.refuses(dense_task(dtype="float16")) == ""


def dense_task(density=0.1, vectors=1, rows=1000, columns=1000, dtype="float32", stored_rows=(1,)):
    kernel = np.zeros((columns, rows), dtype)
    store = WeightStore({"k": encode(kernel, stored_rows)})
    weight, nonzeros = store.weight("k"), int(density * rows * columns)
    return Task("dense", {}, (vectors, columns), (vectors, rows), dtype, weight, nonzeros)


@pytest.mark.parametrize(("density", "name"), [(0.01, "dense/csr"), (0.9, "dense/blas"), (0.0, "dense/csr")])
@pytest.mark.parametrize("vectors", [1, 64, 4096])
def test_choice_follows_density(density, name, vectors):
    choice = choose(dense_task(density, vectors), PORTABLE)
    assert choice.kernel.name == name
    assert f"{density:.1%}" in choice.reason
    assert {"dense/csr", "dense/blas"} - {name} <= set(choice.reason.replace(",", " ").split())


def test_a_sparse_kernel_has_to_win_by_a_margin():
    task = dense_task(0.1)
    dense, sparse = (next(k for k in KERNELS if k.name == name) for name in ("dense/blas", "dense/csr"))
    for factor, winner in ((0.99, "dense/blas"), (0.5, "dense/csr")):
        table = (replace(dense, cost=lambda task, c: 1000.0), replace(sparse, cost=lambda task, c, f=factor: 1000.0 * f))
        assert choose(task, table).kernel.name == winner


def test_costs_grow_with_the_work():
    for kernel in (k for k in KERNELS if k.op == "dense"):
        costs = [kernel.cost(dense_task(0.1, vectors), MEASURED) for vectors in (1, 2, 16, 256)]
        assert costs == sorted(costs)
        assert all(cost > 0 for cost in costs)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_costs_are_linear_in_the_coefficients(kernel, data):
    """What the fit in benchmarks/kernels.py rests on."""
    task = data.draw(CASES[kernel.op]).task
    names = [field.name for field in fields(Coefficients) if field.name not in NOT_FITTED]
    nothing = replace(MEASURED, **dict.fromkeys(names, 0.0))
    parts = [kernel.cost(task, replace(nothing, **{name: getattr(MEASURED, name)})) for name in names]
    assert sum(parts) == pytest.approx(kernel.cost(task, MEASURED))


def test_more_threads_make_dense_kernels_cheaper():
    dense = next(k for k in KERNELS if k.name == "dense/blas")
    task = dense_task(0.1, 64)
    assert dense.cost(replace(task, threads=4), MEASURED) < dense.cost(task, MEASURED)


def test_missing_package_falls_back_and_is_reported(monkeypatch):
    monkeypatch.setattr(kernels_base, "_installed", lambda package: False)
    choice = choose(dense_task(0.01), PORTABLE)
    assert choice.kernel.name == "dense/blas"
    assert choice.missing == ("scipy",)
    assert "needs scipy" in choice.reason


def test_scipy_refuses_float16_and_foreign_rows():
    assert "float16" in choose(dense_task(0.01, dtype="float16"), PORTABLE).reason
    choice = choose(dense_task(0.01, stored_rows=(0,)), PORTABLE)
    assert choice.kernel.name == "dense/blas"
    assert "rows (0,)" in choice.reason


# --- elementwise ----------------------------------------------------------------------------------------------------

ATTRS = {
    "relu": [
        {},
        {"max_value": 0.5},
        {"negative_slope": 0.2},
        {"negative_slope": 2.0},
        {"negative_slope": -0.5, "max_value": 0.3},
        {"threshold": 0.3, "negative_slope": 0.1},
    ],
    "clip": [{"minimum": -0.5, "maximum": 0.25}],
    "hard_sigmoid": [{"alpha": 0.2, "beta": 0.5}],
    "gelu": [{}, {"approximate": True}],
    "softmax": [{}, {"axis": 1}],
}


@pytest.mark.parametrize("name", sorted(IN_PLACE))
def test_in_place_equals_reference(name):
    op = OPS[name]
    rng = np.random.default_rng(6)
    for attrs in ATTRS.get(name, [{}]):
        complete = op.complete(attrs)
        least, most = op.arity()
        for count in range(least, (most or least) + 1):
            x = rng.standard_normal((3, 4, 5)).astype(np.float32)
            if name in ("log", "sqrt"):
                x = np.abs(x)
            others = [(rng.standard_normal(5) + 2).astype(np.float32) for _ in range(count - 1)]
            (expected,) = op.evaluate(complete, [x, *others])
            for out in (None, np.empty_like(x), x.copy()):
                given_x = out if out is not None and np.array_equal(out, x) else x
                y = IN_PLACE[name](complete, given_x, *others, out=out)
                assert out is None or y is out
                assert y.dtype == np.float32
                np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_what_is_pointwise_does_not_look_at_neighbours():
    assert set(IN_PLACE) > POINTWISE
    assert not POINTWISE & {"softmax", "log_softmax", "sparsemax"}


# --- weights --------------------------------------------------------------------------------------------------------


def weights(positions="csr", shape=(3, 3, 4, 6), rows=(3,)):
    rng = np.random.default_rng(7)
    array = rng.standard_normal(shape).astype(np.float32)
    array[rng.random(shape) < 0.8] = 0
    return array, encode(array, rows, positions)


@pytest.mark.parametrize("positions", ["dense", "csr", "bitmap", "coo"])
@pytest.mark.parametrize("order", [(TENSOR, ROWS), (ROWS, TENSOR)])
@pytest.mark.parametrize("groups", [1, 2])
def test_packings_are_made_from_one_another_without_loss(positions, order, groups):
    array, stored = weights(positions)
    store = WeightStore({"k": stored})
    packed = {packing.name: store.packed("k", packing, {"groups": groups}) for packing in order}
    np.testing.assert_array_equal(packed["dense"], array)
    matrix = np.concatenate([part.toarray() for part in packed["csr"]])
    np.testing.assert_array_equal(matrix, array.reshape(-1, 6).T)
    assert len(packed["csr"]) == groups
    assert store.nonzeros("k") == np.count_nonzero(array)


def test_packing_happens_once_and_lets_go_of_the_stored_form():
    _, stored = weights("csr")
    indices = weakref.ref(stored.arrays["indices"])
    store = WeightStore({"k": stored})
    del stored
    gc.collect()
    assert indices() is not None
    first = store.packed("k", ROWS, {"groups": 1})
    gc.collect()
    assert indices() is None
    assert store.packed("k", ROWS, {"groups": 1}) is first
    assert store.nbytes == sum(part.data.nbytes + part.indices.nbytes + part.indptr.nbytes for part in first)


def test_a_mapped_weight_stays_in_its_file(tmp_path):
    array, _ = weights()
    np.save(tmp_path / "a.npy", array.reshape(-1))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    stored = replace(encode(array, (3,)), arrays={"values": mapped})
    store = WeightStore({"k": stored})
    assert np.shares_memory(store.array("k"), mapped)
    store.packed("k", ROWS, {"groups": 1})
    assert prod(store.array("k").shape) == array.size
