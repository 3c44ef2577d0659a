"""What a model is made of, layer by layer: sizes, zeros, units that pruning killed, and bytes in each encoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.bundle import read_bundle
from sparsec.errors import FormatError, InputError
from sparsec.extras import require
from sparsec.files import check_input
from sparsec.frontends import SUFFIXES as KERAS_SUFFIXES
from sparsec.frontends import read
from sparsec.ir import Array, Graph
from sparsec.layers import LayerFacts, WeightFacts, layer_facts, total_of, weight_facts
from sparsec.lowering import lower
from sparsec.ops import infer_types
from sparsec.passes import optimise
from sparsec.record import Cost, Outcome, outcomes, recorded

Progress = Callable[[str, float], None]
"""Called with what is being done, and how much of the whole is done, from 0 to 1."""

SUFFIXES = (*KERAS_SUFFIXES, ".npz", ".onnx")


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
        outcomes: what compiling does to each layer of a Keras file, or did to each of the source of a bundle, by path; layers
            that it did nothing to may be missing.
    """

    source: str
    kind: str
    name: str
    details: Mapping[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[LayerFacts, ...]
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)

    @property
    def macs(self) -> int | None:
        """The multiply-accumulates for one sample; ``None`` where they depend on sizes that are open."""
        return total_of(layer.macs for layer in self.layers)

    @property
    def gone(self) -> tuple[Outcome, ...]:
        """The layers of the source of a bundle that it holds no more."""
        held = {layer.layer for layer in self.layers}
        return tuple(outcome for layer, outcome in self.outcomes.items() if layer not in held)

    @property
    def before(self) -> Cost | None:
        """What the source takes; ``None`` where that is not known."""
        return self._total([outcome.before for outcome in self.outcomes.values()])

    @property
    def after(self) -> Cost | None:
        """What is left of it once it is compiled; ``None`` where that is not known."""
        return self._total([outcome.after for outcome in self.outcomes.values()])

    def _total(self, costs: Sequence[Cost | None]) -> Cost | None:
        known = [cost for cost in costs if cost is not None]
        return Cost.total(known) if known else None

    def to_json(self) -> dict[str, Any]:
        """The outcome as a JSON object."""
        return {
            "source": self.source,
            "kind": self.kind,
            "name": self.name,
            "details": dict(self.details),
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "layers": [self._layer_json(layer) for layer in self.layers],
            "gone": [{**outcome.to_json(), "notes": list(outcome.notes)} for outcome in self.gone],
            "parameters": sum(layer.parameters for layer in self.layers),
            "macs": self.macs,
            "zeros": sum(layer.zeros for layer in self.layers),
            "dense_bytes": sum(layer.dense_bytes for layer in self.layers),
            **{side: None if cost is None else asdict(cost) for side, cost in (("before", self.before), ("after", self.after))},
        }

    def _layer_json(self, layer: LayerFacts) -> dict[str, Any]:
        outcome = self.outcomes.get(layer.layer, Outcome(layer.layer, None, None, None, ()))
        return {**layer.to_json(), **outcome.to_json(), "notes": list(outcome.notes)}


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


def _inspect_keras(path: Path, report: Progress) -> Inspection:
    report("reading", 0.0)
    model = read(path)
    report("looking for what can be removed", 0.1)
    optimised = optimise(model.graph, round_to=None)
    program = lower(model.graph, progress=lambda done, total: report("measuring encodings", 0.3 + 0.7 * done / total))
    details = {"saved by": f"Keras {model.saved_by.version}", "SHA-256": model.sha256}
    # Encodings are those that compile would choose if it removed nothing: bytes belong to the file as it is.
    layers = layer_facts(model.graph, program.notes)
    found = outcomes(layers, layer_facts(optimised.graph), optimised.decisions)
    return _inspection(path, "keras", model.graph, details, layers, found)


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
    layers = layer_facts(graph, program.notes, encodings)
    return _inspection(path, "bundle", graph, details, layers, recorded(bundle.meta.report))


def _inspection(
    path: Path,
    kind: str,
    graph: Graph,
    details: Mapping[str, str],
    layers: tuple[LayerFacts, ...],
    found: Mapping[str, Outcome],
) -> Inspection:
    types = infer_types(graph)
    return Inspection(
        str(path),
        kind,
        graph.name,
        details,
        tuple(f"{entry.name}: {entry.type}" for entry in graph.inputs),
        tuple(f"{port.name}: {types[port.value]}" for port in graph.outputs),
        layers,
        found,
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
            WeightFacts(name, shape, values.dtype.name, size - nonzeros, 0, 0, 0, size * values.itemsize, "sparse_initializer")
        )
    readers = {name: node.op_type for node in reversed(model.graph.node) for name in node.input}
    layers = tuple(LayerFacts(w.path, (readers.get(w.path, "unused"),), w.shape, (w,), None) for w in weights)
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
