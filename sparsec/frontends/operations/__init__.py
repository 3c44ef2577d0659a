"""The functions that read operations on tensors, one module a family; importing this package registers them all."""

from sparsec.frontends.operations import (
    arithmetic,
    combining,
    comparison,
    functions,
    images,
    indexing,
    normalizing,
    products,
    reductions,
    shaping,
    sizes,
    windows,
)

__all__ = [
    "arithmetic",
    "combining",
    "comparison",
    "functions",
    "images",
    "indexing",
    "normalizing",
    "products",
    "reductions",
    "shaping",
    "sizes",
    "windows",
]
