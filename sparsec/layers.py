"""What the layers of a graph are made of: sizes, zeros, units that pruning killed, and bytes in each encoding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from sparsec.encodings import POSITIONS
from sparsec.encodings.stored import matrix_shape, to_matrix
from sparsec.ir import Array, Graph, Shape
from sparsec.lowering import matrix_rows
from sparsec.ops import get_op, infer_types, node_macs
from sparsec.program import EncodingNote


@dataclass(frozen=True)
class WeightFacts:
    """One weight.

    Attributes:
        path: its name.
        shape: its shape.
        dtype: its dtype.
        zeros: the number of elements that are zero.
        units: the output channels to which the rows of its matrix view belong; 0 for what no operator reads as a matrix.
        zero_units: how many of them have zeros only.
        channels: the same for the kernel that makes a layer's channels, 0 for others, such as the recurrent kernel of an LSTM.
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
    channels: int
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
        macs: its multiply-accumulates for one sample, over all its calls; ``None`` where they depend on sizes that are open.
    """

    layer: str
    operators: tuple[str, ...]
    shape: tuple[int | str, ...]
    weights: tuple[WeightFacts, ...]
    macs: int | None

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
            "macs": self.macs,
            "zeros": self.zeros,
            "units": self.units,
            "zero_units": self.zero_units,
            "dense_bytes": self.dense_bytes,
            "bytes": {name: self.bytes_in(name) for name in POSITIONS},
            "weights": [{**asdict(weight), "bytes": dict(weight.bytes)} for weight in self.weights],
        }


def layer_facts(
    graph: Graph,
    notes: Mapping[str, EncodingNote] | None = None,
    encodings: Mapping[str, str] | None = None,
) -> tuple[LayerFacts, ...]:
    """The layers of a graph, in order of execution.

    Args:
        graph: a checked graph.
        notes: what lowering found about each weight.
        encodings: how each weight is stored, where that is not what lowering chose.
    """
    types = infer_types(graph)
    rows, roles = matrix_rows(graph), _roles(graph)
    operators: dict[str, dict[str, None]] = {}
    shapes: dict[str, Shape] = {}
    owned: dict[str, list[str]] = {}
    taken: set[str] = set()
    macs: dict[str, list[int | None]] = {}
    for node in graph.nodes:
        layer = node.layer or node.name
        operators.setdefault(layer, {})[node.op] = None
        macs.setdefault(layer, []).append(node_macs(node, types))
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
                weight_facts(
                    path,
                    graph.weights[path],
                    rows.get(path),
                    (notes or {}).get(path),
                    (encodings or {}).get(path),
                    roles.get(path, _Role()),
                )
                for path in owned.get(layer, ())
            ),
            total_of(macs[layer]),
        )
        for layer, ops in operators.items()
    )


@dataclass(frozen=True)
class _Role:
    """What an operator takes a matrix for: how many rows belong to one channel, and whether it makes the channels."""

    gates: int = 1
    makes: bool = True


def _roles(graph: Graph) -> dict[str, _Role]:
    found: dict[str, _Role] = {}
    for node in graph.nodes:
        op = get_op(node.op)
        for index in op.matrix_rows:
            if index < len(node.inputs):
                found.setdefault(node.inputs[index], _Role(op.gates, index == min(op.matrix_rows)))
    return found


def total_of(counts: Iterable[int | None]) -> int | None:
    """The sum; ``None`` where one of them is not known."""
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def weight_facts(
    path: str,
    array: Array,
    rows: tuple[int, ...] | None,
    note: EncodingNote | None = None,
    encoding: str | None = None,
    role: _Role = _Role(),
) -> WeightFacts:
    """The facts about one weight.

    Args:
        path: its name.
        array: its values.
        rows: the axes that make up the rows of its matrix view; ``None`` for what is no matrix.
        note: what lowering found about it.
        encoding: how it is stored, where that is not what lowering chose.
        role: what it is a matrix for.
    """
    units = zero_units = 0
    if rows is not None:
        units = matrix_shape(array.shape, rows)[0] // role.gates
        zero_units = units - int(np.count_nonzero(to_matrix(array, rows).any(axis=1).reshape(role.gates, -1).any(axis=0)))
    return WeightFacts(
        path,
        tuple(int(size) for size in array.shape),
        array.dtype.name,
        array.size - int(np.count_nonzero(array)),
        units,
        zero_units,
        units if role.makes else 0,
        array.nbytes,
        encoding or (note.encoding if note is not None else ""),
        dict(note.candidates) if note is not None else {},
    )
