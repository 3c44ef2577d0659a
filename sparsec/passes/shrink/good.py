"""Making good what removed constants contributed, or keeping them.

Where an operator sums a constant over whole windows, its bias takes the constant. Behind zero padding the sum differs at the
borders, and so it does for a channel with a border of zeros. There the channels with the same template are multiples of each
other: one of them, the *representative*, stays and carries the others, whose rows of the kernel are added to its own, scaled
by the ratios of the constants. With groups each group needs one of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sparsec.ir import Array, Graph
from sparsec.ops.channels import ChannelRule, Constants, Ids, KernelRows, Mask, NodeView
from sparsec.passes.shrink.classes import Classes, RuledNode
from sparsec.passes.shrink.edit import Merge

SHARED = "a layer called several times would need another correction at each call"

REPRESENTATIVE = "it carries others that are constant"

LEAST_SHARE = 1e-2
"""A channel carries others if its constant is at least this share of the greatest of theirs: it is only as exact as the numbers
that it is computed from, and ratios must not amplify that."""


@dataclass
class Amends:
    """How the constants that go are made good.

    Attributes:
        pins: classes that cannot go after all, with the reason; the rest holds only where there are none.
        merges: the rows that kernels add to others, by kernel.
        carriers: which class carries each class that is merged.
    """

    pins: dict[int, str] = field(default_factory=dict)
    merges: dict[str, Merge] = field(default_factory=dict)
    carriers: dict[int, int] = field(default_factory=dict)


def make_good(
    graph: Graph,
    views: Sequence[RuledNode],
    classes: Classes,
    constants: Mapping[str, Constants],
    read: Mapping[str, Mask],
    removed: Mask,
) -> Amends:
    """Find how every node makes good the removed constants that it reads.

    Args:
        graph: the graph.
        views: its nodes with their rules.
        classes: the classes of channels.
        constants: the constant channels of every value.
        read: the channels of every value that are read.
        removed: the classes that are to go.
    """
    search = _Search(classes, constants, removed)
    for view, rule, _ in views:
        if rule is not None:
            outputs = [read[name] & ~removed[classes.values[name]] for name in view.node.outputs]
            search.visit(view, rule, rule.reads(view, np.logical_or.reduce(outputs)))
    search.check_shared(graph)
    return search.amends


@dataclass(frozen=True, eq=False)
class _Call:
    """What one call of a layer makes good.

    Attributes:
        delta: what its bias takes, of the outputs that stay; ``None`` if nothing is summed.
        merge: the rows of its kernel that are added to others.
        needs: the classes that go and that the outputs that stay read.
    """

    delta: Array | None
    merge: Merge | None
    needs: Ids


class _Search:
    def __init__(self, classes: Classes, constants: Mapping[str, Constants], removed: Mask) -> None:
        self.amends = Amends()
        self._classes = classes
        self._constants = constants
        self._removed = removed
        self._calls: dict[str, list[_Call]] = {}

    def visit(self, view: NodeView, rule: ChannelRule, reads: Mapping[str, Mask]) -> None:
        """Make good what one node reads."""
        merge = None
        for index in view.computed():
            name = view.node.inputs[index]
            mask, reason = rule.refuses(view, index, self._constants[name])
            ids = self._classes.values[name]
            stuck = mask & reads[name] & self._removed[ids]
            if not stuck.any():
                continue
            rows = rule.rows(view) if index == 0 else None
            if rows is None:
                self._pin(ids[stuck], reason)
            else:
                merge = self._carried(name, rows, stuck, reason)
        source = view.node.inputs[0]
        if view.is_weight(1) and source in self._classes.values:
            delta = rule.absorbed(view, self._removed[self._classes.values[source]], self._constants[source])
            if delta is not None or merge is not None:
                self._calls.setdefault(view.node.inputs[1], []).append(self._call(view, rule, delta, merge))

    def _call(self, view: NodeView, rule: ChannelRule, delta: Array | None, merge: Merge | None) -> _Call:
        """What one call of a layer makes good, of the outputs that stay."""
        outputs = ~self._removed[self._classes.values[view.node.outputs[0]]]
        if delta is not None and delta.shape[-1] == outputs.size:
            delta = delta[..., outputs]
        source = view.node.inputs[0]
        ids = self._classes.values[source]
        reads = rule.reads(view, outputs)[source]
        return _Call(delta, merge, ids[self._constants[source].nonzero & self._removed[ids] & reads])

    def _pin(self, ids: Ids, reason: str) -> None:
        for class_ in np.unique(ids):
            self.amends.pins.setdefault(int(class_), reason)

    def _carried(self, name: str, rows: KernelRows, stuck: Mask, reason: str) -> Merge | None:
        """The rows of channels ``stuck`` added to those of representatives; ``None`` where one has to be pinned first."""
        facts, ids = self._constants[name], self._classes.values[name]
        kinds = facts.codes * rows.groups + np.arange(ids.size) // (ids.size // rows.groups)
        # What was pinned a moment ago stays as well: one channel carries what several operators need.
        stays = facts.nonzero & (~self._removed[ids] | np.isin(ids, list(self.amends.pins)))
        targets = np.zeros(ids.size, np.intp)
        for kind in np.unique(kinds[stuck]):
            alike = facts.nonzero & (kinds == kind)
            members = np.flatnonzero(stuck & alike)
            sizes = np.where(alike, np.abs(facts.values), 0.0)
            greatest = sizes[members].max()
            carrier = int(np.argmax(np.where(stays, sizes, 0.0)))
            if not stays[carrier] or sizes[carrier] < LEAST_SHARE * greatest:
                chosen = members[np.argmax(sizes[members])]
                self._pin(ids[[chosen]], REPRESENTATIVE if members.size > 1 else reason)
                continue
            targets[members] = carrier
        if any(int(class_) in self.amends.pins for class_ in ids[stuck]):
            return None
        sources = np.flatnonzero(stuck)
        self.amends.carriers.update(zip(ids[sources].tolist(), ids[targets[sources]].tolist(), strict=True))
        return Merge(rows.axis, sources, targets[sources], facts.values[sources] / facts.values[targets[sources]])

    def check_shared(self, graph: Graph) -> None:
        """Pin what layers that are called several times would make good differently, and collect the merges."""
        readers = graph.consumers()
        for kernel, calls in self._calls.items():
            first = calls[0]
            alike = all(_equal(first.delta, call.delta) and first.merge == call.merge for call in calls)
            if not alike or (first.merge is not None and len(readers[kernel]) > len(calls)):
                for call in calls:
                    self._pin(call.needs, SHARED)
            elif first.merge is not None:
                self.amends.merges[kernel] = first.merge


def _equal(a: Array | None, b: Array | None) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))
