"""Groups: units of several layers that can only go together.

Shrinking removes a channel from every value in which it occurs or from none: the producers that meet in an Add, the
depthwise filter that a channel feeds, the gate over it. Its classes of channels
(:mod:`sparsec.passes.shrink.classes`) therefore say which units of which kernels stand or fall together, and unit
pruning ranks them together, so that what it kills can be removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparsec.ir import Array, Graph
from sparsec.ops import infer_types
from sparsec.passes.shrink.classes import Classes, RuledNode, tie_graph
from sparsec.passes.simplify import simplify
from sparsec.pruning.kernels import Kernel, find_kernels
from sparsec.pruning.masks import Mask, Scores, unit_energies

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Group:
    """Kernels whose units are tied to each other; a kernel without ties is a group by itself.

    Attributes:
        kernels: in the order in which they are first applied.
        members: for each kernel, which unit of the group each of its units belongs to, ``[units of the kernel]``.
        units: the number of units of the group; it is these that are ranked and counted.
        cells: which units are ranked with each other: groups of a convolution have to remain equally large, so that each is
            ranked by itself; numbered from 0, ``[units]``.
    """

    kernels: tuple[Kernel, ...]
    members: tuple[Indices, ...]
    units: int
    cells: Indices

    @classmethod
    def alone(cls, kernel: Kernel) -> Group:
        """One kernel, each of its units by itself."""
        return cls((kernel,), (np.arange(kernel.units),), kernel.units, np.zeros(kernel.units, np.intp))

    @property
    def name(self) -> str:
        """The path of its first kernel."""
        return self.kernels[0].path

    def energies(self, weights: Mapping[str, Array]) -> Scores:
        """The sum of squares of each unit over all kernels, in float64, ``[units]``."""
        total = np.zeros(self.units)
        for kernel, member in zip(self.kernels, self.members, strict=True):
            np.add.at(total, member, unit_energies(weights[kernel.path], kernel.unit_axes))
        return total

    def fan_in(self) -> Scores:
        """The number of weights of each unit over all kernels, ``[units]``."""
        total = np.zeros(self.units)
        for kernel, member in zip(self.kernels, self.members, strict=True):
            np.add.at(total, member, kernel.fan_in)
        return total

    def spread(self, marked: Mask) -> dict[str, Mask]:
        """For each kernel, by path, which of its units belong to the units of the group that are marked."""
        return {kernel.path: marked[member] for kernel, member in zip(self.kernels, self.members, strict=True)}


def find_groups(graph: Graph, kernels: Sequence[Kernel]) -> list[Group]:
    """All kernels of a graph by groups, in the order of their first kernels.

    Two kernels are in one group if a unit of one is tied to a unit of the other. The units of the group are the classes of tied
    units, ordered by the first unit in each. Units of a single kernel that cannot go anyway are ranked by themselves.
    """
    if not kernels:
        return []
    # Shrinking sees the simplified graph, in which the transposes around channels-first layers are gone.
    simple = simplify(graph)
    classes, views, pinned = tie_graph(simple, infer_types(simple))
    labels = {kernel.path: _labels(kernel, classes) for kernel in find_kernels(simple)}
    blocks = _blocks(classes, views)
    groups: list[Group] = []
    for component in _connected([labels[kernel.path] for kernel in kernels]):
        members = [kernels[index] for index in component]
        if len(members) == 1 and pinned.keys() >= set(labels[members[0].path].tolist()):
            groups.append(Group.alone(members[0]))
        else:
            groups.append(_group(members, [labels[kernel.path] for kernel in members], blocks))
    return groups


def _labels(kernel: Kernel, classes: Classes) -> Indices:
    """The classes of a kernel's units: those of its own axis, or of what its operator puts out."""
    if len(kernel.unit_axes) == 1:
        found = classes.weights.get((kernel.path, kernel.unit_axes[0]))
        if found is not None:
            return found
    ids = classes.values[kernel.values[0]]
    # A recurrent operator without channels that could go has its columns, not its gates, for units.
    return ids if ids.size == kernel.units else classes.fresh(kernel.units)


def _blocks(classes: Classes, views: Sequence[RuledNode]) -> dict[int, tuple[int, ...]]:
    """In which block of each value that consists of equally large blocks a class is."""
    found: dict[int, tuple[int, ...]] = {}
    for view, rule, _ in views:
        for part in () if rule is None else rule.partitions(view):
            for block, ids in enumerate(classes.values[part.value].reshape(part.blocks, -1)):
                for class_ in dict.fromkeys(ids.tolist()):
                    found[class_] = (*found.get(class_, ()), block)
    return found


def _connected(labels: Sequence[Indices]) -> list[list[int]]:
    """The positions of the arrays that share a label, directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, classes = np.unique(np.concatenate(labels), return_inverse=True)
    owners = np.repeat(np.arange(len(labels)), [ids.size for ids in labels])
    size = len(labels) + int(classes.max()) + 1
    links = coo_array((np.ones(owners.size, np.int8), (owners, len(labels) + classes)), shape=(size, size))
    _, component = connected_components(links, directed=False)
    found: dict[int, list[int]] = {}
    for position in range(len(labels)):
        found.setdefault(int(component[position]), []).append(position)
    return list(found.values())


def _group(kernels: Sequence[Kernel], labels: Sequence[Indices], blocks: Mapping[int, tuple[int, ...]]) -> Group:
    unique, first, inverse = np.unique(np.concatenate(labels), return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(first.size, np.intp)
    rank[order] = np.arange(first.size)
    ends = np.cumsum([ids.size for ids in labels])
    places: dict[tuple[int, ...], int] = {}
    cells = [places.setdefault(blocks.get(class_, ()), len(places)) for class_ in unique[order].tolist()]
    return Group(tuple(kernels), tuple(np.split(rank[inverse], ends[:-1])), first.size, np.asarray(cells, np.intp))
