"""The ONNX backend: every operator in ONNX Runtime against its reference, layouts, storage, and the file."""

from __future__ import annotations

import builtins
import itertools
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sparsec
from sparsec.backends.onnx import LAYOUT_KEY, OPSETS, export_onnx, make_draft, to_model
from sparsec.backends.onnx import export as export_module
from sparsec.backends.onnx import writer as writer_module
from sparsec.backends.onnx.assign import Placement
from sparsec.backends.onnx.cut import Network
from sparsec.backends.onnx.layout import Demand, Layout, order_of
from sparsec.backends.onnx.registry import EXPORTERS
from sparsec.backends.onnx.view import NodeFacts
from sparsec.errors import GraphError, InputError, MissingExtraError, UnsupportedOperatorError
from sparsec.ir import BATCH, Array, Dim, Graph, Input, Node, Port, TensorType, evaluate, symbol, symbols
from sparsec.ops import OPS, TO_THE_END, TO_THE_START, check, evaluate_graph, infer_types, make_node

BATCH_SIZE = 2
OPEN_SIZE = 7
"""What an unknown size other than the batch is when a model is run."""


# --- graphs and runs --------------------------------------------------------------------------------------------------


@dataclass
class Net:
    """Builds a graph op by op; weights are random."""

    seed: int = 0
    dtype: str = "float32"
    inputs: list[Input] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def input(self, *shape: int | str, dtype: str | None = None, name: str = "x") -> str:
        """An input with a batch in front of ``shape``; words are unknown sizes."""
        dims: list[Dim] = [symbol(size) if isinstance(size, str) else size for size in shape]
        self.inputs.append(Input(name, TensorType(dtype or self.dtype, (symbol(BATCH), *dims))))
        return name

    def weight(self, *shape: int, scale: float = 1.0, name: str = "") -> str:
        return self.constant(self.rng.normal(size=shape) * scale, name)

    def constant(self, array: object, name: str = "", dtype: str | None = None) -> str:
        name = name or f"layer/weight_{len(self.weights)}"
        self.weights[name] = np.asarray(array, dtype or self.dtype)
        return name

    def op(self, op: str, *inputs: str, **attrs: object) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(make_node(op, f"layer/{name}", inputs, [name], "layer", **attrs))
        return name

    def ops(self, op: str, *inputs: str, further: Sequence[str], **attrs: object) -> list[str]:
        """An operator with several outputs."""
        name = f"{op}_{len(self.nodes)}"
        outputs = [name, *(f"{name}/{output}" for output in further)]
        self.nodes.append(make_node(op, f"layer/{name}", inputs, outputs, "layer", **attrs))
        return outputs

    def recurrent(self, op: str, x: str, units: int, *further: str, bias: bool = True, **attrs: object) -> list[str]:
        """A recurrent operator over values of 3 channels; ``further`` are the mask and the states."""
        gates, states = {"simple_rnn": (1, "h"), "gru": (3, "h"), "lstm": (4, "hc"), "conv_lstm": (4, "hc")}[op]
        width, rank = gates * units, len(self.types()[x].shape) - 3
        kernel = self.weight(*(3,) * rank, 3, width, scale=0.6)
        recurrent = self.weight(*(2,) * rank, units, width, scale=0.6)
        added = self.weight(*((2, width) if attrs.get("reset_after") else (width,))) if bias else ""
        activations = {"activation": "tanh", **({} if op == "simple_rnn" else {"recurrent_activation": "sigmoid"})}
        return self.ops(op, x, kernel, added, recurrent, *further, further=list(states), **{**activations, **attrs})

    def types(self) -> dict[str, TensorType]:
        return infer_types(Graph(tuple(self.inputs), (), tuple(self.nodes), self.weights))

    def graph(self, *outputs: str) -> Graph:
        ports = tuple(Port(f"y{index}", value) for index, value in enumerate(outputs))
        graph = Graph(tuple(self.inputs), ports, tuple(self.nodes), self.weights)
        check(graph, "the test")
        return graph

    # Shorthands of the layers that structures are made of; 3 x 3 windows, SAME padding.

    def conv(self, x: str, cin: int, cout: int, size: int = 3, stride: int = 1, bias: bool = True) -> str:
        bias_input = [self.weight(cout)] if bias else []
        kernel = self.weight(size, size, cin, cout, scale=1 / np.sqrt(size * size * cin))
        return self.op("conv", x, kernel, *bias_input, strides=(stride,) * 2, dilations=(1, 1), padding="same")

    def depthwise(self, x: str, channels: int, size: int = 3) -> str:
        kernel = self.weight(size, size, channels, 1, scale=1 / size)
        return self.op("depthwise_conv", x, kernel, strides=(1, 1), dilations=(1, 1), padding="same")

    def dense(self, x: str, cin: int, cout: int, bias: bool = True) -> str:
        kernel = self.weight(cin, cout, scale=1 / np.sqrt(cin))
        return self.op("dense", x, kernel, *([self.weight(cout)] if bias else []))

    def pool(self, x: str, op: str = "max_pool") -> str:
        return self.op(op, x, window=(2, 2), strides=(2, 2), dilations=(1, 1), padding="explicit", pads=(0,) * 4)


def samples(graph: Graph, seed: int = 1, batch: int = BATCH_SIZE) -> list[Array]:
    """Random inputs of a graph."""
    rng = np.random.default_rng(seed)
    arrays = []
    for entry in graph.inputs:
        sizes = {name: batch if name == BATCH else OPEN_SIZE for dim in entry.type.shape for name in symbols(dim)}
        x = rng.normal(size=[evaluate(dim, sizes) for dim in entry.type.shape]) * 2
        arrays.append((x > 0 if entry.type.dtype == "bool" else x).astype(entry.type.dtype))
    return arrays


def session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def moved(array: Array, layout: str) -> Array:
    """An array as an input or output of a file in ``layout``."""
    return array.transpose(order_of(Layout.FIRST, array.ndim)) if layout == "nchw" and array.ndim > 2 else array


def agree(graph: Graph, inputs: Sequence[Array] | None = None, tolerance: float = 1e-5, **options: object) -> onnx.ModelProto:
    """Export a graph, check the model, and compare ONNX Runtime with the reference; the model."""
    inputs = samples(graph) if inputs is None else inputs
    model = to_model(graph, **options)  # type: ignore[arg-type]
    # The checker's type inference does not know sparse initialisers, which its other rules allow.
    onnx.checker.check_model(model, full_check=not model.graph.sparse_initializer)
    assert {entry.domain for entry in model.opset_import} == {""}
    assert all(node.domain == "" for node in model.graph.node)
    layout = str(options.get("layout", "nhwc"))
    running = session(model.SerializeToString())
    feeds = {entry.name: moved(x, layout) for entry, x in zip(graph.inputs, inputs, strict=True)}
    results = running.run(None, feeds)
    expected = evaluate_graph(graph, inputs)
    assert len(results) == len(expected)
    for result, reference in zip(results, expected, strict=True):
        wanted = moved(reference, layout)
        assert result.dtype == wanted.dtype
        assert result.shape == wanted.shape
        if wanted.dtype.kind == "f":
            assert np.abs(wanted).max(initial=0) > 0, "a test on zeros proves nothing"
            np.testing.assert_allclose(result, wanted, rtol=tolerance, atol=tolerance * np.abs(wanted).max(initial=0))
        else:
            np.testing.assert_array_equal(result, wanted)
    return model


def count(model: onnx.ModelProto, *op_types: str) -> int:
    return sum(node.op_type in op_types for node in model.graph.node)


# --- every operator ---------------------------------------------------------------------------------------------------

Case = tuple[str, str, Callable[[Net], str]]
CASES: list[Case] = []


def case(op: str, label: str, build: Callable[[Net], str]) -> None:
    CASES.append((op, label, build))


def unary(op: str, label: str = "", **attrs: object) -> None:
    case(op, label or "default", lambda net: net.op(op, net.input(5, 6, 3), **attrs))


for name in (
    "sigmoid",
    "silu",
    "tanh",
    "softplus",
    "softsign",
    "exp",
    "abs",
    "selu",
    "elu",
    "erf",
    "sin",
    "cos",
    "sign",
    "floor",
):
    unary(name)
unary("elu", "alpha", alpha=0.3)
unary("gelu", "exact")
unary("gelu", "tanh", approximate=True)
unary("hard_sigmoid", "keras 2", alpha=0.2, beta=0.5)
unary("hard_sigmoid", "keras 3", alpha=1 / 6, beta=0.5)
unary("clip", "", minimum=-0.5, maximum=1.25)
for op in ("sqrt", "log"):
    case(op, "default", lambda net, op=op: net.op(op, net.op("abs", net.input(4, 3))))
case("round", "halves", lambda net: net.op("round", net.op("mul", net.op("round", net.input(4, 3)), net.constant(0.5))))
case("pow", "values", lambda net: net.op("pow", net.op("abs", net.input(4, 5, 3)), net.input(4, 5, 3, name="b")))
case("pow", "row", lambda net: net.op("pow", net.input(4, 5, 3), net.constant([2, 3, -1])))
case("mod", "values", lambda net: net.op("mod", net.input(4, 5, 3), net.input(4, 5, 3, name="b")))
case("mod", "multiples", lambda net: net.op("mod", net.op("round", net.input(4, 5, 3)), net.constant([0.5, -1, 2])))
case("mod", "int64", lambda net: net.op("mod", net.input(4, dtype="int64"), net.constant([3, -2, 5, -7], dtype="int64")))
for slope, threshold, maximum in itertools.product((0.0, 0.2), (0.0, 0.7, -0.4), (None, 1.5, -0.25)):
    unary("relu", f"{slope}-{threshold}-{maximum}", negative_slope=slope, threshold=threshold, max_value=maximum)
for op, axis in itertools.product(("softmax", "log_softmax", "sparsemax"), (-1, 1, 2)):
    unary(op, f"axis {axis}", axis=axis)
for source, target in itertools.product(("float32", "int64", "bool", "int32"), ("float32", "bool", "int32", "float64")):
    case("cast", f"{source}-{target}", lambda net, a=source, b=target: net.op("cast", net.input(4, 3, dtype=a), dtype=b))
for op in ("add", "sub", "mul", "div", "maximum", "minimum", "greater", "equal"):
    case(op, "values", lambda net, op=op: net.op(op, net.input(4, 5, 3), net.input(4, 5, 3, name="b")))
    case(op, "row", lambda net, op=op: net.op(op, net.input(4, 5, 3), net.weight(3)))
    case(op, "left scalar", lambda net, op=op: net.op(op, net.weight(), net.input(4, 5, 3)))
    case(op, "lower rank", lambda net, op=op: net.op(op, net.input(4, 5, 3), net.weight(5, 3)))
    case(op, "ones", lambda net, op=op: net.op(op, net.input(1, 5, 3), net.input(4, 1, 3, name="b")))
for op in ("add", "mul", "maximum", "minimum", "greater", "equal"):
    case(op, "bool", lambda net, op=op: net.op(op, net.input(4, dtype="bool"), net.input(4, dtype="bool", name="b")))
for op in ("add", "sub", "mul", "maximum", "minimum", "greater", "equal"):
    case(op, "int64", lambda net, op=op: net.op(op, net.input(4, dtype="int64"), net.constant([1, -2, 0, 3], dtype="int64")))
case(
    "where",
    "broadcast",
    lambda net: net.op("where", net.op("greater", net.input(4, 5, 3), net.weight(3)), net.weight(4, 1, 3), net.weight()),
)
case(
    "where",
    "bool",
    lambda net: net.op(
        "where", *(net.input(4, 3, dtype="bool", name=name) for name in ("c", "a")), net.input(1, 3, dtype="bool", name="b")
    ),
)
case("prelu", "channels", lambda net: net.op("prelu", net.input(4, 5, 3), net.weight(3)))
case("prelu", "all", lambda net: net.op("prelu", net.input(4, 5, 3), net.weight(4, 5, 3)))
case("affine", "shift", lambda net: net.op("affine", net.input(4, 5, 3), net.weight(3), net.weight(3)))
case("affine", "scale", lambda net: net.op("affine", net.input(6), net.weight(6)))


def batch_norm(net: Net, x: str, channels: int, gamma: bool = True, beta: bool = True, axis: int = -1) -> str:
    parameters = [net.weight(channels) if gamma else "", net.weight(channels) if beta else "", net.weight(channels)]
    variance = net.constant(net.rng.uniform(0.5, 2, channels))
    return net.op("batch_norm", x, *parameters, variance, axis=axis, epsilon=1e-3)


for gamma, beta, axis in itertools.product((True, False), (True, False), (-1, 1, 2)):
    case(
        "batch_norm",
        f"{gamma}-{beta}-{axis}",
        lambda net, g=gamma, b=beta, a=axis: batch_norm(net, net.input(4, 4, 4), 4, g, b, a),
    )
case("batch_norm", "matrix", lambda net: batch_norm(net, net.input(5), 5))
case("batch_norm", "after conv", lambda net: batch_norm(net, net.conv(net.input(5, 5, 2), 2, 3), 3))


def layer_norm(net: Net, x: str, sizes: Sequence[int], axes: tuple[int, ...], gamma: bool = True, beta: bool = True) -> str:
    parameters = [net.weight(*sizes) if gamma else "", net.weight(*sizes) if beta else ""]
    return net.op("layer_norm", x, *parameters, axes=axes, epsilon=1e-3)


for gamma, beta in itertools.product((True, False), (True, False)):
    label = f"{gamma}-{beta}"
    case("layer_norm", f"last {label}", lambda net, g=gamma, b=beta: layer_norm(net, net.input(4, 5, 6), (6,), (-1,), g, b))
    case("layer_norm", f"middle {label}", lambda net, g=gamma, b=beta: layer_norm(net, net.input(4, 5, 6), (5,), (2,), g, b))
    case(
        "layer_norm",
        f"three after conv {label}",
        lambda net, g=gamma, b=beta: layer_norm(net, net.conv(net.input(4, 5, 2), 2, 3), (4, 5, 3), (3, 1, 2), g, b),
    )
    case(
        "layer_norm",
        f"last between convs {label}",
        lambda net, g=gamma, b=beta: net.conv(layer_norm(net, net.conv(net.input(4, 5, 2), 2, 3), (3,), (-1,), g, b), 3, 2),
    )

case("dense", "bias", lambda net: net.dense(net.input(7), 7, 5))
case("dense", "no bias", lambda net: net.dense(net.input(7), 7, 5, bias=False))
case("dense", "rank 4", lambda net: net.dense(net.input(3, 4, 7), 7, 5))
case("dense", "rank 3 without bias", lambda net: net.dense(net.input(4, 7), 7, 5, bias=False))
case("dense", "as a convolution", lambda net: net.conv(net.dense(net.conv(net.input(5, 5, 2), 2, 3), 3, 4), 4, 2))
case(
    "dense",
    "transposed kernel",
    lambda net: net.op("dense", net.input(7), net.op("transpose", net.weight(5, 7), permutation=(1, 0))),
)
case("dense", "computed kernel", lambda net: net.op("dense", net.input(4, 7), net.op("tanh", net.weight(7, 5)), net.weight(5)))

WINDOWS = {1: (3,), 2: (3, 2), 3: (2, 3, 2)}
SIZES = {1: (8,), 2: (8, 7), 3: (5, 6, 7)}
PADS = {1: (1, 2), 2: (2, 0, 1, 1), 3: (0, 1, 2, 1, 1, 0)}


def windowed(rank: int, stride: int, dilation: int, padding: str) -> dict[str, object]:
    pads = PADS[rank] if padding == "explicit" else ()
    return {"strides": (stride,) * rank, "dilations": (dilation,) * rank, "padding": padding, "pads": pads}


for rank, (stride, dilation), padding in itertools.product((1, 2, 3), ((1, 1), (2, 1), (1, 2), (2, 2)), ("same", "explicit")):
    label = f"{rank}-{stride}-{dilation}-{padding}"
    attrs = windowed(rank, stride, dilation, padding)
    case(
        "conv",
        label,
        lambda net, r=rank, a=attrs: net.op("conv", net.input(*SIZES[r], 4), net.weight(*WINDOWS[r], 4, 6), net.weight(6), **a),
    )
    case(
        "conv",
        f"groups {label}",
        lambda net, r=rank, a=attrs: net.op("conv", net.input(*SIZES[r], 4), net.weight(*WINDOWS[r], 2, 6), groups=2, **a),
    )
    case(
        "depthwise_conv",
        label,
        lambda net, r=rank, a=attrs: net.op(
            "depthwise_conv", net.input(*SIZES[r], 3), net.weight(*WINDOWS[r], 3, 2), net.weight(6), **a
        ),
    )
    for op in ("max_pool", "avg_pool"):
        case(op, label, lambda net, op=op, r=rank, a=attrs: net.op(op, net.input(*SIZES[r], 3), window=WINDOWS[r], **a))
case(
    "conv",
    "computed kernel",
    lambda net: net.op("conv", net.input(6, 3), net.op("tanh", net.weight(2, 3, 4)), **windowed(1, 1, 1, "same")),
)
case(
    "depthwise_conv",
    "computed kernel",
    lambda net: net.op("depthwise_conv", net.input(6, 3), net.op("tanh", net.weight(2, 3, 2)), **windowed(1, 1, 1, "same")),
)
for op in ("max_pool", "avg_pool"):
    wide = {"window": (2, 2), "strides": (1, 1), "dilations": (3, 3), "padding": "explicit", "pads": (2, 2, 2, 2)}
    case(op, "padding of a whole window", lambda net, op=op, a=wide: net.op(op, net.input(8, 8, 3), **a))

CROPS = {"none": (0, 0), "both": (1, 1), "end": (0, 2), "one appended": (0, -1), "many appended": (1, -4)}
for rank, stride, dilation, (label, crops) in itertools.product((1, 2, 3), (1, 2), (1, 2), CROPS.items()):
    case(
        "conv_transpose",
        f"{rank}-{stride}-{dilation}-{label}",
        lambda net, r=rank, s=stride, d=dilation, c=crops: net.op(
            "conv_transpose",
            net.input(*(4, 5, 3)[:r], 3),
            net.weight(*(3,) * r, 2, 3),
            net.weight(2),
            strides=(s,) * r,
            dilations=(d,) * r,
            crops=c * r,
        ),
    )
case(
    "conv_transpose",
    "many appended without bias",
    lambda net: net.op("conv_transpose", net.input(4, 3), net.weight(2, 5, 3), strides=(2,), dilations=(1,), crops=(0, -3)),
)

for op, axes, keepdims in itertools.product(
    ("reduce_mean", "reduce_max", "reduce_sum", "reduce_prod"),
    ((1, 2), (-1,), (1,), (2,), (1, 2, 3), (0, 1), ()),
    (True, False),
):
    label = f"{axes}-{keepdims}"
    case(op, label, lambda net, op=op, a=axes, k=keepdims: net.op(op, net.input(4, 5, 3), axes=a, keepdims=k))
    case(
        op,
        f"after conv {label}",
        lambda net, op=op, a=axes, k=keepdims: net.op(op, net.conv(net.input(4, 5, 2), 2, 3), axes=a, keepdims=k),
    )

for op, dtype in (("reduce_max", "bool"), ("reduce_max", "int64"), ("reduce_sum", "int32"), ("reduce_prod", "int64")):
    case(op, dtype, lambda net, op=op, d=dtype: net.op(op, net.input(4, 5, dtype=d), axes=(1,)))
for axis, keepdims in itertools.product((1, 2, -1), (True, False)):
    case(
        "argmax", f"{axis}-{keepdims}", lambda net, a=axis, k=keepdims: net.op("argmax", net.input(4, 5, 3), axis=a, keepdims=k)
    )
case("argmax", "after conv", lambda net: net.op("argmax", net.conv(net.input(4, 5, 2), 2, 3), axis=-1))
case("argmax", "the first of several", lambda net: net.op("argmax", net.op("round", net.input(4, 5, 3)), axis=-1))
for axis in (1, -1):
    case("cumsum", f"axis {axis}", lambda net, a=axis: net.op("cumsum", net.input(4, 5, 3), axis=a))
case("cumsum", "after conv", lambda net: net.op("cumsum", net.conv(net.input(4, 5, 2), 2, 3), axis=1))
case("cumsum", "int32", lambda net: net.op("cumsum", net.input(4, 5, dtype="int32"), axis=1))

for shape in ((0, -1), (0, 20, 3), (0, 4, -1), (0, 4, 5, 1, 3), (-1, 3), (0, 2, 2, 5, 3), (0, 5, 4, 3), (0, 4, 15)):
    case("reshape", str(shape), lambda net, s=shape: net.op("reshape", net.input(4, 5, 3), shape=s))
    case(
        "reshape", f"between convs {shape}", lambda net, s=shape: net.op("reshape", net.conv(net.input(4, 5, 2), 2, 3), shape=s)
    )
case(
    "reshape",
    "channels to positions",
    lambda net: net.conv(net.op("reshape", net.dense(net.input(5), 5, 12), shape=(0, 2, 2, 3)), 3, 2),
)
for permutation in itertools.permutations((1, 2, 3)):
    case("transpose", f"{permutation}", lambda net, p=permutation: net.op("transpose", net.input(4, 5, 3), permutation=(0, *p)))
    case(
        "transpose",
        f"between convs {permutation}",
        lambda net, p=permutation: net.conv(net.op("transpose", net.conv(net.input(3, 3, 2), 2, 3), permutation=(0, *p)), 3, 2),
    )
case(
    "transpose",
    "twice",
    lambda net: net.op("transpose", net.op("transpose", net.input(4, 5), permutation=(2, 0, 1)), permutation=(0, 2, 1)),
)
for rank in (1, 2, 3):
    case("pad", f"{rank}", lambda net, r=rank: net.op("pad", net.input(*SIZES[r], 3), pads=PADS[r]))
case("pad", "before conv", lambda net: net.conv(net.op("pad", net.input(4, 5, 2), pads=(1, 2, 3, 0)), 2, 3))
case("pad", "bool", lambda net: net.op("pad", net.input(4, 3, dtype="bool"), pads=(1, 2)))
for axis, (start, stop, step) in itertools.product(
    (1, -1),
    (
        (0, TO_THE_END, 1),
        (1, -1, 1),
        (-2, TO_THE_END, 1),
        (0, 3, 2),
        (1, 100, 3),
        (-100, 2, 1),
        (-1, TO_THE_START, -1),
        (-2, 0, -2),
    ),
):
    case(
        "slice",
        f"{axis} {start}:{stop}:{step}",
        lambda net, c=(axis, start, stop, step): net.op(
            "slice", net.input(4, 5, 3), axis=c[0], start=c[1], stop=c[2], step=c[3]
        ),
    )
case(
    "slice",
    "between convs",
    lambda net: net.conv(net.op("slice", net.conv(net.input(5, 5, 2), 2, 4), axis=-1, start=1, stop=-1), 2, 3),
)
for axis in (1, 2, -1):
    case(
        "concat", f"axis {axis}", lambda net, a=axis: net.op("concat", net.input(4, 5, 3), net.input(4, 5, 3, name="b"), axis=a)
    )
case("concat", "between convs", lambda net: net.conv(net.op("concat", net.conv(net.input(5, 5, 2), 2, 3), "x", axis=-1), 5, 2))
case("concat", "one", lambda net: net.op("concat", net.input(4, 5, 3), axis=1))
case("tile", "axes", lambda net: net.op("tile", net.input(4, 5, 3), repeats=(1, 2, 1, 3)))
case(
    "tile",
    "between convs",
    lambda net: net.conv(net.op("tile", net.conv(net.input(3, 3, 2), 2, 3), repeats=(1, 2, 3, 1)), 3, 2),
)
for method, sizes in itertools.product(("nearest", "linear"), ((-2, -3), (9, 4), (4, 5), (2, 10), (-2, 7), (6, 3), (12, 20))):
    case("resize", f"{method} {sizes}", lambda net, m=method, s=sizes: net.op("resize", net.input(4, 5, 3), sizes=s, method=m))
for method, rank in itertools.product(("nearest", "linear"), (1, 3)):
    case(
        "resize",
        f"{method} in {rank} axes",
        lambda net, m=method, r=rank: net.op("resize", net.input(*SIZES[r], 3), sizes=(3, 9, -2)[:r], method=m),
    )
case("matmul", "values", lambda net: net.op("matmul", net.input(4, 5), net.input(5, 3, name="b")))
case("matmul", "broadcast", lambda net: net.op("matmul", net.input(2, 4, 5), net.weight(2, 5, 3)))
case("matmul", "weight on the left", lambda net: net.op("matmul", net.weight(6, 4), net.input(4, 3)))
case(
    "matmul",
    "transposed",
    lambda net: net.op("matmul", net.input(4, 5), net.op("transpose", net.input(3, 5, name="b"), permutation=(0, 2, 1))),
)


def indices(net: Net, *shape: int, dtype: str = "int32") -> str:
    return net.op("cast", net.input(*shape, name="i", dtype="bool"), dtype=dtype)


for dtype in ("int32", "int64"):
    case("gather", f"table {dtype}", lambda net, d=dtype: net.op("gather", net.weight(5, 3), indices(net, 4, dtype=d)))
case("gather", "matrix of a table", lambda net: net.op("gather", net.weight(5, 3), indices(net, 4, 6)))
case("gather", "axis", lambda net: net.op("gather", net.input(4, 5, 3), net.constant([3, 0, -1], dtype="int64"), axis=2))
case(
    "gather",
    "after conv",
    lambda net: net.op("gather", net.conv(net.input(4, 5, 2), 2, 3), net.constant(2, dtype="int64"), axis=1),
)

MASKS: dict[str, tuple[int, ...]] = {"all": (4, 5, 6), "keys": (1, 1, 6), "queries": (1, 5, 1)}


def attention(net: Net, groups: int, mask: str = "", size: int | str = 5, **attrs: object) -> str:
    masks = [net.input(*MASKS[mask], name="mask", dtype="bool")] if mask else []
    q, k = net.input(size, 12), net.input(6, 3 * groups, name="k")
    v = net.input(6, 2 * groups, name="v")
    return net.op("attention", q, k, v, *masks, heads=4, kv_heads=groups, scale=0.4, **attrs)


for groups, mask, causal, window in itertools.product((4, 2, 1), ("", *MASKS), (False, True), (0, 3)):
    for empty in ("mean", "zero"):
        case(
            "attention",
            f"{groups}-{mask}-{causal}-{window}-{empty}",
            lambda net, g=groups, m=mask, c=causal, w=window, e=empty: attention(net, g, m, causal=c, window=w, empty=e),
        )
case("attention", "open size", lambda net: attention(net, 4, size="T", causal=True, window=2))
case(
    "attention",
    "one mask for all",
    lambda net: net.op(
        "attention", *[net.input(5, 8)] * 3, net.constant(np.tri(5) > 0, dtype="bool"), heads=2, kv_heads=2, scale=1.0
    ),
)


for op in ("simple_rnn", "lstm", "gru"):
    options: dict[str, object] = {"reset_after": True} if op == "gru" else {}
    case(op, "plain", lambda net, o=op, more=options: net.recurrent(o, net.input(5, 3), 4, **more)[0])
    case(
        op,
        "masked",
        lambda net, o=op, more=options: net.recurrent(o, net.input(5, 3), 4, net.input(5, name="m", dtype="bool"), **more)[0],
    )
case("conv_lstm", "plain", lambda net: net.recurrent("conv_lstm", net.input(4, 6, 5, 3), 2, **windowed(2, 1, 1, "same"))[0])


@pytest.mark.parametrize(
    ("op", "build"), [(op, build) for op, _, build in CASES], ids=[f"{op}: {label}" for op, label, _ in CASES]
)
def test_operator(op: str, build: Callable[[Net], str]) -> None:
    net = Net()
    value = build(net)
    assert op in {node.op for node in net.nodes}
    agree(net.graph(value))


def test_every_operator_has_an_exporter_and_a_case() -> None:
    assert EXPORTERS.keys() == OPS.keys()
    assert {op for op, _, _ in CASES} == OPS.keys()


def test_an_operator_without_exporter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    graph = net.graph(net.op("tanh", net.input(3)))
    monkeypatch.delitem(EXPORTERS, "tanh")
    with pytest.raises(UnsupportedOperatorError, match=r"layer/tanh_0.*'tanh'"):
        make_draft(graph)


# --- convolutions and pools of any shape ------------------------------------------------------------------------------


@st.composite
def windows(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, object]]:
    """Spatial sizes, a window that fits, and window attributes."""
    rank = draw(st.integers(1, 3))

    def each(strategy: st.SearchStrategy[int]) -> tuple[int, ...]:
        return tuple(draw(strategy) for _ in range(rank))

    sizes, window = each(st.integers(1, 9)), each(st.integers(1, 4))
    attrs: dict[str, object] = {
        "strides": each(st.integers(1, 4)),
        "dilations": each(st.integers(1, 3)),
        "padding": "same",
    }
    spans = [(k - 1) * d + 1 for k, d in zip(window, attrs["dilations"], strict=True)]  # type: ignore[arg-type]
    if draw(st.booleans()):
        # Less padding than a window spans, so that no window is padding alone.
        pads = [draw(st.integers(0, span - 1)) for span in spans for _ in range(2)]
        attrs |= {"padding": "explicit", "pads": tuple(pads)}
        sizes = tuple(max(size, span) for size, span in zip(sizes, spans, strict=True))
    return sizes, window, attrs


ANY_SHAPE = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@ANY_SHAPE
@given(case=windows(), groups=st.integers(1, 3), per_group=st.integers(1, 2), bias=st.booleans(), known=st.booleans())
def test_convolutions_of_any_shape(
    case: tuple[tuple[int, ...], tuple[int, ...], dict[str, object]], groups: int, per_group: int, bias: bool, known: bool
) -> None:
    sizes, window, attrs = case
    net = Net()
    x = net.input(*(sizes if known else [f"S{axis}" for axis in range(len(sizes))]), groups * per_group)
    kernel = net.weight(*window, per_group, 2 * groups)
    y = net.op("conv", x, kernel, *([net.weight(2 * groups)] if bias else []), groups=groups, **attrs)
    y = net.op(
        "depthwise_conv",
        y,
        net.weight(*(2,) * len(sizes), 2 * groups, 2),
        net.weight(4 * groups),
        strides=(1,) * len(sizes),
        dilations=(1,) * len(sizes),
        padding="same",
    )
    rng = np.random.default_rng(1)
    agree(net.graph(y), [rng.normal(size=(2, *sizes, groups * per_group)).astype(np.float32)])


@ANY_SHAPE
@given(
    case=windows(), op=st.sampled_from(["max_pool", "avg_pool"]), known=st.booleans(), opset=st.sampled_from([13, 17, 19, 21])
)
def test_pools_of_any_shape(
    case: tuple[tuple[int, ...], tuple[int, ...], dict[str, object]], op: str, known: bool, opset: int
) -> None:
    sizes, window, attrs = case
    net = Net()
    x = net.input(*(sizes if known else [f"S{axis}" for axis in range(len(sizes))]), 2)
    graph = net.graph(net.op(op, x, window=window, **attrs))
    inputs = [np.random.default_rng(1).normal(size=(2, *sizes, 2)).astype(np.float32)]
    with np.errstate(invalid="ignore"):
        expected = evaluate_graph(graph, inputs)[0]
    # A dilated window may meet nothing but padding, which has no mean and no maximum.
    if np.isfinite(expected).all():
        agree(graph, inputs, opset=opset)


@ANY_SHAPE
@given(data=st.data(), rank=st.integers(1, 3), bias=st.booleans())
def test_transposed_convolutions_of_any_shape(data: st.DataObject, rank: int, bias: bool) -> None:
    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(rank))

    sizes, window, strides, dilations = each(1, 4), each(1, 4), each(1, 4), each(1, 3)
    crops: list[int] = []
    for size, k, s, d in zip(sizes, window, strides, dilations, strict=True):
        full = (size - 1) * s + (k - 1) * d + 1
        before = data.draw(st.integers(0, min(3, full - 1)))
        crops += [before, data.draw(st.integers(-5, min(3, full - 1 - before)))]
    net = Net()
    parameters = [net.weight(*window, 2, 3), *([net.weight(2)] if bias else [])]
    y = net.op("conv_transpose", net.input(*sizes, 3), *parameters, strides=strides, dilations=dilations, crops=tuple(crops))
    graph = net.graph(y)
    if np.any(evaluate_graph(graph, samples(graph))[0]):
        agree(graph)


# --- operator sets and dtypes -----------------------------------------------------------------------------------------

VERSIONED = {
    "gelu": lambda net: net.op("gelu", net.input(4, 5, 3)),
    "tanh gelu": lambda net: net.op("gelu", net.input(4, 5, 3), approximate=True),
    "layer_norm": lambda net: layer_norm(net, net.input(4, 5, 6), (6,), (-1,)),
    "reduce": lambda net: net.op("reduce_max", net.op("reduce_mean", net.input(4, 5, 3), axes=(1,)), axes=(1,), keepdims=True),
    "dilated avg_pool": lambda net: net.op("avg_pool", net.input(8, 7, 3), window=(3, 2), **windowed(2, 1, 2, "same")),
    "batch_norm": lambda net: batch_norm(net, net.input(4, 4, 4), 4),
    # Elements far apart: of close ones what Keras computes is zero.
    "sparsemax": lambda net: net.op("sparsemax", net.op("mul", net.input(4, 6), net.constant(9.0))),
    "resize": lambda net: net.op("resize", net.input(4, 5, 3), sizes=(-2, 7), method="linear"),
    "pad": lambda net: net.op("pad", net.input(4, 5, 3), pads=(1, 0, 0, 2)),
    "lenet": lambda net: lenet(net),
}


def lenet(net: Net) -> str:
    y = net.pool(net.op("relu", net.conv(net.input(10, 10, 1), 1, 4)))
    y = net.pool(net.op("relu", net.conv(y, 4, 6)), "avg_pool")
    y = net.op("relu", net.dense(net.op("reshape", y, shape=(0, -1)), 24, 10))
    return net.op("softmax", net.dense(y, 10, 5))


@pytest.mark.parametrize("opset", [13, 16, 18, 20, 21])
@pytest.mark.parametrize("name", VERSIONED)
def test_operator_sets(name: str, opset: int) -> None:
    net = Net()
    model = agree(net.graph(VERSIONED[name](net)), opset=opset)
    assert [entry.version for entry in model.opset_import] == [opset]


def test_file_format_versions() -> None:
    net = Net()
    graph = net.graph(net.op("tanh", net.input(3)))
    assert to_model(graph).opset_import[0].version == 17
    assert to_model(graph).ir_version == 8
    for opset in OPSETS:
        assert to_model(graph, opset=opset).ir_version == max(8, onnx.helper.OP_SET_ID_VERSION_MAP["ai.onnx", opset])


@pytest.mark.parametrize("opset", [12, 22])
def test_other_operator_sets_are_refused(opset: int) -> None:
    net = Net()
    with pytest.raises(InputError, match=f"{opset} is not supported.*13 to 21"):
        make_draft(net.graph(net.op("tanh", net.input(3))), opset=opset)


def test_float64() -> None:
    net = Net(dtype="float64")
    y = net.op("relu", net.dense(net.input(4, 7), 7, 6), negative_slope=0.1)
    y = layer_norm(net, net.op("add", y, net.weight(6)), (6,), (-1,))
    y = net.op("softmax", net.dense(net.op("reduce_mean", y, axes=(1,)), 6, 3))
    # ONNX holds slopes and epsilons in float32.
    agree(net.graph(y), tolerance=1e-8)


def test_float16_is_valid() -> None:
    net = Net(dtype="float16")
    graph = net.graph(lenet(net))
    model = to_model(graph)
    onnx.checker.check_model(model, full_check=True)
    assert {tensor.data_type for tensor in model.graph.initializer} == {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64}


# --- sizes that are known only when the model runs --------------------------------------------------------------------


def test_open_sizes_are_named() -> None:
    net = Net()
    x = net.input("H", "W", 3)
    y = net.conv(net.op("relu", net.conv(x, 3, 4)), 4, 5, stride=2)
    model = to_model(net.graph(y, "relu_1"))

    def sizes(value: onnx.ValueInfoProto) -> list[int | str]:
        return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]

    assert sizes(model.graph.input[0]) == ["N", "H", "W", 3]
    assert sizes(model.graph.output[0]) == ["N", 0, 0, 5]
    assert sizes(model.graph.output[1]) == ["N", "H", "W", 4]


@pytest.mark.parametrize("batch", [1, 5])
def test_open_batch(batch: int) -> None:
    net = Net()
    graph = net.graph(lenet(net))
    agree(graph, samples(graph, batch=batch))


def open_sizes_net(net: Net) -> str:
    """What depends on open sizes: SAME with strides, with and without auto_pad, pools, resizing, flattening positions."""
    x = net.input("H", "W", 3)
    y = net.conv(x, 3, 4, stride=2)
    y = net.op("max_pool", y, window=(1, 2), strides=(2, 1), dilations=(1, 1), padding="same")
    y = net.op("avg_pool", y, window=(2, 2), strides=(2, 2), dilations=(1, 2), padding="same")
    y = net.op("resize", y, sizes=(9, -2), method="nearest")
    y = net.op("resize", y, sizes=(6, -1), method="linear")
    z = net.op("reshape", net.op("resize", x, sizes=(6, 4), method="nearest"), shape=(0, -1, 3))
    y = net.op("reduce_max", net.op("reshape", y, shape=(0, -1, 4)), axes=(1,))
    return net.op("concat", y, net.op("reduce_mean", z, axes=(1,)), axis=1)


@pytest.mark.parametrize("opset", [13, 19])
@pytest.mark.parametrize(("height", "width"), [(7, 7), (8, 5), (16, 9), (33, 10)])
def test_open_sizes(height: int, width: int, opset: int) -> None:
    net = Net()
    graph = net.graph(open_sizes_net(net))
    agree(graph, [np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)], opset=opset)


def test_auto_pad_only_where_the_padding_depends_on_an_open_size() -> None:
    def padding(*shape: int | str, stride: int) -> set[str]:
        net = Net()
        model = to_model(net.graph(net.conv(net.input(*shape, 3), 3, 4, stride=stride)))
        (conv,) = (node for node in model.graph.node if node.op_type == "Conv")
        return {attribute.name for attribute in conv.attribute} & {"pads", "auto_pad"}

    assert padding("H", "W", stride=2) == {"auto_pad"}
    assert padding("H", "W", stride=1) == {"pads"}
    assert padding(9, 9, stride=2) == {"pads"}


def test_reshape_moves_open_sizes() -> None:
    net = Net()
    y = net.conv(net.input("H", "W", 2), 2, 3)
    y = net.op("reshape", net.op("transpose", y, permutation=(0, 2, 1, 3)), shape=(0, 0, -1))
    agree(net.graph(y))
    net = Net()
    y = net.op("reshape", net.conv(net.input("H", 4, 2), 2, 3), shape=(0, 0, 2, 2, 3))
    agree(net.graph(y))


def test_what_needs_a_known_size_says_so() -> None:
    net = Net()
    with pytest.raises(UnsupportedOperatorError, match=r"'layer/sparsemax_0'.*layer 'layer'.*--input-shape"):
        make_draft(net.graph(net.op("sparsemax", net.input("L", 3), axis=1)))


# --- layouts ----------------------------------------------------------------------------------------------------------


def conv_chain(net: Net) -> str:
    y = net.op("relu", net.conv(net.input(8, 8, 3), 3, 4))
    y = net.pool(batch_norm(net, net.conv(y, 4, 5, bias=False), 5))
    return net.op("affine", net.pool(y, "avg_pool"), net.weight(5), net.weight(5))


def residual(net: Net) -> str:
    x = net.conv(net.input(8, 8, 3), 3, 4)
    for _ in range(3):
        x = net.op("relu", net.op("add", x, net.conv(net.op("relu", net.conv(x, 4, 4)), 4, 4)))
    return net.dense(net.op("reduce_mean", net.op("concat", x, x, axis=-1), axes=(1, 2)), 8, 5)


def squeeze_excite(net: Net, gate: str) -> str:
    x = net.conv(net.input(8, 8, 3), 3, 8)
    if gate == "keepdims":
        s = net.op("reduce_mean", x, axes=(1, 2), keepdims=True)
    else:
        s = net.op("reshape", net.op("reduce_mean", x, axes=(1, 2)), shape=(0, 1, 1, 8))
    if gate == "dense":
        s = net.op("reshape", s, shape=(0, 8))
        s = net.op("relu", net.dense(s, 8, 2))
        s = net.op("reshape", net.dense(s, 2, 8), shape=(0, 1, 1, 8))
    else:
        s = net.conv(net.op("relu", net.conv(s, 8, 2, size=1)), 2, 8, size=1)
    s = net.op("hard_sigmoid", s, alpha=1 / 6, beta=0.5)
    y = net.op("mul", x, s)
    y = net.op("mul", y, net.op("hard_sigmoid", y, alpha=1 / 6, beta=0.5))
    return net.dense(net.op("reduce_mean", net.conv(y, 8, 4), axes=(1, 2)), 4, 3)


def flattened(net: Net) -> str:
    y = net.pool(net.conv(net.input(8, 6, 3), 3, 4))
    y = net.op("tanh", net.op("reshape", y, shape=(0, 48)))
    return net.op("concat", net.dense(y, 48, 5), net.op("relu", net.dense(y, 48, 2, bias=False)), axis=-1)


def convnext(net: Net) -> str:
    x = net.conv(net.input(8, 8, 3), 3, 8)
    for _ in range(2):
        y = layer_norm(net, net.depthwise(x, 8, 7), (8,), (-1,))
        y = net.dense(net.op("gelu", net.dense(y, 8, 16)), 16, 8)
        x = net.op("add", x, net.op("affine", y, net.weight(8)))
    x = layer_norm(net, net.op("reduce_mean", x, axes=(1, 2)), (8,), (-1,))
    return net.dense(x, 8, 3)


def mixer(net: Net) -> str:
    """Dense layers over positions and over features in turn."""
    x = net.input(9, 6)
    y = net.op("transpose", layer_norm(net, x, (6,), (-1,)), permutation=(0, 2, 1))
    y = net.dense(net.op("gelu", net.dense(y, 9, 12)), 12, 9)
    x = net.op("add", x, net.op("transpose", y, permutation=(0, 2, 1)))
    return net.op("add", x, net.dense(layer_norm(net, x, (6,), (-1,)), 6, 6))


def channels_first(net: Net) -> str:
    """What a Keras model with data_format="channels_first" becomes."""
    x = net.op("transpose", net.input(3, 8, 6), permutation=(0, 2, 3, 1))
    y = net.op("relu", net.conv(x, 3, 4))
    return net.op("transpose", net.conv(y, 4, 2), permutation=(0, 3, 1, 2))


def patches(net: Net) -> str:
    """Patches as a sequence, as in a vision transformer: the positions of a convolution become one axis."""
    y = net.conv(net.input(8, 8, 3), 3, 6, stride=4)
    y = net.op("add", net.op("reshape", y, shape=(0, 4, 6)), net.weight(1, 4, 6))
    return net.dense(layer_norm(net, y, (6,), (-1,)), 6, 5)


STRUCTURES: dict[str, tuple[Callable[[Net], str], int, int]] = {
    "conv chain": (conv_chain, 2, 0),
    "residual": (residual, 1, 0),
    "squeeze and excite, keepdims": (lambda net: squeeze_excite(net, "keepdims"), 1, 0),
    "squeeze and excite, reshape": (lambda net: squeeze_excite(net, "reshape"), 1, 0),
    "squeeze and excite, dense": (lambda net: squeeze_excite(net, "dense"), 1, 0),
    "flatten and dense": (flattened, 1, 0),
    "convnext": (convnext, 1, 0),
    "mixer": (mixer, 0, 0),
    "channels-first": (channels_first, 0, 0),
    "patches": (patches, 2, 0),
    "lenet, one channel in": (lenet, 0, 0),
    "dense on rank 3": (lambda net: net.dense(net.dense(net.input(4, 7), 7, 5), 5, 3), 0, 0),
    "flatten for an output": (lambda net: net.op("reshape", net.conv(net.input(4, 4, 3), 3, 2), shape=(0, -1)), 2, 1),
}
"""Structures with the number of Transposes they need in ``nhwc`` and in ``nchw``."""


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_transposes(name: str, layout: str) -> None:
    build, *transposes = STRUCTURES[name]
    net = Net()
    graph = net.graph(build(net))
    if name == "channels-first" and layout == "nchw":
        model = to_model(graph, layout=layout)
        assert model.graph.input == to_model(graph).graph.input
    else:
        model = agree(graph, layout=layout)
    assert count(model, "Transpose") == transposes[layout == "nchw"]


def test_a_converted_copy_is_shared() -> None:
    net = Net()
    x = net.input(6, 6, 3)
    graph = net.graph(*(net.conv(x, 3, 2) for _ in range(3)))
    assert count(agree(graph), "Transpose") == 4


def test_transposes_move_the_fewest_elements() -> None:
    net = Net()
    y = net.conv(net.input(4, 4, 2), 2, 3)
    y = net.op("tile", net.op("relu", y), repeats=(1, 3, 3, 1))
    model = agree(net.graph(net.op("tanh", y)))
    assert [node.op_type for node in model.graph.node].index("Tile") > [
        index for index, node in enumerate(model.graph.node) if node.op_type == "Transpose"
    ][1]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_minimum_cut_against_enumeration(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 6))
    vertex = st.integers(0, size - 1)
    edges = data.draw(st.lists(st.tuples(vertex, vertex, st.integers(0, 5)), max_size=12))
    network = Network()
    for _ in range(size):
        network.vertex()
    for tail, head, capacity in edges:
        network.edge(tail, head, capacity)

    def cost(side: frozenset[int]) -> int:
        return sum(capacity for tail, head, capacity in edges if tail in side and head not in side)

    inner = range(2, size)
    sides = [frozenset({0, *chosen}) for n in range(size - 1) for chosen in itertools.combinations(inner, n)]
    least = min(map(cost, sides))
    found = network.cut(0, 1)
    assert cost(found) == least
    assert len(found) == max(len(side) for side in sides if cost(side) == least)


def random_structure(seed: int) -> Graph:
    """A graph of operators with fixed and free layouts: rank 4 for even seeds, rank 3 and transposes for odd ones."""
    rng = np.random.default_rng(seed)
    net = Net(seed)
    spatial = (4, 4) if seed % 2 == 0 else (4,)
    ones = (1,) * len(spatial)
    values = [net.input(*spatial, 4)]
    for _ in range(6):
        a, b = (str(rng.choice(values[-4:])) for _ in range(2))
        kind = rng.choice(["conv", "relu", "add", "positions", "dense", "softmax", "norm", *(["across"] * (seed % 2))])
        if kind == "conv":
            kernel = net.weight(*ones, 4, 4)
            values.append(net.op("conv", a, kernel, strides=ones, dilations=ones, padding="same"))
        elif kind == "add":
            values.append(net.op("add", a, b))
        elif kind == "dense":
            values.append(net.dense(a, 4, 4))
        elif kind == "positions":  # needs the order of the graph
            values.append(net.op("reshape", net.op("reshape", a, shape=(0, 2, -1)), shape=(0, *spatial, 4)))
        elif kind == "across":  # over positions, as a mixer's layers
            y = net.dense(net.op("transpose", a, permutation=(0, 2, 1)), 4, 4)
            values.append(net.op("transpose", y, permutation=(0, 2, 1)))
        elif kind == "norm":
            values.append(layer_norm(net, a, (4,), (-1,)))
        else:
            values.append(net.op(kind, a))
    read = {value for node in net.nodes for value in node.inputs}
    return net.graph(*(value for value in values if value not in read))


@pytest.mark.parametrize("seed", range(20))
def test_transposes_are_the_fewest(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other choice of layouts gives a file with fewer Transposes than the one that is made."""
    graph = random_structure(seed)
    found = count(agree(graph), "Transpose")
    least = found
    free = [node.name for node in graph.nodes if node.op not in ("conv", "reshape", "transpose")]
    for choice in itertools.product(Layout, repeat=len(free)):
        chosen = dict(zip(free, choice, strict=True))

        def forced(view, rule, edges, chosen=chosen):
            placements = {}
            for node in view.graph.nodes:
                asked, layout = rule(NodeFacts(view, node)), chosen.get(node.name, Layout.LAST)
                fixed = {Demand.FIRST: Layout.FIRST, Demand.LAST: Layout.LAST}
                placements[node.name] = Placement(asked, layout, fixed.get(asked.output, layout))
            return placements

        monkeypatch.setattr(export_module, "assign_layouts", forced)
        least = min(least, sum(node.op_type == "Transpose" for node in make_draft(graph).nodes))
    assert found == least


def test_nchw_keeps_matrices() -> None:
    net = Net()
    graph = net.graph(net.dense(net.op("reduce_mean", net.conv(net.input(5, 4, 3), 3, 6), axes=(1, 2)), 6, 2))
    model = agree(graph, layout="nchw")
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [0, 3, 5, 4]
    assert {entry.key: entry.value for entry in model.metadata_props} == {LAYOUT_KEY: "nchw"}


def test_unknown_layout_is_refused() -> None:
    net = Net()
    with pytest.raises(InputError, match="'chwn' is none of nhwc, nchw"):
        make_draft(net.graph(net.op("tanh", net.input(3))), layout="chwn")


# --- names, inputs and outputs ----------------------------------------------------------------------------------------


def test_names_say_where_things_come_from() -> None:
    net = Net()
    kernel = net.weight(3, 3, 3, 4, name="block/conv1/kernel")
    y = net.op("conv", net.input(6, 6, 3, name="image"), kernel, strides=(1, 1), dilations=(1, 1), padding="same")
    model = to_model(net.graph(net.op("gelu", y)))
    assert [entry.name for entry in model.graph.input] == ["image"]
    assert [entry.name for entry in model.graph.output] == ["y0"]
    assert "block/conv1/kernel" in {tensor.name for tensor in model.graph.initializer}
    names = [node.name for node in model.graph.node if node.op_type != "Transpose"]
    assert names[0] == "layer/conv_0"
    assert all(name.startswith("layer/gelu_1") for name in names[1:])
    assert len(set(names)) == len(names)


def test_a_layer_that_the_name_hides_is_documented() -> None:
    graph = Graph(
        (Input("x", TensorType("float32", (symbol(BATCH), 3))),),
        (Port("y", "t"),),
        (make_node("tanh", "n0", ["x"], ["t"], "encoder/activation"),),
        {},
    )
    assert [node.doc_string for node in to_model(graph).graph.node] == ["encoder/activation"]


def test_producer_and_nothing_of_the_machine() -> None:
    net = Net()
    model = to_model(net.graph(net.op("tanh", net.input(3))))
    assert (model.producer_name, model.producer_version) == ("sparsec", sparsec.__version__)
    assert {entry.key: entry.value for entry in model.metadata_props} == {LAYOUT_KEY: "nhwc"}


def test_inputs_weights_and_repeats_as_outputs() -> None:
    net = Net()
    x = net.input(4, 5, 3)
    y = net.conv(x, 3, 2)
    graph = net.graph(y, x, y, net.weight(4), net.op("transpose", y, permutation=(0, 2, 1, 3)))
    agree(graph)
    agree(graph, layout="nchw")


def test_an_output_may_be_called_like_an_input() -> None:
    x = Input("x", TensorType("float32", (symbol(BATCH), 3)))
    (array,) = inputs = [np.ones((2, 3), np.float32)]
    same = Graph((x,), (Port("x", "x"),), (), {})
    assert session(to_model(same).SerializeToString()).run(None, {"x": array})[0].tolist() == array.tolist()
    # ONNX has one name space for both, so that the output gets another name.
    other = Graph((x,), (Port("x", "t"),), (make_node("tanh", "t", ["x"], ["t"]),), {})
    assert [entry.name for entry in agree(other, inputs).graph.output] == ["x_1"]
    moved_axes = make_node("transpose", "t", ["x"], ["t"], permutation=(1, 0))
    assert [entry.name for entry in agree(Graph((x,), (Port("x", "t"),), (moved_axes,), {}), inputs).graph.output] == ["x_1"]


def test_an_input_that_nothing_reads_stays() -> None:
    net = Net()
    net.input(4, 4, 3, name="unused")
    agree(net.graph(net.op("tanh", net.input(3))))


def test_shared_weights_are_stored_once() -> None:
    net = Net()
    kernel = net.weight(4, 4, name="shared/kernel")
    y = net.op("dense", net.op("dense", net.input(4), kernel), kernel)
    assert [tensor.name for tensor in agree(net.graph(y)).graph.initializer] == ["shared/kernel"]


def test_a_weight_in_two_forms_has_two_names() -> None:
    net = Net()
    kernel = net.weight(48, 48, name="shared/kernel")
    y = net.op("reshape", net.conv(net.input(4, 4, 3), 3, 3), shape=(0, -1))
    y = net.op("dense", net.op("dense", y, kernel), kernel)
    assert {"shared/kernel", "shared/kernel_1"} <= {t.name for t in agree(net.graph(y)).graph.initializer}


# --- storage ----------------------------------------------------------------------------------------------------------


def pruned_net(zeros: float, dtype: str = "float32") -> Graph:
    net = Net(dtype=dtype)
    y = net.conv(net.input(8, 8, 8), 8, 32)
    y = net.dense(net.op("reduce_mean", net.op("mul", y, net.weight(32)), axes=(1, 2)), 32, 64)
    graph = net.graph(net.dense(y, 64, 64, bias=False))
    for array in graph.weights.values():
        if array.ndim > 1:
            flat = array.reshape(-1)
            flat[net.rng.permutation(flat.size)[: round(zeros * flat.size)]] = 0
    return graph


@pytest.mark.parametrize("weights", ["auto", "dense", "sparse"])
@pytest.mark.parametrize("zeros", [0.3, 0.9])
def test_sparse_initialisers(zeros: float, weights: str) -> None:
    graph = pruned_net(zeros)
    model = agree(graph, weights=weights)
    sparse = {tensor.values.name: tensor for tensor in model.graph.sparse_initializer}
    matrices = {path for path, array in graph.weights.items() if array.ndim > 1}
    assert sparse.keys() == (matrices if weights == "sparse" or (weights == "auto" and zeros == 0.9) else set())
    for path, tensor in sparse.items():
        assert tensor.indices.data_type == onnx.TensorProto.INT64
        assert list(tensor.indices.dims) == [np.count_nonzero(graph.weights[path])]


def test_auto_is_never_larger() -> None:
    for zeros in (0.5, 0.66, 0.67, 0.7, 0.99):
        sizes = {w: to_model(pruned_net(zeros), weights=w).ByteSize() for w in ("auto", "dense", "sparse")}
        assert sizes["auto"] <= min(sizes["dense"], sizes["sparse"]), zeros
    assert sizes["auto"] < sizes["dense"] / 3


def test_break_even_is_two_thirds_in_float32() -> None:
    def stored(zeros: int) -> int:
        net = Net()
        kernel = np.ones(3000)
        kernel[:zeros] = 0
        y = net.op("dense", net.input(30), net.constant(kernel.reshape(30, 100)))
        return len(to_model(net.graph(y), weights="auto").graph.sparse_initializer)

    assert (stored(1990), stored(2020)) == (0, 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_weight_of_zeros(dtype: str) -> None:
    net = Net(dtype=dtype)
    kernel = net.constant(np.zeros((30, 40)))
    model = agree(net.graph(net.op("dense", net.input(30), kernel, net.weight(40))))
    assert len(model.graph.sparse_initializer) == 1


def test_only_weights_that_are_nothing_else_are_sparse() -> None:
    net = Net()
    kernel = net.constant(np.eye(40))
    graph = net.graph(net.op("add", net.op("dense", net.input(40), kernel), net.op("reduce_mean", kernel, axes=(0,))))
    assert len(agree(graph).graph.sparse_initializer) == 0


def test_unknown_storage_is_refused() -> None:
    with pytest.raises(InputError, match="'csr' are none of auto, dense, sparse"):
        to_model(pruned_net(0.5), weights="csr")


def test_big_endian_weights() -> None:
    net = Net()
    graph = net.graph(net.dense(net.input(5), 5, 4))
    swapped = {path: array.astype(array.dtype.newbyteorder(">")) for path, array in graph.weights.items()}
    assert to_model(graph.with_nodes(graph.nodes, swapped)) == to_model(graph)


# --- files ------------------------------------------------------------------------------------------------------------


def test_file_and_summary(tmp_path: Path) -> None:
    graph = pruned_net(0.9)
    path = tmp_path / "model.onnx"
    summary = export_onnx(graph, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]
    assert summary.bytes == path.stat().st_size
    assert (summary.opset, summary.ir_version, summary.layout, summary.transposes) == (17, 8, "nhwc", 1)
    model = onnx.load(path)
    assert summary.nodes == len(model.graph.node)
    assert {weight.name for weight in summary.sparse} == {t.values.name for t in model.graph.sparse_initializer}
    assert all(weight.nbytes < weight.dense_nbytes for weight in summary.sparse)
    onnx.checker.check_model(path)


@pytest.mark.parametrize("weights", ["dense", "sparse"])
def test_the_bytes_are_those_of_protobuf(tmp_path: Path, weights: str) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(pruned_net(0.9), path, weights=weights)
    assert path.read_bytes() == to_model(pruned_net(0.9), weights=weights).SerializeToString(deterministic=True)
    assert path.read_bytes() == onnx.load(path).SerializeToString(deterministic=True)


HASH_SCRIPT = """
import hashlib, sys, tempfile
sys.path.insert(0, sys.argv[1])
import sparsec.backends.onnx
assert not {"onnx", "onnxruntime", "scipy", "h5py"} & set(sys.modules), "importing the backend imports too much"
from test_onnx import STRUCTURES, Net, to_model
for name, (build, *_) in STRUCTURES.items():
    net = Net()
    print(name, hashlib.sha256(to_model(net.graph(build(net))).SerializeToString(deterministic=True)).hexdigest())
"""


def test_same_bytes_in_every_process() -> None:
    def run(seed: str) -> str:
        command = [sys.executable, "-c", HASH_SCRIPT, str(Path(__file__).parent)]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    first = run("1")
    assert len(first.splitlines()) == len(STRUCTURES)
    assert run("2") == first


def test_unwritable_output(tmp_path: Path) -> None:
    net = Net()
    graph = net.graph(net.op("tanh", net.input(3)))
    with pytest.raises(InputError, match="there is no directory"):
        export_onnx(graph, tmp_path / "missing" / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_export_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    graph = net.graph(net.dense(net.input(3), 3, 2))
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def full(*args: object, **kwargs: object) -> Iterator[bytes]:
        yield b"new"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer_module.Message, "of_elements", lambda nbytes, make: writer_module.Message(nbytes, full))
    monkeypatch.setattr(export_module, "check", lambda *args: None)
    with pytest.raises(InputError, match="No space left"):
        export_onnx(graph, path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_weights_are_not_held_twice(tmp_path: Path) -> None:
    net = Net()
    y = net.op("reshape", net.conv(net.input(4, 4, 64), 64, 64), shape=(0, -1))
    for _ in range(8):
        y = net.dense(y, 1024, 1024)
    graph = net.graph(y)
    for array in graph.weights.values():
        array[..., ::10] = 0
    total = sum(array.nbytes for array in graph.weights.values())
    export_onnx(graph, tmp_path / "warm.onnx")
    tracemalloc.start()
    try:
        export_onnx(graph, tmp_path / "model.onnx")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < total / 4


def test_too_large_for_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_FILE_BYTES", 1000)
    with pytest.raises(InputError, match="at most 2 GiB"):
        export_onnx(pruned_net(0.1), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: object, **kwargs: object) -> object:
        if name.partition(".")[0] == "onnx":
            raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    for name in [name for name in sys.modules if name.partition(".")[0] == "onnx"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.setattr("sparsec.extras.import_module", lambda name: missing(name))
    net = Net()
    with pytest.raises(MissingExtraError, match=r"pip install 'sparsec\[onnx\]'"):
        export_onnx(net.graph(net.op("tanh", net.input(3))), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_checker_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    graph = net.graph(net.op("tanh", net.input(3)))
    broken = make_draft(graph)
    broken = type(broken)(**{**vars(broken), "nodes": (*broken.nodes, broken.nodes[0])})
    monkeypatch.setattr(export_module, "make_draft", lambda *args, **kwargs: broken)
    with pytest.raises(GraphError, match="checker refuses"):
        export_onnx(graph, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_large_weights_take_part_in_the_check_by_type(tmp_path: Path) -> None:
    net = Net()
    graph = net.graph(net.dense(net.input(200), 200, 100))
    draft = make_draft(graph)
    assert max(constant.nbytes for constant in draft.constants) > writer_module.CHECKED_BYTES
    wrong = [type(c)(c.name, c.array, c.shape[::-1]) if c.nbytes > writer_module.CHECKED_BYTES else c for c in draft.constants]
    writer_module.check(draft, {})
    with pytest.raises(GraphError, match="checker refuses"):
        writer_module.check(type(draft)(**{**vars(draft), "constants": tuple(wrong)}), {})
