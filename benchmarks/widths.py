"""Widths: what rounding the channels that are left to a multiple gains in ONNX Runtime, and what it costs in parameters."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from applications import Network, families, onnx_call
from common import milliseconds, save
from shrunk import PACKAGES, size

from sparsec.text import Column, count_text

SPARSITIES = {
    "MobileNetV2": (0.1, 0.3, 0.45, 0.7),
    "EfficientNetB0": (0.45,),
    "MobileNet": (0.45,),
    "ResNet50": (0.45,),
    "DenseNet121": (0.45,),
    "InceptionV3": (0.45,),
}
"""For each network shares of units that leave widths which are multiples of nothing."""

ROUNDINGS = (1, 4, 8, 16, "auto")

COLUMNS = (
    Column("Network"),
    Column("Units pruned", numeric=True),
    *(Column("not rounded" if rounding == 1 else f"to {rounding}", numeric=True) for rounding in ROUNDINGS),
    *(Column(f"parameters {'not rounded' if rounding == 1 else f'to {rounding}'}", numeric=True) for rounding in ROUNDINGS),
)

TEXT = """How many times faster than the dense network each one is, pruned by whole units and shrunk, with the channels
left rounded up to a multiple: one image, one thread, ONNX Runtime, all in turn in one process, medians. ONNX
Runtime keeps values in blocks of 8 or 16 channels (by processor) and leaves that layout for convolutions whose
number of input channels is no multiple of 4; a depthwise one then takes five times as long."""


@dataclass(frozen=True)
class Row:
    """One network at one sparsity.

    Attributes:
        network: its name in keras.applications.
        sparsity: the share of units that are zero.
        dense_ms: the median time of the dense network.
        faster: how many times faster than that, by rounding.
        parameters: that are left, by rounding.
    """

    network: str
    sparsity: float
    dense_ms: float
    faster: Mapping[str, float]
    parameters: Mapping[str, int]

    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        keys = [str(rounding) for rounding in ROUNDINGS]
        faster, parameters = [f"{self.faster[key]:.2f}x" for key in keys], [count_text(self.parameters[key]) for key in keys]
        return (self.network, f"{self.sparsity:.0%}", *faster, *parameters)


def main() -> None:
    """Measure the networks."""
    rows: list[Row] = []
    for family in families(tuple(SPARSITIES)):
        network = Network.build(family)
        for sparsity in SPARSITIES[family.name]:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(network, sparsity, Path(folder)))
            print(" | ".join(rows[-1].cells()), flush=True)
    save("widths", "Widths in ONNX Runtime", TEXT, COLUMNS, [row.cells() for row in rows], list(map(asdict, rows)), PACKAGES)


def measure(network: Network, sparsity: float, folder: Path) -> Row:
    """One row."""
    batch, parameters, calls = network.images(1), {}, {}
    network.compiled().save(folder / "dense.onnx")
    calls["dense"] = onnx_call(folder / "dense.onnx", batch, threads=1)
    for rounding in ROUNDINGS:
        result = network.compiled(sparsity, round_to=rounding)
        path = folder / f"{rounding}.onnx"
        result.save(path)
        parameters[str(rounding)], _ = size(result)
        calls[str(rounding)] = onnx_call(path, batch, threads=1)
    times = milliseconds(calls)
    faster = {key: times["dense"] / times[key] for key in parameters}
    return Row(network.family.name, sparsity, times["dense"], faster, parameters)


if __name__ == "__main__":
    main()
