"""Kernels that run in the native library, in the thread that calls, without Python's lock.

They take float32, channels last, and turn it into vectors of positions and back themselves. While the output is in the cache
they add the bias and clamp; the rest of an epilogue follows in NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import byref
from dataclasses import dataclass
from math import ceil, exp, inf, prod, sqrt
from typing import Any, Final

import numpy as np

from sparsec.encodings.stored import normal_rows
from sparsec.ir import Array
from sparsec.kernels import library
from sparsec.kernels.base import Epilogue, Kernel, Run, Task
from sparsec.kernels.costs import Coefficients
from sparsec.kernels.library import NATIVE, SCRATCH
from sparsec.kernels.streams import MAX_COLUMNS, PLACES, SLICE, SLICES, STREAM, SliceStream, Stream
from sparsec.kernels.weights import TENSOR
from sparsec.ops import get_op
from sparsec.ops.base import integer, ints, number
from sparsec.ops.windows import axis_pads

TILE_LINES: Final = 8
"""The most vectors in a tile; as in ``native/kernels.c``."""

MAX_ELEMENTS: Final = 1 << 31
"""Sizes are 32 bits wide."""


# --- what cannot run ---------------------------------------------------------------------------------------------------


def _refuse(task: Task) -> str:
    if library.status().off:
        return f"{library.VARIABLE}={library.OFF}"
    if task.dtype != "float32":
        return f"native kernels do not compute in {task.dtype}"
    wanted = normal_rows(get_op(task.op).matrix_rows[1], len(task.weight.shape))
    if task.weight.rows != wanted:
        return f"the weight is stored with rows {task.weight.rows}, not {wanted}"
    if max(prod(task.x), prod(task.y), task.weight.size) >= MAX_ELEMENTS:
        return "it is too large"
    return ""


def _refuse_slices(task: Task) -> str:
    found = library.status().library
    if found is not None and not found.isa.permutes:
        return f"{found.isa.name} does not permute so many elements"
    return _refuse(task)


def _refuse_window(task: Task) -> str:
    if len(task.x) > 4:
        return "it has three spatial axes"
    return _refuse(task)


def _refuse_conv(task: Task) -> str:
    if integer(task.attrs, "groups") != 1:
        return "it has groups"
    if prod(task.weight.shape[:-2]) >= MAX_COLUMNS:
        return "its window is too large"
    return _refuse_window(task)


def _refuse_depthwise(task: Task) -> str:
    return "it has a multiplier" if task.weight.shape[-1] != 1 else _refuse_window(task)


# --- costs -------------------------------------------------------------------------------------------------------------


def _lanes() -> int:
    found = library.status().library
    return library.ISAS[0].lanes if found is None else found.isa.lanes


def _slowness() -> float:
    """How much longer arithmetic takes than with the instruction set to which the coefficients were fitted."""
    return {16: 1.0, 8: 1.15}.get(_lanes(), 3.0)


def _is_one_vector(task: Task) -> bool:
    """Whether a product has one vector, which is the whole input."""
    return task.positions == 1 == prod(task.x[:-1]) and not any(_Plane.of(task).pads)


def _product_cost(task: Task, c: Coefficients) -> float:
    if _is_one_vector(task):
        entry = c.native_entry if task.nonzeros * 6 <= c.cache_bytes else c.native_entry_far
        return c.native_call + task.nonzeros * entry
    lanes = _lanes()
    lines = max(ceil(task.positions / lanes), 1)
    tiles = ceil(lines / TILE_LINES)
    padded = tiles * ceil(lines / tiles) * lanes
    moved = padded * (task.x[-1] + task.y[-1])
    return (
        c.native_call
        + task.nonzeros * (tiles * c.native_row + padded * c.native_axpy * _slowness())
        + moved * c.native_transpose
    )


@dataclass(frozen=True)
class Tiles:
    """How the kernel of windows cuts its output; as ``plan_windows`` does in ``native/kernels.c``.

    Attributes:
        count: of the tiles of all samples.
        positions: of one tile, those included that are computed for nothing.
        transposed: the elements of each input channel that are transposed.
        copied: the elements of each input channel that are copied for one tile.
    """

    count: int
    positions: int
    transposed: int
    copied: int

    @classmethod
    def of(cls, task: Task, lanes: int) -> Tiles:
        """Those of a task."""
        shape = _Plane.of(task)
        room, (height, width) = TILE_LINES * lanes, shape.out
        if 2 * width <= lanes:
            across, tile_width = 1, ceil(width / 4) * 4
        else:
            across = ceil(width / room)
            tile_width = ceil(ceil(width / lanes) / across) * lanes
        down = ceil(height / (room // tile_width))
        rows = ceil(height / down)
        reach = (shape.window[0] - 1) * shape.dilations[0]
        panel_rows = (rows - 1) * shape.strides[0] + reach + 1
        plane_rows = (down * rows - 1) * shape.strides[0] + reach + 1
        positions = ceil(rows * tile_width / lanes) * lanes
        transposed = shape.samples * plane_rows * across * tile_width * shape.strides[1]
        return cls(shape.samples * down * across, positions, transposed, shape.window[1] * panel_rows * tile_width)


def _conv_cost(task: Task, c: Coefficients) -> float:
    if prod(task.weight.shape[:-2]) == 1:
        return _product_cost(task, c)
    tiles = Tiles.of(task, _lanes())
    padded = tiles.count * tiles.positions
    return (
        c.native_call
        + task.nonzeros * (tiles.count * c.native_row + padded * c.native_axpy * _slowness())
        + (tiles.transposed * task.x[-1] + padded * task.y[-1]) * c.native_transpose
        + tiles.count * tiles.copied * task.x[-1] * c.native_copy
    )


def _slices_cost(task: Task, c: Coefficients) -> float:
    """Every row of a slice takes as long as the longest of 16, for which this is close to what Poisson's distribution gives."""
    rows, columns = task.weight.matrix_shape
    mean = task.density * PLACES
    longest = mean + 1.8 * sqrt(mean) + 0.5 * (1 - exp(-mean * SLICE))
    entries = ceil(rows / SLICE) * SLICE * ceil(columns / PLACES) * longest
    each = c.native_slice if entries * 5 <= c.native_cache_bytes else c.native_slice_far
    return c.native_call + task.positions * entries * each


def _depthwise_cost(task: Task, c: Coefficients) -> float:
    return c.native_call + task.positions * task.weight.size * c.native_tap * _slowness()


# --- running -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plane:
    """The sizes of a convolution with two spatial axes, of which the first is 1 where there is one."""

    samples: int
    size: tuple[int, int]
    out: tuple[int, int]
    window: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int]

    @classmethod
    def of(cls, task: Task) -> _Plane:
        """Those of a task; a product has its vectors along the second axis."""
        if task.op == "dense":
            one = (1, 1)
            size = (1, task.positions)
            return cls(1, size, size, one, one, one, (0, 0))
        window = task.weight.shape[:-2]
        pads = [before for before, _ in axis_pads(task.attrs, task.x[1:-1], window)]
        return cls(
            task.x[0],
            _two(task.x[1:-1], 1),
            _two(task.y[1:-1], 1),
            _two(window, 1),
            _two(ints(task.attrs, "strides"), 1),
            _two(ints(task.attrs, "dilations"), 1),
            _two(pads, 0),
        )

    def structure(self, low: float, high: float) -> library.Geometry:
        """The C structure."""
        sizes = (*self.size, *self.out, *self.window, *self.strides, *self.dilations, *self.pads)
        return library.Geometry(self.samples, *sizes, low, high)


def _two(values: Sequence[int], fill: int) -> tuple[int, int]:
    """The sizes along two axes, where one may be missing."""
    return (values[0], values[1]) if len(values) == 2 else (fill, values[0])


def _clamp(epilogue: Epilogue) -> tuple[float, float, Epilogue]:
    """The bounds to which a kernel clamps, and what of the epilogue is left, the bias aside."""
    first, rest = (epilogue.stages[:1], Epilogue(None, epilogue.stages[1:]))
    for stage in first:
        attrs = stage.attrs
        if stage.op == "relu" and number(attrs, "threshold") == 0 and number(attrs, "negative_slope") == 0:
            return 0.0, inf if attrs["max_value"] is None else number(attrs, "max_value"), rest
        if stage.op == "clip":
            return number(attrs, "minimum"), number(attrs, "maximum"), rest
    return -inf, inf, Epilogue(None, epilogue.stages)


def _bind(task: Task, kernel: str, packed: Any, epilogue: Epilogue) -> Run:
    found = library.status().library
    assert found is not None
    function = found.kernels[kernel]
    low, high, rest = _clamp(epilogue)
    geometry = byref(_Plane.of(task).structure(low, high))
    bias = None if epilogue.bias is None else np.ascontiguousarray(epilogue.bias, np.float32)
    at_bias = None if bias is None else bias.ctypes.data
    if kernel == "depthwise":
        weights = np.ascontiguousarray(packed)
        at_weights, channels = weights.ctypes.data, task.x[-1]

        def call(x: int, y: int) -> None:
            # The arrays whose addresses these are have to live as long as this function.
            _ = weights, bias
            function(at_weights, geometry, x, at_bias, y, channels)
    else:
        reference = packed.reference
        nbytes = found.sizes[kernel](reference, geometry)

        def call(x: int, y: int) -> None:
            _ = packed, bias
            function(reference, geometry, x, at_bias, y, SCRATCH.of(nbytes))

    def run(x: Array) -> Array:
        x = np.ascontiguousarray(x)
        y = np.empty(task.y, np.float32)
        call(x.ctypes.data, y.ctypes.data)
        if rest.stages:
            rest(y)
        return y

    return run


def _bind_stream(task: Task, packed: Stream, epilogue: Epilogue) -> Run:
    if packed.taps > 1:
        return _bind(task, "windows", packed, epilogue)
    return _bind(task, "vector" if _is_one_vector(task) else "product", packed, epilogue)


def _bind_slices(task: Task, packed: SliceStream, epilogue: Epilogue) -> Run:
    return _bind(task, "slices", packed, epilogue)


def _bind_depthwise(task: Task, kernel: Array, epilogue: Epilogue) -> Run:
    return _bind(task, "depthwise", kernel, epilogue)


DENSE_NATIVE = Kernel("dense/native", "dense", STREAM, _product_cost, _bind_stream, _refuse, (NATIVE,))
DENSE_SLICES = Kernel("dense/slices", "dense", SLICES, _slices_cost, _bind_slices, _refuse_slices, (NATIVE,))
CONV_NATIVE = Kernel("conv/native", "conv", STREAM, _conv_cost, _bind_stream, _refuse_conv, (NATIVE,))
DEPTHWISE_NATIVE = Kernel(
    "depthwise_conv/native", "depthwise_conv", TENSOR, _depthwise_cost, _bind_depthwise, _refuse_depthwise, (NATIVE,)
)
