"""Classes of channels that can only go together.

Every channel of every value, and every index of a weight's axis along channels, carries the id of its class. An Add
ties channel c of its inputs and output, a Flatten gives one id to every position of a channel, a layer called twice
ties both calls through its weights.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from sparsec.errors import GraphError
from sparsec.ir import ABSENT, Graph, Node, TensorType
from sparsec.ops import get_op
from sparsec.ops.channels import ChannelRule, Ids, NodeView, channel_count


class Classes:
    """Collects ties (it is the :class:`sparsec.ops.channels.Ties` of the rules) and answers by class once resolved."""

    def __init__(self) -> None:
        self.values: dict[str, Ids] = {}
        self.weights: dict[tuple[str, int], Ids] = {}
        self._calls: dict[tuple[str, str], Ids] = {}
        self._count = 0
        self._tied: list[tuple[Ids, Ids]] = []
        self._pins: list[tuple[Ids, str]] = []
        self._pinned_weights: list[tuple[str, str]] = []

    @property
    def count(self) -> int:
        """The number of ids; classes are numbered below it."""
        return self._count

    def fresh(self, count: int) -> Ids:
        """Ids of new classes."""
        ids = np.arange(self._count, self._count + count, dtype=np.intp)
        self._count += count
        return ids

    def value(self, name: str) -> Ids:
        """The ids of a value's channels."""
        return self.values[name]

    def tie_value(self, name: str, ids: Ids) -> None:
        """Give the channels of a value these ids; tie them to the ones they have."""
        self._tie(self.values.setdefault(name, ids), ids)

    def tie_weight(self, name: str, axis: int, ids: Ids) -> None:
        """Give the indices of one axis of a weight these ids; tie them to the ones they have."""
        self._tie(self.weights.setdefault((name, axis), ids), ids)

    def tie_calls(self, name: str, end: str, ids: Ids) -> None:
        """Tie the channels at one end of every operator that uses a weight."""
        self._tie(self._calls.setdefault((name, end), ids), ids)

    def pin(self, ids: Ids, reason: str) -> None:
        """Keep these classes, whatever is found out about them."""
        self._pins.append((ids, reason))

    def pin_weight(self, name: str, reason: str) -> None:
        """Keep every axis of a weight whole."""
        self._pinned_weights.append((name, reason))

    def _tie(self, a: Ids, b: Ids) -> None:
        if a is b:
            return
        if a.shape != b.shape:
            raise GraphError(f"channels of {a.size} and {b.size} indices cannot be tied")
        self._tied.append((a, b))

    def resolve(self) -> dict[int, str]:
        """Replace every id by its class's; returns the pinned classes with their reasons."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if self._tied:
            a, b = (np.concatenate([pair[side] for pair in self._tied]) for side in (0, 1))
            links = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(self._count, self._count))
            label: Ids = connected_components(links, directed=False)[1].astype(np.intp)
        else:
            label = np.arange(self._count, dtype=np.intp)
        self.values = {name: label[ids] for name, ids in self.values.items()}
        self.weights = {key: label[ids] for key, ids in self.weights.items()}
        pinned: dict[int, str] = {}
        for ids, reason in self._pins:
            for class_ in np.unique(label[ids]):
                pinned.setdefault(int(class_), reason)
        owned: dict[str, list[Ids]] = {}
        for path, ids in (*((key[0], ids) for key, ids in self.weights.items()), *self._resolved_calls(label)):
            owned.setdefault(path, []).append(ids)
        for name, reason in self._pinned_weights:
            for ids in owned.get(name, ()):
                for class_ in np.unique(ids):
                    pinned.setdefault(int(class_), reason)
        return pinned

    def _resolved_calls(self, label: Ids) -> list[tuple[str, Ids]]:
        return [(key[0], label[ids]) for key, ids in self._calls.items()]


WHOLE = "Keras cannot state a layer that they reach with fewer channels"

RuledNode = tuple[NodeView, ChannelRule | None, str]
"""A node, its rule (``None`` where it is opaque), and why it is opaque."""


def tie_graph(
    graph: Graph, types: dict[str, TensorType], whole: Collection[str] = ()
) -> tuple[Classes, list[RuledNode], dict[int, str]]:
    """Walk a graph and tie its channels; those that the layers in ``whole`` read or make stay.

    Returns:
        the resolved classes; for every node its view, its rule (``None`` for an opaque node) and why it is opaque; and
        the classes that stay whatever happens, with their reasons.
    """
    classes = Classes()
    views: list[RuledNode] = []
    for source in graph.inputs:
        _pin_value(classes, source.name, types, "an input of the model")
    for node in graph.nodes:
        view = NodeView(node, types, graph.weights)
        rule = get_op(node.op).channels
        reason = f"{node.op} needs all channels" if rule is None else rule.applies(view)
        if rule is None or reason:
            rule = None
            for name in node.outputs:
                classes.tie_value(name, classes.fresh(channel_count(types[name])))
            _pin_node(classes, node, graph, reason)
        else:
            rule.tie(view, classes)
            if node.layer in whole:
                _pin_node(classes, node, graph, WHOLE)
        views.append((view, rule, reason))
    for port in graph.outputs:
        if port.value in graph.weights:
            classes.pin_weight(port.value, "an output of the model")
        else:
            classes.pin(classes.values[port.value], "an output of the model")
    return classes, views, classes.resolve()


def _pin_node(classes: Classes, node: Node, graph: Graph, reason: str) -> None:
    for name in (*node.inputs, *node.outputs):
        if name in graph.weights:
            classes.pin_weight(name, reason)
        elif name != ABSENT:
            classes.pin(classes.values[name], reason)


def _pin_value(classes: Classes, name: str, types: dict[str, TensorType], reason: str) -> None:
    ids = classes.fresh(channel_count(types[name]))
    classes.tie_value(name, ids)
    classes.pin(ids, reason)
