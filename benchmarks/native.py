"""Native kernels against dense layers and networks in ONNX Runtime, with one thread, taking turns in one process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
from common import PACKAGES, milliseconds, save
from kernels import Layer, make_task
from onnx import TensorProto, helper, numpy_helper
from threadpoolctl import threadpool_limits

import sparsec
from sparsec.backends.onnx import to_model
from sparsec.ir import BATCH, Array, Graph, Input, Port, TensorType, symbol
from sparsec.kernels import Choice, Epilogue, Task, WeightStore, choose, library
from sparsec.lowering import lower
from sparsec.ops import make_node
from sparsec.pruning import prune_file
from sparsec.quiet import import_keras
from sparsec.runtime import Model
from sparsec.text import Column

SPARSITIES = (0.8, 0.9, 0.95)
ROUNDS = 25
LAYERS = (
    Layer("dense 4096-4096", "dense", (4096,), (4096, 4096), (1, 16, 64)),
    Layer("1x1 512-512 at 14", "conv", (14, 14, 512), (1, 1, 512, 512)),
    Layer("1x1 256-256 at 28", "conv", (28, 28, 256), (1, 1, 256, 256)),
    Layer("1x1 1024-1024 at 7", "conv", (7, 7, 1024), (1, 1, 1024, 1024)),
    Layer("3x3 64-64 at 56", "conv", (56, 56, 64), (3, 3, 64, 64)),
    Layer("3x3 128-128 at 28", "conv", (28, 28, 128), (3, 3, 128, 128)),
    Layer("3x3 256-256 at 14", "conv", (14, 14, 256), (3, 3, 256, 256)),
    Layer("3x3 512-512 at 7", "conv", (7, 7, 512), (3, 3, 512, 512)),
)
NETWORKS = {"784-300-100-10": (784, 300, 100, 10), "784-1000-1000-500-200-10": (784, 1000, 1000, 500, 200, 10)}
ISAS = ("", "avx2")
"""The instruction sets that are measured: the best, and that of most machines."""

Call = Callable[[], Any]


def main() -> None:
    """Measure layers, then small networks, then ResNet-50."""
    rng = np.random.default_rng(0)
    with threadpool_limits(1, user_api="blas"):
        facts = [layer_facts(layer, batch, s, rng) for layer in LAYERS for batch in layer.batches for s in SPARSITIES]
        facts += [
            network_facts(name, widths, batch, s, rng)
            for name, widths in NETWORKS.items()
            for batch in (1, 64)
            for s in SPARSITIES
        ]
        with TemporaryDirectory() as folder:
            facts += resnet_facts(Path(folder), rng)
    text = (
        "Median milliseconds of a call, and in brackets how many times faster than the dense original in ONNX Runtime, fp32,\n"
        "one thread. Layers are kernels as the runtime calls them, channels last in and out, so conversions are part of their\n"
        "time, while ONNX Runtime has its own layout, channels first. Networks are whole calls from Python. Zeros are\n"
        "unstructured. The machine was shared while this ran: the ratios count, not the times.\n\n"
        f"The best instruction set here is {library.status().isa}; beside it what the same kernels do with AVX2."
    )
    columns = [Column("What"), *(Column(name, numeric=True) for name in ("Batch", "Zeros", "ONNX Runtime", "sparsec", "AVX2"))]
    columns.append(Column("Kernel"))
    save("native", "Native kernels", text, columns, [_row(fact) for fact in facts], facts, (*PACKAGES, "onnxruntime"))


def layer_facts(layer: Layer, batch: int, sparsity: float, rng: np.random.Generator) -> dict[str, Any]:
    """The times of one layer."""
    task, store, x = make_task(layer, batch, 1 - sparsity, rng)
    calls: dict[str, Call] = {"onnxruntime": _layer_in_onnxruntime(layer, store.array("kernel"), x)}
    kernel = ""
    for isa in ISAS:
        with _instructions(isa):
            choice = choose(task)
            calls[isa or "best"] = _bound(task, store, choice, x)
            kernel = kernel or choice.kernel.name
    return _fact(layer.name, batch, sparsity, milliseconds(calls, ROUNDS), kernel)


def network_facts(name: str, widths: tuple[int, ...], batch: int, sparsity: float, rng: np.random.Generator) -> dict[str, Any]:
    """The times of one network."""
    graph = _perceptron(widths, sparsity, rng)
    x = rng.standard_normal((batch, widths[0]), np.float32)
    session = _session(to_model(graph).SerializeToString())
    calls: dict[str, Call] = {"onnxruntime": lambda: session.run(None, {"x": x})}
    kernels = ""
    for isa in ISAS:
        with _instructions(isa):
            model = Model(lower(graph), threads=1)
            model.prepare(batch)
            calls[isa or "best"] = lambda model=model: model(x)
            kernels = kernels or _kernels(model, batch)
    return _fact(name, batch, sparsity, milliseconds(calls, ROUNDS), kernels)


def resnet_facts(folder: Path, rng: np.random.Generator) -> list[dict[str, Any]]:
    """The times of ResNet-50 with random weights, all kernels pruned but those of the output layer."""
    keras = import_keras(purpose="to build networks")
    keras.utils.set_random_seed(0)
    original, pruned = folder / "original.keras", folder / "pruned.keras"
    keras.applications.ResNet50(weights=None).save(original)
    sparsec.compile(original, shrink=False, verify=False).save(folder / "dense.onnx")
    session = _session((folder / "dense.onnx").read_bytes())
    x = rng.standard_normal((1, 224, 224, 3), np.float32)
    name = session.get_inputs()[0].name
    facts = []
    for sparsity in SPARSITIES:
        prune_file(original, pruned, method="weight", sparsity=sparsity)
        sparsec.compile(pruned, verify=False).save(folder / "bundle.npz")
        calls: dict[str, Call] = {"onnxruntime": lambda: session.run(None, {name: x})}
        for isa in ISAS:
            with _instructions(isa):
                model = sparsec.load(folder / "bundle.npz", threads=1, batch=1)
                calls[isa or "best"] = lambda model=model: model(x)
                kernels = _kernels(model, 1)
        facts.append(_fact("ResNet-50 at 224", 1, sparsity, milliseconds(calls, ROUNDS), kernels))
    return facts


def _kernels(model: Model, batch: int) -> str:
    return ", ".join(sorted({step.kernel for step in model.plan(batch) if "/" in step.kernel}))


@contextmanager
def _instructions(isa: str) -> Iterator[None]:
    """Prepares for one instruction set."""
    before = os.environ.pop(library.VARIABLE, None)
    if isa:
        os.environ[library.VARIABLE] = isa
    try:
        yield
    finally:
        os.environ.pop(library.VARIABLE, None)
        if before is not None:
            os.environ[library.VARIABLE] = before


def _bound(task: Task, store: WeightStore, choice: Choice, x: Array) -> Call:
    run = choice.kernel.bind(task, store.packed("kernel", choice.kernel.packing, task.attrs), Epilogue())
    return lambda: run(x)


def _perceptron(widths: tuple[int, ...], sparsity: float, rng: np.random.Generator) -> Graph:
    nodes, weights, value = [], {}, "x"
    for index, (inside, out) in enumerate(pairwise(widths)):
        kernel = rng.standard_normal((inside, out), np.float32) / np.float32(np.sqrt(inside))
        kernel[rng.random(kernel.shape) < sparsity] = 0
        weights |= {f"d{index}/kernel": kernel, f"d{index}/bias": rng.standard_normal(out, np.float32)}
        nodes.append(make_node("dense", f"d{index}", [value, f"d{index}/kernel", f"d{index}/bias"], [f"d{index}"]))
        nodes.append(make_node("softmax" if out == widths[-1] else "relu", f"a{index}", [f"d{index}"], [f"a{index}"]))
        value = f"a{index}"
    x = Input("x", TensorType("float32", (symbol(BATCH), widths[0])))
    return Graph((x,), (Port("y", value),), tuple(nodes), weights)


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _layer_in_onnxruntime(layer: Layer, kernel: Array, x: Array) -> Call:
    if layer.op == "dense":
        node, weight = helper.make_node("MatMul", ["x", "w"], ["y"]), kernel
    else:
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[(kernel.shape[0] - 1) // 2] * 4)
        weight = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([node], "layer", inputs, outputs, [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    session = _session(model.SerializeToString())
    return lambda: session.run(None, {"x": x})


def _fact(name: str, batch: int, sparsity: float, times: dict[str, float], kernel: str) -> dict[str, Any]:
    print(name, batch, sparsity, {key: f"{time:.3g}" for key, time in times.items()}, flush=True)
    return {"what": name, "batch": batch, "sparsity": sparsity, "milliseconds": times, "kernel": kernel}


def _row(fact: dict[str, Any]) -> tuple[str, ...]:
    times = fact["milliseconds"]
    dense = times["onnxruntime"]
    cells = [f"{times[isa or 'best']:.3g} ({dense / times[isa or 'best']:.1f})" for isa in ISAS]
    return (fact["what"], str(fact["batch"]), f"{fact['sparsity']:.0%}", f"{dense:.3g}", *cells, fact["kernel"])


if __name__ == "__main__":
    main()
