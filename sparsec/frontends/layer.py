"""What a layer's own function sees: its configuration, its inputs, its variables, and how to emit operators.

A Keras layer class is one function decorated with :func:`reads`. It is called once for every call of the layer, emits operators and returns
the values of the layer's outputs::

    @reads("Dense")
    def dense(layer: Layer) -> Value:
        x = layer.input
        kernel = layer.weight("kernel", (layer.channels(x), layer.integer("units")))
        bias = layer.weight("bias", (layer.integer("units"),)) if layer.config.get("use_bias", True) else None
        return layer.activation(layer.emit("dense", x, kernel, bias))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np

from sparsec.errors import UnsupportedLayerError
from sparsec.frontends.source import Config, LayerEntry, LayerPath, SavedBy, Variable
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


class Layer:
    """One call of one layer.

    Attributes:
        name: the layer's path, for messages and for the names of nodes and weights.
        class_name: its class.
        config: its configuration.
        saved_by: the version of Keras that wrote it.
        args: the positional arguments of the call, tensors as :class:`Value`.
        kwargs: the keyword arguments of the call, likewise.
    """

    def __init__(
        self, builder: GraphBuilder, entry: LayerEntry, path: LayerPath, args: Sequence[Any], kwargs: Mapping[str, Any], calls: int
    ) -> None:
        self._builder = builder
        self._calls = calls
        self._used = 0
        self._variables = builder.variables_of(path)
        self.name = "/".join((*path[:-1], entry.name))
        self.class_name = entry.class_name
        self.config: Config = entry.config
        self.saved_by: SavedBy = builder.saved_by
        self.args = args
        self.kwargs = kwargs

    # --- inputs ---

    @property
    def inputs(self) -> list[Value]:
        """Every tensor among the positional arguments, in order, lists flattened."""
        found: list[Value] = []

        def collect(item: Any) -> None:
            if isinstance(item, Value):
                found.append(item)
            elif isinstance(item, list | tuple):
                for inner in item:
                    collect(inner)

        collect(list(self.args))
        if not found:
            collect(list(self.kwargs.values()))
        return found

    @property
    def input(self) -> Value:
        """The only input."""
        inputs = self.inputs
        if len(inputs) != 1:
            self.refuse(f"{len(inputs)} inputs where one was expected")
        return inputs[0]

    # --- configuration ---

    def option(self, name: str, default: Any = None) -> Any:
        """A configuration value, ``default`` where the file does not state it or states null."""
        value = self.config.get(name)
        return default if value is None else value

    def integer(self, name: str) -> int:
        """A configuration value that must be an integer."""
        value = self.config.get(name)
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(f"{name} = {value!r}, an integer was expected")
        return value

    def number(self, name: str, default: float) -> float:
        """A configuration value that must be a number."""
        value = self.option(name, default)
        if isinstance(value, dict) and value.get("class_name") == "__numpy__":
            value = value["config"]["value"]
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse(f"{name} = {value!r}, a number was expected")
        return float(value)

    def integers(self, name: str, count: int, default: int | None = None) -> tuple[int, ...]:
        """A configuration value that is one integer for all of ``count`` axes, or one for each."""
        value = self.option(name, default)
        if isinstance(value, int) and not isinstance(value, bool):
            return (value,) * count
        if not isinstance(value, list | tuple) or len(value) != count or not all(isinstance(v, int) for v in value):
            self.refuse(f"{name} = {value!r}, {count} integers were expected")
        return tuple(value)

    def channels(self, value: Value) -> int:
        """The size of the last axis, which must be known."""
        size = value.shape[-1]
        if not isinstance(size, int):
            self.refuse(f"the size of its input's last axis is {size}; it must be known")
        return size

    # --- variables ---

    def weight(self, variable: str, shape: Shape) -> Value:
        """The layer's next variable, which must have this shape; call it in the order of ``layer.weights``."""
        return self._builder.weight(f"{self.name}/{variable}", self._next(variable, shape))

    def skip_weight(self) -> None:
        """Pass over a variable that inference does not need, if the file holds it."""
        self._used = min(self._used + 1, len(self._variables))

    def constant(self, variable: str, array: Array) -> Value:
        """A weight that no variable of the source stands behind: a number in the configuration."""
        return self._builder.constant(f"{self.name}/{variable}", array)

    def statistic(self, variable: str, shape: Shape) -> Array:
        """The values of the layer's next variable, for a function that computes its weights from them."""
        return self._next(variable, shape).load()

    def scalar(self, number: float, dtype: str) -> Value:
        """A constant without axes."""
        return self.constant(f"constant_{number!r}", np.asarray(number, dtype=dtype))

    def like(self, value: Value, number: float) -> Value:
        """A constant without axes in the dtype of ``value``."""
        return self.scalar(number, value.type.dtype)

    def _next(self, variable: str, shape: Shape) -> Variable:
        if self._used >= len(self._variables):
            self.refuse(f"the file holds {len(self._variables)} variables of it, {variable!r} is missing")
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
        base = self.name if self._calls == 0 else f"{self.name}:{self._calls}"
        return self._builder.emit(op, base, names, self.name, attrs)

    def activation(self, x: Value, name: str = "activation", default: str = "linear") -> Value:
        """Apply the activation that the configuration names."""
        from sparsec.frontends.layers.activations import apply_activation

        return apply_activation(self, x, self.option(name, default))

    def refuse(self, reason: str) -> NoReturn:
        """Refuse the layer.

        Raises:
            UnsupportedLayerError: always; names the layer, its class and the reason.
        """
        raise UnsupportedLayerError(f"layer {self.name!r} ({self.class_name}): {reason}")

    def finish(self) -> None:
        """Check that the layer's function has asked for every variable that the file holds."""
        if self._used < len(self._variables):
            self.refuse(
                f"the file holds {len(self._variables)} variables of it, its configuration asks for {self._used} only"
            )

