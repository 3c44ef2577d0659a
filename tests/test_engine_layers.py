"""The layers of which convolutional, dense and recurrent networks are made, as Keras builds them: all are native, and right."""

from __future__ import annotations

import numpy as np
import pytest

import sparsec
from sparsec.kernels import library
from sparsec.runtime import Model

keras = pytest.importorskip("keras")
L = keras.layers
pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")

LINE, IMAGE, VOLUME, VIDEO = (10, 4), (8, 9, 4), (5, 6, 7, 4), (4, 6, 7, 4)

CHAINS = {
    "three axes": (VOLUME, lambda: [L.Conv3D(6, 3, activation="relu"), L.Conv3D(4, 2, strides=2, padding="same"), L.ELU()]),
    "groups": (VOLUME, lambda: [L.Conv3D(8, 3, groups=2, dilation_rate=2, padding="same"), L.BatchNormalization()]),
    "transposed": (VOLUME, lambda: [L.Conv3DTranspose(6, 3, strides=2, padding="same", activation="tanh")]),
    "pools": (VOLUME, lambda: [L.Conv3D(6, 1), L.MaxPooling3D(2, 1), L.AveragePooling3D(3, 2, padding="same"), L.Flatten()]),
    "global pools": (VOLUME, lambda: [L.Conv3D(6, 1), L.LayerNormalization(), L.GlobalAveragePooling3D(), L.Dense(3)]),
    "borders": (
        VOLUME,
        lambda: [L.ZeroPadding3D(1), L.Conv3D(6, 2), L.Cropping3D(((1, 0), (0, 1), (1, 1))), L.UpSampling3D(2)],
    ),
    "adaptive pools": (IMAGE, lambda: [L.Conv2D(6, 1), L.AdaptiveAveragePooling2D((3, 4)), L.AdaptiveMaxPooling2D(2)]),
    "group normalisation": (IMAGE, lambda: [L.Conv2D(6, 3), L.GroupNormalization(3), L.ReLU(), L.GroupNormalization(-1)]),
    "other normalisation": (LINE, lambda: [L.Conv1D(6, 3), L.RMSNormalization(), L.UnitNormalization(), L.Dense(2)]),
    "several axes": (IMAGE, lambda: [L.Conv2D(6, 3), L.LayerNormalization(axis=(1, 2, 3)), L.BatchNormalization(axis=1)]),
    "channels first": (
        IMAGE,
        lambda: [L.Conv2D(6, 3, data_format="channels_first"), L.MaxPooling2D(data_format="channels_first")],
    ),
    "slopes": (
        IMAGE,
        lambda: [L.Conv2D(6, 3), L.PReLU(), L.ReLU(max_value=6.0, negative_slope=0.1, threshold=0.2), L.Softmax(1)],
    ),
    "orders": (IMAGE, lambda: [L.Conv2D(6, 3), L.Permute((3, 1, 2)), L.Reshape((6, 42)), L.Permute((2, 1)), L.Dense(3)]),
    "shuffled channels": (
        IMAGE,
        lambda: [L.Conv2D(6, 3), L.Reshape((6, 7, 3, 2)), L.Permute((1, 2, 4, 3)), L.Reshape((6, 7, 6)), L.Conv2D(3, 1)],
    ),
    "resampling": (IMAGE, lambda: [L.Resizing(5, 12, interpolation="bicubic"), L.Conv2D(4, 3), L.UpSampling2D(2)]),
    "frames": (
        VIDEO,
        lambda: [
            *(L.TimeDistributed(layer) for layer in (L.Conv2D(6, 3), L.MaxPooling2D(), L.BatchNormalization(), L.Flatten())),
            *(L.Bidirectional(L.GRU(5, return_sequences=True)), L.LSTM(4), L.RepeatVector(3), L.SimpleRNN(3)),
        ],
    ),
    "convolutional memory": (
        VIDEO,
        lambda: [L.ConvLSTM2D(5, 3, padding="same", return_sequences=True), L.BatchNormalization(), L.ConvLSTM2D(3, 2)],
    ),
    "along a line": ((3, *LINE), lambda: [L.ConvLSTM1D(5, 3, go_backwards=True), L.Dense(2)]),
    "in a volume": ((3, *VOLUME), lambda: [L.ConvLSTM3D(3, 3, return_sequences=True)]),
}
"""By name, the shape of the input, and layers one after the other."""


def attention(layer, **options):
    def make():
        x = keras.Input((9, 6))
        y = layer()(x, x, **options)
        y = L.LayerNormalization()(L.Add()([x, y]))
        return keras.Model(x, L.Dense(5, activation="gelu")(y))

    return make


def translation():
    """A decoder that attends to what an encoder gives, both with masks."""
    ids, others = keras.Input((9,), dtype="int32"), keras.Input((7,), dtype="int32")
    source, target = (L.Embedding(12, 6, mask_zero=True)(x) for x in (ids, others))
    target = L.MultiHeadAttention(2, 3)(target, target, use_causal_mask=True)
    y = L.MultiHeadAttention(2, 3, value_dim=5)(target, source)
    return keras.Model([ids, others], L.Dense(4)(y))


def plain_attention():
    query, value = keras.Input((7, 5)), keras.Input((9, 5))
    dense = L.Dense(6)
    pair = [dense(query), dense(value)]
    sums = L.Attention()(pair), L.Attention(use_scale=True, score_mode="concat")(pair), L.AdditiveAttention()(pair)
    return keras.Model([query, value], L.Concatenate()(list(sums)))


def images_with_attention():
    x = keras.Input((4, 5, 6))
    return keras.Model(x, L.Dense(3)(L.MultiHeadAttention(2, 3, attention_axes=(2,))(x, x)))


def dots():
    a, b = keras.Input((6, 5)), keras.Input((6, 5))
    dense = L.Dense(4)
    first, second = dense(a), dense(b)
    flat = [L.GlobalMaxPooling1D()(x) for x in (first, second)]
    return keras.Model([a, b], [L.Dot(axes=2)([first, second]), L.Dot(axes=1)([first, second]), L.Dot(1, normalize=True)(flat)])


def gates():
    """Attention over channels and positions, as CBAM has it, and pooling by attention."""
    ops, x = keras.ops, keras.Input(IMAGE)
    y = L.Conv2D(8, 3, padding="same")(x)
    y *= L.Dense(8, activation="sigmoid")(L.GlobalAveragePooling2D(keepdims=True)(y))
    both = ops.concatenate([ops.mean(y, axis=-1, keepdims=True), ops.max(y, axis=-1, keepdims=True)], axis=-1)
    y *= L.Conv2D(1, 3, padding="same", activation="sigmoid")(both)
    rows = L.Reshape((72, 8))(y)
    return keras.Model(x, ops.sum(rows * ops.softmax(L.Dense(1)(rows), axis=1), axis=1))


def categories():
    """Integers as vectors of zeros and ones, in every way, and as rows of a table."""
    ids = keras.Input((6,), dtype="int32")
    hot = [L.CategoryEncoding(12, output_mode=mode)(ids) for mode in ("multi_hot", "count")]
    each = L.CategoryEncoding(12, output_mode="one_hot")(L.Reshape((6, 1))(ids))
    rows = L.Embedding(12, 4)(L.Reshape((2, 3))(ids))
    return keras.Model(ids, L.Dense(5)(L.Concatenate()([*hot, L.Flatten()(each), L.Flatten()(rows)])))


MAKERS = {
    "attention": attention(lambda: L.MultiHeadAttention(2, 4)),
    "causal attention": attention(lambda: L.MultiHeadAttention(2, 4), use_causal_mask=True),
    "grouped attention": attention(lambda: L.GroupQueryAttention(4, 4, 2)),
    "translation": translation,
    "plain attention": plain_attention,
    "images with attention": images_with_attention,
    "dots": dots,
    "gates": gates,
    "categories": categories,
}
"""By name, other models."""


def chain(shape, layers):
    return keras.Sequential([keras.Input(shape), *layers()])


@pytest.mark.parametrize("name", [*CHAINS, *MAKERS])
def test_everything_is_native(name):
    model = chain(*CHAINS[name]) if name in CHAINS else MAKERS[name]()
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if variable.dtype == "float32":
            numbers = rng.standard_normal(variable.shape)
            variable.assign(np.abs(numbers) + 0.5 if "variance" in variable.path else numbers * 0.4)
    loaded = Model(sparsec.compile(model, verify=False).program)
    for samples in (1, 3):
        inputs = [
            rng.integers(0, 12, (samples, *x.shape[1:])).astype(np.int32)
            if x.dtype == "int32"
            else rng.standard_normal((samples, *x.shape[1:])).astype(np.float32)
            for x in model.inputs
        ]
        expected = model(inputs if len(inputs) > 1 else inputs[0], training=False)
        for y, exact in zip(loaded.run(inputs), expected if isinstance(expected, list) else [expected], strict=True):
            np.testing.assert_allclose(y, exact, rtol=0, atol=1e-5 * max(np.abs(exact).max(), 1e-3))
        assert [step.reason for step in loaded.plan(samples) if not step.kernel.startswith("native/")] == []
