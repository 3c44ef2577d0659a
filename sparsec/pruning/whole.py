"""What is left of a unit once its kernel is zero: its bias, and the normalisation that it flows through."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from sparsec.ir import Graph
from sparsec.ops import infer_types
from sparsec.ops.channels import ChannelRule, Constants, Mask, NodeView, Scaling, channel_count
from sparsec.passes.shrink.classes import tie_graph
from sparsec.passes.simplify import simplify
from sparsec.pruning.kernels import KERNELS

Views = Sequence[tuple[NodeView, ChannelRule | None, str]]

BIAS, GAMMA, BETA, MEAN = 2, 1, 2, 3
"""Inputs of the linear operators, and of ``batch_norm``."""


def unit_parameters(graph: Graph, units: Mapping[str, Mask], changeable: Collection[str]) -> dict[str, Mask]:
    """The parameters to zero besides the kernels, so that pruned units put out nothing.

    A pruned unit without its bias is zero, and stays constant through activations, and through merges whose operands all are. A
    BatchNormalization that it meets loses gamma and beta there; one without gamma loses its moving mean instead. What several
    calls of a layer share is zeroed only where every call meets a pruned unit.

    Args:
        graph: the model.
        units: which units of each kernel are pruned, by path, ``[units]``.
        changeable: the paths of the weights that are variables of the source.

    Returns:
        where parameters become zero, by path, ``[channels]``; those that keep every value are left out.
    """
    simple = simplify(graph)
    _, views, _ = tie_graph(simple, infer_types(simple))
    zeroed: dict[str, Mask] = {}
    while True:
        # The first round takes for granted that all calls agree; each further one can only take back.
        met = _walk(simple, views, units, changeable, zeroed)
        if met.keys() == zeroed.keys() and all(np.array_equal(met[path], zeroed[path]) for path in met):
            return {path: mask for path, mask in met.items() if mask.any()}
        zeroed = met


def _walk(
    graph: Graph, views: Views, units: Mapping[str, Mask], changeable: Collection[str], zeroed: Mapping[str, Mask]
) -> dict[str, Mask]:
    """Where all calls that use a parameter meet a pruned unit, by path.

    ``zeroed`` says where parameters are zero already; one that it does not name is so everywhere.
    """
    met: dict[str, Mask] = {}
    facts = {port.name: Constants.none(channel_count(port.type)) for port in graph.inputs}
    for view, rule, _ in views:
        names = _parameters(view, rule)
        if names is None:
            for name in view.node.outputs:
                facts[name] = Constants.none(view.channels(name)) if rule is None else _passed_on(view, rule, facts)
            continue
        gone = _gone(view, facts, units) & all(name in changeable for name in names)
        for name in names:
            met[name] = gone & met.get(name, True)
        zero = np.logical_and.reduce([gone, *(zeroed[name] for name in names if name in zeroed)])
        # Of a recurrent layer all gates of a unit have to be zero.
        zero = zero.reshape(-1, view.channels(view.node.outputs[0])).all(axis=0)
        facts.update(dict.fromkeys(view.node.outputs, Constants.of(zero, np.zeros(zero.size))))
    return met


def _parameters(view: NodeView, rule: ChannelRule | None) -> list[str] | None:
    """What makes the output of a node zero where it meets a pruned unit; ``None`` for nodes that only pass units on."""
    if view.node.op in KERNELS:
        indices = [BIAS]
    elif view.node.op == "batch_norm" and rule is not None:
        indices = [MEAN if view.name(GAMMA) is None else GAMMA, BETA]
    else:
        return None
    return [name for name in map(view.name, indices) if name is not None]


def _gone(view: NodeView, facts: Mapping[str, Constants], units: Mapping[str, Mask]) -> Mask:
    """The output channels of a node that belong to pruned units."""
    if view.node.op in KERNELS:
        kernel = view.node.inputs[1]
        columns = view.channels(kernel) if len(KERNELS[view.node.op]) > 1 else view.channels(view.node.outputs[0])
        return units.get(kernel, np.zeros(columns, bool))
    x = facts[view.node.inputs[0]]
    # Times a gamma of zero, any constant is zero; less a mean of zero, only zero is.
    return x.known if view.name(GAMMA) is not None else x.known & (x.values == 0)


def _passed_on(view: NodeView, rule: ChannelRule, facts: Mapping[str, Constants]) -> Constants:
    result = rule.constants(view, facts)
    if isinstance(rule, Scaling):
        # A factor of zero makes channels constant that have nothing to do with pruned units.
        return Constants.of(result.known & facts[view.node.inputs[0]].known, result.values)
    return result
