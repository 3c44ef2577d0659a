"""The native library: finding it, the instruction set it runs with, and its C structures; mirrors ``native/kernels.h``."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from sparsec.errors import InputError
from sparsec.ir import Array

NATIVE: Final = "native library"
"""What kernels need that run in it."""

VARIABLE: Final = "SPARSEC_ISA"
"""The environment variable that picks the instruction set; ``none`` turns native kernels off."""

ABI: Final = 1

FOLDER: Final = "SPARSEC_NATIVE"
"""The environment variable that names another folder with the library, such as one built for a sanitizer."""


@dataclass(frozen=True)
class Isa:
    """An instruction set.

    Attributes:
        name: as in the names of the kernels.
        bit: by which the library says that it has it.
        lanes: how many float32 a vector holds.
        permutes: whether it picks from 32 floats by one instruction.
    """

    name: str
    bit: int
    lanes: int
    permutes: bool = False


ISAS: Final = (Isa("avx512", 4, 16, permutes=True), Isa("avx2", 2, 8), Isa("neon", 8, 4), Isa("baseline", 1, 4))
"""All of them, the best first."""

OFF: Final = "none"


class Matrix(ctypes.Structure):
    """``sparsec_matrix``."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("rows", "channels", "taps", "blocks")),
        *((name, ctypes.c_void_p) for name in ("starts", "counts", "runs", "order", "columns", "values")),
    ]


class Slices(ctypes.Structure):
    """``sparsec_slices``."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("rows", "columns", "blocks")),
        *((name, ctypes.c_void_p) for name in ("counts", "runs", "order", "places", "values")),
    ]


class Geometry(ctypes.Structure):
    """``sparsec_geometry``."""

    _fields_ = [
        ("samples", ctypes.c_int32),
        *(
            (f"{name}{axis}", ctypes.c_int32)
            for name in ("", "out_", "window_", "stride_", "dilation_", "pad_")
            for axis in ("height", "width")
        ),
        ("low", ctypes.c_float),
        ("high", ctypes.c_float),
    ]


POINTER: Final = ctypes.c_void_p
ARGUMENTS: Final[dict[str, tuple[Any, ...]]] = dict.fromkeys(("product", "windows", "vector", "slices"), (POINTER,) * 6) | {
    "depthwise": (*(POINTER,) * 5, ctypes.c_int64)
}
"""By kernel, the types of its arguments."""


@dataclass(frozen=True)
class Library:
    """The library with the instruction set that was chosen.

    Attributes:
        isa: the instruction set.
        kernels: by name, the functions for it.
        sizes: by name, the functions that say how many bytes of scratch memory a kernel takes.
    """

    isa: Isa
    kernels: dict[str, Callable[..., None]]
    sizes: dict[str, Callable[..., int]]


@dataclass(frozen=True)
class Status:
    """What there is of the native library.

    Attributes:
        library: ready for use; ``None`` where there is none or it is turned off.
        built: whether it is there.
        off: whether ``SPARSEC_ISA`` turns it off.
        isas: the names of the instruction sets that it has and this processor knows, the best first.
    """

    library: Library | None
    built: bool
    off: bool = False
    isas: tuple[str, ...] = ()

    @property
    def isa(self) -> str:
        """The instruction set in use, ``none`` where there is no library in use."""
        return OFF if self.library is None else self.library.isa.name


def status() -> Status:
    """What there is of the native library, with the instruction set that ``SPARSEC_ISA`` asks for, or else the best.

    Raises:
        InputError: ``SPARSEC_ISA`` names an instruction set that there is not.
    """
    return _status(os.environ.get(VARIABLE, ""), os.environ.get(FOLDER, ""))


@cache
def _status(wanted: str, folder: str) -> Status:
    names = [isa.name for isa in ISAS]
    if wanted not in ("", OFF, *names):
        raise InputError(f"{VARIABLE} is {wanted!r}; use one of {', '.join(names)}, or {OFF} for no native kernels")
    found = _load(Path(folder) if folder else Path(__file__).parent / "native")
    if found is None:
        return Status(None, built=False, off=wanted == OFF)
    bits = found.sparsec_isas()
    isas = tuple(isa for isa in ISAS if isa.bit & bits)
    present = tuple(isa.name for isa in isas)
    if wanted == OFF:
        return Status(None, built=True, off=True, isas=present)
    chosen = next((isa for isa in isas if wanted in ("", isa.name)), None)
    if chosen is None:
        raise InputError(f"{VARIABLE} is {wanted!r}, which this machine does not run; it runs {', '.join(present)}")
    return Status(_bind(found, chosen), built=True, isas=present)


def _load(folder: Path) -> Any:
    """The library, or ``None`` where it was not built, or for another version or machine."""
    for path in sorted(folder.glob("libsparsec_native.*")):
        try:
            library = ctypes.CDLL(os.fspath(path))
        except OSError:
            continue
        if library.sparsec_abi() == ABI:
            return library
    return None


def _bind(library: Any, isa: Isa) -> Library:
    kernels, sizes = {}, {}
    for name, arguments in ARGUMENTS.items():
        function = getattr(library, f"sparsec_{name}_f32_{isa.name}")
        function.argtypes, function.restype = arguments, None
        kernels[name] = function
        if arguments[-1] is POINTER:
            size = getattr(library, f"sparsec_{name}_f32_bytes_{isa.name}")
            size.argtypes, size.restype = (POINTER, POINTER), ctypes.c_int64
            sizes[name] = size
    return Library(isa, kernels, sizes)


ALIGNMENT: Final = 64


class _Scratch(threading.local):
    """Memory of one thread, for whichever kernel it runs."""

    def __init__(self) -> None:
        self.buffer: Array = np.empty(0, np.uint8)
        self.address = 0

    def of(self, nbytes: int) -> int:
        """The address of at least so many bytes."""
        if self.buffer.size < nbytes + ALIGNMENT:
            self.buffer = np.empty(nbytes + ALIGNMENT, np.uint8)
            self.address = -(-self.buffer.ctypes.data // ALIGNMENT) * ALIGNMENT
        return self.address


SCRATCH: Final = _Scratch()
"""The scratch memory of the thread that asks."""
