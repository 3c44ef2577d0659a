"""The exporter of resampling."""

from __future__ import annotations

import numpy as np

from sparsec.backends.onnx.builder import ScaledAxis
from sparsec.backends.onnx.draft import ONNX_TYPES
from sparsec.backends.onnx.registry import channels_first, exports
from sparsec.backends.onnx.site import Site
from sparsec.ir import Dim
from sparsec.ops.base import ints

EDGE_DISTANCE = 1e-3
"""A source coordinate at least this far from the border of two elements survives the rounding of float32."""


@exports("resize", rule=channels_first)
def emit_resize(site: Site) -> None:
    """Resize with half-pixel centres.

    Runtimes compute the source coordinates in float32 or with a rounded scale. Where ``nearest`` could then take the
    neighbour of the element that the operator defines, elements are gathered by their indices instead, axis by axis.
    """
    entries = ints(site.attrs, "sizes")
    sizes = site.type(0).shape[1:-1]
    changed = [axis for axis, (size, entry) in enumerate(zip(sizes, entries, strict=True)) if entry not in (-1, size)]
    nearest = site.attrs["method"] == "nearest"
    if not changed:
        site.finish("Identity", site.read())
    elif nearest and not all(_is_safe(sizes[axis], entries[axis]) for axis in changed):
        _gather(site, changed)
    elif nearest:
        # floor(s) is s - 0.5 rounded to the nearest integer, upwards from the middle.
        _resize(site, mode="nearest", nearest_mode="round_prefer_ceil")
    else:
        _resize(site, mode="linear")


def _is_safe(size: Dim, entry: int) -> bool:
    """Whether no source coordinate lies near the border between two elements."""
    if entry < 0:
        # (i + 0.5) / factor keeps half a step of 1 / factor from every integer.
        return 0.5 / -entry > EDGE_DISTANCE
    if not isinstance(size, int):
        return False
    centres = (np.arange(entry) + 0.5) * (size / entry)
    return bool(np.abs(centres - np.rint(centres)).min() > EDGE_DISTANCE)


def _resize(site: Site, **attributes: str) -> None:
    entries, shape = ints(site.attrs, "sizes"), site.type(0).shape
    factors = [
        -entry if entry < 0 else entry // size if isinstance(size, int) and entry % size == 0 else 0
        for size, entry in zip(shape[1:-1], entries, strict=True)
    ]
    inputs = [site.read(), ""]
    if all(factors):
        inputs.append(site.array(np.array([1, 1, *factors], np.float32)))
    else:
        targets: list[int | ScaledAxis] = []
        for axis, size in enumerate(site.sizes()):
            entry = -1 if axis < 2 else entries[axis - 2]
            if entry > 0:
                targets.append(entry)
            else:
                targets.append(size * -entry if isinstance(size, int) else (axis, -entry))
        inputs += ["", site.builder.shape_vector(inputs[0], targets, site.node.name)]
    site.finish("Resize", *inputs, coordinate_transformation_mode="half_pixel", **attributes)


def _gather(site: Site, axes: list[int]) -> None:
    x = site.read()
    for axis in axes:
        inputs = x, _indices(site, axis)
        if axis == axes[-1]:
            site.finish("Gather", *inputs, axis=axis + 2)
        else:
            x = site.add("Gather", *inputs, axis=axis + 2)


def _indices(site: Site, axis: int) -> str:
    """The source index of every target position: ``floor((i + 0.5) * source / target)``."""
    size, entry = site.type(0).shape[1 + axis], ints(site.attrs, "sizes")[axis]
    if isinstance(size, int):
        count = entry if entry > 0 else size * -entry
        centres = np.floor((np.arange(count) + 0.5) * (size / count))
        return site.array(np.minimum(centres, size - 1).astype(np.int64), f"indices_{axis}")
    if entry < 0:
        # floor((i + 0.5) / factor) is i // factor.
        target = site.add("Squeeze", site.builder.shape_vector(site.read(), [(axis + 2, -entry)], site.node.name))
        zero, one, factor = (site.array(np.array(value, np.int64)) for value in (0, 1, -entry))
        return site.add("Div", site.add("Range", zero, target, one), factor)
    length = site.builder.shape_vector(site.read(), [(axis + 2, 1)], site.node.name)
    source = site.add("Cast", length, to=ONNX_TYPES["float64"])
    scale = site.add("Div", source, site.array(np.array([entry], np.float64)))
    coordinates = site.add("Mul", site.array(np.arange(entry) + 0.5, f"centres_{axis}"), scale)
    last = site.add("Sub", source, site.array(np.ones(1)))
    return site.add("Cast", site.add("Min", site.add("Floor", coordinates), last), to=ONNX_TYPES["int64"])
