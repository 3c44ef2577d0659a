"""The closed set of operators: their types, their reference evaluation in NumPy, and how channel facts flow through them."""

from sparsec.ops import arithmetic, attention, elementwise, gather, linear, norm, pooling, recurrent, shape
from sparsec.ops.base import OPS, REQUIRED, Attribute, Kind, Op, get_op
from sparsec.ops.shape import TO_THE_END, TO_THE_START
from sparsec.ops.typing import check, evaluate_graph, infer_types, make_node, node_macs

__all__ = [
    "OPS",
    "REQUIRED",
    "TO_THE_END",
    "TO_THE_START",
    "Attribute",
    "Kind",
    "Op",
    "arithmetic",
    "attention",
    "check",
    "elementwise",
    "evaluate_graph",
    "gather",
    "get_op",
    "infer_types",
    "linear",
    "make_node",
    "node_macs",
    "norm",
    "pooling",
    "recurrent",
    "shape",
]
