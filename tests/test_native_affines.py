"""Products whose input is scaled, shifted and clamped by channel first, with every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_steps import run_step
from test_engine import SAME, check, draw, graph_of, translated
from test_native import DENSITIES, close, csr_of, epilogues, many, packed, sparse, structures, threads

from sparsec.engine.steps import Step
from sparsec.kernels import library
from sparsec.kernels.streams import Blocks, Stream
from sparsec.ops import make_node

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")


@many
@given(data=st.data())
def test_products(isa, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    samples, positions = data.draw(st.sampled_from([(1, 2), (1, 7), (2, 49), (1, 300), (1, 1100), (3, 400)]))
    channels, rows = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    matrix = sparse(rng, (rows, channels), data.draw(DENSITIES))
    x = rng.standard_normal((samples, 1, positions, channels)).astype(np.float32)
    scale, shift = rng.standard_normal((2, channels)).astype(np.float32)
    low, high = data.draw(st.sampled_from([(-np.inf, np.inf), (0.0, np.inf), (0.0, 1.0)]))
    keywords, reference, size = data.draw(epilogues(rng, (samples, 1, positions, rows)))
    pieces = data.draw(packed(matrix, channels, 1))
    y = run_step(
        *("product", x, (samples, 1, positions, rows)),
        weights=structures(pieces),
        pieces=len(pieces),
        options=data.draw(st.sampled_from([(0, 0), (4, 1), (1, 0)])),
        numbers=(low, high),
        scale=scale,
        shift=shift,
        threads=data.draw(threads),
        **keywords,
    )
    before = np.clip(x.astype(np.float64) * scale + shift, low, high)
    reach = (np.abs(x.astype(np.float64) * scale) + np.abs(shift)) @ np.abs(matrix.T.astype(np.float64))
    close(y, reference(before @ matrix.T.astype(np.float64)), size * (8 + reach))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_reaches_what_it_is_multiplied_with(bad, isa):
    rng = np.random.default_rng(1)
    matrix = sparse(rng, (8, 8), 0.5)
    x = rng.standard_normal((1, 3, 6, 8)).astype(np.float32)
    x[0, 1, 2, 3] = bad
    ones, pieces = np.ones(8, np.float32), Stream.pieces(csr_of(matrix), 8, 1, Blocks(1, 4, 4), 1, 1)
    y = run_step("product", x, x.shape, weights=structures(pieces), numbers=(0.0, np.inf), scale=ones, shift=ones)
    reached = np.zeros(y.shape, bool)
    reached[0, 1, 2] = matrix[:, 3] != 0
    np.testing.assert_array_equal(np.isfinite(y), ~reached)


# --- plans -----------------------------------------------------------------------------------------------------------------

OPERANDS = {"mul": ["s"], "add": ["b"], "relu": [], "tanh": []}


def activated(functions, groups=1):
    """Nodes and weights: a convolution, what is done to its channels, a convolution of that, and a sum of both convolutions."""
    rng = np.random.default_rng(2)
    nodes = [make_node("conv", "c", ["x", "c/k"], ["c"], **SAME)]
    for function in functions:
        nodes.append(make_node(function, f"f/{function}", [nodes[-1].output, *OPERANDS[function]], [f"f/{function}"]))
    nodes.append(make_node("conv", "p", [nodes[-1].output, "p/k"], ["p"], groups=groups, **SAME))
    nodes.append(make_node("add", "y", ["p", "c"], ["y"]))
    weights = {"c/k": draw(rng, 1, 1, 16, 24), "p/k": draw(rng, 1, 1, 24 // groups, 24)}
    return nodes, weights | {name: draw(rng, 24, density=1.0) for function in functions for name in OPERANDS[function]}


def scaled(graph, batch=1):
    """How many products scale their input, how many maps do, and how many maps there are."""
    steps = [step for step in translated(graph, batch).items if isinstance(step, Step)]
    found = [step.kernel for step in steps if step.before is not None]
    return found.count("product"), found.count("map"), sum(step.kernel == "map" for step in steps)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("functions", [["mul", "add", "relu"], ["mul", "add"], ["add", "relu"], ["relu"]])
def test_a_product_scales_its_input(functions, groups, batch, isa):
    graph = graph_of((6, 7, 16), *activated(functions, groups))
    assert scaled(graph, batch) == (1, 0, 0)
    check(graph, batch)


@pytest.mark.parametrize("functions", [["add", "mul"], ["relu", "mul"], ["mul", "tanh"]])
def test_what_a_product_cannot_do_is_a_step_of_its_own(functions, isa):
    graph = graph_of((6, 7, 16), *activated(functions))
    assert scaled(graph) == (0, 0, 1)
    check(graph)


def test_products_that_read_the_same_scale_it_each(isa):
    nodes, weights = activated(["mul", "add", "relu"])
    nodes += [make_node("conv", "q", ["f/relu", "q/k"], ["q"], **SAME), make_node("add", "z", ["y", "q"], ["z"])]
    weights["q/k"] = draw(np.random.default_rng(3), 1, 1, 24, 24)
    graph = graph_of((6, 7, 16), nodes, weights)
    assert scaled(graph) == (2, 0, 0)
    check(graph)


@pytest.mark.parametrize("functions", [["mul", "add", "relu"], ["add"], ["relu"]])
def test_what_others_read_is_scaled_by_itself(functions, isa):
    nodes, weights = activated(functions)
    scaled_value = nodes[-3].output
    nodes += [
        make_node("max_pool", "m", [scaled_value], ["m"], window=(3, 3), **SAME),
        make_node("add", "z", ["y", "m"], ["z"]),
    ]
    graph = graph_of((6, 7, 16), nodes, weights)
    assert scaled(graph) == (0, 1, 1)
    check(graph)
    check(graph, 3)
