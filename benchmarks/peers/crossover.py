"""From which sparsity on sparse is never slower than dense."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from peers.facts import Fact


@dataclass(frozen=True)
class Curve:
    """The facts of one workload at several sparsities, in order."""

    facts: tuple[Fact, ...]

    @property
    def first(self) -> Fact:
        """The fact with the fewest zeros."""
        return self.facts[0]

    def points(self, engine: str) -> list[tuple[float, float]]:
        """Sparsity, and the time of an engine over that of the reference."""
        return [(fact.sparsity, 1.0 / found) for fact in self.facts if (found := fact.speedup(engine)) is not None]

    def crossover(self, engine: str) -> float | None:
        """The smallest sparsity from which on an engine is never slower; none where it is slower at the end.

        It is interpolated between the last measured sparsity where the engine is slower and the next one. Where it is slower
        nowhere, it is the least sparsity that was measured.
        """
        points = self.points(engine)
        if not points or points[-1][1] > 1.0:
            return None
        found = points[0][0]
        for (low, slow), (high, fast) in pairwise(points):
            if slow > 1.0 >= fast:
                found = low + (high - low) * (slow - 1.0) / (slow - fast)
        return found


def curves(facts: Iterable[Fact], least: int = 1) -> list[Curve]:
    """The curves among facts; those of fewer points than ``least`` are left out."""
    found = []
    for _, group in groupby(facts, key=lambda fact: fact.key[:-1]):
        own: Sequence[Fact] = sorted(group, key=lambda fact: fact.sparsity)
        if len(own) >= least:
            found.append(Curve(tuple(own)))
    return found
