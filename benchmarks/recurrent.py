"""Recurrent layers over many steps: how rounding grows from step to step, sparse and dense, and what sparsity gains."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from applications import onnx_call
from common import milliseconds, save

from sparsec.backends.onnx import export_onnx
from sparsec.ir import BATCH, Array, Graph, Input, Port, TensorType, symbol
from sparsec.kernels import library
from sparsec.lowering import lower
from sparsec.ops import evaluate_graph, make_node
from sparsec.runtime import Model
from sparsec.text import Column

CHANNELS, UNITS, STEPS, SAMPLES = 64, 1024, 200, 1
MASKED_UNITS, BATCHES = 256, (1, 16)
ZEROS = 0.9
SHOWN = (1, 10, 25, 50, 100, 150, 200)
"""The steps at which the error is shown."""

GATES = {"lstm": 4, "gru": 3}

PACKAGES = ("sparsec", "numpy", "scipy", "onnxruntime")

COLUMNS = (
    Column("Layer"),
    Column("Step", numeric=True),
    Column("Sparse, from float64", numeric=True),
    Column("Dense, from float64", numeric=True),
    Column("Sparse from dense", numeric=True),
)

TEXT = f"""One layer of {UNITS} units over {STEPS} steps of {CHANNELS} channels, {ZEROS:.0%} of both kernels zero, the rest
random and as large as keeps the state moving. *Sparse* is a bundle in sparsec's runtime, *dense* the same weights in
dense products, both in float32; *float64* is the reference. Errors are the largest of all units up to that step,
over the range of the outputs of all steps. Above the table: the kernels that were chosen for one sample, and the
median time of the whole sequence with one thread, all in turn; *without zeros* is the same layer where no weight
is zero, in the same runtime.

Below that, layers of {MASKED_UNITS} units with a mask, as Embedding and Masking give one: of each sample as many steps count
as were drawn from the second half of all, from the first on. *NumPy* is the runtime without its native library. The ONNX file
has a Scan, since ONNX's LSTM and GRU know lengths, but no masks. All with one thread and in turn."""


@dataclass(frozen=True)
class Row:
    """The errors of one layer up to one step, over the range of its outputs."""

    layer: str
    step: int
    sparse: float
    dense: float
    between: float

    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        return self.layer.upper(), str(self.step), f"{self.sparse:.1e}", f"{self.dense:.1e}", f"{self.between:.1e}"


def layer_graph(op: str, units: int = UNITS, seed: int = 0) -> Graph:
    """One layer with random weights, most of which are zero."""
    rng, width = np.random.default_rng(seed), GATES[op] * units

    def kernel(rows: int) -> Array:
        values = rng.normal(size=(rows, width)) / np.sqrt(rows * (1 - ZEROS))
        values[rng.random(values.shape) < ZEROS] = 0
        return values.astype(np.float32)

    shape = (2, width) if op == "gru" else (width,)
    bias = (0.1 * rng.normal(size=shape)).astype(np.float32)
    weights = {"l/kernel": kernel(CHANNELS), "l/bias": bias, "l/recurrent": kernel(units)}
    attrs = {"activation": "tanh", "recurrent_activation": "sigmoid", **({"reset_after": True} if op == "gru" else {})}
    states = ("h", "c") if op == "lstm" else ("h",)
    node = make_node(op, "l", ["x", "l/kernel", "l/bias", "l/recurrent"], ["y", *states], "l", **attrs)
    x = Input("x", TensorType("float32", (symbol(BATCH), STEPS, CHANNELS)))
    return Graph((x,), (Port("y", "y"),), (node,), weights, op)


def main() -> None:
    """Compare, measure, and write the results."""
    rows, facts, lines = [], {}, []
    for op in GATES:
        graph = layer_graph(op)
        x = np.random.default_rng(1).normal(size=(SAMPLES, STEPS, CHANNELS)).astype(np.float32)
        model = Model(lower(graph), threads=1)
        (sparse,), (dense,) = model.run([x]), evaluate_graph(graph, [x])
        (exact,) = evaluate_graph(graph, [x], dtype="float64")
        found = list(growth(op, sparse, dense, exact))
        rows += found
        times = _times(graph, model, x)
        kernels = ", then ".join(step.kernel for step in model.plan(SAMPLES))
        facts[op] = {"errors": [asdict(row) for row in found], "kernels": kernels, "milliseconds": times}
        shown = ", ".join(f"{name} {time:.1f} ms" for name, time in times.items())
        lines.append(f"* {op.upper()}: {kernels}; {shown}")
        facts[op]["masked"] = masked = {batch: _masked_times(op, batch) for batch in BATCHES}
        lines += [f"* {op.upper()} with a mask, batch {batch}: {_masked_text(batch, of)}" for batch, of in masked.items()]
    text = TEXT + "\n\n" + "\n".join(lines)
    save("recurrent", "Recurrent layers", text, COLUMNS, [row.cells() for row in rows], facts, PACKAGES)


def growth(layer: str, sparse: Array, dense: Array, exact: Array) -> Iterator[Row]:
    """The errors of outputs ``[N, T, units]`` up to some of the steps."""
    spread = float(np.ptp(exact))

    def error(a: Array, b: Array, step: int) -> float:
        return float(np.abs(a[:, :step].astype(np.float64) - b[:, :step]).max() / spread)

    for step in SHOWN:
        yield Row(layer, step, error(sparse, exact, step), error(dense, exact, step), error(sparse, dense, step))


def _times(graph: Graph, model: Model, x: Array) -> dict[str, float]:
    full = graph.with_nodes(graph.nodes, {path: np.where(w == 0, np.float32(1e-30), w) for path, w in graph.weights.items()})
    dense = Model(lower(full), threads=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.onnx"
        export_onnx(graph, path)
        calls = {
            "sparse": lambda: model.run([x]),
            "without zeros": lambda: dense.run([x]),
            "ONNX Runtime": onnx_call(path, x, threads=1),
        }
        return milliseconds(calls, rounds=7)


def _masked_times(op: str, batch: int) -> dict[str, float]:
    graph = layer_graph(op, MASKED_UNITS)
    (node,), (x,) = graph.nodes, graph.inputs
    mask = Input("mask", TensorType("bool", x.type.shape[:2]))
    graph = replace(graph, inputs=(x, mask), nodes=(replace(node, inputs=(*node.inputs, "mask")),))
    rng = np.random.default_rng(1)
    counts = np.arange(STEPS) < rng.integers(STEPS // 2, STEPS + 1, (batch, 1))
    inputs = [rng.normal(size=(batch, STEPS, CHANNELS)).astype(np.float32), counts]
    native = Model(lower(graph), threads=1)
    before = os.environ.get(library.VARIABLE, "")
    os.environ[library.VARIABLE] = library.OFF
    fallback = Model(lower(graph), threads=1)
    os.environ[library.VARIABLE] = before
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.onnx"
        export_onnx(graph, path)
        calls = {
            "sparse": lambda: native.run(inputs),
            "NumPy": lambda: fallback.run(inputs),
            "ONNX Runtime": onnx_call(path, *inputs, threads=1),
        }
        return milliseconds(calls, rounds=15)


def _masked_text(batch: int, times: dict[str, float]) -> str:
    shown = ", ".join(f"{name} {time:.2f} ms" for name, time in times.items())
    return f"{shown}; {1e3 * batch * STEPS / times['sparse']:,.0f} steps a second"


if __name__ == "__main__":
    main()
