"""A draft under construction: its nodes and constants, and where the elements of each value can be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sparsec.backends.onnx.draft import AttributeValue, Constant, DraftNode
from sparsec.backends.onnx.layout import Layout, Order, order_of, relative, same_memory, through
from sparsec.backends.onnx.view import POINTWISE, GraphView
from sparsec.errors import UnsupportedOperatorError
from sparsec.ir import Array, Dim, Node

SHARED_ELEMENTS = 16
"""Constants of at most this many elements are stored once for all nodes, under a name that shows their value."""

ScaledAxis = tuple[int, int]
"""A size known when the model runs: the size of an axis, times a factor."""


class Names:
    """Unique names for the values and nodes of a model."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def take(self, wanted: str) -> str:
        """``wanted``, or that with a number where it is taken."""
        name, count = wanted, 0
        while name in self._used:
            count += 1
            name = f"{wanted}_{count}"
        self._used.add(name)
        return name


class Builder:
    """Collects nodes and constants, and keeps track of the orders in which each value is stored.

    Args:
        view: the graph.
        opset: the version of the standard operator set.
        reserved: names of stored values that are fixed beforehand, by root value and order: the model's outputs.
        names: names of values in use.
    """

    def __init__(
        self,
        view: GraphView,
        opset: int,
        reserved: Mapping[tuple[str, Order], str],
        names: Names,
    ) -> None:
        self.view = view
        self.opset = opset
        self.nodes: list[DraftNode] = []
        self.constants: list[Constant] = []
        self.rows: dict[str, tuple[int, ...]] = {}
        """Flattened values whose features are stored channels-first, with the shape ``(*spatial, C)`` that was flattened."""
        self._reserved = reserved
        self._names = names
        self._node_names = Names()
        self._stored: dict[str, dict[Order, str]] = {}
        self._weights: dict[tuple[object, ...], str] = {}
        self._shared: dict[tuple[object, ...], str] = {}

    # --- values -------------------------------------------------------------------------------------------------------

    def define(self, value: str, order: Order) -> str:
        """Name the stored form of ``value`` in ``order``, which the next node or the model's input defines."""
        return self._store(*self._at_root(value, order))

    def add_input(self, value: str, order: Order) -> None:
        """Enter an input of the model, whose name is fixed."""
        self._stored[value] = {order: value}

    def read(self, value: str, order: Order) -> str:
        """The name under which ``value`` is stored in ``order``, converted on first use where it is not yet."""
        if self.view.is_constant(value):
            return self.weight(value, order=order)
        root, wanted = self._at_root(value, order)
        forms = self._stored[root]
        if wanted not in forms:
            self._convert(root, next(iter(forms)), wanted)
        return forms[wanted]

    def available(self, value: str) -> Layout:
        """A layout in which ``value`` can be read without a conversion, channels-last where there is none."""
        if not self.view.is_constant(value):
            for layout in Layout:
                root, order = self._at_root(value, order_of(layout, self.view.types[value].rank))
                if order in self._stored[root]:
                    return layout
        return Layout.LAST

    def _at_root(self, value: str, order: Order) -> tuple[str, Order]:
        root, permutation = self.view.root(value)
        return root, through(order, permutation)

    def _store(self, root: str, order: Order) -> str:
        forms = self._stored.setdefault(root, {})
        name = self._reserved.get((root, order))
        if name is None:
            rank = len(order)
            suffixes = {order_of(layout, rank): f"/{layout.value}" for layout in Layout} if forms else {order: ""}
            name = self._names.take(root + suffixes.get(order, "/transposed"))
        forms[order] = name
        return name

    def _convert(self, root: str, source: Order, wanted: Order) -> None:
        shape = self.view.types[root].shape
        before = self._stored[root][source]
        after = self._store(root, wanted)
        if same_memory(shape, source, wanted):
            target = self.sizes(before, [shape[axis] for axis in source], [shape[axis] for axis in wanted], after)
            self.add("Reshape", after, (before, target), (after,))
            return
        self.add("Transpose", after, (before,), (after,), {"perm": relative(source, wanted)})

    # --- constants ----------------------------------------------------------------------------------------------------

    def weight(
        self,
        value: str,
        expand: tuple[int, ...] | None = None,
        order: Order | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> str:
        """The initialiser that holds a weight of the graph, transposed there or not, in another form.

        Args:
            value: the weight.
            expand: a shape it is first reshaped to.
            order: how its axes are then ordered.
            shape: its shape in the file.
        """
        path, permutation = self.view.root(value)
        array = self.view.graph.weights[path].transpose(permutation)
        expand = None if expand == array.shape else expand
        if expand is not None:
            array = array.reshape(expand)
        order = tuple(range(array.ndim)) if order is None else order
        # Where only axes of size 1 move, the elements do not: nodes share the initialiser.
        moved = tuple(axis for axis in order if array.shape[axis] != 1)
        sequence = (permutation, moved) if expand else through(moved, permutation)
        array = array.transpose(order)
        shape = array.shape if shape is None else shape
        key = path, expand, sequence, shape
        if key not in self._weights:
            self._weights[key] = self._names.take(path)
            self.constants.append(Constant(self._weights[key], array, shape))
        return self._weights[key]

    def constant(self, array: Array, wanted: str) -> str:
        """The initialiser that holds ``array``; small ones are shared, ``wanted`` names the others."""
        if array.size > SHARED_ELEMENTS:
            name = self._names.take(wanted)
            self.constants.append(Constant(name, array, array.shape))
            return name
        key = array.dtype.name, array.shape, array.tobytes()
        if key not in self._shared:
            text = str(array.tolist()).replace(" ", "")
            self._shared[key] = self._names.take(f"{array.dtype.name}:{text}")
            self.constants.append(Constant(self._shared[key], array, array.shape))
        return self._shared[key]

    # --- nodes --------------------------------------------------------------------------------------------------------

    def add(
        self,
        op_type: str,
        name: str,
        inputs: Iterable[str],
        outputs: Iterable[str],
        attributes: Mapping[str, AttributeValue] | None = None,
        layer: str = "",
    ) -> None:
        """Append a node."""
        node_name = self._node_names.take(name)
        self.nodes.append(DraftNode(op_type, node_name, tuple(inputs), tuple(outputs), attributes or {}, layer))

    def fresh(self, wanted: str) -> str:
        """A name for a value that the graph does not know."""
        return self._names.take(wanted)

    def intermediate(
        self, op_type: str, name: str, inputs: Sequence[str], layer: str = "", **attributes: AttributeValue
    ) -> str:
        """Append a node whose output the graph does not know; the output's name."""
        output = self.fresh(name)
        self.add(op_type, name, inputs, (output,), attributes, layer)
        return output

    def sizes(self, source: str, before: Sequence[Dim], after: Sequence[Dim], name: str) -> str:
        """The target of a Reshape of the stored value ``source`` from sizes ``before`` to ``after``.

        Sizes that are not known are copied, from the same axis where that works; one may be left to the rest.

        Raises:
            UnsupportedOperatorError: two sizes are neither known nor sizes of ``before``.
        """
        entries: list[int | ScaledAxis] = []
        unknown = [axis for axis, dim in enumerate(after) if not isinstance(dim, int)]
        copied = [axis for axis in unknown if axis < len(before) and before[axis] == after[axis]]
        inferred = [axis for axis in unknown if axis not in copied]
        for axis, dim in enumerate(after):
            if isinstance(dim, int):
                entries.append(dim)
            elif axis in copied:
                entries.append(0)
            elif axis == inferred[-1]:
                entries.append(-1)
            elif dim in before:
                entries.append((before.index(dim), 1))
            else:
                raise UnsupportedOperatorError(f"{name!r}: the size {dim} is not known; give it with --input-shape")
        return self.shape_vector(source, entries, name)

    def shape_vector(self, source: str, entries: Sequence[int | ScaledAxis], name: str) -> str:
        """A vector of sizes; an entry ``(axis, factor)`` is the size of that axis of ``source``, times the factor."""
        if all(isinstance(entry, int) for entry in entries):
            return self.constant(np.array(entries, np.int64), f"{name}/shape")
        sizes = self.intermediate("Shape", f"{name}/sizes", [source])
        parts: list[str] = []
        for entry in entries:
            if isinstance(entry, int):
                parts.append(self._single(entry))
                continue
            axis, factor = entry
            part = self.intermediate("Gather", f"{name}/size", [sizes, self._single(axis)], axis=0)
            if factor != 1:
                part = self.intermediate("Mul", f"{name}/scaled", [part, self._single(factor)])
            parts.append(part)
        return self.intermediate("Concat", f"{name}/shape", parts, axis=0)

    def _single(self, value: int) -> str:
        return self.constant(np.array([value], np.int64), "size")

    def follow_rows(self, node: Node) -> None:
        """Note that a pointwise operator leaves the sequence of flattened features as it is."""
        if node.op in POINTWISE and node.inputs[0] in self.rows:
            self.rows[node.output] = self.rows[node.inputs[0]]
