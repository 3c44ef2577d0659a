"""The table of exporters: for each operator, the layouts it asks for and the function that emits its ONNX nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sparsec.backends.onnx.layout import Demand, Demands
from sparsec.backends.onnx.site import Site
from sparsec.backends.onnx.view import NodeFacts
from sparsec.errors import UnsupportedOperatorError

Emit = Callable[[Site], None]
Rule = Callable[[NodeFacts], Demands]


@dataclass(frozen=True)
class Exporter:
    """How one operator is exported."""

    rule: Rule
    emit: Emit


EXPORTERS: dict[str, Exporter] = {}
"""Every exporter by the operator's name."""


def exports(*names: str, rule: Rule) -> Callable[[Emit], Emit]:
    """Enter a function as the exporter of operators; a decorator."""

    def enter(emit: Emit) -> Emit:
        for name in names:
            EXPORTERS[name] = Exporter(rule, emit)
        return emit

    return enter


def exporter_of(facts: NodeFacts) -> Exporter:
    """The exporter of a node.

    Raises:
        UnsupportedOperatorError: there is none for its operator.
    """
    try:
        return EXPORTERS[facts.node.op]
    except KeyError:
        raise UnsupportedOperatorError(
            f"node {facts.node.name!r}: the ONNX backend cannot express operator {facts.node.op!r}"
        ) from None


def same_layout(facts: NodeFacts) -> Demands:
    """One layout, whichever it is, for all inputs and the output."""
    return Demands((Demand.SAME,) * len(facts.node.inputs), Demand.SAME)


def channels_first(facts: NodeFacts) -> Demands:
    """The first input and the output are channels-first; the other inputs are weights."""
    return Demands((Demand.FIRST, *(Demand.FREE,) * (len(facts.node.inputs) - 1)), Demand.FIRST)


def channels_last(facts: NodeFacts) -> Demands:
    """All values as in the graph."""
    return Demands((Demand.LAST,) * len(facts.node.inputs), Demand.LAST)


def broadcasting(facts: NodeFacts) -> Demands:
    """One layout for all, but as in the graph where a computed input has fewer axes than the output and more than one.

    Axes are aligned at the end, so that such an input would have to be taken apart to follow the output's layout. Weights are
    brought to the full rank when they are written.
    """
    for index in range(len(facts.node.inputs)):
        if facts.given(index) and not facts.is_constant(index) and 1 < facts.type(index).rank < facts.result.rank:
            return channels_last(facts)
    return same_layout(facts)
