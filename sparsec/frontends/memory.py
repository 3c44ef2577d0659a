"""Models in memory, of Keras 3 or tf_keras, taken at their word: no import of either happens here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sparsec.errors import InputError
from sparsec.frontends.source import WRAPPERS, LayerPath, SavedBy, Source, Variable


def memory_source(model: Any) -> Source:
    """The source behind a ``keras.Model``.

    Raises:
        InputError: the object is not a Keras model, or was never built.
    """
    if not (hasattr(model, "to_json") and hasattr(model, "layers")):
        raise InputError(f"a keras.Model or the path of a Keras file was expected, not {type(model).__name__}")
    if not getattr(model, "built", True):
        raise InputError(f"the model {model.name!r} was never built, so it has no weights; call it once")
    return Source(
        f"the model {model.name!r}",
        "memory",
        json.loads(model.to_json()),
        SavedBy.from_version(_version(model)),
        dict(_variables(model, ())),
    )


def _version(model: Any) -> str:
    for cls in type(model).__mro__:
        package = cls.__module__.split(".", 1)[0]
        if package in ("keras", "tf_keras"):
            return str(getattr(sys.modules[package], "__version__", "3.0.0" if package == "keras" else "2.0.0"))
    raise InputError(f"{type(model).__name__} is neither a model of Keras nor of tf_keras")


def _variables(model: Any, path: LayerPath) -> Iterator[tuple[LayerPath, Sequence[Variable]]]:
    for layer in model.layers:
        layer_path = (*path, str(layer.name))
        if hasattr(layer, "layers") and hasattr(layer, "to_json"):
            yield from _variables(layer, layer_path)
            continue
        inner = layer.layer if type(layer).__name__ in WRAPPERS else layer
        if inner.weights:
            yield layer_path, [_variable(v, f"{'/'.join(layer_path)}/{i}") for i, v in enumerate(inner.weights)]


def _variable(variable: Any, location: str) -> Variable:
    def load() -> Any:
        return np.array(variable.numpy() if hasattr(variable, "numpy") else variable)

    return Variable(location, tuple(int(size) for size in variable.shape), load, variable.assign)
