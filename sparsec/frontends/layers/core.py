"""Dense, and the layers that do nothing at inference."""

from __future__ import annotations

from sparsec.frontends.layer import ALWAYS, SINCE_KERAS_3, Layer, Value, reads

REGULARISATION = (
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "StochasticDepth",
)
"""Layers that do something in training only; StochasticDepth is the one of keras.applications' ConvNeXt."""

IDENTITIES = (*REGULARISATION, "Identity")
"""Layers that return their input at inference."""

AUGMENTATIONS = (
    "AugMix",
    "CutMix",
    "Equalization",
    "MaxNumBoundingBoxes",
    "MixUp",
    "RandAugment",
    "RandomBrightness",
    "RandomColorDegeneration",
    "RandomColorJitter",
    "RandomContrast",
    "RandomElasticTransform",
    "RandomErasing",
    "RandomFlip",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomHeight",
    "RandomHue",
    "RandomInvert",
    "RandomPerspective",
    "RandomPosterization",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "RandomTranslation",
    "RandomWidth",
    "RandomZoom",
    "Solarization",
)
"""Layers that change images in training only, or, as MaxNumBoundingBoxes, not the images."""


@reads(*REGULARISATION, passes_mask=ALWAYS)
@reads("Identity", passes_mask=SINCE_KERAS_3)
def identity(layer: Layer) -> Value | tuple[Value, ...]:
    """The input, or every one of several, unchanged."""
    return tuple(layer.inputs) if len(layer.inputs) > 1 else layer.input


@reads(*AUGMENTATIONS)
def augmentation(layer: Layer) -> Value:
    """The images, unchanged; Keras 2 casts integers."""
    return layer.input if layer.saved_by.generation == 3 else layer.float_input


@reads("Dense", passes_mask=ALWAYS)
def dense(layer: Layer) -> Value:
    """Dense: a matrix product over the last axis."""
    x, units = layer.float_input, layer.integer("units", least=1)
    if layer.option("quantization_config") is not None or layer.option("lora_rank") is not None:
        layer.refuse("quantised and LoRA kernels are not read")
    kernel = layer.weight("kernel", (layer.channels(x), units))
    bias = layer.weight("bias", (units,)) if layer.flag("use_bias", True) else None
    return layer.activation(layer.emit("dense", x, kernel, bias))
