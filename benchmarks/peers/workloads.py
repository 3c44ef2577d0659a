"""What is measured: single layers and whole networks, with random weights, and how they are pruned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zoo

from sparsec.ir import Array
from sparsec.quiet import import_keras

BLOCK = 4
"""Neighbouring output channels that are pruned together in a workload with blocks."""

CALIBRATION_SAMPLES = 8

CLASSIFIER_SCALE = 0.1
"""What the weights of the output layer are multiplied by."""

Build = Callable[[Any], Any]
"""From the package Keras to a model."""


@dataclass(frozen=True)
class Workload:
    """A model to measure.

    Attributes:
        name: on the command line.
        title: in tables.
        build: makes the Keras model.
        shape: of one sample.
        batches: the batch sizes that are measured unless others are asked for.
        layer: whether it is a single layer with as many channels in as out. Other engines get such a layer in their own layout.
        block: the neighbouring output channels that are pruned together.
        scale: the standard deviation of the random inputs.
        macs: of a single layer, its multiply-adds for one sample.
    """

    name: str
    title: str
    build: Build
    shape: tuple[int, ...]
    batches: tuple[int, ...] = (1,)
    layer: bool = False
    block: int = 1
    scale: float = 1.0
    macs: int | None = None

    def inputs(self, batch: int) -> Array:
        """Random inputs, channels last."""
        rng = np.random.default_rng(7)
        return rng.standard_normal((batch, *self.shape), np.float32) * np.float32(self.scale)

    @property
    def original(self) -> str:
        """The name of the dense original, which does not depend on how it is pruned."""
        return self.name.removesuffix(f"-{self.block}x1")

    def model(self) -> Any:
        """The dense Keras model with random weights."""
        keras = import_keras(purpose="to build networks")
        keras.utils.set_random_seed(0)
        model = self.build(keras)
        rng = np.random.default_rng(0)
        for layer in model.layers:
            zoo.draw_weights(layer, rng, sparsity=0.0)
        if not self.layer:
            # Where softmax saturates, errors do not show either.
            classifier = model.layers[-1]
            classifier.set_weights([CLASSIFIER_SCALE * weight for weight in classifier.get_weights()])
        return model

    def prune(self, model: Any, sparsity: float) -> None:
        """Zero a share of every Conv2D and Dense kernel, the smallest first, but spare a network's first convolution.

        BatchNormalization gets the statistics of what is left, moved a little: else inputs would hardly reach the outputs of a
        deep network, and errors would not show there.
        """
        spared = None if self.layer else next((layer for layer in model.layers if _kind(layer) == "Conv2D"), None)
        for layer in model.layers:
            if _kind(layer) in ("Conv2D", "Dense") and layer is not spared:
                kernel, *others = layer.get_weights()
                layer.set_weights([pruned(kernel, sparsity, self.block), *others])
        zoo.calibrate_batchnorm(model, self.inputs(CALIBRATION_SAMPLES))
        zoo.perturb_batchnorm(model, np.random.default_rng(0))


def pruned(kernel: Array, sparsity: float, block: int = 1) -> Array:
    """A kernel without a share of its values: those blocks are zero whose norm is smallest.

    Args:
        kernel: output channels last.
        sparsity: the share.
        block: the neighbouring output channels of a block.
    """
    groups = kernel.reshape(-1, block).copy()
    order = np.argsort(np.linalg.norm(groups, axis=1), kind="stable")
    groups[order[: int(sparsity * len(order))]] = 0
    return groups.reshape(kernel.shape)


def _kind(layer: Any) -> str:
    return type(layer).__name__


# --- single layers ---------------------------------------------------------------------------------------------------------


def _convolution(window: int, channels: int, size: int) -> Workload:
    def build(keras: Any) -> Any:
        layer = keras.layers.Conv2D(channels, window, padding="same")
        return keras.Sequential([keras.Input((size, size, channels)), layer])

    name, title = f"{window}x{window}-{channels}-{size}", f"{window}x{window} {channels} at {size}"
    macs = (window * size * channels) ** 2
    return Workload(name, title, build, (size, size, channels), layer=True, macs=macs)


def _dense(units: int, batches: Sequence[int]) -> Workload:
    def build(keras: Any) -> Any:
        return keras.Sequential([keras.Input((units,)), keras.layers.Dense(units)])

    return Workload(f"dense-{units}", f"dense {units}", build, (units,), tuple(batches), layer=True, macs=units**2)


def _in_blocks(workload: Workload) -> Workload:
    return replace(workload, name=f"{workload.name}-{BLOCK}x1", title=f"{workload.title}, {BLOCK}x1 blocks", block=BLOCK)


LAYERS = (
    *(_convolution(1, channels, size) for channels, size in ((512, 14), (256, 28), (1024, 7))),
    *(_convolution(3, channels, size) for channels, size in ((64, 56), (128, 28), (256, 14), (512, 7))),
    _dense(4096, (1, 16, 64, 256)),
)
BLOCKS = tuple(_in_blocks(workload) for workload in LAYERS)


# --- networks --------------------------------------------------------------------------------------------------------------


def _application(name: str, size: int = 224, scale: float = 1.0) -> Workload:
    def build(keras: Any) -> Any:
        return getattr(keras.applications, name)(weights=None)

    return Workload(name.lower(), name, build, (size, size, 3), scale=scale)


def _perceptron(name: str, *widths: int) -> Workload:
    def build(keras: Any) -> Any:
        hidden = [keras.layers.Dense(width, activation="relu") for width in widths[1:-1]]
        return keras.Sequential([keras.Input(widths[:1]), *hidden, keras.layers.Dense(widths[-1], activation="softmax")])

    return Workload(name, f"{name} ({'-'.join(map(str, widths))})", build, widths[:1], (1, 64))


def _lenet5(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(6, 5, padding="same", activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Conv2D(16, 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(120, activation="tanh"),
            layers.Dense(84, activation="tanh"),
            layers.Dense(10, activation="softmax"),
        ]
    )


NETWORKS = (
    _perceptron("lenet300", 784, 300, 100, 10),
    Workload("lenet5", "lenet5", _lenet5, (28, 28, 1), (1, 64)),
    _perceptron("mlp", 784, 1000, 1000, 500, 200, 10),
    _application("MobileNet"),
    _application("MobileNetV2"),
    # It takes pixels from 0 to 255.
    _application("EfficientNetB0", scale=64.0),
    _application("DenseNet121"),
    _application("InceptionV3", 299),
    _application("ResNet50"),
)

GROUPS = {"layers": LAYERS, "blocks": BLOCKS, "networks": NETWORKS, "all": (*LAYERS, *BLOCKS, *NETWORKS)}
"""Names for several workloads at once."""

WORKLOADS = {workload.name: workload for workload in GROUPS["all"]}
