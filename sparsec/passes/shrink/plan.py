"""The ShrinkPlan: what shrinking does, in the source's own terms, and its application to a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from sparsec.ir import ABSENT, Array, Graph, Node
from sparsec.ops import get_op
from sparsec.passes.rewrite import added_bias_path

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class ShrinkPlan:
    """What shrinking did, by weight path; a weight of the graph is a variable of the source.

    Attributes:
        kept: the indices kept, ascending, by weight path and axis; an axis that is not named is whole.
        deltas: what is added to a weight, in float64, indexed as before shrinking; constants of removed channels end up in
            biases and moving means.
        added_biases: biases that linear layers did not have, by the name of their kernel, in float64, indexed as before
            shrinking.
        channels: the channels left of the output of every node whose attributes may state them, by node name.
    """

    kept: Mapping[tuple[str, int], Indices] = field(default_factory=dict)
    deltas: Mapping[str, Array] = field(default_factory=dict)
    added_biases: Mapping[str, Array] = field(default_factory=dict)
    channels: Mapping[str, int] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether nothing changes."""
        return not (self.kept or self.deltas or self.added_biases)


def apply_plan(graph: Graph, plan: ShrinkPlan) -> Graph:
    """The graph with its weights sliced and corrected.

    Sums are done in float64 and rounded once to the weight's own dtype.
    """
    weights = {path: _updated(path, array, plan) for path, array in graph.weights.items()}
    for kernel, bias in plan.added_biases.items():
        path = added_bias_path(kernel)
        weights[path] = _sliced(path, bias.astype(graph.weights[kernel].dtype), plan)
    nodes = [_resized(_with_bias(node, plan), plan) for node in graph.nodes]
    return graph.with_nodes(nodes, weights)


def _updated(path: str, array: Array, plan: ShrinkPlan) -> Array:
    if path in plan.deltas:
        array = (array.astype(np.float64) + plan.deltas[path]).astype(array.dtype)
    return _sliced(path, array, plan)


def _sliced(path: str, array: Array, plan: ShrinkPlan) -> Array:
    for axis in range(array.ndim):
        if (path, axis) in plan.kept:
            array = array.take(plan.kept[path, axis], axis=axis)
    return array


def _resized(node: Node, plan: ShrinkPlan) -> Node:
    rule = get_op(node.op).channels
    if node.name not in plan.channels or rule is None:
        return node
    return replace(node, attrs=rule.resized(node.attrs, plan.channels[node.name]))


def _with_bias(node: Node, plan: ShrinkPlan) -> Node:
    if len(node.inputs) < 2 or node.inputs[1] not in plan.added_biases or (len(node.inputs) > 2 and node.inputs[2] != ABSENT):
        return node
    inputs = (*node.inputs[:2], added_bias_path(node.inputs[1]))
    return Node(node.op, node.name, inputs, node.outputs, node.attrs, node.layer)
