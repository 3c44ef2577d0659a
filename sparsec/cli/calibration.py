"""``sparsec calibrate``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sparsec.cli.options import Json
from sparsec.cli.terminal import emit_json, progress, say, show_table
from sparsec.engine.calibration import Calibration, cache_file, calibrate, forget, keep, kept_calibration
from sparsec.engine.defaults import DEFAULTS
from sparsec.errors import InputError
from sparsec.kernels import library
from sparsec.text import Column


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("calibrate", epilog="Example: sparsec calibrate")(command)


def command(
    show: Annotated[bool, typer.Option("--show", help="Show the calibration that is kept, and measure nothing.")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="Remove the calibration that is kept, and measure nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Measure this machine, so that the fastest kernel of each layer is chosen.

    It takes a few seconds, on a machine that is idle meanwhile. The result is kept in the user's cache directory, for
    this processor, instruction set and build of sparsec.
    """
    found = library.status().library
    if found is None:
        raise InputError("there are no native kernels to measure: they were not built, or SPARSEC_ISA turns them off")
    if show and reset:
        raise InputError("--show and --reset exclude one another; give one of them")
    path, calibration, removed = cache_file(found), kept_calibration(found), False
    if reset:
        removed, calibration = forget(found), None
    elif not show:
        with progress() as report:
            calibration = calibrate(found, report)
        path = keep(found, calibration)
    if as_json:
        emit_json("calibrate", _facts(found, path, calibration))
        return
    if reset:
        say(f"removed {path}" if removed else f"there was no calibration at {path}")
    else:
        _show(found, path, calibration)


def _facts(found: library.Library, path: Path, calibration: Calibration | None) -> dict[str, object]:
    return {
        "isa": found.isa.name,
        "file": str(path),
        "calibrated": calibration is not None,
        "measurements": None if calibration is None else calibration.measurements,
        "median_error": None if calibration is None else calibration.error,
        "largest_error": None if calibration is None else calibration.largest,
        "coefficients": asdict(DEFAULTS[found.isa.name] if calibration is None else calibration.coefficients),
    }


def _show(found: library.Library, path: Path, calibration: Calibration | None) -> None:
    before = asdict(DEFAULTS[found.isa.name])
    if calibration is None:
        say(f"{found.isa.name}: no calibration is kept at {path}; these coefficients come with sparsec")
        show_table([Column("Coefficient"), Column("ns", numeric=True)], [(name, f"{ns:.3g}") for name, ns in before.items()])
        return
    say(f"{found.isa.name}: {calibration.measurements} measurements, kept at {path}")
    say(f"estimates are off by {calibration.error:.1%} in the median, and nine in ten by at most {calibration.largest:.1%}")
    say("")
    columns = [Column("Coefficient"), Column("ns", numeric=True), Column("as it comes", numeric=True)]
    after = asdict(calibration.coefficients)
    show_table(columns, [(name, f"{after[name]:.3g}", f"{before[name]:.3g}") for name in after])
