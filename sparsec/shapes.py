"""Binding the sizes that a model leaves open."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, TypeGuard

from sparsec.errors import InputError
from sparsec.ir import Dim, Graph, TensorType, format_shape, symbols


def bind_shapes(graph: Graph, shapes: Sequence[Sequence[int]]) -> Graph:
    """The graph with its inputs' open sizes bound.

    Args:
        graph: the model.
        shapes: one for each input in order, without the batch.

    Raises:
        InputError: there are more or fewer shapes than inputs, or one contradicts what the model fixes.
    """
    check_count(graph, shapes)
    sizes: dict[str, Dim] = {}
    for entry, shape in zip(graph.inputs, shapes, strict=True):
        fixed = fixed_type(entry.name, entry.type, shape)
        for dim, size in zip(entry.type.shape[1:], fixed.shape[1:], strict=True):
            for name in symbols(dim):
                if sizes.setdefault(name, size) != size:
                    raise _mismatch(entry.name, entry.type, shape)
    return graph.bind(sizes)


def check_count(graph: Graph, shapes: Sequence[Sequence[int]]) -> None:
    """Check that there is a shape for each input.

    Raises:
        InputError: there are more or fewer.
    """
    if len(shapes) != len(graph.inputs):
        raise InputError(f"the model has {describe_inputs(graph)}; give a shape for each (got {len(shapes)})")


def given_shapes(shapes: object) -> list[list[int]]:
    """Whatever a caller gave as the shapes of a model's inputs, as lists of Python integers.

    Raises:
        InputError: it is no list of lists of integers.
    """
    if _is_sequence(shapes) and all(
        _is_sequence(shape) and all(isinstance(size, Integral) for size in shape) for shape in shapes
    ):
        return [[int(size) for size in shape] for shape in shapes]
    raise InputError(f"{shapes!r} is no list of shapes; give one for each input without the batch, such as [(224, 224, 3)]")


def _is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str)


def fixed_type(name: str, type_: TensorType, shape: Sequence[int]) -> TensorType:
    """The type of an input with its open sizes replaced.

    Args:
        name: the input's name, for messages.
        type_: its type, the batch first.
        shape: its shape without the batch.

    Raises:
        InputError: the shape contradicts what the model fixes.
    """
    fits = len(shape) == type_.rank - 1 and all(
        size > 0 and (dim == size or not isinstance(dim, int)) for dim, size in zip(type_.shape[1:], shape, strict=True)
    )
    if not fits:
        raise _mismatch(name, type_, shape)
    return TensorType(type_.dtype, (type_.shape[0], *shape))


def open_sizes(graph: Graph) -> tuple[str, ...]:
    """The names of the inputs' sizes that are open, apart from the batch."""
    return tuple(dict.fromkeys(name for i in graph.inputs for dim in i.type.shape[1:] for name in sorted(symbols(dim))))


def describe_inputs(graph: Graph) -> str:
    """``inputs 'image' (N, 28, 28, 1), 'mask' (N, 28, 28)``, for messages."""
    plural = "s" if len(graph.inputs) > 1 else ""
    return f"input{plural} " + ", ".join(f"{i.name!r} {format_shape(i.type.shape)}" for i in graph.inputs)


def _mismatch(name: str, type_: TensorType, shape: Sequence[int]) -> InputError:
    return InputError(
        f"shape {','.join(map(str, shape))} does not fit input {name!r}, which is {format_shape(type_.shape)} with the batch "
        "first; leave the batch out"
    )
