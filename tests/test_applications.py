"""One network of each family of keras.applications, pruned, through everything that runs it, against Keras.

``build/applications.md`` holds the figures of the last run.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import zoo

from sparsec import compile as compile_model
from sparsec import load
from sparsec.compiler import Compiled
from sparsec.frontends import read
from sparsec.ops import evaluate_graph

SAMPLES = 8

TOLERANCE = 1e-4
"""Of the range of the outputs."""

LEAST_VARIATION = 0.01
"""Of the magnitude of the outputs: logits that hardly depend on the image would agree whatever is wrong."""

REPORT = Path(__file__).parent.parent / "build" / "applications.md"


class Subject:
    """One network: its file, and what it is compiled to, once for all executors."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def compiled(self) -> Compiled:
        return compile_model(self.path, verify=False)

    def written(self, suffix: str) -> Path:
        """The compiled network in a file."""
        path = self.path.with_suffix(suffix)
        self.compiled.save(path)
        return path


Executor = Callable[[Subject, np.ndarray], np.ndarray]


def by_evaluator(subject: Subject, batch: np.ndarray) -> np.ndarray:
    (logits,) = evaluate_graph(read(subject.path).graph, [batch])
    return logits


def by_bundle(subject: Subject, batch: np.ndarray) -> np.ndarray:
    return np.asarray(load(subject.written(".npz"))(batch))


def by_onnx(subject: Subject, batch: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(subject.written(".onnx"))
    return np.asarray(session.run(None, {session.get_inputs()[0].name: batch})[0])


EXECUTORS: dict[str, Executor] = {"evaluator": by_evaluator, "bundle": by_bundle, "ONNX": by_onnx}


@dataclass
class Row:
    """What one family showed; errors and seconds by executor."""

    family: zoo.Family
    parameters: int
    zeros: float
    variation: float
    errors: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@pytest.fixture(scope="module")
def rows() -> Iterator[list[Row]]:
    collected: list[Row] = []
    yield collected
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(table(collected))


def table(rows: Sequence[Row]) -> str:
    steps = ["making it", "compiling", *EXECUTORS]
    head = ["family", "input", "parameters", "zeros", "variation"]
    head += [*(f"error of {name}" for name in EXECUTORS), *(f"seconds {step}" for step in steps)]
    note = (
        f"{SAMPLES} random images each. Errors are the greatest difference from Keras over the range of the logits, at most "
        f"{TOLERANCE:g}. Variation is the logits' standard deviation over the images over their magnitude, both averaged. "
        "Seconds of an executor include writing the file and loading it."
    )
    lines = [note, "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        size = row.family.size
        cells = [row.family.name, f"{size} x {size} x 3", f"{row.parameters:,}", f"{row.zeros:.1%}", f"{row.variation:.0%}"]
        cells += [f"{row.errors[name]:.1e}" if name in row.errors else "failed" for name in EXECUTORS]
        cells += [f"{row.seconds[step]:.1f}" if step in row.seconds else "failed" for step in steps]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


@contextmanager
def timed(row: Row, step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    row.seconds[step] = time.perf_counter() - start


@pytest.mark.slow
@pytest.mark.parametrize("family", zoo.FAMILIES, ids=lambda family: family.name)
def test_family(family: zoo.Family, rows: list[Row], tmp_path: Path) -> None:
    start = time.perf_counter()
    model = zoo.build(family)
    batch = zoo.images(family, SAMPLES, seed=7)
    wanted = np.asarray(model.predict(batch, verbose=0))
    variation = float(wanted.std(axis=0).mean() / np.abs(wanted).mean())
    row = Row(family, model.count_params(), zoo.zero_share(model), variation)
    subject = Subject(zoo.save(model, tmp_path))
    row.seconds["making it"] = time.perf_counter() - start
    rows.append(row)
    del model
    gc.collect()
    assert np.isfinite(wanted).all()
    assert variation > LEAST_VARIATION
    assert row.zeros == pytest.approx(zoo.SPARSITY, abs=0.005)
    with timed(row, "compiling"):
        assert subject.compiled
    for name, run in EXECUTORS.items():
        with timed(row, name):
            found = run(subject, batch)
        assert found.shape == wanted.shape
        row.errors[name] = float(np.abs(found - wanted).max() / np.ptp(wanted))
    assert max(row.errors.values()) <= TOLERANCE, row.errors
