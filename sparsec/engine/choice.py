"""Which kernel multiplies with a weight, in which packed form and which tiles: the one with the lowest cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Final

from sparsec.engine import costs, packing
from sparsec.engine.costs import Coefficients, Matrix
from sparsec.engine.steps import LINE, Planes, Product, Step
from sparsec.kernels import Packing, WeightStore
from sparsec.kernels.library import Isa
from sparsec.kernels.streams import BATCH_BLOCKS, DENSE_BLOCKS, POINTWISE_BLOCKS, WINDOW_BLOCKS

CROWDED: Final = 0.69
"""With more of its elements than this nonzero, groups of four rows share the entries of a weight whose zeros lie anywhere."""

MOST_ACROSS: Final = 4
"""The tiles into which a row of positions may be cut beyond need."""


FEW_LINES: Final = 2
"""With so few lines in a row, blocks may be wide."""

MANY_LINES: Final = 8
"""Dense layers whose rows have more lines copy their panels, whose rows would lie in the same sets of the cache otherwise."""

COPIED: Final = (4, 1)
"""The options of a product that copies panels of four lines."""


@dataclass(frozen=True)
class Choice:
    """How a step multiplies.

    Attributes:
        kernel: the kernel.
        packing: the form of the weight.
        options: of the kernel.
        counts: what it does, by the names of the coefficients of the cost model.
        nanoseconds: the cost.
        label: what it is called in summaries.
    """

    kernel: str
    packing: Packing
    options: tuple[int, ...]
    counts: Mapping[str, float]
    nanoseconds: float
    label: str


@dataclass(frozen=True)
class Machine:
    """What a choice depends on beside the step.

    Attributes:
        isa: the instruction set.
        coefficients: of the cost model.
        threads: how many run a step.
    """

    isa: Isa
    coefficients: Coefficients
    threads: int


def choose(step: Step, product: Product, x: Planes, y: Planes, store: WeightStore, machine: Machine) -> Choice:
    """The cheapest candidate for a step."""
    return min(candidates(step, product, x, y, store, machine), key=lambda choice: choice.nanoseconds)


def candidates(step: Step, product: Product, x: Planes, y: Planes, store: WeightStore, machine: Machine) -> list[Choice]:
    """All ways to multiply with a weight that a step has."""
    weight, groups, lanes = store.weight(product.path), product.groups, machine.isa.lanes
    entries = store.nonzeros(product.path)
    shape = weight.shape
    height = 4 if entries > CROWDED * weight.size else 1
    matrix = Matrix(shape[-1] // groups, shape[-2], prod(shape[:-2]), entries / groups, height)

    def choice(kernel: str, packed: Packing, counts: Mapping[str, float], *options: int) -> Choice:
        nanoseconds = groups * machine.coefficients.cost(counts)
        label = kernel + "".join(f"/{option}" for option in options if option)
        return Choice(kernel, packed, options, counts, nanoseconds, label)

    if step.kernel == "vector":
        return list(_vectors(matrix, groups, machine, choice))
    lines = -(-y.positions // LINE)
    cut = WINDOW_BLOCKS if step.kernel == "windows" else POINTWISE_BLOCKS
    if len(shape) == 2:
        cut = DENSE_BLOCKS if lines <= FEW_LINES else BATCH_BLOCKS
    packed = packing.stream(cut, 1, groups)
    if step.kernel == "product":
        options = COPIED if len(shape) == 2 and lines > MANY_LINES else ()
        return [choice("product", packed, costs.flat(step, matrix, cut, x, y, lanes), *options)]
    tilings = [across for across in range(1, MOST_ACROSS + 1) if across == 1 or y.width > (across - 1) * lanes]
    found = [choice("windows", packed, costs.windows(step, matrix, cut, y, lanes, across), across) for across in tilings]
    if y.positions > 1:
        found.append(choice("unrolled", packed, costs.flat(step, matrix, cut, x, y, lanes)))
    return found


def _vectors(matrix: Matrix, groups: int, machine: Machine, choice: Callable[..., Choice]) -> Iterator[Choice]:
    if machine.isa.permutes:
        yield choice("slices", packing.slices(1, groups), {"slot": matrix.entries})
    yield choice("vector", packing.stream(DENSE_BLOCKS, 1, groups), {"entry": matrix.entries})
