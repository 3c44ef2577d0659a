"""Reading bundles. Everything that is used is checked, and every way to fail is a FormatError that says where."""

from __future__ import annotations

import io
import mmap as memory_map
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import numpy as np

from sparsec.bundle import limits, manifest, npy
from sparsec.bundle.archive import STORED, Entry, MemberReader, read_directory
from sparsec.bundle.json_text import parse
from sparsec.bundle.manifest import Manifest, Part, TensorEntry
from sparsec.bundle.meta import Bundle, BundleMeta
from sparsec.bundle.selfcheck import SelfCheck, valid_range
from sparsec.encodings import StoredTensor, check_stored
from sparsec.errors import FormatError, GraphError, InputError
from sparsec.ir import Array, Node
from sparsec.ops import check, get_op
from sparsec.program import Program

MANIFEST: Final = "manifest.json"


def read_bundle(source: str | os.PathLike[str] | bytes | BinaryIO, *, mmap: bool = False) -> Bundle:
    """Read a bundle.

    Args:
        source: a path, the bytes of a bundle, or a binary file, which is read from where it stands to its end.
        mmap: map arrays that are not compressed into memory instead of reading them; for paths. Their checksums are not
            verified, and the file must not change while the bundle is in use.

    Raises:
        FormatError: it is not a bundle, is damaged, or breaks a limit.
        InputError: it cannot be opened, it is nothing of the kind, or ``mmap`` is asked for something that is not a path.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        try:
            with path.open("rb") as file:
                return _read(file, str(path), mmap)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    if mmap:
        raise InputError("only a bundle that is given by its path can be mapped into memory")
    data = source.read() if hasattr(source, "read") else source
    if not isinstance(data, bytes | bytearray | memoryview):
        found = f"{type(source).__name__}, which reads as {type(data).__name__}" if data is not source else type(data).__name__
        raise InputError(f"a bundle is a path, bytes, or a file opened with mode 'rb', not {found}")
    return _read(io.BytesIO(data), "the bundle", mmap)


def _read(file: BinaryIO, label: str, mmap: bool) -> Bundle:
    try:
        contents = open_contents(file)
        arrays: list[dict[str, Array]] = [{} for _ in contents.manifest.tensors]
        for index, name, array in load_parts(file, contents, mmap):
            arrays[index][name] = array
        tensors = {}
        for entry, parts in zip(contents.manifest.tensors, arrays, strict=True):
            tensors[entry.name] = _stored(entry, {name: parts[name] for name in entry.parts})
            try:
                check_stored(tensors[entry.name])
            except FormatError as error:
                raise FormatError(f"tensor {entry.name!r}: {error}") from None
    except FormatError as error:
        raise FormatError(f"{label} is not a bundle that can be used: {error}; make it again with 'sparsec compile'") from None
    told = contents.manifest
    return Bundle(
        Program(told.inputs, told.outputs, told.nodes, tensors, told.name),
        BundleMeta(told.level, told.sparsec_version, told.source_sha256, told.options, told.report, told.selfcheck),
    )


class Contents(NamedTuple):
    """A bundle that was opened and checked, but for its arrays.

    Attributes:
        manifest: with completed attributes.
        members: the members that hold arrays, by name.
        headers: how many bytes of each member come before its elements.
        dtypes: of each member.
    """

    manifest: Manifest
    members: Mapping[str, Entry]
    headers: Mapping[str, int]
    dtypes: Mapping[str, str]


def open_contents(file: BinaryIO) -> Contents:
    """Open a bundle and check everything but the contents of its arrays.

    Raises:
        FormatError: something is wrong.
    """
    members = read_directory(file)
    if MANIFEST not in members:
        raise FormatError(f"the zip has no member {MANIFEST!r}")
    told = manifest.from_json(parse(_read_manifest(file, members.pop(MANIFEST))))
    told = replace(told, nodes=tuple(_checked_node(node) for node in told.nodes))
    headers: dict[str, int] = {}
    dtypes: dict[str, str] = {}
    counts: dict[str, int] = {}
    for name, entry in members.items():
        try:
            headers[name], dtypes[name], counts[name] = _read_header(file, entry)
        except FormatError as error:
            raise FormatError(f"member {name!r}: {error}") from None
    _check_tensors(told, dtypes, counts, file.seek(0, 2))
    _check_graph(told)
    if told.selfcheck is not None:
        _check_selfcheck(told, told.selfcheck)
    return Contents(told, members, headers, dtypes)


def _read_manifest(file: BinaryIO, entry: Entry) -> bytes:
    if entry.size > limits.MAX_MANIFEST_BYTES:
        raise FormatError(f"the manifest has {entry.size} bytes, {limits.MAX_MANIFEST_BYTES} are the most")
    reader = MemberReader(file, entry)
    data = reader.read(entry.size)
    reader.finish()
    return data


def _checked_node(node: Node) -> Node:
    try:
        op = get_op(node.op)
        missing = sorted(op.attributes.keys() - node.attrs.keys())
        if missing:
            raise GraphError(f"operator {node.op!r} needs attribute {missing[0]!r}")
        if any(isinstance(value, int) and abs(value) > limits.MAX_INTEGER for value in node.attrs.values()):
            raise GraphError(f"an attribute is beyond {limits.MAX_INTEGER}")
        return replace(node, attrs=op.complete(node.attrs))
    except GraphError as error:
        raise FormatError(f"node {node.name!r}: {error}; a newer version of sparsec may know it") from None


def _read_header(file: BinaryIO, entry: Entry) -> tuple[int, str, int]:
    reader = MemberReader(file, entry)
    length = npy.text_length(reader.read(npy.PREFIX_BYTES))
    dtype, count = npy.parse_text(reader.read(length))
    header = npy.PREFIX_BYTES + length
    if entry.size != header + count * np.dtype(dtype).itemsize:
        raise FormatError(f"it has {entry.size} bytes, which is not what {count} elements of {dtype} take")
    return header, dtype, count


def _check_tensors(told: Manifest, dtypes: Mapping[str, str], counts: Mapping[str, int], file_size: int) -> None:
    decoded = 0
    spans: dict[str, list[tuple[int, int]]] = {}
    names: set[str] = set()
    for entry in told.tensors:
        if entry.name in names:
            raise FormatError(f"tensor {entry.name!r} stands twice in the manifest")
        names.add(entry.name)
        # A size of 0 hides how large the others are.
        size = prod(max(extent, 1) for extent in entry.shape)
        if size > limits.MAX_ELEMENTS:
            raise FormatError(f"tensor {entry.name!r} of shape {entry.shape} has more than {limits.MAX_ELEMENTS} elements")
        decoded += size * np.dtype(entry.dtype).itemsize
        for name, part in entry.parts.items():
            where = f"tensor {entry.name!r}, part {name!r}"
            if part.member not in counts:
                raise FormatError(f"{where} lies in member {part.member!r}, which the zip does not have")
            if part.offset + part.count > counts[part.member]:
                raise FormatError(f"{where} ends at element {part.offset + part.count} of {counts[part.member]}")
            spans.setdefault(part.member, []).append((part.offset, part.offset + part.count))
    for member, found in spans.items():
        found.sort()
        if any(begin < end for (_, end), (begin, _) in pairwise(found)):
            raise FormatError(f"parts of tensors overlap in member {member!r}")
    if decoded > limits.most_bytes(file_size):
        raise FormatError(f"the tensors take {decoded} bytes decoded, which is too much for a file of {file_size} bytes")


def _check_graph(told: Manifest) -> None:
    tensors = {entry.name: _stored(entry, {}) for entry in told.tensors}
    graph = Program(told.inputs, told.outputs, told.nodes, tensors, told.name).skeleton()
    try:
        types = check(graph, "reading")
    except (GraphError, InputError) as error:
        raise FormatError(str(error)) from None
    except RecursionError:
        raise FormatError("the symbolic sizes of the graph are nested too deeply") from None
    for value, type_ in types.items():
        if type_.rank > limits.MAX_RANK:
            raise FormatError(f"value {value!r} has {type_.rank} axes, {limits.MAX_RANK} are the most")


def _check_selfcheck(told: Manifest, selfcheck: SelfCheck) -> None:
    if len(selfcheck.inputs) != len(told.inputs) or len(selfcheck.outputs) > len(told.outputs):
        raise FormatError("the self-check does not fit the inputs and outputs of the model")
    for sample, declared in zip(selfcheck.inputs, told.inputs, strict=True):
        fixed = [(a, b) for a, b in zip(sample.shape, declared.type.shape, strict=False) if isinstance(b, int)]
        if (
            sample.dtype != declared.type.dtype
            or len(sample.shape) != declared.type.rank
            or any(a != b for a, b in fixed)
            or not valid_range(sample.dtype, sample.low, sample.high)
        ):
            raise FormatError(f"the self-check does not fit input {declared.name!r}")
    if sum(prod(sample.shape) for sample in selfcheck.inputs) > limits.MAX_SELFCHECK_ELEMENTS:
        raise FormatError(f"the inputs of the self-check have more than {limits.MAX_SELFCHECK_ELEMENTS} elements")
    for expected in selfcheck.outputs:
        if not len(expected.values) <= prod(expected.shape) <= limits.MAX_SELFCHECK_ELEMENTS:
            raise FormatError(f"the self-check expects {len(expected.values)} values of an output {expected.shape}")


def _stored(entry: TensorEntry, arrays: Mapping[str, Array]) -> StoredTensor:
    return StoredTensor(entry.shape, entry.dtype, entry.rows, entry.positions, entry.values, arrays)


def load_parts(file: BinaryIO, contents: Contents, mmap: bool = False) -> Iterator[tuple[int, str, Array]]:
    """The parts of all tensors, in the order in which they lie in the file, one at a time.

    Args:
        file: the file that ``contents`` were read from.
        contents: what it holds.
        mmap: map members that are not compressed.

    Yields:
        the index of the tensor in the manifest, the name of the part, and its array.

    Raises:
        FormatError: a member is damaged.
    """
    wanted: dict[str, list[tuple[Part, int, str]]] = {name: [] for name in contents.members}
    for index, tensor in enumerate(contents.manifest.tensors):
        for name, part in tensor.parts.items():
            wanted[part.member].append((part, index, name))
    mapped = None
    for member, entry in contents.members.items():
        parts = sorted(wanted[member], key=lambda item: (item[0].offset, item[0].count))
        dtype = np.dtype(contents.dtypes[member]).newbyteorder("<")
        begin = contents.headers[member]
        if mmap and entry.method == STORED and (entry.start + begin) % dtype.itemsize == 0:
            mapped = mapped or memory_map.mmap(file.fileno(), 0, access=memory_map.ACCESS_READ)
            for part, index, name in parts:
                offset = entry.start + begin + part.offset * dtype.itemsize
                yield (
                    index,
                    name,
                    _native(np.frombuffer(mapped, dtype, part.count, offset) if part.count else np.empty(0, dtype)),
                )
            continue
        reader = MemberReader(file, entry)
        reader.skip(begin)
        at = 0
        for part, index, name in parts:
            reader.skip((part.offset - at) * dtype.itemsize)
            array = np.empty(part.count, dtype)
            reader.read_into(array.view(np.uint8).data)
            array.flags.writeable = False
            yield index, name, _native(array)
            at = part.offset + part.count
        reader.skip(entry.size - begin - at * dtype.itemsize)
        reader.finish()


def _native(array: Array) -> Array:
    return array.astype(array.dtype.newbyteorder("="), copy=False)
