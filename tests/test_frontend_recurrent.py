"""Recurrent layers, Bidirectional and TimeDistributed, compared with Keras from every kind of source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_models import SAMPLES, TOLERANCE, agree, fill, keras_outputs, random_inputs, read_all

from sparsec.errors import UnsupportedLayerError
from sparsec.frontends import read
from sparsec.frontends.layers.activations import ACTIVATIONS

STEPS, CHANNELS = 4, 3

PLAIN = ("LSTM", "GRU", "SimpleRNN")

pytestmark = pytest.mark.filterwarnings("ignore:.*destroy the mask information")


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


@contextmanager
def floats(keras: Any, dtype: str) -> Iterator[None]:
    """Let new models compute in ``dtype``."""
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


def gaps(seed: int = 0) -> np.ndarray:
    """Which steps count: of most samples some, of one none, of one all."""
    flags = np.random.default_rng(seed).random((SAMPLES, STEPS)) < 0.5
    flags[0], flags[1], flags[2, 0], flags[2, -1] = False, True, False, False
    return flags


def compare(model: Any, folder: Path, *given: np.ndarray, tolerance: float = TOLERANCE["float32"], h5: bool = True) -> None:
    """Compare with Keras; the last inputs are given, the others random."""
    fill(model)
    batches = random_inputs(model)
    batches[len(batches) - len(given) :] = given
    agree(read_all(model, folder, h5), batches, keras_outputs(model, batches), tolerance)


def flat(result: Any) -> list[Any]:
    return list(result) if isinstance(result, list | tuple) else [result]


# --- layers ------------------------------------------------------------------------------------------------------------

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "LSTM": [{"unit_forget_bias": False}, {"activation": "relu", "recurrent_activation": "hard_sigmoid"}],
    "GRU": [
        {"reset_after": False},
        {"reset_after": False, "use_bias": False},
        {"reset_after": False, "return_sequences": True, "activation": "softsign"},
        {"activation": "relu", "recurrent_activation": "hard_sigmoid"},
    ],
    "SimpleRNN": [{"activation": "relu"}, {"activation": "linear"}],
}


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("class_name", PLAIN)
def test_layer(class_name: str, precision: str, keras: Any, tmp_path: Path) -> None:
    options: list[dict[str, Any]] = [
        {"return_state": True, "return_sequences": True, "go_backwards": True},
        *OPTIONS[class_name],
    ]
    if precision == "float32":
        options += [
            {},
            {"return_sequences": True},
            {"go_backwards": True},
            {"go_backwards": True, "return_sequences": True},
            {"use_bias": False},
            {"return_state": True},
            {"dropout": 0.2, "recurrent_dropout": 0.2},
            {"unroll": True},
        ]
    with floats(keras, precision):
        x = keras.Input((STEPS, CHANNELS))
        outputs = [tensor for option in options for tensor in flat(getattr(keras.layers, class_name)(2, **option)(x))]
        model = keras.Model(x, outputs)
    compare(model, tmp_path, tolerance=TOLERANCE[precision])


@pytest.mark.parametrize("class_name", PLAIN)
def test_masks(class_name: str, keras: Any, tmp_path: Path) -> None:
    layer = getattr(keras.layers, class_name)
    x, flags = keras.Input((STEPS, CHANNELS)), keras.Input((STEPS,), dtype="bool")
    options: list[dict[str, Any]] = [
        {},
        {"return_sequences": True},
        {"return_sequences": True, "go_backwards": True},
        {"go_backwards": True},
        {"zero_output_for_mask": True},
        {"zero_output_for_mask": True, "go_backwards": True},
        {"zero_output_for_mask": True, "return_sequences": True},
        {"return_state": True},
    ]
    outputs = [tensor for option in options for tensor in flat(layer(2, **option)(x, mask=flags))]
    compare(keras.Model([x, flags], outputs), tmp_path, gaps())


def test_masks_that_nobody_gives(keras: Any, tmp_path: Path) -> None:
    """In a Sequential masks travel with the values: through recurrent layers, and out of the last that returns sequences."""
    layers = keras.layers
    x = keras.Input((STEPS, CHANNELS))
    model = keras.Sequential(
        [
            x,
            layers.Masking(),
            layers.LSTM(3, return_sequences=True),
            layers.Dropout(0.1),
            layers.GRU(3, return_sequences=True),
            layers.Bidirectional(layers.SimpleRNN(2, return_sequences=True)),
            layers.TimeDistributed(layers.Dense(3)),
            layers.GlobalAveragePooling1D(),
        ]
    )
    batch = random_inputs(model)[0]
    counts = gaps()
    counts[:, 1] = True
    batch[~counts] = 0.0
    compare(model, tmp_path, batch)


@pytest.mark.parametrize("class_name", PLAIN)
def test_initial_states(class_name: str, keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    layer = getattr(layers, class_name)
    x, flags = keras.Input((STEPS, CHANNELS)), keras.Input((STEPS,), dtype="bool")
    states = [keras.Input((2,)) for _ in range(2 if class_name == "LSTM" else 1)]
    _, *encoded = layer(2, return_state=True)(x)
    outputs = [
        layer(2, return_sequences=True)(x, initial_state=states),
        layer(2)(x, initial_state=encoded),
        layer(2)(x, initial_state=states, mask=flags),
        *flat(layer(2, return_sequences=True, return_state=True)(x, initial_state=states, mask=flags)),
    ]
    compare(keras.Model([x, *states, flags], outputs), tmp_path, gaps())


@pytest.mark.parametrize("class_name", PLAIN)
def test_the_mask_of_a_sequence_is_not_handed_on_beside_states(class_name: str, keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    layer = getattr(layers, class_name)
    x = keras.Input((STEPS, CHANNELS))
    states = [keras.Input((2,)) for _ in range(2 if class_name == "LSTM" else 1)]
    masked = layers.Masking()(x)
    every = layer(2, return_sequences=True)(masked, initial_state=states)
    directions = layers.Bidirectional(layer(2, return_sequences=True))(masked, initial_state=[*states, *states])
    # What comes after is masked again.
    model = keras.Model([*states, x], [every, directions, layer(2)(every), layer(2)(directions)])
    batch = random_inputs(model)[-1]
    batch[~gaps()] = 0.0
    compare(model, tmp_path, batch)


def test_open_sizes(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    x = keras.Input((None, CHANNELS))
    sequence = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(x)
    outputs = [layers.TimeDistributed(layers.Dense(2))(sequence), layers.GRU(2)(sequence)]
    outputs.append(layers.SimpleRNN(2, go_backwards=True, return_sequences=True)(x))
    compare(keras.Model(x, outputs), tmp_path)


def test_layer_called_twice(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    a, b = keras.Input((STEPS, CHANNELS)), keras.Input((STEPS + 1, CHANNELS))
    shared, both = layers.LSTM(2), layers.Bidirectional(layers.GRU(2))
    compare(keras.Model([a, b], [shared(a), both(a), shared(b), both(b)]), tmp_path)


# --- activations -------------------------------------------------------------------------------------------------------


def test_activations(keras: Any) -> None:
    """Every activation that Keras names, but for the two that a cell cannot have by name alone."""
    layers = keras.layers
    names = [name for name in ACTIVATIONS if name not in ("glu", "threshold")]
    # Over more steps the exponential of exponentials leaves every range.
    x = keras.Input((2, CHANNELS))
    outputs = [layers.SimpleRNN(3, activation=name)(x) for name in names]
    outputs += [layers.LSTM(3, activation=name, recurrent_activation=name)(x) for name in ("softmax", "gelu", "hard_silu")]
    activations = (layers.LeakyReLU(0.4), layers.ELU(0.4), layers.ReLU(0.6), layers.ReLU(negative_slope=0.2), layers.Softmax())
    outputs += [layers.GRU(3, activation=activation)(x) for activation in activations]
    model = keras.Model(x, outputs)
    fill(model)
    batches = random_inputs(model)
    agree([read(model)], batches, keras_outputs(model, batches), TOLERANCE["float32"])


def test_activations_that_are_refused(keras: Any) -> None:
    layers = keras.layers
    x = keras.Input((STEPS, CHANNELS))
    for activation in (layers.ReLU(2.0, 0.1), layers.ReLU(threshold=0.3)):
        with pytest.raises(UnsupportedLayerError, match="not read inside a recurrent layer"):
            read(keras.Model(x, layers.SimpleRNN(2, activation=activation)(x)))


# --- cells -------------------------------------------------------------------------------------------------------------


def test_cells(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    x, flags = keras.Input((STEPS, CHANNELS)), keras.Input((STEPS,), dtype="bool")
    outputs = [
        layers.RNN(layers.LSTMCell(2))(x),
        layers.RNN(layers.GRUCell(2, reset_after=False), return_sequences=True)(x),
        *layers.RNN(layers.SimpleRNNCell(2), return_state=True)(x),
        layers.RNN([layers.LSTMCell(2), layers.GRUCell(3), layers.LSTMCell(2)])(x),
        layers.RNN([layers.GRUCell(2), layers.GRUCell(3)], return_sequences=True, go_backwards=True)(x),
        layers.RNN([layers.LSTMCell(2), layers.SimpleRNNCell(3)], return_sequences=True)(x, mask=flags),
        layers.RNN(layers.LSTMCell(2), zero_output_for_mask=True)(x, mask=flags),
    ]
    compare(keras.Model([x, flags], outputs), tmp_path, gaps())


def test_cells_of_the_users_own(keras: Any) -> None:
    class OwnCell(keras.layers.SimpleRNNCell):
        """A cell that is not one of Keras."""

    x = keras.Input((STEPS, CHANNELS))
    with pytest.raises(UnsupportedLayerError, match="is no cell of Keras that sparsec reads"):
        read(keras.Model(x, keras.layers.RNN(OwnCell(2))(x)))


# --- both directions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave", None])
def test_bidirectional(merge_mode: str | None, keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    x, flags = keras.Input((STEPS, CHANNELS)), keras.Input((STEPS,), dtype="bool")
    state = [keras.Input((2,)), keras.Input((2,))]

    def both(inner: Any, value: Any = x, **arguments: Any) -> list[Any]:
        return flat(layers.Bidirectional(inner, merge_mode=merge_mode)(value, **arguments))

    outputs = [
        *both(layers.GRU(2, return_sequences=True), mask=flags),
        *both(layers.SimpleRNN(2), initial_state=state),
    ]
    if merge_mode in ("concat", None):
        outputs += both(layers.LSTM(2, return_state=True, return_sequences=True))
    if merge_mode == "concat":
        outputs += [
            *both(layers.LSTM(2)),
            *both(layers.GRU(2), mask=flags),
            *both(layers.SimpleRNN(2, return_sequences=True), initial_state=state),
            *both(layers.RNN([layers.LSTMCell(2), layers.GRUCell(2)], return_sequences=True)),
        ]
    compare(keras.Model([x, *state, flags], outputs), tmp_path, gaps())


def test_bidirectional_of_two_layers(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    x = keras.Input((STEPS, CHANNELS))
    backward = layers.GRU(3, go_backwards=True, return_sequences=True)
    model = keras.Model(x, layers.Bidirectional(layers.LSTM(2, return_sequences=True), backward_layer=backward)(x))
    compare(model, tmp_path)


# --- every step --------------------------------------------------------------------------------------------------------


def test_time_distributed(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    x, images, words = keras.Input((STEPS, CHANNELS)), keras.Input((STEPS, 5, 5, 2)), keras.Input((STEPS, 5, 3))
    model = keras.Sequential(
        [keras.Input((5, 5, 2)), layers.Conv2D(3, 2), layers.BatchNormalization(), layers.Flatten(), layers.Dense(2)]
    )
    distributed = layers.TimeDistributed
    outputs = [
        distributed(layers.Dense(2, activation="tanh"))(x),
        distributed(layers.Dense(2, activation="softmax"))(x),
        distributed(layers.Dense(2))(words),
        distributed(layers.Activation("relu"))(x),
        distributed(layers.BatchNormalization())(x),
        distributed(layers.LayerNormalization())(words),
        distributed(layers.Dropout(0.1))(x),
        distributed(layers.Conv2D(2, 3, padding="same"))(images),
        distributed(layers.MaxPooling2D())(images),
        distributed(layers.Flatten())(images),
        distributed(layers.LSTM(2))(words),
        distributed(layers.Bidirectional(layers.GRU(2, return_sequences=True)))(words),
        distributed(layers.GlobalAveragePooling1D())(words),
        distributed(distributed(layers.Dense(2)))(images),
        distributed(model)(images),
    ]
    compare(keras.Model([x, images, words], outputs), tmp_path)


def test_time_distributed_masks(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    words = keras.Input((STEPS, 5, 3))
    masked = layers.Masking()(words)
    sentences = layers.TimeDistributed(layers.LSTM(2))(masked)
    model = keras.Model(words, [sentences, layers.TimeDistributed(layers.GlobalAveragePooling1D())(masked)])
    batch = random_inputs(model)[0]
    counts = np.random.default_rng(0).random(batch.shape[:3]) < 0.6
    counts[:, :, 0] = True
    batch[~counts] = 0.0
    compare(model, tmp_path, batch, h5=False)


# --- convolutions over time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_conv_lstm(precision: str, keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    with floats(keras, precision):
        line, image = keras.Input((STEPS, 6, 2)), keras.Input((STEPS, 5, 6, 2))
        flags = keras.Input((STEPS,), dtype="bool")
        outputs = [
            layers.ConvLSTM1D(2, 3)(line),
            layers.ConvLSTM1D(2, 3, padding="same", return_sequences=True, go_backwards=True)(line),
            layers.ConvLSTM1D(2, 2, dilation_rate=2, use_bias=False)(line),
            layers.ConvLSTM2D(2, 3, strides=2, padding="same", recurrent_activation="hard_sigmoid")(image),
            *layers.ConvLSTM2D(2, (2, 3), return_state=True, return_sequences=True)(image),
            layers.ConvLSTM2D(2, 2)(image, mask=flags),
        ]
        model = keras.Model([line, image, flags], outputs)
    compare(model, tmp_path, gaps(), tolerance=TOLERANCE[precision])


def test_conv_lstm_over_volumes(keras: Any, tmp_path: Path) -> None:
    volume = keras.Input((3, 3, 4, 3, 2))
    compare(keras.Model(volume, keras.layers.ConvLSTM3D(2, 2, padding="same")(volume)), tmp_path)


def test_conv_lstm_channels_first(keras: Any, tmp_path: Path) -> None:
    """TensorFlow cannot run it on a CPU; a twin with the channels last can."""
    layers = keras.layers
    last, first = keras.Input((STEPS, 5, 6, 2)), keras.Input((STEPS, 2, 5, 6))

    def outputs(x: Any, data_format: str) -> list[Any]:
        common = {"filters": 3, "kernel_size": 2, "data_format": data_format}
        state = layers.ConvLSTM2D(**common, return_state=True, return_sequences=True)(x)
        return [layers.ConvLSTM2D(**common)(x), *state]

    twin, model = keras.Model(last, outputs(last, "channels_last")), keras.Model(first, outputs(first, "channels_first"))
    fill(twin)
    model.set_weights(twin.get_weights())
    batches = random_inputs(twin)
    wanted = [np.moveaxis(output, -1, output.ndim - 3) for output in keras_outputs(twin, batches)]
    agree(read_all(model, tmp_path), [np.moveaxis(batch, -1, 2) for batch in batches], wanted, TOLERANCE["float32"])


# --- refusals ----------------------------------------------------------------------------------------------------------


def test_what_is_refused(keras: Any) -> None:
    layers = keras.layers
    x = keras.Input(batch_shape=(2, STEPS, CHANNELS))
    cases = {
        "stateful = True": layers.LSTM(2, stateful=True),
        "is not read inside a Bidirectional": layers.Bidirectional(layers.ConvLSTM1D(2, 2)),
    }
    for match, layer in cases.items():
        start = keras.Input((STEPS, 5, CHANNELS)) if "inside" in match else x
        with pytest.raises(UnsupportedLayerError, match=match):
            read(keras.Model(start, layer(start)))
