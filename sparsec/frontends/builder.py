"""Building a Graph while layers are read: names, weights, and types as they become known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sparsec.errors import FormatError, GraphError, InputError, UnsupportedLayerError
from sparsec.frontends.layer import Value
from sparsec.frontends.source import LayerPath, MatrixView, SavedBy, Variable
from sparsec.ir import DTYPES, Array, Graph, Input, Node, Port, TensorType, weight_type
from sparsec.ops import make_node
from sparsec.ops.typing import infer_node
from sparsec.shapes import fixed_type

_WRAPPING_OPS = frozenset({"add", "sub", "mul", "reduce_sum", "reduce_prod", "cumsum"})
"""Operators whose results leave the range of narrow integers."""


class GraphBuilder:
    """Collects nodes, weights and inputs.

    Attributes:
        saved_by: the version of Keras that wrote the model.
        read: the variable of the source behind each weight that has one.
        views: how that variable is read, for each weight of which it is not the variable itself.
        unmasked: the names of values that have lost their masks since they were made.
    """

    def __init__(
        self,
        saved_by: SavedBy,
        variables: Mapping[LayerPath, Sequence[Variable]],
        input_shapes: Sequence[Sequence[int]] = (),
    ) -> None:
        self.saved_by = saved_by
        self.read: dict[str, Variable] = {}
        self.views: dict[str, MatrixView] = {}
        self.unmasked: set[str] = set()
        self._variables = variables
        self._owners = {path[:depth] for path in variables for depth in range(1, len(path) + 1)}
        self._asked: set[LayerPath] = set()
        self._types: dict[str, TensorType] = {}
        self._weights: dict[str, Array] = {}
        self._nodes: list[Node] = []
        self._inputs: list[Input] = []
        self._input_shapes = input_shapes
        self._narrow: set[str] = set()

    def variables_of(self, path: LayerPath) -> Sequence[Variable]:
        """The stored variables of the layer at ``path``."""
        self._asked.add(path)
        return self._variables.get(path, ())

    def has_variables(self, path: LayerPath) -> bool:
        """Whether variables of the layer at ``path``, or of parts of it, are stored as its own."""
        return path in self._owners

    def input(self, name: str, type_: TensorType, narrow: bool) -> Value:
        """Add a graph input, its open sizes bound where a shape is given; ``narrow`` says that its integers were widened."""
        if len(self._inputs) < len(self._input_shapes):
            type_ = fixed_type(name, type_, self._input_shapes[len(self._inputs)])
        self._define(name, type_)
        self._inputs.append(Input(name, type_))
        if narrow:
            self._narrow.add(name)
        return Value(name, type_)

    def weight(self, path: str, variable: Variable, dtype: str, view: MatrixView | None = None) -> Value:
        """The weight at ``path``, read from its variable the first time, floats in ``dtype``, as ``view`` says.

        Raises:
            InputError: a value of it is not finite, or two layers share a name.
        """
        known = self.read.get(path)
        if known is None:
            values = self.values(path, variable, dtype)
            self._add_weight(path, values if view is None else view.read(values))
            self.read[path] = variable
            if view is not None:
                self.views[path] = view
        elif known.location != variable.location:
            raise InputError(f"two layers of the model have the path {path.rpartition('/')[0]!r}; rename one and save it again")
        return Value(path, self._types[path])

    def values(self, path: str, variable: Variable, dtype: str) -> Array:
        """The values of a variable, floats in ``dtype``.

        Raises:
            FormatError: they are not numbers.
            InputError: one of them is not finite.
        """
        array = variable.load()
        if array.dtype.name not in DTYPES:
            raise FormatError(f"weight {path!r} ({variable.location}) has dtype {array.dtype}; numbers were expected")
        with np.errstate(over="ignore"):
            array = array.astype(dtype if array.dtype.kind == "f" else array.dtype.newbyteorder("="), copy=False)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(
                f"weight {path!r} holds values that are not finite (NaN or infinity), so outputs mean nothing; "
                "train the model again or restore an earlier checkpoint"
            )
        return array

    def constant(self, path: str, array: Array) -> Value:
        """A constant, at ``path`` or, where another one stands there, at a path beside it."""
        name, count = path, 0
        while name in self._types:
            known = self._weights.get(name)
            if known is not None and known.dtype == array.dtype and np.array_equal(known, array):
                return Value(name, self._types[name])
            count += 1
            name = f"{path}_{count}"
        self._add_weight(name, array)
        return Value(name, self._types[name])

    def emit(self, op: str, base: str, inputs: Sequence[str], layer: str, attrs: Mapping[str, object]) -> Value:
        """Add a node with one output, whose name starts with ``base``.

        Raises:
            UnsupportedLayerError: the inputs do not fit the operator.
        """
        (value,) = self.emit_all(op, base, inputs, layer, attrs, ())
        return value

    def emit_all(
        self, op: str, base: str, inputs: Sequence[str], layer: str, attrs: Mapping[str, object], further: Sequence[str]
    ) -> tuple[Value, ...]:
        """Add a node whose name starts with ``base``; ``further`` names its outputs after the first, below it.

        Raises:
            UnsupportedLayerError: the inputs do not fit the operator.
        """
        name = self._free_name(base, op)
        outputs = [name, *(f"{name}/{output}" for output in further)]
        try:
            node = make_node(op, name, inputs, outputs, layer, **attrs)
            types = infer_node(node, self._types)
        except GraphError as error:
            raise UnsupportedLayerError(str(error), layer) from None
        type_ = types[0]
        if type_.dtype.startswith("int") and not self._narrow.isdisjoint(inputs):
            if op in _WRAPPING_OPS:
                raise UnsupportedLayerError(
                    f"layer {layer!r}: arithmetic on narrow integers, which wraps around in Keras, is not read; "
                    "cast the input to float32 first"
                )
            self._narrow.add(name)
        for output, output_type in zip(outputs, types, strict=True):
            self._define(output, output_type)
        self._nodes.append(node)
        return tuple(Value(output, output_type) for output, output_type in zip(outputs, types, strict=True))

    def finish(self, outputs: Sequence[tuple[str, Value]], name: str, where: str) -> Graph:
        """The graph with these outputs.

        Raises:
            FormatError: the source holds variables that no layer has asked for.
        """
        unasked = [path for path in self._variables if path not in self._asked]
        if unasked:
            raise FormatError(
                f"{where}: holds variables of {'/'.join(unasked[0])!r} that nothing in the model's configuration accounts for"
            )
        ports = tuple(Port(public, value.name) for public, value in outputs)
        return Graph(tuple(self._inputs), ports, tuple(self._nodes), self._weights, name)

    def _free_name(self, base: str, op: str) -> str:
        if base not in self._types:
            return base
        name, count = f"{base}/{op}", 0
        while name in self._types:
            count += 1
            name = f"{base}/{op}_{count}"
        return name

    def _define(self, name: str, type_: TensorType) -> None:
        if name in self._types:
            raise InputError(f"the model uses the name {name!r} twice; rename a layer and save it again")
        self._types[name] = type_

    def _add_weight(self, path: str, array: Array) -> None:
        self._define(path, weight_type(array))
        self._weights[path] = array
