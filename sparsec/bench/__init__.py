"""Measuring models against their reference: file size, memory, latency and accuracy."""

from sparsec.bench.measure import Progress, run_bench
from sparsec.bench.result import (
    BenchResult,
    Entry,
    Figure,
    Latency,
    Machine,
    Memory,
    NotMeasured,
    Ratios,
    Settings,
)

__all__ = [
    "BenchResult",
    "Entry",
    "Figure",
    "Latency",
    "Machine",
    "Memory",
    "NotMeasured",
    "Progress",
    "Ratios",
    "Settings",
    "run_bench",
]
