"""Times ways to compute one step, in the native library and without the steps around it."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

import numpy as np

from sparsec.engine.choice import Choice
from sparsec.engine.plan import LINE_BYTES, NativePlan
from sparsec.engine.steps import Planes, Step
from sparsec.engine.translate import Translation
from sparsec.ir import Array, Attrs
from sparsec.kernels import Packing, WeightStore
from sparsec.kernels.library import Library

ROUNDS: Final = 9
"""How often each candidate is timed."""

ENOUGH: Final = 20_000_000
"""The nanoseconds after which the candidates of a step are not timed again, once each was ``LEAST`` times."""

LEAST: Final = 3

OTHERS_BYTES: Final = 1 << 21
"""So much is written before a step is timed, as other steps of a model would: its weights have left the nearest caches then."""


class Timer(Protocol):
    """What times the candidates of a step."""

    def __call__(self, step: Step, planes: Mapping[str, Planes], choices: Sequence[Choice]) -> list[float]:
        """The nanoseconds of each in one thread."""


class _Apart:
    """Weights in packed forms that are kept as long as the trial lasts."""

    def __init__(self, store: WeightStore) -> None:
        self._store = store
        self._packed: dict[tuple[str, str], Any] = {}

    def packed(self, path: str, packing: Packing, attrs: Attrs) -> Any:
        """A weight in a packed form."""
        key = (path, packing.name)
        if key not in self._packed:
            self._packed[key] = self._store.pack_apart(path, packing, attrs)
        return self._packed[key]


class Stopwatch:
    """Times steps of one model.

    Args:
        found: the library.
        store: the weights.
    """

    def __init__(self, found: Library, store: WeightStore) -> None:
        self._library = found
        self._store = store
        self._buffer: Array = np.zeros(0, np.uint8)
        self._others = np.zeros(OTHERS_BYTES, np.uint8)

    def __call__(self, step: Step, planes: Mapping[str, Planes], choices: Sequence[Choice]) -> list[float]:
        """The median nanoseconds of each choice in one thread; they take turns, so that all see the same machine."""
        plans = self._plans(step, planes, choices)
        memory = (ctypes.c_void_p * 1)(self._reserve(max(plan.nbytes for plan in plans)))
        times: list[list[int]] = [[] for _ in plans]
        spent = 0
        for turn in range(ROUNDS):
            if turn >= LEAST and spent > ENOUGH:
                break
            for plan, of_plan in zip(plans, times, strict=True):
                of_plan.append(self._time(plan, memory))
                spent += of_plan[-1]
        return [float(np.median(found)) for found in times]

    def _plans(self, step: Step, planes: Mapping[str, Planes], choices: Sequence[Choice]) -> list[NativePlan]:
        # In the memory of a trial a mask would say that no step counts.
        step = replace(step, nodes=[], mask="")
        values = {name: planes[name] for name in (*step.reads, *step.writes)}
        alone = Translation((step,), values, {})
        weights = _Apart(self._store)
        return [NativePlan(alone, weights, self._library, 1, lambda *_, choice=choice: choice) for choice in choices]

    def _time(self, plan: NativePlan, memory: Any) -> int:
        nanoseconds = np.zeros(sum(step.structures for step in plan.steps), np.int64)
        # Other candidates have driven its weights further away than they would be without these: a first run gets them back.
        self._library.profile(plan.address, memory, nanoseconds.ctypes.data)
        self._others.fill(0)
        nanoseconds.fill(0)
        self._library.profile(plan.address, memory, nanoseconds.ctypes.data)
        return int(nanoseconds.sum())

    def _reserve(self, nbytes: int) -> int:
        if self._buffer.size < nbytes + LINE_BYTES:
            self._buffer = np.zeros(nbytes + LINE_BYTES, np.uint8)
        return int(-(-self._buffer.ctypes.data // LINE_BYTES) * LINE_BYTES)
