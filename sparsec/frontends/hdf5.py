"""HDF5 files from anywhere.

Damage is an error of one line, nothing outside the file is opened, and no dataset claims more values than the file holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.errors import FormatError, MissingExtraError
from sparsec.frontends.source import Variable
from sparsec.ir import Array

MAX_EXPANSION = 2048
"""No compression filter of HDF5 expands data more than about a thousandfold; what claims more holds nothing."""

BFLOAT16_BYTES = 2

MAX_DEPTH = 32
"""How deep groups may lie within the group of a layer."""


class H5Group:
    """A group of an open file."""

    def __init__(self, handle: Any, where: str) -> None:
        self._handle = handle
        self._where = where

    @property
    def name(self) -> str:
        """Its path in the file."""
        return str(self._handle.name)

    def names(self) -> list[str]:
        """The names of what it holds."""
        with _damage(self._where):
            return [str(name) for name in self._handle]

    def holds(self, name: str) -> bool:
        """Whether there is something called ``name``; a name with slashes is a path."""
        with _damage(self._where):
            return name in self._handle

    def group(self, name: str) -> H5Group:
        """The group ``name``.

        Raises:
            FormatError: there is none.
        """
        item = self._item(name)
        if not _is_group(item):
            raise FormatError(f"{self._where}: {name!r} in {self.name!r} is not a group")
        return H5Group(item, self._where)

    def groups(self) -> dict[str, H5Group]:
        """Every group in it, by name."""
        items = {name: self._item(name) for name in self.names()}
        return {name: H5Group(item, self._where) for name, item in items.items() if _is_group(item)}

    def variable(self, name: str) -> Variable:
        """The dataset ``name`` as a variable.

        Raises:
            FormatError: there is none, its values are in another file, or it claims values that the file does not hold.
        """
        item = self._item(name)
        if _is_group(item) or getattr(item, "shape", None) is None:
            raise FormatError(f"{self._where}: {name!r} in {self.name!r} is not an array")
        with _damage(self._where):
            elsewhere = bool(item.external) or bool(item.is_virtual)
            path, shape = str(item.name), tuple(int(size) for size in item.shape)
            claimed, stored = int(item.nbytes), int(item.id.get_storage_size())
        if elsewhere:
            raise FormatError(f"{self._where}: {path!r} keeps its values in another file, which is not opened")
        if claimed > stored * MAX_EXPANSION:
            raise FormatError(f"{self._where}: {path!r} claims {claimed} bytes of values, the file holds {stored}")
        dtype = "bfloat16" if _is_bfloat16(item.dtype) else str(item.dtype.name)
        return Variable(path, shape, self._loader(item), dtype=dtype)

    def first_dataset(self, depth: int = MAX_DEPTH) -> str | None:
        """The path of a dataset in it or in the groups below, ``None`` where there is none."""
        if depth == 0:
            raise FormatError(f"{self._where}: the groups in {self.name!r} are nested too deeply")
        for name in self.names():
            item = self._item(name)
            found = H5Group(item, self._where).first_dataset(depth - 1) if _is_group(item) else str(item.name)
            if found is not None:
                return found
        return None

    def text(self, attribute: str) -> str | None:
        """An attribute that is a string, ``None`` where it is not there."""
        value = self._attribute(attribute)
        return None if value is None else _decoded(value)

    def texts(self, attribute: str) -> list[str]:
        """An attribute that is a list of strings; one too long for a single attribute is stored in numbered chunks."""
        values = self._listed(attribute)
        if not values:
            for chunk in count():
                if self._attribute(f"{attribute}{chunk}") is None:
                    break
                values += self._listed(f"{attribute}{chunk}")
        return [_decoded(value) for value in values]

    def _listed(self, attribute: str) -> list[Any]:
        value = self._attribute(attribute)
        if value is None:
            return []
        if getattr(value, "ndim", 0) != 1:
            raise FormatError(f"{self._where}: attribute {attribute!r} of {self.name!r} is not a list")
        return list(value)

    def _attribute(self, attribute: str) -> Any:
        with _damage(self._where):
            return self._handle.attrs.get(attribute)

    def _item(self, name: str) -> Any:
        import h5py

        item = self._handle
        for part in filter(None, name.split("/")):
            with _damage(self._where):
                link = item.get(part, getlink=True) if _is_group(item) else None
            if link is None:
                raise FormatError(f"{self._where}: {self.name!r} in the weights holds no {name!r}")
            if not isinstance(link, h5py.HardLink):
                raise FormatError(
                    f"{self._where}: {part!r} in {item.name!r} is a link, which Keras does not write and which is not followed"
                )
            with _damage(self._where):
                item = item[part]
        return item

    def _loader(self, item: Any) -> Callable[[], Array]:
        def load() -> Array:
            with _damage(self._where):
                return widened(np.asarray(item[()]))

        return load


def widened(array: Array) -> Array:
    """``array``, of bfloat16 in single precision; HDF5 knows no such numbers and has two bytes without meaning for each.

    A bfloat16 is the first half of a float32.
    """
    if not _is_bfloat16(array.dtype):
        return array
    return (np.ascontiguousarray(array).view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(array.shape)


def _is_bfloat16(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "V" and dtype.itemsize == BFLOAT16_BYTES and not dtype.names


def stored_as(values: Array, dtype: np.dtype[Any]) -> Array:
    """``values`` as a dataset of that dtype has them: to nearest, ties to even, where it is bfloat16."""
    if not _is_bfloat16(dtype) or _is_bfloat16(values.dtype):
        return values
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded.astype("<u2").view(dtype).reshape(values.shape)


@contextmanager
def open_h5(file: Path, where: str) -> Iterator[H5Group]:
    """Open a file and return its root, called ``where`` in messages.

    Raises:
        FormatError: it is not an HDF5 file.
        MissingExtraError: h5py is not installed.
    """
    try:
        import h5py
    except ModuleNotFoundError:
        raise MissingExtraError(
            "reading Keras files needs h5py, which is not installed; install it with: pip install h5py"
        ) from None
    try:
        handle = h5py.File(file, "r")
    except OSError:
        raise FormatError(f"{where}: neither a Keras archive nor an HDF5 file; is it damaged or cut short?") from None
    with handle:
        yield H5Group(handle, where)


@contextmanager
def _damage(where: str) -> Iterator[None]:
    """Turn what h5py raises on damaged data into one error; keep only calls of h5py inside."""
    try:
        yield
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise FormatError(f"{where}: the HDF5 data is damaged ({error}); save the model again") from None


def _is_group(item: Any) -> bool:
    return hasattr(item, "keys")


def _decoded(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
