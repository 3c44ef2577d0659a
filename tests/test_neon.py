"""The kernels for aarch64, on an emulated processor: every kernel against float64, and whole models in several threads."""

from __future__ import annotations

import numpy as np
import pytest
from emulation import NEON, PRESENT, lacks, use
from kernel_steps import Memory, post, run_step

from sparsec.encodings import Csr
from sparsec.ir import BATCH, Graph, Input, Port, TensorType, symbol
from sparsec.kernels.library import Matrix, Window
from sparsec.kernels.streams import SliceStream, Stream
from sparsec.lowering import lower
from sparsec.ops import OPS, evaluate_graph, make_node
from sparsec.runtime import Model

pytestmark = pytest.mark.skipif(NEON.name not in PRESENT and bool(lacks()), reason=lacks() or "NEON is there")
SEEDS = range(6)


@pytest.fixture(autouse=True)
def neon(monkeypatch):
    use(NEON.name, monkeypatch)


def sparse(rng, *shape):
    """A weight with some zeros, and a row of them."""
    weight = np.where(rng.random(shape) < rng.choice([0.3, 0.9, 0.98]), 0, rng.standard_normal(shape)).astype(np.float32)
    weight[..., rng.integers(shape[-1])] = 0
    return weight


def csr(kernel):
    """The compressed rows of a kernel, whose last axis is that of the output channels."""
    matrix = kernel.reshape(-1, kernel.shape[-1]).T
    row, column = np.nonzero(matrix)
    pointers = np.r_[0, np.cumsum(np.bincount(row, minlength=len(matrix)))]
    return Csr(pointers.astype(np.int32), column.astype(np.int32), matrix[row, column])


def check(y, op, attrs, x, kernel, bias):
    """Close to the reference, as a part of the sum of the magnitudes of all products."""
    attrs = OPS[op].complete(attrs)
    wide = [array.astype(np.float64) for array in (x, kernel, bias)]
    (expected,) = OPS[op].evaluate(attrs, wide)
    (scale,) = OPS[op].evaluate(attrs, [np.abs(array) for array in wide])
    assert (y.shape, y.dtype) == (expected.shape, np.float32)
    assert np.all(np.abs(y - expected) <= 1e-5 * scale)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kernel", ["product", "windows"])
def test_convolutions(kernel, seed):
    rng = np.random.default_rng(seed)

    def sizes(least, most, count=2):
        return tuple(map(int, rng.integers(least, most + 1, count)))

    samples, inside, out = sizes(1, 40, 3)
    window, strides, dilations, pads = (1, 1), (1, 1), (1, 1), (0, 0, 0, 0)
    if kernel == "windows":
        window, strides, dilations, pads = sizes(1, 3), sizes(1, 2), sizes(1, 2), sizes(0, 2, 4)
    spatial = tuple((size - 1) * step + extra for size, step, extra in zip(window, dilations, sizes(1, 20), strict=True))
    x = rng.standard_normal((1 + samples % 3, *spatial, inside)).astype(np.float32)
    weight, bias = sparse(rng, *window, inside, out), rng.standard_normal(out).astype(np.float32)
    attrs = {"strides": strides, "dilations": dilations, "padding": "explicit", "pads": pads}
    (y,) = OPS["conv"].infer(OPS["conv"].complete(attrs), [TensorType("float32", array.shape) for array in (x, weight)])
    stream = Stream.pack(csr(weight), inside, window[0] * window[1])
    found = run_step(
        kernel,
        x,
        y.shape,
        weights=(Matrix * 1)(stream.structure),
        bias=bias,
        window=Window(*window, *strides, *dilations, pads[0], pads[2]),
        threads=1 + seed % 2,
    )
    check(found, "conv", attrs, x, weight, bias)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kernel", ["vector", "slices"])
def test_vectors(kernel, seed):
    rng = np.random.default_rng(seed)
    inside, out = map(int, rng.integers(1, 300, 2))
    x, weight, bias = rng.standard_normal(inside), sparse(rng, inside, out), rng.standard_normal(out)
    x, bias = x.astype(np.float32), bias.astype(np.float32)
    packed = Stream.pack(csr(weight), inside, 1) if kernel == "vector" else SliceStream.pack(csr(weight), inside)
    pieces = (type(packed.structure) * 1)(packed.structure)
    y = run_step(kernel, x.reshape(1, 1, 1, -1), (1, 1, 1, out), weights=pieces, bias=bias)
    check(y.reshape(1, -1), "dense", {}, x.reshape(1, -1), weight, bias)


@pytest.mark.parametrize("shape", [(1, 1, 1, 7), (2, 3, 5, 4), (3, 4, 4, 21)])
def test_operations_that_follow(shape):
    rng = np.random.default_rng(0)
    x, other = rng.standard_normal((2, *shape)).astype(np.float32)
    channel = rng.standard_normal(shape[-1]).astype(np.float32)
    memory = Memory()
    posts = (
        post(memory, "multiply", "channel", channel=channel),
        post(memory, "add", "value", value=other),
        post(memory, "silu"),
        post(memory, "clamp", a=-0.2, b=1.5),
    )
    y = run_step("map", x, shape, memory=memory, posts=posts)
    v = x.astype(float) * channel + other
    np.testing.assert_allclose(y, np.clip(v / (1 + np.exp(-v)), -0.2, 1.5), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_model(threads):
    """Layouts are changed, memory is reused, and batches are run in parts."""
    rng = np.random.default_rng(1)
    window = {"strides": (1, 1), "dilations": (1, 1), "padding": "same"}
    nodes = (
        make_node("conv", "c", ["x", "c/kernel", "c/bias"], ["c"], **window),
        make_node("relu", "r", ["c"], ["r"]),
        make_node("conv", "p", ["r", "p/kernel"], ["p"], **window),
        make_node("add", "a", ["p", "r"], ["a"]),
        make_node("sigmoid", "s", ["a"], ["s"]),
    )
    weights = {
        "c/kernel": sparse(rng, 3, 3, 5, 24),
        "c/bias": rng.standard_normal(24).astype(np.float32),
        "p/kernel": sparse(rng, 1, 1, 24, 24),
    }
    x = Input("x", TensorType("float32", (symbol(BATCH), 9, 10, 5)))
    graph = Graph((x,), (Port("y", "s"),), nodes, weights)
    model = Model(lower(graph), threads=threads)
    assert all(step.kernel.startswith("native/") for step in model.plan(1))
    for samples in (1, 2, 5):
        given = rng.standard_normal((samples, 9, 10, 5)).astype(np.float32)
        np.testing.assert_allclose(model(given), evaluate_graph(graph, [given])[0], rtol=1e-4, atol=1e-5)
