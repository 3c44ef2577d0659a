"""What a kernel is: one row of the table, and what it is told about the node that it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from math import prod
from typing import Any, Final

import numpy as np

from sparsec.ir import Array, Attrs
from sparsec.kernels.costs import Coefficients
from sparsec.kernels.weights import Packing, Weight

Run = Callable[[Array], Array]
"""A kernel that is bound to its task, weight and epilogue: the input in, a new array out."""

InPlace = Callable[..., Array]
"""An elementwise function ``(attrs, *inputs, out=None)``; see :data:`sparsec.kernels.IN_PLACE`."""


ROW_LENGTH: Final = 512
"""Rows shorter than this are taken several as one: NumPy takes as long to begin a row as to add a hundred elements."""


@dataclass(frozen=True)
class Task:
    """One application of an operator with a weight, at known shapes.

    Attributes:
        op: the operator's name.
        attrs: its attributes.
        x: the shape of the input.
        y: the shape of the output.
        dtype: of input, weight and output.
        weight: the weight.
        nonzeros: how many elements of the weight are not zero.
        threads: how many threads BLAS uses.
    """

    op: str
    attrs: Attrs
    x: tuple[int, ...]
    y: tuple[int, ...]
    dtype: str
    weight: Weight
    nonzeros: int
    threads: int = 1

    @property
    def positions(self) -> int:
        """The number of output positions, over all samples."""
        return prod(self.y[:-1])

    @property
    def density(self) -> float:
        """The part of the weight's elements that is not zero."""
        return self.nonzeros / max(self.weight.size, 1)


@dataclass(frozen=True)
class Stage:
    """One elementwise operator of an epilogue.

    Attributes:
        op: the operator's name.
        function: from :data:`sparsec.kernels.IN_PLACE`.
        attrs: the operator's attributes.
        vectors: its inputs after the first; each broadcasts along the channels.
    """

    op: str
    function: InPlace
    attrs: Attrs
    vectors: tuple[Array | None, ...] = ()


@dataclass(frozen=True)
class Epilogue:
    """What is done to each part of the output while it is in the cache: the bias, then elementwise operators.

    A kernel applies it exactly once to every element, on parts that have all output channels as their last axis.

    Attributes:
        bias: per output channel.
        stages: in order.
    """

    bias: Array | None = None
    stages: tuple[Stage, ...] = ()

    def __call__(self, part: Array) -> None:
        """Apply it in place to ``part``, ``[..., channels]``."""
        if self.bias is not None:
            self._add_bias(part, self.bias)
        for stage in self.stages:
            stage.function(stage.attrs, part, *stage.vectors, out=part)

    def _add_bias(self, part: Array, bias: Array) -> None:
        repeated = self._repeated_bias
        if part.size < 2 * repeated.size or bias.size == repeated.size or not part.flags.c_contiguous:
            part += bias
            return
        flat = part.reshape(-1)
        rest = flat.size % repeated.size
        whole = flat[: flat.size - rest].reshape(-1, repeated.size)
        whole += repeated
        flat[flat.size - rest :] += repeated[:rest]

    @cached_property
    def _repeated_bias(self) -> Array:
        """The bias of as many positions as make a long row."""
        assert self.bias is not None
        return np.tile(self.bias, max(ROW_LENGTH // max(self.bias.size, 1), 1))


def _never(task: Task) -> str:
    return ""


@dataclass(frozen=True)
class Kernel:
    """One row of the table.

    Attributes:
        name: ``<op>/<method>``, unique.
        op: the operator that it runs.
        packing: the form in which it wants the weight.
        cost: estimated nanoseconds for a task.
        bind: makes it ready for one task, given the packed weight and the epilogue.
        refuses: why it cannot run a task; empty where it can.
        needs: the packages without which it does not run.
    """

    name: str
    op: str
    packing: Packing
    cost: Callable[[Task, Coefficients], float]
    bind: Callable[[Task, Any, Epilogue], Run]
    refuses: Callable[[Task], str] = _never
    needs: tuple[str, ...] = ()

    def missing(self) -> tuple[str, ...]:
        """The packages that it needs and that are not installed."""
        return tuple(name for name in self.needs if not _installed(name))


@cache
def _installed(package: str) -> bool:
    return find_spec(package) is not None
