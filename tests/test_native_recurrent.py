"""Recurrent operators in the native engine, against the operators in float64, with every instruction set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparsec.engine import choice
from sparsec.ir import ABSENT, BATCH, Graph, Input, Port, TensorType, symbol
from sparsec.kernels import library
from sparsec.lowering import lower
from sparsec.ops import get_op, make_node
from sparsec.ops.recurrent import Recurrent
from sparsec.runtime import Model

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")
many = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

CELLS = {"simple_rnn": [{}], "lstm": [{}], "gru": [{"reset_after": False}, {"reset_after": True}]}
VARIANTS = [(op, attrs) for op, variants in CELLS.items() for attrs in variants]
GATED = {"activation": "tanh", "recurrent_activation": "sigmoid"}
USUAL = {"simple_rnn": {"activation": "tanh"}, "lstm": GATED, "gru": GATED | {"reset_after": True}}
ACTIVATIONS = [
    *(("tanh", 0, 0), ("sigmoid", 0, 0), ("linear", 0, 0), ("relu", 0, 0), ("relu", 0.2, 0), ("hard_sigmoid", 0.2, 0.5)),
    *(("softsign", 0, 0), ("elu", 0.7, 0), ("clip", -0.4, 0.6), ("gelu_tanh", 0, 0)),
]


def sparse(rng, shape, density):
    return np.where(rng.random(shape) < density, rng.standard_normal(shape), 0).astype(np.float32)


def activation(prefix, chosen):
    name, alpha, beta = chosen
    return {f"{prefix}activation": name, f"{prefix}alpha": float(alpha), f"{prefix}beta": float(beta)}


def evaluate(graph, inputs):
    """The outputs in float64; integers and truth values are taken as they are."""
    values = {
        path: np.asarray(weight, np.float64) if weight.dtype.kind == "f" else weight for path, weight in graph.weights.items()
    }
    for entry, x in zip(graph.inputs, inputs, strict=True):
        values[entry.name] = np.asarray(x, np.float64) if x.dtype.kind == "f" else x
    for node in graph.nodes:
        found = [None if name == ABSENT else values[name] for name in node.inputs]
        values.update(zip(node.outputs, get_op(node.op).evaluate(node.attrs, found), strict=True))
    return [values[port.value] for port in graph.outputs]


LAYERS = st.fixed_dictionaries(
    {
        "channels": st.integers(1, 9),
        "units": st.sampled_from([1, 2, 5, 8, 17, 40]),
        "density": st.sampled_from([0.0, 0.1, 0.5, 1.0]),
        "bias": st.booleans(),
        "given_states": st.booleans(),
        "outputs": st.sampled_from([None, [0], [1]]),
    }
)
"""Arguments of ``cell_graph``."""


def cell_graph(rng, op, attrs, steps, channels, units, density=0.3, bias=True, given_states=False, outputs=None):
    """A graph of one cell, whose outputs are all that the operator has, or some; states do not grow without end."""
    found = get_op(op)
    assert isinstance(found, Recurrent)
    states = [f"{name}0" for name in found.state_names] if given_states else []
    made = [f"r.{name}" for name in ("y", *found.state_names)]
    weights = {
        "kernel": sparse(rng, (channels, found.gates * units), 0.5) / np.float32(np.sqrt(channels)),
        "recurrent": sparse(rng, (units, found.gates * units), density) / np.float32(8 * np.sqrt(units)),
        **({"bias": sparse(rng, found.bias_shape(attrs, units), 1)} if bias else {}),
    }
    wanted = ["x", "kernel", "bias" if bias else ABSENT, "recurrent", *((ABSENT, *states) if states else ())]
    node = make_node(op, "r", wanted, made, **attrs)
    inputs = [Input("x", TensorType("float32", (symbol(BATCH), steps, channels)))]
    inputs += [Input(name, TensorType("float32", (symbol(BATCH), units))) for name in states]
    ports = [Port(name, name) for name in (made if outputs is None else [made[index] for index in outputs])]
    return Graph(tuple(inputs), tuple(ports), (node,), weights)


def check(graph, batch, seed=0, tolerance=1e-5, threads=None):
    """Compare, and see that all of it is native; the model."""
    rng = np.random.default_rng(seed)
    shapes = [(batch, *(int(str(dim)) for dim in entry.type.shape[1:])) for entry in graph.inputs]
    inputs = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    model = Model(lower(graph), threads=threads)
    for y, expected in zip(model.run(inputs), evaluate(graph, inputs), strict=True):
        assert y.shape == expected.shape
        # Gates weigh terms of about one, which may cancel.
        np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance * max(np.ptp(expected), np.abs(expected).max(), 0.1))
    kernels = [step.kernel for step in model.plan(batch)]
    assert all(kernel.startswith("native/") for kernel in kernels), kernels
    return model


@pytest.mark.parametrize(("op", "attrs"), VARIANTS)
@many
@given(data=st.data())
def test_cells(op, attrs, isa, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    attrs = attrs | activation("", data.draw(st.sampled_from(ACTIVATIONS))) | {"reverse": data.draw(st.booleans())}
    if op != "simple_rnn":
        attrs |= activation("recurrent_", data.draw(st.sampled_from(ACTIVATIONS[:2])))
    graph = cell_graph(rng, op, attrs, steps=data.draw(st.integers(1, 20)), **data.draw(LAYERS))
    check(graph, data.draw(st.integers(1, 5)))


@pytest.mark.parametrize("samples", [1, 19])
@pytest.mark.parametrize(("op", "attrs"), VARIANTS)
def test_every_candidate_computes_the_same(op, attrs, samples, isa, monkeypatch):
    graph = cell_graph(np.random.default_rng(3), op, USUAL[op] | attrs, 3, 20, 150, density=0.4)
    every, tried = choice.candidates, []

    def untried(step, *rest):
        found = every(step, *rest)
        return [each for each in found if each.label not in tried] if step.kernel == "recurrent" else found

    monkeypatch.setattr(choice, "candidates", untried)
    wanted = {"slices", "vector"} if samples == 1 else {"1x1", "4x1"}
    while not wanted <= {label.split("/")[min(samples, 2)] for label in tried}:
        kernels = [step.kernel for step in check(graph, samples).plan(samples)]
        tried.append(kernels[-1].removeprefix("native/"))


@many
@given(data=st.data())
def test_slices_of_positions(isa, data):
    rank = data.draw(st.sampled_from([3, 4]))
    sizes = [data.draw(st.integers(1, 7)) for _ in range(rank - 2)]
    axis = data.draw(st.integers(1, rank - 2))
    size = sizes[axis - 1]
    step = data.draw(st.sampled_from([1, 2, -1, -3]))
    chosen = range(size)[::step]
    start, stop = (int(chosen[0]), 2**31 - 1) if step > 0 else (-1, -(2**31))
    weights = {"k": sparse(np.random.default_rng(1), (6, 5), 1)}
    nodes = (
        make_node("dense", "d", ["x", "k"], ["d"]),
        make_node("slice", "s", ["d"], ["s"], axis=axis, start=start, stop=stop, step=step),
        make_node("sigmoid", "a", ["s"], ["a"]),
    )
    x = Input("x", TensorType("float32", (symbol(BATCH), *sizes, 6)))
    check(Graph((x,), (Port("y", "a"),), nodes, weights), data.draw(st.integers(1, 3)))


def stacked(rng, op):
    """Two cells that hand on their states, one of them backwards, and elementwise operations between."""
    states = ["h", "c"] if op == "lstm" else ["h"]
    first, second = cell_graph(rng, op, USUAL[op], 6, 8, 16), cell_graph(rng, op, USUAL[op] | {"reverse": True}, 6, 16, 16)
    weights = {f"{i}/{name}": array for i, graph in enumerate((first, second)) for name, array in graph.weights.items()}
    weights["head"] = sparse(rng, (32, 3), 0.5)
    begun, ended = ([f"{name}{i}" for name in states] for i in range(2))
    made = {**USUAL[op], "reverse": False}
    nodes = (
        make_node(op, "0", ["x", "0/kernel", "0/bias", "0/recurrent"], ["y0", *begun], **made),
        make_node("relu", "r", ["y0"], ["r"]),
        make_node(
            op, "1", ["r", "1/kernel", "1/bias", "1/recurrent", ABSENT, *begun], ["y1", *ended], **(made | {"reverse": True})
        ),
        make_node("mul", "m", ["y1", "y0"], ["m"]),
        make_node("slice", "s", ["m"], ["s"], axis=1, start=-1, stop=2**31 - 1),
        make_node("reshape", "f", ["s"], ["f"], shape=(0, 16)),
        make_node("concat", "j", ["f", ended[-1]], ["j"], axis=-1),
        make_node("dense", "d", ["j", "head"], ["d"]),
    )
    x = Input("x", TensorType("float32", (symbol(BATCH), 6, 8)))
    ports = [Port(name, name) for name in ("d", "m", *ended, begun[0])]
    return Graph((x,), tuple(ports), nodes, weights)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("op", CELLS)
def test_cells_hand_on_their_states(op, batch, isa):
    check(stacked(np.random.default_rng(0), op), batch)


@pytest.mark.parametrize("threads", [1, 2])
def test_large_batches_are_run_in_parts(threads):
    graph = cell_graph(np.random.default_rng(1), "gru", USUAL["gru"], 19, 12, 33)
    check(graph, 300, threads=threads)


def test_what_has_no_kernel_runs_as_before():
    rng = np.random.default_rng(2)
    graph = cell_graph(rng, "gru", USUAL["gru"], 5, 4, 6, outputs=[0])
    (node,) = graph.nodes
    graph = replace(graph, nodes=(replace(node, attrs={**node.attrs, "activation": "mish"}),))
    x = rng.standard_normal((2, 5, 4)).astype(np.float32)
    model = Model(lower(graph))
    np.testing.assert_allclose(model.run([x])[0], evaluate(graph, [x])[0], atol=1e-5)
    (step,) = model.plan(2)
    assert not step.kernel.startswith("native/")
    assert "its activation mish has no native kernel" in step.reason


@pytest.mark.parametrize("batch", [1, 3])
def test_candidates_and_steps_can_be_timed(batch):
    rng = np.random.default_rng(4)
    graph = cell_graph(rng, "lstm", USUAL["lstm"], 5, 8, 24, given_states=True)
    inputs = [rng.standard_normal((batch, *shape)).astype(np.float32) for shape in ((5, 8), (24,), (24,))]
    model = Model(lower(graph), tune=True)
    for y, expected in zip(model.run(inputs), evaluate(graph, inputs), strict=True):
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)
    steps = model.profile(inputs).steps
    assert [step.op for step in steps] == ["lstm", "lstm"]
    assert all(step.measured for step in steps)
