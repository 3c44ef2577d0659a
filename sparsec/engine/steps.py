"""What a native plan is made of before memory is planned: steps over named values, and values that are parts of others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, prod
from typing import TYPE_CHECKING, Final

from sparsec.ir import Array, Node, TensorType

if TYPE_CHECKING:
    from sparsec.engine.arrangement import Arrangement

LINE: Final = 16
"""Floats in a line of the cache, to which rows are padded."""

CROWDED: Final = 4
"""Rows of more lines than this have an odd number of them, so that they do not share the same sets of the cache."""


@dataclass(frozen=True)
class Planes:
    """The sizes of a value: ``[samples, height, width, channels]``, held channel by channel.

    Values of rank two have a height and width of one, those of rank three a height of one; of more than two axes of positions
    all but the last are one, whose size is the height. Values of rank one have one channel.
    """

    samples: int
    height: int
    width: int
    channels: int

    @classmethod
    def of(cls, type_: TensorType) -> Planes:
        """Those of a value whose first axis is that of the samples, and whose sizes are known."""
        return cls.of_shape([int(str(dim)) for dim in type_.shape])

    @classmethod
    def of_shape(cls, shape: Sequence[int]) -> Planes:
        """Those of a value of this shape."""
        samples, *rows, width, channels = (shape[0], 1, *(shape[1:] or (1,)))
        return cls(samples, prod(rows), width, channels)

    @property
    def positions(self) -> int:
        """The positions of a row, those of all samples."""
        return self.samples * self.height * self.width

    @property
    def pitch(self) -> int:
        """Floats from a row to the next."""
        if self.positions == 1:
            return 1
        lines = -(-self.positions // LINE)
        if lines > CROWDED and lines % 2 == 0:
            lines += 1
        return lines * LINE

    @property
    def floats(self) -> int:
        """Floats that the value takes."""
        return -(-self.pitch * self.channels // LINE) * LINE


def multiplying(y: Planes) -> str:
    """The kernel that multiplies position by position; rows of a single one lie side by side, for which there is another."""
    return "vector" if y.positions == 1 else "product"


@dataclass(frozen=True)
class Post:
    """An elementwise operation that follows a kernel; see ``SPARSEC_FUNCTIONS``.

    Attributes:
        function: its name.
        a: a number, which is the operand where there is neither of the others.
        b: another number.
        channel: a constant for each channel.
        value: the name of a value.
    """

    function: str
    a: float = 0.0
    b: float = 0.0
    channel: Array | None = None
    value: str = ""


@dataclass(frozen=True)
class Window:
    """How a window goes over two axes; each pair is that of the first and of the second."""

    size: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int] = (0, 0)

    @property
    def is_point(self) -> bool:
        """Whether every position meets itself alone."""
        return self.size == self.strides == (1, 1) and self.pads == (0, 0)


@dataclass(frozen=True)
class Product:
    """A weight that a step multiplies with.

    Attributes:
        path: of the weight; its 2-D view has a row for each output channel, and in a row the channels of each tap in turn.
        groups: into how many independent parts input and output channels are divided.
        rows: of each piece, where the kernel takes several that do different things.
        arrangement: of the weight of another convolution, as that of the one that is computed.
    """

    path: str
    groups: int = 1
    rows: tuple[int, ...] = ()
    arrangement: Arrangement | None = None


@dataclass(frozen=True)
class Copy:
    """Which elements of an input a step copies where; see ``sparsec_copy``.

    Attributes:
        axes: how many elements, and floats from one to the next in the input and in the output.
        first: floats before the first element, in the input and in the output.
        constant: takes the place of the input.
    """

    axes: tuple[tuple[int, int, int], ...]
    first: tuple[int, int] = (0, 0)
    constant: Array | None = None


@dataclass(frozen=True)
class Affine:
    """What is done to the channels of a value: ``min(max(x * scale + shift, low), high)``."""

    scale: Array
    shift: Array
    low: float = -inf
    high: float = inf


@dataclass(frozen=True)
class Pool:
    """Pools of two rows and two columns that a convolution computes of what it gives, which is nowhere else then.

    Attributes:
        kernel: that would compute them.
        y: the name of the result.
    """

    kernel: str
    y: str


@dataclass
class Step:
    """One kernel with what follows it; ``y = posts(clamp(kernel(x) + bias + residual))``.

    Attributes:
        kernel: as in ``SPARSEC_KERNELS``.
        x: the name of the input; empty where a copy is of constants.
        y: the name of the output.
        nodes: those of the graph that it computes; the first is the one that the kernel computes.
        product: the weight, where the kernel multiplies with one that may be sparse.
        weights: any other weight, as the kernel takes it.
        bias: for each output channel.
        window: of the kernel.
        options: of the kernel.
        numbers: of the kernel.
        low: what the output is at least.
        high: what it is at most.
        residual: the name of a value that is added before the clamp, of the first states of a recurrent cell, or of keys.
        also: the name of another output.
        gate: the name of a value with one position, by whose channels a product multiplies those of its input; of the second
            factor of a product of values; or of the values that attention mixes.
        before: what a product or a map does to its input.
        mask: the name of a value that says which steps of a recurrent cell count, or which keys a query looks at.
        posts: in order.
        pool: what takes the place of the output.
        copy: what a copy does.
    """

    kernel: str
    x: str
    y: str
    nodes: list[Node] = field(default_factory=list)
    product: Product | None = None
    weights: Array | None = None
    bias: Array | None = None
    window: Window = Window()
    options: tuple[int, ...] = ()
    numbers: tuple[float, ...] = ()
    low: float = -inf
    high: float = inf
    residual: str = ""
    also: str = ""
    gate: str = ""
    before: Affine | None = None
    mask: str = ""
    posts: list[Post] = field(default_factory=list)
    pool: Pool | None = None
    copy: Copy | None = None

    @property
    def result(self) -> str:
        """The name of the value that it gives: the output, or the pools of it."""
        return self.y if self.pool is None else self.pool.y

    @property
    def reads(self) -> Iterator[str]:
        """The names of the values that it reads."""
        yield from filter(None, (self.x, self.residual, self.gate, self.mask, *(post.value for post in self.posts)))

    @property
    def writes(self) -> Iterator[str]:
        """The names of the values that it computes."""
        yield from filter(None, (self.result, self.also))

    @property
    def clamps(self) -> bool:
        """Whether the clamp does something."""
        return self.low > -inf or self.high < inf


@dataclass(frozen=True)
class View:
    """A value that is some rows of another, with the same positions.

    Attributes:
        y: its name.
        of: the name of the other.
        row: where it begins.
    """

    y: str
    of: str
    row: int = 0


@dataclass(frozen=True)
class Concat:
    """A value whose rows are those of others, one after the other.

    Attributes:
        y: its name.
        parts: the names of the others.
    """

    y: str
    parts: tuple[str, ...]


Item = Step | View | Concat


def reads_of(item: Item) -> Iterator[str]:
    """The names of the values that an item reads or is made of."""
    match item:
        case Step():
            yield from item.reads
        case View():
            yield item.of
        case Concat():
            yield from item.parts


@dataclass(frozen=True)
class Made:
    """Items between which there are values that are not in the graph.

    Attributes:
        items: in order.
        planes: the sizes of those values.
    """

    items: Sequence[Item]
    planes: Mapping[str, Planes]


@dataclass(frozen=True)
class Elementwise:
    """An elementwise node, which can follow the kernel of any of its hosts.

    Attributes:
        hosts: by the name of an input, the operations that turn it into the output.
    """

    hosts: dict[str, tuple[Post, ...]]


@dataclass(frozen=True)
class Refusal:
    """Why a node does not run natively."""

    reason: str
