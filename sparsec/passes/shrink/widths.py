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

DEPTHWISE_MULTIPLE = 4
"""ONNX Runtime leaves its blocked layout for depthwise convolutions of another number of channels, at twice the time
(benchmarks/results/widths.md); the widths of other operators make no difference beyond that of their size."""


AUTO = "auto"

Rounding = int | Literal["auto"]
"""To which multiple widths are rounded up: a number, or what depthwise convolutions are fast with."""


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

    ``None`` rounds depthwise convolutions alone, to :data:`DEPTHWISE_MULTIPLE`.
    """
    new: dict[int, str] = {}
    depthwise = multiple is None
    multiple = DEPTHWISE_MULTIPLE if multiple is None else multiple
    if multiple == 1:
        return new
    removed = removed.copy()
    for view, rule, _ in views:
        if rule is None or not get_op(view.node.op).matrix_rows or not view.is_weight(1):
            continue
        if depthwise and view.node.op != "depthwise_conv":
            continue
        ids = classes.values[view.node.outputs[0]]
        gone = ids[removed[ids]]
        wanted = -(ids.size - gone.size) % multiple
        # Where a class stands for several channels of the value, no number of classes may be the right one.
        if not 0 < wanted <= gone.size or np.unique(gone).size < gone.size:
            continue
        for class_ in gone[:wanted].tolist():
            removed[class_] = False
            new[class_] = MULTIPLE.format(multiple)
    return new
