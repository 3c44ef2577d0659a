"""The zip container (PKWARE APPNOTE 6.3.3), as far as bundles use it.

Reading trusts nothing: names, sizes, offsets and checksums are checked before and while data is read. Writing fixes
everything that is free, such as times, so that equal contents give equal bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import pairwise
from typing import Any, BinaryIO, Final, NamedTuple

from sparsec.bundle.limits import MAX_DEFLATE_RATIO, MAX_DIRECTORY_BYTES, MAX_FILE_BYTES, MAX_MEMBERS, most_bytes
from sparsec.encodings.deflate import Strategy, compress
from sparsec.errors import FormatError, InputError

STORED: Final = 0
DEFLATED: Final = 8

_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_LOCAL_MAGIC: Final = b"PK\x03\x04"
_CENTRAL_MAGIC: Final = b"PK\x01\x02"
_END_MAGIC: Final = b"PK\x05\x06"
_ENCRYPTED_OR_PATCHED: Final = 0x2061
"""Flag bits: encryption, patched data, strong encryption, masked headers."""

_VERSION: Final = 20
_UNIX: Final = 3 << 8
_MIDNIGHT_1980: Final = (0, 0x21)
_READABLE_FILE: Final = 0o100644 << 16
_ALIGNMENT_FIELD: Final = 0xD935
"""Identifies the extra field that holds an alignment and padding."""

_BLOCK_BYTES: Final = 1 << 18


class Entry(NamedTuple):
    """A member of an archive: its name, how it is compressed, and where its bytes are."""

    name: str
    method: int
    crc: int
    packed: int
    size: int
    start: int


def read_directory(file: BinaryIO) -> dict[str, Entry]:
    """The members of an archive by name.

    Args:
        file: seekable.

    Raises:
        FormatError: the file is no zip, uses a feature that bundles do not, its members overlap, or a limit is broken.
    """
    size = file.seek(0, 2)
    if size > MAX_FILE_BYTES:
        raise FormatError(f"the file has {size} bytes, {MAX_FILE_BYTES} are the most")
    count, directory, directory_start = _find_directory(file, size)
    entries: dict[str, Entry] = {}
    spans: list[tuple[int, int]] = []
    at = 0
    for _ in range(count):
        header, at = _unpack(_CENTRAL, directory, at)
        magic, _, _, flags, method, _, _, crc, packed, unpacked, *lengths, _, _, _, local = header
        name_length, extra_length, comment_length = lengths
        if magic != _CENTRAL_MAGIC or at + sum(lengths) > len(directory):
            raise FormatError("the directory of the zip is damaged")
        name = _name(directory[at : at + name_length])
        at += name_length + extra_length + comment_length
        if name in entries:
            raise FormatError(f"member {name!r} stands twice in the zip")
        if flags & _ENCRYPTED_OR_PATCHED or method not in (STORED, DEFLATED):
            raise FormatError(f"member {name!r} is encrypted or uses compression method {method}; only 0 and 8 are read")
        if (method == STORED and packed != unpacked) or unpacked > MAX_DEFLATE_RATIO * packed + _BLOCK_BYTES:
            raise FormatError(f"member {name!r} claims to hold {unpacked} bytes in {packed}")
        start = _data_start(file, name, method, local, directory_start)
        if start + packed > directory_start:
            raise FormatError(f"member {name!r} is cut off")
        entries[name] = Entry(name, method, crc, packed, unpacked, start)
        spans.append((local, start + packed))
    spans.sort()
    if any(begin < end for (_, end), (begin, _) in pairwise(spans)):
        raise FormatError("members of the zip overlap")
    if sum(entry.size for entry in entries.values()) > most_bytes(size):
        raise FormatError(f"the members claim to hold more than the {most_bytes(size)} bytes that {size} bytes may")
    return entries


def _find_directory(file: BinaryIO, size: int) -> tuple[int, bytes, int]:
    tail_start = max(size - _END.size - 0xFFFF, 0)
    file.seek(tail_start)
    tail = file.read(size - tail_start)
    at = tail.rfind(_END_MAGIC)
    if at < 0 or at + _END.size > len(tail):
        raise FormatError("it is not a zip, or its end is missing")
    _, disk, first_disk, here, count, length, start, comment = _END.unpack_from(tail, at)
    if disk or first_disk or here != count or at + _END.size + comment != len(tail):
        raise FormatError("the end of the zip is damaged")
    if count > MAX_MEMBERS:
        raise FormatError(f"the zip has {count} members, {MAX_MEMBERS} are the most")
    if start + length > tail_start + at or length > MAX_DIRECTORY_BYTES:
        raise FormatError("the directory of the zip lies outside of the file or is too long")
    file.seek(start)
    return count, file.read(length), start


def _unpack(layout: struct.Struct, data: bytes, at: int) -> tuple[tuple[Any, ...], int]:
    if at + layout.size > len(data):
        raise FormatError("the directory of the zip is cut off")
    return layout.unpack_from(data, at), at + layout.size


def _name(raw: bytes) -> str:
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        raise FormatError("a member of the zip has a name that is not ASCII") from None


def _data_start(file: BinaryIO, name: str, method: int, at: int, limit: int) -> int:
    if at + _LOCAL.size > limit:
        raise FormatError(f"member {name!r} lies outside of the file")
    file.seek(at)
    magic, _, _, local_method, _, _, _, _, _, name_length, extra_length = _LOCAL.unpack(file.read(_LOCAL.size))
    if magic != _LOCAL_MAGIC or local_method != method or file.read(name_length) != name.encode():
        raise FormatError(f"the header of member {name!r} contradicts the directory of the zip")
    return at + _LOCAL.size + int(name_length) + int(extra_length)


class MemberReader:
    """Reads a member from front to back; :meth:`finish` checks that nothing is left and that the checksum holds."""

    def __init__(self, file: BinaryIO, entry: Entry) -> None:
        self._file = file
        self._entry = entry
        self._at = entry.start
        self._left = entry.packed
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS) if entry.method == DEFLATED else None
        self._crc = 0

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes.

        Raises:
            FormatError: there are fewer, or they cannot be inflated.
        """
        data = bytearray(count)
        self.read_into(memoryview(data))
        return bytes(data)

    def read_into(self, target: memoryview) -> None:
        """Fill ``target``, which is flat and of bytes, with the next bytes.

        Raises:
            FormatError: there are fewer, or they cannot be inflated.
        """
        done = 0
        while done < len(target):
            got = self._some(target[done:])
            if not got:
                raise FormatError(f"member {self._entry.name!r} is shorter than it claims to be")
            done += got
        self._crc = zlib.crc32(target, self._crc)

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes.

        Raises:
            FormatError: there are fewer, or they cannot be inflated.
        """
        scratch = memoryview(bytearray(min(count, _BLOCK_BYTES)))
        while count:
            part = scratch[: min(count, len(scratch))]
            self.read_into(part)
            count -= len(part)

    def finish(self) -> None:
        """Check the end of the member.

        Raises:
            FormatError: bytes are left, or the checksum is wrong.
        """
        if self._some(memoryview(bytearray(1))):
            raise FormatError(f"member {self._entry.name!r} is longer than it claims to be")
        if self._inflater is not None and (not self._inflater.eof or self._inflater.unused_data or self._left):
            raise FormatError(f"the compressed data of member {self._entry.name!r} does not end where it should")
        if self._crc != self._entry.crc:
            raise FormatError(f"the checksum of member {self._entry.name!r} is wrong")

    def _some(self, target: memoryview) -> int:
        if self._inflater is None:
            part = target[: min(len(target), self._left)]
            self._file.seek(self._at)
            got = self._file.readinto(part)  # type: ignore[attr-defined]
            self._at += got
            self._left -= got
            return int(got)
        while not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._packed()
            try:
                data = self._inflater.decompress(packed, min(len(target), _BLOCK_BYTES))
            except zlib.error as error:
                raise FormatError(f"member {self._entry.name!r} cannot be inflated: {error}") from None
            if data:
                target[: len(data)] = data
                return len(data)
            if not packed:
                break
        return 0

    def _packed(self) -> bytes:
        self._file.seek(self._at)
        data = self._file.read(min(_BLOCK_BYTES, self._left))
        self._at += len(data)
        self._left -= len(data)
        return data


Block = tuple[bytes | memoryview, Strategy]
"""Bytes of a deflated member and how they are compressed; each block is compressed by itself."""


class ArchiveWriter:
    """Writes an archive to a seekable file, member by member.

    Raises:
        InputError: at any step, the archive grows beyond what offsets of 32 bits reach.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._directory: list[bytes] = []

    def add_stored(self, name: str, chunks: Iterable[bytes | memoryview], alignment: int) -> None:
        """Add a member that is not compressed and whose bytes begin on a multiple of ``alignment``."""
        begin = self._file.tell() + _LOCAL.size + len(name)
        # The extra field has four bytes of its own header and two for the alignment.
        padding = -(begin + 6) % alignment
        extra = struct.pack("<3H", _ALIGNMENT_FIELD, 2 + padding, alignment) + bytes(padding)
        self._add(name, STORED, extra, ((chunk, chunk) for chunk in chunks))

    def add_deflated(self, name: str, blocks: Iterable[Block], executor: Executor) -> None:
        """Add a member of one or more blocks, which are compressed by the threads of ``executor``."""

        def work(block: Block, last: bool) -> Callable[[], bytes]:
            return lambda: compress(*block, last=last)

        self._add(name, DEFLATED, b"", _ahead(blocks, work, executor))

    def _add(
        self, name: str, method: int, extra: bytes, chunks: Iterable[tuple[bytes | memoryview, bytes | memoryview]]
    ) -> None:
        local = self._file.tell()
        header = _LOCAL.size + len(name) + len(extra)
        self._file.write(bytes(header))
        crc = size = packed = 0
        for raw, written in chunks:
            crc = zlib.crc32(raw, crc)
            size += len(raw)
            packed += len(written)
            if max(size, local + header + packed) > MAX_FILE_BYTES:
                raise InputError(f"the bundle grows beyond {MAX_FILE_BYTES} bytes, which is the most that its format holds")
            self._file.write(written)
        end = self._file.tell()
        common = (0, method, *_MIDNIGHT_1980, crc, packed, size, len(name))
        self._file.seek(local)
        self._file.write(_LOCAL.pack(_LOCAL_MAGIC, _VERSION, *common, len(extra)) + name.encode("ascii") + extra)
        self._file.seek(end)
        central = _CENTRAL.pack(_CENTRAL_MAGIC, _UNIX | _VERSION, _VERSION, *common, 0, 0, 0, 0, _READABLE_FILE, local)
        self._directory.append(central + name.encode("ascii"))

    def close(self) -> None:
        """Write the directory."""
        start = self._file.tell()
        directory = b"".join(self._directory)
        count = len(self._directory)
        self._file.write(directory + _END.pack(_END_MAGIC, 0, 0, count, count, len(directory), start, 0))


def _ahead(
    blocks: Iterable[Block], work: Callable[[Block, bool], Callable[[], bytes]], executor: Executor, ahead: int = 16
) -> Iterator[tuple[bytes | memoryview, bytes]]:
    """Each block with its compressed bytes, in order; a bounded number of blocks is in work at a time."""
    waiting: deque[tuple[bytes | memoryview, Future[bytes]]] = deque()
    for block, last in _mark_last(blocks):
        waiting.append((block[0], executor.submit(work(block, last))))
        if len(waiting) == ahead:
            raw, future = waiting.popleft()
            yield raw, future.result()
    for raw, future in waiting:
        yield raw, future.result()


def _mark_last(blocks: Iterable[Block]) -> Iterator[tuple[Block, bool]]:
    iterator = iter(blocks)
    current = next(iterator)
    for following in iterator:
        yield current, False
        current = following
    yield current, True
