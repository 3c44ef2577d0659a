"""The ShrinkPlan: what shrinking does, in the source's own terms, and its application to a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sparsec.ir import ABSENT, Array, AttrValue, Graph, Node
from sparsec.passes.rewrite import added_bias_path
from sparsec.passes.shrink.edit import WeightEdit


@dataclass(frozen=True)
class ShrinkPlan:
    """What shrinking did, by weight path; a weight of the graph is a variable of the source.

    Attributes:
        edits: what happens to each weight that changes.
        added_biases: biases that linear layers did not have, by the name of their kernel, in float64, without the channels
            that go.
        attrs: the attributes of nodes that change, by node name.
        multiple: to which multiple widths were rounded up, as :func:`sparsec.passes.shrink.shrink` was told.
    """

    edits: Mapping[str, WeightEdit] = field(default_factory=dict)
    added_biases: Mapping[str, Array] = field(default_factory=dict)
    attrs: Mapping[str, Mapping[str, AttrValue]] = field(default_factory=dict)
    multiple: int | None = 1

    @property
    def empty(self) -> bool:
        """Whether nothing changes."""
        return not (self.edits or self.added_biases)


def apply_plan(graph: Graph, plan: ShrinkPlan) -> Graph:
    """The graph with its weights sliced and corrected.

    Sums are done in float64 and rounded once to the weight's own dtype.
    """
    weights = {path: plan.edits[path](array) if path in plan.edits else array for path, array in graph.weights.items()}
    for kernel, bias in plan.added_biases.items():
        weights[added_bias_path(kernel)] = bias.astype(graph.weights[kernel].dtype)
    nodes = [_resized(_with_bias(node, plan), plan) for node in graph.nodes]
    return graph.with_nodes(nodes, weights)


def _resized(node: Node, plan: ShrinkPlan) -> Node:
    changed = plan.attrs.get(node.name)
    return replace(node, attrs={**node.attrs, **changed}) if changed else node


def _with_bias(node: Node, plan: ShrinkPlan) -> Node:
    if len(node.inputs) < 2 or node.inputs[1] not in plan.added_biases or (len(node.inputs) > 2 and node.inputs[2] != ABSENT):
        return node
    inputs = (*node.inputs[:2], added_bias_path(node.inputs[1]), *node.inputs[3:])
    return Node(node.op, node.name, inputs, node.outputs, node.attrs, node.layer)
