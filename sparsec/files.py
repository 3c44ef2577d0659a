"""Output files: checked before the work that fills them, and put in place whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparsec.errors import InputError


def check_output(path: Path) -> None:
    """Check that a file can be written at ``path``, without writing it.

    Raises:
        InputError: it is a directory, its directory does not exist, or may not be written to.
    """
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
