"""Arithmetic on tensors: ``a + b`` and its like, by operator or by name."""

from __future__ import annotations

from collections.abc import Callable

from sparsec.frontends.layer import Layer, Value, reads_operation
from sparsec.frontends.layers.formats import to_channels_first, to_channels_last
from sparsec.frontends.operations.operands import arguments
from sparsec.frontends.policy import DEFAULT
from sparsec.ir import format_shape

OPERANDS = ("a|x1|x", "b|x2|y")
"""The two operands, as the packages call them."""

MAX_EXPONENT = 16
"""Up to this exponent a power of integers is multiplied out."""


def _binary(op: str) -> Callable[[Layer], Value]:
    def read(layer: Layer) -> Value:
        a, b = arguments(layer, *OPERANDS).values("a", "b")
        return layer.emit(op, a, b)

    return read


for _op, _names in {
    "sub": ("Subtract", "math.subtract", "__operators__.sub"),
    "mul": ("Multiply", "math.multiply", "__operators__.mul"),
    "maximum": ("Maximum", "math.maximum"),
    "minimum": ("Minimum", "math.minimum"),
}.items():
    reads_operation(*_names)(_binary(_op))


@reads_operation("Add", "math.add", "__operators__.add")
def add(layer: Layer) -> Value:
    """``a + b``."""
    given = arguments(layer, *OPERANDS)
    a, b = given.values("a", "b")
    if layer.saved_by.generation == 3 and not isinstance(given.option("b"), Value):
        _check_addend(layer, a, b)
    return layer.emit("add", a, b)


def _check_addend(layer: Layer, x: Value, constant: Value) -> None:
    """Refuse a constant that Keras 3 takes for a bias along another axis than NumPy's rule says.

    It does so with a constant of one long axis, whose size is that of the last axis of ``x``, or else of axis 1.
    """
    long = [x.rank - constant.rank + axis for axis, size in enumerate(constant.shape) if size != 1]
    if len(long) != 1:
        return
    size = constant.shape[long[0] - x.rank]
    taken = x.rank - 1 if x.shape[-1] == size else 1 if x.rank > 1 and x.shape[1] == size else long[0]
    if taken != long[0]:
        layer.refuse(
            f"adds a constant of shape {format_shape(constant.shape)} to {x.type}, by a mistake of Keras along axis {taken}; "
            "repeat the constant over the other axes"
        )


@reads_operation("math.add_n")
def add_n(layer: Layer) -> Value:
    """The sum of several tensors."""
    result, *others = arguments(layer, "inputs").tensors("inputs")
    for value in others:
        result = layer.emit("add", result, value)
    return result


@reads_operation("Divide", "TrueDivide", "math.divide", "math.truediv", "__operators__.truediv")
def divide(layer: Layer) -> Value:
    """``a / b``."""
    a, b = arguments(layer, *OPERANDS).values("a", "b")
    if not a.is_float:
        if layer.saved_by.generation == 2:
            layer.refuse(f"the quotient of {a.type.dtype} values is not read; cast them to float32 first")
        a, b = layer.cast(a, DEFAULT), layer.cast(b, DEFAULT)
    return layer.emit("div", a, b)


@reads_operation("DivideNoNan", "math.divide_no_nan")
def divide_no_nan(layer: Layer) -> Value:
    """``a / b``, but 0 where ``b`` is 0."""
    a, b = arguments(layer, *OPERANDS).values("a", "b")
    if not a.is_float:
        layer.refuse(f"the quotient of {a.type.dtype} values is not read; cast them to float32 first")
    zero = layer.emit("equal", b, layer.like(b, 0.0))
    quotient = layer.emit("div", a, layer.emit("where", zero, layer.like(b, 1.0), b))
    return layer.emit("where", zero, layer.like(b, 0.0), quotient)


@reads_operation("FloorDivide", "compat.v1.floor_div")
def floor_divide(layer: Layer) -> Value:
    """``floor(a / b)``; of integers by double precision, which is exact below 2^53."""
    a, b = arguments(layer, *OPERANDS).values("a", "b")
    if a.is_float:
        return layer.emit("floor", layer.emit("div", a, b))
    quotient = layer.emit("div", layer.cast(a, "float64"), layer.cast(b, "float64"))
    return layer.cast(layer.emit("floor", quotient), a.type.dtype)


@reads_operation("Mod", "math.floormod")
def mod(layer: Layer) -> Value:
    """What is left of ``a`` after whole multiples of ``b``, with the sign of ``b``."""
    a, b = arguments(layer, *OPERANDS).values("a", "b")
    return layer.emit("mod", a, b)


@reads_operation("Power", "math.pow")
def power(layer: Layer) -> Value:
    """``a`` to the power of ``b``; squares, and powers of integers, are multiplied out."""
    given = arguments(layer, *OPERANDS)
    x, exponent = given.option("a"), given.option("b")
    if isinstance(x, Value) and type(exponent) in (int, float) and (x.is_float or type(exponent) is int):
        return _constant_power(layer, x, exponent)
    a, b = given.values("a", "b")
    if not a.is_float:
        layer.refuse("is a computed power of integers, which is not read; cast them to float32 first")
    return layer.emit("pow", a, b)


def _constant_power(layer: Layer, x: Value, exponent: float) -> Value:
    if exponent == 1:
        return x
    if exponent == 2:
        return layer.emit("mul", x, x)
    if x.is_float:
        return layer.emit("sqrt", x) if exponent == 0.5 else layer.emit("pow", x, layer.like(x, exponent))
    if not 0 < exponent <= MAX_EXPONENT:
        layer.refuse(f"is a power of integers whose exponent is none of 1 to {MAX_EXPONENT}; cast them to float32 first")
    result = x
    for _ in range(int(exponent) - 1):
        result = layer.emit("mul", result, x)
    return result


@reads_operation("math.squared_difference")
def squared_difference(layer: Layer) -> Value:
    """``(a - b)`` squared."""
    a, b = arguments(layer, *OPERANDS).values("a", "b")
    difference = layer.emit("sub", a, b)
    return layer.emit("mul", difference, difference)


@reads_operation("Logaddexp")
def logaddexp(layer: Layer) -> Value:
    """``log(exp(a) + exp(b))``."""
    a, b = arguments(layer, *OPERANDS).values("a", "b")
    distance = layer.emit("abs", layer.emit("sub", a, b))
    rest = layer.emit("softplus", layer.emit("mul", distance, layer.like(distance, -1.0)))
    return layer.emit("add", layer.emit("maximum", a, b), rest)


@reads_operation("nn.bias_add")
def bias_add(layer: Layer) -> Value:
    """A vector added along the channels."""
    given = arguments(layer, "value", "bias", "data_format")
    x, bias = given.values("value", "bias")
    if given.text("data_format", "NHWC").startswith("NC") and x.rank > 2:
        return to_channels_first(layer, layer.emit("add", to_channels_last(layer, x), bias))
    return layer.emit("add", x, bias)
