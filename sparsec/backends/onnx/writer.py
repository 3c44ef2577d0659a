"""Serialising a draft as an ONNX model, and checking it.

The file is a protocol buffer. The ``onnx`` package serialises everything but the elements of tensors; those are put
between its pieces one tensor at a time, as the encoding prescribes: a field is its number and wire type, its length,
and its bytes (https://protobuf.dev/programming-guides/encoding). So a model is never held twice, and the bytes are
those that ``ModelProto.SerializeToString`` would give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sparsec import __version__
from sparsec.backends.onnx.draft import ONNX_TYPES, AttributeValue, Constant, Draft, DraftNode, ValueInfo
from sparsec.backends.onnx.storage import INDEX_BYTES, SparseWeight
from sparsec.errors import GraphError, InputError
from sparsec.extras import require
from sparsec.ir import Array

if TYPE_CHECKING:
    import onnx

PRODUCER = "sparsec"
IR_VERSION = 8
IR_VERSIONS = {19: 9, 20: 9, 21: 10}
"""Operator sets that belong to a later version of the file format than :data:`IR_VERSION`."""

MAX_FILE_BYTES = 2**31 - 1
"""Protocol buffers cannot be read beyond this size."""

CHECKED_BYTES = 1 << 16
"""Initialisers of more bytes take part in the check by their types only."""

# Field numbers in onnx.proto.
MODEL_GRAPH = 7
GRAPH_INITIALIZER = 5
GRAPH_SPARSE_INITIALIZER = 15
TENSOR_RAW_DATA = 9
SPARSE_VALUES = 1
SPARSE_INDICES = 2

Buffer = bytes | memoryview


def ir_version(opset: int) -> int:
    """The version of the file format for an operator set."""
    return IR_VERSIONS.get(opset, IR_VERSION)


@dataclass(frozen=True)
class Message:
    """A serialised message: its length, and how to make its bytes, piece by piece."""

    length: int
    pieces: Callable[[], Iterator[Buffer]]

    @classmethod
    def of(cls, *parts: Message | bytes) -> Message:
        """Messages and bytes one after the other, which is how fields of one message are joined."""

        def pieces() -> Iterator[Buffer]:
            for part in parts:
                if isinstance(part, bytes):
                    yield part
                else:
                    yield from part.pieces()

        return cls(sum(len(part) if isinstance(part, bytes) else part.length for part in parts), pieces)

    @classmethod
    def of_elements(cls, nbytes: int, make: Callable[[], Array]) -> Message:
        """The little-endian elements of an array, which is made when they are written."""

        def pieces() -> Iterator[Buffer]:
            array = make()
            stored = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            yield stored.reshape(-1).view(np.uint8).data

        return cls(nbytes, pieces)

    def as_field(self, number: int) -> Message:
        """The message as a length-delimited field of another."""
        return Message.of(_varint(number << 3 | 2) + _varint(self.length), self)

    def to_bytes(self) -> bytes:
        """The whole message."""
        return b"".join(self.pieces())


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


# --- the model --------------------------------------------------------------------------------------------------------


def model_message(draft: Draft, sparse: Mapping[str, SparseWeight]) -> Message:
    """The serialised model.

    Args:
        draft: the model.
        sparse: the initialisers that are stored sparse, by name.

    Raises:
        InputError: it would be larger than an ONNX file can be.
        MissingExtraError: the ``onnx`` package is not installed.
    """
    onnx = require("onnx", extra="onnx", purpose="to write ONNX files")
    # A message's fields are written in the order of their numbers, as the onnx package would.
    nodes = onnx.GraphProto(node=[_node(node) for node in draft.nodes], name=draft.name)
    ports = onnx.GraphProto(
        input=[_value_info(port) for port in draft.inputs], output=[_value_info(port) for port in draft.outputs]
    )
    dense = [_dense_tensor(constant) for constant in draft.constants if constant.name not in sparse]
    coordinates = [_sparse_tensor(c, sparse[c.name]) for c in draft.constants if c.name in sparse]
    graph = Message.of(
        nodes.SerializeToString(),
        *(tensor.as_field(GRAPH_INITIALIZER) for tensor in dense),
        ports.SerializeToString(),
        *(tensor.as_field(GRAPH_SPARSE_INITIALIZER) for tensor in coordinates),
    )
    head = onnx.ModelProto(ir_version=ir_version(draft.opset), producer_name=PRODUCER, producer_version=__version__)
    tail = onnx.ModelProto(
        opset_import=[onnx.OperatorSetIdProto(domain="", version=draft.opset)],
        metadata_props=[onnx.StringStringEntryProto(key=k, value=v) for k, v in sorted(draft.metadata.items())],
    )
    message = Message.of(head.SerializeToString(), graph.as_field(MODEL_GRAPH), tail.SerializeToString())
    if message.length > MAX_FILE_BYTES:
        raise InputError(
            f"the model needs {message.length / 2**30:.2f} GiB as ONNX, and one ONNX file holds at most 2 GiB; prune or "
            "quantise it further, or store it as a .npz bundle"
        )
    return message


def _node(node: DraftNode) -> onnx.NodeProto:
    import onnx

    # The name of a node usually begins with the path of its layer.
    layer = None if node.name.startswith(node.layer) else node.layer
    attributes = [_attribute(name, value) for name, value in sorted(node.attributes.items())]
    return onnx.NodeProto(
        op_type=node.op_type,
        name=node.name,
        input=node.inputs,
        output=node.outputs,
        attribute=attributes,
        doc_string=layer,
    )


def _attribute(name: str, value: AttributeValue) -> onnx.AttributeProto:
    from onnx.helper import make_attribute

    return make_attribute(name, _body(value) if isinstance(value, Draft) else value)


def _body(draft: Draft) -> onnx.GraphProto:
    """The body of a loop."""
    import onnx

    return onnx.GraphProto(
        node=[_node(node) for node in draft.nodes],
        name=draft.name,
        initializer=[onnx.TensorProto.FromString(_dense_tensor(constant).to_bytes()) for constant in draft.constants],
        input=[_value_info(port) for port in draft.inputs],
        output=[_value_info(port) for port in draft.outputs],
    )


def _value_info(port: ValueInfo) -> onnx.ValueInfoProto:
    from onnx.helper import make_tensor_value_info

    return make_tensor_value_info(port.name, ONNX_TYPES[port.dtype], port.shape)


def _tensor(name: str, shape: tuple[int, ...], dtype: str, elements: Message) -> Message:
    import onnx

    header = onnx.TensorProto(dims=shape, data_type=ONNX_TYPES[dtype], name=name)
    return Message.of(header.SerializeToString(), elements.as_field(TENSOR_RAW_DATA))


def _dense_tensor(constant: Constant) -> Message:
    elements = Message.of_elements(constant.nbytes, lambda: constant.array)
    return _tensor(constant.name, constant.shape, constant.array.dtype.name, elements)


def _sparse_tensor(constant: Constant, stored: SparseWeight) -> Message:
    import onnx

    count, dtype = stored.nonzeros, constant.array.dtype

    def values() -> Array:
        flat = constant.array.reshape(-1)
        nonzero: Array = flat[flat != 0]
        return nonzero

    def indices() -> Array:
        return np.flatnonzero(constant.array.reshape(-1)).astype(np.int64, copy=False)

    value_tensor = _tensor(constant.name, (count,), dtype.name, Message.of_elements(count * dtype.itemsize, values))
    index_tensor = _tensor("", (count,), "int64", Message.of_elements(count * INDEX_BYTES, indices))
    shape = onnx.SparseTensorProto(dims=constant.shape)
    return Message.of(value_tensor.as_field(SPARSE_VALUES), index_tensor.as_field(SPARSE_INDICES), shape.SerializeToString())


# --- check ------------------------------------------------------------------------------------------------------------


def check(draft: Draft, sparse: Mapping[str, SparseWeight]) -> None:
    """Run ONNX's checker with type inference; large initialisers stand as inputs of their type.

    Type inference takes sparse initialisers for values of another type than their readers accept, although the format allows
    them there. They stand as inputs too, and a second check without inference sees them.

    Raises:
        GraphError: the checker refuses the model.
    """
    checker = require("onnx.checker", extra="onnx", purpose="to check ONNX files")
    inference = require("onnx.shape_inference", extra="onnx", purpose="to check ONNX files")
    large = {constant.name for constant in draft.constants if constant.nbytes > CHECKED_BYTES}
    try:
        inferred = model_message(_with_stand_ins(draft, large | sparse.keys()), sparse)
        checker.check_model(inferred.to_bytes(), full_check=True)
        if sparse:
            checker.check_model(model_message(_with_stand_ins(draft, large), sparse).to_bytes())
    except (checker.ValidationError, inference.InferenceError) as error:
        raise GraphError(f"ONNX's checker refuses the exported model, which is a defect of sparsec: {error}") from error


def _with_stand_ins(draft: Draft, names: AbstractSet[str]) -> Draft:
    """The model where some of the initialisers are inputs."""
    replaced = [constant for constant in draft.constants if constant.name in names]
    inputs = tuple(ValueInfo(c.name, c.array.dtype.name, c.shape) for c in replaced)
    kept = tuple(constant for constant in draft.constants if constant.name not in names)
    return replace(draft, inputs=draft.inputs + inputs, constants=kept)
