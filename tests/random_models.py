"""Random Keras models of everything that shrinking has rules for.

A model is a function of its *recipe*: a few blocks, each a short row of numbers that its choices are read from. A seed gives a
recipe, Hypothesis draws one, and ``tests/random_models_tool.py`` makes one that fails smaller by taking out blocks and numbers.
A row that ends gives zeros, and zero is the simplest choice everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers as L

Row = tuple[int, ...]

ROW = 40
LARGEST = 2**16
MAX_BLOCKS = 7


@dataclass(frozen=True)
class Recipe:
    """What a model is made from; ``salt`` decides its weights."""

    salt: int
    head: Row
    blocks: tuple[Row, ...]
    tail: Row

    @classmethod
    def from_seed(cls, seed: int) -> Recipe:
        rng = np.random.default_rng(seed)

        def row() -> Row:
            return tuple(int(number) for number in rng.integers(0, LARGEST, ROW))

        return cls(seed, row(), tuple(row() for _ in range(int(rng.integers(1, MAX_BLOCKS + 1)))), row())


def recipes() -> st.SearchStrategy[Recipe]:
    """Recipes, for Hypothesis."""
    row = st.lists(st.integers(0, LARGEST - 1), max_size=ROW).map(tuple)
    return st.builds(Recipe, st.integers(0, 999), row, st.lists(row, max_size=MAX_BLOCKS).map(tuple), row)


class Choices:
    """Choices read from a row, one number each."""

    def __init__(self, row: Row) -> None:
        self._numbers = iter(row)

    def below(self, bound: int) -> int:
        return next(self._numbers, 0) % bound

    def between(self, low: int, high: int) -> int:
        return low + self.below(high - low + 1)

    def flip(self, percent: int) -> bool:
        return self.below(100) >= 100 - percent

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.below(len(options))]


ACTIVATIONS = (
    "relu",
    "softplus",
    "sigmoid",
    "silu",
    "gelu",
    "tanh",
    "elu",
    "selu",
    "relu6",
    "hard_sigmoid",
    "hard_silu",
    "softsign",
    "mish",
    "linear",
)
ACTIVATION_LAYERS: tuple[Callable[[], Any], ...] = (
    lambda: L.ReLU(),
    lambda: L.LeakyReLU(negative_slope=0.2),
    lambda: L.ReLU(max_value=1.5, negative_slope=0.1, threshold=0.2),
    lambda: L.ELU(alpha=0.7),
    lambda: L.PReLU(),
)
CONV = {1: L.Conv1D, 2: L.Conv2D}
DEPTHWISE = {1: L.DepthwiseConv1D, 2: L.DepthwiseConv2D}
SEPARABLE = {1: L.SeparableConv1D, 2: L.SeparableConv2D}
TRANSPOSED = {1: L.Conv1DTranspose, 2: L.Conv2DTranspose}
MAX_POOL = {1: L.MaxPooling1D, 2: L.MaxPooling2D}
AVERAGE_POOL = {1: L.AveragePooling1D, 2: L.AveragePooling2D}
ZERO_PADDING = {1: L.ZeroPadding1D, 2: L.ZeroPadding2D}
CROPPING = {1: L.Cropping1D, 2: L.Cropping2D}
UPSAMPLING = {1: L.UpSampling1D, 2: L.UpSampling2D}
GLOBAL_AVERAGE = {1: L.GlobalAveragePooling1D, 2: L.GlobalAveragePooling2D}
GLOBAL_MAX = {1: L.GlobalMaxPooling1D, 2: L.GlobalMaxPooling2D}
MAX_SIZE = 14
MAX_FLAT = 400
WORDS = 12

# Weights are drawn anew: Keras' own initialisers would only take time.
CHEAP = {"kernel_initializer": "zeros"}
CHEAP_SEPARABLE = {"depthwise_initializer": "zeros", "pointwise_initializer": "zeros"}


def sizes(x: Any) -> tuple[int, ...]:
    """The spatial sizes of a value."""
    return tuple(x.shape[1:-1])


def rank(x: Any) -> int:
    """The number of spatial axes."""
    return len(x.shape) - 2


def channels(x: Any) -> int:
    return int(x.shape[-1])


@dataclass
class Net:
    """A model as it grows.

    Attributes:
        inputs: of the model.
        seen: values that later blocks may go back to.
        taps: outputs beside the last one.
        waiting: inputs that nothing reads yet.
    """

    inputs: list[Any] = field(default_factory=list)
    seen: list[Any] = field(default_factory=list)
    taps: list[Any] = field(default_factory=list)
    waiting: list[Any] = field(default_factory=list)


def activated(c: Choices, x: Any) -> Any:
    if c.flip(30):
        return c.pick(ACTIVATION_LAYERS)()(x)
    if c.flip(5):
        # What is exponential must stay tame, or rounding decides the outputs.
        return L.Activation("exponential")(L.Activation("tanh")(x))
    return L.Activation(c.pick(ACTIVATIONS[:-1]))(x)


def window(c: Choices, x: Any, largest: int = 5) -> int:
    """A window that fits into the spatial sizes."""
    fitting = [size for size in (1, 3, 2, 5) if size <= min((largest, *sizes(x)))]
    return c.pick(fitting)


def linear_layer(c: Choices, x: Any, units: int, keep_size: bool = False) -> Any:
    """A layer that sums over channels, not called yet; ``keep_size`` leaves the spatial sizes alone."""
    options: dict[str, Any] = {"use_bias": not c.flip(40), **CHEAP}
    options["activation"] = c.pick(ACTIVATIONS) if c.flip(30) else None
    if rank(x) == 0 or c.flip(8):
        return L.Dense(units, **options)
    size = window(c, x)
    options["padding"] = "same" if keep_size or c.flip(50) else "valid"
    if not keep_size and c.flip(25):
        options["strides"] = 2
    elif size > 1 and c.flip(15) and (options["padding"] == "same" or 2 * (size - 1) + 1 <= min(sizes(x))):
        options["dilation_rate"] = 2
    if c.flip(12):
        groups = [g for g in (2, 3, 4) if channels(x) % g == 0 and units % g == 0]
        # TensorFlow on a CPU runs no grouped convolution that is dilated.
        if groups and "dilation_rate" not in options:
            options["groups"] = c.pick(groups)
    return CONV[rank(x)](units, size, **options)


def norm_layer(c: Choices) -> Any:
    kind = c.below(8)
    return L.BatchNormalization(scale=kind != 6, center=kind not in (5, 6), epsilon=c.pick([1e-3, 1e-2]))


def linear(c: Choices, x: Any, units: int | None = None, keep_size: bool = False) -> Any:
    """A linear layer with, perhaps, normalisation and activation around it."""
    if c.flip(15):
        x = norm_layer(c)(x)
    x = linear_layer(c, x, units or c.between(2, 8), keep_size)(x)
    if c.flip(50):
        x = norm_layer(c)(x)
    if c.flip(60):
        x = activated(c, x)
    return norm_layer(c)(x) if c.flip(12) else x


def branch(c: Choices, x: Any, units: int | None, depth: int) -> Any:
    """Up to ``depth`` linear layers that keep the spatial sizes; none gives the value itself where its channels fit."""
    layers = c.between(0 if units in (None, channels(x)) else 1, depth)
    for index in range(layers):
        x = linear(c, x, units if index == layers - 1 else None, keep_size=True)
    return x


# --- blocks -------------------------------------------------------------------------------------------------------------

Block = Callable[[Net, Choices, Any], Any]
CHAIN: list[Block] = []
"""Blocks that are a chain of layers, as a Sequential model needs them."""
BLOCKS: list[Block] = []
"""All blocks, the simplest first."""


def block(weight: int = 1, chain: bool = False) -> Callable[[Block], Block]:
    def register(function: Block) -> Block:
        BLOCKS.extend([function] * weight)
        CHAIN.extend([function] * (weight if chain else 0))
        return function

    return register


@block(weight=3, chain=True)
def some_linear(net: Net, c: Choices, x: Any) -> Any:
    return linear(c, x)


@block(chain=True)
def some_activation(net: Net, c: Choices, x: Any) -> Any:
    return activated(c, x)


@block(chain=True)
def some_norm(net: Net, c: Choices, x: Any) -> Any:
    x = norm_layer(c)(x)
    return norm_layer(c)(x) if c.flip(30) else x


@block(weight=2, chain=True)
def depthwise(net: Net, c: Choices, x: Any) -> Any:
    if rank(x) == 0:
        return linear(c, x)
    x = linear(c, x, keep_size=True) if c.flip(50) else x
    options = {"padding": c.pick(["same", "valid"]), "strides": c.pick([1, 1, 2]), "use_bias": c.flip(50)}
    layer = DEPTHWISE[rank(x)](window(c, x), depth_multiplier=c.pick([1, 1, 2]), depthwise_initializer="zeros", **options)
    x = layer(x)
    x = norm_layer(c)(x) if c.flip(40) else x
    return activated(c, x) if c.flip(50) else x


@block(chain=True)
def separable(net: Net, c: Choices, x: Any) -> Any:
    if rank(x) == 0:
        return linear(c, x)
    layer = SEPARABLE[rank(x)](
        c.between(2, 8),
        window(c, x),
        padding=c.pick(["same", "valid"]),
        depth_multiplier=c.pick([1, 2]),
        use_bias=c.flip(60),
        activation=c.pick(["relu", None]),
        **CHEAP_SEPARABLE,
    )
    return layer(x)


@block(chain=True)
def transposed(net: Net, c: Choices, x: Any) -> Any:
    if rank(x) == 0 or 2 * max(sizes(x)) > MAX_SIZE:
        return linear(c, x)
    options = {"padding": c.pick(["same", "valid"]), "strides": c.pick([1, 2]), "use_bias": c.flip(60)}
    x = TRANSPOSED[rank(x)](c.between(2, 6), c.pick([1, 2, 3]), **options, **CHEAP)(x)
    return activated(c, x) if c.flip(60) else x


@block(weight=3)
def residual(net: Net, c: Choices, x: Any) -> Any:
    units = channels(x) if c.flip(50) else c.between(2, 8)
    branches = [branch(c, x, units, 2) for _ in range(c.pick([2, 2, 3]))]
    x = branches[0] + branches[1] if c.flip(12) else L.Add()(branches)
    return activated(c, x) if c.flip(60) else x


@block(weight=2)
def concatenation(net: Net, c: Choices, x: Any) -> Any:
    branches = [branch(c, x, None, 2) for _ in range(c.pick([2, 2, 3]))]
    axis = -2 if rank(x) and c.flip(8) and len({channels(b) for b in branches}) == 1 else -1
    x = L.Concatenate(axis=axis)(branches)
    return x if channels(x) <= 12 else linear(c, x, c.between(2, 6), keep_size=True)


@block()
def merging(net: Net, c: Choices, x: Any) -> Any:
    kind = c.pick([L.Average, L.Maximum, L.Minimum, L.Subtract, L.Multiply])
    units = c.between(2, 6)
    first, second = branch(c, x, units, 1), branch(c, x, units, 2)
    if kind is L.Multiply:
        first, second = L.Activation("tanh")(first), L.Activation("tanh")(second)
    return kind()([first, second])


@block(weight=2)
def gate(net: Net, c: Choices, x: Any) -> Any:
    """Squeeze and excite; for vectors a plain gate."""
    x = linear(c, x, c.between(2, 8), keep_size=True) if c.flip(50) else x
    units = channels(x)
    squeezed = x if rank(x) == 0 else GLOBAL_AVERAGE[rank(x)](keepdims=c.flip(50))(x)
    small = L.Dense(c.between(1, 4), activation=c.pick(["relu", "silu"]), use_bias=not c.flip(20), **CHEAP)(squeezed)
    excited = L.Dense(units, activation=c.pick(["sigmoid", "hard_sigmoid"]), use_bias=not c.flip(20), **CHEAP)(small)
    if rank(x) and rank(excited) == 0:
        excited = L.Reshape((*(1,) * rank(x), units))(excited)
    return L.Multiply()([x, excited])


@block(weight=2, chain=True)
def pooling(net: Net, c: Choices, x: Any) -> Any:
    if rank(x) == 0 or min(sizes(x)) < 3:
        return activated(c, x)
    layer = c.pick([MAX_POOL, AVERAGE_POOL])[rank(x)]
    return layer(c.pick([2, 3]), strides=c.pick([2, 1]), padding=c.pick(["valid", "same"]))(x)


@block(chain=True)
def upsampling(net: Net, c: Choices, x: Any) -> Any:
    if rank(x) == 0 or 2 * max(sizes(x)) > MAX_SIZE:
        return activated(c, x)
    options = {"interpolation": c.pick(["nearest", "bilinear"])} if rank(x) == 2 else {}
    return UPSAMPLING[rank(x)](2, **options)(x)


@block(weight=2, chain=True)
def zero_padding(net: Net, c: Choices, x: Any) -> Any:
    if rank(x) == 0 or max(sizes(x)) + 2 > MAX_SIZE:
        return activated(c, x)
    amounts = tuple((c.below(3), c.below(3)) for _ in sizes(x))
    x = ZERO_PADDING[rank(x)](amounts if rank(x) > 1 else amounts[0])(x)
    match c.below(5):
        case 0:
            return linear(c, x)
        case 1 if min(sizes(x)) >= 2:
            return MAX_POOL[rank(x)](2, strides=c.pick([1, 2]))(x)
        case 2:
            return DEPTHWISE[rank(x)](window(c, x), depthwise_initializer="zeros")(x)
    return x


@block(chain=True)
def cropping(net: Net, c: Choices, x: Any) -> Any:
    if rank(x) == 0 or min(sizes(x)) < 4:
        return activated(c, x)
    amounts = tuple((c.below(2), c.below(2)) for _ in sizes(x))
    return CROPPING[rank(x)](amounts if rank(x) > 1 else amounts[0])(x)


@block(weight=2)
def shared_layer(net: Net, c: Choices, x: Any) -> Any:
    """One layer called twice: on two values, or on its own result."""
    units = channels(x) if c.flip(60) else c.between(2, 6)
    layer = linear_layer(c, x, units, keep_size=True)
    first = layer(x)
    if units == channels(x) and c.flip(60):
        middle = linear(c, first, units, keep_size=True) if c.flip(50) else first
        second = layer(activated(c, middle))
    else:
        second = layer(activated(c, x))
    merged = c.pick([L.Add, L.Concatenate, L.Maximum])()([first, second])
    return merged if channels(merged) <= 12 else linear(c, merged, c.between(2, 6), keep_size=True)


@block()
def shared_norm(net: Net, c: Choices, x: Any) -> Any:
    units = channels(x)
    layer = norm_layer(c)
    return L.Add()([layer(x), layer(linear(c, x, units, keep_size=True))])


@block(weight=2)
def nested_model(net: Net, c: Choices, x: Any) -> Any:
    """A model as a layer, called once or twice."""
    inner = keras.Input(x.shape[1:])
    units = channels(x) if c.flip(50) else c.between(2, 6)
    y = linear(c, inner, units, keep_size=True)
    if c.flip(40):
        y = L.Add()([y, linear(c, inner, units, keep_size=True)])
    y = activated(c, y)
    model = keras.Model(inner, y)
    if c.flip(30) and y.shape == inner.shape:
        return L.Add()([model(x), model(model(x))])
    return L.Concatenate()([model(x), model(activated(c, x))]) if c.flip(25) else model(x)


@block(chain=True)
def nothing_at_inference(net: Net, c: Choices, x: Any) -> Any:
    layer = c.pick([lambda: L.Dropout(0.3), lambda: L.GaussianNoise(0.1), lambda: L.ActivityRegularization(l2=1e-3)])
    return layer()(x)


@block(chain=True)
def rescaling(net: Net, c: Choices, x: Any) -> Any:
    return L.Rescaling(c.pick([0.5, -1.5]), offset=c.pick([0.0, 0.3, -0.7]))(x)


@block(chain=True)
def layer_norm(net: Net, c: Choices, x: Any) -> Any:
    """Opaque: it needs all channels. The large epsilon keeps rounding from growing where a position hardly varies."""
    return L.LayerNormalization(epsilon=0.1)(x)


@block(chain=True)
def reshaped(net: Net, c: Choices, x: Any) -> Any:
    """Reshapes that keep channels whole, split them, or run them together."""
    if rank(x) == 0:
        shapes = [(1, 1, channels(x)), (1, channels(x)), (channels(x), 1)]
        return L.Reshape(c.pick(shapes))(x)
    height, width = sizes(x)[0], int(np.prod(sizes(x)[1:]))
    shapes = [(height * width, channels(x))]
    if rank(x) == 2:
        shapes.append((height, width * channels(x)))
        shapes.append((width, height, channels(x)))
    else:
        shapes.append((height, 1, channels(x)))
    if channels(x) % 2 == 0:
        shapes.append((*sizes(x)[:-1], 2 * sizes(x)[-1], channels(x) // 2))
    x = L.Reshape(c.pick([shape for shape in shapes if shape[-1] <= 60] or shapes[:1]))(x)
    return linear(c, x, c.between(2, 6))


@block(chain=True)
def permuted(net: Net, c: Choices, x: Any) -> Any:
    match rank(x):
        case 1:
            return L.Permute((2, 1))(x) if sizes(x)[0] <= 12 else activated(c, x)
        case 2:
            order = c.pick([(2, 1, 3), (2, 1, 3), (3, 1, 2), (1, 3, 2)])
            x = L.Permute(order)(x)
            return x if order[-1] == 3 else linear(c, x, c.between(2, 6))
    return activated(c, x)


@block(chain=True)
def to_vector(net: Net, c: Choices, x: Any) -> Any:
    if rank(x) == 0:
        return linear(c, x)
    if c.flip(50) and np.prod(x.shape[1:]) <= MAX_FLAT:
        return linear(c, L.Flatten()(x))
    return c.pick([GLOBAL_AVERAGE, GLOBAL_MAX])[rank(x)]()(x)


def as_sequence(x: Any) -> Any:
    """A value as a sequence: rows of an image become steps, a vector a single step."""
    if rank(x) == 0:
        return L.Reshape((1, channels(x)))(x)
    return x if rank(x) == 1 else L.Reshape((sizes(x)[0], sizes(x)[1] * channels(x)))(x)


@block(weight=2, chain=True)
def recurrent(net: Net, c: Choices, x: Any) -> Any:
    x = as_sequence(x)
    both = c.flip(30)
    options = {"return_sequences": not c.flip(40), "go_backwards": not both and c.flip(20), "use_bias": not c.flip(20)}
    cell = c.pick([L.LSTM, L.GRU, L.SimpleRNN])
    if cell is L.GRU:
        options["reset_after"] = not c.flip(40)
    layer = cell(c.between(2, 5), recurrent_initializer="zeros", **CHEAP, **options)
    return L.Bidirectional(layer, merge_mode=c.pick(["concat", "sum", "ave"]))(x) if both else layer(x)


@block(weight=2)
def attention(net: Net, c: Choices, x: Any) -> Any:
    """Attention of a sequence to itself, as a residual branch or not."""
    x = as_sequence(x)
    x = linear(c, x, c.between(2, 6), keep_size=True)
    if sizes(x)[0] == 1:
        # Keras warns of a softmax over a single step.
        return x
    if c.flip(30):
        return L.Attention(use_scale=False)([x, linear(c, x, channels(x), keep_size=True)])
    # With heads of a single number, as many as there are steps, Keras 3.15 mixes up the axes of its projections on TensorFlow.
    y = L.MultiHeadAttention(c.between(1, 3), c.between(2, 4), use_bias=not c.flip(30), **CHEAP)(x, x)
    return L.Add()([x, y]) if c.flip(60) else y


@block(chain=True)
def layer_at_every_step(net: Net, c: Choices, x: Any) -> Any:
    if rank(x) == 2:
        return L.TimeDistributed(L.Conv1D(c.between(2, 5), 2, padding="same", **CHEAP))(x)
    return L.TimeDistributed(L.Dense(c.between(2, 5), activation=c.pick(["relu", "softplus"]), **CHEAP))(as_sequence(x))


@block()
def repeated_vector(net: Net, c: Choices, x: Any) -> Any:
    return L.RepeatVector(c.between(2, 4))(x) if rank(x) == 0 else activated(c, x)


@block()
def tap(net: Net, c: Choices, x: Any) -> Any:
    """Another output: the value itself, or something computed from it."""
    if c.flip(30):
        net.taps.append(L.Activation("linear")(x))
        return linear(c, x)
    vector = x if rank(x) == 0 else GLOBAL_AVERAGE[rank(x)]()(x)
    net.taps.append(L.Dense(c.between(2, 4), **CHEAP)(vector))
    return x


@block(weight=2)
def back_reference(net: Net, c: Choices, x: Any) -> Any:
    """A merge with an earlier value, of the same spatial sizes."""
    fitting = [value for value in net.seen if sizes(value) == sizes(x) and rank(value) == rank(x)]
    if not fitting:
        return activated(c, x)
    other = c.pick(fitting)
    if c.flip(50):
        merged = L.Concatenate()([x, other])
        return merged if channels(merged) <= 12 else linear(c, merged, c.between(2, 6), keep_size=True)
    if channels(other) != channels(x):
        other = linear(c, other, channels(x), keep_size=True)
    return c.pick([L.Add, L.Add, L.Maximum, L.Subtract])()([x, other])


@block()
def broadcast(net: Net, c: Choices, x: Any) -> Any:
    """An Add that broadcasts over space or over channels."""
    if rank(x) == 0:
        return linear(c, x)
    if c.flip(50):
        other = GLOBAL_AVERAGE[rank(x)](keepdims=True)(x)
        other = linear(c, other, channels(x), keep_size=True)
    else:
        other = linear(c, x, 1, keep_size=True)
    return c.pick([L.Add, L.Multiply, L.Maximum])()([x, L.Activation("tanh")(other)])


# --- whole models -------------------------------------------------------------------------------------------------------


def build(recipe: Recipe) -> keras.Model:
    """The model of a recipe, without weights that mean anything."""
    keras.utils.clear_session(free_memory=False)
    c, net = Choices(recipe.head), Net()
    kinds = [(9,), (12,), (9, 9), (9, 7), (8, 10), (12, 12), (5, 6)]
    shape = (*c.pick(kinds[2:] + kinds), c.between(1, 4))
    if len(shape) == 2 and shape[0] == 12:
        shape = (12,)
    sequential = c.flip(12)
    words = c.flip(8)
    if words:
        shape = (c.pick([8, 5]),)
    net.inputs = [
        keras.Input(shape, dtype="int32" if words else None) for _ in range(2 if not sequential and c.flip(20) else 1)
    ]
    if words:
        embedding = L.Embedding(WORDS, c.between(2, 6), embeddings_initializer="zeros")
        x, *net.waiting = (embedding(value) for value in net.inputs)
    else:
        x, *net.waiting = net.inputs
    if c.flip(60) or c.flip(50):
        x = linear(c, x)
    table = CHAIN if sequential else BLOCKS
    for row in recipe.blocks:
        choices = Choices(row)
        net.seen.append(x)
        x = choices.pick(table)(net, choices, x)
    x = _finish(net, Choices(recipe.tail), x)
    if sequential:
        inner = keras.Model(net.inputs[0], x)
        first = keras.Input(shape, dtype=net.inputs[0].dtype)
        return keras.Sequential([first, *(layer for layer in inner.layers if not isinstance(layer, L.InputLayer))])
    outputs = [x, *net.taps]
    return keras.Model(net.inputs if len(net.inputs) > 1 else net.inputs[0], outputs if len(outputs) > 1 else x)


def _finish(net: Net, c: Choices, x: Any) -> Any:
    ending = c.below(4)
    if rank(x) and (ending < 3 or net.waiting):
        flat = ending == 1 and np.prod(x.shape[1:]) <= MAX_FLAT
        x = L.Flatten()(x) if flat else c.pick([GLOBAL_AVERAGE, GLOBAL_MAX])[rank(x)]()(x)
    for value in net.waiting:
        other = linear(c, value, c.between(2, 5))
        other = other if rank(other) == 0 else GLOBAL_MAX[rank(other)]()(other)
        x = L.Concatenate()([x, other])
    # Several numbers have a range that rounding is small against, whatever the samples make of them.
    units = c.between(2, 5)
    match c.below(4):
        case 2:
            return L.Dense(units, activation="softmax", **CHEAP)(x)
        case 3:
            # Far below zero, a sigmoid in float32 is accurate to its last bits nowhere.
            return L.Activation("sigmoid")(L.Dense(units, activation="softsign", **CHEAP)(x))
    return L.Dense(units, **CHEAP)(x)


def random_inputs(model: keras.Model, seed: int, samples: int = 3) -> list[np.ndarray]:
    """A batch for every input."""
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, WORDS, (samples, *tensor.shape[1:])).astype("int32")
        if tensor.dtype == "int32"
        else rng.normal(size=(samples, *tensor.shape[1:])).astype("float32")
        for tensor in model.inputs
    ]
