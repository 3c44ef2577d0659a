"""Arithmetic between tensors outside layers: ``a + b``, keras.ops nodes, and TFOpLambda functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsec.frontends.layer import Layer, Value, reads_operation

_SECOND = ("x2", "y", "b", "other")
"""What the second operand is called when it comes by keyword."""


def _operands(layer: Layer) -> tuple[Value, Value]:
    found = [item for item in layer.args if item is not None]
    found += [layer.kwargs[name] for name in ("x1", "x", "a") if layer.kwargs.get(name) is not None and len(found) < 2]
    found += [layer.kwargs[name] for name in _SECOND if layer.kwargs.get(name) is not None and len(found) < 2]
    if len(found) != 2:
        layer.refuse(f"{len(found)} operands where two were expected")
    dtype = next((item.type.dtype for item in found if isinstance(item, Value)), None)
    if dtype is None:
        layer.refuse("none of its operands is a tensor")
    a, b = (item if isinstance(item, Value) else _constant(layer, item, dtype) for item in found)
    return a, b


def _constant(layer: Layer, item: object, dtype: str) -> Value:
    array = np.asarray(item)
    if array.dtype.kind not in "bif":
        layer.refuse(f"operand {item!r} is neither a tensor nor a number")
    if array.dtype.kind == "f" and not dtype.startswith("float"):
        layer.refuse(f"a {dtype} tensor and the number {item!r} are not combined; cast the tensor first")
    if array.ndim == 0:
        return layer.scalar(array.item(), dtype)
    return layer.constant(f"constant_{len(layer.args)}", array.astype(dtype))


def _binary(op: str) -> Callable[[Layer], Value]:
    def read(layer: Layer) -> Value:
        a, b = _operands(layer)
        return layer.emit(op, a, b)

    return read


for _op, _names in {
    "add": ("Add", "math.add", "__operators__.add", "add"),
    "sub": ("Subtract", "math.subtract", "__operators__.sub", "subtract"),
    "mul": ("Multiply", "math.multiply", "__operators__.mul", "multiply"),
    "div": ("Divide", "TrueDivide", "math.divide", "math.truediv", "__operators__.truediv", "divide", "truediv"),
    "maximum": ("Maximum", "math.maximum", "maximum"),
    "minimum": ("Minimum", "math.minimum", "minimum"),
}.items():
    reads_operation(*_names)(_binary(_op))
