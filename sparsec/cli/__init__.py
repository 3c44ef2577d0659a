"""The command line, ``sparsec``. Only this package uses typer and rich."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sparsec.errors import MissingExtraError
from sparsec.extras import require

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments without the program's name; those of the process by default.

    Returns:
        the exit status: 0 done, 1 a check that was asked for failed, 2 bad usage or bad input, 70 a defect of sparsec, 130
        interrupted.
    """
    try:
        for package in ("typer", "rich"):
            require(package, purpose="for the command line")
    except MissingExtraError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    from sparsec.cli.app import run

    return run(argv)
