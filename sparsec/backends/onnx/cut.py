"""Minimum cuts of small directed networks, by Dinic's algorithm (Dinitz 1970)."""

from __future__ import annotations

from collections import deque


class Network:
    """A directed network with integer capacities; vertices are numbered from 0."""

    def __init__(self) -> None:
        self._heads: list[int] = []
        self._room: list[int] = []
        self._edges: list[list[int]] = []

    def vertex(self) -> int:
        """Add a vertex and return its number."""
        self._edges.append([])
        return len(self._edges) - 1

    def edge(self, tail: int, head: int, capacity: int) -> None:
        """Add an edge."""
        # An edge and its reverse have the numbers 2k and 2k + 1, so that each finds the other by its lowest bit.
        for start, end, room in ((tail, head, capacity), (head, tail, 0)):
            self._edges[start].append(len(self._heads))
            self._heads.append(end)
            self._room.append(room)

    def cut(self, source: int, sink: int) -> frozenset[int]:
        """The vertices on the source's side of a minimum cut, the one with the largest such side."""
        while (levels := self._levels(source))[sink] >= 0:
            self._saturate(source, sink, levels)
        return frozenset(range(len(self._edges))) - self._reaching(sink)

    def _levels(self, source: int) -> list[int]:
        levels = [-1] * len(self._edges)
        levels[source] = 0
        queue = deque([source])
        while queue:
            vertex = queue.popleft()
            for edge in self._edges[vertex]:
                if self._room[edge] and levels[self._heads[edge]] < 0:
                    levels[self._heads[edge]] = levels[vertex] + 1
                    queue.append(self._heads[edge])
        return levels

    def _saturate(self, source: int, sink: int, levels: list[int]) -> None:
        """Send flow along paths that climb one level at each step until none is left."""
        position = [0] * len(self._edges)
        path: list[int] = []
        vertex = source
        while True:
            if vertex == sink:
                amount = min(self._room[edge] for edge in path)
                for edge in path:
                    self._room[edge] -= amount
                    self._room[edge ^ 1] += amount
                path, vertex = [], source
            elif position[vertex] < len(self._edges[vertex]):
                edge = self._edges[vertex][position[vertex]]
                if self._room[edge] and levels[self._heads[edge]] == levels[vertex] + 1:
                    path.append(edge)
                    vertex = self._heads[edge]
                else:
                    position[vertex] += 1
            elif path:
                vertex = self._heads[path.pop() ^ 1]
                position[vertex] += 1
            else:
                return

    def _reaching(self, sink: int) -> set[int]:
        """The vertices from which the sink can still be reached."""
        found = {sink}
        queue = [sink]
        while queue:
            for edge in self._edges[queue.pop()]:
                tail = self._heads[edge]
                if self._room[edge ^ 1] and tail not in found:
                    found.add(tail)
                    queue.append(tail)
        return found
