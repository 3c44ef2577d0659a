"""The cost model of NumPy and SciPy kernels: how long one takes, from a few measured coefficients.

Costs are nanoseconds. They need not be right, only rank kernels: where two are close, either will do. Every cost is linear in
the coefficients, so that ``benchmarks/kernels.py`` fits them to the times of all kernels on layers of real networks, by least
squares of relative errors; run it on another machine to compare. The sizes of caches and ``thread_gain`` are not fitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Coefficients:
    """Nanoseconds in float32 on one core.

    Attributes:
        call: each call of a product from Python.
        weight: each weight of a dense matrix times one vector, where the matrix is in the cache.
        weight_far: the same where it is not.
        load: each weight of a dense matrix times several vectors, once, where the matrix is in the cache.
        load_far: the same where it is not.
        multiply: each weight of a dense matrix times several vectors, for every vector.
        entry: each entry of a sparse matrix times one vector, where the matrix is in the cache.
        entry_far: the same where it is not.
        row: each entry of a sparse matrix times several vectors, once.
        axpy: each entry of a sparse matrix times several vectors, for every vector.
        move: each element copied into the windows of a convolution.
        transpose: each element transposed.
        tap: each multiplication of a depthwise convolution.
        cache_bytes: the size of a matrix up to which it counts as in the cache.
        thread_gain: how much each further thread adds to the speed of BLAS.
    """

    call: float
    weight: float
    weight_far: float
    load: float
    load_far: float
    multiply: float
    entry: float
    entry_far: float
    row: float
    axpy: float
    move: float
    transpose: float
    tap: float
    cache_bytes: int
    thread_gain: float


MEASURED: Final = Coefficients(
    call=2200.0,
    weight=0.056,
    weight_far=0.17,
    load=0.2,
    load_far=0.55,
    multiply=0.021,
    entry=0.75,
    entry_far=0.95,
    row=2.5,
    axpy=0.14,
    move=0.85,
    transpose=0.85,
    tap=0.33,
    cache_bytes=1 << 23,
    thread_gain=0.8,
)

ADVANTAGE: Final = 0.9
"""A sparse kernel is chosen where its estimate is at most this part of the dense kernel's."""


def _width(dtype: str) -> float:
    return 2.0 if dtype == "float64" else 1.0


def dense_product(rows: int, columns: int, vectors: int, calls: int, dtype: str, threads: int, c: Coefficients) -> float:
    """A dense matrix times ``vectors`` columns, in ``calls`` blocks."""
    weights, speed = rows * columns * _width(dtype), 1.0 + c.thread_gain * (threads - 1)
    near = weights * 4 <= c.cache_bytes
    if vectors == 1:
        return c.call + weights * (c.weight if near else c.weight_far) / speed
    return calls * c.call + weights * (calls * (c.load if near else c.load_far) + c.multiply * vectors) / speed


def sparse_product(entries: int, vectors: int, calls: int, dtype: str, c: Coefficients) -> float:
    """A sparse matrix with ``entries`` entries times ``vectors`` columns, in ``calls`` blocks."""
    if vectors == 1:
        return c.call + entries * (c.entry if entries * 8 <= c.cache_bytes else c.entry_far)
    return calls * c.call + entries * (calls * c.row + c.axpy * vectors * _width(dtype))
