"""Running native plans: arenas, threads, and batches in parts."""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np

from sparsec.engine.choice import Chooser
from sparsec.engine.lookups import lookups
from sparsec.engine.plan import FLOAT_BYTES, LINE_BYTES, NativePlan
from sparsec.engine.segments import Segment
from sparsec.engine.translate import translate
from sparsec.ir import ABSENT, Array, TensorType
from sparsec.kernels import WeightStore
from sparsec.kernels.library import Call, Library

PART_BYTES: Final = 1 << 23
"""About so much may the largest step of a part read and write: what a core keeps in its caches."""

MAX_SAMPLES: Final = 256
"""The samples in a part of a batch."""

STAGED_BYTES: Final = 1 << 14
"""Inputs and outputs up to this size are copied to and from a place whose address is known: to ask for one takes longer."""

KEPT_BYTES: Final = 1 << 20
"""Arenas up to this size are not shared by the plans of a model: to take one and give it back takes longer than it should."""


Shape = tuple[int, ...]

RunOne = Callable[[Array], Array]
"""Gives the output for the input, where there is one of each."""


class Arena:
    """The memory of one call at a time, and the threads that run it.

    Args:
        found: the library.
        threads: how many.

    Attributes:
        pool: the threads; ``None`` where there is but one.
        buffer: in which the memory lies; another one where more was reserved.
        address: of the memory.
        nbytes: of it.
    """

    def __init__(self, found: Library, threads: int) -> None:
        self._library = found
        self._process = os.getpid()
        self.pool = found.new_pool(threads)
        self.buffer: Array = np.zeros(0, np.uint8)
        self.address = 0
        self.nbytes = 0

    def reserve(self, nbytes: int) -> None:
        """Have at least so many bytes."""
        if self.nbytes < nbytes:
            # Zeros, since what stands between rows is computed with, and denormal numbers take long.
            self.buffer = np.zeros(nbytes + LINE_BYTES, np.uint8)
            self.address = -(-self.buffer.ctypes.data // LINE_BYTES) * LINE_BYTES
            self.nbytes = nbytes

    @property
    def is_ours(self) -> bool:
        """Whether its threads, if it has any, are of this process, and not of one that was forked."""
        return self.pool is None or self._process == os.getpid()

    def __del__(self) -> None:
        if self.pool is not None and self.is_ours:
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
            arena = self._idle.pop()
            return arena if arena.pool is None or arena.is_ours else self.take()
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


class _Frame:
    """The addresses of one call at a time, and the place of inputs and outputs that are small.

    Args:
        parts: of the batch.
        inputs: the shapes of the inputs.
        outputs: the shapes of the outputs.

    Attributes:
        calls: for each part, the address of what the library is called with.
        bound: the buffer of the arena with which it is called.
        staged: the places of the first input and the first output, where both are small.
    """

    def __init__(self, parts: Sequence[_Part], inputs: Sequence[Shape], outputs: Sequence[Shape]) -> None:
        self._starts = [part.starts for part in parts]
        self._memories: list[Any] = [(ctypes.c_void_p * part.plan.memories)() for part in parts]
        self._calls = [
            Call(part.plan.address, ctypes.addressof(memory), ctypes.addressof(part.advance), part.times)
            for part, memory in zip(parts, self._memories, strict=True)
        ]
        self.calls = [ctypes.addressof(call) for call in self._calls]
        self.bound: Array | None = None
        self._inputs = [self._stage(number, shape) for number, shape in enumerate(inputs)]
        self._shapes = outputs
        self._outputs = [self._stage(number, shape) for number, shape in enumerate(outputs, start=len(inputs))]
        x, y = self._inputs[0] if inputs else None, self._outputs[0]
        self.staged = None if x is None or y is None else (x, y)

    def _stage(self, number: int, shape: Shape) -> Array | None:
        if not _is_small(shape):
            return None
        staged: Array = np.empty(shape, np.float32)
        self._point(number, staged.ctypes.data)
        return staged

    def _point(self, number: int, address: int) -> None:
        for memory, starts in zip(self._memories, self._starts, strict=True):
            memory[number + 1] = address + starts[number]

    def bind(self, arena: Arena) -> None:
        """Call the library with an arena from now on."""
        self.bound = arena.buffer
        for memory, call in zip(self._memories, self._calls, strict=True):
            memory[0], call.pool = arena.address, arena.pool

    def set_inputs(self, arrays: Sequence[Array]) -> list[Array]:
        """Take the inputs of a call, as float32; what is returned has to live as long as it lasts."""
        kept = []
        for number, (staged, array) in enumerate(zip(self._inputs, arrays, strict=True)):
            if staged is not None:
                staged[...] = array
                continue
            kept.append(np.ascontiguousarray(array, np.float32))
            self._point(number, kept[-1].ctypes.data)
        return kept

    def set_outputs(self) -> list[Array | None]:
        """New arrays for the outputs of a call; ``None`` for those that are staged."""
        made: list[Array | None] = []
        for number, (staged, shape) in enumerate(zip(self._outputs, self._shapes, strict=True), start=len(self._inputs)):
            made.append(None if staged is not None else np.empty(shape, np.float32))
            if made[-1] is not None:
                self._point(number, made[-1].ctypes.data)
        return made

    def outputs(self, made: Sequence[Array | None]) -> list[Array]:
        """The outputs, when the call is done."""
        staged = (None if place is None else place.copy() for place in self._outputs)
        return [y for pair in zip(staged, made, strict=True) for y in pair if y is not None]


class NativeSegment:
    """A segment made ready for one set of input shapes.

    Args:
        segment: the nodes.
        types_for: the types of all values for a number of samples.
        samples: in the batch.
        store: the weights.
        arenas: of the model.
        choose: how steps multiply.

    Attributes:
        steps: what it does with the first part of the batch, for summaries.
        parts: how many such parts the batch has.
    """

    def __init__(
        self,
        segment: Segment,
        types_for: Callable[[int], Mapping[str, TensorType]],
        samples: int,
        store: WeightStore,
        arenas: Arenas,
        choose: Chooser,
    ) -> None:
        self._arenas = arenas
        self._run = arenas.library.run
        types = types_for(samples)
        self._frames: deque[_Frame] = deque()
        self._inputs = [_shape(types[name]) for name in segment.inputs]
        self._outputs = [_shape(types[name]) for name in segment.outputs]
        self._truths = [number for number, name in enumerate(segment.outputs) if types[name].dtype == "bool"]
        self._lookups = lookups(segment, store)
        floats = [prod(_shape(types[name])) // samples for name in (*segment.inputs, *segment.outputs)]
        size = _part_size(segment, types, samples, store)
        self._parts = []
        for first, count, times in _cut(samples, size):
            plan = NativePlan(translate(segment, types_for(count), store), store, arenas.library, arenas.threads, choose)
            advance = (ctypes.c_int64 * plan.memories)(0, *(count * each for each in floats))
            self._parts.append(_Part(plan, times, advance, tuple(FLOAT_BYTES * first * each for each in floats)))
        self.steps = tuple(self._parts[0].plan.steps)
        self.parts = samples / _cut(samples, size)[0][1]
        self._nbytes = max(part.plan.nbytes for part in self._parts)

    def profile(self, arrays: Sequence[Array], rounds: int) -> list[float]:
        """The median nanoseconds of each step in one thread, for the whole batch by those for its first part.

        Args:
            arrays: the inputs.
            rounds: how often it is run.
        """
        found, part = self._arenas.library, self._parts[0]
        outputs = [np.empty(shape, np.float32) for shape in self._outputs]
        inputs = [np.ascontiguousarray(array, np.float32) for array in arrays]
        arena = Arena(found, 1)
        arena.reserve(self._nbytes)
        memory = (ctypes.c_void_p * part.plan.memories)(arena.address, *(array.ctypes.data for array in (*inputs, *outputs)))
        sizes = [step.structures for step in part.plan.steps]
        times = np.zeros((rounds + 1, sum(sizes)), np.int64)
        for row in times:
            found.profile(part.plan.address, memory, row.ctypes.data)
        by_step = np.add.reduceat(times[1:], np.cumsum([0, *sizes[:-1]]), axis=1)
        return [self.parts * float(time) for time in np.median(by_step, axis=0)]

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """The outputs for inputs of the right shapes and dtype.

        Raises:
            InputError: an index is outside of its table.
        """
        for lookup in self._lookups:
            lookup.check(arrays[lookup.number])
        frame = self._frame()
        inputs, outputs = frame.set_inputs(arrays), frame.set_outputs()
        self._call(frame)
        del inputs
        found = frame.outputs(outputs)
        self._frames.append(frame)
        for number in self._truths:
            found[number] = found[number].astype(bool)
        return found

    def shortest(self) -> RunOne:
        """What gives the output for the input, one of each and of float32, in the shortest way that their sizes allow."""
        staged = _is_small(self._inputs[0]) and _is_small(self._outputs[0])
        alone = len(self._parts) == 1 and self._arenas.threads == 1 and self._nbytes <= KEPT_BYTES
        return self._staged() if staged and alone else self._run_one

    def _run_one(self, x: Array) -> Array:
        frame = self._frame()
        if frame.staged is None:
            self._frames.append(frame)
            return self.run([x])[0]
        place, found = frame.staged
        place[...] = x
        self._call(frame)
        y = found.copy()
        self._frames.append(frame)
        return y

    def _staged(self) -> RunOne:
        """Nothing but two copies and a call; each of the calls that overlap has places and an arena of its own."""
        idle: deque[tuple[Array, Array, int, _Frame, Arena]] = deque()
        run = self._run

        def make() -> tuple[Array, Array, int, _Frame, Arena]:
            frame, arena = self._frame(), Arena(self._arenas.library, 1)
            arena.reserve(self._nbytes)
            frame.bind(arena)
            assert frame.staged is not None
            return (*frame.staged, frame.calls[0], frame, arena)

        def run_one(x: Array) -> Array:
            try:
                places = idle.pop()
            except IndexError:
                places = make()
            place, found, call, _, _ = places
            place[...] = x
            run(call)
            y = found.copy()
            idle.append(places)
            return y

        return run_one

    def _frame(self) -> _Frame:
        """One that nobody uses."""
        try:
            return self._frames.pop()
        except IndexError:
            return _Frame(self._parts, self._inputs, self._outputs)

    def _call(self, frame: _Frame) -> None:
        arena = self._arenas.take()
        if arena.nbytes < self._nbytes:
            arena.reserve(self._nbytes)
        if frame.bound is not arena.buffer:
            frame.bind(arena)
        for call in frame.calls:
            self._run(call)
        self._arenas.give_back(arena)


def _is_small(shape: Shape) -> bool:
    return prod(shape) * FLOAT_BYTES <= STAGED_BYTES


def _shape(type_: TensorType) -> tuple[int, ...]:
    return tuple(int(str(dim)) for dim in type_.shape)


def _part_size(segment: Segment, types: Mapping[str, TensorType], samples: int, store: WeightStore) -> int:
    """How many samples are run at a time: as many as leave what a step reads and writes in the caches."""
    most = 1
    for node in segment.nodes:
        values = [name for name in (*node.inputs, *node.outputs) if name != ABSENT and name not in store]
        most = max(most, sum(FLOAT_BYTES * prod(_shape(types[name])) // samples for name in values))
    return max(1, min(samples, MAX_SAMPLES, PART_BYTES // most))


def _cut(samples: int, size: int) -> list[tuple[int, int, int]]:
    """Parts of a batch as the first sample, the samples at a time, and how often."""
    # As even as can be, so that the last part is not much smaller.
    size = -(-samples // -(-samples // size))
    times, rest = divmod(samples, size)
    parts = [(0, size, times)]
    return [*parts, (times * size, rest, 1)] if rest else parts
