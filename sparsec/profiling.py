"""How a bundle runs on this machine: step by step, which kernel, and how long it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

from sparsec.bundle import read_bundle
from sparsec.engine.calibration import kept_calibration
from sparsec.errors import InputError
from sparsec.files import check_input
from sparsec.kernels import library
from sparsec.runtime import Model, PlannedStep
from sparsec.sampling import draw, guess_ranges

Progress = Callable[[str, float], None]

ROUNDS: Final = 15
"""How often steps and whole calls are timed; the median counts."""

NATIVE: Final = "native/"
"""How the names of kernels begin that run in the native library."""


@dataclass(frozen=True)
class RuntimeProfile:
    """The outcome of :func:`profile`; times are microseconds.

    Attributes:
        source: the file.
        name: the model's name.
        isa: the instruction set of the native kernels, ``none`` where they are not there or turned off.
        calibrated: whether the cost model was fitted to this machine.
        batch: the number of samples.
        threads: of a whole call; ``None`` for the default.
        tuned: whether kernels were chosen by measurement.
        steps: in order, with their measured times, those of native steps in one thread.
        between: in which values are brought into the layout of the native library, and back.
        call: of a whole call from Python.
    """

    source: str
    name: str
    isa: str
    calibrated: bool
    batch: int
    threads: int | None
    tuned: bool
    steps: tuple[PlannedStep, ...]
    between: float
    call: float

    @property
    def total(self) -> float:
        """What all steps took, with what lies between them."""
        return self.between + sum(step.measured or 0.0 for step in self.steps)

    @property
    def predicted(self) -> tuple[float, float]:
        """What the cost model says of the native steps that it knows, and what these took."""
        known = [step for step in self.steps if step.kernel.startswith(NATIVE) and step.microseconds is not None]
        return sum(step.microseconds or 0.0 for step in known), sum(step.measured or 0.0 for step in known)

    @property
    def others(self) -> tuple[PlannedStep, ...]:
        """The steps that do not run natively."""
        return tuple(step for step in self.steps if not step.kernel.startswith(NATIVE))

    def to_json(self) -> dict[str, Any]:
        """The outcome as a JSON object."""
        predicted, of_these = self.predicted
        facts = {name: value for name, value in asdict(self).items() if name not in ("source", "name", "steps")}
        steps = [{**asdict(step), "fused": list(step.fused), "native": step not in self.others} for step in self.steps]
        return facts | {"total": self.total, "predicted": {"estimate": predicted, "measured": of_these}, "steps": steps}


def profile(
    path: Path, batch: int = 1, threads: int | None = None, *, tune: bool = False, progress: Progress | None = None
) -> RuntimeProfile:
    """Load a bundle, and measure each of its steps on random inputs.

    Args:
        path: the bundle.
        batch: the number of samples.
        threads: as for :func:`sparsec.load`.
        tune: as for :func:`sparsec.load`.
        progress: called as the work goes on.

    Raises:
        InputError: there is no such file, it is no bundle, or ``batch`` or ``threads`` is not positive.
        FormatError: it cannot be read.
    """
    if path.suffix.lower() != ".npz":
        raise InputError(f"{path}: only a bundle (.npz) has a runtime; make one with: sparsec compile MODEL -o model.npz")
    if batch < 1:
        raise InputError(f"batch {batch} is not a number of samples; give 1 or more")
    check_input(path)
    report = progress or (lambda _what, _done: None)
    report("reading", 0.0)
    program = read_bundle(path).program
    graph = program.graph()
    inputs = draw(graph, guess_ranges(graph), batch, seed=0)
    report("preparing", 0.2)
    model = Model(program, threads=threads, tune=tune)
    model.prepare(batch)
    report("measuring", 0.6)
    found = model.profile(inputs, ROUNDS)
    call = median(_microseconds(lambda: model.run(inputs)) for _ in range(ROUNDS))
    status = library.status()
    calibrated = status.library is not None and kept_calibration(status.library) is not None
    return RuntimeProfile(str(path), model.name, status.isa, calibrated, batch, threads, tune, found.steps, found.between, call)


def _microseconds(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return (perf_counter() - start) * 1e6
