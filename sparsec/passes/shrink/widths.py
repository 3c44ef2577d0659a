"""Dead channels that stay for the sake of widths: no value may become empty, and groups stay equally large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from sparsec.errors import InputError
from sparsec.ops import get_op
from sparsec.ops.channels import Ids, Mask
from sparsec.passes.shrink.classes import Classes, RuledNode

LAST_CHANNEL = "at least one channel stays"

EQUAL_BLOCKS = "groups and heads stay equally large"

MULTIPLE = "widths are rounded up to a multiple of {}"

FAST, LEAST = (8, 4), 8
"""What ``auto`` rounds widths up to, the first multiple that fits, from how many channels on.

ONNX Runtime leaves its blocked layout for a convolution whose number of input channels is no multiple of 4, and a depthwise one
then takes five times as long. Blocks have 8 or 16 channels; what is missing in the last one is computed for nothing. Without
depthwise convolutions nothing is gained (benchmarks/results/widths.md)."""

AUTO = "auto"

Rounding = int | Literal["auto"]
"""To which multiple widths are rounded up: a number, or what networks with depthwise convolutions are fast with."""


def multiple_of(round_to: int | str) -> int | None:
    """The multiple that an option asks for; ``None`` for ``auto``.

    Raises:
        InputError: it is neither ``auto`` nor a positive number.
    """
    if round_to == AUTO:
        return None
    text = str(round_to)
    if isinstance(round_to, bool) or not text.isdecimal() or int(text) < 1:
        raise InputError(f"widths cannot be rounded to {round_to!r}; give a positive whole number, 1 for none, or {AUTO!r}")
    return int(text)


def emptied(classes: Classes, removed: Mask) -> dict[int, str]:
    """One class for each value that would lose all its channels."""
    new: dict[int, str] = {}
    for ids in classes.values.values():
        if ids.size and removed[ids].all() and not any(int(class_) in new for class_ in ids):
            new[int(ids[0])] = LAST_CHANNEL
    return new


def unequal(views: Sequence[RuledNode], classes: Classes, removed: Mask) -> dict[int, str]:
    """Classes that keep the blocks of partitioned values equally large.

    A block of which nothing is left in any value goes as a whole; the others are filled up to the largest one.
    """
    new: dict[int, str] = {}
    for view, rule, _ in views:
        parts = [] if rule is None else [classes.values[p.value].reshape(p.blocks, -1) for p in rule.partitions(view)]
        left = np.array([(~removed[ids]).sum(axis=1) for ids in parts])
        for ids, counts in zip(parts, left, strict=True):
            for block in np.flatnonzero(left.any(axis=0) & (counts < counts.max())):
                wanted = int(counts.max() - counts[block])
                new.update(dict.fromkeys(_some(ids[block], removed, wanted), EQUAL_BLOCKS))
    return new


def _some(ids: Ids, removed: Mask, count: int) -> list[int]:
    """The classes of the first ``count`` channels that are to go."""
    return [int(class_) for class_ in ids[removed[ids]][:count]]


def rounded_up(views: Sequence[RuledNode], classes: Classes, removed: Mask, multiple: int | None) -> dict[int, str]:
    """Classes that make the width of every linear operator's output a multiple, where its channels allow it.

    ``None`` rounds to one of :data:`FAST` where there is a depthwise convolution, else not at all.
    """
    new: dict[int, str] = {}
    if multiple is None and not any(view.node.op == "depthwise_conv" and view.is_weight(1) for view, _, _ in views):
        return new
    removed = removed.copy()
    for view, rule, _ in views:
        if rule is None or not get_op(view.node.op).matrix_rows or not view.is_weight(1):
            continue
        ids = classes.values[view.node.outputs[0]]
        gone = ids[removed[ids]]
        chosen = _fitting(ids.size - gone.size, ids.size, multiple)
        wanted = (gone.size - ids.size) % chosen
        # Where a class stands for several channels of the value, no number of classes may be the right one.
        if not wanted or np.unique(gone).size < gone.size:
            continue
        for class_ in gone[:wanted].tolist():
            removed[class_] = False
            new[class_] = MULTIPLE.format(chosen)
    return new


def _fitting(left: int, width: int, multiple: int | None) -> int:
    """The multiple to which ``left`` of ``width`` channels are rounded up; 1 where there are not that many."""
    if multiple is None and left < LEAST:
        return 1
    choices = FAST if multiple is None else (multiple,)
    return next((choice for choice in choices if left + -left % choice <= width), 1)
