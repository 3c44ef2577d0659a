"""What was measured of a workload, and what follows from it.

A run measures engines side by side: only times of one run can be compared. What was measured of one workload may come from
several runs, each of some engines and always of the reference; so each run's figures stay together, with the reference's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from peers.engines import ENGINES, REFERENCE, SPARSEC
from peers.setups import Setup
from peers.workloads import WORKLOADS

Key = tuple[str, int, int, float]


@dataclass(frozen=True)
class Run:
    """What was measured in one run of one workload at one sparsity.

    Attributes:
        setup: on what.
        milliseconds: the median time of a call, by engine; the reference is among them.
        single: where engines might use several threads, the same with one thread.
        missing: why engines that took part were not measured, by engine.
        error: of sparsec, over the range of the outputs.
        conversion: of single layers, the milliseconds of sparsec's call that go into converting inputs and outputs from and to
            channels last; other engines get such layers in their own layout.
        ceiling: of single layers, the multiply-adds of a millisecond in a large product of dense matrices in BLAS.
    """

    setup: Setup
    milliseconds: Mapping[str, float]
    single: Mapping[str, float]
    missing: Mapping[str, str]
    error: float
    conversion: float | None = None
    ceiling: float | None = None

    @property
    def engines(self) -> set[str]:
        """Those that took part, the reference aside."""
        return {*self.milliseconds, *self.missing} - {REFERENCE}

    def without(self, engines: Iterable[str]) -> Run:
        """The same without what was found of some engines."""
        gone = set(engines)
        times, single, missing = (_without(found, gone) for found in (self.milliseconds, self.single, self.missing))
        return replace(self, milliseconds=times, single=single, missing=missing)

    def by_build(self, build: str) -> Run:
        """The same without figures of sparsec where they are of another build."""
        return self if self.setup.build == build else self.without(name for name in self.engines if name.startswith(SPARSEC))

    def net(self, engine: str) -> float:
        """The milliseconds of an engine, less the conversion of a single layer."""
        found = self.milliseconds[engine]
        return found - self.conversion if self.conversion is not None and engine.startswith(SPARSEC) else found


def _without(found: Mapping[str, Any], gone: set[str]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in gone}


@dataclass(frozen=True)
class Fact:
    """What was measured of one workload at one sparsity.

    Attributes:
        workload: its name.
        batch: the number of samples.
        threads: how many each engine might use.
        sparsity: the share of zeros.
        runs: the newest first; an engine is in the newest that it took part in, the reference in each.
    """

    workload: str
    batch: int
    threads: int
    sparsity: float
    runs: tuple[Run, ...]

    @property
    def key(self) -> Key:
        """What it is about."""
        return self.workload, self.batch, self.threads, self.sparsity

    @property
    def wrong(self) -> list[str]:
        """What of sparsec was not measured: all that can keep it from that is a wrong output."""
        return [f"{name} at {self}: {reason}" for name, reason in self.missing.items() if name.startswith(SPARSEC)]

    @property
    def missing(self) -> dict[str, str]:
        """Why engines were not measured."""
        return {name: reason for run in self.runs for name, reason in run.missing.items()}

    @property
    def reference(self) -> float:
        """The milliseconds of the dense original in the reference, in the newest run."""
        return self.runs[0].milliseconds[REFERENCE]

    def __str__(self) -> str:
        return f"{self.workload} batch {self.batch} threads {self.threads} zeros {self.sparsity:.0%}"

    def after(self, older: Fact | None) -> Fact:
        """This, and what older runs measured of engines that took no part in this."""
        kept = () if older is None else older.runs
        taken = set().union(*(run.engines for run in self.runs))
        left = (run.without(taken) for run in kept)
        return replace(self, runs=(*self.runs, *(run for run in left if run.engines)))

    def by_build(self, build: str) -> Fact:
        """This without figures of sparsec of other builds."""
        runs = (run.by_build(build) for run in self.runs)
        return replace(self, runs=tuple(run for run in runs if run.engines))

    def run(self, *engines: str) -> Run | None:
        """The newest run that measured these engines side by side; none where there is none."""
        return next((run for run in self.runs if all(engine in run.milliseconds for engine in engines)), None)

    def ratio(self, engine: str, other: str) -> float | None:
        """How many times faster an engine is than another; none where they were not measured in one run."""
        run = self.run(engine, other)
        return None if run is None else run.net(other) / run.net(engine)

    def speedup(self, engine: str) -> float | None:
        """How many times faster an engine is than the dense original in the reference; none where it was not measured."""
        return self.ratio(engine, REFERENCE)

    def scaling(self, engine: str) -> float | None:
        """How many times faster a call is than with one thread; none where that was not measured in the same run."""
        run = self.run(engine)
        return None if run is None or engine not in run.single else run.single[engine] / run.milliseconds[engine]

    def share(self, engine: str) -> float | None:
        """The multiply-adds of a single layer that are not by zero, over those that BLAS would do in the time of an engine.

        Where an engine runs the dense original, zeros count as well.
        """
        macs, run = WORKLOADS[self.workload].macs, self.run(engine)
        if macs is None or run is None or run.ceiling is None:
            return None
        done = macs * self.batch * (1.0 - self.sparsity if ENGINES[engine].sparse else 1.0)
        return done / run.net(engine) / run.ceiling
