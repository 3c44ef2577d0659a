"""Small graphs, and tools that take bundles apart and put them together again, for the tests of bundles and formats."""

from __future__ import annotations

import io
import json
import struct
import zipfile

import numpy as np

from sparsec.bundle import BundleMeta, make_selfcheck, write_bundle
from sparsec.encodings import encode
from sparsec.ir import Graph, Input, Port, TensorType, symbol
from sparsec.lowering import matrix_rows
from sparsec.ops import make_node
from sparsec.program import Program


def small_graph():
    """Two dense layers and a cast, with one weight of every dtype that a bundle holds."""
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((12, 20)).astype(np.float32)
    kernel[rng.random((12, 20)) < 0.8] = 0
    kernel[3, 4] = -0.0
    weights = {
        "hidden/kernel": kernel,
        "hidden/bias": rng.standard_normal(20).astype(np.float32),
        "top/kernel": rng.standard_normal((20, 4)).astype(np.float32),
        "mask": np.array([True, False, True, True]),
        "shift": np.arange(4, dtype=np.int32) - 2,
        "steps": np.array([2**40, -1, 0, 0], np.int64),
        "half": np.array([0, 1, -2, 65504], np.float16),
        "double": np.array([0, np.pi, 0, 0], np.float64),
    }
    nodes = (
        make_node("dense", "hidden", ["x", "hidden/kernel", "hidden/bias"], ["hidden"], layer="hidden"),
        make_node("relu", "hidden/relu", ["hidden"], ["hidden/relu"], layer="hidden", max_value=6),
        make_node("dense", "top", ["hidden/relu", "top/kernel", ""], ["top"], layer="top"),
        make_node("cast", "cast", ["top"], ["cast"], dtype="int32"),
        make_node("where", "choice", ["mask", "cast", "shift"], ["choice"]),
    )
    outputs = [("probs", "top"), ("choice", "choice"), *((name, name) for name in ("steps", "half", "double"))]
    x = Input("x", TensorType("float32", (symbol("N"), 12)))
    return Graph((x,), tuple(Port(*names) for names in outputs), nodes, weights, "small")


def small_program(positions="csr", values="raw"):
    """:func:`small_graph` with every matrix in one encoding."""
    graph = small_graph()
    rows = matrix_rows(graph)
    tensors = {
        path: encode(array, rows.get(path, ()), *((positions, values) if path in rows else ("dense", "raw")))
        for path, array in graph.weights.items()
    }
    return Program(graph.inputs, graph.outputs, graph.nodes, tensors, graph.name)


def small_bundle(level="stored", **kind):
    """The bytes of a bundle of :func:`small_program`, with everything that a bundle may hold."""
    meta = BundleMeta(
        source_sha256="ab" * 32,
        options={"encoding": "csr", "list": [1, 2.5, None]},
        report={"passes": [{"name": "fold", "done": 3}]},
        selfcheck=make_selfcheck(small_graph()),
    )
    file = io.BytesIO()
    write_bundle(file, small_program(**kind), level=level, meta=meta)
    return file.getvalue()


def unpack(data):
    """The manifest and the other members of a bundle."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    return json.loads(members.pop("manifest.json")), members


def repack(manifest, members, compression=zipfile.ZIP_STORED):
    """A zip of a manifest (a JSON value, or bytes as they are) and members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("manifest.json", manifest if isinstance(manifest, bytes) else json.dumps(manifest))
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def npy(array):
    """The bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def patched(data, at, layout, value):
    """``data`` with one field of a binary structure overwritten."""
    copy = bytearray(data)
    struct.pack_into(layout, copy, at, value)
    return bytes(copy)
