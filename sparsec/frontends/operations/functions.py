"""Functions of one tensor, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sparsec.frontends.layer import Layer, Value, reads_operation
from sparsec.frontends.operations.operands import Arguments, arguments, as_value
from sparsec.frontends.policy import compute_dtype, half_precision

Function = Callable[[Layer, Value], Value]


def plain(op: str) -> Function:
    """The function that one operator is."""
    return lambda layer, x: layer.emit(op, x)


def scaled(layer: Layer, x: Value, factor: float) -> Value:
    """``x * factor``."""
    return layer.emit("mul", x, layer.like(x, factor))


def _quotient(layer: Layer, numerator: float, x: Value) -> Value:
    return layer.emit("div", layer.like(x, numerator), x)


def square(layer: Layer, x: Value) -> Value:
    """``x * x``."""
    return layer.emit("mul", x, x)


def ceil(layer: Layer, x: Value) -> Value:
    """The least integer that is not below x."""
    return scaled(layer, layer.emit("floor", scaled(layer, x, -1.0)), -1.0)


def _trunc(layer: Layer, x: Value) -> Value:
    return layer.emit("mul", layer.emit("sign", x), layer.emit("floor", layer.emit("abs", x)))


def _log1p(layer: Layer, x: Value) -> Value:
    return layer.emit("log", layer.emit("add", x, layer.like(x, 1.0)))


def _expm1(layer: Layer, x: Value) -> Value:
    return layer.emit("sub", layer.emit("exp", x), layer.like(x, 1.0))


def _tan(layer: Layer, x: Value) -> Value:
    return layer.emit("div", layer.emit("sin", x), layer.emit("cos", x))


def _hyperbolic(op: str) -> Function:
    def function(layer: Layer, x: Value) -> Value:
        growing = layer.emit("exp", x)
        return scaled(layer, layer.emit(op, growing, _quotient(layer, 1.0, growing)), 0.5)

    return function


def _logarithm(base: float) -> Function:
    return lambda layer, x: scaled(layer, layer.emit("log", x), 1.0 / math.log(base))


FUNCTIONS: dict[tuple[str, ...], Function] = {
    ("Ceil", "math.ceil"): ceil,
    ("Cos", "math.cos"): plain("cos"),
    ("Cosh", "math.cosh"): _hyperbolic("add"),
    ("Erf", "math.erf"): plain("erf"),
    ("Erfc", "math.erfc"): lambda layer, x: layer.emit("sub", layer.like(x, 1.0), layer.emit("erf", x)),
    ("Exp2",): lambda layer, x: layer.emit("exp", scaled(layer, x, math.log(2.0))),
    ("Expm1", "math.expm1"): _expm1,
    ("Floor", "math.floor"): plain("floor"),
    ("Log", "math.log"): plain("log"),
    ("Log10",): _logarithm(10.0),
    ("Log1p", "math.log1p"): _log1p,
    ("Log2",): _logarithm(2.0),
    ("Reciprocal", "math.reciprocal"): lambda layer, x: _quotient(layer, 1.0, x),
    ("Rsqrt", "math.rsqrt"): lambda layer, x: _quotient(layer, 1.0, layer.emit("sqrt", x)),
    ("Sin", "math.sin"): plain("sin"),
    ("Sinh", "math.sinh"): _hyperbolic("sub"),
    ("Sqrt", "math.sqrt"): plain("sqrt"),
    ("Tan", "math.tan"): _tan,
    ("Trunc",): _trunc,
}
"""Functions of floating-point values, by their names in Keras 3 and TensorFlow."""


def _register(names: tuple[str, ...], function: Function) -> None:
    @reads_operation(*names)
    def read(layer: Layer) -> Value:
        return function(layer, arguments(layer, "x").float_tensor("x"))


for _names, _function in FUNCTIONS.items():
    _register(_names, _function)


@reads_operation("Negative", "math.negative")
def negative(layer: Layer) -> Value:
    """``-x``."""
    x = arguments(layer, "x").tensor("x")
    return layer.emit("mul", x, layer.like(x, -1))


@reads_operation("Square", "math.square")
def read_square(layer: Layer) -> Value:
    """``x * x``."""
    return square(layer, arguments(layer, "x").tensor("x"))


@reads_operation("Absolute", "math.abs")
def absolute(layer: Layer) -> Value:
    """The absolute value."""
    return magnitude(layer, arguments(layer, "x").tensor("x"))


def magnitude(layer: Layer, x: Value) -> Value:
    """The absolute value of numbers of any dtype."""
    if x.is_float:
        return layer.emit("abs", x)
    return layer.emit("maximum", x, layer.emit("mul", x, layer.like(x, -1)))


@reads_operation("Sign", "math.sign")
def sign(layer: Layer) -> Value:
    """-1, 0 or 1."""
    x = arguments(layer, "x").tensor("x")
    if x.is_float:
        return layer.emit("sign", x)
    return layer.cast(layer.emit("sign", layer.cast(x, "float64")), x.type.dtype)


@reads_operation("Round", "math.round")
def read_round(layer: Layer) -> Value:
    """The nearest integer, the even one of two."""
    given = arguments(layer, "x", "decimals")
    if given.integer("decimals", 0):
        layer.refuse("rounds to decimals, which is not read")
    x = given.tensor("x")
    return layer.emit("round", x) if x.is_float else x


@reads_operation("Clip", "clip_by_value")
def clip(layer: Layer) -> Value:
    """The value within two bounds, each a number or a tensor."""
    given = arguments(layer, "x|t", "x_min|clip_value_min|min_value", "x_max|clip_value_max|max_value")
    x, bounds = given.tensor("x"), [given.option(name) for name in ("x_min", "x_max")]
    if x.is_float and all(isinstance(bound, int | float) for bound in bounds):
        return layer.emit("clip", x, minimum=given.number("x_min", 0.0), maximum=given.number("x_max", 0.0))
    x, low, high = given.values("x", "x_min", "x_max")
    return layer.emit("minimum", layer.emit("maximum", x, low), high)


CASTS = ("bool", "int32", "int64", "float16", "bfloat16", "float32", "float64")


def cast_as_asked(given: Arguments, layer: Layer, x: Value, name: str = "dtype") -> Value:
    """``x`` in the dtype that an argument names, if it does; narrow integers, which would cut values off, are refused."""
    dtype = given.option(name)
    if dtype is None:
        return x
    if dtype not in CASTS:
        layer.refuse(f"casts to {dtype!r}, which is not read")
    return replace(layer.cast(x, compute_dtype(dtype, layer.subject)), half=half_precision(dtype))


@reads_operation("Cast", "cast", "SaturateCast")
def cast(layer: Layer) -> Value:
    """The value in another dtype."""
    given = arguments(layer, "x", "dtype")
    if given.option("dtype") is None:
        layer.refuse("the dtype to which it casts is missing")
    return cast_as_asked(given, layer, given.tensor("x"))


@reads_operation("Copy", "ConvertToTensor", "StopGradient", "identity", "stop_gradient", "convert_to_tensor")
def unchanged(layer: Layer) -> Value:
    """The value itself."""
    given = arguments(layer, "x|variable|value|input", "dtype", "dtype_hint")
    return cast_as_asked(given, layer, given.tensor("x"))


@reads_operation("FullLike", "ZerosLike", "OnesLike", "zeros_like", "ones_like")
def full_like(layer: Layer) -> Value:
    """A number everywhere, in the shape of a value."""
    name = layer.class_name if layer.saved_by.generation == 3 else layer.text("function", "")
    full = name == "FullLike"
    given = arguments(layer, "x|input", *(["fill_value"] if full else []), "dtype")
    number = given.option("fill_value", 0) if full else int(name.lower().startswith("one"))
    x = cast_as_asked(given, layer, given.tensor("x"))
    return filled(layer, x, layer.cast(as_value(layer, number, x), x.type.dtype))


def filled(layer: Layer, x: Value, fill: Value) -> Value:
    """``fill`` in the shape of ``x``, of which nothing else matters."""
    return layer.emit("where", layer.constant("never", np.asarray(False), "bool"), x, fill)
