"""Exact shrinking: channels that pruning killed are removed, and outputs stay the same by proof from the weights.

A channel is dead if it is the same for every input (forward), or if nobody reads it (backward). Dead channels go with
everything that is tied to them; a nonzero constant moves on into the next bias, or, behind zero padding, is carried by
another channel. Nothing is measured on data: every fact follows from the weights alone.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from sparsec.ir import Array, AttrValue, Graph, Node
from sparsec.ops import get_op, infer_types
from sparsec.ops.channels import NodeView
from sparsec.passes.fold import LINEAR
from sparsec.passes.report import Decision
from sparsec.passes.shrink.analysis import Analysis, analyse
from sparsec.passes.shrink.decisions import decisions
from sparsec.passes.shrink.edit import Groups, Indices, WeightEdit
from sparsec.passes.shrink.plan import ShrinkPlan, apply_plan
from sparsec.passes.shrink.widths import Rounding, multiple_of

__all__ = ["Rounding", "ShrinkPlan", "WeightEdit", "apply_plan", "multiple_of", "shrink"]


def shrink(graph: Graph, multiple: int | None = 1, whole: Collection[str] = ()) -> tuple[Graph, ShrinkPlan, list[Decision]]:
    """Remove the dead channels of a graph.

    Args:
        graph: a checked graph.
        multiple: keep as many dead channels as make the width of every linear operator a multiple of this; ``None`` for what
            depthwise convolutions are fast with.
        whole: layers that keep all channels.

    Returns:
        the smaller graph, what was done to each weight, and a decision for each layer that lost channels or could not.
    """
    if not graph.nodes:
        return graph, ShrinkPlan(), []
    analysis = analyse(graph, infer_types(graph), multiple, whole)
    plan = _plan(graph, analysis, multiple)
    found = decisions(analysis)
    return (graph, plan, found) if plan.empty else (apply_plan(graph, plan), plan, found)


def _plan(graph: Graph, analysis: Analysis, multiple: int | None) -> ShrinkPlan:
    classes, removed = analysis.classes, analysis.removed
    kept: dict[str, dict[int, Indices]] = {}
    for (path, axis), ids in classes.weights.items():
        if removed[ids].any():
            kept.setdefault(path, {})[axis] = np.flatnonzero(~removed[ids])
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
            added[kernel] = delta.take(_kept_outputs(view, analysis, delta.shape[-1]), axis=-1)
    groups = _groups(analysis)
    paths = dict.fromkeys([*kept, *deltas, *analysis.merges, *groups])
    edits = {
        path: WeightEdit(analysis.merges.get(path), deltas.get(path), kept.get(path, {}), groups.get(path)) for path in paths
    }
    return ShrinkPlan(edits, added, _attrs(analysis), multiple)


def _kept_outputs(view: NodeView, analysis: Analysis, size: int) -> Indices:
    """The indices kept of a bias that a linear operator has not: those of its kernel's output axis."""
    (axis,) = get_op(view.node.op).matrix_rows[1]
    kernel = view.node.inputs[1]
    ids = analysis.classes.weights.get((kernel, axis % view.types[kernel].rank), analysis.classes.values[view.node.outputs[0]])
    assert ids.size == size
    return np.flatnonzero(~analysis.removed[ids])


def _groups(analysis: Analysis) -> dict[str, Groups]:
    """What is left of the kernels of grouped convolutions that change."""
    found: dict[str, Groups] = {}
    for view, rule, _ in analysis.views:
        rows = rule.rows(view) if rule is not None and view.is_weight(1) else None
        if rows is None or rows.groups == 1:
            continue
        kernel = view.node.inputs[1]
        kept_in, kept_out = (
            ~analysis.removed[analysis.classes.values[name]].reshape(rows.groups, -1)
            for name in (view.node.inputs[0], view.node.outputs[0])
        )
        if kernel not in analysis.merges and kept_in.all() and kept_out.all():
            continue
        left = np.flatnonzero(kept_out.any(axis=1))
        width = kept_in.shape[1]
        found[kernel] = Groups(
            rows.groups,
            [np.flatnonzero(kept_in[group]) + group * width for group in left],
            [np.flatnonzero(kept_out[group]) for group in left],
        )
    return found


def _attrs(analysis: Analysis) -> dict[str, dict[str, AttrValue]]:
    kept = analysis.kept()
    changed = {view.node.name: rule.resized(view, kept) for view, rule, _ in analysis.views if rule is not None}
    return {name: attrs for name, attrs in changed.items() if attrs}


def _only_batch_norm(node: Node, graph: Graph, consumers: dict[str, list[Node]], outputs: frozenset[str]) -> Node | None:
    """The BatchNormalization of channels that is the only reader of a node whose kernel and statistics nobody else uses."""
    readers = consumers.get(node.outputs[0], [])
    if node.op not in LINEAR or len(readers) != 1 or readers[0].op != "batch_norm" or node.outputs[0] in outputs:
        return None
    norm = readers[0]
    if norm.attrs["axis"] != -1:
        return None
    alone = all(len(consumers[path]) == 1 for path in (node.inputs[1], norm.inputs[3]))
    return norm if alone and norm.inputs[3] in graph.weights else None
