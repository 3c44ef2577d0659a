"""The functions that read Keras layers, one module a family; importing this package registers them all."""

from sparsec.frontends.layers import (
    activations,
    arithmetic,
    convolutional,
    core,
    masks,
    merging,
    normalization,
    pooling,
    reshaping,
)

__all__ = [
    "activations",
    "arithmetic",
    "convolutional",
    "core",
    "masks",
    "merging",
    "normalization",
    "pooling",
    "reshaping",
]
