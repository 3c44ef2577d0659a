"""The kernels that the native engine chooses for the layers of real networks, against all other candidates.

It ends with status 1 where a choice of the cost model is more than 10 % behind the best candidate.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from common import save

import sparsec
from sparsec.bundle import read_bundle
from sparsec.encodings import encode
from sparsec.engine import Segment, divide
from sparsec.engine.calibration import Case, calibrate, make, processor_of
from sparsec.engine.choice import SCALES, Cheapest, Choice, Machine, candidates
from sparsec.engine.memory import Memory
from sparsec.engine.steps import Planes, Step
from sparsec.engine.translate import translate
from sparsec.engine.trial import Stopwatch
from sparsec.engine.tuning import Fastest
from sparsec.ir import BATCH
from sparsec.kernels import WeightStore, library
from sparsec.kernels.library import Library
from sparsec.ops import infer_types
from sparsec.program import Program
from sparsec.quiet import import_keras
from sparsec.text import Column, Row

NETWORKS = ("ResNet50", "InceptionV3", "MobileNet", "EfficientNetB0")
DENSE = ((784, 300), (300, 100), (100, 10), (784, 1000), (1000, 1000), (1000, 500), (500, 200), (200, 10), (2048, 1000))
"""The inputs and units of dense layers, which take one sample as all do; so small that no cache is too small for all forms."""

SPARSITIES = (0.0, 0.8, 0.9, 0.95)
ALLOWED = 1.1
"""A choice may take so many times what the best candidate takes."""

NOISE_NS = 50.0
"""Differences below this do not count: reading the clock takes half of it, and gives steps of a fifth."""

AGAIN = 5
"""How often a choice that seems too far behind is timed again."""

WORST = 20
"""The rows of the table."""


@dataclass(frozen=True)
class Layer:
    """A step that multiplies with a weight, the sizes of its values, and the shape of the weight."""

    title: str
    step: Step
    planes: Mapping[str, Planes]
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """What it is called in the table."""
        y = self.planes[self.step.y]
        return f"{self.title}: {'x'.join(map(str, self.shape))} at {y.height}x{y.width}"


@dataclass(frozen=True)
class Result:
    """What was found for a layer; times are nanoseconds.

    Attributes:
        layer: its name.
        sparsity: of its weight.
        chosen: by the cost model.
        predicted: its cost.
        measured: its time.
        tuned: chosen by measurement.
        best: the best of all candidates.
        least: its time.
        ratio: the time of the cost model's choice over that of the best.
        tuned_ratio: the same for the choice by measurement.
        candidates: how many there were.
    """

    layer: str
    sparsity: float
    chosen: str
    predicted: float
    measured: float
    tuned: str
    best: str
    least: float
    ratio: float
    tuned_ratio: float
    candidates: int

    def fails(self, ratio: float) -> bool:
        """Whether a choice is too far behind."""
        return ratio > ALLOWED and (ratio - 1.0) * self.least > NOISE_NS


def main() -> None:
    """Measure, report, and say whether every choice was good."""
    found = library.status().library
    if found is None:
        sys.exit("there are no native kernels to measure")
    calibration = calibrate(found)
    machine = Machine(processor_of(found), calibration.coefficients)
    rng = np.random.default_rng(0)
    results = [
        measure(layer, sparsity, found, machine, rng) for layer in (*dense_layers(), *layers()) for sparsity in SPARSITIES
    ]
    by_model = sum(result.fails(result.ratio) for result in results)
    by_tuning = sum(result.fails(result.tuned_ratio) for result in results)
    errors = np.abs([result.predicted / result.measured - 1.0 for result in results])
    off, most_off = float(np.median(errors)), float(np.quantile(errors, 0.9))
    zeros, count = ", ".join(f"{sparsity:.0%}" for sparsity in SPARSITIES), sum(result.candidates for result in results)
    text = f"""\
Dense layers, and the layers of {", ".join(NETWORKS)} that differ in shape; one sample, one thread,
{found.isa.name}; {zeros} of the weights are zero, anywhere. The cost model, fitted to this machine by a calibration, chooses
among its candidates, and `tune=True` by timing them. Beside them stands the best of all, timed in turn: {len(results)} layers,
{count} candidates. A choice that seems more than {ALLOWED - 1:.0%} behind is timed {AGAIN} times more with the best alone,
which may have been so by luck, and the median ratio counts. Differences below {NOISE_NS:g} ns do not: the clock hides them.

{_quality("The cost model", [result.ratio for result in results], results, by_model)}

{_quality("Tuning", [result.tuned_ratio for result in results], results, by_tuning)}

Estimates of what was chosen are off by {off:.1%} in the median, and by at most {most_off:.1%} for nine in ten; the machine was
shared while this ran, and its speed moved. The {WORST} worst choices of the cost model:"""
    columns = [Column("Layer"), Column("Zeros", numeric=True), Column("Chosen"), Column("Predicted us", numeric=True)]
    columns += [Column("us", numeric=True), Column("Best"), Column("us", numeric=True), Column("Ratio", numeric=True)]
    columns.append(Column("Tuned", numeric=True))
    worst = sorted(results, key=lambda result: -result.ratio)[:WORST]
    facts = {"isa": found.isa.name, "calibration": asdict(calibration), "layers": [asdict(result) for result in results]}
    name = "choice" if found.isa == library.ISAS[0] else f"choice-{found.isa.name}"
    save(name, f"Choice of native kernels, {found.isa.name}", text, columns, [_row(result) for result in worst], facts)
    if by_model or by_tuning:
        sys.exit(f"more than {ALLOWED - 1:.0%} behind the best candidate: {by_model} choices by cost, {by_tuning} by tuning")


def _quality(what: str, ratios: Sequence[float], results: Sequence[Result], failed: int) -> str:
    least = np.array([result.least for result in results])
    mean, weighted = float(np.exp(np.log(ratios).mean())), float((np.array(ratios) * least).sum() / least.sum())
    return (
        f"{what}: {mean:.3f} times the best in the geometric mean, {weighted:.3f} over the time of all, at most"
        f" {float(np.quantile(ratios, 0.9)):.3f} for nine\nin ten; {failed} choices are more than {ALLOWED - 1:.0%} behind."
    )


def dense_layers() -> Iterator[Layer]:
    """Dense layers by themselves."""
    for shape in DENSE:
        step, planes, _ = make(Case(Planes(1, 1, 1, shape[0]), shape[1], 1.0), np.random.default_rng(0))
        yield Layer("dense", step, planes, shape)


def layers() -> Iterator[Layer]:
    """The layers of the networks that differ in shape."""
    keras = import_keras(purpose="to build networks")
    known: set[Hashable] = set()
    for network in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bundle.npz"
            sparsec.compile(getattr(keras.applications, network)(weights=None), verify=False).save(path)
            program = read_bundle(path).program
        for layer in layers_of(network, program):
            step, planes = layer.step, layer.planes
            assert step.product is not None
            key = (step.kernel, planes[step.x], planes[step.y], step.window, step.product.groups, layer.shape)
            if key not in known:
                known.add(key)
                yield layer


def layers_of(network: str, program: Program) -> Iterator[Layer]:
    """The steps of a program that multiply with weights, for one sample.

    Args:
        network: its name in the table.
        program: what is compiled from it.
    """
    graph, store = program.skeleton(), WeightStore(program.tensors)
    types = infer_types(graph.bind({BATCH: 1}))
    for segment in divide(graph, infer_types(graph), types, store).items:
        if not isinstance(segment, Segment):
            continue
        translation = translate(segment, types, store)
        memory = Memory(translation.items, translation.planes, translation.external)
        for step in memory.steps:
            if step.product is not None:
                planes = {name: memory.planes[name] for name in (*step.reads, step.y)}
                yield Layer(f"{network} {step.nodes[0].name}", step, planes, store.weight(step.product.path).shape)


def measure(layer: Layer, sparsity: float, found: Library, machine: Machine, rng: np.random.Generator) -> Result:
    """Both choices for a layer, and the best candidate.

    The best of many may be so by luck: what is far behind is timed again with the best alone, and the median ratio of those
    times counts.
    """
    step, planes = layer.step, layer.planes
    assert step.product is not None
    weight = rng.standard_normal(layer.shape, np.float32)
    weight[rng.random(layer.shape) < sparsity] = 0
    store = WeightStore({step.product.path: encode(weight, (len(layer.shape) - 1,), "csr")})
    stopwatch = Stopwatch(found, store)
    chosen = Cheapest(store, machine).choose(step, planes)
    tuned = Fastest(Cheapest(store, machine), stopwatch)(step, planes)
    every = {choice.label: choice for choice in (chosen, tuned, *candidates(step, planes, store, machine, SCALES))}
    times = dict(zip(every, stopwatch(step, planes, [*every.values()]), strict=True))
    best = min(times, key=times.__getitem__)

    def ratio(choice: Choice) -> float:
        ratios = [times[choice.label] / times[best]]
        if ratios[0] > ALLOWED:
            pairs = [stopwatch(step, planes, [choice, every[best]]) for _ in range(AGAIN)]
            ratios = [time / least for time, least in pairs]
        return median(ratios)

    measured = (chosen.label, chosen.nanoseconds, times[chosen.label], tuned.label, best, times[best])
    return Result(layer.name, sparsity, *measured, ratio(chosen), ratio(tuned), len(every))


def _row(result: Result) -> Row:
    us = [f"{time / 1e3:.4g}" for time in (result.predicted, result.measured, result.least)]
    ratios = [f"{ratio:.2f}" for ratio in (result.ratio, result.tuned_ratio)]
    return (result.layer, f"{result.sparsity:.0%}", result.chosen, us[0], us[1], result.best, us[2], *ratios)


if __name__ == "__main__":
    main()
