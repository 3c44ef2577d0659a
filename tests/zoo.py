"""Networks of keras.applications with random weights that behave like trained and pruned ones.

A network that was only initialised proves little: its biases are zero, its BatchNormalization layers do nothing, and its
outputs hardly depend on the input. Here kernels are drawn anew so that signals keep their size once most entries are zeroed,
biases are not zero, and BatchNormalization has the statistics of a batch, moved a little so that no layer is trivial.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.pruning import prune_units

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

SPARSITY = 0.7
"""The share of zeros in every kernel, unless another one is asked for."""

SCALE_SHIFT, MEAN_SHIFT = 0.2, 0.2
"""How far BatchNormalization is moved from the statistics of a batch: relative scale, and standard deviations of shift."""

GATE_SCALE = 0.3
"""What kernels of squeeze-and-excite gates are scaled by: gates that saturate make a network chaotic, as no trained one is."""

CALIBRATION_SAMPLES = 16

LEAST_VARIANCE = 1e-6
"""Channels that vary less keep the statistics that they had before their units were pruned."""


@dataclass(frozen=True)
class Family:
    """A network of keras.applications.

    Attributes:
        name: of the function in ``keras.applications``.
        size: height and width of the images it is tested on, at most its native ones.
        low: the least value of a pixel.
        high: the greatest; families that begin with their own preprocessing take 0 to 255.
    """

    name: str
    size: int
    low: float = -1.0
    high: float = 1.0


FAMILIES = (
    Family("VGG16", 64),
    Family("ResNet50", 96),
    Family("ResNet50V2", 96),
    Family("MobileNet", 96),
    Family("MobileNetV2", 96),
    Family("MobileNetV3Small", 96, 0.0, 255.0),
    Family("EfficientNetB0", 96, 0.0, 255.0),
    Family("EfficientNetV2B0", 96, 0.0, 255.0),
    Family("DenseNet121", 64),
    Family("InceptionV3", 107),
    Family("Xception", 96),
    Family("NASNetMobile", 96),
    Family("ConvNeXtTiny", 64, 0.0, 255.0),
)


def images(family: Family, count: int, seed: int) -> np.ndarray:
    """Random images whose colours, coarse shapes and contrasts differ, ``[count, size, size, 3]`` in float32."""
    rng = np.random.default_rng(seed)
    size, cell = family.size, -(-family.size // 4)
    coarse = rng.normal(size=(count, 4, 4, 3)).repeat(cell, axis=1).repeat(cell, axis=2)[:, :size, :size]
    fine = rng.normal(size=(count, size, size, 3))
    colour, contrast = rng.normal(size=(count, 1, 1, 3)), rng.uniform(0.2, 1.5, (count, 1, 1, 1))
    unit = 1.0 / (1.0 + np.exp(-(colour + contrast * (coarse + 0.5 * fine))))
    return (family.low + (family.high - family.low) * unit).astype(np.float32)


def build(family: Family, seed: int = 0, sparsity: float = SPARSITY) -> Any:
    """The network with random, pruned weights and calibrated BatchNormalization; its outputs are logits.

    Args:
        family: which one.
        seed: of the weights.
        sparsity: the share of zeros in every kernel.
    """
    model, rng = _dense(family, seed, sparsity)
    prune_random(model, rng, sparsity)
    calibrate_batchnorm(model, images(family, CALIBRATION_SAMPLES, seed + 1))
    perturb_batchnorm(model, rng)
    return model


def build_unit_pruned(family: Family, sparsity: float, whole: bool = False, seed: int = 0) -> Any:
    """The network with a share of its units pruned in groups, and statistics of what is left of it.

    Args:
        family: which one.
        sparsity: the share of units, in all but the output layer.
        whole: whether biases and BatchNormalization of pruned units are zeroed too.
        seed: of the weights.
    """
    model, rng = _dense(family, seed, sparsity)
    batch = images(family, CALIBRATION_SAMPLES, seed + 1)
    calibrate_batchnorm(model, batch)
    norms = [layer for layer in layers_of(model) if type(layer).__name__ == "BatchNormalization"]
    dense = [(layer.moving_mean.numpy(), layer.moving_variance.numpy()) for layer in norms]
    prune_units(model, sparsity, whole=whole)
    calibrate_batchnorm(model, batch)
    for layer, (mean, variance) in zip(norms, dense, strict=True):
        # A channel that is constant now would be divided by nearly nothing, and Keras' own rounding would be all that shows.
        constant = layer.moving_variance.numpy() < LEAST_VARIANCE
        layer.moving_mean.assign(np.where(constant, mean, layer.moving_mean.numpy()))
        layer.moving_variance.assign(np.where(constant, variance, layer.moving_variance.numpy()))
    perturb_batchnorm(model, rng)
    # The same units again: of a BatchNormalization without gamma it is the mean that is zeroed with them.
    prune_units(model, sparsity, whole=whole)
    return model


def _dense(family: Family, seed: int, sparsity: float) -> tuple[Any, np.random.Generator]:
    """The network with random weights whose signals keep their size once a share of the inputs of each layer is gone."""
    import keras

    keras.backend.clear_session()
    size = (family.size, family.size, 3)
    model = getattr(keras.applications, family.name)(weights=None, classifier_activation=None, input_shape=size)
    rng = np.random.default_rng(seed)
    for layer in layers_of(model):
        draw_weights(layer, rng, sparsity)
    return model, rng


def layers_of(model: Any) -> Iterator[Any]:
    """The layers of a model and of the models in it, models left out."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from layers_of(layer)
        else:
            yield layer


def kernels_of(layer: Any) -> Iterator[Any]:
    """The weight tensors of a layer that pruning acts on."""
    for weight in layer.weights:
        if weight.path.rpartition("/")[2] in ("kernel", "depthwise_kernel", "pointwise_kernel"):
            yield weight


def draw_weights(layer: Any, rng: np.random.Generator, sparsity: float = SPARSITY) -> None:
    """Draw the weights of one layer, kernels as He et al. 2015 do, for the entries that pruning leaves."""
    kernels = {id(weight) for weight in kernels_of(layer)}
    for weight in layer.weights:
        name, shape = weight.path.rpartition("/")[2], tuple(weight.shape)
        if id(weight) in kernels:
            depthwise = "Depthwise" in type(layer).__name__ or name == "depthwise_kernel"
            fan_in = np.prod(shape[:-2] if depthwise else shape[:-1])
            scale = np.sqrt(2.0 / (fan_in * (1.0 - sparsity))) * (GATE_SCALE if is_gate(layer) else 1.0)
            weight.assign(rng.standard_normal(shape, np.float32) * np.float32(scale))
        elif name == "bias" or name == "beta":
            weight.assign(rng.normal(0.0, 0.2, shape))
        elif name == "gamma" and type(layer).__name__ != "LayerScale":
            weight.assign(rng.uniform(0.8, 1.2, shape))
        elif type(layer).__name__ == "LayerScale":
            weight.assign(rng.uniform(0.1, 0.5, shape))
    if type(layer).__name__ == "Normalization" and layer.weights:
        layer.adapt_mean.assign(rng.uniform(0.3, 0.6, layer.adapt_mean.shape))
        layer.adapt_variance.assign(rng.uniform(0.03, 0.1, layer.adapt_variance.shape))
        layer.finalize_state()


def is_gate(layer: Any) -> bool:
    """Whether a layer belongs to a squeeze-and-excite block."""
    return "_se_" in layer.name or "squeeze_excite" in layer.name


def prune_random(model: Any, rng: np.random.Generator, sparsity: float = SPARSITY) -> None:
    """Zero a random share of the entries of every kernel."""
    for layer in layers_of(model):
        for kernel in kernels_of(layer):
            kernel.assign(kernel.numpy() * (rng.random(tuple(kernel.shape), np.float32) >= sparsity))


def calibrate_batchnorm(model: Any, batch: np.ndarray) -> None:
    """Give every BatchNormalization layer the statistics of its input.

    One pass in training mode, in which each layer normalises by the batch and so shows the next ones what it will show them at
    inference; without momentum the moving statistics are those of the batch.
    """
    with (
        _set(model, "BatchNormalization", "momentum", 0.0),
        _set(model, "Dropout", "rate", 0.0),
        _set(model, "StochasticDepth", "drop_path_rate", 0.0),
    ):
        model(batch, training=True)


@contextmanager
def _set(model: Any, class_name: str, attribute: str, value: float) -> Iterator[None]:
    """Let an attribute of every layer of a class have another value for a while."""
    layers = [layer for layer in layers_of(model) if type(layer).__name__ == class_name]
    before = [getattr(layer, attribute) for layer in layers]
    for layer in layers:
        setattr(layer, attribute, value)
    yield
    for layer, old in zip(layers, before, strict=True):
        setattr(layer, attribute, old)


def perturb_batchnorm(model: Any, rng: np.random.Generator) -> None:
    """Move every BatchNormalization layer's statistics from those of the batch."""
    for layer in layers_of(model):
        if type(layer).__name__ == "BatchNormalization":
            mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
            deviation = np.sqrt(variance)
            layer.moving_mean.assign(mean + MEAN_SHIFT * deviation * rng.standard_normal(mean.shape))
            layer.moving_variance.assign(variance * (1.0 + SCALE_SHIFT * rng.uniform(-1.0, 1.0, mean.shape)) ** 2)


def zero_share(model: Any) -> float:
    """The share of zeros among the entries of all kernels."""
    kernels = [kernel.numpy() for layer in layers_of(model) for kernel in kernels_of(layer)]
    return sum(int((kernel == 0).sum()) for kernel in kernels) / sum(kernel.size for kernel in kernels)


def save(model: Any, folder: Path) -> Path:
    """Save the network as ``.keras``."""
    path = folder / f"{model.name}.keras"
    model.save(path)
    return path
