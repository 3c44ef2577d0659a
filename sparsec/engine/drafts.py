"""What a node becomes where it takes several steps: values that are not in the graph, and elements in another order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

import numpy as np

from sparsec.engine.steps import Copy, Item, Made, Planes, Step, View
from sparsec.ir import Array, Node

Shape = tuple[int, ...]

AxisOfCopy = tuple[int, int, int]
"""How many elements, and floats from one to the next in the input and in the output."""


class Draft:
    """The items of a node, as they come.

    Args:
        node: the node.
        shapes: of the values of the graph that it reads and gives.
    """

    def __init__(self, node: Node, shapes: Callable[[str], Shape]) -> None:
        self._node = node
        self._given = shapes
        self._shapes: dict[str, Shape] = {}
        self._items: list[Item] = []

    def shape(self, value: str) -> Shape:
        """The shape of a value."""
        return self._shapes[value] if value in self._shapes else self._given(value)

    def planes(self, value: str) -> Planes:
        """The sizes of a value."""
        return Planes.of_shape(self.shape(value))

    def name(self, shape: Sequence[int]) -> str:
        """The name of a new value."""
        name = f"{self._node.outputs[0]}.part{len(self._shapes)}"
        self._shapes[name] = tuple(shape)
        return name

    def add(self, *items: Item) -> None:
        """Add items as they are."""
        self._items += items

    def step(self, kernel: str, x: str, shape: Sequence[int], **more: Any) -> str:
        """Add a step; returns the name of its output."""
        name = self.name(shape)
        self.add(Step(kernel, x, name, [self._node], **more))
        return name

    def view(self, value: str, shape: Sequence[int], row: int = 0) -> str:
        """Some rows of a value, whose positions may be divided otherwise among samples and axes; returns their name."""
        if row == 0 and self.shape(value) == tuple(shape):
            return value
        name = self.name(shape)
        self.add(View(name, value, row))
        return name

    def made(self, last: str) -> Made:
        """All items, of which the output is the value that is given, in the shape of the output."""
        y = self._node.outputs[0]
        self.reshape(last, self._given(y), y)
        return Made(self._items, {name: Planes.of_shape(shape) for name, shape in self._shapes.items()})

    # --- order ------------------------------------------------------------------------------------------------------

    def reshape(self, value: str, shape: Sequence[int], name: str = "") -> str:
        """The same elements in another shape, in row-major order; returns the name of the value."""
        x, y = self.planes(value), Planes.of_shape(shape)
        if x.channels == y.channels:
            if not name:
                return self.view(value, shape)
            self._end(value, name)
            return name
        name = name or self.name(shape)
        flat = value
        if x.height * x.width > 1:
            flat = name if y.height * y.width == 1 else self.name((x.samples, x.height * x.width * x.channels))
            self.add(Step("flatten", value, flat, [self._node]))
        if y.height * y.width > 1:
            self.add(Step("unflatten", flat, name, [self._node]))
        return name

    def _end(self, value: str, name: str) -> None:
        """Give the last value the name of the output."""
        last = self._items[-1] if self._items else None
        if isinstance(last, Step) and last.y == value and self.planes(value) == Planes.of_shape(self._given(name)):
            del self._shapes[value]
            for item in self._items:
                if isinstance(item, Step) and item.y == value:
                    item.y = name
            return
        self.add(View(name, value))

    def transpose(self, value: str, permutation: Sequence[int]) -> str:
        """The axes in another order; returns the name of the value."""
        if list(permutation) == sorted(permutation):
            return value
        shape = self.shape(value)
        name = self.name([shape[axis] for axis in permutation])
        of_x = strides(shape)
        self.copy(
            value, name, zip(self.shape(name), (of_x[axis] for axis in permutation), strides(self.shape(name)), strict=True)
        )
        return name

    def broadcast(self, value: str | Array, shape: Sequence[int]) -> str:
        """A value of the same rank, or a constant, repeated along the axes where it has one element; returns its name."""
        name = self.name(shape)
        sizes = self.shape(value) if isinstance(value, str) else value.shape
        apart = strides(sizes) if isinstance(value, str) else in_order(sizes)
        of_x = [0 if size == 1 else step for size, step in zip(sizes, apart, strict=True)]
        of_x = [0] * (len(shape) - len(sizes)) + of_x
        self.copy(value, name, zip(shape, of_x, strides(shape), strict=True))
        return name

    def copy(self, value: str | Array, y: str, axes: Iterable[AxisOfCopy], first: tuple[int, int] = (0, 0)) -> None:
        """Add a copy of elements of a value, or of constants, to a value, of which other elements stay what they are.

        Args:
            value: where elements come from.
            y: the name of the value where they go.
            axes: which they are.
            first: floats before the first of them, where they come from and where they go.
        """
        constant = None if isinstance(value, str) else np.ascontiguousarray(value, np.float32)
        x = value if isinstance(value, str) else ""
        self.add(Step("copy", x, y, [self._node], copy=Copy(in_turn(axes), first, constant)))


def strides(shape: Sequence[int]) -> Shape:
    """Floats from one element to the next along each axis of a value."""
    if len(shape) == 1:
        return (1,)
    *positions, _ = shape
    return (*in_order(positions), Planes.of_shape(shape).pitch)


def in_order(shape: Sequence[int]) -> Shape:
    """Elements from one to the next along each axis, in row-major order."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def in_turn(axes: Iterable[AxisOfCopy]) -> tuple[AxisOfCopy, ...]:
    """The axes of a copy in the order in which it goes fastest: long runs, or rows that become columns, last."""
    left = sorted((axis for axis in axes if axis[0] > 1), key=lambda axis: -abs(axis[2]))
    joined: list[AxisOfCopy] = []
    for count, of_x, of_y in left:
        if joined and joined[-1][1:] == (count * of_x, count * of_y):
            count *= joined.pop()[0]
        joined.append((count, of_x, of_y))
    runs = [axis for axis in joined[:-1] if axis[1] == 1]
    if runs and joined[-1][1] != 1:
        joined.remove(runs[0])
        joined.insert(-1, runs[0])
    return (*[(1, 0, 0)] * (2 - len(joined)), *joined)
