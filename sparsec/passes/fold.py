"""Folding: BatchNormalization and other scaling by stored factors moves into the linear operators beside it.

A scaling is ``y = a * x + b`` per channel, for BatchNormalization with a = gamma / sqrt(variance + epsilon) and b =
beta - a * mean.

*Backward*, into a linear operator before it, ``x = K z + k``: y = (a K) z + (a k + b). The operator must have no other
reader, and nobody else may use its weights.

*Forward*, into linear operators after it, ``z = K y + k``: z = (K a) x + (k + K b). All its readers must be such
operators. Behind zero padding the shift b would be missing at the borders, so it must be 0 there.

Arithmetic is done in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sparsec.ir import ABSENT, Array, Graph, Node
from sparsec.ops import get_op, make_node
from sparsec.ops.base import integer, number
from sparsec.passes.report import Decision
from sparsec.passes.rewrite import added_bias_path, drop_dead, forward_values, fresh_path

STAGE = "fold"

LINEAR = ("dense", "conv", "depthwise_conv", "conv_transpose")


@dataclass(frozen=True)
class Scaling:
    """``a * x + b`` per channel of the last axis, in float64."""

    scale: Array
    shift: Array


def fold(graph: Graph) -> tuple[Graph, list[Decision]]:
    """Fold every scaling that can be; what stays becomes one ``affine``.

    Returns:
        the graph, and a decision for each scaling.
    """
    decisions: list[Decision] = []
    for node in graph.nodes:
        scaling = _scaling(node, graph)
        if isinstance(scaling, str):
            decisions.append(Decision(STAGE, node.layer, "refused", scaling))
        elif scaling is not None:
            graph, decision = _fold_one(graph, node.name, scaling)
            decisions.append(decision)
    return drop_dead(graph), decisions


def _scaling(node: Node, graph: Graph) -> Scaling | str | None:
    """The scaling that a node is, why it cannot be one, or ``None`` for other operators."""
    if node.op not in ("batch_norm", "affine"):
        return None
    parameters = [None if name == ABSENT else graph.weights.get(name) for name in node.inputs[1:]]
    if any(name != ABSENT and name not in graph.weights for name in node.inputs[1:]):
        return "its parameters are computed"
    values = [None if array is None else array.astype(np.float64) for array in parameters]
    if node.op == "affine":
        scale, shift = values[0], values[1] if len(values) > 1 else None
        assert scale is not None
        return Scaling(scale, np.zeros_like(scale) if shift is None else shift)
    if integer(node.attrs, "axis") != -1:
        return f"it normalises axis {integer(node.attrs, 'axis')}, not the channels"
    gamma, beta, mean, variance = values
    assert mean is not None
    assert variance is not None
    scale = 1.0 / np.sqrt(variance + number(node.attrs, "epsilon"))
    scale = scale if gamma is None else scale * gamma
    return Scaling(scale, (0.0 if beta is None else beta) - scale * mean)


def _fold_one(graph: Graph, name: str, scaling: Scaling) -> tuple[Graph, Decision]:
    node = next(node for node in graph.nodes if node.name == name)
    consumers, producers = graph.consumers(), graph.producers()
    before = producers.get(node.inputs[0])
    why_not_back = _backward_obstacle(graph, node, before, consumers)
    if not why_not_back and before is not None:
        changed = _scaled_output(graph, before, scaling)
        return _without(changed, node), Decision(STAGE, node.layer, "folded", f"into {before.layer or before.name} before it")
    readers = consumers.get(node.output, [])
    why_not_on = _forward_obstacle(graph, node, readers, scaling, consumers)
    if not why_not_on:
        for reader in readers:
            graph = _scaled_input(graph, reader, scaling)
        names = ", ".join(reader.layer or reader.name for reader in readers)
        return _without(graph, node), Decision(STAGE, node.layer, "folded", f"into {names} after it")
    reason = f"not before: {why_not_back}; not after: {why_not_on}"
    if node.op == "affine":
        return graph, Decision(STAGE, node.layer, "refused", reason)
    return _as_affine(graph, node, scaling), Decision(STAGE, node.layer, "refused", reason)


def _backward_obstacle(graph: Graph, node: Node, before: Node | None, consumers: Mapping[str, list[Node]]) -> str:
    if before is None or before.op not in LINEAR:
        return f"it follows {'an input' if before is None else before.op}"
    if before.output in graph.output_values() or consumers[before.output] != [node]:
        return "the layer before it has other readers"
    return _weights_obstacle(graph, before, consumers)


def _weights_obstacle(graph: Graph, node: Node, consumers: Mapping[str, list[Node]]) -> str:
    for path in node.inputs[1:]:
        if path != ABSENT and path not in graph.weights:
            return "the weights beside it are computed"
        if path != ABSENT and (len(consumers[path]) > 1 or path in graph.output_values()):
            return "the weights beside it are shared"
    return ""


def _forward_obstacle(
    graph: Graph, node: Node, readers: list[Node], scaling: Scaling, consumers: Mapping[str, list[Node]]
) -> str:
    if not readers or node.output in graph.output_values():
        return "it is an output of the model"
    for reader in readers:
        if reader.op not in LINEAR or reader.inputs[0] != node.output:
            return f"it feeds {reader.op}"
        if scaling.shift.any() and not _sums_whole_windows(reader):
            return "zero padding follows, where its shift is missing"
        obstacle = _weights_obstacle(graph, reader, consumers)
        if obstacle:
            return obstacle
    return ""


def _sums_whole_windows(node: Node) -> bool:
    if node.op == "dense":
        return True
    pads = node.attrs.get("pads")
    return node.attrs.get("padding") == "explicit" and isinstance(pads, tuple) and not any(pads)


def _scaled_output(graph: Graph, node: Node, scaling: Scaling) -> Graph:
    kernel = graph.weights[node.inputs[1]].astype(np.float64)
    rows = get_op(node.op).matrix_rows[1]
    shape = [1] * kernel.ndim
    for axis in rows:
        shape[axis] = kernel.shape[axis]
    return _with_weights(graph, node, kernel * scaling.scale.reshape(shape), scaling.scale, scaling.shift)


def _scaled_input(graph: Graph, node: Node, scaling: Scaling) -> Graph:
    kernel = graph.weights[node.inputs[1]].astype(np.float64)
    scale, shift = scaling.scale, scaling.shift
    match node.op:
        case "conv":
            groups = integer(node.attrs, "groups")
            # [in, 1] for one group; for several, each output column sees the channels of its own group.
            per_output = (groups, -1, kernel.shape[-1] // groups)
            scale, shift = (_grouped(vector, per_output) for vector in (scale, shift))
            moved = (kernel * shift).reshape(-1, kernel.shape[-1]).sum(axis=0)
        case "dense":
            scale, shift = scale[:, None], shift[:, None]
            moved = (kernel * shift).sum(axis=0)
        case "depthwise_conv":
            scale, shift = scale[:, None], shift[:, None]
            moved = (kernel * shift).reshape(-1, *kernel.shape[-2:]).sum(axis=0).reshape(-1)
        case _:
            moved = (kernel * shift).sum(axis=(*range(kernel.ndim - 2), -1))
    return _with_weights(graph, node, kernel * scale, np.ones(()), moved)


def _grouped(vector: Array, per_output: tuple[int, int, int]) -> Array:
    """``[in]`` as ``[in / groups, out]``: for every output channel the entries of its group."""
    groups, _, filters = per_output
    return np.repeat(vector.reshape(groups, -1), filters, axis=0).T


def _with_weights(graph: Graph, node: Node, kernel: Array, bias_scale: Array, bias_shift: Array) -> Graph:
    """The graph where ``node`` has another kernel, and ``bias * bias_scale + bias_shift`` for its bias."""
    weights = dict(graph.weights)
    dtype = weights[node.inputs[1]].dtype
    weights[node.inputs[1]] = kernel.astype(dtype)
    has_bias = len(node.inputs) > 2 and node.inputs[2] != ABSENT
    if not has_bias and not bias_shift.any():
        return graph.with_nodes(graph.nodes, weights)
    old = weights[node.inputs[2]].astype(np.float64) if has_bias else 0.0
    path = node.inputs[2] if has_bias else fresh_path(weights, added_bias_path(node.inputs[1]))
    weights[path] = (old * bias_scale + bias_shift).astype(dtype)
    changed = replace(node, inputs=(*node.inputs[:2], path))
    return graph.with_nodes((changed if other is node else other for other in graph.nodes), weights)


def _without(graph: Graph, node: Node) -> Graph:
    kept = graph.with_nodes(other for other in graph.nodes if other.name != node.name)
    return forward_values(kept, {node.output: node.inputs[0]})


def _as_affine(graph: Graph, node: Node, scaling: Scaling) -> Graph:
    weights = dict(graph.weights)
    dtype = weights[node.inputs[3]].dtype
    inputs = [node.inputs[0]]
    for name, vector in (("scale", scaling.scale), ("shift", scaling.shift)):
        path = fresh_path(weights, f"{node.name}/{name}")
        weights[path] = vector.astype(dtype)
        inputs.append(path)
    affine = make_node("affine", node.name, inputs, node.outputs, node.layer)
    return graph.with_nodes((affine if other.name == node.name else other for other in graph.nodes), weights)
