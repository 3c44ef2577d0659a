"""How long it takes to import sparsec, and to get from a running interpreter to the first answer of a bundle."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import save

from sparsec.bundle import write_bundle
from sparsec.ir import BATCH, Graph, Input, Port, TensorType, symbol
from sparsec.lowering import lower
from sparsec.ops import make_node
from sparsec.text import Column

ROUNDS = 15
SCRIPTS = {
    "import sparsec": "import sparsec",
    "import numpy": "import numpy",
    "import sparsec.runtime": "import sparsec.runtime",
    "load a bundle of 1 M weights, 90 % zeros": "import sparsec; sparsec.load({bundle!r}, batch=1)",
    "import onnxruntime": "import onnxruntime",
}
TIMER = "import time; start = time.perf_counter(); {script}; print(time.perf_counter() - start)"


def main() -> None:
    """Measure, each in fresh processes that take turns."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "model.npz"
        write_bundle(bundle, lower(_network()))
        times: dict[str, list[float]] = {name: [] for name in SCRIPTS}
        for _ in range(ROUNDS):
            for name, script in SCRIPTS.items():
                times[name].append(_run(script.format(bundle=str(bundle))))
    facts = {name: {"median_ms": float(np.median(found)), "minimum_ms": min(found)} for name, found in times.items()}
    rows = [(name, f"{item['median_ms']:.0f} ms", f"{item['minimum_ms']:.0f} ms") for name, item in facts.items()]
    text = f"From a running Python to the end of the statement, in fresh processes, {ROUNDS} each in turn."
    columns = [Column("Statement"), Column("Median", numeric=True), Column("Shortest", numeric=True)]
    save("import_time", "Import and start", text, columns, rows, facts)


def _network() -> Graph:
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((1000, 1000), np.float32)
    kernel[rng.random(kernel.shape) < 0.9] = 0
    node = make_node("dense", "dense", ["x", "kernel"], ["y"])
    return Graph((Input("x", TensorType("float32", (symbol(BATCH), 1000))),), (Port("y", "y"),), (node,), {"kernel": kernel})


def _run(script: str) -> float:
    done = subprocess.run([sys.executable, "-c", TIMER.format(script=script)], capture_output=True, text=True, check=True)
    return float(done.stdout) * 1e3


if __name__ == "__main__":
    main()
