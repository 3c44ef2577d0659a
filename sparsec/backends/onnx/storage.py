"""Whether a weight is stored dense or as a sparse initialiser.

ONNX's sparse initialisers hold the nonzero values and, in the form used here, one int64 index each into the flattened tensor.
ONNX Runtime makes them dense when it loads the file, so they save bytes in the file and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.backends.onnx.draft import Constant, Draft
from sparsec.errors import InputError

CHOICES = ("auto", "dense", "sparse")
INDEX_BYTES = 8
SPARSE_OVERHEAD = 32
"""Bytes that a sparse initialiser needs beside its values and indices, over a dense one."""


@dataclass(frozen=True)
class SparseWeight:
    """A weight that is stored as a sparse initialiser.

    Attributes:
        name: the initialiser's name.
        shape: its shape in the file.
        nonzeros: how many values are stored.
        nbytes: bytes of values and indices.
        dense_nbytes: bytes of the elements, were it stored dense.
    """

    name: str
    shape: tuple[int, ...]
    nonzeros: int
    nbytes: int
    dense_nbytes: int


def choose_sparse(draft: Draft, weights: str) -> dict[str, SparseWeight]:
    """The initialisers that are stored sparse, by name.

    Args:
        draft: the model; only weights of Conv, Gemm and MatMul are considered.
        weights: ``auto`` stores a weight in whichever form is smaller, ``dense`` none sparse, ``sparse`` all.

    Raises:
        InputError: ``weights`` is none of these.
    """
    if weights not in CHOICES:
        raise InputError(f"ONNX weights {weights!r} are none of {', '.join(CHOICES)}")
    if weights == "dense":
        return {}
    matrices = draft.matrices()
    candidates = (_as_sparse(constant) for constant in draft.constants if constant.name in matrices)
    return {
        sparse.name: sparse
        for sparse in candidates
        if weights == "sparse" or sparse.nbytes + SPARSE_OVERHEAD < sparse.dense_nbytes
    }


def _as_sparse(constant: Constant) -> SparseWeight:
    nonzeros = int(np.count_nonzero(constant.array))
    nbytes = nonzeros * (constant.array.dtype.itemsize + INDEX_BYTES)
    return SparseWeight(constant.name, constant.shape, nonzeros, nbytes, constant.nbytes)
