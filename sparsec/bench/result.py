"""What a bench found: figures, each a number or the reason why there is none. ``formats/bench.md`` defines their JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final

FORMAT: Final = "sparsec-bench"
VERSION: Final = 1
"""The version of the JSON form."""


@dataclass(frozen=True)
class NotMeasured:
    """Stands where a figure would: ``reason`` says why there is none."""

    reason: str


Figure = float | NotMeasured


@dataclass(frozen=True)
class Machine:
    """Where it was measured.

    Attributes:
        cpu: the model of the processor.
        cores: how many cores this process may use.
        memory_bytes: the machine's main memory.
        system: operating system, release and architecture.
        gpus: the names of the GPUs that were found.
    """

    cpu: str
    cores: int
    memory_bytes: int
    system: str
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """How it was measured.

    Attributes:
        batch: the batch sizes.
        threads: of every engine; ``None`` leaves each its own default.
        devices: ``cpu``, ``gpu`` or both.
        rounds: how many times each model was timed in turn.
        seed: of the random inputs.
        data: the name of the file that accuracy was measured on; ``None`` for none.
        samples: how many samples it holds.
    """

    batch: tuple[int, ...]
    threads: int | None
    devices: tuple[str, ...]
    rounds: int
    seed: int
    data: str | None = None
    samples: int = 0


@dataclass(frozen=True)
class Memory:
    """Resident memory in a process of its own, in bytes beyond what the bare interpreter takes.

    Attributes:
        loaded: after loading the model.
        running: after running it.
        peak: the most, over loading and running.
    """

    loaded: Figure
    running: Figure
    peak: Figure


@dataclass(frozen=True)
class Latency:
    """The time of one call.

    Attributes:
        device: ``cpu`` or ``gpu``.
        batch: samples in a call.
        median_ms: the median over the rounds, in milliseconds.
        iqr_ms: the interquartile range, the spread of the middle half of the rounds.
        minimum_ms: the shortest.
    """

    device: str
    batch: int
    median_ms: Figure
    iqr_ms: Figure
    minimum_ms: Figure


@dataclass(frozen=True)
class Entry:
    """One model.

    Attributes:
        file: its file name.
        engine: what ran it: ``sparsec``, ``onnxruntime`` or ``keras``.
        file_bytes: the size of the file.
        load_ms: the time from an interpreter that is running to a model that is ready, imports included.
        memory: resident memory.
        latency: one for each device and batch size.
        accuracy: the part of the samples that it classifies as labelled.
    """

    file: str
    engine: str
    file_bytes: int
    load_ms: Figure
    memory: Memory
    latency: tuple[Latency, ...]
    accuracy: Figure


@dataclass(frozen=True)
class Ratios:
    """How many times smaller or faster an artefact is than the reference; above one is better than the reference.

    Attributes:
        file: of the file's size.
        memory: of the running memory.
        peak_memory: of the peak memory.
        latency: of the median latency, in the order of :attr:`Entry.latency`.
    """

    file: Figure
    memory: Figure
    peak_memory: Figure
    latency: tuple[Figure, ...]


@dataclass(frozen=True)
class BenchResult:
    """The result of :func:`sparsec.bench.run_bench`.

    Attributes:
        machine: where it was measured.
        versions: of Python and of every package that took part.
        settings: how it was measured.
        reference: the model that the others are compared with.
        artefacts: the others.
    """

    machine: Machine
    versions: Mapping[str, str]
    settings: Settings
    reference: Entry
    artefacts: tuple[Entry, ...]

    def ratios(self, artefact: Entry) -> Ratios:
        """How one of the artefacts compares with the reference."""
        base = self.reference
        return Ratios(
            _ratio(base.file_bytes, artefact.file_bytes),
            _ratio(base.memory.running, artefact.memory.running),
            _ratio(base.memory.peak, artefact.memory.peak),
            tuple(_ratio(a.median_ms, b.median_ms) for a, b in zip(base.latency, artefact.latency, strict=True)),
        )

    def to_json(self) -> dict[str, Any]:
        """The result as a JSON object that ``formats/bench.schema.json`` describes."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "machine": _json(self.machine),
            "versions": dict(self.versions),
            "settings": _json(self.settings),
            "reference": _json(self.reference),
            "artefacts": [{**_json(entry), "ratios": _json(self.ratios(entry))} for entry in self.artefacts],
        }


def _ratio(reference: Figure, artefact: Figure) -> Figure:
    for figure, which in ((reference, "the reference"), (artefact, "the artefact")):
        if isinstance(figure, NotMeasured):
            return NotMeasured(f"{which} was not measured: {figure.reason}")
        if figure <= 0:
            return NotMeasured(f"{which} was too small to measure")
    assert not isinstance(reference, NotMeasured)
    assert not isinstance(artefact, NotMeasured)
    return reference / artefact


def _json(value: Any) -> Any:
    if isinstance(value, NotMeasured):
        return {"not_measured": value.reason}
    if is_dataclass(value):
        return {field.name: _json(getattr(value, field.name)) for field in fields(value)}
    return [_json(item) for item in value] if isinstance(value, tuple) else value
