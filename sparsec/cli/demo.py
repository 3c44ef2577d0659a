"""``sparsec demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsec.bench_table import missing, table
from sparsec.cli.options import Json
from sparsec.cli.terminal import emit_json, progress, say, show_table
from sparsec.text import percent

FAILED = 1

Folder = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where everything is written.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo", epilog="Example: sparsec demo -o sparsec-demo")(command)


def command(output: Folder = Path("sparsec-demo"), as_json: Json = False) -> None:
    """Show the whole story on real handwritten digits, in about two minutes.

    Trains two networks, prunes them both ways at ten sparsities and plots the accuracy, then takes one pruned model of each
    method through compile, verify and bench.
    """
    from sparsec.demo import run_demo

    with progress() as report:
        result = run_demo(output, report)
    if as_json:
        emit_json("demo", result.to_json())
    else:
        say("accuracy against sparsity, pruned in one shot without training after")
        show_table(*result.curve_table())
        say("")
        for method, compiled in result.compiled.items():
            facts = compiled.report
            say(
                f"{method}-pruned: {facts['parameters']['before']:,} parameters, {facts['parameters']['nonzero']:,} left "
                f"({percent(facts['parameters']['nonzero'], facts['parameters']['before'])})"
            )
        say("dense against compiled; in brackets how many times smaller or faster than the dense ONNX file")
        show_table(*table(result.bench))
        for reason in missing(result.bench):
            say(f"not measured: {reason}")
        say("")
        for item in result.verifications:
            say(f"{'equal' if item.passed else 'DIFFERENT'}: {item.artefact} and {item.reference} (in {item.reference_engine})")
            for failure in item.failures:
                say(f"  {failure}")
        say(f"wrote {output}: table.md, accuracy.png, results.json and the models, in {result.seconds:.0f} s")
    if not result.passed:
        raise typer.Exit(FAILED)
