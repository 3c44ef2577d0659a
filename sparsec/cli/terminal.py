"""What commands print: results on stdout as tables or JSON, progress and messages on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sparsec import __version__
from sparsec.text import Column, Row

SCHEMA = "sparsec/cli"
SCHEMA_VERSION = 1
"""Of the JSON that ``--json`` prints; ``formats/cli.md`` describes it."""

PIPE_WIDTH = 200
"""The characters in a line of a table that does not go to a terminal."""

FOLDED_WIDTH = 40
"""The least room for the last column of a table, if its cells need as much."""

GAP = 2
"""The spaces between columns."""

Report = Callable[[str, float], None]


class _Output(Console):
    def on_broken_pipe(self) -> None:
        # Rich would end the process with the status of a failed check.
        raise


def out() -> Console:
    """The console of results."""
    return _Output(file=sys.stdout, soft_wrap=True)


def err() -> Console:
    """The console of progress and messages."""
    return Console(file=sys.stderr)


def emit_json(command: str, result: Any) -> None:
    """Print a command's result as JSON."""
    value = {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "sparsec_version": __version__,
        "command": command,
        "result": _finite(result),
    }
    print(json.dumps(value, indent=2, allow_nan=False))  # noqa: T201


def say(text: str) -> None:
    """Print a line of a result, as it is."""
    out().print(escape(text), highlight=False)


def show_table(columns: Sequence[Column], rows: Sequence[Row], title: str = "") -> None:
    """Print a table."""
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        # A name that is cut cannot be copied; the last column holds sentences, which fold.
        table.add_column(column.title, justify="right" if column.numeric else "left", no_wrap=column is not columns[-1])
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console = out()
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    # Rich would cut cells, and drop the last column, where they do not fit; a terminal that is too narrow wraps lines instead.
    console.width = max(console.width, _least_width(columns, rows))
    console.print(table, soft_wrap=False)


def _least_width(columns: Sequence[Column], rows: Sequence[Row]) -> int:
    """How wide a table is in which nothing is cut and the last column has room for a few words."""
    widths = [max(cell_len(cell) for cell in cells) for cells in zip([column.title for column in columns], *rows, strict=True)]
    return sum(widths[:-1]) + GAP * (len(widths) - 1) + min(widths[-1], FOLDED_WIDTH)


@contextmanager
def progress() -> Iterator[Report]:
    """A progress bar on stderr while the context lasts, where stderr is a terminal."""
    console = err()
    bar = Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda what, done: bar.update(task, description=escape(what), completed=done)


def _finite(value: Any) -> Any:
    """JSON has no infinity and no NaN; they become null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
