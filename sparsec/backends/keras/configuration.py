"""The configuration of a model after its layers shrank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from math import sqrt
from typing import Any

from sparsec.backends.keras.edits import Edits, Interpreted, LayerEdit, UnwritableError, VariableEdit, joined, parts_of, walk
from sparsec.backends.keras.rules import EditedLayer, channel_slice
from sparsec.backends.keras.shapes import correct_shapes, idle_reshapes, record_shapes
from sparsec.errors import UnsupportedLayerError
from sparsec.frontends.source import LayerPath, Source, Variable

SCALED_BY_WIDTH = frozenset({"MultiHeadAttention", "GroupQueryAttention", "GroupedQueryAttention"})
"""The layers that divide dot products by the root of the width of a head."""

ONE_WIDTH = frozenset({"GroupQueryAttention", "GroupedQueryAttention"})
"""Those in which the heads of keys and values have one width."""

WIDTHS = {
    **dict.fromkeys(("query_dense/kernel", "key_dense/kernel", "value_dense/kernel", "gate_dense/kernel"), 2),
    **dict.fromkeys(("query_dense/bias", "key_dense/bias", "value_dense/bias", "gate_dense/bias", "output_dense/kernel"), 1),
}
"""The axis of each variable of such a layer that is the width of a head."""

OPTIONAL = frozenset(name for name in WIDTHS if name.endswith("/bias") or name.startswith("gate_dense/"))
"""The variables that such a layer may be without."""


def complete(model: Interpreted, edits: Edits) -> dict[LayerPath, LayerEdit]:
    """The edits, with those that a change of the configuration asks for.

    The statistics of an adapted Normalization stand behind constants of the graph. Attention divides its queries by the root of
    their width, so that what is left of them is multiplied to make up for it; where keys and values must have one width, the
    narrower ones get channels of zeros.

    Raises:
        InputError: what is left of a layer cannot be stated.
    """
    source, result = model.source, dict(edits)
    for path, entry, _ in walk(source.config, source.description):
        parts = parts_of(path, entry, edits)
        for part in parts:
            edit = result[part]
            if entry.class_name == "Normalization" and edit.constants and entry.config.get("mean") is None:
                stored = source.variables[path]
                slices = {index: VariableEdit(channel_slice(edit, len(stored[index].shape))) for index in (0, 1)}
                result[part] = replace(edit, variables={**edit.variables, **slices})
        if entry.class_name in SCALED_BY_WIDTH:
            result.update(_of_one_width(source, {part: edits[part] for part in parts}, entry.class_name in ONE_WIDTH))
    return result


def _of_one_width(source: Source, edits: Edits, equal: bool) -> dict[LayerPath, LayerEdit]:
    """The edits of an attention layer and its parts, with the factors of its queries, and with equal widths if need be."""
    named = {
        (part, index): "/".join(change.weight.rsplit("/", 2)[-2:])
        for part, edit in edits.items()
        for index, change in edit.variables.items()
    }
    before = {place: source.variables[place[0]][place[1]].shape for place in named}
    after = {place: edits[place[0]].variables[place[1]].shape(before[place]) for place in named}
    # What is not edited stays as wide as it was.
    shapes = after if WIDTHS.keys() - OPTIONAL <= set(named.values()) else before
    widest = max((shapes[place][WIDTHS[name]] for place, name in named.items() if name in WIDTHS), default=0)
    result = {part: replace(edit, variables=dict(edit.variables)) for part, edit in edits.items()}
    for (part, index), name in named.items():
        if name not in WIDTHS:
            continue
        axis, change = WIDTHS[name], edits[part].variables[index]
        width = widest if equal else after[part, index][axis]
        if width > after[part, index][axis]:
            change = replace(change, widths={axis: width})
        if name.startswith("query_dense/"):
            change = replace(change, factor=sqrt(width / before[part, index][axis]))
        result[part].variables[index] = change
    return result


def edited_config(model: Interpreted, edits: Edits) -> dict[str, Any]:
    """The configuration of the outermost model with every layer as large as its variables are after ``edits``.

    Raises:
        UnwritableError: layers cannot state the change.
    """
    source, where = model.source, model.source.description
    config: dict[str, Any] = deepcopy(dict(source.config))
    stored = shrunk_variables(source, edits)
    weights = {variable.location: weight for weight, variable in model.variables.items()}
    missing = set(edits)
    refused: dict[str, str] = {}
    for path, entry, _ in walk(config, where):
        parts = parts_of(path, entry, edits)
        if not parts:
            continue
        missing.difference_update(parts)
        name = "/".join((*path[:-1], entry.name))
        own = [
            (weights.get(before.location, ""), variable.shape)
            for part in parts_of(path, entry, stored)
            for before, variable in zip(source.variables.get(part, ()), stored[part], strict=False)
        ]
        shapes = {weight.removeprefix(f"{name}/"): shape for weight, shape in own}
        sizes = [variable.shape for variable in stored.get(path, ())]
        options: dict[str, Any] = entry.config  # type: ignore[assignment]
        whole = joined(edits[part] for part in parts)
        try:
            EditedLayer(where, name, entry.class_name, options, whole, sizes, shapes).apply()
        except UnwritableError as error:
            refused |= error.layers
    refused |= {"/".join(path): "it is no layer of the configuration" for path in missing}
    if refused:
        raise UnwritableError(where, refused)
    before = record_shapes(source)
    idle = idle_reshapes(source, before) - edits.keys()
    try:
        after = record_shapes(replace(source, config=config, variables=stored), idle)
    except UnsupportedLayerError as error:
        raise UnwritableError(where, {error.layer: f"its smaller form cannot be read ({error})"}) from None
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


def _shrunk(variable: Variable, change: VariableEdit) -> Variable:
    return Variable(variable.location, change.shape(variable.shape), lambda: change(variable.load()), variable.assign)
