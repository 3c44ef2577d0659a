"""Models x executors: every architecture through everything that runs it, against Keras."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import keras
import models
import numpy as np
import pytest

from sparsec.backends.onnx import to_model
from sparsec.bundle import write_bundle
from sparsec.frontends import read
from sparsec.ir import Array, Graph
from sparsec.lowering import lower
from sparsec.ops import evaluate_graph
from sparsec.passes import optimise
from sparsec.runtime import load

TOLERANCE = 1e-4
"""Of each output's range."""

UNKNOWN_SIZE = 19
"""What stands for a size that the model leaves open."""

INPUT_SCALE = {"preprocessing_in_the_model": 200.0}

EXCEPTIONS: dict[tuple[str, str], str] = {}
"""Pairs of model and executor that are known not to work, with the reason."""


@dataclass(frozen=True)
class Case:
    """A model read from its file, inputs, and what Keras makes of them."""

    graph: Graph
    inputs: list[Array]
    expected: list[Array]


@cache
def case(name: str, folder: Path) -> Case:
    seed = list(models.MODELS).index(name)
    model = models.randomise(models.MODELS[name](), seed)
    path = folder / f"{name}.keras"
    model.save(path)
    rng = np.random.default_rng(seed)
    shapes = [[3, *(size or UNKNOWN_SIZE for size in tensor.shape[1:])] for tensor in model.inputs]
    inputs = [
        rng.integers(0, models.VOCABULARY, shape).astype(tensor.dtype)
        if "int" in tensor.dtype
        else rng.normal(0, INPUT_SCALE.get(name, 1.0), shape).astype(tensor.dtype)
        for tensor, shape in zip(model.inputs, shapes, strict=True)
    ]
    outputs = keras.tree.flatten(model(inputs if len(inputs) > 1 else inputs[0]))
    return Case(read(path).graph, inputs, [np.asarray(y) for y in outputs])


def run_reference(graph: Graph, inputs: Sequence[Array]) -> Sequence[Array]:
    return evaluate_graph(graph, inputs)


def run_optimised(graph: Graph, inputs: Sequence[Array]) -> Sequence[Array]:
    return evaluate_graph(optimise(graph).graph, inputs)


def run_bundle(level: str, encoding: str) -> Callable[[Graph, Sequence[Array]], Sequence[Array]]:
    def run(graph: Graph, inputs: Sequence[Array]) -> Sequence[Array]:
        file = io.BytesIO()
        write_bundle(file, lower(optimise(graph).graph, level, encoding), level=level)
        outputs = load(file.getvalue())(list(inputs))
        return outputs if isinstance(outputs, tuple) else (outputs,)

    return run


def run_onnx(optimised: bool, **options: object) -> Callable[[Graph, Sequence[Array]], Sequence[Array]]:
    def run(graph: Graph, inputs: Sequence[Array]) -> Sequence[Array]:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads, settings.log_severity_level = 1, 3
        proto = to_model(optimise(graph).graph if optimised else graph, **options)
        session = onnxruntime.InferenceSession(proto.SerializeToString(), settings)
        names = [entry.name for entry in session.get_inputs()]
        return list(session.run(None, dict(zip(names, inputs, strict=True))))

    return run


EXECUTORS: dict[str, Callable[[Graph, Sequence[Array]], Sequence[Array]]] = {
    "reference": run_reference,
    "optimised": run_optimised,
    "bundle-plain": run_bundle("plain", "auto"),
    "bundle-stored-csr": run_bundle("stored", "csr"),
    "onnx": run_onnx(optimised=True),
    "onnx-unoptimised": run_onnx(optimised=False),
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("conformance")


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", models.MODELS)
def test_executor_agrees_with_keras(name: str, executor: str, folder: Path) -> None:
    assert (name, executor) not in EXCEPTIONS
    found = case(name, folder)
    outputs = EXECUTORS[executor](found.graph, found.inputs)
    assert len(outputs) == len(found.expected)
    for actual, expected in zip(outputs, found.expected, strict=True):
        assert actual.shape == expected.shape
        assert np.ptp(expected, axis=0).max() > 0.01 * np.abs(expected).max(), "outputs that do not vary prove nothing"
        assert np.abs(actual - expected).max() <= TOLERANCE * np.ptp(expected)


@pytest.mark.parametrize("name", models.MODELS)
def test_passes_are_exact_in_float64(name: str, folder: Path) -> None:
    found = case(name, folder)
    graph = found.graph.lifted("float64")
    before = evaluate_graph(graph, found.inputs, dtype="float64")
    after = evaluate_graph(optimise(graph).graph, found.inputs, dtype="float64")
    for a, b in zip(before, after, strict=True):
        assert np.abs(a - b).max() <= 1e-9 * np.abs(a).max()
