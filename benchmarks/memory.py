"""What a network of 26 million parameters takes until its first answer: memory, and time to load."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from common import RESULTS, save
from peers.artefacts import Artefacts
from peers.environments import ENVIRONMENTS, interpreter
from peers.remote import clean_environment
from peers.workloads import WORKLOADS

from sparsec.text import Column, bytes_text

WORKLOAD = "resnet50"
SPARSITY = 0.9
ROUNDS = 5
LIMIT_SECONDS = 120.0
SCRIPT = Path(__file__).parent / "peers" / "probe.py"
NAME = "memory"
REFERENCE = "ONNX Runtime, dense"
OWN = "sparsec"

MEASURES = {"resident": "Resident", "peak": "Peak", "import": "Import", "ready": "Ready", "answer": "First answer"}
"""What the probe reports, and its title."""

TEXT = f"""\
ResNet-50 at batch 1 with one thread, in fresh processes that take turns, medians of {ROUNDS}: sparsec with {SPARSITY:.0%}
of the weights zero, the others with the dense original. Memory is that over a process with NumPy and the input alone, after
the first answer, and at most. *Import* is the time to import the engine, *Ready* from there until the model can be called,
*First answer* from there until it has been. In brackets the share of ONNX Runtime's."""


@dataclass(frozen=True)
class Entry:
    """What is measured.

    Attributes:
        title: in the table.
        engine: as the probe calls it.
        path: of the model.
    """

    title: str
    engine: str
    path: Path

    def run(self, given: Path) -> dict[str, float]:
        """What the probe reports.

        Raises:
            subprocess.SubprocessError: it failed, or takes too long.
        """
        python, environment = sys.executable, None
        if self.engine in ENVIRONMENTS:
            python, environment = str(interpreter(self.engine)), clean_environment()
        command = [python, str(SCRIPT), self.engine, str(self.path), str(given)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=LIMIT_SECONDS)
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found


def main() -> None:
    """Measure, and write the results."""
    files = Artefacts(WORKLOADS[WORKLOAD])
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "x.npy"
        np.save(given, files.fed(1))
        entries = _entries(files)
        samples: dict[str, list[dict[str, float]]] = {entry.title: [] for entry in entries}
        failed: dict[str, str] = {}
        for _, entry in product(range(ROUNDS), entries):
            if entry.title not in failed:
                try:
                    samples[entry.title].append(entry.run(given))
                except subprocess.SubprocessError as error:
                    if entry.title in (REFERENCE, OWN):
                        raise
                    failed[entry.title] = str(error)
    facts = {
        entry.title: {
            "file": entry.path.stat().st_size,
            **{name: float(np.median([sample[name] for sample in samples[entry.title]])) for name in MEASURES},
        }
        for entry in entries
        if entry.title not in failed
    }
    if not interpreter("openvino"):
        failed["OpenVINO"] = "its environment is not there"
    missing = "".join(f"\n\n{title} was not measured: {reason}." for title, reason in failed.items())
    columns = [Column("Engine"), Column("File", numeric=True), *(Column(title, numeric=True) for title in MEASURES.values())]
    rows = [(title, *_cells(fact, facts[REFERENCE])) for title, fact in facts.items()]
    save(NAME, "Memory and start", TEXT + missing, columns, rows, facts, ("sparsec", "numpy", "onnxruntime"))


def shares() -> dict[str, float]:
    """What sparsec was found to take, over what ONNX Runtime takes; empty where that was not measured."""
    path = RESULTS / f"{NAME}.json"
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))["result"]
    return {name: found[OWN][name] / found[REFERENCE][name] for name in MEASURES}


def _entries(files: Artefacts) -> list[Entry]:
    entries = [
        Entry(REFERENCE, "onnxruntime", files.dense_onnx(1)),
        Entry(OWN, "sparsec", files.bundle(SPARSITY)),
        Entry("sparsec, mapped", "sparsec-mapped", files.stored_bundle(SPARSITY)),
    ]
    if interpreter("openvino"):
        entries.append(Entry("OpenVINO, dense", "openvino", files.dense_onnx(1)))
    return entries


def _cells(fact: dict[str, float], reference: dict[str, float]) -> list[str]:
    return [f"{_text(name, value)} ({value / reference[name]:.2f})" for name, value in fact.items()]


def _text(name: str, value: float) -> str:
    return bytes_text(value) if name in ("file", "resident", "peak") else f"{value * 1e3:.0f} ms"


if __name__ == "__main__":
    main()
