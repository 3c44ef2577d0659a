"""A model in ONNX's terms before it becomes a file: plain values, independent of the ``onnx`` package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Union

from sparsec.ir import Array

AttributeValue = Union[int, float, str, tuple[int, ...], tuple[float, ...], tuple[str, ...], "Draft"]
"""The value of a node's attribute; a draft is the body of a loop."""

ONNX_TYPES = {"float32": 1, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11}
"""The numbers of the dtypes in ``onnx.proto``, ``TensorProto.DataType``."""

WEIGHT_READERS = frozenset({"Conv", "Gemm", "MatMul"})
"""The ONNX operators whose second input may be stored as a sparse initialiser."""


@dataclass(frozen=True)
class ValueInfo:
    """An input or output of the model; a size that is not known is a name or ``None``."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class DraftNode:
    """One ONNX node; ``layer`` is the path of the Keras layer it comes from."""

    op_type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    layer: str = ""


@dataclass(frozen=True)
class Constant:
    """An initialiser.

    Attributes:
        name: its name.
        array: its elements in C order; usually a transposed view of a weight, which is made contiguous only when it is written.
        shape: its shape in the file, with as many elements as ``array``.
    """

    name: str
    array: Array
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The bytes of its elements."""
        return prod(self.shape) * self.array.dtype.itemsize


@dataclass(frozen=True)
class Draft:
    """A whole model.

    Attributes:
        name: the graph's name.
        opset: the version of the standard operator set.
        inputs: the inputs, in the model's order.
        outputs: the outputs, in the model's order.
        nodes: in execution order.
        constants: the initialisers, in the order in which they are first read.
        metadata: what the file says about itself.
    """

    name: str
    opset: int
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    nodes: tuple[DraftNode, ...]
    constants: tuple[Constant, ...]
    metadata: Mapping[str, str]

    def matrices(self) -> frozenset[str]:
        """The names of the initialisers that are read only as the weight of a convolution or matrix product."""
        weights: set[str] = set()
        others: set[str] = set()
        for node in self.nodes:
            for index, name in enumerate(node.inputs):
                (weights if index == 1 and node.op_type in WEIGHT_READERS else others).add(name)
        others.update(port.name for port in self.outputs)
        return frozenset(weights - others)
