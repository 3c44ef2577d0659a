"""Exporters of the operators that move, select or repeat elements."""

from __future__ import annotations

from math import prod

from sparsec.backends.onnx.layout import Demand, Demands, Layout, Order, order_of
from sparsec.backends.onnx.registry import exports, same_layout
from sparsec.backends.onnx.site import Site
from sparsec.backends.onnx.view import POINTWISE, GraphView, NodeFacts
from sparsec.ir import Dim, Shape
from sparsec.ops.base import integer, ints, normal_axis


def _segments(before: Shape, after: Shape) -> list[tuple[tuple[int, ...], tuple[int, ...]]] | None:
    """The smallest runs of axes of two shapes whose products agree, without axes of size 1; ``None`` if there are none.

    Reshaping ``[N, H, W, C]`` to ``[N, H * W, C]`` has the runs (N, N), (HW, H * W) and (C, C): any order of the axes that
    keeps each run together is reshaped to the same order of the runs.
    """
    result = []
    left = [axis for axis, size in enumerate(before) if size != 1]
    right = [axis for axis, size in enumerate(after) if size != 1]
    while left or right:
        for a, b in _cuts(len(left), len(right)):
            total: Dim = _product(before, left[:a])
            if total == _product(after, right[:b]):
                result.append((tuple(left[:a]), tuple(right[:b])))
                left, right = left[a:], right[b:]
                break
        else:
            return None
    return result


def _cuts(left: int, right: int) -> list[tuple[int, int]]:
    """The lengths of two non-empty starts, the shortest first."""
    return sorted(((a, b) for a in range(1, left + 1) for b in range(1, right + 1)), key=sum)


def _product(shape: Shape, axes: list[int]) -> Dim:
    total: Dim = 1
    for axis in axes:
        total = total * shape[axis]
    return total


def _keeps_sequence(before: Shape, after: Shape, source: Order, target: Order) -> bool:
    """Whether reshaping a value stored in ``source`` gives the reshaped value stored in ``target``."""
    segments = _segments(before, after)
    if segments is None:
        return source == tuple(range(len(before))) and target == tuple(range(len(after)))
    left = [axis for axis in source if before[axis] != 1]
    right = [axis for axis in target if after[axis] != 1]
    while left or right:
        for a, b in segments:
            if left[: len(a)] == list(a) and right[: len(b)] == list(b):
                left, right = left[len(a) :], right[len(b) :]
                break
        else:
            return False
    return True


def _fits(facts: NodeFacts, source: Layout, target: Layout) -> bool:
    before, after = facts.type(0).shape, facts.result.shape
    return _keeps_sequence(before, after, order_of(source, len(before)), order_of(target, len(after)))


def _feeds_dense_only(view: GraphView, value: str) -> bool:
    """Whether the features of a flattened value are read by dense layers alone, pointwise operators between or not."""
    if value in view.leaving:
        return False
    for node in view.readers.get(value, []):
        if node.op == "dense":
            if value in node.inputs[1:] or not view.is_constant(node.inputs[1]):
                return False
        elif node.op not in POINTWISE or not _feeds_dense_only(view, node.output):
            return False
    return True


def _flattens_for_dense(facts: NodeFacts) -> bool:
    before, after = facts.type(0).shape, facts.result.shape
    return (
        len(before) > 2
        and len(after) == 2
        and before[0] == after[0]
        and all(isinstance(size, int) for size in before[1:])
        and not facts.is_constant(0)
        and _feeds_dense_only(facts.view, facts.node.output)
    )


def _reshaping(facts: NodeFacts) -> Demands:
    """The layouts between which the elements keep their sequence; flattening for dense layers may read any."""
    if _flattens_for_dense(facts):
        return Demands((Demand.FREE,), Demand.LAST)
    fits = {(a, b) for a in Layout for b in Layout if _fits(facts, a, b)}
    if len(fits) == 4:
        return Demands((Demand.FREE,), Demand.FREE)
    if (Layout.FIRST, Layout.FIRST) in fits:
        return same_layout(facts)
    if (Layout.FIRST, Layout.LAST) in fits:
        return Demands((Demand.FREE,), Demand.LAST)
    return Demands((Demand.LAST,), Demand.FREE if (Layout.LAST, Layout.FIRST) in fits else Demand.LAST)


@exports("reshape", rule=_reshaping)
def emit_reshape(site: Site) -> None:
    """Reshape between the stored shapes."""
    x = site.read()
    after = tuple(site.result.shape[axis] for axis in site.result_order)
    if not _fits(site, site.layout(), site.placement.output):
        shape = tuple(site.known(size) for size in site.type(0).shape[1:])
        site.builder.rows[site.node.output] = shape
        after = (after[0], prod(shape))
    site.finish("Reshape", x, site.target(x, site.sizes(), after))


def _transposing(facts: NodeFacts) -> Demands:
    """Nothing: the readers of the output, and those of the input, say what they need of the same elements."""
    return Demands((Demand.FREE,), Demand.FREE)


@exports("transpose", rule=_transposing)
def emit_transpose(site: Site) -> None:
    """Nothing: whoever reads the result reads the input in another order, see :class:`~.view.GraphView`."""


@exports("pad", rule=same_layout)
def emit_pad(site: Site) -> None:
    """Pad with zeros."""
    pads = ints(site.attrs, "pads")
    pairs = [(0, 0), *zip(pads[::2], pads[1::2], strict=True), (0, 0)]
    stored = [pairs[axis] for axis in site.order()]
    counts = site.ints([before for before, _ in stored] + [after for _, after in stored])
    site.finish("Pad", site.read(), counts, site.number(0))


@exports("slice", rule=same_layout)
def emit_slice(site: Site) -> None:
    """Slice, whose ends count and saturate as Python's do."""
    axis = site.order().index(normal_axis(integer(site.attrs, "axis"), site.type(0).rank))
    cut = [integer(site.attrs, "start"), integer(site.attrs, "stop"), axis, integer(site.attrs, "step")]
    site.finish("Slice", site.read(), *(site.ints([entry]) for entry in cut))


@exports("concat", rule=same_layout)
def emit_concat(site: Site) -> None:
    """Concat."""
    axis = site.result_order.index(normal_axis(integer(site.attrs, "axis"), site.result.rank))
    site.finish("Concat", *(site.read(index) for index in range(len(site.node.inputs))), axis=axis)


@exports("tile", rule=same_layout)
def emit_tile(site: Site) -> None:
    """Tile."""
    repeats = ints(site.attrs, "repeats")
    site.finish("Tile", site.read(), site.ints(repeats[axis] for axis in site.order()))
