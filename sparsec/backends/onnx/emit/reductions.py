"""Exporters of the operators that reduce axes, or sum along one."""

from __future__ import annotations

import numpy as np

from sparsec.backends.onnx.draft import ONNX_TYPES, AttributeValue
from sparsec.backends.onnx.layout import Demand, Demands, Layout, Order, order_of
from sparsec.backends.onnx.registry import channels_last, exports, same_layout
from sparsec.backends.onnx.site import Site
from sparsec.backends.onnx.view import NodeFacts
from sparsec.ops.base import integer, ints, normal_axis

GLOBAL = {"reduce_mean": "GlobalAveragePool", "reduce_max": "GlobalMaxPool"}
REDUCE = {"reduce_mean": "ReduceMean", "reduce_max": "ReduceMax", "reduce_sum": "ReduceSum", "reduce_prod": "ReduceProd"}


def _axes(facts: NodeFacts) -> frozenset[int]:
    axes = (integer(facts.attrs, "axis"),) if "axis" in facts.attrs else ints(facts.attrs, "axes")
    return frozenset(normal_axis(axis, facts.type(0).rank) for axis in axes)


def _left(facts: NodeFacts, order: Order) -> Order:
    """The order of the output where the input is read in ``order`` and the reduced axes are dropped."""
    kept = [axis for axis in range(facts.type(0).rank) if axis not in _axes(facts)]
    return tuple(kept.index(axis) for axis in order if axis in kept)


def _reducing(facts: NodeFacts) -> Demands:
    """Any layout, unless the axes that are left from channels-first are in neither of the output's orders."""
    if facts.attrs["keepdims"]:
        return same_layout(facts)
    rank = facts.result.rank
    left = _left(facts, order_of(Layout.FIRST, facts.type(0).rank))
    if left == tuple(range(rank)):
        return Demands((Demand.FREE,), Demand.LAST)
    return same_layout(facts) if left == order_of(Layout.FIRST, rank) else channels_last(facts)


def _stored_axes(site: Site) -> tuple[int, ...]:
    return tuple(sorted(site.order().index(axis) for axis in _axes(site)))


@exports(*REDUCE, rule=_reducing)
def emit_reduce(site: Site) -> None:
    """A global pool over all spatial axes of channels-first values, which runtimes join with convolutions; else a reduction."""
    stored, rank = _stored_axes(site), site.type(0).rank
    if not stored:
        site.finish("Identity", site.read())
        return
    dtype, keepdims = site.type(0).dtype, bool(site.attrs["keepdims"])
    pool = GLOBAL.get(site.node.op) if dtype.startswith("float") else None
    if pool and site.layout() is Layout.FIRST and stored == tuple(range(2, rank)) and rank <= 5:
        if keepdims:
            site.finish(pool, site.read())
        else:
            site.finish("Flatten", site.add(pool, site.read()), axis=1)
        return
    inputs: list[str] = []
    attributes: dict[str, AttributeValue] = {"keepdims": int(keepdims)}
    if site.builder.opset >= 18 or site.node.op == "reduce_sum":
        inputs.append(site.ints(stored))
    else:
        attributes["axes"] = stored
    if dtype == "bool":
        # Below operator set 20 bool values have no order.
        numbers = site.add("Cast", site.read(), to=ONNX_TYPES["int32"])
        site.finish("Cast", site.add(REDUCE[site.node.op], numbers, *inputs, **attributes), to=ONNX_TYPES["bool"])
    else:
        site.finish(REDUCE[site.node.op], site.read(), *inputs, **attributes)


@exports("argmax", rule=_reducing)
def emit_argmax(site: Site) -> None:
    """ArgMax, which finds the first of several."""
    (axis,) = _stored_axes(site)
    site.finish("ArgMax", site.read(), axis=axis, keepdims=int(bool(site.attrs["keepdims"])))


@exports("cumsum", rule=same_layout)
def emit_cumsum(site: Site) -> None:
    """CumSum."""
    (axis,) = _stored_axes(site)
    site.finish("CumSum", site.read(), site.array(np.array(axis, np.int64)))
