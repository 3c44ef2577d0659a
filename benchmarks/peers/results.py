"""The results: kept from run to run, as JSON, tables and plots."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import RESULTS, machine, save

from peers.crossover import Curve, curves
from peers.engines import ENGINES, REFERENCE
from peers.facts import Fact
from peers.plots import plot_curves
from peers.workloads import BLOCKS, LAYERS, NETWORKS, WORKLOADS, Workload
from sparsec.text import Column, Row, render_markdown

NAME = "native"
PACKAGES = ("sparsec", "numpy", "scipy", "onnxruntime", "tensorflow", "keras")
LEAST_POINTS = 4
"""Sparsities that make a curve."""

TEXT = """\
Median milliseconds of a call in ONNX Runtime with the dense original in float32; and how many times faster others are, in
the same run, in which all take turns. sparsec and DeepSparse run the pruned model, as does scipy, which has matrix products
alone; the others run the dense original, since zeros gain them nothing. Zeros are the smallest values of every Conv2D and
Dense kernel, the same share in each, but of a network's first convolution and of depthwise kernels none; in *4x1 blocks* four
neighbouring output channels are zero together. Networks are whole calls from Python, channels last in and out.

Single layers get their input in each engine's own layout. For sparsec, which takes channels last at the edges of a model, the
time of converting input and output is taken off, and stands beside as *Edges*: it is what a model costs that only clamps
the same input. ONNX Runtime int8 is static quantisation with one scale for each output channel, at the faster of its two types
of activations. Outputs of engines that compute in float32 were compared with those of ONNX Runtime before."""


THREADS = "How many times faster a call is than with one thread, in one run for each row."

CEILING = """\
The multiply-adds of single layers that are not by zero, as a share of those that BLAS does in the same time in a product of
large dense matrices with one thread, whose speed stands in front. Engines that run the dense original multiply by zeros too,
and those count. Sparse products load a value for every few multiply-adds, so that not all of it can be reached."""

CROSSOVER = """\
The smallest share of zeros from which on an engine is never slower than ONNX Runtime with the dense original, interpolated
between those that were measured."""


class Results:
    """Facts by what they are about.

    Args:
        folder: where the files are.
    """

    def __init__(self, folder: Path = RESULTS) -> None:
        self._path = folder / f"{NAME}.json"
        self._facts: dict[Any, Fact] = {}
        self._versions: dict[str, str] = {}
        if self._path.exists():
            self._read(json.loads(self._path.read_text(encoding="utf-8")))

    def add(self, facts: Iterable[Fact], versions: Mapping[str, str]) -> None:
        """Add facts, in place of older ones about the same.

        Args:
            facts: what was measured.
            versions: of engines in environments of their own.
        """
        self._facts |= {fact.key: fact for fact in facts}
        self._versions |= versions

    def write(self) -> None:
        """Write JSON, tables and plots."""
        facts = sorted(self._facts.values(), key=_order)
        sweeps = curves(facts, LEAST_POINTS)
        parts = [TEXT, _reasons(facts), _section("Threads", THREADS, *_scaling(facts))]
        parts.append(_section("Ceiling", CEILING, *_shares(facts)))
        parts.append(_section("Crossover", CROSSOVER, *_crossovers(sweeps)))
        parts += [f"![{title}]({path.name})" for title, path in self._plots(sweeps)]
        text = "\n\n".join(part for part in (*parts, "## Figures") if part)
        found = {"facts": [fact.to_json() for fact in facts], "engines": self._versions}
        save(NAME, "The native engine and its peers", text, *_table(facts), found, PACKAGES, self._versions)

    def _read(self, found: Mapping[str, Any]) -> None:
        if found["machine"] != json.loads(json.dumps(asdict(machine()))) or "facts" not in found["result"]:
            print(f"{self._path} is from another machine or benchmark, and begun anew")
            return
        self._versions = dict(found["result"]["engines"])
        facts = [Fact(**fact) for fact in found["result"]["facts"]]
        self._facts = {fact.key: fact for fact in facts if fact.workload in WORKLOADS}

    def _plots(self, sweeps: Sequence[Curve]) -> list[tuple[str, Path]]:
        groups: dict[str, tuple[str, Sequence[Workload]]] = {
            "layers": ("Layers", LAYERS),
            "blocks": ("Layers with blocks", BLOCKS),
            "networks": ("Networks", NETWORKS),
        }
        found = []
        for name, (title, workloads) in groups.items():
            names = {workload.name for workload in workloads}
            own = [curve for curve in sweeps if curve.first.workload in names]
            if own:
                path = self._path.with_name(f"{NAME}-{name}.svg")
                plot_curves(own, path)
                found.append((title, path))
        return found


def _order(fact: Fact) -> tuple[Any, ...]:
    return list(WORKLOADS).index(fact.workload), *fact.key[1:]


def _where(fact: Fact, *, threads: bool = True) -> Row:
    """The first cells of a row."""
    cells = (WORKLOADS[fact.workload].title, str(fact.batch))
    return (*cells, str(fact.threads)) if threads else cells


def _columns(heads: Iterable[str]) -> list[Column]:
    first, *others = heads
    return [Column(first), *(Column(head, numeric=True) for head in others)]


def _section(title: str, text: str, columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """A part of the page; empty where there is nothing to tell."""
    return f"## {title}\n\n{text}\n\n{render_markdown(columns, rows)}".rstrip() if rows else ""


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _table(facts: Sequence[Fact]) -> tuple[list[Column], list[Row]]:
    """All figures."""
    others = [engine for engine in ENGINES.values() if engine.name != REFERENCE]
    heads = ("What", "Batch", "Threads", "Zeros", ENGINES[REFERENCE].title, *(engine.title for engine in others), "Edges")
    rows = []
    for fact in facts:
        speedups = [_number(fact.speedup(engine.name)) for engine in others]
        times = (f"{fact.milliseconds[REFERENCE]:.3g}", *speedups, _number(fact.conversion, 3))
        rows.append((*_where(fact), _percent(fact.sparsity), *times))
    return _columns(heads), rows


def _scaling(facts: Sequence[Fact]) -> tuple[list[Column], list[Row]]:
    """What more threads gain, by engine."""
    single = {(fact.workload, fact.batch, fact.sparsity): fact for fact in facts if fact.threads == 1}
    rows = []
    for fact in facts:
        one = single.get((fact.workload, fact.batch, fact.sparsity))
        if fact.threads > 1 and one is not None:
            pairs = [(one.milliseconds.get(name), fact.milliseconds.get(name)) for name in ENGINES]
            gains = [_number(a / b) if a and b else "" for a, b in pairs]
            rows.append((*_where(fact), _percent(fact.sparsity), *gains))
    return _columns(("What", "Batch", "Threads", "Zeros", *(engine.title for engine in ENGINES.values()))), rows


def _shares(facts: Sequence[Fact]) -> tuple[list[Column], list[Row]]:
    """How near single layers come to what BLAS does."""
    rows = []
    for fact in facts:
        if fact.ceiling is not None:
            shares = [_percent(fact.share(name)) for name in ENGINES]
            ceiling = f"{fact.ceiling * 2e-6:.0f}"
            rows.append((*_where(fact, threads=False), _percent(fact.sparsity), ceiling, *shares))
    return _columns(("What", "Batch", "Zeros", "GFLOP/s", *(engine.title for engine in ENGINES.values()))), rows


def _crossovers(sweeps: Sequence[Curve]) -> tuple[list[Column], list[Row]]:
    """From which sparsity on each sparse engine is never slower."""
    sparse = [engine for engine in ENGINES.values() if engine.sparse]
    rows = [(*_where(curve.first), *(_crossover(curve, engine.name) for engine in sparse)) for curve in sweeps]
    return _columns(("What", "Batch", "Threads", *(engine.title for engine in sparse))), rows


def _crossover(curve: Curve, engine: str) -> str:
    if not curve.points(engine):
        return ""
    found = curve.crossover(engine)
    return "never" if found is None else _percent(found)


def _reasons(facts: Sequence[Fact]) -> str:
    """Why engines were not measured."""
    found: dict[tuple[str, str], list[str]] = {}
    for fact in facts:
        for engine, reason in fact.missing.items():
            if engine in ENGINES:
                found.setdefault((engine, reason), []).append(WORKLOADS[fact.workload].title)
    lines = [
        f"* {ENGINES[engine].title} was not measured for {', '.join(dict.fromkeys(titles))}: {reason}."
        for (engine, reason), titles in found.items()
    ]
    return "\n".join(lines)
