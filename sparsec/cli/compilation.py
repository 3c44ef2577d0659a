"""``sparsec compile``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sparsec.backends import check_target
from sparsec.cli.options import InputShape, Json, KerasFile, parse_rounding, parse_shapes
from sparsec.cli.terminal import emit_json, progress, say, show_table
from sparsec.compiler import COLUMNS, compile  # noqa: A004
from sparsec.text import bytes_text


class Encoding(StrEnum):
    """The values of ``--encoding``."""

    auto = "auto"
    csr = "csr"
    coo = "coo"
    bitmap = "bitmap"
    dense = "dense"


class Level(StrEnum):
    """The values of ``--level``."""

    stored = "stored"
    plain = "plain"


class OnnxWeights(StrEnum):
    """The values of ``--onnx-weights``."""

    auto = "auto"
    dense = "dense"
    sparse = "sparse"


class OnnxLayout(StrEnum):
    """The values of ``--onnx-layout``."""

    nhwc = "nhwc"
    nchw = "nchw"


Outputs = Annotated[
    list[Path],
    typer.Option("--output", "-o", metavar="OUT", help="A file to write, .npz or .onnx; may be repeated.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compile", epilog="Example: sparsec compile pruned.keras -o model.npz -o model.onnx")(command)


def command(
    model: KerasFile,
    output: Outputs,
    shrink: Annotated[bool, typer.Option("--shrink/--no-shrink", help="Remove channels that pruning killed.")] = True,
    round_to: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Keep just enough dead channels to make widths a multiple of N; auto: where depthwise layers want it.",
        ),
    ] = "auto",
    encoding: Annotated[Encoding, typer.Option(help="How weight matrices are stored in a bundle.")] = Encoding.auto,
    level: Annotated[Level, typer.Option(help="plain is smaller, stored can be mapped into memory.")] = Level.plain,
    onnx_weights: Annotated[OnnxWeights, typer.Option(help="How weights are stored in ONNX.")] = OnnxWeights.auto,
    opset: Annotated[int, typer.Option(help="The ONNX operator set.")] = 17,
    onnx_layout: Annotated[OnnxLayout, typer.Option(help="The axes of ONNX inputs and outputs.")] = OnnxLayout.nhwc,
    input_shape: InputShape = [],  # noqa: B006 - typer copies it
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Check the outputs before anything is written.")] = True,
    as_json: Json = False,
) -> None:
    """Compile a Keras file for deployment.

    Removes what pruning killed, folds BatchNormalization, stores weights in the fewest bytes, checks the outputs against the
    original's, and writes a bundle (.npz), an ONNX file, a shrunk Keras file, or several. Says what it did to each layer, and
    why.
    """
    for path in output:
        check_target(path)
    with progress() as report:
        result = compile(
            model,
            shrink=shrink,
            round_to=parse_rounding(round_to),
            encoding=encoding.value,
            level=level.value,
            onnx_weights=onnx_weights.value,
            opset=opset,
            onnx_layout=onnx_layout.value,
            input_shape=parse_shapes(input_shape),
            verify=verify,
            progress=lambda what, done: report(what, 0.8 * done),
        )
        files: list[dict[str, Any]] = []
        for index, path in enumerate(output):
            report(f"writing {path.name}", 0.8 + 0.2 * index / len(output))
            files.append(result.save(path))
    if as_json:
        emit_json("compile", {**result.report, "files": files})
        return
    show_table(COLUMNS, result.rows())
    say("")
    say(result.headline())
    for file in files:
        say(f"wrote {file['path']}: {file['format']}, {bytes_text(file['bytes'])}{_detail(file)}")


def _detail(file: dict[str, Any]) -> str:
    if file["format"] == "Keras":
        reason = f" ({file['optimizer_reason']})" if file["optimizer_reason"] else ""
        whole = "".join(f"\n  {layer} keeps all channels: {why}" for layer, why in file["whole"].items())
        return f", {file['layers']} layers changed, optimizer state: {file['optimizer']}{reason}{whole}"
    if file["format"] != "ONNX":
        return f", level {file['level']}"
    counts = f"{file['nodes']} nodes, {file['transposes']} of them transposes, {len(file['sparse'])} weights sparse"
    return f", opset {file['opset']}, {counts}"
