"""One network of each family of keras.applications, half of its units pruned: what shrinking takes away, what stays, and why.

The networks are those of the tests, at their native size: random weights, biases that are not zero, BatchNormalization with the
statistics of a batch, moved a little. Units are pruned in groups before that, as if some training followed.
"""

from __future__ import annotations

import gc
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from applications import families, onnx_call, zoo
from common import save
from shrunk import PACKAGES

import sparsec
from sparsec.compiler import Compiled
from sparsec.ir import Array
from sparsec.record import Cost
from sparsec.text import Column, count_text

SPARSITY = 0.5
SAMPLES = 4
CONVOLUTIONS = {"conv", "depthwise_conv"}
"""The operators whose kernels are counted as parameters of convolutions."""

COLUMNS = (
    Column("Network"),
    Column("Pruned"),
    Column("Parameters", numeric=True),
    Column("MACs", numeric=True),
    Column("Conv lost", numeric=True),
    Column("Removed", numeric=True),
    Column("Merged", numeric=True),
    Column("Refused", numeric=True),
    Column("Variation", numeric=True),
    Column("Keras", numeric=True),
    Column("ONNX", numeric=True),
    Column("Compile", numeric=True),
    Column("Write back", numeric=True),
    Column("Refused, and why"),
)

TEXT = f"""Half of the units of every kernel but the output layer's are zero, in groups. *Classic*: biases and
BatchNormalization stay as they are, so that a pruned unit puts out a constant. *Whole*: they are zeroed too.
Parameters and multiply-accumulates (MACs, one image) are those before and those left; *conv lost* is the
share of the elements of convolution kernels that is gone, depthwise ones included. *Merged* channels are
carried by another one, *refused* ones are dead and stay. *Keras* and *ONNX*: the largest difference from the
pruned network in Keras, over the range of the logits, of the `.keras` file written back, in Keras, and of the
`.onnx` file, in ONNX Runtime, both in float32, on {SAMPLES} images. *Variation* is the logits' standard
deviation over the images over their magnitude, both averaged. *Compile* is the time of compiling without
verification, *write back* that of writing the `.keras` file, in seconds."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Row:
    """What one network showed.

    Attributes:
        network: its name in keras.applications.
        size: height and width of the images.
        pruned: ``classic`` or ``whole``.
        before: what it takes.
        after: what is left of it.
        kernels_before: the elements of its convolution kernels.
        kernels_after: those that are left.
        removed: channels that went.
        merged: channels that others carry.
        refused: dead channels that stay, by reason.
        variation: of the logits over the images.
        keras_difference: of the network written back, over the range.
        onnx_difference: of the ONNX file, over the range.
        compile_seconds: without verification.
        write_seconds: of the ``.keras`` file.
    """

    network: str
    size: int
    pruned: str
    before: Cost
    after: Cost
    kernels_before: int
    kernels_after: int
    removed: int
    merged: int
    refused: dict[str, int]
    variation: float
    keras_difference: float
    onnx_difference: float
    compile_seconds: float
    write_seconds: float

    @property
    def lost(self) -> float:
        """The share of the elements of convolution kernels that is gone."""
        return 1.0 - self.kernels_after / self.kernels_before

    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        before, after = self.before, self.after
        return (
            self.network,
            self.pruned,
            f"{count_text(before.parameters)} -> {count_text(after.parameters)}",
            f"{count_text(before.macs or 0)} -> {count_text(after.macs or 0)}",
            f"{self.lost:.1%}",
            f"{self.removed:,}",
            f"{self.merged:,}",
            f"{sum(self.refused.values()):,}",
            f"{self.variation:.0%}",
            f"{self.keras_difference:.1e}",
            f"{self.onnx_difference:.1e}",
            f"{self.compile_seconds:.1f}",
            f"{self.write_seconds:.1f}",
            "; ".join(f"{count:,}: {reason}" for reason, count in self.refused.items()),
        )


def main() -> None:
    """Measure the networks that are named, or all of them, and write the results."""
    chosen = sys.argv[1:]
    rows: list[Row] = []
    for family in families(chosen):
        for whole in (False, True):
            rows.append(measure(family, whole))
            print(" | ".join(rows[-1].cells()), flush=True)
    if not chosen:
        facts = [{**asdict(row), "lost": row.lost} for row in rows]
        save(
            "families", "Networks of keras.applications, shrunk", TEXT, COLUMNS, [row.cells() for row in rows], facts, PACKAGES
        )


def measure(family: zoo.Family, whole: bool) -> Row:
    """One network, pruned in one way."""
    gc.collect()
    model = zoo.build_unit_pruned(family, SPARSITY, whole)
    batch = zoo.images(family, SAMPLES, seed=7)
    wanted = np.asarray(model.predict(batch, verbose=0))
    with tempfile.TemporaryDirectory() as folder:
        return _row(family, whole, zoo.save(model, Path(folder)), batch, wanted)


def _row(family: zoo.Family, whole: bool, source: Path, batch: Array, wanted: Array) -> Row:
    result, compile_seconds = _timed(lambda: sparsec.compile(source, verify=False))
    small, onnx = source.with_name("small.keras"), source.with_name("small.onnx")
    _, write_seconds = _timed(lambda: result.save(small))
    result.save(onnx)
    outcomes = list(result.outcomes.values())
    channels = [outcome.channels for outcome in outcomes if outcome.channels is not None]
    return Row(
        family.name,
        family.size,
        "whole" if whole else "classic",
        Cost.total(outcome.before for outcome in outcomes if outcome.before is not None),
        Cost.total(outcome.after for outcome in outcomes if outcome.after is not None),
        *_kernels(result),
        sum(counts.removed for counts in channels),
        sum(counts.merged for counts in channels),
        _refusals(result),
        float(wanted.std(axis=0).mean() / np.abs(wanted).mean()),
        _difference(_in_keras(small, batch), wanted),
        _difference(onnx_call(onnx, batch)(), wanted),
        compile_seconds,
        write_seconds,
    )


def _timed(call: Callable[[], Result]) -> tuple[Result, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def _kernels(result: Compiled) -> tuple[int, int]:
    """The elements of the kernels of convolutions, before and after."""
    names = {layer.layer for layer in result.before if CONVOLUTIONS & set(layer.operators)}
    before, after = (
        sum(weight.size for layer in layers if layer.layer in names for weight in layer.weights if weight.units)
        for layers in (result.before, result.after)
    )
    return before, after


def _refusals(result: Compiled) -> dict[str, int]:
    """How many dead channels stay, by reason; the most frequent first."""
    found: Counter[str] = Counter()
    for decision in result.decisions:
        if decision.stage == "shrink" and decision.outcome == "refused":
            found[re.sub(r"^\d+ dead channels? kept: ", "", decision.reason)] += decision.channels or decision.before or 0
    return dict(found.most_common())


def _difference(found: Array, wanted: Array) -> float:
    return float(np.abs(found - wanted).max() / np.ptp(wanted))


def _in_keras(path: Path, batch: Array) -> Array:
    import keras

    return np.asarray(keras.models.load_model(path, compile=False).predict(batch, verbose=0))


if __name__ == "__main__":
    main()
