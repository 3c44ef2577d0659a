"""From a graph to an ONNX model: layouts, emission, storage, file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sparsec.backends.onnx.emit  # noqa: F401  (fills the table of exporters)
from sparsec.backends.onnx.assign import assign_layouts
from sparsec.backends.onnx.builder import Builder, Names
from sparsec.backends.onnx.draft import Draft, ValueInfo
from sparsec.backends.onnx.layout import Layout, Order, order_of, relative, through
from sparsec.backends.onnx.registry import exporter_of
from sparsec.backends.onnx.site import Site
from sparsec.backends.onnx.storage import SparseWeight, choose_sparse
from sparsec.backends.onnx.view import GraphView
from sparsec.backends.onnx.writer import check, ir_version, model_message
from sparsec.errors import InputError
from sparsec.files import replacing
from sparsec.ir import Dim, Graph, TensorType, symbols

if TYPE_CHECKING:
    import onnx

OPSETS = range(13, 22)
"""The operator sets that can be asked for."""

LAYOUTS = {"nhwc": Layout.LAST, "nchw": Layout.FIRST}
"""The layouts of the model's inputs and outputs of rank 3 and more."""

LAYOUT_KEY = "sparsec.layout"
"""The key in the file's metadata under which that layout stands."""


@dataclass(frozen=True)
class OnnxSummary:
    """What was written.

    Attributes:
        bytes: the size of the file.
        opset: the version of the standard operator set.
        ir_version: the version of the file format.
        layout: ``nhwc`` or ``nchw``, the layout of inputs and outputs.
        nodes: the number of ONNX nodes.
        transposes: how many of them are Transposes.
        sparse: the weights that are stored as sparse initialisers.
    """

    bytes: int
    opset: int
    ir_version: int
    layout: str
    nodes: int
    transposes: int
    sparse: tuple[SparseWeight, ...]


def export_onnx(
    graph: Graph, path: str | os.PathLike[str], *, opset: int = 17, layout: str = "nhwc", weights: str = "auto"
) -> OnnxSummary:
    """Write a graph as an ONNX file of standard operators; see ``formats/onnx.md``.

    Args:
        graph: the graph.
        path: the file to write; an existing one is replaced once the new one is complete.
        opset: the version of the standard operator set, 13 to 21.
        layout: ``nhwc`` keeps the axes of inputs and outputs as in the graph; ``nchw`` moves the last axis of those with
            rank 3 and more to axis 1.
        weights: ``dense``; ``sparse`` for sparse initialisers; ``auto`` for whichever is smaller, weight by weight.

    Returns:
        what was written.

    Raises:
        InputError: an option is out of range, the file cannot be written, or would be larger than 2 GiB.
        MissingExtraError: the ``onnx`` package is not installed.
        UnsupportedOperatorError: an operator cannot be expressed, for the reason given.
        GraphError: the graph is malformed.
    """
    draft = make_draft(graph, opset=opset, layout=layout)
    sparse = choose_sparse(draft, weights)
    message = model_message(draft, sparse)
    check(draft, sparse)
    with replacing(Path(path)) as temporary, temporary.open("wb") as file:
        for piece in message.pieces():
            file.write(piece)
    return OnnxSummary(
        bytes=message.length,
        opset=opset,
        ir_version=ir_version(opset),
        layout=layout,
        nodes=len(draft.nodes),
        transposes=sum(node.op_type == "Transpose" for node in draft.nodes),
        sparse=tuple(sparse.values()),
    )


def to_model(graph: Graph, *, opset: int = 17, layout: str = "nhwc", weights: str = "auto") -> onnx.ModelProto:
    """The model that :func:`export_onnx` would write, in memory and unchecked; arguments and errors as there."""
    draft = make_draft(graph, opset=opset, layout=layout)
    message = model_message(draft, choose_sparse(draft, weights))
    import onnx

    model: onnx.ModelProto = onnx.ModelProto.FromString(message.to_bytes())
    return model


def make_draft(graph: Graph, *, opset: int = 17, layout: str = "nhwc") -> Draft:
    """The model in ONNX's terms, before it is decided how weights are stored.

    Arguments and errors as in :func:`export_onnx`.
    """
    if opset not in OPSETS:
        raise InputError(f"ONNX operator set {opset} is not supported; choose one from {OPSETS[0]} to {OPSETS[-1]}")
    if layout not in LAYOUTS:
        raise InputError(f"ONNX layout {layout!r} is none of {', '.join(LAYOUTS)}")
    view = GraphView.of(graph)
    ends = {i.name: _input_layout(view, i.name, LAYOUTS[layout]) for i in graph.inputs}
    leaving = {port.name: _output_layout(view, port.value, LAYOUTS[layout]) for port in graph.outputs}
    edges = [*ends.items(), *((port.value, leaving[port.name]) for port in graph.outputs)]
    placements = assign_layouts(view, lambda facts: exporter_of(facts).rule(facts), edges)

    names = Names()
    for entry in graph.inputs:
        names.take(entry.name)
    orders = {port.name: order_of(leaving[port.name], view.types[port.value].rank) for port in graph.outputs}
    entering = {i.name: order_of(ends[i.name], i.type.rank) for i in graph.inputs}
    public, reserved = _output_names(view, entering, orders, names)
    builder = Builder(view, opset, reserved, names)
    for value, order in entering.items():
        builder.add_input(value, order)
    for node in graph.nodes:
        site = Site(view, node, builder, placements[node.name])
        exporter_of(site).emit(site)
        builder.follow_rows(node)
    for port in graph.outputs:
        stored = builder.read(port.value, orders[port.name])
        if stored != public[port.name]:
            builder.add("Identity", f"{port.name}/output", [stored], [public[port.name]])
    return Draft(
        name=graph.name or "model",
        opset=opset,
        inputs=tuple(_info(i.name, i.type, entering[i.name]) for i in graph.inputs),
        outputs=tuple(_info(public[p.name], view.types[p.value], orders[p.name]) for p in graph.outputs),
        nodes=tuple(builder.nodes),
        constants=tuple(builder.constants),
        metadata={LAYOUT_KEY: layout},
    )


def _input_layout(view: GraphView, value: str, wanted: Layout) -> Layout:
    """The layout of an input; one that only ever is transposed to channels-last is channels-first as it is."""
    rank = view.types[value].rank
    readers = view.readers.get(value, [])
    if readers and value not in view.leaving and rank > 2:
        to_last = relative(order_of(Layout.FIRST, rank), order_of(Layout.LAST, rank))
        if all(node.op == "transpose" and node.attrs["permutation"] == to_last for node in readers):
            return Layout.LAST
    return wanted


def _output_layout(view: GraphView, value: str, wanted: Layout) -> Layout:
    """The layout of an output; one that has just been transposed to channels-first stays as it is."""
    rank = view.types[value].rank
    transposed = value in view.roots and view.roots[value][1] == order_of(Layout.FIRST, rank)
    return Layout.LAST if transposed and rank > 2 else wanted


def _output_names(
    view: GraphView, entering: Mapping[str, Order], leaving: Mapping[str, Order], names: Names
) -> tuple[dict[str, str], dict[tuple[str, Order], str]]:
    """The names of the outputs, and which stored values are defined under them from the start.

    An output that is an input of the same name needs no node; a further output of the same value, one that is an input of
    another name, or a weight, is copied.

    Args:
        view: the graph.
        entering: the order of each input.
        leaving: the order of each output.
        names: the names in use, those of the inputs among them.
    """
    public: dict[str, str] = {}
    reserved: dict[tuple[str, Order], str] = {}
    for port in view.graph.outputs:
        root, permutation = view.root(port.value)
        stored = root, through(leaving[port.name], permutation)
        if root == port.name and entering.get(root) == stored[1]:
            public[port.name] = root
            continue
        public[port.name] = names.take(port.name)
        if root not in entering and root not in view.graph.weights:
            reserved.setdefault(stored, public[port.name])
    return public, reserved


def _info(name: str, type_: TensorType, order: Order) -> ValueInfo:
    return ValueInfo(name, type_.dtype, tuple(_size(type_.shape[axis]) for axis in order))


def _size(dim: Dim) -> int | str | None:
    """A size as ONNX states it: a number, a name, or nothing for what follows from others."""
    if isinstance(dim, int):
        return dim
    name = str(dim)
    return name if symbols(dim) == {name} else None
