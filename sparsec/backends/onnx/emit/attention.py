"""Exporters of what reads by position: matrix products, look-ups, attention."""

from __future__ import annotations

import numpy as np

from sparsec.backends.onnx.registry import channels_last, exports
from sparsec.backends.onnx.site import Site
from sparsec.ops.attention import MASK
from sparsec.ops.base import integer, number


@exports("matmul", rule=channels_last)
def emit_matmul(site: Site) -> None:
    """MatMul."""
    site.finish("MatMul", site.read(0), site.read(1))


@exports("gather", rule=channels_last)
def emit_gather(site: Site) -> None:
    """Gather."""
    site.finish("Gather", site.read(0), site.read(1), axis=integer(site.attrs, "axis"))


@exports("attention", rule=channels_last)
def emit_attention(site: Site) -> None:
    """Its definition: the heads side by side on axis 1, two products, and Softmax between them."""
    heads = integer(site.attrs, "heads")
    depth, width = (site.known(site.type(index).shape[-1]) for index in (0, 2))
    dtype = np.dtype(site.type(0).dtype)
    scaled = site.add("Mul", site.read(0), site.number(number(site.attrs, "scale")))
    queries = site.add("Transpose", site.add("Reshape", scaled, site.ints([0, 0, heads, depth // heads])), perm=(0, 2, 1, 3))
    keys = site.add("Transpose", _per_head(site, 1), perm=(0, 2, 3, 1))
    values = site.add("Transpose", _per_head(site, 2), perm=(0, 2, 1, 3))
    logits = site.add("MatMul", queries, keys)
    allowed = _allowed(site)
    if allowed:
        logits = site.add("Where", allowed, logits, site.number(float(np.finfo(dtype).min) / 2))
    weights = site.add("Softmax", logits, axis=-1)
    if allowed and site.attrs["empty"] == "zero":
        weights = site.add("Where", allowed, weights, site.number(0.0))
    y = site.add("Transpose", site.add("MatMul", weights, values), perm=(0, 2, 1, 3))
    channels = width // integer(site.attrs, "kv_heads") * heads
    site.finish("Reshape", y, site.ints([0, 0, channels]))


def _per_head(site: Site, index: int) -> str:
    """Keys or values as ``[N, S, heads, D]``; heads that share them get copies."""
    heads, groups = integer(site.attrs, "heads"), integer(site.attrs, "kv_heads")
    width = site.known(site.type(index).shape[-1]) // groups
    if heads == groups:
        return site.add("Reshape", site.read(index), site.ints([0, 0, heads, width]))
    shared = site.add("Reshape", site.read(index), site.ints([0, 0, groups, 1, width]))
    copies = site.add("Tile", shared, site.ints([1, 1, 1, heads // groups, 1]))
    return site.add("Reshape", copies, site.ints([0, 0, heads, width]))


def _allowed(site: Site) -> str:
    """Which keys each query looks at, broadcasting to ``[N, heads, T, S]``; empty for all."""
    conditions = [site.read(MASK)] if site.given(MASK) else []
    window = integer(site.attrs, "window")
    if site.attrs["causal"] or window:
        rows = site.add("Unsqueeze", _positions(site, 0), site.ints([1]))
        columns = _positions(site, 1)
        if site.attrs["causal"]:
            conditions.append(site.add("GreaterOrEqual", rows, columns))
        if window:
            distance = site.add("Abs", site.add("Sub", rows, columns))
            conditions.append(site.add("Less", distance, site.array(np.array(window, np.int64))))
    allowed = conditions[0] if conditions else ""
    for condition in conditions[1:]:
        allowed = site.add("And", allowed, condition)
    return allowed


def _positions(site: Site, index: int) -> str:
    """0, 1, ... along axis 1 of an input."""
    size = site.type(index).shape[1]
    if isinstance(size, int):
        return site.array(np.arange(size), "positions")
    sizes = site.add("Shape", site.read(index))
    length = site.add("Gather", sizes, site.array(np.array(1, np.int64)), axis=0)
    return site.add("Range", site.array(np.array(0, np.int64)), length, site.array(np.array(1, np.int64)))
