"""The recurrent operators: their definition, their kernels, ONNX, shrinking, and writing back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from keras_models import fill, keras_outputs, random_inputs

from sparsec.backends.keras import shrink as shrink_model
from sparsec.backends.keras import write_keras
from sparsec.backends.onnx import OPSETS, to_model
from sparsec.frontends import read
from sparsec.ir import BATCH, Array, Graph, Input, Port, TensorType, symbol
from sparsec.kernels import KERNELS, NATIVE, TENSOR, RecurrentTask, Task, WeightStore, bind_recurrent, library
from sparsec.kernels.recurrent import RecurrentChoice
from sparsec.kernels.table import Choice
from sparsec.lowering import lower
from sparsec.ops import check, evaluate_graph, get_op, make_node
from sparsec.ops.activations import CELL_ACTIVATIONS
from sparsec.ops.recurrent import Recurrent
from sparsec.passes import optimise
from sparsec.passes.report import Decision
from sparsec.passes.shrink import shrink
from sparsec.passes.simplify import simplify
from sparsec.program import Program
from sparsec.runtime import Model

N = symbol(BATCH)
GATES = {"simple_rnn": 1, "gru": 3, "lstm": 4}
STATES = {"simple_rnn": ("h",), "gru": ("h",), "lstm": ("h", "c")}
STEPS, CHANNELS, UNITS = 5, 6, 8


def recurrent_graph(
    op: str,
    zeros: float = 0.0,
    mask: bool = False,
    states: bool = False,
    bias: bool = True,
    dtype: str = "float32",
    seed: int = 0,
    **attrs: Any,
) -> Graph:
    """One recurrent operator; its sequence and its last states are outputs."""
    rng, width = np.random.default_rng(seed), GATES[op] * UNITS
    if op != "simple_rnn":
        attrs = {"recurrent_activation": "sigmoid", **attrs}
    if op == "gru":
        attrs = {"reset_after": True, **attrs}
    attrs = {"activation": "tanh", **attrs}
    weights = {
        "l/kernel": rng.normal(size=(CHANNELS, width)) * (rng.random((CHANNELS, width)) >= zeros),
        "l/recurrent": rng.normal(size=(UNITS, width)) * 0.5 * (rng.random((UNITS, width)) >= zeros),
    }
    if bias:
        weights["l/bias"] = rng.normal(size=(2, width) if attrs.get("reset_after") else width)
    inputs = [Input("x", TensorType(dtype, (N, STEPS, CHANNELS)))]
    names = ["x", "l/kernel", "l/bias" if bias else "", "l/recurrent"]
    if mask or states:
        names.append("m" if mask else "")
        inputs += [Input("m", TensorType("bool", (N, STEPS)))] if mask else []
    if states:
        names += STATES[op]
        inputs += [Input(state, TensorType(dtype, (N, UNITS))) for state in STATES[op]]
    outputs = ["y", *(f"y/{state}" for state in STATES[op])]
    node = make_node(op, "l", names, outputs, "l", **attrs)
    stored = {path: array.astype(dtype) for path, array in weights.items()}
    graph = Graph(tuple(inputs), tuple(Port(f"out_{value}", value) for value in outputs), (node,), stored)
    check(graph, "the test")
    return graph


def arrays(graph: Graph, batch: int = 3, seed: int = 1) -> list[Array]:
    rng = np.random.default_rng(seed)
    found = []
    for entry in graph.inputs:
        values = rng.normal(size=(batch, *entry.type.shape[1:]))
        found.append(values > 0 if entry.type.dtype == "bool" else values.astype(entry.type.dtype))
    return found


def close(found: Sequence[Array], wanted: Sequence[Array], tolerance: float) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


# --- definition --------------------------------------------------------------------------------------------------------


def test_masks_hold_the_state_and_repeat_the_output() -> None:
    graph = recurrent_graph("lstm", mask=True, states=True)
    x, _, h, c = arrays(graph, batch=2)
    mask = np.array([[False, True, False, True, False], [False] * 5])
    sequence, last_h, last_c = evaluate_graph(graph, [x, mask, h, c])
    assert not sequence[0, 0].any()
    assert np.array_equal(sequence[0, 1], sequence[0, 2])
    assert np.array_equal(sequence[0, 3], sequence[0, 4])
    assert np.array_equal(sequence[0, 4], last_h[0])
    assert not sequence[1].any()
    assert np.array_equal(last_h[1], h[1])
    assert np.array_equal(last_c[1], c[1])
    # The steps that count are those of the shorter sequence.
    short = Graph(
        (Input("x", TensorType("float32", (N, 2, CHANNELS))), *graph.inputs[1:]), graph.outputs, graph.nodes, graph.weights
    )
    kept, *states = evaluate_graph(short, [x[:1, [1, 3]], np.ones((1, 2), bool), h[:1], c[:1]])
    np.testing.assert_allclose(kept[0], sequence[0, [1, 3]], rtol=1e-6)
    np.testing.assert_allclose(states[1][0], last_c[0], rtol=1e-6)


@pytest.mark.parametrize("op", GATES)
def test_backwards_is_forwards_on_the_reversed_sequence(op: str) -> None:
    forward, backward = recurrent_graph(op, mask=True), recurrent_graph(op, mask=True, reverse=True)
    x, mask = arrays(forward)
    one, other = evaluate_graph(forward, [x[:, ::-1], mask[:, ::-1]]), evaluate_graph(backward, [x, mask])
    assert np.array_equal(one[0][:, ::-1], other[0])
    assert all(np.array_equal(a, b) for a, b in zip(one[1:], other[1:], strict=True))


# --- kernels and runtime -----------------------------------------------------------------------------------------------

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "masked": {"mask": True},
    "zero masked": {"mask": True, "zero_masked": True, "reverse": True},
    "states": {"states": True, "reverse": True},
    "masked states": {"mask": True, "states": True},
    "no bias": {"bias": False},
    "float64": {"dtype": "float64"},
    "other activations": {"activation": "relu", "alpha": 0.1},
}


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("zeros", [0.0, 0.9])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("op", GATES)
def test_runtime_equals_reference(op: str, variant: str, zeros: float, batch: int) -> None:
    graph = recurrent_graph(op, zeros, **VARIANTS[variant])
    inputs = arrays(graph, batch)
    tolerance = 1e-12 if VARIANTS[variant].get("dtype") else 1e-5
    model = Model(lower(graph))
    close(model.run(inputs), evaluate_graph(graph, inputs), tolerance)
    # Nothing is left behind by a run.
    close(model.run(inputs), evaluate_graph(graph, inputs), tolerance)


def test_gru_that_resets_before() -> None:
    for bias, zeros in product((True, False), (0.0, 0.9)):
        graph = recurrent_graph(
            "gru",
            zeros,
            bias=bias,
            reset_after=False,
            recurrent_activation="hard_sigmoid",
            recurrent_alpha=0.2,
            recurrent_beta=0.5,
        )
        inputs = arrays(graph)
        close(Model(lower(graph)).run(inputs), evaluate_graph(graph, inputs), 1e-5)


BOUNDED = {"clip", "hard_sigmoid", "sigmoid", "softmax", "softsign", "sparsemax", "tanh"}


def activated_graph(op: str, name: str, **attrs: Any) -> Graph:
    """An operator with one activation everywhere; gates that are not bounded would leave every range."""
    if op != "simple_rnn" and name in BOUNDED:
        attrs = {**attrs, "recurrent_activation": name, "recurrent_alpha": 0.3, "recurrent_beta": 0.6}
    graph = recurrent_graph(op, activation=name, alpha=0.3, beta=0.6, **attrs)
    small = 0.2 if name in ("exp", "log_softmax") else 1.0
    return replace(graph, weights={path: (small * array).astype(array.dtype) for path, array in graph.weights.items()})


@pytest.mark.parametrize("name", CELL_ACTIVATIONS)
def test_activations(name: str) -> None:
    for op in ("simple_rnn", "lstm"):
        graph = activated_graph(op, name)
        inputs = arrays(graph)
        close(Model(lower(graph)).run(inputs), evaluate_graph(graph, inputs), 1e-5)


HERE = [kernel for kernel in KERNELS if NATIVE not in kernel.needs or library.status().library]
DENSE_KERNELS = [kernel for kernel in HERE if kernel.op == "dense"]


@pytest.mark.parametrize("kernels", product(DENSE_KERNELS, DENSE_KERNELS), ids=lambda pair: "-".join(k.name for k in pair))
@pytest.mark.parametrize(("op", "reset_after"), [("simple_rnn", None), ("lstm", None), ("gru", True), ("gru", False)])
def test_every_pair_of_kernels(op: str, reset_after: bool | None, kernels: tuple[Any, Any]) -> None:
    graph = recurrent_graph(op, zeros=0.7, **({} if reset_after is None else {"reset_after": reset_after}))
    (node,), inputs = graph.nodes, arrays(graph)
    program = lower(graph)
    assert isinstance(program, Program)
    store, width = WeightStore(program.tensors), GATES[op] * UNITS

    def task(path: str, x: tuple[int, ...]) -> Task:
        return Task("dense", {}, x, (*x[:-1], width), "float32", store.weight(path), store.nonzeros(path))

    whole = RecurrentTask(op, node.attrs, task("l/kernel", (3, STEPS, CHANNELS)), task("l/recurrent", (3, UNITS)), STEPS)
    choice = RecurrentChoice(*(Choice(kernel, 0.0, "") for kernel in kernels), STEPS)
    bound = bind_recurrent(
        whole,
        choice,
        lambda part, chosen: store.packed(part.weight.path, chosen.kernel.packing, {}),
        store.packed("l/bias", TENSOR, {}),
    )
    states: list[Array | None] = [None] * len(STATES[op])
    close(bound(inputs[0], None, states), evaluate_graph(graph, inputs), 1e-5)


def test_sparse_weights_run_sparse_where_that_is_cheaper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few samples and many zeros: the product of each step is sparse; the weights are stored sparse too."""
    monkeypatch.setenv(library.VARIABLE, library.OFF)
    rng, units = np.random.default_rng(0), 512
    weights = {"l/kernel": rng.normal(size=(64, 4 * units)), "l/recurrent": rng.normal(size=(units, 4 * units))}
    for array in weights.values():
        array[rng.random(array.shape) < 0.98] = 0.0
    node = make_node(
        "lstm",
        "l",
        ["x", "l/kernel", "", "l/recurrent"],
        ["y", "h", "c"],
        "l",
        activation="tanh",
        recurrent_activation="sigmoid",
    )
    x = Input("x", TensorType("float32", (N, 10, 64)))
    graph = Graph((x,), (Port("y", "y"),), (node,), {path: array.astype("float32") for path, array in weights.items()})
    program = lower(graph)
    assert {program.tensors[path].positions for path in weights} & {"csr", "gaps", "bitmap", "coo"}
    model = Model(program)
    inputs = arrays(graph, 1)
    close(model.run(inputs), evaluate_graph(graph, inputs), 1e-5)
    assert re.search(r"dense/(csr|slices) a step", model.summary())


# --- ONNX --------------------------------------------------------------------------------------------------------------


def in_onnx_runtime(graph: Graph, inputs: Sequence[Array], **options: Any) -> tuple[list[Array], list[str]]:
    """What ONNX Runtime computes, and the types of the nodes."""
    model = to_model(graph, **options)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.SessionOptions()
    session.log_severity_level = 3
    running = onnxruntime.InferenceSession(model.SerializeToString(), session, providers=["CPUExecutionProvider"])
    feeds = {entry.name: x for entry, x in zip(graph.inputs, inputs, strict=True)}
    return running.run(None, feeds), [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("op", GATES)
def test_onnx(op: str, variant: str) -> None:
    graph = recurrent_graph(op, **VARIANTS[variant])
    inputs = arrays(graph)
    found, ops = in_onnx_runtime(graph, inputs)
    close(found, evaluate_graph(graph, inputs), 1e-5)
    native = not {"mask", "dtype"} & VARIANTS[variant].keys()
    assert ({"simple_rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}[op] in ops) == native
    assert ("Scan" in ops) != native


@pytest.mark.parametrize("opset", OPSETS)
def test_onnx_opsets(opset: int) -> None:
    for graph in (
        recurrent_graph("lstm", states=True),
        recurrent_graph("gru", mask=True),
        recurrent_graph("gru", reset_after=False),
    ):
        inputs = arrays(graph)
        found, _ = in_onnx_runtime(graph, inputs, opset=opset)
        close(found, evaluate_graph(graph, inputs), 1e-5)


@pytest.mark.parametrize("name", CELL_ACTIVATIONS)
def test_onnx_activations(name: str) -> None:
    """Both of them, and in a GRU that resets before, whose candidate has a product of its own."""
    for op, reset in (("simple_rnn", {}), ("lstm", {}), ("gru", {"reset_after": False})):
        graph = activated_graph(op, name, **reset)
        inputs = arrays(graph)
        found, _ = in_onnx_runtime(graph, inputs)
        close(found, evaluate_graph(graph, inputs), 2e-5)


def test_onnx_writes_only_the_outputs_that_are_read() -> None:
    graph = recurrent_graph("lstm")
    last = Graph(graph.inputs, graph.outputs[1:2], graph.nodes, graph.weights)
    model = to_model(last)
    (node,) = [node for node in model.graph.node if node.op_type == "LSTM"]
    assert [bool(name) for name in node.output] == [False, True]


def conv_lstm_graph(rank: int, masked: bool, reverse: bool) -> Graph:
    rng, units = np.random.default_rng(0), 3
    window, sizes = (3, 2, 2)[:rank], (6, 5, 4)[:rank]
    weights = {
        "l/kernel": rng.normal(size=(*window, 2, 4 * units)),
        "l/bias": rng.normal(size=4 * units),
        "l/recurrent": rng.normal(size=(*window, units, 4 * units)) * 0.4,
    }
    names = ["x", "l/kernel", "l/bias", "l/recurrent", *(["m"] if masked else [])]
    node = make_node(
        "conv_lstm",
        "l",
        names,
        ["y", "h", "c"],
        "l",
        activation="tanh",
        recurrent_activation="hard_sigmoid",
        recurrent_alpha=0.2,
        recurrent_beta=0.5,
        strides=(2,) * rank,
        dilations=(1,) * rank,
        padding="same",
        reverse=reverse,
    )
    inputs = [Input("x", TensorType("float32", (N, 4, *sizes, 2)))]
    inputs += [Input("m", TensorType("bool", (N, 4)))] if masked else []
    ports = tuple(Port(f"out_{value}", value) for value in ("y", "h", "c"))
    return Graph(tuple(inputs), ports, (node,), {path: array.astype("float32") for path, array in weights.items()})


@pytest.mark.parametrize(("masked", "reverse"), [(False, False), (True, True)])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_lstm(rank: int, masked: bool, reverse: bool) -> None:
    graph = conv_lstm_graph(rank, masked, reverse)
    inputs = arrays(graph)
    wanted = evaluate_graph(graph, inputs)
    close(Model(lower(graph)).run(inputs), wanted, 1e-6)
    for layout in ("nhwc", "nchw"):
        found, _ = in_onnx_runtime(
            graph, [np.moveaxis(x, -1, 1) if layout == "nchw" and x.ndim > 2 else x for x in inputs], layout=layout
        )
        close([np.moveaxis(y, 1, -1) if layout == "nchw" else y for y in found], wanted, 1e-5)


def test_products_of_every_operator_cover_its_gates() -> None:
    for name in (*GATES, "conv_lstm"):
        op = get_op(name)
        assert isinstance(op, Recurrent)
        for reset_after in (True, False):
            parts = op.products({"reset_after": reset_after})
            assert [gate for first, stop in parts for gate in range(first, stop)] == list(range(op.gates))


# --- shrinking ---------------------------------------------------------------------------------------------------------


class Net:
    """Builds a network of recurrent and dense layers, some of whose units are dead."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: dict[str, Array] = {}

    def dense(self, x: str, channels: int, units: int, dead: Sequence[int] = (), activation: str = "relu") -> str:
        name = f"d{len(self.nodes)}"
        kernel, bias = self.rng.normal(size=(channels, units)), self.rng.normal(size=units)
        kernel[:, list(dead)] = 0
        self.weights |= {f"{name}/kernel": kernel, f"{name}/bias": bias}
        self.nodes.append(make_node("dense", name, [x, f"{name}/kernel", f"{name}/bias"], [f"{name}/z"], name))
        self.nodes.append(make_node(activation, f"{name}/{activation}", [f"{name}/z"], [name], name))
        return name

    def recurrent(
        self,
        op: str,
        x: str,
        channels: int,
        dead: Sequence[int] = (),
        unread: Sequence[int] = (),
        further: Sequence[str] = (),
        bias: bool = True,
        **attrs: Any,
    ) -> list[str]:
        """``dead`` units have no weights in any gate and no bias, ``unread`` ones move no other unit."""
        name, width = f"r{len(self.nodes)}", GATES[op] * UNITS
        kernel, recurrent = self.rng.normal(size=(channels, width)), self.rng.normal(size=(UNITS, width)) * 0.5
        added = self.rng.normal(size=(2, width) if attrs.get("reset_after") else width)
        for gate in range(GATES[op]):
            columns = [gate * UNITS + unit for unit in dead]
            kernel[:, columns], recurrent[:, columns], added[..., columns] = 0, 0, 0
            for unit in unread:
                others = [gate * UNITS + other for other in range(UNITS) if other not in unread]
                recurrent[unit, others] = 0
        self.weights |= {f"{name}/kernel": kernel, f"{name}/recurrent": recurrent, **({f"{name}/bias": added} if bias else {})}
        activations = (
            {"activation": "tanh"} if op == "simple_rnn" else {"activation": "tanh", "recurrent_activation": "sigmoid"}
        )
        inputs = [x, f"{name}/kernel", f"{name}/bias" if bias else "", f"{name}/recurrent", *further]
        outputs = [name, *(f"{name}/{state}" for state in STATES[op])]
        self.nodes.append(make_node(op, name, inputs, outputs, name, **{**activations, **attrs}))
        return outputs

    def graph(self, *outputs: str, mask: bool = False) -> Graph:
        inputs = [Input("x", TensorType("float64", (N, STEPS, CHANNELS)))]
        inputs += [Input("m", TensorType("bool", (N, STEPS)))] if mask else []
        ports = tuple(Port(f"out_{value}", value) for value in outputs)
        graph = Graph(tuple(inputs), ports, tuple(self.nodes), self.weights)
        check(graph, "the test")
        return graph


def proven(graph: Graph) -> tuple[Graph, list[Decision]]:
    """The shrunk graph, which computes the same in float64 and is as small as it gets."""
    small, _, decisions = shrink(graph)
    check(small, "the test")
    inputs = arrays(graph)
    for wanted, found in zip(evaluate_graph(graph, inputs), evaluate_graph(small, inputs), strict=True):
        assert np.ptp(wanted) > 0
        assert np.abs(wanted - found).max() <= 1e-9 * np.abs(wanted).max()
    assert shrink(small)[1].empty
    return small, decisions


def units_of(graph: Graph, name: str) -> int:
    return graph.weights[f"{name}/recurrent"].shape[0]


RESETS = [("simple_rnn", {}), ("lstm", {}), ("gru", {"reset_after": True}), ("gru", {"reset_after": False})]


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize(("op", "attrs"), RESETS)
def test_dead_units_go(op: str, attrs: dict[str, Any], mask: bool) -> None:
    net = Net()
    first, *_ = net.recurrent(op, "x", CHANNELS, dead=(1, 4, 5), further=["m"] if mask else [], **attrs)
    second, *_ = net.recurrent(op, first, UNITS, dead=(0,), reverse=True, **attrs)
    small, _ = proven(net.graph(net.dense(second, UNITS, 3), mask=mask))
    assert units_of(small, first) == UNITS - 3
    assert small.weights[f"{second}/kernel"].shape == (UNITS - 3, GATES[op] * (UNITS - 1))
    assert small.weights[f"{second}/bias"].shape[-1] == GATES[op] * (UNITS - 1)


@pytest.mark.parametrize(("op", "attrs"), RESETS)
def test_units_that_nobody_reads_go(op: str, attrs: dict[str, Any]) -> None:
    """Unit 2 moves only unit 6, which moves nobody, and whose output nobody reads; unit 3 moves others."""
    net = Net()
    first, *_ = net.recurrent(op, "x", CHANNELS, unread=(2, 6), **attrs)
    head = net.dense(first, UNITS, 3)
    net.weights[f"{head}/kernel"][[2, 3, 6]] = 0
    small, _ = proven(net.graph(head))
    assert units_of(small, first) == UNITS - 2


@pytest.mark.parametrize(("op", "attrs"), RESETS)
def test_constant_inputs_move_into_the_bias(op: str, attrs: dict[str, Any]) -> None:
    for bias in (True, False):
        net = Net()
        x = net.dense("x", CHANNELS, 5, dead=(0, 3))
        first, *_ = net.recurrent(op, x, 5, bias=bias, **attrs)
        small, _ = proven(net.graph(net.dense(first, UNITS, 2)))
        assert small.weights[f"{first}/kernel"].shape[0] == 3
        if not bias:
            (node,) = [node for node in small.nodes if node.op == op]
            assert small.weights[node.inputs[2]].shape == ((2, 3 * UNITS) if attrs.get("reset_after") else (GATES[op] * UNITS,))


def test_units_with_a_bias_of_their_own_stay() -> None:
    """What they put out does not depend on the input, but changes from step to step."""
    net = Net()
    first, *_ = net.recurrent("lstm", "x", CHANNELS, dead=(1, 4))
    net.weights[f"{first}/bias"][2 * UNITS + 1] = 0.5
    small, _ = proven(net.graph(net.dense(first, UNITS, 3)))
    assert units_of(small, first) == UNITS - 1


def test_units_that_a_moving_unit_moves_stay() -> None:
    net = Net()
    first, *_ = net.recurrent("gru", "x", CHANNELS, dead=(1, 4), reset_after=True)
    net.weights[f"{first}/recurrent"][0, 2 * UNITS + 1] = 0.5
    small, _ = proven(net.graph(net.dense(first, UNITS, 3)))
    assert units_of(small, first) == UNITS - 1


def test_a_bias_that_the_reset_gate_multiplies_keeps_a_unit() -> None:
    net = Net()
    first, *_ = net.recurrent("gru", "x", CHANNELS, dead=(1, 4), reset_after=True)
    net.weights[f"{first}/bias"][1, 2 * UNITS + 4] = 0.5
    small, _ = proven(net.graph(net.dense(first, UNITS, 3)))
    assert units_of(small, first) == UNITS - 1


@pytest.mark.parametrize("constant", [0.0, 0.7])
def test_initial_states_go_along_if_they_are_zero(constant: float) -> None:
    net = Net()
    last = "x/last"
    net.nodes.append(make_node("reduce_mean", last, ["x"], [last], axes=(1,)))
    states = [net.dense(last, CHANNELS, UNITS, dead=(1, 4)) for _ in range(2)]
    for state in states:
        net.weights[f"{state}/bias"][[1, 4]] = constant
    first, *_ = net.recurrent("lstm", "x", CHANNELS, dead=(1, 4), further=["", *states])
    small, _ = proven(net.graph(net.dense(first, UNITS, 3)))
    assert units_of(small, first) == UNITS - (2 if constant == 0 else 0)


def test_states_that_leave_the_model_keep_their_units() -> None:
    net = Net()
    first, h, _ = net.recurrent("lstm", "x", CHANNELS, dead=(1, 4))
    small, _ = proven(net.graph(net.dense(first, UNITS, 3), h))
    assert units_of(small, first) == UNITS


def test_softmax_along_the_units_keeps_them() -> None:
    net = Net()
    first, *_ = net.recurrent("lstm", "x", CHANNELS, dead=(1, 4), activation="softmax")
    small, _ = proven(net.graph(net.dense(first, UNITS, 3)))
    assert units_of(small, first) == UNITS


def test_batch_normalization_behind_takes_no_constant() -> None:
    """What a constant input adds goes through the gates: the moving mean cannot make it good."""
    net = Net()
    x = net.dense("x", CHANNELS, 5, dead=(0, 3))
    first, *_ = net.recurrent("simple_rnn", x, 5, bias=False)
    statistics = [f"n/{name}" for name in ("gamma", "beta", "mean", "variance")]
    net.weights |= {path: net.rng.uniform(0.5, 1.5, UNITS) for path in statistics}
    net.nodes.append(make_node("batch_norm", "n", [first, *statistics], ["n"], "n", axis=-1, epsilon=1e-3))
    small, _ = proven(net.graph(net.dense("n", UNITS, 2)))
    assert small.weights[f"{first}/kernel"].shape[0] == 3


@pytest.mark.parametrize("seed", range(12))
def test_random_networks_shrink_exactly(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def some() -> list[int]:
        return list(np.flatnonzero(rng.random(UNITS) < 0.35)[: UNITS - 2])

    net, mask = Net(seed), seed % 2 == 1
    x, channels = net.dense("x", CHANNELS, 6, dead=[1, 4]), 6
    total = ""
    for _ in range(3):
        op, attrs = RESETS[rng.integers(len(RESETS))]
        further = ["m"] if mask and rng.random() < 0.5 else []
        x, *_states = net.recurrent(
            op,
            x,
            channels,
            dead=some(),
            unread=some(),
            further=further,
            reverse=bool(rng.random() < 0.5),
            bias=bool(rng.random() < 0.7),
            **attrs,
        )
        if total and rng.random() < 0.7:
            net.nodes.append(make_node("add", f"s{len(net.nodes)}", [x, total], [f"s{len(net.nodes)}"]))
            x = net.nodes[-1].outputs[0]
        total, channels = x, UNITS
    head = net.dense(x, UNITS, 3, activation="tanh")
    net.weights[f"{head}/kernel"][some()] = 0
    graph = net.graph(head, mask=mask)
    small, _ = proven(graph)
    inputs = arrays(graph)
    close(evaluate_graph(optimise(small).graph, inputs), evaluate_graph(graph, inputs), 1e-9)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_filters_of_conv_lstm_go(padding: str) -> None:
    rng, filters = np.random.default_rng(0), 6
    window = {"strides": (1,), "dilations": (1,)}
    placing = {"padding": "same"} if padding == "same" else {"padding": "explicit", "pads": (0, 0)}
    weights = {
        "d/kernel": rng.normal(size=(2, 5)),
        "d/bias": rng.normal(size=5),
        "l/kernel": rng.normal(size=(3, 5, 4 * filters)),
        "l/bias": rng.normal(size=4 * filters),
        "l/recurrent": rng.normal(size=(3, filters, 4 * filters)) * 0.4,
        "o/kernel": rng.normal(size=(filters, 2)),
    }
    weights["d/kernel"][:, 3] = 0
    for gate in range(4):
        columns = [gate * filters + unit for unit in (0, 2)]
        for path in ("l/kernel", "l/bias", "l/recurrent"):
            weights[path][..., columns] = 0
    nodes = (
        make_node("dense", "d", ["x", "d/kernel", "d/bias"], ["d"], "d"),
        make_node(
            "conv_lstm",
            "l",
            ["d", "l/kernel", "l/bias", "l/recurrent"],
            ["l", "h", "c"],
            "l",
            activation="tanh",
            recurrent_activation="sigmoid",
            **window,
            **placing,
        ),
        make_node("dense", "o", ["l", "o/kernel"], ["o"], "o"),
    )
    x = Input("x", TensorType("float64", (N, STEPS, 7, 2)))
    small, _ = proven(Graph((x,), (Port("y", "o"),), nodes, weights))
    assert small.weights["l/recurrent"].shape == (3, filters - 2, 4 * (filters - 2))
    # Behind zero padding a constant is no bias, and there is no other channel that could carry it.
    assert small.weights["l/kernel"].shape[1] == (5 if padding == "same" else 4)


# --- writing back ------------------------------------------------------------------------------------------------------


def written_back(model: Any, folder: Path, suffix: str, **whole: str) -> Any:
    """The model that Keras loads from what is written of a pruned one's file, where layers stay whole for these reasons."""
    import keras

    source, out = folder / f"before{suffix}", folder / f"after{suffix}"
    model.save(source)
    facts = write_keras(source, shrink(simplify(read(source).graph))[1], out)
    assert facts.whole.keys() == whole.keys()
    assert all(reason in facts.whole[layer] for layer, reason in whole.items())
    return keras.models.load_model(out)


def kill(model: Any, layer: str, units: Sequence[int], gates: int, prefix: str = "") -> None:
    """Zero everything that belongs to some units of a layer's cell."""
    for weight in model.get_layer(layer).weights:
        name = weight.path.rpartition("/")[2]
        if prefix in weight.path and name in ("kernel", "recurrent_kernel", "bias"):
            values = np.array(weight)
            count = values.shape[-1] // gates
            values[..., [gate * count + unit for gate in range(gates) for unit in units]] = 0
            weight.assign(values)


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


def test_recurrent_layers_are_written_back(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    x = keras.Input((STEPS, CHANNELS))
    y = layers.LSTM(6, return_sequences=True, name="lstm")(x)
    y = layers.Bidirectional(layers.GRU(5, return_sequences=True), name="both")(y)
    y = layers.TimeDistributed(layers.Dense(4, activation="relu"), name="each")(y)
    cells = [layers.LSTMCell(4, name="one"), layers.GRUCell(5, name="two", reset_after=False)]
    y = layers.RNN(cells, return_sequences=True, name="stack")(y)
    y = layers.RNN(layers.GRUCell(4), return_sequences=True, name="single")(y)
    y = layers.SimpleRNN(4, name="simple", go_backwards=True)(y)
    model = keras.Model(x, layers.Dense(3)(y))
    fill(model)
    kill(model, "lstm", [1, 4], 4)
    kill(model, "both", [0], 3, "forward")
    kill(model, "both", [3], 3, "backward")
    kill(model, "each", [1, 2], 1)
    kill(model, "stack", [3], 4, "one")
    kill(model, "stack", [0, 4], 3, "two")
    kill(model, "single", [2], 3)
    kill(model, "simple", [2], 1)
    batches = random_inputs(model)
    wanted = keras_outputs(model, batches)
    small = shrink_model(model)
    for after in (written_back(model, tmp_path, ".keras"), written_back(model, tmp_path, ".h5"), small):
        close(keras_outputs(after, batches), wanted, 1e-5)
        assert after.count_params() == small.count_params() < model.count_params()
        assert after.get_layer("lstm").units == 4
        assert after.get_layer("both").forward_layer.units == 4
        assert after.get_layer("both").backward_layer.units == 4
        assert after.get_layer("each").layer.units == 2
        assert [cell.units for cell in after.get_layer("stack").cell.cells] == [3, 3]
        assert after.get_layer("single").cell.units == 3
        assert after.get_layer("simple").units == 3


def test_filters_of_conv_lstm_are_written_back(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    x = keras.Input((STEPS, 6, 6, 2))
    y = layers.ConvLSTM2D(5, 3, padding="same", return_sequences=True, name="first")(x)
    y = layers.TimeDistributed(layers.Conv2D(4, 2, activation="relu"), name="each")(y)
    y = layers.ConvLSTM2D(4, 2, name="last")(y)
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))
    fill(model)
    kill(model, "first", [0, 3], 4)
    kill(model, "each", [1], 1)
    kill(model, "last", [2], 4)
    batches = random_inputs(model)
    wanted = keras_outputs(model, batches)
    for after in (written_back(model, tmp_path, ".keras"), written_back(model, tmp_path, ".h5"), shrink_model(model)):
        close(keras_outputs(after, batches), wanted, 1e-5)
        assert (after.get_layer("first").filters, after.get_layer("last").filters) == (3, 3)
        assert after.get_layer("each").layer.filters == 3


def test_a_model_for_each_step_is_written_back(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    image = keras.Input((6, 6, 2))
    inner = keras.Model(image, layers.Dense(4, name="top")(layers.Flatten()(layers.Conv2D(5, 3, name="conv")(image))))
    x = keras.Input((STEPS, 6, 6, 2))
    model = keras.Model(x, layers.LSTM(3)(layers.TimeDistributed(inner, name="each")(x)))
    fill(model)
    conv = model.get_layer("each").layer.get_layer("conv")
    kernel, bias = conv.get_weights()
    kernel[..., [1, 3]] = 0
    conv.set_weights([kernel, bias])
    batches = random_inputs(model)
    wanted = keras_outputs(model, batches)
    for after in (written_back(model, tmp_path, ".keras"), written_back(model, tmp_path, ".h5"), shrink_model(model)):
        close(keras_outputs(after, batches), wanted, 1e-5)
        assert after.get_layer("each").layer.get_layer("conv").filters == 3


def test_constants_move_into_the_bias_of_a_recurrent_layer(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    x = keras.Input((STEPS, CHANNELS))
    y = layers.Dense(6, activation="relu", name="dense")(x)
    model = keras.Model(x, layers.Dense(2, name="out")(layers.Bidirectional(layers.GRU(4), merge_mode="ave")(y)))
    fill(model)
    kernel, bias = model.get_layer("dense").get_weights()
    kernel[:, [0, 2]], bias[[0, 2]] = 0, [0.7, 0.4]
    model.get_layer("dense").set_weights([kernel, bias])
    batches = random_inputs(model)
    after = written_back(model, tmp_path, ".keras")
    close(keras_outputs(after, batches), keras_outputs(model, batches), 1e-5)
    assert after.get_layer("dense").units == 4


def test_directions_of_unequal_widths_stay_whole(keras: Any, tmp_path: Path) -> None:
    """Keras would take the output for twice as wide as the forward layer's."""
    layers = keras.layers
    x = keras.Input((STEPS, CHANNELS))
    model = keras.Model(x, layers.Dense(2)(layers.Bidirectional(layers.LSTM(4), name="both")(x)))
    fill(model)
    kill(model, "both", [1], 4, "forward")
    batches = random_inputs(model)
    after = written_back(model, tmp_path, ".keras", both="its directions would have 3 and 4 units")
    close(keras_outputs(after, batches), keras_outputs(model, batches), 1e-5)
    assert after.count_params() == model.count_params()


def test_a_cell_that_would_need_a_bias_stays_whole(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    x = keras.Input((STEPS, CHANNELS))
    y = layers.Dense(6, activation="relu", name="dense")(x)
    model = keras.Model(x, layers.Dense(2)(layers.LSTM(4, use_bias=False, name="lstm")(y)))
    fill(model)
    kernel, bias = model.get_layer("dense").get_weights()
    kernel[:, [0, 2]], bias[[0, 2]] = 0, [0.7, 0.4]
    model.get_layer("dense").set_weights([kernel, bias])
    batches = random_inputs(model)
    after = written_back(model, tmp_path, ".keras", lstm="a cell would need a bias that it has not")
    close(keras_outputs(after, batches), keras_outputs(model, batches), 1e-5)
    assert after.get_layer("dense").units == 6


@pytest.mark.slow
@pytest.mark.parametrize("way", ["native", "numpy"])
@pytest.mark.parametrize("op", ["lstm", "gru"])
def test_errors_stay_small_over_two_hundred_steps(op: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sparse products round otherwise than dense ones; the state carries that on from step to step."""
    if way == "numpy":
        monkeypatch.setenv(library.VARIABLE, library.OFF)
    elif not library.status().isas:
        pytest.skip("the native library was not built")
    rng, units, steps = np.random.default_rng(0), 1024, 200
    weights = {
        f"l/{name}": rng.normal(size=(rows, GATES[op] * units)) / np.sqrt(rows * 0.1)
        for name, rows in (("kernel", 64), ("recurrent", units))
    }
    for array in weights.values():
        array[rng.random(array.shape) < 0.9] = 0.0
    attrs = {"activation": "tanh", "recurrent_activation": "sigmoid", **({"reset_after": True} if op == "gru" else {})}
    node = make_node(op, "l", ["x", "l/kernel", "", "l/recurrent"], ["y", *STATES[op]], "l", **attrs)
    x = Input("x", TensorType("float32", (N, steps, 64)))
    graph = Graph((x,), (Port("y", "y"),), (node,), {path: array.astype("float32") for path, array in weights.items()})
    model, inputs = Model(lower(graph)), arrays(graph, 1)
    kernel = "native/recurrent" if way == "native" else "dense/(csr|slices) a step"
    assert re.search(kernel, model.summary())
    (sparse,), (dense,), (exact,) = (
        model.run(inputs),
        evaluate_graph(graph, inputs),
        evaluate_graph(graph, inputs, dtype="float64"),
    )
    for wanted in (dense, exact):
        assert np.abs(sparse - wanted).max() <= 1e-4 * np.ptp(exact)
