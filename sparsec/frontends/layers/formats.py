"""``data_format``: operators are channels-last; a channels-first layer stands between two transposes."""

from __future__ import annotations

from collections.abc import Callable

from sparsec.frontends.layer import Layer, Value


def is_channels_first(layer: Layer) -> bool:
    """Whether the layer's configuration says that channels stand on axis 1."""
    data_format = layer.text("data_format", "channels_last")
    if data_format not in ("channels_last", "channels_first"):
        layer.refuse(f"data_format = {data_format!r}")
    return data_format == "channels_first"


def to_channels_last(layer: Layer, x: Value) -> Value:
    """``[N, C, *spatial]`` as ``[N, *spatial, C]``."""
    return layer.emit("transpose", x, permutation=(0, *range(2, x.rank), 1))


def to_channels_first(layer: Layer, x: Value) -> Value:
    """``[N, *spatial, C]`` as ``[N, C, *spatial]``."""
    return layer.emit("transpose", x, permutation=(0, x.rank - 1, *range(1, x.rank - 1)))


def in_channels_last(layer: Layer, x: Value, rank: int, body: Callable[[Value], Value]) -> Value:
    """Apply ``body``, which works on channels-last values of ``rank`` spatial axes, in the layer's data format."""
    if x.rank != rank + 2:
        layer.refuse(f"its input has {x.rank} axes, {rank + 2} were expected")
    if not is_channels_first(layer):
        return body(x)
    return to_channels_first(layer, body(to_channels_last(layer, x)))
