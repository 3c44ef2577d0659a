"""Networks of keras.applications, pruned by units and shrunk, against the dense ones in ONNX Runtime on one thread."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from applications import Network, families, onnx_call
from common import milliseconds, save

from sparsec.compiler import Compiled
from sparsec.layers import total_of
from sparsec.text import Column, bytes_text, count_text

NETWORKS = {
    "ResNet50": ((0.5, False), (0.5, True)),
    "MobileNetV2": ((0.1, True), (0.2, True), (0.3, True), (0.4, True), (0.5, True), (0.7, True), (0.9, True)),
}
"""For each network the sparsities, and whether whole units are zeroed."""

PACKAGES = ("sparsec", "numpy", "onnx", "onnxruntime", "tensorflow", "keras")

COLUMNS = (
    Column("Network"),
    Column("Units pruned", numeric=True),
    Column("Method"),
    Column("Parameters", numeric=True),
    Column("MACs", numeric=True),
    Column("File", numeric=True),
    Column("Latency", numeric=True),
    Column("Faster", numeric=True),
)

TEXT = """One image, one thread, ONNX Runtime; every row is compiled with the default options and called in turn with the
dense network, in one process, and the time is the median. *Faster* is how many times faster than the dense
network. Units are pruned in groups; *whole* zeroes biases and BatchNormalization with them, *classic* does not.
Weights are random: what is measured depends on shapes alone."""


@dataclass(frozen=True)
class Row:
    """One network at one sparsity.

    Attributes:
        network: its name in keras.applications.
        sparsity: the share of units that are zero.
        method: ``dense``, ``classic`` or ``whole``.
        parameters: that are left.
        macs: multiply-accumulates that are left, for one image.
        file_bytes: of the ONNX file.
        median_ms: of a call.
        faster: how many times faster than the dense network.
    """

    network: str
    sparsity: float
    method: str
    parameters: int
    macs: int | None
    file_bytes: int
    median_ms: float
    faster: float

    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        return (
            self.network,
            f"{self.sparsity:.0%}",
            self.method,
            count_text(self.parameters),
            count_text(self.macs or 0),
            bytes_text(self.file_bytes),
            f"{self.median_ms:.2f} ms",
            f"{self.faster:.2f}x",
        )


def main() -> None:
    """Measure the networks."""
    rows: list[Row] = []
    for family in families(tuple(NETWORKS)):
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(Network.build(family), Path(folder))
    save(
        "shrunk",
        "Shrunk networks in ONNX Runtime",
        TEXT,
        COLUMNS,
        [row.cells() for row in rows],
        list(map(asdict, rows)),
        PACKAGES,
    )


def measure(network: Network, folder: Path) -> list[Row]:
    """The rows of one network, the dense one first."""
    name = network.family.name
    chosen = [(0.0, "dense"), *((sparsity, "whole" if whole else "classic") for sparsity, whole in NETWORKS[name])]
    batch, facts, calls = network.images(1), {}, {}
    for sparsity, method in chosen:
        result = network.compiled(sparsity, whole=method == "whole")
        path = folder / f"{method}-{sparsity}.onnx"
        facts[path.name] = (sparsity, method, *size(result), result.save(path)["bytes"])
        calls[path.name] = onnx_call(path, batch, threads=1)
    times = milliseconds(calls)
    dense = next(iter(times.values()))
    return [Row(name, *facts[key], times[key], dense / times[key]) for key in facts]


def size(result: Compiled) -> tuple[int, int | None]:
    """The parameters and multiply-accumulates of a compiled network."""
    return sum(layer.parameters for layer in result.after), total_of(layer.macs for layer in result.after)


if __name__ == "__main__":
    main()
