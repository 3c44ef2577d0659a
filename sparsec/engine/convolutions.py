"""The rules for what multiplies with weights: dense layers and convolutions over one, two or three axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sparsec.encodings.stored import normal_rows
from sparsec.engine.costs import is_too_large
from sparsec.engine.drafts import Draft
from sparsec.engine.phases import Axis, Phases
from sparsec.engine.rules import Found, Site, pair, rule, window_of
from sparsec.engine.steps import Planes, Product, Refusal, Step, Window, multiplying
from sparsec.engine.volumes import Depth, Layers, gather_depth
from sparsec.ir import ABSENT, Attrs
from sparsec.ops import get_op
from sparsec.ops.base import integer, ints

TOO_LARGE = Refusal("its window is too large")


def refuse_weights(site: Site, names: Sequence[str]) -> Refusal | None:
    """Why a node cannot multiply with its weights; ``None`` where it can.

    Args:
        site: the node.
        names: of its weights and of the constants that belong to them, which may be left out.
    """
    if any(name != ABSENT and not site.is_constant(name) for name in names):
        return Refusal("its weights are computed")
    for index, rows in get_op(site.node.op).matrix_rows.items():
        weight = site.store.weight(site.input(index))
        if weight.dtype != "float32":
            return Refusal(f"its weight is {weight.dtype}")
        if weight.rows != normal_rows(rows, len(weight.shape)):
            return Refusal(f"its weight is stored with rows {weight.rows}")
    return None


def _refuse_weight(site: Site) -> Refusal | None:
    return refuse_weights(site, site.node.inputs[1:])


@rule("dense")
def _dense(site: Site) -> Found:
    kernel = multiplying(site.planes(site.y))
    return _refuse_weight(site) or [site.step(kernel, product=Product(site.input(1)), bias=site.vector(2))]


@rule("conv")
def _conv(site: Site) -> Found:
    refusal = _refuse_weight(site)
    if refusal:
        return refusal
    size, groups, draft = site.store.weight(site.input(1)).shape[:-2], integer(site.attrs, "groups"), site.draft()
    depth, window = over(site.attrs, site.shape(site.x)[1:-1], size)
    if depth is None and groups == site.planes(site.x).channels > 1:
        return [_by_channel(site, window)]
    if is_too_large(window):
        return TOO_LARGE
    product = Product(site.input(1), groups)
    return draft.made(convolve(draft, site.x, site.shape(site.y), product, window, depth, bias=site.vector(2)))


def over(attrs: Attrs, sizes: Sequence[int], window: Sequence[int]) -> tuple[Depth | None, Window]:
    """How a window goes over the depth, where there is one, and how over a plane; arguments as in :func:`window_of`."""
    plane, first = window_of(attrs, sizes, window)
    if first is None:
        return None, plane
    return Depth(first.size[0], first.strides[0], first.dilations[0], first.pads[0]), plane


def convolve(
    draft: Draft, x: str, shape: Sequence[int], product: Product, window: Window, depth: Depth | None = None, **more: Any
) -> str:
    """Add a convolution; returns the name of its output, in which planes of a volume are samples.

    Args:
        draft: to which the steps are added.
        x: the input.
        shape: of the output.
        product: the weight.
        window: over the last two axes.
        depth: how it goes over the axis before these, where there is one.
        more: about the step.
    """
    if depth is None:
        kernel = multiplying(Planes.of_shape(shape)) if window.is_point else "windows"
        return draft.step(kernel, x, shape, product=product, window=window, **more)
    samples, planes, *plane = shape
    gathered = gather_depth(draft, x, depth, planes, product.groups)
    folded = replace(product, arrangement=Layers(depth.size))
    return convolve(draft, gathered, (samples * planes, *plane), folded, window, **more)


@rule("depthwise_conv")
def _depthwise(site: Site) -> Found:
    refusal = _refuse_weight(site)
    if refusal:
        return refusal
    depth, window = over(site.attrs, site.shape(site.x)[1:-1], site.store.weight(site.input(1)).shape[:-2])
    return Refusal("it goes over three axes") if depth else [_by_channel(site, window)]


def _by_channel(site: Site, window: Window) -> Step:
    """A convolution of each channel by itself; its kernel: ``[*window, 1, filters]`` or ``[*window, channels, multiplier]``."""
    channels, filters = site.planes(site.x).channels, site.planes(site.y).channels
    rows = np.ascontiguousarray(site.store.array(site.input(1)).reshape(-1, filters).T)
    return site.step("depthwise", weights=rows, bias=site.vector(2), window=window, options=(filters // channels,))


@rule("conv_transpose")
def _conv_transpose(site: Site) -> Found:
    refusal = _refuse_weight(site)
    if refusal:
        return refusal
    size, draft = site.store.weight(site.input(1)).shape[:-2], site.draft()
    strides, dilations, crops = ints(site.attrs, "strides"), ints(site.attrs, "dilations"), ints(site.attrs, "crops")[::2]
    x, shape = site.x, site.shape(site.y)
    if len(size) < 3:
        phases = _phases(draft.planes(x), Planes.of_shape(shape), size, strides, dilations, crops)
        product = Product(site.input(1), arrangement=phases)
    else:
        depth = Depth(size[0], strides[0], dilations[0], crops[0], transposed=True)
        x = gather_depth(draft, x, depth, shape[1], groups=1)
        shape = (shape[0] * shape[1], *shape[2:])
        phases = _phases(draft.planes(x), Planes.of_shape(shape), size[1:], strides[1:], dilations[1:], crops[1:])
        product = Product(site.input(1), arrangement=Layers(depth.size, phases))
    if is_too_large(phases.window):
        return TOO_LARGE
    return draft.made(_in_phases(draft, x, shape, product, phases, site))


def _phases(
    x: Planes, y: Planes, size: Sequence[int], strides: Sequence[int], dilations: Sequence[int], crops: Sequence[int]
) -> Phases:
    fields = (pair(size, 1), pair(strides, 1), pair(dilations, 1), pair(crops, 0))
    rows, columns = zip(*fields, strict=True)
    return Phases((Axis.of(*rows, x.height, y.height), Axis.of(*columns, x.width, y.width)))


def _in_phases(draft: Draft, x: str, shape: Sequence[int], product: Product, phases: Phases, site: Site) -> str:
    """A convolution that gives all phases of a transposed one, and then these as one; returns the name of the output."""
    bias, from_, spread = site.vector(2), draft.planes(x), phases.planes(Planes.of_shape(shape))
    # Crops may leave fewer positions than the input has, or append some.
    is_point = phases.window.is_point and (from_.height, from_.width) == (spread.height, spread.width)
    kernel = multiplying(spread) if is_point else "windows"
    if phases.count == 1:
        return draft.step(kernel, x, shape, product=product, bias=bias, window=phases.window)
    biases = None if bias is None else np.tile(bias, phases.count)
    sizes = (spread.samples, spread.height, spread.width, spread.channels)
    all_phases = draft.step(kernel, x, sizes, product=product, bias=biases, window=phases.window)
    return draft.step("interleave", all_phases, shape, window=Window(strides=phases.strides))
