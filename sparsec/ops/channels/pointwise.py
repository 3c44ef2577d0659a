"""Rules of operators that compute output channel c from channel c of their inputs, equally at every position."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sparsec.ir import ABSENT, Array
from sparsec.ops.channels.facts import UNIFORM, Constants, Mask, TemplateTable
from sparsec.ops.channels.rule import ChannelRule, NodeView, Ties

LINEAR = frozenset({"add", "sub", "affine", "batch_norm"})
"""Operators that are linear in all inputs that are computed together, up to a constant."""


class Pointwise(ChannelRule):
    """Output channel c from channel c of the inputs; an input with a single channel broadcasts, and is tied to none."""

    def applies(self, view: NodeView) -> str:
        count = view.channels(view.node.output)
        if not count or not view.computed():
            return f"{view.node.op} on a value whose channels are not known"
        if any(_width(view, name) not in (1, count) for name in view.node.inputs if name != ABSENT):
            return f"{view.node.op} broadcasts over channels"
        return ""

    def tie(self, view: NodeView, ties: Ties) -> None:
        count = view.channels(view.node.output)
        whole = [name for name in map(view.name, view.computed()) if name is not None and _width(view, name) == count]
        ids = ties.value(whole[0]) if whole else ties.fresh(count)
        for name in whole[1:]:
            ties.tie_value(name, ids)
        for index, name in enumerate(view.node.inputs):
            rank = view.types[name].rank if view.is_weight(index) else 0
            if rank and _width(view, name) == count:
                ties.tie_weight(name, rank - 1, ids)
        ties.tie_value(view.node.output, ids)

    def constants(self, view: NodeView, facts: Mapping[str, Constants]) -> Constants:
        """The operator's value on the constants.

        A multiple of a template stays one where the operator keeps zero, and the template holds zeros and ones or the operator
        is linear.
        """
        from sparsec.ops.base import get_op

        count, table = view.channels(view.node.output), TemplateTable()
        fixed, codes = np.ones(count, bool), np.full(count, UNIFORM)
        inside: list[Array | None] = []
        outside: list[Array | None] = []
        for index in range(len(view.node.inputs)):
            name, weight = view.name(index), view.weight(index)
            if name is None:
                inside.append(None)
                outside.append(None)
            elif weight is not None:
                row, alike = _row(weight, count)
                fixed &= alike
                inside.append(row)
                outside.append(row)
            else:
                own = table.codes(facts[name])
                fixed &= facts[name].fixed & ((own == UNIFORM) | (codes == UNIFORM) | (own == codes))
                codes = np.maximum(codes, own)
                inside.append(facts[name].values[None])
                outside.append(np.where(own == UNIFORM, facts[name].values, 0.0)[None])
        op = get_op(view.node.op)
        with np.errstate(all="ignore"):
            values, ground = (np.asarray(op.evaluate(view.attrs, found)[0]).reshape(count) for found in (inside, outside))
        flat = values == ground
        if view.node.op not in LINEAR:
            fixed &= flat | table.binary(codes)
        return Constants.of(fixed & (flat | (ground == 0)), values, np.where(flat, UNIFORM, codes), table.templates)

    def reads(self, view: NodeView, read: Mask) -> dict[str, Mask]:
        result: dict[str, Mask] = {}
        for index in view.computed():
            name, mask = view.node.inputs[index], self._reads_of(view, index, read)
            mask = mask if _width(view, name) == read.size else np.asarray([mask.any()])
            result[name] = mask | result.get(name, False)
        return result

    def _reads_of(self, view: NodeView, index: int, read: Mask) -> Mask:
        return read

    def spoils(self, view: NodeView) -> str:
        joined = len(view.computed()) > 1
        return "tied to channels that are not dead" if joined else f"{view.node.op} makes its border differ by channel"


class Jumping(Pointwise):
    """Functions that jump: a constant that was rounded may be on the other side, so nothing is known of what comes out."""

    def constants(self, view: NodeView, facts: Mapping[str, Constants]) -> Constants:
        return Constants.none(view.channels(view.node.output))

    def spoils(self, view: NodeView) -> str:
        return f"{view.node.op} jumps, where a constant may be rounded to either side"


class Product(Pointwise):
    """Multiplication: zero times anything is zero, and what it is multiplied by is not read."""

    def constants(self, view: NodeView, facts: Mapping[str, Constants]) -> Constants:
        result, count = super().constants(view, facts), view.channels(view.node.output)
        for index in range(len(view.node.inputs)):
            weight, fact = view.weight(index), facts.get(view.node.inputs[index])
            if weight is not None:
                row, alike = _row(weight, count)
                zero = alike & np.broadcast_to(row.reshape(-1) == 0, count)
            else:
                assert fact is not None
                zero = np.broadcast_to(fact.known & (fact.values == 0), count)
            view.cache[f"zero {index}"] = zero
            nothing = Constants.of(zero, np.zeros(count))
            result = Constants.of(
                result.fixed | nothing.known,
                np.where(zero, 0.0, result.values),
                np.where(zero, UNIFORM, result.codes),
                result.templates,
            )
        return result

    def _reads_of(self, view: NodeView, index: int, read: Mask) -> Mask:
        others = [view.cache[f"zero {other}"] for other in range(len(view.node.inputs)) if other != index]
        return np.asarray(read & ~np.logical_or.reduce(others))

    def spoils(self, view: NodeView) -> str:
        return "a gate that depends on the input multiplies it"


class Rectifying(Pointwise):
    """PReLU: a constant that is not negative passes, whatever the slopes are."""

    def constants(self, view: NodeView, facts: Mapping[str, Constants]) -> Constants:
        result, x, table = super().constants(view, facts), facts[view.node.inputs[0]], TemplateTable()
        codes = table.codes(x)
        passes = x.fixed & (x.values >= 0) & table.binary(codes)
        return Constants.of(
            result.fixed | passes,
            np.where(passes, x.values, result.values),
            np.where(passes, codes, result.codes),
            table.templates,
        )

    def spoils(self, view: NodeView) -> str:
        return "the slopes of prelu differ by position"


class Scaling(Pointwise):
    """Normalisation and scaling by stored factors: a channel whose factor is 0 is not read."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self._factor = factor

    def applies(self, view: NodeView) -> str:
        if view.attrs.get("axis", -1) != -1:
            return f"{view.node.op} along another axis than the last"
        if view.computed() != [0]:
            return f"{view.node.op} with computed parameters"
        return super().applies(view)

    def _reads_of(self, view: NodeView, index: int, read: Mask) -> Mask:
        factor = view.weight(self._factor)
        return read if factor is None else read & (factor != 0)

    def constants(self, view: NodeView, facts: Mapping[str, Constants]) -> Constants:
        factor, count = view.weight(self._factor), view.channels(view.node.output)
        x = facts[view.node.inputs[0]]
        if factor is not None:
            # Times zero is constant whatever the input is.
            zero = np.broadcast_to(factor, count) == 0
            x = Constants(x.known | zero, np.where(zero, 0.0, x.values), np.where(zero, UNIFORM, x.codes), x.templates)
        return super().constants(view, {view.node.inputs[0]: x})

    def spoils(self, view: NodeView) -> str:
        return f"{view.node.op} shifts a constant that is not the same at every position"


def _width(view: NodeView, name: str) -> int:
    shape = view.types[name].shape
    return 1 if not shape else shape[-1] if isinstance(shape[-1], int) else -1


def _row(weight: Array, count: int) -> tuple[Array, Mask]:
    """A weight that broadcasts over positions as one row, and for which channels it is the same at every position."""
    weight = weight.astype(np.float64)
    rows = np.broadcast_to(weight, np.broadcast_shapes(weight.shape, (count,))).reshape(-1, count)
    return weight if weight.ndim <= 1 else rows[0], (rows == rows[:1]).all(axis=0)
