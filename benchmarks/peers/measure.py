"""Measuring one workload in all engines, which take turns in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final, NamedTuple

import numpy as np
from common import Rounds, in_turn

from peers.artefacts import Artefacts
from peers.engines import ENGINES, REFERENCE, SPARSEC, Engine, Local, Opened, Setting, open_edges, open_onnx
from peers.facts import Fact, Run
from peers.facts import Key as FactKey
from peers.remote import RemoteError, Workers
from peers.setups import Setup, this_setup
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
        threads: how many each engine may use; where that is more than one, models with one thread take part as well.
    """

    workload: Workload
    batch: int
    sparsities: tuple[float, ...]
    threads: int

    def __str__(self) -> str:
        shares = " ".join(f"{sparsity:.0%}" for sparsity in self.sparsities)
        return f"{self.workload.name} batch {self.batch} threads {self.threads} zeros {shares}"

    def fitting(self, engines: Iterable[Engine]) -> list[Engine]:
        """The engines that are made for it."""
        return [engine for engine in engines if engine.fits(self.workload, self.threads)]

    @property
    def keys(self) -> list[FactKey]:
        """Of the facts that it gives."""
        return [(self.workload.name, self.batch, self.threads, sparsity) for sparsity in self.sparsities]

    @property
    def counts(self) -> list[int]:
        """The numbers of threads that take turns."""
        return sorted({1, self.threads})


class Key(NamedTuple):
    """What a call runs: the name of an engine, the sparsity where that matters, and the threads."""

    name: str
    sparsity: float | None
    threads: int


@dataclass
class _Turns:
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
        except Exception as problem:
            # What others raise is theirs, and no reason to measure nothing; sparsec and the reference have to work.
            if engine.name == REFERENCE or engine.name.startswith(SPARSEC):
                raise
            self.missing[key] = _reason(problem)
        else:
            # The error may not be a number either.
            if error <= TOLERANCE:
                self.calls[key], self.errors[key] = opened, error
            else:
                self.missing[key] = f"it is off by more than {TOLERANCE:g} of the range of the outputs"

    def seconds(self, key: Key) -> Callable[[int], float | None]:
        """Times calls; from the first that fails on there are no more, and the reason is kept."""

        def timed(repeats: int) -> float | None:
            if key in self.missing:
                return None
            try:
                return self.calls[key].seconds(repeats)
            except RemoteError as problem:
                self.missing[key] = _reason(problem)
                return None

        return timed


def measure(case: Case, engines: Sequence[Engine], rounds: Rounds, workers: Workers) -> list[Fact]:
    """Measure one case.

    Args:
        case: what.
        engines: which; the reference is one of them.
        rounds: how many samples of each.
        workers: engines in environments of their own.

    Returns:
        a fact for each sparsity. An engine that fails, or whose outputs are off by more than :data:`TOLERANCE`, is not timed.
    """
    files = Artefacts(case.workload)
    expected = _expected(files, case)
    turns = _Turns()
    for threads, engine in product(case.counts, case.fitting(engines)):
        for sparsity in case.sparsities if engine.sparse else (None,):
            # The dense original is the same whatever the sparsity.
            setting = Setting(files, case.sparsities[0] if sparsity is None else sparsity, case.batch, threads, workers)
            turns.enter(Key(engine.name, sparsity, threads), engine, setting, expected[sparsity])
    if case.workload.layer:
        turns.calls |= _companions(files, case, workers)
    pause = 0.0 if case.threads == 1 else SETTLE_SECONDS
    times = in_turn({key: turns.seconds(key) for key in turns.calls}, rounds, SAMPLE_SECONDS, pause)
    setup = this_setup(workers.versions)
    return [_fact(case, sparsity, times, turns, setup) for sparsity in case.sparsities]


def _expected(files: Artefacts, case: Case) -> dict[float | None, Array]:
    """What the pruned models compute, and the dense original, in the reference."""
    paths = {None: files.dense_onnx(case.batch)} | {s: files.pruned_onnx(s, case.batch) for s in case.sparsities}
    return {sparsity: open_onnx(path, files.fed(case.batch), 1).output() for sparsity, path in paths.items()}


def _error(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / np.ptp(expected))


def _reason(problem: Exception) -> str:
    """In one line."""
    first, *_ = str(problem).strip().splitlines() or [type(problem).__name__]
    return first.rstrip(".")


def _companions(files: Artefacts, case: Case, workers: Workers) -> dict[Key, Opened]:
    setting = Setting(files, 0.0, case.batch, case.threads, workers)
    found: dict[Key, Opened] = {
        Key(EDGES, None, case.threads): open_edges(setting, case.workload.shape),
        Key(NOTHING, None, case.threads): open_edges(setting, (1,)),
    }
    if case.threads == 1:
        a, b = np.random.default_rng(0).standard_normal((2, CEILING_SIZE, CEILING_SIZE), np.float32)
        found[Key(CEILING, None, 1)] = Local(lambda: a @ b)
    return found


def _fact(case: Case, sparsity: float, times: Mapping[Key, float], turns: _Turns, setup: Setup) -> Fact:
    def of(found: Mapping[Key, Any], threads: int) -> dict[str, Any]:
        keys = (Key(name, share, threads) for name in ENGINES for share in (None, sparsity))
        return {key.name: found[key] for key in keys if key in found}

    edges, nothing, ceiling = (times.get(Key(name, None, case.threads)) for name in (EDGES, NOTHING, CEILING))
    errors = of(turns.errors, case.threads)
    run = Run(
        setup=setup,
        milliseconds=of(times, case.threads),
        single=of(times, 1) if case.threads > 1 else {},
        missing=of(turns.missing, case.threads),
        error=max((error for name, error in errors.items() if name.startswith(SPARSEC)), default=0.0),
        conversion=None if edges is None or nothing is None else max(edges - nothing, 0.0),
        ceiling=None if ceiling is None else CEILING_SIZE**3 / ceiling,
    )
    return Fact(case.workload.name, case.batch, case.threads, sparsity, (run,))
