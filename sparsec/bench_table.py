"""The figures of a bench as a table."""

from __future__ import annotations

from sparsec.bench import BenchResult, Entry, Figure, NotMeasured, Ratios
from sparsec.text import Column, Row, bytes_text


def table(result: BenchResult) -> tuple[list[Column], list[Row]]:
    """The figures, one row for each model; in brackets how many times smaller or faster than the reference."""
    columns = [
        Column("Model"),
        Column("Engine"),
        Column("File", numeric=True),
        Column("Memory", numeric=True),
        Column("Peak", numeric=True),
        Column("Load", numeric=True),
        *(Column(f"{item.device}, batch {item.batch}", numeric=True) for item in result.reference.latency),
        Column("Accuracy", numeric=True),
    ]
    ratios = [None, *(result.ratios(entry) for entry in result.artefacts)]
    return columns, [_row(entry, ratio) for entry, ratio in zip((result.reference, *result.artefacts), ratios, strict=True)]


def _row(entry: Entry, ratios: Ratios | None) -> Row:
    def compared(text: str, ratio: Figure | None) -> str:
        return text if ratio is None or isinstance(ratio, NotMeasured) else f"{text} ({ratio:.2f}x)"

    def figure(value: Figure, text: str) -> str:
        return "not measured" if isinstance(value, NotMeasured) else text.format(value)

    memory, peak = (
        "not measured" if isinstance(value, NotMeasured) else bytes_text(value)
        for value in (entry.memory.running, entry.memory.peak)
    )
    times = [
        figure(item.median_ms, "{:.3g} ms") + figure(item.iqr_ms, " ± {:.1g}")
        if not isinstance(item.median_ms, NotMeasured)
        else "not measured"
        for item in entry.latency
    ]
    return (
        entry.file,
        entry.engine,
        compared(bytes_text(entry.file_bytes), ratios.file if ratios is not None else None),
        compared(memory, ratios.memory if ratios is not None else None),
        compared(peak, ratios.peak_memory if ratios is not None else None),
        figure(entry.load_ms, "{:.0f} ms"),
        *(compared(text, ratios.latency[index] if ratios is not None else None) for index, text in enumerate(times)),
        figure(entry.accuracy, "{:.2%}") if not isinstance(entry.accuracy, NotMeasured) else "-",
    )


def missing(result: BenchResult) -> list[str]:
    """Why figures are missing, each reason once; accuracy without data was not asked for."""
    reasons: dict[str, None] = {}
    for entry in (result.reference, *result.artefacts):
        figures = [entry.load_ms, entry.memory.running, *(item.median_ms for item in entry.latency)]
        if result.settings.data is not None:
            figures.append(entry.accuracy)
        reasons.update((f"{entry.file}: {value.reason}", None) for value in figures if isinstance(value, NotMeasured))
    return list(reasons)
