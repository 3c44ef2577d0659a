"""Rules of operators that move, pool, join or rearrange positions and keep channels apart."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from sparsec.ir import ABSENT, Array, AttrValue, format_shape
from sparsec.ops.channels.facts import Constants, Ids, Mask, Moved, Template, TemplateTable
from sparsec.ops.channels.rule import ChannelRule, NodeView, Ties


class Positional(ChannelRule):
    """Operators on positions: a constant stays what it is, and a template becomes what the operator makes of it.

    Args:
        selects: whether every position of the output is one of the input, or the greatest of several.
        orders: whether it is the greatest of several; of a negative multiple of a template that is a multiple of the least.
    """

    def __init__(self, selects: bool = True, orders: bool = False) -> None:
        self._selects, self._orders = selects, orders

    def applies(self, view: NodeView) -> str:
        x, y = view.channels(view.node.inputs[0]), view.channels(view.node.output)
        if not y or view.computed() != [0]:
            return f"{view.node.op} on a value whose channels are not known"
        return "" if x == y else f"{view.node.op} changes the channels"

    def tie(self, view: NodeView, ties: Ties) -> None:
        ties.tie_value(view.node.output, ties.value(view.node.inputs[0]))

    def constants(self, view: NodeView, facts: Mapping[str, Constants]) -> Constants:
        x = facts[view.node.inputs[0]]
        if not self._orders:
            return x.moved(1.0, lambda template: self._moved(view, template))
        falls = x.shaped & (x.values < 0)
        greatest = x.moved(1.0, lambda template: self._moved(view, template), ~falls)
        return greatest.joined(x.moved(1.0, lambda template: self._moved(view, template, least=True), falls))

    def reads(self, view: NodeView, read: Mask) -> dict[str, Mask]:
        return {view.node.inputs[0]: read}

    def spoils(self, view: NodeView) -> str:
        return f"{view.node.op} makes of it what is no multiple of a known map"

    def _moved(self, view: NodeView, template: Template, least: bool = False) -> Moved:
        from sparsec.ops.base import get_op

        if not least and self._covers(view, template.border):
            return 1.0
        shape = format_shape(view.types[view.node.inputs[0]].shape[1:-1])
        key = f"{'least of ' if least else ''}{view.node.op} {sorted(view.attrs.items())} of {shape} {template.key}"
        binary = template.binary and self._selects
        if template.map is None:
            return Template(key, None, binary)
        sign = -1.0 if least else 1.0
        (result,) = get_op(view.node.op).evaluate(view.attrs, [sign * template.map[None, ..., None]])
        # Axes that are reduced may go; those of the batch and of the channels stay.
        flat = sign * np.asarray(result)[0, ..., 0]
        return float(flat.flat[0]) if np.ptp(flat) == 0 else Template(key, flat, binary)

    def _covers(self, view: NodeView, border: tuple[int, ...]) -> bool:
        """Whether every window of a maximum that meets a border of zeros reaches over it to the ones inside."""
        from sparsec.ops.base import ints

        if not self._orders or not border or view.attrs.get("padding") != "explicit":
            return False
        if any(ints(view.attrs, "pads")) or any(dilation != 1 for dilation in ints(view.attrs, "dilations")):
            return False
        return all(max(border[2 * axis : 2 * axis + 2]) < size for axis, size in enumerate(ints(view.attrs, "window")))


class Padding(Positional):
    """Zeros around a value: a nonzero constant becomes a multiple of ones inside a border."""

    def constants(self, view: NodeView, facts: Mapping[str, Constants]) -> Constants:
        x, pads = facts[view.node.inputs[0]], view.attrs["pads"]
        assert isinstance(pads, tuple)
        if not any(pads):
            return x
        sizes = view.types[view.node.inputs[0]].shape[1:-1]
        ones = np.ones([int(str(size)) for size in sizes]) if all(isinstance(size, int) for size in sizes) else None
        uniform = self._moved(view, Template("ones", ones, True))
        if isinstance(uniform, Template):
            uniform = Template(uniform.key, uniform.map, True, tuple(int(pad) for pad in pads))
        return x.moved(uniform, lambda template: self._moved(view, template))


class AlongSpace(Positional):
    """Positional operators with an axis attribute, where that axis is not the last."""

    def __init__(self, attribute: str, selects: bool = True, orders: bool = False) -> None:
        super().__init__(selects, orders)
        self._attribute = attribute

    def applies(self, view: NodeView) -> str:
        value = view.attrs[self._attribute]
        axes = value if isinstance(value, tuple) else (value,)
        rank = view.types[view.node.inputs[0]].rank
        if any(axis in (-1, rank - 1) for axis in axes):
            return f"{view.node.op} along the channels"
        if any(axis in (0, -rank) for axis in axes):
            return f"{view.node.op} along the batch"
        return super().applies(view)


class Repeating(Positional):
    """Tiling that leaves the channels alone."""

    def applies(self, view: NodeView) -> str:
        repeats = view.attrs["repeats"]
        if not isinstance(repeats, tuple) or repeats[-1] != 1:
            return f"{view.node.op} repeats the channels"
        return super().applies(view)


class Permuting(Positional):
    """Transposition that leaves the last axis last."""

    def applies(self, view: NodeView) -> str:
        permutation = view.attrs["permutation"]
        if not isinstance(permutation, tuple) or permutation[-1] != len(permutation) - 1 or permutation[0] != 0:
            return "transposition of the channels"
        return super().applies(view)


class Reshaping(ChannelRule):
    """Reshapes between values of which one has whole runs of the other's channels along its last axis.

    In row-major order element i of a last axis of C channels is channel ``i mod C``. ``[N, H, W, C]`` to ``[N, H * W * C]``
    repeats the channels for every position; ``[N, H * W * C]`` to ``[N, H, W, C]`` makes every C-th channel one;
    ``[N, C]`` to ``[N, 1, 1, C]`` keeps them.
    """

    def applies(self, view: NodeView) -> str:
        before, after = view.channels(view.node.inputs[0]), view.channels(view.node.output)
        if not before or not after or view.is_weight(0):
            return "reshape of a value whose channels are not known"
        return "reshape that splits the channels" if after % before and before % after else ""

    @staticmethod
    def _runs(view: NodeView) -> tuple[int, int]:
        """How many runs of the shorter axis the last axes of input and output hold; one of the two is 1."""
        before, after = view.channels(view.node.inputs[0]), view.channels(view.node.output)
        return max(before // after, 1), max(after // before, 1)

    def tie(self, view: NodeView, ties: Ties) -> None:
        (taken, made), ids = self._runs(view), ties.value(view.node.inputs[0])
        if taken == 1:
            ties.tie_value(view.node.output, np.tile(ids, made))
            return
        fresh = ties.fresh(ids.size // taken)
        ties.tie_value(view.node.inputs[0], np.tile(fresh, taken))
        ties.tie_value(view.node.output, fresh)

    def constants(self, view: NodeView, facts: Mapping[str, Constants]) -> Constants:
        x, (taken, made) = facts[view.node.inputs[0]], self._runs(view)
        if taken > 1:
            known, values = x.known.reshape(taken, -1), x.values.reshape(taken, -1)
            return Constants.of((known & (values == values[:1])).all(axis=0), values[0])
        if made == 1:
            return x.moved(1.0, lambda template: _reshaped(view, template))
        # Where every position gets channels of its own, a template is one number for each.
        factors, fixed = np.ones((made, x.known.size)), np.tile(x.known, (made, 1))
        for code, template in enumerate(x.templates, 1):
            if template.map is not None and template.map.size == made:
                factors[:, x.codes == code] = template.map.reshape(-1, 1)
                fixed[:, x.codes == code] = True
        return Constants.of(fixed.reshape(-1), (factors * x.values).reshape(-1))

    def reads(self, view: NodeView, read: Mask) -> dict[str, Mask]:
        taken, made = self._runs(view)
        return {view.node.inputs[0]: np.tile(np.asarray(read.reshape(made, -1).any(axis=0)), taken)}

    def resized(self, view: NodeView, kept: Mapping[str, Mask]) -> dict[str, AttrValue]:
        shape, left = view.attrs["shape"], kept[view.node.output]
        assert isinstance(shape, tuple)
        return {} if left.all() or shape[-1] in (0, -1) else {"shape": (*shape[:-1], int(left.sum()))}

    def spoils(self, view: NodeView) -> str:
        return "a reshape joins it to channels that are not dead, or have other constants"


def _reshaped(view: NodeView, template: Template) -> Template | None:
    sizes = view.types[view.node.output].shape[1:-1]
    key = f"reshape to {format_shape(sizes)} of {template.key}"
    if template.map is None:
        return Template(key, None, template.binary)
    if not all(isinstance(size, int) for size in sizes) or prod(int(str(size)) for size in sizes) != template.map.size:
        return None
    return Template(key, template.map.reshape([int(str(size)) for size in sizes]), template.binary)


class Concatenating(ChannelRule):
    """Concatenation along the channels; along another axis the channels of all inputs are tied."""

    def applies(self, view: NodeView) -> str:
        if any(view.is_weight(index) or not view.channels(name) for index, name in enumerate(view.node.inputs)):
            return "concatenation with a weight, or of values whose channels are not known"
        return ""

    @staticmethod
    def _along_channels(view: NodeView) -> bool:
        return view.attrs["axis"] in (-1, view.types[view.node.output].rank - 1)

    def _sections(self, view: NodeView) -> list[int]:
        return list(np.cumsum([view.channels(name) for name in view.node.inputs])[:-1])

    def tie(self, view: NodeView, ties: Ties) -> None:
        ids = [ties.value(name) for name in view.node.inputs]
        if self._along_channels(view):
            ties.tie_value(view.node.output, np.concatenate(ids))
            return
        for name in (*view.node.inputs, view.node.output):
            ties.tie_value(name, ids[0])

    def constants(self, view: NodeView, facts: Mapping[str, Constants]) -> Constants:
        parts = [facts[name] for name in view.node.inputs if name != ABSENT]
        if self._along_channels(view):
            table = TemplateTable()
            codes: list[Ids] = [table.codes(part) for part in parts]
            fixed, values = (np.concatenate([getattr(p, name) for p in parts]) for name in ("fixed", "values"))
            return Constants.of(fixed, values, np.concatenate(codes), table.templates)
        same = np.logical_and.reduce([p.known & (p.values == parts[0].values) for p in parts])
        return Constants.of(same, parts[0].values)

    def reads(self, view: NodeView, read: Mask) -> dict[str, Mask]:
        if not self._along_channels(view):
            return dict.fromkeys(view.node.inputs, read)
        result: dict[str, Mask] = {}
        parts: list[Array] = np.split(read, self._sections(view))
        for name, part in zip(view.node.inputs, parts, strict=True):
            result[name] = part | result.get(name, False)
        return result

    def spoils(self, view: NodeView) -> str:
        return "it is concatenated along positions with channels that are not dead, or have other constants"
