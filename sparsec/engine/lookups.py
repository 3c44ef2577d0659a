"""Look-ups in a native segment: the library takes for granted that every index is in its table, which is seen to before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from sparsec.engine.segments import Segment
from sparsec.ir import Array, Node
from sparsec.kernels import WeightStore
from sparsec.ops import get_op

UNSIGNED: Final = {"int32": np.uint32, "int64": np.uint64}
"""As such, negative numbers are greater than all others."""


@dataclass(frozen=True)
class Lookup:
    """A look-up by indices that are an input of the segment.

    Attributes:
        number: of the input.
        node: that looks up.
        table: of which it gives rows.
    """

    number: int
    node: Node
    table: Array

    def check(self, indices: Array) -> None:
        """See that all indices are in the table.

        Raises:
            InputError: one is not; as the operator says it.
        """
        rows = len(self.table)
        if indices.view(UNSIGNED[indices.dtype.name]).max(initial=0) < rows:
            return
        if indices.min() < -rows or indices.max() >= rows:
            get_op(self.node.op).evaluate(self.node.attrs, [self.table, indices])


def lookups(segment: Segment, store: WeightStore) -> tuple[Lookup, ...]:
    """Those of a segment; indices are elements of its inputs, since native steps give integers other shapes at most."""
    makers = {output: node for node in segment.nodes for output in node.outputs}

    def origin(name: str) -> int:
        while name in makers:
            name = makers[name].inputs[0]
        return segment.inputs.index(name)

    return tuple(
        Lookup(origin(node.inputs[1]), node, store.array(node.inputs[0])) for node in segment.nodes if node.op == "gather"
    )
