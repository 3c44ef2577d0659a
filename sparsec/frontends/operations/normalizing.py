"""Normalisation by what a tensor itself holds, or by statistics that are numbers."""

from __future__ import annotations

from sparsec.frontends.layer import Layer, Value, reads_operation
from sparsec.frontends.operations.functions import magnitude, square
from sparsec.frontends.operations.operands import Arguments, arguments, as_value
from sparsec.frontends.operations.reductions import length, mean, total, variance

NORM_EPSILON = 1e-7
"""What ``keras.ops.normalize`` divides by at least."""

TENSORFLOW_EPSILON = 1e-12
"""What ``tf.math.l2_normalize`` takes for the least sum of squares."""

EPSILON = 1e-7
"""What ``keras.ops.layer_normalization`` and ``rms_normalization`` add to the variance."""


@reads_operation("Normalize")
def normalize(layer: Layer) -> Value:
    """A value divided by its norm along axes, or by a least number."""
    given = arguments(layer, "x", "axis", "order", "epsilon")
    x, order = given.float_tensor("x"), given.option("order", 2)
    axes, epsilon = given.inner_axes("axis", x.rank), given.number("epsilon", NORM_EPSILON)
    if order not in (1, 2) or len(axes) > 1:
        layer.refuse(f"order = {order!r} over {len(axes)} axes is not read")
    sizes = magnitude(layer, x) if order == 1 else square(layer, x)
    norm = total(layer, sizes, axes, True)
    norm = layer.emit("sqrt", norm) if order == 2 else norm
    return layer.emit("div", x, layer.emit("maximum", norm, layer.like(x, epsilon)))


@reads_operation("math.l2_normalize")
def l2_normalize(layer: Layer) -> Value:
    """A value divided by its Euclidean norm along axes."""
    given = arguments(layer, "x", "axis|dim", "epsilon")
    x = given.float_tensor("x")
    axes, epsilon = given.inner_axes("axis", x.rank), given.number("epsilon", TENSORFLOW_EPSILON)
    squares = layer.emit("maximum", total(layer, square(layer, x), axes, True), layer.like(x, epsilon))
    return layer.emit("div", x, layer.emit("sqrt", squares))


@reads_operation("linalg.normalize")
def divided_by_norm(layer: Layer) -> tuple[Value, ...]:
    """A value divided by its Euclidean norm along axes, and that norm."""
    given = arguments(layer, "x|tensor", "ord", "axis")
    if given.option("ord", "euclidean") not in ("euclidean", 2):
        layer.refuse(f"ord = {given.option('ord')!r} is not read")
    x = given.float_tensor("x")
    norm = length(layer, x, given.inner_axes("axis", x.rank), True)
    return layer.emit("div", x, norm), norm


@reads_operation("BatchNorm")
def batch_norm(layer: Layer) -> Value:
    """``(x - mean) / sqrt(variance + epsilon) * scale + offset`` with what is given, tensors or numbers."""
    given = arguments(layer, "x", "mean", "variance", "offset", "scale", "epsilon|variance_epsilon")
    x = given.float_tensor("x")
    axis = layer.integer("axis", -1) if layer.saved_by.generation == 3 else -1
    if axis not in (-1, x.rank - 1):
        layer.refuse(f"normalises along axis {axis}, which is not read; use the last one")
    centre, spread = (as_value(layer, given.option(name), x) for name in ("mean", "variance"))
    deviation = layer.emit("sqrt", layer.emit("add", spread, layer.like(x, given.number("epsilon", 1e-3))))
    return _affine(layer, given, layer.emit("div", layer.emit("sub", x, centre), deviation), "scale", "offset")


def _affine(layer: Layer, given: Arguments, x: Value, scale: str, shift: str) -> Value:
    for name, op in ((scale, "mul"), (shift, "add")):
        if given.option(name) is not None:
            x = layer.emit(op, x, as_value(layer, given.option(name), x))
    return x


@reads_operation("LayerNorm")
def layer_norm(layer: Layer) -> Value:
    """A value without its mean over axes, divided by its deviation; scaled and shifted where that is given."""
    given = arguments(layer, "x", "gamma", "beta", "axis", "epsilon")
    if layer.flag("rms_scaling", False):
        layer.refuse("rms_scaling is not read")
    x, epsilon = given.float_tensor("x"), given.number("epsilon", EPSILON)
    axes = given.inner_axes("axis", x.rank) if given.option("axis") is not None else (x.rank - 1,)
    centred = layer.emit("sub", x, mean(layer, x, axes, True))
    spread = layer.emit("add", variance(layer, x, axes, True), layer.like(x, epsilon))
    return _affine(layer, given, layer.emit("div", centred, layer.emit("sqrt", spread)), "gamma", "beta")


@reads_operation("RMSNorm")
def rms_norm(layer: Layer) -> Value:
    """A value divided by the root of its mean square over axes; scaled where that is given."""
    given = arguments(layer, "x", "scale", "axis", "epsilon")
    x, epsilon = given.float_tensor("x"), given.number("epsilon", EPSILON)
    axes = given.inner_axes("axis", x.rank) if given.option("axis") is not None else (x.rank - 1,)
    spread = layer.emit("add", mean(layer, square(layer, x), axes, True), layer.like(x, epsilon))
    return _affine(layer, given, layer.emit("div", x, layer.emit("sqrt", spread)), "scale", "offset")
