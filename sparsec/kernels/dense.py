"""Kernels of ``dense``: ``x @ kernel + bias`` over the last axis."""

from __future__ import annotations

from math import prod

import numpy as np

from sparsec.ir import Array
from sparsec.kernels.base import Epilogue, Kernel, Run, Task
from sparsec.kernels.costs import Coefficients, dense_product
from sparsec.kernels.sparse import ROWS, Parts, multiply_rows, refuse_for_scipy, rows_cost
from sparsec.kernels.weights import TENSOR


def _blas_cost(task: Task, c: Coefficients) -> float:
    return dense_product(*task.weight.matrix_shape, task.positions, 1, task.dtype, task.threads, c)


def _bind_blas(task: Task, kernel: Array, epilogue: Epilogue) -> Run:
    def run(x: Array) -> Array:
        y: Array = x.reshape(-1, kernel.shape[0]) @ kernel
        epilogue(y)
        return y.reshape(task.y)

    return run


def _bind_csr(task: Task, parts: Parts, epilogue: Epilogue) -> Run:
    rows, columns = task.weight.matrix_shape
    vectors = prod(task.x[:-1])

    def run_one(x: Array) -> Array:
        y: Array = parts[0] @ x.reshape(columns)
        epilogue(y)
        return y.reshape(task.y)

    def run_many(x: Array) -> Array:
        y = np.empty((vectors, rows), x.dtype)
        multiply_rows(parts, x.reshape(vectors, columns), y, epilogue)
        return y.reshape(task.y)

    return run_one if vectors == 1 else run_many


DENSE_BLAS = Kernel("dense/blas", "dense", TENSOR, _blas_cost, _bind_blas)
DENSE_CSR = Kernel("dense/csr", "dense", ROWS, rows_cost, _bind_csr, refuse_for_scipy, ("scipy",))
