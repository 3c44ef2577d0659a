"""Exporters of the normalisation operators."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsec.backends.onnx.draft import ONNX_TYPES
from sparsec.backends.onnx.layout import Demand, Demands, Layout
from sparsec.backends.onnx.registry import exports
from sparsec.backends.onnx.site import Site
from sparsec.backends.onnx.view import NodeFacts
from sparsec.ops.base import integer, ints, normal_axis, number


def _per_channel(facts: NodeFacts) -> Demands:
    """Any layout; BatchNormalization wants its channels on axis 1."""
    prefer = Layout.LAST if normal_axis(integer(facts.attrs, "axis"), facts.result.rank) == 1 else Layout.FIRST
    parameters = (Demand.FREE,) * (len(facts.node.inputs) - 1)
    return Demands((Demand.SAME, *parameters), Demand.SAME, prefer, saving=1)


@exports("batch_norm", rule=_per_channel)
def emit_batch_norm(site: Site) -> None:
    """BatchNormalization where the channels are stored on axis 1, else its definition."""
    axis = normal_axis(integer(site.attrs, "axis"), site.result.rank)
    epsilon = number(site.attrs, "epsilon")
    if site.order().index(axis) == 1:
        length = site.known(site.type(3).shape[0])
        dtype = site.type(0).dtype
        gamma = site.read(1) if site.given(1) else site.array(np.ones(length, dtype), "gamma")
        beta = site.read(2) if site.given(2) else site.array(np.zeros(length, dtype), "beta")
        site.finish("BatchNormalization", site.read(), gamma, beta, site.read(3), site.read(4), epsilon=epsilon)
        return
    centred = site.add("Sub", site.read(), site.vector(3, axis))
    _scaled(
        site,
        centred,
        site.add("Sqrt", site.add("Add", site.vector(4, axis), site.number(epsilon))),
        site.vector(1, axis) if site.given(1) else None,
        site.vector(2, axis) if site.given(2) else None,
    )


def _scaled(site: Site, centred: str, deviation: str, gamma: str | None, beta: str | None) -> None:
    """Finish with ``centred / deviation * gamma + beta``."""
    steps = [("Div", deviation), *([("Mul", gamma)] if gamma else []), *([("Add", beta)] if beta else [])]
    for op_type, operand in steps[:-1]:
        centred = site.add(op_type, centred, operand)
    site.finish(steps[-1][0], centred, steps[-1][1])


def _normalising(facts: NodeFacts) -> Demands:
    """Any layout; LayerNormalization wants its axes stored last."""
    rank = facts.result.rank
    axes = sorted(normal_axis(axis, rank) for axis in ints(facts.attrs, "axes"))
    trailing = axes == list(range(rank - len(axes), rank))
    # A statistic over some axes of a block takes about eight passes where there is no single operator for it.
    saving = 8 if trailing and len(axes) < rank - 1 else 0
    parameters = (Demand.FREE,) * (len(facts.node.inputs) - 1)
    return Demands((Demand.SAME, *parameters), Demand.SAME, Layout.LAST, saving)


@exports("layer_norm", rule=_normalising)
def emit_layer_norm(site: Site) -> None:
    """LayerNormalization where the axes are stored last and the operator set has it, else its definition."""
    rank, order = site.result.rank, site.order()
    axes = sorted(normal_axis(axis, rank) for axis in ints(site.attrs, "axes"))
    stored = sorted(order.index(axis) for axis in axes)
    sizes = [site.sizes()[axis] for axis in stored]
    if (
        site.builder.opset < 17
        or stored != list(range(rank - len(axes), rank))
        or not (site.given(1) or all(isinstance(size, int) for size in sizes))
    ):
        _layer_norm_by_definition(site, axes, stored)
        return
    own = tuple(axes.index(order[axis]) for axis in stored)
    if site.given(1):
        gamma = site.reshaped(1, order=own)
    else:
        gamma = site.array(np.ones([site.known(size) for size in sizes], site.type(0).dtype), "gamma")
    beta = [site.reshaped(2, order=own)] if site.given(2) else []
    site.finish(
        "LayerNormalization",
        site.read(),
        gamma,
        *beta,
        axis=-len(axes),
        epsilon=number(site.attrs, "epsilon"),
        stash_type=ONNX_TYPES["float64" if site.type(0).dtype == "float64" else "float32"],
    )


def _layer_norm_by_definition(site: Site, axes: Sequence[int], stored: Sequence[int]) -> None:
    x = site.read()
    centred = site.add("Sub", x, _mean(site, x, stored))
    variance = _mean(site, site.add("Mul", centred, centred), stored)
    deviation = site.add("Sqrt", site.add("Add", variance, site.number(number(site.attrs, "epsilon"))))
    parameters: list[str | None] = []
    for index in (1, 2):
        if site.given(index):
            sizes = iter(site.type(index).shape)
            full = tuple(site.known(next(sizes)) if axis in axes else 1 for axis in range(site.result.rank))
            parameters.append(site.reshaped(index, full, site.order()))
        else:
            parameters.append(None)
    _scaled(site, centred, deviation, *parameters)


def _mean(site: Site, x: str, stored: Sequence[int]) -> str:
    if site.builder.opset >= 18:
        return site.add("ReduceMean", x, site.ints(stored), keepdims=1)
    return site.add("ReduceMean", x, axes=tuple(stored), keepdims=1)
