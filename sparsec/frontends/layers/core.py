"""Dense, and the layers that do nothing at inference."""

from __future__ import annotations

from sparsec.frontends.layer import Layer, Value, reads

IDENTITIES = (
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "StochasticDepth",
)
"""Layers that return their input at inference; StochasticDepth is the one of keras.applications' ConvNeXt."""


@reads(*IDENTITIES)
def identity(layer: Layer) -> Value:
    """The input, unchanged."""
    if len(layer.inputs) > 1:
        return layer.inputs[0]
    return layer.input


@reads("Dense")
def dense(layer: Layer) -> Value:
    """Dense: a matrix product over the last axis."""
    x, units = layer.input, layer.integer("units")
    if layer.option("quantization_config") is not None or layer.option("lora_rank") is not None:
        layer.refuse("quantised and LoRA kernels are not read")
    kernel = layer.weight("kernel", (layer.channels(x), units))
    bias = layer.weight("bias", (units,)) if layer.option("use_bias", True) else None
    return layer.activation(layer.emit("dense", x, kernel, bias))
