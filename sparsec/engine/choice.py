"""Which kernel multiplies with a weight, in which packed form and which tiles: the one with the lowest cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Final

from sparsec.engine import costs, packing
from sparsec.engine.costs import Coefficients, Matrix, Processor
from sparsec.engine.steps import LINE, Planes, Step
from sparsec.kernels import Packing, WeightStore
from sparsec.kernels.streams import BATCH_BLOCKS, DENSE_BLOCKS, MAX_COLUMNS, POINTWISE_BLOCKS, WINDOW_BLOCKS, Blocks, Places
from sparsec.kernels.weights import Examination

MOST_FILLING: Final = 2.5
"""Groups of four rows that multiply more than so many times the elements that are not zero are no candidates."""

SCALES: Final = (0.5, 1.0, 2.0, 4.0)
"""How many times as wide as usual blocks are tried, where candidates are measured."""

MODELLED_SCALES: Final = (1.0, 2.0)
"""The same where the cost model chooses: what more scales would gain is less than its error."""

SPARED: Final = 1.2
"""A form of a weight that other plans use is taken up to so many times the lowest cost: another would take more memory."""

FEW_LINES: Final = 2
"""With so few lines in a row, the blocks of dense layers may be wide."""

TILINGS: Final = ((0, 0), (4, 0), (0, 1), (4, 1))
"""The options of ``product``: the most lines of a tile, and whether panels are copied."""

UNROLLED_TILINGS: Final = ((0, 0), (5, 0))
"""The same of ``unrolled``, which always copies them."""

DENSE: Final = 0.25
"""Weights of which at least so much is not zero may be multiplied with their zeros."""

FEW_CHANNELS: Final = 32
"""With more channels, what ``direct`` copies and multiplies with would not stay in the cache."""

MOST_IDLE: Final = 1.1
"""Threads share out tiles where they take at most so many times as long as if all had the same to do."""


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


Chooser = Callable[[Step, Mapping[str, Planes]], Choice]
"""Chooses for a step that multiplies with a weight, given the sizes of the values that it reads and writes."""


@dataclass(frozen=True)
class Machine:
    """What a choice depends on beside the step.

    Attributes:
        processor: what runs it.
        coefficients: of the cost model.
        threads: how many run it together.
    """

    processor: Processor
    coefficients: Coefficients
    threads: int = 1


class Cheapest:
    """Chooses the candidate with the lowest cost.

    Args:
        store: the weights.
        machine: what runs them.
    """

    def __init__(self, store: WeightStore, machine: Machine) -> None:
        self.store = store
        self.machine = machine
        self._forms: dict[str, set[str]] = {}
        """By weight, the names of the packings that were chosen so far."""

    def __call__(self, step: Step, planes: Mapping[str, Planes]) -> Choice:
        """The choice for a step that will run."""
        chosen = self.choose(step, planes)
        self.use(step, chosen)
        return chosen

    def choose(self, step: Step, planes: Mapping[str, Planes]) -> Choice:
        """The cheapest candidate, or nearly so."""
        assert step.product is not None
        found = candidates(step, planes, self.store, self.machine, MODELLED_SCALES)
        best = min(found, key=_cost)
        forms = self._forms.get(step.product.path, set())
        spared = min((choice for choice in found if choice.packing.name in forms), key=_cost, default=best)
        return spared if _cost(spared) <= SPARED * _cost(best) else best

    def use(self, step: Step, choice: Choice) -> None:
        """Take down that a step uses a form of its weight."""
        assert step.product is not None
        self._forms.setdefault(step.product.path, set()).add(choice.packing.name)


def _cost(choice: Choice) -> float:
    return choice.nanoseconds


def candidates(
    step: Step, planes: Mapping[str, Planes], store: WeightStore, machine: Machine, scales: Iterable[float] = (1.0,)
) -> list[Choice]:
    """The ways in which a step can multiply.

    Args:
        step: it multiplies with a weight.
        planes: the sizes of the values that it reads and writes.
        store: the weights.
        machine: what runs it.
        scales: how many times as wide as usual the blocks of the weight may be.
    """
    x, y = planes[step.x], planes[step.y]
    if step.kernel == "recurrent":
        return _recurrent(step, x, y, store, machine, scales)
    return list(_Site(step, x, y, store, machine).candidates(scales))


def _recurrent(step: Step, x: Planes, y: Planes, store: WeightStore, machine: Machine, scales: Iterable[float]) -> list[Choice]:
    """Those of the product of a state, which one thread computes for each step in time."""
    kernel = "vector" if x.samples == 1 else "product"
    h, sums = (Planes(x.samples, 1, 1, value.channels) for value in (y, x))
    alone = replace(machine, threads=1)
    found = _Site(replace(step, kernel=kernel, posts=[]), h, sums, store, alone).candidates(scales)
    times = y.height * y.width
    return [
        replace(
            choice,
            kernel="recurrent",
            options=(int(choice.kernel == "slices"),),
            counts={name: times * count for name, count in choice.counts.items()},
            nanoseconds=times * choice.nanoseconds,
            label=f"recurrent/{choice.label}",
        )
        for choice in found
        if not any(choice.options) and choice.kernel != "dense"
    ]


class _Site:
    """A step, and what its candidates have in common."""

    def __init__(self, step: Step, x: Planes, y: Planes, store: WeightStore, machine: Machine) -> None:
        assert step.product is not None
        self._step, self._x, self._y, self._machine = step, x, y, machine
        self._product, self._store = step.product, store
        path, arrangement, self._groups = self._product.path, self._product.arrangement, self._product.groups
        weight = store.weight(path)
        shape = (weight if arrangement is None else arrangement.weight(weight)).shape
        self._is_dense, self._lines = len(shape) == 2, -(-y.positions // LINE)
        entries = store.nonzeros(path) / self._groups
        single = Matrix(shape[-1] // self._groups, shape[-2], prod(shape[:-2]), entries, 1)
        self._filling = self._examine(packing.filling)
        shared = replace(single, entries=entries * self._filling / packing.SHARED, height=packing.SHARED)
        self._matrices = [single] + ([shared] if self._filling <= MOST_FILLING else [])

    def _examine(self, examination: Examination) -> float:
        return self._store.examine(self._product.path, packing.arranged(examination, self._product.arrangement))

    def candidates(self, scales: Iterable[float]) -> Iterator[Choice]:
        if self._step.kernel == "vector":
            yield from self._vectors(self._matrices[0])
            return
        usual = WINDOW_BLOCKS if self._step.kernel == "windows" else POINTWISE_BLOCKS
        if self._is_dense:
            usual = DENSE_BLOCKS if self._lines <= FEW_LINES else BATCH_BLOCKS
        for matrix in self._matrices:
            # Four rows read a panel once, so it need not stay in the first-level cache, and wide blocks carry fewer sums.
            wide = usual.scaled(matrix.height)
            # Where a matrix is narrow, or its entries many, different scales give the same blocks.
            cuts = {matrix.blocks(cut): cut for cut in map(wide.scaled, scales)}
            for cut in cuts.values():
                yield from self._products(matrix, cut)
        if self._step.kernel == "windows" and self._matrices[0].density >= DENSE:
            yield from self._dense(self._matrices[0])

    def _dense(self, matrix: Matrix) -> Iterator[Choice]:
        processor = self._machine.processor
        isa, sizes = processor.isa, (self._x, self._y, processor)
        if matrix.channels <= FEW_CHANNELS:
            yield self._choice("direct", packing.filters(isa.filters, self._product), costs.direct(self._step, matrix, *sizes))
        if isa.evaluated and costs.evaluates(self._step.window):
            packed = packing.evaluated(isa.evaluated, self._product)
            yield self._choice("winograd", packed, costs.winograd(self._step, matrix, *sizes))

    def _vectors(self, matrix: Matrix) -> Iterator[Choice]:
        processor = self._machine.processor
        # There are no tiles to share out, so each thread has some of the rows.
        pieces, is_dense = self._machine.threads, matrix.density >= DENSE and not self._product.rows
        # Slices of a matrix with few zeros are larger than the matrix.
        small = not is_dense or costs.SLOT_BYTES * matrix.density < costs.VALUE_BYTES
        for slicing in processor.isa.slicings if small else ():
            packed = packing.slices(slicing, pieces, self._product)
            slots = matrix.entries * self._examine(packing.slots(slicing))
            counts = costs.slices(self._step, matrix, slicing, slots, processor)
            yield self._choice("slices", packed, counts, label=f"slices/{slicing.height}x{slicing.width}")
        if is_dense:
            counts = costs.dense(self._step, matrix, processor)
            yield self._choice("dense", packing.filters(processor.isa.lanes, self._product), counts)
        counts = costs.vector(self._step, matrix, DENSE_BLOCKS, processor)
        yield self._choice("vector", packing.stream(DENSE_BLOCKS, 1, pieces, self._product), counts)

    def _products(self, matrix: Matrix, cut: Blocks) -> Iterator[Choice]:
        processor, form = self._machine.processor, f"{matrix.height}x1/{matrix.blocks(cut)}"
        kernel = "product" if self._step.kernel == "product" else "unrolled"
        if kernel == "product" or self._y.positions > 1:
            for most, copied in self._tilings(kernel, matrix):
                counts = costs.flat(self._step, matrix, cut, self._x, self._y, processor, most, copied)
                tiling = f"/{most}{'c' * copied}" if most or copied else ""
                packed = self._packing(matrix, cut, costs.flat_tiles(matrix, self._y, processor, most))
                yield self._choice(kernel, packed, counts, most, copied, label=f"{kernel}/{form}{tiling}")
        if kernel == "product":
            return
        if self._step.window.strides == (1, 1):
            counts = costs.sliding(self._step, matrix, cut, self._x, self._y, processor)
            yield self._choice(
                "sliding", self._packing(matrix, cut, self._y.samples * self._y.height), counts, label=f"sliding/{form}"
            )
        places = costs.places(self._step, matrix, processor)
        cut = cut.within(MAX_COLUMNS // places.of_channel * matrix.taps)
        for stacks in costs.stacks(self._step, matrix, self._y, processor):
            counts = costs.windows(self._step, matrix, cut, self._x, self._y, processor, stacks)
            packed = self._packing(matrix, cut, stacks.tally.tiles, places, stacks.tally.unevenness)
            yield self._choice("windows", packed, counts, *stacks.options, label=f"windows/{form}/{stacks.name}")

    def _packing(
        self, matrix: Matrix, cut: Blocks, tiles: int, places: Places | None = None, unevenness: float = 1.0
    ) -> Packing:
        """In one piece where threads can share out tiles evenly, else with some of the rows for each thread.

        Args:
            matrix: the weight, or a group of it.
            cut: its blocks.
            tiles: how many there are.
            places: for ``windows``, those of the columns.
            unevenness: how many times as much as the mean the largest tile has to do.
        """
        threads = self._machine.threads
        turns = ceil(tiles / threads)
        pieces = threads if turns * threads * unevenness > MOST_IDLE * tiles else 1
        return packing.stream(cut, matrix.height, pieces, self._product, places)

    def _tilings(self, kernel: str, matrix: Matrix) -> tuple[tuple[int, int], ...]:
        if kernel == "unrolled":
            return UNROLLED_TILINGS
        if self._x.pitch > costs.NEAR:
            return TILINGS[:1]
        if self._step.before is not None:
            return TILINGS[:2]
        return TILINGS[2:] if costs.drives_out(matrix, self._machine.processor.caches) else TILINGS

    def _choice(self, kernel: str, packed: Packing, counts: Mapping[str, float], *options: int, label: str = "") -> Choice:
        counts = {name: self._groups * count for name, count in counts.items() if count}
        return Choice(kernel, packed, options, counts, self._machine.coefficients.cost(counts), label or kernel)
