"""Magnitude masks: which weights, or which whole units, of kernels are the smallest. Pure functions of arrays.

A mask is ``True`` where a weight is kept, so that ``kernel * mask`` is the pruned kernel. Nothing is changed in place.
Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks", ranks weights so; Li et al. 2017,
"Pruning Filters for Efficient ConvNets", ranks filters by their norm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from sparsec.errors import InputError
from sparsec.ir import Array

Mask = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]

BLOCK = 1 << 20
"""Values that are widened to float64, or compared, at a time."""


def check_sparsity(sparsity: float) -> float:
    """The sparsity as a Python float.

    Raises:
        InputError: it is not a number from 0 up to, but not including, 1.
    """
    given: object = sparsity
    # A float32 0.9 was meant as 0.9, not as the binary fraction next to it.
    number = float(str(given)) if isinstance(given, np.floating) else given
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < 1:
        hint = f"; for {number} % give {number / 100}" if isinstance(number, int | float) and 1 < number < 100 else ""
        raise InputError(f"sparsity is {given!r}, a number from 0 up to but not including 1 was expected{hint}")
    return float(number)


def pruned_count(sparsity: float, size: int) -> int:
    """``floor(sparsity * size)``, with the sparsity as it is written: 0.7 of 90 is 63, where binary rounding gives 62."""
    return math.floor(Fraction(str(sparsity)) * size)


def smallest(parts: Sequence[Array], count: int) -> list[Mask]:
    """Mark the values of least magnitude, ranked over several arrays together.

    Args:
        parts: the arrays, of any shapes; ties go by order of the arrays, then by flat index.
        count: how many values to mark, at most as many as there are.

    Returns:
        one array for each part, in its shape; ``True`` at exactly ``count`` places in all.

    Raises:
        InputError: a value is not a number.
    """
    marked = [np.zeros(part.size, bool) for part in parts]
    if count:
        # The pool is partitioned in place and dropped before the comparison: of big kernels one copy is made, not three.
        pool = _magnitudes(parts)
        pool.partition(count - 1)
        threshold, largest = pool[count - 1 : count].copy(), pool.max()
        del pool
        if np.isnan(largest):
            raise InputError("a kernel holds values that are not numbers, which cannot be ranked")
        missing = count - sum(_mark_below(part, threshold, out) for part, out in zip(parts, marked, strict=True))
        for part, out in zip(parts, marked, strict=True):
            missing -= _mark_ties(part, threshold, out, missing)
    return [out.reshape(part.shape) for part, out in zip(parts, marked, strict=True)]


def _magnitudes(parts: Sequence[Array]) -> Array:
    pool: Array = np.empty(sum(part.size for part in parts), np.result_type(*parts))
    start = 0
    for part in parts:
        np.abs(part.reshape(-1), out=pool[start : start + part.size])
        start += part.size
    return pool


def _mark_below(part: Array, threshold: Array, out: Mask) -> int:
    flat = part.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        np.less(np.abs(flat[start : start + BLOCK]), threshold, out=out[start : start + BLOCK])
    return int(np.count_nonzero(out))


def _mark_ties(part: Array, threshold: Array, out: Mask, limit: int) -> int:
    """Mark the first values equal to the threshold; returns how many, at most ``limit``."""
    flat, found = part.reshape(-1), 0
    for start in range(0, flat.size, BLOCK):
        if found == limit:
            break
        ties = np.flatnonzero(np.abs(flat[start : start + BLOCK]) == threshold)[: limit - found]
        out[start + ties] = True
        found += ties.size
    return found


def weight_mask(kernel: Array, sparsity: float) -> Mask:
    """Keep all but the ``floor(sparsity * size)`` weights of least magnitude; ties go by flat index.

    Args:
        kernel: of any shape.
        sparsity: from 0 up to, but not including, 1.

    Returns:
        the mask, in the shape of the kernel, with exactly that many zeros.

    Raises:
        InputError: the sparsity is out of range, or a weight is not a number.
    """
    return weight_masks([kernel], sparsity)[0]


def weight_masks(kernels: Sequence[Array], sparsity: float) -> list[Mask]:
    """As :func:`weight_mask`, with the weights of all kernels ranked together.

    A kernel of small weights may lose all of them. Ties go by order of the kernels, then by flat index.

    Raises:
        InputError: the sparsity is out of range, or a weight is not a number.
    """
    count = pruned_count(check_sparsity(sparsity), sum(kernel.size for kernel in kernels))
    return [~marked for marked in smallest(kernels, count)]


def unit_energies(kernel: Array, axes: Sequence[int] = (-1,)) -> Scores:
    """The sum of squares of each unit, in float64, ``[units]``; see :func:`unit_scores`."""
    axes = tuple(axis % kernel.ndim for axis in axes)
    rows = np.moveaxis(kernel, axes, range(-len(axes), 0)).reshape(-1, math.prod(kernel.shape[axis] for axis in axes))
    total = np.zeros(rows.shape[1])
    step = max(BLOCK // max(rows.shape[1], 1), 1)
    for start in range(0, len(rows), step):
        # In C order every unit is summed in the same order, so that equal units have equal scores.
        block = np.array(rows[start : start + step], dtype=np.float64, order="C")
        np.square(block, out=block)
        total += block.sum(axis=0)
    return total


def unit_scores(kernel: Array, axes: Sequence[int] = (-1,)) -> Scores:
    """The L2 norm of each unit.

    Args:
        kernel: of any shape.
        axes: the axes that number the units: ``(-1,)`` for the columns of Dense and the filters of convolutions, ``(-2,)`` for
            transposed convolutions, ``(-2, -1)``, channel and multiplier, for depthwise ones.

    Returns:
        the norms in float64, ``[units]``, in row-major order of ``axes``.
    """
    return np.sqrt(unit_energies(kernel, axes))


def unit_mask(kernel: Array, sparsity: float, axes: Sequence[int] = (-1,)) -> Mask:
    """Keep all but the ``floor(sparsity * units)`` units of least L2 norm; ties go by the number of the unit.

    Args:
        kernel: of any shape.
        sparsity: from 0 up to, but not including, 1; at least one unit is kept.
        axes: as for :func:`unit_scores`.

    Returns:
        the mask, in the shape of the kernel; a view that may not be written to.

    Raises:
        InputError: the sparsity is out of range, or a weight is not a number.
    """
    scores = unit_scores(kernel, axes)
    (marked,) = smallest([scores], pruned_count(check_sparsity(sparsity), scores.size))
    return np.broadcast_to(along_units(~marked, kernel.shape, axes), kernel.shape)


def along_units(values: Mask, shape: Sequence[int], axes: Sequence[int]) -> Mask:
    """One value for each unit, ``[units]``, in a shape that broadcasts over the kernel."""
    chosen = {axis % len(shape) for axis in axes}
    return values.reshape([size if axis in chosen else 1 for axis, size in enumerate(shape)])
