"""Preprocessing that turns numbers into categories: bins, vocabularies of integers, and their encodings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparsec.frontends.layer import Layer, Value, reads
from sparsec.frontends.policy import DEFAULT, FLOATS

OUTPUT_MODES = ("one_hot", "multi_hot", "count")
"""How a category is encoded; ``binary`` is an older name of ``multi_hot``."""

ONE_HOT_AS_STATED = (3, 4)
"""Before this version Keras 3 states that it drops an axis of size 1, and does not."""


@reads("CategoryEncoding")
def category_encoding(layer: Layer) -> Value:
    """CategoryEncoding of integers from 0 to before ``num_tokens``; weights may be given with the call."""
    mode = _output_mode(layer, "multi_hot")
    weights = layer.operand(1, "count_weights")
    if weights is not None and (mode != "count" or not isinstance(weights, Value)):
        layer.refuse("count_weights that are not a tensor, or without output_mode 'count'")
    x = layer.inputs[0]
    if mode == "one_hot" and x.shape[-1] == 1 and layer.saved_by.generation == 3 and layer.saved_by.release < ONE_HOT_AS_STATED:
        layer.refuse(
            "returns another shape than it states in this version of Keras; save the model again with Keras 3.4 or later"
        )
    return _encoded(layer, layer.cast(x, "int64"), layer.integer("num_tokens", least=1), mode, layer.dtype, weights)


@reads("Discretization")
def discretization(layer: Layer) -> Value:
    """Discretization: how many of the boundaries are not above each number, as an integer or encoded."""
    boundaries = _numbers(layer, "bin_boundaries") or _adapted_boundaries(layer)
    x = layer.input
    if not x.is_float:
        x = layer.cast(x, "float64")
    elif layer.saved_by.generation == 3:
        x = layer.cast(x, layer.dtype if layer.dtype in FLOATS else DEFAULT)
    # TensorFlow keeps the boundaries in single precision.
    edges = layer.constant("bin_boundaries", np.sort(np.asarray(boundaries, np.float32)), x.type.dtype)
    above = layer.emit("greater", edges, _with_last_axis(layer, x))
    reached = layer.emit(
        "where", above, layer.constant("0", np.asarray(0), "int64"), layer.constant("1", np.asarray(1), "int64")
    )
    indices = layer.emit("reduce_sum", reached, axes=(-1,))
    if layer.text("output_mode", "int") == "int":
        return layer.cast(indices, "int32" if layer.dtype in FLOATS else layer.dtype)
    return _encoded(layer, indices, len(boundaries) + 1, _output_mode(layer, "int"), layer.dtype)


def _adapted_boundaries(layer: Layer) -> list[float]:
    """The boundaries that Keras 2 works out of the quantiles which it stores: values, and how many numbers each stands for."""
    stored, bins = layer.stored.first, layer.integer("num_bins", least=1)
    if stored is None:
        layer.refuse("its boundaries are not stated; adapt it, or give bin_boundaries, and save the model again")
    values, counts = layer.statistic("summary", (2, *stored.shape[1:])).astype(np.float32)
    if len(values) >= bins:
        # Where only shapes are asked for, there are no counts.
        places = counts.cumsum() / (counts.sum() or 1.0)
        step = 1.0 / bins
        values = np.interp(step + np.arange(0.0, 1.0, step), places, values)
    return [float(value) for value in values[:-1]]


@reads("IntegerLookup")
def integer_lookup(layer: Layer) -> Value:
    """IntegerLookup: the place of each integer in a vocabulary, which was stated or adapted, as an integer or encoded."""
    if layer.flag("invert", False):
        layer.refuse("invert = True is not read")
    mode = layer.text("output_mode", "int")
    to_integers = mode == "int"
    mask_token = layer.integer("mask_token") if layer.option("mask_token") is not None else None
    oov_count, oov_start = layer.integer("num_oov_indices", 1, least=0), int(to_integers and mask_token is not None)
    tokens = _vocabulary(layer, [mask_token] * oov_start + [layer.option("oov_token")] * oov_count)
    first = oov_start + oov_count
    places = {token: first + index for index, token in enumerate(tokens)}
    if mask_token is not None:
        # Encoded, a masked token counts nowhere.
        places[mask_token] = 0 if to_integers else -1
    indices = _looked_up(layer, places, oov_start, oov_count)
    if to_integers:
        return indices
    size = layer.integer("max_tokens") if layer.flag("pad_to_max_tokens", False) else first + len(tokens)
    dtype = "int64" if layer.saved_by.generation == 3 else layer.dtype
    return _encoded(layer, indices, size, _output_mode(layer, "int"), dtype)


def _vocabulary(layer: Layer, special: Sequence[object]) -> list[int]:
    vocabulary: Sequence[float] = _numbers(layer, "vocabulary")
    stored = layer.stored.first
    if not vocabulary and stored is not None:
        vocabulary = layer.statistic("vocabulary", stored.shape).tolist()
    if not vocabulary:
        layer.refuse("its vocabulary is not stored, as in an .h5 file; build it with vocabulary=layer.get_vocabulary()")
    tokens = [int(token) for token in vocabulary]
    return tokens[len(special) :] if tokens[: len(special)] == list(special) else tokens


def _looked_up(layer: Layer, places: dict[int, int], oov_start: int, oov_count: int) -> Value:
    """The place of each integer; others have a place by their remainder, or -1 where there is none for them."""
    x = layer.cast(layer.input, "int64")

    def integers(name: str, values: Any) -> Value:
        return layer.constant(name, np.asarray(values), "int64")

    matches = layer.emit("equal", _with_last_axis(layer, x), integers("vocabulary", list(places)))
    nowhere = integers("-2", -2)
    # Every integer matches one place at most, and places are -1 or more.
    found = layer.emit("where", matches, integers("places", list(places.values())), nowhere)
    place = layer.emit("reduce_max", found, axes=(-1,))
    if oov_count > 1:
        if layer.text("oov_method", "floormod") != "floormod":
            layer.refuse("hashes integers outside of its vocabulary, which is not read")
        remainder = layer.emit("mod", x, integers("num_oov_indices", oov_count))
        other = layer.emit("add", remainder, integers("oov_start", oov_start))
    else:
        other = integers("oov", oov_start if oov_count else -1)
    return layer.emit("where", layer.emit("equal", place, nowhere), other, place)


def _output_mode(layer: Layer, default: str) -> str:
    mode = layer.text("output_mode", default)
    mode = "multi_hot" if mode == "binary" else mode
    if layer.flag("sparse", False):
        layer.refuse("sparse outputs are not read")
    if mode not in OUTPUT_MODES:
        layer.refuse(f"output_mode = {mode!r} is not read; sparsec reads int and {', '.join(OUTPUT_MODES)}")
    return mode


def _numbers(layer: Layer, name: str) -> list[float]:
    values = layer.option(name, [])
    if not isinstance(values, list | tuple) or not all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    ):
        layer.refuse(f"{name} = {values!r}, numbers were expected")
    return list(values)


def _with_last_axis(layer: Layer, x: Value) -> Value:
    return layer.emit("reshape", x, shape=(*(0,) * x.rank, 1))


def _encoded(layer: Layer, indices: Value, size: int, mode: str, dtype: str, weights: Value | None = None) -> Value:
    """Categories as vectors of ``size`` numbers: one for each, or one for all along axis 1 that says which, or how many.

    An index outside of the vector is in none of its places.
    """
    if mode == "one_hot" and indices.rank > 1 and indices.shape[-1] == 1:
        indices = layer.emit("reshape", indices, shape=(0,) * (indices.rank - 1))
    numbers = layer.constant("categories", np.arange(size), "int64")
    hot = layer.cast(layer.emit("equal", _with_last_axis(layer, indices), numbers), dtype)
    if mode == "one_hot":
        return hot
    if indices.rank < 2:
        layer.refuse(f"encodes a value of {indices.rank} axes as {mode!r}, which would mix the samples of a batch")
    if weights is not None:
        hot = layer.emit("mul", hot, _with_last_axis(layer, layer.cast(weights, dtype)))
    return layer.emit("reduce_max" if mode == "multi_hot" else "reduce_sum", hot, axes=(1,))
