"""Tiny Keras models with weights that hide nothing, what Keras says they compute, and whether sparsec reads the same."""

from __future__ import annotations

import io
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.frontends import KerasModel, read
from sparsec.ir import Graph
from sparsec.lowering import lower
from sparsec.ops import evaluate_graph
from sparsec.passes import optimise

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
"""Of the range of the output."""

SAMPLES = 5
"""No model here has as many channels: where it has, eager Keras takes the samples of a broadcast addend for channels."""


def fill(model: Any, seed: int = 0) -> None:
    """Give every weight random values: no bias is zero, no scale one, no variance a default."""
    rng = np.random.default_rng(seed)
    model.set_weights([_values(rng, weight) for weight in model.weights])


def _values(rng: np.random.Generator, weight: Any) -> np.ndarray:
    name, shape = weight.path.rpartition("/")[2], tuple(weight.shape)
    if name == "count":
        return np.asarray(rng.integers(1, 9))
    if "variance" in name or name in ("gamma", "alpha"):
        return rng.uniform(0.3, 1.7, shape)
    if "kernel" in name:
        return rng.normal(0.0, 1.5 / np.sqrt(max(np.prod(shape[:-1]), 1)), shape)
    return rng.normal(0.0, 0.5, shape)


def random_inputs(model: Any, seed: int = 1, free: int = 9) -> list[np.ndarray]:
    """A batch for every input; integers are small and not negative, axes without a size get ``free`` positions or more."""
    rng = np.random.default_rng(seed)
    batches = []
    for tensor in model.inputs:
        shape = (SAMPLES, *(free + axis if size is None else size for axis, size in enumerate(tensor.shape[1:])))
        if tensor.dtype == "bool":
            batches.append(rng.integers(0, 2, shape).astype("bool"))
        elif "int" in tensor.dtype:
            batches.append(rng.integers(0, 100, shape).astype(tensor.dtype))
        else:
            batches.append((1.5 * rng.normal(size=shape)).astype(tensor.dtype))
    return batches


def keras_outputs(model: Any, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What Keras computes, outputs in the order of ``model.outputs``."""
    import keras

    several = not isinstance(model, keras.Sequential) and not hasattr(model.input, "dtype")
    given = keras.tree.pack_sequence_as(model.input, list(batches)) if several else batches[0]
    return [np.asarray(output) for output in keras.tree.flatten(model(given, training=False))]


BUILT: dict[str, set[str]] = defaultdict(set)
"""The layer classes in the models that each test has read, by ``module::function``."""


def read_all(model: Any, folder: Path, h5: bool = True) -> list[KerasModel]:
    """The model, read from each kind of source."""
    path, _, test = os.environ["PYTEST_CURRENT_TEST"].partition("::")
    BUILT[f"{Path(path).stem}::{test.split()[0].partition('[')[0]}"].update(_classes(json.loads(model.to_json())))
    model.save(folder / "model.keras")
    read_models = [read(folder / "model.keras"), read(model)]
    if h5:
        model.save(folder / "model.h5")
        read_models.append(read(folder / "model.h5"))
    return read_models


def _classes(config: Any) -> Iterator[str]:
    """The classes of all objects that a configuration serialises, nested ones too."""
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str):
            yield config["class_name"]
        config = list(config.values())
    if isinstance(config, list):
        for item in config:
            yield from _classes(item)


def agree(models: Sequence[KerasModel], batches: Sequence[np.ndarray], wanted: Sequence[np.ndarray], tolerance: float) -> None:
    """Check that all readings are one graph, and that it computes what Keras computes."""
    graph = models[0].graph
    inputs = [batch.astype(port.type.dtype) for port, batch in zip(graph.inputs, batches, strict=True)]
    found = evaluate_graph(graph, inputs)
    assert len(found) == len(wanted)
    for port, one, other in zip(graph.outputs, found, wanted, strict=True):
        assert one.shape == other.shape, port.name
        assert one.dtype == other.dtype, port.name
        assert np.isfinite(other).all(), port.name
        one, other = one.astype(np.float64), other.astype(np.float64)
        spread = np.ptp(other)
        assert spread > 0, port.name
        assert np.abs(one - other).max() <= tolerance * spread, port.name
    for again in models[1:]:
        assert again.graph.nodes == graph.nodes
        assert again.graph.inputs == graph.inputs
        assert again.graph.outputs == graph.outputs
        assert again.graph.weights.keys() == graph.weights.keys()
        assert all(np.array_equal(array, graph.weights[path]) for path, array in again.graph.weights.items())


def deploys(graph: Graph, batches: Sequence[np.ndarray], wanted: Sequence[np.ndarray], tolerance: float = 1e-4) -> None:
    """Check that the bundle, and the ONNX file of the oldest and of the newest operator set, compute what Keras computes."""
    for found in (_from_bundle(graph, batches), *(_from_onnx(graph, batches, opset) for opset in (13, 21))):
        for port, one, other in zip(graph.outputs, found, wanted, strict=True):
            assert one.shape == other.shape, port.name
            difference = np.abs(one.astype(np.float64) - other.astype(np.float64)).max()
            assert difference <= tolerance * np.ptp(other.astype(np.float64)), port.name


def _from_bundle(graph: Graph, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
    from sparsec.bundle import write_bundle
    from sparsec.runtime import load

    file = io.BytesIO()
    write_bundle(file, lower(optimise(graph).graph))
    outputs = load(file.getvalue())([batch.astype(port.type.dtype) for port, batch in zip(graph.inputs, batches, strict=True)])
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


def _from_onnx(graph: Graph, batches: Sequence[np.ndarray], opset: int) -> list[np.ndarray]:
    import onnxruntime

    from sparsec.backends.onnx import to_model

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = 1, 3
    proto = to_model(optimise(graph).graph, opset=opset)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), settings)
    feeds = {
        entry.name: batch.astype(port.type.dtype)
        for entry, port, batch in zip(session.get_inputs(), graph.inputs, batches, strict=True)
    }
    return [np.asarray(output) for output in session.run(None, feeds)]


# --- many layers of one class ---

Group = tuple[str, tuple[int | None, ...], list[dict[str, Any]]]
"""A class, the shape of its input, and the options of several layers of that class, which become one model."""


def variants(class_name: str, shape: tuple[int | None, ...], *options: dict[str, Any], **common: Any) -> Group:
    return class_name, shape, [{**common, **option} for option in options or ({},)]


def group_id(group: Group) -> str:
    return f"{group[0]}{group[1]}".replace(" ", "")


def check_group(group: Group, precision: str, tolerance: str, folder: Path, deployed: bool = False) -> None:
    """Check a model that holds all the layers of a group, in a precision and to the tolerance of one; ``deployed`` as well."""
    import keras

    class_name, shape, options = group
    with floats(precision):
        start = keras.Input(shape)
        model = keras.Model(start, [getattr(keras.layers, class_name)(**option)(start) for option in options])
    fill(model)
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    batches = random_inputs(model)
    models, wanted = read_all(model, folder), keras_outputs(model, batches)
    agree(models, batches, wanted, TOLERANCE[tolerance])
    if deployed:
        deploys(models[0].graph, batches, wanted)


@contextmanager
def floats(dtype: str) -> Iterator[None]:
    """Let new models compute in ``dtype``, or by a policy of half precision."""
    import keras

    keras.config.set_floatx("float64" if dtype == "float64" else "float32")
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
