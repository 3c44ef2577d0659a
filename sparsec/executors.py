"""Models of every kind as something that runs: Keras models, bundles and ONNX files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np

from sparsec.backends.onnx import LAYOUT_KEY
from sparsec.errors import FormatError, InputError
from sparsec.extras import require
from sparsec.files import check_input
from sparsec.frontends import SUFFIXES as KERAS_SUFFIXES
from sparsec.frontends import KerasModel, read
from sparsec.ir import Array, Graph, Shape
from sparsec.ops import evaluate_graph, infer_types
from sparsec.quiet import import_keras

OpenShape = tuple[int | None, ...]
Run = Callable[[Sequence[Array]], list[Array]]

ARTEFACT_SUFFIXES = (".npz", ".onnx", *KERAS_SUFFIXES)
MESSAGE_LENGTH = 200
BATCH_SIZE = 32
"""Samples are run in batches of this size, so that many samples need no more memory than a few."""


@dataclass(frozen=True)
class Executor:
    """A model that is ready to run.

    Attributes:
        engine: what runs it, with its version.
        input_shapes: of each input in order, ``None`` for what is open.
        output_names: in order.
        run: one array for each input in, one for each output out.
        note: why this engine and not the one that would be expected; empty where there is nothing to say.
    """

    engine: str
    input_shapes: tuple[OpenShape, ...]
    output_names: tuple[str, ...]
    run: Run
    note: str = ""

    def __call__(self, inputs: Sequence[Array], progress: Callable[[int, int], None] | None = None) -> list[Array]:
        """Run the model in batches of :data:`BATCH_SIZE`.

        Args:
            inputs: one array for each input, batch first.
            progress: called with the number of samples done and their total.
        """
        samples = len(inputs[0])
        parts: list[list[Array]] = []
        for start in range(0, samples, BATCH_SIZE):
            parts.append(self.run([array[start : start + BATCH_SIZE] for array in inputs]))
            if progress is not None:
                progress(min(start + BATCH_SIZE, samples), samples)
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]


def open_artefact(path: Path, like: Graph | None = None) -> Executor:
    """Make a compiled model, or a Keras file, ready to run.

    Args:
        path: the file.
        like: the model that it stands for; an ONNX file with another layout then takes and gives arrays in this model's.

    Raises:
        InputError: there is no such file, or its suffix is unknown.
        FormatError: it cannot be read.
        MissingExtraError: what runs it is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in ARTEFACT_SUFFIXES:
        raise InputError(f"{path}: the suffix {path.suffix!r} is not one of a model ({', '.join(ARTEFACT_SUFFIXES)})")
    check_input(path)
    if suffix == ".npz":
        return _open_bundle(path)
    return _open_onnx(path, like) if suffix == ".onnx" else open_keras(path, read(path))


def open_keras(source: Path, model: KerasModel) -> Executor:
    """Make a Keras file ready to run: in the Keras that means what the file means, else in sparsec's evaluator.

    Layers that Keras 2 saved have other meanings in Keras 3 in places, so that Keras 3 is no reference for them.

    Args:
        source: the file.
        model: the same file as sparsec read it.
    """
    package = "keras" if model.saved_by.generation == 3 else "tf_keras"
    if find_spec(package) is None:
        saved = f"; the file was saved by Keras {model.saved_by.version}" if package == "tf_keras" else ""
        return _evaluator(model, f"{package} is not installed{saved}")
    keras = import_keras(package)
    try:
        loaded = keras.models.load_model(source, compile=False)
    except Exception as error:  # whatever Keras raises on a file that it cannot load ends up in the note
        reason = f"{type(error).__name__}: {_brief(error)}"
        return _evaluator(model, f"{package} {keras.__version__} cannot load the file ({reason})")
    return _keras(keras, loaded, model)


def run_in_memory(keras_model: Any, model: KerasModel) -> Executor:
    """Make a ``keras.Model`` ready to run."""
    return _keras(import_keras("keras" if model.saved_by.generation == 3 else "tf_keras"), keras_model, model)


def _evaluator(model: KerasModel, note: str) -> Executor:
    return Executor(
        "sparsec's evaluator",
        _input_shapes(model),
        tuple(port.name for port in model.graph.outputs),
        lambda inputs: list(evaluate_graph(model.graph, inputs)),
        note,
    )


def _keras(keras: Any, loaded: Any, model: KerasModel) -> Executor:
    names = [i.name for i in model.graph.inputs]
    outputs = tuple(port.name for port in model.graph.outputs)
    engine = f"Keras {keras.__version__}"

    def run(inputs: Sequence[Array]) -> list[Array]:
        # A Sequential that was built without an input layer has no symbolic input.
        feed = _feed(getattr(loaded, "input", None), dict(zip(names, inputs, strict=True)))
        try:
            with _on_cpu(keras):
                result = loaded(feed, training=False)
        except Exception as error:  # Keras wraps whatever its backend raises
            raise InputError(f"{model.description}: {engine} cannot run it on these inputs ({_brief(error)})") from None
        if isinstance(result, dict):
            return [np.asarray(result[name]) for name in outputs]
        return [np.asarray(array) for array in (result if isinstance(result, list | tuple) else [result])]

    return Executor(engine, _input_shapes(model), outputs, run)


def _feed(structure: Any, by_name: Mapping[str, Array]) -> Any:
    """The arrays in the structure of a model's symbolic inputs: one, a list, or a dict, each called as its tensor is."""
    if isinstance(structure, Mapping):
        return {key: _feed(tensor, by_name) for key, tensor in structure.items()}
    if isinstance(structure, list | tuple):
        return [_feed(tensor, by_name) for tensor in structure]
    if len(by_name) == 1:
        # A Sequential that made its input itself gives it another name in memory than in a file.
        return next(iter(by_name.values()))
    return by_name[structure.name.partition(":")[0]]


def _on_cpu(keras: Any) -> AbstractContextManager[Any]:
    # GPUs multiply in TF32 by default, which is far less than float32 and no reference.
    return keras.device("cpu:0") if hasattr(keras, "device") else nullcontext()


def _input_shapes(model: KerasModel) -> tuple[OpenShape, ...]:
    return tuple(tuple(dim if isinstance(dim, int) else None for dim in i.type.shape) for i in model.graph.inputs)


def _open_bundle(path: Path) -> Executor:
    from sparsec.runtime import load

    model = load(path)

    def run(inputs: Sequence[Array]) -> list[Array]:
        result = model(list(inputs), as_dict=True)
        assert isinstance(result, dict)
        return list(result.values())

    return Executor(
        "sparsec's runtime",
        tuple(tuple(dim if isinstance(dim, int) else None for dim in entry.shape) for entry in model.inputs),
        tuple(entry.name for entry in model.outputs),
        run,
    )


def _open_onnx(path: Path, like: Graph | None) -> Executor:
    onnxruntime = require("onnxruntime", extra="onnx", purpose="to run ONNX files")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own classes derive from Exception, and differ from version to version
        raise FormatError(f"{path}: ONNX Runtime cannot load it ({_brief(error)})") from None
    names = [entry.name for entry in session.get_inputs()]
    inputs, outputs = _fixed(session.get_inputs()), _fixed(session.get_outputs())
    moved_inputs = moved_outputs = frozenset[int]()
    if like is not None and session.get_modelmeta().custom_metadata_map.get(LAYOUT_KEY) == "nchw":
        types = infer_types(like)
        moved_inputs = _moved(inputs, [entry.type.shape for entry in like.inputs])
        moved_outputs = _moved(outputs, [types[port.value].shape for port in like.outputs])

    def run(arrays: Sequence[Array]) -> list[Array]:
        if len(arrays) != len(names):
            raise InputError(f"{path}: takes {len(names)} inputs, not {len(arrays)}: is it the same model?")
        feed = [np.moveaxis(array, -1, 1) if index in moved_inputs else array for index, array in enumerate(arrays)]
        try:
            results = session.run(None, dict(zip(names, feed, strict=True)))
        except Exception as error:  # as above
            raise InputError(f"{path}: ONNX Runtime cannot run it on these inputs ({_brief(error)})") from None
        return [
            np.moveaxis(np.asarray(array), 1, -1) if index in moved_outputs else np.asarray(array)
            for index, array in enumerate(results)
        ]

    return Executor(
        f"ONNX Runtime {onnxruntime.__version__}",
        tuple(_last(shape) if index in moved_inputs else shape for index, shape in enumerate(inputs)),
        tuple(entry.name for entry in session.get_outputs()),
        run,
    )


def _fixed(entries: Sequence[Any]) -> list[OpenShape]:
    return [tuple(dim if isinstance(dim, int) else None for dim in entry.shape) for entry in entries]


def _moved(shapes: Sequence[OpenShape], wanted: Sequence[Shape]) -> frozenset[int]:
    """Which values of a file in channels-first layout have their last axis moved to axis 1; few axes never move."""
    return frozenset(
        index
        for index, (shape, dims) in enumerate(zip(shapes, wanted, strict=False))
        if len(shape) == len(dims) > 2
        and all(a is None or not isinstance(b, int) or a == b for a, b in zip(_last(shape), dims, strict=True))
    )


def _last(shape: OpenShape) -> OpenShape:
    return (shape[0], *shape[2:], shape[1])


def _brief(error: Exception) -> str:
    """The beginning of a message that may run over many lines, with colours, and hold whole arrays."""
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())
    return shorten(text, MESSAGE_LENGTH, placeholder=" ...") or type(error).__name__
