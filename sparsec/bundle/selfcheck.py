"""The self-check: a few expected outputs that travel with a bundle, and the inputs they belong to.

The inputs are not stored: an integer generator, SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators", figure 17), makes them from a seed, the same in every language.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from sparsec.bundle.json_text import compact
from sparsec.bundle.limits import MAX_INTEGER, MAX_SELFCHECK_ELEMENTS, MAX_SELFCHECK_VALUES
from sparsec.errors import GraphError, InputError
from sparsec.ir import BATCH, Array, Graph, TensorType, evaluate, symbols
from sparsec.ops import check, evaluate_graph

DEFAULT_SEED = 1
DEFAULT_SYMBOL_SIZE = 64
"""What symbolic sizes other than the batch are in the self-check."""

FLOAT_RANGE = (-1.0, 1.0)
INTEGER_RANGE = (0, 2)
DEFAULT_TOLERANCE = 1e-4
"""The contract on outputs: differences stay below this part of the output's scale."""

SIGNIFICANT_DIGITS = 4
HALF_ROUNDING = 2.0**-11
"""By this part of its magnitude a number moves at most when it is rounded to half precision."""

MAX_SELFCHECK_BYTES = 512
"""The longest self-check, as JSON text."""


@dataclass(frozen=True)
class InputSample:
    """How one input of a model is generated.

    Attributes:
        dtype: the dtype of the input.
        shape: its shape, batch included.
        low: the least value.
        high: an upper bound that is not reached; for integers and bools both ends are integers.
    """

    dtype: str
    shape: tuple[int, ...]
    low: float
    high: float


@dataclass(frozen=True)
class ExpectedOutput:
    """What is known of one output.

    Attributes:
        shape: its shape, batch included.
        scale: the largest magnitude in it.
        values: elements of the flattened output, as many as there was room for; value ``i`` of ``n`` stands at index
            ``i * size // n``.
    """

    shape: tuple[int, ...]
    scale: float
    values: tuple[float, ...]


@dataclass(frozen=True)
class SelfCheckResult:
    """The outcome of a comparison.

    Attributes:
        passed: every stored element is within the tolerance.
        worst: the largest difference, beyond what rounding explains, as a part of the output's scale; infinite where the
            shapes differ.
        output: the index of the output where it occurred.
        tolerance: the largest ``worst`` that passes.
    """

    passed: bool
    worst: float
    output: int
    tolerance: float


@dataclass(frozen=True)
class SelfCheck:
    """Expected outputs of the original model in float64, rounded to 4 significant digits.

    Attributes:
        seed: of the generator.
        tolerance: the difference that is allowed, as a part of each output's scale.
        inputs: how each input of the model is generated, in order.
        outputs: the leading outputs, in order; the last ones are missing where there was no room.
    """

    seed: int
    tolerance: float
    inputs: tuple[InputSample, ...]
    outputs: tuple[ExpectedOutput, ...]

    def make_inputs(self) -> list[Array]:
        """The inputs, one array for each input of the model, in order."""
        return sample_inputs(self.inputs, self.seed)

    def compare(self, outputs: Sequence[Array]) -> SelfCheckResult:
        """Compare outputs that were computed from :meth:`make_inputs` with the expected ones.

        Args:
            outputs: one array for each output of the model, in order.
        """
        worst, where = 0.0, 0
        for index, (expected, actual) in enumerate(zip(self.outputs, outputs, strict=False)):
            difference = _difference(expected, np.asarray(actual))
            if not difference <= worst:
                worst, where = difference, index
        if len(outputs) < len(self.outputs):
            worst, where = float("inf"), len(outputs)
        return SelfCheckResult(worst <= self.tolerance, worst, where, self.tolerance)


def _difference(expected: ExpectedOutput, actual: Array) -> float:
    if actual.shape != expected.shape:
        return float("inf")
    values = np.asarray(expected.values)
    found = actual.reshape(-1)[_indices(actual.size, len(values))].astype(np.float64)
    rounding = (0.5 * 10.0 ** (1 - SIGNIFICANT_DIGITS) + (HALF_ROUNDING if actual.dtype == np.float16 else 0.0)) * np.abs(
        values
    )
    excess = np.max(np.maximum(np.abs(found - values) - rounding, 0.0), initial=0.0)
    if not np.isfinite(excess):
        return float("inf")
    if excess == 0.0:
        return 0.0
    return float(excess) / expected.scale if expected.scale else float("inf")


def _indices(size: int, count: int) -> Array:
    return np.arange(count, dtype=np.int64) * size // max(count, 1)


def sample_inputs(samples: Sequence[InputSample], seed: int) -> list[Array]:
    """Generate inputs; ``formats/bundle.md`` specifies the numbers.

    One stream of integers ``u`` serves all inputs, one after the other. A float is ``low + (high - low) * f``, where the 24
    high bits of ``u`` make ``f`` in [0, 1), computed in float64 and rounded to the dtype; an integer is
    ``low + u % (high - low)``; a bool is whether such an integer is not zero.

    Args:
        samples: what to generate.
        seed: any integer; its lowest 64 bits count.
    """
    arrays = []
    position = 0
    for sample in samples:
        size = prod(sample.shape)
        integers = _splitmix64(seed, position, size)
        position += size
        arrays.append(_scaled(sample, integers).reshape(sample.shape))
    return arrays


def _scaled(sample: InputSample, integers: Array) -> Array:
    if sample.dtype.startswith("float"):
        fraction = (integers >> np.uint64(40)).astype(np.float64) * 2.0**-24
        return (sample.low + (sample.high - sample.low) * fraction).astype(sample.dtype)
    low, span = int(sample.low), int(sample.high) - int(sample.low)
    return ((integers % np.uint64(span)).astype(np.int64) + low).astype(sample.dtype)


def _splitmix64(seed: int, start: int, count: int) -> Array:
    first = (seed + (start + 1) * 0x9E3779B97F4A7C15) % 2**64
    # NumPy's unsigned integers wrap around as the generator wants.
    z = np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(first)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def make_selfcheck(
    graph: Graph,
    *,
    seed: int = DEFAULT_SEED,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
) -> SelfCheck | None:
    """Evaluate a graph on one generated sample in float64 and keep what fits into :data:`MAX_SELFCHECK_BYTES`.

    Args:
        graph: the original graph, before any pass.
        seed: of the generator.
        ranges: low and high by input name; by default [-1, 1) for floats, and 0 and 1 for integers.
        tolerance: the difference that :meth:`SelfCheck.compare` allows, as a part of each output's scale.

    Returns:
        the self-check; ``None`` if the graph does not accept symbolic sizes of :data:`DEFAULT_SYMBOL_SIZE`, an input or output
        has too many elements, or an output is not finite.

    Raises:
        InputError: a range is empty, or names no input.
    """
    ranges = dict(ranges or {})
    sizes = {name: DEFAULT_SYMBOL_SIZE for i in graph.inputs for dim in i.type.shape for name in symbols(dim)}
    sizes[BATCH] = 1
    samples = tuple(_sample(i.type, sizes, ranges.pop(i.name, None)) for i in graph.inputs)
    if ranges:
        raise InputError(f"ranges are given for {sorted(ranges)[0]!r}, which is no input of the model")
    try:
        bound = graph.bind(sizes)
        check(bound, "binding the sizes of the self-check")
    except GraphError:
        return None
    if sum(prod(sample.shape) for sample in samples) > MAX_SELFCHECK_ELEMENTS:
        return None
    with np.errstate(all="ignore"):
        outputs = evaluate_graph(bound, sample_inputs(samples, seed), dtype="float64")
    return selfcheck_of(samples, outputs, seed=seed, tolerance=tolerance)


def _sample(type_: TensorType, sizes: Mapping[str, int], wanted: tuple[float, float] | None) -> InputSample:
    is_float = type_.dtype.startswith("float")
    low, high = wanted or (FLOAT_RANGE if is_float else INTEGER_RANGE)
    if not valid_range(type_.dtype, low, high):
        raise InputError(f"[{low}, {high}) is no range of {type_.dtype} values")
    return InputSample(type_.dtype, tuple(evaluate(dim, sizes) for dim in type_.shape), low, high)


def valid_range(dtype: str, low: float, high: float) -> bool:
    """Whether numbers of ``dtype`` can be generated from ``low`` to before ``high``."""
    if dtype.startswith("float"):
        return low < high and bool(np.isfinite(high - low))
    return low < high and low == int(low) and high == int(high) and max(abs(low), abs(high)) <= _LARGEST_INTEGER[dtype]


_LARGEST_INTEGER = {"bool": 2, "int32": 2**31 - 1, "int64": MAX_INTEGER}


def selfcheck_of(
    samples: Sequence[InputSample],
    outputs: Sequence[Array],
    *,
    seed: int = DEFAULT_SEED,
    tolerance: float = DEFAULT_TOLERANCE,
) -> SelfCheck | None:
    """Keep of an evaluation that was made anyway what fits into :data:`MAX_SELFCHECK_BYTES`.

    Args:
        samples: how the inputs were generated, by :func:`sample_inputs`.
        outputs: of the original graph on them, evaluated in float64.
        seed: of the generator.
        tolerance: the difference that :meth:`SelfCheck.compare` allows, as a part of each output's scale.

    Returns:
        the self-check; ``None`` if an input or output has too many elements, or an output is not finite.
    """
    if sum(prod(sample.shape) for sample in samples) > MAX_SELFCHECK_ELEMENTS:
        return None
    if any(output.size > MAX_SELFCHECK_ELEMENTS or not np.isfinite(output).all() for output in outputs):
        return None
    outputs = [output.astype(np.float64) for output in outputs]
    return _fit(seed, tolerance, tuple(samples), outputs)


def _fit(seed: int, tolerance: float, samples: tuple[InputSample, ...], outputs: Sequence[Array]) -> SelfCheck | None:
    for kept in range(len(outputs), 0, -1):
        for count in range(min(MAX_SELFCHECK_BYTES // 4, MAX_SELFCHECK_VALUES), 0, -1):
            expected = tuple(_expected(output, count) for output in outputs[:kept])
            candidate = SelfCheck(seed, tolerance, samples, expected)
            if len(compact(to_json(candidate))) <= MAX_SELFCHECK_BYTES:
                return candidate
    return None


def _expected(output: Array, most: int) -> ExpectedOutput:
    chosen = output.reshape(-1)[_indices(output.size, min(most, output.size))]
    return ExpectedOutput(
        output.shape, _rounded(np.abs(output).max(initial=0.0)), tuple(_rounded(value) for value in chosen.tolist())
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def to_json(selfcheck: SelfCheck) -> dict[str, Any]:
    """The JSON value that stands for a self-check in a manifest."""
    return {
        "seed": selfcheck.seed,
        "tolerance": selfcheck.tolerance,
        "inputs": [{"dtype": i.dtype, "shape": list(i.shape), "low": i.low, "high": i.high} for i in selfcheck.inputs],
        "outputs": [{"shape": list(o.shape), "scale": o.scale, "values": list(o.values)} for o in selfcheck.outputs],
    }
