"""Makes the golden bundles and ``expected.json``, which states their content digests and outputs.

    python formats/golden/make.py

A golden file never changes once it was released: this writes only those that are missing, and a new version of the format
gets new files.
The weights come from the generator of the self-check, so that they do not depend on NumPy's.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from sparsec.bundle import BundleMeta, InputSample, content_digest, make_selfcheck, read_bundle, sample_inputs, write_bundle
from sparsec.ir import Array, Graph, Input, Port, TensorType, symbol
from sparsec.lowering import lower
from sparsec.ops import evaluate_graph, make_node

HERE = Path(__file__).parent


def weight(shape: tuple[int, ...], seed: int, kept: float = 1.0) -> Array:
    """A float32 array in [-1, 1) where about ``kept`` of the elements are not zero."""
    sample = InputSample("float32", shape, -1.0, 1.0)
    (values,), (dice,) = sample_inputs([sample], seed), sample_inputs([InputSample("float32", shape, 0.0, 1.0)], seed + 1000)
    return np.where(dice < kept, values, np.float32(0.0))


def dense_graph() -> Graph:
    """Two dense layers; one weight is -0.0."""
    weights = {
        "hidden/kernel": weight((24, 40), 1, 0.2),
        "hidden/bias": weight((40,), 2),
        "top/kernel": weight((40, 3), 3),
    }
    weights["hidden/kernel"][5, 7] = -0.0
    nodes = (
        make_node("dense", "hidden", ["x", "hidden/kernel", "hidden/bias"], ["hidden"], layer="hidden"),
        make_node("relu", "hidden/relu", ["hidden"], ["hidden/relu"], layer="hidden"),
        make_node("dense", "top", ["hidden/relu", "top/kernel"], ["top"], layer="top"),
        make_node("softmax", "top/softmax", ["top"], ["top/softmax"], layer="top"),
    )
    entry = Input("x", TensorType("float32", (symbol("N"), 24)))
    return Graph((entry,), (Port("class", "top/softmax"),), nodes, weights, "dense")


def conv_graph() -> Graph:
    """A convolution on images of any size with two outputs, and a second input that picks by a mask."""
    window = {"strides": (2, 2), "padding": "same", "dilations": (1, 1)}
    weights = {
        "conv/kernel": weight((3, 3, 2, 16), 4, 0.1),
        "bn/gamma": weight((16,), 5),
        "bn/mean": weight((16,), 6),
        "bn/variance": np.abs(weight((16,), 7)) + np.float32(0.5),
        "depthwise/kernel": weight((3, 3, 16, 1), 8, 0.5),
        "empty/kernel": np.zeros((16, 4), np.float32),
        "empty/bias": weight((4,), 9),
        "zero": np.zeros((1,), np.float32),
    }
    nodes = (
        make_node("conv", "conv", ["image", "conv/kernel"], ["conv"], layer="conv", **window),
        make_node("batch_norm", "bn", ["conv", "bn/gamma", "", "bn/mean", "bn/variance"], ["bn"], layer="bn", epsilon=1e-3),
        make_node("depthwise_conv", "depthwise", ["bn", "depthwise/kernel"], ["depthwise"], layer="depthwise", **window),
        make_node("max_pool", "pool", ["depthwise"], ["pool"], layer="pool", window=(2, 2), **window),
        make_node("reduce_mean", "mean", ["pool"], ["mean"], layer="mean", axes=(1, 2)),
        make_node("dense", "empty", ["mean", "empty/kernel", "empty/bias"], ["empty"], layer="empty"),
        make_node("where", "choice", ["mask", "empty", "zero"], ["choice"], layer="choice"),
    )
    inputs = (
        Input("image", TensorType("float32", (symbol("N"), symbol("H"), symbol("W"), 2))),
        Input("mask", TensorType("bool", (symbol("N"), 4))),
    )
    return Graph(inputs, (Port("choice", "choice"), Port("mean", "mean")), nodes, weights, "conv")


GOLDEN = {
    "dense.stored.npz": (dense_graph, "stored", "auto"),
    "dense.plain.npz": (dense_graph, "plain", "auto"),
    "conv.stored.npz": (conv_graph, "stored", "csr"),
    "conv.plain.npz": (conv_graph, "plain", "coo"),
}


def main() -> None:
    """Write what is missing."""
    listing = HERE / "expected.json"
    expected = json.loads(listing.read_text()) if listing.exists() else {}
    for name, (build, level, encoding) in GOLDEN.items():
        if (HERE / name).exists():
            continue
        graph = build()
        selfcheck = make_selfcheck(graph)
        assert selfcheck is not None
        meta = BundleMeta(source_sha256="0" * 64, options={"encoding": encoding}, selfcheck=selfcheck)
        write_bundle(HERE / name, lower(graph, level, encoding), level=level, meta=meta)
        outputs = evaluate_graph(graph, selfcheck.make_inputs(), dtype="float64")
        expected[name] = {
            "digest": content_digest(read_bundle(HERE / name).program),
            "outputs": [[float(f"{value:.9g}") for value in output.reshape(-1)] for output in outputs],
        }
    listing.write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
