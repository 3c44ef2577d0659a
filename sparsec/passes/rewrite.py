"""What passes that rewrite nodes one at a time have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sparsec.ir import Array, Graph, Node, Port


def renamed(node: Node, names: Mapping[str, str]) -> Node:
    """The node reading ``names[value]`` instead of ``value``."""
    if not any(value in names for value in node.inputs):
        return node
    return replace(node, inputs=tuple(names.get(value, value) for value in node.inputs))


def forward_values(graph: Graph, names: Mapping[str, str]) -> Graph:
    """The graph with every reader of a value in ``names`` reading what the value stands for, chains followed."""
    final = {value: _end(value, names) for value in names}
    outputs = tuple(Port(port.name, final.get(port.value, port.value)) for port in graph.outputs)
    return replace(graph, nodes=tuple(renamed(node, final) for node in graph.nodes), outputs=outputs)


def _end(value: str, names: Mapping[str, str]) -> str:
    while value in names:
        value = names[value]
    return value


def drop_dead(graph: Graph) -> Graph:
    """The graph without nodes and weights that no output needs."""
    needed = set(graph.output_values())
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    return graph.with_nodes(reversed(kept)).pruned_weights()


def added_bias_path(kernel: str) -> str:
    """The path of the bias that a linear layer gets whose kernel is at ``kernel``."""
    return f"{kernel.rsplit('/', 1)[0]}/bias"


def fresh_path(weights: Mapping[str, Array], path: str) -> str:
    """``path``, or the first of ``path_1``, ``path_2``, ... that is not taken."""
    if path not in weights:
        return path
    count = 1
    while f"{path}_{count}" in weights:
        count += 1
    return f"{path}_{count}"
