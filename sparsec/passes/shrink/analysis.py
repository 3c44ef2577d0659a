"""Which classes of channels can go: the fixed point of both directions of deadness.

A class goes if each of its channels, in every value, is constant or unread, none is pinned, and every node that sums a
nonzero constant of it can make that good. Removing channels makes others unread (whatever only fed them), so the
backward direction repeats until nothing changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparsec.ir import ABSENT, Graph, TensorType
from sparsec.ops.channels import ChannelRule, Constants, Mask, NodeView, channel_count
from sparsec.passes.shrink.classes import Classes, tie_graph

LAST_CHANNEL = "at least one channel stays"


@dataclass(frozen=True)
class Analysis:
    """What is known of a graph's channels.

    Attributes:
        classes: the class of every channel.
        views: every node with its rule and, for opaque ones, why.
        constants: the constant channels of every value.
        removed: which classes go, ``[classes]``.
        refused: classes of which every channel is dead but which stay, with the reason.
    """

    classes: Classes
    views: Sequence[tuple[NodeView, ChannelRule | None, str]]
    constants: dict[str, Constants]
    removed: Mask
    refused: dict[int, str]


def analyse(graph: Graph, types: dict[str, TensorType]) -> Analysis:
    """Find the classes of channels that can go."""
    classes, views, pinned = tie_graph(graph, types)
    constants = _forward(graph, types, views)
    # Constants that a reader cannot absorb pin their class; so does the last channel of a value. Each new pin can only
    # keep more.
    while True:
        removed, refused, reads = _backward(graph, classes, views, constants, pinned)
        new = _unabsorbable(views, classes, constants, reads, removed)
        if not new:
            new = _emptied(classes, removed)
        if not new:
            return Analysis(classes, views, constants, removed, refused)
        pinned.update(new)


def _forward(
    graph: Graph, types: dict[str, TensorType], views: Sequence[tuple[NodeView, ChannelRule | None, str]]
) -> dict[str, Constants]:
    facts: dict[str, Constants] = {}
    for port in graph.inputs:
        facts[port.name] = Constants.none(channel_count(types[port.name]))
    for view, rule, _ in views:
        for name in view.node.outputs:
            facts[name] = Constants.none(view.channels(name)) if rule is None else rule.constants(view, facts)
    return facts


def _backward(
    graph: Graph,
    classes: Classes,
    views: Sequence[tuple[NodeView, ChannelRule | None, str]],
    constants: dict[str, Constants],
    pinned: dict[int, str],
) -> tuple[Mask, dict[int, str], dict[str, Mask]]:
    """The classes removed, the dead ones refused, and the channels of every value that are read."""
    stays = np.zeros(classes.count, bool)
    stays[list(pinned)] = True
    removed = np.zeros(classes.count, bool)
    while True:
        read = _read_channels(graph, classes, views, removed)
        alive = np.zeros(classes.count, bool)
        for name, ids in classes.values.items():
            alive[ids[read[name] & ~constants[name].known]] = True
        occurring = np.zeros(classes.count, bool)
        for ids in classes.values.values():
            occurring[ids] = True
        dead = occurring & ~alive
        found = dead & ~stays
        if np.array_equal(found, removed):
            return removed, {int(c): pinned[int(c)] for c in np.flatnonzero(dead & stays)}, read
        removed = found


def _read_channels(
    graph: Graph,
    classes: Classes,
    views: Sequence[tuple[NodeView, ChannelRule | None, str]],
    removed: Mask,
) -> dict[str, Mask]:
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
        output = view.node.output
        for name, mask in rule.reads(view, read[output] & ~removed[classes.values[output]]).items():
            read[name] |= mask
    return read


def _unabsorbable(
    views: Sequence[tuple[NodeView, ChannelRule | None, str]],
    classes: Classes,
    constants: dict[str, Constants],
    read: dict[str, Mask],
    removed: Mask,
) -> dict[int, str]:
    """Classes that must stay because a node cannot make good the constant they carry."""
    new: dict[int, str] = {}
    shared: dict[str, tuple[NodeView, np.ndarray]] = {}
    for view, rule, _ in views:
        if rule is None:
            continue
        for index in view.computed():
            name = view.node.inputs[index]
            mask, reason = rule.refuses(view, index, constants[name])
            if not mask.any():
                continue
            output = view.node.output
            touched = rule.reads(view, read[output] & ~removed[classes.values[output]])[name]
            for class_ in np.unique(classes.values[name][mask & touched & removed[classes.values[name]]]):
                new.setdefault(int(class_), reason)
        name = view.node.inputs[0] if view.node.inputs else ABSENT
        delta = rule.absorbed(view, removed[classes.values[name]], constants[name]) if name in classes.values else None
        if delta is None:
            continue
        kernel = view.node.inputs[1]
        if kernel in shared and not np.array_equal(shared[kernel][1], delta):
            for other in (view, shared[kernel][0]):
                source = other.node.inputs[0]
                gone = constants[source].nonzero & removed[classes.values[source]]
                for class_ in np.unique(classes.values[source][gone]):
                    new.setdefault(int(class_), "a layer called several times would need a different bias at each call")
        shared.setdefault(kernel, (view, delta))
    return new


def _emptied(classes: Classes, removed: Mask) -> dict[int, str]:
    """One class for each value that would lose all its channels."""
    new: dict[int, str] = {}
    for ids in classes.values.values():
        if ids.size and removed[ids].all() and not any(int(class_) in new for class_ in ids):
            new[int(ids[0])] = LAST_CHANNEL
    return new
