"""A native plan: the C structures of a segment, for one number of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from sparsec.engine.choice import Choice, Chooser
from sparsec.engine.memory import Memory
from sparsec.engine.packing import Packed, address, pointer
from sparsec.engine.rewrites import join_pools
from sparsec.engine.steps import Copy, Planes, Post, Step, Window
from sparsec.engine.translate import Translation
from sparsec.ir import Attrs
from sparsec.kernels import Packing, library
from sparsec.kernels.library import FUNCTIONS, KERNELS, OPERANDS, POOLS, Library

FLOAT_BYTES: Final = 4
LINE_BYTES: Final = 64


class Weights(Protocol):
    """Where a plan has packed weights from."""

    def packed(self, path: str, packing: Packing, attrs: Attrs) -> Any:
        """A weight in a packed form."""


@dataclass(frozen=True)
class NativeStep:
    """What a step does, for summaries.

    Attributes:
        step: the step.
        choice: how it multiplies; ``None`` where it does not.
        structures: how many steps of the library it is.
    """

    step: Step
    choice: Choice | None
    structures: int


class NativePlan:
    """A segment made ready to run; immutable, for any number of threads at once.

    Args:
        translation: the segment.
        store: the weights.
        found: the library.
        threads: how many run it.
        choose: how steps multiply.

    Attributes:
        steps: what it does, for summaries.
        nbytes: of the arena, with the scratch memory of all threads.
        memories: how many there are, the arena included.
    """

    def __init__(self, translation: Translation, store: Weights, found: Library, threads: int, choose: Chooser) -> None:
        self._kept: list[Any] = []
        multiplied = [item for item in translation.items if isinstance(item, Step) and item.product is not None]
        choices = _choices(multiplied, translation.planes, choose)
        kernels = {y: choice.kernel for y, choice in choices.items()}
        items = join_pools(translation.items, translation.planes, kernels)
        self._memory = Memory(items, translation.planes, translation.external)
        self._store = store
        self.memories = len(set(translation.external.values())) + 1
        structures: list[library.Step] = []
        self.steps: list[NativeStep] = []
        for step in self._memory.steps:
            choice = None if step.product is None else choices[step.y]
            made = self._structures(step, choice)
            self.steps.append(NativeStep(step, choice, len(made)))
            structures += made
        array = (library.Step * len(structures))(*structures)
        scratch = max(found.scratch(found.kernels, pointer(structure)) for structure in array)
        scratch = -(-scratch // LINE_BYTES) * LINE_BYTES
        arena = self._memory.floats * FLOAT_BYTES
        plan = library.Plan(len(structures), self.memories, pointer(array), found.kernels, arena, scratch)
        self._kept += [array, plan]
        self.nbytes = arena + scratch * threads
        self.address = pointer(plan)

    def _planes(self, value: str) -> Planes:
        return self._memory.planes[value]

    # --- structures -------------------------------------------------------------------------------------------------

    def _structures(self, step: Step, choice: Choice | None) -> list[library.Step]:
        """A structure for each group of the weight."""
        if choice is None or step.product is None:
            structure = self._structure(step, step.kernel, 0, 1)
            structure.weights = address(step.weights) if step.copy is None else self._copy(step.copy)
            structure.pieces = 1
            self._kept.append(step.weights)
            return [structure]
        packed: Packed = self._store.packed(step.product.path, choice.packing, {})
        self._kept.append(packed)
        groups = step.product.groups
        structures = []
        for group, pieces in enumerate(packed.structures):
            structure = self._structure(step, choice.kernel, group, groups)
            structure.weights = pointer(pieces)
            structure.options[: len(choice.options)] = choice.options
            structure.pieces = len(pieces)
            structures.append(structure)
        return structures

    def _copy(self, copy: Copy) -> int:
        axes, constant = np.array(copy.axes, np.int64), copy.constant
        count = 0 if constant is None else constant.size
        structure = library.Copy(len(axes), count, *copy.first, address(axes), address(constant))
        self._kept += [axes, constant, structure]
        return pointer(structure)

    def _structure(self, step: Step, kernel: str, group: int, groups: int) -> library.Step:
        rows = self._planes(step.y).channels // groups
        first = group * rows
        structure = library.Step(kernel=KERNELS.index(kernel), low=step.low, high=step.high)
        structure.options[: len(step.options)] = step.options
        structure.numbers[: len(step.numbers)] = step.numbers
        if step.bias is not None:
            self._kept.append(step.bias)
            structure.bias = step.bias.ctypes.data + FLOAT_BYTES * first
        if step.before is not None:
            self._kept.append(step.before)
            skipped = FLOAT_BYTES * group * (self._planes(step.x).channels // groups)
            structure.scale, structure.shift = (array.ctypes.data + skipped for array in (step.before.scale, step.before.shift))
            structure.numbers[:2] = step.before.low, step.before.high
        structure.window = _window(step.window)
        structure.x = self._value(step.x, group, groups)
        structure.residual = self._value(step.residual, group, groups)
        structure.mask = self._value(step.mask, group, groups)
        if step.pool is None:
            structure.y = self._value(step.y, group, groups)
            structure.extra = self._value(step.also or step.gate, group, groups)
        else:
            structure.y = self._sizes(step.y, groups)
            structure.extra = self._value(step.pool.y, group, groups)
            structure.options[1] = POOLS.index(step.pool.kernel)
        if step.posts:
            posts = (library.Post * len(step.posts))(*(self._post(post, step.y, group, groups) for post in step.posts))
            self._kept.append(posts)
            structure.posts, structure.post = len(posts), pointer(posts)
        return structure

    def _value(self, name: str, group: int, groups: int) -> library.Value:
        """A part of the rows of a value; one of no memory where there is no value."""
        if not name:
            return library.Value(base=-1)
        value, place = self._sizes(name, groups), self._memory.place(name)
        value.base, value.offset = place.base, place.offset + group * value.channels * value.pitch
        return value

    def _sizes(self, name: str, groups: int) -> library.Value:
        """A part of the rows of a value that is nowhere yet."""
        planes = self._planes(name)
        sizes = (planes.channels // groups, planes.samples, planes.height, planes.width, 0)
        return library.Value(-1, *sizes, 0, planes.pitch)

    def _post(self, post: Post, y: str, group: int, groups: int) -> library.Post:
        function, of = FUNCTIONS.index(post.function), self._planes(y)
        if post.value:
            planes = self._planes(post.value)
            value = self._value(post.value, *((group, groups) if planes.channels == of.channels else (0, 1)))
            if planes.channels != of.channels:
                value.pitch = 0
            kind = "value" if planes.height * planes.width == of.height * of.width else "gate"
            return library.Post(function, OPERANDS.index(kind), post.a, post.b, None, value)
        none = library.Value(base=-1)
        if post.channel is None:
            return library.Post(function, OPERANDS.index("number"), post.a, post.b, None, none)
        self._kept.append(post.channel)
        start = post.channel.ctypes.data + FLOAT_BYTES * group * (of.channels // groups)
        return library.Post(function, OPERANDS.index("channel"), post.a, post.b, start, none)


def _choices(steps: Sequence[Step], planes: Mapping[str, Planes], choose: Chooser) -> dict[str, Choice]:
    """By output, how each step multiplies; those that do the same, such as steps in time of a cell, are asked about once."""
    found: dict[Any, Choice] = {}
    choices = {}
    for step in steps:
        others = (bool(step.residual), bool(step.gate), bool(step.mask), step.before is None, len(step.posts), step.options)
        key = (step.kernel, step.product, step.window, planes[step.x], planes[step.y], others)
        if key not in found:
            found[key] = choose(step, planes)
        choices[step.y] = found[key]
    return choices


def _window(window: Window) -> library.Window:
    return library.Window(*window.size, *window.strides, *window.dilations, *window.pads)
