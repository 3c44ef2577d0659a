"""How ``windows`` cuts the positions of its output, and what it does with them; as in ``native/stacks.h``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, gcd
from typing import Final

from sparsec.engine.steps import Planes, Window
from sparsec.kernels.library import Isa

SOURCES: Final = 4
"""So many pieces of a line are read once for all columns of the window; as in ``native/stacked.h``."""

TILE_EFFORT: Final = 0.6
READ_EFFORT: Final = 0.02
JOIN_EFFORT: Final = 0.01
"""About what a tile takes, a line that it reads, and a piece joined to that, where a line that is multiplied takes 1."""

WORTH: Final = 0.25
"""Two sections are to save so much."""


def lines_of(positions: int, isa: Isa) -> float:
    """The lines of a row, the last of which may be half one."""
    halved = isa.halves and 0 < positions % isa.lanes <= isa.lanes // 2
    return ceil(positions / isa.lanes) - halved / 2


@dataclass(frozen=True)
class Section:
    """Some columns of the output.

    Attributes:
        width: how many.
        strips: into which they are cut, one below the other.
        across: lines that a stack has side by side.
    """

    width: int
    strips: int = 1
    across: int = 1


@dataclass(frozen=True)
class Tally:
    """What is done for some columns.

    Attributes:
        tiles: of all stacks.
        lines: of all tiles.
        read: lines of a column of the window that all tiles read.
        joined: pieces that lines are joined from, beside the first, for all columns of the window.
        largest: the most lines of a tile.
    """

    tiles: int = 0
    lines: float = 0.0
    read: int = 0
    joined: int = 0
    largest: int = 0

    def __add__(self, other: Tally) -> Tally:
        sums = (self.tiles + other.tiles, self.lines + other.lines, self.read + other.read, self.joined + other.joined)
        return Tally(*sums, max(self.largest, other.largest))

    def times(self, count: int) -> Tally:
        """The same so many times."""
        return Tally(count * self.tiles, count * self.lines, count * self.read, count * self.joined, self.largest)

    @property
    def unevenness(self) -> float:
        """How many times the lines of a tile the largest has."""
        return self.largest * self.tiles / self.lines

    @property
    def effort(self) -> float:
        """About in proportion to the time."""
        return self.lines + TILE_EFFORT * self.tiles + READ_EFFORT * self.read + JOIN_EFFORT * self.joined


@dataclass(frozen=True)
class Cutter:
    """Cuts rows of positions.

    Attributes:
        rows: how many.
        window: what reads the input.
        most: the lines of a tile.
        isa: the instruction set.
    """

    rows: int
    window: Window
    most: int
    isa: Isa

    def tally(self, section: Section) -> Tally:
        """What the stacks of a section do, but for half lines at the ends of tiles within a stack."""
        window, lanes, strips, width = self.window, self.isa.lanes, section.strips, section.width
        height, side = ceil(self.rows / strips), ceil(strips * width / lanes)
        longer = self.rows - strips * (height - 1)
        across = max(min(section.across, self.most, side), 1)
        tiles = ceil(height / (self.most // across))
        last = lines_of(longer * width, self.isa)
        read = (height - tiles) * window.strides[0] + tiles * ((window.size[0] - 1) * window.dilations[0] + 1)
        # Where a strip ends within a line, another piece begins, unless it was the last.
        joined = strips - 1 - (strips - 1) * gcd(width, lanes) // lanes
        times = 1 if self._picks(section) else window.size[1]
        skipped = (side - ceil(last)) * window.strides[0]
        counts = (ceil(side / across) * tiles, (height - 1) * side + last, side * read - skipped, joined * read * times)
        return Tally(*counts, largest=ceil(height / tiles) * across)

    def _picks(self, section: Section) -> bool:
        """Whether what all columns of the window meet is picked from the same vectors."""
        width, lanes = min(section.width, self.isa.lanes), self.isa.lanes
        pieces = lanes // width if lanes % width == 0 else (lanes - 2) // width + 2
        reach = width + (self.window.size[1] - 1) * self.window.dilations[1]
        return self.isa.picks and self.window.strides[1] == 1 and min(pieces, section.strips) <= SOURCES and reach <= lanes

    def best(self, width: int) -> Section:
        """How to cut so many columns, which are fewer than a line has lanes."""
        found = []
        for strips in range(1, min(self.isa.lanes, self.rows) + 1):
            lines = ceil(strips * width / self.isa.lanes)
            found += [Section(width, strips, across) for across in sorted({1, min(lines, self.most)})]
        return min(found, key=lambda section: self.tally(section).effort)

    def cuts(self, beside: int) -> list[tuple[Section, ...]]:
        """Ways to cut so many columns: in one strip, as well as one section can be, and as well as two can be."""
        if not beside:
            return [()]
        found: list[tuple[Section, ...]] = [(Section(beside),), (self.best(beside),)]
        first = self.isa.lanes // 2
        if first < beside:
            two = self.best(first), self.best(beside - first)
            if self.effort(two) < self.effort(found[1]) - WORTH:
                found.append(two)
        return list(dict.fromkeys(found))

    def effort(self, cut: Sequence[Section]) -> float:
        """That of several sections."""
        return sum(self.tally(section).effort for section in cut)


@dataclass(frozen=True)
class Stacks:
    """How the output is cut.

    Attributes:
        beside: the one or two sections beside what whole lines of a row cover, if there are any.
        tally: what is done for all samples.
    """

    beside: tuple[Section, ...]
    tally: Tally

    @property
    def name(self) -> str:
        """A short name: the columns and strips of the sections."""
        return "+".join(f"{section.width}x{section.strips}" for section in self.beside) or "1"

    @property
    def options(self) -> tuple[int, ...]:
        """Those of the kernel."""
        sizes = [size for section in self.beside for size in (section.strips, section.across)]
        return (self.beside[0].width, *sizes) if self.beside else ()


def worthwhile(window: Window, y: Planes, most: int, isa: Isa) -> list[Stacks]:
    """The ways that are worth to be considered.

    Args:
        window: what reads the input.
        y: the sizes of the output.
        most: the lines of a tile.
        isa: the instruction set.
    """
    found = _worthwhile(Cutter(y.height, window, most, isa), y.width)
    return [replace(stacks, tally=stacks.tally.times(y.samples)) for stacks in found]


@lru_cache(maxsize=1024)
def _worthwhile(cutter: Cutter, width: int) -> tuple[Stacks, ...]:
    beside = width % cutter.isa.lanes
    whole = [Section(width - beside)] if width > beside else []
    return tuple(Stacks(cut, sum(map(cutter.tally, [*whole, *cut]), Tally())) for cut in cutter.cuts(beside))
