"""Kernels of ``conv``: windows gathered into matrices a block at a time, then a matrix product."""

from __future__ import annotations

from math import ceil, prod
from typing import Final

import numpy as np

from sparsec.ir import Array
from sparsec.kernels.base import Epilogue, Kernel, Run, Task
from sparsec.kernels.costs import Coefficients, dense_product, sparse_product
from sparsec.kernels.sparse import ROWS, Parts, multiply_rows, panel_vectors, refuse_for_scipy, rows_cost
from sparsec.kernels.weights import TENSOR
from sparsec.kernels.windows import Geometry, positions_as_rows, windows_as_columns, windows_as_rows

BLOCK_BYTES: Final = 1 << 20
"""Windows gathered for one dense product: enough for BLAS, and still in the cache when it reads them."""

BLOCK_ROWS: Final = 256
"""The least number of windows for one dense product, for which reading the weights pays."""

SHORT_RUN: Final = 16
MANY_POSITIONS: Final = 4096
"""Windows of short runs, at so many positions, are gathered as columns: to copy a short run takes as long as a longer one."""


def _window(task: Task) -> int:
    return prod(task.weight.shape[:-2])


def _gather_cost(task: Task, c: Coefficients) -> float:
    window = _window(task)
    return 0.0 if window == 1 else task.positions * window * task.x[-1] * c.move


def _block_limit(length: int, itemsize: int) -> int:
    return max(BLOCK_BYTES, BLOCK_ROWS * length * itemsize)


def _blas_cost(task: Task, c: Coefficients) -> float:
    rows, length = task.weight.matrix_shape
    gathered = _window(task) * task.x[-1]
    calls = ceil(task.positions * gathered * 4 / _block_limit(gathered, 4))
    product = dense_product(rows, length, max(task.positions, 2), calls, task.dtype, task.threads, c)
    return product + _gather_cost(task, c)


def _bind_blas(task: Task, kernel: Array, epilogue: Epilogue) -> Run:
    geometry = Geometry.of(task)
    groups, length = geometry.groups, task.weight.matrix_shape[1]
    # [K, out] -> [groups, K, out / groups], a view
    matrices = kernel.reshape(length, groups, -1).swapaxes(0, 1)
    limit = _block_limit(geometry.taps * task.x[-1], kernel.itemsize)

    def multiply(windows: Array, part: Array) -> None:
        if groups == 1:
            np.matmul(windows, matrices[0], out=part)
            return
        split = windows.reshape(len(windows), geometry.taps, groups, -1).transpose(2, 0, 1, 3)
        products = np.matmul(split.reshape(groups, len(windows), length), matrices)
        part.reshape(len(windows), groups, -1)[...] = products.swapaxes(0, 1)

    def run(x: Array) -> Array:
        y = np.empty(task.y, x.dtype)
        for windows, part in windows_as_rows(geometry, x, y, limit):
            multiply(windows, part)
            epilogue(part)
        return y

    def run_short(x: Array) -> Array:
        y = np.empty(task.y, x.dtype)
        for windows, part in windows_as_columns(geometry, x, y, limit):
            np.matmul(windows[0].T, matrices[0], out=part)
            epilogue(part)
        return y

    short = geometry.window[-1] * task.x[-1] < SHORT_RUN and task.positions >= MANY_POSITIONS
    return run_short if short and geometry.taps > 1 and groups == 1 else run


def _csr_cost(task: Task, c: Coefficients) -> float:
    if _window(task) == 1:
        return rows_cost(task, c)
    calls = ceil(task.positions / panel_vectors(_window(task) * task.x[-1] + task.y[-1], np.dtype(task.dtype).itemsize))
    product = sparse_product(task.nonzeros, max(task.positions, 2), calls, task.dtype, c)
    return product + _gather_cost(task, c) + (prod(task.x) + prod(task.y)) * c.transpose


def _bind_csr(task: Task, parts: Parts, epilogue: Epilogue) -> Run:
    geometry = Geometry.of(task)
    filters, _ = parts[0].shape
    position_bytes = (geometry.taps * task.x[-1] + task.y[-1]) * np.dtype(task.dtype).itemsize
    limit = panel_vectors(position_bytes, 1) * position_bytes

    def run_pointwise(x: Array) -> Array:
        y = np.empty(task.y, x.dtype)
        multiply_rows(parts, positions_as_rows(geometry, x), y.reshape(-1, task.y[-1]), epilogue)
        return y

    def run(x: Array) -> Array:
        y = np.empty(task.y, x.dtype)
        for windows, part in windows_as_columns(geometry, x, y, limit):
            for group, matrix in enumerate(parts):
                part[:, group * filters : (group + 1) * filters] = (matrix @ windows[group]).T
            epilogue(part)
        return y

    return run_pointwise if geometry.taps == 1 else run


CONV_BLAS = Kernel("conv/blas", "conv", TENSOR, _blas_cost, _bind_blas)
CONV_CSR = Kernel("conv/csr", "conv", ROWS, _csr_cost, _bind_csr, refuse_for_scipy, ("scipy",))
