"""Random weights for random models, with units that are dead and channels that nobody reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from channel_oracle import Class, Slice, Ties

from sparsec.frontends import read
from sparsec.ir import Array, Graph

GAIN = 1.2


@dataclass(frozen=True)
class Planting:
    """What was planted in a class of tied channels.

    Attributes:
        style: ``units`` if all its units are zero, ``one`` if one of several is, ``rows`` if all that reads it is, ``mixed`` if
            some of both is.
        whole: whether biases, gammas and betas are zero too.
        slices: the units or rows that are zero.
    """

    style: str
    whole: bool
    slices: tuple[Slice, ...]

    @property
    def label(self) -> str:
        """For counting."""
        return f"whole {self.style}" if self.whole else self.style


def plant(model: Any, salt: int) -> tuple[Graph, list[Planting]]:
    """Give a Keras model random weights and plant dead units.

    Returns:
        the model as sparsec reads it, and what was planted.
    """
    rng = np.random.default_rng(salt)
    found = read(model)
    weights = {path: _values(rng, path, found.graph.weights[path]) for path in found.variables}
    plantings = _plant(rng, found.graph, weights)
    for path, variable in found.variables.items():
        assert variable.assign is not None
        # Attention keeps projections by head.
        variable.assign(weights[path].reshape(variable.shape))
    return read(model).graph, plantings


def _values(rng: np.random.Generator, path: str, weight: Array) -> Array:
    name, shape = path.rpartition("/")[2], weight.shape
    if name == "embeddings":
        values = rng.normal(0, 1, shape)
    elif name == "moving_variance":
        values = rng.uniform(0.3, 1.7, shape)
    elif name == "gamma":
        values = rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape)
    elif name == "depthwise_kernel":
        values = rng.normal(0, GAIN / np.sqrt(np.prod(shape[:-2])), shape)
    elif "kernel" in name:
        values = rng.normal(0, GAIN / np.sqrt(np.prod(shape[:-1])), shape)
    elif name == "alpha":
        values = rng.uniform(-0.3, 0.5, shape)
    else:
        values = rng.normal(0, 0.5, shape)
    return values.astype(weight.dtype)


def _plant(rng: np.random.Generator, graph: Graph, weights: dict[str, Array]) -> list[Planting]:
    dead, whole = rng.choice([0.0, 0.3, 0.5, 0.65]), rng.choice([0.0, 0.5, 1.0])
    plantings: list[Planting] = []
    for class_ in Ties(graph).classes():
        if not class_.units or rng.random() >= (dead / 3 if class_.kept else dead):
            continue
        planting = _styled(rng, class_, bool(rng.random() < whole))
        if planting is None:
            continue
        plantings.append(planting)
        for slice_ in planting.slices:
            slice_.zero(weights[slice_.path])
        if planting.whole:
            for slice_ in class_.vectors:
                if not slice_.path.endswith(("variance", "alpha")) and slice_.path in weights:
                    slice_.zero(weights[slice_.path])
    return plantings


def _styled(rng: np.random.Generator, class_: Class, whole: bool) -> Planting | None:
    style = rng.choice(["units", "one", "rows", "mixed"], p=[0.7, 0.1, 0.12, 0.08])
    units = tuple(dict.fromkeys(class_.units))
    if style == "units" or (style == "one" and len(units) == 1):
        return Planting("units", whole, units)
    if style == "one":
        return Planting("one", whole, (units[int(rng.integers(len(units)))],))
    if not class_.rows:
        return None
    if style == "rows":
        return Planting("rows", False, tuple(class_.rows))
    some = tuple(unit for unit in units if rng.random() < 0.5)
    return Planting("mixed", whole, (*some, *(row for row in class_.rows if rng.random() < 0.7)))
