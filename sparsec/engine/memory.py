"""Where values lie: which are parts of others, which take the place of one that is done with, and where in the arena.

Offsets are found greedily, the largest value first, each at the lowest place where nothing lies that lives at the same time
(Pisarchyk and Lee 2020, "Efficient memory management for deep neural net inference", greedy by size for offset calculation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sparsec.engine.steps import Concat, Item, Planes, Step, View

ARENA: Final = 0
"""The number of the memory in which values lie that are neither inputs nor outputs of the plan."""

IN_PLACE: Final = frozenset({"map", "softmax", "normalise"})
"""The kernels that may write over their input."""

OVER_RESIDUAL: Final = frozenset({"product", "windows"})
"""The kernels that may write over their residual: they read each element of it before they write that element."""


@dataclass(frozen=True)
class Place:
    """Where a value lies.

    Attributes:
        base: the number of the memory.
        offset: floats from its beginning.
    """

    base: int
    offset: int


@dataclass
class _Root:
    """A value that is part of no other: its size, and from which step to which it lives."""

    floats: int
    first: int = -1
    last: int = -1
    base: int = ARENA
    parts: bool = False


class Memory:
    """The places of all values of a plan.

    Args:
        items: of the plan, in order.
        planes: the sizes of all values.
        external: the values that lie in a memory of their own, by its number.

    Attributes:
        steps: the steps in order, with those that copy what could not be made in its place.
        floats: the size of the arena.
    """

    def __init__(self, items: Sequence[Item], planes: Mapping[str, Planes], external: Mapping[str, int]) -> None:
        self.steps: list[Step] = []
        self.planes = dict(planes)
        self._external = external
        self._parent: dict[str, tuple[str, int]] = {}
        self._roots: dict[str, _Root] = {}
        for item in items:
            self._enter(item)
        self._live()
        self._reuse()
        self.floats = self._arrange()

    def place(self, value: str) -> Place:
        """Where a value lies."""
        root, row = self._root(value)
        found = self._roots[root]
        return Place(found.base, self._offsets.get(root, 0) + row * self.planes[value].pitch)

    # --- parts ------------------------------------------------------------------------------------------------------

    def _enter(self, item: Item) -> None:
        if isinstance(item, Step):
            self.steps.append(item)
        elif isinstance(item, View):
            self._parent[item.y] = (item.of, item.row)
        else:
            self._join(item)

    def _join(self, item: Concat) -> None:
        row = 0
        for index, part in enumerate(item.parts):
            name = part
            if part in self._parent or part in self._external or part in item.parts[:index]:
                name = f"{item.y}.{index}"
                self.planes[name] = self.planes[part]
                self.steps.append(Step("map", part, name))
            self._parent[name] = (item.y, row)
            row += self.planes[part].channels

    def _root(self, value: str) -> tuple[str, int]:
        row = 0
        while value in self._parent:
            value, step = self._parent[value]
            row += step
        return value, row

    # --- lifetimes --------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        for value in self._external:
            self._roots[value] = _Root(0, base=self._external[value])
        for index, step in enumerate(self.steps):
            for value in (*step.reads, *step.writes):
                root, _ = self._root(value)
                found = self._roots.setdefault(root, _Root(self.planes[root].floats, index))
                found.last = index
                found.parts |= root != value
        for value, (root, _) in self._parent.items():
            self._roots[self._root(value)[0]].parts |= root != value

    def _reuse(self) -> None:
        """Let outputs take the place of inputs that nobody reads any more."""
        for index, step in enumerate(self.steps):
            y, _ = self._root(step.result)
            target = self._roots[y]
            if target.parts or target.base != ARENA or target.first != index:
                continue
            read = [self._root(value)[0] for value in step.reads]
            for value in self._replaceable(step):
                root, _ = self._root(value)
                found = self._roots[root]
                if read.count(root) > 1:
                    continue
                if not found.parts and found.base == ARENA and found.last == index and found.floats == target.floats:
                    self._parent[y] = (root, 0)
                    found.last = target.last
                    del self._roots[y]
                    break

    def _replaceable(self, step: Step) -> list[str]:
        """The inputs in whose place a step may write."""
        if step.kernel in IN_PLACE and self.planes[step.x] == self.planes[step.y]:
            return [step.x]
        return [step.residual] if step.kernel in OVER_RESIDUAL and step.residual else []

    # --- offsets ----------------------------------------------------------------------------------------------------

    def _arrange(self) -> int:
        self._offsets: dict[str, int] = {}
        placed: list[tuple[int, int, _Root]] = []
        inner = [(name, root) for name, root in self._roots.items() if root.base == ARENA]
        for name, root in sorted(inner, key=lambda entry: (-entry[1].floats, entry[1].first)):
            alive = sorted((start, stop) for start, stop, other in placed if _overlap(root, other))
            offset = 0
            for start, stop in alive:
                if start - offset >= root.floats:
                    break
                offset = max(offset, stop)
            self._offsets[name] = offset
            placed.append((offset, offset + root.floats, root))
        return max((stop for _, stop, _ in placed), default=0)


def _overlap(a: _Root, b: _Root) -> bool:
    return a.first <= b.last and b.first <= a.last
