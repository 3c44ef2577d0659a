"""Functions and arithmetic that are no activations; what composes from other operators is not here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from sparsec.ir import Array, Attrs, TensorType
from sparsec.ops.base import expect_float, expect_number, register, required
from sparsec.ops.channels import Jumping
from sparsec.ops.elementwise import Binary, Unary, erf


@register
class Log(Unary):
    """The natural logarithm."""

    name = "log"

    def apply(self, attrs: Attrs, x: Array) -> Array:
        return np.log(x)


@register
class Erf(Unary):
    """The error function."""

    name = "erf"

    def apply(self, attrs: Attrs, x: Array) -> Array:
        return erf(x)


@register
class Sin(Unary):
    """The sine of an angle in radians."""

    name = "sin"

    def apply(self, attrs: Attrs, x: Array) -> Array:
        return np.sin(x)


@register
class Cos(Unary):
    """The cosine of an angle in radians."""

    name = "cos"

    def apply(self, attrs: Attrs, x: Array) -> Array:
        return np.cos(x)


class _Jumping(Unary):
    """Base of the functions that jump."""

    channels = Jumping()


@register
class Sign(_Jumping):
    """-1, 0 or 1."""

    name = "sign"

    def apply(self, attrs: Attrs, x: Array) -> Array:
        return np.sign(x)


@register
class Floor(_Jumping):
    """The greatest integer that is not above x."""

    name = "floor"

    def apply(self, attrs: Attrs, x: Array) -> Array:
        return np.floor(x)


@register
class Round(_Jumping):
    """The nearest integer, the even one of two."""

    name = "round"

    def apply(self, attrs: Attrs, x: Array) -> Array:
        return np.round(x)


@register
class Pow(Binary):
    """``a`` to the power of ``b``, floating-point only."""

    name = "pow"

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        expect_float(required(inputs, 0, "a"), "a")
        return super().infer(attrs, inputs)

    def combine(self, a: Array, b: Array) -> Array:
        return np.power(a, b)


@register
class Mod(Binary):
    """``a - b * floor(a / b)`` in exact arithmetic, which jumps at multiples of ``b``; the sign is that of ``b``."""

    name = "mod"
    channels = Jumping()

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        expect_number(required(inputs, 0, "a"), "a")
        return super().infer(attrs, inputs)

    def combine(self, a: Array, b: Array) -> Array:
        return np.mod(a, b)


@register
class Equal(Binary):
    """``a == b``, a bool value."""

    name = "equal"
    channels: ClassVar = Jumping()
    result_dtype = "bool"

    def combine(self, a: Array, b: Array) -> Array:
        return np.equal(a, b)
