"""The arguments of operations on tensors: nodes of ``keras.ops`` in Keras 3, TFOpLambda and SlicingOpLambda in Keras 2.

Keras 3 keeps tensors in the call and all else in the configuration; Keras 2 keeps everything in the call, the first argument by
position and the others by name. A function states the names of its arguments in the order of the call, with those that
another package or generation gives them behind a bar: ``arguments(layer, "x", "axis", "keepdims|keep_dims")``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sparsec.frontends.layer import Layer, Sizes, Value
from sparsec.frontends.layers.dtypes import promoted, wider
from sparsec.frontends.options import Options, array_value
from sparsec.frontends.policy import DEFAULT, half_precision, input_dtype
from sparsec.ir import Array


class Arguments(Options):
    """The arguments of one operation, under their first names."""

    def __init__(self, layer: Layer, given: Mapping[str, Any]) -> None:
        super().__init__(given, layer.subject)
        self._layer = layer

    def tensor(self, name: str) -> Value:
        """An argument that is a tensor of the model."""
        value = self.option(name)
        if not isinstance(value, Value):
            self.refuse("its operand is not a tensor" if value is not None else f"its operand {name!r} is missing")
        return value

    def float_tensor(self, name: str) -> Value:
        """An argument that is a tensor, in floating point: Keras 3 takes integers as numbers of single precision."""
        value = self.tensor(name)
        if not value.is_float and self._layer.saved_by.generation == 2:
            self.refuse(f"it is given {value.type.dtype} values, which is not read; cast them to float32 first")
        return value if value.is_float else self._layer.cast(value, DEFAULT)

    def tensors(self, name: str) -> list[Value]:
        """An argument that is a list of tensors and numbers, in the one dtype in which they meet."""
        items = self.option(name)
        return operands(self._layer, items if isinstance(items, list | tuple) else [items])

    def values(self, *names: str) -> list[Value]:
        """Arguments of which one at least is a tensor and the others are numbers, in the one dtype in which they meet."""
        missing = [name for name in names if self.option(name) is None]
        if missing:
            self.refuse(
                f"the source does not state its operand {missing[0]!r}; use the function of tf.math or keras.ops by name"
            )
        return operands(self._layer, [self.option(name) for name in names])

    def axis(self, name: str, rank: int, default: int | None = None) -> int:
        """One axis, which is not that of the batch, counted from the front."""
        value = self.integer(name, default)
        if not -rank <= value < rank:
            self.refuse(f"{name} = {value} does not name an axis of a value of rank {rank}")
        if value % rank == 0:
            self.refuse(f"{name} = {value} is the batch axis, along which sparsec reads no operation")
        return value % rank

    def inner_axes(self, name: str, rank: int) -> tuple[int, ...]:
        """One axis or several, none that of the batch, counted from the front."""
        if self.option(name) is None:
            self.refuse("goes over all axes, the batch included, which is not read; state the axes")
        axes = self.axes(name, rank)
        if 0 in axes:
            self.refuse(f"{name} = {self.option(name)!r} includes the batch axis, along which sparsec reads no operation")
        return axes


def arguments(layer: Layer, *signature: str) -> Arguments:
    """The arguments of an operation.

    Args:
        layer: the operation.
        signature: the names of its arguments in the order of a call, synonyms behind bars.
    """
    stated: Mapping[str, Any] = layer.config if layer.saved_by.generation == 3 else {}
    given: dict[str, Any] = {}
    for index, entry in enumerate(signature):
        names = entry.split("|")
        value = layer.operand(index, *names)
        if value is None:
            value = next((stated[name] for name in names if stated.get(name) is not None), None)
        if value is not None:
            given[names[0]] = value
    return Arguments(layer, given)


def operands(layer: Layer, given: Sequence[Any]) -> list[Value]:
    """Tensors and numbers, in the one dtype in which they meet."""
    known = [item for item in given if isinstance(item, Value)]
    if not known:
        layer.refuse("none of its operands is a tensor")
    return promoted(layer, [as_value(layer, item, known[0]) for item in given])


def as_value(layer: Layer, item: Any, like: Value) -> Value:
    """A tensor as it is; a number, which takes the dtype of a tensor as far as it fits into it; an array, which has its own."""
    if isinstance(item, Value):
        return item
    array = as_array(layer, item)
    name = "constant" if array.ndim else f"constant_{array.item()!r}"
    if isinstance(item, np.ndarray):
        own = array.dtype.name
        return replace(layer.constant(name, array, input_dtype(own, layer.name)), half=half_precision(own))
    own = {"b": "bool", "i": "int32", "f": DEFAULT}[array.dtype.kind]
    return layer.constant(name, array, like.type.dtype if like.is_float else wider(own, like.type.dtype))


def as_array(layer: Layer, item: Any) -> Array:
    """Numbers, however they are written down."""
    if isinstance(item, Sizes):
        if not isinstance(item.dims, int):
            layer.refuse("computes with the size of an axis that is open, or with a whole shape, which is not read")
        item = item.dims
    try:
        array = np.asarray(array_value(item))
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "bif":
        layer.refuse("an operand is neither a tensor nor numbers that sparsec reads")
    return array


def as_indices(given: Arguments, name: str) -> Array:
    """An argument that is integers and no tensor."""
    value = given.option(name)
    if isinstance(value, Value):
        given.refuse(f"{name} is computed, which is not read")
    try:
        array = np.asarray(array_value(value))
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind != "i" or array.size == 0:
        given.refuse(f"{name} = {value!r}, integers were expected")
    return array
