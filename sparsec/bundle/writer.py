"""Writing bundles: a temporary file, read back and compared, then put in place."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import numpy as np

from sparsec import __version__
from sparsec.bundle import npy
from sparsec.bundle.archive import ArchiveWriter, Block
from sparsec.bundle.json_text import compact
from sparsec.bundle.limits import MAX_MANIFEST_BYTES
from sparsec.bundle.manifest import Manifest, Part, TensorEntry, to_json
from sparsec.bundle.meta import BundleMeta
from sparsec.bundle.reader import MANIFEST, load_parts, open_contents
from sparsec.encodings import LEVELS, check_stored
from sparsec.encodings.choice import ALIGNMENT
from sparsec.encodings.deflate import Strategy, plan
from sparsec.errors import FormatError, InputError
from sparsec.files import replacing
from sparsec.ir import Array, Input
from sparsec.program import Program

BLOCK_BYTES: Final = 1 << 20
"""A deflated member is compressed in blocks of this size, on several threads."""

SMALL_BYTES: Final = 4096
"""Incompressible parts of one dtype that are smaller together lie in the deflated member: a member has overheads too."""

MAX_THREADS: Final = 8


def write_bundle(
    target: str | os.PathLike[str] | BinaryIO,
    program: Program,
    *,
    level: str = "plain",
    meta: BundleMeta | None = None,
) -> int:
    """Write a bundle, read it back, compare, and only then put it in place.

    Args:
        target: a path, or a binary file to write to.
        program: the program.
        level: one of :data:`sparsec.encodings.LEVELS`: ``stored`` can be mapped into memory, ``plain`` is smaller.
        meta: what the bundle says beside the program; its level and version are set here.

    Returns:
        the bytes of the bundle.

    Raises:
        InputError: the target cannot be written, or the program or ``meta`` cannot be expressed in a bundle.
    """
    if level not in LEVELS:
        raise InputError(f"there is no level {level!r}; use one of {', '.join(LEVELS)}")
    if isinstance(target, str | os.PathLike):
        with replacing(Path(target)) as temporary, temporary.open("x+b") as file:
            _write(file, program, level, meta or BundleMeta())
            return file.seek(0, 2)
    with tempfile.TemporaryFile() as file:
        _write(file, program, level, meta or BundleMeta())
        size = file.seek(0, 2)
        file.seek(0)
        shutil.copyfileobj(file, target)
        return size


def _write(file: BinaryIO, program: Program, level: str, meta: BundleMeta) -> None:
    for name, stored in program.tensors.items():
        try:
            check_stored(stored)
        except FormatError as error:
            raise InputError(f"tensor {name!r} cannot be written: {error}") from None
    with ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_THREADS)) as executor:
        members, tensors = _lay_out(program, level, executor)
        text = _manifest_text(program, tensors, level, meta)
        archive = ArchiveWriter(file)
        archive.add_deflated(MANIFEST, [(text, Strategy.LZ77)], executor)
        for member in members:
            if member.deflated:
                archive.add_deflated(member.name, _blocks(member), executor)
            else:
                archive.add_stored(member.name, _chunks(member), ALIGNMENT)
        archive.close()
    _verify(file, program)


class _Placed(NamedTuple):
    """A part of a tensor on its way into a member."""

    tensor: int
    part: str
    array: Array
    strategy: Strategy


class _Member(NamedTuple):
    name: str
    dtype: str
    deflated: bool
    placed: Sequence[_Placed]
    offsets: Sequence[int]
    size: int


def _lay_out(program: Program, level: str, executor: Executor) -> tuple[list[_Member], list[TensorEntry]]:
    parts = [
        (index, name, array) for index, stored in enumerate(program.tensors.values()) for name, array in stored.arrays.items()
    ]
    if level == "stored":
        strategies = [Strategy.STORE for _ in parts]
    else:
        strategies = [found.strategy for found in executor.map(lambda item: plan(item[2]), parts)]
    groups: dict[tuple[str, bool], list[_Placed]] = {}
    for (index, name, array), strategy in zip(parts, strategies, strict=True):
        key = (array.dtype.name, strategy is not Strategy.STORE)
        groups.setdefault(key, []).append(_Placed(index, name, array, strategy))
    for dtype, deflated in list(groups):
        stored = groups.get((dtype, False), [])
        if deflated and sum(placed.array.nbytes for placed in stored) < SMALL_BYTES:
            groups.pop((dtype, False), None)
            groups[dtype, True] += [placed._replace(strategy=Strategy.HUFFMAN) for placed in stored]
    members = [_member(dtype, deflated, groups[dtype, deflated], level) for dtype, deflated in sorted(groups)]
    where = {
        (placed.tensor, placed.part): Part(member.name, offset, len(placed.array))
        for member in members
        for placed, offset in zip(member.placed, member.offsets, strict=True)
    }
    tensors = [
        TensorEntry(
            path,
            stored.dtype,
            stored.shape,
            stored.rows,
            stored.positions,
            stored.values,
            {name: where[index, name] for name in stored.arrays},
        )
        for index, (path, stored) in enumerate(program.tensors.items())
    ]
    return members, tensors


def _member(dtype: str, deflated: bool, placed: list[_Placed], level: str) -> _Member:
    if deflated:
        # Parts of one kind have similar statistics, and so share Huffman tables.
        placed = sorted(placed, key=lambda item: (item.strategy.value, item.part, item.tensor))
    step = ALIGNMENT // np.dtype(dtype).itemsize if level == "stored" else 1
    offsets = []
    end = 0
    for item in placed:
        offsets.append(-(-end // step) * step)
        end = offsets[-1] + len(item.array)
    return _Member(f"{dtype}.deflated.npy" if deflated else f"{dtype}.npy", dtype, deflated, placed, offsets, end)


def _chunks(member: _Member) -> Iterator[bytes | memoryview]:
    """The bytes of a member: header, parts, and zeros between parts."""
    yield npy.header(member.dtype, member.size)
    at = 0
    for placed, offset in zip(member.placed, member.offsets, strict=True):
        if offset > at:
            yield bytes((offset - at) * placed.array.itemsize)
        yield _bytes(placed.array)
        at = offset + len(placed.array)


def _blocks(member: _Member) -> Iterator[Block]:
    """The bytes of a deflated member in blocks of one strategy each."""
    pending = bytearray(npy.header(member.dtype, member.size))
    for strategy, run in groupby(member.placed, key=lambda placed: placed.strategy):
        for placed in run:
            data = _bytes(placed.array)
            while data:
                room = BLOCK_BYTES - len(pending)
                pending += data[:room]
                data = data[room:]
                if len(pending) == BLOCK_BYTES:
                    yield bytes(pending), strategy
                    pending.clear()
        if pending:
            yield bytes(pending), strategy
            pending.clear()


def _bytes(array: Array) -> memoryview:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return little.view(np.uint8).data


def _manifest_text(program: Program, tensors: Sequence[TensorEntry], level: str, meta: BundleMeta) -> bytes:
    for entry in program.inputs:
        _expect_plain_shape(entry)
    manifest = Manifest(
        level,
        __version__,
        program.name,
        program.inputs,
        program.outputs,
        program.nodes,
        tuple(tensors),
        meta.source_sha256,
        meta.options,
        meta.report,
        meta.selfcheck,
    )
    try:
        text = compact(to_json(manifest)).encode("ascii")
    except (TypeError, ValueError) as error:
        raise InputError(f"the options, the report or an attribute of the graph cannot be written as JSON: {error}") from None
    if len(text) > MAX_MANIFEST_BYTES:
        raise InputError(f"the manifest has {len(text)} bytes, {MAX_MANIFEST_BYTES} are the most; shorten the report")
    return text


def _expect_plain_shape(entry: Input) -> None:
    for dim in entry.type.shape:
        if not isinstance(dim, int) and not str(dim).isidentifier():
            raise InputError(f"input {entry.name!r} has size {dim}; a bundle holds numbers and single names")


def _verify(file: BinaryIO, program: Program) -> None:
    """Read a written bundle back and compare every part with the program's.

    Raises:
        InputError: what was written breaks a limit of the format.
    """
    try:
        contents = open_contents(file)
        stored = list(program.tensors.values())
        for index, name, array in load_parts(file, contents):
            if not np.array_equal(_bytes(array), _bytes(stored[index].arrays[name])):
                raise FormatError(f"part {name!r} of tensor {contents.manifest.tensors[index].name!r} reads back differently")
        told = contents.manifest
        if (told.inputs, told.outputs, told.nodes) != (program.inputs, program.outputs, program.nodes):
            raise FormatError("the graph reads back differently")
    except FormatError as error:
        raise InputError(f"the bundle cannot be written: {error}") from None
