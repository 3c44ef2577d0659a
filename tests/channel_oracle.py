"""What could go, found by brute force: an oracle for the completeness of shrinking that shares no rule with it.

Ties are kept the plain way, one number for each channel. Everything else is measured: a channel is constant if it is the same
for every input in float64, it is unread if noise in it moves no output, and a constant can be made good if what a linear
operator makes of it is one number at every position, or a multiple of what it makes of a channel that stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsec.ir import ABSENT, Array, Graph, Node
from sparsec.ops import get_op, infer_types

EQUAL = 1e-9
"""Of the largest magnitude, or of 1 where that is less."""

LEAST_SHARE = 2e-2
"""A channel that is a multiple of another carries it unless it is much smaller."""

ALIVE, NOT_A_BIAS, INTO_SHARED, LAST = "alive", "not the same everywhere", "into a shared layer", "the last of a value"
"""Why a class may stay, beside the operators that keep all channels."""

LINEAR = {"conv": -2, "dense": 0, "conv_transpose": -1}
"""Operators that sum over channels, with the axis of their kernel along the input's."""

UNIT_AXIS = {"conv": -1, "dense": 1, "conv_transpose": -2}

POINTWISE = frozenset(
    [
        "abs",
        "add",
        "affine",
        "batch_norm",
        "cast",
        "clip",
        "div",
        "elu",
        "exp",
        "gelu",
        "hard_sigmoid",
        "maximum",
        "minimum",
        "mul",
        "prelu",
        "relu",
        "selu",
        "sigmoid",
        "silu",
        "softplus",
        "softsign",
        "sqrt",
        "sub",
        "tanh",
    ]
)
POSITIONAL = frozenset(["avg_pool", "max_pool", "pad", "resize"])
FACTORS = {"batch_norm": (1,), "affine": (1,), "mul": (0, 1)}
"""Operators that make a constant of anything where they multiply it by zero, with the inputs that may be it."""


@dataclass(frozen=True)
class Slice:
    """One index of one axis of a weight: a unit of a kernel, a row that reads a channel, or an entry of a vector."""

    path: str
    axis: int
    index: int
    group: int = 0
    """Of a row of a grouped convolution: the group whose filters it is a row of."""
    groups: int = 1

    def zero(self, array: Array) -> None:
        """Zero it in the weight."""
        width = array.shape[-1] // self.groups
        part = array[..., self.group * width : (self.group + 1) * width]
        part[(*(slice(None),) * self.axis, self.index)] = 0


@dataclass
class Class:
    """Channels that can only go together.

    Attributes:
        members: as (value, channel).
        units: columns and filters that produce them.
        rows: of kernels that read them.
        vectors: biases and parameters of normalisation.
        kept: why they have to stay whatever they hold; empty if they do not.
    """

    members: list[tuple[str, int]] = field(default_factory=list)
    units: list[Slice] = field(default_factory=list)
    rows: list[Slice] = field(default_factory=list)
    vectors: list[Slice] = field(default_factory=list)
    kept: str = ""


class Ties:
    """The classes of a graph.

    Attributes:
        ids: the number of each channel, by value.
    """

    def __init__(self, graph: Graph) -> None:
        self._parents: list[int] = []
        self._kept: list[tuple[int, str]] = []
        self._units: list[tuple[int, Slice]] = []
        self._rows: list[tuple[int, Slice]] = []
        self._vectors: list[tuple[int, Slice]] = []
        self._of_units: dict[tuple[str, int], int] = {}
        self.ids: dict[str, list[int]] = {}
        self._graph = graph
        self._shapes = {name: type_.shape for name, type_ in infer_types(graph).items()}
        for port in graph.inputs:
            self._opaque((), (port.name,), "input")
        for node in graph.nodes:
            self._visit(node)
        for port in graph.outputs:
            self._keep(port.value, "output")

    def classes(self) -> list[Class]:
        found: dict[int, Class] = {}

        def of(number: int) -> Class:
            return found.setdefault(self._root(number), Class())

        for name, numbers in self.ids.items():
            for channel, number in enumerate(numbers):
                of(number).members.append((name, channel))
        for number, slice_ in dict.fromkeys(self._units):
            of(number).units.append(slice_)
        for number, slice_ in dict.fromkeys(self._rows):
            of(number).rows.append(slice_)
        for number, slice_ in dict.fromkeys(self._vectors):
            of(number).vectors.append(slice_)
        for number, reason in self._kept:
            of(number).kept = of(number).kept or reason
        return list(found.values())

    def numbers(self, name: str) -> list[int]:
        """The number of the class of each channel of a value."""
        return [self._root(number) for number in self.ids[name]]

    def gone_numbers(self, gone: Callable[[Slice], bool]) -> set[int]:
        """The numbers of the classes whose units are gone."""
        return {self._root(number) for number, unit in self._units if gone(unit)}

    def _fresh(self) -> int:
        self._parents.append(len(self._parents))
        return self._parents[-1]

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def _tie(self, a: int, b: int) -> None:
        self._parents[self._root(a)] = self._root(b)

    def _keep(self, name: str, reason: str) -> None:
        self._kept += [(number, reason) for number in self.ids.get(name, ())]

    def _opaque(self, inputs: Sequence[str], outputs: Sequence[str], reason: str) -> None:
        for name in inputs:
            self._keep(name, reason)
        for name in outputs:
            size = self._shapes[name][-1] if len(self._shapes[name]) > 1 else 0
            self.ids[name] = [self._fresh() for _ in range(size if isinstance(size, int) else 0)]
            self._keep(name, reason)

    def _unit(self, path: str, axis: int, index: int) -> int:
        number = self._of_units.setdefault((path, index), -1)
        if number < 0:
            number = self._of_units[path, index] = self._fresh()
        self._units.append((number, Slice(path, axis, index)))
        return number

    def _visit(self, node: Node) -> None:
        computed = [name for name in node.inputs if name != ABSENT and name not in self._graph.weights]
        numbers = self._through(node, computed)
        if numbers is None:
            self._opaque(computed, node.outputs, node.op)
        else:
            self.ids[node.output] = numbers

    def _through(self, node: Node, computed: list[str]) -> list[int] | None:
        """The numbers of the output's channels; ``None`` for what keeps all channels."""
        attrs = node.attrs
        if not computed or len(node.outputs) != 1:
            return None
        x, rank = computed[0], len(self._shapes[computed[0]])
        if node.op in LINEAR:
            return self._linear(node) if computed == [node.inputs[0]] else None
        if node.op == "depthwise_conv":
            return self._depthwise(node)
        if node.op in ("batch_norm", "affine") and (attrs.get("axis", -1) != -1 or len(computed) > 1):
            return None
        if node.op in POINTWISE:
            return self._pointwise(node, computed)
        if node.op in POSITIONAL:
            return self.ids[x]
        if node.op == "concat":
            return self._concat(computed, attrs["axis"] in (-1, rank - 1))
        if node.op in ("reduce_mean", "reduce_max", "slice"):
            axes = attrs.get("axes", attrs.get("axis"))
            axes = axes if isinstance(axes, tuple) else (axes,)
            return None if -1 in axes or rank - 1 in axes else self.ids[x]
        if node.op == "tile":
            return self.ids[x] if attrs["repeats"][-1] == 1 else None  # type: ignore[index]
        if node.op == "transpose":
            return self.ids[x] if attrs["permutation"][-1] == rank - 1 else None  # type: ignore[index]
        if node.op == "reshape":
            return self._reshape(x, self._shapes[node.output][-1])
        return None

    def _reshape(self, x: str, after: Any) -> list[int] | None:
        ids = self.ids[x]
        if not ids or not isinstance(after, int) or (after % len(ids) and len(ids) % after):
            return None
        for a, b in zip(ids, ids[after:], strict=False):
            self._tie(a, b)
        return ids[:after] * max(after // len(ids), 1)

    def _linear(self, node: Node) -> list[int]:
        kernel = self._graph.weights[node.inputs[1]]
        in_axis, out_axis = LINEAR[node.op] % kernel.ndim, UNIT_AXIS[node.op] % kernel.ndim
        groups, width = int(node.attrs.get("groups", 1)), kernel.shape[in_axis]  # type: ignore[arg-type]
        for index, number in enumerate(self.ids[node.inputs[0]]):
            self._rows.append((number, Slice(node.inputs[1], in_axis, index % width, index // width, groups)))
        # A kernel applied twice ties what it reads.
        for index, number in enumerate(self.ids[node.inputs[0]]):
            self._tie(self._of_units.setdefault((f"{node.inputs[1]} reads", index), number), number)
        numbers = [self._unit(node.inputs[1], out_axis, index) for index in range(kernel.shape[out_axis])]
        self._vector(node, 2, numbers)
        return numbers

    def _depthwise(self, node: Node) -> list[int]:
        kernel, numbers = self._graph.weights[node.inputs[1]], self.ids[node.inputs[0]]
        for index, number in enumerate(numbers):
            self._tie(self._unit(node.inputs[1], kernel.ndim - 2, index), number)
        outputs = [number for number in numbers for _ in range(kernel.shape[-1])]
        self._vector(node, 2, outputs)
        return outputs

    def _vector(self, node: Node, index: int, numbers: list[int]) -> None:
        name = node.inputs[index] if index < len(node.inputs) else ABSENT
        weight = self._graph.weights.get(name)
        if weight is None or weight.ndim == 0 or weight.shape[-1] != len(numbers):
            return
        for channel, number in enumerate(numbers):
            self._vectors.append((number, Slice(name, weight.ndim - 1, channel)))
            self._tie(self._of_units.setdefault((name, channel), number), number)

    def _pointwise(self, node: Node, computed: list[str]) -> list[int] | None:
        count = max(len(self.ids[name]) for name in computed)
        if any(len(self.ids[name]) not in (1, count) for name in computed):
            return None
        # What has a single channel broadcasts, and is tied to none of many.
        computed = [name for name in computed if len(self.ids[name]) == count]
        first = self.ids[computed[0]]
        weights = [self._graph.weights[name] for name in node.inputs if name in self._graph.weights]
        if any(w.ndim and w.shape[-1] not in (1, len(first)) for w in weights):
            return None
        for name in computed[1:]:
            for a, b in zip(first, self.ids[name], strict=True):
                self._tie(a, b)
        for index, name in enumerate(node.inputs):
            if name in self._graph.weights:
                self._vector(node, index, first)
        return first

    def _concat(self, computed: list[str], along_channels: bool) -> list[int]:
        if along_channels:
            return [number for name in computed for number in self.ids[name]]
        for name in computed[1:]:
            for a, b in zip(self.ids[computed[0]], self.ids[name], strict=True):
                self._tie(a, b)
        return self.ids[computed[0]]


Noise = Mapping[str, Sequence[int]]


def all_values(graph: Graph, inputs: Sequence[Array], noise: Noise | None = None) -> dict[str, Array]:
    """Every value of a graph; ``noise`` goes into some channels of some of them."""
    rng = np.random.default_rng(0)
    values = dict(graph.weights) | {port.name: array for port, array in zip(graph.inputs, inputs, strict=True)}
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            arguments = [None if name == ABSENT else values[name] for name in node.inputs]
            for name, array in zip(node.outputs, get_op(node.op).evaluate(node.attrs, arguments), strict=True):
                values[name] = array
                if noise and name in noise and array.dtype.kind == "f":
                    values[name] = array.copy()
                    picked = [*noise[name]]
                    values[name][..., picked] += 100 * rng.normal(size=(*array.shape[:-1], len(picked)))
    return values


class Oracle:
    """What is known of the channels of a graph with float64 weights, measured on a few inputs."""

    def __init__(self, graph: Graph, inputs: Sequence[Array]) -> None:
        self._graph, self._inputs = graph, inputs
        self._values = all_values(graph, inputs)
        self.ties = Ties(graph)
        self.constant: dict[str, np.ndarray] = {
            port.name: np.zeros(len(self.ties.ids[port.name]), bool) for port in graph.inputs
        }
        for node in graph.nodes:
            for name in node.outputs:
                self.constant[name] = self._constant(node, name)

    def verdict(self, class_: Class, gone: Set[int]) -> str:
        """Empty if a class could go where those in ``gone`` went; else why it may stay."""
        if class_.kept:
            return class_.kept
        alive: dict[str, list[int]] = {}
        for name, channel in class_.members:
            if not self.constant[name][channel]:
                alive.setdefault(name, []).append(channel)
        if alive and self._read(alive):
            return ALIVE
        return self._cannot_absorb(class_, gone) or self._last(class_, gone)

    def _constant(self, node: Node, name: str) -> np.ndarray:
        """The channels that do not depend on the input, for a reason and not by luck."""
        count = len(self.ties.ids[name])
        value = self._values[name]
        if not count or value.shape[-1] != count:
            return np.zeros(count, bool)
        flat = value.reshape(value.shape[0], -1, count).astype(np.float64)
        same = np.ptp(flat, axis=0).max(axis=0) <= EQUAL * np.maximum(1, np.abs(flat).max(axis=(0, 1)))
        return np.asarray(same & self._reason(node, count))

    def _reason(self, node: Node, count: int) -> np.ndarray:
        """Where an output that does not change follows from inputs that do not, or from weights that are zero."""
        computed = [name for name in node.inputs if name in self.constant]
        if node.op in LINEAR and computed == [node.inputs[0]]:
            # What padding makes of constants is a map of its own for each channel, known to nobody else.
            flat = self._values[node.output].reshape(-1, count)
            return self._linear(node) & (np.ptp(flat, axis=0) <= EQUAL * np.maximum(1, np.abs(flat).max(axis=0)))
        if node.op in FACTORS:
            return self._all(computed, count) | self._times_zero(node, count)
        if node.op == "depthwise_conv":
            kernel = self._graph.weights[node.inputs[1]].reshape(-1, count)
            return np.repeat(self.constant[computed[0]], count // self.constant[computed[0]].size) | ~kernel.any(axis=0)
        if node.op == "concat":
            return (
                np.concatenate([self.constant[name] for name in computed]) if self._joins(node) else self._all(computed, count)
            )
        if node.op == "reshape":
            before = self.constant[computed[0]]
            if before.size and count % before.size == 0:
                return np.tile(before, count // before.size)
            return before.reshape(-1, count).all(axis=0) if before.size % count == 0 else np.full(count, before.all())
        return self._all(computed, count)

    def _times_zero(self, node: Node, count: int) -> np.ndarray:
        """The channels that are multiplied by zero."""
        zero = np.zeros(count, bool)
        for name in (node.inputs[index] for index in FACTORS[node.op]):
            if name == ABSENT:
                continue
            factor = self._values[name]
            nothing = (factor == 0).reshape(-1, factor.shape[-1] if factor.ndim else 1).all(axis=0)
            zero |= nothing & self.constant.get(name, np.ones(1, bool))
        return zero

    def _all(self, computed: Sequence[str], count: int) -> np.ndarray:
        masks = [self.constant[name] for name in computed]
        if any(mask.size not in (1, count) for mask in masks):
            return np.full(count, all(mask.all() for mask in masks))
        return np.logical_and.reduce([np.broadcast_to(mask, count) for mask in masks]) if masks else np.ones(count, bool)

    def _joins(self, node: Node) -> bool:
        return node.attrs["axis"] in (-1, self._values[node.output].ndim - 1)

    def _linear(self, node: Node) -> np.ndarray:
        kernel, groups = self._graph.weights[node.inputs[1]], int(node.attrs.get("groups", 1))  # type: ignore[arg-type]
        used = np.moveaxis(kernel != 0, (LINEAR[node.op], UNIT_AXIS[node.op]), (-2, -1))
        used = used.reshape(-1, *used.shape[-2:]).any(axis=0)
        varying = ~self.constant[node.inputs[0]].reshape(groups, -1)
        parts = np.split(used, groups, axis=1)
        return np.concatenate([~part[rows].any(axis=0) for rows, part in zip(varying, parts, strict=True)])

    def _read(self, channels: Noise) -> bool:
        moved = all_values(self._graph, self._inputs, channels)
        return any(not np.array_equal(moved[port.value], self._values[port.value]) for port in self._graph.outputs)

    def _cannot_absorb(self, class_: Class, gone: Set[int]) -> str:
        """Why nothing makes good what the linear operators make of the class's constants; empty if something does."""
        for node in self._graph.nodes:
            name = node.inputs[0]
            if node.op not in LINEAR or name not in self.constant:
                continue
            channels = [c for member, c in class_.members if member == name and self.constant[name][c]]
            x = np.zeros_like(self._values[name])
            x[..., channels] = self._values[name][..., channels]
            (y,) = get_op(node.op).evaluate(node.attrs, [x, self._graph.weights[node.inputs[1]], None])
            y = y.reshape(-1, y.shape[-1])
            if y.any() and sum(other.inputs[1:2] == node.inputs[1:2] for other in self._graph.nodes) > 1:
                return INTO_SHARED
            differs = (np.ptp(y, axis=0) > EQUAL * np.maximum(1, np.abs(y).max(axis=0))).any()
            if differs and not all(self._carried(node, channel, gone) for channel in channels):
                return NOT_A_BIAS
        return ""

    def _carried(self, node: Node, channel: int, gone: Set[int]) -> bool:
        """Whether another channel of the same group stays that is a multiple of this one, and not a small one."""
        value, numbers = self._values[node.inputs[0]][:1], self.ties.numbers(node.inputs[0])
        groups = int(node.attrs.get("groups", 1))  # type: ignore[arg-type]
        width = value.shape[-1] // groups
        mine = value[..., channel]
        peak = np.argmax(np.abs(mine))
        for other in range(channel // width * width, (channel // width + 1) * width):
            if numbers[other] == numbers[channel] or numbers[other] in gone or not self.constant[node.inputs[0]][other]:
                continue
            ratio = value[..., other].flat[peak] / mine.flat[peak] if mine.any() else 0.0
            if abs(ratio) > LEAST_SHARE and np.abs(value[..., other] - ratio * mine).max() <= EQUAL:
                return True
        return not mine.any()

    def _last(self, class_: Class, gone: Set[int]) -> str:
        """Whether some value would lose its last channel with this class."""
        own = {self.ties.numbers(name)[channel] for name, channel in class_.members[:1]}
        for name in dict.fromkeys(name for name, _ in class_.members):
            if all(number in gone or number in own for number in self.ties.numbers(name)):
                return LAST
        return ""
