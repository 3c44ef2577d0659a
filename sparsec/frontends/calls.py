"""How files write down the calls of layers: the notations of Keras 2 and of Keras 3, parsed into one form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.errors import FormatError

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
    """One call of a layer; tensors in the arguments are :class:`Ref`, arrays are NumPy's."""

    args: Sequence[Any]
    kwargs: Mapping[str, Any]

    @property
    def refs(self) -> list[Ref]:
        """Every tensor that the call reads."""
        return [*_find_refs(self.args), *_find_refs(self.kwargs)]

    def resolved(self, find: Callable[[Ref], Any]) -> Call:
        """The call with every reference replaced by what ``find`` gives for it."""
        return Call(_replaced(self.args, find), _replaced(self.kwargs, find))


def parse_call(node: Any, where: str) -> Call:
    """An entry of ``inbound_nodes``.

    Raises:
        FormatError: it is in neither notation.
    """
    try:
        if isinstance(node, dict) and "args" in node:
            args, kwargs = _parse_keras3(node["args"]), _parse_keras3(node.get("kwargs", {}))
        else:
            args, kwargs = _parse_keras2(node)
        if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
            raise TypeError("its arguments are not a list and an object")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FormatError(f"{where}: the call {_shortened(node)} cannot be read ({error!r})") from None
    return Call(args, kwargs)


def parse_ends(value: Any, where: str) -> list[tuple[str, Ref]]:
    """The tensors in ``input_layers`` or ``output_layers``, with their public names.

    Tensors are in the order in which Keras flattens structures: keys of objects sorted. A tensor is called after its key in an
    object, elsewhere after its layer; where a name repeats, it is numbered.

    Raises:
        FormatError: something in the structure is no reference to a tensor.
    """
    ends = list(_ends(value, "", where))
    names = unique_names([label or ref.layer for label, ref in ends])
    return [(name, ref) for name, (_, ref) in zip(names, ends, strict=True)]


def unique_names(labels: Sequence[str]) -> list[str]:
    """``labels``, each that repeats an earlier one numbered: ``a, a, b`` become ``a, a_1, b``."""
    names: list[str] = []
    for label in labels:
        name, count = label, 0
        while name in names or (count and name in labels):
            count += 1
            name = f"{label}_{count}"
        names.append(name)
    return names


def _ends(value: Any, label: str, where: str) -> Iterator[tuple[str, Ref]]:
    if _is_triple(value):
        yield label, Ref(*value)
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from _ends(value[key], f"{label}_{key}" if label else key, where)
    elif isinstance(value, list):
        for item in value:
            yield from _ends(item, label, where)
    else:
        raise FormatError(f"{where}: {_shortened(value)} is not a reference to a tensor of the model")


def _is_triple(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and isinstance(value[0], str)
        and all(isinstance(v, int) and not isinstance(v, bool) for v in value[1:])
    )


def _ref(value: Any) -> Ref:
    if not _is_triple(value):
        raise TypeError(f"{_shortened(value)} is not a reference to a tensor")
    return Ref(*value)


def _parse_keras3(item: Any) -> Any:
    if isinstance(item, dict):
        match item.get("class_name"):
            case "__keras_tensor__":
                return _ref(item["config"]["keras_history"])
            case "__numpy__" | "__tensor__":
                dtype = str(item["config"]["dtype"])
                return np.asarray(item["config"]["value"], dtype="float32" if dtype == "bfloat16" else dtype)
            case "__tuple__":
                return _parse_keras3(item["items"])
            case "__slice__":
                return _slice(item["config"], _parse_keras3)
            case "__ellipsis__":
                return Ellipsis
        return {key: _parse_keras3(inner) for key, inner in item.items()}
    return [_parse_keras3(inner) for inner in item] if isinstance(item, list) else item


def _parse_keras2(node: Any) -> tuple[list[Any], dict[str, Any]]:
    if isinstance(node, list) and node and isinstance(node[0], str):
        # An operation: [layer, node, tensor, kwargs].
        first = node[2] if node[0] == CONSTANT else _ref(node[:3])
        return [first], {key: _keras2_argument(item) for key, item in (node[3] if len(node) > 3 else {}).items()}
    given = _keras2_input(node)
    # The keyword arguments stand behind the first tensor.
    leaf = node
    while not isinstance(leaf[0] if isinstance(leaf, list) else None, str):
        leaf = leaf[0] if isinstance(leaf, list) else leaf[min(leaf)]
    kwargs = leaf[3] if len(leaf) > 3 else {}
    first = given[0] if isinstance(given, list) and len(given) == 1 else given
    return [first], {key: _keras2_argument(item) for key, item in kwargs.items()}


def _keras2_input(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: _keras2_input(inner) for key, inner in item.items()}
    if item and isinstance(item[0], str):
        return item[2] if item[0] == CONSTANT else _ref(item[:3])
    return [_keras2_input(inner) for inner in item]


def _keras2_argument(item: Any) -> Any:
    if isinstance(item, list) and len(item) in (3, 4) and _is_triple(item[:3]):
        return item[2] if item[0] == CONSTANT else Ref(*item[:3])
    if isinstance(item, dict):
        if item.keys() == _SLICE:
            return _slice(item, _keras2_argument)
        if item.get("class_name") == "__ellipsis__":
            return Ellipsis
        return {key: _keras2_argument(inner) for key, inner in item.items()}
    return [_keras2_argument(inner) for inner in item] if isinstance(item, list) else item


_SLICE = {"start", "stop", "step"}


def _slice(config: Mapping[str, Any], parse: Callable[[Any], Any]) -> slice:
    return slice(*(parse(config[end]) for end in ("start", "stop", "step")))


def _ends_of(part: slice) -> list[Any]:
    return [part.start, part.stop, part.step]


def _find_refs(item: Any) -> Iterator[Ref]:
    if isinstance(item, Ref):
        yield item
    elif isinstance(item, Mapping):
        for inner in item.values():
            yield from _find_refs(inner)
    elif isinstance(item, list | tuple | slice):
        for inner in _ends_of(item) if isinstance(item, slice) else item:
            yield from _find_refs(inner)


def _replaced(item: Any, find: Callable[[Ref], Any]) -> Any:
    if isinstance(item, Ref):
        return find(item)
    if isinstance(item, Mapping):
        return {key: _replaced(inner, find) for key, inner in item.items()}
    if isinstance(item, list | tuple):
        return [_replaced(inner, find) for inner in item]
    return slice(*(_replaced(end, find) for end in _ends_of(item))) if isinstance(item, slice) else item


def _shortened(value: Any, length: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= length else f"{text[:length]}..."
