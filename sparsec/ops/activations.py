"""The activations that Keras names, as compositions of operators.

Each is written once, over whatever emits operators: the front-end, which puts them into a graph, the evaluation of recurrent
operators, which computes them, and the ONNX backend, which puts them into the body of a loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import numpy as np

from sparsec.ir import Array
from sparsec.ops.base import get_op

V = TypeVar("V")


class Emitter(Protocol[V]):
    """What emits operators."""

    def emit(self, op: str, *inputs: V | None, **attrs: object) -> V:
        """An operator with one output."""

    def like(self, value: V, number: float) -> V:
        """A number in the dtype of ``value``."""


class Arrays:
    """Computes operators on arrays at once."""

    def emit(self, op: str, *inputs: Array | None, **attrs: object) -> Array:
        """The value of an operator."""
        found = get_op(op)
        (y,) = found.evaluate(found.complete(attrs), inputs)
        return y

    def like(self, value: Array, number: float) -> Array:
        """A number in the dtype of ``value``."""
        return np.asarray(number, value.dtype)


def scaled(ops: Emitter[V], x: V, factor: float) -> V:
    """``factor * x``."""
    return ops.emit("mul", x, ops.like(x, factor))


def shifted(ops: Emitter[V], x: V, term: float) -> V:
    """``x + term``."""
    return ops.emit("add", x, ops.like(x, term))


def above(ops: Emitter[V], x: V, threshold: float, below: V) -> V:
    """``x`` where it exceeds the threshold; at the threshold itself Keras takes ``below``, which the operator relu does not."""
    return ops.emit("where", ops.emit("greater", x, ops.like(x, threshold)), x, below)


def mish(ops: Emitter[V], x: V) -> V:
    """``x * tanh(softplus(x))``."""
    return ops.emit("mul", x, ops.emit("tanh", ops.emit("softplus", x)))


def hard_silu(ops: Emitter[V], x: V, alpha: float, beta: float) -> V:
    """``x * hard_sigmoid(x)``."""
    return ops.emit("mul", x, ops.emit("hard_sigmoid", x, alpha=alpha, beta=beta))


def log_sigmoid(ops: Emitter[V], x: V) -> V:
    """``-softplus(-x)``."""
    return scaled(ops, ops.emit("softplus", scaled(ops, x, -1.0)), -1.0)


def celu(ops: Emitter[V], x: V, alpha: float) -> V:
    """``alpha * elu(x / alpha)``."""
    return scaled(ops, ops.emit("elu", scaled(ops, x, 1.0 / alpha), alpha=1.0), alpha)


def tanh_shrink(ops: Emitter[V], x: V) -> V:
    """``x - tanh(x)``."""
    return ops.emit("sub", x, ops.emit("tanh", x))


def soft_shrink(ops: Emitter[V], x: V, threshold: float) -> V:
    """``x`` less what lies between ``-threshold`` and ``threshold``."""
    return ops.emit("sub", x, ops.emit("clip", x, minimum=-threshold, maximum=threshold))


def hard_shrink(ops: Emitter[V], x: V, threshold: float) -> V:
    """``x`` outside of ``-threshold`` to ``threshold``, else 0."""
    outside = ops.emit("greater", ops.emit("abs", x), ops.like(x, threshold))
    return ops.emit("where", outside, x, ops.like(x, 0.0))


def squareplus(ops: Emitter[V], x: V, b: float) -> V:
    """``(x + sqrt(x * x + b)) / 2``."""
    root = ops.emit("sqrt", shifted(ops, ops.emit("mul", x, x), b))
    return scaled(ops, ops.emit("add", x, root), 0.5)


def sparse_plus(ops: Emitter[V], x: V) -> V:
    """``(x + 1)^2 / 4`` between -1 and 1, ``x`` above: the clipped square plus what exceeds 1."""
    inner = shifted(ops, ops.emit("clip", x, minimum=-1.0, maximum=1.0), 1.0)
    square = scaled(ops, ops.emit("mul", inner, inner), 0.25)
    return ops.emit("add", square, ops.emit("relu", shifted(ops, x, -1.0)))


Composition = Callable[[Emitter[Any], Any, float, float], Any]
"""A function of what emits, the input, and two parameters."""


def _operator(op: str, **attrs: object) -> Composition:
    return lambda ops, x, alpha, beta: ops.emit(op, x, **attrs)


CELL_ACTIVATIONS: Final[dict[str, Composition]] = {
    "celu": lambda ops, x, alpha, beta: celu(ops, x, alpha),
    "clip": lambda ops, x, alpha, beta: ops.emit("clip", x, minimum=alpha, maximum=beta),
    "elu": lambda ops, x, alpha, beta: ops.emit("elu", x, alpha=alpha),
    "exp": _operator("exp"),
    "gelu": _operator("gelu", approximate=False),
    "gelu_tanh": _operator("gelu", approximate=True),
    "hard_shrink": lambda ops, x, alpha, beta: hard_shrink(ops, x, alpha),
    "hard_sigmoid": lambda ops, x, alpha, beta: ops.emit("hard_sigmoid", x, alpha=alpha, beta=beta),
    "hard_silu": hard_silu,
    "linear": lambda ops, x, alpha, beta: x,
    "log_sigmoid": lambda ops, x, alpha, beta: log_sigmoid(ops, x),
    "log_softmax": _operator("log_softmax"),
    "mish": lambda ops, x, alpha, beta: mish(ops, x),
    "relu": lambda ops, x, alpha, beta: ops.emit("relu", x, negative_slope=alpha),
    "selu": _operator("selu"),
    "sigmoid": _operator("sigmoid"),
    "silu": _operator("silu"),
    "soft_shrink": lambda ops, x, alpha, beta: soft_shrink(ops, x, alpha),
    "softmax": _operator("softmax"),
    "softplus": _operator("softplus"),
    "softsign": _operator("softsign"),
    "sparse_plus": lambda ops, x, alpha, beta: sparse_plus(ops, x),
    "sparsemax": _operator("sparsemax"),
    "squareplus": lambda ops, x, alpha, beta: squareplus(ops, x, alpha),
    "tanh": _operator("tanh"),
    "tanh_shrink": lambda ops, x, alpha, beta: tanh_shrink(ops, x),
    "threshold": lambda ops, x, alpha, beta: above(ops, x, alpha, ops.like(x, beta)),
}
"""The activations of recurrent operators by name, with what their two parameters mean."""
