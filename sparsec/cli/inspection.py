"""``sparsec inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsec.cli.options import Json
from sparsec.cli.terminal import emit_json, progress, say, show_table
from sparsec.encodings import POSITIONS
from sparsec.inspection import Inspection, inspect
from sparsec.layers import LayerFacts
from sparsec.record import Outcome
from sparsec.text import Column, Row, bytes_text, change, change_text, count_text, percent

File = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A Keras file, a bundle (.npz) or an ONNX file.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("inspect", epilog="Example: sparsec inspect model.keras")(command)


def command(model: File, as_json: Json = False) -> None:
    """Show what a model is made of, layer by layer.

    Parameters, zeros, units that pruning killed, bytes in each encoding, and what compile would do, or did.
    """
    with progress() as report:
        result = inspect(model, report)
    if as_json:
        emit_json("inspect", result.to_json())
        return
    say(f"{result.source}: {result.kind}, {result.name!r}")
    for name, value in result.details.items():
        say(f"  {name}: {value}")
    for what, ports in (("input", result.inputs), ("output", result.outputs)):
        for port in ports:
            say(f"  {what} {port}")
    say("")
    show_table(*_table(result))
    if result.before is not None and result.after is not None:
        parameters = change(result.before.parameters, result.after.parameters)
        macs = change_text(result.before.macs, result.after.macs)
        say("")
        say(f"compiled: {parameters} parameters" + (f", {macs} multiply-accumulates for one sample" if macs else ""))


def _table(result: Inspection) -> tuple[list[Column], list[Row]]:
    encodings = list(POSITIONS) if result.kind != "onnx" else []
    columns = [
        Column("Layer" if result.kind != "onnx" else "Initialiser"),
        Column("Operators" if result.kind != "onnx" else "Read by"),
        Column("Shape"),
        Column("Parameters", numeric=True),
        *([Column("MACs", numeric=True)] if encodings else []),
        Column("Zeros", numeric=True),
        Column("Zero units", numeric=True),
        *(Column(f"As {name}", numeric=True) for name in encodings),
        Column("Stored as"),
        Column("Decisions"),
    ]
    rows = [_row(result, layer, encodings) for layer in result.layers]
    parameters, zeros = (sum(getattr(layer, name) for layer in result.layers) for name in ("parameters", "zeros"))
    totals = [_total(result, name) for name in encodings]
    rows.append(
        ("total", "", "", f"{parameters:,}", *_macs(result.macs, encodings), percent(zeros, parameters), "", *totals, "", "")
    )
    rows += [_gone(outcome, len(columns)) for outcome in result.gone]
    return columns, rows


def _row(result: Inspection, layer: LayerFacts, encodings: list[str]) -> Row:
    sizes = [layer.bytes_in(name) for name in encodings] if layer.weights else [None] * len(encodings)
    outcome = result.outcomes.get(layer.layer)
    return (
        layer.layer,
        " ".join(layer.operators),
        "(" + ", ".join(map(str, layer.shape)) + ")",
        f"{layer.parameters:,}" if layer.weights else "",
        *_macs(layer.macs, encodings),
        percent(layer.zeros, layer.parameters) if layer.weights else "",
        f"{layer.zero_units:,} of {layer.units:,}" if layer.units else "",
        *(("" if not layer.weights else "-") if size is None else bytes_text(size) for size in sizes),
        layer.encodings,
        "" if outcome is None else _decisions(outcome),
    )


def _macs(macs: int | None, encodings: list[str]) -> list[str]:
    """The cell of multiply-accumulates, in tables that have one: empty for layers that have none, such as activations."""
    text = "open" if macs is None else count_text(macs) if macs else ""
    return [text] if encodings else []


def _decisions(outcome: Outcome) -> str:
    """What was decided, and what is left where that is less."""
    texts = list(outcome.notes)
    before, after = outcome.before, outcome.after
    if before is not None and after is not None and before != after:
        macs = change_text(before.macs, after.macs)
        texts.append(f"{change(before.parameters, after.parameters)} parameters" + (f", {macs} MACs" if macs else ""))
    return "; ".join(texts)


def _gone(outcome: Outcome, width: int) -> Row:
    """The row of a layer that a bundle holds no more."""
    return (outcome.layer, "gone", *[""] * (width - 3), _decisions(outcome))


def _total(result: Inspection, encoding: str) -> str:
    """The bytes of all layers in one encoding, where a layer that it cannot serve takes its best one."""
    total = 0
    for layer in result.layers:
        size = layer.bytes_in(encoding)
        total += sum(weight.stored_bytes for weight in layer.weights) if size is None else size
    return bytes_text(total)
