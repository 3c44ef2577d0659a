"""Normalisation by sample, adaptive pooling and preprocessing layers, compared with Keras itself.

The models in single precision are compiled too: bundles and ONNX files give the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edited_files import edited_config, of_version
from keras_models import (
    SAMPLES,
    TOLERANCE,
    Group,
    agree,
    check_group,
    deploys,
    fill,
    floats,
    group_id,
    keras_outputs,
    random_inputs,
    read_all,
    variants,
)

import sparsec
from sparsec.errors import UnsupportedLayerError
from sparsec.frontends import read

SINGLE_IN_KERAS = frozenset(
    {"AutoContrast", "CenterCrop", "ContrastLimitedAdaptiveHistogramEqualization", "Resizing", "UpSampling2D"}
)
"""Layers that Keras computes in single precision even in a model of double precision."""

HALF = 5e-3
"""What Keras' own rounding in half precision comes to, of the range of an output."""

NOT_IN_DOUBLE = frozenset({"AdaptiveAveragePooling3D", "AdaptiveMaxPooling3D"})
"""Layers for which TensorFlow has no double precision."""


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


GROUPS: list[Group] = [
    variants(
        "LayerNormalization",
        (4, 5, 3),
        {},
        {"axis": 1},
        {"axis": [1, 3]},
        {"scale": False, "center": False, "epsilon": 0.1},
        rms_scaling=True,
    ),
    variants("RMSNormalization", (4, 5, 6), {}, {"axis": [3, 2]}, {"axis": (1, 2, 3)}, {"epsilon": 0.1}),
    variants("RMSNormalization", (4, 6, 6), axis=2),
    variants("RMSNormalization", (None, 6)),
    variants("UnitNormalization", (4, 5, 6), {}, {"axis": 1}, {"axis": [1, 3]}),
    variants("UnitNormalization", (None, 6)),
    variants(
        "GroupNormalization",
        (4, 5, 6),
        {},
        {"groups": 2, "scale": False},
        {"groups": 6, "center": False},
        {"groups": -1, "epsilon": 0.1},
        {"groups": 1, "center": False, "scale": False},
        {"groups": 2, "axis": 1},
        {"groups": 5, "axis": -2},
        groups=3,
    ),
    variants("GroupNormalization", (None, None, 6), groups=2),
    variants("GroupNormalization", (6,), groups=2),
    *(
        group
        for name in ("Average", "Max")
        for group in (
            variants(
                f"Adaptive{name}Pooling1D",
                (12, 3),
                {"output_size": 4},
                {"output_size": 5},
                {"output_size": 12},
                {"output_size": 17},
                {"output_size": 5, "data_format": "channels_first"},
            ),
            variants(f"Adaptive{name}Pooling1D", (7, 3), output_size=3),
            variants(
                f"Adaptive{name}Pooling2D",
                (9, 10, 7),
                {"output_size": (3, 5)},
                {"output_size": 4},
                {"output_size": (2, 7)},
                {"output_size": (4, 3), "data_format": "channels_first"},
            ),
            variants(f"Adaptive{name}Pooling3D", (6, 5, 4, 7), {"output_size": 2}, {"output_size": (2, 3, 3)}),
        )
    ),
    # TensorFlow crashes where the maximum is taken over a whole axis.
    variants("AdaptiveAveragePooling2D", (9, 10, 7), {"output_size": (1, 1)}, {"output_size": (1, 7)}),
    variants(
        "Resizing",
        (8, 6, 3),
        *({"interpolation": name} for name in ("bicubic", "lanczos3", "lanczos5", "area")),
        *({"interpolation": name, "antialias": True} for name in ("nearest", "bilinear", "bicubic", "lanczos3", "area")),
        {"height": 16, "width": 3, "interpolation": "bicubic"},
        {"height": 8, "width": 6, "interpolation": "lanczos3"},
        {"height": 3, "width": 9, "interpolation": "lanczos5", "antialias": True},
        {"interpolation": "bicubic", "data_format": "channels_first"},
        {"crop_to_aspect_ratio": True},
        {"crop_to_aspect_ratio": True, "width": 9, "interpolation": "bicubic"},
        {"crop_to_aspect_ratio": True, "height": 12},
        {"pad_to_aspect_ratio": True},
        {"pad_to_aspect_ratio": True, "width": 9, "fill_value": 0.5},
        {"pad_to_aspect_ratio": True, "height": 12, "fill_value": -2.0, "interpolation": "lanczos3"},
        {"pad_to_aspect_ratio": True, "height": 4, "width": 3},
        height=5,
        width=4,
    ),
    variants(
        "UpSampling2D",
        (4, 5, 3),
        *({"interpolation": name} for name in ("bicubic", "lanczos3", "lanczos5")),
        {"data_format": "channels_first", "interpolation": "bicubic"},
        size=(2, 3),
    ),
    variants(
        "CenterCrop",
        (8, 7, 9),
        {"height": 4, "width": 7},
        {"height": 5, "width": 4},
        {"height": 8, "width": 7},
        {"height": 12, "width": 5},
        {"height": 9, "width": 20},
        {"height": 4, "width": 3, "data_format": "channels_first"},
    ),
    variants("AutoContrast", (6, 5, 3), {}, {"value_range": (0, 1)}, {"value_range": [2.0, -1.0]}),
    variants(
        "ContrastLimitedAdaptiveHistogramEqualization",
        (9, 10, 3),
        {"tile_grid_size": (3, 5)},
        {"tile_grid_size": (2, 3), "clip_limit": 0.0},
        {"tile_grid_size": (4, 3), "clip_limit": 40.0, "value_range": (-2, 3)},
        {"tile_grid_size": (2, 2), "data_format": "channels_first"},
        value_range=(-4, 4),
    ),
    variants("RandomCrop", (6, 5, 3), height=6, width=5),
]

SINGLE = [pytest.param("float32", group, id=f"{group_id(group)}-float32") for group in GROUPS]
DOUBLE = [pytest.param("float64", group, id=f"{group_id(group)}-float64") for group in GROUPS if group[0] not in NOT_IN_DOUBLE]


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
@pytest.mark.parametrize(("precision", "group"), SINGLE + DOUBLE)
def test_layer(precision: str, group: Group, keras: Any, tmp_path: Path) -> None:
    tolerance = "float32" if group[0] in SINGLE_IN_KERAS else precision
    check_group(group, precision, tolerance, tmp_path, deployed=precision == "float32")


def compare(
    model: Any, batches: Sequence[np.ndarray], folder: Path, precision: str = "float32", tolerance: str | None = None
) -> None:
    models, wanted = read_all(model, folder), keras_outputs(model, batches)
    agree(models, batches, wanted, TOLERANCE[tolerance or precision])
    if precision == "float32":
        deploys(models[0].graph, batches, wanted)


# --- layers that hold layers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_spectral_normalization(precision: str, keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    with floats(precision):
        x = keras.Input((6, 5, 3))
        frozen = layers.SpectralNormalization(layers.Dense(4))
        shared = layers.SpectralNormalization(layers.Conv2D(3, 3, padding="same", activation="relu"), power_iterations=2)
        outputs = [
            layers.SpectralNormalization(layers.Conv2D(4, 3))(x),
            layers.SpectralNormalization(layers.Dense(5, use_bias=False))(x),
            layers.SpectralNormalization(layers.Dense(1))(layers.Dense(1)(x)),
            frozen(x),
            shared(shared(x)),
        ]
        model = keras.Model(x, outputs)
    fill(model)
    frozen.trainable = False
    compare(model, random_inputs(model), tmp_path, precision)


def test_pipeline(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    x = keras.Input((8, 6, 3))
    steps = [layers.Rescaling(0.5), layers.CenterCrop(6, 5), layers.Conv2D(4, 2), layers.RandomFlip(), layers.Conv2D(3, 2)]
    outputs = [
        layers.Pipeline(steps)(x),
        layers.Pipeline([layers.Rescaling(2.0), layers.Pipeline([layers.Dense(4), layers.Dense(2, activation="relu")])])(x),
    ]
    model = keras.Model(x, outputs)
    fill(model)
    compare(model, random_inputs(model), tmp_path)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_cells(precision: str, keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    with floats(precision):
        x, h, c = keras.Input((3,)), keras.Input((4,)), keras.Input((4,))
        outputs = [
            *layers.LSTMCell(4)(x, [h, c]),
            *layers.GRUCell(4, reset_after=False)(x, h),
            *layers.SimpleRNNCell(4, activation="relu")(x, h),
        ]
        stack = layers.StackedRNNCells([layers.LSTMCell(4), layers.GRUCell(3)])
        outputs.append(layers.RNN(stack)(layers.Reshape((3, 1))(x)))
        model = keras.Model([x, h, c], outputs)
    fill(model)
    compare(model, random_inputs(model), tmp_path, precision)


def test_half_precision(keras: Any, tmp_path: Path) -> None:
    """Computed in single precision, with the outputs' dtypes of Keras."""
    layers = keras.layers
    with floats("mixed_float16"):
        x = keras.Input((8, 6, 6))
        inner = [
            layers.GroupNormalization(3),
            layers.RMSNormalization(),
            layers.UnitNormalization(),
            layers.AdaptiveAveragePooling2D(3),
            layers.Resizing(5, 9, interpolation="bicubic", pad_to_aspect_ratio=True, fill_value=1.5),
            layers.CenterCrop(4, 4),
            layers.CenterCrop(9, 9),
            layers.RandomCrop(8, 6),
            layers.AutoContrast(value_range=(-3, 3)),
            layers.SpectralNormalization(layers.Conv2D(3, 2)),
            layers.Pipeline([layers.Rescaling(0.5)]),
        ]
        model = keras.Model(x, [layer(x) for layer in inner])
    fill(model)
    batches = random_inputs(model)
    agree(read_all(model, tmp_path), batches, keras_outputs(model, batches), HALF)


# --- categories --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
def test_category_encoding(dtype: str, keras: Any, tmp_path: Path) -> None:
    layer = keras.layers.CategoryEncoding
    single, several, matrix = keras.Input((1,), dtype=dtype), keras.Input((4,), dtype=dtype), keras.Input((3, 2), dtype=dtype)
    weights = keras.Input((4,))
    outputs = [layer(6, output_mode=mode)(x) for mode in ("one_hot", "multi_hot", "count") for x in (single, several)]
    outputs += [layer(6, output_mode=mode)(matrix) for mode in ("one_hot", "multi_hot", "count")]
    outputs.append(layer(6, output_mode="count")(several, count_weights=weights))
    model = keras.Model([single, several, matrix, weights], outputs)
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 6, (SAMPLES, *shape)).astype(dtype) for shape in ((1,), (4,), (3, 2))]
    compare(model, [*batches, rng.normal(size=(SAMPLES, 4)).astype("float32")], tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_discretization(dtype: str, keras: Any, tmp_path: Path) -> None:
    layer = keras.layers.Discretization
    adapted = layer(num_bins=5)
    adapted.adapt(np.random.default_rng(0).normal(size=(100, 1)).astype("float32"))
    x = keras.Input((4,), dtype=dtype)
    boundaries = [-1.5, 0.1, 2.0]
    outputs = [layer(boundaries)(x), layer([1.0])(x), adapted(x)]
    outputs += [layer(boundaries, output_mode=mode)(x) for mode in ("one_hot", "multi_hot", "count")]
    model = keras.Model(x, outputs)
    exact = np.array([[-1.5, 0.1, 2.0, -9.0], [9.0, -1.6, 0.0, 1.0], [1.0, 2.1, 0.2, -0.1]])
    compare(model, [exact.astype(dtype)], tmp_path)


def test_integer_lookup(keras: Any, tmp_path: Path) -> None:
    layer, vocabulary = keras.layers.IntegerLookup, [12, 36, 1138, -42]
    x, column = keras.Input((5,), dtype="int64"), keras.Input((1,), dtype="int64")
    outputs = [
        layer(vocabulary=vocabulary)(x),
        layer(vocabulary=vocabulary, mask_token=7)(x),
        layer(vocabulary=[7, -1, *vocabulary], mask_token=7)(x),
        layer(vocabulary=vocabulary, num_oov_indices=3)(x),
        layer(vocabulary=vocabulary, num_oov_indices=3, mask_token=0)(x),
        layer(vocabulary=vocabulary, output_mode="one_hot")(x),
        layer(vocabulary=vocabulary, output_mode="one_hot")(column),
        layer(vocabulary=vocabulary, output_mode="multi_hot", max_tokens=9, pad_to_max_tokens=True)(x),
        layer(vocabulary=vocabulary, output_mode="count", num_oov_indices=2)(x),
        layer(vocabulary=[12, 36, 0, 5, 7, 8, 9, -3], num_oov_indices=0)(column),
    ]
    model = keras.Model([x, column], outputs)
    tokens = np.array([[12, 7, 0, 36, -42], [1138, -5, -6, 8, 12], [7, 7, 36, 36, 1], [0, 0, 0, 12, 3]])
    compare(model, [tokens, np.array([[12], [36], [0], [-3]])], tmp_path)


def test_adapted_vocabularies(keras: Any, tmp_path: Path) -> None:
    """They stand beside the weights in a ``.keras`` file, and in no ``.h5`` file."""
    layers = keras.layers

    def adapted(*tokens: int, **options: Any) -> Any:
        layer = layers.IntegerLookup(**options)
        layer.adapt(np.array(tokens)[:, None])
        return layer

    x = keras.Input((4,), dtype="int64")
    nested = keras.Sequential([keras.Input((4,), dtype="int64"), adapted(9, 9, 8, 2**60)])
    outputs = [
        adapted(3, 5, 5)(x),
        layers.IntegerLookup(vocabulary=[1, 2])(x),
        adapted(7, 7, 6, mask_token=0)(x),
        adapted(5, 9, 9, output_mode="multi_hot")(x),
        nested(x),
        layers.Dense(3)(adapted(1, 2, output_mode="count")(x)),
    ]
    model = keras.Model(x, outputs)
    fill(model)
    batches = [np.array([[3, 5, 0, 1], [9, 7, 8, 2**60]])]
    models, wanted = read_all(model, tmp_path, h5=False), keras_outputs(model, batches)
    agree(models, batches, wanted, TOLERANCE["float32"])
    deploys(models[0].graph, batches, wanted)
    model.save(tmp_path / "model.h5")
    with pytest.raises(UnsupportedLayerError, match=r"vocabulary=layer.get_vocabulary\(\)"):
        read(tmp_path / "model.h5")


# --- spectrograms ------------------------------------------------------------------------------------------------------


STFT_MODES = ["log", "magnitude", "psd", "real", "imag", "stft"]

STFT_OPTIONS: list[dict[str, Any]] = [
    *({"mode": mode} for mode in STFT_MODES),
    *({"mode": mode, "expand_dims": True, "padding": "same", "frame_step": 5} for mode in ("log", "real", "stft")),
    {"window": "hamming", "fft_length": 32, "scaling": None},
]


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_stft_spectrogram(precision: str, keras: Any, tmp_path: Path) -> None:
    with floats(precision):
        inputs = [keras.Input((60, channels)) for channels in (1, 2)]
        layer = keras.layers.STFTSpectrogram
        model = keras.Model(inputs, [layer(frame_length=14, **option)(x) for option in STFT_OPTIONS for x in inputs])
    compare(model, random_inputs(model), tmp_path, precision)


def test_stft_spectrogram_channels_first(keras: Any, tmp_path: Path) -> None:
    """TensorFlow cannot run it on a CPU; its twin with the channels last says what it computes."""
    last, first = keras.Input((60, 2)), keras.Input((2, 60))
    layer = keras.layers.STFTSpectrogram
    twin = keras.Model(last, [layer(frame_length=14, **option)(last) for option in STFT_OPTIONS])
    model = keras.Model(
        first, [layer(frame_length=14, data_format="channels_first", **option)(first) for option in STFT_OPTIONS]
    )
    batches = random_inputs(twin)
    wanted = [y.transpose(0, 3, 1, 2) if y.ndim == 4 else y.transpose(0, 2, 1) for y in keras_outputs(twin, batches)]
    agree(read_all(model, tmp_path), [batches[0].transpose(0, 2, 1)], wanted, TOLERANCE["float32"])


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_mel_spectrogram(precision: str, keras: Any, tmp_path: Path) -> None:
    layer = keras.layers.MelSpectrogram
    options: list[dict[str, Any]] = [
        {},
        {"sequence_stride": 11, "window": "hamming", "sequence_length": 40},
        {"sequence_length": 41, "power_to_db": False},
        {"window": None, "power_to_db": False, "mag_exp": 1.0},
        {"window": list(np.linspace(0.1, 1.0, 64)), "power_to_db": False, "mag_exp": 3.0},
        {"top_db": 10.0, "ref_power": 2.0, "min_power": 1e-4, "max_freq": 3000, "min_freq": 100.0},
    ]
    if precision == "float64":
        # Keras cannot take the logarithm there.
        options = [{**option, "power_to_db": False} for option in options]
    with floats(precision):
        x = keras.Input((300,))
        model = keras.Model(
            x, [layer(**{"fft_length": 64, "sequence_stride": 16, "num_mel_bins": 6, **each})(x) for each in options]
        )
    # Keras makes the bands in single precision.
    compare(model, random_inputs(model), tmp_path, precision, tolerance="float32")


# --- pruning and shrinking ---------------------------------------------------------------------------------------------


def test_constants_of_layers_are_not_pruned(keras: Any) -> None:
    layers = keras.layers
    x = keras.Input((8, 6, 3))
    image = layers.Resizing(6, 6, interpolation="bicubic")(x)
    y = layers.Dense(2)(layers.Flatten()(layers.Resizing(4, 4, interpolation="area")(layers.Conv2D(8, 3, name="conv")(image))))
    model = keras.Model(x, y)
    fill(model)
    assert [layer.layer for layer in sparsec.prune_units(model, 0.5).layers if layer.pruned_units] == ["conv"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_dead_channels_pass_adaptive_pools_and_crops(wrapped: bool, keras: Any, tmp_path: Path) -> None:
    """Dead filters are gone behind them, and their constants have moved on."""
    layers = keras.layers
    x = keras.Input((12, 11, 3))
    y = layers.Conv2D(8, 3, activation="relu", name="first")(x)
    y = layers.CenterCrop(8, 9)(layers.AdaptiveMaxPooling2D((9, 10))(y))
    conv = layers.Conv2D(6, 1)
    y = (layers.SpectralNormalization(conv, name="normed") if wrapped else conv)(y)
    y = layers.AdaptiveAveragePooling2D((3, 4))(y)
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(y)))
    fill(model)
    kernel, bias = model.get_layer("first").get_weights()
    kernel[..., [1, 4]] = 0.0
    bias[[1, 4]] = 0.3, -0.2
    model.get_layer("first").set_weights([kernel, bias])
    model.save(tmp_path / "model.keras")
    batches = random_inputs(model)
    (wanted,) = keras_outputs(model, batches)
    result = sparsec.compile(tmp_path / "model.keras")
    assert result.graph.weights["first/kernel"].shape[-1] == 6
    result.save(tmp_path / "small.npz")
    found = [sparsec.load(tmp_path / "small.npz")(batches[0])]
    if wrapped:
        facts = result.save(tmp_path / "small.keras")
        assert any("SpectralNormalization" in reason for reason in facts["whole"].values())
    else:
        result.save(tmp_path / "small.keras")
        found += keras_outputs(keras.models.load_model(tmp_path / "small.keras"), batches)
    for output in found:
        assert np.abs(output - wanted).max() <= 1e-4 * np.ptp(wanted)


# --- what is refused ---------------------------------------------------------------------------------------------------

Refusal = tuple[tuple[int | None, ...], str, Callable[[Any], Any], str]
"""The shape and dtype of an input, a layer on it, and what the message says."""

REFUSALS: dict[str, Refusal] = {
    "lookup backwards": ((4,), "int64", lambda layers: layers.IntegerLookup(vocabulary=[1, 2], invert=True), "invert = True"),
    "lookup that weighs": (
        (4,),
        "int64",
        lambda layers: layers.IntegerLookup(vocabulary=[1, 2], output_mode="tf_idf", idf_weights=[0.5, 1.0]),
        "output_mode = 'tf_idf'",
    ),
    "lookup that hashes": (
        (4,),
        "int64",
        lambda layers: layers.IntegerLookup(vocabulary=[1, 2], num_oov_indices=2, oov_method="farmhash"),
        "hashes integers outside of its vocabulary",
    ),
    "angles": ((60, 1), "float32", lambda layers: layers.STFTSpectrogram("angle", frame_length=14), "mode = 'angle'"),
    "open adaptive pool": ((None, 3), "float32", lambda layers: layers.AdaptiveMaxPooling1D(4), "axis 1 is open"),
    "open crop": ((None, 5, 3), "float32", lambda layers: layers.CenterCrop(4, 4), "axis 1 is open"),
    "hashing": ((4,), "int64", lambda layers: layers.Hashing(3), "'hashing' is a Hashing: it hashes"),
    "more tiles than positions": (
        (3, 3, 3),
        "float32",
        lambda layers: layers.ContrastLimitedAdaptiveHistogramEqualization(tile_grid_size=(8, 8)),
        "tiles that lie outside",
    ),
}


@pytest.mark.parametrize(("shape", "dtype", "build", "match"), REFUSALS.values(), ids=REFUSALS)
def test_what_is_refused(
    shape: tuple[int | None, ...], dtype: str, build: Callable[[Any], Any], match: str, keras: Any
) -> None:
    keras.backend.clear_session()
    x = keras.Input(shape, dtype=dtype)
    model = keras.Model(x, build(keras.layers)(x))
    with pytest.raises(UnsupportedLayerError, match=match):
        read(model)


LOCAL = Path(__file__).parent / "frozen" / "tf_keras-2.21.0" / "local.keras"

EDITS: dict[str, tuple[str, dict[str, Any], str]] = {
    "implementation": ("LocallyConnected2D", {"implementation": 2}, "only implementation = 1"),
    "padding": ("LocallyConnected1D", {"padding": "same"}, "valid padding"),
    "batch": ("BatchNormalization", {"axis": [0, 1]}, "axes after the batch"),
    "other sizes": ("BatchNormalization", {"axis": [1, 2]}, "is stored with shape"),
}


@pytest.mark.parametrize(("class_name", "changes", "match"), EDITS.values(), ids=EDITS)
def test_files_that_are_refused(class_name: str, changes: dict[str, Any], match: str, tmp_path: Path) -> None:
    def edit(layers: list[dict[str, Any]]) -> None:
        next(layer for layer in layers if layer["class_name"] == class_name)["config"].update(changes)

    with pytest.raises(UnsupportedLayerError, match=match):
        read(edited_config(LOCAL, tmp_path / "edited.keras", edit))


def test_what_older_versions_mean(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    image, token = keras.Input((9, 8, 3)), keras.Input((1,), dtype="int32")
    keras.Model(image, layers.RandomCrop(4, 6)(image)).save(tmp_path / "crop.keras")
    keras.Model(token, layers.CategoryEncoding(5, "one_hot")(token)).save(tmp_path / "token.keras")
    (batch,) = random_inputs(keras.Model(image, image))
    with pytest.raises(UnsupportedLayerError, match="replace it by CenterCrop"):
        read(tmp_path / "crop.keras")
    before = read(of_version(tmp_path / "crop.keras", tmp_path / "older_crop.keras", "3.5.0"))
    wanted = np.stack([keras.preprocessing.image.smart_resize(sample, (4, 6)) for sample in batch])
    agree([before], [batch], [wanted], TOLERANCE["float32"])
    assert read(tmp_path / "token.keras")
    with pytest.raises(UnsupportedLayerError, match="another shape than it states"):
        read(of_version(tmp_path / "token.keras", tmp_path / "older_token.keras", "3.3.3"))
