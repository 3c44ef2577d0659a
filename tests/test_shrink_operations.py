"""Channels through functions that jump, comparisons and choices: what is not read goes, what is constant there is not known."""

from __future__ import annotations

import numpy as np
import pytest
from random_graphs import RandomGraph
from test_shrink_rules import conv, kernel_of, outcomes, shrunk


def gated(g: RandomGraph, op: str, a: str) -> str:
    """``a`` where it is above, or equals, a function of it that jumps, else that function."""
    jumped = g.node(op, a)
    return g.node("where", g.node("greater", a, jumped), a, g.node("mod", jumped, g.node("exp", a)))


@pytest.mark.parametrize("op", ["floor", "round", "sign"])
def test_channels_that_nobody_reads_go(op: str) -> None:
    g = RandomGraph(np.random.default_rng(0), dead=0.0)
    a = conv(g, g.start((5, 5, 3)), 8)
    end = conv(g, gated(g, op, a), 4)
    g.weights[f"{end}/kernel"][:, :, [1, 4, 6]] = 0
    small, _ = shrunk(g.graph(end))
    assert kernel_of(small, a).shape[-1] == 5
    assert kernel_of(small, end).shape[-2] == 5


def test_constants_stop_where_a_function_jumps() -> None:
    g = RandomGraph(np.random.default_rng(1), dead=0.0)
    a = conv(g, g.start((5, 5, 3)), 8)
    g.weights[f"{a}/kernel"][..., [2, 3]] = 0
    small, decisions = shrunk(g.graph(conv(g, gated(g, "floor", a), 4)))
    assert kernel_of(small, a).shape[-1] == 8
    assert any("jumps" in reason for reason in outcomes(decisions, "refused"))


def test_a_constant_choice_moves_on() -> None:
    g = RandomGraph(np.random.default_rng(2), dead=0.0)
    x = g.start((5, 5, 3))
    a, b = conv(g, x, 8), conv(g, x, 8)
    for name in (a, b):
        g.weights[f"{name}/kernel"][..., [0, 5]] = 0
    g.weights["never"] = np.asarray(False)
    chosen = g.node("where", "never", a, b)
    small, _ = shrunk(g.graph(conv(g, chosen, 4, padding="explicit")))
    assert kernel_of(small, a).shape[-1] == kernel_of(small, b).shape[-1] == 6
