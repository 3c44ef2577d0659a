"""Files: inputs are there before they are read; outputs are checked before the work that fills them, and put in place whole."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sparsec.errors import InputError


def check_input(path: Path) -> None:
    """Check that there is a file at ``path``.

    Raises:
        InputError: there is none, or it is a directory.
    """
    if path.is_dir():
        raise InputError(f"{path} is a directory; name a file")
    if not path.exists():
        raise InputError(f"{path}: there is no such file")


def check_output(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Check that a file can be written at ``path``, without writing it.

    Args:
        path: the file to write.
        inputs: files that it must not replace.

    Raises:
        InputError: it is a directory or one of the inputs, its directory does not exist, or may not be written to.
    """
    if path.exists() and any(source.exists() and path.samefile(source) for source in inputs):
        raise InputError(f"{path} is read by this command, and writing would replace it; name another file with -o")
    if path.is_dir():
        raise InputError(f"{path} is a directory; name the file to write")
    folder = path.parent
    if not folder.exists():
        raise InputError(f"{path} cannot be written: there is no directory {folder}; create it first")
    if not folder.is_dir():
        raise InputError(f"{path} cannot be written: {folder} is not a directory")
    if not os.access(folder, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise InputError(f"{path} cannot be written: permission denied; choose another place with -o")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the context ends well, and is removed when it does not.

    Raises:
        InputError: the file cannot be written.
    """
    check_output(path)
    # The suffix stays last: libraries choose a format by it, or add one.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
