"""Random inputs for a model: how many, in which range, and why that range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparsec.errors import InputError
from sparsec.ir import BATCH, Array, Graph, Input, Node, evaluate
from sparsec.ops.base import integer

DEFAULT_RANGE = (-1.0, 1.0)
INTEGER_RANGE = (0.0, 2.0)
MOVES = frozenset({"cast", "reshape", "slice", "transpose"})
"""Operators that leave indices what they are."""

SIGMAS = 2.0
"""How far the guess for an input that is normalised reaches on both sides of its mean, in standard deviations."""


@dataclass(frozen=True)
class InputRange:
    """The range in which one input is drawn.

    Attributes:
        input: the input's name.
        low: the least value.
        high: the upper bound, for integers not reached.
        reason: where the range comes from.
    """

    input: str
    low: float
    high: float
    reason: str

    def __str__(self) -> str:
        return f"{self.input!r} in [{self.low:g}, {self.high:g}] ({self.reason})"


def guess_ranges(graph: Graph) -> tuple[InputRange, ...]:
    """The range of each input, guessed from the layer that reads it.

    An input that is looked up in a table is drawn from its indices. A leading Rescaling with factor s and offset o is taken to
    map [0, top] to [0, 1] where o = 0, and to [o, -o] where o < 0; a leading Normalization is taken to map what lies within
    :data:`SIGMAS` deviations of its mean.
    """
    return tuple(_guess(graph, entry) for entry in graph.inputs)


def given_ranges(graph: Graph, low: float, high: float) -> tuple[InputRange, ...]:
    """The same range for each input.

    Raises:
        InputError: the range is empty or not finite.
    """
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise InputError(f"the input range {low:g},{high:g} is empty or not finite; give LO,HI with LO below HI")
    return tuple(InputRange(entry.name, low, high, "as given") for entry in graph.inputs)


def check_seed(seed: int) -> None:
    """Check that ``seed`` is one that NumPy's generators take.

    Raises:
        InputError: it is negative.
    """
    if seed < 0:
        raise InputError(f"the seed {seed} is negative; give 0 or more")


def draw(
    graph: Graph, ranges: Sequence[InputRange], samples: int, seed: int, sizes: Mapping[str, int] | None = None
) -> list[Array]:
    """Random inputs, uniform in their ranges, one array for each input in order.

    Args:
        graph: the model.
        ranges: one for each input.
        samples: the size of the batch.
        seed: of the generator.
        sizes: of symbolic sizes other than the batch.

    Raises:
        InputError: a symbolic size is not given, there are no samples, the seed is negative, or a range holds numbers that an
            input's dtype cannot.
    """
    if samples < 1:
        raise InputError(f"{samples} samples are too few; ask for 1 or more")
    check_seed(seed)
    rng = np.random.default_rng(seed)
    known = {**(sizes or {}), BATCH: samples}
    arrays: list[Array] = []
    for entry, wanted in zip(graph.inputs, ranges, strict=True):
        shape = tuple(evaluate(dim, known) for dim in entry.type.shape)
        if entry.type.dtype == "bool":
            arrays.append(rng.integers(0, 2, shape).astype(np.bool_))
        elif entry.type.dtype.startswith("int"):
            low = int(np.ceil(wanted.low))
            high = max(int(np.ceil(wanted.high)), low + 1)
            limits = np.iinfo(entry.type.dtype)
            _check_within(entry, wanted, low, high - 1, limits.min, limits.max)
            arrays.append(rng.integers(low, high, shape, entry.type.dtype))
        else:
            largest = float(np.finfo(entry.type.dtype).max)
            _check_within(entry, wanted, wanted.low, wanted.high, -largest, largest)
            arrays.append(rng.uniform(wanted.low, wanted.high, shape).astype(entry.type.dtype))
    return arrays


def _check_within(entry: Input, wanted: InputRange, low: float, high: float, least: float, most: float) -> None:
    if low < least or high > most:
        raise InputError(f"the range [{wanted.low:g}, {wanted.high:g}] of input {entry.name!r} does not fit {entry.type.dtype}")


def _guess(graph: Graph, entry: Input) -> InputRange:
    table = _smallest_table(graph, entry.name)
    if table is not None:
        return InputRange(entry.name, 0.0, float(table[0]), f"the indices of layer {table[1]!r}")
    if entry.type.dtype == "bool" or entry.type.dtype.startswith("int"):
        return InputRange(entry.name, *INTEGER_RANGE, f"the default for {entry.type.dtype}")
    readers = graph.consumers().get(entry.name, [])
    first = readers[0] if len(readers) == 1 else None
    found = _range_before(graph, first) if first is not None and first.op == "affine" else None
    if first is None or found is None:
        return InputRange(entry.name, *DEFAULT_RANGE, "the default")
    return InputRange(entry.name, *found, f"guessed from layer {first.layer!r}")


def _smallest_table(graph: Graph, value: str) -> tuple[int, str] | None:
    """The fewest entries of the tables in which a value is looked up, and the layer that does so; ``None`` where it is not."""
    found: list[tuple[int, str]] = []
    for node in graph.consumers().get(value, []):
        if node.op == "gather" and node.inputs[1] == value and node.inputs[0] in graph.weights:
            found.append((graph.weights[node.inputs[0]].shape[integer(node.attrs, "axis")], node.layer))
        elif node.op in MOVES and node.inputs[0] == value:
            below = _smallest_table(graph, node.output)
            found += [] if below is None else [below]
    return min(found, default=None)


def _range_before(graph: Graph, node: Node) -> tuple[float, float] | None:
    scale = graph.weights.get(node.inputs[1])
    shift = graph.weights.get(node.inputs[2]) if len(node.inputs) > 2 else None
    if scale is None or not np.all(scale > 0):
        return None
    scale = scale.astype(np.float64)
    offset = np.zeros_like(scale) if shift is None else shift.astype(np.float64)
    if np.ptp(scale) == 0 and np.ptp(offset) == 0 and offset.flat[0] <= 0:
        factor, start = float(scale.flat[0]), float(offset.flat[0])
        return 0.0, (1.0 if start == 0 else -2 * start) / factor
    # Per channel, x * scale + offset is (x - mean) / deviation.
    mean, deviation = -offset / scale, 1 / scale
    return float((mean - SIGMAS * deviation).min()), float((mean + SIGMAS * deviation).max())
