"""Lifetimes of values: when each is read last, and which buffers may be written over."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from sparsec.engine import Segment
from sparsec.ir import ABSENT, Graph, Node


@dataclass(frozen=True)
class Unit:
    """The nodes of one step: a head, and the elementwise nodes applied to its output in the same step.

    Attributes:
        head: the first node, or a segment that runs natively.
        fused: the nodes after it, in order.
        fresh: whether its output is a buffer of its own; else it may be a view of an input.
    """

    head: Node | Segment
    fused: tuple[Node, ...]
    fresh: bool

    @property
    def outputs(self) -> tuple[str, ...]:
        """The values that the step defines."""
        return self.fused[-1].outputs if self.fused else self.head.outputs

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes that the step computes."""
        return self.head.nodes if isinstance(self.head, Segment) else (self.head, *self.fused)


class Buffers:
    """Which values share memory, and for how long.

    Values that may be views of one another form a group. A buffer may be written over where nothing in its group is read later,
    leaves the graph, or belongs to the caller or the model.

    Args:
        graph: the model.
        units: its steps.
        weights: the names of its weights.
    """

    def __init__(self, graph: Graph, units: Sequence[Unit], weights: Container[str]) -> None:
        self._parent: dict[str, str] = {}
        self._fresh: set[str] = set()
        self._weights = weights
        self._units = units
        foreign = [entry.name for entry in graph.inputs]
        last_read: dict[str, int] = {}
        for index, unit in enumerate(units):
            inputs = [name for name in unit.head.inputs if name != ABSENT]
            if unit.fresh:
                self._fresh.update(unit.outputs)
            else:
                foreign += [name for name in inputs if name in weights]
                for value in unit.outputs:
                    for name in inputs:
                        self._unite(value, name)
            last_read.update((name, index) for name in (*unit.outputs, *inputs) if name not in weights)
        kept = graph.output_values()
        self._last_reads: list[list[str]] = [[] for _ in units]
        for value, index in last_read.items():
            if value not in kept:
                self._last_reads[index].append(value)
        self._group_end: dict[str, int] = {}
        for value, index in last_read.items():
            group = self._group(value)
            self._group_end[group] = max(self._group_end.get(group, 0), index)
        foreign_groups = {self._group(name) for name in foreign}
        self._untouchable = foreign_groups | {self._group(value) for value in kept}
        self.shared_outputs = self._shared(graph, foreign_groups)

    def last_reads(self, index: int) -> list[str]:
        """The values that nothing reads after step ``index``."""
        return self._last_reads[index]

    def may_overwrite(self, value: str, index: int) -> bool:
        """Whether step ``index`` may write over ``value``."""
        group = self._group(value)
        return value in self._fresh and group not in self._untouchable and self._group_end[group] <= index

    def _shared(self, graph: Graph, foreign_groups: set[str]) -> tuple[bool, ...]:
        """For every output, whether its memory belongs to someone else or to an output before it."""
        seen = set(foreign_groups)
        shared = []
        for port in graph.outputs:
            group = self._group(port.value)
            shared.append(group in seen or port.value in self._weights)
            seen.add(group)
        return tuple(shared)

    def _group(self, value: str) -> str:
        while value in self._parent:
            value = self._parent[value]
        return value

    def _unite(self, a: str, b: str) -> None:
        a, b = self._group(a), self._group(b)
        if a != b:
            self._parent[a] = b
