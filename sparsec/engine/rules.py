"""What the engine does for each operator: one rule each, entered in a table.

A rule sees a node whose values are of dtypes that it takes, and have two to four axes, the batch first, and known sizes. It
gives the items that compute the node, or a refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Final

import numpy as np

from sparsec.encodings.stored import normal_rows
from sparsec.engine.costs import is_too_large
from sparsec.engine.phases import Axis, Phases
from sparsec.engine.steps import (
    Concat,
    Elementwise,
    Item,
    Made,
    Planes,
    Post,
    Product,
    Refusal,
    Step,
    View,
    Window,
    multiplying,
)
from sparsec.ir import ABSENT, Array, Attrs, Node, TensorType
from sparsec.kernels import WeightStore
from sparsec.ops import get_op
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

    def step(self, kernel: str, **more: Any) -> Step:
        """A step that computes the node from its first input."""
        return Step(kernel, self.x, self.y, [self.node], **more)


Rule = Callable[[Site], Found]

RULES: Final[dict[str, Rule]] = {}
"""By operator."""

FLOATS: Final = frozenset({"float32"})
LOGIC: Final = FLOATS | {"bool"}

DTYPES: Final[dict[str, frozenset[str]]] = {}
"""By operator, the dtypes of the values with which its rule deals; in a native plan they all are float32."""


def rule(*ops: str, dtypes: frozenset[str] = FLOATS) -> Callable[[Rule], Rule]:
    """Enters a rule in the table, with the dtypes of the values with which it deals."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, function))
        DTYPES.update(dict.fromkeys(ops, dtypes))
        return function

    return enter


# --- products ------------------------------------------------------------------------------------------------------------


def _pair(values: Sequence[int], fill: int) -> tuple[int, int]:
    """The sizes along two axes, where one may be missing."""
    return (values[0], values[1]) if len(values) == 2 else (fill, values[0])


def _window(site: Site, size: Sequence[int]) -> Window:
    pads = [before for before, _ in axis_pads(site.attrs, site.shape(site.x)[1:-1], size)]
    strides, dilations = ints(site.attrs, "strides"), ints(site.attrs, "dilations")
    return Window(_pair(size, 1), _pair(strides, 1), _pair(dilations, 1), _pair(pads, 0))


def refuse_weights(site: Site, names: Sequence[str]) -> Refusal | None:
    """Why a node cannot multiply with its weights; ``None`` where it can.

    Args:
        site: the node.
        names: of its weights and of the constants that belong to them, which may be left out.
    """
    if any(name != ABSENT and not site.is_constant(name) for name in names):
        return Refusal("its weights are computed")
    for index, rows in get_op(site.node.op).matrix_rows.items():
        weight = site.store.weight(site.input(index))
        if weight.dtype != "float32":
            return Refusal(f"its weight is {weight.dtype}")
        if weight.rows != normal_rows(rows, len(weight.shape)):
            return Refusal(f"its weight is stored with rows {weight.rows}")
    return None


def _refuse_weight(site: Site) -> Refusal | None:
    return refuse_weights(site, site.node.inputs[1:])


@rule("dense")
def _dense(site: Site) -> Found:
    kernel = multiplying(site.planes(site.y))
    return _refuse_weight(site) or [site.step(kernel, product=Product(site.input(1)), bias=site.vector(2))]


@rule("conv")
def _conv(site: Site) -> Found:
    refusal = _refuse_weight(site)
    if refusal:
        return refusal
    size, groups = site.store.weight(site.input(1)).shape[:-2], integer(site.attrs, "groups")
    window = _window(site, size)
    if groups == site.planes(site.x).channels > 1:
        return [_by_channel(site, window)]
    if is_too_large(window):
        return Refusal("its window is too large")
    product = Product(site.input(1), groups)
    kernel = multiplying(site.planes(site.y)) if window.is_point else "windows"
    return [site.step(kernel, product=product, bias=site.vector(2), window=window)]


@rule("depthwise_conv")
def _depthwise(site: Site) -> Found:
    refusal = _refuse_weight(site)
    if refusal:
        return refusal
    return [_by_channel(site, _window(site, site.store.weight(site.input(1)).shape[:-2]))]


def _by_channel(site: Site, window: Window) -> Step:
    """A convolution of each channel by itself; its kernel: ``[*window, 1, filters]`` or ``[*window, channels, multiplier]``."""
    channels, filters = site.planes(site.x).channels, site.planes(site.y).channels
    rows = np.ascontiguousarray(site.store.array(site.input(1)).reshape(-1, filters).T)
    return site.step("depthwise", weights=rows, bias=site.vector(2), window=window, options=(filters // channels,))


@rule("conv_transpose")
def _conv_transpose(site: Site) -> Found:
    refusal = _refuse_weight(site)
    if refusal:
        return refusal
    x, y, phases = site.planes(site.x), site.planes(site.y), _phases(site)
    spread, window = phases.planes(y), phases.window
    if is_too_large(window):
        return Refusal("its window is too large")
    # Crops may leave fewer positions than the input has, or append some.
    is_point = window.is_point and (x.height, x.width) == (spread.height, spread.width)
    kernel = multiplying(spread) if is_point else "windows"
    product, bias = Product(site.input(1), phases=phases), site.vector(2)
    if phases.count == 1:
        return [site.step(kernel, product=product, bias=bias, window=window)]
    name = f"{site.y}.phases"
    biases = None if bias is None else np.tile(bias, phases.count)
    convolution = Step(kernel, site.x, name, [site.node], product=product, bias=biases, window=window)
    interleaving = Step("interleave", name, site.y, [site.node], window=Window(strides=phases.strides))
    return Made([convolution, interleaving], {name: spread})


def _phases(site: Site) -> Phases:
    x, y = site.planes(site.x), site.planes(site.y)
    size = _pair(site.store.weight(site.input(1)).shape[:-2], 1)
    strides, dilations = (_pair(ints(site.attrs, name), 1) for name in ("strides", "dilations"))
    crops = _pair(ints(site.attrs, "crops")[::2], 0)
    rows, columns = zip(size, strides, dilations, crops, strict=True)
    return Phases((Axis.of(*rows, x.height, y.height), Axis.of(*columns, x.width, y.width)))


# --- positions -----------------------------------------------------------------------------------------------------------


@rule("max_pool", "avg_pool")
def _pool(site: Site) -> Found:
    return [site.step(site.node.op, window=_window(site, ints(site.attrs, "window")))]


REDUCTIONS: Final = {"reduce_mean": 0, "reduce_sum": 1, "reduce_max": 2}
"""By operator, the number of the reduction over all positions of a sample."""

GREATEST_CHANNEL: Final = 3
"""The number of the reduction over the channels of a position."""


@rule("reduce_mean", "reduce_sum")
def _reduce(site: Site) -> Found:
    rank = site.types[site.x].rank
    axes = sorted(axis % rank for axis in ints(site.attrs, "axes"))
    if axes != list(range(1, rank - 1)):
        return Refusal(f"it reduces axes {axes}, not all positions")
    return [site.step("reduce", options=(REDUCTIONS[site.node.op],))]


@rule("reduce_max", dtypes=LOGIC)
def _reduce_max(site: Site) -> Found:
    x, y = site.planes(site.x), site.planes(site.y)
    axes = ints(site.attrs, "axes")
    if len(axes) != 1 or not _is_last(site, axes[0]):
        return _reduce(site)
    options = (GREATEST_CHANNEL,)
    if y.channels == 1:
        return [site.step("reduce", options=options)]
    # Without an axis for it, the axis before becomes that of the channels.
    if y.height * y.width > 1:
        return Refusal("it reduces the channels of several rows to none")
    name = f"{site.y}.greatest"
    greatest = Step("reduce", site.x, name, [site.node], options=options)
    return Made([greatest, Step("flatten", name, site.y, [site.node])], {name: replace(x, channels=1)})


@rule("pad")
def _pad(site: Site) -> Found:
    before = ints(site.attrs, "pads")[::2]
    return [site.step("map", window=Window(pads=_pair(before, 0)))]


@rule("resize")
def _resize(site: Site) -> Found:
    return [site.step("resize", options=(int(site.attrs["method"] == "linear"),))]


# --- channels ------------------------------------------------------------------------------------------------------------


def _is_last(site: Site, axis: int) -> bool:
    return axis % site.types[site.x].rank == site.types[site.x].rank - 1


@rule("softmax", "log_softmax")
def _softmax(site: Site) -> Found:
    if not _is_last(site, integer(site.attrs, "axis")):
        return Refusal("it is not along the channels")
    return [site.step("softmax", options=(int(site.node.op == "log_softmax"),))]


@rule("layer_norm")
def _layer_norm(site: Site) -> Found:
    axes = ints(site.attrs, "axes")
    if len(axes) != 1 or not _is_last(site, axes[0]):
        return Refusal("it is not along the channels alone")
    gamma, beta = site.vector(1), site.vector(2)
    posts = [Post("multiply", channel=gamma)] if gamma is not None else []
    posts += [Post("add", channel=beta)] if beta is not None else []
    return [site.step("normalise", numbers=(number(site.attrs, "epsilon"),), posts=posts)]


@rule("concat", dtypes=LOGIC)
def _concat(site: Site) -> Found:
    if not _is_last(site, integer(site.attrs, "axis")):
        return Refusal("it is not along the channels")
    if any(site.is_constant(name) for name in site.node.inputs):
        return Refusal("it joins constants")
    return [Concat(site.y, tuple(site.node.inputs))]


@rule("slice", dtypes=LOGIC)
def _slice(site: Site) -> Found:
    rank = site.types[site.x].rank
    axis = integer(site.attrs, "axis") % rank
    ends = slice(*(integer(site.attrs, name) for name in ("start", "stop", "step")))
    start, _, step = ends.indices(site.shape(site.x)[axis])
    if axis == 0:
        return Refusal("it is of samples")
    if axis < rank - 1:
        rows = rank == 4 and axis == 1
        return [site.step("select", options=(start, step, 0, 1) if rows else (0, 1, start, step))]
    return [View(site.y, site.x, start)] if step == 1 else Refusal("it is not of neighbouring channels")


@rule("reshape", dtypes=LOGIC)
def _reshape(site: Site) -> Found:
    x, y = site.planes(site.x), site.planes(site.y)
    if x.channels == y.channels:
        return [View(site.y, site.x)]
    flat = f"{site.y}.flat"
    items: list[Item] = []
    source = site.x
    if x.height * x.width > 1:
        source = site.y if y.height * y.width == 1 else flat
        items.append(Step("flatten", site.x, source, [site.node]))
    if y.height * y.width > 1:
        items.append(Step("unflatten", source, site.y, [site.node]))
    return Made(items, {flat: Planes(x.samples, 1, 1, x.height * x.width * x.channels)} if source == flat else {})


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


@rule("affine")
def _affine(site: Site) -> Found:
    scale, shift = (_constant(site, site.input(position), name) for position, name in ((1, "multiply"), (2, "add")))
    if scale is None or (site.input(2) != ABSENT and shift is None):
        return Refusal("its scale is not one for each channel")
    return _unary(site, scale, *([shift] if shift else []))


@rule("batch_norm")
def _batch_norm(site: Site) -> Found:
    if not _is_last(site, integer(site.attrs, "axis")):
        return Refusal("it is not along the channels")
    gamma, beta, mean, variance = (site.vector(position) for position in range(1, 5))
    assert mean is not None
    assert variance is not None
    scale = 1.0 / np.sqrt(variance.astype(np.float64) + number(site.attrs, "epsilon"))
    if gamma is not None:
        scale *= gamma
    posts = [Post("subtract", channel=mean), Post("multiply", channel=scale.astype(np.float32))]
    return _unary(site, *posts, *([Post("add", channel=beta)] if beta is not None else []))


@rule("prelu")
def _prelu(site: Site) -> Found:
    slope = _constant(site, site.input(1), "prelu")
    return Refusal("its slope is not one for each channel") if slope is None else _unary(site, slope)


def _constant(site: Site, name: str, function: str) -> Post | None:
    """An operation with a constant that is a number, or one for each channel."""
    if name == ABSENT or not site.is_constant(name):
        return None
    array = site.store.array(name)
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
}
"""By operator, the function for which its first input is the host, and that for its second."""


@rule("add", "sub", "mul", "div")
@rule("maximum", "minimum", dtypes=LOGIC)
def binary(site: Site) -> Found:
    """What an operation with two inputs is."""
    hosts: dict[str, tuple[Post, ...]] = {}
    for host, other, function in zip(site.node.inputs, reversed(site.node.inputs), BINARY[site.node.op], strict=True):
        if site.is_constant(host) or site.shape(host) != site.shape(site.y):
            continue
        post = _constant(site, other, function) if site.is_constant(other) else with_value(site, other, function)
        if post is not None:
            hosts[host] = (post,)
    return Elementwise(hosts) if hosts else Refusal("its inputs do not broadcast in a way that is known")


def with_value(site: Site, name: str, function: str) -> Post | None:
    """An operation with a value that lies as the output does, or has one channel or one position; ``None`` for others."""
    y, other = site.planes(site.y), site.planes(name)
    same_rank = site.types[name].rank == site.types[site.y].rank
    fits = other == y or (other.channels == y.channels and other.height == other.width == 1)
    fits = fits or (other.channels == 1 and (other.height, other.width) == (y.height, y.width))
    return Post(function, value=name) if same_rank and fits and other.samples == y.samples else None
