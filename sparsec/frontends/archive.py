"""Rewriting Keras files: members of an archive take other contents, and all else stays byte for byte."""

from __future__ import annotations

import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from typing import IO

from sparsec.errors import FormatError, InputError

ARCHIVE_SUFFIXES, HDF5_SUFFIXES = (".keras",), (".h5", ".hdf5")

COPY_BYTES = 1 << 22

FileEdit = Callable[[Path], None]
"""Changes a file in place."""


def check_same_kind(source: Path, target: Path, archive: bool) -> None:
    """Check that ``target`` bears a suffix of the kind of file that ``source`` is.

    Raises:
        InputError: it does not.
    """
    suffixes, kind = (ARCHIVE_SUFFIXES, "a Keras archive") if archive else (HDF5_SUFFIXES, "an HDF5 file")
    # A file that bears the suffix of the other kind, as Keras 2.12 wrote them, may keep it.
    if target.suffix.lower() not in (*suffixes, source.suffix.lower()):
        raise InputError(f"{source} is {kind}, so what is written must end in {' or '.join(suffixes)}, not {target.suffix!r}")


def rewrite_archive(source: Path, target: Path, edits: Mapping[str, FileEdit]) -> None:
    """Copy an archive member by member, in order; those named in ``edits`` are unpacked, changed and packed again.

    Raises:
        FormatError: a member cannot be unpacked.
    """
    with (
        tempfile.TemporaryDirectory(prefix="sparsec-") as folder,
        zipfile.ZipFile(source) as archive,
        zipfile.ZipFile(target, "w") as result,
    ):
        result.comment = archive.comment
        unpacked = Path(folder) / "member"
        for info in archive.infolist():
            header = copy(info)
            header.extra = b""
            if info.filename not in edits:
                header.file_size = info.file_size
                with result.open(header, "w") as member:
                    _copy_member(archive, info, member, source)
                continue
            with unpacked.open("wb") as file:
                _copy_member(archive, info, file, source)
            edits[info.filename](unpacked)
            header.file_size = unpacked.stat().st_size
            with result.open(header, "w") as member, unpacked.open("rb") as file:
                shutil.copyfileobj(file, member, COPY_BYTES)


def _copy_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: IO[bytes], source: Path) -> None:
    try:
        with archive.open(info) as member:
            shutil.copyfileobj(member, target, COPY_BYTES)
    except (zipfile.BadZipFile, EOFError, RuntimeError, zlib.error, lzma.LZMAError) as error:
        raise FormatError(f"{source}: {info.filename} cannot be unpacked ({error}); save the model again") from None
