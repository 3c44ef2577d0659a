"""Elementwise operators: one value in, or several that broadcast, one value out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from sparsec.errors import GraphError
from sparsec.ir import DTYPES, Array, Attrs, TensorType
from sparsec.ops.base import (
    Attribute,
    Kind,
    Op,
    broadcast_shapes,
    expect_dtype,
    expect_float,
    expect_shape,
    given,
    integer,
    normal_axis,
    number,
    optional,
    optional_array,
    register,
    required,
)
from sparsec.ops.channels import ChannelRule, Jumping, Pointwise, Product, Rectifying, Scaling

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805
"""Klambauer et al. 2017, "Self-Normalizing Neural Networks", section 2."""


def erf(x: Array) -> Array:
    """The error function, from SciPy where it is installed, else one value at a time from the standard library."""
    try:
        from scipy.special import erf as scipy_erf
    except ImportError:
        return np.asarray(np.frompyfunc(math.erf, 1, 1)(x), dtype=x.dtype)
    return scipy_erf(x)


def sigmoid(x: Array) -> Array:
    """``1 / (1 + exp(-x))``."""
    # Where the exponential overflows the quotient is 0, as it should be. By way of tanh it would be cheaper, but nothing would
    # be left of small results: 40 % off at -17.
    with np.errstate(over="ignore"):
        y: Array = np.reciprocal(np.exp(-x) + 1)
    return y


def softplus(x: Array) -> Array:
    """``log(1 + exp(x))`` without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


class Unary(Op):
    """Base of the operators that map every element of one floating-point value."""

    inputs = ("x",)
    channels: ClassVar[ChannelRule | None] = Pointwise()

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x = required(inputs, 0, "x")
        expect_float(x, "x")
        return (x,)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        return (self.apply(attrs, given(inputs[0])),)

    def apply(self, attrs: Attrs, x: Array) -> Array:
        """The function on an array of any shape."""
        raise NotImplementedError


@register
class Relu(Unary):
    """``max_value`` for x >= max_value, x for threshold <= x, ``negative_slope * (x - threshold)`` below."""

    name = "relu"
    attributes: ClassVar = {
        "max_value": Attribute(Kind.OPTIONAL_FLOAT, None),
        "negative_slope": Attribute(Kind.FLOAT, 0.0),
        "threshold": Attribute(Kind.FLOAT, 0.0),
    }

    def apply(self, attrs: Attrs, x: Array) -> Array:
        slope, threshold = number(attrs, "negative_slope"), number(attrs, "threshold")
        plain = slope == 0.0 and threshold == 0.0
        y = np.maximum(x, 0) if plain else np.where(x >= threshold, x, (x - threshold) * slope)
        return y if attrs["max_value"] is None else np.minimum(y, x.dtype.type(number(attrs, "max_value")))


@register
class Elu(Unary):
    """x for x > 0, ``alpha * (exp(x) - 1)`` below."""

    name = "elu"
    attributes: ClassVar = {"alpha": Attribute(Kind.FLOAT, 1.0)}

    def apply(self, attrs: Attrs, x: Array) -> Array:
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)) * number(attrs, "alpha"))


@register
class Selu(Unary):
    """Scaled ELU with the constants of Klambauer et al. 2017."""

    name = "selu"

    def apply(self, attrs: Attrs, x: Array) -> Array:
        return SELU_SCALE * np.where(x > 0, x, np.expm1(np.minimum(x, 0)) * SELU_ALPHA)


@register
class Gelu(Unary):
    """``x * Phi(x)``, exactly or by the tanh approximation (Hendrycks and Gimpel 2016, section 2)."""

    name = "gelu"
    attributes: ClassVar = {"approximate": Attribute(Kind.BOOL, False)}

    def apply(self, attrs: Attrs, x: Array) -> Array:
        if attrs["approximate"]:
            return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
        return 0.5 * x * (1.0 + erf(x * math.sqrt(0.5)))


@register
class HardSigmoid(Unary):
    """``min(max(alpha * x + beta, 0), 1)``; alpha and beta differ between Keras 2 (0.2, 0.5) and Keras 3 (1/6, 0.5)."""

    name = "hard_sigmoid"
    attributes: ClassVar = {"alpha": Attribute(Kind.FLOAT), "beta": Attribute(Kind.FLOAT)}

    def apply(self, attrs: Attrs, x: Array) -> Array:
        return np.clip(x * number(attrs, "alpha") + number(attrs, "beta"), 0, 1)


@register
class Clip(Unary):
    """``min(max(x, minimum), maximum)``."""

    name = "clip"
    attributes: ClassVar = {"minimum": Attribute(Kind.FLOAT), "maximum": Attribute(Kind.FLOAT)}

    def apply(self, attrs: Attrs, x: Array) -> Array:
        return np.clip(x, number(attrs, "minimum"), number(attrs, "maximum"))


@register
class Sigmoid(Unary):
    """``1 / (1 + exp(-x))``."""

    name = "sigmoid"

    def apply(self, attrs: Attrs, x: Array) -> Array:
        return sigmoid(x)


@register
class Silu(Unary):
    """``x * sigmoid(x)``, also called swish."""

    name = "silu"

    def apply(self, attrs: Attrs, x: Array) -> Array:
        return x * sigmoid(x)


@register
class Tanh(Unary):
    """The hyperbolic tangent."""

    name = "tanh"

    def apply(self, attrs: Attrs, x: Array) -> Array:
        return np.tanh(x)


@register
class Softplus(Unary):
    """``log(1 + exp(x))``."""

    name = "softplus"

    def apply(self, attrs: Attrs, x: Array) -> Array:
        return softplus(x)


@register
class Softsign(Unary):
    """``x / (1 + |x|)``."""

    name = "softsign"

    def apply(self, attrs: Attrs, x: Array) -> Array:
        return np.asarray(x / (1 + np.abs(x)))


@register
class Exp(Unary):
    """The exponential."""

    name = "exp"

    def apply(self, attrs: Attrs, x: Array) -> Array:
        return np.exp(x)


@register
class Sqrt(Unary):
    """The square root."""

    name = "sqrt"

    def apply(self, attrs: Attrs, x: Array) -> Array:
        return np.sqrt(x)


@register
class Abs(Unary):
    """The absolute value."""

    name = "abs"

    def apply(self, attrs: Attrs, x: Array) -> Array:
        return np.abs(x)


class _AlongAxis(Unary):
    attributes: ClassVar = {"axis": Attribute(Kind.INT, -1)}
    channels = None

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        (x,) = super().infer(attrs, inputs)
        normal_axis(integer(attrs, "axis"), x.rank)
        return (x,)


@register
class Softmax(_AlongAxis):
    """``exp(x) / sum(exp(x))`` along one axis."""

    name = "softmax"

    def apply(self, attrs: Attrs, x: Array) -> Array:
        axis = integer(attrs, "axis")
        e = np.exp(x - x.max(axis=axis, keepdims=True))
        return np.asarray(e / e.sum(axis=axis, keepdims=True))


@register
class LogSoftmax(_AlongAxis):
    """``log(softmax(x))`` along one axis."""

    name = "log_softmax"

    def apply(self, attrs: Attrs, x: Array) -> Array:
        axis = integer(attrs, "axis")
        shifted = x - x.max(axis=axis, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)))


@register
class Sparsemax(_AlongAxis):
    """Sparsemax along one axis, as Keras computes it.

    The support is that of Martins and Astudillo 2016, algorithm 1: the largest k elements with ``1 + k * z_k >
    sum(z_1..z_k)``. Keras then subtracts ``(S - 1) / k`` where S adds up the cumulated sums of the whole support; the
    paper takes the last of them alone. The two agree only where the support is a single element, and a model's answers
    are those of Keras.
    """

    name = "sparsemax"

    def apply(self, attrs: Attrs, x: Array) -> Array:
        z = np.moveaxis(x, integer(attrs, "axis"), -1)
        ranked = np.flip(np.sort(z, axis=-1), axis=-1)
        k = np.arange(1, z.shape[-1] + 1, dtype=z.dtype)
        sums = np.cumsum(ranked, axis=-1)
        support = 1 + k * ranked > sums
        total = np.where(support, sums, 0).sum(axis=-1, keepdims=True)
        threshold = (total - 1) / support.sum(axis=-1, keepdims=True).astype(z.dtype)
        return np.moveaxis(np.maximum(z - threshold, 0), -1, integer(attrs, "axis"))


@register
class Cast(Op):
    """The value in another dtype; to ``bool`` by ``x != 0``, from float to integer towards zero."""

    name = "cast"
    inputs = ("x",)
    channels: ClassVar = Pointwise()
    attributes: ClassVar = {"dtype": Attribute(Kind.STR, choices=DTYPES)}

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        return (TensorType(str(attrs["dtype"]), required(inputs, 0, "x").shape),)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        return (given(inputs[0]).astype(str(attrs["dtype"])),)


class Binary(Op):
    """Base of the operators on two values of one dtype that broadcast by NumPy's rule."""

    inputs = ("a", "b")
    channels: ClassVar[ChannelRule | None] = Pointwise()
    result_dtype: ClassVar[str | None] = None

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        a, b = required(inputs, 0, "a"), required(inputs, 1, "b")
        expect_dtype(b, a.dtype, "b")
        return (TensorType(self.result_dtype or a.dtype, broadcast_shapes(a.shape, b.shape)),)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        return (self.combine(given(inputs[0]), given(inputs[1])),)

    def combine(self, a: Array, b: Array) -> Array:
        """The function on two arrays."""
        raise NotImplementedError


@register
class Add(Binary):
    """``a + b``."""

    name = "add"

    def combine(self, a: Array, b: Array) -> Array:
        return a + b


@register
class Sub(Binary):
    """``a - b``."""

    name = "sub"

    def combine(self, a: Array, b: Array) -> Array:
        return a - b


@register
class Mul(Binary):
    """``a * b``."""

    name = "mul"
    channels = Product()

    def combine(self, a: Array, b: Array) -> Array:
        return a * b


@register
class Div(Binary):
    """``a / b`` on floating-point values."""

    name = "div"

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        expect_float(required(inputs, 0, "a"), "a")
        return super().infer(attrs, inputs)

    def combine(self, a: Array, b: Array) -> Array:
        return a / b


@register
class Maximum(Binary):
    """The greater of ``a`` and ``b``."""

    name = "maximum"

    def combine(self, a: Array, b: Array) -> Array:
        return np.maximum(a, b)


@register
class Minimum(Binary):
    """The lesser of ``a`` and ``b``."""

    name = "minimum"

    def combine(self, a: Array, b: Array) -> Array:
        return np.minimum(a, b)


@register
class Greater(Binary):
    """``a > b``, a bool value."""

    name = "greater"
    channels = Jumping()
    result_dtype = "bool"

    def combine(self, a: Array, b: Array) -> Array:
        return np.greater(a, b)


@register
class Where(Op):
    """``a`` where ``condition`` holds, else ``b``; all three broadcast."""

    name = "where"
    inputs = ("condition", "a", "b")
    channels: ClassVar = Pointwise()

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        condition, a, b = required(inputs, 0, "condition"), required(inputs, 1, "a"), required(inputs, 2, "b")
        expect_dtype(condition, "bool", "condition")
        expect_dtype(b, a.dtype, "b")
        return (TensorType(a.dtype, broadcast_shapes(condition.shape, broadcast_shapes(a.shape, b.shape))),)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        condition, a, b = (given(value) for value in inputs)
        return (np.where(condition, a, b),)


@register
class Prelu(Op):
    """x for x > 0, ``alpha * x`` below; ``alpha`` broadcasts over x."""

    name = "prelu"
    inputs = ("x", "alpha")
    channels: ClassVar = Rectifying()

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x, alpha = required(inputs, 0, "x"), required(inputs, 1, "alpha")
        expect_float(x, "x")
        expect_dtype(alpha, x.dtype, "alpha")
        if broadcast_shapes(x.shape, alpha.shape) != x.shape:
            raise GraphError(f"alpha of type {alpha} does not broadcast over {x}")
        return (x,)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        x, alpha = given(inputs[0]), given(inputs[1])
        return (np.where(x > 0, x, x * alpha),)


@register
class Affine(Op):
    """``x * scale + shift`` per channel of the last axis; what scaling layers and unfolded BatchNormalization become."""

    name = "affine"
    inputs = ("x", "scale", "shift?")
    channels: ClassVar = Scaling(factor=1)

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x, scale, shift = required(inputs, 0, "x"), required(inputs, 1, "scale"), optional(inputs, 2)
        expect_float(x, "x")
        for label, vector in (("scale", scale), ("shift", shift)):
            expect_dtype(vector, x.dtype, label)
            expect_shape(vector, (x.shape[-1],), label)
        return (x,)

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        x, scale, shift = given(inputs[0]), given(inputs[1]), optional_array(inputs, 2)
        y = x * scale
        if shift is not None:
            y += shift
        return (y,)
