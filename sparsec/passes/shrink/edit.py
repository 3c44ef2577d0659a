"""What happens to one weight: rows added to others, a correction, and the indices that are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sparsec.ir import Array
from sparsec.ops.channels import grouped_rows, ungrouped_rows

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Merge:
    """Rows of a kernel that are added to others, since channels that go are multiples of channels that stay.

    If channel ``s`` is ``ratio`` times channel ``t`` at every position, then ``K[s] * s + K[t] * t`` is
    ``(K[t] + ratio * K[s]) * t``.

    Attributes:
        axis: the axis of the kernel along the input channels.
        sources: the channels that go.
        targets: for each, the channel that carries it.
        ratios: for each, its constant over that of the target.
    """

    axis: int
    sources: Indices
    targets: Indices
    ratios: npt.NDArray[np.float64]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Merge) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in ("axis", "sources", "targets", "ratios")
        )

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, kernel: Array) -> Array:
        """The kernel, in float64, with the rows added."""
        rows = np.moveaxis(kernel.astype(np.float64), self.axis, 0).copy()
        ratios = self.ratios.reshape(-1, *[1] * (rows.ndim - 1))
        np.add.at(rows, self.targets, ratios * rows[self.sources])
        return np.moveaxis(rows, 0, self.axis)


@dataclass(frozen=True)
class Groups:
    """What is left of the kernel of a grouped convolution, ``[*window, in / groups, out]``.

    Attributes:
        count: the groups before.
        inputs: for each group that is left, the input channels kept, counted over all groups.
        outputs: for each, the output channels kept, counted within the group.
    """

    count: int
    inputs: Sequence[Indices]
    outputs: Sequence[Indices]

    def sliced(self, kernel: Array) -> Array:
        """The kernel with the groups and channels that are left."""
        rows = grouped_rows(kernel, self.count)
        parts = [
            rows.take(inputs, axis=-2).take(outputs, axis=-1) for inputs, outputs in zip(self.inputs, self.outputs, strict=True)
        ]
        return ungrouped_rows(np.concatenate(parts, axis=-2), len(parts))

    def shape(self, before: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the kernel that had the shape ``before``."""
        return (*before[:-2], self.inputs[0].size, len(self.outputs) * self.outputs[0].size)


@dataclass(frozen=True)
class WeightEdit:
    """What happens to a weight, in this order.

    Attributes:
        merge: rows that are added to others.
        delta: what is added, in float64: constants of removed channels end up in biases and moving means.
        kept: the indices kept, ascending, by axis; an axis that is not named stays whole.
        groups: what is kept of the kernel of a grouped convolution.
    """

    merge: Merge | None = None
    delta: Array | None = None
    kept: Mapping[int, Indices] = field(default_factory=dict)
    groups: Groups | None = None

    def shape(self, before: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a weight that had the shape ``before``."""
        if self.groups is not None:
            return self.groups.shape(before)
        return tuple(self.kept[axis].size if axis in self.kept else size for axis, size in enumerate(before))

    def __call__(self, array: Array) -> Array:
        """The new values, in the dtype of the old ones; sums are done in float64 and rounded once."""
        dtype = array.dtype
        if self.merge is not None:
            groups = 1 if self.groups is None else self.groups.count
            array = ungrouped_rows(self.merge(grouped_rows(array, groups)), groups)
        if self.delta is not None:
            array = array.astype(np.float64) + self.delta
        return self.sliced(array.astype(dtype, copy=False))

    def sliced(self, array: Array) -> Array:
        """An array that goes with the weight, such as a slot of an optimizer, without what goes."""
        if self.groups is not None:
            return self.groups.sliced(array)
        for axis, indices in self.kept.items():
            array = array.take(indices, axis=axis)
        return array
