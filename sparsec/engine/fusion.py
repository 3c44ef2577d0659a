"""Elementwise nodes join the step that computes one of their inputs, so that they run while its output is in the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sparsec.engine.steps import Elementwise, Item, Planes, Post, Step
from sparsec.ir import Node

ADDING: Final = frozenset({"product", "windows", "vector", "depthwise"})
"""The kernels that add a residual."""

DEAF: Final = frozenset({"flatten", "unflatten", "store"})
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
        step = self._host(host, elementwise.hosts[host])
        if step is None:
            step = Step("map", host, node.output)
            self.items.append(step)
            self._makers[node.output] = len(self.items) - 1
        else:
            self._makers[node.output] = self._makers.pop(host)
            step.y = node.output
        step.nodes.append(node)
        for post in elementwise.hosts[host]:
            self._append(step, post)

    def _host(self, name: str, posts: Sequence[Post]) -> Step | None:
        """The step that makes a value which nothing else reads, if it comes after all other operands."""
        index = self._makers.get(name, -1)
        item = self.items[index] if index >= 0 else None
        if not isinstance(item, Step) or item.y != name or item.kernel in DEAF or self._readers.get(name, 0) != 1:
            return None
        later = any(self._makers.get(post.value, -1) >= index for post in posts if post.value)
        return None if later else item

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
