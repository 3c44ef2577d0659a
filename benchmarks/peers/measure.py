"""Measuring one workload in all engines, which take turns in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final, NamedTuple

import numpy as np
from common import in_turn

from peers.artefacts import Artefacts
from peers.engines import (
    ENGINES,
    SPARSEC,
    Engine,
    Local,
    Opened,
    Setting,
    UnavailableError,
    UnfitError,
    open_edges,
    open_onnx,
)
from peers.facts import Fact
from peers.remote import RemoteError, Workers
from peers.workloads import Workload
from sparsec.ir import Array

TOLERANCE: Final = 1e-3
"""By how much of the range of the outputs an engine may be off."""

SAMPLE_SECONDS: Final = 2e-3
SETTLE_SECONDS: Final = 5e-3
"""The pause between samples where engines have threads of their own, which may be busy for a while after a call."""

EDGES, NOTHING, CEILING = "edges", "nothing", "ceiling"
"""Calls that go along with single layers: next to no work with their inputs, next to no inputs, and a product of BLAS."""

CEILING_SIZE: Final = 768
"""Rows and columns of the matrices that BLAS multiplies."""


@dataclass(frozen=True)
class Case:
    """What is measured in one run.

    Attributes:
        workload: which.
        batch: the number of samples.
        sparsities: of the pruned models, which take turns too.
        threads: how many each engine may use; one model of each takes part for every number.
    """

    workload: Workload
    batch: int
    sparsities: tuple[float, ...]
    threads: tuple[int, ...]


class Key(NamedTuple):
    """What a call runs: the name of an engine, the sparsity where that matters, and the threads."""

    name: str
    sparsity: float | None
    threads: int


@dataclass
class _Run:
    """What takes turns.

    Attributes:
        calls: what is timed.
        errors: of those that can be checked, over the range of the outputs.
        missing: why others are not timed.
    """

    calls: dict[Key, Opened] = field(default_factory=dict)
    errors: dict[Key, float] = field(default_factory=dict)
    missing: dict[Key, str] = field(default_factory=dict)

    def enter(self, key: Key, engine: Engine, setting: Setting, expected: Array) -> None:
        """Open a model and check what it computes."""
        try:
            opened = engine.open(setting)
            error = _error(opened.output(), expected) if engine.checked else 0.0
        except (UnavailableError, RemoteError) as problem:
            self.missing[key] = str(problem)
        except UnfitError:
            pass
        else:
            # The error may not be a number either.
            if error <= TOLERANCE:
                self.calls[key], self.errors[key] = opened, error
            else:
                self.missing[key] = f"it is off by more than {TOLERANCE:g} of the range of the outputs"


def measure(case: Case, engines: Sequence[Engine], rounds: int, workers: Workers) -> list[Fact]:
    """Measure one case.

    Args:
        case: what.
        engines: which; the reference is one of them.
        rounds: the samples of each.
        workers: engines in environments of their own.

    Returns:
        a fact for each sparsity and number of threads. An engine whose outputs are off by more than :data:`TOLERANCE` is not
        timed.
    """
    files = Artefacts(case.workload)
    expected = _expected(files, case)
    run = _Run()
    for threads, engine in product(case.threads, engines):
        for sparsity in case.sparsities if engine.sparse else (None,):
            # The dense original is the same whatever the sparsity.
            setting = Setting(files, case.sparsities[0] if sparsity is None else sparsity, case.batch, threads, workers)
            run.enter(Key(engine.name, sparsity, threads), engine, setting, expected[sparsity])
    if case.workload.layer:
        run.calls |= _companions(files, case, workers)
    pause = 0.0 if max(case.threads) == 1 else SETTLE_SECONDS
    times = in_turn({key: opened.seconds for key, opened in run.calls.items()}, rounds, SAMPLE_SECONDS, pause)
    return [_fact(case, sparsity, threads, times, run) for threads, sparsity in product(case.threads, case.sparsities)]


def _expected(files: Artefacts, case: Case) -> dict[float | None, Array]:
    """What the pruned models compute, and the dense original, in the reference."""
    paths = {None: files.dense_onnx(case.batch)} | {s: files.pruned_onnx(s, case.batch) for s in case.sparsities}
    return {sparsity: open_onnx(path, files.fed(case.batch), 1).output() for sparsity, path in paths.items()}


def _error(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / np.ptp(expected))


def _companions(files: Artefacts, case: Case, workers: Workers) -> dict[Key, Opened]:
    found: dict[Key, Opened] = {}
    for threads in case.threads:
        setting = Setting(files, 0.0, case.batch, threads, workers)
        found[Key(EDGES, None, threads)] = open_edges(setting, case.workload.shape)
        found[Key(NOTHING, None, threads)] = open_edges(setting, (1,))
    if 1 in case.threads:
        a, b = np.random.default_rng(0).standard_normal((2, CEILING_SIZE, CEILING_SIZE), np.float32)
        found[Key(CEILING, None, 1)] = Local(lambda: a @ b)
    return found


def _fact(case: Case, sparsity: float, threads: int, times: Mapping[Key, float], run: _Run) -> Fact:
    def of(found: Mapping[Key, Any]) -> dict[str, Any]:
        keys = (Key(name, share, threads) for name in ENGINES for share in (None, sparsity))
        return {key.name: found[key] for key in keys if key in found}

    edges, nothing, ceiling = (times.get(Key(name, None, threads)) for name in (EDGES, NOTHING, CEILING))
    return Fact(
        workload=case.workload.name,
        batch=case.batch,
        threads=threads,
        sparsity=sparsity,
        milliseconds=of(times),
        missing=of(run.missing),
        error=max((error for name, error in of(run.errors).items() if name.startswith(SPARSEC)), default=0.0),
        conversion=None if edges is None or nothing is None else max(edges - nothing, 0.0),
        ceiling=None if ceiling is None else CEILING_SIZE**3 / ceiling,
    )
