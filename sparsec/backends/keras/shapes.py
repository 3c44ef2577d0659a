"""The shapes of all tensors of a model before and after its layers shrank, and where a configuration states them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sparsec.backends.keras.edits import walk
from sparsec.backends.keras.rules import forget_builds
from sparsec.frontends.builder import GraphBuilder
from sparsec.frontends.calls import Call, parse_ends
from sparsec.frontends.layer import Output, Value, tensors
from sparsec.frontends.model import ModelWalk
from sparsec.frontends.source import Config, LayerEntry, LayerPath, Source, Variable
from sparsec.ir import Shape

SHAPE_OPTIONS = ("batch_shape", "batch_input_shape", "build_input_shape")
"""The options of layers and nested models that state the shape of their input."""


@dataclass
class LayerShapes:
    """The shapes of a layer's tensors, of all its calls in order."""

    inputs: list[Shape] = field(default_factory=list)
    outputs: list[Shape] = field(default_factory=list)


Shapes = Mapping[LayerPath, LayerShapes]


class _Recorder(ModelWalk):
    """Reads a model for the shapes of its tensors.

    Args:
        builder: takes what is emitted.
        where: what messages call the model.
        transparent: layers that return their input, whatever their configuration says.
    """

    def __init__(self, builder: GraphBuilder, where: str, transparent: frozenset[LayerPath]) -> None:
        super().__init__(builder, where)
        self.shapes: dict[LayerPath, LayerShapes] = {}
        self._transparent = transparent

    def _call(self, entry: LayerEntry, call: Call, prefix: LayerPath) -> tuple[Output, ...]:
        path = (*prefix, entry.key)
        inputs = list(tensors([call.args, call.kwargs]))
        outputs: tuple[Output, ...] = tuple(inputs) if path in self._transparent else super()._call(entry, call, prefix)
        self._record(path, inputs, tensors(outputs))
        return outputs

    def _chain(self, entries: Sequence[LayerEntry], first: Value, prefix: LayerPath) -> tuple[Value, ...]:
        if entries:
            self._record_input((*prefix, entries[0].key), entries[0], first)
        return super()._chain(entries, first, prefix)

    def _functional(
        self, config: Config, entries: Sequence[LayerEntry], inputs: Sequence[Value], prefix: LayerPath
    ) -> tuple[Value, ...]:
        by_key = {entry.key: entry for entry in entries}
        for (_, ref), value in zip(parse_ends(config.get("input_layers"), self._where), inputs, strict=True):
            if ref.layer in by_key:
                self._record_input((*prefix, ref.layer), by_key[ref.layer], value)
        return super()._functional(config, entries, inputs, prefix)

    def _record_input(self, path: LayerPath, entry: LayerEntry, value: Value) -> None:
        if entry.class_name == "InputLayer":
            self._record(path, [value], [value])

    def _record(self, path: LayerPath, inputs: Iterable[Value], outputs: Iterable[Value]) -> None:
        record = self.shapes.setdefault(path, LayerShapes())
        record.inputs.extend(value.shape for value in inputs)
        record.outputs.extend(value.shape for value in outputs)


def record_shapes(source: Source, transparent: frozenset[LayerPath] = frozenset()) -> Shapes:
    """The shapes of the tensors that every layer of a source takes and returns; values of variables are not read.

    Args:
        source: the model.
        transparent: layers that return their input, whatever their configuration says.

    Raises:
        UnsupportedLayerError: the configuration contradicts itself.
    """
    variables = {path: [_zeros(variable) for variable in found] for path, found in source.variables.items()}
    recorder = _Recorder(GraphBuilder(source.saved_by, variables), source.description, transparent)
    recorder.outermost(source.config)
    return recorder.shapes


def _zeros(variable: Variable) -> Variable:
    return replace(variable, load=lambda: np.broadcast_to(np.float32(0), variable.shape))


def idle_reshapes(source: Source, shapes: Shapes) -> frozenset[LayerPath]:
    """The Reshape layers that reshape to the shape that their input has."""
    return frozenset(
        path
        for path, entry, _ in walk(source.config, source.description)
        if entry.class_name == "Reshape" and path in shapes and shapes[path].inputs == shapes[path].outputs
    )


def correct_shapes(config: Config, where: str, before: Shapes, after: Shapes, idle: frozenset[LayerPath]) -> None:
    """Correct, in place, every shape that the configuration of a model states and that is another one now.

    The ``build_config`` of layers whose input changes is dropped: Keras builds them when it connects them.
    """
    for path, entry, item in walk(config, where):
        if path in before:
            options: dict[str, Any] = entry.config  # type: ignore[assignment]
            _correct_layer(options, item, before[path], after[path])
            if path in idle:
                pairs = _pairs(before[path].outputs, after[path].outputs)
                if "newshape" in options:
                    options["newshape"] = corrected(options["newshape"], pairs)
                else:
                    options["target_shape"] = corrected([None, *options["target_shape"]], pairs)[1:]
        for tensor in _keras_tensors(item.get("inbound_nodes")):
            producer = (*path[:-1], str(tensor["keras_history"][0]))
            if producer in before:
                tensor["shape"] = corrected(tensor["shape"], _pairs(before[producer].outputs, after[producer].outputs))


def _correct_layer(options: dict[str, Any], item: dict[str, Any], before: LayerShapes, after: LayerShapes) -> None:
    if before.inputs == after.inputs:
        return
    item.pop("build_config", None)
    forget_builds(options)
    for name in SHAPE_OPTIONS:
        if isinstance(options.get(name), list):
            options[name] = corrected(options[name], _pairs(before.inputs, after.inputs))


def _pairs(before: Sequence[Shape], after: Sequence[Shape]) -> list[tuple[Shape, Shape]]:
    return list(zip(before, after, strict=True))


def corrected(stated: list[Any], pairs: Iterable[tuple[Shape, Shape]]) -> list[Any]:
    """A shape with the sizes that changed; as it is where it fits none of the shapes before, or two that changed differently.

    Args:
        stated: sizes, ``None`` or -1 for those that are open.
        pairs: shapes before and after.
    """
    found = []
    for before, after in pairs:
        if len(before) == len(stated) and all(size in (None, -1, old) for size, old in zip(stated, before, strict=True)):
            result = [size if size in (None, -1) else new for size, new in zip(stated, after, strict=True)]
            if result not in found:
                found.append(result)
    return found[0] if len(found) == 1 else stated


def _keras_tensors(item: Any) -> Iterator[dict[str, Any]]:
    """The configurations of the tensors in calls as Keras 3 writes them."""
    if isinstance(item, dict):
        if item.get("class_name") == "__keras_tensor__":
            yield item["config"]
        else:
            for inner in item.values():
                yield from _keras_tensors(inner)
    elif isinstance(item, list):
        for inner in item:
            yield from _keras_tensors(inner)
