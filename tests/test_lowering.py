"""Lowering: every weight once, with the matrix view of its reader, decoding to the bits that went in."""

from __future__ import annotations

import numpy as np
import pytest

from sparsec.encodings import ENCODINGS, LEVELS, decode
from sparsec.errors import GraphError, InputError
from sparsec.ir import Graph, Input, Port, TensorType, symbol
from sparsec.lowering import lower, matrix_rows
from sparsec.ops import evaluate_graph, make_node


def conv_graph(sparsity=0.7):
    rng = np.random.default_rng(0)

    def kernel(*shape):
        array = rng.standard_normal(shape).astype(np.float32)
        array[rng.random(shape) < sparsity] = 0
        return array

    weights = {
        "conv/kernel": kernel(3, 3, 4, 32),
        "conv/bias": kernel(32),
        "depthwise/kernel": kernel(3, 3, 32, 2),
        "up/kernel": kernel(2, 2, 8, 64),
        "head/kernel": kernel(8, 5),
        "unread": kernel(7),
    }
    window = {"strides": (1, 1), "padding": "same", "dilations": (1, 1)}
    nodes = (
        make_node("conv", "conv", ["x", "conv/kernel", "conv/bias"], ["conv"], **window),
        make_node("depthwise_conv", "depthwise", ["conv", "depthwise/kernel"], ["depthwise"], **window),
        make_node(
            "conv_transpose", "up", ["depthwise", "up/kernel"], ["up"],
            strides=(2, 2), crops=(0, 0, 0, 0), dilations=(1, 1),
        ),
        make_node("dense", "head", ["up", "head/kernel"], ["head"]),
        make_node("dense", "again", ["up", "head/kernel"], ["again"]),
    )  # fmt: skip
    x = Input("x", TensorType("float32", (symbol("N"), 6, 6, 4)))
    return Graph((x,), (Port("a", "head"), Port("b", "again")), nodes, weights, "conv")


def test_rows_are_the_output_channels_of_the_first_reader():
    assert matrix_rows(conv_graph()) == {
        "conv/kernel": (3,),
        "depthwise/kernel": (2, 3),
        "up/kernel": (2,),
        "head/kernel": (1,),
    }
    shapes = {path: stored.matrix_shape for path, stored in lower(conv_graph()).tensors.items()}
    assert shapes == {
        "conv/kernel": (32, 36),
        "conv/bias": (1, 32),
        "depthwise/kernel": (64, 9),
        "up/kernel": (8, 256),
        "head/kernel": (5, 8),
    }


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_program_holds_the_graph_to_the_bit(level, encoding):
    graph = conv_graph()
    program = lower(graph, level, encoding)
    lifted = program.graph()
    assert lifted.weights.keys() == graph.weights.keys() - {"unread"}
    for path, array in lifted.weights.items():
        assert array.dtype == graph.weights[path].dtype
        assert array.tobytes() == graph.weights[path].tobytes()
    assert (lifted.inputs, lifted.outputs, lifted.nodes, lifted.name) == (
        graph.inputs,
        graph.outputs,
        graph.nodes,
        graph.name,
    )
    x = np.random.default_rng(1).standard_normal((2, 6, 6, 4)).astype(np.float32)
    for a, b in zip(evaluate_graph(graph, [x]), evaluate_graph(lifted, [x]), strict=True):
        assert np.array_equal(a, b)
    if encoding != "auto":
        matrices = {path: stored.positions for path, stored in program.tensors.items() if path != "conv/bias"}
        assert set(matrices.values()) == {encoding}


def test_a_request_leaves_vectors_alone():
    graph = conv_graph(sparsity=0.0)
    assert lower(graph, "stored", "coo").tensors["conv/bias"].positions == "dense"


def test_notes_and_progress_cover_every_weight():
    calls = []
    program = lower(conv_graph(), "plain", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 5) for i in range(1, 6)]
    assert program.notes.keys() == program.tensors.keys()
    for path, note in program.notes.items():
        stored = program.tensors[path]
        assert note.encoding == stored.encoding
        assert note.dense_bytes == decode(stored).nbytes
        assert note.zeros == np.count_nonzero(decode(stored) == 0)
        assert note.candidates[note.encoding] == note.bytes
        assert note.reason


def test_lowering_is_deterministic():
    first, second = lower(conv_graph()), lower(conv_graph())
    for path, stored in first.tensors.items():
        other = second.tensors[path]
        assert stored.encoding == other.encoding
        assert all(np.array_equal(part, other.arrays[name]) for name, part in stored.arrays.items())


def test_skeleton_has_the_types_and_takes_no_memory():
    program = lower(conv_graph())
    for path, array in program.skeleton().weights.items():
        assert array.shape == program.tensors[path].shape
        assert array.dtype == program.tensors[path].dtype
        assert not any(array.strides)


def test_wrong_requests_and_graphs_are_refused():
    with pytest.raises(InputError, match="level"):
        lower(conv_graph(), "nonsense")
    with pytest.raises(InputError, match="encoding"):
        lower(conv_graph(), "plain", "nonsense")
    graph = conv_graph()
    with pytest.raises(GraphError, match="before lowering"):
        lower(Graph(graph.inputs, (Port("a", "missing"),), graph.nodes, graph.weights))
