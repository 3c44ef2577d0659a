"""Shrinking where it is easily wrong: topologies and weights that are odd, each with several plantings of dead units."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import pytest
from keras import layers as L
from model_proofs import TIED, Findings, prove
from planted_units import plant

from sparsec.frontends import read
from sparsec.passes import optimise

QUICK_PLANTINGS, PLANTINGS = 2, 30

TOPOLOGIES: dict[str, Callable[[], keras.Model]] = {}


def topology(function: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
    TOPOLOGIES[function.__name__] = function
    return function


def ended(inputs: Any, *values: Any) -> keras.Model:
    """A model whose outputs are computed from these values."""
    outputs = [L.Dense(3)(value if len(value.shape) == 2 else L.GlobalAveragePooling2D()(value)) for value in values]
    return keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0])


def image(size: int = 7, channels: int = 2) -> Any:
    return keras.Input((size, size, channels))


def conv(x: Any, filters: int = 5, size: int = 3, **options: Any) -> Any:
    return L.Conv2D(filters, size, **{"padding": "same", "activation": "softplus", **options})(x)


@topology
def a_value_joined_to_itself() -> keras.Model:
    x = image()
    y = conv(x)
    return ended(x, conv(L.Concatenate()([y, y])))


@topology
def channels_tied_to_others_of_the_same_value() -> keras.Model:
    x = image()
    y, z = conv(x, 4), conv(x, 4)
    return ended(x, conv(L.Add()([L.Concatenate()([y, z]), L.Concatenate()([z, y])])))


@topology
def a_value_joined_to_itself_and_added_to_another() -> keras.Model:
    x = image()
    y = conv(x, 3)
    return ended(x, conv(L.Add()([L.Concatenate()([y, y]), conv(x, 6)]), padding="valid"))


@topology
def channels_shifted_by_one() -> keras.Model:
    x = image()
    y = conv(x, 6)
    return ended(x, conv(y[..., 1:] + y[..., :-1]))


@topology
def a_value_added_to_itself() -> keras.Model:
    x = image()
    y = conv(x)
    return ended(x, conv(L.Subtract()([L.Add()([y, y]), L.Activation("sigmoid")(y)])))


@topology
def a_value_minus_itself() -> keras.Model:
    x = image()
    y = conv(x)
    return ended(x, conv(L.Concatenate()([L.Subtract()([y, y]), y])))


@topology
def broadcasts_over_positions() -> keras.Model:
    x = image()
    y = conv(x)
    return ended(x, conv(L.Add()([y, L.GlobalAveragePooling2D(keepdims=True)(conv(x))])))


@topology
def broadcasts_over_channels() -> keras.Model:
    x = image()
    return ended(x, conv(L.Add()([conv(x), conv(x, 1)])), conv(L.Multiply()([conv(x, 1), conv(x)])))


@topology
def one_channel_times_one_channel() -> keras.Model:
    x = image()
    return ended(x, conv(L.Multiply()([conv(x, 1), conv(x, 1)])))


@topology
def a_gate_over_constants() -> keras.Model:
    x = image()
    y = conv(x, 6)
    gate = L.Dense(6, activation="sigmoid")(L.Dense(3, activation="relu")(L.GlobalAveragePooling2D()(y)))
    return ended(x, conv(L.Multiply()([y, L.Reshape((1, 1, 6))(gate)])))


@topology
def padding_then_a_maximum_of_what_may_be_negative() -> keras.Model:
    x = image()
    y = L.ZeroPadding2D(1)(L.BatchNormalization()(conv(x)))
    z = L.MaxPooling2D(3, strides=2)(y)
    return ended(x, conv(z, padding="valid", size=1), L.GlobalMaxPooling2D()(y), L.Flatten()(L.MaxPooling2D(2)(y)))


@topology
def padding_then_depthwise() -> keras.Model:
    x = image()
    y = L.ZeroPadding2D(((0, 1), (2, 0)))(conv(x))
    y = L.DepthwiseConv2D(3, depth_multiplier=2, activation="tanh")(y)
    return ended(x, conv(y, size=1))


@topology
def padded_depthwise_then_depthwise() -> keras.Model:
    x = image()
    y = L.DepthwiseConv2D(3, padding="same", use_bias=False)(L.DepthwiseConv2D(3, depth_multiplier=3)(conv(x, 4)))
    return ended(x, conv(y, size=1), y)


@topology
def two_readers_of_one_padded_value() -> keras.Model:
    x = image()
    y = L.ZeroPadding2D(1)(conv(x, 8))
    return ended(x, conv(y, padding="valid"), conv(y, 4, padding="valid", use_bias=False), L.Flatten()(L.MaxPooling2D(2)(y)))


@topology
def upsampling_then_padded_convolution() -> keras.Model:
    x = image()
    y = conv(x, 8)
    return ended(x, conv(L.UpSampling2D(2, interpolation="bilinear")(L.ZeroPadding2D(1)(y))), conv(L.UpSampling2D(2)(y)))


@topology
def strided_padded_convolutions_of_odd_sizes() -> keras.Model:
    x = image(9)
    y = conv(conv(x, 7, strides=2), 7, 2, strides=2)
    return ended(x, conv(y, 5, 5, strides=3), y)


@topology
def flattened_after_padding() -> keras.Model:
    x = image(5)
    return ended(x, L.Flatten()(L.ZeroPadding2D(((1, 0), (0, 2)))(conv(x))))


@topology
def positions_as_one_axis() -> keras.Model:
    x = image(5)
    y = L.Reshape((25, 6))(conv(x, 6))
    return ended(x, L.Flatten()(L.Conv1D(4, 3, padding="same")(y)), L.GlobalMaxPooling1D()(L.Conv1D(4, 3, dilation_rate=2)(y)))


@topology
def positions_of_a_padded_value_as_one_axis() -> keras.Model:
    x = image(5)
    y = L.Reshape((49, 6))(L.ZeroPadding2D(1)(conv(x, 6)))
    return ended(x, L.GlobalMaxPooling1D()(L.Conv1D(4, 3)(y)), L.Flatten()(L.ZeroPadding1D(2)(y)))


@topology
def channels_split_and_joined_by_reshapes() -> keras.Model:
    x = image(4)
    y = conv(x, 6)
    split = L.Reshape((4, 8, 3))(y)
    joined = L.Reshape((4, 24))(conv(x, 6))
    return ended(x, conv(split), L.GlobalAveragePooling1D()(L.Conv1D(4, 2)(joined)), L.Reshape((4, 4, 6))(L.Flatten()(y)))


@topology
def channels_moved_by_permutations() -> keras.Model:
    x = image(5)
    y = conv(x, 6)
    return ended(
        x, L.Flatten()(L.Dense(4)(L.Permute((3, 1, 2))(y))), conv(L.Permute((2, 1, 3))(y)), conv(L.Permute((1, 3, 2))(y))
    )


@topology
def normalisation_over_rows_behind_a_layer_without_bias() -> keras.Model:
    x = image(5)
    y = conv(x, 5, padding="valid", size=1)
    y = L.Conv2D(5, 1, use_bias=False)(y)
    return ended(x, L.Flatten()(L.BatchNormalization(axis=1)(y)))


@topology
def layers_without_bias_and_normalisations() -> keras.Model:
    x = image()
    y = L.Conv2D(5, 1, use_bias=False)(conv(x))
    norm = L.BatchNormalization()
    z = norm(L.Conv2D(5, 1, use_bias=False)(conv(x)))
    return ended(x, norm(y), L.BatchNormalization()(y), L.Activation("elu")(z))


@topology
def a_layer_without_bias_that_is_an_output() -> keras.Model:
    x = keras.Input((6,))
    y = L.Dense(4, use_bias=False)(L.Dense(8, activation="sigmoid")(x))
    return keras.Model(x, [y, L.BatchNormalization()(y)])


@topology
def a_layer_called_on_different_constants() -> keras.Model:
    x = image()
    layer = L.Conv2D(5, 3, activation="elu")
    y = conv(x)
    return ended(x, layer(y), layer(L.Activation("sigmoid")(y)), layer(layer(y)))


@topology
def a_model_called_on_what_it_computes() -> keras.Model:
    inner = keras.Sequential([keras.Input((7, 7, 4)), L.Conv2D(4, 3, padding="same"), L.BatchNormalization(), L.PReLU()])
    x = image()
    y = conv(x, 4)
    return ended(x, L.Add()([inner(y), inner(inner(y))]))


@topology
def values_joined_along_positions() -> keras.Model:
    x = image()
    y, z = conv(x, 6), conv(x, 6)
    return ended(x, conv(L.Concatenate(axis=1)([y, z])), conv(L.Concatenate(axis=2)([y, L.ZeroPadding2D(((0, 0), (1, 0)))(y)])))


@topology
def averages_over_padding() -> keras.Model:
    x = image()
    y = L.ZeroPadding2D(2)(conv(x, 6))
    z = L.AveragePooling2D(3, strides=2, padding="same")(y)
    return ended(x, z, conv(z, padding="valid"), conv(L.AveragePooling2D(2)(L.Activation("tanh")(y)), size=1))


@topology
def padding_that_is_cropped_again() -> keras.Model:
    x = image()
    y = L.ZeroPadding2D(2)(conv(x, 6))
    return ended(x, conv(L.Cropping2D(2)(y), padding="valid"), conv(L.Cropping2D(((3, 1), (2, 0)))(y), padding="valid"))


@topology
def activations_of_a_padded_value() -> keras.Model:
    x = image()
    y = L.ZeroPadding2D(1)(L.BatchNormalization()(conv(x, 8)))
    z = [L.Activation(name)(y) for name in ("relu", "sigmoid", "elu", "softplus")]
    return ended(x, *(conv(value, 4, padding="valid") for value in z), conv(L.Add()(z), 4, padding="valid"))


@topology
def sums_of_two_borders() -> keras.Model:
    x = image()
    y, z = L.ZeroPadding2D(((1, 0), (0, 0)))(conv(x, 6)), L.ZeroPadding2D(((0, 1), (0, 0)))(conv(x, 6))
    return ended(
        x, conv(L.Add()([y, z]), padding="valid"), conv(L.Multiply()([y, z]), padding="valid"), conv(L.Maximum()([y, z]))
    )


@topology
def transposed_convolutions() -> keras.Model:
    x = image(5)
    y = conv(x, 6)
    one, two = L.Conv2DTranspose(5, 2, strides=2)(y), L.Conv2DTranspose(5, 3, strides=2, padding="same", use_bias=False)(y)
    return ended(x, conv(one), L.BatchNormalization()(two), L.Conv2DTranspose(4, 1)(y))


@topology
def grouped_convolutions_behind_padding() -> keras.Model:
    x = image()
    y = conv(x, 8)
    z = conv(y, 8, groups=4)
    return ended(x, conv(z, 6, groups=2), conv(L.Add()([y, z]), 8, padding="valid", groups=2))


@topology
def a_grouped_layer_called_twice() -> keras.Model:
    x = image()
    layer = L.Conv2D(8, 3, padding="same", groups=4, activation="tanh")
    y = conv(x, 8)
    return ended(x, conv(L.Add()([layer(y), layer(layer(y))])))


@topology
def separable_convolutions() -> keras.Model:
    x = image()
    y = L.SeparableConv2D(6, 3, depth_multiplier=2, activation="softplus")(conv(x, 4))
    return ended(x, L.SeparableConv2D(6, 3, padding="same", use_bias=False)(y), L.SeparableConv2D(5, 2)(y))


@topology
def single_channels() -> keras.Model:
    x = image(5, 1)
    return ended(x, conv(conv(conv(x, 1), 1), 1))


@topology
def outputs_that_are_read_again() -> keras.Model:
    x = keras.Input((6,))
    y = L.Dense(8, activation="softplus")(x)
    z = L.Dense(8, activation="softplus")(y)
    return keras.Model(x, [y, L.Dense(3)(z), L.Add()([y, z])])


def checked(name: str, salt: int, folder: Path | None, change: Callable[[keras.Model], None] | None = None) -> Findings:
    keras.utils.clear_session(free_memory=False)
    model = TOPOLOGIES[name]()
    graph, plantings = plant(model, salt)
    if change is not None:
        change(model)
        graph = read(model).graph
    return prove(model, graph, plantings, salt, folder)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_odd_topologies(name: str) -> None:
    total = Findings()
    for salt in range(1, QUICK_PLANTINGS + 1):
        total.add(checked(name, salt, None))
    assert not total.problems, total.summary()


@pytest.mark.slow
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_odd_topologies_at_length_and_in_files(name: str, tmp_path: Path) -> None:
    total = Findings()
    for salt in range(1, PLANTINGS + 1):
        total.add(checked(name, salt, tmp_path))
    # A sum of multiples of two maps is a multiple of neither, which sparsec does not follow further.
    known = f"could go, but stay: {TIED}" if name == "sums_of_two_borders" else None
    assert not [problem for problem in total.problems if known is None or not problem.endswith(known)], total.summary()


def scaled(part: str, share: float, factor: float) -> Callable[[keras.Model], None]:
    """Multiply a share of the entries of all weights of a name."""

    def change(model: keras.Model) -> None:
        rng = np.random.default_rng(1)
        for weight in model.weights:
            if part in weight.path.rpartition("/")[2]:
                values = np.asarray(weight)
                weight.assign(np.where(rng.random(values.shape) < share, values * np.float32(factor), values))

    return change


ODD_WEIGHTS = {
    "gammas of zero": scaled("gamma", 0.5, 0.0),
    "negative zeros": scaled("kernel", 0.5, -0.0),
    "subnormal kernels": scaled("kernel", 0.3, 1e-40),
    "tiny variances": scaled("variance", 0.5, 1e-30),
    "huge variances": scaled("variance", 0.5, 1e20),
    "negative slopes": scaled("alpha", 1.0, -3.0),
}


@pytest.mark.parametrize("what", ODD_WEIGHTS)
@pytest.mark.parametrize(
    "name", ["a_model_called_on_what_it_computes", "activations_of_a_padded_value", "layers_without_bias_and_normalisations"]
)
def test_odd_weights(name: str, what: str) -> None:
    total = Findings()
    for salt in range(1, QUICK_PLANTINGS + 1):
        total.add(checked(name, salt, None, ODD_WEIGHTS[what]))
    assert not total.problems, total.summary()


@pytest.mark.parametrize(
    "name", ["channels_tied_to_others_of_the_same_value", "two_readers_of_one_padded_value", "single_channels"]
)
def test_all_units_dead(name: str) -> None:
    assert not checked(name, 1, None, scaled("kernel", 1.0, 0.0)).problems


def left(model: keras.Model, dead: dict[str, list[int]]) -> dict[str, int]:
    """The output channels left of each layer, once these units of kernels are zero and everything else is random."""
    plant(model, 0)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        for weight in layer.weights:
            values = rng.uniform(0.1, 1.0, weight.shape)
            if weight.path.endswith("kernel"):
                values[..., dead.get(layer.name, [])] = 0
            weight.assign(values)
    graph = read(model).graph
    small = optimise(graph.lifted("float64")).graph
    assert not prove(model, graph, [], 0).problems
    return {node.layer: small.weights[node.inputs[1]].shape[-1] for node in small.nodes if node.op in ("conv", "dense")}


def test_constants_that_are_not_negative_pass_slopes_that_differ_by_position() -> None:
    x = image()
    y = L.PReLU()(L.Conv2D(6, 3, name="first")(x))
    model = keras.Model(x, L.Dense(3)(L.GlobalAveragePooling2D()(y)))
    assert left(model, {"first": [1, 2, 5]})["first"] == 3


def test_one_channel_carries_what_two_readers_need() -> None:
    x = image()
    y = L.Conv2D(6, 1, name="first")(x)
    z = L.BatchNormalization()(y)
    model = ended(x, conv(y), conv(z))
    assert left(model, {"first": [1, 2, 5]})["first"] == 4
