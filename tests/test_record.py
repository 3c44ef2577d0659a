"""The record of a compilation: multiply-accumulates, and what became of channels, wherever they are shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import sparsec
from sparsec.bundle import BundleMeta, read_bundle, write_bundle
from sparsec.inspection import inspect
from sparsec.ir import BATCH, Graph, Input, Port, TensorType, symbol
from sparsec.layers import layer_facts
from sparsec.ops import infer_types, make_node, node_macs
from sparsec.passes import Decision
from sparsec.pruning import prune_file
from sparsec.record import Channels, Cost, outcomes, recorded

FROZEN = Path(__file__).parent / "frozen" / "keras-3.15.1"
SQUARE = {"strides": (1, 1), "padding": "explicit", "pads": (0, 0, 0, 0), "dilations": (1, 1)}
SAME = {**SQUARE, "padding": "same", "pads": ()}


def one_node(op, shape, kernel, layer="", **attrs):
    """A graph of one linear operator; the batch is open, and so is every ``None``."""
    dims = tuple(symbol(f"s{i}") if size is None else size for i, size in enumerate(shape))
    node = make_node(op, op, ["x", "kernel"], ["y"], layer, **attrs)
    source = Input("x", TensorType("float32", (symbol(BATCH), *dims)))
    return Graph((source,), (Port("y", "y"),), (node,), {"kernel": np.ones(kernel, np.float32)})


def macs_of(graph):
    types = infer_types(graph)
    return sum(node_macs(node, types) for node in graph.nodes)


@pytest.mark.parametrize(
    ("graph", "macs"),
    [
        (one_node("dense", (5,), (5, 3)), 15),
        (one_node("dense", (7, 5), (5, 3)), 7 * 15),
        (one_node("conv", (6, 6, 4), (3, 3, 4, 8), groups=1, **SQUARE), 4 * 4 * 8 * 36),
        (one_node("conv", (6, 6, 4), (3, 3, 2, 8), groups=2, **SQUARE), 4 * 4 * 8 * 18),
        (one_node("conv", (6, 6, 4), (3, 3, 4, 8), groups=1, **{**SAME, "strides": (2, 2)}), 3 * 3 * 8 * 36),
        (one_node("depthwise_conv", (6, 6, 4), (3, 3, 4, 2), **SQUARE), 4 * 4 * 8 * 9),
        (
            one_node("conv_transpose", (3, 4), (2, 8, 4), strides=(2,), crops=(0, 0), dilations=(1,)),
            3 * 4 * 2 * 8,
        ),
    ],
)
def test_multiply_accumulates_are_the_products_that_go_into_sums(graph, macs):
    assert macs_of(graph) == macs
    assert [layer.macs for layer in layer_facts(graph)] == [macs]


def test_multiply_accumulates_of_products_of_computed_values():
    sources = tuple(Input(name, TensorType("float32", (symbol(BATCH), size, 6))) for name, size in (("q", 5), ("k", 7)))
    attention = make_node("attention", "a", ["q", "k", "k"], ["y"], heads=2, kv_heads=2, scale=1.0)
    assert macs_of(Graph(sources, (Port("y", "y"),), (attention,), {})) == 2 * 5 * 7 * 6
    transpose = make_node("transpose", "t", ["k"], ["t"], permutation=(0, 2, 1))
    nodes = (transpose, make_node("matmul", "m", ["q", "t"], ["y"]))
    assert macs_of(Graph(sources, (Port("y", "y"),), nodes, {})) == 5 * 6 * 7


def test_multiply_accumulates_of_recurrence():
    weights = {"kernel": np.ones((3, 16), np.float32), "recurrent": np.ones((4, 16), np.float32)}
    options = {"activation": "tanh", "recurrent_activation": "sigmoid"}
    node = make_node("lstm", "lstm", ["x", "kernel", "", "recurrent"], ["y", "h", "c"], **options)
    source = Input("x", TensorType("float32", (symbol(BATCH), 7, 3)))
    assert macs_of(Graph((source,), (Port("y", "y"),), (node,), weights)) == 7 * (3 + 4) * 16


def test_multiply_accumulates_that_depend_on_open_sizes_are_not_known():
    graph = one_node("conv", (None, 6, 4), (1, 1, 4, 8), groups=1, **SQUARE)
    (layer,) = layer_facts(graph)
    assert layer.macs is None
    bound = graph.bind({"s0": 3})
    assert layer_facts(bound)[0].macs == 3 * 6 * 32
    found = outcomes((layer,), (layer,), ())[layer.layer]
    assert (found.before, found.after) == (Cost(32, None), Cost(32, None))
    assert Cost.total([Cost(1, 2), Cost(3, None)]) == Cost(4, None)


def test_operators_that_sum_no_products_have_none():
    node = make_node("relu", "relu", ["x"], ["y"])
    graph = Graph((Input("x", TensorType("float32", (symbol(BATCH), symbol("s"), 3))),), (Port("y", "y"),), (node,), {})
    assert [layer.macs for layer in layer_facts(graph)] == [0]


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """A sample with half of its units zeroed."""
    path = tmp_path_factory.mktemp("record") / "resnet.keras"
    prune_file(FROZEN / "resnet.keras", path, method="unit", sparsity=0.5)
    return path


def test_channels_add_up_in_every_layer(pruned):
    result = sparsec.compile(pruned)
    report = json.loads(json.dumps(result.report))
    with_kernels = [layer for layer in report["layers"] if layer["channels"] is not None]
    assert with_kernels
    for layer in with_kernels:
        channels = layer["channels"]
        assert channels["before"] == channels["kept"] + channels["removed"] + channels["merged"]
        assert channels["refused"] <= channels["kept"]
        assert layer["before"]["units"] <= channels["before"]
    assert sum(layer["channels"]["removed"] for layer in with_kernels) > 0
    for side in ("before", "after"):
        sizes = [layer[side] for layer in report["layers"] if layer[side] is not None]
        assert report["macs"][side] == sum(size["macs"] for size in sizes)
        assert report["parameters"][side] == sum(size["parameters"] for size in sizes)
    assert report["macs"]["after"] < report["macs"]["before"]
    assert "multiply-accumulates for one sample" in result.summary()


def test_mergers_and_refusals_are_counted_once_however_often_a_layer_is_called():
    (before,) = layer_facts(one_node("dense", (5,), (5, 8), "d"))
    (after,) = layer_facts(one_node("dense", (5,), (5, 5), "d"))
    merged = Decision("shrink", "d", "merged", "2 dead channels carried by channel 3", 8, 5, 2)
    refused = Decision("shrink", "d", "refused", "1 dead channel kept: why", 8, 5, 1)
    found = outcomes((before,), (after,), [merged, refused, merged, refused])["d"]
    assert found.channels == Channels(before=8, kept=5, merged=2, refused=1)
    assert found.channels.removed == 1
    assert found.notes == ("merged: 2 dead channels carried by channel 3", "not shrunk further: 1 dead channel kept: why")
    assert found.to_json() == {
        "layer": "d",
        "before": {"parameters": 40, "macs": 40},
        "after": {"parameters": 25, "macs": 25},
        "channels": {"before": 8, "kept": 5, "merged": 2, "refused": 1, "removed": 1},
    }


def test_a_file_and_its_bundle_tell_the_same(pruned, tmp_path):
    result = sparsec.compile(pruned)
    result.save(tmp_path / "model.npz")
    source, bundle = inspect(pruned), inspect(tmp_path / "model.npz")
    assert (source.before, source.after) == (bundle.before, bundle.after)
    assert source.macs == source.before.macs
    assert bundle.macs == bundle.after.macs
    assert source.gone == ()
    assert {outcome.layer for outcome in bundle.gone} == {
        layer["layer"] for layer in result.report["layers"] if layer["after"] is None and (layer["notes"])
    }
    for layer, outcome in bundle.outcomes.items():
        assert outcome == source.outcomes[layer]
    meta = read_bundle(tmp_path / "model.npz").meta
    assert [layer["layer"] for layer in meta.report["layers"]] == list(bundle.outcomes)


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"layers": 3, "decisions": "x"},
        {"layers": [1, {"layer": 2, "before": {"parameters": -1}, "after": 5, "channels": {"before": 1}}]},
        {"layers": [{"layer": "dense", "before": {"parameters": True}, "channels": [1, 2]}], "decisions": [7, {"layer": []}]},
        {"layers": [{"channels": {"before": 1, "kept": 1, "merged": 1, "refused": 0}}]},
        {"decisions": [{"before": "a", "after": {}, "outcome": 3}]},
    ],
)
def test_a_report_that_says_nonsense_is_no_obstacle(report, tmp_path):
    result = sparsec.compile(FROZEN / "mlp.keras", verify=False)
    write_bundle(tmp_path / "model.npz", result.program, meta=BundleMeta(report=report))
    found = inspect(tmp_path / "model.npz")
    assert (found.before, found.after) == (None, None)
    json.dumps(found.to_json())
    assert all(outcome.channels is None for outcome in recorded(report).values())
