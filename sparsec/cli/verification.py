"""``sparsec verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sparsec.bundle import SelfCheckResult
from sparsec.cli.options import InputShape, Json, parse_range, parse_shapes
from sparsec.cli.terminal import emit_json, progress, say, show_table
from sparsec.comparison import DEFAULT_TOLERANCE, OutputComparison
from sparsec.errors import InputError
from sparsec.text import Column, Row
from sparsec.verification import DEFAULT_SAMPLES, Verification, check_bundle, verify

FAILED = 1

COLUMNS = (
    Column("Output"),
    Column("Largest difference", numeric=True),
    Column("Part of the range", numeric=True),
    Column("Allowed", numeric=True),
    Column("Argmax flips", numeric=True),
    Column("Largest margin", numeric=True),
    Column("Verdict"),
)

Reference = Annotated[
    Path, typer.Argument(metavar="REFERENCE", help="The original Keras file; or a bundle, alone.", show_default=False)
]
Artefact = Annotated[
    Path | None, typer.Argument(metavar="ARTEFACT", help="A bundle, an ONNX file, or a Keras file.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = "Examples: sparsec verify model.keras model.npz --data test.npz; sparsec verify model.npz"
    app.command("verify", epilog=example)(command)


def command(
    reference: Reference,
    artefact: Artefact = None,
    inputs: Annotated[
        Path | None, typer.Option("--input", metavar="X.npy", help="Inputs, .npy or .npz; else random.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="XY.npz", help="Inputs x and labels y; adds the accuracy of both.", show_default=False),
    ] = None,
    samples: Annotated[int, typer.Option(help="How many random inputs.")] = DEFAULT_SAMPLES,
    seed: Annotated[int, typer.Option(help="Of the random inputs.")] = 0,
    input_range: Annotated[
        str | None,
        typer.Option(metavar="LO,HI", help="Of the random inputs; guessed from a leading Rescaling.", show_default=False),
    ] = None,
    input_shape: InputShape = [],  # noqa: B006 - typer copies it
    tolerance: Annotated[
        float, typer.Option(help="The difference allowed, as a part of each output's range.")
    ] = DEFAULT_TOLERANCE,
    as_json: Json = False,
) -> None:
    """Check that an artefact gives the same outputs as its original.

    Both run on the same inputs: the original in Keras where that is installed, else in sparsec's own evaluator; a bundle in
    sparsec's runtime, an ONNX file in ONNX Runtime. Outputs that do not vary over the inputs fail, since their equality
    proves nothing. A bundle alone runs the self-check that it carries. Exit status 1 means that the check failed.
    """
    if artefact is None:
        _self_check(reference, as_json)
        return
    with progress() as report:
        result = verify(
            reference,
            artefact,
            inputs=inputs,
            data=data,
            samples=samples,
            seed=seed,
            input_range=parse_range(input_range) if input_range is not None else None,
            input_shape=parse_shapes(input_shape),
            tolerance=tolerance,
            progress=report,
        )
    if as_json:
        emit_json("verify", {"kind": "comparison", **result.to_json()})
    else:
        _show(result)
    if not result.passed:
        raise typer.Exit(FAILED)


def _show(result: Verification) -> None:
    say(f"reference {result.reference} in {result.reference_engine}, artefact {result.artefact} in {result.artefact_engine}")
    say(f"inputs: {result.inputs}")
    for note in result.notes:
        say(f"note: {note}")
    say("")
    show_table(COLUMNS, [_row(output) for output in result.outputs])
    say("")
    if result.accuracy is not None:
        say(f"accuracy: reference {result.accuracy[0]:.2%}, artefact {result.accuracy[1]:.2%}")
    for failure in result.failures:
        say(f"failed: {failure}")
    if result.passed:
        say(f"passed: {result.samples} samples, every output equal within {result.tolerance:g} of its range")


def _row(output: OutputComparison) -> Row:
    flips = output.flips
    return (
        output.output,
        f"{output.difference:.3g}",
        f"{output.relative:.2g}",
        f"{output.allowed:.3g}",
        f"{flips.count} of {flips.of:,}" if flips is not None else "-",
        f"{flips.margin:.3g}" if flips is not None and flips.count else "-",
        "equal" if output.passed else ("different" if not output.equal else "does not vary"),
    )


def _self_check(path: Path, as_json: bool) -> None:
    if path.suffix.lower() != ".npz":
        raise InputError(f"{path}: only a bundle (.npz) carries a self-check; name the ARTEFACT to compare this file with")
    names, result = check_bundle(path)
    facts: dict[str, Any] = {
        "kind": "self-check",
        "passed": result.passed,
        "artefact": str(path),
        "output": names[result.output],
        "worst": result.worst,
        "tolerance": result.tolerance,
    }
    if as_json:
        emit_json("verify", facts)
    else:
        say(_verdict(path, names, result))
    if not result.passed:
        raise typer.Exit(FAILED)


def _verdict(path: Path, names: tuple[str, ...], result: SelfCheckResult) -> str:
    where = f"output {names[result.output]!r} is off by {result.worst:.3g} of its scale, {result.tolerance:g} is allowed"
    if result.passed:
        return f"{path}: the self-check passed ({where})"
    return f"{path}: the self-check failed: {where}; the bundle is damaged, or this machine computes wrongly"
