"""Two small networks, pruned to several sparsities: file size, memory and latency against the dense network in ONNX Runtime."""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import save

import sparsec
from sparsec.bench import run_bench
from sparsec.bench_table import missing, table
from sparsec.demo.networks import DENSE, LENET, Network
from sparsec.pruning import prune_file
from sparsec.quiet import import_keras

WEIGHT_SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.99)
UNIT_SPARSITIES = (0.5, 0.8)


def main() -> None:
    """Measure both networks."""
    for network in (DENSE, LENET):
        with tempfile.TemporaryDirectory() as folder:
            measure(network, Path(folder))


def measure(network: Network, folder: Path) -> None:
    """Build, prune, compile and measure one network. Its weights are random: what is measured depends on their zeros alone."""
    keras = import_keras(purpose="to build networks")
    keras.utils.set_random_seed(0)
    original = folder / "original.keras"
    network.build(keras).save(original)
    reference = folder / "dense.onnx"
    sparsec.compile(original, shrink=False).save(reference)
    artefacts = [original]
    for method, sparsities in (("weight", WEIGHT_SPARSITIES), ("unit", UNIT_SPARSITIES)):
        for sparsity in sparsities:
            pruned = folder / "pruned.keras"
            prune_file(original, pruned, method=method, sparsity=sparsity)
            artefacts.append(folder / f"{method}-{sparsity:.0%}.npz".replace("%", ""))
            sparsec.compile(pruned).save(artefacts[-1])
    result = run_bench(reference, artefacts, batch=(1, 64), threads=1)
    text = (
        f"{network.title}: the dense network in ONNX Runtime and in Keras, and bundles of the network pruned by single "
        "weights and by whole units; the number is the percentage of zeros. In brackets how many times smaller or faster than\n"
        "the first row."
    )
    columns, rows = table(result)
    notes = "".join(f"\n\nNot measured: {reason}" for reason in missing(result))
    save(f"network-{network.name}", network.title, text + notes, columns, rows, result.to_json())


if __name__ == "__main__":
    main()
