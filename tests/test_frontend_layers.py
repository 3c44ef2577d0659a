"""Every layer and option that the Keras front-end reads, compared with Keras itself.

Each case is a tiny model with random weights. It is read from a ``.keras`` file, from an ``.h5`` file and from memory; the
three graphs must be the same, and agree with Keras to rounding, in single and in double precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_models import (
    TOLERANCE,
    Group,
    agree,
    check_group,
    fill,
    floats,
    group_id,
    keras_outputs,
    random_inputs,
    read_all,
    variants,
)

from sparsec.frontends.layers.activations import ACTIVATIONS
from sparsec.frontends.layers.core import AUGMENTATIONS

SINGLE_IN_KERAS = frozenset({"LeakyReLU", "Normalization", "ReLU", "Rescaling", "Resizing", "UpSampling2D"})
"""Layers whose constants, or positions, Keras rounds to single precision even in a model of double precision."""

NOT_IN_DOUBLE = frozenset({"AveragePooling3D", "MaxPooling3D"})
"""Layers for which TensorFlow has no double precision."""


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


# --- layers with one input ---------------------------------------------------------------------------------------------

GROUPS: list[Group] = [
    variants("Dense", (5,), {}, {"use_bias": False}, {"activation": "relu"}, units=4),
    variants("Dense", (3, 5), units=4),
    variants("Dense", (2, 3, 5), units=4, activation="tanh"),
    variants("Dense", (None, 5), units=4),
    variants(
        "Conv1D",
        (9, 4),
        {},
        {"padding": "same"},
        {"padding": "causal"},
        {"padding": "causal", "dilation_rate": 2},
        {"strides": 2, "padding": "same"},
        {"strides": 2, "padding": "causal"},
        {"groups": 2},
        {"kernel_size": 4, "padding": "same"},
        {"use_bias": False, "activation": "elu"},
        filters=6,
        kernel_size=3,
    ),
    variants(
        "Conv2D",
        (8, 7, 4),
        {},
        {"padding": "same"},
        {"padding": "same", "strides": 2},
        {"padding": "same", "strides": (3, 1)},
        {"kernel_size": 2, "padding": "same"},
        {"kernel_size": (4, 2), "padding": "same", "strides": (2, 1)},
        {"dilation_rate": 2},
        {"dilation_rate": (1, 2), "padding": "same"},
        {"groups": 2},
        {"groups": 4, "padding": "same", "strides": 2},
        {"kernel_size": 1, "strides": 2},
        {"use_bias": False},
        {"activation": "softmax"},
        filters=8,
        kernel_size=3,
    ),
    variants("Conv2D", (None, None, 3), {}, {"padding": "same", "strides": 2}, filters=4, kernel_size=3),
    variants(
        "Conv3D",
        (5, 6, 4, 2),
        {},
        {"padding": "same", "strides": 2},
        {"dilation_rate": 2},
        {"groups": 2},
        {"kernel_size": (1, 3, 2), "padding": "same"},
        filters=4,
        kernel_size=2,
    ),
    variants(
        "DepthwiseConv1D",
        (9, 3),
        {},
        {"padding": "same", "strides": 2},
        {"depth_multiplier": 2},
        {"dilation_rate": 2},
        {"use_bias": False},
        kernel_size=3,
    ),
    variants(
        "DepthwiseConv2D",
        (8, 7, 3),
        {},
        {"padding": "same", "strides": 2},
        {"depth_multiplier": 2, "activation": "relu"},
        {"dilation_rate": 2, "padding": "same"},
        {"kernel_size": 4, "padding": "same"},
        {"use_bias": False},
        kernel_size=3,
    ),
    variants(
        "SeparableConv1D",
        (9, 3),
        {},
        {"padding": "same", "strides": 2, "depth_multiplier": 2},
        {"dilation_rate": 2},
        filters=4,
        kernel_size=3,
    ),
    variants(
        "SeparableConv2D",
        (8, 7, 3),
        {},
        {"padding": "same", "strides": 2, "depth_multiplier": 2},
        {"dilation_rate": 2},
        {"use_bias": False, "activation": "relu"},
        filters=4,
        kernel_size=3,
    ),
    variants(
        "Conv1DTranspose",
        (5, 3),
        {},
        {"padding": "same"},
        {"strides": 2},
        {"strides": 2, "padding": "same"},
        {"strides": 4},
        {"strides": 5, "padding": "same"},
        {"strides": 2, "output_padding": 1},
        {"strides": 3, "output_padding": 1, "padding": "same"},
        {"kernel_size": 4, "padding": "same"},
        filters=4,
        kernel_size=3,
    ),
    variants(
        "Conv2DTranspose",
        (4, 5, 3),
        {},
        {"padding": "same"},
        {"strides": 2},
        {"strides": 2, "padding": "same"},
        {"strides": (3, 1), "padding": "same"},
        {"strides": 4},
        {"strides": 4, "padding": "same"},
        {"strides": 2, "output_padding": 1},
        {"strides": 2, "output_padding": 0, "padding": "same"},
        {"strides": 2, "output_padding": 1, "padding": "same"},
        {"kernel_size": (2, 4), "padding": "same", "strides": 2},
        {"use_bias": False, "activation": "relu"},
        filters=2,
        kernel_size=3,
    ),
    variants("Conv2DTranspose", (None, None, 3), filters=2, kernel_size=3, strides=2, padding="same"),
    variants(
        "Conv3DTranspose", (3, 4, 2, 3), {}, {"strides": 2, "padding": "same"}, {"strides": (2, 1, 3)}, filters=2, kernel_size=2
    ),
    variants(
        "BatchNormalization",
        (4, 5, 3),
        {},
        {"scale": False},
        {"center": False},
        {"scale": False, "center": False},
        {"axis": 1},
        {"axis": 2},
    ),
    variants("BatchNormalization", (6,), {}, {"epsilon": 0.1}),
    variants(
        "LayerNormalization",
        (4, 5, 3),
        {},
        {"axis": 1},
        {"axis": [1, 2]},
        {"axis": [1, 2, 3]},
        {"axis": [-2, -1]},
        {"scale": False},
        {"center": False, "epsilon": 0.1},
    ),
    variants(
        "ReLU",
        (4, 3),
        {},
        {"max_value": 1.0},
        {"negative_slope": 0.2},
        {"threshold": 0.7},
        {"max_value": 1.5, "negative_slope": 0.1, "threshold": 0.5},
    ),
    variants("LeakyReLU", (4, 3), {}, {"negative_slope": 0.05}),
    variants("ELU", (4, 3), {}, {"alpha": 0.4}),
    variants("PReLU", (4, 5, 3), {}, {"shared_axes": [1, 2]}, {"shared_axes": [-1]}),
    variants("Softmax", (4, 5), {}, {"axis": 1}, {"axis": [1, 2]}, {"axis": [-1]}),
    variants("Softmax", (4, 5, 3), {"axis": [1, 3]}, {"axis": [2, 1]}),
    *(
        group
        for name in ("MaxPooling", "AveragePooling")
        for group in (
            variants(f"{name}1D", (9, 3), {}, {"pool_size": 3, "strides": 2, "padding": "same"}, {"strides": 3}, pool_size=2),
            variants(
                f"{name}2D",
                (8, 7, 3),
                {},
                {"pool_size": 3, "strides": 2, "padding": "same"},
                {"pool_size": (2, 3), "strides": (3, 1)},
                {"strides": 1, "padding": "same"},
                pool_size=2,
            ),
            variants(f"{name}2D", (None, None, 3), pool_size=3, strides=2, padding="same"),
            variants(f"{name}3D", (5, 6, 4, 2), {"pool_size": 2}, {"pool_size": (2, 3, 2), "strides": 2, "padding": "same"}),
        )
    ),
    *(
        variants(
            f"{name}{rank}D",
            shape,
            {},
            {"keepdims": True},
            {"data_format": "channels_first"},
            {"data_format": "channels_first", "keepdims": True},
        )
        for name in ("GlobalMaxPooling", "GlobalAveragePooling")
        for rank, shape in enumerate(((9, 3), (8, 7, 3), (5, 6, 4, 2)), start=1)
    ),
    variants("ZeroPadding1D", (5, 3), {}, {"padding": 2}, {"padding": (0, 3)}),
    variants(
        "ZeroPadding2D",
        (4, 5, 3),
        {},
        {"padding": (1, 2)},
        {"padding": ((0, 1), (2, 3))},
        {"padding": ((0, 1), (2, 3)), "data_format": "channels_first"},
    ),
    variants(
        "ZeroPadding3D",
        (4, 5, 3, 2),
        {},
        {"padding": (1, 2, 0)},
        {"padding": ((0, 1), (2, 3), (1, 0))},
        {"padding": ((0, 1), (2, 3), (1, 0)), "data_format": "channels_first"},
    ),
    variants("Cropping1D", (6, 3), {}, {"cropping": 2}, {"cropping": (0, 3)}),
    variants(
        "Cropping2D",
        (6, 7, 5),
        {"cropping": 1},
        {"cropping": (1, 2)},
        {"cropping": ((0, 1), (2, 3))},
        {"cropping": ((0, 1), (2, 1)), "data_format": "channels_first"},
    ),
    variants("Cropping2D", (None, None, 2), cropping=((0, 1), (2, 3))),
    variants(
        "Cropping3D",
        (6, 7, 5, 6),
        {},
        {"cropping": (1, 2, 0)},
        {"cropping": ((0, 1), (2, 3), (1, 0))},
        {"cropping": ((0, 1), (2, 1), (1, 0)), "data_format": "channels_first"},
    ),
    variants("UpSampling1D", (5, 3), {}, {"size": 3}),
    variants(
        "UpSampling2D",
        (4, 5, 3),
        {},
        {"size": (2, 3)},
        {"interpolation": "bilinear"},
        {"size": (3, 2), "interpolation": "bilinear"},
        {"data_format": "channels_first"},
    ),
    variants("UpSampling2D", (None, None, 3), {}, {"interpolation": "bilinear"}),
    variants("UpSampling3D", (2, 3, 4, 2), {}, {"size": (1, 2, 3)}, {"data_format": "channels_first"}),
    variants(
        "Resizing",
        (8, 6, 3),
        {"height": 12, "width": 9},
        {"height": 5, "width": 3},
        {"height": 4, "width": 3, "interpolation": "nearest"},
        {"height": 16, "width": 18, "interpolation": "nearest"},
        {"height": 5, "width": 7, "interpolation": "nearest"},
        {"height": 5, "width": 3, "data_format": "channels_first"},
    ),
    variants("Resizing", (None, None, 3), height=6, width=7),
    variants("Flatten", (4, 5, 3), {}, {"data_format": "channels_first"}),
    variants("Flatten", (6,)),
    variants("Flatten", ()),
    variants(
        "Reshape",
        (4, 6),
        {"target_shape": (2, 12)},
        {"target_shape": (-1, 3)},
        {"target_shape": (24,)},
        {"target_shape": (2, -1, 2, 3)},
    ),
    variants("Reshape", (None, 6), target_shape=(-1, 3)),
    variants("Permute", (4, 5, 3), {"dims": (2, 1, 3)}, {"dims": (3, 1, 2)}),
    variants("RepeatVector", (5,), n=3),
    variants(
        "Rescaling",
        (4, 3),
        {"scale": 0.5},
        {"scale": 1 / 127.5, "offset": -1.0},
        {"scale": [0.5, 2.0, 1.5], "offset": [0.1, 0.0, -3.0]},
        {"scale": 2, "offset": [1.0, 2.0, 3.0]},
    ),
    variants("Rescaling", (4, None), scale=0.5, offset=1.0),
    variants(
        "Normalization",
        (4, 3),
        {"mean": 0.5, "variance": 2.0},
        {"mean": [0.1, -0.2, 0.3], "variance": [1.0, 2.0, 0.5]},
        {"axis": None, "mean": 0.5, "variance": 2.0},
        {"mean": [0.1, -0.2, 0.3], "variance": [1.0, 2.0, 0.5], "invert": True},
        {"mean": 5000.0, "variance": 4.0},
        {"axis": 1, "mean": [0.1, 0.2, 0.3, 0.4], "variance": [1.0, 2.0, 3.0, 4.0]},
        {"axis": (1, 2), "mean": [0.1, 0.2, 0.3], "variance": [1.0, 2.0, 3.0]},
        {},
        {"axis": None},
        {"axis": 1},
        {"axis": (1, 2)},
        {"invert": True},
    ),
    *(
        variants(name, (4, 3), options)
        for name, options in {
            "ActivityRegularization": {"l2": 0.1},
            "AlphaDropout": {"rate": 0.3},
            "Dropout": {"rate": 0.3},
            "GaussianDropout": {"rate": 0.3},
            "GaussianNoise": {"stddev": 0.3},
            "Identity": {},
        }.items()
    ),
    *(
        variants(f"SpatialDropout{rank}D", shape, rate=0.3)
        for rank, shape in enumerate(((4, 3), (4, 5, 3), (2, 4, 5, 3)), start=1)
    ),
]


SINGLE = [pytest.param("float32", group, id=f"{group_id(group)}-float32") for group in GROUPS]
DOUBLE = [pytest.param("float64", group, id=f"{group_id(group)}-float64") for group in GROUPS if group[0] not in NOT_IN_DOUBLE]


@pytest.mark.parametrize(("precision", "group"), SINGLE + DOUBLE)
def test_layer(precision: str, group: Group, keras: Any, tmp_path: Path) -> None:
    check_group(group, precision, "float32" if group[0] in SINGLE_IN_KERAS else precision, tmp_path)


def test_augmentation(keras: Any, tmp_path: Path) -> None:
    arguments = {"MaxNumBoundingBoxes": (5,), "RandomTranslation": (0.1, 0.1), "RandomPosterization": (4,)}
    plain = {
        "AugMix",
        "CutMix",
        "Equalization",
        "MixUp",
        "RandAugment",
        "RandomColorJitter",
        "RandomElasticTransform",
        "RandomErasing",
        "RandomFlip",
        "RandomGaussianBlur",
        "RandomGrayscale",
        "RandomInvert",
        "RandomPerspective",
    }
    x = keras.Input((8, 6, 3))
    names = [name for name in AUGMENTATIONS if hasattr(keras.layers, name)]
    layers = [getattr(keras.layers, name)(*arguments.get(name, () if name in plain else (0.2,))) for name in names]
    # Keras can put Equalization into a functional model in a Pipeline alone.
    layers = [
        keras.layers.Pipeline([layer]) if name == "Equalization" else layer for name, layer in zip(names, layers, strict=True)
    ]
    model = keras.Model(x, [layer(x) for layer in layers])
    batches = random_inputs(model)
    wanted = keras_outputs(model, batches)
    assert all(np.array_equal(output, batches[0]) for output in wanted)
    # Keras cannot save some of them as .h5.
    agree(read_all(model, tmp_path, h5=False), batches, wanted, 0.0)


def test_layers_of_applications(keras: Any, tmp_path: Path) -> None:
    from keras.src.applications.convnext import LayerScale, StochasticDepth
    from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

    x = keras.Input((4, 3))
    model = keras.Model(
        x, [LayerScale(1e-6, 3)(x), StochasticDepth(0.5)(x), CustomScaleLayer(0.17)([x, keras.layers.Dense(3)(x)])]
    )
    fill(model)
    batches = random_inputs(model)
    agree(read_all(model, tmp_path), batches, keras_outputs(model, batches), TOLERANCE["float32"])


# --- what TensorFlow cannot run on a CPU, compared with a twin that it can ---------------------------------------------

CHANNELS_FIRST: list[Group] = [
    variants("Conv1D", (9, 4), {}, {"padding": "same", "strides": 2, "groups": 2}, filters=6, kernel_size=3, activation="relu"),
    variants("Conv2D", (8, 7, 4), {}, {"padding": "same", "strides": 2}, {"dilation_rate": 2}, filters=6, kernel_size=3),
    variants("Conv3D", (5, 6, 4, 2), filters=4, kernel_size=2),
    variants("DepthwiseConv1D", (9, 3), kernel_size=3, depth_multiplier=2),
    variants("DepthwiseConv2D", (8, 7, 3), {}, {"padding": "same", "strides": 2}, kernel_size=3, depth_multiplier=2),
    variants("SeparableConv1D", (9, 3), filters=4, kernel_size=3),
    variants("SeparableConv2D", (8, 7, 3), filters=4, kernel_size=3, padding="same"),
    variants("Conv1DTranspose", (5, 3), filters=4, kernel_size=3, strides=2),
    variants("Conv2DTranspose", (4, 5, 3), {}, {"padding": "same"}, filters=4, kernel_size=3, strides=2),
    variants("Conv3DTranspose", (3, 4, 2, 3), filters=2, kernel_size=2, strides=2),
    variants("MaxPooling1D", (9, 3), pool_size=2),
    variants("MaxPooling2D", (8, 7, 3), pool_size=3, strides=2, padding="same"),
    variants("MaxPooling3D", (5, 6, 4, 2), pool_size=2),
    variants("AveragePooling1D", (9, 3), pool_size=2, padding="same"),
    variants("AveragePooling2D", (8, 7, 3), pool_size=3, strides=2, padding="same"),
    variants("AveragePooling3D", (5, 6, 4, 2), pool_size=2),
    variants("UpSampling2D", (4, 5, 3), {}, {"interpolation": "bilinear"}),
]


@pytest.mark.parametrize("group", CHANNELS_FIRST, ids=group_id)
def test_channels_first(group: Group, keras: Any, tmp_path: Path) -> None:
    class_name, shape, options = group
    layer = getattr(keras.layers, class_name)
    last, first = keras.Input(shape), keras.Input((shape[-1], *shape[:-1]))
    twin = keras.Model(last, [layer(**option)(last) for option in options])
    model = keras.Model(first, [layer(data_format="channels_first", **option)(first) for option in options])
    fill(twin)
    model.set_weights(twin.get_weights())
    batches = random_inputs(twin)
    wanted = [np.moveaxis(output, -1, 1) for output in keras_outputs(twin, batches)]
    agree(read_all(model, tmp_path), [np.moveaxis(batch, -1, 1) for batch in batches], wanted, TOLERANCE["float32"])


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("class_name", "shape"), [("Conv1DTranspose", (6, 3)), ("Conv2DTranspose", (4, 5, 3))])
def test_dilated_transposed_convolution(
    class_name: str, shape: tuple[int, ...], padding: str, keras: Any, tmp_path: Path
) -> None:
    """A dilated kernel is a larger one with zeros between its taps."""
    layer, rank = getattr(keras.layers, class_name), len(shape) - 1
    start = keras.Input(shape)
    model = keras.Model(start, layer(4, 3, dilation_rate=2, padding=padding)(start))
    twin = keras.Model(start, layer(4, 5, padding=padding)(start))
    fill(model)
    kernel, bias = model.get_weights()
    spread = np.zeros((*(5,) * rank, *kernel.shape[rank:]), kernel.dtype)
    spread[(slice(None, None, 2),) * rank] = kernel
    twin.set_weights([spread, bias])
    batches = random_inputs(model)
    agree(read_all(model, tmp_path), batches, keras_outputs(twin, batches), TOLERANCE["float32"])


# --- layers with several inputs ----------------------------------------------------------------------------------------

MERGED_SHAPES = {
    "equal": ((4, 3), (4, 3), (4, 3)),
    "broadcast": ((4, 3), (1, 3), (4, 1)),
    "ranks": ((4, 3), (3,), (2, 4, 3)),
    "open": ((None, 3), (1, 3), (1, 1)),
}


@pytest.mark.parametrize("shapes", MERGED_SHAPES.values(), ids=MERGED_SHAPES)
@pytest.mark.parametrize("class_name", ["Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract"])
def test_merging_layer(class_name: str, shapes: Sequence[tuple[int | None, ...]], keras: Any, tmp_path: Path) -> None:
    inputs = [keras.Input(shape) for shape in shapes]
    layer = getattr(keras.layers, class_name)
    outputs = [layer()(inputs[:2])]
    if class_name != "Subtract":
        outputs.append(layer()(inputs))
    model = keras.Model(inputs[: 2 if class_name == "Subtract" else 3], outputs)
    batches = random_inputs(model)
    agree(read_all(model, tmp_path), batches, keras_outputs(model, batches), TOLERANCE["float32"])


def test_concatenation(keras: Any, tmp_path: Path) -> None:
    a, b, c, d = keras.Input((4, 3)), keras.Input((4, 2)), keras.Input((5, 3)), keras.Input((None, 3))
    layer = keras.layers.Concatenate
    outputs = [
        layer()([a, b]),
        layer(axis=2)([a, b, a]),
        layer(axis=1)([a, c]),
        layer(axis=-2)([c, a]),
        layer(axis=1)([a, d]),
        layer()([a, a]),
    ]
    model = keras.Model([a, b, c, d], outputs)
    batches = random_inputs(model)
    agree(read_all(model, tmp_path), batches, keras_outputs(model, batches), TOLERANCE["float32"])


# --- activations -------------------------------------------------------------------------------------------------------


def test_every_activation_of_keras_is_read(keras: Any) -> None:
    from keras.src.activations import ALL_OBJECTS_DICT

    assert set(ALL_OBJECTS_DICT) == set(ACTIVATIONS)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_activations_by_name(precision: str, keras: Any, tmp_path: Path) -> None:
    # The parameters of threshold have no defaults, so its name is not enough.
    names = [name for name in ACTIVATIONS if name != "threshold"]
    with floats(precision):
        start = keras.Input((3, 6))
        model = keras.Model(start, [keras.layers.Activation(name, name=f"by_{name}")(start) for name in names])
    batches = [4.0 * batch for batch in random_inputs(model)]
    # Keras computes gelu, celu and the like with constants in single precision.
    agree(read_all(model, tmp_path), batches, keras_outputs(model, batches), TOLERANCE["float32"])


def test_thresholds_are_not_exceeded_by_themselves(keras: Any, tmp_path: Path) -> None:
    layers, x = keras.layers, keras.Input((6,))
    outputs = [layers.ReLU(threshold=0.5)(x), layers.ReLU(2.0, 0.25, 0.5)(x), keras.ops.threshold(x, 0.5, -3.0)]
    model = keras.Model(x, [*outputs, keras.ops.hard_shrink(x, 0.5), keras.ops.soft_shrink(x, 0.5)])
    batches = [np.array([[-2.0, -0.5, 0.0, 0.5, 1.0, 2.0]], np.float32)]
    agree(read_all(model, tmp_path, h5=False), batches, keras_outputs(model, batches), TOLERANCE["float32"])


def test_activations_with_parameters(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    start = keras.Input((3, 6))
    activations = [
        layers.LeakyReLU(0.15),
        layers.ELU(0.3),
        layers.ReLU(2.0, 0.1, 0.5),
        layers.Softmax(1),
        layers.Activation("gelu"),
        layers.Activation(layers.LeakyReLU(0.4)),
    ]
    model = keras.Model(start, [layers.Dense(4, activation=activation)(start) for activation in activations])
    fill(model)
    batches = random_inputs(model)
    agree(read_all(model, tmp_path), batches, keras_outputs(model, batches), TOLERANCE["float32"])


def test_activations_as_operations(keras: Any, tmp_path: Path) -> None:
    ops = keras.ops
    operations = (
        "celu elu exp gelu glu hard_shrink hard_sigmoid hard_silu hard_tanh leaky_relu log_sigmoid log_softmax relu relu6 "
    )
    operations += (
        "selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid squareplus tanh tanh_shrink"
    )
    x = keras.Input((3, 6))
    outputs = [getattr(ops, name)(x) for name in operations.split()]
    outputs += [
        ops.gelu(x, approximate=False),
        ops.leaky_relu(x, negative_slope=0.4),
        ops.elu(x, alpha=0.3),
        ops.celu(x, 0.6),
        ops.glu(x, axis=2),
        ops.softmax(x, axis=1),
        ops.log_softmax(x, axis=1),
        ops.soft_shrink(x, 0.8),
        ops.hard_shrink(x, 0.9),
        ops.squareplus(x, b=2),
        ops.threshold(x, 0.5, 2.0),
        keras.activations.relu(x, negative_slope=0.1, max_value=3.0, threshold=0.2),
        keras.activations.gelu(x),
    ]
    model = keras.Model(x, outputs)
    batches = [2.0 * batch for batch in random_inputs(model)]
    # Keras cannot read operations from .h5 itself.
    agree(read_all(model, tmp_path, h5=False), batches, keras_outputs(model, batches), TOLERANCE["float32"])


# --- arithmetic --------------------------------------------------------------------------------------------------------


def test_arithmetic(keras: Any, tmp_path: Path) -> None:
    ops = keras.ops
    a, b = keras.Input((4, 3)), keras.Input((1, 3))
    row = np.array([1.0, -2.0, 3.0], np.float32)
    outputs = [a + b, a - b, a * b, a + 1, 2.0 - a, a * 2.0, 1.5 / (ops.exp(a) + 1.0), a / 4, -a, abs(a)]
    outputs += [a + row, a * np.arange(3), a * np.float32(0.3), a + np.array([1.0, 2.0, 3.0]), a + ops.convert_to_tensor(row)]
    outputs += [ops.add(a, a), ops.subtract(x1=a, x2=0.5), ops.multiply(a, row), ops.divide(b, 3.0), ops.true_divide(b, row)]
    outputs += [ops.maximum(a, 0.3), ops.minimum(a, row), ops.maximum(a, b), ops.negative(b)]
    outputs += [ops.square(a), ops.sqrt(ops.absolute(a))]
    model = keras.Model([a, b], outputs)
    batches = random_inputs(model)
    agree(read_all(model, tmp_path, h5=False), batches, keras_outputs(model, batches), TOLERANCE["float32"])


# --- dtypes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"])
def test_integer_inputs(dtype: str, keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    image = keras.Input((4, 5, 3), dtype=dtype)
    x = layers.Rescaling(1 / 50, offset=-1.0)(layers.ZeroPadding2D(1)(image)) if dtype != "bool" else image
    flat = layers.Flatten()(layers.Permute((2, 1, 3))(image))
    model = keras.Model(image, [layers.Dense(4)(flat), layers.Conv2D(2, 3)(keras.ops.cast(x, "float32")), flat])
    fill(model)
    batches = random_inputs(model)
    wanted = keras_outputs(model, batches)
    models = read_all(model, tmp_path, h5=False)
    wanted[2] = wanted[2].astype(models[0].graph.inputs[0].type.dtype)
    agree(models, batches, wanted, TOLERANCE["float32"])


def test_dtypes_that_meet(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    whole, real, double = keras.Input((3,), dtype="int32"), keras.Input((3,)), keras.Input((3,), dtype="float64")
    outputs = [layers.Add()([whole, real]), layers.Concatenate()([real, whole]), layers.Multiply()([whole, whole])]
    outputs += [whole * 2, whole * 0.5, whole / 4, real + double, whole + np.arange(3), keras.ops.cast(real, "int32")]
    outputs += [
        layers.Dense(2, dtype="float64")(real),
        layers.Dense(2)(double),
        layers.Normalization(mean=1.0, variance=2.0)(whole),
    ]
    model = keras.Model([whole, real, double], outputs)
    fill(model)
    batches = random_inputs(model)
    agree(read_all(model, tmp_path, h5=False), batches, keras_outputs(model, batches), TOLERANCE["float32"])
