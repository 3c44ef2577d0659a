"""Comparisons, logic and choice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sparsec.frontends.layer import Layer, Value, reads_operation
from sparsec.frontends.layers.dtypes import promoted
from sparsec.frontends.operations.arithmetic import OPERANDS
from sparsec.frontends.operations.operands import arguments, as_value

Relation = Callable[[Layer, Value, Value], Value]


def negation(layer: Layer, condition: Value) -> Value:
    """Whether a condition does not hold."""
    return layer.emit("equal", condition, layer.constant("false", np.asarray(False), "bool"))


def _greater(layer: Layer, a: Value, b: Value) -> Value:
    return layer.emit("greater", a, b)


def _greater_equal(layer: Layer, a: Value, b: Value) -> Value:
    # Not the negation of b > a, which would hold where a number is not one.
    return layer.emit("maximum", layer.emit("greater", a, b), layer.emit("equal", a, b))


def _equal(layer: Layer, a: Value, b: Value) -> Value:
    return layer.emit("equal", a, b)


def _not_equal(layer: Layer, a: Value, b: Value) -> Value:
    return negation(layer, layer.emit("equal", a, b))


def _swapped(relation: Relation) -> Relation:
    return lambda layer, a, b: relation(layer, b, a)


RELATIONS: dict[tuple[str, ...], Relation] = {
    ("Greater", "math.greater"): _greater,
    ("GreaterEqual", "math.greater_equal"): _greater_equal,
    ("Less", "math.less"): _swapped(_greater),
    ("LessEqual", "math.less_equal"): _swapped(_greater_equal),
    ("Equal", "math.equal", "__operators__.eq"): _equal,
    ("NotEqual", "math.not_equal", "__operators__.ne"): _not_equal,
}
"""Relations of two values that meet in one dtype, by their names in Keras 3 and TensorFlow."""

CONNECTIVES: dict[tuple[str, ...], Relation] = {
    ("LogicalAnd", "math.logical_and"): lambda layer, a, b: layer.emit("minimum", a, b),
    ("LogicalOr", "math.logical_or"): lambda layer, a, b: layer.emit("maximum", a, b),
    ("LogicalXor",): _not_equal,
}
"""The same for conditions; Keras takes numbers for conditions that hold where they are not 0."""


def _register(names: tuple[str, ...], relation: Relation, conditions: bool) -> None:
    @reads_operation(*names)
    def read(layer: Layer) -> Value:
        a, b = arguments(layer, *OPERANDS).values("a", "b")
        if conditions:
            a, b = layer.cast(a, "bool"), layer.cast(b, "bool")
        return relation(layer, a, b)


for _names, _relation in RELATIONS.items():
    _register(_names, _relation, conditions=False)
for _names, _relation in CONNECTIVES.items():
    _register(_names, _relation, conditions=True)


@reads_operation("LogicalNot", "math.logical_not")
def logical_not(layer: Layer) -> Value:
    """Whether a condition does not hold."""
    return negation(layer, layer.cast(arguments(layer, "x").tensor("x"), "bool"))


@reads_operation("Where", "where")
def where(layer: Layer) -> Value:
    """One value where a condition holds, another one elsewhere."""
    given = arguments(layer, "condition", "x1|x", "x2|y")
    condition = layer.cast(given.tensor("condition"), "bool")
    chosen = [given.option(name) for name in ("x1", "x2")]
    if any(item is None for item in chosen):
        layer.refuse("the values to choose from are missing: positions that depend on the data are not read")
    like = next((item for item in chosen if isinstance(item, Value)), condition)
    a, b = promoted(layer, [as_value(layer, item, like) for item in chosen])
    return layer.emit("where", condition, a, b)
