"""Running native plans: arenas, threads, and batches in parts."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np

from sparsec.engine.plan import LINE_BYTES, NativePlan
from sparsec.engine.segments import Segment
from sparsec.engine.translate import translate
from sparsec.ir import Array, TensorType
from sparsec.kernels import WeightStore
from sparsec.kernels.library import Library

PART_BYTES: Final = 1 << 23
"""About so much may the largest step of a part read and write: what a core keeps in its caches."""

MAX_SAMPLES: Final = 256
"""The samples in a part of a batch."""


class Arena:
    """The memory of one call at a time, and the threads that run it.

    Args:
        found: the library.
        threads: how many.
    """

    def __init__(self, found: Library, threads: int) -> None:
        self._library = found
        self.pool = found.new_pool(threads)
        self._buffer: Array = np.zeros(0, np.uint8)
        self.address = 0

    def reserve(self, nbytes: int) -> None:
        """Have at least so many bytes."""
        if self._buffer.size < nbytes + LINE_BYTES:
            # Zeros, since what stands between rows is computed with, and denormal numbers take long.
            self._buffer = np.zeros(nbytes + LINE_BYTES, np.uint8)
            self.address = -(-self._buffer.ctypes.data // LINE_BYTES) * LINE_BYTES

    def __del__(self) -> None:
        if self.pool is not None:
            self._library.free_pool(self.pool)


class Arenas:
    """The arenas of a model; each serves one call at a time, and there are as many as calls that overlap.

    Args:
        found: the library.
        threads: how many run a call.
    """

    def __init__(self, found: Library, threads: int) -> None:
        self.library = found
        self.threads = threads
        self._idle: deque[Arena] = deque()

    def take(self) -> Arena:
        """One that nobody uses."""
        try:
            return self._idle.pop()
        except IndexError:
            return Arena(self.library, self.threads)

    def give_back(self, arena: Arena) -> None:
        """Make an arena free for the next call."""
        self._idle.append(arena)


@dataclass(frozen=True)
class _Part:
    """How some of the samples of a batch are run.

    Attributes:
        plan: for a number of samples.
        times: how often.
        advance: by how many floats each memory moves on from one time to the next.
        starts: by how many bytes into it each memory begins.
    """

    plan: NativePlan
    times: int
    advance: Any
    starts: tuple[int, ...]


class NativeSegment:
    """A segment made ready for one set of input shapes.

    Args:
        segment: the nodes.
        types_for: the types of all values for a number of samples.
        samples: in the batch.
        store: the weights.
        arenas: of the model.
    """

    def __init__(
        self,
        segment: Segment,
        types_for: Callable[[int], Mapping[str, TensorType]],
        samples: int,
        store: WeightStore,
        arenas: Arenas,
    ) -> None:
        self._arenas = arenas
        types = types_for(samples)
        self._outputs = [_shape(types[name]) for name in segment.outputs]
        floats = [prod(_shape(types[name])[1:]) for name in (*segment.inputs, *segment.outputs)]
        size = _part_size(segment, types, samples)
        self._parts = []
        for first, count, times in _cut(samples, size):
            plan = NativePlan(translate(segment, types_for(count), store), store, arenas.library, arenas.threads)
            advance = (ctypes.c_int64 * plan.memories)(0, *(count * each for each in floats))
            self._parts.append(_Part(plan, times, advance, tuple(4 * first * each for each in floats)))
        self.steps = tuple(self._parts[0].plan.steps)
        self._nbytes = max(part.plan.nbytes for part in self._parts)

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """The outputs for inputs of the right shapes."""
        inputs = [np.ascontiguousarray(array) for array in arrays]
        outputs: list[Array] = [np.empty(shape, np.float32) for shape in self._outputs]
        addresses = [array.__array_interface__["data"][0] for array in (*inputs, *outputs)]
        arena = self._arenas.take()
        try:
            arena.reserve(self._nbytes)
            for part in self._parts:
                starts = (address + start for address, start in zip(addresses, part.starts, strict=True))
                memory = (ctypes.c_void_p * part.plan.memories)(arena.address, *starts)
                self._arenas.library.run(part.plan.address, memory, part.advance, part.times, arena.pool)
        finally:
            self._arenas.give_back(arena)
        return outputs


def _shape(type_: TensorType) -> tuple[int, ...]:
    return tuple(int(str(dim)) for dim in type_.shape)


def _part_size(segment: Segment, types: Mapping[str, TensorType], samples: int) -> int:
    """How many samples are run at a time: as many as leave what a step reads and writes in the caches."""
    most = 1
    for node in segment.nodes:
        values = [name for name in (*node.inputs, *node.outputs) if name in types and types[name].shape[0] == samples]
        most = max(most, sum(4 * prod(_shape(types[name])[1:]) for name in values))
    return max(1, min(samples, MAX_SAMPLES, PART_BYTES // most))


def _cut(samples: int, size: int) -> list[tuple[int, int, int]]:
    """Parts of a batch as the first sample, the samples at a time, and how often."""
    # As even as can be, so that the last part is not much smaller.
    size = -(-samples // -(-samples // size))
    times, rest = divmod(samples, size)
    parts = [(0, size, times)]
    return [*parts, (times * size, rest, 1)] if rest else parts
