"""Runs single steps of the native engine, for tests of the kernels in C.

Values are given and returned channels last, ``[samples, height, width, channels]``. What lies between their rows is not a
number, so that a kernel that lets it into a result is found out.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

import numpy as np

from sparsec.kernels import library
from sparsec.kernels.library import FUNCTIONS, KERNELS, OPERANDS, Call, Plan, Post, Step, Value, Window


def pitch_of(positions):
    """Floats between two rows, as any that the header allows."""
    return 1 if positions == 1 else -(-positions // 16) * 16


def to_rows(x):
    """``[channels, positions]`` of ``[samples, height, width, channels]``."""
    return np.moveaxis(x, -1, 0).reshape(x.shape[-1], -1)


@dataclass
class Memory:
    """An arena in which values are placed one after another."""

    parts: list = field(default_factory=list)
    size: int = 0

    def place(self, shape, array=None, base=0):
        """A value of ``[samples, height, width, channels]``, filled from an array where one is given."""
        samples, height, width, channels = shape
        positions = samples * height * width
        pitch = pitch_of(positions)
        value = Value(base, channels, samples, height, width, 0, self.size, pitch)
        rows = np.full((channels, pitch), np.nan, np.float32)
        if array is not None:
            rows[:, :positions] = to_rows(array.reshape(shape))
        self.parts.append((value, rows))
        self.size += -(-rows.size // 16) * 16
        return value

    def array(self, scratch):
        """The memory as one aligned array, with so many bytes behind the values."""
        raw = np.full(self.size + scratch // 4 + 32, np.nan, np.float32)
        start = -raw.ctypes.data % 64 // 4
        memory = raw[start:]
        for value, rows in self.parts:
            memory[value.offset : value.offset + rows.size] = rows.reshape(-1)
        return memory


def read(memory, value):
    """A value out of the memory, channels last."""
    rows = memory[value.offset : value.offset + value.channels * value.pitch].reshape(value.channels, value.pitch)
    y = rows[:, : value.samples * value.height * value.width]
    return np.moveaxis(y.reshape(value.channels, value.samples, value.height, value.width), 0, -1).copy()


def address(array):
    """Where an array lies."""
    return None if array is None else array.ctypes.data


def post(memory, function, operand="number", a=0.0, b=0.0, channel=None, value=None):
    """An operation that follows a kernel; ``value`` is an array, ``[samples, height, width, channels]``."""
    placed = Value(base=-1) if value is None else memory.place(value.shape, value)
    return Post(FUNCTIONS.index(function), OPERANDS.index(operand), a, b, address(channel), placed)


def run_step(
    kernel,
    x,
    shape,
    *,
    memory=None,
    weights=None,
    pieces=1,
    bias=None,
    window=None,
    options=(),
    numbers=(),
    low=-np.inf,
    high=np.inf,
    posts=(),
    residual=None,
    extra=None,
    mask=None,
    scale=None,
    shift=None,
    threads=1,
    in_place=False,
):
    """The output of one step.

    Args:
        kernel: its name.
        x: the input, ``[samples, height, width, channels]``.
        shape: of the output.
        memory: in which the operands of ``posts`` are, if there are any.
        weights: an array, or an instance or array of a structure of the header, which the caller keeps alive.
        residual, extra, mask, scale, shift: arrays.
        threads: how many compute it.
        in_place: whether the output lies where the input does.
        others: as in the header.
    """
    found = library.status().library
    memory = memory or Memory()
    absent = Value(base=-1)
    step = Step(kernel=KERNELS.index(kernel), posts=len(posts), pieces=pieces, low=low, high=high)
    step.options[: len(options)] = options
    step.numbers[: len(numbers)] = numbers
    of_posts = (Post * max(len(posts), 1))(*posts)
    step.post = ctypes.addressof(of_posts)
    step.weights = address(weights) if isinstance(weights, np.ndarray | None) else ctypes.addressof(weights)
    step.bias, step.scale, step.shift = address(bias), address(scale), address(shift)
    step.window = window or Window(1, 1, 1, 1, 1, 1, 0, 0)
    step.x = memory.place(x.shape, x)
    step.y = step.x if in_place else memory.place(shape)
    step.residual = absent if residual is None else memory.place(residual.shape, residual)
    step.mask = absent if mask is None else memory.place(mask.shape, mask)
    step.extra = absent if extra is None else memory.place(extra.shape, extra)
    scratch = -(-found.scratch(found.kernels, ctypes.addressof(step)) // 64) * 64
    pool = found.new_pool(threads)
    array = memory.array(scratch * threads)
    plan = Plan(1, 1, ctypes.addressof(step), found.kernels, memory.size * 4, scratch)
    bases, advance = (ctypes.c_void_p * 1)(array.ctypes.data), (ctypes.c_int64 * 1)(0)
    call = Call(ctypes.addressof(plan), ctypes.addressof(bases), ctypes.addressof(advance), 1, pool)
    found.run(ctypes.addressof(call))
    found.free_pool(pool)
    return read(array, step.y)
