"""The cost model of native products: how long a step takes, from counts of what it does and a few measured coefficients.

Costs are nanoseconds in one thread. Every cost is linear in the coefficients, so that a calibration fits them by least squares.
A line is a vector of the instruction set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import ceil, gcd
from typing import Final

from sparsec.engine.stacks import Stacks, lines_of, worthwhile
from sparsec.engine.steps import LINE, Planes, Step, Window
from sparsec.kernels.filters import POINTS, group_height
from sparsec.kernels.library import Isa, Slicing
from sparsec.kernels.streams import MAX_COLUMNS, Blocks, Places

NEAR: Final = 1024
"""The pitch up to which a product, and ``sliding`` where it can, reads its input in place; as in ``native/product.c``."""

MAX_LINES: Final = 8
"""No tile has more lines."""

COSTLY: Final = frozenset({"sigmoid", "tanh", "silu", "gelu", "gelu_tanh", "elu", "selu", "softplus", "exp", "log", "erf"})
"""The elementwise functions that take an exponential or a logarithm."""

BAND_FLOATS: Final = 1 << 14
"""The size of the panel and the sums of a band of ``sliding``; as in ``native/sliding.c``."""

WAY_BYTES: Final = 4096
"""The addresses after which lines of the first-level cache share a set: a page, with few exceptions."""

PAGE_BYTES: Final = 4096
PAGES: Final = 48
"""The size of a page of memory, and of how many a core keeps the translations at hand beside those of other things."""

SHARE_BYTES: Final = 1 << 22
"""What a core can count on of the third-level cache, which it shares with others. A matrix that is read once, in order, comes
from there as fast as from the second level. It is not asked of the system: a virtual machine does not know who shares it."""

VALUE_BYTES: Final = 4
ENTRY_BYTES: Final = 6
SLOT_BYTES: Final = 5
"""The bytes of an element of a panel, of an entry with its column, and of an entry of slices with its place."""


@dataclass(frozen=True)
class Coefficients:
    """Nanoseconds.

    Attributes:
        call: each step.
        multiply: each entry for each line of the output, in groups of one row.
        multiply_shared: each row of an entry for each line, in groups of four rows.
        unaligned: each entry in groups of one row, for each line of ``sliding``, which are not aligned.
        multiply_dense: each row of ``direct`` for each column and line.
        visit: each entry for each tile.
        page: each entry for each tile of a product, where what a block meets lies in more pages than are kept track of.
        spill: each entry for each line, where what a block meets is not in the first-level cache.
        spill_shared: the same in groups of four rows.
        far: each byte of a matrix that is not in the second-level cache, for each tile, and each such byte of input and output.
        carry: each line of a row for each block but the first: its sums are stored and loaded.
        finish: each line of a row: its sums begin, and end.
        residual: each line of a residual.
        post: each line of the output for each elementwise operation.
        function: the same, where it takes an exponential or a logarithm.
        copy: each line of an input that is copied as it is.
        gather: each line copied into the panel of a convolution.
        gather_strided: the same with strides.
        read: the same in ``unrolled`` with a stride of one.
        read_stack: the same in ``windows``.
        read_paired: in both with a stride of two.
        row: each row of positions copied into the panel of ``sliding`` or ``direct``.
        piece: each row copied into the panel of ``unrolled`` by itself, or there or in ``windows`` joined to a line.
        entry: each entry of a matrix times one vector.
        entry_row: each row of a block of it.
        slot_few: each entry of the slices of a matrix, padding included, times one vector, where slices have few rows.
        slot_narrow: the same where they have a row for each lane and go over the columns in narrow windows.
        slot_wide: the same with wide windows.
        far_few: each byte of slices of few rows that a core's share of the third-level cache does not hold.
        far_narrow: the same where slices go over the columns in narrow windows; what they do else hides less of it.
        far_wide: the same with wide windows.
        slot_dense: each element of a dense matrix times one vector.
        far_dense: each byte of it that a core's share of the third-level cache does not hold.
        slice: each slice.
    """

    call: float
    multiply: float
    multiply_shared: float
    unaligned: float
    multiply_dense: float
    visit: float
    page: float
    spill: float
    spill_shared: float
    far: float
    carry: float
    finish: float
    residual: float
    post: float
    function: float
    copy: float
    gather: float
    gather_strided: float
    read: float
    read_stack: float
    read_paired: float
    row: float
    piece: float
    entry: float
    entry_row: float
    slot_few: float
    slot_narrow: float
    slot_wide: float
    far_few: float
    far_narrow: float
    far_wide: float
    slot_dense: float
    far_dense: float
    slice: float

    def cost(self, counts: Mapping[str, float]) -> float:
        """The nanoseconds of a step with these counts, by the names of coefficients."""
        return sum(float(getattr(self, name)) * count for name, count in counts.items())


NAMES: Final = tuple(field.name for field in fields(Coefficients))


@dataclass(frozen=True)
class Caches:
    """The bytes of a core's own caches.

    Attributes:
        first: of the first level, for data.
        second: of the second level.
    """

    first: int = 1 << 15
    second: int = 1 << 20

    @property
    def panel(self) -> int:
        """The size up to which a panel costs nothing: rows meet but a part of it, and the second level is fast enough."""
        return self.first * 5 // 4


@dataclass(frozen=True)
class Processor:
    """What the counts depend on beside the step.

    Attributes:
        isa: the instruction set.
        caches: of a core.
    """

    isa: Isa
    caches: Caches = Caches()


@dataclass(frozen=True)
class Matrix:
    """What the cost depends on of a weight, or of one group of it.

    Attributes:
        rows: of the 2-D view.
        channels: of the input.
        taps: elements of the window.
        entries: columns of groups of rows that are not all zero.
        height: rows of a group.
    """

    rows: int
    channels: int
    taps: int
    entries: float
    height: int

    @property
    def density(self) -> float:
        """The part of the elements that is multiplied."""
        return min(self.entries * self.height / max(self.rows * self.channels * self.taps, 1), 1.0)

    def width(self, cut: Blocks) -> int:
        """The channels of a block."""
        return min(cut.channels(self.density, self.taps), self.channels)

    def blocks(self, cut: Blocks) -> int:
        """Into how many blocks of channels it is cut."""
        return ceil(self.channels / self.width(cut))


@dataclass(frozen=True)
class _Tiles:
    """The tiles of a product.

    Attributes:
        count: how many there are.
        lines: of each.
        channel_bytes: that a channel takes in the panel of one.
        reach: the part of the sets of the first-level cache in which the panel can lie.
    """

    count: int
    lines: float
    channel_bytes: float
    reach: float = 1.0


def _products(
    step: Step, matrix: Matrix, cut: Blocks, x: Planes, y: Planes, tiles: _Tiles, processor: Processor
) -> dict[str, float]:
    lines = tiles.count * tiles.lines
    width, blocks = matrix.width(cut), matrix.blocks(cut)
    # Rows without an entry in a block are passed over there.
    present = 1.0 - (1.0 - matrix.density) ** (width * matrix.taps * matrix.height)
    caches = processor.caches
    entry_bytes = ENTRY_BYTES + VALUE_BYTES * (matrix.height - 1)
    activations = VALUE_BYTES * (x.positions * matrix.channels + y.positions * matrix.rows)
    counts = {
        "call": 1.0,
        "visit": matrix.entries * tiles.count,
        "far": tiles.count * max(matrix.entries * entry_bytes - caches.second, 0.0) + max(activations - caches.second, 0.0),
        "carry": matrix.rows * lines * (blocks - 1) * present,
        "finish": matrix.rows * lines,
    }
    suffix = "" if matrix.height == 1 else "_shared"
    counts[f"multiply{suffix}"] = matrix.entries * matrix.height * lines
    outside = max(1.0 - caches.panel * tiles.reach / (width * tiles.channel_bytes), 0.0)
    counts[f"spill{suffix}"] = matrix.entries * lines * outside
    if step.residual:
        counts["residual"] = matrix.rows * lines
    return counts | _posts(step, matrix.rows * ceil(y.positions / processor.isa.lanes))


def _posts(step: Step, lines: int) -> dict[str, float]:
    costly = sum(post.function in COSTLY for post in step.posts)
    return {"function": costly * lines, "post": (len(step.posts) - costly) * lines}


def _most_lines(matrix: Matrix, isa: Isa) -> int:
    return isa.lines[matrix.height > 1]


def _lines(positions: int, matrix: Matrix, isa: Isa) -> float:
    """Of a row, the last of which may be half one; a last position takes groups of rows one operation for all rows."""
    if matrix.height > 1 and positions % isa.lanes == 1:
        return positions // isa.lanes + 1 / matrix.height
    return lines_of(positions, isa)


def flat_tiles(matrix: Matrix, y: Planes, processor: Processor, most: int = 0) -> int:
    """The number of tiles of ``product`` and ``unrolled``, of at most so many lines."""
    lines = ceil(y.positions / processor.isa.lanes)
    return ceil(lines / min(most or MAX_LINES, _most_lines(matrix, processor.isa)))


def flat(
    step: Step,
    matrix: Matrix,
    cut: Blocks,
    x: Planes,
    y: Planes,
    processor: Processor,
    most: int = 0,
    copied: int = 0,
) -> dict[str, float]:
    """The counts of ``product`` and ``unrolled``.

    Args:
        step: the step.
        matrix: its weight, or a group of it.
        cut: its blocks.
        x: the input.
        y: the output.
        processor: what runs it.
        most: lines of a tile; 0 for as many as there can be.
        copied: 1 where a product copies panels that it could read in place.
    """
    lanes = processor.isa.lanes
    lines, count = _lines(y.positions, matrix, processor.isa), flat_tiles(matrix, y, processor, most)
    row_bytes = lines / count * lanes * VALUE_BYTES
    in_place = step.kernel == "product" and not copied and x.pitch <= NEAR and step.before is None
    # Rows that are read in place lie in the same sets where their pitch is a multiple of a large power of two.
    reach = min(row_bytes / gcd(x.pitch * VALUE_BYTES, WAY_BYTES), 1.0) if in_place else 1.0
    tiles = _Tiles(count, lines / count, matrix.taps * row_bytes, reach)
    counts = _products(step, matrix, cut, x, y, tiles, processor)
    if step.kernel == "product":
        pages = matrix.width(cut) * min((x.pitch * VALUE_BYTES if in_place else row_bytes) / PAGE_BYTES, 1.0)
        counts["page"] = counts["visit"] * max(1.0 - PAGES / pages, 0.0)
        return counts if in_place else counts | {"copy": matrix.channels * lines}
    columns = matrix.channels * matrix.taps
    return counts | {_reading(step, "read"): columns * lines, "piece": columns * _pieces(step, x, y, count, lanes)}


def _reading(step: Step, unstrided: str) -> str:
    """What reading a line costs, where with a stride of one it costs what ``unstrided`` names."""
    return {1: unstrided, 2: "read_paired"}.get(step.window.strides[1], "gather_strided")


def _pieces(step: Step, x: Planes, y: Planes, tiles: int, lanes: int) -> float:
    """The rows of positions that are copied by themselves, or begin within a line where the one before does not go on."""
    rows = y.samples * y.height
    if step.window.strides[1] > 2:
        return rows + tiles
    follow = step.window.strides == (1, 1) and x.width == y.width
    return 0.0 if follow else rows * (1.0 - gcd(y.width, lanes) / lanes)


def drives_out(matrix: Matrix, caches: Caches) -> bool:
    """Whether a matrix is so large that each tile drives out of the second-level cache what the next would read in place."""
    return matrix.entries * (ENTRY_BYTES + VALUE_BYTES * (matrix.height - 1)) > caches.second


def _gathering(step: Step) -> str:
    return "gather" if step.window.strides[1] == 1 else "gather_strided"


def is_too_large(window: Window) -> bool:
    """Whether the panel of a single channel is larger than ``windows`` can tell places in."""
    return Places(window.size, window.strides[0], window.dilations[0], MAX_LINES).of_channel > MAX_COLUMNS


def places(step: Step, matrix: Matrix, processor: Processor) -> Places:
    """Where ``windows`` has what the columns of its matrix meet."""
    window = step.window
    return Places(window.size, window.strides[0], window.dilations[0], _most_lines(matrix, processor.isa))


def stacks(step: Step, matrix: Matrix, y: Planes, processor: Processor) -> list[Stacks]:
    """How ``windows`` may cut its output."""
    return worthwhile(step.window, y, _most_lines(matrix, processor.isa), processor.isa)


def windows(
    step: Step, matrix: Matrix, cut: Blocks, x: Planes, y: Planes, processor: Processor, stacks: Stacks
) -> dict[str, float]:
    """The counts of ``windows``."""
    columns, lanes, of = step.window.size[1], processor.isa.lanes, stacks.tally
    panel = columns * of.read / of.tiles * lanes * VALUE_BYTES
    counts = _products(step, matrix, cut, x, y, _Tiles(of.tiles, of.lines / of.tiles, panel), processor)
    return counts | {_reading(step, "read_stack"): matrix.channels * columns * of.read, "piece": matrix.channels * of.joined}


@dataclass(frozen=True)
class Bands:
    """How ``sliding`` cuts its output; as ``cut_bands`` does in ``native/sliding.c``.

    Attributes:
        count: of the bands of all samples.
        pitch: of a row of a panel.
        rows: of positions in a band.
        read: rows of the input in a panel.
    """

    count: int
    pitch: int
    rows: int
    read: int

    @classmethod
    def of(cls, step: Step, y: Planes, matrix: Matrix, channels: int, lanes: int) -> Bands:
        """Those of a step whose blocks have so many channels."""
        window = step.window
        reach = [(size - 1) * dilation for size, dilation in zip(window.size, window.dilations, strict=True)]
        pitch, rows = y.width + reach[1], y.height
        while rows > 1:
            panel, sums = (rows + reach[0]) * pitch, ceil(((rows - 1) * pitch + y.width) / lanes) * lanes
            if channels * (ceil(panel / LINE) + 1) * LINE + matrix.rows * sums <= BAND_FLOATS:
                break
            rows = (rows + 1) // 2
        return cls(y.samples * ceil(y.height / rows), pitch, rows, rows + reach[0])


def sliding(step: Step, matrix: Matrix, cut: Blocks, x: Planes, y: Planes, processor: Processor) -> dict[str, float]:
    """The counts of ``sliding``."""
    lanes, width = processor.isa.lanes, matrix.width(cut)
    bands = Bands.of(step, y, matrix, width, lanes)
    lines = _lines((bands.rows - 1) * bands.pitch + y.width, matrix, processor.isa)
    tiles = ceil(lines / _most_lines(matrix, processor.isa))
    reach = lines / tiles * lanes + (step.window.size[0] - 1) * step.window.dilations[0] * bands.pitch
    of_matrix = _Tiles(bands.count * tiles, lines / tiles, reach * VALUE_BYTES)
    counts = _products(step, matrix, cut, x, y, of_matrix, processor)
    rows = bands.count * matrix.channels * bands.read
    # Sums are copied once more, row of positions by row.
    counts["finish"] += matrix.rows * y.samples * y.height * ceil(y.width / lanes)
    if matrix.height == 1:
        counts["unaligned"] = matrix.entries * bands.count * lines
    inside = step.window.pads == (0, 0) and y.height + bands.read - bands.rows <= x.height
    if inside and x.width == bands.pitch and x.pitch <= NEAR:
        return counts
    return counts | {"gather": rows * ceil(bands.pitch / lanes), "row": rows}


def direct(step: Step, matrix: Matrix, x: Planes, y: Planes, processor: Processor) -> dict[str, float]:
    """The counts of ``direct``."""
    window, lanes = step.window, processor.isa.lanes
    height = group_height(matrix.rows, processor.isa.filters)
    groups = ceil(matrix.rows / height)
    lines = y.samples * y.height * ceil(y.width / lanes)
    columns = matrix.channels * matrix.taps
    # A row of the input is copied once, a phase at a time.
    rows = y.samples * matrix.channels * (x.height + 2 * window.pads[0]) * window.strides[1]
    row_lines = ceil((y.width + (window.size[1] - 1) * window.dilations[1] / window.strides[1]) / lanes)
    counts = {
        "call": 1.0,
        "multiply_dense": groups * height * columns * lines,
        "finish": matrix.rows * lines,
        "row": rows,
        _gathering(step): rows * row_lines,
    }
    if step.residual:
        counts["residual"] = matrix.rows * lines
    return counts | _posts(step, matrix.rows * ceil(y.positions / lanes))


def evaluates(window: Window) -> bool:
    """Whether ``winograd`` computes convolutions with such windows."""
    return window.size[0] in POINTS and window.size[0] == window.size[1] and window.strides == window.dilations == (1, 1)


def winograd(step: Step, matrix: Matrix, x: Planes, y: Planes, processor: Processor) -> dict[str, float]:
    """The counts of ``winograd``."""
    (height, width), lanes = step.window.size, processor.isa.lanes
    group = group_height(matrix.rows, processor.isa.evaluated)
    groups, points = ceil(matrix.rows / group), len(POINTS[height]) + 1
    pairs, across = y.samples * ceil(y.height / 2), ceil(y.width / lanes)
    columns, read = matrix.channels * width * points, matrix.channels * points * pairs
    row_lines = ceil((y.width + width - 1) / lanes)
    panel = VALUE_BYTES * matrix.channels * points * row_lines * lanes
    counts = {
        "call": 1.0,
        "multiply_dense": groups * group * columns * pairs * across,
        # At each point, sums are added to those of both rows of positions.
        "finish": matrix.rows * pairs * across * points / 2,
        "row": read,
        "gather": read * row_lines,
        "spill": groups * columns * pairs * across * max(1.0 - processor.caches.panel / panel, 0.0),
        "far": pairs * max(VALUE_BYTES * groups * group * columns - processor.caches.second, 0.0),
    }
    if step.residual:
        counts["residual"] = matrix.rows * 2 * pairs * across
    return counts | _posts(step, matrix.rows * ceil(y.positions / lanes))


def vector(step: Step, matrix: Matrix, cut: Blocks, processor: Processor) -> dict[str, float]:
    """The counts of ``vector``."""
    counts = {
        "call": 1.0,
        "entry": matrix.entries,
        "entry_row": matrix.rows * matrix.blocks(cut),
        "far": max(matrix.entries * ENTRY_BYTES - processor.caches.second, 0.0),
    }
    return counts | _posts(step, ceil(matrix.rows / processor.isa.lanes))


def dense(step: Step, matrix: Matrix, processor: Processor) -> dict[str, float]:
    """The counts of ``dense``."""
    height = group_height(matrix.rows, processor.isa.lanes)
    slots = ceil(matrix.rows / height) * height * matrix.channels * matrix.taps
    counts = {"call": 1.0, "slot_dense": slots, "far_dense": max(VALUE_BYTES * slots - SHARE_BYTES, 0.0)}
    return counts | _posts(step, ceil(matrix.rows / processor.isa.lanes))


def slices(step: Step, matrix: Matrix, slicing: Slicing, slots: float, processor: Processor) -> dict[str, float]:
    """The counts of ``slices``, which have so many entries, padding included."""
    counts = {
        "call": 1.0,
        f"slot_{slicing.kind}": slots,
        f"far_{slicing.kind}": max(slots * SLOT_BYTES - SHARE_BYTES, 0.0),
        "slice": ceil(matrix.rows / slicing.height),
    }
    return counts | _posts(step, ceil(matrix.rows / processor.isa.lanes))
