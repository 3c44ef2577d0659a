"""The choice of an encoding: the fewest bytes in the file, after compression and with every overhead counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from sparsec.encodings.codec import assemble, encode, sparsify
from sparsec.encodings.deflate import deflated_nbytes
from sparsec.encodings.positions import POSITIONS, Pattern
from sparsec.encodings.stored import StoredTensor, bits, encoding_name, expect_tensor, normal_rows
from sparsec.encodings.values import VALUES
from sparsec.errors import InputError
from sparsec.ir import Array

LEVELS: Final = ("stored", "plain")
"""The levels of a bundle: ``stored`` is not compressed, ``plain`` is deflated."""

ENCODINGS: Final = ("auto", *POSITIONS)
"""What can be asked for: a choice, or certain positions."""

ALIGNMENT: Final = 64
"""At level ``stored`` every part begins on a multiple of this many bytes."""

PART_OVERHEAD: Final = 8
"""The bytes that one more part takes in the deflated manifest, about."""


@dataclass(frozen=True)
class Choice:
    """An encoding that was chosen.

    Attributes:
        stored: the tensor in it.
        bytes: what it takes in the file, estimated.
        zeros: the number of elements that are zero in every bit.
        reason: why, in one line.
        candidates: the estimated bytes of every encoding that was considered, by name, fewest first.
    """

    stored: StoredTensor
    bytes: int
    zeros: int
    reason: str
    candidates: Mapping[str, int]


def choose(array: Array, rows: tuple[int, ...] = (), level: str = "plain", request: str = "auto") -> Choice:
    """Encode an array in the fewest bytes.

    At level ``stored`` sizes are counted exactly. At level ``plain`` positions and values are estimated apart, by deflating
    samples of them.

    Args:
        array: any shape, dtype one of :data:`sparsec.ir.DTYPES`.
        rows: the axes that make up the rows of the matrix view; see :class:`StoredTensor`.
        level: one of :data:`LEVELS`.
        request: one of :data:`ENCODINGS`; names of positions leave only the values to choose.

    Raises:
        InputError: an argument is none of those.
    """
    if request not in ENCODINGS:
        raise InputError(f"there is no encoding {request!r}; use one of {', '.join(ENCODINGS)}")
    weight = _Weight(array, rows, level)
    names = [request]
    if request == "auto":
        # Without zeros every other encoding stores all the values too, and positions besides.
        names = list(POSITIONS) if weight.zeros else ["dense"]
    ranked = weight.costs(names)
    best = next(iter(ranked))
    named = {encoding_name(*pair): cost for pair, cost in ranked.items()}
    reason = _reason(named, weight.zeros, array.size, request)
    return Choice(weight.encode(*best), ranked[best], weight.zeros, reason, named)


class _Weight:
    """An array on its way into an encoding; what several encodings need is worked out once."""

    def __init__(self, array: Array, rows: tuple[int, ...], level: str) -> None:
        if level not in LEVELS:
            raise InputError(f"there is no level {level!r}; use one of {', '.join(LEVELS)}")
        expect_tensor(array)
        self._array = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
        self._rows = normal_rows(rows, array.ndim)
        self._level = level
        self._sparse: tuple[Pattern, Array] | None = None
        self.zeros = array.size - int(np.count_nonzero(bits(self._array)))

    def _sparsified(self) -> tuple[Pattern, Array]:
        if self._sparse is None:
            self._sparse = sparsify(self._array, self._rows)
        return self._sparse

    def costs(self, names: list[str]) -> dict[tuple[str, str], int]:
        """The bytes by positions and values, fewest first."""
        costs: dict[tuple[str, str], int] = {}
        if "dense" in names:
            for values, cost in _value_costs(self._array.reshape(-1), self._level).items():
                costs["dense", values] = cost
        sparse = [name for name in names if name != "dense"]
        if sparse:
            pattern, kept = self._sparsified()
            value_costs = _value_costs(kept, self._level)
            for name in sparse:
                position_cost = _position_cost(name, pattern, self._level)
                for values, cost in value_costs.items():
                    costs[name, values] = position_cost + cost
        return dict(sorted(costs.items(), key=lambda item: item[1]))

    def encode(self, positions: str, values: str) -> StoredTensor:
        if positions == "dense":
            return encode(self._array, self._rows, positions, values)
        return assemble(self._array.shape, self._rows, positions, values, *self._sparsified())


def _position_cost(name: str, pattern: Pattern, level: str) -> int:
    positions = POSITIONS[name]
    if level == "stored":
        return sum(_aligned(size) for size in positions.sizes(pattern.shape, pattern.count).values())
    return _deflated(positions.encode(pattern))


def _value_costs(values: Array, level: str) -> dict[str, int]:
    if level == "stored":
        # Byte planes gain nothing without compression.
        return {"raw": _aligned(values.nbytes)}
    return {name: _deflated(encoding.encode(values)) for name, encoding in VALUES.items()}


def _deflated(parts: Mapping[str, Array]) -> int:
    return sum(deflated_nbytes(part) + PART_OVERHEAD for part in parts.values())


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT + PART_OVERHEAD


def _reason(candidates: Mapping[str, int], zeros: int, size: int, request: str) -> str:
    (best, fewest), *others = candidates.items()
    if request != "auto":
        return f"{request} was asked for; {fewest:,} bytes"
    if not zeros:
        return f"no zeros: dense; {fewest:,} bytes"
    share = f"{zeros / size:.1%} zeros"
    rivals = [f"{name} {nbytes:,}" for name, nbytes in others if name.split("+")[0] != best.split("+")[0]]
    return f"{share}: {best} has the fewest bytes, {fewest:,}" + (f"; next {rivals[0]}" if rivals else "")
