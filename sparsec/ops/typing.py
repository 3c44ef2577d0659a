"""What follows from the operators for a whole graph: types, the check, and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sparsec.errors import GraphError
from sparsec.ir import ABSENT, BATCH, Array, Graph, Node, TensorType, check_structure, substitute, weight_type
from sparsec.ops.base import get_op


def make_node(op: str, name: str, inputs: Sequence[str], outputs: Sequence[str], layer: str = "", **attrs: object) -> Node:
    """A node whose attributes are checked and completed with their defaults.

    Raises:
        GraphError: the operator or an attribute is unknown, or has the wrong type.
    """
    return Node(op, name, tuple(inputs), tuple(outputs), get_op(op).complete(attrs), layer)


def infer_node(node: Node, types: Mapping[str, TensorType]) -> tuple[TensorType, ...]:
    """The types of a node's outputs, given those of the values before it.

    Raises:
        GraphError: the node is malformed; the message names it and its layer.
    """
    try:
        op = get_op(node.op)
        least, most = op.arity()
        if len(node.inputs) < least or (most is not None and len(node.inputs) > most):
            raise GraphError(f"operator {node.op!r} does not take {len(node.inputs)} inputs")
        attrs = op.complete(node.attrs)
        if attrs != node.attrs:
            raise GraphError(f"attributes {dict(node.attrs)} are not complete")
        inferred = op.infer(attrs, [None if name == ABSENT else types[name] for name in node.inputs])
        if len(inferred) != len(node.outputs):
            raise GraphError(f"operator {node.op!r} has {len(inferred)} outputs, not {len(node.outputs)}")
    except GraphError as error:
        where = f" of layer {node.layer!r}" if node.layer else ""
        raise GraphError(f"node {node.name!r}{where}: {error}") from None
    return inferred


def infer_types(graph: Graph) -> dict[str, TensorType]:
    """The type of every value of a graph.

    Raises:
        GraphError: a node is malformed or its inputs do not fit it.
    """
    types = {i.name: i.type for i in graph.inputs}
    types.update((path, weight_type(array)) for path, array in graph.weights.items())
    for node in graph.nodes:
        types.update(zip(node.outputs, infer_node(node, types), strict=True))
    return types


def node_macs(node: Node, types: Mapping[str, TensorType]) -> int | None:
    """The multiply-accumulates of a node for one sample; ``None`` where they depend on sizes that are open.

    Args:
        node: of a checked graph.
        types: of all values of the graph.
    """
    inputs = [None if name == ABSENT else types[name] for name in node.inputs]
    count = get_op(node.op).macs(node.attrs, inputs, [types[name] for name in node.outputs])
    known = substitute(count, {BATCH: 1})
    return known if isinstance(known, int) else None


def check(graph: Graph, after: str) -> dict[str, TensorType]:
    """Check a graph and return the types of its values.

    Args:
        graph: the graph.
        after: what produced it, a pass or a front-end; named in the error.

    Raises:
        GraphError: a rule of the IR is broken.
    """
    try:
        check_structure(graph)
        return infer_types(graph)
    except GraphError as error:
        raise GraphError(f"after {after}: {error}") from None


def evaluate_graph(
    graph: Graph,
    inputs: Sequence[Array],
    observe: Callable[[Node, Sequence[Array]], None] | None = None,
    dtype: str | None = None,
) -> tuple[Array, ...]:
    """Run a graph by its operators' reference semantics.

    Args:
        graph: a checked graph.
        inputs: one array for each input, in order.
        observe: called with each node and its outputs; for calibration and tests.
        dtype: evaluate in this floating-point dtype instead of the graph's own; weights are cast one node at a
            time, so that a proof in float64 does not hold the model twice.

    Returns:
        one array for each output, in order.
    """

    def cast(array: Array) -> Array:
        if dtype is None or not np.issubdtype(array.dtype, np.floating):
            return array
        return array.astype(dtype, copy=False)

    values: dict[str, Array] = {i.name: cast(np.asarray(x)) for i, x in zip(graph.inputs, inputs, strict=True)}
    last_use = {value: index for index, node in enumerate(graph.nodes) for value in node.inputs}
    kept = graph.output_values()
    # Casts state a dtype of their own; the weights stay where they are.
    nodes = graph.nodes if dtype is None else graph.with_nodes(graph.nodes, {}).lifted(dtype).nodes
    for index, node in enumerate(nodes):
        arguments = [_argument(name, values, graph, cast) for name in node.inputs]
        results = get_op(node.op).evaluate(node.attrs, arguments)
        values.update(zip(node.outputs, results, strict=True))
        if observe is not None:
            observe(node, results)
        for value in (*node.inputs, *node.outputs):
            if last_use.get(value, -1) <= index and value not in kept:
                values.pop(value, None)
    return tuple(values[p.value] if p.value in values else cast(graph.weights[p.value]) for p in graph.outputs)


def _argument(name: str, values: Mapping[str, Array], graph: Graph, cast: Callable[[Array], Array]) -> Array | None:
    if name == ABSENT:
        return None
    return values[name] if name in values else cast(graph.weights[name])
