"""Models in memory, of Keras 3 or tf_keras, taken at their word: no import of either happens here."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sparsec.errors import InputError, UnsupportedLayerError
from sparsec.frontends.hdf5 import widened
from sparsec.frontends.source import INNER, WRAPPERS, LayerPath, SavedBy, Source, Variable, model_config
from sparsec.frontends.vocabularies import vocabulary_variable


def memory_source(model: Any) -> Source:
    """The source behind a ``keras.Model``.

    Raises:
        InputError: the object is not a Keras model, or was never built.
        UnsupportedLayerError: the model is of a class of its own.
    """
    version = _version(model)
    if version is None or not (hasattr(model, "to_json") and hasattr(model, "layers")):
        raise InputError(f"a keras.Model or the path of a Keras file was expected, not {type(model).__name__}")
    where = f"the model {model.name!r}"
    if not getattr(model, "built", True):
        raise InputError(f"{where} was never built, so it has no weights; call it once")
    try:
        config = json.loads(model.to_json())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise UnsupportedLayerError(f"{where} cannot state its configuration, as a subclassed model cannot ({error})") from None
    return Source(where, model_config(config, where), SavedBy.from_version(version), dict(_variables(model, ())))


def _version(model: Any) -> str | None:
    for cls in type(model).__mro__:
        package = cls.__module__.partition(".")[0]
        if package in ("keras", "tf_keras"):
            return str(getattr(sys.modules[package], "__version__", "3.0.0" if package == "keras" else "2.0.0"))
    return None


def _variables(model: Any, path: LayerPath) -> Iterator[tuple[LayerPath, Sequence[Variable]]]:
    for layer in model.layers:
        layer_path = (*path, str(layer.name))
        if hasattr(layer, "layers") and hasattr(layer, "to_json"):
            yield from _variables(layer, layer_path)
            continue
        inner = layer.layer if type(layer).__name__ in WRAPPERS else layer
        if hasattr(getattr(inner, INNER, None), "layers"):
            yield from _variables(getattr(inner, INNER), (*layer_path, INNER))
            continue
        # Trainable ones first, as in legacy files.
        weights = [*inner.trainable_weights, *inner.non_trainable_weights]
        variables = [_variable(v, f"{'/'.join(layer_path)}/{i}") for i, v in enumerate(weights)]
        if type(layer).__name__ == "IntegerLookup" and layer.get_config().get("vocabulary") is None:
            tokens = np.asarray(layer.get_vocabulary(), np.int64)
            variables.append(vocabulary_variable(f"{'/'.join(layer_path)}/vocabulary", tokens))
        if variables:
            yield layer_path, variables


def _variable(variable: Any, location: str) -> Variable:
    def load() -> Any:
        return widened(np.array(variable.numpy() if hasattr(variable, "numpy") else variable))

    return Variable(location, tuple(int(size) for size in variable.shape), load, variable.assign)
