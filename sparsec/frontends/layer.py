"""What a layer's own function sees: its configuration, its inputs, its variables, and how to emit operators.

A Keras layer class is one function decorated with :func:`reads`. It is called once for every call of the layer, emits operators
and returns the values of the layer's outputs::

    @reads("Dense")
    def dense(layer: Layer) -> Value:
        x, units = layer.float_input, layer.integer("units")
        kernel = layer.weight("kernel", (layer.channels(x), units))
        bias = layer.weight("bias", (units,)) if layer.flag("use_bias", True) else None
        return layer.activation(layer.emit("dense", x, kernel, bias))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sparsec.frontends.options import Options
from sparsec.frontends.policy import compute_dtype
from sparsec.frontends.source import LayerEntry, LayerPath, SavedBy, Variable
from sparsec.ir import ABSENT, Array, Shape, TensorType, format_shape

if TYPE_CHECKING:
    from sparsec.frontends.builder import GraphBuilder


@dataclass(frozen=True)
class Value:
    """A value of the graph under construction."""

    name: str
    type: TensorType

    @property
    def shape(self) -> Shape:
        """The shape, batch first."""
        return self.type.shape

    @property
    def rank(self) -> int:
        """The number of axes."""
        return self.type.rank

    @property
    def is_float(self) -> bool:
        """Whether the elements are floating-point numbers."""
        return self.type.dtype.startswith("float")


LayerFunction = Callable[["Layer"], "Value | tuple[Value, ...]"]
Function = TypeVar("Function", bound=LayerFunction)

LAYERS: dict[str, LayerFunction] = {}
"""The function of every layer class, by class name."""

OPERATIONS: dict[str, LayerFunction] = {}
"""The function of every operation on tensors that is not a layer: ``keras.ops`` nodes and TFOpLambda functions."""


def reads(*class_names: str) -> Callable[[Function], Function]:
    """Register the function that reads layers of these classes."""

    def register(function: Function) -> Function:
        LAYERS.update(dict.fromkeys(class_names, function))
        return function

    return register


def reads_operation(*names: str) -> Callable[[Function], Function]:
    """Register the function that reads operations of these names (Keras 3 classes, or TFOpLambda functions)."""

    def register(function: Function) -> Function:
        OPERATIONS.update(dict.fromkeys(names, function))
        return function

    return register


def alike(name: str, table: Mapping[str, object]) -> str:
    """`` (the nearest that it reads is 'Conv2D')`` where the table holds a name like ``name``, else nothing; for messages."""
    close = get_close_matches(name, table, n=1, cutoff=0.8)
    return f" (the nearest that it reads is {close[0]!r})" if close else ""


def tensors(item: Any) -> Iterator[Value]:
    """Every tensor in the arguments of a call, in the order in which Keras flattens structures."""
    if isinstance(item, Value):
        yield item
    elif isinstance(item, Mapping):
        for key in sorted(item, key=str):
            yield from tensors(item[key])
    elif isinstance(item, list | tuple):
        for inner in item:
            yield from tensors(inner)


class Layer(Options):
    """One call of one layer, or of one operation.

    Attributes:
        name: the layer's path, for messages and for the names of nodes and weights.
        class_name: its class.
        saved_by: the version of Keras that wrote it.
        dtype: the dtype in which it computes; of an operation, the default one.
    """

    def __init__(
        self,
        builder: GraphBuilder,
        entry: LayerEntry,
        path: LayerPath,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        calls: int,
    ) -> None:
        self.name = "/".join((*path[:-1], entry.name))
        super().__init__(entry.config, f"layer {self.name!r} ({entry.class_name})")
        self.class_name = entry.class_name
        self.saved_by: SavedBy = builder.saved_by
        self.dtype = compute_dtype(entry.config.get("dtype"), self.subject)
        self._builder = builder
        self._base = f"{self.name}:{calls}" if calls else self.name
        self._variables = builder.variables_of(path)
        self._used = 0
        self._args = args
        self._kwargs = {name: value for name, value in kwargs.items() if name != "name" and not _is_neutral(value)}
        self._unread = set(self._kwargs)

    # --- the call ---

    def operand(self, index: int, *names: str) -> Any:
        """An argument of the call, by its position or one of its names; ``None`` where it is not given."""
        for name in names:
            if name in self._kwargs:
                self._unread.discard(name)
                return self._kwargs[name]
        return self._args[index] if index < len(self._args) else None

    @cached_property
    def inputs(self) -> list[Value]:
        """Every input tensor in order, structures flattened, floats in the dtype in which the layer computes."""
        given: Any = self._args
        if not given and self._kwargs:
            name, given = next(iter(self._kwargs.items()))
            self._unread.discard(name)
        return [self._autocast(value) for value in tensors(given)]

    @property
    def input(self) -> Value:
        """The only input."""
        inputs = self.inputs
        if len(inputs) != 1:
            self.refuse(f"{len(inputs)} inputs where one was expected")
        return inputs[0]

    @cached_property
    def float_input(self) -> Value:
        """The only input, in the floating-point dtype in which the layer computes."""
        return self.cast(self.input, self.dtype)

    def _autocast(self, value: Value) -> Value:
        if not value.is_float or value.type.dtype == self.dtype:
            return value
        if not self.dtype.startswith("float"):
            self.refuse(f"casts its floating-point input to {self.dtype}, which is not read")
        return self.cast(value, self.dtype)

    # --- variables and constants ---

    def channels(self, value: Value) -> int:
        """The size of the last axis, which must be known."""
        return self.size(value, -1)

    def size(self, value: Value, axis: int) -> int:
        """The size of one axis, which must be known."""
        size = value.shape[axis]
        if not isinstance(size, int):
            where = "last axis" if axis == -1 else f"axis {axis}"
            self.refuse(
                f"the size of its input's {where} is open; build the model with that size, or give it with --input-shape"
            )
        return size

    def weight(self, variable: str, shape: Shape) -> Value:
        """The layer's next variable, which must have this shape; call it in the order of ``layer.weights``."""
        return self._builder.weight(f"{self.name}/{variable}", self._next(variable, shape), self.dtype)

    def statistic(self, variable: str, shape: Shape) -> Array:
        """The values of the layer's next variable in float64, for a function that computes its constants from them."""
        return self._builder.values(f"{self.name}/{variable}", self._next(variable, shape), "float64")

    def skip_weight(self) -> None:
        """Pass over a variable that inference does not need, if the file holds it."""
        self._used = min(self._used + 1, len(self._variables))

    def constant(self, variable: str, array: Array, dtype: str) -> Value:
        """A weight that no variable of the source stands behind: numbers in the configuration or the call, in ``dtype``."""
        with np.errstate(over="ignore"):
            array = array.astype(dtype)
        if not np.isfinite(array).all():
            self.refuse(f"{variable!r} holds numbers that are not finite in {dtype}")
        return self._builder.constant(f"{self.name}/{variable}", array)

    def like(self, value: Value, number: float) -> Value:
        """A constant without axes in the dtype of ``value``."""
        return self.constant(f"constant_{number!r}", np.asarray(number), value.type.dtype)

    def _next(self, variable: str, shape: Shape) -> Variable:
        if not self._variables:
            self.refuse(
                f"no variables of it are stored, {variable!r} is missing; if two models share the layer, Keras stores it with "
                "one of them only: pass the model itself instead of the file"
            )
        if self._used >= len(self._variables):
            self.refuse(f"{len(self._variables)} variables of it are stored, {variable!r} is missing")
        stored = self._variables[self._used]
        self._used += 1
        if stored.shape != shape:
            self.refuse(f"{variable!r} is stored with shape {stored.shape}, its configuration asks for {format_shape(shape)}")
        return stored

    # --- emission ---

    def emit(self, op: str, *inputs: Value | None, **attrs: object) -> Value:
        """Emit an operator with one output."""
        names = [ABSENT if value is None else value.name for value in inputs]
        while names and names[-1] == ABSENT:
            names.pop()
        return self._builder.emit(op, self._base, names, self.name, attrs)

    def cast(self, value: Value, dtype: str) -> Value:
        """``value`` in another dtype."""
        if value.type.dtype == dtype:
            return value
        return self._builder.emit("cast", f"{self._base}/cast", [value.name], self.name, {"dtype": dtype})

    def activation(self, x: Value) -> Value:
        """Apply the activation that the configuration names."""
        from sparsec.frontends.layers.activations import apply_activation

        return apply_activation(self, x, self.option("activation", "linear"))

    # --- checks ---

    def begin(self) -> None:
        """Check, of a layer, that its call asks for nothing but inference."""
        training = bool(self.operand(len(self._args), "training"))
        # In Keras 3 the model's own call decides, whatever the layer's call says; in Keras 2 the layer's call does.
        if training and self.saved_by.generation == 2:
            self.refuse("is called with training=True, so it behaves at inference as in training; build the model without that")
        if any(not _is_neutral(item) and not isinstance(item, Value) for item in self._args[1:]):
            self.refuse("is called with more arguments than its input, which sparsec does not read")

    def finish(self) -> None:
        """Check that the layer's function has asked for everything that the source states about this call."""
        if self._unread:
            self.refuse(f"its call gives the argument {min(self._unread)!r}, which sparsec does not read")
        if self._used < len(self._variables):
            self.refuse(f"{len(self._variables)} variables of it are stored, its configuration asks for {self._used} only")


def _is_neutral(argument: Any) -> bool:
    """Whether an argument of a call says nothing: ``mask=None``, ``training=False``, ``mask=[None, None]``."""
    if isinstance(argument, list | Mapping):
        return all(_is_neutral(item) for item in (argument.values() if isinstance(argument, Mapping) else argument))
    return argument is None or argument is False
