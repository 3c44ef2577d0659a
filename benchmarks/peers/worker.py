"""Runs a model in an engine that has an environment of its own; started by ``remote.py``, with nothing of sparsec.

It reads commands as lines of JSON from standard input and answers each by one line on standard output:

* ``{"open": path, "x": path of an .npy, "threads": n}`` answers ``{"model": number}``,
* ``{"run": number, "repeats": n}`` answers ``{"seconds": of one call}``, after one call that is not counted,
* ``{"output": number, "to": path of an .npy}`` answers ``{}``,

and ``{"error": message}`` where that failed. The first line that it writes is ``{"version": of the engine}``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

Call = Callable[[], Any]


def open_openvino(path: str, x: np.ndarray, threads: int) -> Call:
    """A call of an ONNX file in OpenVINO."""
    import openvino

    options = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # Where the processor has bfloat16, float32 would not be what it computes with.
        "INFERENCE_PRECISION_HINT": "f32",
        # A thread that is bound to a core waits where something else runs there, though another core may be idle.
        "ENABLE_CPU_PINNING": False,
    }
    request = openvino.Core().compile_model(path, "CPU", options).create_infer_request()
    return lambda: request.infer([x], share_inputs=True, share_outputs=True)[0]


def open_deepsparse(path: str, x: np.ndarray, threads: int) -> Call:
    """A call of an ONNX file in DeepSparse."""
    from deepsparse import Engine

    engine = Engine(path, batch_size=len(x), num_cores=threads)
    return lambda: engine.run([x])[0]


ENGINES = {"openvino": open_openvino, "deepsparse": open_deepsparse}


def answer(command: dict[str, Any], opener: Callable[[str, np.ndarray, int], Call], calls: list[Call]) -> dict[str, Any]:
    """Do what a command asks for."""
    if "open" in command:
        calls.append(opener(command["open"], np.load(command["x"]), command["threads"]))
        return {"model": len(calls) - 1}
    if "run" in command:
        call = calls[command["run"]]
        call()
        start = time.perf_counter()
        for _ in range(command["repeats"]):
            call()
        return {"seconds": (time.perf_counter() - start) / command["repeats"]}
    np.save(command["to"], calls[command["output"]]())
    return {}


def main(engine: str) -> None:
    """Answer commands until there are no more."""
    calls: list[Call] = []
    # What libraries print goes to standard error, so that it does not mix with the answers.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        print(json.dumps({"version": version(engine)}), file=answers, flush=True)
        for line in sys.stdin:
            try:
                found = answer(json.loads(line), ENGINES[engine], calls)
            except Exception as error:
                # Engines raise whatever they like; the other end says which model it was.
                found = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
