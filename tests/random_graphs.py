"""Random graphs with planted dead channels, for the proofs of passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from sparsec.ir import BATCH, Array, Graph, Input, Node, Port, TensorType, symbol
from sparsec.ops import get_op, make_node
from sparsec.ops.typing import infer_node

ACTIVATIONS = ("relu", "tanh", "sigmoid", "elu", "softplus", "gelu", "silu")


@dataclass
class RandomGraph:
    """Builds a graph node by node; ``rng`` decides everything."""

    rng: np.random.Generator
    dead: float = 0.4
    types: dict[str, TensorType] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    planted: dict[str, Array] = field(default_factory=dict)
    """Indices of the output channels whose weights were zeroed, by node."""

    def start(self, shape: tuple[int, ...]) -> str:
        self.types["x"] = TensorType("float64", (symbol(BATCH), *shape))
        return "x"

    def node(self, op: str, *inputs: str, **attrs: object) -> str:
        name = f"{op}_{len(self.nodes)}"
        node = make_node(op, name, inputs, [name], name, **attrs)
        types = {**self.types, **{p: TensorType(a.dtype.name, a.shape) for p, a in self.weights.items()}}
        (self.types[name],) = infer_node(node, types)
        self.nodes.append(node)
        return name

    def weight(self, name: str, array: Array) -> str:
        self.weights[name] = np.asarray(array, np.float64)
        return name

    def channels(self, value: str) -> int:
        size = self.types[value].shape[-1]
        assert isinstance(size, int)
        return size

    def _kernel(self, name: str, shape: tuple[int, ...], out_axis: int) -> tuple[str, Array]:
        kernel = self.rng.normal(size=shape) / np.sqrt(np.prod(shape) / shape[out_axis])
        dead = self.rng.random(shape[out_axis]) < self.dead
        np.moveaxis(kernel, out_axis, -1)[..., dead] = 0
        return self.weight(f"{name}/kernel", kernel), np.flatnonzero(dead)

    def linear(self, x: str, units: int, bias: bool, **conv: object) -> str:
        """A dense or conv node with some units zeroed; biases of dead units are not."""
        op = "conv" if conv else "dense"
        name = f"{op}_{len(self.nodes)}"
        window = tuple(conv.pop("window", ()))  # type: ignore[call-overload]
        width = self.channels(x) // int(str(conv.get("groups", 1)))
        kernel, dead = self._kernel(name, (*window, width, units), -1)
        inputs = [x, kernel] + ([self.weight(f"{name}/bias", self.rng.normal(size=units))] if bias else [])
        self.planted[name] = dead
        return self.node(op, *inputs, **conv)

    def conv(self, x: str, filters: int, size: int, padding: str, stride: int, bias: bool) -> str:
        pads = () if padding == "same" else (0, 0, 0, 0)
        return self.linear(
            x, filters, bias, window=(size, size), strides=(stride,) * 2, dilations=(1, 1), padding=padding, pads=pads
        )

    def depthwise(self, x: str, padding: str) -> str:
        name = f"depthwise_conv_{len(self.nodes)}"
        kernel = self.rng.normal(size=(3, 3, self.channels(x), 1))
        kernel[:, :, self.rng.random(self.channels(x)) < self.dead / 2] = 0
        bias = self.weight(f"{name}/bias", self.rng.normal(size=self.channels(x)))
        pads = () if padding == "same" else (0, 0, 0, 0)
        path = self.weight(f"{name}/kernel", kernel)
        return self.node("depthwise_conv", x, path, bias, strides=(1, 1), dilations=(1, 1), padding=padding, pads=pads)

    def batch_norm(self, x: str) -> str:
        name, count = f"batch_norm_{len(self.nodes)}", self.channels(x)
        gamma = self.rng.normal(1, 0.3, count) * (self.rng.random(count) > 0.1)
        stats = [("gamma", gamma), ("beta", self.rng.normal(size=count)), ("mean", self.rng.normal(size=count))]
        paths = [self.weight(f"{name}/{key}", value) for key, value in stats]
        paths.append(self.weight(f"{name}/variance", self.rng.uniform(0.5, 2, count)))
        return self.node("batch_norm", x, *paths, epsilon=1e-3)

    def activation(self, x: str) -> str:
        return self.node(str(self.rng.choice(ACTIVATIONS)), x)

    def graph(self, *outputs: str) -> Graph:
        ports = tuple(Port(f"y{i}", value) for i, value in enumerate(outputs))
        return Graph((Input("x", self.types["x"]),), ports, tuple(self.nodes), self.weights)


def convolutional(seed: int, dead: float = 0.4) -> tuple[Graph, RandomGraph]:
    """A small network of everything that channel facts flow through; ``seed`` decides its topology and weights."""
    rng = np.random.default_rng(seed)
    g = RandomGraph(rng, dead)
    x = g.start((9, 9, int(rng.integers(1, 4))))
    extra: list[str] = []
    for _ in range(int(rng.integers(2, 6))):
        x = _block(g, rng, x)
        if rng.random() < 0.1:
            extra.append(g.node("reduce_mean", x, axes=(1, 2)))
    if rng.random() < 0.5:
        x = g.node("reshape", x, shape=(0, -1))
    else:
        x = g.node(str(rng.choice(["reduce_mean", "reduce_max"])), x, axes=(1, 2))
    if rng.random() < 0.5:
        x = g.batch_norm(x)
    x = g.activation(g.linear(x, int(rng.integers(2, 8)), bool(rng.random() < 0.7)))
    x = g.linear(x, 3, bias=True)
    return g.graph(x, *extra), g


def _block(g: RandomGraph, rng: np.random.Generator, x: str) -> str:
    def conv(value: str, filters: int) -> str:
        y = g.conv(value, filters, int(rng.choice([1, 3])), "same", 1, bool(rng.random() < 0.5))
        y = g.batch_norm(y) if rng.random() < 0.6 else y
        return g.activation(y) if rng.random() < 0.8 else y

    width = int(rng.integers(2, 8))
    match int(rng.integers(0, 13)):
        case 0:
            return g.node("add", conv(x, width), conv(x, width))
        case 1:
            return g.node("concat", conv(x, width), conv(x, int(rng.integers(2, 5))), axis=-1)
        case 2:
            roomy = min(g.types[x].shape[1:3]) >= 3  # type: ignore[type-var]
            return g.activation(g.depthwise(conv(x, width), str(rng.choice(["same", "explicit"])) if roomy else "same"))
        case 3 if g.types[x].shape[1] >= 4:  # type: ignore[operator]
            op = str(rng.choice(["max_pool", "avg_pool"]))
            return g.node(op, conv(x, width), window=(2, 2), strides=(2, 2), dilations=(1, 1), padding="same")
        case 4:
            return g.node("pad", conv(x, width), pads=(1, 0, 1, 1))
        case 5:
            first = conv(x, width)
            return g.node("add", first, conv(first, width))
        case 6:
            # One layer called twice.
            y = conv(x, width)
            shared = g.linear(
                y, width, True, window=(1, 1), strides=(1, 1), dilations=(1, 1), padding="explicit", pads=(0,) * 4
            )
            node = g.nodes[-1]
            again = g.node("conv", shared, *node.inputs[1:], **get_op("conv").complete(node.attrs))
            return g.node("maximum", shared, again)
        case 7:
            # Squeeze and excite: a gate from the mean of every channel.
            y = conv(x, width)
            gate = g.node("relu", g.linear(g.node("reduce_mean", y, axes=(1, 2)), 3, bias=True))
            gate = g.node("sigmoid", g.linear(gate, width, bias=True))
            return g.node("mul", y, g.node("reshape", gate, shape=(0, 1, 1, width)))
        case kind if kind >= 9:
            return _rare_block(g, rng, x, width, conv)
    size = int(rng.choice([1, 2])) if min(g.types[x].shape[1:3]) >= 2 else 1  # type: ignore[type-var]
    return g.activation(g.conv(x, width, size, "explicit", 1, bool(rng.random() < 0.5)))


def _rare_block(g: RandomGraph, rng: np.random.Generator, x: str, width: int, conv: Callable[[str, int], str]) -> str:
    match int(rng.integers(0, 4)):
        case 0:
            # Groups, the input of which may be bordered.
            groups = int(rng.choice([2, 3]))
            y = conv(x, groups * int(rng.integers(1, 4)))
            y = g.node("pad", y, pads=(1, 0, 0, 1)) if rng.random() < 0.3 else y
            same = {"strides": (1, 1), "dilations": (1, 1), "padding": "same", "pads": ()}
            return g.linear(y, groups * int(rng.integers(1, 4)), True, window=(3, 3), groups=groups, **same)
        case 1:
            # A border, and a maximum or a mean over it.
            y = g.node("pad", conv(x, width), pads=(1, 1, 1, 1))
            op = str(rng.choice(["max_pool", "avg_pool"]))
            return g.node(op, y, window=(3, 3), strides=(2, 2), dilations=(1, 1), padding="explicit", pads=(0, 0, 0, 0))
        case 2:
            # One value for several readers behind zero padding, one of them bordered.
            y = conv(x, width)
            return g.node("add", g.conv(y, 4, 3, "same", 1, True), conv(g.node("tanh", y), 4))
        case _:
            # Units that become positions.
            height, breadth = (int(str(size)) for size in g.types[x].shape[1:3])
            y = g.activation(g.linear(g.node("reduce_mean", x, axes=(1, 2)), height * breadth * 3, True))
            return g.node("concat", x, g.node("reshape", y, shape=(0, height, breadth, 3)), axis=-1)
