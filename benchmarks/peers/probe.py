"""Loads one model in a process that does nothing else, runs it once, and says what that took; started by ``memory.py``.

The command line names the engine, the model, and an ``.npy`` with its input. It writes one line of JSON: the bytes of resident
memory over a process that has NumPy and the input alone, at the end (``resident``) and at most (``peak``); and the seconds that
importing the engine took (``import``), from there until the model could be called (``ready``), and until the first answer was
there (``answer``). Linux only.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Call = Callable[[], Any]
Load = Callable[[str, np.ndarray], Call]


def import_sparsec(**options: Any) -> Load:
    """How sparsec loads a bundle."""
    import sparsec

    load_bundle = sparsec.load

    def load(path: str, x: np.ndarray) -> Call:
        model = load_bundle(path, threads=1, batch=len(x), **options)
        return lambda: model(x)

    return load


def import_sparsec_mapped() -> Load:
    """How sparsec loads a bundle that it maps into memory."""
    return import_sparsec(mmap=True)


def import_onnxruntime() -> Load:
    """How ONNX Runtime loads an ONNX file."""
    import onnxruntime

    def load(path: str, x: np.ndarray) -> Call:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: x}
        return lambda: session.run(None, feed)

    return load


def import_openvino() -> Load:
    """How OpenVINO loads an ONNX file."""
    import openvino

    def load(path: str, x: np.ndarray) -> Call:
        options = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        request = openvino.Core().compile_model(path, "CPU", options).create_infer_request()
        return lambda: request.infer([x], share_inputs=True, share_outputs=True)

    return load


IMPORTS: dict[str, Callable[[], Load]] = {
    "sparsec": import_sparsec,
    "sparsec-mapped": import_sparsec_mapped,
    "onnxruntime": import_onnxruntime,
    "openvino": import_openvino,
}


def main(engine: str, path: str, given: str) -> None:
    """Load, run once, and report."""
    x = np.load(given)
    gc.collect()
    bare = _memory("VmRSS")
    start = time.perf_counter()
    load = IMPORTS[engine]()
    imported = time.perf_counter()
    call = load(path, x)
    ready = time.perf_counter()
    call()
    answer = time.perf_counter()
    gc.collect()
    found = {
        "resident": _memory("VmRSS") - bare,
        "peak": _memory("VmHWM") - bare,
        "import": imported - start,
        "ready": ready - imported,
        "answer": answer - imported,
    }
    print(json.dumps(found))


def _memory(name: str) -> int:
    """A figure of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status says nothing of {name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
