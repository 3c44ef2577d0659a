"""The manifest: the structure of its JSON, checked by hand. ``formats/manifest.schema.json`` states the same rules.

What a schema cannot express, such as that names are unique and that arrays fit their shapes, is checked by the reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sparsec.bundle import limits
from sparsec.bundle.selfcheck import ExpectedOutput, InputSample, SelfCheck
from sparsec.bundle.selfcheck import to_json as selfcheck_to_json
from sparsec.encodings import LEVELS
from sparsec.errors import FormatError
from sparsec.ir import DTYPES, Attrs, AttrValue, Dim, Input, Node, Port, TensorType, symbol

FORMAT: Final = "sparsec-bundle"
VERSION: Final = 1

_SYMBOL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_MEMBER: Final = re.compile(r"[A-Za-z0-9_.]{1,64}\.npy")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """Where a part of a tensor is: elements ``offset`` to ``offset + count`` of a member."""

    member: str
    offset: int
    count: int


@dataclass(frozen=True)
class TensorEntry:
    """A stored tensor without its arrays; the fields are those of :class:`sparsec.encodings.StoredTensor`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    rows: tuple[int, ...]
    positions: str
    values: str
    parts: Mapping[str, Part]


@dataclass(frozen=True)
class Manifest:
    """Everything that a bundle says in JSON."""

    level: str
    sparsec_version: str
    name: str
    inputs: tuple[Input, ...]
    outputs: tuple[Port, ...]
    nodes: tuple[Node, ...]
    tensors: tuple[TensorEntry, ...]
    source_sha256: str | None
    options: Mapping[str, Any]
    report: Mapping[str, Any] | None
    selfcheck: SelfCheck | None


# --- writing --------------------------------------------------------------------------------------------------------


def to_json(manifest: Manifest) -> dict[str, Any]:
    """The JSON value that stands for a manifest."""
    value: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "sparsec": manifest.sparsec_version,
        "level": manifest.level,
        **graph_to_json(manifest.name, manifest.inputs, manifest.outputs, manifest.nodes),
        "tensors": [_tensor_to_json(tensor) for tensor in manifest.tensors],
        "options": dict(manifest.options),
    }
    if manifest.source_sha256 is not None:
        value["source"] = {"sha256": manifest.source_sha256}
    if manifest.report is not None:
        value["report"] = dict(manifest.report)
    if manifest.selfcheck is not None:
        value["selfcheck"] = selfcheck_to_json(manifest.selfcheck)
    return value


def graph_to_json(name: str, inputs: tuple[Input, ...], outputs: tuple[Port, ...], nodes: tuple[Node, ...]) -> dict[str, Any]:
    """The part of a manifest that states what is computed."""
    return {
        "name": name,
        "inputs": [
            {
                "name": i.name,
                "dtype": i.type.dtype,
                "shape": [dim if isinstance(dim, int) else str(dim) for dim in i.type.shape],
            }
            for i in inputs
        ],
        "outputs": [{"name": port.name, "value": port.value} for port in outputs],
        "nodes": [
            {
                "op": node.op,
                "name": node.name,
                "layer": node.layer,
                "inputs": list(node.inputs),
                "outputs": list(node.outputs),
                "attributes": {key: list(item) if isinstance(item, tuple) else item for key, item in node.attrs.items()},
            }
            for node in nodes
        ],
    }


def _tensor_to_json(tensor: TensorEntry) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "rows": list(tensor.rows),
        "positions": tensor.positions,
        "values": tensor.values,
        "parts": {name: [part.member, part.offset, part.count] for name, part in tensor.parts.items()},
    }


# --- reading --------------------------------------------------------------------------------------------------------


def from_json(value: Any) -> Manifest:
    """The manifest that a JSON value stands for.

    Raises:
        FormatError: the value breaks a rule of the structure; the message says where.
    """
    top = _Fields(value, "the manifest")
    if top.take("format", _any) != FORMAT:
        raise FormatError(f'its manifest does not say "format": "{FORMAT}"')
    version = top.take("version", _any)
    if version != VERSION or isinstance(version, bool):
        raise FormatError(f"its format version is {version!r}, and this is a reader of version {VERSION}; update sparsec")
    manifest = Manifest(
        sparsec_version=top.take("sparsec", _text),
        level=top.take("level", _one_of(LEVELS)),
        name=top.take("name", _text),
        inputs=top.take("inputs", _list_of(_input, limits.MAX_PORTS)),
        outputs=top.take("outputs", _list_of(_output, limits.MAX_PORTS)),
        nodes=top.take("nodes", _list_of(_node, limits.MAX_NODES)),
        tensors=top.take("tensors", _list_of(_tensor, limits.MAX_TENSORS)),
        options=top.take("options", _object),
        source_sha256=top.take_optional("source", _source),
        report=top.take_optional("report", _object),
        selfcheck=top.take_optional("selfcheck", _selfcheck),
    )
    top.close()
    return manifest


Check = Callable[[Any, str], T]
"""Converts a JSON value or raises FormatError; the second argument says where the value stands."""


class _Fields:
    """The fields of a JSON object; each is taken once, and none may be left."""

    def __init__(self, value: Any, where: str) -> None:
        self._value = _object(value, where)
        self._left = set(value)
        self._where = where

    def take(self, name: str, check: Check[T]) -> T:
        if name not in self._left:
            raise FormatError(f"{self._where} has no field {name!r}")
        self._left.discard(name)
        return check(self._value[name], f"{self._where}, {name!r}")

    def take_optional(self, name: str, check: Check[T]) -> T | None:
        return self.take(name, check) if name in self._left else None

    def close(self) -> None:
        if self._left:
            raise FormatError(f"{self._where} has an unknown field {min(self._left)!r}")


def _any(value: Any, where: str) -> Any:
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) > limits.MAX_NAME_LENGTH:
        raise FormatError(f"{where} is not a string of at most {limits.MAX_NAME_LENGTH} characters")
    return value


def _name(value: Any, where: str) -> str:
    if value == "":
        raise FormatError(f"{where} is empty")
    return _text(value, where)


def _one_of(allowed: tuple[str, ...]) -> Check[str]:
    def check(value: Any, where: str) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise FormatError(f"{where} is {value!r}, none of {', '.join(allowed)}")
        return value

    return check


def _integer(least: int, most: int = limits.MAX_INTEGER) -> Check[int]:
    def check(value: Any, where: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise FormatError(f"{where} is {_shown(value)}, not an integer from {least} to {most}")
        return value

    return check


def _number(value: Any, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > _MAX_FLOAT:
        raise FormatError(f"{where} is {_shown(value)}, not a number")
    return value


_MAX_FLOAT: Final = 1.7976931348623157e308


def _list_of(check: Check[T], most: int, least: int = 0) -> Check[tuple[T, ...]]:
    def check_list(value: Any, where: str) -> tuple[T, ...]:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise FormatError(f"{where} is not a list of {least} to {most} entries")
        return tuple(check(item, f"{where}[{index}]") for index, item in enumerate(value))

    return check_list


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"{where} is not an object")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


_dtype = _one_of(DTYPES)
_sizes = _list_of(_integer(0, limits.MAX_ELEMENTS), limits.MAX_RANK)
_names = _list_of(_name, limits.MAX_PORTS)


def _dim(value: Any, where: str) -> Dim:
    if isinstance(value, str):
        if not _SYMBOL.fullmatch(value):
            raise FormatError(f"{where} is {_shown(value)}, not the name of a size")
        return symbol(value)
    return _integer(1, limits.MAX_ELEMENTS)(value, where)


def _input(value: Any, where: str) -> Input:
    fields = _Fields(value, where)
    name = fields.take("name", _name)
    type_ = TensorType(fields.take("dtype", _dtype), fields.take("shape", _list_of(_dim, limits.MAX_RANK, least=1)))
    fields.close()
    return Input(name, type_)


def _output(value: Any, where: str) -> Port:
    fields = _Fields(value, where)
    port = Port(fields.take("name", _name), fields.take("value", _name))
    fields.close()
    return port


def _node(value: Any, where: str) -> Node:
    fields = _Fields(value, where)
    node = Node(
        op=fields.take("op", _name),
        name=fields.take("name", _name),
        layer=fields.take("layer", _text),
        # An optional input that is not given has the empty name.
        inputs=fields.take("inputs", _list_of(_text, limits.MAX_PORTS)),
        outputs=fields.take("outputs", _names),
        attrs=fields.take("attributes", _attributes),
    )
    fields.close()
    return node


def _attributes(value: Any, where: str) -> Attrs:
    return {name: _attribute(item, f"{where}, {name!r}") for name, item in _object(value, where).items()}


def _attribute(value: Any, where: str) -> AttrValue:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, int | float):
        return _number(value, where)
    return _list_of(_integer(-limits.MAX_INTEGER), limits.MAX_PORTS)(value, where)


def _tensor(value: Any, where: str) -> TensorEntry:
    fields = _Fields(value, where)
    tensor = TensorEntry(
        name=fields.take("name", _name),
        dtype=fields.take("dtype", _dtype),
        shape=fields.take("shape", _sizes),
        rows=fields.take("rows", _list_of(_integer(0, limits.MAX_RANK - 1), limits.MAX_RANK)),
        positions=fields.take("positions", _name),
        values=fields.take("values", _name),
        parts=fields.take("parts", _parts),
    )
    fields.close()
    return tensor


def _parts(value: Any, where: str) -> dict[str, Part]:
    return {name: _part(item, f"{where}, {name!r}") for name, item in _object(value, where).items()}


def _part(value: Any, where: str) -> Part:
    if not isinstance(value, list) or len(value) != 3:
        raise FormatError(f"{where} is not a list of member, offset and count")
    member, offset, count = value
    if not isinstance(member, str) or not _MEMBER.fullmatch(member):
        raise FormatError(f"{where} is in {_shown(member)}, which is not the name of a .npy member")
    size = _integer(0, limits.MAX_INTEGER)
    return Part(member, size(offset, where), _integer(0, limits.MAX_ELEMENTS)(count, where))


def _source(value: Any, where: str) -> str:
    fields = _Fields(value, where)
    digest = fields.take("sha256", _text)
    fields.close()
    if not _SHA256.fullmatch(digest):
        raise FormatError(f"{where} is not a SHA-256 in lower-case hexadecimal")
    return digest


def _selfcheck(value: Any, where: str) -> SelfCheck:
    fields = _Fields(value, where)
    selfcheck = SelfCheck(
        seed=fields.take("seed", _integer(0)),
        tolerance=fields.take("tolerance", _not_negative),
        inputs=fields.take("inputs", _list_of(_sample, limits.MAX_PORTS)),
        outputs=fields.take("outputs", _list_of(_expected, limits.MAX_PORTS)),
    )
    fields.close()
    return selfcheck


def _not_negative(value: Any, where: str) -> float:
    if _number(value, where) < 0:
        raise FormatError(f"{where} is negative")
    return float(value)


def _sample(value: Any, where: str) -> InputSample:
    fields = _Fields(value, where)
    sample = InputSample(
        dtype=fields.take("dtype", _dtype),
        shape=fields.take("shape", _sizes),
        low=fields.take("low", _number),
        high=fields.take("high", _number),
    )
    fields.close()
    return sample


def _expected(value: Any, where: str) -> ExpectedOutput:
    fields = _Fields(value, where)
    expected = ExpectedOutput(
        shape=fields.take("shape", _sizes),
        scale=fields.take("scale", _not_negative),
        values=fields.take("values", _list_of(_number, limits.MAX_SELFCHECK_VALUES)),
    )
    fields.close()
    return expected
