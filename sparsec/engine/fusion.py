"""Elementwise nodes join the step that computes one of their inputs, so that they run while its output is in the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from sparsec.engine.steps import Elementwise, Item, Planes, Post, Step, View, reads_of
from sparsec.ir import Node

ADDING: Final = frozenset({"product", "windows", "vector", "depthwise"})
"""The kernels that add a residual."""

DEAF: Final = frozenset({"copy", "flatten", "unflatten", "store"})
"""The kernels that nothing can follow."""


class Fusion:
    """Collects the items of a plan in order.

    Args:
        planes: the sizes of all values.
        readers: how many inputs of nodes, and outputs of the plan, each value is.
    """

    def __init__(self, planes: Mapping[str, Planes], readers: Mapping[str, int]) -> None:
        self.items: list[Item] = []
        self._planes = planes
        self._readers = readers
        self._makers: dict[str, int] = {}
        """By value, the index of the item that makes it."""

    def add(self, items: Sequence[Item]) -> None:
        """Add items as they are."""
        for item in items:
            for value in item.writes if isinstance(item, Step) else (item.y,):
                self._makers[value] = len(self.items)
            self.items.append(item)

    def follow(self, node: Node, elementwise: Elementwise) -> None:
        """Add an elementwise node to the step of its latest host, or as a step of its own."""
        host = max(elementwise.hosts, key=lambda name: self._makers.get(name, -1))
        step = self._host(host, elementwise.hosts[host]) or self._viewed(host, elementwise.hosts[host])
        if step is None:
            step = Step("map", host, node.output)
            self.items.append(step)
            self._makers[node.output] = len(self.items) - 1
        else:
            self._rename(host, node.output)
        step.nodes.append(node)
        for post in elementwise.hosts[host]:
            self._append(step, post)

    def _host(self, name: str, posts: Sequence[Post]) -> Step | None:
        """The step that makes a value which nothing else reads, if it comes after all other operands."""
        index = self._makers.get(name, -1)
        item = self.items[index] if index >= 0 else None
        if not isinstance(item, Step) or item.y != name or item.kernel in DEAF or not self._is_read_once(name):
            return None
        later = any(self._makers.get(post.value, -1) >= index for post in posts if post.value)
        return None if later else item

    def _viewed(self, name: str, posts: Sequence[Post]) -> Step | None:
        """The step that makes what a value is all of, if with other axes: these matter to operations with values alone."""
        view = self.items[self._makers[name]] if name in self._makers else None
        if not isinstance(view, View) or not self._is_read_once(name) or any(post.value for post in posts):
            return None
        whole = self._planes[view.of].channels == self._planes[name].channels
        return self._host(view.of, posts) if whole else None

    def _is_read_once(self, name: str) -> bool:
        """Whether one node or output reads a value, or one item where it is not in the graph."""
        if name in self._readers:
            return self._readers[name] == 1
        return sum(name in reads_of(item) for item in self.items) == 1

    def _rename(self, value: str, name: str) -> None:
        index = self._makers.pop(value)
        item = self.items[index]
        if isinstance(item, Step):
            item.y = name
        else:
            self.items[index] = replace(item, y=name)
        self._makers[name] = index

    def _append(self, step: Step, post: Post) -> None:
        if not step.posts:
            if post.function == "clamp" and not step.clamps:
                step.low, step.high = post.a, post.b
                return
            if post.function == "add" and post.value and not step.clamps and self._can_be_residual(step, post.value):
                step.residual = post.value
                return
        step.posts.append(post)

    def _can_be_residual(self, step: Step, value: str) -> bool:
        return step.kernel in ADDING and not step.residual and self._planes[value] == self._planes[step.y]
