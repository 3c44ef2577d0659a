"""Resampling of images as TensorFlow, and so Keras, does it: an operator where there is one, else a matrix along each axis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsec.frontends.layer import Layer, Value
from sparsec.ir import Array

PLAIN_METHODS = {"nearest": "nearest", "bilinear": "linear"}
"""The interpolations that the operator ``resize`` has."""

CUBIC_STEPS = 1024
"""Between two positions TensorFlow takes the weights of its cubic from a table of so many steps."""

LEAST_WEIGHT = 1000 * float(np.finfo(np.float32).tiny)
"""Weights whose sum is less are not scaled to the sum 1."""


def _triangle(x: Array) -> Array:
    return np.maximum(1.0 - x, 0.0)


def _keys(x: Array) -> Array:
    """The cubic of Keys 1981 with the parameter -1/2."""
    near, far = (1.5 * x - 2.5) * x * x + 1.0, ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _lanczos(radius: int) -> Callable[[Array], Array]:
    return lambda x: np.where(x <= radius, np.sinc(x) * np.sinc(x / radius), 0.0)


_KERNELS: dict[str, tuple[float, Callable[[Array], Array]]] = {
    "bilinear": (1.0, _triangle),
    "bicubic": (2.0, _keys),
    "lanczos3": (3.0, _lanczos(3)),
    "lanczos5": (5.0, _lanczos(5)),
}
"""Radius and function of the distance, by interpolation."""

RESAMPLERS = (*_KERNELS, "area")
"""The interpolations for which there is a matrix."""


def resampled(layer: Layer, x: Value, size: tuple[int, int], interpolation: str, antialias: bool = False) -> Value:
    """Channels-last images in another size."""
    if interpolation in PLAIN_METHODS and (not antialias or interpolation == "nearest"):
        return _resized(layer, x, size, PLAIN_METHODS[interpolation])
    if interpolation not in RESAMPLERS:
        layer.refuse(
            f"interpolation = {interpolation!r} is not read; sparsec reads {', '.join({**PLAIN_METHODS, **_KERNELS})}, area"
        )
    sources = layer.size(x, 1), layer.size(x, 2)
    if sources == size:
        return x
    # Each axis by turns last, times a matrix: [N, H, W, C], [N, W, C, H], [N, C, h, W], [N, h, w, C].
    for axis, (source, target) in enumerate(zip(sources, size, strict=True)):
        matrix = resampling_matrix(interpolation, source, target, antialias)
        x = layer.emit("transpose", x, permutation=(0, 2, 3, 1))
        x = layer.emit("dense", x, layer.constant(f"{interpolation}_{axis}", matrix, x.type.dtype))
    return layer.emit("transpose", x, permutation=(0, 2, 3, 1))


def _resized(layer: Layer, x: Value, size: tuple[int, int], method: str) -> Value:
    for axis, target in enumerate(size, start=1):
        if method == "nearest" and not _nearest_is_exact(layer.size(x, axis), target):
            layer.refuse(
                f"nearest resampling of {x.shape[axis]} positions to {target} depends on rounding; use bilinear or other sizes"
            )
    return layer.emit("resize", x, sizes=size, method=method)


def _nearest_is_exact(source: int, target: int) -> bool:
    """Whether single precision, in which Keras computes positions, finds the neighbours that exact arithmetic finds."""
    scale = np.float32(source) / np.float32(target)
    single = np.floor((np.arange(target, dtype=np.float32) + np.float32(0.5)) * scale).astype(np.int64)
    exact = (2 * np.arange(target, dtype=np.int64) + 1) * source // (2 * target)
    return bool(np.array_equal(np.minimum(single, source - 1), exact))


def resampling_matrix(interpolation: str, source: int, target: int, antialias: bool) -> Array:
    """The matrix ``[source, target]`` that takes positions along an axis to the resampled ones.

    Args:
        interpolation: one of :data:`RESAMPLERS`.
        source: the size of the axis.
        target: the size that it gets.
        antialias: whether the kernel is widened where the axis shrinks; ``area`` does not ask.
    """
    if interpolation == "area":
        return _area(source, target)
    radius, kernel = _KERNELS[interpolation]
    centres = (np.arange(target) + 0.5) * (source / target)
    if interpolation == "bicubic" and not antialias:
        # The position between two elements is rounded to a step of the table.
        whole = np.floor(centres - 0.5)
        centres = whole + 0.5 + np.rint((centres - 0.5 - whole) * CUBIC_STEPS) / CUBIC_STEPS
    width = max(source / target, 1.0) if antialias else 1.0
    distances = np.arange(source)[:, None] + 0.5 - centres
    inside = np.abs(distances) <= radius * width
    weights = np.where(inside, kernel(np.abs(distances) / width), 0.0)
    sums = weights.sum(axis=0)
    return np.asarray(weights / np.where(np.abs(sums) >= LEAST_WEIGHT, sums, 1.0))


def _area(source: int, target: int) -> Array:
    """Means over the parts of the axis that the new positions cover, elements weighted by how far they are covered."""
    edges = np.arange(target + 1) * (source / target)
    positions = np.arange(source)[:, None]
    covered = np.minimum(positions + 1, edges[1:]) - np.maximum(positions, edges[:-1])
    return np.asarray(np.maximum(covered, 0.0) * (target / source))
