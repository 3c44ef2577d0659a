"""Plain text for people: tables, and numbers with units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its head.
        numeric: whether it is aligned to the right.
    """

    title: str
    numeric: bool = False


Row = tuple[str, ...]


def render(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """A table in plain text, two spaces between columns."""
    widths = [max(len(column.title), *(len(row[i]) for row in rows), 0) for i, column in enumerate(columns)]

    def line(cells: Sequence[str]) -> str:
        aligned = (
            cell.rjust(width) if column.numeric else cell.ljust(width)
            for cell, width, column in zip(cells, widths, columns, strict=True)
        )
        return "  ".join(aligned).rstrip()

    return "\n".join([line([column.title for column in columns]), *(line(row) for row in rows)])


def render_markdown(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """The same table in Markdown."""
    head = "| " + " | ".join(column.title for column in columns) + " |"
    rule = "|" + "|".join("---:" if column.numeric else "---" for column in columns) + "|"
    return "\n".join([head, rule, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def bytes_text(count: float) -> str:
    """``1.25 MB``, in powers of 1000."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 999.5:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def percent(part: float, whole: float) -> str:
    """``90.0 %``; a dash where there is no whole."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def change(before: int, after: int) -> str:
    """``1,000 -> 512``, or the one number where nothing changed."""
    return f"{before:,}" if before == after else f"{before:,} -> {after:,}"


def count_text(count: float) -> str:
    """``1.25 M``, in powers of 1000."""
    for unit in ("", " k", " M"):
        if abs(count) < 999.5:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g} G"


def change_text(before: float | None, after: float | None) -> str:
    """``1.25 M -> 312 k``, or the one number where nothing changed; empty where one is not known."""
    if before is None or after is None:
        return ""
    return count_text(before) if before == after else f"{count_text(before)} -> {count_text(after)}"
