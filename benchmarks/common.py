"""What the benchmarks share: timing in turn, and results as JSON and Markdown with the machine and versions beside them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil

from sparsec.bench import Machine
from sparsec.bench.machine import describe_machine, package_versions
from sparsec.text import Column, Row, render_markdown

Key = TypeVar("Key")

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("sparsec", "numpy", "scipy")
TARGET_SECONDS = 1e-3
"""A sample repeats calls that are shorter than this."""


def milliseconds(calls: Mapping[str, Callable[[], object]], rounds: int = 15) -> dict[str, float]:
    """The median time of each call, in milliseconds; all take turns, so that all see the same state of the machine."""
    for call in calls.values():
        call()
    return in_turn({name: partial(_seconds, call) for name, call in calls.items()}, rounds, TARGET_SECONDS)


def in_turn(timers: Mapping[Key, Callable[[int], float]], rounds: int, target: float, pause: float = 0.0) -> dict[Key, float]:
    """The median time of a call of each, in milliseconds; all take turns.

    Args:
        timers: each calls something so often, and returns the seconds of one call.
        rounds: the samples of each.
        target: the seconds of a sample, which repeats calls that are shorter.
        pause: the seconds between samples.
    """
    repeats = {name: max(1, round(target / max(timer(3), 1e-7))) for name, timer in timers.items()}
    samples: dict[Key, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name, timer in timers.items():
            time.sleep(pause)
            samples[name].append(timer(repeats[name]) * 1e3)
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
    others: Mapping[str, str] | None = None,
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
        others: the versions of what is not installed here.
    """
    here, versions = machine(), {**package_versions(packages), **(others or {})}
    result = {"benchmark": name, "machine": asdict(here), "versions": versions, "result": facts}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    where = f"{here.cpu}, {here.cores} cores, {here.system}; " + ", ".join(f"{k} {v}" for k, v in versions.items())
    page = f"# {title}\n\n{text}\n\n{render_markdown(columns, rows)}\n{where}\n"
    (RESULTS / f"{name}.md").write_text(page, encoding="utf-8")
    print(page)
