"""Shrinking Keras models in memory, of Keras 3 or tf_keras, by the package that they are of."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsec.backends.keras.configuration import shrunk_variables
from sparsec.backends.keras.edits import Edits, UnwritableError, walk
from sparsec.backends.keras.files import interpret
from sparsec.backends.keras.fitting import fit
from sparsec.backends.keras.optimizer import edit_optimizer
from sparsec.errors import InputError
from sparsec.frontends.memory import memory_source
from sparsec.frontends.source import LayerPath, Source
from sparsec.passes.shrink import Rounding, multiple_of
from sparsec.passes.shrink import shrink as shrink_graph
from sparsec.passes.simplify import simplify

if TYPE_CHECKING:
    import keras


def shrink(model: keras.Model, round_to: Rounding = "auto") -> keras.Model:
    """A smaller model that computes the same: without the units and filters that pruning killed.

    The new model is of the same class and package. Names, dtype policies, regularisers, initialisers and, where Keras can
    state it, the compile state are those of the old one, which stays as it is. The state of its optimizer is sliced along
    where that is possible; where it is not, a warning says so and the new model starts with a fresh one. Layers that Keras
    cannot state with fewer channels keep them, and a warning says why.

    Args:
        model: a Sequential or Functional model of Keras 3 or tf_keras.
        round_to: keep just enough dead channels to make the width of every layer a multiple of this; ``auto`` is 8 or 4
            in models with depthwise convolutions, and else 1, for none.

    Raises:
        InputError: the object is no Keras model, or one that Keras cannot rebuild.
        UnsupportedLayerError: the model holds a layer that sparsec does not read.
    """
    multiple = multiple_of(round_to)
    read = interpret(memory_source(model))
    source = read.source
    _, plan, _ = shrink_graph(simplify(read.graph), multiple)
    fitted = fit(read, plan, lambda edits: _check_layers(model, source, edits))
    for layer, reason in fitted.kept.items():
        warnings.warn(f"{source.description}: layer {layer!r} keeps all its channels: {reason}", stacklevel=2)
    edits = fitted.edits
    small = _rebuilt(model, source, fitted.config)
    targets = memory_source(small).variables
    for path, variables in shrunk_variables(source, edits).items():
        for variable, target in zip(variables, targets[path], strict=True):
            assert target.assign is not None
            target.assign(variable.load())
    for _, layer in _layers(small, ()):
        if hasattr(layer, "finalize_state"):
            # A Normalization computes with copies of its variables.
            layer.finalize_state()
    _compile(model, small, source, edits)
    return small


def _check_layers(model: Any, source: Source, edits: Edits) -> None:
    for path, entry, _ in walk(source.config, source.description):
        if entry.wrapped:
            raise InputError(
                f"{source.description}: layer {'/'.join(path)!r} is wrapped for pruning; unwrap the model first, with "
                "tfmot.sparsity.keras.strip_pruning(model)"
            )
    seen: dict[int, LayerPath] = {}
    for path, layer in _layers(model, ()):
        first = seen.setdefault(id(layer), path)
        if first != path and (path in edits or first in edits):
            names = ["/".join(path), "/".join(first)]
            raise UnwritableError(source.description, dict.fromkeys(names, f"two models share {names[0]!r} and {names[1]!r}"))


def _layers(model: Any, prefix: LayerPath) -> Iterator[tuple[LayerPath, Any]]:
    for layer in model.layers:
        path = (*prefix, str(layer.name))
        yield path, layer
        if hasattr(layer, "layers") and hasattr(layer, "to_json"):
            yield from _layers(layer, path)


def _package(model: Any) -> Any:
    """The package that a model is of: ``keras`` or ``tf_keras``."""
    names = (cls.__module__.partition(".")[0] for cls in type(model).__mro__)
    return sys.modules[next(name for name in names if name in ("keras", "tf_keras"))]


def _rebuilt(model: Any, source: Source, config: dict[str, Any]) -> Any:
    serialized = json.loads(model.to_json())
    serialized["config"] = config["layers"] if isinstance(serialized["config"], list) else config
    # Compiling is done apart: what cannot be compiled again must not keep the model from being built.
    serialized.pop("compile_config", None)
    try:
        return _package(model).models.model_from_json(json.dumps(serialized))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{source.description}: Keras cannot rebuild the model from its configuration: {error}") from error


def _compile(model: Any, small: Any, source: Source, edits: Edits) -> None:
    config = model.get_compile_config() if getattr(model, "compiled", getattr(model, "optimizer", None) is not None) else None
    if not config:
        return
    if getattr(model, "optimizer", None) is not None:
        # Keras takes the optimizer out of a model's compile state when it saves the model as a legacy file.
        config.setdefault("optimizer", _package(model).saving.serialize_keras_object(model.optimizer))
    try:
        small.compile_from_config(config)
    except (TypeError, ValueError, KeyError, AttributeError, NotImplementedError) as error:
        warnings.warn(
            f"{source.description}: the smaller model is not compiled, since Keras cannot do it again: {error}", stacklevel=3
        )
        return
    _restore_optimizer(model, small, source, edits)


def _restore_optimizer(model: Any, small: Any, source: Source, edits: Edits) -> None:
    old = _variables(model.optimizer)
    found = edit_optimizer([tuple(variable.shape) for variable in old], source, edits)
    if found.outcome == "none":
        return
    new = _variables(small.optimizer)
    if found.outcome == "dropped" or (len(old) > len(new)):
        reason = found.reason or "it has parts that Keras builds later"
        warnings.warn(f"{source.description}: the smaller model has a fresh optimizer: {reason}", stacklevel=4)
        return
    for index, (variable, target) in enumerate(zip(old, new, strict=False)):
        values = np.asarray(variable)
        target.assign(found.slots[index].sliced(values) if index in found.slots else values)


def _variables(optimizer: Any) -> list[Any]:
    # A method in older versions of tf_keras.
    variables = optimizer.variables
    return list(variables() if callable(variables) else variables)
