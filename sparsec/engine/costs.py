"""The cost model of native products: how long a step takes, from counts of what it does and a few measured coefficients.

Costs are nanoseconds in one thread. Every cost is linear in the coefficients, so that a calibration fits them by least squares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import ceil
from typing import Final

from sparsec.engine.steps import Planes, Step
from sparsec.kernels.streams import Blocks

LINES: Final = {1: 8, 4: 6}
"""By the height of groups of rows, the most lines in a tile with the widest vectors; as in ``native/block.h``."""

NARROW_LINES: Final = {1: 8, 4: 3}
"""The same with all other vectors."""

WIDEST: Final = 16
NEAR: Final = 1024
"""The pitch up to which a product reads its input in place; as in ``native/product.c``."""


@dataclass(frozen=True)
class Coefficients:
    """Nanoseconds.

    Attributes:
        call: each step.
        multiply: each entry for each line of the output, in groups of one row.
        multiply_shared: each row of an entry for each line, in groups of four rows.
        carry: each row of a block for each line: its sums are loaded and stored.
        begin: each row of a block for each tile.
        copy: each line copied into a panel.
        copy_strided: each line copied into a panel with strides.
        entry: each entry of a matrix times one vector.
        slot: each entry of the slices of a matrix, padding included, times one vector.
        far: each byte of a matrix that is not in the second-level cache, times one vector.
    """

    call: float = 100.0
    multiply: float = 0.46
    multiply_shared: float = 0.33
    carry: float = 0.7
    begin: float = 4.0
    copy: float = 1.0
    copy_strided: float = 2.0
    entry: float = 0.36
    slot: float = 0.05
    far: float = 0.01

    def cost(self, counts: Mapping[str, float]) -> float:
        """The nanoseconds of a step with these counts, by the names of coefficients."""
        return self.call + sum(float(getattr(self, name)) * count for name, count in counts.items())


NAMES: Final = tuple(field.name for field in fields(Coefficients))
DEFAULT: Final = Coefficients()


@dataclass(frozen=True)
class Matrix:
    """What the cost depends on of a weight, or of one group of it.

    Attributes:
        rows: of the 2-D view.
        channels: of the input.
        taps: elements of the window.
        entries: elements that are not zero.
        height: of its groups of rows.
    """

    rows: int
    channels: int
    taps: int
    entries: float
    height: int

    def blocks(self, cut: Blocks) -> int:
        """Into how many blocks of channels it is cut."""
        density = self.entries / max(self.rows * self.channels * self.taps, 1)
        return ceil(self.channels / min(cut.channels(density, self.taps), self.channels))


def _products(matrix: Matrix, blocks: int, lines: int, tiles: int) -> dict[str, float]:
    multiply = "multiply" if matrix.height == 1 else "multiply_shared"
    rows = blocks * matrix.rows
    return {multiply: matrix.entries * lines, "carry": rows * lines, "begin": rows / matrix.height * tiles}


def _most_lines(matrix: Matrix, lanes: int) -> int:
    return (LINES if lanes == WIDEST else NARROW_LINES)[matrix.height]


def flat(step: Step, matrix: Matrix, cut: Blocks, x: Planes, y: Planes, lanes: int) -> dict[str, float]:
    """The counts of ``product`` and ``unrolled``."""
    lines = ceil(y.positions / lanes)
    tiles = ceil(lines / _most_lines(matrix, lanes))
    counts = _products(matrix, matrix.blocks(cut), lines, tiles)
    if step.window.is_point:
        return counts | ({"copy": x.channels * lines} if x.pitch > NEAR else {})
    # A row of positions begins in the middle of a line, and is cut where a tile ends.
    segments = y.samples * y.height * ceil(y.width / lanes) + tiles * (1 + lanes * _most_lines(matrix, lanes) // y.width // 4)
    return counts | {_copying(step): matrix.channels * matrix.taps * segments}


def _copying(step: Step) -> str:
    return "copy" if step.window.strides[1] == 1 else "copy_strided"


@dataclass(frozen=True)
class Tiles:
    """How ``windows`` cuts its output; as ``plan_windows`` does in ``native/windows.c``.

    Attributes:
        count: of the tiles of all samples.
        lines: of a tile.
        copied: lines copied into the panel of a tile for each channel.
    """

    count: int
    lines: int
    copied: int

    @classmethod
    def of(cls, step: Step, y: Planes, most: int, lanes: int, across: int) -> Tiles:
        """Those of a step whose rows of positions are cut into at least ``across`` tiles."""
        window, room = step.window, most * lanes
        if 2 * y.width <= lanes:
            across, width = 1, next(size for size in (4, 8, 16) if size >= y.width and lanes % size == 0)
        else:
            across = max(ceil(y.width / room), min(across, ceil(y.width / lanes)))
            width = ceil(ceil(y.width / across) / lanes) * lanes
        down = ceil(y.height / (room // width))
        lines = ceil(ceil(y.height / down) * width / lanes)
        rows = lines * lanes // width
        read = (rows - 1) * window.strides[0] + (window.size[0] - 1) * window.dilations[0] + 1
        return cls(y.samples * down * across, lines, window.size[1] * read * ceil(width / lanes))


def windows(step: Step, matrix: Matrix, cut: Blocks, y: Planes, lanes: int, across: int) -> dict[str, float]:
    """The counts of ``windows``."""
    tiles = Tiles.of(step, y, _most_lines(matrix, lanes), lanes, across)
    counts = _products(matrix, matrix.blocks(cut), tiles.count * tiles.lines, tiles.count)
    return counts | {_copying(step): tiles.count * tiles.copied * matrix.channels}
