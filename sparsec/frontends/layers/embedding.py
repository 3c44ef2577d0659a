"""Layers that look rows of a table up."""

from __future__ import annotations

from sparsec.frontends.layer import Layer, Value, reads
from sparsec.frontends.layers.masks import differs


def _table(layer: Layer) -> Value:
    if layer.option("quantization_config") is not None or layer.option("lora_rank") is not None:
        layer.refuse("quantised and LoRA tables are not read")
    return layer.weight("embeddings", (layer.integer("input_dim", least=1), layer.integer("output_dim", least=1)))


def _looked_up(layer: Layer, table: Value) -> Value:
    x = layer.input
    indices = x if x.type.dtype in ("int32", "int64") else layer.cast(x, "int32")
    mask = differs(layer, x, 0) if layer.flag("mask_zero", False) else None
    return layer.masked(layer.emit("gather", table, indices, axis=0), mask)


@reads("Embedding")
def embedding(layer: Layer) -> Value:
    """Embedding: one row of the table for each index; index 0 masks where ``mask_zero`` says so."""
    return _looked_up(layer, _table(layer))


@reads("ReversibleEmbedding")
def reversible_embedding(layer: Layer) -> Value:
    """ReversibleEmbedding: an Embedding, or the product with its table (or another one) transposed."""
    table = _table(layer)
    back = None
    if not layer.flag("tie_weights", True):
        back = layer.weight("reverse_embeddings", (layer.integer("output_dim"), layer.integer("input_dim")))
    if not layer.operand(1, "reverse"):
        return _looked_up(layer, table)
    if layer.text("reverse_dtype", layer.dtype) != layer.dtype:
        layer.refuse("reverse_dtype is another dtype than that of the layer, which is not read")
    kernel = layer.emit("transpose", table, permutation=(1, 0)) if back is None else back
    logits = layer.emit("dense", layer.float_input, kernel)
    cap = layer.number("logit_soft_cap", 0.0)
    if not cap:
        return logits
    limit = layer.like(logits, cap)
    return layer.emit("mul", layer.emit("tanh", layer.emit("div", logits, limit)), limit)
