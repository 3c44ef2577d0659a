"""What is proven of one random model: exactness everywhere it can run, and that what could go did go."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from channel_oracle import Oracle, Slice
from planted_units import Planting, plant
from random_models import Recipe, build, random_inputs

import sparsec
from sparsec.comparison import LEAST_RANGE
from sparsec.ir import Array, Graph
from sparsec.ops import evaluate_graph
from sparsec.passes import Optimised, optimise
from sparsec.passes.shrink import shrink
from sparsec.passes.simplify import simplify
from sparsec.runtime import Model

PROOF = 1e-9
"""Of the largest magnitude, in float64."""
RUNTIME = 1e-4
"""Of the range, in float32."""
WRITTEN_BACK = 1e-5
TAME = 2e-5
"""A model whose outputs in float32 Keras are further than this from those in float64 proves nothing about sparsec."""

TOGETHER = (
    "a layer called several times would need another correction at each call",
    "groups and heads stay equally large",
)
"""Reasons about several channels together, for which channels stay that could go by themselves."""

WEAKER = (
    "it carries others that are constant",
    "makes its border differ by channel",
    "the slopes of prelu differ by position",
    "makes of it what is no multiple of a known map",
    "shifts a constant that is not the same at every position",
    "a constant behind zero padding is not a bias at the borders",
    "a constant with a border of zeros is not a bias",
    # Where no tap that is not zero reaches over the border, there is none.
    "a zero-padded depthwise convolution gives each channel a border of its own",
    "a reshape joins it to channels that are not dead, or have other constants",
    "it is concatenated along positions with channels that are not dead, or have other constants",
)
"""Reasons for which some channels stay that could go: rules that are weaker than they might be."""

TIED = "tied to channels that are not dead"
"""The reason of channels that would go if others did, which may stay for one of the weaker rules."""


@dataclass
class Findings:
    """What was found out about one model, or about many.

    Attributes:
        models: how many.
        worst: the largest difference of each kind, with the seed.
        planted: units that were planted dead, by style.
        removed: those of them that are gone.
        kept: those that are not, by what the oracle and the decisions about their layer say.
        could_go: how many of those could have gone, each by itself.
        whole: layers that are written back whole, by reason.
        problems: everything that is wrong.
    """

    models: int = 0
    worst: dict[str, tuple[float, int]] = field(default_factory=dict)
    planted: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    could_go: int = 0
    whole: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add(self, other: Findings) -> None:
        self.models += other.models
        for kind, found in other.worst.items():
            self.worst[kind] = max(self.worst.get(kind, (-1.0, 0)), found)
        for name in ("planted", "removed", "kept", "whole"):
            getattr(self, name).update(getattr(other, name))
        self.could_go += other.could_go
        self.problems += other.problems

    def differ(self, kind: str, seed: int, difference: float, allowed: float) -> None:
        self.worst[kind] = (difference, seed)
        # Not a number is not small either.
        if not difference <= allowed:
            self.problems.append(f"seed {seed}: {kind} differs by {difference:.2g}, {allowed:g} is allowed")

    def summary(self) -> str:
        lines = [f"{self.models} models"]
        lines += [f"  largest difference, {kind}: {value:.2g} (seed {seed})" for kind, (value, seed) in self.worst.items()]
        lines.append(f"  dead units planted: {_counts(self.planted)}; removed: {_counts(self.removed)}")
        lines += [f"  kept: {count:6} {reason}" for reason, count in self.kept.most_common()]
        lines += [f"  whole in Keras: {count:6} {reason}" for reason, count in self.whole.most_common()]
        return "\n".join(lines + [f"  PROBLEM {problem}" for problem in self.problems])


def _counts(counter: Counter[str]) -> str:
    return f"{counter.total()} ({', '.join(f'{count} {key}' for key, count in sorted(counter.items()))})"


def examine(recipe: Recipe, folder: Path | None = None) -> Findings:
    """Build the model of a recipe and prove all there is to prove, see :func:`prove`."""
    model = build(recipe)
    graph, plantings = plant(model, recipe.salt)
    return prove(model, graph, plantings, recipe.salt, folder)


def prove(model: Any, graph: Graph, plantings: Sequence[Planting], seed: int = 0, folder: Path | None = None) -> Findings:
    """Prove that a model keeps its outputs, and that what could go did go.

    Args:
        model: a Keras model.
        graph: the same as sparsec reads it.
        plantings: the units of it that are dead.
        seed: of its inputs, and for messages.
        folder: where files go; without one, ONNX and writing back are left out.
    """
    inputs = random_inputs(model, seed)
    findings, wanted = Findings(models=1), keras_outputs(model, inputs)
    lifted, exact_inputs = graph.lifted("float64"), [in_float64(x) for x in inputs]
    exact = evaluate_graph(lifted, exact_inputs)
    findings.differ("Keras in float32 from float64", seed, of_range(exact, wanted), TAME)
    optimised = optimise(lifted)
    found = evaluate_graph(optimised.graph, exact_inputs)
    findings.differ("the optimised graph in float64", seed, of_magnitude(exact, found), PROOF)
    _compiled(findings, seed, model, inputs, wanted, folder)
    _idempotent(findings, seed, lifted)
    _complete(findings, seed, lifted, exact_inputs, optimised, plantings)
    return findings


def in_float64(x: Array) -> Array:
    return x.astype(np.float64) if x.dtype.kind == "f" else x


def keras_outputs(model: Any, inputs: Sequence[Array]) -> list[Array]:
    outputs = model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)
    return [np.asarray(output) for output in (outputs if isinstance(outputs, list | tuple) else [outputs])]


def of_range(wanted: Sequence[Array], found: Sequence[Array]) -> float:
    """The largest difference as a part of the output's range, as sparsec counts it."""
    worst = 0.0
    for a, b in zip(wanted, found, strict=True):
        scale = max(float(np.ptp(a)), LEAST_RANGE * float(np.abs(a).max()))
        worst = max(worst, float(np.abs(a.astype(np.float64) - b).max()) / (scale or 1.0))
    return worst


def of_magnitude(wanted: Sequence[Array], found: Sequence[Array]) -> float:
    return max(float(np.abs(a - b).max()) / (float(np.abs(a).max()) or 1.0) for a, b in zip(wanted, found, strict=True))


def _compiled(
    findings: Findings, seed: int, model: Any, inputs: Sequence[Array], wanted: Sequence[Array], folder: Path | None
) -> None:
    source: Any = model
    if folder is not None:
        source = folder / "model.keras"
        model.save(source)
    compiled = sparsec.compile(source)
    findings.differ("the runtime from Keras", seed, of_range(wanted, Model(compiled.program).run(list(inputs))), RUNTIME)
    if folder is None:
        return
    compiled.save(folder / "model.onnx")
    found = onnx_outputs(folder / "model.onnx", inputs)
    findings.differ("ONNX Runtime from Keras", seed, of_range(wanted, found), RUNTIME)
    facts = compiled.save(folder / "small.keras")
    findings.whole.update(facts["whole"].values())
    with warnings.catch_warnings():
        # The file's facts say the same.
        warnings.filterwarnings("ignore", message=".* keeps all its channels")
        after = {
            "a file written back": keras.models.load_model(folder / "small.keras"),
            "sparsec.shrink": sparsec.shrink(model),
        }
    for kind, small in after.items():
        findings.differ(kind, seed, of_range(wanted, keras_outputs(small, inputs)), WRITTEN_BACK)


def onnx_outputs(path: Path, inputs: Sequence[Array]) -> list[Array]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {port.name: x for port, x in zip(session.get_inputs(), inputs, strict=True)}))


def _idempotent(findings: Findings, seed: int, graph: Graph) -> None:
    """Shrinking what was shrunk changes nothing, but where a layer called twice kept more than it had to."""
    small, _, decisions = shrink(simplify(graph))
    _, plan, _ = shrink(small)
    if not plan.empty and not any(decision.reason.endswith(TOGETHER[0]) for decision in decisions):
        findings.problems.append(f"seed {seed}: shrinking again changes {', '.join([*plan.edits, *plan.added_biases])}")


def _complete(
    findings: Findings, seed: int, graph: Graph, inputs: Sequence[Array], optimised: Optimised, plantings: Sequence[Planting]
) -> None:
    """Every planted unit is gone, or its layer has a recorded refusal; and the oracle says which could have gone."""
    oracle = Oracle(graph, inputs)
    of_slice = {slice_: planting for planting in plantings for slice_ in planting.slices}
    layers = {node.inputs[1]: node.layer for node in graph.nodes if len(node.inputs) > 1}
    kept = {path: kept_units(graph, optimised, path) for path in layers if path in graph.weights}
    refusals = _refusals(optimised)
    anywhere = any(reason in text for found in refusals.values() for text in found for reason in (*TOGETHER, *WEAKER))

    def gone(unit: Slice) -> bool:
        return unit.index not in kept[unit.path].get(unit.axis, [unit.index])

    numbers, stayed = oracle.ties.gone_numbers(gone), Counter[str]()
    for class_ in oracle.ties.classes():
        found = {of_slice[slice_].label: None for slice_ in (*class_.units, *class_.rows) if slice_ in of_slice}
        if not found or class_.kept == "output":
            continue
        style = "+".join(found)
        left = [unit for unit in class_.units if not gone(unit)]
        findings.planted[style] += len(class_.units)
        findings.removed[style] += len(class_.units) - len(left)
        if not left:
            continue
        stayed.update(layers[unit.path] for unit in left if unit in of_slice)
        reasons = " / ".join(sorted({reason for unit in left for reason in refusals.get(layers[unit.path], ())}))
        verdict = oracle.verdict(class_, numbers)
        findings.kept[f"{verdict or 'COULD GO'}: {reasons or 'no reason recorded'}"] += len(left)
        if not verdict and not any(reason in reasons for reason in TOGETHER):
            findings.could_go += len(left)
        weaker = any(reason in reasons for reason in (*TOGETHER, *WEAKER))
        if not verdict and not weaker and not (reasons == TIED and anywhere):
            findings.problems.append(f"seed {seed}: {left} could go, but stay: {reasons or 'no reason recorded'}")
    for layer, count in stayed.items():
        if count > refusals.get(layer, Counter()).total():
            findings.problems.append(f"seed {seed}: {layer} keeps {count} dead units, recorded are {refusals.get(layer)}")


def _refusals(optimised: Optimised) -> dict[str, Counter[str]]:
    """How many channels each layer keeps, by reason; a refusal without a number is about the whole layer."""
    found: dict[str, Counter[str]] = {}
    for decision in optimised.decisions:
        if decision.stage == "shrink" and decision.outcome == "refused":
            count = decision.channels or decision.before or 0
            found.setdefault(decision.layer, Counter())[decision.reason.rpartition(" kept: ")[2]] += count
    return found


def kept_units(graph: Graph, optimised: Optimised, path: str) -> dict[int, list[int]]:
    """The indices left of each axis of a kernel that lost some."""
    edit = optimised.plan.edits.get(path)
    if edit is None:
        return {}
    if edit.groups is None:
        return {axis: indices.tolist() for axis, indices in edit.kept.items()}
    *_, inputs, outputs = graph.weights[path].shape
    width = outputs // edit.groups.count
    left = [
        int(rows[0]) // inputs * width + int(column)
        for rows, columns in zip(edit.groups.inputs, edit.groups.outputs, strict=True)
        for column in columns
    ]
    return {graph.weights[path].ndim - 1: left}
