"""Keras models with recurrent layers, compiled, saved and run as a whole by the native engine."""

from __future__ import annotations

import numpy as np
import pytest

import sparsec
from sparsec.kernels import library

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")


def classifier():
    from keras import layers

    return [layers.LSTM(12), layers.Dense(3, activation="softmax")]


def stacked():
    from keras import layers

    return [
        layers.Conv1D(8, 3, padding="same", activation="relu"),
        layers.LSTM(12, return_sequences=True),
        layers.GRU(8, return_sequences=True, go_backwards=True),
        layers.GRU(7, return_sequences=True, reset_after=False),
        layers.SimpleRNN(6, activation="relu"),
        layers.Dense(3),
    ]


def bidirectional():
    from keras import layers

    return [
        layers.Bidirectional(layers.LSTM(6, return_sequences=True)),
        layers.Bidirectional(layers.GRU(5, return_sequences=True), merge_mode="sum"),
        layers.Bidirectional(layers.SimpleRNN(5)),
        layers.Dense(2),
    ]


@pytest.mark.parametrize("stack", [classifier, stacked, bidirectional])
def test_whole_models_are_native(stack, tmp_path, monkeypatch):
    import keras

    rng = np.random.default_rng(5)
    original = keras.Sequential([keras.layers.Input((9, 5)), *stack()])
    shapes = [array.shape for array in original.get_weights()]
    original.set_weights([np.where(rng.random(shape) < 0.4, rng.standard_normal(shape) / 2, 0) for shape in shapes])
    path = tmp_path / "model.npz"
    sparsec.compile(original, verify=False).save(path)
    model = sparsec.load(path)
    for batch in (1, 3):
        x = rng.standard_normal((batch, 9, 5)).astype(np.float32)
        y = model(x)
        np.testing.assert_allclose(y, original(x).numpy(), rtol=0, atol=1e-5)
        kernels = [step.kernel for step in model.plan(batch)]
        assert all(kernel.startswith("native/") for kernel in kernels), kernels
        assert "native/recurrent" in model.summary(batch)
        with monkeypatch.context() as patch:
            patch.setenv(library.VARIABLE, library.OFF)
            np.testing.assert_allclose(sparsec.load(path)(x), y, rtol=0, atol=1e-5)
