"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sparsec.errors import InputError
from sparsec.passes import Rounding, multiple_of

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout (described in formats/cli.md).")]
KerasFile = Annotated[Path, typer.Argument(metavar="MODEL", help="A Keras file: .keras, .h5 or .hdf5.", show_default=False)]
Tune = Annotated[
    bool, typer.Option("--tune", help="Choose native kernels by timing them on this model, not by the cost model.")
]
InputShape = Annotated[
    list[str],
    typer.Option(
        "--input-shape",
        metavar="224,224,3",
        help="Shape of an input that the model leaves open, without the batch; once for each input.",
        show_default=False,
    ),
]


def parse_shapes(texts: Sequence[str]) -> list[list[int]] | None:
    """The values of ``--input-shape``; ``None`` where there are none.

    Raises:
        InputError: one is no list of sizes.
    """
    return [_parse_shape(text) for text in texts] or None


def _parse_shape(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.strip("()").split(",") if part.strip()]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise InputError(f"--input-shape {text!r} is no list of sizes; write it like 224,224,3, without the batch")
    return sizes


def parse_rounding(text: str) -> Rounding:
    """The value of ``--round-to``.

    Raises:
        InputError: it is neither a positive number nor ``auto``.
    """
    return multiple_of(text) or "auto"


def parse_range(text: str) -> tuple[float, float]:
    """The value of ``--input-range``.

    Raises:
        InputError: it is not two numbers.
    """
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--input-range {text!r} is not two numbers; write it like 0,255 or -1,1") from None
    return low, high
