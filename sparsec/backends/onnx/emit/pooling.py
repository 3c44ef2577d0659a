"""Exporters of pools."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from sparsec.backends.onnx.emit.windows import can_pad_by_name, known_pads, ones, placed, steps
from sparsec.backends.onnx.registry import channels_first, exports
from sparsec.backends.onnx.site import Site
from sparsec.ir import Array
from sparsec.ops.base import ints
from sparsec.ops.windows import extent


@exports("max_pool", rule=channels_first)
def emit_max_pool(site: Site) -> None:
    """MaxPool."""
    window = ints(site.attrs, "window")
    x, padding = placed(site, site.read(), window, -np.inf, limit=window)
    site.finish("MaxPool", x, **steps(site, window), **padding)


@exports("avg_pool", rule=channels_first)
def emit_avg_pool(site: Site) -> None:
    """AveragePool that leaves padding out; what ONNX Runtime's cannot do is a convolution with ones, divided by the counts."""
    window = ints(site.attrs, "window")
    dilated = max(ints(site.attrs, "dilations")) > 1
    pads = known_pads(site, window)
    stated = can_pad_by_name(site, window) if pads is None else all(max(p) < k for p, k in zip(pads, window, strict=True))
    if not stated or (dilated and site.builder.opset < 19):
        _mean_by_convolution(site, window)
        return
    attributes = steps(site, window)
    if not dilated:
        del attributes["dilations"]
    x, padding = placed(site, site.read(), window, 0.0)
    site.finish("AveragePool", x, **attributes, **padding, count_include_pad=0)


def _mean_by_convolution(site: Site, window: Sequence[int]) -> None:
    channels = site.known(site.type(0).shape[-1])
    attributes = steps(site, window)
    x, padding = placed(site, site.read(), window, 0.0)
    sums = site.add("Conv", x, ones(site, (channels, 1, *window)), **attributes, **padding, group=channels)
    sizes, pads = site.type(0).shape[1:-1], known_pads(site, window)
    known = [size for size in sizes if isinstance(size, int)]
    if pads is not None and not any(map(any, pads)):
        counts = site.number(prod(window))
    elif pads is not None and len(known) == len(sizes):
        counts = site.array(_counts(site, known, window, pads), "counts")
    else:
        shape = site.builder.shape_vector(site.read(), [1, 1, *((2 + axis, 1) for axis in range(len(window)))], site.node.name)
        covered, padding = placed(site, site.add("Expand", site.number(1.0), shape), window, 0.0)
        counts = site.add("Conv", covered, ones(site, (1, 1, *window)), **attributes, **padding)
    site.finish("Div", sums, counts)


def _counts(site: Site, sizes: Sequence[int], window: Sequence[int], pads: Sequence[tuple[int, int]]) -> Array:
    """How many positions of each window are not padding, ``[1, 1, *positions]``."""
    result = np.ones((), site.type(0).dtype)
    strides, dilations = ints(site.attrs, "strides"), ints(site.attrs, "dilations")
    for size, kernel, (before, after), stride, dilation in zip(sizes, window, pads, strides, dilations, strict=True):
        starts = np.arange(0, before + size + after - extent(kernel, dilation) + 1, stride)
        taps = starts[:, None] + dilation * np.arange(kernel) - before
        inside = ((taps >= 0) & (taps < size)).sum(axis=1)
        result = result[..., None] * inside.astype(result.dtype)
    return result[None, None]
