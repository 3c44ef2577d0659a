"""Architectures as people build them, small; each function returns a Keras model with random weights.

Weights, biases and BatchNormalization statistics are all random (see :func:`randomise`), so that an error anywhere
shows in the outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers as L

MODELS: dict[str, Callable[[], keras.Model]] = {}


def model(function: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
    MODELS[function.__name__] = function
    return function


def randomise(built: keras.Model, seed: int, zeros: float = 0.5) -> keras.Model:
    """Random weights that keep activations near unit scale, ``zeros`` of every kernel zeroed."""
    rng = np.random.default_rng(seed)
    for variable in built.weights:
        shape, name = tuple(variable.shape), variable.path.rsplit("/", 1)[-1]
        if "variance" in name:
            value = rng.uniform(0.5, 1.5, shape)
        elif "gamma" in name:
            value = rng.normal(1.0, 0.2, shape)
        elif len(shape) > 1:
            fan_in = int(np.prod(shape[:-1]))
            value = rng.normal(0, 1.5 / np.sqrt(fan_in), shape) * (rng.random(shape) >= zeros)
        else:
            value = rng.normal(0, 0.3, shape)
        variable.assign(value)
    return built


def conv_bn(x: Any, filters: int, size: int = 3, strides: int = 1, activation: str | None = "relu") -> Any:
    x = L.Conv2D(filters, size, strides=strides, padding="same", use_bias=False)(x)
    x = L.BatchNormalization()(x)
    return L.Activation(activation)(x) if activation else x


@model
def perceptron() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((20,)),
            L.Dense(16, activation="relu"),
            L.Dropout(0.3),
            L.Dense(12, activation="tanh"),
            L.Dense(4, activation="softmax"),
        ]
    )


@model
def lenet() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((20, 20, 1)),
            L.Conv2D(6, 5, padding="same", activation="tanh"),
            L.AveragePooling2D(2),
            L.Conv2D(16, 5, activation="tanh"),
            L.MaxPooling2D(),
            L.Flatten(),
            L.Dense(30, activation="tanh"),
            L.Dense(10, activation="softmax"),
        ]
    )


@model
def vgg_with_batchnorm_in_odd_places() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            L.BatchNormalization(),
            L.Conv2D(8, 3, padding="same"),
            L.LeakyReLU(0.1),
            L.BatchNormalization(scale=False),
            L.Conv2D(8, 3),
            L.BatchNormalization(center=False),
            L.ReLU(max_value=6.0),
            L.MaxPooling2D(3, strides=2, padding="same"),
            L.SpatialDropout2D(0.2),
            L.Flatten(),
            L.BatchNormalization(),
            L.Dense(12, activation="elu"),
            L.BatchNormalization(),
            L.Dense(5),
        ]
    )


@model
def residual_network() -> keras.Model:
    inputs = keras.Input((20, 20, 3))
    x = L.ZeroPadding2D(3)(inputs)
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 7, strides=2)(x)))
    x = L.MaxPooling2D(3, strides=2)(L.ZeroPadding2D(1)(x))
    for filters, strides in ((8, 1), (16, 2)):
        shortcut = conv_bn(x, filters, 1, strides, None)
        x = conv_bn(conv_bn(x, filters, 3, strides), filters, activation=None)
        x = L.Activation("relu")(L.Add()([shortcut, x]))
    return keras.Model(inputs, L.Dense(6)(L.GlobalAveragePooling2D()(x)))


@model
def preactivation_residual_network() -> keras.Model:
    inputs = keras.Input((16, 16, 3))
    x = L.Conv2D(8, 3, padding="same")(inputs)
    for _ in range(2):
        y = L.Activation("swish")(L.BatchNormalization()(x))
        y = L.Conv2D(8, 3, padding="same")(y)
        y = L.Activation("swish")(L.BatchNormalization()(y))
        x = x + L.Conv2D(8, 3, padding="same")(y)
    return keras.Model(inputs, L.Dense(3)(L.GlobalMaxPooling2D()(L.Activation("gelu")(x))))


@model
def dense_network() -> keras.Model:
    inputs = keras.Input((16, 16, 3))
    x = L.Conv2D(6, 3, padding="same")(inputs)
    for _ in range(3):
        y = L.Activation("relu")(L.BatchNormalization()(x))
        x = L.Concatenate()([x, L.Conv2D(4, 3, padding="same", use_bias=False)(y)])
    x = L.AveragePooling2D(2)(L.Conv2D(8, 1)(L.Activation("relu")(L.BatchNormalization()(x))))
    return keras.Model(inputs, L.Dense(5)(L.Flatten()(x)))


@model
def inverted_residuals_with_gates() -> keras.Model:
    inputs = keras.Input((17, 17, 3))
    x = conv_bn(inputs, 8, strides=2, activation="hard_silu")
    for strides in (1, 2):
        y = conv_bn(x, 24, 1, activation="hard_silu")
        y = L.DepthwiseConv2D(5, strides=strides, padding="same", use_bias=False)(y)
        y = L.Activation("relu6")(L.BatchNormalization()(y))
        gate = L.GlobalAveragePooling2D(keepdims=True)(y)
        gate = L.Conv2D(24, 1, activation="hard_sigmoid")(L.Conv2D(6, 1, activation="relu")(gate))
        y = conv_bn(L.Multiply()([y, gate]), 8, 1, activation=None)
        x = L.Add()([x, y]) if strides == 1 else y
    return keras.Model(inputs, L.Dense(4)(L.GlobalAveragePooling2D()(x)))


@model
def gates_through_reshape() -> keras.Model:
    inputs = keras.Input((12, 12, 2))
    x = L.Conv2D(10, 3, activation="relu")(inputs)
    gate = L.Dense(10, activation="sigmoid")(L.Dense(3, activation="relu")(L.GlobalAveragePooling2D()(x)))
    x = L.Multiply()([L.Reshape((1, 1, 10))(gate), x])
    return keras.Model(inputs, L.Conv2D(4, 1)(x))


@model
def inception_blocks() -> keras.Model:
    inputs = keras.Input((15, 15, 3))
    x = inputs
    for _ in range(2):
        a = conv_bn(x, 4, 1)
        b = conv_bn(conv_bn(x, 3, 1), 5, 3)
        c = L.Conv2D(4, (1, 7), padding="same", activation="relu")(L.Conv2D(4, (7, 1), padding="same")(x))
        d = L.Conv2D(3, 1)(L.AveragePooling2D(3, strides=1, padding="same")(x))
        x = L.Concatenate()([a, b, c, d])
    return keras.Model(inputs, L.Dense(4)(L.GlobalAveragePooling2D()(x)))


@model
def separable_middle_flow() -> keras.Model:
    inputs = keras.Input((16, 16, 4))
    x = inputs
    shortcut = L.BatchNormalization()(L.Conv2D(8, 1, strides=2, padding="same")(x))
    x = L.BatchNormalization()(L.SeparableConv2D(8, 3, padding="same", depth_multiplier=2)(x))
    x = L.SeparableConv2D(8, 3, padding="same", activation="relu")(x)
    x = L.Add()([shortcut, L.MaxPooling2D(3, strides=2, padding="same")(x)])
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))


@model
def convnext_blocks() -> keras.Model:
    inputs = keras.Input((16, 16, 3))
    x = L.LayerNormalization(epsilon=1e-6)(L.Conv2D(8, 4, strides=4)(inputs))
    for _ in range(2):
        y = L.DepthwiseConv2D(7, padding="same")(x)
        y = L.LayerNormalization(epsilon=1e-6)(y)
        y = L.Dense(8)(L.Activation("gelu")(L.Dense(32)(y)))
        x = L.Add()([x, y])
    return keras.Model(inputs, L.Dense(5)(L.LayerNormalization(epsilon=1e-6)(L.GlobalAveragePooling2D()(x))))


@model
def grouped_and_dilated_convolutions() -> keras.Model:
    inputs = keras.Input((14, 14, 4))
    x = L.Conv2D(8, 3, padding="same", groups=4, activation="relu")(inputs)
    x = L.BatchNormalization()(x)
    x = L.Conv2D(8, 3, dilation_rate=2, activation="softplus")(x)
    x = L.Conv2D(6, 3, groups=2, strides=2)(x)
    return keras.Model(inputs, L.GlobalAveragePooling2D()(x))


@model
def u_net() -> keras.Model:
    inputs = keras.Input((16, 16, 1))
    skips, x = [], inputs
    for filters in (4, 8):
        x = conv_bn(x, filters)
        skips.append(x)
        x = L.MaxPooling2D()(x)
    x = conv_bn(x, 12)
    for filters, skip in zip((8, 4), reversed(skips), strict=True):
        x = L.Conv2DTranspose(filters, 3, strides=2, padding="same")(x)
        x = conv_bn(L.Concatenate()([x, skip]), filters)
    return keras.Model(inputs, L.Conv2D(2, 1, activation="softmax")(x))


@model
def generator_of_images() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((10,)),
            L.Dense(4 * 4 * 8, use_bias=False),
            L.BatchNormalization(),
            L.LeakyReLU(),
            L.Reshape((4, 4, 8)),
            L.Conv2DTranspose(8, 5, strides=1, padding="same", use_bias=False),
            L.BatchNormalization(),
            L.LeakyReLU(),
            L.Conv2DTranspose(4, 4, strides=2, padding="same"),
            L.UpSampling2D(2, interpolation="bilinear"),
            L.Conv2DTranspose(1, 2, strides=3, padding="valid", activation="tanh"),
        ]
    )


@model
def autoencoder() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            L.Conv2D(8, 3, activation="relu", padding="same"),
            L.MaxPooling2D(2, padding="same"),
            L.Conv2D(4, 3, activation="relu", padding="same"),
            L.MaxPooling2D(2, padding="same"),
            L.Conv2D(4, 3, activation="relu", padding="same"),
            L.UpSampling2D(2),
            L.Conv2D(8, 3, activation="relu", padding="same"),
            L.UpSampling2D(2),
            L.Conv2D(1, 3, activation="sigmoid", padding="same"),
        ]
    )


@model
def siamese_pair() -> keras.Model:
    encoder = keras.Sequential(
        [
            keras.Input((10, 10, 1)),
            L.Conv2D(6, 3, activation="relu"),
            L.GlobalAveragePooling2D(),
            L.Dense(8, activation="tanh"),
        ],
        name="encoder",
    )
    left, right = keras.Input((10, 10, 1), name="left"), keras.Input((10, 10, 1), name="right")
    a, b = encoder(left), encoder(right)
    merged = L.Concatenate()([L.Subtract()([a, b]), L.Multiply()([a, b]), L.Maximum()([a, b]), L.Average()([a, b])])
    return keras.Model([left, right], L.Dense(3)(merged))


@model
def two_headed_detector() -> keras.Model:
    inputs = keras.Input((26, 26, 3), name="image")

    def block(x: Any, filters: int, strides: int = 1) -> Any:
        if strides == 2:
            x = L.ZeroPadding2D(((1, 0), (1, 0)))(x)
        x = L.Conv2D(filters, 3, strides=strides, padding="same" if strides == 1 else "valid", use_bias=False)(x)
        return L.LeakyReLU(negative_slope=0.1)(L.BatchNormalization()(x))

    fine = block(block(inputs, 6), 8, 2)
    coarse = block(fine, 12, 2)
    up = L.UpSampling2D(2)(L.Conv2D(6, 1)(coarse))
    up = L.Concatenate()([up, L.Cropping2D(((0, 1), (1, 0)))(fine)])
    return keras.Model(inputs, {"coarse": L.Conv2D(5, 1)(coarse), "fine": L.Conv2D(5, 1)(up)})


@model
def feature_pyramid() -> keras.Model:
    inputs = keras.Input((16, 16, 3), name="image")
    fine = conv_bn(inputs, 6, strides=2)
    coarse = conv_bn(fine, 8, strides=2)
    top = L.Conv2D(5, 1)(coarse)
    merged = L.Add()([L.UpSampling2D(2)(top), L.Conv2D(5, 1)(fine)])
    return keras.Model(
        inputs, [L.Conv2D(3, 3, padding="same", name="small")(merged), L.Conv2D(3, 3, padding="same", name="large")(top)]
    )


@model
def causal_gated_convolutions() -> keras.Model:
    inputs = keras.Input((24, 3))
    x = L.Conv1D(6, 1)(inputs)
    skips = []
    for dilation in (1, 2, 4):
        a = L.Conv1D(6, 2, dilation_rate=dilation, padding="causal", activation="tanh")(x)
        b = L.Conv1D(6, 2, dilation_rate=dilation, padding="causal", activation="sigmoid")(x)
        gated = L.Conv1D(6, 1)(L.Multiply()([a, b]))
        skips.append(gated)
        x = L.Add()([x, gated])
    x = L.Conv1D(4, 1, activation="relu")(L.ReLU()(L.Add()(skips)))
    return keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling1D()(x)))


@model
def series_of_everything_1d() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((32, 2)),
            L.Conv1D(6, 5, strides=2, padding="same", activation="relu"),
            L.BatchNormalization(),
            L.MaxPooling1D(2),
            L.SeparableConv1D(8, 3, padding="same"),
            L.DepthwiseConv1D(3, padding="same"),
            L.ZeroPadding1D((1, 2)),
            L.Cropping1D((1, 1)),
            L.UpSampling1D(2),
            L.Conv1DTranspose(5, 3, strides=2),
            L.AveragePooling1D(3, strides=1, padding="same"),
            L.PReLU(shared_axes=[1]),
            L.GlobalMaxPooling1D(),
            L.RepeatVector(4),
            L.Flatten(),
            L.Dense(3),
        ]
    )


@model
def volumes() -> keras.Model:
    inputs = keras.Input((8, 8, 8, 1))
    x = L.Conv3D(4, 3, padding="same", activation="relu")(inputs)
    x = L.BatchNormalization()(L.MaxPooling3D(2)(x))
    x = L.Conv3DTranspose(3, 3, strides=2, padding="same")(L.ZeroPadding3D(1)(x))
    x = L.AveragePooling3D(2)(L.Cropping3D(1)(x))
    return keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling3D()(L.UpSampling3D(2)(x))))


@model
def mixer() -> keras.Model:
    inputs = keras.Input((12, 12, 3))
    x = L.Reshape((9, 8))(L.Conv2D(8, 4, strides=4)(inputs))
    for _ in range(2):
        y = L.Permute((2, 1))(L.LayerNormalization()(x))
        y = L.Permute((2, 1))(L.Dense(9)(L.Dense(16, activation="gelu")(y)))
        x = L.Add()([x, y])
        x = x + L.Dense(8)(L.Dense(16, activation="gelu")(L.LayerNormalization()(x)))
    return keras.Model(inputs, L.Dense(4)(L.GlobalAveragePooling1D()(x)))


@model
def shuffled_groups() -> keras.Model:
    inputs = keras.Input((10, 10, 4))
    x = L.Conv2D(8, 1, groups=2)(inputs)
    x = L.Reshape((10, 10, 8))(L.Permute((1, 2, 4, 3))(L.Reshape((10, 10, 2, 4))(x)))
    x = L.DepthwiseConv2D(3, strides=2, padding="same")(x)
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))


@model
def preprocessing_in_the_model() -> keras.Model:
    inputs = keras.Input((12, 12, 3))
    x = L.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = L.Normalization(mean=[0.1, -0.2, 0.3], variance=[0.5, 1.5, 1.0])(x)
    x = L.Conv2D(6, 3, padding="same")(x)
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))


@model
def recurrent() -> keras.Model:
    words, image = keras.Input((7, 5)), keras.Input((3, 6, 6, 2))
    x = L.Bidirectional(L.LSTM(6, return_sequences=True))(words)
    x, state = L.GRU(4, return_sequences=True, return_state=True)(x)
    x = L.TimeDistributed(L.Dense(4, activation="relu"))(x)
    x = L.GRU(4, reset_after=False, go_backwards=True)(x, initial_state=state)
    y = L.GlobalAveragePooling2D()(L.ConvLSTM2D(3, 3, padding="same")(image))
    return keras.Model([words, image], L.Dense(3)(L.Concatenate()([x, y])))


@model
def masked_steps() -> keras.Model:
    inputs = keras.Input((7, 5))
    x = L.Masking(mask_value=0.0)(inputs)
    x = L.Bidirectional(L.GRU(3, return_sequences=True), merge_mode="sum")(x)
    return keras.Model(inputs, L.Dense(2)(L.SimpleRNN(4)(x)))


@model
def unknown_sizes() -> keras.Model:
    inputs = keras.Input((None, None, 3))
    x = conv_bn(inputs, 6, strides=2)
    x = L.Add()([x, conv_bn(x, 6)])
    x = L.MaxPooling2D(3, strides=2, padding="same")(x)
    x = L.DepthwiseConv2D(3, strides=2, padding="same")(x)
    return keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))


@model
def arithmetic_between_tensors() -> keras.Model:
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    x = L.Dense(6)(a)
    y = (x + b) * 2.0 - b / 4.0
    z = keras.ops.maximum(1.0 - y, keras.ops.multiply(x, 0.5))
    return keras.Model([a, b], [L.Dense(3)(z), y])


VOCABULARY = 100
"""How many words the models know that read words."""


def attending(x: Any, heads: int, width: int, **call: Any) -> Any:
    """The two halves of a transformer block, each beside a shortcut, normalised before."""
    y = L.LayerNormalization()(x)
    x = L.Add()([x, L.MultiHeadAttention(heads, width)(y, y, **call)])
    y = L.Dense(2 * x.shape[-1], activation="gelu")(L.LayerNormalization()(x))
    return L.Add()([x, L.Dense(x.shape[-1])(y)])


@model
def transformer_encoder() -> keras.Model:
    words, places = keras.Input((9,), dtype="int32"), keras.Input((9,), dtype="int32")
    x = L.Add()([L.Embedding(VOCABULARY, 12, mask_zero=True)(value) for value in (words, places)])
    x = attending(attending(x, 3, 4), 2, 5, use_causal_mask=True)
    return keras.Model([words, places], L.Dense(4)(L.GlobalAveragePooling1D()(x)))


@model
def transformer_decoder() -> keras.Model:
    words, memory = keras.Input((None,), dtype="int32"), keras.Input((None, 8))
    x = L.Embedding(VOCABULARY, 12)(words)
    x = L.Add()([x, L.GroupQueryAttention(4, 4, 2)(x, x, use_causal_mask=True)])
    x = L.LayerNormalization()(x)
    x = L.Add()([x, L.MultiHeadAttention(2, 4, value_dim=3)(x, memory)])
    return keras.Model([words, memory], L.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d")(x))


@model
def vision_transformer() -> keras.Model:
    inputs = keras.Input((12, 12, 3))
    x = L.Reshape((9, 8))(L.Conv2D(8, 4, strides=4)(inputs))
    # The token that stands for the class, the same for every image: the only row of a table.
    x = L.Concatenate(axis=1)([L.Embedding(1, 8)(keras.ops.cast(x[:, :1, 0] * 0.0, "int32")), x])
    x = attending(attending(x, 2, 4), 4, 3)
    return keras.Model(inputs, L.Dense(4)(L.LayerNormalization()(x)[:, 0]))


@model
def additive_attention_over_steps() -> keras.Model:
    query, value = keras.Input((5, 6)), keras.Input((7, 6))
    x = L.AdditiveAttention()([L.Dense(6)(query), L.Dense(6)(value)])
    y = L.Attention(use_scale=True, score_mode="dot")([L.Dense(6)(query), L.Dense(4)(value), value])
    z = L.Dot(axes=2, normalize=True)([query, value])
    return keras.Model([query, value], [L.Dense(3)(x), L.Dense(3)(y), z])


@model
def outputs_of_every_kind() -> keras.Model:
    inputs = keras.Input((8,))
    hidden = L.Dense(5, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, [hidden, L.Dense(2, name="head")(hidden), inputs, hidden])


@model
def normalised_by_sample() -> keras.Model:
    """Statistics of each sample, windows that follow from sizes."""
    x = inputs = keras.Input((18, 15, 3))
    x = L.CenterCrop(16, 14)(x)
    x = L.GroupNormalization(4)(L.Conv2D(12, 3, padding="same", use_bias=False)(x))
    x = L.AdaptiveMaxPooling2D((7, 6))(L.Activation("silu")(x))
    x = L.RMSNormalization()(L.Conv2D(10, 3)(x))
    x = L.AdaptiveAveragePooling2D((3, 2))(L.Conv2D(8, 1, activation="relu")(x))
    x = L.UnitNormalization()(L.Dense(6)(L.Flatten()(x)))
    return keras.Model(inputs, L.Dense(3, activation="softmax")(x))
