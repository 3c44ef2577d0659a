"""Rules of linear operators: they end the classes of their input, or, channel by channel, carry them on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sparsec.ir import Array, Attrs, AttrValue
from sparsec.ops.channels.facts import Constants, Mask, Vector
from sparsec.ops.channels.rule import ChannelRule, KernelRows, NodeView, Partition, Ties

BEHIND_PADDING = "a constant behind zero padding is not a bias at the borders"
BORDERED = "a constant with a border of zeros is not a bias"


def pads_zeros(attrs: Attrs) -> bool:
    """Whether windows may reach over the border."""
    pads = attrs.get("pads")
    return attrs.get("padding") != "explicit" or not isinstance(pads, tuple) or any(pads)


def _single_taps(view: NodeView) -> bool:
    """Whether a transposed convolution is one of single positions; any other meets less of its input at the borders."""
    from sparsec.ops.base import ints

    window = view.types[view.node.inputs[1]].shape[:-2]
    return all(size == 1 for size in (*window, *ints(view.attrs, "strides"))) and not any(ints(view.attrs, "crops"))


class Summing(ChannelRule):
    """Linear operators whose output channels sum over input channels.

    Args:
        in_axis: the axis of the kernel along the input channels; with groups, along those of one group.
        out_axis: the axis along the output channels.
    """

    def __init__(self, in_axis: int, out_axis: int) -> None:
        self._in_axis, self._out_axis = in_axis, out_axis

    def applies(self, view: NodeView) -> str:
        return "" if view.computed() == [0] else f"{view.node.op} with computed weights"

    @staticmethod
    def _groups(view: NodeView) -> int:
        groups = view.attrs.get("groups", 1)
        assert isinstance(groups, int)
        return groups

    def tie(self, view: NodeView, ties: Ties) -> None:
        kernel = view.node.inputs[1]
        rank = view.types[kernel].rank
        ids = ties.fresh(view.channels(view.node.output))
        if self._groups(view) > 1:
            # An index of the kernel's input axis is a channel of every group, so that no class can name it.
            ties.tie_calls(kernel, "input", ties.value(view.node.inputs[0]))
            ties.tie_calls(kernel, "output", ids)
        else:
            ties.tie_weight(kernel, self._in_axis % rank, ties.value(view.node.inputs[0]))
            ties.tie_weight(kernel, self._out_axis % rank, ids)
        bias = view.name(2)
        if bias is not None:
            ties.tie_weight(bias, 0, ids)
        ties.tie_value(view.node.output, ids)

    def _rows(self, view: NodeView) -> Array:
        """The kernel as ``[window, in, out of one group]``."""
        kernel = view.weight(1)
        assert kernel is not None
        matrices = np.moveaxis(kernel, (self._in_axis, self._out_axis), (-2, -1))
        return grouped_rows(matrices.reshape(-1, *matrices.shape[-2:]), self._groups(view))

    def _used(self, view: NodeView) -> Mask:
        """Which output channels have a weight on which input channels at all, ``[in, out]``."""
        if "used" not in view.cache:
            view.cache["used"] = _spread((self._rows(view) != 0).any(axis=0), self._groups(view))
        return view.cache["used"]

    def _sums(self, view: NodeView, values: Vector) -> Vector:
        """What constant inputs add to each output channel where the whole window is summed."""
        nonzero, groups = np.flatnonzero(values), self._groups(view)
        rows = self._rows(view)
        result = np.zeros((groups, rows.shape[-1]))
        for group, members in enumerate(np.split(nonzero, np.searchsorted(nonzero, self._ends(values.size, groups)))):
            result[group] = values[members] @ rows[:, members].sum(axis=0, dtype=np.float64)
        return result.reshape(-1)

    @staticmethod
    def _ends(size: int, groups: int) -> Array:
        """Where the channels of a group end, but for the last."""
        return np.arange(1, groups) * (size // groups)

    def _uniform(self, view: NodeView) -> bool:
        """Whether every output position sums over the whole window, so that a constant input adds a constant."""
        if view.node.op == "dense":
            return True
        return _single_taps(view) if view.node.op == "conv_transpose" else not pads_zeros(view.attrs)

    def constants(self, view: NodeView, facts: Mapping[str, Constants]) -> Constants:
        x = facts[view.node.inputs[0]]
        movable = x.known if self._uniform(view) else x.known & (x.values == 0)
        known = np.asarray(~self._used(view)[~movable].any(axis=0))
        values = self._sums(view, x.values * movable)
        bias = view.weight(2)
        return Constants.of(known, values if bias is None else values + bias)

    def reads(self, view: NodeView, read: Mask) -> dict[str, Mask]:
        return {view.node.inputs[0]: np.asarray(self._used(view)[:, read].any(axis=1))}

    def refuses(self, view: NodeView, index: int, constants: Constants) -> tuple[Mask, str]:
        if self._uniform(view):
            return constants.shaped, BORDERED
        return constants.nonzero, BEHIND_PADDING

    def absorbed(self, view: NodeView, gone: Mask, constants: Constants) -> Array | None:
        # Behind padding nothing but zeros goes without being carried by another channel.
        movable = gone & constants.known & self._uniform(view)
        return self._sums(view, constants.values * movable)

    def rows(self, view: NodeView) -> KernelRows | None:
        return KernelRows(self._in_axis % view.types[view.node.inputs[1]].rank, self._groups(view))

    def partitions(self, view: NodeView) -> Sequence[Partition]:
        groups = self._groups(view)
        return [Partition(name, groups) for name in (view.node.inputs[0], view.node.output)] if groups > 1 else ()

    def resized(self, view: NodeView, kept: Mapping[str, Mask]) -> dict[str, AttrValue]:
        groups = self._groups(view)
        left = int(kept[view.node.output].reshape(groups, -1).any(axis=1).sum())
        return {} if left == groups else {"groups": left}


def grouped_rows(kernel: Array, groups: int) -> Array:
    """A kernel ``[..., in / groups, out]`` as ``[..., in, out / groups]``: one row for each input channel."""
    if groups == 1:
        return kernel
    *window, inputs, outputs = kernel.shape
    split = kernel.reshape(*window, inputs, groups, outputs // groups)
    return np.moveaxis(split, -2, -3).reshape(*window, groups * inputs, outputs // groups)


def ungrouped_rows(rows: Array, groups: int) -> Array:
    """The inverse of :func:`grouped_rows`."""
    if groups == 1:
        return rows
    *window, inputs, outputs = rows.shape
    split = rows.reshape(*window, groups, inputs // groups, outputs)
    return np.moveaxis(split, -3, -2).reshape(*window, inputs // groups, groups * outputs)


def _spread(rows: Mask, groups: int) -> Mask:
    """Rows ``[in, out / groups]`` as ``[in, out]``, with nothing outside each group's own outputs."""
    if groups == 1:
        return rows
    inputs, outputs = rows.shape
    spread = np.zeros((groups, inputs // groups, groups, outputs), bool)
    spread[np.arange(groups), :, np.arange(groups)] = rows.reshape(groups, -1, outputs)
    return spread.reshape(inputs, groups * outputs)


class PerChannel(ChannelRule):
    """Depthwise convolution: output channel ``c * multiplier + m`` stands and falls with input channel c."""

    def applies(self, view: NodeView) -> str:
        return "" if view.computed() == [0] else f"{view.node.op} with computed weights"

    @staticmethod
    def _kernel(view: NodeView) -> Array:
        kernel = view.weight(1)
        assert kernel is not None
        return kernel.reshape(-1, *kernel.shape[-2:])

    def tie(self, view: NodeView, ties: Ties) -> None:
        kernel, ids = view.node.inputs[1], ties.value(view.node.inputs[0])
        outputs = np.repeat(ids, self._kernel(view).shape[-1])
        ties.tie_weight(kernel, view.types[kernel].rank - 2, ids)
        bias = view.name(2)
        if bias is not None:
            ties.tie_weight(bias, 0, outputs)
        ties.tie_value(view.node.output, outputs)

    def constants(self, view: NodeView, facts: Mapping[str, Constants]) -> Constants:
        x, kernel = facts[view.node.inputs[0]], self._kernel(view)
        movable = x.known & (x.values == 0) if pads_zeros(view.attrs) else x.known
        known = np.asarray(movable[:, None] | (kernel == 0).all(axis=0)).reshape(-1)
        values = ((x.values * movable)[:, None] * kernel.sum(axis=0, dtype=np.float64)).reshape(-1)
        bias = view.weight(2)
        return Constants.of(known, values if bias is None else values + bias)

    def reads(self, view: NodeView, read: Mask) -> dict[str, Mask]:
        kernel = self._kernel(view)
        used = (kernel != 0).any(axis=0) & read.reshape(kernel.shape[1:])
        return {view.node.inputs[0]: np.asarray(used.any(axis=1))}

    def spoils(self, view: NodeView) -> str:
        return "a zero-padded depthwise convolution gives each channel a border of its own"
