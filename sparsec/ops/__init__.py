"""The closed set of operators: their types, their reference evaluation in NumPy, and how channel facts flow through them."""

from sparsec.ops import arithmetic, elementwise, linear, norm, pooling, shape
from sparsec.ops.base import OPS, REQUIRED, Attribute, Kind, Op, get_op
from sparsec.ops.shape import TO_THE_END, TO_THE_START
from sparsec.ops.typing import check, evaluate_graph, infer_types, make_node

__all__ = [
    "OPS",
    "REQUIRED",
    "TO_THE_END",
    "TO_THE_START",
    "Attribute",
    "Kind",
    "Op",
    "arithmetic",
    "check",
    "elementwise",
    "evaluate_graph",
    "get_op",
    "infer_types",
    "linear",
    "make_node",
    "norm",
    "pooling",
    "shape",
]
