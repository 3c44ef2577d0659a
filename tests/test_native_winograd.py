"""Convolutions in fewer multiplications: windows of 3x3 and 5x5 with a dense matrix, without strides."""

from __future__ import annotations

import numpy as np
import pytest
from emulation import PARAMETERS
from kernel_steps import run_step
from test_engine import graph_of
from test_native import csr_of, structures
from test_native_pooled import POOL, VALID, convolution, is_pooled, node, outputs, poisoned, prefer

from sparsec.kernels import library
from sparsec.kernels.filters import EvaluatedFilters
from sparsec.kernels.library import Window
from sparsec.ops import OPS

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")
assert poisoned, "a fixture of every test here"

chosen = pytest.mark.parametrize(
    "isa", [each for each in PARAMETERS if each.values[0] in {isa.name for isa in library.ISAS if isa.evaluated}], indirect=True
)
"""With the instruction sets with which models run in this kernel."""


@pytest.fixture
def evaluated(monkeypatch):
    """Convolutions run in this kernel where they can."""
    prefer(monkeypatch, "winograd")


def most_rows():
    """The most rows of a group for which there is a kernel."""
    return library.status().library.isa.evaluated or 4


def exact(x, weights, pads):
    """The convolution in float64, and the most that its terms add up to."""
    attrs = OPS["conv"].complete({"strides": (1, 1), "dilations": (1, 1), "padding": "explicit", "pads": pads, "groups": 1})
    (y,) = OPS["conv"].evaluate(attrs, [x.astype(np.float64), weights.astype(np.float64)])
    (most,) = OPS["conv"].evaluate(attrs, [np.abs(x).astype(np.float64), np.abs(weights).astype(np.float64)])
    return y, most.max()


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    ("samples", "height", "width", "channels", "rows", "pads"),
    [
        (1, 28, 28, 1, 6, (2, 2, 2, 2)),
        (2, 5, 7, 3, 5, (0, 0, 0, 0)),
        (1, 9, 33, 2, 8, (1, 1, 1, 1)),
        (3, 6, 16, 4, 11, (2, 1, 0, 2)),
        (1, 5, 64, 1, 16, (4, 0, 0, 4)),
        (2, 7, 5, 5, 1, (1, 1, 1, 1)),
        (1, 70, 40, 2, 20, (0, 2, 1, 1)),
    ],
)
def test_sums(size, threads, residual, samples, height, width, channels, rows, pads, isa):
    rng = np.random.default_rng(rows)
    x = rng.standard_normal((samples, height, width, channels)).astype(np.float32)
    weights = rng.standard_normal((size, size, channels, rows)).astype(np.float32)
    bias = rng.standard_normal(rows).astype(np.float32)
    expected, most = exact(x, weights, pads)
    added = rng.standard_normal(expected.shape).astype(np.float32) if residual else None
    piece = EvaluatedFilters.pack(csr_of(weights.reshape(-1, rows).T), channels, (size, size), most_rows())
    y = run_step(
        *("winograd", x, expected.shape),
        weights=structures([piece]),
        bias=bias,
        window=Window(size, size, 1, 1, 1, 1, pads[0], pads[2]),
        low=-2.0,
        high=3.0,
        residual=added,
        threads=threads,
    )
    expected = np.clip(expected + bias + (0.0 if added is None else added), -2.0, 3.0)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6 * (1 + most))


@pytest.mark.parametrize("size", [3, 5])
def test_errors_stay_as_small_as_those_of_ordinary_sums(size):
    """Of values that have a mean, as those of images do."""
    rng = np.random.default_rng(size)
    x = rng.uniform(0, 255, (1, 24, 24, 3)).astype(np.float32)
    weights = rng.standard_normal((size, size, 3, 8)).astype(np.float32)
    expected, most = exact(x, weights, (0, 0, 0, 0))
    piece = EvaluatedFilters.pack(csr_of(weights.reshape(-1, 8).T), 3, (size, size), most_rows())
    y = run_step("winograd", x, expected.shape, weights=structures([piece]), window=Window(size, size, 1, 1, 1, 1, 0, 0))
    assert np.abs(y - expected).max() <= 4e-7 * most


def test_weights_come_back_as_they_were():
    matrix = np.random.default_rng(0).standard_normal((7, 50)).astype(np.float32)
    matrix[:, ::3] = 0
    piece = EvaluatedFilters.pack(csr_of(matrix), 2, (5, 5), 8)
    for ours, given in zip(piece.csr(), csr_of(matrix), strict=True):
        np.testing.assert_array_equal(ours, given)
    assert piece.shape == matrix.shape
    assert piece.nbytes > matrix.nbytes


@pytest.mark.parametrize("kind", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("follower", [None, "relu", "tanh"])
@pytest.mark.parametrize(
    ("batch", "size", "channels", "rows", "attrs"),
    [
        (1, (28, 28), 1, 6, {"window": (5, 5)}),
        (3, (9, 11), 3, 5, {}),
        (1, (70, 34), 8, 24, {}),
        (2, (7, 21), 2, 9, {"window": (5, 5), **VALID}),
        (1, (6, 6), 4, 6, {"groups": 2}),
    ],
)
@chosen
def test_pools(kind, follower, batch, size, channels, rows, attrs, evaluated, isa):
    nodes, weights, shape = convolution(np.random.default_rng(rows), size, channels, rows, **attrs)
    nodes += [] if follower is None else [node("f", follower, ("c",))]
    plan = outputs(graph_of(shape, [*nodes, node("p", kind, (nodes[-1].output,), **POOL)], weights), batch)
    assert is_pooled(plan)
    assert any(step.kernel == "native/winograd" for step in plan)


@chosen
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_share_out_pools(threads, evaluated, isa):
    nodes, weights, shape = convolution(np.random.default_rng(0), (11, 11), 3, 10)
    assert is_pooled(outputs(graph_of(shape, [*nodes, node("p", "max_pool", ("c",), **POOL)], weights), 2, threads))


@pytest.mark.parametrize("attrs", [{"strides": (2, 2)}, {"dilations": (2, 2)}, {"window": (3, 5)}, {"window": (7, 7)}])
def test_other_windows_are_left_to_other_kernels(attrs, evaluated):
    nodes, weights, shape = convolution(np.random.default_rng(1), (20, 20), 1, 8, **attrs)
    assert not any(step.kernel == "native/winograd" for step in outputs(graph_of(shape, nodes, weights), 1))
