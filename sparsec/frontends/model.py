"""The walk over a model's configuration: Sequential and Functional models, nested ones included, become one Graph."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sparsec.errors import FormatError, UnsupportedLayerError
from sparsec.frontends.builder import GraphBuilder
from sparsec.frontends.calls import Call, Ref, parse_call, parse_ends
from sparsec.frontends.layer import (
    LAYERS,
    OPERATIONS,
    SIZE_OPERATIONS,
    Layer,
    LayerFunction,
    OperationFunction,
    Output,
    Sizes,
    Value,
    alike,
    tensors,
)
from sparsec.frontends.order import execution_order
from sparsec.frontends.policy import NARROW, half_precision, input_dtype, policy_name
from sparsec.frontends.refusals import REFUSED
from sparsec.frontends.source import Config, LayerEntry, LayerPath, Source, layer_entries
from sparsec.ir import BATCH, DTYPES, Dim, Graph, TensorType, symbol
from sparsec.ir.dims import MAX_SIZE

INPUT = "InputLayer"

KERAS2_OPERATIONS = frozenset({"TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"})
"""The layers by which Keras 2 stands for operations on tensors that are not layers."""

TAKE_MASKS = frozenset({"MultiHeadAttention"})
"""The layers that take the masks off their inputs, so that the order in which layers run matters."""

CallKey = tuple[str, int]
"""A layer, and which of its calls within this model is meant."""


def read_model(builder: GraphBuilder, source: Source) -> Graph:
    """Emit the outermost model of a source and return its graph.

    Raises:
        FormatError: the configuration contradicts itself.
        UnsupportedLayerError: a layer, or an option of one, is not read.
    """
    outputs = ModelWalk(builder, source.description).outermost(source.config)
    return builder.finish(outputs, str(source.config.get("name", "model")), source.description)


class ModelWalk:
    """Emits the layers of one model, outermost or nested, into a builder."""

    def __init__(self, builder: GraphBuilder, where: str) -> None:
        self._builder = builder
        self._where = where
        self._calls: dict[LayerPath, int] = {}

    def outermost(self, config: Config) -> list[tuple[str, Value]]:
        """Emit the outermost model: its inputs become the graph's, its outputs are returned with their names."""
        entries = layer_entries(config, self._where)
        if "output_layers" not in config:
            first, rest = self._sequential_input(config, entries)
            values = self._outputs(self._chain(rest, first, ()))
            name = rest[-1].name if rest else first.name
            return [(f"{name}_{index}" if index else name, value) for index, value in enumerate(values)]
        by_key = {entry.key: entry for entry in entries}
        inputs = []
        for name, ref in parse_ends(config.get("input_layers"), self._where):
            if ref.layer not in by_key or by_key[ref.layer].class_name != INPUT:
                raise FormatError(f"{self._where}: {ref.layer!r} is not an input layer of the model")
            inputs.append(self._graph_input(by_key[ref.layer], name))
        names = [name for name, _ in parse_ends(config["output_layers"], self._where)]
        if not names:
            raise FormatError(f"{self._where}: the model has no outputs")
        return list(zip(names, self._outputs(self._functional(config, entries, inputs, ())), strict=True))

    def _outputs(self, values: Sequence[Value]) -> list[Value]:
        """The values in the dtypes that Keras gives them, as far as NumPy has them."""
        return [self._cast(value, value.half) if value.half in DTYPES else value for value in values]

    # --- inputs ---

    def _sequential_input(self, config: Config, entries: Sequence[LayerEntry]) -> tuple[Value, Sequence[LayerEntry]]:
        if entries and entries[0].class_name == INPUT:
            return self._graph_input(entries[0], entries[0].name), entries[1:]
        first = entries[0].config if entries else {}
        shape = _batch_shape(first) or config.get("build_input_shape")
        if not shape:
            raise FormatError(
                f"{self._where}: the model was never built, so its input shape is not known; call it once, or give its first "
                "layer an input shape, and save it again"
            )
        return self._add_input(f"{entries[0].name}_input" if entries else "input", shape, first.get("dtype")), entries

    def _graph_input(self, entry: LayerEntry, name: str) -> Value:
        if entry.config.get("sparse") or entry.config.get("ragged"):
            raise UnsupportedLayerError(f"input {name!r} takes sparse or ragged tensors, which sparsec does not read")
        if entry.config.get("optional"):
            raise UnsupportedLayerError(
                f"input {name!r} is optional, which sparsec does not read; build the model with or without it"
            )
        return self._add_input(name, _batch_shape(entry.config), entry.config.get("dtype"))

    def _add_input(self, name: str, shape: Any, declared: Any) -> Value:
        sizes = shape if isinstance(shape, list | tuple) else []
        if not sizes or not all(size is None or (type(size) is int and 0 < size <= MAX_SIZE) for size in sizes[1:]):
            raise FormatError(f"{self._where}: input {name!r} has the shape {shape!r}, a batch axis and sizes were expected")
        rest: list[Dim] = [symbol(f"{name}_{axis}") if size is None else size for axis, size in enumerate(sizes)][1:]
        dtype, half = input_dtype(declared, name), half_precision(declared)
        # NumPy has one of the two half precisions.
        type_ = TensorType(half if half in DTYPES else dtype, (symbol(BATCH), *rest))
        value = self._builder.input(name, type_, policy_name(declared) in NARROW)
        return replace(self._cast(value, dtype), half=half)

    def _cast(self, value: Value, dtype: str) -> Value:
        return (
            value
            if value.type.dtype == dtype
            else self._builder.emit("cast", f"{value.name}/cast", [value.name], "", {"dtype": dtype})
        )

    # --- models ---

    def _chain(self, entries: Sequence[LayerEntry], first: Value, prefix: LayerPath) -> tuple[Value, ...]:
        values: tuple[Value, ...] = (first,)
        for entry in entries:
            if entry.class_name != INPUT:
                values = _tensors(self._call(entry, Call([values[0] if len(values) == 1 else list(values)], {}), prefix))
        return values

    def _nested(self, layer: Layer) -> tuple[Value, ...]:
        entry, path = layer.entry, layer.path
        layer.begin()
        given = layer.masked_inputs(layer.operand(0, "inputs"))
        layer.finish()
        entries = layer_entries(entry.config, self._where)
        if "output_layers" not in entry.config:
            (value,) = self._bound(layer, given, [(entry.name, entries[0])] if entries else [(entry.name, None)])
            return self._chain(entries, value, path)
        by_key = {inner.key: inner for inner in entries}
        ends = [(name, by_key.get(ref.layer)) for name, ref in parse_ends(entry.config.get("input_layers"), self._where)]
        return self._functional(entry.config, entries, self._bound(layer, given, ends), path)

    def _bound(self, layer: Layer, given: Any, ends: Sequence[tuple[str, LayerEntry | None]]) -> list[Value]:
        """The values given to the inputs of a nested model, by name or in order, as their input layers take them."""
        if isinstance(given, Mapping) and all(isinstance(given.get(name), Value) for name, _ in ends):
            values = [given[name] for name, _ in ends]
        else:
            values = list(tensors(given))
        if len(values) != len(ends):
            layer.refuse(f"is given {len(values)} inputs and takes {len(ends)}")
        bound = []
        for value, (name, entry) in zip(values, ends, strict=True):
            if entry is not None and entry.class_name == INPUT:
                shape = _batch_shape(entry.config)
                if isinstance(shape, list | tuple) and len(shape) != value.rank:
                    layer.refuse(f"its input {name!r} takes {len(shape)} axes and is given {value.type}; reshape it outside")
                declared = entry.config.get("dtype")
                value = replace(layer.cast(value, input_dtype(declared, name)), mask=value.mask, half=half_precision(declared))
            bound.append(value)
        return bound

    def _functional(
        self, config: Config, entries: Sequence[LayerEntry], inputs: Sequence[Value], prefix: LayerPath
    ) -> tuple[Value, ...]:
        by_key = {entry.key: entry for entry in entries}
        calls = {
            (entry.key, index): parse_call(node, self._where)
            for entry in entries
            if entry.class_name != INPUT
            for index, node in enumerate(entry.inbound)
        }
        ends = [ref for _, ref in parse_ends(config["output_layers"], self._where)]
        if self._builder.saved_by.generation == 2:
            inner = outer = _offsets_keras2(calls, ends, by_key)
        else:
            inner, outer = {}, _offsets_keras3(ends, by_key)

        def slot(ref: Ref, offsets: Mapping[str, int] = inner) -> tuple[str, int, int]:
            return ref.layer, ref.node - offsets.get(ref.layer, 0), ref.tensor

        input_refs = [ref for _, ref in parse_ends(config.get("input_layers"), self._where)]
        values: dict[tuple[str, int, int], Output] = dict(zip(map(slot, input_refs), inputs, strict=True))

        def find(ref: Ref) -> Output:
            try:
                value = values[slot(ref)]
                return replace(value, mask=None) if isinstance(value, Value) and value.name in self._builder.unmasked else value
            except KeyError:
                raise FormatError(
                    f"{self._where}: layer {ref.layer!r} has no output {ref.tensor}, which another layer reads"
                ) from None

        read = {key: [slot(ref)[:2] for ref in call.refs] for key, call in calls.items()}
        if self._builder.saved_by.generation == 3 and any(entry.class_name in TAKE_MASKS for entry in entries):
            order = execution_order(read, lambda key: key[0], [slot(ref, outer)[:2] for ref in ends])
            read = {key: read[key] for key in (*order, *(key for key in read if key not in set(order)))}
        needs = {key: set(keys) for key, keys in read.items()}
        for key in self._order(needs, {slot(ref)[:2] for ref in input_refs}):
            for tensor, value in enumerate(self._call(by_key[key[0]], calls[key].resolved(find), prefix)):
                values[*key, tensor] = value
        missing = [ref.layer for ref in ends if slot(ref, outer) not in values]
        if missing:
            raise FormatError(f"{self._where}: output {missing[0]!r} of the model is not connected to its inputs")
        return _tensors([values[slot(ref, outer)] for ref in ends])

    def _order(self, needs: Mapping[CallKey, set[CallKey]], available: set[CallKey]) -> Iterator[CallKey]:
        """The calls in the order in which they are given, as far as each finds what it reads."""
        keys = list(needs)
        left = {key: len(wanted - available) for key, wanted in needs.items()}
        readers: dict[CallKey, list[int]] = defaultdict(list)
        for position, key in enumerate(keys):
            for wanted in needs[key] - available:
                readers[wanted].append(position)
        ready = [position for position, key in enumerate(keys) if not left[key]]
        while ready:
            key = keys[heapq.heappop(ready)]
            yield key
            del left[key]
            for position in readers[key]:
                left[keys[position]] -= 1
                if not left[keys[position]]:
                    heapq.heappush(ready, position)
        if left:
            raise FormatError(
                f"{self._where}: layer {min(left)[0]!r} is not connected to the inputs of the model, or reads itself"
            )

    def _call(self, entry: LayerEntry, call: Call, prefix: LayerPath) -> tuple[Output, ...]:
        path = (*prefix, entry.key)
        count = self._calls.get(path, 0)
        self._calls[path] = count + 1
        operation = self._is_operation(entry)
        layer = Layer(self._builder, entry, path, call.args, call.kwargs, count, self, operation=operation)
        return self._emit_operation(layer) if operation else self.emit(layer)

    def _emit_operation(self, layer: Layer) -> tuple[Output, ...]:
        result = _operation(layer)(layer)
        layer.finish()
        outputs = result if isinstance(result, tuple) else (result,)
        return tuple(output if isinstance(output, Sizes) else layer.masked(output, None) for output in outputs)

    def emit(self, layer: Layer) -> tuple[Value, ...]:
        """Emit one call of a layer, or of a nested model, and return its outputs."""
        if layer.entry.is_model:
            return self._nested(layer)
        function = _layer_function(layer.entry)
        layer.begin()
        result = function(layer)
        outputs = layer.with_passed_masks(result if isinstance(result, tuple) else (result,))
        layer.finish()
        return outputs

    def _is_operation(self, entry: LayerEntry) -> bool:
        if entry.class_name in KERAS2_OPERATIONS:
            return True
        if entry.module:
            return ".ops." in entry.module or ".activations." in entry.module
        # A legacy file of Keras 3 does not say, but only layers can be trained.
        return self._builder.saved_by.generation == 3 and entry.class_name in OPERATIONS and "trainable" not in entry.config


def _batch_shape(config: Config) -> Any:
    return config.get("batch_shape") or config.get("batch_input_shape")


# --- which function reads a layer --------------------------------------------------------------------------------------


def _layer_function(entry: LayerEntry) -> LayerFunction:
    name = entry.class_name
    bare = name.rpartition(">")[2]
    if bare in REFUSED and (bare == "Lambda" or not entry.is_custom):
        raise UnsupportedLayerError(f"layer {entry.name!r} is a {bare}: it {REFUSED[bare]}")
    if entry.is_custom:
        raise UnsupportedLayerError(
            f"layer {entry.name!r} is of the class {name!r}{f' of {entry.module}' if entry.module else ''}, which is not one "
            "of Keras; sparsec does not run a model's own code: rebuild it with layers of Keras"
        )
    if name not in LAYERS:
        raise UnsupportedLayerError(
            f"layer {entry.name!r} is of the class {name!r}, which sparsec does not read{alike(name, LAYERS)}; "
            "docs/layers.md lists the layers that it reads"
        )
    return LAYERS[name]


def _operation(layer: Layer) -> OperationFunction:
    entry = layer.entry
    name = entry.class_name
    if name in KERAS2_OPERATIONS:
        name = str(entry.config.get("function", name))
    if layer.is_given_only_sizes:
        if name not in SIZE_OPERATIONS:
            layer.refuse(f"computes {name!r} of the shape of a tensor, which is not read; state the sizes as numbers")
        return SIZE_OPERATIONS[name]
    if name not in OPERATIONS:
        raise UnsupportedLayerError(
            f"layer {entry.name!r} is the operation {name!r}, which sparsec does not read{alike(name, OPERATIONS)}; "
            "docs/operations.md lists the operations that it reads"
        )
    return OPERATIONS[name]


def _tensors(outputs: Sequence[Output]) -> tuple[Value, ...]:
    """The outputs of a model, which are tensors.

    Raises:
        UnsupportedLayerError: one is the shape of a tensor.
    """
    values = tuple(output for output in outputs if isinstance(output, Value))
    if len(values) < len(outputs):
        raise UnsupportedLayerError(
            "an output of the model is the shape of a tensor, which is not read; take it off the outputs"
        )
    return values


# --- how the calls of nested models are counted ------------------------------------------------------------------------


def _offsets_keras2(calls: Mapping[CallKey, Call], ends: Sequence[Ref], entries: Mapping[str, LayerEntry]) -> dict[str, int]:
    """How many calls of each nested model are counted but not listed: Keras 2 counts its construction as call 0."""
    highest: dict[str, int] = {}
    for ref in (*ends, *(ref for call in calls.values() for ref in call.refs)):
        highest[ref.layer] = max(highest.get(ref.layer, 0), ref.node)
    return {
        key: node - (len(entries[key].inbound) - 1)
        for key, node in highest.items()
        if key in entries and entries[key].is_model and node >= len(entries[key].inbound)
    }


def _offsets_keras3(ends: Sequence[Ref], entries: Mapping[str, LayerEntry]) -> dict[str, int]:
    """Keras 3 counts calls of nested functional models from 1 in ``output_layers``, and from 0 everywhere else."""
    lowest: dict[str, int] = {}
    for ref in ends:
        lowest[ref.layer] = min(lowest.get(ref.layer, ref.node), ref.node)
    return {key: 1 for key, node in lowest.items() if node > 0 and key in entries and "output_layers" in entries[key].config}
