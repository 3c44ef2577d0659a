"""Convolutions that give pools of two rows and two columns of what they compute."""

from __future__ import annotations

import numpy as np
import pytest
from test_engine import draw, evaluate, graph_of

from sparsec.engine import choice
from sparsec.engine.run import Arena
from sparsec.kernels import library
from sparsec.lowering import lower
from sparsec.ops import make_node
from sparsec.runtime import Model

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")


def node(name, op, inputs, **attrs):
    """A node that gives the value of its name."""
    return make_node(op, name, inputs, [name], **attrs)


VALID = {"padding": "explicit", "pads": (0, 0, 0, 0)}
POOL = {"window": (2, 2), "strides": (2, 2), "dilations": (1, 1), **VALID}


def prefer(monkeypatch, kernel):
    """Steps run in a kernel where they can."""
    candidates = choice.candidates

    def only(*arguments):
        found = candidates(*arguments)
        return [each for each in found if each.kernel == kernel] or found

    monkeypatch.setattr(choice, "candidates", only)


@pytest.fixture(autouse=True)
def sliding(monkeypatch):
    """Convolutions without strides run in the kernel that pools."""
    prefer(monkeypatch, "sliding")


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """What is computed from memory that nobody wrote is not a number."""
    reserve = Arena.reserve

    def poison(arena, nbytes):
        reserve(arena, nbytes)
        arena.buffer[: arena.buffer.size // 4 * 4].view(np.float32)[:] = np.nan

    monkeypatch.setattr(Arena, "reserve", poison)


def convolution(rng, size, channels, rows, window=(3, 3), **attrs):
    """Nodes and weights of a convolution, and of what follows it."""
    attrs = {"strides": (1, 1), "dilations": (1, 1), "padding": "same", **attrs}
    groups = attrs.get("groups", 1)
    weights = {"w": draw(rng, *window, channels // groups, rows), "b": draw(rng, rows, density=1)}
    return [node("c", "conv", ("x", "w", "b"), **attrs)], weights, (*size, channels)


def outputs(graph, batch, threads=1):
    """Those of the engine and of the operators, and what the engine does."""
    shape = tuple(int(str(dim)) for dim in graph.inputs[0].type.shape[1:])
    x = np.random.default_rng(batch).standard_normal((batch, *shape)).astype(np.float32)
    model = Model(lower(graph), threads=threads)
    for y, expected in zip(model.run(x), evaluate(graph, x), strict=True):
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * max(np.ptp(expected), 1e-3))
    return model.plan(batch)


def is_pooled(plan):
    return any(op in step.fused for step in plan for op in ("max_pool", "avg_pool"))


@pytest.mark.parametrize("kind", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("size", "channels", "rows", "attrs"),
    [
        ((14, 14), 6, 16, {"window": (5, 5), **VALID}),
        ((9, 11), 3, 5, {}),
        ((2, 2), 3, 4, {}),
        ((7, 40), 2, 3, {"dilations": (2, 1)}),
        ((6, 6), 4, 6, {"groups": 2}),
        ((70, 70), 8, 24, {}),
    ],
)
def test_pools(kind, batch, size, channels, rows, attrs, isa):
    nodes, weights, shape = convolution(np.random.default_rng(rows), size, channels, rows, **attrs)
    graph = graph_of(shape, [*nodes, node("p", kind, ("c",), **POOL)], weights)
    assert is_pooled(outputs(graph, batch))


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_threads_share_out_pools(threads, batch):
    nodes, weights, shape = convolution(np.random.default_rng(0), (11, 11), 3, 10)
    graph = graph_of(shape, [*nodes, node("p", "max_pool", ("c",), **POOL)], weights)
    assert is_pooled(outputs(graph, batch, threads))


@pytest.mark.parametrize("kind", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("followers", [("relu",), ("tanh",), ("relu", "channel"), ("sigmoid", "channel", "abs")])
def test_what_follows_comes_before_the_pool(kind, followers, isa):
    nodes, weights, shape = convolution(np.random.default_rng(1), (8, 8), 4, 6)
    weights["k"] = np.linspace(-1, 1, 6).astype(np.float32)
    for follower in followers:
        value, name = nodes[-1].output, f"f{len(nodes)}"
        nodes.append(node(name, "mul", (value, "k")) if follower == "channel" else node(name, follower, (value,)))
    graph = graph_of(shape, [*nodes, node("p", kind, (nodes[-1].output,), **POOL)], weights)
    (step,) = [step for step in outputs(graph, 2) if step.op == "conv"]
    assert step.fused[-1] == kind


def test_the_pool_may_be_a_part_of_a_concatenation():
    nodes, weights, shape = convolution(np.random.default_rng(2), (8, 8), 4, 6)
    nodes += [node("p", "max_pool", ("c",), **POOL), node("q", "avg_pool", ("x",), **POOL)]
    graph = graph_of(shape, [*nodes, node("j", "concat", ("p", "q"), axis=-1)], weights)
    assert is_pooled(outputs(graph, 2))


@pytest.mark.parametrize(
    "pool",
    [
        {**POOL, "window": (3, 3)},
        {**POOL, "strides": (1, 1)},
        {"window": (2, 2), "strides": (2, 2), "dilations": (1, 1), "padding": "same"},
        {**POOL, "window": (2, 1), "strides": (2, 1)},
    ],
)
def test_other_pools_stay(pool):
    nodes, weights, shape = convolution(np.random.default_rng(3), (9, 9), 4, 6)
    graph = graph_of(shape, [*nodes, node("p", "max_pool", ("c",), **pool)], weights)
    assert not is_pooled(outputs(graph, 2))


@pytest.mark.parametrize("others", ["reader", "residual", "gate", "after"])
def test_pools_stay_where_the_convolution_cannot_give_them(others):
    nodes, weights, shape = convolution(np.random.default_rng(4), (8, 8), 6, 6)
    pool = node("p", "max_pool", ("c",), **POOL)
    if others == "reader":
        nodes += [pool, node("r", "reduce_mean", ("c",), axes=(1, 2), keepdims=True), node("y", "add", ("p", "r"))]
    elif others == "residual":
        nodes += [node("a", "add", ("c", "x")), node("p", "max_pool", ("a",), **POOL)]
    elif others == "gate":
        gate = node("r", "reduce_mean", ("x",), axes=(1, 2), keepdims=True)
        nodes = [gate, *nodes, node("a", "mul", ("c", "r")), node("p", "max_pool", ("a",), **POOL)]
    else:
        nodes += [pool, node("y", "tanh", ("p",))]
    assert not is_pooled(outputs(graph_of(shape, nodes, weights), 2))


def test_profiles_know_of_pools():
    nodes, weights, shape = convolution(np.random.default_rng(5), (8, 8), 4, 6)
    model = Model(lower(graph_of(shape, [*nodes, node("p", "max_pool", ("c",), **POOL)], weights)))
    profile = model.profile(np.zeros((1, *shape), np.float32))
    assert [(step.op, step.fused) for step in profile.steps] == [("conv", ("max_pool",))]
    assert profile.steps[0].measured > 0
