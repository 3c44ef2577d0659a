"""The engines: each opens a workload's file and times calls of it."""

from __future__ import annotations

import os
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

import sparsec
from peers.artefacts import ACTIVATIONS, Artefacts
from peers.remote import RemoteModel, Workers
from peers.workloads import Workload
from sparsec.errors import SparsecError
from sparsec.ir import Array

REFERENCE: Final = "onnxruntime"
"""The engine that the others are compared with."""

SPARSEC: Final = "sparsec"
ISA_VARIABLE: Final = "SPARSEC_ISA"

TRIALS: Final = 3
"""Calls by which the fastest of several settings is found."""


@dataclass(frozen=True)
class Setting:
    """What an engine is to open.

    Attributes:
        artefacts: the files.
        sparsity: of the pruned model.
        batch: the number of samples.
        threads: how many the engine may use.
        workers: engines in environments of their own.
    """

    artefacts: Artefacts
    sparsity: float
    batch: int
    threads: int
    workers: Workers


class Opened(ABC):
    """A model that an engine has opened."""

    @abstractmethod
    def seconds(self, repeats: int) -> float:
        """Call it so often, after one call that is not counted; returns the seconds of one call."""

    @abstractmethod
    def output(self) -> Array:
        """What it computes, laid out as the ONNX files give it."""


@dataclass(frozen=True)
class Local(Opened):
    """A model in this process.

    Attributes:
        call: runs it.
        read: gets the output from what the call returned.
    """

    call: Callable[[], Any]
    read: Callable[[Any], Array] = lambda result: np.asarray(result)

    def seconds(self, repeats: int) -> float:  # noqa: D102
        self.call()
        start = time.perf_counter()
        for _ in range(repeats):
            self.call()
        return (time.perf_counter() - start) / repeats

    def output(self) -> Array:  # noqa: D102
        return self.read(self.call())


@dataclass(frozen=True)
class Remote(Opened):
    """A model in the process of another environment."""

    model: RemoteModel

    def seconds(self, repeats: int) -> float:  # noqa: D102
        return self.model.seconds(repeats)

    def output(self) -> Array:  # noqa: D102
        return self.model.output()


@dataclass(frozen=True)
class Engine:
    """An engine with its settings.

    Attributes:
        name: on the command line and in results.
        title: in tables.
        open: opens a model; raises whatever it likes where it cannot.
        fits: whether the engine is made for a workload and a number of threads.
        sparse: whether it runs the pruned model; the others run the dense original, whose time does not depend on zeros.
        checked: whether its outputs can be checked: it computes in float32, and all of the model.
        environment: that it runs in, where that is one of its own.
    """

    name: str
    title: str
    open: Callable[[Setting], Opened]
    fits: Callable[[Workload, int], bool] = lambda workload, threads: True
    sparse: bool = False
    checked: bool = True
    environment: str | None = None


@contextmanager
def instructions(isa: str) -> Iterator[None]:
    """Load for an instruction set; the best there is where ``isa`` is empty."""
    before = os.environ.pop(ISA_VARIABLE, None)
    if isa:
        os.environ[ISA_VARIABLE] = isa
    try:
        yield
    finally:
        os.environ.pop(ISA_VARIABLE, None)
        if before is not None:
            os.environ[ISA_VARIABLE] = before


def session(path: os.PathLike[str], threads: int) -> Any:
    """A session of ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if threads > 1:
        # Threads that spin after a call would take the core from the engine whose turn is next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _sparsec(isa: str) -> Callable[[Setting], Opened]:
    def opened(setting: Setting) -> Opened:
        with instructions(isa):
            model = sparsec.load(setting.artefacts.bundle(setting.sparsity), threads=setting.threads, batch=setting.batch)
            others = sorted({step.op for step in model.plan(setting.batch) if not step.kernel.startswith("native/")})
        if others:
            raise SparsecError(f"{', '.join(others)} did not run natively, so this would not measure the native engine")
        x = setting.artefacts.workload.inputs(setting.batch)
        return Local(lambda: model(x), setting.artefacts.as_fed)

    return opened


def open_edges(setting: Setting, shape: tuple[int, ...]) -> Opened:
    """A model for sparsec that does next to nothing with samples of a shape."""
    model = sparsec.load(setting.artefacts.edges(shape), threads=setting.threads, batch=setting.batch)
    x = np.ones((setting.batch, *shape), np.float32)
    return Local(lambda: model(x))


def open_onnx(path: os.PathLike[str], x: Array, threads: int) -> Opened:
    """An ONNX file of one input and one output in ONNX Runtime."""
    model = session(path, threads)
    feed = {model.get_inputs()[0].name: x}
    return Local(lambda: model.run(None, feed), lambda results: np.asarray(results[0]))


def _onnxruntime(setting: Setting) -> Opened:
    files = setting.artefacts
    return open_onnx(files.dense_onnx(setting.batch), files.fed(setting.batch), setting.threads)


def _fastest(candidates: Mapping[str, Opened]) -> Opened:
    return min(candidates.values(), key=lambda opened: min(opened.seconds(1) for _ in range(TRIALS)))


def _onnxruntime_int8(setting: Setting) -> Opened:
    files = setting.artefacts
    x = files.fed(setting.batch)
    return _fastest({kind: open_onnx(files.int8_onnx(kind, setting.batch), x, setting.threads) for kind in ACTIVATIONS})


def _litert(setting: Setting) -> Opened:
    import tensorflow as tf

    with warnings.catch_warnings():
        # It says that it moves to a package of its own.
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(str(setting.artefacts.litert(setting.batch)), num_threads=setting.threads)
    interpreter.allocate_tensors()
    entry, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    x = setting.artefacts.workload.inputs(setting.batch)

    def call() -> Array:
        interpreter.set_tensor(entry, x)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(result))

    return Local(call, setting.artefacts.as_fed)


def _is_one_product(workload: Workload, threads: int) -> bool:
    """What scipy computes: dense layers and 1x1 convolutions, with one thread."""
    return threads == 1 and workload.layer and not workload.name.startswith("3x3")


def _scipy(setting: Setting) -> Opened:
    from scipy import sparse

    workload = setting.artefacts.workload
    matrix = sparse.csr_array(setting.artefacts.kernel(setting.sparsity))
    # A column for each position of a sample, or for each sample: what it is fastest with.
    x = np.ascontiguousarray(np.moveaxis(workload.inputs(setting.batch), -1, 0).reshape(matrix.shape[1], -1))
    return Local(lambda: matrix @ x)


def _remote(name: str, title: str, environment: str, path: Callable[[Setting], os.PathLike[str]], **options: Any) -> Engine:
    def opened(setting: Setting) -> Opened:
        worker = setting.workers.get(environment)
        return Remote(worker.open(path(setting), setting.artefacts.fed(setting.batch), setting.threads))

    return Engine(name, title, opened, environment=environment, **options)


def _dense_file(setting: Setting) -> os.PathLike[str]:
    return setting.artefacts.dense_onnx(setting.batch)


def _pruned_file(setting: Setting) -> os.PathLike[str]:
    return setting.artefacts.pruned_onnx(setting.sparsity, setting.batch)


def _int8_file(setting: Setting) -> os.PathLike[str]:
    return setting.artefacts.int8_onnx(ACTIVATIONS[0], setting.batch)


ENGINES: Final = {
    engine.name: engine
    for engine in (
        Engine(REFERENCE, "ONNX Runtime", _onnxruntime),
        Engine("onnxruntime-int8", "ONNX Runtime int8", _onnxruntime_int8, checked=False),
        Engine(SPARSEC, "sparsec", _sparsec(""), sparse=True),
        Engine("sparsec-avx2", "sparsec AVX2", _sparsec("avx2"), sparse=True),
        _remote("openvino", "OpenVINO", "openvino", _dense_file),
        _remote("openvino-int8", "OpenVINO int8", "openvino", _int8_file, checked=False),
        Engine("litert", "LiteRT", _litert),
        _remote("deepsparse", "DeepSparse", "deepsparse", _pruned_file, sparse=True),
        Engine("scipy", "scipy CSR", _scipy, _is_one_product, sparse=True, checked=False),
    )
}
"""By name, in the order of tables."""
