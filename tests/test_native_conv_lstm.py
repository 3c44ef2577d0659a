"""Long short-term memory with convolutions in the native engine: whole graphs against the operators in float64, and Keras."""

from __future__ import annotations

import numpy as np
import pytest
from test_engine import draw

from sparsec.ir import BATCH, Graph, Input, Port, TensorType, symbol
from sparsec.kernels import library
from sparsec.lowering import lower
from sparsec.ops import OPS, make_node
from sparsec.runtime import Model

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")
USUAL = {"activation": "tanh", "recurrent_activation": "sigmoid", "padding": "same"}
SIZES = {1: (9,), 2: (5, 6), 3: (4, 3, 5)}


def graph_of(rank, attrs, *, steps=4, filters=5, density=0.4, mask=False, states=False, bias=True):
    """A graph of one node, all of whose outputs are given."""
    rng = np.random.default_rng(rank)
    attrs = {"strides": (1,) * rank, "dilations": (1,) * rank, **USUAL, **attrs}
    node_inputs = ["x", "k", "b" if bias else "", "u", "m" if mask else ""]
    shapes = {"x": (steps, *SIZES[rank], 3)}
    weights = {
        "k": draw(rng, *(3,) * rank, 3, 4 * filters, density=density),
        "u": draw(rng, *(3,) * (rank - 1), 2, filters, 4 * filters, density=density),
    }
    if bias:
        weights["b"] = draw(rng, 4 * filters, density=1)
    types = {"x": TensorType("float32", (symbol(BATCH), *shapes["x"]))}
    if mask:
        types["m"] = TensorType("bool", (symbol(BATCH), steps))
    node = make_node("conv_lstm", "l", node_inputs, ["y", "h", "c"], **attrs)
    ops = OPS["conv_lstm"]
    inputs = [types.get(name) or (TensorType("float32", weights[name].shape) if name else None) for name in node_inputs]
    if states:
        state = ops.infer(node.attrs, inputs)[1]
        types |= {"s": state, "t": state}
        node = make_node("conv_lstm", "l", [*node_inputs, "s", "t"], ["y", "h", "c"], **attrs)
    entries = tuple(Input(name, type_) for name, type_ in types.items())
    return Graph(entries, tuple(Port(name, name) for name in "yhc"), (node,), weights)


def check(graph, batches=(1, 3)):
    model, (node,) = Model(lower(graph)), graph.nodes
    for batch in batches:
        rng = np.random.default_rng(batch)
        given = {}
        for entry in graph.inputs:
            shape = (batch, *(int(str(dim)) for dim in entry.type.shape[1:]))
            numbers = rng.standard_normal(shape).astype(np.float32)
            given[entry.name] = numbers if entry.type.dtype == "float32" else numbers > -0.3
        values = {name: x if x.dtype == bool else x.astype(np.float64) for name, x in (*given.items(), *graph.weights.items())}
        expected = OPS["conv_lstm"].evaluate(node.attrs, [values[name] if name else None for name in node.inputs])
        for y, exact in zip(model.run(given), expected, strict=True):
            np.testing.assert_allclose(y, exact, rtol=0, atol=1e-5 * max(np.abs(exact).max(), 1))
        assert [step.reason for step in model.plan(batch) if not step.kernel.startswith("native/")] == []
    return model


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("masked", ["", "kept", "zero"])
@pytest.mark.parametrize("states", [False, True])
def test_every_number_of_axes(rank, masked, states):
    check(graph_of(rank, {"zero_masked": masked == "zero"}, mask=bool(masked), states=states))


@pytest.mark.parametrize(
    "attrs",
    [
        {"reverse": True},
        {"strides": (2, 1)},
        {"dilations": (1, 2)},
        {"padding": "explicit", "pads": (0, 0, 0, 0)},
        {"activation": "relu", "recurrent_activation": "hard_sigmoid", "recurrent_alpha": 0.2, "recurrent_beta": 0.5},
        {"activation": "linear", "recurrent_activation": "linear"},
        {"activation": "elu", "alpha": 0.7},
    ],
)
def test_every_attribute(attrs):
    check(graph_of(2, attrs, steps=3))
    check(graph_of(2, attrs, mask=True, steps=3), batches=(2,))


@pytest.mark.parametrize(("steps", "bias", "density"), [(1, True, 1.0), (2, False, 0.1), (30, True, 0.4)])
def test_every_length(steps, bias, density):
    check(graph_of(2, {}, steps=steps, bias=bias, density=density))


def test_every_instruction_set(isa):
    check(graph_of(2, {}, mask=True), batches=(2,))
    check(graph_of(3, {}), batches=(1,))


def test_summaries_say_what_a_node_does_once():
    kernels = [step.kernel for step in check(graph_of(2, {}, steps=20)).plan(1)]
    assert sorted(set(kernels)) == sorted(kernels)
    assert {"native/select", "native/map", "native/copy"} < set(kernels)


def test_what_is_left_to_numpy():
    graph = graph_of(1, {}, steps=300)
    (step,) = Model(lower(graph)).plan(1)
    assert "its sequence has more than 256 steps" in step.reason
    (step,) = Model(lower(graph_of(1, {"activation": "log_softmax"}))).plan(1)
    assert "its activation log_softmax has no native kernel" in step.reason
