"""Padding of sliding windows as ONNX states it, for convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparsec.backends.onnx.draft import AttributeValue
from sparsec.backends.onnx.site import Site
from sparsec.ir import Dim
from sparsec.ops.base import ints
from sparsec.ops.windows import extent, same_pads

Pads = list[tuple[int, int]]


def known_pads(site: Site, kernel: Sequence[int]) -> Pads | None:
    """The padding before and after each spatial axis; ``None`` where it depends on a size that is not known."""
    if site.attrs["padding"] == "explicit":
        pads = ints(site.attrs, "pads")
        return [(pads[2 * axis], pads[2 * axis + 1]) for axis in range(len(kernel))]
    result: Pads = []
    steps = zip(site.type(0).shape[1:-1], kernel, ints(site.attrs, "strides"), ints(site.attrs, "dilations"), strict=True)
    for size, width, stride, dilation in steps:
        pair = _same_pads(size, width, stride, dilation)
        if pair is None:
            return None
        result.append(pair)
    return result


def _same_pads(size: Dim, kernel: int, stride: int, dilation: int) -> tuple[int, int] | None:
    if isinstance(size, int):
        return same_pads(size, kernel, stride, dilation)
    if stride == 1 or kernel == 1:
        # The padding is one less than the extent at any size, or nothing.
        return same_pads(1, kernel, 1, dilation)
    return None


def can_pad_by_name(site: Site, kernel: Sequence[int]) -> bool:
    """Whether ``auto_pad`` says the same everywhere.

    ONNX Runtime refuses it with dilations, and in pools where the stride is larger than the kernel.
    """
    strides, dilations = ints(site.attrs, "strides"), ints(site.attrs, "dilations")
    return max(dilations) == 1 and all(k >= s for k, s in zip(kernel, strides, strict=True))


def steps(site: Site, kernel: Sequence[int]) -> dict[str, AttributeValue]:
    """The attributes of a window apart from its padding."""
    return {
        "kernel_shape": tuple(kernel),
        "strides": ints(site.attrs, "strides"),
        "dilations": ints(site.attrs, "dilations"),
    }


def pads_attribute(pads: Pads) -> tuple[int, ...]:
    """Padding in ONNX's sequence: before every axis, then after every axis."""
    return (*(before for before, _ in pads), *(after for _, after in pads))


def padded(site: Site, x: str, pads: Pads, fill: float) -> str:
    """The channels-first value ``x`` with ``fill`` around its spatial axes."""
    befores, afters = ([pair[side] for pair in pads] for side in (0, 1))
    return site.add("Pad", x, site.ints([0, 0, *befores, 0, 0, *afters]), site.number(fill))


def padded_same(site: Site, x: str, kernel: Sequence[int], fill: float) -> str:
    """The channels-first value ``x`` padded by TensorFlow's ``SAME`` rule, worked out when the model runs."""
    rank = len(kernel)
    strides, dilations = ints(site.attrs, "strides"), ints(site.attrs, "dilations")
    spans = [extent(k, d) for k, d in zip(kernel, dilations, strict=True)]
    sizes = site.add("Slice", site.add("Shape", x), site.ints([2]), site.ints([2 + rank]))
    rounding = site.ints([s - 1 for s in strides])
    steps = site.add("Sub", site.add("Div", site.add("Add", sizes, rounding), site.ints(strides)), site.ints([1]))
    covered = site.add("Add", site.add("Mul", steps, site.ints(strides)), site.ints(spans))
    total = site.add("Max", site.add("Sub", covered, sizes), site.ints([0]))
    before = site.add("Div", total, site.ints([2]))
    after = site.add("Sub", total, before)
    rest = site.ints([0, 0])
    return site.add("Pad", x, site.add("Concat", rest, before, rest, after, axis=0), site.number(fill))


def placed(
    site: Site, x: str, kernel: Sequence[int], fill: float, limit: Sequence[int] | None = None
) -> tuple[str, dict[str, AttributeValue]]:
    """A window over the channels-first value ``x``: what it slides over, and the attributes of its padding.

    Args:
        site: the node.
        x: the value.
        kernel: the window's sizes.
        fill: the value of the padding.
        limit: for each axis, padding from which on ONNX Runtime refuses it as an attribute.
    """
    pads = known_pads(site, kernel)
    if pads is None:
        if can_pad_by_name(site, kernel):
            return x, {"auto_pad": "SAME_UPPER"}
        return padded_same(site, x, kernel, fill), {"pads": (0,) * 2 * len(kernel)}
    if limit is not None and any(max(pair) >= most for pair, most in zip(pads, limit, strict=True)):
        return padded(site, x, pads, fill), {"pads": (0,) * 2 * len(kernel)}
    return x, {"pads": pads_attribute(pads)}


def ones(site: Site, shape: Sequence[int]) -> str:
    """A constant of ones in the dtype of the first input."""
    return site.array(np.ones(tuple(shape), site.type(0).dtype), "ones")
