"""What shrinking decided about each layer with a kernel, in words: what went, what was merged, what stayed and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from sparsec.ops import get_op
from sparsec.ops.channels import ChannelRule, Ids, Mask, NodeView
from sparsec.passes.report import Decision
from sparsec.passes.shrink.analysis import Analysis

STAGE = "shrink"

OUTPUT = "an output of the model"


def decisions(analysis: Analysis) -> list[Decision]:
    """A decision for each thing that happened to the channels of a layer with a kernel.

    A layer that is called several times has the decisions of its first call.
    """
    spoiled = _spoiled(analysis)
    found: list[Decision] = []
    seen: set[str] = set()
    for view, rule, reason in analysis.views:
        # The kernel of a linear operator, or the table of a look-up.
        kernel = next((view.node.inputs[index] for index in get_op(view.node.op).matrix_rows if view.is_weight(index)), None)
        if kernel is None or kernel in seen:
            continue
        seen.add(kernel)
        ids = analysis.classes.values[view.node.outputs[0]]
        before, after = ids.size, int((~analysis.removed[ids]).sum())
        if rule is None:
            found.append(Decision(STAGE, view.node.layer, "refused", reason, before, before))
            continue
        found += [
            Decision(STAGE, view.node.layer, outcome, text, before, after, count)
            for outcome, text, count in _of_layer(analysis, view, rule, ids, spoiled)
        ]
    return found


def _of_layer(
    analysis: Analysis, view: NodeView, rule: ChannelRule, ids: Ids, spoiled: dict[int, str]
) -> Iterator[tuple[str, str, int]]:
    """Outcome, reason and number of channels of each decision about one layer."""
    gone = analysis.removed[ids]
    carried = gone & np.isin(ids, list(analysis.carriers))
    if gone.any():
        yield "shrunk", "dead channels removed", int(gone.sum())
    if carried.any():
        carriers = sorted({analysis.carriers[int(class_)] for class_ in ids[carried]})
        yield "merged", f"{_dead(int(carried.sum()))} carried by {_channels(ids, carriers)}", int(carried.sum())
    stuck = Counter(analysis.refused[int(class_)] for class_ in ids if int(class_) in analysis.refused)
    for why, count in stuck.items():
        if why != OUTPUT:
            yield "refused", f"{_dead(count)} kept: {why}", count
    held = _held(analysis, view, ids)
    reasons = Counter(spoiled.get(int(class_), "tied to channels that are not dead") for class_ in ids[held])
    lingering, why_not = rule.lingering(view)
    reasons += Counter({why_not: int((lingering & ~gone).sum())})
    for why, count in reasons.items():
        yield "refused", f"{_dead(count)} kept: {why}", count


def _held(analysis: Analysis, view: NodeView, ids: Ids) -> Mask:
    """The channels that are constant where the layer makes them, and stay since they are not so everywhere."""
    constant = analysis.constants[view.node.outputs[0]].fixed
    return np.asarray(constant & ~analysis.removed[ids] & ~np.isin(ids, list(analysis.refused)))


def _spoiled(analysis: Analysis) -> dict[int, str]:
    """Why classes are not constant everywhere: the first operator that a constant of theirs does not survive."""
    found: dict[int, str] = {}
    for view, rule, _ in analysis.views:
        why = "" if rule is None else rule.spoils(view)
        if not why:
            continue
        output = view.node.outputs[0]
        after, varies = analysis.classes.values[output], ~analysis.constants[output].fixed
        for index in view.computed():
            name = view.node.inputs[index]
            before, constant = analysis.classes.values[name], analysis.constants[name].fixed
            # Where channels keep their places, others of the same class have nothing to do with it.
            lost = before[constant & varies & (before == after)] if before.size == after.size else before[constant]
            for class_ in np.intersect1d(lost, after[varies]).tolist():
                found.setdefault(class_, why)
    return found


def _dead(count: int) -> str:
    return f"{count} dead channel{'s' if count > 1 else ''}"


def _channels(ids: Ids, classes: list[int]) -> str:
    """The channels of a layer in these classes, in words."""
    numbers = np.flatnonzero(np.isin(ids, classes)).tolist()
    if not numbers:
        return "a channel of another layer"
    return f"channel{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
