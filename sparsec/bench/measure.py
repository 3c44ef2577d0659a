"""The bench: models measured against a reference, in processes that do nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

import numpy as np

from sparsec.bench.machine import describe_machine, package_versions
from sparsec.bench.result import BenchResult, Entry, Figure, Latency, Memory, NotMeasured, Settings
from sparsec.bench.runners import KerasRunner, Request, Runner, runner_for
from sparsec.errors import InputError
from sparsec.extras import require
from sparsec.files import check_input
from sparsec.sampling import check_seed

DEVICES: Final[Mapping[str, tuple[str, ...]]] = {"cpu": ("cpu",), "gpu": ("gpu",), "all": ("cpu", "gpu")}
"""The devices that each choice of ``device`` measures."""

DEFAULT_ROUNDS: Final = 30

THREAD_VARIABLES: Final = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OMP_NUM_THREADS")

Progress = Callable[[str, float], None]
"""Called with what is being measured, and how much of the whole is done, from 0 to 1."""

_LATENCY_SHARE: Final = 3.0
"""How long timing takes for each device and batch size, in units of one memory measurement; for progress only."""


def run_bench(
    reference: str | os.PathLike[str],
    artefacts: Sequence[str | os.PathLike[str]],
    *,
    batch: int | Sequence[int] = 1,
    threads: int | None = 1,
    device: str = "cpu",
    data: str | os.PathLike[str] | None = None,
    input_shapes: Sequence[Sequence[int]] | None = None,
    rounds: int = DEFAULT_ROUNDS,
    seed: int = 0,
    progress: Progress | None = None,
) -> BenchResult:
    """Measure models against a reference.

    File sizes are those of the files. Memory is the resident memory of a fresh process that loads and runs one model, beyond
    that of a bare interpreter. Latency is the median of timed calls in one process that has all models loaded and calls them in
    turn, so that all see the same state of the machine. Bundles run in sparsec, ``.onnx`` files in ONNX Runtime, Keras files in
    Keras.

    Args:
        reference: the model that the others are compared with, usually the dense original.
        artefacts: the others.
        batch: the samples in a call, or several such sizes.
        threads: how many threads every engine may use; ``None`` leaves each its own default.
        device: ``cpu``, ``gpu`` or ``all``.
        data: an ``.npz`` with inputs ``x`` and labels ``y``, to measure accuracy on.
        input_shapes: for each input its shape without the batch, for models that leave sizes open.
        rounds: how many times each model is timed.
        seed: of the random inputs.
        progress: called as the work goes on.

    Raises:
        InputError: a file is missing or cannot be used, or an argument is out of range.
        MissingExtraError: psutil is not installed.
    """
    paths = [Path(reference), *(Path(path) for path in artefacts)]
    batches = (batch,) if isinstance(batch, int) else tuple(batch)
    _check_arguments(paths, batches, threads, device, rounds, seed)
    psutil: Any = require("psutil", extra="report", purpose="to measure memory")
    xy = None if data is None else Path(data)
    if xy is not None:
        check_input(xy)
    settings = Settings(batches, threads, DEVICES[device], rounds, seed, None if xy is None else xy.name)
    bench = _Bench(paths, settings, input_shapes, progress)
    # First, because it is the one that fails where files do not fit together.
    accuracy, samples = bench.accuracy(xy)
    memory = [bench.memory(index) for index in range(len(paths))]
    latency = bench.latency()
    entries = [
        Entry(path.name, runner_for(path).engine, path.stat().st_size, load_ms, used, found, correct)
        for path, (load_ms, used), found, correct in zip(paths, memory, latency, accuracy, strict=True)
    ]
    return BenchResult(
        describe_machine(int(psutil.virtual_memory().total)),
        package_versions(dict.fromkeys(name for path in paths for name in runner_for(path).packages)),
        replace(settings, samples=samples),
        entries[0],
        tuple(entries[1:]),
    )


def _check_arguments(
    paths: Sequence[Path], batches: Sequence[int], threads: int | None, device: str, rounds: int, seed: int
) -> None:
    for path in paths:
        runner_for(path)
        check_input(path)
    if device not in DEVICES:
        raise InputError(f"device {device!r} is none of {', '.join(DEVICES)}")
    numbers = [("batch", size) for size in batches] + [("threads", 1 if threads is None else threads), ("rounds", rounds)]
    for name, number in numbers:
        if number < 1:
            raise InputError(f"{name} {number} is too small; give 1 or more")
    if not batches:
        raise InputError("no batch size was given")
    check_seed(seed)


class _Bench:
    """The jobs of one bench."""

    def __init__(
        self,
        paths: Sequence[Path],
        settings: Settings,
        shapes: Sequence[Sequence[int]] | None,
        progress: Progress | None,
    ) -> None:
        self._paths = paths
        self._packages = [_package(path) for path in paths]
        self._settings = settings
        self._inputs = {"shapes": None if shapes is None else [list(shape) for shape in shapes], "seed": settings.seed}
        self._progress = progress
        timing = _LATENCY_SHARE * len(settings.devices) * len(settings.batch)
        self._total = len(paths) + timing + (settings.data is not None)
        self._done = 0.0

    def memory(self, index: int) -> tuple[Figure, Memory]:
        """The time to load one model, in milliseconds, and its memory."""
        device = self._settings.devices[0]
        job = {"job": "memory", "model": asdict(self._request(index, device)), "batch": self._settings.batch[0], **self._inputs}
        result = self._run(f"memory of {self._paths[index].name}", device, job, 1.0)
        if isinstance(result, NotMeasured):
            return result, Memory(result, result, result)
        return result["load_ms"], Memory(result["loaded"], result["running"], result["peak"])

    def latency(self) -> list[tuple[Latency, ...]]:
        """The latencies of every model."""
        found: list[list[Latency]] = [[] for _ in self._paths]
        for device in self._settings.devices:
            job = {
                "job": "latency",
                "models": [asdict(self._request(index, device)) for index in range(len(self._paths))],
                "batches": list(self._settings.batch),
                "rounds": self._settings.rounds,
                "threads": self._settings.threads,
                **self._inputs,
            }
            result = self._run(f"latency on the {device}", device, job, _LATENCY_SHARE * len(self._settings.batch))
            for index, entry in enumerate(found):
                times = result if isinstance(result, NotMeasured) else result["times"][index]
                entry.extend(_latencies(device, self._settings.batch, times))
        return [tuple(entry) for entry in found]

    def accuracy(self, data: Path | None) -> tuple[list[Figure], int]:
        """The accuracy of every model on the CPU, and the number of samples."""
        if data is None:
            return [NotMeasured("no data was given")] * len(self._paths), 0
        models = [asdict(self._request(index, "cpu")) for index in range(len(self._paths))]
        result = self._run(f"accuracy on {data.name}", "cpu", {"job": "accuracy", "models": models, "data": str(data)}, 1.0)
        if isinstance(result, NotMeasured):
            return [result] * len(self._paths), 0
        found = [NotMeasured(value) if isinstance(value, str) else value for value in result["accuracy"]]
        return found, result["samples"]

    def _request(self, index: int, device: str) -> Request:
        return Request(str(self._paths[index]), device, self._settings.threads, self._packages[index])

    def _run(self, what: str, device: str, job: dict[str, Any], share: float) -> Any:
        """The result of a job in a process of its own, or the reason why there is none."""

        def report(part: float) -> None:
            if self._progress is not None:
                self._progress(what, min((self._done + part * share) / self._total, 1.0))

        report(0.0)
        result = _run_worker(job, self._environment(device), report)
        self._done += share
        report(0.0)
        return result

    def _environment(self, device: str) -> dict[str, str]:
        environment = dict(os.environ)
        # The worker runs as a script, so that nothing is imported before it reads its own memory.
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        if self._settings.threads is not None:
            environment.update(dict.fromkeys(THREAD_VARIABLES, str(self._settings.threads)))
        if device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = "-1"
        return environment


def _run_worker(job: dict[str, Any], environment: Mapping[str, str], report: Callable[[float], None]) -> Any:
    command = [sys.executable, "-P", str(Path(__file__).with_name("worker.py"))]
    with (
        TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        subprocess.Popen(  # noqa: S603 - this interpreter, on a file of this package
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=dict(environment)
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        # A worker that died at once has closed the pipe; its status and last words tell why.
        with suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(json.dumps(job) + "\n")
        last: dict[str, Any] = {}
        for line in process.stdout:
            last = json.loads(line)
            if "progress" in last:
                report(last["progress"])
        status = process.wait()
        log.seek(0)
        said = log.read().strip().splitlines()
    if "result" in last:
        return last["result"]
    if "unavailable" in last:
        return NotMeasured(last["unavailable"])
    if "error" in last:
        raise InputError(last["error"])
    return NotMeasured(f"the process that measured ended with status {status}: {said[-1] if said else 'it said nothing'}")


def _latencies(device: str, batches: Sequence[int], times: Any) -> list[Latency]:
    """The statistics of one model; ``times`` are milliseconds by batch, or the reason why there are none."""
    if isinstance(times, str | NotMeasured):
        reason = times if isinstance(times, NotMeasured) else NotMeasured(times)
        return [Latency(device, batch, reason, reason, reason) for batch in batches]
    found = []
    for batch, samples in zip(batches, times, strict=True):
        low, median, high = np.percentile(samples, (25, 50, 75))
        found.append(Latency(device, batch, float(median), float(high - low), min(samples)))
    return found


def _package(path: Path) -> str:
    """The package that reads a file as it was meant: Keras 2 files mean other things in Keras 3 in places."""
    runner: type[Runner] = runner_for(path)
    if runner is not KerasRunner:
        return ""
    from sparsec.frontends.files import open_source

    with open_source(path) as source:
        return "tf_keras" if source.saved_by.generation == 2 and find_spec("tf_keras") else "keras"
