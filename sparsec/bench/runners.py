"""Runners: one for each engine, chosen by the suffix of the file.

A runner is opened in a process that does nothing else, so it imports only what a user of that engine imports.
"""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from sparsec.errors import InputError, SparsecError
from sparsec.extras import require
from sparsec.ir import Array

Call = Callable[[], Any]


class UnavailableError(SparsecError):
    """An engine cannot be measured here; the message is the reason."""


@dataclass(frozen=True)
class Request:
    """What is to be opened.

    Attributes:
        path: of the model.
        device: ``cpu`` or ``gpu``.
        threads: how many; ``None`` for the engine's default.
        package: the package that loads a Keras file, ``keras`` or ``tf_keras``.
    """

    path: str
    device: str = "cpu"
    threads: int | None = None
    package: str = "keras"


@dataclass(frozen=True)
class Port:
    """An input of an opened model: its name, its shape with ``None`` for what is open, and its NumPy dtype."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


class Runner(ABC):
    """An opened model.

    Attributes:
        engine: the name of the engine, which is the package that runs it.
        suffixes: of the files that it opens.
        packages: whose versions belong into a result.
        ports: the inputs, in order.
        label: how messages call it.
    """

    engine: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    packages: ClassVar[tuple[str, ...]]
    ports: tuple[Port, ...]
    label: str = "the model"

    @abstractmethod
    def __init__(self, request: Request) -> None:
        """Open a model.

        Raises:
            UnavailableError: it cannot run on that device here.
            SparsecError: the file cannot be used, or a package is missing.
        """

    @abstractmethod
    def bind(self, inputs: Sequence[Array]) -> Call:
        """A call that runs the model on ``inputs`` and returns its outputs, complete on return.

        Arrays are handed over in the engine's own form, outside the call, where its users would do so.
        """

    @abstractmethod
    def arrays(self, outputs: Any) -> list[Array]:
        """The outputs of a call as NumPy arrays, in order."""


RUNNERS: dict[str, type[Runner]] = {}
"""Every runner by engine."""


def register(cls: type[Runner]) -> type[Runner]:
    """Enter a runner into :data:`RUNNERS`; a class decorator."""
    RUNNERS[cls.engine] = cls
    return cls


def runner_for(path: Path) -> type[Runner]:
    """The runner of a file.

    Raises:
        InputError: no runner opens such files.
    """
    for runner in RUNNERS.values():
        if path.suffix.lower() in runner.suffixes:
            return runner
    known = ", ".join(suffix for runner in RUNNERS.values() for suffix in runner.suffixes)
    raise InputError(f"{path} cannot be measured: the suffix {path.suffix!r} is none of {known}")


@register
class SparsecRunner(Runner):
    """A bundle, in this package's runtime."""

    engine = "sparsec"
    suffixes = (".npz",)
    packages = ("sparsec", "numpy", "scipy")

    def __init__(self, request: Request) -> None:
        if request.device != "cpu":
            raise UnavailableError("sparsec runs bundles on the CPU")
        from sparsec.runtime import load

        with warnings.catch_warnings():
            # That threads= does not limit NumPy: the environment does already.
            warnings.simplefilter("ignore", RuntimeWarning)
            self._model = load(request.path, threads=request.threads)
        self.ports = tuple(
            Port(info.name, tuple(d if isinstance(d, int) else None for d in info.shape), info.dtype)
            for info in self._model.inputs
        )

    def bind(self, inputs: Sequence[Array]) -> Call:
        """A call with the arrays as they are."""
        given = list(inputs)
        return lambda: self._model.run(given)

    def arrays(self, outputs: Any) -> list[Array]:
        """The outputs, which are arrays already."""
        return list(outputs)


@register
class OnnxRunner(Runner):
    """An ONNX file, in ONNX Runtime."""

    engine = "onnxruntime"
    suffixes = (".onnx",)
    packages = ("onnxruntime", "onnxruntime-gpu", "numpy")

    def __init__(self, request: Request) -> None:
        ort = require("onnxruntime", extra="onnx", purpose=f"to measure {request.path}")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if request.threads is not None:
            options.intra_op_num_threads = request.threads
            options.inter_op_num_threads = 1
        provider = "CUDAExecutionProvider" if request.device == "gpu" else "CPUExecutionProvider"
        if provider not in ort.get_available_providers():
            raise UnavailableError(f"ONNX Runtime {ort.__version__} is installed without {provider}")
        try:
            session = ort.InferenceSession(request.path, options, providers=[provider, "CPUExecutionProvider"])
        except Exception as error:  # the errors of ONNX Runtime have no public base class
            raise InputError(f"ONNX Runtime cannot load {request.path}: {error}") from None
        # A provider whose libraries or device are missing is left out without an error.
        if session.get_providers()[0] != provider:
            raise UnavailableError(f"ONNX Runtime {ort.__version__} could not start {provider}")
        self._session = session
        self._ort = ort
        self._device = "cuda" if request.device == "gpu" else "cpu"
        self.ports = tuple(
            Port(i.name, tuple(d if isinstance(d, int) else None for d in i.shape), _ONNX_DTYPES.get(i.type, i.type))
            for i in session.get_inputs()
        )

    def bind(self, inputs: Sequence[Array]) -> Call:
        """A call with the arrays as they are, or on a GPU with the inputs put there before."""
        feed = {port.name: x for port, x in zip(self.ports, inputs, strict=True)}
        if self._device == "cpu":
            return lambda: self._session.run(None, feed)
        binding = self._session.io_binding()
        for name, x in feed.items():
            binding.bind_ortvalue_input(name, self._ort.OrtValue.ortvalue_from_numpy(x, self._device, 0))
        for output in self._session.get_outputs():
            binding.bind_output(output.name, self._device)

        def call() -> Any:
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            return binding.get_outputs()

        return call

    def arrays(self, outputs: Any) -> list[Array]:
        """The outputs, fetched from a GPU where they are there."""
        return [y if isinstance(y, np.ndarray) else y.numpy() for y in outputs]


_ONNX_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


@register
class KerasRunner(Runner):
    """A Keras file, in Keras on TensorFlow, compiled with ``tf.function``."""

    engine = "keras"
    suffixes = (".keras", ".h5", ".hdf5")
    packages = ("keras", "tf_keras", "tensorflow", "numpy")

    def __init__(self, request: Request) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
        purpose = f"to measure {request.path}"
        tf: Any = require("tensorflow", extra="keras", purpose=purpose)
        if request.threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(request.threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        if request.device == "gpu" and not tf.config.list_physical_devices("GPU"):
            raise UnavailableError(f"TensorFlow {tf.__version__} sees no GPU")
        keras: Any = require(request.package, extra="keras", purpose=purpose)
        self._tf = tf
        self._device = "/GPU:0" if request.device == "gpu" else "/CPU:0"
        try:
            with tf.device(self._device):
                model = keras.models.load_model(request.path, compile=False)
        except Exception as error:  # Keras raises whatever a file makes its layers raise
            raise UnavailableError(f"{request.package} cannot load it: {_first_line(error)}") from None
        self._function = tf.function(lambda *inputs: model(_single(inputs), training=False))
        self.ports = tuple(Port(i.name, tuple(i.shape), _dtype_name(i.dtype)) for i in model.inputs)

    def bind(self, inputs: Sequence[Array]) -> Call:
        """A call with the inputs made tensors before."""
        tf = self._tf
        with tf.device(self._device):
            tensors = [tf.constant(x) for x in inputs]

        def call() -> Any:
            with tf.device(self._device):
                outputs = self._function(*tensors)
            # What is on the host is complete, on a GPU as on the CPU.
            return [y.numpy() for y in tf.nest.flatten(outputs)]

        return call

    def arrays(self, outputs: Any) -> list[Array]:
        """The outputs, which the call made arrays."""
        return list(outputs)


def _single(inputs: Sequence[Any]) -> Any:
    return inputs[0] if len(inputs) == 1 else list(inputs)


def _dtype_name(dtype: Any) -> str:
    return dtype if isinstance(dtype, str) else str(dtype.name)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
