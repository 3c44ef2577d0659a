"""What dtype comes out where values of several dtypes meet, as Keras 3 promotes them; Keras 2 lets only equal dtypes meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sparsec.frontends.layer import Layer, Value

_ORDER = ("bool", "int32", "int64", "float32", "float64")
"""Each dtype gives way to those after it: an int64 met by a float32 becomes float32."""


def wider(a: str, b: str) -> str:
    """The dtype of a result of operands of dtypes ``a`` and ``b``."""
    return max(a, b, key=_ORDER.index)


def promoted(layer: Layer, values: Sequence[Value]) -> list[Value]:
    """The values in the one dtype in which they meet."""
    dtype = values[0].type.dtype
    for value in values[1:]:
        dtype = wider(dtype, value.type.dtype)
    # Integers take the precision of what they meet.
    return [layer.cast(value, dtype) if value.is_float else replace(layer.cast(value, dtype), half=None) for value in values]
