"""The functions that read Keras layers, one module a family; importing this package registers them all."""

from sparsec.frontends.layers import (
    activations,
    adaptive,
    arithmetic,
    categories,
    convolutional,
    core,
    images,
    masks,
    merging,
    normalization,
    pooling,
    reshaping,
    sample_norms,
    spectrograms,
    wrapping,
)

__all__ = [
    "activations",
    "adaptive",
    "arithmetic",
    "categories",
    "convolutional",
    "core",
    "images",
    "masks",
    "merging",
    "normalization",
    "pooling",
    "reshaping",
    "sample_norms",
    "spectrograms",
    "wrapping",
]
