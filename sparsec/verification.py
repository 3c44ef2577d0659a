"""Verifying an artefact against its reference: both run on the same inputs, and their outputs are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsec.arrays import load_data, load_inputs
from sparsec.bundle import SelfCheckResult, read_bundle
from sparsec.comparison import DEFAULT_TOLERANCE, OutputComparison, accuracy, compare_all
from sparsec.errors import InputError
from sparsec.executors import Executor, open_artefact, open_keras, run_in_memory
from sparsec.frontends import KerasModel, read
from sparsec.ir import Array, Graph, format_shape
from sparsec.runtime import Model
from sparsec.runtime.signature import arrange_inputs, bind_sizes, convert_inputs
from sparsec.sampling import InputRange, draw, given_ranges, guess_ranges
from sparsec.shapes import bind_shapes, given_shapes, open_sizes

if TYPE_CHECKING:
    import keras

COMPILED_SUFFIXES = (".npz", ".onnx")
DEFAULT_SAMPLES = 16
DEFAULT_SIZE = 64
"""What sizes are that both the model and the artefact leave open."""

Progress = Callable[[str, float], None]
"""Called with what is being done, and how much of the whole is done, from 0 to 1."""


@dataclass(frozen=True)
class Verification:
    """The outcome of :func:`verify`.

    Attributes:
        reference: how messages call the reference.
        artefact: likewise.
        reference_engine: what ran the reference.
        artefact_engine: what ran the artefact.
        samples: how many inputs were compared.
        inputs: where the inputs came from.
        tolerance: the difference that is allowed, as a part of each output's range.
        outputs: the comparison of each output, in order.
        accuracy: of the reference and of the artefact, where there were labels.
        notes: what else a reader of the result should know.
    """

    reference: str
    artefact: str
    reference_engine: str
    artefact_engine: str
    samples: int
    inputs: str
    tolerance: float
    outputs: tuple[OutputComparison, ...]
    accuracy: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every output passed."""
        return all(output.passed for output in self.outputs)

    @property
    def failures(self) -> tuple[str, ...]:
        """One line for each output that failed."""
        return tuple(explain(output) for output in self.outputs if not output.passed)

    def to_json(self) -> dict[str, Any]:
        """The outcome as a JSON object."""
        return {
            "passed": self.passed,
            "reference": {"file": self.reference, "engine": self.reference_engine},
            "artefact": {"file": self.artefact, "engine": self.artefact_engine},
            "samples": self.samples,
            "inputs": self.inputs,
            "tolerance": self.tolerance,
            "outputs": [output.to_json() for output in self.outputs],
            "accuracy": None if self.accuracy is None else {"reference": self.accuracy[0], "artefact": self.accuracy[1]},
            "notes": list(self.notes),
        }


def explain(output: OutputComparison) -> str:
    """Why an output failed, in one line."""
    if not np.isfinite(output.difference):
        return f"output {output.output!r} holds values that are not finite"
    if not output.equal:
        return (
            f"output {output.output!r} differs by {output.difference:.3g}, {output.relative:.2g} of its range; "
            f"{output.allowed:.3g} is allowed"
        )
    return (
        f"output {output.output!r} does not vary over the samples, so equal outputs prove nothing; give inputs that matter "
        "with --input or --input-range"
    )


def verify(
    reference: str | Path | keras.Model,
    artefact: str | Path,
    *,
    inputs: str | Path | Sequence[Array] | None = None,
    data: str | Path | None = None,
    samples: int = DEFAULT_SAMPLES,
    seed: int = 0,
    input_range: tuple[float, float] | None = None,
    input_shape: Sequence[Sequence[int]] | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    progress: Progress | None = None,
) -> Verification:
    """Run a reference and an artefact on the same inputs and compare their outputs.

    Args:
        reference: a Keras file or model; it runs in Keras where that is installed, else in sparsec's own evaluator.
        artefact: a bundle, an ONNX file, or another Keras file.
        inputs: a file of inputs (see :func:`sparsec.arrays.load_inputs`), or one array for each input; random by default.
        data: an ``.npz`` of inputs and labels, for the accuracy of both; these are the inputs unless others are given.
        samples: how many random inputs.
        seed: of the random inputs.
        input_range: low and high of the random inputs; guessed by default from a Rescaling or Normalization that comes first.
        input_shape: the shape of each input, without the batch, where the model leaves sizes open.
        tolerance: the difference that is allowed, as a part of each output's range.
        progress: called as the work goes on.

    Raises:
        InputError: a file does not exist, or the inputs do not fit the model.
        FormatError: a file cannot be read.
        UnsupportedLayerError: sparsec does not read the reference.
        MissingExtraError: what runs the artefact is not installed.
    """
    report = progress or (lambda _what, _done: None)
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"the tolerance {tolerance:g} is not a number of 0 or more")
    shapes = None if input_shape is None else given_shapes(input_shape)
    if isinstance(reference, str | Path) and Path(reference).suffix.lower() in COMPILED_SUFFIXES:
        raise InputError(
            f"{reference}: the reference is a Keras file and comes first: sparsec verify ORIGINAL.keras {reference}"
        )
    report("reading the models", 0.0)
    model = read(reference, shapes)
    compiled = open_artefact(Path(artefact), model.graph)
    _check_same_inputs(model, compiled, Path(artefact))
    labelled = load_data(Path(data), [i.name for i in model.graph.inputs]) if data is not None else None
    notes: list[str] = []
    if inputs is not None:
        arrays = (
            load_inputs(Path(inputs), [i.name for i in model.graph.inputs]) if isinstance(inputs, str | Path) else list(inputs)
        )
        origin = str(inputs) if isinstance(inputs, str | Path) else "given arrays"
    elif labelled is not None:
        arrays, origin = labelled[0], str(data)
    else:
        arrays, origin = _random(model.graph, compiled, samples, seed, input_range)
    arrays = _checked(model.graph, arrays)
    report("starting the reference", 0.1)
    in_file = isinstance(reference, str | Path)
    original = open_keras(Path(reference), model) if in_file else run_in_memory(reference, model)
    if original.note:
        notes.append(f"the reference ran in {original.engine}: {original.note}")
    if len(arrays[0]) == 1:
        notes.append("a single sample cannot show whether the outputs vary over inputs")
    expected = original(arrays, _part(report, f"running {original.engine}", 0.2, 0.5))
    actual = compiled(arrays, _part(report, f"running {compiled.engine}", 0.5, 0.8))
    result = Verification(
        str(reference) if in_file else model.description,
        str(artefact),
        original.engine,
        compiled.engine,
        len(arrays[0]),
        origin,
        tolerance,
        compare_all(original.output_names, expected, actual, tolerance),
        notes=tuple(notes),
    )
    if labelled is None:
        return result
    if inputs is not None:
        arrays = _checked(model.graph, labelled[0])
        expected = original(arrays, _part(report, f"running {original.engine} on the data", 0.8, 0.9))
        actual = compiled(arrays, _part(report, f"running {compiled.engine} on the data", 0.9, 1.0))
    return replace(result, accuracy=(accuracy(expected[0], labelled[1]), accuracy(actual[0], labelled[1])))


def check_bundle(path: str | Path) -> tuple[tuple[str, ...], SelfCheckResult]:
    """Run the self-check that a bundle carries.

    Returns:
        the names of the model's outputs, and the outcome.

    Raises:
        InputError: there is no such file, or it carries no self-check.
        FormatError: it is no bundle.
    """
    bundle = read_bundle(path)
    selfcheck = bundle.meta.selfcheck
    if selfcheck is None:
        raise InputError(f"{path}: carries no self-check; compare it with its original: sparsec verify ORIGINAL {path}")
    model = Model(bundle.program)
    results = model(selfcheck.make_inputs(), as_dict=True)
    assert isinstance(results, dict)
    return tuple(results), selfcheck.compare(list(results.values()))


def _part(report: Progress, what: str, start: float, end: float) -> Callable[[int, int], None]:
    report(what, start)
    return lambda done, total: report(what, start + (end - start) * done / total)


def _random(
    graph: Graph,
    compiled: Executor,
    samples: int,
    seed: int,
    input_range: tuple[float, float] | None,
) -> tuple[list[Array], str]:
    if samples < 2:
        raise InputError(f"{samples} samples cannot show whether outputs vary; ask for 2 or more")
    if open_sizes(graph):
        graph = bind_shapes(graph, _sizes(graph, compiled))
    ranges = guess_ranges(graph) if input_range is None else given_ranges(graph, *input_range)
    return draw(graph, ranges, samples, seed), _describe(graph, ranges, samples, seed)


def _describe(graph: Graph, ranges: Sequence[InputRange], samples: int, seed: int) -> str:
    drawn = "; ".join(f"{r} {format_shape(i.type.shape[1:])}" for r, i in zip(ranges, graph.inputs, strict=True))
    return f"{samples} random samples, seed {seed}: {drawn}"


def _sizes(graph: Graph, compiled: Executor) -> list[list[int]]:
    """The shape of each input without the batch: what the artefact fixes, or a default."""
    return [
        [
            dim if isinstance(dim, int) else (fixed or DEFAULT_SIZE)
            for dim, fixed in zip(entry.type.shape[1:], shape[1:], strict=True)
        ]
        for entry, shape in zip(graph.inputs, compiled.input_shapes, strict=True)
    ]


def _check_same_inputs(model: KerasModel, compiled: Executor, artefact: Path) -> None:
    wanted, found = [i.type.rank for i in model.graph.inputs], [len(shape) for shape in compiled.input_shapes]
    if wanted != found:
        raise InputError(
            f"{artefact}: takes {len(found)} inputs of {found} axes, {model.description} {len(wanted)} of {wanted}: "
            "is it the same model?"
        )


def _checked(graph: Graph, arrays: Sequence[Array]) -> list[Array]:
    """The inputs in the model's dtypes.

    Raises:
        InputError: they do not fit the model.
    """
    names, types = [i.name for i in graph.inputs], [i.type for i in graph.inputs]
    checked = convert_inputs(arrange_inputs(arrays, names), names, types)
    bind_sizes(checked, names, types)
    if not len(checked[0]):
        raise InputError(f"input {names[0]!r} holds no samples")
    return checked
