"""DEFLATE (RFC 1951) as bundles use it: how a part is best compressed, and how many bytes that takes.

Weights are mostly noise, in which LZ77 finds accidental matches that cost more than Huffman codes of single bytes and take ten
times as long. So every part is tried with few strategies on a sample, and what does not shrink is not compressed at all.
"""

from __future__ import annotations

import zlib
from enum import Enum
from typing import Final, NamedTuple

import numpy as np

from sparsec.ir import Array

SAMPLE_SLICES: Final = 4
SAMPLE_SLICE_BYTES: Final = 8192
WORTHWHILE: Final = 0.98
"""A part is deflated only if that leaves less than this share of its bytes: inflating costs time."""


class Strategy(Enum):
    """How a part is written."""

    STORE = "store"
    HUFFMAN = "huffman"
    RLE = "rle"
    LZ77 = "lz77"


class Plan(NamedTuple):
    """A strategy and the share of the bytes that it is expected to leave."""

    strategy: Strategy
    ratio: float


_ZLIB_STRATEGY = {
    Strategy.HUFFMAN: zlib.Z_HUFFMAN_ONLY,
    Strategy.RLE: zlib.Z_RLE,
    Strategy.LZ77: zlib.Z_DEFAULT_STRATEGY,
}
_LEVEL: Final = 6
_TRIAL_LEVEL: Final = 1


def compress(data: bytes | memoryview, strategy: Strategy, *, last: bool, level: int = _LEVEL) -> bytes:
    """Deflate ``data`` into a piece of a raw stream that ends on a byte; pieces may be joined, and only one is the ``last``."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15, 9, _ZLIB_STRATEGY[strategy])
    body = compressor.compress(data)
    return body + compressor.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)


def plan(part: Array) -> Plan:
    """The strategy that leaves the fewest bytes of a sample of ``part``; the first on a tie."""
    sample = _sample(part)
    if not sample:
        return Plan(Strategy.STORE, 1.0)
    best = Plan(Strategy.STORE, WORTHWHILE)
    for strategy in _ZLIB_STRATEGY:
        ratio = len(compress(sample, strategy, last=True, level=_TRIAL_LEVEL)) / len(sample)
        if ratio < best.ratio:
            best = Plan(strategy, ratio)
    return Plan(Strategy.STORE, 1.0) if best.strategy is Strategy.STORE else best


def deflated_nbytes(part: Array) -> int:
    """The bytes of ``part`` in a file of level ``plain``, estimated from a sample."""
    return round(plan(part).ratio * part.nbytes)


def _sample(part: Array) -> bytes:
    data = np.ascontiguousarray(part).view(np.uint8)
    if data.size <= SAMPLE_SLICES * SAMPLE_SLICE_BYTES:
        return data.tobytes()
    # Slices begin on whole elements of any width.
    starts = np.linspace(0, data.size - SAMPLE_SLICE_BYTES, SAMPLE_SLICES).astype(np.int64) // 8 * 8
    return b"".join(data[start : start + SAMPLE_SLICE_BYTES].tobytes() for start in starts.tolist())
