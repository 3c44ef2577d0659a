"""Passes: exactness in float64 on random graphs, and each rule on a graph made for it."""

from __future__ import annotations

import numpy as np
import pytest
from random_graphs import RandomGraph, convolutional

from sparsec.ir import Graph
from sparsec.ops import check, evaluate_graph, make_node
from sparsec.passes import optimise
from sparsec.passes.fold import fold
from sparsec.passes.shrink import apply_plan, shrink
from sparsec.passes.simplify import merge_padding, simplify

EXACT = 1e-9


def difference(graph: Graph, other: Graph, seed: int = 0) -> float:
    """The greatest difference of two graphs' outputs over their range, on three random inputs."""
    shape = [int(str(size)) for size in graph.inputs[0].type.shape[1:]]
    x = np.random.default_rng(seed).normal(size=(3, *shape))
    a, b = evaluate_graph(graph, [x]), evaluate_graph(other, [x])
    assert all(np.ptp(y) > 0 for y in a), "outputs that do not vary prove nothing"
    return max(float(np.abs(y - z).max() / np.abs(y).max()) for y, z in zip(a, b, strict=True))


def builder(dead: float = 0.4, seed: int = 0) -> RandomGraph:
    return RandomGraph(np.random.default_rng(seed), dead)


def kept(graph: Graph, name: str) -> int:
    """The output channels left of a linear node."""
    node = next(node for node in graph.nodes if node.name == name)
    return graph.weights[node.inputs[1]].shape[-1]


def random_difference(seed: int) -> float:
    graph, _ = convolutional(seed)
    shape = [int(str(size)) for size in graph.inputs[0].type.shape[1:]]
    x = np.random.default_rng(seed).normal(size=(2, *shape))
    before, after = evaluate_graph(graph, [x]), evaluate_graph(optimise(graph).graph, [x])
    return max(float(np.abs(a - b).max() / max(float(np.abs(a).max()), 1e-9)) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("first", range(0, 120, 20))
def test_random_graphs_keep_their_outputs(first: int) -> None:
    differences = {seed: random_difference(seed) for seed in range(first, first + 20)}
    assert {seed: d for seed, d in differences.items() if d > EXACT} == {}


@pytest.mark.slow
def test_two_thousand_random_graphs_keep_their_outputs() -> None:
    differences = {seed: random_difference(seed) for seed in range(1000, 3000)}
    assert {seed: d for seed, d in differences.items() if d > EXACT} == {}


# --- shrinking -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "softplus", "gelu"])
def test_every_dead_unit_of_a_chain_goes_and_its_constant_moves_on(activation: str) -> None:
    g = builder()
    x = g.start((12,))
    for units in (20, 16, 11):
        x = g.node(activation, g.batch_norm(g.linear(x, units, bias=True)))
    graph = g.graph(g.linear(x, 5, bias=True))
    small, plan, _ = shrink(graph)
    assert difference(graph, small) < EXACT
    hidden = list(g.planted)[:-1]
    for name in hidden:
        assert kept(small, name) <= graph.weights[f"{name}/kernel"].shape[1] - len(g.planted[name])
    assert kept(small, list(g.planted)[-1]) == 5, "outputs of the model stay"
    assert {path for path, edit in plan.edits.items() if edit.delta is not None} >= {
        f"{name}/bias" for name in list(g.planted)[1:]
    }


def test_a_convolution_without_padding_and_a_flattening_dense_absorb_constants() -> None:
    g = builder()
    x = g.start((8, 8, 2))
    x = g.node("softplus", g.conv(x, 9, 3, "explicit", 1, bias=True))
    x = g.node("max_pool", x, window=(2, 2), strides=(2, 2), dilations=(1, 1), padding="explicit", pads=(0, 0, 0, 0))
    x = g.node("softplus", g.conv(x, 8, 2, "explicit", 1, bias=True))
    graph = g.graph(g.linear(g.node("reshape", x, shape=(0, -1)), 4, bias=True))
    small, plan, _ = shrink(graph)
    assert difference(graph, small) < EXACT
    first, second, last = g.planted
    assert kept(small, first) == 9 - len(g.planted[first])
    assert kept(small, second) == 8 - len(g.planted[second])
    assert len(plan.edits[f"{last}/kernel"].kept[0]) == 4 * (8 - len(g.planted[second])), "one row for every position"


def test_behind_zero_padding_one_channel_carries_the_other_constants() -> None:
    for activation, left in (("softplus", 1), ("relu", 0)):
        g = builder()
        x = g.node(activation, g.conv(g.start((6, 6, 2)), 8, 1, "explicit", 1, bias=False))
        graph = g.graph(g.conv(x, 3, 3, "same", 1, bias=True))
        small, _, decisions = shrink(graph)
        assert difference(graph, small) < EXACT
        first = next(iter(g.planted))
        assert kept(small, first) == 8 - len(g.planted[first]) + left
        merged = [d for d in decisions if d.outcome == "merged"]
        assert [d.channels for d in merged] == ([len(g.planted[first]) - 1] if left else [])
        assert any("carries others" in d.reason for d in decisions) == bool(left)


def test_dead_channels_that_are_tied_to_living_ones_stay_with_a_reason() -> None:
    g = builder()
    x = g.linear(g.start((6,)), 8, bias=True)
    (first,) = g.planted
    y = g.linear(x, 8, bias=True)
    second = list(g.planted)[1]
    g.planted[second] = np.arange(0)
    g.weights[f"{second}/kernel"] = np.random.default_rng(1).normal(size=(8, 8))
    graph = g.graph(g.linear(g.node("add", x, y), 3, bias=True))
    _, plan, decisions = shrink(graph)
    assert plan.empty
    reason = f"{len(g.planted[first])} dead channels kept: tied to channels that are not dead"
    assert [(d.layer, d.reason) for d in decisions] == [(first, reason)]


def test_without_a_bias_the_constant_moves_into_the_moving_mean_or_a_new_bias() -> None:
    for with_norm in (True, False):
        g = builder()
        x = g.node("softplus", g.linear(g.start((6,)), 10, bias=True))
        x = g.linear(x, 7, bias=False)
        second = list(g.planted)[1]
        g.planted[second] = np.arange(0)
        g.weights[f"{second}/kernel"] = np.random.default_rng(1).normal(size=(10, 7))
        x = g.batch_norm(x) if with_norm else x
        graph = g.graph(g.linear(g.node("tanh", x), 3, bias=True))
        small, plan, _ = shrink(graph)
        assert difference(graph, small) < EXACT
        assert (f"{second}/kernel" in plan.added_biases) != with_norm
        means = [edit for path, edit in plan.edits.items() if path.endswith("/mean")]
        assert any(edit.delta is not None for edit in means) == with_norm


def test_channels_that_nobody_reads_go() -> None:
    g = builder(dead=0.0)
    x = g.node("tanh", g.linear(g.start((6,)), 10, bias=True))
    graph = g.graph(g.linear(x, 3, bias=True))
    first, last = g.planted
    g.weights[f"{last}/kernel"][[1, 4, 7]] = 0
    small, plan, _ = shrink(g.graph(graph.outputs[0].value))
    assert kept(small, first) == 7
    assert list(plan.edits[f"{first}/kernel"].kept[1]) == [0, 2, 3, 5, 6, 8, 9]
    assert difference(graph, small) < EXACT


def test_unread_channels_free_the_layers_before_them() -> None:
    g = builder(dead=0.0)
    x = g.node("tanh", g.linear(g.start((6,)), 8, bias=True))
    x = g.node("tanh", g.linear(x, 8, bias=True))
    value = g.linear(x, 3, bias=True)
    first, second, last = g.planted
    g.weights[f"{last}/kernel"][2] = 0
    g.weights[f"{second}/kernel"][5, [0, 1, 3, 4, 5, 6, 7]] = 0
    small, _, _ = shrink(g.graph(value))
    assert (kept(small, first), kept(small, second)) == (7, 7), "what fed only an unread channel is unread itself"


def test_a_residual_sum_loses_only_what_is_dead_on_both_sides() -> None:
    g = builder(dead=0.0)
    x = g.start((6,))
    a, b = g.linear(x, 8, bias=True), g.linear(x, 8, bias=True)
    first, second = g.planted
    g.weights[f"{first}/kernel"][:, [0, 1, 2]] = 0
    g.weights[f"{second}/kernel"][:, [1, 2, 3]] = 0
    graph = g.graph(g.linear(g.node("tanh", g.node("add", a, b)), 2, bias=True))
    small, _, _ = shrink(graph)
    assert (kept(small, first), kept(small, second)) == (6, 6)
    assert difference(graph, small) < EXACT


def test_a_layer_called_twice_is_shrunk_once_and_absorbs_only_what_is_equal() -> None:
    g = builder(dead=0.0)
    x = g.start((6,))
    h = g.node("softplus", g.linear(x, 6, bias=True))
    first = next(iter(g.planted))
    g.weights[f"{first}/kernel"][:, [0, 2]] = 0
    shared = g.linear(h, 6, bias=True)
    node = g.nodes[-1]
    g.nodes.append(make_node("dense", "again", [x, *node.inputs[1:]], ["again"], node.layer))
    g.types["again"] = g.types[shared]
    graph = g.graph(g.linear(g.node("add", shared, "again"), 2, bias=True))
    small, _, _ = shrink(graph)
    assert difference(graph, small) < EXACT
    assert kept(small, first) == 6, "the model's input reads the same rows of the shared kernel"


def test_at_least_one_channel_stays() -> None:
    g = builder(dead=1.0)
    x = g.start((6,))
    dead = g.node("tanh", g.linear(x, 8, bias=True))
    g.dead = 0.0
    alive = g.node("tanh", g.linear(x, 4, bias=True))
    graph = g.graph(g.linear(g.node("concat", g.linear(dead, 3, bias=True), alive, axis=-1), 2, bias=True))
    small, _, decisions = shrink(graph)
    check(small, after="the test")
    assert difference(graph, small) < EXACT
    assert min(size for array in small.weights.values() for size in array.shape) == 1
    assert any("at least one channel" in d.reason for d in decisions)


def test_dead_channels_go_through_a_cast() -> None:
    g = builder()
    x = g.node("cast", g.node("softplus", g.linear(g.start((6,)), 9, bias=True)), dtype="float64")
    graph = g.graph(g.linear(x, 3, bias=True))
    small, _, _ = shrink(graph)
    first = next(iter(g.planted))
    assert kept(small, first) == 9 - len(g.planted[first])
    assert difference(graph, small) < EXACT


def test_lifting_reaches_casts() -> None:
    g = builder()
    x = g.node("cast", g.linear(g.start((6,)), 9, bias=True), dtype="float64")
    graph = g.graph(g.linear(x, 3, bias=True))
    assert {str(type_.dtype) for type_ in check(graph.lifted("float32"), after="lifting").values()} == {"float32"}


def test_an_operator_without_a_rule_keeps_its_channels() -> None:
    g = builder()
    x = g.linear(g.start((6,)), 9, bias=True)
    graph = g.graph(g.linear(g.node("layer_norm", x, axes=(-1,), epsilon=1e-3), 3, bias=True))
    small, plan, decisions = shrink(graph)
    assert plan.empty
    assert small is graph
    assert any("layer_norm needs all channels" in d.reason for d in decisions)


def test_the_plan_alone_reproduces_the_shrunk_weights() -> None:
    graph, _ = convolutional(7)
    small, plan, _ = shrink(graph)
    again = apply_plan(graph, plan)
    assert again.weights.keys() == small.weights.keys()
    assert all(np.array_equal(again.weights[path], array) for path, array in small.weights.items())


# --- folding ---------------------------------------------------------------------------------------------------------


def operators(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


@pytest.mark.parametrize("bias", [True, False])
def test_batch_normalisation_folds_into_the_layer_before_it(bias: bool) -> None:
    for build in (
        lambda g: g.linear(g.start((6,)), 5, bias=bias),
        lambda g: g.conv(g.start((6, 6, 2)), 5, 3, "same", 1, bias=bias),
        lambda g: g.depthwise(g.start((6, 6, 2)), "same"),
    ):
        g = builder(dead=0.0)
        graph = g.graph(g.node("tanh", g.batch_norm(build(g))))
        folded, decisions = fold(graph)
        assert "batch_norm" not in operators(folded)
        assert "affine" not in operators(folded)
        assert difference(graph, folded) < EXACT
        assert [d.outcome for d in decisions] == ["folded"]


def test_batch_normalisation_folds_forward_where_no_padding_stands_between() -> None:
    for padding, stays in (("explicit", False), ("same", True)):
        g = builder(dead=0.0)
        x = g.batch_norm(g.node("tanh", g.conv(g.start((8, 8, 2)), 4, 3, "same", 1, bias=True)))
        graph = g.graph(g.conv(x, 3, 3, padding, 1, bias=False))
        folded, decisions = fold(graph)
        assert ("affine" in operators(folded)) == stays
        assert difference(graph, folded) < EXACT
        assert [d.outcome for d in decisions] == ["refused" if stays else "folded"]


def test_batch_normalisation_folds_forward_into_grouped_and_depthwise_convolutions() -> None:
    rng = np.random.default_rng(5)
    for groups in (2, None):
        g = builder(dead=0.0)
        x = g.batch_norm(g.node("tanh", g.conv(g.start((7, 7, 2)), 4, 3, "same", 1, bias=True)))
        if groups is None:
            x = g.depthwise(x, "explicit")
        else:
            kernel = g.weight("grouped/kernel", rng.normal(size=(3, 3, 4 // groups, 6)))
            attrs = {"strides": (1, 1), "dilations": (1, 1), "padding": "explicit", "pads": (0,) * 4, "groups": groups}
            x = g.node("conv", x, kernel, **attrs)
        graph = g.graph(x)
        folded, _ = fold(graph)
        assert "affine" not in operators(folded)
        assert difference(graph, folded) < EXACT


def test_batch_normalisation_stays_where_it_cannot_fold_and_says_why() -> None:
    g = builder(dead=0.0)
    x = g.linear(g.start((6,)), 5, bias=True)
    graph = g.graph(g.node("add", g.node("tanh", g.batch_norm(x)), x))
    folded, (decision,) = fold(graph)
    assert operators(folded) == ["dense", "affine", "tanh", "add"]
    assert difference(graph, folded) < EXACT
    assert "other readers" in decision.reason
    assert "feeds tanh" in decision.reason


# --- simplification --------------------------------------------------------------------------------------------------


def test_transposes_around_channels_first_layers_cancel() -> None:
    g = builder(dead=0.0)
    x = g.start((3, 8, 8))

    def channels_first(value: str, filters: int) -> str:
        inner = g.node("transpose", value, permutation=(0, 2, 3, 1))
        return g.node("transpose", g.conv(inner, filters, 3, "same", 1, bias=True), permutation=(0, 3, 1, 2))

    a = g.node("relu", channels_first(x, 4))
    b = g.node("tanh", channels_first(a, 4))
    x = g.node("concat", g.node("add", a, b), b, axis=1)
    graph = g.graph(channels_first(x, 2))
    simple = simplify(graph)
    assert operators(simple).count("transpose") == 2
    assert difference(graph, simple) == 0


def test_same_padding_becomes_explicit_and_pads_merge_into_convolutions() -> None:
    g = builder(dead=0.0)
    x = g.conv(g.start((9, 9, 2)), 3, 3, "same", 2, bias=True)
    x = g.conv(g.node("pad", x, pads=(1, 0, 2, 1)), 3, 3, "explicit", 1, bias=True)
    graph = g.graph(x)
    simple = merge_padding(simplify(graph))
    assert operators(simple) == ["conv", "conv"]
    assert [node.attrs["pads"] for node in simple.nodes] == [(1, 1, 1, 1), (1, 0, 2, 1)]
    assert difference(graph, simple) < EXACT


def test_what_does_nothing_goes_and_weights_fold() -> None:
    g = builder(dead=0.0)
    x = g.linear(g.start((6,)), 4, bias=True)
    g.linear("x", 9, bias=True)
    scaled = g.node("mul", g.weight("a", np.full(4, 2.0)), g.weight("b", np.full(4, 3.0)))
    x = g.node("reshape", g.node("tile", g.node("mul", x, scaled), repeats=(1, 1)), shape=(0, 4))
    graph = g.graph(x)
    simple = simplify(graph)
    assert operators(simple) == ["dense", "mul"]
    assert "dense_1/kernel" not in simple.weights
    assert difference(graph, simple) == 0
