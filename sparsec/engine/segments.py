"""Which nodes run natively, and which of those together.

A segment is a set of native nodes that run in one call: no path leads from one to another through a node that does not run
natively. Of those with the same number of changes between native and other nodes before them, all belong together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sparsec.engine.rules import DTYPES, FLOATS, INTEGERS, RULES, Found, Site
from sparsec.engine.steps import Refusal
from sparsec.ir import ABSENT, BATCH, Dim, Expr, Graph, Node, TensorType
from sparsec.kernels import WeightStore

WORTH: Final = frozenset(
    {
        "dense",
        "conv",
        "depthwise_conv",
        "conv_transpose",
        "max_pool",
        "avg_pool",
        "reduce_mean",
        "reduce_max",
        "lstm",
        "gru",
        "simple_rnn",
        "conv_lstm",
        "attention",
        "matmul",
    }
)
"""A segment without one of these is not worth turning values into planes and back."""


@dataclass(frozen=True)
class Segment:
    """Nodes that run in one call.

    Attributes:
        nodes: in order.
        inputs: the values that it takes, in the order in which they are read.
        outputs: the values that it gives.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Division:
    """A graph in execution order, some of it native.

    Attributes:
        items: segments, and the nodes that are in none.
        refused: by the name of a node that is in none, why.
    """

    items: tuple[Segment | Node, ...]
    refused: Mapping[str, str]


def divide(graph: Graph, symbolic: Mapping[str, TensorType], types: Mapping[str, TensorType], store: WeightStore) -> Division:
    """Divide a graph.

    Args:
        graph: the model.
        symbolic: the types of its values, as far as they are known without the input shapes.
        types: the types of its values, with known sizes.
        store: its weights.
    """
    refused: dict[str, str] = {}
    for node in graph.nodes:
        reason = _refuse_values(node, symbolic, store) or _refuse(node, types, store)
        if reason:
            refused[node.name] = reason
    while True:
        levels = _levels(graph, refused)
        native: dict[int, list[Node]] = {}
        for node in graph.nodes:
            if node.name not in refused:
                native.setdefault(levels[node.name], []).append(node)
        idle = [nodes for nodes in native.values() if not any(node.op in WORTH for node in nodes)]
        giving = [node for nodes in native.values() for node in nodes if _gives_integers(graph, node, nodes, types)]
        if not idle and not giving:
            return Division(_in_order(graph, levels, refused, native, store), refused)
        refused.update((node.name, "nothing beside it is worth a native call") for nodes in idle for node in nodes)
        refused.update((node.name, "its integers are needed by what is not native") for node in giving)


def _gives_integers(graph: Graph, node: Node, nodes: Sequence[Node], types: Mapping[str, TensorType]) -> bool:
    """Whether a node gives integers, which float32 may not hold, to others than those with which it runs."""
    made = {output for output in node.outputs if types[output].dtype in INTEGERS}
    if not made:
        return False
    together = {other.name for other in nodes}
    outside = {name for other in graph.nodes if other.name not in together for name in other.inputs}
    return bool(made & (outside | graph.output_values()))


def _refuse_values(node: Node, types: Mapping[str, TensorType], store: WeightStore) -> str:
    for name in (*node.inputs, *node.outputs):
        if name == ABSENT or name in store:
            continue
        type_ = types[name]
        if type_.dtype not in DTYPES.get(node.op, FLOATS):
            return f"its values are {type_.dtype}"
        if type_.rank == 0 or not _is_of_samples(type_.shape[0]):
            return f"a value {type_} does not have the batch as its first axis"
    return ""


def _is_of_samples(dim: Dim) -> bool:
    """Whether a size is that of the batch, or of the batch and other axes in one."""
    return isinstance(dim, Expr) and all(monomial.count(BATCH) == 1 for monomial, _ in dim.terms)


def _refuse(node: Node, types: Mapping[str, TensorType], store: WeightStore) -> str:
    if node.op not in RULES:
        return "its operator has no native kernel"
    if any(0 in types[name].shape for name in (*node.inputs, *node.outputs) if name != ABSENT and name not in store):
        return "a value of it is empty"
    found: Found = RULES[node.op](Site(node, types, store))
    return found.reason if isinstance(found, Refusal) else ""


def _levels(graph: Graph, refused: Mapping[str, str]) -> dict[str, int]:
    """For each node, after how many changes from native nodes to others it comes."""
    makers = {output: node for node in graph.nodes for output in node.outputs}
    levels: dict[str, int] = {}
    for node in graph.nodes:
        level = 0 if node.name not in refused else -1
        for name in node.inputs:
            if name in makers:
                maker = makers[name]
                changes = maker.name in refused and node.name not in refused
                level = max(level, levels[maker.name] + changes)
        levels[node.name] = level
    return levels


def _in_order(
    graph: Graph,
    levels: Mapping[str, int],
    refused: Mapping[str, str],
    native: Mapping[int, list[Node]],
    store: WeightStore,
) -> tuple[Segment | Node, ...]:
    items: list[Segment | Node] = []
    for level in sorted({*levels.values()}):
        if level in native:
            items.append(_segment(graph, native[level], store))
        items += [node for node in graph.nodes if node.name in refused and levels[node.name] == level]
    return tuple(items)


def _segment(graph: Graph, nodes: list[Node], store: WeightStore) -> Segment:
    made = {output for node in nodes for output in node.outputs}
    names = {node.name for node in nodes}
    inputs: dict[str, None] = {}
    for node in nodes:
        inputs.update((name, None) for name in node.inputs if name != ABSENT and name not in made and name not in store)
    wanted = {name for node in graph.nodes if node.name not in names for name in node.inputs} | graph.output_values()
    outputs = [output for node in nodes for output in node.outputs if output in wanted]
    return Segment(tuple(nodes), tuple(inputs), tuple(outputs))
