"""Which classes of channels can go: the fixed point of both directions of deadness.

A class goes if each of its channels, in every value, is constant or unread, none is pinned, and every node that reads a
nonzero constant of it can make that good: by a bias, or, where a bias would be wrong (behind zero padding), by another channel
with the same template that stays and carries it. Removing channels makes others unread (whatever only fed them), so the
backward direction repeats until nothing changes. What cannot be made good pins its class; each new pin can only keep more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparsec.ir import ABSENT, Graph, TensorType
from sparsec.ops.channels import Constants, Mask, channel_count
from sparsec.passes.shrink.classes import Classes, RuledNode, tie_graph
from sparsec.passes.shrink.edit import Merge
from sparsec.passes.shrink.good import Amends, make_good
from sparsec.passes.shrink.widths import emptied, rounded_up, unequal

__all__ = ["Analysis", "analyse"]


@dataclass(frozen=True)
class Analysis:
    """What is known of a graph's channels.

    Attributes:
        classes: the class of every channel.
        views: every node with its rule and, for opaque ones, why.
        constants: the constant channels of every value.
        removed: which classes go, ``[classes]``.
        refused: classes of which every channel is dead but which stay, with the reason.
        merges: the rows that kernels add to others, by kernel.
        carriers: which class carries each class that is merged.
    """

    classes: Classes
    views: Sequence[RuledNode]
    constants: dict[str, Constants]
    removed: Mask
    refused: Mapping[int, str]
    merges: Mapping[str, Merge]
    carriers: Mapping[int, int]

    def kept(self) -> dict[str, Mask]:
        """The channels of every value that stay."""
        return {name: ~self.removed[ids] for name, ids in self.classes.values.items()}


def analyse(graph: Graph, types: dict[str, TensorType], multiple: int | None = 1, whole: Collection[str] = ()) -> Analysis:
    """Find the classes of channels that can go.

    Args:
        graph: the graph.
        types: of its values.
        multiple: keep as many dead channels as make the width of every linear operator a multiple of this; ``None`` for what
            models with depthwise convolutions are fast with.
        whole: layers that keep all channels.
    """
    classes, views, pinned = tie_graph(graph, types, whole)
    constants = _forward(graph, types, views)
    while True:
        removed, refused, reads = _backward(graph, classes, views, constants, pinned)
        amends: Amends = make_good(graph, views, classes, constants, reads, removed)
        new = amends.pins or emptied(classes, removed) or unequal(views, classes, removed)
        new = new or rounded_up(views, classes, removed, multiple)
        if not new:
            return Analysis(classes, views, constants, removed, refused, amends.merges, amends.carriers)
        for class_, reason in new.items():
            pinned.setdefault(class_, reason)


def _forward(graph: Graph, types: dict[str, TensorType], views: Sequence[RuledNode]) -> dict[str, Constants]:
    facts: dict[str, Constants] = {}
    for port in graph.inputs:
        facts[port.name] = Constants.none(channel_count(types[port.name]))
    for view, rule, _ in views:
        if rule is None:
            facts.update((name, Constants.none(view.channels(name))) for name in view.node.outputs)
        else:
            facts.update(dict.fromkeys(view.node.outputs, rule.constants(view, facts)))
    return facts


def _backward(
    graph: Graph,
    classes: Classes,
    views: Sequence[RuledNode],
    constants: dict[str, Constants],
    pinned: dict[int, str],
) -> tuple[Mask, dict[int, str], dict[str, Mask]]:
    """The classes removed, the dead ones refused, and the channels of every value that are read."""
    stays = np.zeros(classes.count, bool)
    stays[list(pinned)] = True
    occurring = np.zeros(classes.count, bool)
    for ids in classes.values.values():
        occurring[ids] = True
    removed = np.zeros(classes.count, bool)
    while True:
        read = _read_channels(graph, classes, views, removed)
        alive = np.zeros(classes.count, bool)
        for name, ids in classes.values.items():
            alive[ids[read[name] & ~constants[name].fixed]] = True
        dead = occurring & ~alive
        found = dead & ~stays
        if np.array_equal(found, removed):
            return removed, {int(c): pinned[int(c)] for c in np.flatnonzero(dead & stays)}, read
        removed = found


def _read_channels(graph: Graph, classes: Classes, views: Sequence[RuledNode], removed: Mask) -> dict[str, Mask]:
    read = {name: np.zeros(ids.size, bool) for name, ids in classes.values.items()}
    for port in graph.outputs:
        if port.value in read:
            read[port.value][:] = True
    for view, rule, _ in reversed(views):
        if rule is None:
            for name in view.node.inputs:
                if name != ABSENT and name in read:
                    read[name][:] = True
            continue
        outputs = [read[name] & ~removed[classes.values[name]] for name in view.node.outputs]
        for name, mask in rule.reads(view, np.logical_or.reduce(outputs)).items():
            read[name] |= mask
    return read
