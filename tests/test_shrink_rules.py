"""The rules of shrinking one by one, each proven in float64 on a graph made for it."""

from __future__ import annotations

import numpy as np
import pytest
from random_graphs import RandomGraph

from sparsec.ir import BATCH, Graph, Input, TensorType, symbol
from sparsec.ops import check, evaluate_graph, make_node
from sparsec.passes import optimise
from sparsec.passes.report import Decision
from sparsec.passes.shrink import shrink

EXACT = 1e-9

ONCE = {"strides": (1, 1), "dilations": (1, 1)}
POOL = {"window": (3, 3), "strides": (2, 2), "dilations": (1, 1), "padding": "explicit", "pads": (0, 0, 0, 0)}


def builder(dead: float = 0.4, seed: int = 0) -> RandomGraph:
    return RandomGraph(np.random.default_rng(seed), dead)


def conv(g: RandomGraph, x: str, filters: int, window: int = 3, padding: str = "same", groups: int = 1) -> str:
    """A convolution with a bias; some of its filters are zero."""
    pads = () if padding == "same" else (0,) * 4
    return g.linear(x, filters, True, window=(window, window), **ONCE, padding=padding, pads=pads, groups=groups)


def kernel_of(graph: Graph, name: str) -> np.ndarray:
    node = next(node for node in graph.nodes if node.name == name)
    return graph.weights[node.inputs[1]]


def proven(graph: Graph, small: Graph) -> None:
    """Check that two graphs compute the same in float64, and that outputs vary."""
    check(small, after="the test")
    shape = [9 if not isinstance(size, int) else size for size in graph.inputs[0].type.shape[1:]]
    x = np.random.default_rng(3).normal(size=(3, *shape))
    for a, b in zip(evaluate_graph(graph, [x]), evaluate_graph(small, [x]), strict=True):
        assert np.ptp(a) > 0
        assert np.abs(a - b).max() <= EXACT * np.abs(a).max()


def shrunk(graph: Graph, multiple: int | None = 1) -> tuple[Graph, list[Decision]]:
    small, _, decisions = shrink(graph, multiple)
    proven(graph, small)
    again, plan, _ = shrink(small, multiple)
    assert plan.empty, "what is shrunk is as small as it gets"
    proven(graph, optimise(again).graph)
    return small, decisions


def outcomes(decisions: list[Decision], outcome: str) -> list[str]:
    return [decision.reason for decision in decisions if decision.outcome == outcome]


def alive(g: RandomGraph, name: str) -> int:
    """The filters of a convolution that were not zeroed."""
    return g.weights[f"{name}/kernel"].shape[-1] - len(g.planted[name])


# --- templates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("open_sizes", [False, True])
def test_padding_and_then_a_maximum_keeps_constants_that_are_not_negative(open_sizes: bool) -> None:
    g = builder()
    x = g.node("softplus", conv(g, g.start((9, 9, 2)), 10, 1))
    x = g.node("max_pool", g.node("pad", x, pads=(1, 1, 1, 1)), **POOL)
    graph = g.graph(conv(g, x, 3, 1, "explicit"))
    if open_sizes:
        open_type = TensorType("float64", (symbol(BATCH), symbol("h"), symbol("w"), 2))
        graph = Graph((Input("x", open_type),), graph.outputs, graph.nodes, graph.weights)
    small, _ = shrunk(graph)
    first = next(iter(g.planted))
    assert kernel_of(small, first).shape[-1] == alive(g, first)


def test_negative_constants_have_a_template_of_their_own_after_a_maximum() -> None:
    g = builder()
    x = conv(g, g.start((9, 9, 2)), 10, 1)
    x = g.node("max_pool", g.node("pad", x, pads=(1, 1, 1, 1)), **POOL)
    graph = g.graph(conv(g, x, 3, 1, "explicit"))
    small, decisions = shrunk(graph)
    first = next(iter(g.planted))
    assert (g.weights[f"{first}/bias"][g.planted[first]] < 0).sum() > 1
    assert kernel_of(small, first).shape[-1] == alive(g, first) + 1
    assert outcomes(decisions, "merged")


@pytest.mark.parametrize("end", ["flatten", "reduce_mean", "reduce_max", "avg_pool"])
def test_a_bordered_constant_is_absorbed_where_positions_end(end: str) -> None:
    g = builder()
    x = g.node("softplus", conv(g, g.start((6, 6, 2)), 10, 1))
    x = g.node("pad", x, pads=(1, 0, 2, 1))
    if end == "avg_pool":
        x = g.node("avg_pool", x, **POOL)
    x = g.node("reshape", x, shape=(0, -1)) if end in ("flatten", "avg_pool") else g.node(end, x, axes=(1, 2))
    graph = g.graph(g.linear(x, 4, True))
    small, _ = shrunk(graph)
    first = next(iter(g.planted))
    assert kernel_of(small, first).shape[-1] == alive(g, first)


def test_bordered_constants_are_carried_through_activations_and_scaling_without_shift() -> None:
    g = builder()
    x = g.node("pad", g.node("softplus", conv(g, g.start((6, 6, 2)), 10, 1)), pads=(1, 1, 1, 1))
    x = g.node("affine", g.node("tanh", x), g.weight("scale", g.rng.uniform(0.5, 2, 10)))
    graph = g.graph(conv(g, x, 3, 3, "explicit"))
    small, decisions = shrunk(graph)
    first = next(iter(g.planted))
    assert kernel_of(small, first).shape[-1] == alive(g, first) + 1
    assert outcomes(decisions, "merged")


def test_different_borders_are_not_carried_by_each_other() -> None:
    g = builder()
    x = g.node("softplus", conv(g, g.start((6, 6, 2)), 10, 1))
    bordered = g.node("pad", x, pads=(1, 1, 1, 1))
    other = g.node("softplus", conv(g, bordered, 6, 1))
    graph = g.graph(conv(g, g.node("concat", bordered, other, axis=-1), 3, 3, "same"))
    small, _ = shrunk(graph)
    first, second, _ = g.planted
    assert kernel_of(small, first).shape[-1] == alive(g, first) + 1
    assert kernel_of(small, second).shape[-1] == alive(g, second) + 1


# --- representatives -------------------------------------------------------------------------------------------------


def test_one_channel_carries_for_every_reader_of_a_value() -> None:
    g = builder()
    x = g.node("softplus", conv(g, g.start((6, 6, 2)), 10, 1))
    graph = g.graph(g.node("add", conv(g, x, 4, 3), conv(g, x, 4, 5)))
    small, _ = shrunk(graph)
    first = next(iter(g.planted))
    assert kernel_of(small, first).shape[-1] == alive(g, first) + 1


def test_a_carrier_is_nonzero_wherever_it_carries_and_more_than_one_stays_if_need_be() -> None:
    g = builder(dead=0.0)
    x = conv(g, g.start((6, 6, 2)), 8, 1)
    (first,) = g.planted
    g.weights[f"{first}/kernel"][..., :6] = 0
    g.weights[f"{first}/bias"][:6] = [3.0, -4.0, 2.0, -1.0, 0.0, 0.5]
    shifted = g.node("add", x, g.weight("shift", np.array([-9.0, 9.0, -9.0, 9.0, 2.0, -9.0, 0.0, 0.0])))
    graph = g.graph(g.node("add", conv(g, g.node("relu", x), 3, 3), conv(g, g.node("relu", shifted), 3, 3)))
    small, _ = shrunk(graph)
    # Left of the activation channel 0 is the greatest, right of it zero.
    assert kernel_of(small, first).shape[-1] == 4


def test_a_living_channel_with_a_constant_carries_too() -> None:
    g = builder(dead=0.0)
    x = g.start((6, 6, 2))
    y = conv(g, x, 6, 1)
    first = next(iter(g.planted))
    g.weights[f"{first}/kernel"][..., [1, 4]] = 0
    z = conv(g, x, 6, 1)
    second = list(g.planted)[1]
    g.weights[f"{second}/kernel"][..., 4] = 0
    a = conv(g, g.node("softplus", y), 3, 3)
    b = conv(g, g.node("add", y, z), 3, 1, "explicit")
    graph = g.graph(g.node("add", a, b))
    small, _ = shrunk(graph)
    # Channel 1 lives in the sum, and is constant before it: it carries channel 4, which is dead in both.
    assert kernel_of(small, first).shape[-1] == 5


def test_layers_called_twice_carry_only_what_is_alike_at_every_call() -> None:
    def graph_with(second_activation: str) -> tuple[RandomGraph, Graph]:
        g = builder(dead=0.0)
        x = conv(g, g.start((6, 6, 2)), 6, 1)
        (first,) = g.planted
        g.weights[f"{first}/kernel"][..., [0, 2, 3]] = 0
        g.weights[f"{first}/bias"][[0, 2, 3]] = [0.3, 0.9, 0.6]
        shared = conv(g, g.node("relu", x), 3, 3)
        node = g.nodes[-1]
        other = g.node(second_activation, x)
        again = make_node("conv", "again", [other, *node.inputs[1:]], ["again"], node.layer, **node.attrs)
        g.nodes.append(again)
        g.types["again"] = g.types[shared]
        return g, g.graph(g.node("tanh", g.node("add", shared, "again")))

    for activation, left in (("relu", 4), ("tanh", 6)):
        g, graph = graph_with(activation)
        small, decisions = shrunk(graph)
        assert kernel_of(small, next(iter(g.planted))).shape[-1] == left
        assert any("several times" in reason for reason in outcomes(decisions, "refused")) == (left == 6)


def test_a_zero_padded_depthwise_convolution_lets_a_channel_go_only_with_its_filter() -> None:
    for filters_too in (False, True):
        g = builder(dead=0.0)
        x = g.node("softplus", conv(g, g.start((6, 6, 2)), 8, 1))
        first = next(iter(g.planted))
        g.weights[f"{first}/kernel"][..., [1, 5, 6]] = 0
        y = g.depthwise(x, "same")
        if filters_too:
            g.weights[f"{y}/kernel"][:, :, [1, 5, 6]] = 0
        graph = g.graph(conv(g, g.node("softplus", y), 3, 1, "explicit"))
        small, decisions = shrunk(graph)
        assert kernel_of(small, first).shape[-1] == (5 if filters_too else 8)
        assert any("border of its own" in reason for reason in outcomes(decisions, "refused")) == (not filters_too)


# --- groups ----------------------------------------------------------------------------------------------------------


def grouped(
    dead_in: list[int], dead_out: list[int], activation: str = "relu", padding: str = "same"
) -> tuple[RandomGraph, Graph]:
    """Twelve channels into a convolution of four groups with eight filters, and on."""
    g = builder(dead=0.0)
    x = g.node(activation, conv(g, g.start((6, 6, 2)), 12, 1))
    first = next(iter(g.planted))
    g.weights[f"{first}/kernel"][..., dead_in] = 0
    g.weights[f"{first}/bias"][dead_in] = g.rng.uniform(0.5, 1.0, len(dead_in))
    y = conv(g, x, 8, 3, padding, groups=4)
    g.weights[f"{y}/kernel"][..., dead_out] = 0
    return g, g.graph(conv(g, g.node("softplus", y), 3, 1, "explicit"))


def test_groups_stay_equally_large() -> None:
    g, graph = grouped([0, 3, 6, 9, 10], [1, 2, 5, 6], padding="explicit")
    small, decisions = shrunk(graph)
    first, second, _ = g.planted
    assert kernel_of(small, first).shape[-1] == 8
    assert kernel_of(small, second).shape == (3, 3, 2, 4)
    assert any("equally large" in reason for reason in outcomes(decisions, "refused"))


def test_groups_without_channels_go_as_a_whole() -> None:
    g, graph = grouped([3, 4, 5, 9, 10], [2, 3, 6, 7])
    small, _ = shrunk(graph)
    first, second, _ = g.planted
    node = next(node for node in small.nodes if node.name == second)
    assert node.attrs["groups"] == 2
    assert kernel_of(small, second).shape == (3, 3, 3, 4)
    assert kernel_of(small, first).shape[-1] == 6


def test_each_group_has_a_carrier_of_its_own() -> None:
    g, graph = grouped([0, 1, 3, 4, 6, 7, 9, 10], [])
    small, decisions = shrunk(graph)
    first, second, _ = g.planted
    assert kernel_of(small, first).shape[-1] == 8
    assert kernel_of(small, second).shape == (3, 3, 2, 8)
    assert sum(d.channels or 0 for d in decisions if d.outcome == "merged") == 4


def test_a_grouped_layer_called_twice_ties_its_calls() -> None:
    g, graph = grouped([0, 3, 6, 9], [], padding="same")
    second = list(g.planted)[1]
    node = next(node for node in g.nodes if node.name == second)
    again = make_node("conv", "again", [g.node("tanh", node.inputs[0]), *node.inputs[1:]], ["again"], node.layer, **node.attrs)
    g.nodes.append(again)
    g.types["again"] = g.types[second]
    graph = g.graph(g.node("add", second, "again"))
    shrunk(graph)


# --- reshapes, products, widths --------------------------------------------------------------------------------------


def test_units_that_become_positions_go_together() -> None:
    g = builder(dead=0.0)
    x = g.linear(g.start((5,)), 4 * 4 * 6, True)
    (first,) = g.planted
    dead = np.zeros((16, 6), bool)
    dead[:, [1, 4]] = True
    dead[:7, 2] = True
    g.weights[f"{first}/kernel"][:, dead.reshape(-1)] = 0
    g.weights[f"{first}/bias"][dead.reshape(-1)] = -1.0
    x = g.node("reshape", g.node("relu", x), shape=(0, 4, 4, 6))
    graph = g.graph(conv(g, x, 3, 3))
    small, decisions = shrunk(graph)
    assert kernel_of(small, first).shape == (5, 4 * 4 * 4)
    assert any("a reshape joins" in reason for reason in outcomes(decisions, "refused"))


def test_zero_times_anything_is_zero_and_the_gate_over_it_is_not_read() -> None:
    g = builder(dead=0.0)
    x = g.start((6, 6, 3))
    y = conv(g, x, 8, 3)
    first = next(iter(g.planted))
    g.weights[f"{first}/kernel"][..., [0, 5]] = 0
    g.weights[f"{first}/bias"][[0, 5]] = 0
    gate = g.node("sigmoid", g.linear(g.node("reduce_mean", x, axes=(1, 2)), 8, True))
    second = list(g.planted)[1]
    product = g.node("mul", y, g.node("reshape", gate, shape=(0, 1, 1, 8)))
    spatial = g.node("sigmoid", conv(g, x, 1, 3))
    graph = g.graph(conv(g, g.node("mul", product, spatial), 3, 3))
    small, _ = shrunk(graph)
    assert kernel_of(small, first).shape[-1] == 6
    assert kernel_of(small, second).shape[-1] == 6


def test_a_gate_refuses_a_nonzero_constant_and_says_so() -> None:
    g = builder(dead=0.0)
    x = g.start((6, 6, 3))
    y = conv(g, x, 8, 3)
    first = next(iter(g.planted))
    g.weights[f"{first}/kernel"][..., [0, 5]] = 0
    gate = g.node("sigmoid", g.linear(g.node("reduce_mean", x, axes=(1, 2)), 8, True))
    graph = g.graph(conv(g, g.node("mul", y, g.node("reshape", gate, shape=(0, 1, 1, 8))), 3, 1, "explicit"))
    small, decisions = shrunk(graph)
    assert kernel_of(small, first).shape[-1] == 8
    assert "2 dead channels kept: a gate that depends on the input multiplies it" in outcomes(decisions, "refused")


@pytest.mark.parametrize(("multiple", "widths"), [(1, (9, 7)), (4, (12, 8)), (8, (16, 8)), (32, (9, 7))])
def test_widths_are_rounded_up_where_the_layer_has_that_many(multiple: int, widths: tuple[int, int]) -> None:
    g = builder(dead=0.0)
    x = g.node("relu", conv(g, g.start((6, 6, 2)), 20, 1))
    y = g.node("add", conv(g, x, 16, 3), conv(g, x, 16, 1))
    first, second, third = g.planted
    for name, count in ((first, 11), (second, 9), (third, 9)):
        g.weights[f"{name}/kernel"][..., :count] = 0
        g.weights[f"{name}/bias"][:count] = 0
    small, decisions = shrunk(g.graph(conv(g, g.node("relu", y), 3, 3)), multiple)
    assert (kernel_of(small, first).shape[-1], kernel_of(small, second).shape[-1]) == widths
    assert kernel_of(small, third).shape[-1] == widths[1]
    rounded = f"widths are rounded up to a multiple of {multiple}"
    assert any(rounded in reason for reason in outcomes(decisions, "refused")) == (widths != (9, 7))


@pytest.mark.parametrize(
    ("width", "dead", "with_depthwise", "left"),
    [
        (48, 11, True, 40),  # 37 are alive
        (48, 11, False, 37),
        (12, 2, True, 12),  # 16 are more than there are, and a multiple of 4 fits
        (18, 1, True, 17),  # no multiple fits
        (12, 7, True, 5),  # narrow ones stay as they are
    ],
)
def test_widths_are_rounded_by_themselves_where_there_is_a_depthwise_convolution(
    width: int, dead: int, with_depthwise: bool, left: int
) -> None:
    g = builder(dead=0.0)
    x = g.node("relu", conv(g, g.start((6, 6, 8)), width, 1))
    (first,) = g.planted
    g.weights[f"{first}/kernel"][..., :dead] = 0
    g.weights[f"{first}/bias"][:dead] = 0
    x = g.node("relu", conv(g, x, 8, 3))
    if with_depthwise:
        x = g.depthwise(x, "same")
    small, decisions = shrunk(g.graph(conv(g, x, 3, 3)), None)
    assert kernel_of(small, first).shape[-1] == left
    assert any("widths are rounded up" in reason for reason in outcomes(decisions, "refused")) == (left != width - dead)
