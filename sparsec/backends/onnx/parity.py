"""Two-colourings under constraints of equality and inequality, by a disjoint-set forest with parities."""

from __future__ import annotations

from collections.abc import Hashable


class Parities:
    """Sets of things of which each has one of two colours, known relative to the others of its set."""

    def __init__(self) -> None:
        self._above: dict[Hashable, tuple[Hashable, bool]] = {}

    def find(self, item: Hashable) -> tuple[Hashable, bool]:
        """The representative of an item's set, and whether the item differs from it."""
        path: list[tuple[Hashable, bool]] = []
        while item in self._above:
            above, differs = self._above[item]
            path.append((item, differs))
            item = above
        total = False
        for below, differs in reversed(path):
            total ^= differs
            self._above[below] = item, total
        return item, total

    def join(self, a: Hashable, b: Hashable, differ: bool) -> bool:
        """Demand that two items differ, or do not; whether that can be had."""
        (top_a, from_a), (top_b, from_b) = self.find(a), self.find(b)
        if top_a == top_b:
            return (from_a ^ from_b) == differ
        self._above[top_b] = top_a, from_a ^ from_b ^ differ
        return True
