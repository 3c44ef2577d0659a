"""Layers that hold other layers and leave the computing to them."""

from __future__ import annotations

from sparsec.frontends.layer import Layer, Value, reads
from sparsec.frontends.source import layer_entry
from sparsec.frontends.tree import numbered_names


@reads("SpectralNormalization")
def spectral_normalization(layer: Layer) -> Value:
    """SpectralNormalization: the layer inside, with the kernel as training left it; the dtype stays that of the input."""
    x = layer.input
    kernel = layer.stored.first
    if kernel is not None:
        # The vector that training iterates.
        layer.stored.leave_out((1, kernel.shape[-1]))
    (y,) = layer.part("layer", serialized=layer.option("layer"), args=[x]).outputs()
    # Files list the kernel both with the wrapper and with the layer inside.
    layer.skip_weight()
    return layer.cast(y, x.type.dtype)


@reads("Pipeline")
def pipeline(layer: Layer) -> Value | tuple[Value, ...]:
    """Pipeline: its layers, one after the other."""
    inner = layer.option("layers")
    if not isinstance(inner, list) or not inner:
        layer.refuse("its configuration lists no layers")
    values = tuple(layer.inputs)
    names = numbered_names([layer_entry(serialized, layer.subject).class_name for serialized in inner])
    for name, serialized in zip(names, inner, strict=True):
        given = values[0] if len(values) == 1 else list(values)
        values = layer.part(f"layers/{name}", serialized=serialized, args=[given]).outputs()
    return values if len(values) > 1 else values[0]
