"""Measuring one workload in all engines, which take turns in one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
from common import in_turn

from peers.artefacts import Artefacts
from peers.engines import ENGINES, REFERENCE, SPARSEC, Engine, Opened, Setting, UnavailableError, open_edges, open_onnx
from peers.remote import RemoteError, Workers
from peers.workloads import Workload

TOLERANCE: Final = 1e-3
"""By how much of the range of the outputs an engine may be off."""

SAMPLE_SECONDS: Final = 2e-3
SETTLE_SECONDS: Final = 5e-3
"""The pause between samples where engines have threads of their own, which may spin for a while after a call."""

EDGES, NOTHING = "edges", "nothing"
"""Calls that go along: with the inputs of a single layer and next to no work, and with next to no inputs."""


@dataclass(frozen=True)
class Case:
    """What is measured in one run.

    Attributes:
        workload: which.
        sparsities: of the pruned models, which take turns too.
        batch: the number of samples.
        threads: how many each engine may use.
    """

    workload: Workload
    sparsities: tuple[float, ...]
    batch: int
    threads: int


@dataclass(frozen=True)
class Fact:
    """What was measured of one workload at one sparsity.

    Attributes:
        workload: its name.
        sparsity: the share of zeros.
        batch: the number of samples.
        threads: how many each engine might use.
        milliseconds: the median time of a call, by engine.
        missing: why others were not measured, by engine.
        conversion: of single layers, the milliseconds of sparsec's call that go into converting inputs and outputs from and to
            channels last; other engines get such layers in their own layout.
        error: of sparsec, over the range of the outputs.
    """

    workload: str
    sparsity: float
    batch: int
    threads: int
    milliseconds: Mapping[str, float]
    missing: Mapping[str, str] = field(default_factory=dict)
    conversion: float | None = None
    error: float = 0.0

    @property
    def key(self) -> tuple[str, int, int, float]:
        """What a newer fact of the same replaces."""
        return self.workload, self.batch, self.threads, self.sparsity

    def net(self, engine: str) -> float | None:
        """The milliseconds of an engine, less the conversion of a single layer."""
        found = self.milliseconds.get(engine)
        if found is None or self.conversion is None or not engine.startswith(SPARSEC):
            return found
        return found - self.conversion

    def speedup(self, engine: str) -> float | None:
        """How many times faster an engine is than the dense original in the reference."""
        found = self.net(engine)
        return None if found is None else self.milliseconds[REFERENCE] / found

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


class WrongOutputError(Exception):
    """An engine computes something else."""


Key = tuple[str, float | None]
"""The name of a call, and its sparsity where that matters."""


def measure(case: Case, engines: Sequence[Engine], rounds: int, workers: Workers) -> list[Fact]:
    """Measure one case.

    Args:
        case: what.
        engines: which; the reference is always one of them.
        rounds: the samples of each.
        workers: engines in environments of their own.

    Returns:
        a fact for each sparsity.

    Raises:
        WrongOutputError: sparsec is off by more than :data:`TOLERANCE`.
    """
    artefacts = Artefacts(case.workload)
    settings = {sparsity: Setting(artefacts, sparsity, case.batch, case.threads, workers) for sparsity in case.sparsities}
    calls: dict[Key, Opened] = {}
    missing: dict[Key, str] = {}
    for key, engine in _keys(engines, case.sparsities):
        # The dense original is the same whatever the sparsity.
        setting = settings[case.sparsities[0] if key[1] is None else key[1]]
        try:
            calls[key] = engine.open(setting)
        except (UnavailableError, RemoteError) as error:
            missing[key] = str(error)
    errors = _check(calls, missing, settings)
    if case.workload.layer:
        setting = settings[case.sparsities[0]]
        calls[EDGES, None] = open_edges(setting, case.workload.shape)
        calls[NOTHING, None] = open_edges(setting, (1,))
    pause = 0.0 if case.threads == 1 else SETTLE_SECONDS
    times = in_turn({key: opened.seconds for key, opened in calls.items()}, rounds, SAMPLE_SECONDS, pause)
    return [_fact(case, sparsity, times, missing, errors) for sparsity in case.sparsities]


def _keys(engines: Sequence[Engine], sparsities: Sequence[float]) -> Iterator[tuple[Key, Engine]]:
    for engine in engines:
        for sparsity in sparsities if engine.sparse else (None,):
            yield (engine.name, sparsity), engine


def _check(calls: dict[Key, Opened], missing: dict[Key, str], settings: Mapping[float, Setting]) -> dict[Key, float]:
    """The errors of sparsec; other engines that compute something else are not measured."""
    dense = calls[REFERENCE, None].output()
    errors = {}
    for sparsity, setting in settings.items():
        files = setting.artefacts
        pruned = open_onnx(files.pruned_onnx(sparsity, setting.batch), files.fed(setting.batch), setting.threads).output()
        for key in [key for key in calls if ENGINES[key[0]].exact and key[1] in (sparsity, None)]:
            expected = dense if key[1] is None else pruned
            error = float(np.abs(calls[key].output() - expected).max() / np.ptp(expected))
            if error <= TOLERANCE:
                errors[key] = error
            elif key[0].startswith(SPARSEC):
                raise WrongOutputError(
                    f"{key[0]} is off by {error:.2g} of the range for {files.workload.name} at {sparsity:.0%}"
                )
            else:
                missing[key] = f"it is off by {error:.2g} of the range"
                del calls[key]
    return errors


def _fact(
    case: Case, sparsity: float, times: Mapping[Key, float], missing: Mapping[Key, str], errors: Mapping[Key, float]
) -> Fact:
    def of(found: Mapping[Key, Any]) -> dict[str, Any]:
        return {key[0]: value for key, value in found.items() if key[1] in (sparsity, None) and key[0] in ENGINES}

    edges, nothing = times.get((EDGES, None)), times.get((NOTHING, None))
    return Fact(
        case.workload.name,
        sparsity,
        case.batch,
        case.threads,
        of(times),
        of(missing),
        None if edges is None or nothing is None else max(edges - nothing, 0.0),
        max((error for key, error in errors.items() if key[0].startswith(SPARSEC) and key[1] == sparsity), default=0.0),
    )
