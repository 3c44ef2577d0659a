"""What a model takes and gives: names, shapes and dtypes, and the checks of arrays against them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.errors import InputError
from sparsec.ir import Array, Dim, Expr, TensorType, evaluate, format_shape


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a model.

    Attributes:
        name: its name.
        shape: sizes, and names or formulas of sizes that differ from call to call; axis 0 is the batch, ``N``.
        dtype: name of the NumPy dtype.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    @classmethod
    def of(cls, name: str, type_: TensorType) -> TensorInfo:
        """The information on a value of the graph."""
        return cls(name, tuple(dim if isinstance(dim, int) else str(dim) for dim in type_.shape), type_.dtype)

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}({', '.join(map(str, self.shape))})"


Inputs = Any
"""What a model is called with: one array, or a list or a dict of arrays."""


def arrange_inputs(x: Inputs, names: Sequence[str]) -> list[Any]:
    """The inputs in the model's order.

    Args:
        x: one array for a model with one input; else a list or tuple in the model's order, or a dict by name.
        names: of the model's inputs, in order.

    Raises:
        InputError: inputs are missing, unknown or too many.
    """
    listed = ", ".join(map(repr, names))
    if isinstance(x, Mapping):
        missing = [name for name in names if name not in x]
        unknown = [name for name in x if name not in names]
        if missing or unknown:
            what = f"input {missing[0]!r} is missing" if missing else f"there is no input {unknown[0]!r}"
            raise InputError(f"{what}; the model's inputs are {listed}")
        return [x[name] for name in names]
    if not _is_list_of_inputs(x):
        x = [x]
    if len(x) != len(names):
        hint = "; stack samples into one array with numpy.stack" if len(names) == 1 else ""
        raise InputError(f"the model takes {len(names)} inputs ({listed}), not {len(x)}{hint}")
    return list(x)


def _is_list_of_inputs(x: Inputs) -> bool:
    # A nested list of plain numbers is one array.
    return isinstance(x, list | tuple) and any(hasattr(item, "__array__") and np.ndim(item) > 0 for item in x)


def convert_inputs(arrays: Sequence[Any], names: Sequence[str], types: Sequence[TensorType]) -> list[Array]:
    """The inputs in the model's dtypes.

    Safe casts are made, and casts from wider floating-point dtypes to float32 and float16.

    Raises:
        InputError: an input cannot be converted.
    """
    return [_convert(x, name, type_.dtype) for x, name, type_ in zip(arrays, names, types, strict=True)]


def _convert(x: Any, name: str, dtype: str) -> Array:
    try:
        array: Array = np.asarray(x)
    except ValueError as error:
        raise InputError(f"input {name!r} is not an array: {error}") from None
    if array.dtype == dtype:
        return array
    found = array.dtype.name
    if np.can_cast(array.dtype, dtype, "safe") or (array.dtype.kind == "f" and dtype.startswith("float")):
        return array.astype(dtype)
    raise InputError(
        f"input {name!r} has dtype {found}, {dtype} was expected, to which {found} is not cast; convert it with"
        f" .astype({dtype!r}) if that is what you mean"
    )


def bind_sizes(arrays: Sequence[Array], names: Sequence[str], types: Sequence[TensorType]) -> dict[str, int]:
    """The sizes of the model's symbols, checked over all inputs.

    Raises:
        InputError: a shape does not fit, or two inputs disagree about a symbol.
    """
    sizes: dict[str, int] = {}
    origin: dict[str, str] = {}
    for array, name, type_ in zip(arrays, names, types, strict=True):
        if array.ndim != type_.rank:
            _refuse(array, name, type_, _batch_hint(array, type_))
        for dim, size in zip(type_.shape, array.shape, strict=True):
            label = _plain_symbol(dim)
            if label and label not in sizes:
                sizes[label], origin[label] = size, name
    for array, name, type_ in zip(arrays, names, types, strict=True):
        for dim, size in zip(type_.shape, array.shape, strict=True):
            expected = evaluate(dim, sizes)
            if size != expected:
                label = _plain_symbol(dim)
                known = f"; {label} is {expected} in input {origin[label]!r}" if label else ""
                _refuse(array, name, type_, known)
    return sizes


def _plain_symbol(dim: Dim) -> str:
    if isinstance(dim, Expr) and len(dim.terms) == 1:
        monomial, coefficient = dim.terms[0]
        if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], str):
            return monomial[0]
    return ""


def _batch_hint(array: Array, type_: TensorType) -> str:
    return "; axis 0 is the batch: use x[None] for a single sample" if array.ndim == type_.rank - 1 else ""


def _refuse(array: Array, name: str, type_: TensorType, hint: str) -> None:
    raise InputError(f"input {name!r} has shape {array.shape}, {format_shape(type_.shape)} was expected{hint}")
