"""The Graph: what a model computes, exactly and independent of any framework or machine.

A graph is a straight-line program in single assignment: its nodes stand in execution order, each names the values that it reads
and the values that it defines. A value is an input of the graph, a weight, or an output of one node; all share one name space.
Types are inferred from the inputs (:mod:`sparsec.ops`), never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsec.errors import GraphError
from sparsec.ir.dims import MAX_SIZE, Dim, Shape, format_shape, substitute

Array = npt.NDArray[Any]
AttrValue = bool | int | float | str | None | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]
Attrs = Mapping[str, AttrValue]

DTYPES = ("bool", "int32", "int64", "float16", "float32", "float64")
BATCH = "N"
"""The name of the symbol on axis 0 of every graph input."""

ABSENT = ""
"""The name that stands in ``Node.inputs`` for an optional input that is not given."""


@dataclass(frozen=True)
class TensorType:
    """The dtype and shape of a value; axis 0 is the batch where the value has one."""

    dtype: str
    shape: Shape

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise GraphError(f"dtype {self.dtype!r} is none of {', '.join(DTYPES)}")
        if any(isinstance(dim, int) and not 0 <= dim <= MAX_SIZE for dim in self.shape):
            raise GraphError(f"shape {format_shape(self.shape)} has a size that is negative or beyond {MAX_SIZE}")

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}{format_shape(self.shape)}"


@dataclass(frozen=True)
class Port:
    """A named end of the graph: ``name`` is what users see, ``value`` the value behind it."""

    name: str
    value: str


@dataclass(frozen=True)
class Input:
    """A graph input; its name is also the name of its value."""

    name: str
    type: TensorType


@dataclass(frozen=True)
class Node:
    """One application of an operator.

    Attributes:
        op: the operator's name in :data:`sparsec.ops.OPS`.
        name: unique in the graph; the first segments are the path of the Keras layer it comes from.
        inputs: names of the values read, :data:`ABSENT` for an optional input that is not given.
        outputs: names of the values defined.
        attrs: every attribute that the operator declares, JSON values with tuples for lists.
        layer: path of the source layer, for reports; empty where there is none.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Attrs = field(default_factory=dict)
    layer: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "attrs", MappingProxyType(dict(self.attrs)))

    @property
    def output(self) -> str:
        """The only output.

        Raises:
            GraphError: the node has several outputs.
        """
        if len(self.outputs) != 1:
            raise GraphError(f"node {self.name!r} has {len(self.outputs)} outputs, one was expected")
        return self.outputs[0]


@dataclass(frozen=True)
class Graph:
    """An immutable graph; passes return new ones.

    Attributes:
        inputs: the inputs, in the model's order.
        outputs: the outputs, in the model's order.
        nodes: in execution order.
        weights: constants by path, ``<layer>/<variable>``; two nodes that share a weight name the same path.
        name: the model's name, for reports and exported files.
    """

    inputs: tuple[Input, ...]
    outputs: tuple[Port, ...]
    nodes: tuple[Node, ...]
    weights: Mapping[str, Array]
    name: str = "model"

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", MappingProxyType(dict(self.weights)))

    def with_nodes(self, nodes: Iterable[Node], weights: Mapping[str, Array] | None = None) -> Graph:
        """The graph with other nodes and, where given, other weights."""
        return replace(self, nodes=tuple(nodes), weights=self.weights if weights is None else weights)

    def producers(self) -> dict[str, Node]:
        """The node that defines each value; inputs and weights have none."""
        return {value: node for node in self.nodes for value in node.outputs}

    def consumers(self) -> dict[str, list[Node]]:
        """The nodes that read each value, weights included, in execution order and without repeats."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                if value != ABSENT:
                    readers.setdefault(value, []).append(node)
        return readers

    def output_values(self) -> frozenset[str]:
        """The values that leave the graph."""
        return frozenset(port.value for port in self.outputs)

    def pruned_weights(self) -> Graph:
        """The graph without the weights that no node and no output reads."""
        used = {value for node in self.nodes for value in node.inputs} | self.output_values()
        return replace(self, weights={path: array for path, array in self.weights.items() if path in used})

    def bind(self, sizes: Mapping[str, Dim]) -> Graph:
        """The graph with symbols in its input shapes replaced by sizes."""
        inputs = tuple(
            Input(i.name, TensorType(i.type.dtype, tuple(substitute(dim, sizes) for dim in i.type.shape))) for i in self.inputs
        )
        return replace(self, inputs=inputs)

    def lifted(self, dtype: str) -> Graph:
        """The graph with every floating-point input and weight in ``dtype``; for proofs in float64."""

        def lift(name: str) -> str:
            return dtype if name.startswith("float") else name

        return replace(
            self,
            inputs=tuple(Input(i.name, TensorType(lift(i.type.dtype), i.type.shape)) for i in self.inputs),
            nodes=tuple(_lifted_cast(node, lift) for node in self.nodes),
            weights={path: array.astype(lift(array.dtype.name), copy=False) for path, array in self.weights.items()},
        )


def _lifted_cast(node: Node, lift: Callable[[str], str]) -> Node:
    """A cast to a floating-point dtype is the one operator that states a dtype of its own."""
    return replace(node, attrs={**node.attrs, "dtype": lift(str(node.attrs["dtype"]))}) if node.op == "cast" else node


def check_structure(graph: Graph) -> None:
    """Check that names are unique, everything read is defined before, and every output exists.

    Raises:
        GraphError: the first rule that is broken, with the node's name.
    """
    defined: set[str] = set()
    for name in _names_of_sources(graph):
        if not name or name in defined:
            raise GraphError(f"value {name!r} is defined twice or has no name")
        defined.add(name)
    node_names: set[str] = set()
    for node in graph.nodes:
        if node.name in node_names:
            raise GraphError(f"two nodes are called {node.name!r}")
        node_names.add(node.name)
        for value in node.inputs:
            if value != ABSENT and value not in defined:
                raise GraphError(f"node {node.name!r} reads {value!r}, which nothing before it defines")
        for value in node.outputs:
            if not value or value in defined:
                raise GraphError(f"node {node.name!r} defines {value!r}, which is defined already or has no name")
            defined.add(value)
    _check_outputs(graph, defined)
    for path, array in graph.weights.items():
        if array.dtype.name not in DTYPES:
            raise GraphError(f"weight {path!r} has dtype {array.dtype.name}, none of {', '.join(DTYPES)}")


def _check_outputs(graph: Graph, defined: set[str]) -> None:
    public: set[str] = set()
    if not graph.outputs:
        raise GraphError("the graph has no output")
    for port in graph.outputs:
        if port.value not in defined:
            raise GraphError(f"output {port.name!r} is {port.value!r}, which nothing defines")
        if port.name in public:
            raise GraphError(f"two outputs are called {port.name!r}")
        public.add(port.name)


def _names_of_sources(graph: Graph) -> Iterator[str]:
    yield from (i.name for i in graph.inputs)
    yield from graph.weights


def weight_type(array: Array) -> TensorType:
    """The type of a weight."""
    return TensorType(array.dtype.name, tuple(int(size) for size in np.shape(array)))
