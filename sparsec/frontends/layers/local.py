"""Locally connected layers of Keras 2: convolutions whose kernel is another one at every position."""

from __future__ import annotations

from math import prod

import numpy as np

from sparsec.frontends.layer import Layer, Value, reads
from sparsec.frontends.layers.convolutional import Window, spatial_rank
from sparsec.frontends.layers.formats import is_channels_first


@reads("LocallyConnected1D", "LocallyConnected2D")
def locally_connected(layer: Layer) -> Value:
    """LocallyConnected1D and 2D: a convolution gathers the windows, and each of them meets the matrix of its position."""
    rank = spatial_rank(layer)
    if layer.integer("implementation", 1) != 1 or is_channels_first(layer) or layer.text("padding", "valid") != "valid":
        layer.refuse("only implementation = 1 with channels last and valid padding is read")
    x, filters = layer.float_input, layer.integer("filters", least=1)
    window = Window(layer.integers("kernel_size", rank), layer.integers("strides", rank, 1), (1,) * rank)
    channels = layer.channels(x)
    elements = prod(window.size) * channels
    # A filter for each element of the window, which is 1 there.
    each = layer.constant("window", np.eye(elements).reshape(*window.size, channels, elements), x.type.dtype)
    windows = layer.emit("conv", x, each, **window.attributes(("explicit", (0,) * (2 * rank))))
    sizes = tuple(layer.size(windows, axis) for axis in range(1, rank + 1))
    kernel = layer.weight("kernel", (prod(sizes), elements, filters))
    rows = layer.emit("reshape", windows, shape=(0, prod(sizes), 1, elements))
    y = layer.emit("reshape", layer.emit("matmul", rows, kernel), shape=(0, *sizes, filters))
    if layer.flag("use_bias", True):
        y = layer.emit("add", y, layer.weight("bias", (*sizes, filters)))
    return layer.activation(y)
