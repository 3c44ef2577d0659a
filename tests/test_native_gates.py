"""Products whose input is multiplied by a number for each channel first, with every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_steps import run_step
from test_engine import SAME, check, draw, graph_of, translated
from test_native import DENSITIES, close, epilogues, many, packed, sparse, structures, threads

from sparsec.engine.steps import Step
from sparsec.kernels import library
from sparsec.lowering import lower
from sparsec.ops import make_node
from sparsec.runtime import Model

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")


@many
@given(data=st.data())
def test_products(isa, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    positions = data.draw(st.sampled_from([2, 7, 49, 300, 1100]))
    channels, rows = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    matrix = sparse(rng, (rows, channels), data.draw(DENSITIES))
    x = rng.standard_normal((1, 1, positions, channels)).astype(np.float32)
    gate = rng.standard_normal((1, 1, 1, channels)).astype(np.float32)
    shape = (1, 1, positions, rows)
    keywords, reference, scale = data.draw(epilogues(rng, shape))
    pieces = data.draw(packed(matrix, channels, 1))
    y = run_step(
        *("product", x, shape),
        weights=structures(pieces),
        pieces=len(pieces),
        options=data.draw(st.sampled_from([(0, 0), (4, 1), (1, 0)])),
        extra=gate,
        threads=data.draw(threads),
        **keywords,
    )
    wide = x.astype(np.float64) * gate, matrix.T.astype(np.float64)
    close(y, reference(wide[0] @ wide[1]), scale * (8 + np.abs(wide[0]) @ np.abs(wide[1])))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gate_that_is_not_finite_reaches_what_it_is_multiplied_with(bad, isa):
    rng = np.random.default_rng(1)
    nodes, weights = squeezed(rng)
    weights["e/k"][:] = 0
    weights["e/b"] = np.zeros(24, np.float32)
    weights["e/b"][5] = bad
    y = Model(lower(graph_of((6, 7, 16), nodes, weights)))(rng.standard_normal((1, 6, 7, 16)).astype(np.float32))
    reached = weights["p/k"][0, 0, 5] != 0
    np.testing.assert_array_equal(np.isfinite(y).all(axis=(0, 1, 2)), ~reached)


def squeezed(rng):
    """A convolution whose channels are multiplied by what their means say, and one that follows: nodes and weights."""
    nodes = [
        make_node("conv", "c", ["x", "c/k"], ["c"], **SAME),
        make_node("reduce_mean", "m", ["c"], ["m"], axes=(1, 2), keepdims=True),
        make_node("conv", "e", ["m", "e/k", "e/b"], ["e"], **SAME),
        make_node("mul", "g", ["c", "e"], ["g"]),
        make_node("conv", "p", ["g", "p/k"], ["p"], **SAME),
    ]
    shapes = {"c/k": (1, 1, 16, 24), "e/k": (1, 1, 24, 24), "e/b": (24,), "p/k": (1, 1, 24, 16)}
    return nodes, {path: draw(rng, *shape) for path, shape in shapes.items()}


def gated(graph, batch):
    """How many products have a gate, and how many steps multiply by one."""
    steps = [step for step in translated(graph, batch).items if isinstance(step, Step)]
    return sum(bool(step.gate) for step in steps), sum(step.kernel == "map" for step in steps)


@pytest.mark.parametrize(("batch", "found"), [(1, (1, 0)), (3, (0, 1))])
def test_a_product_takes_the_gate_of_one_sample(batch, found, isa):
    nodes, weights = squeezed(np.random.default_rng(2))
    graph = graph_of((6, 7, 16), nodes, weights)
    assert gated(graph, batch) == found
    check(graph, batch)


def test_what_others_read_is_multiplied_by_itself():
    nodes, weights = squeezed(np.random.default_rng(3))
    nodes += [
        make_node("reduce_max", "s", ["g"], ["s"], axes=(1, 2), keepdims=True),
        make_node("conv", "q", ["s", "p/k"], ["q"], **SAME),
        make_node("add", "a", ["p", "q"], ["a"]),
    ]
    graph = graph_of((6, 7, 16), nodes, weights)
    assert gated(graph, 1)[0] == 0
    check(graph)
