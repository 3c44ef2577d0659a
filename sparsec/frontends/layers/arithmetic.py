"""Arithmetic on tensors outside layers: ``a + b``, keras.ops nodes, and TFOpLambda functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sparsec.frontends.layer import Layer, Value, reads_operation
from sparsec.frontends.layers.dtypes import promoted, wider
from sparsec.frontends.policy import DEFAULT, input_dtype
from sparsec.ir import format_shape

_FIRST = ("x1", "x", "a")
_SECOND = ("x2", "y", "b")
"""What the operands are called when they come by keyword."""


def _operands(layer: Layer) -> list[Value]:
    given = [layer.operand(0, *_FIRST), layer.operand(1, *_SECOND)]
    dtypes = [item.type.dtype for item in given if isinstance(item, Value)]
    if not dtypes:
        layer.refuse("none of its operands is a tensor")
    return promoted(layer, [item if isinstance(item, Value) else _constant(layer, item, dtypes[0]) for item in given])


def _constant(layer: Layer, item: Any, dtype: str) -> Value:
    """A number, which takes the tensor's dtype as far as it fits into it, or an array, which has one of its own."""
    try:
        array = np.asarray(item)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "bif" or array.dtype.name == "float16":
        layer.refuse("an operand is neither a tensor nor numbers that sparsec reads")
    if isinstance(item, np.ndarray):
        own = input_dtype(array.dtype.name, layer.name)
    else:
        own = {"b": "bool", "i": "int32", "f": DEFAULT}[array.dtype.kind]
        own = dtype if dtype.startswith("float") else wider(own, dtype)
    return layer.constant("constant" if array.ndim else f"constant_{array.item()!r}", array, own)


def _binary(op: str) -> Callable[[Layer], Value]:
    def read(layer: Layer) -> Value:
        a, b = _operands(layer)
        return layer.emit(op, a, b)

    return read


def _add(layer: Layer) -> Value:
    a, b = _operands(layer)
    if layer.saved_by.generation == 3 and not isinstance(layer.operand(1, *_SECOND), Value):
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


def _divide(layer: Layer) -> Value:
    a, b = _operands(layer)
    if not a.is_float:
        if layer.saved_by.generation == 2:
            layer.refuse(f"the quotient of {a.type.dtype} values is not read; cast them to float32 first")
        a, b = layer.cast(a, DEFAULT), layer.cast(b, DEFAULT)
    return layer.emit("div", a, b)


for _op, _names in {
    "sub": ("Subtract", "math.subtract", "__operators__.sub"),
    "mul": ("Multiply", "math.multiply", "__operators__.mul"),
    "maximum": ("Maximum", "math.maximum"),
    "minimum": ("Minimum", "math.minimum"),
}.items():
    reads_operation(*_names)(_binary(_op))
reads_operation("Add", "math.add", "__operators__.add")(_add)
reads_operation("Divide", "TrueDivide", "math.divide", "math.truediv", "__operators__.truediv")(_divide)


def _operand(layer: Layer) -> Value:
    x = layer.operand(0, "x")
    if not isinstance(x, Value):
        layer.refuse("its operand is not a tensor")
    return x


@reads_operation("Negative", "math.negative")
def negative(layer: Layer) -> Value:
    """``-x``."""
    x = _operand(layer)
    return layer.emit("mul", x, layer.like(x, -1))


@reads_operation("Square", "math.square")
def square(layer: Layer) -> Value:
    """``x * x``."""
    x = _operand(layer)
    return layer.emit("mul", x, x)


@reads_operation("Absolute", "math.abs")
def absolute(layer: Layer) -> Value:
    """The absolute value."""
    return layer.emit("abs", _operand(layer))


@reads_operation("Sqrt", "math.sqrt")
def sqrt(layer: Layer) -> Value:
    """The square root."""
    return layer.emit("sqrt", _operand(layer))


@reads_operation("Cast", "cast")
def cast(layer: Layer) -> Value:
    """The value in another dtype; narrow integers, which would cut values off, are refused."""
    dtype = layer.operand(1, "dtype") or layer.option("dtype")
    if dtype not in ("bool", "int32", "int64", "float32", "float64"):
        layer.refuse(f"casts to {dtype!r}, which is not read")
    return layer.cast(_operand(layer), dtype)
