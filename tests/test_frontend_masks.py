"""Keras' masks: where they come from, which layers pass them on, merge them or drop them, and what they change.

GlobalAveragePooling1D, which leaves masked steps out of its mean, tells what mask arrives.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_models import SAMPLES, TOLERANCE, agree, fill, keras_outputs, read_all

from sparsec.errors import UnsupportedLayerError
from sparsec.frontends import read

STEPS, CHANNELS = 4, 4

pytestmark = pytest.mark.filterwarnings("ignore:.*destroy the mask information")


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


def steps_with_gaps(count: int, value: float = 0.0, seed: int = 3) -> list[np.ndarray]:
    """Batches whose steps hold nothing but ``value`` at random places, each batch at others; never all steps of a sample."""
    rng = np.random.default_rng(seed)
    batches = []
    for _ in range(count):
        batch = rng.normal(size=(SAMPLES, STEPS, CHANNELS)).astype(np.float32)
        gaps = rng.random((SAMPLES, STEPS)) < 0.4
        gaps[:, 0] = False
        batch[gaps] = value
        batch[0, 0, 1] = value
        batches.append(batch)
    return batches


def compare(model: Any, batches: list[np.ndarray], folder: Path, h5: bool = True) -> None:
    fill(model)
    agree(read_all(model, folder, h5), batches, keras_outputs(model, batches), TOLERANCE["float32"])


@pytest.mark.parametrize("value", [0.0, -1.5])
def test_masking(value: float, keras: Any, tmp_path: Path) -> None:
    x = keras.Input((STEPS, CHANNELS))
    masked = keras.layers.Masking(value)(x)
    model = keras.Model(x, [masked, keras.layers.GlobalAveragePooling1D(keepdims=True)(masked)])
    compare(model, steps_with_gaps(1, value), tmp_path)


def test_layers_that_pass_masks_on_and_those_that_do_not(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    x = keras.Input((STEPS, CHANNELS))
    masked = layers.Masking()(x)
    between = [
        layers.Activation("tanh"),
        layers.ActivityRegularization(),
        layers.AlphaDropout(0.1),
        layers.BatchNormalization(),
        layers.Conv1D(3, 1),
        layers.Dense(3, activation="tanh"),
        layers.Dropout(0.1),
        layers.ELU(),
        layers.GaussianDropout(0.1),
        layers.GaussianNoise(0.1),
        layers.Identity(),
        layers.LayerNormalization(),
        layers.LeakyReLU(),
        layers.Normalization(mean=0.2, variance=2.0),
        layers.PReLU(),
        layers.Permute((1, 2)),
        layers.ReLU(),
        layers.Rescaling(0.5),
        layers.Reshape((STEPS, CHANNELS)),
        layers.SpatialDropout1D(0.1),
        layers.ZeroPadding1D(0),
    ]
    model = keras.Model(x, [layers.GlobalAveragePooling1D()(layer(masked)) for layer in between])
    compare(model, steps_with_gaps(1), tmp_path)


def test_operations_drop_masks(keras: Any, tmp_path: Path) -> None:
    x = keras.Input((STEPS, CHANNELS))
    masked = keras.layers.Masking()(x)
    model = keras.Model(x, keras.layers.GlobalAveragePooling1D()(masked * 2.0 + masked))
    compare(model, steps_with_gaps(1), tmp_path, h5=False)


@pytest.mark.parametrize("class_name", ["Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract"])
def test_merging_layers(class_name: str, keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    a, b, c = (keras.Input((STEPS, CHANNELS)) for _ in range(3))
    one, other, third = (layers.Masking()(value) for value in (a, b, c))
    pairs = [[one, other], [one, b], [a, other]]
    if class_name != "Subtract":
        pairs += [[one, other, third], [a, other, third], [one, other, c], [one, b, third]]
    merged = [getattr(layers, class_name)()(pair) for pair in pairs]
    model = keras.Model([a, b, c], [*merged, *(layers.GlobalAveragePooling1D()(value) for value in merged)])
    compare(model, steps_with_gaps(3), tmp_path)


def test_merging_layers_of_unequal_ranks(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    a, b = keras.Input((STEPS, CHANNELS)), keras.Input((CHANNELS,))
    masked = layers.Masking()(a)
    merged = [getattr(layers, name)()([masked, b]) for name in ("Add", "Multiply", "Maximum")]
    model = keras.Model([a, b], [*merged, *(layers.GlobalAveragePooling1D()(value) for value in merged)])
    compare(model, [*steps_with_gaps(1), np.random.default_rng(0).normal(size=(SAMPLES, CHANNELS)).astype("f4")], tmp_path)


def test_concatenation(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    a, b = keras.Input((STEPS, CHANNELS)), keras.Input((STEPS, CHANNELS))
    one, other = layers.Masking()(a), layers.Masking()(b)
    merged = [layers.Concatenate(axis)(pair) for axis in (-1, 1) for pair in ([one, other], [one, b], [a, other], [a, b])]
    model = keras.Model([a, b], [layers.GlobalAveragePooling1D()(value) for value in merged])
    # Keras cannot read operations, as which it writes masks, from .h5 itself.
    compare(model, steps_with_gaps(2), tmp_path, h5=False)


def test_softmax(keras: Any, tmp_path: Path) -> None:
    x, mask = keras.Input((STEPS, CHANNELS)), keras.Input((STEPS, CHANNELS), dtype="bool")
    model = keras.Model([x, mask], [keras.layers.Softmax()(x, mask=mask), keras.layers.Softmax(1)(x, mask=mask)])
    rng = np.random.default_rng(0)
    masks = rng.random((SAMPLES, STEPS, CHANNELS)) < 0.6
    masks[1, 2] = False
    compare(model, [*steps_with_gaps(1), masks], tmp_path)


def test_masks_given_in_calls(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    x, flags = keras.Input((STEPS, CHANNELS)), keras.Input((STEPS,), dtype="bool")
    inner = keras.Sequential([keras.Input((STEPS, CHANNELS)), layers.Dense(3), layers.GlobalAveragePooling1D()])
    outputs = [
        layers.GlobalAveragePooling1D()(x, mask=flags),
        layers.GlobalAveragePooling1D()(layers.Masking()(x), mask=flags),
        layers.GlobalAveragePooling1D()(layers.BatchNormalization()(x, mask=flags)),
        inner(x, mask=flags),
    ]
    gaps = np.random.default_rng(0).random((SAMPLES, STEPS)) < 0.6
    gaps[:, 0] = True
    compare(keras.Model([x, flags], outputs), [*steps_with_gaps(1), gaps], tmp_path)


def test_a_mask_given_to_a_layer_that_takes_none_is_refused(keras: Any) -> None:
    x, flags = keras.Input((STEPS, CHANNELS)), keras.Input((STEPS,), dtype="bool")
    model = keras.Model([x, flags], keras.layers.GlobalAveragePooling1D()(x, mask=flags))
    config = model.get_config()
    (pooling,) = [layer for layer in config["layers"] if layer["class_name"] == "GlobalAveragePooling1D"]
    pooling["class_name"] = "GlobalMaxPooling1D"
    model.get_config = lambda: config
    with pytest.raises(UnsupportedLayerError, match="'mask', which sparsec does not read"):
        read(model)


def test_masks_in_nested_models(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    start = keras.Input((STEPS, CHANNELS))
    inner = keras.Model(start, layers.Dense(3)(layers.Masking()(start)))
    y = keras.Input((STEPS, 3))
    pooled = keras.Model(y, [y, layers.GlobalAveragePooling1D()(layers.Dense(2)(y))])
    deeper = keras.Sequential([keras.Input((STEPS, 3)), layers.Dropout(0.1), layers.Dense(3)])
    x = keras.Input((STEPS, CHANNELS))
    model = keras.Model(x, pooled(deeper(inner(x))))
    compare(model, steps_with_gaps(1), tmp_path)


def test_masks_in_a_sequential(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    start = keras.Input((STEPS, CHANNELS))
    model = keras.Sequential([start, layers.Masking(), layers.Dense(3), layers.GlobalAveragePooling1D(), layers.Dense(2)])
    compare(model, steps_with_gaps(1), tmp_path)
