"""What a rule is asked about a node, and what it may say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from sparsec.ir import ABSENT, Array, Attrs, AttrValue, Node, TensorType
from sparsec.ops.channels.facts import Constants, Ids, Mask, channel_count


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

    def tie_calls(self, name: str, end: str, ids: Ids) -> None:
        """Give the channels at one end of every operator that uses a weight these ids, where no axis of the weight has them."""

    def pin(self, ids: Ids, reason: str) -> None:
        """Keep these classes, whatever is found out about them."""


@dataclass(frozen=True)
class NodeView:
    """A node as its rule sees it.

    Attributes:
        node: the node.
        types: the types of all values and weights of the graph.
        weights: the weights of the graph.
        cache: what the rule computed and will need again.
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


@dataclass(frozen=True)
class Partition:
    """A value whose channels are so many blocks of equally many channels, in order, and have to remain so.

    Attributes:
        value: the name of the value.
        blocks: the number of blocks.
    """

    value: str
    blocks: int


class ChannelRule(ABC):
    """How channel facts flow through one operator.

    An operator with several outputs may have a rule if all of them have the same channels, ties and constants.
    """

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
        """The nonzero constant channels of an input whose removal this node could not make good by a bias, and why."""
        return np.zeros(len(constants.known), bool), ""

    def absorbed(self, view: NodeView, gone: Mask, constants: Constants) -> Array | None:
        """What removing the channels ``gone`` of input 0 takes from the bias (input 2); ``None`` if nothing is summed."""
        return None

    def rows(self, view: NodeView) -> KernelRows | None:
        """Where the kernel (input 1) has the row of each channel of input 0, if the operator is linear in it.

        A constant that a bias cannot make good may then be carried by another channel with the same template: its row is
        added to that channel's. ``None`` where that cannot be.
        """
        return None

    def partitions(self, view: NodeView) -> Sequence[Partition]:
        """The values whose channels are as many blocks as an attribute says; block i of one goes with block i of the others."""
        return ()

    def resized(self, view: NodeView, kept: Mapping[str, Mask]) -> dict[str, AttrValue]:
        """The attributes that change once each value has only its channels ``kept`` left."""
        return {}

    def lingering(self, view: NodeView) -> tuple[Mask, str]:
        """The output channels that depend on no input and are no constants all the same, and why; for reports."""
        return np.zeros(view.channels(view.node.outputs[0]), bool), ""

    def spoils(self, view: NodeView) -> str:
        """Why a channel that is constant in an input may not be so in the output; empty where the operator ends classes."""
        return ""


@dataclass(frozen=True)
class KernelRows:
    """The rows of a kernel by input channel.

    Attributes:
        axis: the axis of the kernel along the input channels, not negative.
        groups: how many groups the input channels are in; each sees its own part of the kernel's last axis.
    """

    axis: int
    groups: int = 1
