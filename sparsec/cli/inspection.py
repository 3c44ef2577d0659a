"""``sparsec inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsec.cli.options import Json, Tune
from sparsec.cli.terminal import emit_json, progress, say, show_table
from sparsec.encodings import POSITIONS
from sparsec.errors import InputError
from sparsec.inspection import Inspection, inspect
from sparsec.layers import LayerFacts
from sparsec.profiling import RuntimeProfile, profile
from sparsec.record import Outcome
from sparsec.runtime import PlannedStep
from sparsec.text import Column, Row, bytes_text, change, change_text, count_text, percent

File = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A Keras file, a bundle (.npz) or an ONNX file.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("inspect", epilog="Example: sparsec inspect model.keras")(command)


def command(
    model: File,
    runtime: Annotated[
        bool, typer.Option("--runtime", help="Of a bundle: how it runs here, step by step, with predicted and measured times.")
    ] = False,
    batch: Annotated[int | None, typer.Option(help="With --runtime: samples in a call; 1 without.", show_default=False)] = None,
    threads: Annotated[
        int | None, typer.Option(help="With --runtime: threads of a call; its own default without.", show_default=False)
    ] = None,
    tune: Tune = False,
    as_json: Json = False,
) -> None:
    """Show what a model is made of, layer by layer.

    Parameters, zeros, units that pruning killed, bytes in each encoding, and what compile would do, or did. With --runtime: the
    kernels that run it on this machine, what they take, and what does not run natively and why.
    """
    if not runtime and (tune or batch is not None or threads is not None):
        raise InputError("--batch, --threads and --tune say how a bundle runs; add --runtime")
    with progress() as report:
        profiled = profile(model, 1 if batch is None else batch, threads, tune=tune, progress=report) if runtime else None
        result = inspect(model, report) if as_json or profiled is None else None
    if as_json:
        assert result is not None
        emit_json("inspect", result.to_json() | ({} if profiled is None else {"runtime": profiled.to_json()}))
    elif profiled is not None:
        _show_runtime(profiled)
    elif result is not None:
        _show(result)


def _show(result: Inspection) -> None:
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


def _show_runtime(found: RuntimeProfile) -> None:
    threads = "" if found.threads is None else f", {found.threads} threads"
    model = "fitted to this machine" if found.calibrated else "as it comes; sparsec calibrate fits it to this machine"
    say(f"{found.source}: {found.name!r}, batch {found.batch}{threads}; native kernels: {found.isa}; cost model: {model}")
    say("kernels were chosen by measurement" if found.tuned else "kernels were chosen by the cost model")
    say("")
    columns = [Column("Step"), Column("Operators"), Column("Kernel")]
    columns += [Column(name, numeric=True) for name in ("Predicted us", "Measured us", "Share")]
    rows = [_step_row(step, found.total) for step in found.steps]
    rows.append(("to and from the native layout", "", "", "", f"{found.between:.1f}", percent(found.between, found.total), ""))
    rows.append(("total", "", "", "", f"{found.total:.1f}", percent(found.total, found.total), ""))
    show_table([*columns, Column("Why")], rows)
    estimate, of_these = found.predicted
    say("")
    say(f"a whole call takes {found.call:.1f} us; steps were measured in one thread")
    if of_these:
        say(f"the cost model gives {estimate:.1f} us to steps that took {of_these:.1f} us: {estimate / of_these - 1:+.1%}")
    if found.others:
        say(f"{len(found.others)} of {len(found.steps)} steps do not run natively")


def _step_row(step: PlannedStep, total: float) -> Row:
    return (
        step.node,
        " ".join((step.op, *step.fused)),
        step.kernel,
        "" if step.microseconds is None else f"{step.microseconds:.1f}",
        f"{step.measured or 0.0:.1f}",
        percent(step.measured or 0.0, total),
        step.reason,
    )


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
