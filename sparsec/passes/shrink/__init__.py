"""Exact shrinking: channels that pruning killed are removed, and outputs stay the same by proof from the weights.

A channel is dead if it is the same number for every input (forward), or if nobody reads it (backward). Dead channels go
with everything that is tied to them; a nonzero constant moves on into the next bias. Nothing is measured on data: every
fact follows from the weights alone.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from sparsec.ir import Array, Graph, Node
from sparsec.ops import get_op, infer_types
from sparsec.passes.report import Decision
from sparsec.passes.rewrite import added_bias_path
from sparsec.passes.shrink.analysis import Analysis, analyse
from sparsec.passes.shrink.plan import Indices, ShrinkPlan, apply_plan

__all__ = ["ShrinkPlan", "apply_plan", "shrink"]

STAGE = "shrink"


def shrink(graph: Graph) -> tuple[Graph, ShrinkPlan, list[Decision]]:
    """Remove the dead channels of a graph.

    Returns:
        the smaller graph, what was done to each weight, and a decision for each layer that lost channels or could not.
    """
    if not graph.nodes:
        return graph, ShrinkPlan(), []
    analysis = analyse(graph, infer_types(graph))
    plan = _plan(graph, analysis)
    decisions = _decisions(analysis)
    return (graph, plan, decisions) if plan.empty else (apply_plan(graph, plan), plan, decisions)


def _plan(graph: Graph, analysis: Analysis) -> ShrinkPlan:
    classes, removed = analysis.classes, analysis.removed
    kept: dict[tuple[str, int], Indices] = {}
    for (path, axis), ids in classes.weights.items():
        if removed[ids].any():
            kept[path, axis] = np.flatnonzero(~removed[ids])
    deltas: dict[str, Array] = {}
    added: dict[str, Array] = {}
    consumers, outputs = graph.consumers(), graph.output_values()
    for view, rule, _ in analysis.views:
        if rule is None or not view.node.inputs or view.node.inputs[0] not in classes.values:
            continue
        source = view.node.inputs[0]
        delta = rule.absorbed(view, removed[classes.values[source]], analysis.constants[source])
        if delta is None or not delta.any():
            continue
        bias, kernel = view.name(2), view.node.inputs[1]
        norm = _only_batch_norm(view.node, graph, consumers, outputs)
        if bias is not None:
            deltas[bias] = delta
        elif norm is not None:
            deltas[norm.inputs[3]] = -delta
        else:
            added[kernel] = delta
            if (kernel, _out_axis(graph, view.node)) in kept:
                kept[added_bias_path(kernel), 0] = kept[kernel, _out_axis(graph, view.node)]
    return ShrinkPlan(kept, deltas, added, _channels(analysis))


def _channels(analysis: Analysis) -> dict[str, int]:
    left: dict[str, int] = {}
    for view, rule, _ in analysis.views:
        if rule is not None:
            gone = analysis.removed[analysis.classes.values[view.node.output]]
            if gone.any():
                left[view.node.name] = int((~gone).sum())
    return left


def _out_axis(graph: Graph, node: Node) -> int:
    (axis,) = get_op(node.op).matrix_rows[1]
    return axis % graph.weights[node.inputs[1]].ndim


def _only_batch_norm(node: Node, graph: Graph, consumers: dict[str, list[Node]], outputs: frozenset[str]) -> Node | None:
    """The BatchNormalization that is the only reader of a node whose kernel and statistics nobody else uses."""
    readers = consumers.get(node.output, [])
    if len(readers) != 1 or readers[0].op != "batch_norm" or node.output in outputs:
        return None
    norm = readers[0]
    alone = all(len(consumers[path]) == 1 for path in (node.inputs[1], norm.inputs[3]))
    return norm if alone and norm.inputs[3] in graph.weights else None


def _decisions(analysis: Analysis) -> list[Decision]:
    decisions: list[Decision] = []
    classes, removed = analysis.classes, analysis.removed
    for view, _, reason in analysis.views:
        node = view.node
        if not get_op(node.op).matrix_rows or not view.is_weight(1):
            continue
        ids = classes.values[node.output]
        gone = int(removed[ids].sum())
        if gone:
            decisions.append(Decision(STAGE, node.layer, "shrunk", "dead channels removed", ids.size, ids.size - gone))
        stuck = Counter(analysis.refused[int(class_)] for class_ in ids if int(class_) in analysis.refused)
        for why, count in stuck.items():
            if why != "an output of the model":
                text = f"{_dead(count)} kept: {why}"
                decisions.append(Decision(STAGE, node.layer, "refused", text, ids.size, ids.size - gone))
        held = analysis.constants[node.output].known & ~removed[ids] & ~np.isin(ids, list(analysis.refused))
        if held.any() and not reason:
            text = f"{_dead(int(held.sum()))} kept: tied to channels that are not dead"
            decisions.append(Decision(STAGE, node.layer, "refused", text, ids.size, ids.size - gone))
        if reason:
            decisions.append(Decision(STAGE, node.layer, "refused", reason, ids.size, ids.size))
    return decisions


def _dead(count: int) -> str:
    return f"{count} dead channel{'s' if count > 1 else ''}"
