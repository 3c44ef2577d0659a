"""What was measured of a workload, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from peers.engines import ENGINES, REFERENCE, SPARSEC
from peers.workloads import WORKLOADS


@dataclass(frozen=True)
class Fact:
    """What was measured of one workload at one sparsity.

    Attributes:
        workload: its name.
        batch: the number of samples.
        threads: how many each engine might use.
        sparsity: the share of zeros.
        milliseconds: the median time of a call, by engine.
        missing: why others were not measured, by engine.
        error: of sparsec, over the range of the outputs.
        conversion: of single layers, the milliseconds of sparsec's call that go into converting inputs and outputs from and to
            channels last; other engines get such layers in their own layout.
        ceiling: of single layers, the multiply-adds of a millisecond in a large product of dense matrices in BLAS.
    """

    workload: str
    batch: int
    threads: int
    sparsity: float
    milliseconds: Mapping[str, float]
    missing: Mapping[str, str]
    error: float
    conversion: float | None = None
    ceiling: float | None = None

    @property
    def key(self) -> tuple[str, int, int, float]:
        """What a newer fact of the same replaces."""
        return self.workload, self.batch, self.threads, self.sparsity

    @property
    def wrong(self) -> list[str]:
        """What of sparsec was not measured: all that can keep it from that is a wrong output."""
        return [f"{name} at {self}: {reason}" for name, reason in self.missing.items() if name.startswith(SPARSEC)]

    def __str__(self) -> str:
        return f"{self.workload} batch {self.batch} threads {self.threads} zeros {self.sparsity:.0%}"

    def net(self, engine: str) -> float | None:
        """The milliseconds of an engine, less the conversion of a single layer; none where it was not measured."""
        found = self.milliseconds.get(engine)
        if found is None or self.conversion is None or not engine.startswith(SPARSEC):
            return found
        return found - self.conversion

    def speedup(self, engine: str) -> float | None:
        """How many times faster an engine is than the dense original in the reference; none where it was not measured."""
        found = self.net(engine)
        return None if found is None else self.milliseconds[REFERENCE] / found

    def share(self, engine: str) -> float | None:
        """The multiply-adds of a single layer that are not by zero, over those that BLAS would do in the time of an engine.

        Where an engine runs the dense original, zeros count as well.
        """
        macs, found = WORKLOADS[self.workload].macs, self.net(engine)
        if macs is None or found is None or self.ceiling is None:
            return None
        done = macs * self.batch * (1.0 - self.sparsity if ENGINES[engine].sparse else 1.0)
        return done / found / self.ceiling

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)
