"""Passes: functions from one Graph to the next that keep its outputs exactly, up to rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sparsec.ir import Graph
from sparsec.ops import check
from sparsec.passes.fold import fold
from sparsec.passes.report import Decision
from sparsec.passes.shrink import Rounding, ShrinkPlan, multiple_of
from sparsec.passes.shrink import shrink as shrink_channels
from sparsec.passes.simplify import merge_padding, simplify

__all__ = ["Decision", "Optimised", "Rounding", "ShrinkPlan", "multiple_of", "optimise"]


@dataclass(frozen=True)
class Optimised:
    """The result of :func:`optimise`.

    Attributes:
        graph: the optimised graph.
        plan: what shrinking did, in the source's own terms.
        decisions: what every pass decided, in order.
    """

    graph: Graph
    plan: ShrinkPlan
    decisions: tuple[Decision, ...]


def optimise(
    graph: Graph, *, shrink: bool = True, round_to: int | None = 1, progress: Callable[[str], None] | None = None
) -> Optimised:
    """Run the pipeline: simplify, shrink, fold, merge padding, simplify again.

    Args:
        graph: a graph as a front-end read it.
        shrink: whether channels that pruning killed are removed.
        round_to: keep as many of them as make widths a multiple of this; ``None`` for what models with depthwise
            convolutions are fast with.
        progress: called with the name of each pass before it runs.

    Raises:
        GraphError: a pass broke a rule of the IR; the message names it.
    """
    plan, decisions = ShrinkPlan(), []

    def begin(name: str) -> None:
        if progress is not None:
            progress(name)

    begin("simplify")
    graph = simplify(graph)
    check(graph, after="simplify")
    if shrink:
        begin("shrink")
        graph, plan, found = shrink_channels(graph, round_to)
        check(graph, after="shrink")
        decisions += found
    begin("fold")
    graph, found = fold(graph)
    check(graph, after="fold")
    decisions += found
    begin("simplify")
    graph = simplify(merge_padding(graph))
    check(graph, after="the last simplification")
    return Optimised(graph, plan, tuple(decisions))
