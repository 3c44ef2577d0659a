"""``sparsec run``."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from sparsec.arrays import check_output_suffix, load_inputs, save_outputs
from sparsec.cli.options import Json, Tune
from sparsec.cli.terminal import emit_json, progress, say
from sparsec.errors import InputError
from sparsec.files import check_output
from sparsec.runtime import load

Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle, .npz.", show_default=False)]
Input = Annotated[
    Path,
    typer.Option(
        "--input", metavar="X.npy", help="One input as .npy; several as .npz by name, or x0, x1, ...", show_default=False
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="Y.npy", help="One output as .npy; several as .npz: y0, y1, ...", show_default=False
    ),
]
Threads = Annotated[
    int | None, typer.Option(help="Threads that run a call; one without, and for BLAS its own default.", show_default=False)
]
BatchSize = Annotated[int | None, typer.Option(help="Samples at a time, which bounds the memory.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run", epilog="Example: sparsec run model.npz --input x.npy -o y.npy")(command)


def command(
    bundle: Bundle,
    inputs: Input,
    output: Output,
    threads: Threads = None,
    batch_size: BatchSize = None,
    tune: Tune = False,
    as_json: Json = False,
) -> None:
    """Run a bundle on arrays in files, without TensorFlow."""
    if bundle.suffix.lower() != ".npz":
        raise InputError(f"{bundle}: run takes a bundle (.npz); make one with: sparsec compile MODEL -o model.npz")
    check_output(output, (bundle, inputs))
    with progress() as report:
        report("loading", 0.0)
        model = load(bundle, threads=threads, tune=tune)
        check_output_suffix(output, len(model.outputs))
        arrays = load_inputs(inputs, [entry.name for entry in model.inputs])
        report("running", 0.3)
        start = perf_counter()
        results = model(arrays, as_dict=True, batch_size=batch_size)
        seconds = perf_counter() - start
        assert isinstance(results, dict)
        report("writing", 0.9)
        save_outputs(output, list(results.values()))
    facts = {
        "bundle": str(bundle),
        "input": str(inputs),
        "output": str(output),
        "samples": len(arrays[0]),
        "seconds": seconds,
        "outputs": [
            {"name": name, "key": f"y{index}", "shape": list(array.shape), "dtype": array.dtype.name}
            for index, (name, array) in enumerate(results.items())
        ],
    }
    if as_json:
        emit_json("run", facts)
        return
    for name, array in results.items():
        say(f"{name}: {array.dtype.name}{array.shape}")
    say(f"wrote {output}: {len(arrays[0])} samples in {seconds:.3g} s, preparation included")
