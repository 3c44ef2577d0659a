"""ContrastLimitedAdaptiveHistogramEqualization: every tile of an image has a table of levels of its own.

The levels of a pixel are compared with all 256: that is much memory, and no more than standard operators.
"""

from __future__ import annotations

import numpy as np

from sparsec.frontends.layer import Layer, Value, reads
from sparsec.frontends.layers.formats import in_channels_last
from sparsec.frontends.layers.images import LEVELS, moved, value_range
from sparsec.ir import Array

COUNT = 256
"""The number of levels."""


@reads("ContrastLimitedAdaptiveHistogramEqualization")
def clahe(layer: Layer) -> Value:
    """Equalisation by tables that are interpolated between the centres of tiles."""
    bounds, grid = value_range(layer), layer.integers("tile_grid_size", 2, 8)
    image = layer.float_input

    def body(x: Value) -> Value:
        sizes = layer.size(x, 1), layer.size(x, 2)
        tiles = tuple(-(-size // count) for size, count in zip(sizes, grid, strict=True))
        # Keras computes in single precision whatever the policy.
        x = moved(layer, layer.cast(x, "float32"), bounds, (0.0, LEVELS))
        for axis, (size, count, tile) in enumerate(zip(sizes, grid, tiles, strict=True), start=1):
            x = _mirrored(layer, x, axis, count * tile - size)
        hot = _levels(layer, x)
        tables = _tables(layer, hot, (grid[0], grid[1]), (tiles[0], tiles[1]))
        y = layer.emit("reduce_sum", layer.emit("mul", hot, tables), axes=(-1,))
        for axis, size in enumerate(sizes, start=1):
            if y.shape[axis] != size:
                y = layer.emit("slice", y, axis=axis, start=0, stop=size)
        return layer.cast(moved(layer, y, (0.0, LEVELS), bounds), image.type.dtype)

    return in_channels_last(layer, image, 2, body)


def _mirrored(layer: Layer, x: Value, axis: int, count: int) -> Value:
    """The image with ``count`` positions more after an axis, in which it is mirrored at its edge."""
    if not count:
        return x
    if count > layer.size(x, axis):
        layer.refuse(f"has tiles that lie outside of images of {x.shape[axis]} positions; use fewer tiles")
    return layer.emit("concat", x, layer.emit("slice", x, axis=axis, start=-1, stop=-1 - count, step=-1), axis=axis)


def _levels(layer: Layer, x: Value) -> Value:
    """``[N, H, W, C, 256]``: 1 at the level of each pixel, else 0."""
    whole = layer.cast(layer.emit("clip", x, minimum=0.0, maximum=LEVELS), "int32")
    column = layer.emit("reshape", whole, shape=(0, 0, 0, 0, 1))
    return layer.cast(layer.emit("equal", column, layer.constant("levels", np.arange(COUNT), "int32")), "float32")


def _tables(layer: Layer, hot: Value, grid: tuple[int, int], tiles: tuple[int, int]) -> Value:
    """The table of every pixel, ``[N, H, W, C, 256]``: those of the tiles around it, by its distance from their centres."""
    area, channels = tiles[0] * tiles[1], layer.size(hot, 3)
    parts = layer.emit("reshape", hot, shape=(0, grid[0], tiles[0], grid[1], tiles[1] * channels * COUNT))
    rows = layer.emit("reduce_sum", parts, axes=(2,))
    parts = layer.emit("reshape", rows, shape=(0, *grid, tiles[1], channels, COUNT))
    counts = layer.emit("reduce_sum", parts, axes=(3,))
    limit = layer.number("clip_limit", 4.0)
    if limit > 0:
        kept = layer.emit("minimum", counts, layer.like(counts, limit * area / COUNT))
        excess = layer.emit("reduce_sum", layer.emit("sub", counts, kept), axes=(-1,), keepdims=True)
        counts = layer.emit("add", kept, layer.emit("div", excess, layer.like(counts, COUNT)))
    total = layer.emit("cumsum", counts, axis=-1)
    least = layer.emit("slice", total, axis=-1, start=0, stop=1)
    above = layer.emit("sub", layer.like(counts, area), least)
    one = layer.like(counts, 1.0)
    above = layer.emit("where", layer.emit("equal", above, layer.like(counts, 0.0)), one, above)
    scaled = layer.emit("mul", layer.emit("sub", total, least), layer.like(counts, LEVELS))
    tables = layer.emit("clip", layer.emit("div", scaled, above), minimum=0.0, maximum=LEVELS)
    # Each axis of tiles by turns last: [N, y, x, C, 256], [N, x, C, 256, Y], [N, C, 256, Y, X], [N, Y, X, C, 256].
    for axis, (count, tile) in enumerate(zip(grid, tiles, strict=True)):
        tables = layer.emit("transpose", tables, permutation=(0, 2, 3, 4, 1))
        tables = layer.emit("dense", tables, layer.constant(f"tiles_{axis}", _between(count, tile), "float32"))
    return layer.emit("transpose", tables, permutation=(0, 3, 4, 1, 2))


def _between(count: int, tile: int) -> Array:
    """The weights ``[tiles, positions]`` of the tiles around a position: one before the first and after the last centre."""
    place = (np.arange(count * tile) - tile / 2.0) / tile
    before = np.floor(place).astype(int)
    weights = np.zeros((count, count * tile))
    for offset, share in ((0, 1.0 - (place - before)), (1, place - before)):
        np.add.at(weights, (np.clip(before + offset, 0, count - 1), np.arange(count * tile)), share)
    return weights
