"""Activations: the functions that Keras names, the layers that are activations, and the operations.

Where Keras 2 and Keras 3 mean different functions by one name, the version that saved the model decides.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from sparsec.frontends.layer import ALWAYS, Layer, Value, alike, reads, reads_operation
from sparsec.frontends.options import Options
from sparsec.ops import TO_THE_END
from sparsec.ops.activations import (
    above,
    celu,
    hard_shrink,
    hard_silu,
    log_sigmoid,
    mish,
    scaled,
    shifted,
    soft_shrink,
    sparse_plus,
    squareplus,
    tanh_shrink,
)

Activation = Callable[[Layer, Value, Options], Value]
"""A function of the layer it belongs to, its input, and the parameters given with its name."""

HARD_SIGMOID = {2: (0.2, 0.5), 3: (1.0 / 6.0, 0.5)}
"""Slope and offset by generation of Keras."""

LEAKY_SLOPE = 0.2
"""The slope of the *function* ``leaky_relu``; the layer LeakyReLU has another default."""

LEAKY_LAYER_SLOPE = 0.3

REPLACES_MASKED, ZEROES_MASKED = (3, 13), (3, 10)
"""The versions since which Softmax replaces masked elements instead of adding to them, and makes them 0 afterwards."""


def _plain(op: str) -> Activation:
    return lambda layer, x, parameters: layer.emit(op, x)


def _log_softmax(layer: Layer, x: Value, parameters: Options) -> Value:
    return layer.emit("log_softmax", x, axis=parameters.integer("axis", -1))


def _linear(layer: Layer, x: Value, parameters: Options) -> Value:
    return x


def _relu(layer: Layer, x: Value, parameters: Options) -> Value:
    ceiling = parameters.number("max_value", 0.0) if parameters.option("max_value") is not None else None
    slope, threshold = parameters.number("negative_slope", parameters.number("alpha", 0.0)), parameters.number("threshold", 0.0)
    if threshold < 0:
        parameters.refuse(f"threshold = {threshold} is negative")
    if threshold == 0:
        return layer.emit("relu", x, max_value=ceiling, negative_slope=slope)
    below = scaled(layer, shifted(layer, x, -threshold), slope) if slope else layer.like(x, 0.0)
    y = above(layer, x, threshold, below)
    return y if ceiling is None else layer.emit("minimum", y, layer.like(x, ceiling))


def _relu6(layer: Layer, x: Value, parameters: Options) -> Value:
    return layer.emit("relu", x, max_value=6.0)


def _leaky(default: float) -> Activation:
    # The slope is called ``alpha`` in Keras 2.
    return lambda layer, x, parameters: layer.emit(
        "relu", x, negative_slope=parameters.number("negative_slope", parameters.number("alpha", default))
    )


def _elu(layer: Layer, x: Value, parameters: Options) -> Value:
    return layer.emit("elu", x, alpha=parameters.number("alpha", 1.0))


def _gelu(layer: Layer, x: Value, parameters: Options) -> Value:
    return layer.emit("gelu", x, approximate=parameters.flag("approximate", False))


def _softmax(layer: Layer, x: Value, parameters: Options) -> Value:
    axes = parameters.axes("axis", x.rank)
    if len(axes) == 1:
        return layer.emit("softmax", x, axis=axes[0])
    # Several axes together: moved to the end and made one.
    front = [axis for axis in range(x.rank) if axis not in axes]
    if front[:1] != [0]:
        parameters.refuse("softmax over the batch axis is not read")
    permutation = (*front, *sorted(axes))
    moved = layer.emit("transpose", x, permutation=permutation)
    kept = [layer.size(moved, axis) for axis in range(1, len(front))]
    merged = [layer.size(moved, axis) for axis in range(len(front), x.rank)]
    y = layer.emit("softmax", layer.emit("reshape", moved, shape=(0, *kept, prod(merged))), axis=-1)
    y = layer.emit("reshape", y, shape=(0, *kept, *merged))
    return layer.emit("transpose", y, permutation=tuple(permutation.index(axis) for axis in range(x.rank)))


MASKED_OUT = -1e9
"""What takes the place of masked elements before softmax, or is added to them."""


def _masked_softmax(layer: Layer, x: Value, parameters: Options) -> Value:
    """The layer Softmax: masked elements take no part, and become 0 where Keras makes sure that they do."""
    mask = None if parameters is not layer else layer.mask
    if mask is None:
        return _softmax(layer, x, parameters)
    release = layer.saved_by.release
    if release >= REPLACES_MASKED:
        y = _softmax(layer, layer.emit("where", mask, x, layer.like(x, MASKED_OUT)), parameters)
    else:
        added = layer.emit("where", mask, layer.like(x, 0.0), layer.like(x, MASKED_OUT))
        y = _softmax(layer, layer.emit("add", x, added), parameters)
    return layer.emit("where", mask, y, layer.like(y, 0.0)) if release >= ZEROES_MASKED else y


def _hard_sigmoid(layer: Layer, x: Value, parameters: Options) -> Value:
    alpha, beta = HARD_SIGMOID[layer.saved_by.generation]
    return layer.emit("hard_sigmoid", x, alpha=alpha, beta=beta)


def _hard_silu(layer: Layer, x: Value, parameters: Options) -> Value:
    return hard_silu(layer, x, *HARD_SIGMOID[layer.saved_by.generation])


def _composed(compose: Callable[[Layer, Value], Value]) -> Activation:
    return lambda layer, x, parameters: compose(layer, x)


def _celu(layer: Layer, x: Value, parameters: Options) -> Value:
    alpha = parameters.number("alpha", 1.0)
    if alpha == 0:
        parameters.refuse("alpha = 0 divides by zero")
    return celu(layer, x, alpha)


def _glu(layer: Layer, x: Value, parameters: Options) -> Value:
    (axis,) = parameters.axes("axis", x.rank)
    size = layer.size(x, axis)
    if size % 2:
        parameters.refuse(f"glu halves axis {axis}, whose size is {size}")
    value = layer.emit("slice", x, axis=axis, start=0, stop=size // 2)
    gate = layer.emit("slice", x, axis=axis, start=size // 2, stop=TO_THE_END)
    return layer.emit("mul", value, layer.emit("sigmoid", gate))


def _soft_shrink(layer: Layer, x: Value, parameters: Options) -> Value:
    return soft_shrink(layer, x, parameters.number("threshold", 0.5))


def _hard_shrink(layer: Layer, x: Value, parameters: Options) -> Value:
    return hard_shrink(layer, x, parameters.number("threshold", 0.5))


def _threshold(layer: Layer, x: Value, parameters: Options) -> Value:
    below = layer.like(x, parameters.number("default_value", parameters.number("value", 0.0)))
    return above(layer, x, parameters.number("threshold", 20.0), below)


def _hard_tanh(layer: Layer, x: Value, parameters: Options) -> Value:
    return layer.emit("clip", x, minimum=-1.0, maximum=1.0)


def _squareplus(layer: Layer, x: Value, parameters: Options) -> Value:
    return squareplus(layer, x, parameters.number("b", 4.0))


def _sparsemax(layer: Layer, x: Value, parameters: Options) -> Value:
    return layer.emit("sparsemax", x, axis=parameters.option("axis", -1))


def _sparse_sigmoid(layer: Layer, x: Value, parameters: Options) -> Value:
    return layer.emit("hard_sigmoid", x, alpha=0.5, beta=0.5)


ACTIVATIONS: dict[str, Activation] = {
    "celu": _celu,
    "elu": _elu,
    "exponential": _plain("exp"),
    "gelu": _gelu,
    "glu": _glu,
    "hard_shrink": _hard_shrink,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
    "hard_swish": _hard_silu,
    "hard_tanh": _hard_tanh,
    "leaky_relu": _leaky(LEAKY_SLOPE),
    "linear": _linear,
    "log_sigmoid": _composed(log_sigmoid),
    "log_softmax": _log_softmax,
    "mish": _composed(mish),
    "relu": _relu,
    "relu6": _relu6,
    "selu": _plain("selu"),
    "sigmoid": _plain("sigmoid"),
    "silu": _plain("silu"),
    "soft_shrink": _soft_shrink,
    "softmax": _softmax,
    "softplus": _plain("softplus"),
    "softsign": _plain("softsign"),
    "sparse_plus": _composed(sparse_plus),
    "sparse_sigmoid": _sparse_sigmoid,
    "sparsemax": _sparsemax,
    "squareplus": _squareplus,
    "swish": _plain("silu"),
    "tanh": _plain("tanh"),
    "tanh_shrink": _composed(tanh_shrink),
    "threshold": _threshold,
}
"""Every activation by the name in a configuration."""

ACTIVATION_LAYERS: dict[str, Activation] = {
    "ELU": _elu,
    "LeakyReLU": _leaky(LEAKY_LAYER_SLOPE),
    "ReLU": _relu,
    "Softmax": _masked_softmax,
}
"""Layers that are activations without weights, and that may stand where a configuration expects the name of a function."""

_OPERATION_NAMES: dict[str, tuple[str, ...]] = {
    "celu": ("Celu",),
    "elu": ("Elu", "nn.elu"),
    "exponential": ("Exp", "math.exp"),
    "gelu": ("Gelu", "nn.gelu"),
    "glu": ("Glu",),
    "hard_shrink": ("HardShrink",),
    "hard_sigmoid": ("HardSigmoid",),
    "hard_silu": ("HardSilu",),
    "hard_tanh": ("HardTanh",),
    "leaky_relu": ("LeakyRelu", "nn.leaky_relu"),
    "log_sigmoid": ("LogSigmoid", "math.log_sigmoid"),
    "log_softmax": ("LogSoftmax", "nn.log_softmax"),
    "relu": ("Relu", "ReLU", "nn.relu"),
    "relu6": ("Relu6", "nn.relu6"),
    "selu": ("Selu", "nn.selu"),
    "sigmoid": ("Sigmoid", "math.sigmoid", "nn.sigmoid"),
    "silu": ("Silu", "nn.silu", "nn.swish"),
    "soft_shrink": ("SoftShrink",),
    "softmax": ("Softmax", "nn.softmax"),
    "softplus": ("Softplus", "math.softplus", "nn.softplus"),
    "softsign": ("Softsign", "nn.softsign"),
    "sparse_plus": ("SparsePlus",),
    "sparse_sigmoid": ("SparseSigmoid",),
    "sparsemax": ("Sparsemax",),
    "squareplus": ("Squareplus",),
    "tanh": ("Tanh", "math.tanh", "nn.tanh"),
    "tanh_shrink": ("TanhShrink",),
    "threshold": ("Threshold",),
}
"""What an activation is called as an operation: in Keras 3 the class of the node, in Keras 2 the function of a TFOpLambda."""

_PARAMETERS = ("alpha", "approximate", "axis", "b", "default_value", "max_value", "negative_slope", "threshold", "value")


def stated_activation(layer: Layer, spec: Any) -> tuple[str, Options]:
    """The name and the parameters of an activation that a configuration states: by name, or as an object with a class."""
    name, parameters, own = spec, {}, True
    if isinstance(spec, dict):
        name, inner = spec.get("class_name"), spec.get("config")
        module = str(spec.get("module") or "keras").partition(".")[0]
        own = module in ("keras", "tf_keras", "builtins")
        if isinstance(inner, dict):
            parameters = inner
        elif name in ("function", None) and isinstance(inner, str):
            name = inner
    if name == "Activation":
        return stated_activation(layer, parameters.get("activation"))
    name = str(name)
    if not own or not (name in ACTIVATION_LAYERS or name in ACTIVATIONS):
        layer.refuse(f"its activation {name!r} is not read{alike(name, ACTIVATIONS)}; README.md lists those that are")
    return name, Options(parameters, f"{layer.subject}, activation {name!r}")


def apply_activation(layer: Layer, x: Value, spec: Any) -> Value:
    """Apply an activation as a configuration states it."""
    name, parameters = stated_activation(layer, spec)
    function = ACTIVATION_LAYERS.get(name) or ACTIVATIONS[name]
    return function(layer, x, parameters)


def _register_layer(class_name: str, function: Activation) -> None:
    @reads(class_name, passes_mask=ALWAYS)
    def read(layer: Layer) -> Value:
        return function(layer, layer.input, layer)


def _register_operations(names: tuple[str, ...], function: Activation) -> None:
    @reads_operation(*names)
    def read(layer: Layer) -> Value:
        x = layer.operand(0, "x", "features", "logits")
        if not isinstance(x, Value):
            layer.refuse("its operand is not a tensor")
        # Keras 3 keeps parameters in the node's configuration, Keras 2 in the call.
        given = {name: layer.operand(99, name) for name in _PARAMETERS}
        stated = {name: value for name, value in given.items() if value is not None}
        return function(layer, x, Options({**layer.config, **stated}, layer.subject))


for _class_name, _function in ACTIVATION_LAYERS.items():
    _register_layer(_class_name, _function)
for _name, _names in _OPERATION_NAMES.items():
    _register_operations(_names, ACTIVATIONS[_name])


@reads("Activation", passes_mask=ALWAYS)
def activation(layer: Layer) -> Value:
    """Activation: the function that the configuration names."""
    return apply_activation(layer, layer.input, layer.option("activation"))


@reads("ThresholdedReLU", passes_mask=ALWAYS)
def thresholded_relu(layer: Layer) -> Value:
    """ThresholdedReLU of Keras 2: x above ``theta``, else 0."""
    x = layer.input
    return above(layer, x, layer.number("theta", 1.0), layer.like(x, 0.0))


@reads("PReLU", passes_mask=ALWAYS)
def prelu(layer: Layer) -> Value:
    """PReLU: one learnt slope for each position, those on shared axes excepted."""
    x = layer.input
    shape = [layer.size(x, axis) for axis in range(1, x.rank)]
    shared = layer.option("shared_axes", [])
    for axis in shared if isinstance(shared, list) else [shared]:
        # Keras counts axes with the batch, and takes one off: -1 is the last but one.
        if type(axis) is not int or not -len(shape) < axis <= len(shape):
            layer.refuse(f"shared_axes = {shared!r} does not name axes of its input")
        shape[axis - 1] = 1
    return layer.emit("prelu", x, layer.weight("alpha", tuple(shape)))
