"""A process that measures; started by :mod:`sparsec.bench.measure`, one job a process.

It reads one JSON job from standard input and writes JSON lines to standard output: ``{"progress": ...}`` while it works, and
at the end ``{"result": ...}``, ``{"unavailable": reason}`` where an engine is missing, or ``{"error": message}`` where a file
or an argument cannot be used.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sparsec.bench.runners import Call, Request, Runner
    from sparsec.ir import Array

    Send = Callable[[dict[str, Any]], None]

SAMPLE_SECONDS = 0.002
"""A timed sample repeats calls that are shorter than this, so that the clock does not matter."""

WARM_UP_SECONDS = 0.2
WARM_UP_CALLS = 3
"""Before timing, a model is called at least so often and so long."""

SETTLE_SECONDS = 0.005
"""The pause between samples where engines have threads of their own, which spin for a while after a call."""

MEMORY_CALLS = 5
"""The calls after which running memory is read."""

ACCURACY_BATCH = 100


def resident() -> int:
    """The resident memory of this process, in bytes."""
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def peak_resident() -> int:
    """The most resident memory that this process has had, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would count what the process had in memory before it became a Python of its own.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure_memory(job: dict[str, Any], bare: int, send: Send) -> dict[str, Any]:
    """Load one model, run it, and read the resident memory in between.

    Args:
        job: ``model`` (a request), ``batch``, ``shapes``, ``seed``.
        bare: the resident memory of the process before it imported anything.
        send: not used.
    """
    from sparsec.bench.runners import Request

    start = time.perf_counter()
    runner = _open(Request(**job["model"]))
    load_ms = (time.perf_counter() - start) * 1e3
    loaded = resident() - bare
    call = runner.bind(_fit(_inputs(runner, job["batch"], job["shapes"], job["seed"]), runner))
    for _ in range(MEMORY_CALLS):
        call()
    return {
        "load_ms": load_ms,
        "loaded": loaded,
        "running": resident() - bare,
        "peak": peak_resident() - bare,
    }


def measure_latency(job: dict[str, Any], bare: int, send: Send) -> dict[str, Any]:
    """Time several models in turn, one sample of each a round.

    Args:
        job: ``models`` (requests), ``batches``, ``shapes``, ``rounds``, ``seed``, ``threads``.
        bare: not used.
        send: takes a message after each round.

    Returns:
        for each model a list of lists of milliseconds by batch, or the reason why it could not be measured.
    """
    from sparsec.bench.runners import Request

    opened = [_try_open(Request(**model)) for model in job["models"]]
    times: list[Any] = [[] if not isinstance(found, str) else found for found in opened]
    alive = {index: runner for index, runner in enumerate(opened) if not isinstance(runner, str)}
    pause = 0.0 if job["threads"] == 1 else SETTLE_SECONDS
    for turn, batch in enumerate(job["batches"]):
        inputs = _reference_inputs(alive, batch, job["shapes"], job["seed"])
        calls = {index: runner.bind(_fit(inputs, runner)) for index, runner in alive.items()}
        repeats = {index: _warm_up(call) for index, call in calls.items()}
        samples: dict[int, list[float]] = {index: [] for index in calls}
        for done in range(job["rounds"]):
            for index, call in calls.items():
                time.sleep(pause)
                samples[index].append(_timed(call, repeats[index]))
            send({"progress": (turn + (done + 1) / job["rounds"]) / len(job["batches"])})
        for index, found in samples.items():
            times[index].append(found)
    return {"times": times}


def measure_accuracy(job: dict[str, Any], bare: int, send: Send) -> dict[str, Any]:
    """The accuracy of several models on the same samples.

    Args:
        job: ``models`` (requests) and ``data``, the path of an ``.npz``.
        bare: not used.
        send: not used.

    Returns:
        for each model the accuracy, or the reason why it could not be measured.
    """
    from sparsec.arrays import load_data
    from sparsec.bench.runners import Request
    from sparsec.comparison import accuracy

    found: list[float | str] = []
    samples = 0
    for model in job["models"]:
        runner = _try_open(Request(**model))
        if isinstance(runner, str):
            found.append(runner)
            continue
        inputs, labels = load_data(Path(job["data"]), [port.name for port in runner.ports])
        samples = len(labels)
        found.append(accuracy(_run_batches(runner, inputs), labels))
    return {"accuracy": found, "samples": samples}


def _run_batches(runner: Runner, inputs: Sequence[Array]) -> Array:
    import numpy as np

    inputs = _fit(inputs, runner)
    parts = []
    for first in range(0, len(inputs[0]), ACCURACY_BATCH):
        chunk = [x[first : first + ACCURACY_BATCH] for x in inputs]
        parts.append(runner.arrays(runner.bind(chunk)())[0])
    return np.concatenate(parts)


def _open(request: Request) -> Runner:
    from sparsec.bench.runners import RUNNERS, runner_for

    runner = RUNNERS[runner_for(Path(request.path)).engine](request)
    runner.label = Path(request.path).name
    return runner


def _try_open(request: Request) -> Runner | str:
    from sparsec.bench.runners import UnavailableError
    from sparsec.errors import MissingExtraError

    try:
        return _open(request)
    except (UnavailableError, MissingExtraError) as error:
        return str(error)


def _inputs(runner: Runner, batch: int, shapes: Sequence[Sequence[int]] | None, seed: int) -> list[Array]:
    """Random inputs for a model: uniform in [-1, 1), integers 0 or 1."""
    import numpy as np

    from sparsec.errors import InputError

    if shapes is not None and len(shapes) != len(runner.ports):
        raise InputError(f"{len(shapes)} input shapes were given for a model with {len(runner.ports)} inputs")
    rng = np.random.default_rng(seed)
    arrays = []
    for index, port in enumerate(runner.ports):
        shape = port.shape[1:] if shapes is None else tuple(shapes[index])
        if None in shape:
            raise InputError(f"input {port.name!r} has open sizes {port.shape}; give its shape without the batch")
        full = (batch, *(size or 0 for size in shape))
        if port.dtype.startswith("float"):
            arrays.append((rng.random(full, np.float32) * 2 - 1).astype(port.dtype))
        else:
            arrays.append(rng.integers(0, 2, full).astype(port.dtype))
    return arrays


def _reference_inputs(runners: dict[int, Runner], batch: int, shapes: Sequence[Sequence[int]] | None, seed: int) -> list[Array]:
    """Inputs in the shape of the first model that could be opened; the others see the same."""
    return _inputs(next(iter(runners.values())), batch, shapes, seed) if runners else []


def _fit(inputs: Sequence[Array], runner: Runner) -> list[Array]:
    """The inputs in a model's dtypes, and with channels first where it wants them so."""
    import numpy as np

    from sparsec.errors import InputError

    fitted = []
    if len(inputs) != len(runner.ports):
        raise InputError(
            f"{runner.label}: takes {len(runner.ports)} inputs, {len(inputs)} were expected: is it the same model?"
        )
    for x, port in zip(inputs, runner.ports, strict=True):
        first = np.moveaxis(x, -1, 1) if x.ndim > 2 else x
        candidates = [form for form in (x, first) if _matches(form.shape, port.shape)]
        if not candidates:
            raise InputError(
                f"{runner.label}: input {port.name!r} of shape {port.shape} does not take an array of shape {x.shape}: "
                "is it the same model?"
            )
        fitted.append(np.ascontiguousarray(candidates[0], dtype=port.dtype))
    return fitted


def _matches(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    pairs = zip(shape[1:], wanted[1:], strict=False)
    return len(shape) == len(wanted) and all(b is None or a == b for a, b in pairs)


def _timed(call: Call, repeats: int) -> float:
    """Milliseconds per call, over ``repeats`` calls."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) * 1e3 / repeats


def _warm_up(call: Call) -> int:
    """Run a model until it is warm; returns how many calls make a sample."""
    shortest = float("inf")
    begin = time.perf_counter()
    calls = 0
    while calls < WARM_UP_CALLS or time.perf_counter() - begin < WARM_UP_SECONDS:
        shortest = min(shortest, _timed(call, 1) / 1e3)
        calls += 1
    return max(1, round(SAMPLE_SECONDS / shortest))


JOBS = {"memory": measure_memory, "latency": measure_latency, "accuracy": measure_accuracy}


def main() -> None:
    """Do the job that stands on standard input."""
    bare = resident()
    job = json.loads(sys.stdin.readline())
    # What libraries print goes to standard error, so that it does not mix with the messages.
    with os.fdopen(os.dup(1), "w") as messages:
        os.dup2(2, 1)

        def send(message: dict[str, Any]) -> None:
            messages.write(json.dumps(message) + "\n")
            messages.flush()

        from sparsec.bench.runners import UnavailableError
        from sparsec.errors import MissingExtraError, SparsecError

        try:
            send({"result": JOBS[job.pop("job")](job, bare, send)})
        except (UnavailableError, MissingExtraError) as error:
            send({"unavailable": str(error)})
        except SparsecError as error:
            send({"error": str(error)})


if __name__ == "__main__":
    main()
