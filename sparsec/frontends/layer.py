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

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from sparsec.frontends.options import Options
from sparsec.frontends.policy import DEFAULT, compute_dtype, half_precision, merged_half
from sparsec.frontends.source import LayerEntry, LayerPath, MatrixView, SavedBy, Variable, layer_entry
from sparsec.ir import ABSENT, Array, Dim, Shape, TensorType, format_shape

if TYPE_CHECKING:
    from sparsec.frontends.builder import GraphBuilder


@dataclass(frozen=True)
class Value:
    """A value of the graph under construction.

    Attributes:
        name: its name in the graph.
        type: its type.
        mask: Keras' mask of it, a bool value of its leading axes that is false where it is to be skipped; ``None`` for none.
        half: the half precision in which Keras has it where the graph has ``float32``: ``float16``, ``bfloat16``, or empty for
            none; ``None`` of a constant, which takes that of what it meets.
    """

    name: str
    type: TensorType
    mask: Value | None = field(default=None, compare=False)
    half: str | None = field(default="", compare=False)

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


@dataclass(frozen=True)
class Sizes:
    """What ``tf.shape`` gives of a tensor: sizes that are known or symbols, which are no values of the graph.

    Attributes:
        dims: a vector of sizes, or a single one.
    """

    dims: Dim | tuple[Dim, ...]


Output = Value | Sizes
"""What an operation may give to others."""

LayerFunction = Callable[["Layer"], "Value | tuple[Value, ...]"]
Function = TypeVar("Function", bound=LayerFunction)

OperationFunction = Callable[["Layer"], "Output | tuple[Output, ...]"]
Operation = TypeVar("Operation", bound=OperationFunction)

LAYERS: dict[str, LayerFunction] = {}
"""The function of every layer class, by class name."""

OPERATIONS: dict[str, OperationFunction] = {}
"""The function of every operation on tensors that is not a layer: ``keras.ops`` nodes and TFOpLambda functions."""


NEVER: frozenset[int] = frozenset()
ALWAYS, SINCE_KERAS_3 = frozenset({2, 3}), frozenset({3})
"""Generations of Keras in which a class passes the mask of its input on."""

PASSES_MASK: dict[str, Container[int]] = {}
"""For every layer class, the generations of Keras in which it does."""


UNCAST = frozenset({"CategoryEncoding", "Discretization", "IntegerLookup", "RandomCrop"})
"""Layers that get their inputs as they are; the dtype of those that turn numbers into categories is that of their output."""


def reads(*class_names: str, passes_mask: Container[int] = NEVER) -> Callable[[Function], Function]:
    """Register the function that reads layers of these classes.

    Args:
        class_names: the classes.
        passes_mask: the generations of Keras in which their first output has the mask of their first input. Where the mask
            of an output is another one, the function gives it: ``layer.masked(value, mask)``.
    """

    def register(function: Function) -> Function:
        LAYERS.update(dict.fromkeys(class_names, function))
        PASSES_MASK.update(dict.fromkeys(class_names, passes_mask))
        return function

    return register


SIZE_OPERATIONS: dict[str, OperationFunction] = {}
"""The function of every operation that can compute with sizes alone; others are given tensors, and sizes beside them."""


def reads_sizes(*names: str) -> Callable[[Operation], Operation]:
    """Register the function that reads operations of these names where they are given sizes and no tensor."""

    def register(function: Operation) -> Operation:
        SIZE_OPERATIONS.update(dict.fromkeys(names, function))
        return function

    return register


def reads_operation(*names: str) -> Callable[[Operation], Operation]:
    """Register the function that reads operations of these names (Keras 3 classes, or TFOpLambda functions)."""

    def register(function: Operation) -> Operation:
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


class StoredVariables:
    """The stored variables of a layer, which is asked for them one after the other, in the order of ``layer.weights``."""

    def __init__(self, variables: Sequence[Variable]) -> None:
        self._variables = variables
        self._used = 0

    def __len__(self) -> int:
        return len(self._variables)

    @property
    def used(self) -> int:
        """How many were asked for."""
        return self._used

    @property
    def first(self) -> Variable | None:
        """The first of all, if there is any."""
        return self._variables[0] if self._variables else None

    def take(self) -> Variable | None:
        """The next one, ``None`` after the last."""
        if self._used >= len(self._variables):
            return None
        self._used += 1
        return self._variables[self._used - 1]

    def leave_out(self, shape: Shape) -> None:
        """Forget the last one of a shape, which no part is to take; some sources list it before those that parts take."""
        last = next((i for i in reversed(range(self._used, len(self._variables))) if self._variables[i].shape == shape), None)
        self._variables = [variable for index, variable in enumerate(self._variables) if index != last]


class Walk(Protocol):
    """What emits layers: the walk over a model."""

    def emit(self, layer: Layer) -> tuple[Value, ...]:
        """Emit one call of a layer, or of a nested model, and return its outputs."""


class Layer(Options):
    """One call of one layer, or of one operation.

    Attributes:
        name: the layer's path, for messages and for the names of nodes and weights.
        class_name: its class.
        saved_by: the version of Keras that wrote it.
        dtype: the dtype in which it computes; of an operation, the default one.
        half: the half precision in which Keras computes it, see :class:`Value`; empty of an operation.
        entry: what the configuration says of it.
        path: the keys of the models around it, and its own.
        stored: its variables.
    """

    def __init__(
        self,
        builder: GraphBuilder,
        entry: LayerEntry,
        path: LayerPath,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        calls: int,
        walk: Walk,
        whole: Layer | None = None,
        operation: bool = False,
    ) -> None:
        self.name: str = "/".join((*path[:-1], entry.name)) if whole is None else f"{whole.name}/{entry.name}"
        super().__init__(entry.config, f"layer {self.name!r} ({entry.class_name})")
        self.class_name = entry.class_name
        self.saved_by: SavedBy = builder.saved_by
        self.dtype = compute_dtype(entry.config.get("dtype"), self.subject)
        self.half = "" if operation else half_precision(entry.config.get("dtype"))
        self._operation = operation
        self.entry = entry
        self.path = path
        self._reported: str = self.name if whole is None else whole._reported
        self._builder = builder
        self._walk = walk
        self._calls = calls
        self._base = f"{self.name}:{calls}" if calls else self.name
        # Some sources list the variables of a layer and of its parts as one, in order; then the parts take them from there.
        self._listed_by_whole = whole is not None and not builder.has_variables(path)
        self.stored: StoredVariables = (
            whole.stored if whole is not None and self._listed_by_whole else StoredVariables(builder.variables_of(path))
        )
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

    @property
    def is_given_only_sizes(self) -> bool:
        """Whether the call gives what ``tf.shape`` gave, and no tensor."""
        given = [self._args, self._kwargs]
        return any(_holds_sizes(item) for item in given) and not any(True for item in given for _ in tensors(item))

    @cached_property
    def inputs(self) -> list[Value]:
        """Every input tensor in order, structures flattened, floats in the dtype in which the layer computes."""
        given: Any = self._args
        first = next((name for name in self._kwargs if name != "mask"), None)
        if not given and first is not None:
            given = self._kwargs[first]
            self._unread.discard(first)
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
        if not value.is_float or self.class_name in UNCAST:
            return value
        if value.type.dtype == self.dtype:
            return value if self._operation else replace(value, half=self.half)
        if not self.dtype.startswith("float"):
            self.refuse(f"casts its floating-point input to {self.dtype}, which is not read")
        return replace(self.cast(value, self.dtype), mask=value.mask)

    # --- masks ---

    @cached_property
    def mask(self) -> Value | None:
        """The mask of the call: the one that it gives, else that of its first input."""
        if self.given_mask is None:
            return self.inputs[0].mask if self.inputs else None
        return self.given_mask

    @cached_property
    def given_mask(self) -> Value | None:
        """The mask that the call gives."""
        given = next(tensors(self.operand(len(self._args), "mask")), None)
        return None if given is None else self.cast(given, "bool")

    def masked_inputs(self, given: Any) -> Any:
        """The inputs of a nested model with the masks that its call gives."""
        masks = list(tensors(self.operand(len(self._args), "mask")))
        values = list(tensors(given))
        if not masks:
            return given
        if len(masks) != len(values) or isinstance(given, Mapping):
            self.refuse("is called with other masks than one for each of its inputs, which sparsec does not read")
        return [self.masked(value, self.cast(mask, "bool")) for value, mask in zip(values, masks, strict=True)]

    def masked(self, value: Value, mask: Value | None) -> Value:
        """``value`` with another mask, or without one."""
        return replace(value, mask=mask)

    def forget_masks(self, *values: Value) -> None:
        """Take the masks off values, for everything that reads them after this call."""
        self._builder.unmasked.update(value.name for value in values)

    def with_passed_masks(self, outputs: tuple[Value, ...]) -> tuple[Value, ...]:
        """The outputs as Keras masks them: a class passes the mask of its first input on, or has given masks, or drops them."""
        if self.saved_by.generation in PASSES_MASK.get(self.class_name, NEVER):
            first, *others = outputs
            return (first if first.mask is not None else self.masked(first, self.mask), *others)
        unchanged = {value.name for value in self.inputs}
        return tuple(self.masked(value, None) if value.name in unchanged else value for value in outputs)

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

    def weight(self, variable: str, shape: Shape, view: MatrixView | None = None) -> Value:
        """The layer's next variable, which must have this shape; call it in the order of ``layer.weights``.

        Args:
            variable: its name.
            shape: its shape.
            view: how the weight of the graph is made of it, where it is not the variable itself.
        """
        value = self._builder.weight(f"{self.name}/{variable}", self._next(variable, shape), self.dtype, view)
        return replace(value, half=self.half)

    def statistic(self, variable: str, shape: Shape) -> Array:
        """The values of the layer's next variable in float64, for a function that computes its constants from them."""
        return self._builder.values(f"{self.name}/{variable}", self._next(variable, shape), "float64")

    def skip_weight(self) -> None:
        """Pass over a variable that inference does not need, if the file holds it."""
        self.stored.take()

    def constant(self, variable: str, array: Array, dtype: str) -> Value:
        """A weight that no variable of the source stands behind: numbers in the configuration or the call, in ``dtype``."""
        with np.errstate(over="ignore"):
            array = array.astype(dtype)
        if not np.isfinite(array).all():
            self.refuse(f"{variable!r} holds numbers that are not finite in {dtype}")
        return replace(self._builder.constant(f"{self.name}/{variable}", array), half=None)

    def like(self, value: Value, number: float) -> Value:
        """A constant without axes in the dtype of ``value``."""
        return self.constant(f"constant_{number!r}", np.asarray(number), value.type.dtype)

    def _next(self, variable: str, shape: Shape) -> Variable:
        if not self.stored:
            self.refuse(
                f"no variables of it are stored, {variable!r} is missing; if two models share the layer, Keras stores it with "
                "one of them only: pass the model itself instead of the file"
            )
        stored = self.stored.take()
        if stored is None:
            self.refuse(f"{len(self.stored)} variables of it are stored, {variable!r} is missing")
        if stored.shape != shape:
            self.refuse(f"{variable!r} is stored with shape {stored.shape}, its configuration asks for {format_shape(shape)}")
        return stored

    # --- parts ---

    def part(self, *names: str, serialized: Any = None, args: Sequence[Any] = (), **kwargs: Any) -> Layer:
        """A part of a composite layer, which has variables of its own: a cell, an inner layer, a projection.

        Its weights are called ``<layer>/<part>/<variable>``. Where the source lists the variables of the whole layer as one,
        parts are to be asked for theirs in the order of ``layer.weights``.

        Args:
            names: what the part is called as an attribute of the layer; the first name counts, others are what it was called
                in other versions. A part in a list has the list's name before its own, ``cells/lstm_cell_1``.
            serialized: the class and configuration of the part; without it, the part has the layer's.
            args: what it is called with, where it is a layer that is called: ``layer.part(...).outputs()``.
            kwargs: what it is called with by name.
        """
        paths = [(*self.path, *name.split("/")) for name in names]
        path = next((path for path in paths if self._builder.has_variables(path)), paths[0])
        entry = self.entry if serialized is None else layer_entry(serialized, self.subject)
        entry = replace(entry, key=path[-1], name=names[0])
        return Layer(self._builder, entry, path, args, kwargs, self._calls, self._walk, self)

    def outputs(self) -> tuple[Value, ...]:
        """Emit a part that is a layer of any class that is read, or a model, and return its outputs."""
        return self._walk.emit(self)

    # --- emission ---

    def emit(self, op: str, *inputs: Value | None, **attrs: object) -> Value:
        """Emit an operator with one output."""
        return _like(self._builder.emit(op, self._base, _names(inputs), self._reported, attrs), inputs)

    def emit_all(self, op: str, *inputs: Value | None, further: Sequence[str], **attrs: object) -> tuple[Value, ...]:
        """Emit an operator with several outputs; ``further`` names those after the first."""
        results = self._builder.emit_all(op, self._base, _names(inputs), self._reported, attrs, further)
        return tuple(_like(result, inputs) for result in results)

    def cast(self, value: Value, dtype: str) -> Value:
        """``value`` in another dtype, as the layer computes in it."""
        if value.type.dtype == dtype:
            return value if self._operation or dtype != DEFAULT else replace(value, half=self.half)
        result = self._builder.emit("cast", f"{self._base}/cast", [value.name], self._reported, {"dtype": dtype})
        return replace(result, half=self.half if dtype == DEFAULT else "")

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
        if not all(_is_neutral(item) or _holds_tensors(item) for item in self._args[1:]):
            self.refuse("is called with more arguments than its input, which sparsec does not read")

    def finish(self) -> None:
        """Check that the layer's function has asked for everything that the source states about this call."""
        if self._unread:
            self.refuse(f"its call gives the argument {min(self._unread)!r}, which sparsec does not read")
        if not self._listed_by_whole and self.stored.used < len(self.stored):
            self.refuse(f"{len(self.stored)} variables of it are stored, its configuration asks for {self.stored.used} only")


def _names(inputs: Sequence[Value | None]) -> list[str]:
    """The names of a node's inputs; those absent at the end are left out."""
    names = [ABSENT if value is None else value.name for value in inputs]
    while names and names[-1] == ABSENT:
        names.pop()
    return names


def _like(result: Value, inputs: Sequence[Value | None]) -> Value:
    """The result of an operator in the precision that Keras has it in."""
    if result.type.dtype != DEFAULT:
        return result
    return replace(result, half=merged_half(value.half for value in inputs if value is not None and value.is_float))


def _holds_sizes(argument: Any) -> bool:
    if isinstance(argument, list | tuple | Mapping):
        return any(map(_holds_sizes, argument.values() if isinstance(argument, Mapping) else argument))
    return isinstance(argument, Sizes)


def _holds_tensors(argument: Any) -> bool:
    """Whether an argument of a call is a tensor of the model, or a list of nothing else."""
    return all(isinstance(item, Value) for item in (argument if isinstance(argument, list | tuple) else [argument]))


def _is_neutral(argument: Any) -> bool:
    """Whether an argument of a call says nothing: ``mask=None``, ``training=False``, ``mask=[None, None]``."""
    if isinstance(argument, list | Mapping):
        return all(_is_neutral(item) for item in (argument.values() if isinstance(argument, Mapping) else argument))
    return argument is None or argument is False
