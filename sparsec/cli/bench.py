"""``sparsec bench``."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sparsec.bench import BenchResult, run_bench
from sparsec.bench.measure import DEFAULT_ROUNDS
from sparsec.bench_table import missing, table
from sparsec.cli.options import InputShape, Json, parse_shapes
from sparsec.cli.terminal import emit_json, progress, say, show_table
from sparsec.files import check_output, replacing


class Device(StrEnum):
    """The values of ``--device``."""

    cpu = "cpu"
    gpu = "gpu"
    all = "all"


Reference = Annotated[
    Path, typer.Argument(metavar="REFERENCE", help="The dense original: Keras, ONNX or bundle.", show_default=False)
]
Artefacts = Annotated[list[Path], typer.Argument(metavar="ARTEFACT", help="What is compared with it.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench", epilog="Example: sparsec bench model.keras model.npz model.onnx --data test.npz -o result.json")(
        command
    )


def command(
    reference: Reference,
    artefacts: Artefacts,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="RESULT.json", help="Write the result as JSON.", show_default=False)
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(help="Samples in a call; may be repeated. 1 by default.", show_default=False)
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of every engine; 0 leaves each its own default.")] = 1,
    device: Annotated[Device, typer.Option(help="Where to measure.")] = Device.cpu,
    data: Annotated[
        Path | None,
        typer.Option(metavar="XY.npz", help="Inputs x and labels y, to measure accuracy on.", show_default=False),
    ] = None,
    input_shape: InputShape = [],  # noqa: B006 - typer copies it
    rounds: Annotated[int, typer.Option(help="How many times each model is timed, in turn.")] = DEFAULT_ROUNDS,
    seed: Annotated[int, typer.Option(help="Of the random inputs.")] = 0,
    as_json: Json = False,
) -> None:
    """Measure file size, memory, latency and accuracy against the original.

    Memory is that of a fresh process which loads and runs one model, beyond a bare Python. Latency is the median of calls that
    go to all models in turn. What cannot be measured here is shown as such.
    """
    if output is not None:
        check_output(output, (reference, *artefacts, *([data] if data is not None else [])))
    with progress() as report:
        result = run_bench(
            reference,
            artefacts,
            batch=tuple(batch or (1,)),
            threads=threads or None,
            device=device.value,
            data=data,
            input_shapes=parse_shapes(input_shape),
            rounds=rounds,
            seed=seed,
            progress=report,
        )
    facts = result.to_json()
    if output is not None:
        with replacing(output) as temporary:
            temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    if as_json:
        emit_json("bench", facts)
        return
    show(result)
    if output is not None:
        say(f"wrote {output}")


def show(result: BenchResult) -> None:
    """Print a result as tables."""
    machine, settings = result.machine, result.settings
    threads = "each engine's own threads" if settings.threads is None else f"threads: {settings.threads}"
    say(f"{machine.cpu}, {machine.cores} cores, {machine.system}; {threads}; {settings.rounds} rounds")
    say(", ".join(f"{name} {version}" for name, version in result.versions.items()))
    say("times are medians ± interquartile ranges; in brackets how many times smaller or faster than the first")
    say("")
    show_table(*table(result))
    for reason in missing(result):
        say(f"not measured: {reason}")
