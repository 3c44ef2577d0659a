"""Kernels of ``conv_transpose``: one product for every element of the window, added up where they land."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import numpy as np

from sparsec.ir import Array
from sparsec.kernels.base import Epilogue, Kernel, Run, Task
from sparsec.kernels.costs import Coefficients, dense_product, sparse_product
from sparsec.kernels.sparse import TAPS, Parts, refuse_for_scipy
from sparsec.kernels.weights import TENSOR
from sparsec.ops.base import ints
from sparsec.ops.windows import scatter


def _shared_cost(task: Task, c: Coefficients) -> float:
    """The calls for each element of the window, and adding up what they give."""
    taps = prod(task.weight.shape[:-2])
    return taps * (c.call + prod(task.x[:-1]) * task.y[-1] * c.move)


def _blas_cost(task: Task, c: Coefficients) -> float:
    positions = max(prod(task.x[:-1]), 2)
    product = dense_product(*task.weight.matrix_shape, positions, 1, task.dtype, task.threads, c)
    return product + _shared_cost(task, c)


def _csr_cost(task: Task, c: Coefficients) -> float:
    product = sparse_product(task.nonzeros, max(prod(task.x[:-1]), 2), 1, task.dtype, c)
    return product + _shared_cost(task, c) + prod(task.x) * c.transpose


def _finish(task: Task, window: tuple[int, ...], products: Iterable[Array], epilogue: Epilogue) -> Array:
    attrs = task.attrs
    y = scatter(products, window, ints(attrs, "strides"), ints(attrs, "dilations"), ints(attrs, "crops"))
    epilogue(y)
    return y


def _bind_blas(task: Task, kernel: Array, epilogue: Epilogue) -> Run:
    window, (filters, channels) = kernel.shape[:-2], kernel.shape[-2:]
    matrices = [kernel[tap].T for tap in np.ndindex(*window)]

    def run(x: Array) -> Array:
        flat = x.reshape(-1, channels)
        products = ((flat @ matrix).reshape(*x.shape[:-1], filters) for matrix in matrices)
        return _finish(task, window, products, epilogue)

    return run


def _bind_csr(task: Task, parts: Parts, epilogue: Epilogue) -> Run:
    window, (filters, channels) = task.weight.shape[:-2], task.weight.shape[-2:]

    def run(x: Array) -> Array:
        vectors = np.ascontiguousarray(x.reshape(-1, channels).T)
        products = ((part @ vectors).T.reshape(*x.shape[:-1], filters) for part in parts)
        return _finish(task, window, products, epilogue)

    return run


CONV_TRANSPOSE_BLAS = Kernel("conv_transpose/blas", "conv_transpose", TENSOR, _blas_cost, _bind_blas)
CONV_TRANSPOSE_CSR = Kernel("conv_transpose/csr", "conv_transpose", TAPS, _csr_cost, _bind_csr, refuse_for_scipy, ("scipy",))
