"""Fits the cost model to this machine, and keeps the coefficients in a file of the user's cache directory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from hashlib import sha256
from math import isfinite, prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from sparsec.encodings import encode
from sparsec.engine.choice import SCALES, Choice, Machine, candidates
from sparsec.engine.costs import NAMES, Caches, Coefficients, Processor
from sparsec.engine.defaults import DEFAULTS
from sparsec.engine.steps import Planes, Post, Product, Step, Window
from sparsec.engine.trial import Stopwatch, Timer
from sparsec.files import replacing
from sparsec.ir import Array
from sparsec.kernels import WeightStore
from sparsec.kernels.library import ABI, Library
from sparsec.processor import cpu_model, data_caches

FOLDER: Final = "XDG_CACHE_HOME"
"""The environment variable that names the user's cache directory."""

SCHEMA: Final = "sparsec/calibration"
TRUST: Final = 0.03
"""How much the coefficients from before weigh beside one measurement: what is hardly measured stays near them."""
SMALL: Final = 0.01
"""Nanoseconds; a coefficient that was less may become as much."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Case:
    """A step that is timed.

    Attributes:
        x: the sizes of the input.
        filters: output channels.
        density: the part of the weight that is not zero.
        size: of the window.
        stride: along both axes.
        padded: whether zeros lie around the input, so that the window does not make the output smaller.
        tall: whether the zeros come in blocks of four rows.
        function: an elementwise operation that follows.
        residual: whether a residual is added.
    """

    x: Planes
    filters: int
    density: float
    size: tuple[int, int] = (1, 1)
    stride: int = 1
    padded: bool = True
    tall: bool = False
    function: str = ""
    residual: bool = False


def _square(channels: int, side: int) -> Planes:
    return Planes(1, side, side, channels)


def _batch(channels: int, samples: int) -> Planes:
    return Planes(samples, 1, 1, channels)


CASES: Final = (
    *(Case(_square(256, 14), 256, density) for density in (0.05, 0.2, 1.0)),
    *(Case(_square(64, 56), 128, density) for density in (0.1, 0.3)),
    *(Case(_square(512, 7), 256, density) for density in (0.02, 0.1, 0.3, 1.0)),
    Case(_square(32, 56), 128, 0.1),
    Case(_square(192, 35), 48, 0.1),
    Case(_square(256, 28), 64, 0.1),
    Case(_square(128, 28), 128, 1.0),
    Case(_square(512, 7), 512, 1.0),
    Case(_square(256, 28), 96, 1.0),
    Case(_square(64, 56), 256, 0.1, residual=True),
    Case(_square(256, 14), 256, 0.1, tall=True),
    Case(_square(64, 56), 64, 0.2, tall=True),
    Case(_square(64, 28), 256, 0.1, residual=True),
    Case(_square(24, 56), 96, 0.1, function="silu"),
    Case(_square(112, 14), 480, 0.1, function="silu"),
    Case(_square(64, 28), 128, 0.1, function="leaky"),
    *(Case(_batch(512, samples), 512, 0.1) for samples in (16, 64, 256)),
    *(Case(_batch(2048, samples), 2048, 0.1) for samples in (8, 64)),
    *(Case(_square(64, 56), 64, density, (3, 3)) for density in (0.02, 0.1)),
    Case(_square(32, 112), 32, 0.1, (3, 3)),
    *(Case(_square(128, 28), 96, density, (3, 3)) for density in (0.05, 0.2)),
    *(Case(_square(128, 14), 128, density, (3, 3)) for density in (0.1, 1.0)),
    *(Case(_square(256, 7), 128, density, (3, 3)) for density in (0.02, 0.1)),
    Case(_square(512, 7), 512, 1.0, (3, 3)),
    Case(_square(128, 14), 128, 0.2, (3, 3), tall=True),
    Case(_square(64, 28), 64, 0.1, (3, 3), residual=True),
    Case(_square(96, 35), 96, 0.1, (3, 3), stride=2),
    Case(_square(3, 112), 32, 0.3, (3, 3), stride=2),
    Case(_square(64, 28), 64, 0.1, (3, 3), stride=2),
    *(Case(_square(64, 13), 64, density, (3, 3), padded=False) for density in (0.02, 0.1)),
    *(Case(_square(16, 28), 32, density, (5, 5), padded=False) for density in (0.05, 0.3)),
    Case(_square(128, 17), 128, 0.1, (7, 1)),
    Case(_square(128, 17), 128, 0.1, (1, 7)),
    Case(_square(48, 35), 64, 0.1, (5, 5)),
    *(Case(_batch(784, 1), 300, density) for density in (0.05, 0.2)),
    *(Case(_batch(1024, 1), 1024, density) for density in (0.02, 0.1)),
    Case(_batch(2048, 1), 1024, 0.5),
    Case(_batch(256, 1), 500, 0.6),
    Case(_batch(400, 1), 120, 1.0),
    *(Case(_batch(channels, 1), 1000, 1.0) for channels in (784, 1024)),
    *(Case(_batch(2048, 1), 2048, density) for density in (0.05, 0.1)),
    Case(_batch(4096, 1), 4096, 0.1),
    Case(_batch(48, 1), 1152, 0.2),
    Case(_batch(480, 1), 20, 0.2),
    Case(_batch(48, 1), 1152, 0.1, function="sigmoid"),
    Case(_batch(100, 1), 10, 0.1),
)
"""What is timed: shapes as layers of usual networks have them, small enough that all take a few seconds."""


@dataclass(frozen=True)
class Calibration:
    """A cost model that was fitted to a machine.

    Attributes:
        coefficients: fitted.
        measurements: how many times it was fitted to.
        error: the median relative error of the estimates of these times.
        largest: the error that nine in ten of them do not exceed.
    """

    coefficients: Coefficients
    measurements: int
    error: float
    largest: float


# --- measuring -------------------------------------------------------------------------------------------------------------


def calibrate(
    found: Library, progress: Progress | None = None, timer: Callable[[WeightStore], Timer] | None = None
) -> Calibration:
    """Time the cases with one thread, and fit the cost model to the times.

    Args:
        found: the library.
        progress: called with what is being done, and how much of the whole is done.
        timer: gives what times steps with the weights of a store; the library itself by default.
    """
    report = progress or (lambda _what, _done: None)
    processor, rng = processor_of(found), np.random.default_rng(0)
    machine = Machine(processor, DEFAULTS[found.isa.name])
    choices: list[Choice] = []
    times: list[float] = []
    for index, case in enumerate(CASES):
        report("measuring", index / len(CASES))
        step, planes, store = make(case, rng)
        measured = candidates(step, planes, store, machine, SCALES)
        choices += measured
        times += (timer(store) if timer else Stopwatch(found, store))(step, planes, measured)
    report("fitting", 1.0)
    return fit([choice.counts for choice in choices], times, machine.coefficients)


def make(case: Case, rng: np.random.Generator) -> tuple[Step, Mapping[str, Planes], WeightStore]:
    """The step of a case, the sizes of its values, and the store of its random weight."""
    x, window = case.x, Window(case.size, (case.stride, case.stride))
    lost = [0 if case.padded else size - 1 for size in case.size]
    if case.padded:
        window = replace(window, pads=(case.size[0] // 2, case.size[1] // 2))
    height, width = (-(-(length - less) // case.stride) for length, less in zip((x.height, x.width), lost, strict=True))
    y = Planes(x.samples, height, width, case.filters)
    shape = (*case.size, x.channels, case.filters) if x.height * x.width > 1 else (x.channels, case.filters)
    kernel = "vector" if y.positions == 1 else "product" if window.is_point else "windows"
    planes = {"x": x, "y": y}
    step = Step(kernel, "x", "y", product=Product("w"), bias=np.zeros(case.filters, np.float32), window=window)
    if case.residual:
        planes["r"], step.residual = y, "r"
    if case.function:
        step.posts.append(Post(case.function, 0.1))
    return step, planes, WeightStore({"w": encode(_weight(shape, case, rng), (len(shape) - 1,), "csr")})


def _weight(shape: Sequence[int], case: Case, rng: np.random.Generator) -> Array:
    rows = -(-case.filters // 4) if case.tall else case.filters
    kept = rng.random((prod(shape[:-1]), rows), np.float32) < case.density
    if case.tall:
        kept = np.repeat(kept, 4, axis=1)[:, : case.filters]
    return kept.reshape(shape).astype(np.float32)


# --- fitting ---------------------------------------------------------------------------------------------------------------


def fit(counts: Sequence[Mapping[str, float]], nanoseconds: Sequence[float], before: Coefficients) -> Calibration:
    """The coefficients, none of them negative, whose estimates have the least sum of squared relative errors.

    Args:
        counts: of each measurement, by the names of coefficients.
        nanoseconds: of each measurement.
        before: the coefficients near which those stay that the measurements say little about.
    """
    times = np.array(nanoseconds)
    factors = np.array([[each.get(name, 0.0) for name in NAMES] for each in counts]) / times[:, None]
    known = np.array([float(getattr(before, name)) for name in NAMES])
    # In units of the coefficients from before all unknowns are about one.
    units = np.maximum(known, SMALL)
    system = np.concatenate([factors * units, TRUST * np.eye(len(NAMES))])
    wanted = np.concatenate([np.ones(len(times)), TRUST * known / units])
    solution = units * least_squares(system, wanted)
    errors = np.abs(factors @ solution - 1.0)
    coefficients = Coefficients(**{name: float(f"{value:.4g}") for name, value in zip(NAMES, solution, strict=True)})
    return Calibration(coefficients, len(times), float(np.median(errors)), float(np.quantile(errors, 0.9)))


def least_squares(system: Array, wanted: Array) -> Array:
    """The ``x`` without negative elements for which ``system @ x`` is nearest to ``wanted``.

    Lawson and Hanson 1974, "Solving least squares problems", chapter 23.
    """
    x = np.zeros(system.shape[1])
    free = np.zeros(len(x), bool)
    tolerance = 1e-10 * float(np.abs(system.T @ wanted).max())
    for _ in range(3 * len(x)):
        slopes = np.where(free, -np.inf, system.T @ (wanted - system @ x))
        if slopes.max() <= tolerance:
            break
        free[slopes.argmax()] = True
        while True:
            trial = np.zeros(len(x))
            trial[free] = np.linalg.lstsq(system[:, free], wanted, rcond=None)[0]
            below = free & (trial <= 0.0)
            if not below.any():
                break
            # As far as the first element that would become negative, which stays at zero from there.
            step = (x[below] / (x[below] - trial[below])).min()
            x += step * (trial - x)
            free &= x > 1e-12
        x = trial
    return x


# --- the file --------------------------------------------------------------------------------------------------------------


def processor_of(found: Library) -> Processor:
    """What steps run on."""
    usual, sizes = Caches(), data_caches()
    return Processor(found.isa, Caches(sizes.get(1, usual.first), sizes.get(2, usual.second)))


def machine_of(found: Library) -> Machine:
    """This machine: with the calibration that is kept for it, or else with the coefficients that sparsec brings."""
    kept = kept_calibration(found)
    return Machine(processor_of(found), DEFAULTS[found.isa.name] if kept is None else kept.coefficients)


def cache_file(found: Library) -> Path:
    """Where the calibration is kept: for one processor, instruction set and build of the library."""
    folder = os.environ.get(FOLDER, "")
    base = Path(folder) if folder else Path.home() / ".cache"
    return base / "sparsec" / f"calibration-{_key(found.path, found.isa.name)}.json"


@cache
def _key(path: Path, isa: str) -> str:
    build = sha256(path.read_bytes()).hexdigest()
    return sha256("\n".join((cpu_model(), isa, str(ABI), build)).encode()).hexdigest()[:16]


def kept_calibration(found: Library) -> Calibration | None:
    """The calibration that is kept for this machine; ``None`` where there is none, or it cannot be read."""
    try:
        path = cache_file(found)
        if not path.parent.is_dir():
            return None
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, RuntimeError, ValueError, TypeError, KeyError):
        # A cache is no place to fail for: whatever is wrong with it, there are the defaults.
        return None


def _parse(value: Any) -> Calibration:
    coefficients = {name: float(value["coefficients"][name]) for name in NAMES}
    if value["schema"] != SCHEMA or any(not isfinite(each) or each < 0.0 for each in coefficients.values()):
        raise ValueError(value)
    return Calibration(Coefficients(**coefficients), int(value["measurements"]), float(value["error"]), float(value["largest"]))


def keep(found: Library, calibration: Calibration) -> Path:
    """Keep a calibration for this machine, in place of the one before.

    Returns:
        the file.

    Raises:
        InputError: it cannot be written.
    """
    path = cache_file(found)
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"schema": SCHEMA, "cpu": cpu_model(), "isa": found.isa.name, **asdict(calibration)}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return path


def forget(found: Library) -> bool:
    """Remove the calibration that is kept for this machine, and say whether there was one."""
    path = cache_file(found)
    there = path.exists()
    path.unlink(missing_ok=True)
    return there
