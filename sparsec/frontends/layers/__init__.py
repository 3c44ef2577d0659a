"""The functions that read Keras layers, one module a family; importing this package registers them all."""

from sparsec.frontends.layers import (
    activations,
    adaptive,
    arithmetic,
    convolutional,
    core,
    images,
    masks,
    merging,
    normalization,
    pooling,
    reshaping,
    sample_norms,
)

__all__ = [
    "activations",
    "adaptive",
    "arithmetic",
    "convolutional",
    "core",
    "images",
    "masks",
    "merging",
    "normalization",
    "pooling",
    "reshaping",
    "sample_norms",
]
