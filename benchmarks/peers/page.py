"""The page that shows the results: tables, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Final

from targets import NOISE, USUAL

from peers.crossover import Curve, curves
from peers.engines import ENGINES, REFERENCE, SPARSEC
from peers.facts import Fact
from peers.setups import merged, place
from peers.workloads import WORKLOADS
from sparsec.text import Column, Row, render_markdown

TEXT = """\
Median milliseconds of a call in ONNX Runtime with the dense original in float32; and how many times faster others are, in
the same run, in which all take turns. Where engines were measured in several runs, each is compared with ONNX Runtime in its
own, and the milliseconds are those of the newest. sparsec and DeepSparse run the pruned model, as does scipy, which has matrix
products alone; the others run the dense original, since zeros gain them nothing. Zeros are the smallest values of every Conv2D
and Dense kernel, the same share in each, but of a network's first convolution and of depthwise kernels none; in *4x1 blocks*
four neighbouring output channels are zero together. Networks are whole calls from Python, channels last in and out.

Single layers get their input in each engine's own layout. For sparsec, which takes channels last at the edges of a model, the
time of converting input and output is taken off, and stands beside as *Edges*: it is what a model costs that only clamps
the same input. ONNX Runtime int8 is static quantisation with one scale for each output channel, at the faster of its two types
of activations. Outputs of engines that compute in float32 were compared with those of ONNX Runtime before."""


THREADS = "How many times faster a call is than with one thread, in the same run."

CEILING = """\
The multiply-adds of single layers that are not by zero, as a share of those that BLAS does in the same time in a product of
large dense matrices with one thread, whose speed stands in front. Engines that run the dense original multiply by zeros too,
and those count. Sparse products load a value for every few multiply-adds, so that not all of it can be reached."""

CROSSOVER = """\
The smallest share of zeros from which on an engine is never slower than ONNX Runtime with the dense original, interpolated
between those that were measured."""

DEEPSPARSE = """\
How many times faster sparsec is than DeepSparse at the same share of zeros, in the same run."""

AVX2 = """\
The speed of sparsec with AVX2 as a share of that with the widest instructions of the machine, in the same run."""

LEAST_POINTS: Final = 4
"""Sparsities of which a crossover can be read."""

_USUAL_TEXT: Final = ", ".join(f"{share:.0%}" for share in USUAL)

Value = Callable[[Fact], float | None]


def page(facts: Sequence[Fact], plots: Iterable[tuple[str, str]]) -> str:
    """The page in Markdown.

    Args:
        facts: in the order of tables.
        plots: title and file of each plot.
    """
    parts = ["# The native engine and its peers", TEXT, _reasons(facts)]
    parts.append(_section("Against DeepSparse", _deepsparse(facts), *_grid(facts, _over_deepsparse, _number)))
    parts.append(_section("AVX2", _avx2(facts), *_grid(facts, _avx2_share, _percent)))
    parts.append(_section("Threads", THREADS, *_scaling(facts)))
    parts.append(_section("Crossover", CROSSOVER, *_crossovers(curves(facts, LEAST_POINTS))))
    parts += [f"![{title}]({file})" for title, file in plots]
    parts.append(_section("Ceiling", CEILING, *_shares(facts)))
    parts += [_section("Figures", "", *_table(facts)), _setups(facts), _builds(facts)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _where(fact: Fact, *, threads: bool = True) -> Row:
    """The first cells of a row."""
    cells = (WORKLOADS[fact.workload].title, str(fact.batch))
    return (*cells, str(fact.threads)) if threads else cells


def _columns(heads: Iterable[str]) -> list[Column]:
    first, *others = heads
    return [Column(first), *(Column(head, numeric=True) for head in others)]


def _section(title: str, text: str, columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """A part of the page; empty where there is nothing to tell."""
    parts = (f"## {title}", text, render_markdown(columns, rows).rstrip())
    return "\n\n".join(part for part in parts if part) if rows else ""


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
        own = fact.run(SPARSEC)
        times = (f"{fact.reference:.3g}", *speedups, _number(None if own is None else own.conversion, 3))
        rows.append((*_where(fact), _percent(fact.sparsity), *times))
    return _columns(heads), rows


def _scaling(facts: Sequence[Fact]) -> tuple[list[Column], list[Row]]:
    """What more threads gain, by engine."""
    rows = []
    for fact in facts:
        gains = [_number(fact.scaling(name)) for name in ENGINES]
        if any(gains):
            rows.append((*_where(fact), _percent(fact.sparsity), *gains))
    return _columns(("What", "Batch", "Threads", "Zeros", *(engine.title for engine in ENGINES.values()))), rows


def _over_deepsparse(fact: Fact) -> float | None:
    return fact.ratio(SPARSEC, "deepsparse")


def _avx2_share(fact: Fact) -> float | None:
    return fact.ratio("sparsec-avx2", SPARSEC)


def _grid(facts: Sequence[Fact], value: Value, text: Callable[[float], str]) -> tuple[list[Column], list[Row]]:
    """A row for each workload, batch and number of threads; a column for each sparsity, and the least of the row."""
    found = {fact.key: value(fact) for fact in facts}
    known = {key: number for key, number in found.items() if number is not None}
    sparsities = sorted({key[-1] for key in known})
    rows = []
    for first in {fact.key[:-1]: fact for fact in facts}.values():
        own = [known.get((*first.key[:-1], sparsity)) for sparsity in sparsities]
        numbers = [number for number in own if number is not None]
        if numbers:
            cells = ("" if number is None else text(number) for number in own)
            rows.append((*_where(first), *cells, text(min(numbers))))
    return _columns(("What", "Batch", "Threads", *map(_percent, sparsities), "Least")), rows


def _usual(facts: Sequence[Fact], value: Value) -> list[tuple[float, str]]:
    """The values at usual sparsities, the least first, with what they are of."""
    found = ((value(fact), _name(fact)) for fact in facts if fact.sparsity in USUAL)
    return sorted((number, name) for number, name in found if number is not None)


def _name(fact: Fact) -> str:
    """What a fact is about, in a sentence."""
    threads = f", {fact.threads} threads" if fact.threads > 1 else ""
    return f"{WORKLOADS[fact.workload].title}, batch {fact.batch}{threads}, at {fact.sparsity:.0%}"


def _deepsparse(facts: Sequence[Fact]) -> str:
    found = _usual(facts, _over_deepsparse)
    if not found:
        return DEEPSPARSE
    (least, where), middle = found[0], median(ratio for ratio, _ in found)
    slower = [f"{name}: {ratio:.2f}" for ratio, name in found if ratio < 1.0 - NOISE]
    lines = [DEEPSPARSE, f"At {_USUAL_TEXT} the median is {middle:.2f}, and the least {least:.2f} ({where})."]
    lines.append(f"There it is slower by more than {NOISE:.0%} in {len(slower)} of {len(found)}" + (":\n" if slower else "."))
    return "\n".join([*lines, *(f"* {line}" for line in slower)])


def _avx2(facts: Sequence[Fact]) -> str:
    found = _usual(facts, _avx2_share)
    if not found:
        return AVX2
    least, where = found[0]
    return f"{AVX2} At {_USUAL_TEXT} the least is {least:.0%} ({where})."


def _shares(facts: Sequence[Fact]) -> tuple[list[Column], list[Row]]:
    """How near single layers come to what BLAS does."""
    rows = []
    for fact in facts:
        ceilings = [run.ceiling for run in fact.runs if run.ceiling is not None]
        if ceilings:
            shares = [_percent(fact.share(name)) for name in ENGINES]
            ceiling = f"{ceilings[0] * 2e-6:.0f}"
            rows.append((*_where(fact, threads=False), _percent(fact.sparsity), ceiling, *shares))
    return _columns(("What", "Batch", "Zeros", "GFLOP/s", *(engine.title for engine in ENGINES.values()))), rows


def _crossovers(sweeps: Sequence[Curve]) -> tuple[list[Column], list[Row]]:
    """From which sparsity on each sparse engine is never slower."""
    sparse = [engine for engine in ENGINES.values() if engine.sparse]
    rows = [(*_where(curve.first), *(_crossover(curve, engine.name) for engine in sparse)) for curve in sweeps]
    return _columns(("What", "Batch", "Threads", *(engine.title for engine in sparse))), rows


def _crossover(curve: Curve, engine: str) -> str:
    points = curve.points(engine)
    if len(points) < LEAST_POINTS:
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


def _setups(facts: Sequence[Fact]) -> str:
    """What was measured on what; where setups differ, which figures."""
    runs = [(fact, run) for fact in facts for run in fact.runs]
    setups = merged(run.setup for _, run in runs)
    if len(setups) == 1:
        return str(setups[0])
    found: list[dict[str, None]] = [{} for _ in setups]
    for fact, run in runs:
        titles = ", ".join(ENGINES[name].title for name in ENGINES if name in run.milliseconds and name != REFERENCE)
        found[place(run.setup, setups)][f"{WORKLOADS[fact.workload].title} ({titles})"] = None
    lines = [f"* {setup}: {'; '.join(what)}." for setup, what in zip(setups, found, strict=True)]
    return "\n".join(["Measured on:\n", *lines])


def _builds(facts: Sequence[Fact]) -> str:
    runs = (fact.run(SPARSEC) for fact in facts)
    count = len({run.setup.build for run in runs if run is not None})
    return f"The figures of sparsec are from {count} builds of it." if count > 1 else ""
