"""Layouts: how the axes of a value of the graph are ordered in the ONNX file.

A value of the graph is channels-last, ``[N, *spatial, C]``. ONNX's convolutions and pools are channels-first,
``[N, C, *spatial]``. An *order* lists, for every axis of the stored value, the axis of the graph's value that it holds; a
*layout* names the two orders that operators are emitted in. Values of rank 2 and less have one order only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from sparsec.ir import Dim

Order = tuple[int, ...]


class Layout(Enum):
    """Where the last axis of a value of the graph stands in the file."""

    LAST = "channels_last"
    FIRST = "channels_first"


def order_of(layout: Layout, rank: int) -> Order:
    """The order of a value of ``rank`` axes in ``layout``."""
    if layout is Layout.LAST or rank < 3:
        return tuple(range(rank))
    return (0, rank - 1, *range(1, rank - 1))


def through(order: Order, permutation: Order) -> Order:
    """``order`` of a transposed value as an order of the value before; its axis ``i`` is ``permutation[i]`` there."""
    return tuple(permutation[axis] for axis in order)


def relative(source: Order, target: Order) -> Order:
    """The permutation that takes a value stored in ``source`` to ``target``."""
    return tuple(source.index(axis) for axis in target)


def same_memory(shape: Sequence[Dim], a: Order, b: Order) -> bool:
    """Whether two orders of a value of ``shape`` hold the same elements in the same sequence."""
    return [axis for axis in a if shape[axis] != 1] == [axis for axis in b if shape[axis] != 1]


class Demand(Enum):
    """What a node asks of the layout of an input, or gives its output.

    ``SAME`` is one layout for all ports of the node that ask for it, chosen freely; ``FREE`` is any layout, chosen for
    the port alone.
    """

    LAST = "last"
    FIRST = "first"
    SAME = "same"
    FREE = "free"


@dataclass(frozen=True)
class Demands:
    """The demands of one node.

    Attributes:
        inputs: for each input of the node; those of weights and of values below rank 3 are ignored.
        output: for the output.
        prefer: the layout of ``SAME`` in which the node is cheaper to run.
        saving: how many passes over the output the preferred layout saves.
    """

    inputs: tuple[Demand, ...]
    output: Demand
    prefer: Layout = Layout.LAST
    saving: int = 0
