"""Choosing layouts so that the file needs the fewest Transposes.

Every node whose layout is free is one of two colours, channels-first or channels-last; convolutions and pools are
channels-first, graph inputs and outputs have the layout that was asked for. A value costs one Transpose if the node
that defines it and the nodes that read it do not all agree, however many disagree, since a converted copy is shared.
That is a minimum cut of a hypergraph into two parts, which a flow finds exactly (Lawler 1973, "Cutsets and partitions
of hypergraphs"): each value becomes an edge between two vertices of its own, whose capacity is the value's cost, with
unbounded edges from its nodes and back to them.

Where a value of rank 3 is transposed, channels-first of the one is channels-last of the other. The nodes behind the
transposition are then counted in swapped colours, so that agreement is agreement again (:mod:`.parity`). Of other
transpositions those between the two layouts themselves are known to be free. Where a value meets its own transpose, or is
transposed in yet another way, the choice is good but not proven to be the best.

Among assignments with equally many Transposes the one that moves the fewest elements is chosen, then the one with the
most nodes channels-first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from sparsec.backends.onnx.cut import Network
from sparsec.backends.onnx.layout import Demand, Demands, Layout, order_of, same_memory, through
from sparsec.backends.onnx.parity import Parities
from sparsec.backends.onnx.view import GraphView, NodeFacts
from sparsec.ir import ABSENT, Shape, evaluate, symbols

FIXED = {Demand.FIRST: Layout.FIRST, Demand.LAST: Layout.LAST}

NOMINAL_SIZE = 64
"""The size that an unknown dimension counts for when elements are compared."""


@dataclass(frozen=True)
class Placement:
    """The layouts of one node.

    Attributes:
        demands: what the node asked for.
        inner: the layout of the ports that asked for ``SAME``.
        output: the layout of the outputs.
    """

    demands: Demands
    inner: Layout
    output: Layout


@dataclass(frozen=True)
class _Pin:
    """A node's say in the layout of a value: a vertex, or a layout if that is fixed; ``swapped`` if it sees it transposed."""

    who: int | Layout
    swapped: bool


def assign_layouts(
    view: GraphView, rule: Callable[[NodeFacts], Demands], edges: Iterable[tuple[str, Layout]]
) -> dict[str, Placement]:
    """The layouts of every node.

    Args:
        view: the graph.
        rule: the demands of a node.
        edges: the values that enter or leave the graph, with the layouts they have there.

    Returns:
        the placement of each node, by name.
    """
    demands = {node.name: rule(NodeFacts(view, node)) for node in view.graph.nodes}
    network = Network()
    ends = {layout: network.vertex() for layout in Layout}
    inner = {name: network.vertex() for name in demands}
    outputs = {name: _output_vertex(asked.output, inner[name], network) for name, asked in demands.items()}
    pins = _collect_pins(view, demands, inner, outputs, edges)
    parities = Parities()
    for who in pins.values():
        _relate(who, parities)

    elements = {name: _elements(type_.shape) for name, type_ in view.types.items()}
    # One Transpose weighs more than all savings, and than the elements of all.
    most_saved = max((asked.saving for asked in demands.values()), default=0)
    transpose = (2 + most_saved) * sum(elements.values()) + 1
    for node in view.graph.nodes:
        asked, vertex = demands[node.name], inner[node.name]
        prefer = _swap(asked.prefer, parities.find(vertex)[1])
        tail, head = (ends[Layout.FIRST], vertex) if prefer is Layout.FIRST else (vertex, ends[Layout.LAST])
        network.edge(tail, head, asked.saving * elements[node.outputs[0]])
    for value, who in pins.items():
        shape = view.types[value].shape
        # Where both layouts hold the elements in one sequence, a Reshape converts between them.
        reshapes = same_memory(shape, *(order_of(layout, len(shape)) for layout in Layout))
        vertices = dict.fromkeys(ends[one] if isinstance(one, Layout) else one for one in _agreeing(who, parities))
        _couple(network, vertices, 1 if reshapes else transpose + elements[value], transpose * (len(view.types) + 1))
    side = network.cut(ends[Layout.FIRST], ends[Layout.LAST])

    def colour(who: int | Layout) -> Layout:
        if isinstance(who, Layout):
            return who
        return _swap(Layout.FIRST if who in side else Layout.LAST, parities.find(who)[1])

    return {name: Placement(demands[name], colour(inner[name]), colour(outputs[name])) for name in demands}


def _output_vertex(demand: Demand, inner: int, network: Network) -> int | Layout:
    if demand is Demand.SAME:
        return inner
    return network.vertex() if demand is Demand.FREE else FIXED[demand]


def _collect_pins(
    view: GraphView,
    demands: Mapping[str, Demands],
    inner: Mapping[str, int],
    outputs: Mapping[str, int | Layout],
    edges: Iterable[tuple[str, Layout]],
) -> dict[str, list[_Pin]]:
    """Who has a say in the layout of each value."""
    pins: dict[str, list[_Pin]] = {}

    def pin(value: str, who: int | Layout) -> None:
        if view.types[value].rank < 3 or view.is_constant(value):
            return
        root, permutation = view.root(value)
        if permutation == tuple(range(len(permutation))):
            pins.setdefault(root, []).append(_Pin(who, swapped=False))
        elif permutation == (0, 2, 1):
            pins.setdefault(root, []).append(_Pin(who, swapped=True))
        else:
            pins.setdefault(value, []).append(_Pin(who, swapped=False))

    for value, layout in edges:
        pin(value, layout)
    for node in view.graph.nodes:
        if node.op == "transpose":
            for value, layout in _free_reading(view, node.output):
                pin(value, layout)
            continue
        for value in node.outputs:
            pin(value, outputs[node.name])
        for value, demand in zip(node.inputs, demands[node.name].inputs, strict=True):
            if value != ABSENT and demand is not Demand.FREE:
                pin(value, inner[node.name] if demand is Demand.SAME else FIXED[demand])
    return pins


def _free_reading(view: GraphView, value: str) -> list[tuple[str, Layout]]:
    """The layouts of a transposed value of rank 4 and more, and of its root, in which both are the same; if there are such."""
    root, permutation = view.root(value)
    rank = len(permutation)
    if rank < 4 or not (value in view.leaving or any(node.op != "transpose" for node in view.readers.get(value, []))):
        return []
    for own, behind in ((Layout.FIRST, Layout.LAST), (Layout.LAST, Layout.FIRST)):
        if through(order_of(own, rank), permutation) == order_of(behind, rank):
            return [(value, own), (root, behind)]
    return []


def _relate(pins: Sequence[_Pin], parities: Parities) -> None:
    """Bring the vertices of a value to colours in which they agree, as far as that is possible."""
    vertices = [pin for pin in pins if not isinstance(pin.who, Layout)]
    for pin in vertices[1:]:
        parities.join(vertices[0].who, pin.who, vertices[0].swapped != pin.swapped)


def _agreeing(pins: Sequence[_Pin], parities: Parities) -> list[int | Layout]:
    """The pins of a value in colours in which they agree; a vertex that could not be brought to that is left out."""
    colours = [(pin.who, pin.swapped ^ parities.find(pin.who)[1]) for pin in pins if not isinstance(pin.who, Layout)]
    common = colours[0][1] if colours else False
    vertices: list[int | Layout] = [who for who, swapped in colours if swapped == common]
    fixed = [_swap(pin.who, pin.swapped ^ common) for pin in pins if isinstance(pin.who, Layout)]
    return vertices + fixed


def _swap(layout: Layout, swapped: bool) -> Layout:
    if not swapped:
        return layout
    return Layout.LAST if layout is Layout.FIRST else Layout.FIRST


def _couple(network: Network, vertices: Iterable[int], cost: int, unbounded: int) -> None:
    """Make it cost ``cost`` if ``vertices`` are not all on one side."""
    enter, leave = network.vertex(), network.vertex()
    network.edge(enter, leave, cost)
    for vertex in vertices:
        network.edge(vertex, enter, unbounded)
        network.edge(leave, vertex, unbounded)


def _elements(shape: Shape) -> int:
    return prod(max(evaluate(dim, dict.fromkeys(symbols(dim), NOMINAL_SIZE)), 1) for dim in shape)
