"""The walk over a model's configuration: Sequential and Functional models, nested ones included, become one Graph."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparsec.errors import FormatError, UnsupportedLayerError
from sparsec.frontends.builder import GraphBuilder
from sparsec.frontends.layer import LAYERS, OPERATIONS, Layer, LayerFunction, Value
from sparsec.frontends.policy import compute_dtype, input_dtype
from sparsec.frontends.source import Config, LayerEntry, LayerPath, Source, layer_entries
from sparsec.ir import BATCH, Dim, Graph, TensorType, symbol

CONSTANT = "_CONSTANT_VALUE"
"""Stands for the layer in Keras 2 where the first argument of an operation is a plain number."""


@dataclass(frozen=True)
class Ref:
    """A tensor of the model: output ``tensor`` of the ``node``-th call of a layer."""

    layer: str
    node: int
    tensor: int


@dataclass(frozen=True)
class Call:
    """One call of a layer, tensors in the arguments as :class:`Ref`."""

    args: Sequence[Any]
    kwargs: Mapping[str, Any]


def read_model(builder: GraphBuilder, source: Source) -> Graph:
    """Emit the outermost model of a source and return its graph.

    Raises:
        FormatError: the configuration contradicts itself.
        UnsupportedLayerError: a layer, or an option of one, is not read.
    """
    class_name, config = str(source.config.get("class_name")).rsplit(">", 1)[-1], source.config.get("config")
    if isinstance(config, list):
        # Sequential models of Keras before 2.2.3 stored the bare list of layers.
        config = {"layers": config}
    if not isinstance(config, dict):
        raise FormatError(f"{source.description}: the configuration is not that of a Keras model")
    outputs = _ModelWalk(builder, source.description).outermost(class_name, config)
    return builder.finish(outputs, str(config.get("name", "model")))


class _ModelWalk:
    """Emits the layers of one model, outermost or nested, into a builder."""

    def __init__(self, builder: GraphBuilder, where: str) -> None:
        self._builder = builder
        self._where = where
        self._calls: dict[tuple[str, ...], int] = {}

    def outermost(self, class_name: str, config: Config) -> list[tuple[str, Value]]:
        """Emit the outermost model: its inputs become the graph's, its outputs are returned with their names."""
        if class_name not in ("Sequential", "Functional", "Model"):
            raise UnsupportedLayerError(
                f"{self._where}: the model is of class {class_name!r}; sparsec reads Sequential and Functional models, not "
                "subclassed ones: rebuild it with keras.Model(inputs, outputs)"
            )
        entries = layer_entries(config, self._where)
        if class_name == "Sequential" or "output_layers" not in config:
            first, rest = self._sequential_input(config, entries)
            values = self._chain(rest, (first,), ())
            return _numbered(rest[-1].name if rest else first.name, values)
        inputs = {
            ref: self._graph_input(entry)
            for ref in _refs(config.get("input_layers"))
            for entry in entries
            if entry.key == ref.layer
        }
        outputs = _refs(config["output_layers"])
        values = self._functional(config, entries, list(inputs.values()), ())
        names = _output_names(outputs, config["output_layers"])
        return list(zip(names, values, strict=True))

    # --- inputs ---

    def _sequential_input(self, config: Config, entries: Sequence[LayerEntry]) -> tuple[Value, Sequence[LayerEntry]]:
        if entries and entries[0].class_name == "InputLayer":
            return self._graph_input(entries[0]), entries[1:]
        first = entries[0].config if entries else {}
        shape = first.get("batch_input_shape") or first.get("batch_shape") or config.get("build_input_shape")
        if not shape:
            raise FormatError(
                f"{self._where}: the model was never built, so its input shape is not known; call it once, or give its first "
                "layer an input shape, and save it again"
            )
        name = f"{entries[0].name}_input"
        return self._builder.input(name, TensorType(input_dtype(first.get("dtype")), self._input_shape(name, shape))), entries

    def _graph_input(self, entry: LayerEntry) -> Value:
        shape = entry.config.get("batch_shape") or entry.config.get("batch_input_shape")
        if not isinstance(shape, list | tuple):
            raise FormatError(f"{self._where}: input {entry.name!r} has no shape")
        if entry.config.get("sparse") or entry.config.get("ragged"):
            raise UnsupportedLayerError(f"input {entry.name!r} takes sparse or ragged tensors, which sparsec does not read")
        type_ = TensorType(input_dtype(entry.config.get("dtype")), self._input_shape(entry.name, shape))
        return self._builder.input(entry.name, type_)

    def _input_shape(self, name: str, shape: Sequence[Any]) -> tuple[Dim, ...]:
        rest: list[Dim] = [int(size) if size is not None else symbol(f"{name}_{axis}") for axis, size in enumerate(shape)][1:]
        return (symbol(BATCH), *rest)

    # --- models ---

    def _chain(self, entries: Sequence[LayerEntry], values: tuple[Value, ...], prefix: LayerPath) -> tuple[Value, ...]:
        for entry in entries:
            if entry.class_name != "InputLayer":
                values = self._call(entry, [values[0] if len(values) == 1 else list(values)], {}, prefix)
        return values

    def _nested(self, entry: LayerEntry, args: Sequence[Any], kwargs: Mapping[str, Any], prefix: LayerPath) -> tuple[Value, ...]:
        inner = (*prefix, entry.key)
        inputs = Layer(self._builder, entry, inner, args, kwargs, 0).inputs
        entries = layer_entries(entry.config, self._where)
        if "output_layers" not in entry.config:
            return self._chain(entries, tuple(inputs), inner)
        return self._functional(entry.config, entries, inputs, inner)

    def _functional(
        self, config: Config, entries: Sequence[LayerEntry], inputs: Sequence[Value], prefix: LayerPath
    ) -> tuple[Value, ...]:
        by_key = {entry.key: entry for entry in entries}
        input_refs, output_refs = _refs(config.get("input_layers")), _refs(config["output_layers"])
        if len(input_refs) != len(inputs):
            raise FormatError(f"{self._where}: model {'/'.join(prefix) or 'itself'!r} takes {len(input_refs)} inputs, got {len(inputs)}")
        calls = {entry.key: [_parse_call(node, self._where) for node in entry.inbound] for entry in entries}
        offsets = _node_offsets(calls, output_refs, by_key)
        values = {_slot(ref, offsets): value for ref, value in zip(input_refs, inputs, strict=True)}
        pending = deque(
            (key, index, call)
            for key, own in calls.items()
            if by_key[key].class_name != "InputLayer"
            for index, call in enumerate(own)
        )
        stalled = 0
        while pending and stalled < len(pending):
            key, index, call = pending.popleft()
            needed = list(_find_refs((call.args, call.kwargs)))
            if not all(_slot(ref, offsets) in values for ref in needed):
                pending.append((key, index, call))
                stalled += 1
                continue
            stalled = 0
            args, kwargs = _substitute(call.args, values, offsets), _substitute(call.kwargs, values, offsets)
            for tensor, value in enumerate(self._call(by_key[key], args, kwargs, prefix)):
                values[key, index, tensor] = value
        missing = [ref for ref in output_refs if _slot(ref, offsets) not in values]
        if missing:
            raise FormatError(f"{self._where}: output {missing[0].layer!r} of the model is not connected to its inputs")
        return tuple(values[_slot(ref, offsets)] for ref in output_refs)

    def _call(self, entry: LayerEntry, args: Sequence[Any], kwargs: Mapping[str, Any], prefix: LayerPath) -> tuple[Value, ...]:
        if entry.is_model:
            return self._nested(entry, args, kwargs, prefix)
        path = (*prefix, entry.key)
        function = self._function(entry, args)
        compute_dtype(entry.config.get("dtype"), entry.name, entry.class_name)
        count = self._calls.get(path, 0)
        self._calls[path] = count + 1
        layer = Layer(self._builder, entry, path, args, kwargs, count)
        result = function(layer)
        layer.finish()
        return result if isinstance(result, tuple) else (result,)

    def _function(self, entry: LayerEntry, args: Sequence[Any]) -> LayerFunction:
        name, path = entry.class_name, entry.name
        if name in ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"):
            name = str(entry.config.get("function", name))
            table = OPERATIONS
        elif ".ops." in entry.module or (name in OPERATIONS and not (args and isinstance(args[0], list))):
            # A legacy file does not say the module; layers that merge take one list, operations take their operands.
            table = OPERATIONS if name in OPERATIONS else LAYERS
        else:
            table = LAYERS
        if name in table:
            return table[name]
        if name == "Lambda":
            raise UnsupportedLayerError(
                f"layer {path!r} is a Lambda: it holds Python code, which sparsec never executes; replace it by layers or "
                "keras.ops and save the model again"
            )
        what = "operation" if table is OPERATIONS else "class"
        raise UnsupportedLayerError(
            f"layer {path!r} has {what} {name!r}, which sparsec does not read; it reads {', '.join(sorted(table))}"
        )


def _slot(ref: Ref, offsets: Mapping[str, int]) -> tuple[str, int, int]:
    return ref.layer, ref.node - offsets.get(ref.layer, 0), ref.tensor


def _node_offsets(
    calls: Mapping[str, Sequence[Call]], outputs: Sequence[Ref], entries: Mapping[str, LayerEntry]
) -> dict[str, int]:
    """How many calls of each layer the file counts but does not list.

    Keras 2 counts a nested model's own construction as its call 0.
    """
    highest: dict[str, int] = {}
    for own in (*calls.values(), [Call([*outputs], {})]):
        for call in own:
            for ref in _find_refs((call.args, call.kwargs)):
                highest[ref.layer] = max(highest.get(ref.layer, 0), ref.node)
    return {
        key: highest[key] - (len(own) - 1)
        for key, own in calls.items()
        if key in highest and entries[key].is_model and highest[key] >= len(own)
    }


# --- the notations of Keras 2 and 3 ----------------------------------------------------------------------------------


def _refs(value: Any) -> list[Ref]:
    """Tensor references in ``input_layers`` and ``output_layers``: one triple, or lists or objects of them."""
    if _is_triple(value):
        return [Ref(value[0], value[1], value[2])]
    if isinstance(value, dict):
        return [ref for item in value.values() for ref in _refs(item)]
    if isinstance(value, list | tuple):
        return [ref for item in value for ref in _refs(item)]
    raise FormatError(f"{value!r} is not a reference to a tensor of the model")


def _is_triple(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and isinstance(value[0], str)
        and all(isinstance(v, int) and not isinstance(v, bool) for v in value[1:])
    )


def _parse_call(node: Any, where: str) -> Call:
    try:
        if isinstance(node, dict):
            return Call(_parse_keras3(node.get("args", [])), _parse_keras3(node.get("kwargs", {})))
        return _parse_keras2(node)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise FormatError(f"{where}: the call {node!r} cannot be read ({error!r})") from None


def _parse_keras3(item: Any) -> Any:
    if isinstance(item, dict):
        if item.get("class_name") == "__keras_tensor__":
            return Ref(*item["config"]["keras_history"])
        if item.get("class_name") == "__numpy__":
            return item["config"]["value"]
        if item.get("class_name") == "__tuple__":
            return tuple(_parse_keras3(inner) for inner in item["items"])
        return {key: _parse_keras3(inner) for key, inner in item.items()}
    return [_parse_keras3(inner) for inner in item] if isinstance(item, list) else item


def _parse_keras2(node: Any) -> Call:
    if node and isinstance(node[0], str):
        # An operation: [layer, node, tensor, kwargs].
        first = node[2] if node[0] == CONSTANT else Ref(node[0], node[1], node[2])
        return Call([first], _parse_keras2_kwargs(node[3] if len(node) > 3 else {}))
    if isinstance(node, dict):
        return Call([], _parse_keras2_kwargs(node))
    items = [Ref(item[0], item[1], item[2]) for item in node]
    kwargs = node[0][3] if node and len(node[0]) > 3 else {}
    return Call([items[0] if len(items) == 1 else items], _parse_keras2_kwargs(kwargs))


def _parse_keras2_kwargs(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    def parse(item: Any) -> Any:
        if _is_triple(item):
            return item[2] if item[0] == CONSTANT else Ref(*item)
        if isinstance(item, list) and len(item) == 4 and _is_triple(item[:3]):
            return Ref(*item[:3])
        return [parse(inner) for inner in item] if isinstance(item, list) else item

    return {key: parse(item) for key, item in kwargs.items()}


def _find_refs(item: Any) -> Iterator[Ref]:
    if isinstance(item, Ref):
        yield item
    elif isinstance(item, Mapping):
        for inner in item.values():
            yield from _find_refs(inner)
    elif isinstance(item, list | tuple):
        for inner in item:
            yield from _find_refs(inner)


def _substitute(item: Any, values: Mapping[tuple[str, int, int], Value], offsets: Mapping[str, int]) -> Any:
    if isinstance(item, Ref):
        return values[_slot(item, offsets)]
    if isinstance(item, Mapping):
        return {key: _substitute(inner, values, offsets) for key, inner in item.items()}
    if isinstance(item, list | tuple):
        return type(item)(_substitute(inner, values, offsets) for inner in item)
    return item


def _output_names(refs: Sequence[Ref], structure: Any) -> list[str]:
    if isinstance(structure, dict):
        return [str(key) for key in structure]
    names: list[str] = []
    for ref in refs:
        count = sum(name == ref.layer or name.startswith(f"{ref.layer}_") for name in names)
        name = ref.layer if ref.layer not in names else f"{ref.layer}_{count}"
        names.append(name)
    return names


def _numbered(name: str, values: Sequence[Value]) -> list[tuple[str, Value]]:
    return [(f"{name}_{index}" if index else name, value) for index, value in enumerate(values)]
