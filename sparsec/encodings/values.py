"""Values: how the stored elements are written.

Every encoding of values turns a 1-D array into named parts and back, exact to the bit. To add one, subclass :class:`Values`,
register it, and give ``formats/encodings.md`` its worked example. What loses precision happens before lowering, in a pass.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, TypeVar

import numpy as np

from sparsec.errors import FormatError
from sparsec.ir import Array

Parts = Mapping[str, Array]


class Values(ABC):
    """An encoding of values.

    Attributes:
        name: its name in bundles.
    """

    name: ClassVar[str]

    @abstractmethod
    def dtypes(self, dtype: str) -> dict[str, str]:
        """The parts in order, each with its dtype, for values of ``dtype``."""

    @abstractmethod
    def encode(self, values: Array) -> dict[str, Array]:
        """The parts that hold 1-D ``values``."""

    @abstractmethod
    def decode(self, parts: Parts, dtype: str) -> Array:
        """The values that checked ``parts`` hold."""

    @abstractmethod
    def check(self, parts: Parts, dtype: str) -> int:
        """Check ``parts`` and return the number of values in them.

        Raises:
            FormatError: they hold no values of ``dtype``.
        """


VALUES: dict[str, Values] = {}
"""Every encoding of values by name."""

ValuesClass = TypeVar("ValuesClass", bound=type[Values])


def register(cls: ValuesClass) -> ValuesClass:
    """Enter an encoding into :data:`VALUES`; a class decorator."""
    VALUES[cls.name] = cls()
    return cls


@register
class Raw(Values):
    """The values one after the other."""

    name = "raw"

    def dtypes(self, dtype: str) -> dict[str, str]:
        """One part in the tensor's own dtype."""
        return {"values": dtype}

    def encode(self, values: Array) -> dict[str, Array]:
        """The values as they are."""
        return {"values": values}

    def decode(self, parts: Parts, dtype: str) -> Array:
        """The values as they are."""
        return parts["values"]

    def check(self, parts: Parts, dtype: str) -> int:
        """A bool is 0 or 1."""
        values = parts["values"]
        if dtype == "bool" and values.size and values.view(np.uint8).max() > 1:
            raise FormatError("a value of dtype bool is neither 0 nor 1")
        return len(values)


@register
class Planes(Values):
    """Byte planes: part ``plane0`` holds the least significant byte of every value, ``plane1`` the next one, and so on.

    The high bytes of floating-point weights hold sign and exponent, of few distinct values, and deflate well once they stand
    together; the low bytes are noise, which is kept apart.
    """

    name = "planes"

    def dtypes(self, dtype: str) -> dict[str, str]:
        """One part of bytes for each byte of a value."""
        return {f"plane{byte}": "uint8" for byte in range(np.dtype(dtype).itemsize)}

    def encode(self, values: Array) -> dict[str, Array]:
        """The transposed bytes."""
        planes = np.ascontiguousarray(values.view(np.uint8).reshape(-1, values.dtype.itemsize).T)
        return {f"plane{byte}": plane for byte, plane in enumerate(planes)}

    def decode(self, parts: Parts, dtype: str) -> Array:
        """The bytes transposed back."""
        values = np.empty(len(parts["plane0"]), dtype)
        grouped = values.view(np.uint8).reshape(-1, values.dtype.itemsize)
        for byte in range(values.dtype.itemsize):
            grouped[:, byte] = parts[f"plane{byte}"]
        return values

    def check(self, parts: Parts, dtype: str) -> int:
        """Planes of one length, and for bool 0 or 1 in each."""
        lengths = {len(parts[name]) for name in self.dtypes(dtype)}
        if len(lengths) != 1:
            raise FormatError(f"the byte planes have different lengths: {sorted(lengths)}")
        if dtype == "bool" and parts["plane0"].size and parts["plane0"].max() > 1:
            raise FormatError("a value of dtype bool is neither 0 nor 1")
        return lengths.pop()
