"""Reductions of axes other than that of the batch, and sums along one."""

from __future__ import annotations

from collections.abc import Callable

from sparsec.frontends.layer import Layer, Value, reads_operation
from sparsec.frontends.operations.comparison import negation
from sparsec.frontends.operations.functions import cast_as_asked, magnitude, scaled, square
from sparsec.frontends.operations.indexing import flipped
from sparsec.frontends.operations.operands import Arguments, arguments

Axes = tuple[int, ...]
Reduction = Callable[[Layer, Value, Axes, bool], Value]

SIGNATURE = ("x|input_tensor|input", "axis|axes", "keepdims|keep_dims")


def _plain(op: str) -> Reduction:
    return lambda layer, x, axes, keepdims: layer.emit(op, x, axes=axes, keepdims=keepdims)


total, mean, largest = _plain("reduce_sum"), _plain("reduce_mean"), _plain("reduce_max")


def smallest(layer: Layer, x: Value, axes: Axes, keepdims: bool) -> Value:
    """The minimum, of numbers."""
    return scaled(layer, largest(layer, scaled(layer, x, -1), axes, keepdims), -1)


def variance(layer: Layer, x: Value, axes: Axes, keepdims: bool) -> Value:
    """The mean of the squared differences from the mean."""
    centred = layer.emit("sub", x, mean(layer, x, axes, True))
    return mean(layer, square(layer, centred), axes, keepdims)


def _deviation(layer: Layer, x: Value, axes: Axes, keepdims: bool) -> Value:
    return layer.emit("sqrt", variance(layer, x, axes, keepdims))


def _logsumexp(layer: Layer, x: Value, axes: Axes, keepdims: bool) -> Value:
    shifted = layer.emit("exp", layer.emit("sub", x, largest(layer, x, axes, True)))
    return layer.emit("add", layer.emit("log", total(layer, shifted, axes, keepdims)), largest(layer, x, axes, keepdims))


def length(layer: Layer, x: Value, axes: Axes, keepdims: bool) -> Value:
    """The Euclidean norm."""
    return layer.emit("sqrt", total(layer, square(layer, x), axes, keepdims))


FLOATING: dict[tuple[str, ...], Reduction] = {
    ("Logsumexp", "math.reduce_logsumexp"): _logsumexp,
    ("Mean", "math.reduce_mean"): mean,
    ("Std", "math.reduce_std"): _deviation,
    ("Var", "math.reduce_variance"): variance,
    ("math.reduce_euclidean_norm",): length,
}
"""Reductions of floating-point values, by their names in Keras 3 and TensorFlow."""

NUMERIC: dict[tuple[str, ...], Reduction] = {
    ("Amax", "Max", "math.reduce_max"): largest,
    ("Amin", "Min", "math.reduce_min"): smallest,
    ("Prod", "math.reduce_prod"): _plain("reduce_prod"),
    ("Ptp",): lambda layer, x, axes, keepdims: layer.emit(
        "sub", largest(layer, x, axes, keepdims), smallest(layer, x, axes, keepdims)
    ),
    ("Sum", "math.reduce_sum"): total,
}
"""Reductions of any numbers; Keras 3 counts with conditions."""

ORDERINGS = frozenset({"Amax", "Max", "Amin", "Min", "Ptp"})
"""Those of which conditions stay conditions, and which are not read of them."""


def _axes_of(given: Arguments, x: Value) -> tuple[Axes, bool]:
    return given.inner_axes("axis", x.rank), given.flag("keepdims", False)


def _register(names: tuple[str, ...], reduction: Reduction, floating: bool) -> None:
    @reads_operation(*names)
    def read(layer: Layer) -> Value:
        given = arguments(layer, *SIGNATURE, "initial", "dtype")
        if given.option("initial") is not None:
            layer.refuse("its reduction starts from a value, which is not read")
        x = given.float_tensor("x") if floating else given.tensor("x")
        if x.type.dtype == "bool" and not floating:
            if names[0] in ORDERINGS:
                layer.refuse("orders conditions, which is not read; use any or all")
            x = layer.cast(x, "int32")
        return reduction(layer, cast_as_asked(given, layer, x), *_axes_of(given, x))


for _names, _reduction in FLOATING.items():
    _register(_names, _reduction, floating=True)
for _names, _reduction in NUMERIC.items():
    _register(_names, _reduction, floating=False)


@reads_operation("Any", "math.reduce_any")
def any_holds(layer: Layer) -> Value:
    """Whether a condition holds anywhere."""
    given = arguments(layer, *SIGNATURE)
    x = layer.cast(given.tensor("x"), "bool")
    return largest(layer, x, *_axes_of(given, x))


@reads_operation("All", "math.reduce_all")
def all_hold(layer: Layer) -> Value:
    """Whether a condition holds everywhere."""
    given = arguments(layer, *SIGNATURE)
    x = negation(layer, layer.cast(given.tensor("x"), "bool"))
    return negation(layer, largest(layer, x, *_axes_of(given, x)))


@reads_operation("CountNonzero", "math.count_nonzero")
def count_nonzero(layer: Layer) -> Value:
    """How many elements are not 0."""
    given = arguments(layer, *SIGNATURE)
    x = layer.cast(given.tensor("x"), "bool")
    dtype = "int32" if layer.saved_by.generation == 3 else "int64"
    return total(layer, layer.cast(x, dtype), *_axes_of(given, x))


@reads_operation("Argmax", "Argmin", "math.argmax", "math.argmin")
def argmax(layer: Layer) -> Value:
    """Where the maximum, or the minimum, stands along one axis; an int32 in Keras 3, as asked in TensorFlow."""
    given = arguments(layer, "x|input", "axis|dimension", "keepdims", "output_type")
    x = given.tensor("x")
    if given.option("axis") is None:
        # Keras 3 flattens, TensorFlow means axis 0.
        given.inner_axes("axis", x.rank)
    axis = given.axis("axis", x.rank)
    name = layer.class_name if layer.saved_by.generation == 3 else layer.text("function", "")
    if name.lower().endswith("argmin"):
        x = scaled(layer, x, -1)
    found = layer.emit("argmax", x, axis=axis, keepdims=given.flag("keepdims", False))
    return layer.cast(found, "int32") if layer.saved_by.generation == 3 else cast_as_asked(given, layer, found, "output_type")


@reads_operation("Cumsum", "math.cumsum")
def cumsum(layer: Layer) -> Value:
    """Sums of each element and those before it, or behind it, itself left out or not."""
    given = arguments(layer, "x", "axis", "exclusive", "reverse", "dtype")
    x = given.tensor("x")
    given.inner_axes("axis", x.rank)
    axis = given.axis("axis", x.rank)
    if x.type.dtype == "bool":
        x = layer.cast(x, "int32")
    x = cast_as_asked(given, layer, x)
    backwards = given.flag("reverse", False)
    sums = layer.emit("cumsum", flipped(layer, x, [axis]) if backwards else x, axis=axis)
    sums = flipped(layer, sums, [axis]) if backwards else sums
    return layer.emit("sub", sums, x) if given.flag("exclusive", False) else sums


@reads_operation("Norm", "compat.v1.norm")
def norm(layer: Layer) -> Value:
    """The norm of vectors: the Euclidean one, the sum of magnitudes, or any other power."""
    given = arguments(layer, "x|tensor", "ord", "axis", "keepdims")
    x, order = given.float_tensor("x"), given.option("ord", 2)
    axes, keepdims = _axes_of(given, x)
    if order in (2, "euclidean") and (len(axes) == 1 or order == "euclidean" or given.option("ord") is None):
        return length(layer, x, axes, keepdims)
    if order == "fro" and len(axes) == 2:
        return length(layer, x, axes, keepdims)
    if len(axes) != 1 or type(order) not in (int, float) or order <= 0:
        layer.refuse(f"ord = {order!r} over {len(axes)} axes is not read")
    return _power_norm(layer, x, order, axes, keepdims)


def _power_norm(layer: Layer, x: Value, order: float, axes: Axes, keepdims: bool) -> Value:
    sizes = magnitude(layer, x)
    if order == float("inf"):
        return largest(layer, sizes, axes, keepdims)
    if order == 1:
        return total(layer, sizes, axes, keepdims)
    sums = total(layer, layer.emit("pow", sizes, layer.like(x, order)), axes, keepdims)
    return layer.emit("pow", sums, layer.like(x, 1.0 / order))


@reads_operation("Moments")
def moments(layer: Layer) -> tuple[Value, ...]:
    """Mean and variance."""
    given = arguments(layer, "x", "axis|axes", "shift", "keepdims", "synchronized")
    x = given.float_tensor("x")
    axes, keepdims = _axes_of(given, x)
    return mean(layer, x, axes, keepdims), variance(layer, x, axes, keepdims)
