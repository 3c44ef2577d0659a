"""What the benchmarks share: timing in turn, and results as JSON and Markdown with the machine and versions beside them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil

from sparsec.bench import Machine
from sparsec.bench.machine import describe_machine, package_versions
from sparsec.files import replacing
from sparsec.text import Column, Row, render_markdown

Key = TypeVar("Key")

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("sparsec", "numpy", "scipy")
TARGET_SECONDS = 1e-3
"""A sample repeats calls that are shorter than this."""


@dataclass(frozen=True)
class Rounds:
    """How many samples are taken of each of several calls that take turns.

    Attributes:
        least: so many at least.
        most: so many at most.
        spread: between these, samples are taken until every median is as sure as this, see :func:`unsureness`.
    """

    least: int
    most: int
    spread: float = 0.0

    def enough(self, samples: Iterable[Sequence[float]], done: int) -> bool:
        """Whether so many rounds are enough."""
        if done < self.least:
            return False
        return done >= self.most or all(unsureness(own) <= self.spread for own in samples)


def unsureness(samples: Sequence[float]) -> float:
    """The standard error of a median over the median, from the quartiles, which single disturbances do not move."""
    low, middle, high = np.quantile(samples, (0.25, 0.5, 0.75))
    # Of a normal distribution, quartiles lie 1.35 standard deviations apart, and medians of n spread by 1.25 / sqrt(n).
    return float(1.25 * (high - low) / 1.35 / np.sqrt(len(samples)) / middle)


def milliseconds(calls: Mapping[str, Callable[[], object]], rounds: int = 15) -> dict[str, float]:
    """The median time of each call, in milliseconds; all take turns, so that all see the same state of the machine."""
    for call in calls.values():
        call()
    timers = {name: partial(_seconds, call) for name, call in calls.items()}
    return in_turn(timers, Rounds(rounds, rounds), TARGET_SECONDS)


def in_turn(
    timers: Mapping[Key, Callable[[int], float | None]], rounds: Rounds, target: float, pause: float = 0.0
) -> dict[Key, float]:
    """The median time of a call of each, in milliseconds; all take turns.

    Args:
        timers: each calls something so often, and returns the seconds of one call, or none where it failed.
        rounds: the samples of each.
        target: the seconds of a sample, which repeats calls that are shorter.
        pause: the seconds between samples.

    Returns:
        the times of those that never failed.
    """
    first = {name: timer(3) for name, timer in timers.items()}
    repeats = {name: max(1, round(target / max(found, 1e-7))) for name, found in first.items() if found is not None}
    samples: dict[Key, list[float]] = {name: [] for name in repeats}
    done = 0
    while not rounds.enough(samples.values(), done):
        for name in [*samples]:
            time.sleep(pause)
            found = timers[name](repeats[name])
            if found is None:
                del samples[name]
            else:
                samples[name].append(found * 1e3)
        done += 1
    return {name: float(np.median(found)) for name, found in samples.items()}


def _seconds(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def machine() -> Machine:
    """This machine."""
    return describe_machine(psutil.virtual_memory().total)


def save(
    name: str,
    title: str,
    text: str,
    columns: Sequence[Column],
    rows: Sequence[Row],
    facts: Any,
    packages: Sequence[str] = PACKAGES,
) -> None:
    """Write ``results/<name>.json`` and ``results/<name>.md``.

    Args:
        name: of the benchmark.
        title: the heading.
        text: what was measured and how, in Markdown.
        columns: of the table.
        rows: of the table.
        facts: the figures, as JSON values.
        packages: whose versions stand beside the figures.
    """
    here, versions = machine(), package_versions(packages)
    result = {"benchmark": name, "machine": asdict(here), "versions": versions, "result": facts}
    RESULTS.mkdir(exist_ok=True)
    write_json(RESULTS / f"{name}.json", result)
    where = f"{here.cpu}, {here.cores} cores, {here.system}; " + ", ".join(f"{k} {v}" for k, v in versions.items())
    page = f"# {title}\n\n{text}\n\n{render_markdown(columns, rows)}\n{where}\n"
    write_text(RESULTS / f"{name}.md", page)
    print(page)


def write_json(path: Path, found: Any) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(found, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
