"""Computations with what ``tf.shape`` gives: Keras 2 writes them down as operations, sizes that are known among them or not.

They end in the target of a reshape, or as numbers. What they cannot become is a tensor whose values depend on an open size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparsec.frontends.layer import Layer, Sizes, reads_operation, reads_sizes
from sparsec.frontends.operations.arithmetic import OPERANDS
from sparsec.frontends.operations.operands import Arguments, arguments
from sparsec.ir import Dim


@reads_operation("compat.v1.shape")
def shape(layer: Layer) -> Sizes:
    """The sizes of a tensor."""
    given = arguments(layer, "x|input", "out_type")
    given.option("out_type")
    return Sizes(given.tensor("x").shape)


def vector(given: Arguments, item: Any) -> tuple[Dim, ...]:
    """Sizes, or integers, as a vector; a single one has the length 1."""
    if isinstance(item, Sizes):
        return item.dims if isinstance(item.dims, tuple) else (item.dims,)
    if isinstance(item, list | tuple):
        return tuple(dim for part in item for dim in vector(given, part))
    if type(item) is not int:
        given.refuse(f"computes with {item!r} where sizes were expected")
    return (item,)


@reads_sizes("__operators__.getitem")
def get_item(layer: Layer) -> Sizes:
    """One of several sizes, or some of them."""
    given = arguments(layer, "x|tensor", "key|slice_spec")
    sizes, key = vector(given, given.option("x")), given.option("key")
    key = key[0] if isinstance(key, list) and len(key) == 1 else key
    ends = [key.start, key.stop, key.step] if isinstance(key, slice) else [key]
    if not all(end is None or type(end) is int for end in ends) or (type(key) is int and not -len(sizes) <= key < len(sizes)):
        layer.refuse("takes a part of a shape by what is no number")
    return Sizes(sizes[key])


@reads_sizes("unstack")
def unstack(layer: Layer) -> tuple[Sizes, ...]:
    """Each size by itself."""
    given = arguments(layer, "x|value", "num", "axis")
    return tuple(Sizes(dim) for dim in vector(given, given.option("x")))


@reads_sizes("stack", "concat")
def joined(layer: Layer) -> Sizes:
    """Sizes one after the other."""
    given = arguments(layer, "x|values", "axis")
    return Sizes(vector(given, given.option("x")))


@reads_sizes("cast", "identity", "stop_gradient")
def unchanged(layer: Layer) -> Sizes:
    """The sizes themselves, which are numbers of any dtype."""
    given = arguments(layer, "x|input", "dtype")
    value = given.option("x")
    return value if isinstance(value, Sizes) else Sizes(vector(given, value))


def _register(names: tuple[str, ...], function: Callable[[Dim, Dim], Dim]) -> None:
    @reads_sizes(*names)
    def read(layer: Layer) -> Sizes:
        given = arguments(layer, *OPERANDS)
        (a,), (b,) = (_single(given, name) for name in ("a", "b"))
        return Sizes(function(a, b))


def _single(given: Arguments, name: str) -> tuple[Dim]:
    dims = vector(given, given.option(name))
    if len(dims) != 1:
        given.refuse("computes with whole shapes, which is not read")
    return (dims[0],)


_register(("math.add", "__operators__.add"), lambda a, b: a + b)
_register(("math.subtract", "__operators__.sub"), lambda a, b: a - b)
_register(("math.multiply", "__operators__.mul"), lambda a, b: a * b)


@reads_sizes("compat.v1.floor_div")
def floor_divide(layer: Layer) -> Sizes:
    """A size divided by a number."""
    given = arguments(layer, *OPERANDS)
    (a,), (b,) = _single(given, "a"), _single(given, "b")
    if not isinstance(b, int) or b < 1:
        layer.refuse("divides by a size that is open")
    return Sizes(a // b)
