"""Tiny Keras models with weights that hide nothing, what Keras says they compute, and whether sparsec reads the same."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.frontends import KerasModel, read
from sparsec.ops import evaluate_graph

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


def read_all(model: Any, folder: Path, h5: bool = True) -> list[KerasModel]:
    """The model, read from each kind of source."""
    model.save(folder / "model.keras")
    read_models = [read(folder / "model.keras"), read(model)]
    if h5:
        model.save(folder / "model.h5")
        read_models.append(read(folder / "model.h5"))
    return read_models


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
