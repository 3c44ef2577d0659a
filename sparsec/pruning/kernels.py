"""The kernels of a graph: where units are, which layers are the output layers, and which layers a user skips."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from math import prod

from sparsec.errors import InputError
from sparsec.ir import Graph, Node
from sparsec.ops import get_op

KERNELS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("conv", "conv_transpose", "dense", "depthwise_conv"), (1,)),
    **dict.fromkeys(("simple_rnn", "lstm", "gru", "conv_lstm"), (1, 3)),
}
"""The operators whose weights are pruned, and which of their inputs are kernels: recurrent ones have two."""

OUTPUT_LAYER, SKIPPED = "output layer", "skipped"
"""Why a layer is not pruned."""


@dataclass(frozen=True)
class Kernel:
    """A weight that is pruned, with the layer that owns it.

    Attributes:
        path: of the weight, ``<layer>/<variable>``.
        layer: path of the layer.
        shape: as stored.
        unit_axes: the axes that number the units, ascending and not negative.
        values: the first output of each call of the layer.
        gates: how many columns make up one unit, one for each gate of a recurrent layer, gate after gate.
    """

    path: str
    layer: str
    shape: tuple[int, ...]
    unit_axes: tuple[int, ...]
    values: tuple[str, ...]
    gates: int = 1

    @property
    def size(self) -> int:
        """The number of weights."""
        return prod(self.shape)

    @property
    def units(self) -> int:
        """The number of units: columns or filters."""
        return prod(self.shape[axis] for axis in self.unit_axes)

    @property
    def fan_in(self) -> int:
        """The number of weights of one unit."""
        return self.size // self.units


def kernel_paths(node: Node, graph: Graph) -> list[str]:
    """The kernels that a node applies; none where they are computed."""
    return [node.inputs[index] for index in KERNELS.get(node.op, ()) if node.inputs[index] in graph.weights]


def find_kernels(graph: Graph) -> tuple[Kernel, ...]:
    """Every kernel once, in the order in which they are first applied."""
    calls: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for path in kernel_paths(node, graph):
            calls.setdefault(path, []).append(node)
    return tuple(_kernel(path, nodes, graph) for path, nodes in calls.items())


def _kernel(path: str, nodes: list[Node], graph: Graph) -> Kernel:
    node, shape = nodes[0], graph.weights[path].shape
    op = get_op(node.op)
    axes = tuple(sorted(axis % len(shape) for axis in op.matrix_rows[node.inputs.index(path)]))
    return Kernel(path, node.layer or path, shape, axes, tuple(node.outputs[0] for node in nodes), op.gates)


def find_output_layers(graph: Graph, kernels: Iterable[Kernel]) -> frozenset[str]:
    """The layers from which an output of the graph is reached without another kernel in between."""
    owners = {kernel.path: kernel.layer for kernel in kernels}
    producers = graph.producers()
    pending, seen, found = [port.value for port in graph.outputs], set[str](), set[str]()
    while pending:
        value = pending.pop()
        node = producers.get(value)
        if node is None or value in seen:
            continue
        seen.add(value)
        paths = [path for path in kernel_paths(node, graph) if path in owners]
        found.update(owners[path] for path in paths)
        if not paths:
            pending.extend(node.inputs)
    return frozenset(found)


def match_layers(patterns: Iterable[str], layers: Iterable[str]) -> frozenset[str]:
    """The layers that patterns name.

    Args:
        patterns: names of layers or of nested models, or patterns with ``*``, ``?`` and ``[...]``.
        layers: paths of the layers there are.

    Raises:
        InputError: a pattern names none.
    """
    known = tuple(dict.fromkeys(layers))
    found: set[str] = set()
    for pattern in patterns:
        matched = [layer for layer in known if any(fnmatchcase(name, pattern) for name in _names(layer))]
        if not matched:
            near = get_close_matches(pattern, known, n=3, cutoff=0.4) or known[:3]
            raise InputError(
                f"no layer with a kernel is called {pattern!r}; near names are {', '.join(map(repr, near))}"
                if near
                else f"no layer with a kernel is called {pattern!r}: the model has none"
            )
        found.update(matched)
    return frozenset(found)


def _names(layer: str) -> list[str]:
    """The layer's path and those of the models around it, so that the name of a nested model stands for all its layers."""
    parts = layer.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def exempt_layers(graph: Graph, kernels: Iterable[Kernel], skip: Iterable[str]) -> Mapping[str, str]:
    """Why layers are not pruned, by layer.

    Raises:
        InputError: ``skip`` names a layer that is not there.
    """
    kernels = tuple(kernels)
    skipped = match_layers(skip, (kernel.layer for kernel in kernels))
    outputs = find_output_layers(graph, kernels)
    return {**dict.fromkeys(sorted(skipped), SKIPPED), **dict.fromkeys(sorted(outputs), OUTPUT_LAYER)}
