"""The native library: finding it, the instruction set it runs with, and its C structures; mirrors ``native/kernels.h``."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from sparsec.errors import InputError

NATIVE: Final = "native library"
"""What kernels need that run in it."""

VARIABLE: Final = "SPARSEC_ISA"
"""The environment variable that picks the instruction set; ``none`` turns native kernels off."""

ABI: Final = 17

FOLDER: Final = "SPARSEC_NATIVE"
"""The environment variable that names another folder with the library, such as one built for a sanitizer."""


@dataclass(frozen=True)
class Slicing:
    """How a matrix is cut into slices, as ``native/kernels.h`` has it.

    Attributes:
        kind: by which the cost model knows it.
        height: rows of a slice.
        width: columns of a window.
        depth: entries of a row in a window.
    """

    kind: str
    height: int
    width: int
    depth: int


FEW: Final = Slicing("few", 4, 256, 4)
"""Of few rows, which are computed with loads of single elements, by every instruction set."""


@dataclass(frozen=True)
class Isa:
    """An instruction set.

    Attributes:
        name: as in the names of the kernels.
        bit: by which the library says that it has it.
        lanes: how many float32 a vector holds.
        lines: the most vectors in a tile of a product, for groups of one row and of four; as in ``native/block.h``.
        filters: the most rows of a group of ``direct``.
        evaluated: the same of ``winograd``; 0 where its sums find no room in the registers, so that it is no faster.
        halves: whether the last line of a tile may be half a vector.
        picks: whether ``windows`` reads all columns of the window from the same vectors where it can.
        slicings: for which it has kernels.
    """

    name: str
    bit: int
    lanes: int
    lines: tuple[int, int] = (8, 3)
    filters: int = 6
    evaluated: int = 0
    halves: bool = False
    picks: bool = False
    slicings: tuple[Slicing, ...] = (FEW,)


ISAS: Final = (
    Isa(
        "avx512",
        4,
        16,
        lines=(8, 6),
        filters=8,
        evaluated=8,
        halves=True,
        picks=True,
        slicings=(FEW, Slicing("narrow", 16, 64, 4), Slicing("wide", 16, 128, 4)),
    ),
    Isa("avx2", 2, 8, slicings=(FEW, Slicing("narrow", 8, 16, 1), Slicing("wide", 8, 32, 1))),
    Isa("neon", 8, 4, filters=8, evaluated=8),
    Isa("baseline", 1, 4),
)
"""All of them, the best first."""

OFF: Final = "none"


KERNELS: Final = (
    *("product", "windows", "unrolled", "vector", "slices", "map", "load", "store", "flatten", "unflatten"),
    *("depthwise", "max_pool", "avg_pool", "reduce", "softmax", "normalise", "resize", "select", "recurrent"),
    *("direct", "sliding", "dense", "interleave", "gather", "winograd", "copy", "matmul", "attention"),
)
"""The kernels, in the order of ``SPARSEC_KERNELS``."""

FUNCTIONS: Final = (
    *("clamp", "leaky", "add", "subtract", "subtract_from", "multiply", "divide", "divide_into", "maximum", "minimum", "prelu"),
    *("sigmoid", "tanh", "silu", "hard_sigmoid", "gelu", "gelu_tanh", "elu", "selu", "softplus", "softsign"),
    *("exp", "log", "sqrt", "abs", "erf", "equal", "greater", "less", "keep"),
)
"""The elementwise operations, in the order of ``SPARSEC_FUNCTIONS``."""

OPERANDS: Final = ("number", "channel", "value", "gate")
"""What the operand of an elementwise operation may be, in the order of the header."""

POOLS: Final = ("max_pool", "avg_pool")
"""The kernels whose results a convolution can give, in the order of the header."""

_INT, _LONG, _FLOAT, POINTER = ctypes.c_int32, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p


class Value(ctypes.Structure):
    """``sparsec_value``."""

    _fields_ = [
        *((name, _INT) for name in ("base", "channels", "samples", "height", "width", "unused")),
        ("offset", _LONG),
        ("pitch", _LONG),
    ]


class Window(ctypes.Structure):
    """``sparsec_window``."""

    _fields_ = [(f"{name}{axis}", _INT) for name in ("", "stride_", "dilation_", "pad_") for axis in ("height", "width")]


class Matrix(ctypes.Structure):
    """``sparsec_matrix``."""

    _fields_ = [
        *((name, _INT) for name in ("rows", "channels", "taps", "blocks", "height", "entries")),
        *((name, POINTER) for name in ("starts", "counts", "runs", "order", "columns", "values")),
    ]


class Slices(ctypes.Structure):
    """``sparsec_slices``."""

    _fields_ = [
        *((name, _INT) for name in ("rows", "columns", "groups", "height", "width", "depth")),
        *((name, POINTER) for name in ("lengths", "order", "hops", "places", "values")),
    ]


class Filters(ctypes.Structure):
    """``sparsec_filters``."""

    _fields_ = [*((name, _INT) for name in ("rows", "channels", "taps", "height")), ("values", POINTER)]


class Copy(ctypes.Structure):
    """``sparsec_copy``."""

    _fields_ = [
        *((name, _INT) for name in ("axes", "constants")),
        *((name, _LONG) for name in ("first_x", "first_y")),
        *((name, POINTER) for name in ("axis", "constant")),
    ]


class Post(ctypes.Structure):
    """``sparsec_post``."""

    _fields_ = [("function", _INT), ("operand", _INT), ("a", _FLOAT), ("b", _FLOAT), ("channel", POINTER), ("value", Value)]


class Step(ctypes.Structure):
    """``sparsec_step``."""

    _fields_ = [
        *((name, _INT) for name in ("kernel", "posts", "pieces")),
        ("options", _INT * 6),
        *((name, _FLOAT) for name in ("low", "high")),
        ("numbers", _FLOAT * 4),
        *((name, POINTER) for name in ("post", "weights", "bias", "scale", "shift")),
        ("window", Window),
        *((name, Value) for name in ("x", "y", "residual", "extra", "mask")),
    ]


class Plan(ctypes.Structure):
    """``sparsec_plan``."""

    _fields_ = [
        *((name, _INT) for name in ("steps", "memories")),
        *((name, POINTER) for name in ("step", "kernels")),
        *((name, _LONG) for name in ("arena", "scratch")),
    ]


class Call(ctypes.Structure):
    """``sparsec_call``."""

    _fields_ = [
        *((name, POINTER) for name in ("plan", "memory", "advance")),
        ("times", _LONG),
        ("pool", POINTER),
    ]


class CompressedRows(ctypes.Structure):
    """``sparsec_packing``."""

    _fields_ = [
        *((name, _INT) for name in ("rows", "channels", "taps", "width", "height", "unused")),
        *((name, POINTER) for name in ("pointers", "indices", "values")),
    ]


class SortedRows(ctypes.Structure):
    """``sparsec_slicing``."""

    _fields_ = [
        *((name, _INT) for name in ("rows", "height", "width", "depth")),
        *((name, POINTER) for name in ("order", "pointers", "indices", "values")),
    ]


@dataclass(frozen=True)
class Packers:
    """The functions that pack weights.

    Attributes:
        count: ``sparsec_pack_count``.
        fill: ``sparsec_pack_fill``.
        slices: ``sparsec_pack_slices``.
    """

    count: Callable[..., None]
    fill: Callable[..., None]
    slices: Callable[..., None]


@dataclass(frozen=True)
class Library:
    """The library with the instruction set that was chosen.

    Attributes:
        path: of its file.
        isa: the instruction set.
        kernels: the address of the table of its kernels.
        run: ``sparsec_run``.
        scratch: ``sparsec_scratch``.
        new_pool: ``sparsec_pool_new``.
        free_pool: ``sparsec_pool_free``.
        pool_threads: ``sparsec_pool_threads``.
        profile: ``sparsec_profile``.
    """

    path: Path
    isa: Isa
    kernels: int
    run: Callable[[int], None]
    scratch: Callable[..., int]
    new_pool: Callable[[int], int | None]
    free_pool: Callable[[int], None]
    pool_threads: Callable[[int], int]
    profile: Callable[..., None]


@dataclass(frozen=True)
class Status:
    """What there is of the native library.

    Attributes:
        library: ready for use; ``None`` where there is none or it is turned off.
        built: whether it is there.
        off: whether ``SPARSEC_ISA`` turns it off.
        isas: the names of the instruction sets that it has and this processor knows, the best first.
        compiled: the names of the instruction sets that it has.
        compiler: the name and version of the compiler that built it; ``""`` where there is no library.
    """

    library: Library | None
    built: bool
    off: bool = False
    isas: tuple[str, ...] = ()
    compiled: tuple[str, ...] = ()
    compiler: str = ""

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
    found = _load(_folder(folder))
    if found is None:
        return Status(None, built=False, off=wanted == OFF)
    present = _isas(found.sparsec_isas())
    found.sparsec_compiler.restype = ctypes.c_char_p
    built = Status(
        None,
        built=True,
        off=wanted == OFF,
        isas=tuple(isa.name for isa in present),
        compiled=tuple(isa.name for isa in _isas(found.sparsec_compiled())),
        compiler=found.sparsec_compiler().decode(),
    )
    if built.off:
        return built
    chosen = next((isa for isa in present if wanted in ("", isa.name)), None)
    if chosen is None:
        raise InputError(f"{VARIABLE} is {wanted!r}, which this machine does not run; it runs {', '.join(built.isas)}")
    return replace(built, library=_bind(found, chosen))


def _isas(bits: int) -> list[Isa]:
    """The instruction sets of which the library gives the sum of the bits, the best first."""
    return [isa for isa in ISAS if isa.bit & bits]


def _folder(given: str) -> Path:
    return Path(given) if given else Path(__file__).parent / "native"


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


def packers() -> Packers | None:
    """The functions that pack weights, which are the same for every instruction set; ``None`` where there is no library."""
    return _packers(os.environ.get(FOLDER, ""))


@cache
def _packers(folder: str) -> Packers | None:
    found = _load(_folder(folder))
    if found is None:
        return None
    slices = found.sparsec_pack_slices
    slices.argtypes, slices.restype = [POINTER] * 5, None
    return Packers(_checked(found, "count", 2), _checked(found, "fill", 4), slices)


def _checked(library: Any, name: str, arguments: int) -> Callable[..., None]:
    function = getattr(library, f"sparsec_pack_{name}")
    function.argtypes, function.restype = [POINTER] * arguments, _INT

    def call(*given: Any) -> None:
        if not function(*given):
            raise MemoryError("there is no memory to pack a weight")

    return call


def _bind(library: Any, isa: Isa) -> Library:
    signatures: dict[str, tuple[list[Any], Any]] = {
        "kernels": ([_INT], POINTER),
        "run": ([POINTER], None),
        "scratch": ([POINTER, POINTER], _LONG),
        "pool_new": ([_INT], POINTER),
        "pool_free": ([POINTER], None),
        "pool_threads": ([POINTER], _INT),
        "profile": ([POINTER, POINTER, POINTER], None),
    }
    found = {}
    for name, (arguments, result) in signatures.items():
        found[name] = getattr(library, f"sparsec_{name}")
        found[name].argtypes, found[name].restype = arguments, result
    table = found["kernels"](isa.bit)
    return Library(
        Path(library._name),
        isa,
        table,
        *(found[name] for name in ("run", "scratch", "pool_new", "pool_free", "pool_threads", "profile")),
    )
