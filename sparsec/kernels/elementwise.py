"""Elementwise operators that can write into a buffer that is there already."""

from __future__ import annotations

from typing import Final

import numpy as np

from sparsec.ir import Array, Attrs
from sparsec.kernels.base import InPlace
from sparsec.ops import OPS, Op
from sparsec.ops.base import integer, number
from sparsec.ops.elementwise import Unary


def _from_reference(op: Op) -> InPlace:
    def function(attrs: Attrs, *inputs: Array | None, out: Array | None = None) -> Array:
        (y,) = op.evaluate(attrs, inputs)
        if out is None:
            return y
        out[...] = y
        return out

    return function


_reference_relu = _from_reference(OPS["relu"])


def _relu(attrs: Attrs, x: Array, *, out: Array | None = None) -> Array:
    slope = number(attrs, "negative_slope")
    if number(attrs, "threshold") != 0.0 or slope > 1.0:
        return _reference_relu(attrs, x, out=out)
    # For a slope of at most one, the scaled value is the greater one exactly below zero.
    y: Array = np.maximum(x, x * slope if slope else 0, out=out)
    if attrs["max_value"] is not None:
        np.minimum(y, number(attrs, "max_value"), out=y)
    return y


def _clip(attrs: Attrs, x: Array, *, out: Array | None = None) -> Array:
    y: Array = np.clip(x, number(attrs, "minimum"), number(attrs, "maximum"), out=out)
    return y


def _hard_sigmoid(attrs: Attrs, x: Array, *, out: Array | None = None) -> Array:
    y: Array = np.multiply(x, number(attrs, "alpha"), out=out)
    y += number(attrs, "beta")
    return np.clip(y, 0, 1, out=y)


def _sigmoid(attrs: Attrs, x: Array, *, out: Array | None = None) -> Array:
    y: Array = np.negative(x, out=out)
    with np.errstate(over="ignore"):
        np.exp(y, out=y)
    y += 1
    return np.reciprocal(y, out=y)


def _silu(attrs: Attrs, x: Array, *, out: Array | None = None) -> Array:
    gate = _sigmoid(attrs, x)
    return np.multiply(gate, x, out=gate if out is None else out)


def _softmax(attrs: Attrs, x: Array, *, out: Array | None = None) -> Array:
    axis = integer(attrs, "axis")
    y: Array = np.subtract(x, x.max(axis=axis, keepdims=True), out=out)
    np.exp(y, out=y)
    y /= y.sum(axis=axis, keepdims=True)
    return y


def _affine(attrs: Attrs, x: Array, scale: Array, shift: Array | None = None, *, out: Array | None = None) -> Array:
    y: Array = np.multiply(x, scale, out=out)
    if shift is not None:
        y += shift
    return y


def _from_ufunc(ufunc: np.ufunc) -> InPlace:
    def function(attrs: Attrs, *inputs: Array, out: Array | None = None) -> Array:
        y: Array = ufunc(*inputs, out=out)
        return y

    return function


_POINTWISE: Final[dict[str, InPlace]] = {
    **{name: _from_reference(op) for name, op in OPS.items() if isinstance(op, Unary) and "axis" not in op.attributes},
    "relu": _relu,
    "clip": _clip,
    "hard_sigmoid": _hard_sigmoid,
    "sigmoid": _sigmoid,
    "silu": _silu,
    "tanh": _from_ufunc(np.tanh),
    "exp": _from_ufunc(np.exp),
    "sqrt": _from_ufunc(np.sqrt),
    "abs": _from_ufunc(np.abs),
    "add": _from_ufunc(np.add),
    "sub": _from_ufunc(np.subtract),
    "mul": _from_ufunc(np.multiply),
    "div": _from_ufunc(np.divide),
    "maximum": _from_ufunc(np.maximum),
    "minimum": _from_ufunc(np.minimum),
    "affine": _affine,
    "prelu": _from_reference(OPS["prelu"]),
}

IN_PLACE: Final[dict[str, InPlace]] = {**_POINTWISE, "softmax": _softmax}
"""By operator, a function ``(attrs, *inputs, out=None)`` that returns the only output, newly made or written to ``out``.

``out`` has the shape and dtype of the output, and may be one of the inputs.
"""

POINTWISE: Final = frozenset(_POINTWISE)
"""The operators in which an element of the output depends on the same element of each input alone."""
