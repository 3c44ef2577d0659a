"""The Program: a graph in execution order whose weights are stored tensors. It is what a bundle holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from sparsec.encodings import StoredTensor, decode
from sparsec.ir import Array, Graph, Input, Node, Port


@dataclass(frozen=True)
class EncodingNote:
    """What was decided about one tensor, for reports.

    Attributes:
        encoding: the encoding that was chosen, as :attr:`StoredTensor.encoding`.
        bytes: what it takes in the file, estimated after compression with overheads.
        dense_bytes: the bytes of the decoded tensor.
        zeros: the number of elements that are zero.
        reason: why this encoding, in one line.
        candidates: the bytes of every encoding that was considered, by name.
    """

    encoding: str
    bytes: int
    dense_bytes: int
    zeros: int
    reason: str
    candidates: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Program:
    """An immutable, portable program; it holds no facts about a machine.

    Attributes:
        inputs: the inputs, in the model's order.
        outputs: the outputs, in the model's order.
        nodes: in execution order.
        tensors: the weights by path, as in :attr:`sparsec.ir.Graph.weights`.
        name: the model's name.
        notes: what lowering decided about each tensor; empty for a program that was read from a bundle.
    """

    inputs: tuple[Input, ...]
    outputs: tuple[Port, ...]
    nodes: tuple[Node, ...]
    tensors: Mapping[str, StoredTensor]
    name: str = "model"
    notes: Mapping[str, EncodingNote] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        object.__setattr__(self, "notes", MappingProxyType(dict(self.notes)))

    def graph(self) -> Graph:
        """The graph with every weight decoded, exact to the bit."""
        return self._with_weights({path: decode(stored) for path, stored in self.tensors.items()})

    def skeleton(self) -> Graph:
        """The graph with weights of the right dtypes and shapes that hold zeros and take no memory; for type inference."""
        return self._with_weights({path: np.broadcast_to(np.zeros((), t.dtype), t.shape) for path, t in self.tensors.items()})

    def _with_weights(self, weights: Mapping[str, Array]) -> Graph:
        return Graph(self.inputs, self.outputs, self.nodes, weights, self.name)
