"""Simplification: what is known before the model runs is settled, and what does nothing goes.

* operators on weights alone are evaluated;
* ``same`` padding becomes explicit where the sizes are known or cannot matter;
* operators that return their input go; so do those that no output needs;
* transposes move towards the outputs through operators that do not care, and cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from sparsec.ir import ABSENT, Array, Attrs, Graph, Node, TensorType
from sparsec.ops import get_op, infer_types, make_node
from sparsec.ops.base import ints
from sparsec.ops.elementwise import Binary, Unary
from sparsec.ops.windows import WINDOW_ATTRIBUTES, extent, same_pads
from sparsec.passes.rewrite import drop_dead, forward_values


def simplify(graph: Graph) -> Graph:
    """Simplify a graph until nothing changes."""
    graph = drop_dead(fold_constants(explicit_padding(graph)))
    while True:
        smaller = drop_dead(remove_identities(sink_transposes(graph)))
        if smaller.nodes == graph.nodes:
            return smaller
        graph = smaller


def fold_constants(graph: Graph) -> Graph:
    """Evaluate the nodes that read weights alone.

    A weight that others read as it is is not stored transposed as well: transposing moves nothing.
    """
    weights: dict[str, Array] = dict(graph.weights)
    consumers = graph.consumers()
    kept: list[Node] = []
    for node in graph.nodes:
        shared = node.op == "transpose" and any(reader.op != "transpose" for reader in consumers[node.inputs[0]])
        if not shared and all(name == ABSENT or name in weights for name in node.inputs):
            results = get_op(node.op).evaluate(node.attrs, [weights.get(name) for name in node.inputs])
            weights.update(zip(node.outputs, results, strict=True))
        else:
            kept.append(node)
    return graph.with_nodes(kept, weights)


def explicit_padding(graph: Graph) -> Graph:
    """Turn ``same`` padding into counts where the input sizes are known, or the stride is 1 so that they do not matter."""
    types = infer_types(graph)
    return graph.with_nodes(_explicit(node, types) for node in graph.nodes)


def _explicit(node: Node, types: Mapping[str, TensorType]) -> Node:
    if node.attrs.get("padding") != "same":
        return node
    strides, dilations = ints(node.attrs, "strides"), ints(node.attrs, "dilations")
    # Before the spatial axes there are those of samples, and of steps where there are any.
    spatial = types[node.inputs[0]].shape[-1 - len(strides) : -1]
    window = node.attrs["window"] if "window" in node.attrs else types[node.inputs[1]].shape[: len(spatial)]
    pads: list[int] = []
    for size, kernel, stride, dilation in zip(spatial, window, strides, dilations, strict=True):  # type: ignore[arg-type]
        if isinstance(size, int):
            pads += same_pads(size, int(kernel), stride, dilation)  # type: ignore[arg-type]
        elif stride == 1:
            total = extent(int(kernel), dilation) - 1  # type: ignore[arg-type]
            pads += [total // 2, total - total // 2]
        elif kernel == 1:
            pads += [0, 0]
        else:
            return node
    assert set(WINDOW_ATTRIBUTES) <= set(node.attrs)
    return replace(node, attrs={**node.attrs, "padding": "explicit", "pads": tuple(pads)})


def remove_identities(graph: Graph) -> Graph:
    """Remove the nodes that return their input unchanged."""
    types = infer_types(graph)
    names = {node.output: node.inputs[0] for node in graph.nodes if _is_identity(node, types)}
    kept = graph.with_nodes(node for node in graph.nodes if not names.keys() & set(node.outputs))
    return forward_values(kept, names)


def _is_identity(node: Node, types: Mapping[str, TensorType]) -> bool:
    match node.op:
        case "reshape" | "cast" | "resize" | "slice":
            same_type = types[node.inputs[0]] == types[node.output]
            return same_type and (node.op != "slice" or node.attrs["step"] == 1)
        case "transpose":
            permutation = ints(node.attrs, "permutation")
            return permutation == tuple(range(len(permutation)))
        case "pad":
            return not any(ints(node.attrs, "pads"))
        case "tile":
            return all(count == 1 for count in ints(node.attrs, "repeats"))
        case "concat":
            return len(node.inputs) == 1
    return False


def merge_padding(graph: Graph) -> Graph:
    """Move the zeros of a ``pad`` into the convolutions that are its only readers."""
    consumers, outputs = graph.consumers(), graph.output_values()
    pads: dict[str, Node] = {}
    for node in graph.nodes:
        readers = consumers.get(node.output, []) if node.op == "pad" else []
        if readers and node.output not in outputs and all(_takes_padding(reader, node.output) for reader in readers):
            pads[node.output] = node
    return drop_dead(graph.with_nodes(_with_padding(node, pads) for node in graph.nodes)) if pads else graph


def _takes_padding(node: Node, value: str) -> bool:
    return node.op in ("conv", "depthwise_conv") and node.attrs["padding"] == "explicit" and node.inputs[0] == value


def _with_padding(node: Node, pads: Mapping[str, Node]) -> Node:
    if not node.inputs or node.inputs[0] not in pads:
        return node
    pad = pads[node.inputs[0]]
    total = tuple(a + b for a, b in zip(ints(node.attrs, "pads"), ints(pad.attrs, "pads"), strict=True))
    return replace(node, inputs=(pad.inputs[0], *node.inputs[1:]), attrs={**node.attrs, "pads": total})


# --- transposes ------------------------------------------------------------------------------------------------------


def sink_transposes(graph: Graph) -> Graph:
    """Merge each transpose with one that feeds it, or move it behind its reader where the reader does not care.

    Channels-first models arrive with a transpose on either side of every layer; between two layers they meet and cancel.
    """
    consumers, producers, types = graph.consumers(), graph.producers(), infer_types(graph)
    result: list[Node] = []
    moved: dict[str, tuple[str, tuple[int, ...]]] = {}

    def behind(name: str) -> tuple[str, tuple[int, ...]] | None:
        """The untransposed value and the permutation, where ``name`` is a transpose."""
        node = producers.get(name)
        if name in moved:
            return moved[name]
        return (node.inputs[0], ints(node.attrs, "permutation")) if node is not None and node.op == "transpose" else None

    for node in graph.nodes:
        if node.op == "transpose":
            inner = behind(node.inputs[0])
            if inner is not None:
                composed = tuple(inner[1][axis] for axis in ints(node.attrs, "permutation"))
                node = make_node("transpose", node.name, [inner[0]], node.outputs, node.layer, permutation=composed)
            result.append(node)
            continue
        rule = _TRANSPARENT.get(node.op) or (_elementwise if isinstance(get_op(node.op), Unary | Binary) else None)
        sources = [behind(name) for name in node.inputs if name not in graph.weights and name != ABSENT]
        readers = [reader for name in node.inputs if name not in graph.weights for reader in consumers.get(name, [])]
        # Where another reader needs the transposed value, moving the transpose would only add one.
        only = all(reader.op == "transpose" or _may_be_transparent(reader) for reader in readers)
        alike = bool(sources) and all(source is not None and source[1] == sources[0][1] for source in sources)  # type: ignore[index]
        if rule is None or not alike or not only:
            result.append(node)
            continue
        permutation = sources[0][1]  # type: ignore[index]
        attrs = rule(node, permutation, graph, types)
        if attrs is None:
            result.append(node)
            continue
        inner_name = f"{node.name}/untransposed"
        replaced = {name: source[0] for name in node.inputs if (source := behind(name)) is not None}
        inputs = tuple(replaced.get(name, name) for name in node.inputs)
        result.append(Node(node.op, inner_name, inputs, (inner_name,), attrs, node.layer))
        result.append(make_node("transpose", node.name, [inner_name], node.outputs, node.layer, permutation=permutation))
        moved[node.output] = (inner_name, permutation)
    return graph.with_nodes(result)


def _may_be_transparent(node: Node) -> bool:
    return node.op in _TRANSPARENT or isinstance(get_op(node.op), Unary | Binary)


Transparent = Callable[[Node, tuple[int, ...], Graph, Mapping[str, TensorType]], Attrs | None]


def _elementwise(node: Node, permutation: tuple[int, ...], graph: Graph, types: Mapping[str, TensorType]) -> Attrs | None:
    scalars = all(types[name].rank == 0 for name in node.inputs if name in graph.weights)
    ranks = {types[name].rank for name in node.inputs if name not in graph.weights}
    if not scalars or ranks != {len(permutation)}:
        return None
    return _axis(node, permutation, graph, types) if "axis" in node.attrs else node.attrs


def _axis(node: Node, permutation: tuple[int, ...], graph: Graph, types: Mapping[str, TensorType]) -> Attrs | None:
    axis = permutation[int(node.attrs["axis"])]  # type: ignore[arg-type]
    # The last axis keeps its name -1, by which rules know channels.
    return {**node.attrs, "axis": -1 if axis == len(permutation) - 1 else axis}


_TRANSPARENT: dict[str, Transparent] = {"batch_norm": _axis, "concat": _axis}
