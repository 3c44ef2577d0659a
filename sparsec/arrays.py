"""Arrays in files: one input or output is a ``.npy``, several are an ``.npz``."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparsec.errors import FormatError, InputError
from sparsec.files import check_input, replacing
from sparsec.ir import Array

SUFFIXES = (".npy", ".npz")

NPY_MAGIC, ZIP_MAGIC = b"\x93NUMPY", b"PK"

DAMAGE = (ValueError, EOFError, OSError, KeyError, RuntimeError, zlib.error, zipfile.BadZipFile)
"""What NumPy and zipfile raise on damaged files; RuntimeError for encryption and methods that they do not know."""


def load_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an ``.npz`` by name; a ``.npy`` has one, without a name.

    Raises:
        InputError: there is no such file.
        FormatError: it holds no arrays, or arrays of Python objects.
    """
    check_input(path)
    try:
        with path.open("rb") as file:
            # NumPy takes whatever it does not know for a pickle, and advises to allow that.
            known = file.read(len(NPY_MAGIC)).startswith((NPY_MAGIC, ZIP_MAGIC))
        if not known:
            raise _not_arrays(path, "it begins like neither")
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except DAMAGE as error:
        raise _not_arrays(path, _first_line(error)) from None


def load_inputs(path: Path, names: Sequence[str]) -> list[Array]:
    """The inputs of a model, in its order.

    Args:
        path: a ``.npy`` of the only input, or an ``.npz`` by the inputs' names, or ``x0``, ``x1`` and so on.
        names: of the model's inputs.

    Raises:
        InputError: there is no such file, or an input is missing in it.
        FormatError: the file cannot be read.
    """
    return pick(load_arrays(path), names, "x", path)


def load_data(path: Path, names: Sequence[str]) -> tuple[list[Array], Array]:
    """Inputs and labels: an ``.npz`` with the inputs as in :func:`load_inputs`, or the only one as ``x``, and labels ``y``.

    Raises:
        InputError: there is no such file, or something is missing in it.
        FormatError: the file cannot be read.
    """
    arrays = load_arrays(path)
    if "y" not in arrays:
        raise InputError(f"{path}: holds {_names(arrays)}, but no labels 'y'")
    labels = arrays.pop("y")
    inputs = pick(arrays, names, "x", path)
    if not all(array.ndim and len(array) for array in (labels, *inputs)):
        raise InputError(f"{path}: holds no samples; inputs and labels 'y' are arrays with the samples along their first axis")
    if any(len(array) != len(labels) for array in inputs):
        raise InputError(f"{path}: there are {len(labels)} labels for {len(inputs[0])} samples")
    return inputs, labels


def pick(arrays: Mapping[str, Array], names: Sequence[str], prefix: str, path: Path) -> list[Array]:
    """The arrays called ``names``, or numbered with ``prefix``, in order; a single one may have any of those names.

    Raises:
        InputError: one is missing.
    """
    if len(names) == 1 and len(arrays) == 1:
        (only,) = arrays
        if only in ("", prefix, f"{prefix}0", names[0]):
            return [arrays[only]]
    if all(name in arrays for name in names):
        return [arrays[name] for name in names]
    numbered = [f"{prefix}{index}" for index in range(len(names))]
    if all(name in arrays for name in numbered):
        return [arrays[name] for name in numbered]
    if len(names) == 1 and prefix in arrays:
        return [arrays[prefix]]
    raise InputError(
        f"{path}: holds {_names(arrays)}; the model's inputs are {', '.join(map(repr, names))} "
        f"(or {', '.join(numbered)}): one is a .npy file, several are an .npz file with arrays by these names"
    )


def save_outputs(path: Path, outputs: Sequence[Array]) -> None:
    """Write one output as a ``.npy``, several as an ``.npz`` with arrays ``y0``, ``y1`` and so on.

    Raises:
        InputError: the suffix does not fit, or the file cannot be written.
    """
    check_output_suffix(path, len(outputs))
    with replacing(path) as temporary, temporary.open("wb") as file:
        if path.suffix.lower() == ".npy":
            np.save(file, outputs[0])
        else:
            named: dict[str, Any] = {f"y{index}": array for index, array in enumerate(outputs)}
            np.savez(file, **named)


def check_output_suffix(path: Path, outputs: int) -> None:
    """Check that ``path`` has a suffix that holds so many outputs.

    Raises:
        InputError: it has not.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: the suffix {path.suffix!r} is not one of arrays ({', '.join(SUFFIXES)})")
    if suffix == ".npy" and outputs > 1:
        raise InputError(f"{path}: the model has {outputs} outputs, which a .npy file cannot hold; name an .npz file")


def _not_arrays(path: Path, why: str) -> FormatError:
    return FormatError(f"{path}: not a .npy or .npz file of plain arrays ({why}); write it with numpy.save or numpy.savez")


def _names(arrays: Mapping[str, Array]) -> str:
    return ", ".join(repr(name) if name else "one array" for name in arrays) or "nothing"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
