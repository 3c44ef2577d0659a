# SPDX-License-Identifier: Apache-2.0
"""Make one set of frozen sample files with the Keras that is installed.

The sets are what the readers of Keras files are tested against.  Each holds
the same tiny models, saved by one released version of Keras as ``.keras`` and
as ``.h5``, and next to them a ``.npz`` with three input samples (``x0``,
``x1``, ...; one array for each input of the model) and the outputs that this
very version computed for them (``y0``, ``y1``, ...).

The script is run once for each version, in an environment of its own; README.md
lists the commands.  It does not need (and does not import) sparsec::

    python make.py keras            # the installed `keras`, be it 2 or 3
    python make.py tf_keras         # the installed `tf_keras`
    python make.py tfmot            # pruning wrappers of TFMOT over `tf_keras`

A file is kept only if the version that wrote it can load it again and then
computes the outputs it computed before.  What could not be made is printed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from tensors import TENSORS

Array = npt.NDArray[Any]

SAMPLES = 3


@dataclass(frozen=True)
class Made:
    """A model and the inputs to run it on."""

    model: Any
    inputs: list[Array]


class Kit:
    """The version of Keras at work, and a random generator for one model."""

    def __init__(self, tool: str, seed: int) -> None:
        module = "keras" if tool == "keras" else "tf_keras"
        self.keras: Any = importlib.import_module(module)
        self.layers: Any = self.keras.layers
        self.version: str = self.keras.__version__
        self.three: bool = int(self.version.split(".", 1)[0]) >= 3
        self.random = np.random.default_rng(seed)
        self.keras.backend.clear_session()
        self.keras.utils.set_random_seed(seed)

    def sequential(self, *layers: Any) -> Any:
        """Make a Sequential model of these layers."""
        return self.keras.Sequential(list(layers))

    def model(self, inputs: Any, outputs: Any, name: str | None = None) -> Any:
        """Make a Functional model between these tensors."""
        return self.keras.Model(inputs, outputs, name=name)

    def name(self, name: str) -> str:
        """Return a layer name with slashes where this version allows them."""
        return name.replace("/", "_") if self.three else name

    def tanh_gelu(self, tensor: Any) -> Any:
        """Apply the approximate GELU as an operation that is not a layer."""
        if self.three:
            return self.keras.ops.gelu(tensor, approximate=True)
        tensorflow = importlib.import_module("tensorflow")
        return tensorflow.nn.gelu(tensor, approximate=True)

    def normal(self, *shape: int) -> Array:
        """Return float32 samples of the standard normal distribution."""
        return self.random.normal(size=shape).astype(np.float32)

    def fill(self, model: Any) -> None:
        """Give all weights of a model random values, biases included."""
        model.set_weights([self._values(weight) for weight in model.weights])

    def _values(self, weight: Any) -> Array:
        # `path` is Keras 3 ("dense/kernel"), `name` Keras 2 ("dense/kernel:0").
        path: str = getattr(weight, "path", None) or weight.name
        leaf = path.rsplit("/", 1)[-1].split(":", 1)[0]
        shape = tuple(int(size) for size in weight.shape)
        if leaf in ("mean", "variance", "count"):  # what Normalization adapted to
            return np.asarray(weight.numpy())
        if leaf == "gamma":
            values = self.random.uniform(0.6, 1.4, shape)
        elif leaf == "moving_variance":
            values = self.random.uniform(0.5, 1.5, shape)
        elif leaf == "alpha":
            values = self.random.uniform(0.05, 0.5, shape)
        elif leaf in ("beta", "moving_mean", "bias"):
            values = self.random.normal(0.0, 0.3, shape)
        else:
            fan_in = max(1, int(np.prod(shape[:-1])))
            values = self.random.normal(0.0, 1.5 / np.sqrt(fan_in), shape)
        return values.astype(np.float32)


def mlp(kit: Kit) -> Made:
    """Dense layers in a Sequential, trained for a step: has optimizer state."""
    layers = kit.layers
    model = kit.sequential(
        kit.keras.Input((6,)),
        layers.Dense(5, activation="relu"),
        layers.Dense(4, activation="tanh"),
        layers.Dropout(0.25),
        layers.Dense(3, activation="softmax"),
    )
    kit.fill(model)
    model.compile(
        optimizer=kit.keras.optimizers.Adam(0.01),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    inputs = kit.normal(SAMPLES, 6)
    model.train_on_batch(inputs, np.eye(3, dtype=np.float32)[:SAMPLES])
    return Made(model, [inputs])


def lenet(kit: Kit) -> Made:
    """Convolutions in a Sequential, with names chosen to mislead.

    The chosen names are not in alphabetical order, and the automatic ones do
    not start to count at zero.
    """
    layers = kit.layers
    layers.Conv2D(1, 1)
    layers.Dense(1)
    model = kit.sequential(
        layers.Conv2D(4, 3, padding="same", activation="relu", input_shape=(12, 12, 1)),
        layers.AveragePooling2D(2, name="z_first"),
        layers.Conv2D(3, 3, activation="relu", name="a_second"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(6, activation="sigmoid", name="m_middle"),
        layers.Dense(3),
    )
    kit.fill(model)
    model.compile(optimizer="sgd", loss="mean_squared_error")
    return Made(model, [kit.normal(SAMPLES, 12, 12, 1)])


def resnet(kit: Kit) -> Made:
    """Residual block with batch normalization, and slashes in layer names."""
    layers, name = kit.layers, kit.name
    start = kit.keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, strides=2, use_bias=False, name=name("stem/conv"))(start)
    x = layers.BatchNormalization(name=name("stem/bn"))(x)
    x = skip = layers.Activation("relu", name=name("stem/relu"))(x)
    x = layers.ZeroPadding2D(((1, 0), (0, 1)), name=name("block/1/pad"))(x)
    x = layers.Conv2D(4, 2, name=name("block/1/conv"))(x)
    x = layers.BatchNormalization(scale=False, epsilon=0.01, name=name("block/1/bn"))(x)
    x = layers.Add(name=name("block/1/add"))([skip, x])
    x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    model = kit.model(start, layers.Dense(3, name="logits")(x), name="resnet")
    kit.fill(model)
    return Made(model, [kit.normal(SAMPLES, 8, 8, 3)])


def mobile(kit: Kit) -> Made:
    """Depthwise and separable convolutions and the activations around them."""
    layers = kit.layers
    start = kit.keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="swish")(start)
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
    x = layers.BatchNormalization()(x)
    x = block = layers.ReLU(max_value=6.0)(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Reshape((1, 1, 8))(x)
    x = layers.Conv2D(8, 1, activation="hard_sigmoid")(x)
    x = layers.Multiply()([block, x])
    x = layers.SeparableConv2D(4, 3, padding="same")(x)
    x = layers.LeakyReLU()(x)
    x = layers.Conv2DTranspose(3, 3, strides=2, padding="same")(x)
    x = layers.PReLU(shared_axes=[1, 2])(x)
    x = layers.UpSampling2D((2, 1))(x)
    # Lists of one tensor: Keras 3 keeps them apart from a bare tensor.
    model = kit.model([start], [x])
    kit.fill(model)
    return Made(model, [kit.normal(SAMPLES, 8, 8, 3)])


def nested(kit: Kit) -> Made:
    """Models as layers, layers and models used twice, two inputs and outputs."""
    layers, keras = kit.layers, kit.keras
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="tanh")], name="inner")
    start = keras.Input((5,), name="features")
    x = layers.Dense(4, activation="relu", name="widen")(start)
    encoder = kit.model(start, inner(x), name="encoder")
    head = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu"), layers.Dense(2)], name="head")
    shared = layers.Dense(4, name="shared")

    left, right = keras.Input((5,), name="left"), keras.Input((3,), name="right")
    a, b = shared(encoder(left)), shared(right)
    joined = layers.Concatenate()([head(b), a, head(a)])
    model = kit.model([left, right], [layers.Dense(3, name="z_out")(joined), b])
    kit.fill(model)
    return Made(model, [kit.normal(SAMPLES, 5), kit.normal(SAMPLES, 3)])


def ops(kit: Kit) -> Made:
    """Operations on tensors that are not layers, with constants among them."""
    layers = kit.layers
    left, right = kit.keras.Input((5,), name="left"), kit.keras.Input((4,), name="right")
    a = layers.Dense(4)(left)
    total = a + right
    x = kit.tanh_gelu(1.0 - total * 2.0)
    model = kit.model([left, right], [x - a, layers.Dense(2)(total / 4.0)])
    kit.fill(model)
    return Made(model, [kit.normal(SAMPLES, 5), kit.normal(SAMPLES, 4)])


def series(kit: Kit) -> Made:
    """Layers over one spatial axis, in a Sequential."""
    layers = kit.layers
    model = kit.sequential(
        kit.keras.Input((12, 3)),
        layers.ZeroPadding1D((1, 2)),
        layers.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="relu"),
        layers.SeparableConv1D(5, 3, padding="same", depth_multiplier=2),
        layers.MaxPooling1D(2),
        layers.LayerNormalization(),
        layers.Conv1DTranspose(4, 3, strides=2),
        layers.Cropping1D((2, 1)),
        layers.Permute((2, 1)),
        layers.GlobalMaxPooling1D(),
        layers.RepeatVector(2),
    )
    kit.fill(model)
    return Made(model, [kit.normal(SAMPLES, 12, 3)])


def volume(kit: Kit) -> Made:
    """Layers over three spatial axes, in a Sequential without an Input."""
    layers = kit.layers
    model = kit.sequential(
        layers.Conv3D(3, 3, padding="same", activation="relu"),
        layers.MaxPooling3D(2),
        layers.BatchNormalization(),
        layers.Conv3DTranspose(2, (2, 3, 2), strides=(2, 1, 2), padding="same"),
        layers.AveragePooling3D((2, 1, 2)),
        layers.Conv3D(4, (1, 2, 1), use_bias=False),
        layers.GlobalAveragePooling3D(),
    )
    model.build((None, 6, 8, 4, 2))
    kit.fill(model)
    return Made(model, [kit.normal(SAMPLES, 6, 8, 4, 2)])


def norm(kit: Kit) -> Made:
    """Adapted normalization, noise, and the less common activations."""
    layers = kit.layers
    normalization = layers.Normalization()
    normalization.adapt(2.0 * kit.normal(32, 4, 6, 3) + np.array([-1.0, 0.0, 1.0], np.float32))
    start = kit.keras.Input((4, 6, 3))
    x = layers.Rescaling(0.5, offset=0.1)(start)
    x = normalization(x)
    x = layers.Conv2D(4, 1, activation="gelu")(x)
    x = layers.ELU(0.7)(x)
    x = layers.GaussianNoise(0.1)(x)
    x = layers.SpatialDropout2D(0.2)(x)
    x = layers.Conv2D(3, (2, 3), activation="selu")(x)
    x = layers.Activation("softsign")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(4, activation="softplus")(x)
    model = kit.model(start, layers.Activation("exponential")(x))
    kit.fill(model)
    return Made(model, [kit.normal(SAMPLES, 4, 6, 3)])


def axes(kit: Kit) -> Made:
    """Normalization over other axes than the last, and over two of them."""
    layers = kit.layers
    start = kit.keras.Input((4, 6, 3))
    x = layers.BatchNormalization(axis=1)(start)
    model = kit.model(start, layers.LayerNormalization(axis=[2, 3])(x))
    kit.fill(model)
    return Made(model, [kit.normal(SAMPLES, 4, 6, 3)])


def lstm(kit: Kit) -> Made:
    """LSTM, one for each step of the input and one for the last alone."""
    layers = kit.layers
    model = kit.sequential(
        kit.keras.Input((5, 3)),
        layers.LSTM(4, return_sequences=True),
        layers.TimeDistributed(layers.Dense(3, activation="relu")),
        layers.LSTM(2, go_backwards=True, unit_forget_bias=False),
    )
    kit.fill(model)
    return Made(model, [kit.normal(SAMPLES, 5, 3)])


def gru(kit: Kit) -> Made:
    """GRU with the default `reset_after`, in both directions, and without it."""
    layers = kit.layers
    model = kit.sequential(
        kit.keras.Input((5, 3)),
        layers.Bidirectional(layers.GRU(3, return_sequences=True)),
        layers.GRU(2, reset_after=False),
    )
    kit.fill(model)
    return Made(model, [kit.normal(SAMPLES, 5, 3)])


def masked(kit: Kit) -> Made:
    """An Embedding whose mask an LSTM honours."""
    layers = kit.layers
    model = kit.sequential(
        kit.keras.Input((6,), dtype="int32"),
        layers.Embedding(7, 3, mask_zero=True),
        layers.Bidirectional(layers.LSTM(2), merge_mode="sum"),
        layers.Dense(2),
    )
    kit.fill(model)
    inputs = kit.random.integers(1, 7, (SAMPLES, 6)).astype(np.int32)
    inputs[0, 4:] = inputs[1, 2:] = 0
    return Made(model, [inputs])


def steps(kit: Kit) -> Made:
    """Masked steps, states passed on, stacked cells, both directions merged, a layer for each step, ConvLSTM."""
    layers = kit.layers
    words, sentences = kit.keras.Input((4, 3)), kit.keras.Input((3, 4, 2))
    masked = layers.Masking()(words)
    x, *states = layers.LSTM(2, return_sequences=True, return_state=True)(masked)
    x = layers.RNN([layers.LSTMCell(2), layers.GRUCell(2)], return_sequences=True)(x)
    x = layers.LSTM(2, recurrent_activation="hard_sigmoid")(x, initial_state=states)
    both = layers.Bidirectional(layers.SimpleRNN(2, return_sequences=True), merge_mode="ave")(masked)
    each = layers.GRU(2)(layers.TimeDistributed(layers.LSTM(2))(layers.Masking()(sentences)))
    lines = layers.ConvLSTM1D(2, 2)(sentences)
    model = kit.model([words, sentences], [x, both, each, lines])
    kit.fill(model)
    inputs = [kit.normal(SAMPLES, 4, 3), kit.normal(SAMPLES, 3, 4, 2)]
    inputs[0][0, 2:] = inputs[0][1, :1] = inputs[1][0, 1] = inputs[1][2, 0, 1:3] = 0
    return Made(model, inputs)


def attention(kit: Kit) -> Made:
    """Self-attention, and attention of one input to another."""
    layers = kit.layers
    query, value = kit.keras.Input((4, 6)), kit.keras.Input((5, 3))
    x = layers.MultiHeadAttention(2, 3)(query, query)
    x = layers.MultiHeadAttention(2, 2, value_dim=3, use_bias=False)(x, value)
    model = kit.model([query, value], x)
    kit.fill(model)
    return Made(model, [kit.normal(SAMPLES, 4, 6), kit.normal(SAMPLES, 5, 3)])


def images(kit: Kit) -> Made:
    """What crops, resizes and normalizes images."""
    layers = kit.layers
    start = kit.keras.Input((9, 8, 6))
    branches = [
        layers.CenterCrop(4, 5),
        layers.CenterCrop(10, 6),
        layers.RandomCrop(6, 4),
        layers.Resizing(5, 6, interpolation="bicubic"),
        layers.Resizing(4, 8, crop_to_aspect_ratio=True),
        layers.Resizing(12, 6, interpolation="area"),
        layers.UpSampling2D(2, interpolation="lanczos3"),
        layers.GroupNormalization(3),
        layers.GroupNormalization(2, axis=2),
        layers.UnitNormalization(axis=[1, 3]),
    ]
    model = kit.model(start, [branch(start) for branch in branches])
    kit.fill(model)
    return Made(model, [kit.normal(SAMPLES, 9, 8, 6)])


def local(kit: Kit) -> Made:
    """What Keras 3 has no longer: locally connected layers, thresholds, BatchNormalization over several axes."""
    layers = kit.layers
    start = kit.keras.Input((6, 5, 3))
    x = layers.LocallyConnected2D(4, (3, 2), strides=(1, 2), activation="tanh")(start)
    x = layers.BatchNormalization(axis=[1, 3])(x)
    x = layers.Reshape((8, 4))(x)
    x = layers.LocallyConnected1D(5, 3, strides=2, use_bias=False)(x)
    x = layers.BatchNormalization(axis=[1, 2], scale=False)(x)
    model = kit.model(start, layers.ThresholdedReLU(0.3)(x))
    kit.fill(model)
    return Made(model, [kit.normal(SAMPLES, 6, 5, 3)])


def categories(kit: Kit) -> Made:
    """Numbers that become categories."""
    layers = kit.layers
    start = kit.keras.Input((4,))
    bins = layers.Discretization([-1.0, 0.0, 0.5])(start)
    adapted = layers.Discretization(num_bins=7)
    adapted.adapt(kit.normal(250, 1))
    outputs = [
        bins,
        adapted(start),
        layers.Discretization([-0.8, 0.8], output_mode="multi_hot")(start),
        layers.CategoryEncoding(4, output_mode="count")(bins),
    ]
    return Made(kit.model(start, outputs), [kit.normal(SAMPLES, 4)])


def words(kit: Kit) -> Made:
    """Attention of padded sentences, some of whose words have none to look at, and products along named axes."""
    layers = kit.layers
    start = kit.keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(start)
    x = layers.MultiHeadAttention(2, 2, value_dim=3, dropout=0.1)(x, x)
    y = layers.AdditiveAttention()([x, x], use_causal_mask=True)
    z = layers.EinsumDense("abc,cde->abde", (5, 2, 3), bias_axes="de")(y)
    model = kit.model(start, [x, layers.Dot(axes=2, normalize=True)([x, y]), z])
    kit.fill(model)
    inputs = kit.random.integers(1, 9, (SAMPLES, 5)).astype(np.int32)
    inputs[0, 3:] = inputs[1, :2] = 0
    return Made(model, [inputs])


def _prune(kit: Kit, model: Any, inputs: Array, parts: tuple[str, ...] = ()) -> Made:
    """Wrap a model (or the named layers of it) for pruning, and train some steps."""
    pruning = importlib.import_module("tensorflow_model_optimization").sparsity.keras
    kit.fill(model)
    optimizers = kit.keras.optimizers
    if parts:
        optimizer = optimizers.Adam(0.01)
        schedule = pruning.PolynomialDecay(0.2, 0.75, begin_step=0, end_step=4, frequency=1)
        model = kit.keras.models.clone_model(
            model,
            clone_function=lambda layer: pruning.prune_low_magnitude(layer, schedule) if layer.name in parts else layer,
        )
    else:
        optimizer = optimizers.SGD(0.01)
        schedule = pruning.ConstantSparsity(0.5, begin_step=0, frequency=1)
        model = pruning.prune_low_magnitude(model, pruning_schedule=schedule)
    model.compile(optimizer=optimizer, loss="mse")
    model.fit(
        inputs,
        kit.normal(*(SAMPLES, *model.output_shape[1:])),
        epochs=5,
        verbose=0,
        callbacks=[pruning.UpdatePruningStep()],
    )
    return Made(model, [inputs])


def pruned_sequential(kit: Kit) -> Made:
    """A Sequential in which every layer is wrapped for pruning."""
    layers = kit.layers
    model = kit.sequential(
        kit.keras.Input((8, 8, 2)),
        layers.Conv2D(4, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.DepthwiseConv2D(2),
        layers.BatchNormalization(),
        layers.Flatten(),
        layers.Dropout(0.1),
        layers.Dense(3, activation="softmax"),
    )
    return _prune(kit, model, kit.normal(SAMPLES, 8, 8, 2))


def pruned_functional(kit: Kit) -> Made:
    """A Functional model in which every layer is wrapped for pruning."""
    layers = kit.layers
    start = kit.keras.Input((6, 6, 3))
    x = skip = layers.Conv2D(4, 3, padding="same", name="stem/conv")(start)
    x = layers.SeparableConv2D(4, 3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, skip]))
    model = kit.model(start, layers.Dense(3, name="logits")(x))
    return _prune(kit, model, kit.normal(SAMPLES, 6, 6, 3))


def pruned_part(kit: Kit) -> Made:
    """A Functional model in which two of the layers are wrapped for pruning."""
    layers = kit.layers
    start = kit.keras.Input((6,))
    x = layers.Dense(8, activation="relu", name="wide")(start)
    x = layers.Dense(4, activation="tanh", name="left_alone")(x)
    model = kit.model(start, layers.Dense(5, name="last")(x))
    return _prune(kit, model, kit.normal(SAMPLES, 6), ("wide", "last"))


Builder = Callable[[Kit], Made | tuple[Any, list[Array]]]

MODELS: tuple[Builder, ...] = (mlp, lenet, resnet, mobile, nested, ops, series, norm, axes)
MORE: tuple[Builder, ...] = (volume, lstm, gru, masked, attention, words)
KERAS2: tuple[Builder, ...] = (images, local, categories, steps)
PRUNED: tuple[Builder, ...] = (pruned_sequential, pruned_functional, pruned_part)


def outputs_of(model: Any, inputs: list[Array]) -> list[Array]:
    """Run a model, and return its outputs as a list, even of one."""
    result = model.predict(inputs if len(inputs) > 1 else inputs[0], verbose=0)
    outputs = result if isinstance(result, list) else [result]
    return [np.asarray(output) for output in outputs]


def problems(tool: str, kit: Kit, path: Path, inputs: list[Array], wanted: list[Array]) -> str:
    """Load a saved model, and return how it differs (empty if it does not)."""
    try:
        if tool == "tfmot":
            tfmot = importlib.import_module("tensorflow_model_optimization")
            with tfmot.sparsity.keras.prune_scope():
                model = kit.keras.models.load_model(path, compile=False)
        else:
            model = kit.keras.models.load_model(path, compile=False)
        found = outputs_of(model, inputs)
    except Exception as error:  # whatever a version stumbles over, it is reported
        return f"cannot be loaded by its own version: {type(error).__name__}: {error}"
    for index, (one, other) in enumerate(zip(wanted, found, strict=True)):
        if not np.allclose(one, other, rtol=1e-5, atol=1e-6):
            return f"output {index} differs by {np.abs(one - other).max()} once loaded"
    return ""


def make(tool: str, builder: Builder, folder: Path, suffixes: Sequence[str]) -> Iterator[str]:
    """Make the files of one model, and yield a line on each that failed."""
    name = builder.__name__
    kit = Kit(tool, zlib.crc32(name.encode()))
    try:
        built = builder(kit)
        made = built if isinstance(built, Made) else Made(*built)
    except AttributeError as error:  # a layer this version does not have
        yield f"{name}: not made: {error}"
        return
    outputs = outputs_of(made.model, made.inputs)
    for index, output in enumerate(outputs):
        if not np.isfinite(output).all() or output.std(axis=0).max() < 1e-3:
            yield f"{name}: output {index} is hardly worth testing: {output}"
    kept = 0
    for suffix in suffixes:
        path = folder / (name + suffix)
        try:
            made.model.save(path)
            problem = problems(tool, kit, path, made.inputs, outputs)
        except Exception as error:
            problem = f"cannot be saved: {type(error).__name__}: {error}"
        if problem:
            path.unlink(missing_ok=True)
            yield f"{path.name}: {problem}"
        else:
            kept += 1
    if kept:
        arrays: dict[str, Any] = {f"x{index}": array for index, array in enumerate(made.inputs)}
        arrays |= {f"y{index}": array for index, array in enumerate(outputs)}
        np.savez_compressed(folder / f"{name}.npz", **arrays)


def pack_tensors(tool: str, folder: Path) -> None:
    """Make the models of operations and of half precision; their files, mostly air, are packed into one archive."""
    with TemporaryDirectory() as scratch:
        for builder in TENSORS:
            for line in make(tool, builder, Path(scratch), [".keras", ".h5"]):
                print(line)
        with zipfile.ZipFile(folder / "tensors.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for path in sorted(Path(scratch).iterdir()):
                archive.write(path, path.name)


def main() -> int:
    """Make the set of files of the chosen tool."""
    parser = argparse.ArgumentParser(description="Make one set of frozen sample files.")
    parser.add_argument("tool", choices=("keras", "tf_keras", "tfmot"))
    parser.add_argument("--only", nargs="*", default=[], help="names of the models to make")
    parser.add_argument("--formats", nargs="+", default=[".keras", ".h5"], help="suffixes of files")
    parser.add_argument("--few", action="store_true", help="leave out 3-D and recurrent models")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where sets go")
    options = parser.parse_args()

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    if options.tool == "tfmot":  # it asks TensorFlow for `tf.keras`
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
    module = {"tfmot": "tensorflow_model_optimization"}.get(options.tool, options.tool)
    version = importlib.import_module(module).__version__
    folder: Path = options.out / f"{options.tool}-{version}"
    folder.mkdir(parents=True, exist_ok=True)

    builders: tuple[Builder, ...] = MODELS if options.few else MODELS + MORE
    if options.tool == "tf_keras" and not options.few:
        builders += KERAS2
    for builder in PRUNED if options.tool == "tfmot" else builders:
        if not options.only or builder.__name__ in options.only:
            for line in make(options.tool, builder, folder, options.formats):
                print(line)
    if not options.only and options.tool != "tfmot" and version.startswith("2."):
        pack_tensors(options.tool, folder)
    sizes = [path.stat().st_size for path in folder.iterdir()]
    print(f"{folder.name}: {len(sizes)} files, {sum(sizes)} bytes, largest {max(sizes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
