"""Compiling: from a Keras file or model to bundles and ONNX files, with the outputs checked on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsec.backends import KerasOrigin, OnnxOptions, Product, check_target
from sparsec.bundle import BundleMeta, InputSample, sample_inputs, selfcheck_of
from sparsec.bundle.selfcheck import DEFAULT_SEED, SelfCheck
from sparsec.comparison import DEFAULT_TOLERANCE, OutputComparison, compare_all
from sparsec.encodings import ENCODINGS, LEVELS
from sparsec.errors import GraphError, InputError, VerificationError
from sparsec.frontends import read
from sparsec.heap import give_back
from sparsec.ir import BATCH, Array, Graph, evaluate
from sparsec.layers import LayerFacts, layer_facts, total_of
from sparsec.lowering import lower
from sparsec.ops import check, evaluate_graph
from sparsec.passes import Decision, Rounding, ShrinkPlan, multiple_of, optimise
from sparsec.program import Program
from sparsec.record import Outcome, manifest_report, outcomes
from sparsec.runtime import Model
from sparsec.sampling import guess_ranges
from sparsec.shapes import given_shapes, open_sizes
from sparsec.text import Column, Row, bytes_text, change, change_text, percent, render
from sparsec.verification import explain

if TYPE_CHECKING:
    import keras

Progress = Callable[[str, float], None]
"""Called with what is being done, and how much of the whole is done, from 0 to 1."""

TRIED_SIZES = (64, 128, 256)
"""What sizes that the model leaves open are in the check, the first that the model takes."""

NO_SOURCES = {".onnx": "ONNX files are not a source for compile yet", ".npz": "a bundle is compiled already"}

COLUMNS = (
    Column("Layer"),
    Column("Operators"),
    Column("Channels", numeric=True),
    Column("Parameters", numeric=True),
    Column("MACs", numeric=True),
    Column("Zeros", numeric=True),
    Column("Stored as"),
    Column("Bytes", numeric=True),
    Column("What happened, and why"),
)


@dataclass(frozen=True, eq=False, repr=False)
class Compiled:
    """A compiled model.

    Attributes:
        program: what it computes, with encoded weights, as a bundle holds it.
        plan: what shrinking did, in the source's own terms.
        decisions: what every pass decided, in order.
        before: the layers of the source.
        after: what is left of them.
        comparisons: how each output compares with the original's; empty where that was not checked.
        meta: what a bundle says beside the program.
        level: of a bundle.
        onnx: how an ONNX file is written.
        source: how messages call the source.
        path: of the source; ``None`` for a model in memory.
    """

    program: Program
    plan: ShrinkPlan
    decisions: tuple[Decision, ...]
    before: tuple[LayerFacts, ...]
    after: tuple[LayerFacts, ...]
    comparisons: tuple[OutputComparison, ...]
    meta: BundleMeta
    level: str
    onnx: OnnxOptions
    source: str
    path: Path | None = None

    def __repr__(self) -> str:
        return f"<Compiled {self.headline().partition(chr(10))[0]}>"

    @property
    def graph(self) -> Graph:
        """What it computes, with weights that are decoded anew at every call: they take as much memory as the original's."""
        return self.program.graph()

    @property
    def dense_bytes(self) -> int:
        """The bytes of the source's weights."""
        return sum(layer.dense_bytes for layer in self.before)

    @property
    def stored_bytes(self) -> int:
        """The bytes of the weights in a bundle, estimated."""
        return sum(note.bytes for note in self.program.notes.values())

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """What became of every layer of the source, by its path, in order of execution."""
        return outcomes(self.before, self.after, self.decisions)

    def rows(self) -> list[Row]:
        """What happened to each layer that has weights or was decided upon; the columns are :data:`COLUMNS`."""
        left = {layer.layer: layer for layer in self.after}
        found = self.outcomes
        return [
            _row(layer, left.get(layer.layer), found[layer.layer])
            for layer in self.before
            if layer.weights or found[layer.layer].notes
        ]

    def headline(self) -> str:
        """What came of it, in a line or two."""
        parameters = sum(layer.parameters for layer in self.before)
        kept = sum(layer.parameters - layer.zeros for layer in self.after)
        sizes = f"{bytes_text(self.dense_bytes)} -> {bytes_text(self.stored_bytes)}"
        lines = [f"{self.source}: {parameters:,} parameters, {kept:,} of them left and not zero; weights {sizes}"]
        macs = change_text(*(total_of(layer.macs for layer in layers) for layers in (self.before, self.after)))
        if macs:
            lines.append(f"{macs} multiply-accumulates for one sample")
        if self.comparisons:
            worst = max(self.comparisons, key=lambda output: output.relative)
            lines.append(
                f"verified in sparsec's runtime on a random input: outputs are off by {worst.relative:.1e} of their range "
                f"({DEFAULT_TOLERANCE:g} is allowed)"
            )
        else:
            lines.append("not verified")
        return "\n".join(lines)

    def summary(self) -> str:
        """What happened to each layer, and why, as plain text."""
        return render(COLUMNS, self.rows()) + "\n\n" + self.headline()

    @property
    def report(self) -> dict[str, Any]:
        """All of it as a JSON object."""
        left = {layer.layer: layer for layer in self.after}
        found = self.outcomes
        return {
            "source": self.source,
            "source_sha256": self.meta.source_sha256,
            "name": self.program.name,
            "options": dict(self.meta.options),
            "layers": [
                {
                    "layer": layer.layer,
                    "operators": list(layer.operators),
                    "before": _sizes(layer),
                    "after": _sizes(left[layer.layer]) if layer.layer in left else None,
                    "channels": found[layer.layer].to_json()["channels"],
                    "encoding": left[layer.layer].encodings if layer.layer in left else "",
                    "bytes": _stored(left[layer.layer]) if layer.layer in left else 0,
                    "notes": list(found[layer.layer].notes),
                }
                for layer in self.before
            ],
            "parameters": {
                "before": sum(layer.parameters for layer in self.before),
                "after": sum(layer.parameters for layer in self.after),
                "nonzero": sum(layer.parameters - layer.zeros for layer in self.after),
            },
            "macs": {
                "before": total_of(layer.macs for layer in self.before),
                "after": total_of(layer.macs for layer in self.after),
            },
            "bytes": {"dense": self.dense_bytes, "stored": self.stored_bytes},
            "verification": {
                "tolerance": DEFAULT_TOLERANCE,
                "outputs": [output.to_json() for output in self.comparisons],
            }
            if self.comparisons
            else None,
            "decisions": [decision.to_json() for decision in self.decisions],
        }

    def save(self, path: str | Path) -> dict[str, Any]:
        """Write the model; the suffix picks the format: ``.npz`` for a bundle, ``.onnx`` for ONNX, or the source's own.

        A ``.keras`` or ``.h5`` file is the source itself without the channels that shrinking removed; nothing is folded.

        Args:
            path: the file to write; an existing one is replaced once the new one is complete.

        Returns:
            facts about the file as JSON values: ``path``, ``format``, ``bytes`` and what the format has to say.

        Raises:
            InputError: the suffix is unknown, or the file cannot be written.
            MissingExtraError: what the format needs is not installed.
            UnsupportedOperatorError: the format cannot express the model.
        """
        path = Path(path)
        backend = check_target(path)
        # Sizes that were given may have proven what does not hold for others, and a Keras file leaves them open.
        plan = None if self.meta.options.get("input_shape") else self.plan
        origin = KerasOrigin(self.path, self.meta.source_sha256, plan)
        facts = backend.write(path, Product(self.program, self.level, self.meta, self.onnx, origin))
        return {"path": str(path), "format": backend.what, **facts}


def compile(  # noqa: A001
    source: str | Path | keras.Model,
    *,
    shrink: bool = True,
    round_to: Rounding = "auto",
    encoding: str = "auto",
    level: str = "plain",
    onnx_weights: str = "auto",
    opset: int = 17,
    onnx_layout: str = "nhwc",
    input_shape: Sequence[Sequence[int]] | None = None,
    verify: bool = True,
    progress: Progress | None = None,
) -> Compiled:
    """Compile a Keras model: remove what pruning killed, fold what can be folded, store what is left compactly.

    Args:
        source: the path of a ``.keras``, ``.h5`` or ``.hdf5`` file, or a model in memory.
        shrink: whether channels that pruning killed are removed.
        round_to: keep just enough of them to make the width of every layer a multiple of this, for targets that are slow with
            odd widths; ``auto`` is 8 or 4 in models with depthwise convolutions, and else 1, for none.
        encoding: of the weight matrices: ``auto``, ``dense``, ``csr``, ``coo`` or ``bitmap``.
        level: of bundles: ``plain`` is smaller, ``stored`` can be mapped into memory.
        onnx_weights: in ONNX files: ``dense``, ``sparse``, or ``auto`` for whichever is smaller.
        opset: the operator set of ONNX files.
        onnx_layout: ``nhwc`` keeps the axes of inputs and outputs in ONNX files, ``nchw`` moves channels to axis 1.
        input_shape: the shape of each input, without the batch, where the model leaves sizes open.
        verify: whether the outputs are checked against the original's, which also puts a self-check into bundles.
        progress: called as the work goes on.

    Returns:
        the compiled model; nothing is written yet.

    Raises:
        InputError: there is no such file, an option is out of range, or a weight is not finite.
        FormatError: the file is damaged or not what its suffix promises.
        UnsupportedLayerError: the model holds a layer, or an option of one, that sparsec does not read.
        VerificationError: the compiled model's outputs differ from the original's.
    """
    report = progress or (lambda _what, _done: None)
    onnx = OnnxOptions(onnx_weights, opset, onnx_layout)
    onnx.check()
    for what, value, allowed in (("encoding", encoding, ENCODINGS), ("level", level, LEVELS)):
        if value not in allowed:
            raise InputError(f"there is no {what} {value!r}; use one of {', '.join(allowed)}")
    multiple = multiple_of(round_to)
    _check_source(source)
    shapes = None if input_shape is None else given_shapes(input_shape)
    report("reading", 0.0)
    model = read(source, shapes)
    description, sha256, original = model.description, model.sha256 or None, model.graph
    # Each form of the weights goes as soon as the next one is there: a network may take most of the memory.
    del model
    report("evaluating the original", 0.1)
    expected = _evaluate(original) if verify else None
    report("looking at the layers", 0.25)
    before = layer_facts(original)
    optimised = optimise(original, shrink=shrink, round_to=multiple, progress=lambda name: report(f"optimising: {name}", 0.3))
    del original
    give_back()
    program = lower(optimised.graph, level, encoding, lambda done, total: report("encoding weights", 0.5 + 0.3 * done / total))
    after = layer_facts(optimised.graph, program.notes)
    plan, decisions = optimised.plan, optimised.decisions
    del optimised
    give_back()
    report("verifying", 0.8)
    comparisons = _verify(program, expected, lambda: read(source, shapes).graph) if expected is not None else ()
    options = {"shrink": shrink, "round_to": round_to, "encoding": encoding, "input_shape": shapes}
    meta = BundleMeta(
        source_sha256=sha256,
        options=options,
        report=manifest_report(outcomes(before, after, decisions).values(), decisions),
        selfcheck=expected.selfcheck() if expected is not None else None,
    )
    report("done", 1.0)
    return Compiled(
        program,
        plan,
        decisions,
        before,
        after,
        comparisons,
        meta,
        level,
        onnx,
        description,
        Path(source) if isinstance(source, str | Path) else None,
    )


def _check_source(source: object) -> None:
    suffix = Path(source).suffix.lower() if isinstance(source, str | Path) else ""
    if suffix in NO_SOURCES:
        raise InputError(f"{source}: {NO_SOURCES[suffix]}; give the Keras file that it was made from")


@dataclass(frozen=True, eq=False)
class _Expected:
    """What the original makes of one generated sample, in float64."""

    samples: tuple[InputSample, ...]
    names: tuple[str, ...]
    outputs: tuple[Array, ...]

    def selfcheck(self) -> SelfCheck | None:
        return selfcheck_of(self.samples, self.outputs)


def _evaluate(graph: Graph) -> _Expected:
    bound, sizes = _closed(graph)
    samples = tuple(
        InputSample(i.type.dtype, tuple(evaluate(dim, sizes) for dim in i.type.shape), wanted.low, wanted.high)
        for i, wanted in zip(graph.inputs, guess_ranges(graph), strict=True)
    )
    # One evaluation serves both this check and the one that travels with bundles.
    with np.errstate(all="ignore"):
        outputs = evaluate_graph(bound, sample_inputs(samples, DEFAULT_SEED), dtype="float64")
    names = tuple(port.name for port in graph.outputs)
    for name, output in zip(names, outputs, strict=True):
        if not np.isfinite(output).all():
            raise VerificationError(
                f"output {name!r} of the original is not finite (NaN or infinity) on a random input, so there is nothing to "
                "compare; mend the model, or compile it without verification"
            )
    return _Expected(samples, names, outputs)


def _closed(graph: Graph) -> tuple[Graph, dict[str, int]]:
    """The graph for one sample, with open sizes bound to the first of :data:`TRIED_SIZES` that it takes."""
    names = open_sizes(graph)
    problem = ""
    for size in TRIED_SIZES if names else (0,):
        sizes = {**dict.fromkeys(names, size), BATCH: 1}
        bound = graph.bind(sizes)
        try:
            check(bound, after="binding its open sizes")
        except GraphError as error:
            problem = str(error)
        else:
            return bound, sizes
    raise InputError(f"the model leaves sizes open, and none that was tried fits it; give --input-shape ({problem})")


def _verify(program: Program, expected: _Expected, original: Callable[[], Graph]) -> tuple[OutputComparison, ...]:
    inputs = sample_inputs(expected.samples, DEFAULT_SEED)
    comparisons = compare_all(expected.names, expected.outputs, Model(program).run(inputs))
    failed = [output for output in comparisons if not output.passed]
    if failed:
        raise VerificationError(
            "the compiled model differs from the original, so nothing is written: "
            f"{'; '.join(map(explain, failed))}; {_blame(failed, expected, inputs, original())}"
        )
    return comparisons


def _blame(failed: Sequence[OutputComparison], expected: _Expected, inputs: Sequence[Array], original: Graph) -> str:
    """Whether the model amplifies rounding on these inputs, so that nothing can be told from them, or sparsec is at fault."""
    with np.errstate(all="ignore"):
        rounded = evaluate_graph(_closed(original)[0], inputs)
    comparisons = compare_all(expected.names, expected.outputs, rounded)
    own = {output.output: output for output in comparisons if not output.equal}
    if not all(output.output in own for output in failed):
        return "this is a defect of sparsec: please report it with the model"
    return (
        "but on this random input rounding alone does as much to the original, in float32 against float64 "
        f"({explain(own[failed[0].output])}): compile without verification (--no-verify), "
        "and verify the result on inputs of your own"
    )


def _sizes(layer: LayerFacts) -> dict[str, Any]:
    return {
        "shape": list(layer.shape),
        "parameters": layer.parameters,
        "macs": layer.macs,
        "zeros": layer.zeros,
        "units": layer.units,
        "zero_units": layer.zero_units,
    }


def _stored(layer: LayerFacts) -> int:
    return sum(weight.stored_bytes for weight in layer.weights)


def _row(before: LayerFacts, after: LayerFacts | None, outcome: Outcome) -> Row:
    units, parameters = (after.units, after.parameters) if after is not None else (0, 0)
    return (
        before.layer,
        " ".join(before.operators),
        change(before.units, units) if before.units else "",
        change(before.parameters, parameters),
        _macs(before.macs, 0 if after is None else after.macs),
        percent(before.zeros, before.parameters),
        after.encodings if after is not None else "",
        bytes_text(_stored(after)) if after is not None and after.weights else "",
        "; ".join(outcome.notes),
    )


def _macs(before: int | None, after: int | None) -> str:
    """Empty for layers that have none, such as activations."""
    return change_text(before, after) if before != 0 or after != 0 else ""
