"""Models with transposed convolutions in the native engine against Keras."""

from __future__ import annotations

import numpy as np
import pytest

import sparsec
from sparsec.kernels import library

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")
keras = pytest.importorskip("keras")
layers = keras.layers


def pruned(model, sparsity=0.8):
    """A model of which weights were pruned, and biases are not zero."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        weights = layer.get_weights()
        if weights:
            kept = rng.random(weights[0].shape) >= sparsity
            biases = [rng.standard_normal(bias.shape).astype(np.float32) * 0.1 + 1 for bias in weights[1:]]
            layer.set_weights([weights[0] * kept, *biases])
    return model


def autoencoder():
    x = start = keras.Input((28, 28, 1))
    for filters in (8, 16):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    for filters in (16, 8):
        x = layers.Conv2DTranspose(filters, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(start, layers.Conv2D(1, 3, padding="same", activation="sigmoid")(x))


def unet():
    x = start = keras.Input((24, 16, 3))
    skips = []
    for filters in (8, 16):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(24, 3, padding="same", activation="relu")(x)
    for skip in reversed(skips):
        x = layers.Conv2DTranspose(skip.shape[-1], 2, strides=2, padding="same")(x)
        x = layers.Conv2D(skip.shape[-1], 3, padding="same", activation="relu")(layers.Concatenate()([x, skip]))
    return keras.Model(start, layers.Conv2D(2, 1, activation="softmax")(x))


def generator():
    x = start = keras.Input((20,))
    x = layers.Reshape((1, 1, 20))(x)
    for filters, size, strides, padding in ((16, 4, 1, "valid"), (8, 4, 2, "same"), (8, 5, 3, "same")):
        x = layers.Conv2DTranspose(filters, size, strides=strides, padding=padding, use_bias=False)(x)
        x = layers.LeakyReLU()(layers.BatchNormalization()(x))
    return keras.Model(start, layers.Conv2DTranspose(3, 3, strides=2, output_padding=1, activation="tanh")(x))


def line():
    x = start = keras.Input((20, 4))
    x = layers.Conv1DTranspose(6, 5, strides=2, padding="same", activation="relu")(x)
    return keras.Model(start, layers.Conv1DTranspose(3, 3, dilation_rate=2)(x))


@pytest.mark.parametrize("build", [autoencoder, unet, generator, line])
@pytest.mark.parametrize("threads", [1, 2])
def test_models_of_keras(build, threads, tmp_path):
    model = pruned(build())
    path = tmp_path / "model.npz"
    sparsec.compile(model).save(path)
    ours = sparsec.load(path, threads=threads)
    for batch in (1, 3):
        x = np.random.default_rng(batch).standard_normal((batch, *model.inputs[0].shape[1:])).astype(np.float32)
        expected = np.asarray(model(x))
        np.testing.assert_allclose(ours(x), expected, rtol=0, atol=1e-5 * np.ptp(expected))
        assert all(step.kernel.startswith("native/") for step in ours.plan(batch))
