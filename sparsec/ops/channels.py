"""How facts about channels flow through operators.

A *channel* is one index of a value's last axis. Shrinking asks three things of every operator (see
:mod:`sparsec.passes.shrink`):

* which channels of its inputs, outputs and weights stand or fall together (*ties*);
* which output channels are *constant*, one number at every position and for every input, given those that are so before it;
* which input channels it *reads*, given the output channels that somebody reads.

The answers are conservative: a channel of which nothing is known is variable, read, and stays. An operator without a
rule is opaque.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sparsec.ir import ABSENT, Array, Attrs, AttrValue, Node, TensorType

Mask = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.intp]
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Constants:
    """The constant channels of a value.

    Attributes:
        known: which channels are constant, ``[C]``.
        values: their values, ``[C]``; 0 where not known.
    """

    known: Mask
    values: Vector

    @classmethod
    def none(cls, channels: int) -> Constants:
        """No channel is constant."""
        return cls(np.zeros(channels, bool), np.zeros(channels))

    @classmethod
    def of(cls, known: Mask, values: Array) -> Constants:
        """The channels in ``known`` have ``values``, which may be anything elsewhere."""
        sound = known & np.isfinite(values)
        return cls(np.asarray(sound), np.where(sound, values, 0.0))

    @property
    def nonzero(self) -> Mask:
        """The constant channels that are not 0."""
        return np.asarray(self.known & (self.values != 0))


def channel_count(type_: TensorType) -> int:
    """The number of channels of a value; 0 where it is not known or the value has no axis beside the batch."""
    size = type_.shape[-1] if type_.rank > 1 else 0
    return size if isinstance(size, int) else 0


class Ties(Protocol):
    """Collects which channels stand or fall together; every channel carries the id of its class."""

    def fresh(self, count: int) -> Ids:
        """Ids of new classes."""

    def value(self, name: str) -> Ids:
        """The ids of a value's channels."""

    def tie_value(self, name: str, ids: Ids) -> None:
        """Give the channels of a value these ids."""

    def tie_weight(self, name: str, axis: int, ids: Ids) -> None:
        """Give the indices of one axis of a weight these ids."""

    def pin(self, ids: Ids, reason: str) -> None:
        """Keep these classes, whatever is found out about them."""


@dataclass(frozen=True)
class NodeView:
    """A node as its rule sees it.

    Attributes:
        node: the node.
        types: the types of all values and weights of the graph.
        weights: the weights of the graph.
        cache: what the rule computed from the weights and will need again.
    """

    node: Node
    types: Mapping[str, TensorType]
    weights: Mapping[str, Array]
    cache: dict[str, Array] = field(default_factory=dict)

    @property
    def attrs(self) -> Attrs:
        """The node's attributes."""
        return self.node.attrs

    def name(self, index: int) -> str | None:
        """The name of an input; ``None`` if it is absent."""
        names = self.node.inputs
        return names[index] if index < len(names) and names[index] != ABSENT else None

    def weight(self, index: int) -> Array | None:
        """An input that is a weight; ``None`` if it is absent or computed."""
        name = self.name(index)
        return None if name is None else self.weights.get(name)

    def is_weight(self, index: int) -> bool:
        """Whether an input is a weight."""
        name = self.name(index)
        return name is not None and name in self.weights

    def computed(self) -> list[int]:
        """The positions of the inputs that are computed, not weights."""
        return [i for i, name in enumerate(self.node.inputs) if name != ABSENT and name not in self.weights]

    def channels(self, name: str) -> int:
        """The number of channels of a value, see :func:`channel_count`."""
        return channel_count(self.types[name])


class ChannelRule(ABC):
    """How channel facts flow through one operator with one output."""

    @abstractmethod
    def applies(self, view: NodeView) -> str:
        """Why the rule does not apply to this node; empty where it does. The node is opaque then."""

    @abstractmethod
    def tie(self, view: NodeView, ties: Ties) -> None:
        """Tie the channels of inputs, weights and output."""

    @abstractmethod
    def constants(self, view: NodeView, facts: Mapping[str, Constants]) -> Constants:
        """The constant channels of the output."""

    @abstractmethod
    def reads(self, view: NodeView, read: Mask) -> dict[str, Mask]:
        """The channels read of each computed input, where ``read`` are the channels of the output that are read."""

    def refuses(self, view: NodeView, index: int, constants: Constants) -> tuple[Mask, str]:
        """The nonzero constant channels of an input whose removal this node could not make good, and why."""
        return np.zeros(len(constants.known), bool), ""

    def absorbed(self, view: NodeView, gone: Mask, constants: Constants) -> Vector | None:
        """What removing the channels ``gone`` of input 0 takes from each output channel; ``None`` if nothing is summed."""
        return None

    def resized(self, attrs: Attrs, channels: int) -> dict[str, AttrValue]:
        """The attributes once the output has only ``channels`` left."""
        return dict(attrs)


class Pointwise(ChannelRule):
    """Operators that compute output channel c from channel c of their inputs, equally at every position.

    Args:
        evaluates: whether a constant output is the operator's value on the constants, else it is the input's.
    """

    def __init__(self, evaluates: bool = True) -> None:
        self._evaluates = evaluates

    def applies(self, view: NodeView) -> str:
        count = view.channels(view.node.output)
        if not count or not view.computed():
            return f"{view.node.op} on a value whose channels are not known"
        for index in range(len(view.node.inputs)):
            name = view.name(index)
            if name is None:
                continue
            size = self._width(view, name)
            if size not in (1, count) or (size == 1 and count > 1 and not view.is_weight(index)):
                return f"{view.node.op} broadcasts over channels"
        return ""

    @staticmethod
    def _width(view: NodeView, name: str) -> int:
        shape = view.types[name].shape
        return 1 if not shape else shape[-1] if isinstance(shape[-1], int) else -1

    def tie(self, view: NodeView, ties: Ties) -> None:
        count = view.channels(view.node.output)
        ids = ties.value(view.node.inputs[view.computed()[0]])
        for index, name in enumerate(view.node.inputs):
            if name == ABSENT:
                continue
            if view.is_weight(index):
                rank = view.types[name].rank
                if rank and self._width(view, name) == count:
                    ties.tie_weight(name, rank - 1, ids)
            else:
                ties.tie_value(name, ids)
        ties.tie_value(view.node.output, ids)

    def constants(self, view: NodeView, facts: Mapping[str, Constants]) -> Constants:
        from sparsec.ops.base import get_op

        count = view.channels(view.node.output)
        known = np.ones(count, bool)
        arguments: list[Array | None] = []
        for index in range(len(view.node.inputs)):
            name, weight = view.name(index), view.weight(index)
            if name is None:
                arguments.append(None)
            elif weight is not None:
                weight = weight.astype(np.float64)
                rows = np.broadcast_to(weight, np.broadcast_shapes(weight.shape, (count,))).reshape(-1, count)
                known &= (rows == rows[:1]).all(axis=0)
                arguments.append(weight if weight.ndim <= 1 else rows[0])
            else:
                known &= facts[name].known
                arguments.append(facts[name].values[None])
        if not self._evaluates:
            return Constants.of(known, np.asarray(arguments[view.computed()[0]])[0])
        with np.errstate(all="ignore"):
            (values,) = get_op(view.node.op).evaluate(view.attrs, arguments)
        return Constants.of(known, values[0])

    def reads(self, view: NodeView, read: Mask) -> dict[str, Mask]:
        return {view.node.inputs[index]: read for index in view.computed()}


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

    def reads(self, view: NodeView, read: Mask) -> dict[str, Mask]:
        factor = view.weight(self._factor)
        return {view.node.inputs[0]: read if factor is None else read & (factor != 0)}

    def constants(self, view: NodeView, facts: Mapping[str, Constants]) -> Constants:
        factor, count = view.weight(self._factor), view.channels(view.node.output)
        facts_in = facts[view.node.inputs[0]]
        if factor is not None:
            # Times zero is constant whatever the input is.
            facts_in = Constants(facts_in.known | (np.broadcast_to(factor, count) == 0), facts_in.values)
        return super().constants(view, {view.node.inputs[0]: facts_in})


class Positional(Pointwise):
    """Operators that move or pool positions and keep channels apart: constants stay what they are.

    Args:
        zeros: whether positions of zeros are added, so that only the constant 0 stays constant.
    """

    def __init__(self, zeros: bool = False) -> None:
        super().__init__(evaluates=False)
        self._zeros = zeros

    def constants(self, view: NodeView, facts: Mapping[str, Constants]) -> Constants:
        result = super().constants(view, facts)
        return Constants.of(result.known & (result.values == 0), result.values) if self._zeros else result


class AlongSpace(Positional):
    """Positional operators with an axis attribute, where that axis is not the last."""

    def __init__(self, attribute: str) -> None:
        super().__init__()
        self._attribute = attribute

    def applies(self, view: NodeView) -> str:
        value = view.attrs[self._attribute]
        axes = value if isinstance(value, tuple) else (value,)
        rank = view.types[view.node.inputs[0]].rank
        if any(axis in (-1, rank - 1) for axis in axes):
            return f"{view.node.op} along the channels"
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
        if not isinstance(permutation, tuple) or permutation[-1] != len(permutation) - 1:
            return "transposition of the channels"
        return super().applies(view)


class Reshaping(ChannelRule):
    """Reshapes whose last axis holds whole runs of channels: element i of it is channel ``i mod C`` of the input.

    ``[N, H, W, C]`` to ``[N, H * W * C]`` repeats the channels for every position; ``[N, C]`` to ``[N, 1, 1, C]`` keeps them.
    """

    def applies(self, view: NodeView) -> str:
        before, after = view.channels(view.node.inputs[0]), view.channels(view.node.output)
        if not before or not after or view.is_weight(0):
            return "reshape of a value whose channels are not known"
        return "reshape that splits the channels" if after % before else ""

    @staticmethod
    def _runs(view: NodeView) -> int:
        return view.channels(view.node.output) // view.channels(view.node.inputs[0])

    def tie(self, view: NodeView, ties: Ties) -> None:
        ties.tie_value(view.node.output, np.tile(ties.value(view.node.inputs[0]), self._runs(view)))

    def constants(self, view: NodeView, facts: Mapping[str, Constants]) -> Constants:
        x = facts[view.node.inputs[0]]
        return Constants(np.tile(x.known, self._runs(view)), np.tile(x.values, self._runs(view)))

    def reads(self, view: NodeView, read: Mask) -> dict[str, Mask]:
        return {view.node.inputs[0]: np.asarray(read.reshape(self._runs(view), -1).any(axis=0))}

    def resized(self, attrs: Attrs, channels: int) -> dict[str, AttrValue]:
        shape = attrs["shape"]
        assert isinstance(shape, tuple)
        return {**attrs, "shape": shape if shape[-1] in (0, -1) else (*shape[:-1], channels)}


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
        parts = [facts[name] for name in view.node.inputs]
        if self._along_channels(view):
            return Constants(np.concatenate([p.known for p in parts]), np.concatenate([p.values for p in parts]))
        same = np.logical_and.reduce([p.known & (p.values == parts[0].values) for p in parts])
        return Constants.of(same, parts[0].values)

    def reads(self, view: NodeView, read: Mask) -> dict[str, Mask]:
        if not self._along_channels(view):
            return dict.fromkeys(view.node.inputs, read)
        result: dict[str, Mask] = {}
        for name, part in zip(view.node.inputs, np.split(read, self._sections(view)), strict=True):
            result[name] = part | result.get(name, False)
        return result


def _pads_zeros(attrs: Attrs) -> bool:
    """Whether windows may reach over the border; the transpose of a convolution always counts as doing so."""
    pads = attrs.get("pads")
    return attrs.get("padding") != "explicit" or not isinstance(pads, tuple) or any(pads)


class Summing(ChannelRule):
    """Linear operators whose output channels sum over input channels: they end the classes of their input.

    Args:
        in_axis: the axis of the kernel along the input channels.
        out_axis: the axis along the output channels.
    """

    def __init__(self, in_axis: int, out_axis: int) -> None:
        self._in_axis, self._out_axis = in_axis, out_axis

    def applies(self, view: NodeView) -> str:
        if view.computed() != [0]:
            return f"{view.node.op} with computed weights"
        if view.attrs.get("groups", 1) != 1:
            return "grouped convolution"
        return ""

    def tie(self, view: NodeView, ties: Ties) -> None:
        kernel = view.node.inputs[1]
        rank = view.types[kernel].rank
        ids = ties.fresh(view.channels(view.node.output))
        ties.tie_weight(kernel, self._in_axis % rank, ties.value(view.node.inputs[0]))
        ties.tie_weight(kernel, self._out_axis % rank, ids)
        bias = view.name(2)
        if bias is not None:
            ties.tie_weight(bias, 0, ids)
        ties.tie_value(view.node.output, ids)

    def _matrices(self, view: NodeView) -> Array:
        """The kernel as ``[window, in, out]``."""
        kernel = view.weight(1)
        assert kernel is not None
        matrices = np.moveaxis(kernel, (self._in_axis, self._out_axis), (-2, -1))
        return matrices.reshape(-1, *matrices.shape[-2:])

    def _used(self, view: NodeView) -> Mask:
        """Which output channels have a weight on which input channels at all, ``[in, out]``."""
        if "used" not in view.cache:
            view.cache["used"] = (self._matrices(view) != 0).any(axis=0)
        return view.cache["used"]

    def _sums(self, view: NodeView, values: Vector) -> Vector:
        """What constant inputs add to each output channel where the whole window is summed."""
        nonzero = np.flatnonzero(values)
        rows = self._matrices(view)[:, nonzero].sum(axis=0, dtype=np.float64)
        result: Vector = values[nonzero] @ rows
        return result

    def _uniform(self, view: NodeView) -> bool:
        """Whether every output position sums over the whole window, so that a constant input adds a constant."""
        if view.node.op == "dense":
            return True
        return not _pads_zeros(view.attrs)

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
            return np.zeros(len(constants.known), bool), ""
        return constants.nonzero, "a constant behind zero padding is not a bias at the borders"

    def absorbed(self, view: NodeView, gone: Mask, constants: Constants) -> Vector | None:
        return self._sums(view, constants.values * (gone & constants.known))


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
        movable = x.known & (x.values == 0) if _pads_zeros(view.attrs) else x.known
        known = np.asarray(movable[:, None] | (kernel == 0).all(axis=0)).reshape(-1)
        values = ((x.values * movable)[:, None] * kernel.sum(axis=0, dtype=np.float64)).reshape(-1)
        bias = view.weight(2)
        return Constants.of(known, values if bias is None else values + bias)

    def reads(self, view: NodeView, read: Mask) -> dict[str, Mask]:
        kernel = self._kernel(view)
        used = (kernel != 0).any(axis=0) & read.reshape(kernel.shape[1:])
        return {view.node.inputs[0]: np.asarray(used.any(axis=1))}
