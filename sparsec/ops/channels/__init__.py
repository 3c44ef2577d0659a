"""How facts about channels flow through operators.

A *channel* is one index of a value's last axis. Shrinking asks three things of every operator (see
:mod:`sparsec.passes.shrink`):

* which channels of its inputs, outputs and weights stand or fall together (*ties*);
* which output channels are *constant*, the same for every input, given those that are so before it: one number at every
  position, or a multiple of a *template*, a map over the positions such as ones inside a border of zeros;
* which input channels it *reads*, given the output channels that somebody reads.

The answers are conservative: a channel of which nothing is known is variable, read, and stays. An operator without a
rule is opaque.
"""

from sparsec.ops.channels.facts import UNIFORM, Constants, Ids, Mask, Template, Vector, channel_count
from sparsec.ops.channels.linear import PerChannel, Summing, grouped_rows, ungrouped_rows
from sparsec.ops.channels.pointwise import Jumping, Pointwise, Product, Rectifying, Scaling
from sparsec.ops.channels.positional import (
    AlongSpace,
    Concatenating,
    Padding,
    Permuting,
    Positional,
    Repeating,
    Reshaping,
)
from sparsec.ops.channels.rule import ChannelRule, KernelRows, NodeView, Partition, Ties

__all__ = [
    "UNIFORM",
    "AlongSpace",
    "ChannelRule",
    "Concatenating",
    "Constants",
    "Ids",
    "Jumping",
    "KernelRows",
    "Mask",
    "NodeView",
    "Padding",
    "Partition",
    "PerChannel",
    "Permuting",
    "Pointwise",
    "Positional",
    "Product",
    "Rectifying",
    "Repeating",
    "Reshaping",
    "Scaling",
    "Summing",
    "Template",
    "Ties",
    "Vector",
    "channel_count",
    "grouped_rows",
    "ungrouped_rows",
]
