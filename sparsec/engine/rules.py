"""What the engine does for each operator: one rule each, entered in a table.

A rule sees a node whose values are of dtypes that it takes, and have the batch as their first axis, and known sizes. It
gives the items that compute the node, or a refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, prod
from typing import Any, Final

import numpy as np

from sparsec.engine.drafts import Draft, in_turn, strides
from sparsec.engine.steps import (
    Concat,
    Copy,
    Elementwise,
    Item,
    Made,
    Planes,
    Post,
    Refusal,
    Step,
    View,
    Window,
)
from sparsec.ir import ABSENT, Array, Attrs, Node, TensorType
from sparsec.kernels import WeightStore
from sparsec.ops.base import integer, ints, number
from sparsec.ops.windows import axis_pads

Found = Sequence[Item] | Made | Elementwise | Refusal


@dataclass(frozen=True)
class Site:
    """A node, and what is known of its values.

    Attributes:
        node: the node.
        types: of all values, with known sizes.
        store: the weights.
    """

    node: Node
    types: Mapping[str, TensorType]
    store: WeightStore

    @property
    def attrs(self) -> Attrs:
        """The node's attributes."""
        return self.node.attrs

    @property
    def x(self) -> str:
        """The first input."""
        return self.node.inputs[0]

    @property
    def y(self) -> str:
        """The first output."""
        return self.node.outputs[0]

    def planes(self, name: str) -> Planes:
        """The sizes of a value."""
        return Planes.of(self.types[name])

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a value."""
        return tuple(int(str(dim)) for dim in self.types[name].shape)

    def input(self, position: int) -> str:
        """An input; empty where it is left out."""
        return self.node.inputs[position] if position < len(self.node.inputs) else ABSENT

    def is_constant(self, name: str) -> bool:
        """Whether an input is a weight."""
        return name in self.store

    def vector(self, position: int) -> Array | None:
        """A constant input as one vector of float32."""
        name = self.input(position)
        return None if name == ABSENT else np.ascontiguousarray(self.store.array(name), np.float32).reshape(-1)

    def draft(self) -> Draft:
        """What collects the items of the node where it takes several steps."""
        return Draft(self.node, self.shape)

    def axes(self, name: str) -> tuple[int, ...]:
        """An attribute that names axes of the first input, counted from the front and in order."""
        rank = self.types[self.x].rank
        return tuple(sorted(axis % rank for axis in ints(self.attrs, name)))

    def step(self, kernel: str, **more: Any) -> Step:
        """A step that computes the node from its first input."""
        return Step(kernel, self.x, self.y, [self.node], **more)


Rule = Callable[[Site], Found]

RULES: Final[dict[str, Rule]] = {}
"""By operator."""

FLOATS: Final = frozenset({"float32"})
LOGIC: Final = FLOATS | {"bool"}
INTEGERS: Final = frozenset({"int32", "int64"})

DTYPES: Final[dict[str, frozenset[str]]] = {}
"""By operator, the dtypes of the values with which its rule deals; in a native plan they all are float32."""


def rule(*ops: str, dtypes: frozenset[str] = FLOATS) -> Callable[[Rule], Rule]:
    """Enters a rule in the table, with the dtypes of the values with which it deals."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, function))
        DTYPES.update(dict.fromkeys(ops, dtypes))
        return function

    return enter


# --- windows -------------------------------------------------------------------------------------------------------------


def pair(values: Sequence[int], fill: int) -> tuple[int, int]:
    """The sizes along two axes, where one may be missing."""
    return (values[0], values[1]) if len(values) == 2 else (fill, values[0])


def window_of(attrs: Attrs, sizes: Sequence[int], window: Sequence[int]) -> tuple[Window, Window | None]:
    """How a window goes over the last two axes, and over the one before them, where there is one.

    Args:
        attrs: of the operator.
        sizes: of the axes of positions.
        window: its size.
    """
    pads = [before for before, _ in axis_pads(attrs, sizes, window)]
    fields = ((window, 1), (ints(attrs, "strides"), 1), (ints(attrs, "dilations"), 1), (pads, 0))
    plane = Window(*(pair(values[-2:], fill) for values, fill in fields))
    return plane, Window(*((values[0], fill) for values, fill in fields)) if len(window) > 2 else None


# --- positions -----------------------------------------------------------------------------------------------------------


@rule("max_pool", "avg_pool")
def _pool(site: Site) -> Found:
    shape, draft = site.shape(site.y), site.draft()
    plane, depth = window_of(site.attrs, site.shape(site.x)[1:-1], ints(site.attrs, "window"))
    if depth is None:
        return [site.step(site.node.op, window=plane)]
    # A box is a plane many times, and what of it lies outside is so in each.
    return draft.made(along_depth(draft, site.x, site.node.op, shape, plane, depth))


REDUCTIONS: Final = {"reduce_mean": (0, 4), "reduce_sum": (1, 5), "reduce_max": (2, 3)}
"""By operator, the number of the reduction over all positions of a sample, and of that over the channels of a position."""


@rule("reduce_mean", "reduce_sum")
@rule("reduce_max", dtypes=LOGIC)
def _reduce(site: Site) -> Found:
    axes, shape, draft = site.axes("axes"), site.shape(site.x), site.draft()
    if 0 in axes:
        return Refusal("it is over samples")
    last = len(shape) - 1
    over_positions, over_channels = REDUCTIONS[site.node.op]
    positions = [axis for axis in axes if axis < last]
    kept = [axis for axis in range(last) if axis not in axes]
    sizes = [shape[axis] for axis in kept]
    value = site.x
    if positions:
        value = draft.transpose(value, [*kept, *positions, last])
        if len(kept) > 1:
            value = draft.view(value, (prod(sizes), 1, prod(shape[axis] for axis in positions), shape[last]))
        value = draft.step("reduce", value, (prod(sizes), shape[last]), options=(over_positions,))
        value = draft.view(value, [*sizes, shape[last]])
    if last in axes:
        value = draft.step("reduce", value, [*sizes, 1], options=(over_channels,))
    return draft.made(value)


@rule("pad")
def _pad(site: Site) -> Found:
    pads, draft = ints(site.attrs, "pads")[::2], site.draft()
    if len(pads) < 3:
        return [site.step("map", window=Window(pads=pair(pads, 0)))]
    return draft.made(
        along_depth(draft, site.x, "map", site.shape(site.y), Window(pads=pair(pads[1:], 0)), Window(pads=(pads[0], 0)))
    )


@rule("resize")
def _resize(site: Site) -> Found:
    options, shape, draft = (int(site.attrs["method"] == "linear"),), site.shape(site.y), site.draft()
    if len(shape) < 5:
        return [site.step("resize", options=options)]
    return draft.made(along_depth(draft, site.x, "resize", shape, Window(), Window(), options=options))


def along_depth(draft: Draft, x: str, kernel: str, shape: Sequence[int], plane: Window, depth: Window, **more: Any) -> str:
    """What goes along two axes, and then along that before them; returns the name of the output.

    Args:
        draft: to which the steps are added.
        x: a value ``[samples, depth, height, width, channels]``.
        kernel: of both steps.
        shape: of the output.
        plane: the window along the last two axes.
        depth: that along the first one.
        more: about both steps.
    """
    samples, before, *_ = draft.shape(x)
    _, after, height, width, channels = shape
    planes = draft.view(x, (samples * before, *draft.shape(x)[2:]))
    planes = draft.step(kernel, planes, (samples * before, height, width, channels), window=plane, **more)
    lines = draft.view(planes, (samples, before, height * width, channels))
    return draft.step(kernel, lines, (samples, after, height * width, channels), window=depth, **more)


# --- channels ------------------------------------------------------------------------------------------------------------


def _is_last(site: Site, axis: int) -> bool:
    return axis % site.types[site.x].rank == site.types[site.x].rank - 1


@rule("softmax", "log_softmax")
def _softmax(site: Site) -> Found:
    options, rank, draft = (int(site.node.op == "log_softmax"),), site.types[site.x].rank, site.draft()
    axis = integer(site.attrs, "axis") % rank
    if axis == 0:
        return Refusal("it is over samples")
    order = list(range(rank))
    order[axis], order[-1] = order[-1], order[axis]
    turned = draft.transpose(site.x, order)
    return draft.made(draft.transpose(draft.step("softmax", turned, draft.shape(turned), options=options), order))


@rule("layer_norm")
def _layer_norm(site: Site) -> Found:
    axes, shape, draft = site.axes("axes"), site.shape(site.x), site.draft()
    if 0 in axes:
        return Refusal("it is over samples")
    gamma, beta = site.vector(1), site.vector(2)
    posts = [Post("multiply", channel=gamma)] if gamma is not None else []
    posts += [Post("add", channel=beta)] if beta is not None else []
    # All axes that are normalised over become one.
    order = [*(axis for axis in range(len(shape)) if axis not in axes), *axes]
    turned = draft.transpose(site.x, order)
    sizes = draft.shape(turned)
    joined = draft.reshape(turned, (*sizes[: -len(axes)], prod(sizes[-len(axes) :])))
    numbers = (number(site.attrs, "epsilon"),)
    normalised = draft.step("normalise", joined, draft.shape(joined), numbers=numbers, posts=posts)
    back = [order.index(axis) for axis in range(len(order))]
    return draft.made(draft.transpose(draft.reshape(normalised, sizes), back))


@rule("concat", dtypes=LOGIC)
def _concat(site: Site) -> Found:
    axis, inputs = integer(site.attrs, "axis") % site.types[site.y].rank, site.node.inputs
    if axis == 0:
        return Refusal("it joins samples")
    if any(site.is_constant(name) for name in inputs):
        return Refusal("it joins constants")
    if _is_last(site, axis):
        return [Concat(site.y, tuple(inputs))]
    draft = site.draft()
    name, of_y, before = draft.name(site.shape(site.y)), strides(site.shape(site.y)), 0
    for part in inputs:
        shape = site.shape(part)
        draft.copy(part, name, zip(shape, strides(shape), of_y, strict=True), (0, before * of_y[axis]))
        before += shape[axis]
    return draft.made(name)


@rule("slice", dtypes=LOGIC)
def _slice(site: Site) -> Found:
    rank = site.types[site.x].rank
    axis = integer(site.attrs, "axis") % rank
    ends = slice(*(integer(site.attrs, name) for name in ("start", "stop", "step")))
    start, _, step = ends.indices(site.shape(site.x)[axis])
    if axis == 0:
        return Refusal("it is of samples")
    if axis == rank - 1 and step == 1:
        return [View(site.y, site.x, start)]
    draft, shape = site.draft(), site.shape(site.y)
    if axis == rank - 1:
        name, of_x = draft.name(shape), strides(site.shape(site.x))
        axes = zip(shape, (*of_x[:-1], step * of_x[-1]), strides(shape), strict=True)
        draft.copy(site.x, name, axes, (start * of_x[-1], 0))
        return draft.made(name)
    if axis == rank - 2:
        return [site.step("select", options=(0, 1, start, step))]

    rows = draft.view(site.x, _as_rows(site.shape(site.x), axis))
    return draft.made(draft.step("select", rows, _as_rows(shape, axis), options=(start, step, 0, 1)))


def _as_rows(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    """A shape in which an axis of positions is that of rows: the axes before it are samples, those behind it columns."""
    return (prod(shape[:axis]), shape[axis], prod(shape[axis + 1 : -1]), shape[-1])


@rule("reshape", dtypes=LOGIC | INTEGERS)
def _reshape(site: Site) -> Found:
    return site.draft().made(site.x)


@rule("transpose", dtypes=LOGIC)
def _transpose(site: Site) -> Found:
    permutation, draft = ints(site.attrs, "permutation"), site.draft()
    if permutation[0] != 0:
        return Refusal("it moves the axis of samples")
    return draft.made(draft.transpose(site.x, permutation))


@rule("tile", dtypes=LOGIC)
def _tile(site: Site) -> Found:
    repeats, shape = ints(site.attrs, "repeats"), site.shape(site.x)
    if repeats[0] != 1:
        return Refusal("it repeats samples")
    # Each axis is two: how often it is repeated, and what is.
    sizes = [size for both in zip(repeats, shape, strict=True) for size in both]
    apart = [step for each in strides(shape) for step in (0, each)]
    of_y = [step for size, each in zip(shape, strides(site.shape(site.y)), strict=True) for step in (size * each, each)]
    return [site.step("copy", copy=Copy(in_turn(zip(sizes, apart, of_y, strict=True))))]


# --- elementwise -----------------------------------------------------------------------------------------------------------


def _unary(site: Site, *posts: Post) -> Elementwise:
    return Elementwise({site.x: posts})


@rule("relu")
def _relu(site: Site) -> Found:
    slope, most = number(site.attrs, "negative_slope"), site.attrs["max_value"]
    if number(site.attrs, "threshold") != 0.0:
        return Refusal("it has a threshold")
    high = inf if most is None else number(site.attrs, "max_value")
    if slope == 0.0:
        return _unary(site, Post("clamp", 0.0, high))
    posts = [Post("leaky", slope)] + ([Post("clamp", -inf, high)] if high < inf else [])
    return _unary(site, *posts)


@rule("clip")
def _clip(site: Site) -> Found:
    return _unary(site, Post("clamp", number(site.attrs, "minimum"), number(site.attrs, "maximum")))


@rule("hard_sigmoid")
def _hard_sigmoid(site: Site) -> Found:
    return _unary(site, Post("hard_sigmoid", number(site.attrs, "alpha"), number(site.attrs, "beta")))


@rule("elu")
def _elu(site: Site) -> Found:
    return _unary(site, Post("elu", number(site.attrs, "alpha")))


@rule("gelu")
def _gelu(site: Site) -> Found:
    return _unary(site, Post("gelu_tanh" if site.attrs["approximate"] else "gelu"))


@rule("sigmoid", "tanh", "silu", "selu", "softplus", "softsign", "exp", "log", "sqrt", "abs", "erf")
def _plain(site: Site) -> Found:
    return _unary(site, Post(site.node.op))


POWERS: Final = {
    1.0: (),
    2.0: ("multiply",),
    3.0: ("multiply", "multiply"),
    0.5: ("sqrt",),
    -0.5: ("sqrt", "divide_into"),
    -1.0: ("divide_into",),
}
"""By exponent, the functions that give a power; they multiply with what is raised to it, and divide into one."""


@rule("pow")
def _pow(site: Site) -> Found:
    exponent = site.store.array(site.input(1)) if site.is_constant(site.input(1)) else None
    if exponent is None or exponent.size != 1 or site.is_constant(site.x):
        return Refusal("its exponent is not a number")
    functions = POWERS.get(float(exponent.reshape(())))
    if functions is None:
        return Refusal("it has a kernel for few exponents, not for this one")
    return _unary(site, *(Post(name, 1.0, value=site.x if name == "multiply" else "") for name in functions))


@rule("affine")
def _affine(site: Site) -> Found:
    names = (site.input(position) for position in (1, 2))
    if any(name != ABSENT and not site.is_constant(name) for name in names):
        return Refusal("its scale is computed")
    operands = [(site.input(1), "multiply"), (site.input(2), "add")]
    return _with_constants(site, [(function, site.store.array(name)) for name, function in operands if name != ABSENT])


@rule("batch_norm")
def _batch_norm(site: Site) -> Found:
    rank = site.types[site.x].rank
    axis = integer(site.attrs, "axis") % rank
    if axis == 0:
        return Refusal("it is along samples")
    gamma, beta, mean, variance = (site.vector(position) for position in range(1, 5))
    assert mean is not None
    assert variance is not None
    scale = 1.0 / np.sqrt(variance.astype(np.float64) + number(site.attrs, "epsilon"))
    if gamma is not None:
        scale *= gamma
    operands = [("subtract", mean), ("multiply", scale.astype(np.float32)), *([("add", beta)] if beta is not None else [])]
    behind = (1,) * (rank - 1 - axis)
    return _with_constants(site, [(function, array.reshape(-1, *behind)) for function, array in operands])


@rule("prelu")
def _prelu(site: Site) -> Found:
    if not site.is_constant(site.input(1)):
        return Refusal("its slope is computed")
    return _with_constants(site, [("prelu", site.store.array(site.input(1)))])


def _with_constants(site: Site, operands: Sequence[tuple[str, Array]]) -> Elementwise | Made:
    """Operations with constants, one after the other, each of which broadcasts to the output."""
    posts = [_constant(site, array, function) for function, array in operands]
    known = [post for post in posts if post is not None]
    if len(known) == len(posts):
        return _unary(site, *known)
    draft, shape = site.draft(), site.shape(site.y)
    posts = [
        post or Post(function, value=draft.broadcast(array, shape))
        for post, (function, array) in zip(posts, operands, strict=True)
    ]
    return draft.made(draft.step("map", site.x, shape, posts=posts))


def _constant(site: Site, array: Array, function: str) -> Post | None:
    """An operation with a constant that is a number, or one for each channel; ``None`` for others."""
    channels = site.planes(site.y).channels
    if array.size == 1:
        number_ = float(array.reshape(()))
        # A slope differs from a number in that it is a constant of the channels.
        return Post(function, number_) if function != "prelu" else Post("leaky", number_)
    if array.size == channels == array.shape[-1] and array.ndim <= site.types[site.y].rank:
        return Post(function, channel=np.ascontiguousarray(array, np.float32).reshape(-1))
    return None


BINARY: Final = {
    "add": ("add", "add"),
    "sub": ("subtract", "subtract_from"),
    "mul": ("multiply", "multiply"),
    "div": ("divide", "divide_into"),
    "maximum": ("maximum", "maximum"),
    "minimum": ("minimum", "minimum"),
    "equal": ("equal", "equal"),
    "greater": ("greater", "less"),
}
"""By operator, the function for which its first input is the host, and that for its second."""


@rule("add", "sub", "mul", "div")
@rule("maximum", "minimum", dtypes=LOGIC)
def binary(site: Site) -> Found:
    """What an operation with two inputs is."""
    rank = site.types[site.y].rank
    if any(site.types[name].rank != rank for name in site.node.inputs if not site.is_constant(name)):
        return Refusal("its inputs have not as many axes as its output")
    hosts: dict[str, tuple[Post, ...]] = {}
    for host, other, function in zip(site.node.inputs, reversed(site.node.inputs), BINARY[site.node.op], strict=True):
        if site.is_constant(host) or site.shape(host) != site.shape(site.y):
            continue
        if site.is_constant(other):
            post = _constant(site, site.store.array(other), function)
        else:
            post = with_value(site, other, function)
        if post is not None:
            hosts[host] = (post,)
    return Elementwise(hosts) if hosts else _broadcast(site)


def _broadcast(site: Site) -> Found:
    """An operation whose inputs are repeated before they meet."""
    a, b = site.node.inputs
    function, other = BINARY[site.node.op][0], b
    if site.is_constant(a):
        a, other, function = b, a, BINARY[site.node.op][1]
    draft, shape = site.draft(), site.shape(site.y)
    host = a if site.shape(a) == shape else draft.broadcast(a, shape)
    post = _constant(site, site.store.array(other), function) if site.is_constant(other) else with_value(site, other, function)
    if post is None:
        post = Post(function, value=draft.broadcast(site.store.array(other) if site.is_constant(other) else other, shape))
    return draft.made(draft.step("map", host, shape, posts=[post]))


def with_value(site: Site, name: str, function: str) -> Post | None:
    """An operation with a value that lies as the output does, or has one channel or one position; ``None`` for others."""
    y, other = site.planes(site.y), site.planes(name)
    same_rank = site.types[name].rank == site.types[site.y].rank
    fits = other == y or (other.channels == y.channels and other.height == other.width == 1)
    fits = fits or (other.channels == 1 and (other.height, other.width) == (y.height, y.width))
    return Post(function, value=name) if same_rank and fits and other.samples == y.samples else None
