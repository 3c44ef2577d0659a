"""What a model is made of, layer by layer: sizes, zeros, units that pruning killed, and bytes in each encoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.bundle import read_bundle
from sparsec.encodings import POSITIONS
from sparsec.encodings.stored import matrix_shape, to_matrix
from sparsec.errors import FormatError, InputError
from sparsec.extras import require
from sparsec.files import check_input
from sparsec.frontends import SUFFIXES as KERAS_SUFFIXES
from sparsec.frontends import read
from sparsec.ir import Array, Graph, Shape
from sparsec.lowering import lower, matrix_rows
from sparsec.ops import infer_types
from sparsec.passes import optimise
from sparsec.program import EncodingNote

Progress = Callable[[str, float], None]
"""Called with what is being done, and how much of the whole is done, from 0 to 1."""

PARTICIPLES = {"shrink": "shrunk", "fold": "folded"}

SUFFIXES = (*KERAS_SUFFIXES, ".npz", ".onnx")


@dataclass(frozen=True)
class WeightFacts:
    """One weight.

    Attributes:
        path: its name.
        shape: its shape.
        dtype: its dtype.
        zeros: the number of elements that are zero.
        units: the rows of its matrix view, the output channels; 0 for what no operator reads as a matrix.
        zero_units: how many of them hold zeros only.
        dense_bytes: the bytes of the values themselves.
        encoding: how it is stored; empty where nothing was chosen.
        bytes: the bytes in a bundle by encoding, estimated after compression; encodings that cannot win may be missing.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    zeros: int
    units: int
    zero_units: int
    dense_bytes: int
    encoding: str = ""
    bytes: Mapping[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def stored_bytes(self) -> int:
        """The bytes in a bundle in its own encoding, estimated; 0 where that is not known."""
        return self.bytes.get(self.encoding, 0)


@dataclass(frozen=True)
class LayerFacts:
    """One layer of the source.

    Attributes:
        layer: its path.
        operators: what it computes, in order.
        shape: of its output, with names for sizes that are open.
        weights: its weights; one that layers share is the first one's.
        notes: what the compiler decided about it, and why.
    """

    layer: str
    operators: tuple[str, ...]
    shape: tuple[int | str, ...]
    weights: tuple[WeightFacts, ...]
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """The number of elements of all weights."""
        return sum(weight.size for weight in self.weights)

    @property
    def zeros(self) -> int:
        """How many of them are zero."""
        return sum(weight.zeros for weight in self.weights)

    @property
    def units(self) -> int:
        """The output channels of its last matrix, 0 where it has none."""
        return next((weight.units for weight in reversed(self.weights) if weight.units), 0)

    @property
    def zero_units(self) -> int:
        """How many of them have zero weights only."""
        return next((weight.zero_units for weight in reversed(self.weights) if weight.units), 0)

    @property
    def dense_bytes(self) -> int:
        """The bytes of the values themselves."""
        return sum(weight.dense_bytes for weight in self.weights)

    @property
    def encodings(self) -> str:
        """How its matrices are stored; how its vectors are where it has no matrix."""
        matrices = [weight.encoding for weight in self.weights if weight.units]
        return ", ".join(dict.fromkeys(matrices or [weight.encoding for weight in self.weights]))

    def bytes_in(self, positions: str) -> int | None:
        """The estimated bytes with one encoding of positions for all matrices; ``None`` where that cannot win."""
        total = 0
        for weight in self.weights:
            wanted = positions if weight.units else ""
            sizes = [size for name, size in weight.bytes.items() if wanted in ("", name.partition("+")[0])]
            if not sizes:
                return None
            total += min(sizes)
        return total

    def to_json(self) -> dict[str, Any]:
        """The layer as a JSON object."""
        return {
            "layer": self.layer,
            "operators": list(self.operators),
            "shape": list(self.shape),
            "parameters": self.parameters,
            "zeros": self.zeros,
            "units": self.units,
            "zero_units": self.zero_units,
            "dense_bytes": self.dense_bytes,
            "bytes": {name: self.bytes_in(name) for name in POSITIONS},
            "notes": list(self.notes),
            "weights": [{**asdict(weight), "bytes": dict(weight.bytes)} for weight in self.weights],
        }


@dataclass(frozen=True)
class Inspection:
    """The outcome of :func:`inspect`.

    Attributes:
        source: the file.
        kind: ``keras``, ``bundle`` or ``onnx``.
        name: the model's name.
        details: facts about the file itself, for the head of a table.
        inputs: name and type of each input.
        outputs: name and type of each output.
        layers: in order of execution.
    """

    source: str
    kind: str
    name: str
    details: Mapping[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[LayerFacts, ...]

    def to_json(self) -> dict[str, Any]:
        """The outcome as a JSON object."""
        return {
            "source": self.source,
            "kind": self.kind,
            "name": self.name,
            "details": dict(self.details),
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "layers": [layer.to_json() for layer in self.layers],
            "parameters": sum(layer.parameters for layer in self.layers),
            "zeros": sum(layer.zeros for layer in self.layers),
            "dense_bytes": sum(layer.dense_bytes for layer in self.layers),
        }


def inspect(path: str | Path, progress: Progress | None = None) -> Inspection:
    """Say what a model file is made of.

    Args:
        path: a Keras file, a bundle or an ONNX file.
        progress: called as the work goes on.

    Raises:
        InputError: there is no such file, or its suffix is unknown.
        FormatError: it cannot be read.
        UnsupportedLayerError: a Keras file holds a layer that sparsec does not read.
        MissingExtraError: it is an ONNX file and onnx is not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: the suffix {path.suffix!r} is not one of a model ({', '.join(SUFFIXES)})")
    check_input(path)
    report = progress or (lambda _what, _done: None)
    if suffix == ".onnx":
        return _inspect_onnx(path)
    return _inspect_bundle(path, report) if suffix == ".npz" else _inspect_keras(path, report)


def layer_facts(
    graph: Graph,
    notes: Mapping[str, EncodingNote] | None = None,
    encodings: Mapping[str, str] | None = None,
    remarks: Mapping[str, Sequence[str]] | None = None,
) -> tuple[LayerFacts, ...]:
    """The layers of a graph, in order of execution.

    Args:
        graph: a checked graph.
        notes: what lowering found about each weight.
        encodings: how each weight is stored, where that is not what lowering chose.
        remarks: what was decided, by layer.
    """
    types = infer_types(graph)
    rows = matrix_rows(graph)
    operators: dict[str, dict[str, None]] = {}
    shapes: dict[str, Shape] = {}
    owned: dict[str, list[str]] = {}
    taken: set[str] = set()
    for node in graph.nodes:
        layer = node.layer or node.name
        operators.setdefault(layer, {})[node.op] = None
        shapes[layer] = types[node.outputs[0]].shape
        for value in node.inputs:
            if value in graph.weights and value not in taken:
                taken.add(value)
                owned.setdefault(layer, []).append(value)
    return tuple(
        LayerFacts(
            layer,
            tuple(ops),
            tuple(dim if isinstance(dim, int) else str(dim) for dim in shapes[layer]),
            tuple(
                weight_facts(path, graph.weights[path], rows.get(path), (notes or {}).get(path), (encodings or {}).get(path))
                for path in owned.get(layer, ())
            ),
            tuple((remarks or {}).get(layer, ())),
        )
        for layer, ops in operators.items()
    )


def describe(decision: Mapping[str, Any]) -> str:
    """A decision of a pass in words, from its JSON form."""
    stage, outcome, reason = (str(decision.get(key, "")) for key in ("stage", "outcome", "reason"))
    before, after = decision.get("before"), decision.get("after")
    if outcome == "refused":
        # Some of a layer's channels may go and others not; each is a decision of its own.
        what = f"not {PARTICIPLES.get(stage, stage)}{' further' if before != after else ''}"
    else:
        what = outcome if before is None else f"{outcome} {before} -> {after}"
    return f"{what}: {reason}" if reason else what


def weight_facts(
    path: str, array: Array, rows: tuple[int, ...] | None, note: EncodingNote | None = None, encoding: str | None = None
) -> WeightFacts:
    """The facts about one weight.

    Args:
        path: its name.
        array: its values.
        rows: the axes that make up the rows of its matrix view; ``None`` for what is no matrix.
        note: what lowering found about it.
        encoding: how it is stored, where that is not what lowering chose.
    """
    units = zero_units = 0
    if rows is not None:
        units = matrix_shape(array.shape, rows)[0]
        zero_units = units - int(np.count_nonzero(to_matrix(array, rows).any(axis=1)))
    return WeightFacts(
        path,
        tuple(int(size) for size in array.shape),
        array.dtype.name,
        array.size - int(np.count_nonzero(array)),
        units,
        zero_units,
        array.nbytes,
        encoding or (note.encoding if note is not None else ""),
        dict(note.candidates) if note is not None else {},
    )


def _inspect_keras(path: Path, report: Progress) -> Inspection:
    report("reading", 0.0)
    model = read(path)
    report("looking for what can be removed", 0.1)
    remarks: dict[str, list[str]] = {}
    for decision in optimise(model.graph, round_to=None).decisions:
        remarks.setdefault(decision.layer, []).append(describe(decision.to_json()))
    program = lower(model.graph, progress=lambda done, total: report("measuring encodings", 0.3 + 0.7 * done / total))
    details = {"saved by": f"Keras {model.saved_by.version}", "SHA-256": model.sha256}
    # Encodings are those that compile would choose if it removed nothing: bytes belong to the file as it is.
    return _inspection(path, "keras", model.graph, details, layer_facts(model.graph, program.notes, remarks=remarks))


def _inspect_bundle(path: Path, report: Progress) -> Inspection:
    report("reading", 0.0)
    bundle = read_bundle(path)
    graph = bundle.program.graph()
    program = lower(
        graph, bundle.meta.level, progress=lambda done, total: report("measuring encodings", 0.2 + 0.8 * done / total)
    )
    details = {
        "level": bundle.meta.level,
        "written by": f"sparsec {bundle.meta.sparsec_version}",
        "source SHA-256": bundle.meta.source_sha256 or "none: it was compiled from a model in memory",
        "self-check": "present" if bundle.meta.selfcheck is not None else "none",
        "file": f"{path.stat().st_size:,} bytes",
    }
    encodings = {name: stored.encoding for name, stored in bundle.program.tensors.items()}
    return _inspection(
        path, "bundle", graph, details, layer_facts(graph, program.notes, encodings, _remarks(bundle.meta.report))
    )


def _remarks(report: Mapping[str, Any] | None) -> dict[str, list[str]]:
    remarks: dict[str, list[str]] = {}
    for item in (report or {}).get("decisions", ()):
        remarks.setdefault(str(item.get("layer", "")), []).append(describe(item))
    return remarks


def _inspection(path: Path, kind: str, graph: Graph, details: Mapping[str, str], layers: tuple[LayerFacts, ...]) -> Inspection:
    types = infer_types(graph)
    return Inspection(
        str(path),
        kind,
        graph.name,
        details,
        tuple(f"{entry.name}: {entry.type}" for entry in graph.inputs),
        tuple(f"{port.name}: {types[port.value]}" for port in graph.outputs),
        layers,
    )


def _inspect_onnx(path: Path) -> Inspection:
    onnx = require("onnx", extra="onnx", purpose="to read ONNX files")
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf's decoding errors have no common base
        raise FormatError(f"{path}: not an ONNX file ({str(error).partition(chr(10))[0]})") from None
    weights = [
        weight_facts(tensor.name, _array(onnx, tensor, path), None, encoding="dense") for tensor in model.graph.initializer
    ]
    for tensor in model.graph.sparse_initializer:
        values = _array(onnx, tensor.values, path)
        shape = tuple(int(size) for size in tensor.dims)
        size = int(np.prod(shape, dtype=np.int64))
        nonzeros = int(np.count_nonzero(values))
        name = tensor.values.name
        weights.append(
            WeightFacts(name, shape, values.dtype.name, size - nonzeros, 0, 0, size * values.itemsize, "sparse_initializer")
        )
    readers = {name: node.op_type for node in reversed(model.graph.node) for name in node.input}
    layers = tuple(LayerFacts(w.path, (readers.get(w.path, "unused"),), w.shape, (w,)) for w in weights)
    details = {
        "opset": ", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in model.opset_import),
        "IR version": str(model.ir_version),
        "producer": f"{model.producer_name} {model.producer_version}".strip() or "not stated",
        "file": f"{path.stat().st_size:,} bytes",
    }
    inputs, outputs = (tuple(_value(onnx, entry) for entry in entries) for entries in (model.graph.input, model.graph.output))
    return Inspection(str(path), "onnx", model.graph.name, details, inputs, outputs, layers)


def _array(onnx: Any, tensor: Any, path: Path) -> Array:
    try:
        return np.asarray(onnx.numpy_helper.to_array(tensor, str(path.parent)))
    except (ValueError, TypeError, OSError) as error:
        raise FormatError(f"{path}: initialiser {tensor.name!r} cannot be read ({error})") from None


def _value(onnx: Any, entry: Any) -> str:
    type_ = entry.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(type_.elem_type).name if type_.elem_type else "unknown"
    dims = ", ".join(dim.dim_param or (str(dim.dim_value) if dim.HasField("dim_value") else "?") for dim in type_.shape.dim)
    return f"{entry.name}: {dtype}({dims})"
