"""Activations: the functions that Keras names, and the layers that are activations.

Where Keras 2 and Keras 3 mean different functions by one name, the version that saved the model decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sparsec.frontends.layer import Layer, Value, reads
from sparsec.ops import TO_THE_END

Activation = Callable[[Layer, Value, Mapping[str, Any]], Value]
"""A function of the layer it belongs to, its input, and the parameters given with its name."""

HARD_SIGMOID = {2: (0.2, 0.5), 3: (1.0 / 6.0, 0.5)}
"""Slope and offset by generation of Keras."""

LEAKY_SLOPE = 0.2
"""The slope of the *function* ``leaky_relu``; the layer LeakyReLU has another default."""

LEAKY_LAYER_SLOPE = 0.3


def _plain(op: str) -> Activation:
    return lambda layer, x, parameters: layer.emit(op, x)


def _hard_sigmoid(layer: Layer, x: Value) -> Value:
    alpha, beta = HARD_SIGMOID[layer.saved_by.generation]
    return layer.emit("hard_sigmoid", x, alpha=alpha, beta=beta)


def _scaled(layer: Layer, x: Value, factor: float) -> Value:
    return layer.emit("mul", x, layer.like(x, factor))


def _shifted(layer: Layer, x: Value, term: float) -> Value:
    return layer.emit("add", x, layer.like(x, term))


def _negated(layer: Layer, x: Value) -> Value:
    return _scaled(layer, x, -1.0)


def _relu(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    slope = parameters.get("negative_slope", parameters.get("alpha", 0.0))
    threshold = parameters.get("threshold") or 0.0
    return layer.emit("relu", x, max_value=parameters.get("max_value"), negative_slope=slope or 0.0, threshold=threshold)


def _relu6(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    return layer.emit("relu", x, max_value=6.0)


def _leaky_relu(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    slope = parameters.get("negative_slope", parameters.get("alpha", LEAKY_SLOPE))
    return layer.emit("relu", x, negative_slope=slope)


def _elu(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    return layer.emit("elu", x, alpha=parameters.get("alpha", 1.0))


def _gelu(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    return layer.emit("gelu", x, approximate=bool(parameters.get("approximate", False)))


def _softmax(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    return layer.emit("softmax", x, axis=parameters.get("axis", -1))


def _log_softmax(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    return layer.emit("log_softmax", x, axis=parameters.get("axis", -1))


def _sparsemax(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    return layer.emit("sparsemax", x, axis=parameters.get("axis", -1))


def _hard_silu(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    return layer.emit("mul", x, _hard_sigmoid(layer, x))


def _mish(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    return layer.emit("mul", x, layer.emit("tanh", layer.emit("softplus", x)))


def _log_sigmoid(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    return _negated(layer, layer.emit("softplus", _negated(layer, x)))


def _celu(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    alpha = float(parameters.get("alpha", 1.0))
    return _scaled(layer, layer.emit("elu", _scaled(layer, x, 1.0 / alpha), alpha=1.0), alpha)


def _glu(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    axis = int(parameters.get("axis", -1))
    size = x.shape[axis]
    if not isinstance(size, int) or size % 2:
        layer.refuse(f"glu halves axis {axis}, whose size is {size}")
    value = layer.emit("slice", x, axis=axis, start=0, stop=size // 2)
    gate = layer.emit("slice", x, axis=axis, start=size // 2, stop=TO_THE_END)
    return layer.emit("mul", value, layer.emit("sigmoid", gate))


def _tanh_shrink(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    return layer.emit("sub", x, layer.emit("tanh", x))


def _soft_shrink(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    threshold = float(parameters.get("threshold", 0.5))
    return layer.emit("sub", x, layer.emit("clip", x, minimum=-threshold, maximum=threshold))


def _hard_shrink(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    threshold = layer.like(x, float(parameters.get("threshold", 0.5)))
    outside = layer.emit("greater", layer.emit("abs", x), threshold)
    return layer.emit("where", outside, x, layer.like(x, 0.0))


def _threshold(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    threshold = layer.like(x, float(parameters.get("threshold", 20)))
    default = layer.like(x, float(parameters.get("default_value", 0)))
    return layer.emit("where", layer.emit("greater", x, threshold), x, default)


def _hard_tanh(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    return layer.emit("clip", x, minimum=-1.0, maximum=1.0)


def _squareplus(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    root = layer.emit("sqrt", _shifted(layer, layer.emit("mul", x, x), float(parameters.get("b", 4))))
    return _scaled(layer, layer.emit("add", x, root), 0.5)


def _sparse_plus(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    # (x + 1)^2 / 4 between -1 and 1, x above: the clipped square plus what exceeds 1.
    inner = _shifted(layer, layer.emit("clip", x, minimum=-1.0, maximum=1.0), 1.0)
    square = _scaled(layer, layer.emit("mul", inner, inner), 0.25)
    return layer.emit("add", square, layer.emit("relu", _shifted(layer, x, -1.0)))


def _sparse_sigmoid(layer: Layer, x: Value, parameters: Mapping[str, Any]) -> Value:
    return layer.emit("hard_sigmoid", x, alpha=0.5, beta=0.5)


ACTIVATIONS: dict[str, Activation] = {
    "celu": _celu,
    "elu": _elu,
    "exponential": _plain("exp"),
    "gelu": _gelu,
    "glu": _glu,
    "hard_shrink": _hard_shrink,
    "hard_sigmoid": lambda layer, x, parameters: _hard_sigmoid(layer, x),
    "hard_silu": _hard_silu,
    "hard_swish": _hard_silu,
    "hard_tanh": _hard_tanh,
    "leaky_relu": _leaky_relu,
    "linear": lambda layer, x, parameters: x,
    "log_sigmoid": _log_sigmoid,
    "log_softmax": _log_softmax,
    "mish": _mish,
    "relu": _relu,
    "relu6": _relu6,
    "selu": _plain("selu"),
    "sigmoid": _plain("sigmoid"),
    "silu": _plain("silu"),
    "soft_shrink": _soft_shrink,
    "softmax": _softmax,
    "softplus": _plain("softplus"),
    "softsign": _plain("softsign"),
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": _sparse_sigmoid,
    "sparsemax": _sparsemax,
    "squareplus": _squareplus,
    "swish": _plain("silu"),
    "tanh": _plain("tanh"),
    "tanh_shrink": _tanh_shrink,
    "threshold": _threshold,
}
"""Every activation by the name in a configuration."""


def apply_activation(layer: Layer, x: Value, spec: Any) -> Value:
    """Apply an activation as a configuration states it: a name, or an object with a class and parameters."""
    name, parameters = spec, {}
    if isinstance(spec, dict):
        inner = spec.get("config", {})
        name = inner if isinstance(inner, str) else spec.get("class_name")
        parameters = inner if isinstance(inner, dict) else {}
        name = _LAYER_ACTIVATIONS.get(str(name), name)
    function = ACTIVATIONS.get(str(name))
    if function is None:
        layer.refuse(f"activation {name!r} is not one that sparsec reads; it reads {', '.join(sorted(ACTIVATIONS))}")
    return function(layer, x, parameters)


_LAYER_ACTIVATIONS = {"ELU": "elu", "LeakyReLU": "leaky_relu", "ReLU": "relu", "Softmax": "softmax"}
"""Activation layers that stand where a configuration expects the name of a function."""


@reads("Activation")
def activation(layer: Layer) -> Value:
    """Activation: the function that the configuration names."""
    return layer.activation(layer.input)


@reads("ReLU")
def relu(layer: Layer) -> Value:
    """ReLU with its three parameters."""
    return _relu(layer, layer.input, layer.config)


@reads("LeakyReLU")
def leaky_relu(layer: Layer) -> Value:
    """LeakyReLU: the slope is called ``alpha`` in Keras 2."""
    slope = layer.number("negative_slope", layer.number("alpha", LEAKY_LAYER_SLOPE))
    return layer.emit("relu", layer.input, negative_slope=slope)


@reads("ThresholdedReLU")
def thresholded_relu(layer: Layer) -> Value:
    """ThresholdedReLU of Keras 2: x above ``theta``, else 0."""
    x = layer.input
    above = layer.emit("greater", x, layer.like(x, layer.number("theta", 1.0)))
    return layer.emit("where", above, x, layer.like(x, 0.0))


@reads("ELU")
def elu(layer: Layer) -> Value:
    """ELU."""
    return layer.emit("elu", layer.input, alpha=layer.number("alpha", 1.0))


@reads("PReLU")
def prelu(layer: Layer) -> Value:
    """PReLU: one learnt slope for each position, those on shared axes excepted."""
    x = layer.input
    shared = {axis % x.rank for axis in layer.option("shared_axes", ())}
    shape = tuple(1 if axis in shared else size for axis, size in enumerate(x.shape))[1:]
    return layer.emit("prelu", x, layer.weight("alpha", shape))


@reads("Softmax")
def softmax(layer: Layer) -> Value:
    """Softmax over one axis."""
    axis = layer.option("axis", -1)
    if isinstance(axis, list) and len(axis) == 1:
        axis = axis[0]
    if not isinstance(axis, int):
        layer.refuse(f"softmax over the axes {axis} together is not read; use one axis")
    if len(layer.inputs) > 1:
        layer.refuse("a mask given to softmax is not read")
    return layer.emit("softmax", layer.input, axis=axis)
