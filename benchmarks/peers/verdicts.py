"""What was measured against what is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from targets import DEEPSPARSE_MEDIAN, MEMORY, TARGETS, Measure, Target

from peers.engines import REFERENCE, SPARSEC
from peers.facts import Fact, Key
from peers.workloads import BLOCKS, WORKLOADS
from sparsec.text import Column, Row

COLUMNS: Final = [Column(title) for title in ("What", "Measure", "Zeros", "Wanted", "Seen", "Met")]


@dataclass(frozen=True)
class Point:
    """A figure and what is wanted of it.

    Attributes:
        zeros: the sparsity, as text; empty where the figure is of several.
        wanted: the value to reach, or to stay below.
        seen: the value; none where it was not measured.
        most: whether ``wanted`` is the most, not the least.
    """

    zeros: str
    wanted: float
    seen: float | None
    most: bool = False

    @property
    def missed(self) -> bool:
        """Whether it was measured, and is not as wanted."""
        if self.seen is None:
            return False
        return self.seen > self.wanted if self.most else self.seen < self.wanted


@dataclass(frozen=True)
class Verdict:
    """What became of one requirement.

    Attributes:
        what: it is about.
        measure: what was measured of it.
        points: figures, by sparsity.
    """

    what: str
    measure: str
    points: tuple[Point, ...]

    @property
    def missed(self) -> bool:
        """Whether a figure that was measured is not as wanted."""
        return any(point.missed for point in self.points)

    @property
    def measured(self) -> bool:
        """Whether all was measured."""
        return all(point.seen is not None for point in self.points)

    @property
    def row(self) -> Row:
        """A row of :data:`COLUMNS`."""
        zeros = "/".join(point.zeros for point in self.points)
        wanted = "/".join(dict.fromkeys(f"{point.wanted:.2f}" for point in self.points))
        seen = "/".join("-" if point.seen is None else f"{point.seen:.2f}" for point in self.points)
        met = "NO" if self.missed else "yes" if self.measured else "not measured"
        return self.what, self.measure, zeros, wanted, seen, met


def verdicts(facts: Iterable[Fact], memory: Mapping[str, float]) -> Iterator[Verdict]:
    """Compare results with :data:`targets.TARGETS` and what else stands there.

    Args:
        facts: of the engines side by side.
        memory: what ``memory.py`` found of sparsec, over what ONNX Runtime takes; empty where it did not run.
    """
    known = {fact.key: fact for fact in facts}
    for target in TARGETS:
        points = (Point(f"{share:.0%}", least, _value(target, share, known)) for share, least in target.least.items())
        yield Verdict(_title(target), target.measure.value, tuple(points))
    blocks = {workload.name for workload in BLOCKS}
    compared = [target for target in TARGETS if target.measure is Measure.DEEPSPARSE and target.workload not in blocks]
    values = [_value(target, share, known) for target in compared for share in target.least]
    found = [value for value in values if value is not None]
    middle = median(found) if len(found) == len(values) else None
    yield Verdict("layers and networks, median", Measure.DEEPSPARSE.value, (Point("", DEEPSPARSE_MEDIAN, middle),))
    for name, most in MEMORY.items():
        yield Verdict("memory and start", f"{name}, over ONNX Runtime's", (Point("", most, memory.get(name), most=True),))


def _title(target: Target) -> str:
    threads = f", {target.threads} threads" if target.threads > 1 else ""
    return f"{WORKLOADS[target.workload].title}, batch {target.batch}{threads}"


def _value(target: Target, sparsity: float, facts: Mapping[Key, Fact]) -> float | None:
    fact = facts.get((target.workload, target.batch, target.threads, sparsity))
    return None if fact is None else _OF[target.measure](fact)


def _scaling(fact: Fact) -> float | None:
    run = fact.run(SPARSEC)
    if run is None or not {SPARSEC, REFERENCE} <= run.single.keys():
        return None
    own, reference = (run.single[name] / run.milliseconds[name] for name in (SPARSEC, REFERENCE))
    return own / reference


_OF: Mapping[Measure, Any] = {
    Measure.SPEED: lambda fact: fact.speedup(SPARSEC),
    Measure.INT8: lambda fact: fact.ratio(SPARSEC, "onnxruntime-int8"),
    Measure.DEEPSPARSE: lambda fact: fact.ratio(SPARSEC, "deepsparse"),
    Measure.AVX2: lambda fact: fact.ratio("sparsec-avx2", SPARSEC),
    Measure.SCALING: _scaling,
}
