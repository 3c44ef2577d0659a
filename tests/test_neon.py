"""Whole models on an emulated processor for aarch64; single kernels run there in the files ``test_native_*.py``."""

from __future__ import annotations

import numpy as np
import pytest
from emulation import NEON, PRESENT, lacks, use

from sparsec.ir import BATCH, Graph, Input, Port, TensorType, symbol
from sparsec.lowering import lower
from sparsec.ops import evaluate_graph, make_node
from sparsec.runtime import Model

pytestmark = pytest.mark.skipif(NEON.name not in PRESENT and bool(lacks()), reason=lacks() or "NEON is there")


@pytest.mark.parametrize("threads", [1, 2])
def test_a_model(threads, monkeypatch):
    """Layouts are changed, memory is reused, and batches are run in parts."""
    use(NEON.name, monkeypatch)
    rng = np.random.default_rng(1)

    def sparse(*shape):
        return np.where(rng.random(shape) < 0.9, 0, rng.standard_normal(shape)).astype(np.float32)

    window = {"strides": (1, 1), "dilations": (1, 1), "padding": "same"}
    nodes = (
        make_node("conv", "c", ["x", "c/kernel", "c/bias"], ["c"], **window),
        make_node("relu", "r", ["c"], ["r"]),
        make_node("depthwise_conv", "w", ["r", "w/kernel"], ["w"], **window),
        make_node("conv", "p", ["w", "p/kernel"], ["p"], **window),
        make_node("add", "a", ["p", "r"], ["a"]),
        make_node("sigmoid", "s", ["a"], ["s"]),
        make_node("reduce_mean", "m", ["s"], ["m"], axes=(1, 2)),
        make_node("dense", "d", ["m", "d/kernel"], ["d"]),
    )
    weights = {
        "c/kernel": sparse(3, 3, 5, 24),
        "c/bias": rng.standard_normal(24).astype(np.float32),
        "w/kernel": rng.standard_normal((3, 3, 24, 1)).astype(np.float32),
        "p/kernel": sparse(1, 1, 24, 24),
        "d/kernel": sparse(24, 100),
    }
    x = Input("x", TensorType("float32", (symbol(BATCH), 9, 10, 5)))
    graph = Graph((x,), (Port("y", "d"),), nodes, weights)
    model = Model(lower(graph), threads=threads)
    assert all(step.kernel.startswith("native/") for step in model.plan(1))
    for samples in (1, 2, 5):
        given = rng.standard_normal((samples, 9, 10, 5)).astype(np.float32)
        np.testing.assert_allclose(model(given), evaluate_graph(graph, [given])[0], rtol=1e-4, atol=1e-5)
