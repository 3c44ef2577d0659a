"""The application: its commands, and what becomes of errors."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from textwrap import shorten
from typing import Annotated, TextIO

import typer
from typer.main import get_command

from sparsec import __version__
from sparsec.cli import bench, calibration, compilation, demo, inspection, pruning, running, verification
from sparsec.cli.terminal import emit_json, out
from sparsec.errors import SparsecError, VerificationError

DONE, FAILED, BAD_INPUT, DEFECT, INTERRUPTED = 0, 1, 2, 70, 130
"""The exit statuses."""

DEBUG = "SPARSEC_DEBUG"
"""The environment variable that shows tracebacks."""

# The class has different homes in different versions of typer, its name is the same in all.
UsageError: type[Exception] = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")

app = typer.Typer(
    name="sparsec",
    help=(
        "Compile pruned Keras models into smaller and faster ones with the same answers.\n\n"
        "Start with `sparsec demo`, or with a model of your own:\n\n"
        "* `sparsec prune model.keras -o pruned.keras --method weight --sparsity 0.9`\n"
        "* `sparsec compile pruned.keras -o small.npz -o small.onnx`\n"
        "* `sparsec verify pruned.keras small.npz`\n"
        "* `sparsec bench model.keras small.npz small.onnx`"
    ),
    epilog="Exit status: 0 done, 1 a check that was asked for failed, 2 bad usage or bad input.",
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
for module in (inspection, pruning, compilation, running, verification, bench, demo, calibration):
    module.register(app)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and the native kernels, and exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --version: as JSON.")] = False,
) -> None:
    """The options before the command."""
    if version:
        show_version(as_json)
        raise typer.Exit
    if context.invoked_subcommand is None:
        out().print(context.get_help())
        raise typer.Exit


def show_version(as_json: bool) -> None:
    """Print the version, and which native kernels there are."""
    from sparsec.kernels import library

    native = library.status()
    if as_json:
        fields = {name: getattr(native, name) for name in ("built", "isa", "isas", "compiled", "compiler")}
        emit_json("version", {"native": fields})
        return
    out().print(f"sparsec {__version__}", highlight=False)
    found = f"{native.isa}, built by {native.compiler}" if native.built else "not built"
    out().print(f"native kernels: {found}", highlight=False)


def run(argv: Sequence[str] | None = None) -> int:
    """Run the application and return its exit status; errors become one line on stderr each."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            command = get_command(app)
            # Not command.main(): that one gives a closed pipe the status of a failed check.
            with command.make_context("sparsec", arguments) as context:
                command.invoke(context)
            sys.stdout.flush()
        return DONE
    except typer.Exit as done:
        return done.exit_code
    except SparsecError as error:
        return _fail(str(error), FAILED if isinstance(error, VerificationError) else BAD_INPUT)
    except UsageError as error:
        return _fail(f"{error.format_message()} ({_help_hint(error)})", BAD_INPUT)  # type: ignore[attr-defined]
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python must not fail again while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", BAD_INPUT)
    except MemoryError:
        return _fail("there is not enough memory for this model", BAD_INPUT)
    except Exception as error:  # the last resort: whatever this is, it is a defect, and is reported as one
        what = f"{type(error).__name__}: {shorten(str(error), 300)}"
        advice = f"please report it with the command and the traceback that {DEBUG}=1 shows"
        return _fail(f"{what}; this is a defect of sparsec: {advice}", DEFECT)


def _fail(message: str, status: int) -> int:
    if os.environ.get(DEBUG) == "1":
        traceback.print_exc()
    print("error:", " ".join(message.split()), file=sys.stderr)  # noqa: T201
    return status


def _help_hint(error: BaseException) -> str:
    context = getattr(error, "ctx", None)
    return f"see '{context.command_path if context is not None else 'sparsec'} --help'"


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print("warning:", " ".join(str(message).split()), file=sys.stderr)  # noqa: T201
