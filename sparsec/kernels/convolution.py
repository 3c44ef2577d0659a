"""Kernels of ``conv``: windows gathered into matrices a block at a time, then a matrix product."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod
from typing import Final

import numpy as np

from sparsec.ir import Array
from sparsec.kernels.base import Epilogue, Kernel, Run, Task
from sparsec.kernels.costs import Coefficients, dense_product, sparse_product
from sparsec.kernels.sparse import ROWS, Parts, multiply_rows, panel_vectors, refuse_for_scipy, rows_cost
from sparsec.kernels.weights import TENSOR
from sparsec.ops.base import integer, ints
from sparsec.ops.windows import axis_pads, blocks, columns, padded, taps

BLOCK_BYTES: Final = 1 << 21
"""Windows gathered for one dense product: enough for BLAS, and still in the cache when it reads them."""

BLOCK_ROWS: Final = 256
"""The least number of windows for one dense product, for which reading the weights pays."""


@dataclass(frozen=True)
class Geometry:
    """The sizes of one convolution."""

    window: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    groups: int

    @classmethod
    def of(cls, task: Task) -> Geometry:
        """The sizes that follow from a task's attributes and shapes."""
        window = task.weight.shape[:-2]
        pads = tuple(axis_pads(task.attrs, task.x[1:-1], window))
        attrs = task.attrs
        return cls(window, ints(attrs, "strides"), ints(attrs, "dilations"), pads, integer(attrs, "groups"))

    @property
    def taps(self) -> int:
        """The number of elements of the window."""
        return prod(self.window)

    def positions(self, x: Array) -> Array:
        """The input positions that a window of one element meets, ``[N * positions, C]``."""
        x = padded(x, self.pads)[(slice(None), *(slice(None, None, s) for s in self.strides))]
        return x.reshape(-1, x.shape[-1])


def _block_limit(length: int, itemsize: int) -> int:
    return max(BLOCK_BYTES, BLOCK_ROWS * length * itemsize)


def _blas_cost(task: Task, c: Coefficients) -> float:
    rows, length = task.weight.matrix_shape
    gathered = prod(task.weight.shape[:-2]) * task.x[-1]
    calls = ceil(task.positions * gathered * 4 / _block_limit(gathered, 4))
    product = dense_product(rows, length, max(task.positions, 2), calls, task.dtype, task.threads, c)
    return product + _gather_cost(task, c)


def _gather_cost(task: Task, c: Coefficients) -> float:
    window = prod(task.weight.shape[:-2])
    return 0.0 if window == 1 else task.positions * window * task.x[-1] * c.move


def _windows(geometry: Geometry, x: Array, y: Array) -> Iterator[tuple[Array, Array]]:
    """Windows ``[n, taps * C]``, and the part ``[n, out]`` of ``y`` that they produce."""
    limit = _block_limit(geometry.taps * x.shape[-1], x.itemsize)
    if geometry.taps == 1:
        flat, target = geometry.positions(x), y.reshape(-1, y.shape[-1])
        step = max(limit // (flat.shape[1] * x.itemsize), 1)
        for first in range(0, flat.shape[0], step):
            yield flat[first : first + step], target[first : first + step]
        return
    x = np.ascontiguousarray(padded(x, geometry.pads))
    for samples, rows, block in columns(x, geometry.window, geometry.strides, geometry.dilations, limit):
        yield block, y[samples, rows].reshape(-1, y.shape[-1])


def _bind_blas(task: Task, kernel: Array, epilogue: Epilogue) -> Run:
    geometry = Geometry.of(task)
    groups, length = geometry.groups, task.weight.matrix_shape[1]
    # [K, out] -> [groups, K, out / groups], a view
    matrices = kernel.reshape(length, groups, -1).swapaxes(0, 1)

    def multiply(windows: Array, part: Array) -> None:
        if groups == 1:
            np.matmul(windows, matrices[0], out=part)
            return
        split = windows.reshape(len(windows), geometry.taps, groups, -1).transpose(2, 0, 1, 3)
        products = np.matmul(split.reshape(groups, len(windows), length), matrices)
        part.reshape(len(windows), groups, -1)[...] = products.swapaxes(0, 1)

    def run(x: Array) -> Array:
        y = np.empty(task.y, x.dtype)
        for windows, part in _windows(geometry, x, y):
            multiply(windows, part)
            epilogue(part)
        return y

    return run


def _csr_cost(task: Task, c: Coefficients) -> float:
    window = prod(task.weight.shape[:-2])
    if window == 1:
        return rows_cost(task, c)
    calls = ceil(task.positions / panel_vectors(window * task.x[-1] + task.y[-1], np.dtype(task.dtype).itemsize))
    product = sparse_product(task.nonzeros, max(task.positions, 2), calls, task.dtype, c)
    return product + _gather_cost(task, c) + (prod(task.x) + prod(task.y)) * c.transpose


def _bind_csr(task: Task, parts: Parts, epilogue: Epilogue) -> Run:
    geometry = Geometry.of(task)
    filters, length = parts[0].shape

    def run_pointwise(x: Array) -> Array:
        y = np.empty(task.y, x.dtype)
        multiply_rows(parts, geometry.positions(x), y.reshape(-1, task.y[-1]), epilogue)
        return y

    def run(x: Array) -> Array:
        y = np.empty(task.y, x.dtype)
        # Channels first, so that a row of the gathered matrix is made of runs along the last spatial axis.
        planes = np.ascontiguousarray(np.moveaxis(padded(x, geometry.pads), -1, 0))
        views = taps(np.moveaxis(planes, 0, -1), geometry.window, geometry.strides, geometry.dilations)
        shifted = [np.moveaxis(view, -1, 0) for _, view in views]
        position_bytes = (geometry.taps * task.x[-1] + task.y[-1]) * x.itemsize
        limit = panel_vectors(position_bytes, 1) * position_bytes
        for block in blocks(task.y[:-1], position_bytes, limit):
            part = y[block].reshape(-1, task.y[-1])
            gathered = np.empty((geometry.groups, geometry.taps, task.x[-1] // geometry.groups, len(part)), x.dtype)
            for tap, view in enumerate(shifted):
                gathered[:, tap] = view[(slice(None), *block)].reshape(geometry.groups, -1, len(part))
            for group, matrix in enumerate(parts):
                products = matrix @ gathered[group].reshape(length, len(part))
                part[:, group * filters : (group + 1) * filters] = products.T
            epilogue(part)
        return y

    return run_pointwise if geometry.taps == 1 else run


CONV_BLAS = Kernel("conv/blas", "conv", TENSOR, _blas_cost, _bind_blas)
CONV_CSR = Kernel("conv/csr", "conv", ROWS, _csr_cost, _bind_csr, refuse_for_scipy, ("scipy",))
