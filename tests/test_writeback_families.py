"""Networks of keras.applications, shrunk and written back: Keras loads, runs and trains them, and LiteRT takes them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import litert
import numpy as np
import pytest
import zoo

import sparsec

SAMPLES = 2

TOLERANCE = 1e-5
"""Of the range of the logits, between Keras and Keras."""

LITERT_TOLERANCE = 1e-4
"""Of the range of the logits: LiteRT sums in other orders."""

LEAST_LOSS = 0.4
"""The share of the elements of kernels that goes at least; biases and BatchNormalization stay in these networks."""

OTHERS = (
    zoo.Family("InceptionResNetV2", 107),
    zoo.Family("MobileNetV3Large", 64, 0.0, 255.0),
)
"""Networks of keras.applications that are built in other ways than those of their families that the other tests use.

EfficientNetV2S is not among them: with random weights it amplifies rounding so much that Keras in single precision is 8e-3 of
the range away from double precision.
"""


def small_network() -> Any:
    """Everything at once and small: a residual, a depthwise filter between zero paddings, BatchNormalization, a gate."""
    import keras
    from keras import layers as L

    keras.utils.clear_session(free_memory=False)
    inputs = keras.Input((12, 12, 3))
    x = L.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(inputs)
    x = skip = L.ReLU()(L.BatchNormalization()(x))
    x = L.ReLU()(L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same", use_bias=False)(x)))
    x = L.BatchNormalization()(L.Conv2D(8, 1, name="project")(x))
    x = L.ReLU()(L.Add()([x, skip]))
    gate = L.Dense(8, "sigmoid")(L.Dense(4, "relu")(L.GlobalAveragePooling2D()(x)))
    x = L.Multiply()([L.Conv2D(8, 3, strides=2, name="wide")(x), L.Reshape((1, 1, 8))(gate)])
    return keras.Model(inputs, L.Dense(5)(L.Flatten()(x)), name="small")


def shrunk(model: Any, folder: Path) -> tuple[Any, sparsec.compiler.Compiled]:
    """A model through a file: written back small, and loaded by Keras."""
    import keras

    source = zoo.save(model, folder)
    result = sparsec.compile(source, verify=False)
    result.save(folder / "small.keras")
    with warnings.catch_warnings():
        # What Keras says about files of models that were never compiled.
        warnings.simplefilter("ignore")
        return keras.models.load_model(folder / "small.keras"), result


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference over the range."""
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / np.ptp(wanted))


def check_training(model: Any, batch: np.ndarray, wanted: np.ndarray) -> None:
    """One step of training changes most weights, by finite numbers; a bias before normalisation has no gradient."""
    model.compile("sgd", "mse")
    before = [np.asarray(weight) for weight in model.trainable_variables]
    loss = model.train_on_batch(batch, np.zeros_like(wanted))
    assert np.isfinite(loss)
    after = [np.asarray(weight) for weight in model.trainable_variables]
    assert all(np.isfinite(weight).all() for weight in after)
    changed = [weight for one, weight in zip(before, after, strict=True) if (one != weight).any()]
    assert len(changed) > len(before) / 2


def check_litert(model: Any, batch: np.ndarray, wanted: np.ndarray, converted: bytes) -> None:
    """LiteRT's interpreter computes the same, from a file that holds the weights once."""
    assert len(converted) < 4.4 * model.count_params() + 1_000_000
    (found,) = litert.run(converted, [batch])
    assert difference(found, wanted) <= LITERT_TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("family", [*zoo.FAMILIES, *OTHERS], ids=lambda family: family.name)
def test_networks_come_back_smaller(family: zoo.Family, tmp_path: Path) -> None:
    family = replace(family, size=min(family.size, 107 if "Inception" in family.name else 75))
    model = zoo.build_unit_pruned(family, 0.5)
    batch = zoo.images(family, SAMPLES, seed=7)
    small, result = shrunk(model, tmp_path)
    wanted = np.asarray(model.predict(batch, verbose=0))
    assert difference(np.asarray(small.predict(batch, verbose=0)), wanted) <= TOLERANCE
    kernels = [
        sum(weight.size for layer in layers for weight in layer.weights if weight.units)
        for layers in (result.before, result.after)
    ]
    assert kernels[1] < (1 - LEAST_LOSS) * kernels[0]
    assert small.count_params() < model.count_params()
    assert [layer.name for layer in small.layers] == [layer.name for layer in model.layers]
    check_litert(small, batch, wanted, litert.convert(small, [batch]))
    check_training(small, batch, wanted)


def test_a_small_network_comes_back_smaller(tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    model = small_network()
    rng = np.random.default_rng(0)
    for layer in zoo.layers_of(model):
        zoo.draw_weights(layer, rng, 0.0)
    sparsec.prune_units(model, 0.5)
    batch = rng.uniform(-1, 1, (8, 12, 12, 3)).astype(np.float32)
    zoo.calibrate_batchnorm(model, batch)
    zoo.perturb_batchnorm(model, rng)
    small, result = shrunk(model, tmp_path)
    wanted = np.asarray(model(batch))
    assert small.count_params() < 0.6 * model.count_params()
    assert small.get_layer("stem").filters == result.outcomes["stem"].channels.kept < 8
    assert difference(np.asarray(small(batch)), wanted) <= TOLERANCE
    check_litert(small, batch, wanted, litert.convert(small, [batch]))
    check_training(small, batch, wanted)


@pytest.mark.slow
def test_litert_takes_a_written_model_by_its_own_way(tmp_path: Path) -> None:
    import tensorflow as tf

    family = replace(zoo.FAMILIES[4], size=64)
    small, _ = shrunk(zoo.build_unit_pruned(family, 0.5), tmp_path)
    batch = zoo.images(family, 1, seed=7)
    converted = tf.lite.TFLiteConverter.from_keras_model(small).convert()
    check_litert(small, batch, np.asarray(small(batch)), converted)
