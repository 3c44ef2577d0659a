"""The intermediate representation: dimensions, types, nodes, graphs. Pure values without behaviour of operators."""

from sparsec.ir.dims import Dim, Expr, Shape, ceil_div, evaluate, format_shape, product, substitute, symbol, symbols
from sparsec.ir.graph import (
    ABSENT,
    BATCH,
    DTYPES,
    Array,
    Attrs,
    AttrValue,
    Graph,
    Input,
    Node,
    Port,
    TensorType,
    check_structure,
    weight_type,
)

__all__ = [
    "ABSENT",
    "BATCH",
    "DTYPES",
    "Array",
    "AttrValue",
    "Attrs",
    "Dim",
    "Expr",
    "Graph",
    "Input",
    "Node",
    "Port",
    "Shape",
    "TensorType",
    "ceil_div",
    "check_structure",
    "evaluate",
    "format_shape",
    "product",
    "substitute",
    "symbol",
    "symbols",
    "weight_type",
]
