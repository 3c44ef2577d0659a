"""Comparing the outputs of two models: differences, argmax flips with their margins, and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sparsec.errors import InputError
from sparsec.ir import Array

DEFAULT_TOLERANCE = 1e-4
"""The contract: differences stay below this part of an output's range."""

LEAST_RANGE = 0.02
"""A range below this part of the largest magnitude counts as that part: float32 itself has no more to give there."""

HALF_ROUNDING = 2.0**-11
"""By this part of its magnitude a number moves at most when it is rounded to half precision."""

LEAST_VARIATION = 1e-6
"""An output that moves by less than this part of its largest magnitude moves by rounding."""


@dataclass(frozen=True)
class Flips:
    """Samples on which the largest element of an output differs.

    Attributes:
        count: how many.
        of: how many were compared.
        margin: the largest margin among them: how far the reference's first choice was ahead of its second.
    """

    count: int
    of: int
    margin: float


@dataclass(frozen=True)
class OutputComparison:
    """The comparison of one output.

    Attributes:
        output: its name.
        difference: the largest absolute difference, infinite where a value is not finite.
        range: the largest minus the smallest value of the reference; of a single value its magnitude; at least
            :data:`LEAST_RANGE`.
        allowed: the largest absolute difference that passes; in half precision what rounding moves comes on top.
        variation: how far the element that moves most moves over the samples, as a part of the output's largest
            magnitude; ``None`` for a single sample.
        flips: of the argmax over the last axis; ``None`` where there is nothing to choose from.
    """

    output: str
    difference: float
    range: float
    allowed: float
    variation: float | None
    flips: Flips | None

    @property
    def relative(self) -> float:
        """The difference as a part of the range."""
        return self.difference / self.range if self.range else float(self.difference > 0)

    @property
    def equal(self) -> bool:
        """Whether the difference is allowed."""
        return self.difference <= self.allowed

    @property
    def varies(self) -> bool:
        """Whether the output depends on the samples by more than rounding; a single sample cannot tell."""
        return self.variation is None or self.variation > LEAST_VARIATION

    @property
    def passed(self) -> bool:
        """Whether the outputs are equal, and the comparison says something."""
        return self.equal and self.varies

    def to_json(self) -> dict[str, Any]:
        """The comparison as a JSON object."""
        return {**asdict(self), "relative": self.relative, "varies": self.varies, "passed": self.passed}


def compare(output: str, reference: Array, actual: Array, tolerance: float = DEFAULT_TOLERANCE) -> OutputComparison:
    """Compare one output of two models.

    Args:
        output: its name, for messages.
        reference: ``[samples, ...]``.
        actual: the same shape.
        tolerance: the difference that is allowed, as a part of the reference's range.

    Raises:
        InputError: the shapes differ.
    """
    if reference.shape != actual.shape:
        raise InputError(
            f"output {output!r} has shape {reference.shape} in the reference and {actual.shape} in the artefact: "
            "is it the same model?"
        )
    a, b = reference.astype(np.float64), actual.astype(np.float64)
    finite = bool(np.isfinite(a).all() and np.isfinite(b).all())
    if not (finite and a.size):
        return OutputComparison(output, 0.0 if finite else float("inf"), 0.0, 0.0, None, None)
    magnitude = float(np.abs(a).max())
    scale = max(float(np.ptp(a)), LEAST_RANGE * magnitude) if a.size > 1 else magnitude
    rounding = HALF_ROUNDING * magnitude if np.float16 in (reference.dtype, actual.dtype) else 0.0
    return OutputComparison(
        output,
        float(np.abs(a - b).max()),
        scale,
        tolerance * scale + rounding,
        float(np.ptp(a, axis=0).max()) / magnitude if len(a) > 1 and magnitude else (0.0 if len(a) > 1 else None),
        _flips(a, b),
    )


def compare_all(
    outputs: Sequence[str], reference: Sequence[Array], actual: Sequence[Array], tolerance: float = DEFAULT_TOLERANCE
) -> tuple[OutputComparison, ...]:
    """Compare every output of two models, in order.

    Raises:
        InputError: the numbers of outputs, or the shapes of one, differ.
    """
    if len(reference) != len(actual):
        raise InputError(f"the reference has {len(reference)} outputs and the artefact {len(actual)}: is it the same model?")
    return tuple(compare(*item, tolerance) for item in zip(outputs, reference, actual, strict=True))


def accuracy(output: Array, labels: Array) -> float:
    """The part of the samples that are classified as labelled.

    Args:
        output: ``[samples, ..., classes]``, or ``[samples, 1]`` probabilities of the second of two classes.
        labels: class numbers from 0 ``[samples, ...]``, or one-hot in the shape of ``output``.

    Raises:
        InputError: the labels do not fit the output, or are no numbers of its classes.
    """
    if labels.dtype.kind not in "biuf":
        raise InputError(f"labels of dtype {labels.dtype} are no class numbers")
    binary = output.ndim < 2 or output.shape[-1] == 1
    if binary:
        chosen = (output.reshape(len(output), -1) > 0.5).astype(np.int64)
        truth = labels.reshape(len(labels), -1)
    else:
        chosen = output.argmax(axis=-1)
        one_hot = labels.shape == output.shape
        truth = labels.argmax(axis=-1) if one_hot else labels
        truth = truth[..., 0] if truth.ndim == chosen.ndim + 1 and truth.shape[-1] == 1 else truth
    if truth.shape != chosen.shape:
        raise InputError(f"labels of shape {labels.shape} do not fit an output of shape {output.shape}")
    _check_classes(truth, 2 if binary else output.shape[-1])
    return float(np.mean(chosen == truth))


def _check_classes(labels: Array, classes: int) -> None:
    """Refuse labels that no output can equal: their accuracy would be low without meaning anything."""
    strange = labels[~np.isin(labels, np.arange(classes))]
    if strange.size:
        raise InputError(f"there is a label {strange.flat[0]:g}, but classes are numbered from 0 to {classes - 1}")


def _flips(reference: Array, actual: Array) -> Flips | None:
    if reference.ndim < 2 or reference.shape[-1] < 2:
        return None
    first = reference.argmax(axis=-1)
    flipped = first != actual.argmax(axis=-1)
    margin = 0.0
    if flipped.any():
        second, best = np.moveaxis(np.sort(reference[flipped], axis=-1)[..., -2:], -1, 0)
        margin = float((best - second).max())
    return Flips(int(flipped.sum()), first.size, margin)
