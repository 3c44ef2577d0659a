"""``sparsec prune``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sparsec.cli.options import Json, KerasFile
from sparsec.cli.terminal import emit_json, progress, say, show_table
from sparsec.files import check_output
from sparsec.pruning import LayerReport, PruneReport, prune_file
from sparsec.text import Column, Row, percent


class Method(StrEnum):
    """The values of ``--method``."""

    weight = "weight"
    unit = "unit"


class Scope(StrEnum):
    """The values of ``--scope``."""

    layer = "layer"
    whole_model = "global"


COLUMNS = (
    Column("Kernel"),
    Column("Shape"),
    Column("Zeros before", numeric=True),
    Column("Zeros now", numeric=True),
    Column("Units pruned", numeric=True),
    Column("Group, or why it was left alone"),
)

Output = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="OUT.keras", help="The file to write; may be MODEL itself.", show_default=False),
]
Sparsity = Annotated[float, typer.Option(help="The part to zero, from 0 up to but not including 1.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = "Example: sparsec prune model.keras -o pruned.keras --method unit --sparsity 0.5"
    app.command("prune", epilog=example)(command)


def command(
    model: KerasFile,
    output: Output,
    sparsity: Sparsity,
    method: Annotated[Method, typer.Option(help="Zero single weights, or whole units (columns, filters).")] = Method.weight,
    scope: Annotated[Scope, typer.Option(help="Rank within each layer, or over all layers together.")] = Scope.layer,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A layer, nested model, or pattern such as block1_*, to leave alone.", show_default=False
        ),
    ] = None,
    group: Annotated[
        bool, typer.Option("--group/--no-group", help="Rank units that can only be removed together as one; unit pruning.")
    ] = True,
    whole: Annotated[bool, typer.Option("--whole", help="Zero biases, gamma and beta of pruned units too.")] = False,
    as_json: Json = False,
) -> None:
    """Set the smallest weights or units of a Keras file to zero, in one shot.

    Only kernels change, and those of the output layers do not. The file itself gets smaller and faster when it is compiled.
    """
    check_output(output)
    with progress() as report:
        result = prune_file(
            model,
            output,
            method=method.value,
            sparsity=sparsity,
            scope=scope.value,
            skip=skip or (),
            group=group,
            whole=whole,
            progress=lambda what: report(what, 0.5),
        )
    if as_json:
        emit_json("prune", {"output": str(output), **result.to_json()})
        return
    show_table(COLUMNS, [_row(layer) for layer in result.layers])
    say(f"\n{output}: {_headline(result)}")


def _row(layer: LayerReport) -> Row:
    return (
        layer.path,
        "x".join(map(str, layer.shape)),
        percent(layer.zeros_before, layer.size),
        percent(layer.zeros_after, layer.size),
        f"{layer.pruned_units:,} of {layer.units:,}" if layer.pruned_units else "",
        layer.kept or (f"with {layer.group}" if layer.group else ""),
    )


def _headline(report: PruneReport) -> str:
    zeros = f"zeros in kernels {percent(report.zeros_before, report.size)} -> {percent(report.zeros_after, report.size)}"
    return zeros + (f", {report.pruned_units:,} of {report.units:,} units are zero" if report.pruned_units else "")
