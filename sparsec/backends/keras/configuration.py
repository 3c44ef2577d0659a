"""The configuration of a model after its layers shrank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from sparsec.backends.keras.edits import Edits, LayerEdit, walk
from sparsec.backends.keras.rules import EditedLayer, channel_slice
from sparsec.backends.keras.shapes import correct_shapes, idle_reshapes, record_shapes
from sparsec.errors import InputError, UnsupportedLayerError
from sparsec.frontends.source import LayerPath, Source, Variable
from sparsec.passes.shrink import WeightEdit


def complete(source: Source, edits: Edits) -> dict[LayerPath, LayerEdit]:
    """The edits, with those of statistics that stand behind constants of the graph: an adapted Normalization.

    Raises:
        InputError: a constant that shrinks is in no layer that could state it.
    """
    result = dict(edits)
    for path, entry, _ in walk(source.config, source.description):
        edit = result.get(path)
        if edit is None or not edit.constants:
            continue
        variables = dict(edit.variables)
        if entry.class_name == "Normalization" and entry.config.get("mean") is None:
            stored = source.variables[path]
            variables |= {index: channel_slice(edit, len(stored[index].shape)) for index in (0, 1)}
        result[path] = replace(edit, variables=variables)
    return result


def edited_config(source: Source, edits: Edits) -> dict[str, Any]:
    """The configuration of the outermost model with every layer as large as its variables are after ``edits``.

    Raises:
        InputError: a layer's configuration cannot state the change.
    """
    where = source.description
    config: dict[str, Any] = deepcopy(dict(source.config))
    stored = shrunk_variables(source, edits)
    missing = set(edits)
    for path, entry, _ in walk(config, where):
        if path in edits:
            missing.discard(path)
            shapes = [variable.shape for variable in stored.get(path, ())]
            options: dict[str, Any] = entry.config  # type: ignore[assignment]
            EditedLayer(f"{where}: layer {'/'.join(path)!r}", entry.class_name, options, edits[path], shapes).apply()
    if missing:
        raise InputError(f"{where}: {'/'.join(min(missing))!r} loses channels, but the parts of layers cannot be written back")
    before = record_shapes(source)
    idle = idle_reshapes(source, before) - edits.keys()
    try:
        after = record_shapes(replace(source, config=config, variables=stored), idle)
    except UnsupportedLayerError as error:
        raise InputError(
            f"{where}: the smaller model cannot be written back to Keras ({error}); write a bundle or ONNX"
        ) from None
    correct_shapes(config, where, before, after, idle)
    return config


def shrunk_variables(source: Source, edits: Edits) -> Mapping[LayerPath, Sequence[Variable]]:
    """The variables of every layer, with their new shapes and loaders of their new values."""
    result: dict[LayerPath, list[Variable]] = {path: list(variables) for path, variables in source.variables.items()}
    for path, edit in edits.items():
        for index, change in edit.variables.items():
            result[path][index] = _shrunk(result[path][index], change)
        if edit.bias is not None:
            values = edit.bias.values
            result[path].append(Variable("", values.shape, lambda values=values: values))  # type: ignore[misc]
    return result


def _shrunk(variable: Variable, change: WeightEdit) -> Variable:
    return Variable(variable.location, change.shape(variable.shape), lambda: change(variable.load()), variable.assign)
