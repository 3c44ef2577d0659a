"""Tensors in other shapes: reshaped, transposed, with more axes or fewer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sparsec.frontends.layer import Layer, Sizes, Value, reads_operation
from sparsec.frontends.layers.shapes import reshaped, transposed, with_axis
from sparsec.frontends.operations.operands import arguments
from sparsec.ir import Dim, format_shape, product
from sparsec.ir.dims import Expr


def without_axes(layer: Layer, x: Value, axes: Sequence[int]) -> Value:
    """``x`` without axes of size 1."""
    if any(x.shape[axis] != 1 for axis in axes):
        layer.refuse(f"removes axes {tuple(axes)} of {x.type}, whose sizes are not all known to be 1")
    kept = [axis for axis in range(x.rank) if axis not in axes]
    sizes = [x.shape[axis] for axis in kept]
    moved = [size for index, size in enumerate(sizes) if not isinstance(size, int) and size != x.shape[index]]
    if len(moved) > 1:
        # Open sizes are copied where they stand: what goes is brought to the end first.
        x = transposed(layer, x, [*kept, *sorted(axes)])
    return reshaped(layer, x, sizes)


def to_shape(layer: Layer, x: Value, target: Any) -> Value:
    """``x`` in a shape as Keras states it, the batch first; one size may be left to the rest."""
    entries = list(stated_sizes(target))
    if not all(isinstance(entry, int | Expr) for entry in entries) or entries.count(-1) > 1 or 0 in entries:
        layer.refuse(f"its target shape {target!r} is computed, or holds what is no size")
    sizes: list[Dim] = list(entries)
    if -1 in entries:
        # Sizes that are open are taken off both sides, what is left of the target divides.
        rest, known = list(x.shape), 1
        for size in sizes:
            if size in rest and not isinstance(size, int):
                rest.remove(size)
            elif isinstance(size, int):
                known *= abs(size)
            else:
                layer.refuse(f"its target shape holds the size {size}, which {x.type} has not")
        sizes[entries.index(-1)] = product(rest) // known
    if product(sizes) != product(x.shape):
        layer.refuse(
            f"reshapes {x.type} to {format_shape(sizes)}, which does not fit or fixes the size of the batch; leave that -1"
        )
    return reshaped(layer, x, sizes)


def stated_sizes(target: Any) -> Iterator[Any]:
    """The sizes of a target shape, each of which a file may state in its own way."""
    if isinstance(target, Sizes):
        yield from target.dims if isinstance(target.dims, tuple) else (target.dims,)
    elif isinstance(target, list | tuple):
        for entry in target:
            yield from stated_sizes(entry)
    else:
        yield -1 if target is None else None if isinstance(target, bool) else target


@reads_operation("Reshape", "reshape")
def reshape(layer: Layer) -> Value:
    """The same elements in another shape."""
    given = arguments(layer, "x|tensor", "newshape|shape")
    return to_shape(layer, given.tensor("x"), given.option("newshape", ()))


@reads_operation("keras.backend.batch_flatten")
def batch_flatten(layer: Layer) -> Value:
    """All axes but that of the batch as one."""
    x = arguments(layer, "x").tensor("x")
    return x if x.rank == 2 else layer.emit("reshape", x, shape=(0, -1))


@reads_operation("Transpose", "compat.v1.transpose")
def transpose(layer: Layer) -> Value:
    """The axes in another order, that of the batch first."""
    given = arguments(layer, "x|a", "axes|perm|pattern", "conjugate")
    x = given.tensor("x")
    order = given.axes("axes", x.rank) if given.option("axes") is not None else tuple(range(x.rank))[::-1]
    return _ordered(layer, x, order)


def _ordered(layer: Layer, x: Value, order: Sequence[int]) -> Value:
    if sorted(order) != list(range(x.rank)) or order[:1] != (0,):
        layer.refuse(f"orders the axes of {x.type} as {tuple(order)}, which moves the batch axis or leaves one out")
    return transposed(layer, x, order)


@reads_operation("Swapaxes")
def swapaxes(layer: Layer) -> Value:
    """Two axes exchanged."""
    given = arguments(layer, "x|a", "axis1", "axis2")
    x = given.tensor("x")
    a, b = given.axis("axis1", x.rank), given.axis("axis2", x.rank)
    order = list(range(x.rank))
    order[a], order[b] = b, a
    return _ordered(layer, x, tuple(order))


@reads_operation("Moveaxis")
def moveaxis(layer: Layer) -> Value:
    """Axes moved to other places, the others in their order."""
    given = arguments(layer, "x|a", "source", "destination")
    x = given.tensor("x")
    source, destination = given.inner_axes("source", x.rank), given.inner_axes("destination", x.rank)
    if len(source) != len(destination):
        layer.refuse(f"moves {len(source)} axes to {len(destination)} places")
    order = [axis for axis in range(x.rank) if axis not in source]
    for place, axis in sorted(zip(destination, source, strict=True)):
        order.insert(place, axis)
    return _ordered(layer, x, tuple(order))


@reads_operation("ExpandDims", "expand_dims")
def expand_dims(layer: Layer) -> Value:
    """New axes of size 1."""
    given = arguments(layer, "x|input", "axis|dim")
    x, value = given.tensor("x"), given.option("axis")
    count = len(value) if isinstance(value, list | tuple) else 1
    for axis in sorted(given.inner_axes("axis", x.rank + count)):
        x = with_axis(layer, x, axis)
    return x


@reads_operation("Squeeze", "compat.v1.squeeze")
def squeeze(layer: Layer) -> Value:
    """Axes of size 1 removed: those named, or all."""
    given = arguments(layer, "x|input", "axis|squeeze_dims")
    x = given.tensor("x")
    if given.option("axis") is None:
        return without_axes(layer, x, [axis for axis, size in enumerate(x.shape) if size == 1])
    return without_axes(layer, x, given.inner_axes("axis", x.rank))


@reads_operation("DepthToSpace", "nn.depth_to_space")
def depth_to_space(layer: Layer) -> Value:
    """Blocks of channels laid out as blocks of positions."""
    x, block = _blocks(layer)
    height, width = x.shape[1:3]
    channels = layer.channels(x)
    if channels % (block * block):
        layer.refuse(f"does not divide {channels} channels into blocks of {block * block}")
    depth = channels // (block * block)
    x = reshaped(layer, x, (x.shape[0], height, width, block, block, depth))
    x = transposed(layer, x, (0, 1, 3, 2, 4, 5))
    return reshaped(layer, x, (x.shape[0], height * block, width * block, depth))


@reads_operation("SpaceToDepth", "nn.space_to_depth")
def space_to_depth(layer: Layer) -> Value:
    """Blocks of positions laid out as blocks of channels."""
    x, block = _blocks(layer)
    height, width, channels = (layer.size(x, axis) for axis in (1, 2, 3))
    if height % block or width % block:
        layer.refuse(f"does not divide {height} x {width} positions into blocks of {block} x {block}")
    x = reshaped(layer, x, (x.shape[0], height // block, block, width // block, block, channels))
    x = transposed(layer, x, (0, 1, 3, 2, 4, 5))
    return reshaped(layer, x, (x.shape[0], height // block, width // block, block * block * channels))


def _blocks(layer: Layer) -> tuple[Value, int]:
    given = arguments(layer, "x|input", "block_size", "data_format")
    x = given.tensor("x")
    if x.rank != 4 or given.text("data_format", "NHWC") not in ("NHWC", "channels_last"):
        layer.refuse("takes images with their channels last alone")
    return x, given.integer("block_size", least=1)
