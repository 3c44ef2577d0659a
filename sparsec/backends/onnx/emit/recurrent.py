"""Exporters of the recurrent operators: ONNX's own where they say the same, else a Scan over the steps.

ONNX's LSTM, GRU and RNN know no masks but lengths, and few activations; ONNX Runtime runs them in float32 only. A Scan takes
one step at a time through a body, which is exported from a graph of one step as any other graph is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from sparsec.backends.onnx.builder import ScaledAxis
from sparsec.backends.onnx.draft import AttributeValue, Draft
from sparsec.backends.onnx.registry import channels_last, exports
from sparsec.backends.onnx.site import Site
from sparsec.ir import BATCH, Array, Graph, Input, Node, Port, Shape, TensorType, symbol
from sparsec.ops import get_op, infer_types, make_node
from sparsec.ops.recurrent import Recurrent, recurrent_window
from sparsec.ops.sequences import BIAS, KERNEL, MASK, RECURRENT_KERNEL, STATES, X, activation_parameters
from sparsec.ops.windows import WINDOW_ATTRIBUTES

NATIVE: Final = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "RNN"}
"""The operators that ONNX has, over several steps."""

GATE_ORDER: Final = {"lstm": (0, 3, 1, 2), "gru": (0, 1, 2), "simple_rnn": (0,)}
"""ONNX's gates in terms of ours: its LSTM has i, o, f, c."""

NATIVE_ACTIVATIONS: Final[dict[str, Callable[[float, float], tuple[str, list[float], list[float]]]]] = {
    "elu": lambda a, b: ("Elu", [a], []),
    "hard_sigmoid": lambda a, b: ("HardSigmoid", [a], [b]),
    "relu": lambda a, b: ("LeakyRelu", [a], []) if a else ("Relu", [], []),
    "sigmoid": lambda a, b: ("Sigmoid", [], []),
    "softplus": lambda a, b: ("Softplus", [], []),
    "softsign": lambda a, b: ("Softsign", [], []),
    "tanh": lambda a, b: ("Tanh", [], []),
}
"""The activations that ONNX's operators know, with their parameters."""


@exports("lstm", "gru", "simple_rnn", "conv_lstm", rule=channels_last)
def emit_recurrent(site: Site) -> None:
    """LSTM, GRU, RNN, or a Scan."""
    if _is_native(site):
        _emit_native(site)
    else:
        _emit_scan(site)


def _op(site: Site) -> Recurrent:
    op = get_op(site.node.op)
    assert isinstance(op, Recurrent)
    return op


def _activation_names(site: Site) -> list[str]:
    """The attributes that hold activations, in the order in which ONNX asks for them."""
    return [name for name in ("recurrent_activation", "activation") if name in site.attrs]


def _is_native(site: Site) -> bool:
    if site.node.op not in NATIVE or site.given(MASK) or site.type(X).dtype != "float32":
        return False
    weights = all(site.is_constant(index) for index in (KERNEL, BIAS, RECURRENT_KERNEL) if site.given(index))
    return weights and all(site.attrs[name] in NATIVE_ACTIVATIONS for name in _activation_names(site))


# --- ONNX's own operators ----------------------------------------------------------------------------------------------


def _emit_native(site: Site) -> None:
    """Steps first, directions second; the bias holds that of the input and that of the state."""
    op = _op(site)
    recurrent = site.weight(RECURRENT_KERNEL)
    units = recurrent.shape[0]
    steps_first = site.add("Transpose", site.read(X), perm=(1, 0, 2))
    inputs = [
        steps_first,
        site.array(_gates_first(site, site.weight(KERNEL)), "kernel"),
        site.array(_gates_first(site, recurrent), "recurrent_kernel"),
        _native_bias(site, units) if site.given(BIAS) else "",
        "",
        *(
            site.add("Unsqueeze", site.read(STATES + index), site.ints([0])) if site.given(STATES + index) else ""
            for index in range(len(op.state_names))
        ),
    ]
    while not inputs[-1]:
        inputs.pop()
    wanted = [value in site.view.readers or value in site.view.leaving for value in site.node.outputs]
    outputs = [
        site.builder.fresh(f"{value}/steps") if needed else "" for value, needed in zip(site.node.outputs, wanted, strict=True)
    ]
    while not outputs[-1]:
        outputs.pop()
    attributes = {
        "hidden_size": units,
        "direction": "reverse" if site.attrs["reverse"] else "forward",
        **_native_activations(site),
    }
    if site.node.op == "gru":
        attributes["linear_before_reset"] = int(bool(site.attrs["reset_after"]))
    name = f"{site.node.name}/{NATIVE[site.node.op]}"
    site.builder.add(NATIVE[site.node.op], name, inputs, outputs, attributes, site.node.layer)
    for index, output in enumerate(outputs):
        if output and index == 0:
            site.finish_at(0, "Transpose", site.add("Squeeze", output, site.ints([1])), perm=(1, 0, 2))
        elif output:
            site.finish_at(index, "Squeeze", output, site.ints([0]))


def _gates_first(site: Site, kernel: Array) -> Array:
    """``[in, gates * units]`` as ``[1, gates * units, in]`` in ONNX's order."""
    order = GATE_ORDER[site.node.op]
    return np.ascontiguousarray(_reordered(kernel, order).T)[None]


def _reordered(array: Array, order: Sequence[int]) -> Array:
    parts = np.split(array, len(order), axis=-1)
    return np.concatenate([parts[gate] for gate in order], axis=-1)


def _native_bias(site: Site, units: int) -> str:
    order, bias = GATE_ORDER[site.node.op], site.weight(BIAS)
    rows = bias if bias.ndim == 2 else np.stack([bias, np.zeros_like(bias)])
    return site.array(np.concatenate([_reordered(row, order) for row in rows])[None], "bias")


def _native_activations(site: Site) -> dict[str, AttributeValue]:
    names = _activation_names(site)
    # The LSTM applies an activation of its own to the state.
    chosen = [*names, "activation"] if site.node.op == "lstm" else names
    functions = []
    for name in chosen:
        activation, alpha, beta = activation_parameters(site.attrs, name)
        functions.append(NATIVE_ACTIVATIONS[activation](alpha, beta))
    attributes: dict[str, AttributeValue] = {"activations": tuple(function for function, _, _ in functions)}
    for name, values in (
        ("activation_alpha", [value for _, alphas, _ in functions for value in alphas]),
        ("activation_beta", [value for _, _, betas in functions for value in betas]),
    ):
        if values:
            attributes[name] = tuple(values)
    return attributes


# --- Scan --------------------------------------------------------------------------------------------------------------


class _Body:
    """Builds the graph of one step; what emits operators there."""

    def __init__(self, dtype: str) -> None:
        self.inputs: list[Input] = []
        self.nodes: list[Node] = []
        self.weights: dict[str, Array] = {}
        self._dtype = dtype

    def input(self, name: str, shape: Shape, dtype: str) -> str:
        """An input of the body."""
        self.inputs.append(Input(name, TensorType(dtype, shape)))
        return name

    def weight(self, name: str, array: Array) -> str:
        """A constant."""
        self.weights[name] = array
        return name

    def emit(self, op: str, *inputs: str | None, **attrs: object) -> str:
        """An operator with one output."""
        name = f"{op}_{len(self.nodes)}"
        names = [name_ or "" for name_ in inputs]
        while not names[-1]:
            names.pop()
        self.nodes.append(make_node(op, name, names, [name], "", **attrs))
        return name

    def like(self, value: str, number: float) -> str:
        """A number in the dtype of the step."""
        return self.weight(f"constant_{number!r}", np.asarray(number, self._dtype))

    def graph(self, outputs: Sequence[str]) -> Graph:
        """The step as a graph."""
        ports = tuple(Port(f"after_{index}", value) for index, value in enumerate(outputs))
        return Graph(tuple(self.inputs), ports, tuple(self.nodes), self.weights, "step")


def _emit_scan(site: Site) -> None:
    """The state goes through a body, step by step; outputs and, where they differ from the state, what stood before, too."""
    op, body, dtype = _op(site), _Body(site.type(X).dtype), site.type(X).dtype
    state = site.view.types[site.node.outputs[1]].shape
    units = site.known(state[-1])
    # Without states to begin with, the output of the step before is its state.
    keeps_output = (
        site.given(MASK) and not site.attrs["zero_masked"] and any(site.given(STATES + i) for i in range(len(op.state_names)))
    )
    carried = [body.input(name, state, dtype) for name in op.state_names]
    previous = body.input("previous", state, dtype) if keeps_output else carried[0]
    projected, scanned = _projection(site, body)
    if site.given(MASK):
        body.input("counts", (symbol(BATCH),), "bool")
        scanned.append(site.read(MASK))
    after = op.cell(body, site.attrs, units, projected, _product(site, body), carried)
    output = after[0]
    if site.given(MASK):
        counts = body.emit("reshape", "counts", shape=(0, *(1,) * (len(state) - 1)))
        output = body.emit("where", counts, output, body.like(output, 0.0) if site.attrs["zero_masked"] else previous)
        after = [body.emit("where", counts, new, old) for new, old in zip(after, carried, strict=True)]
    results = [*after, *([output] if keeps_output else []), output]
    zeros = (
        _zeros(site, state, scanned[0])
        if keeps_output or not all(site.given(STATES + i) for i in range(len(op.state_names)))
        else ""
    )
    initial = [site.read(STATES + i) if site.given(STATES + i) else zeros for i in range(len(op.state_names))]
    inputs = [*initial, *([zeros] if keeps_output else []), *scanned]
    backwards = int(bool(site.attrs["reverse"]))
    after_names = [_name(site, index) for index in range(1, len(site.node.outputs))]
    extra = [site.builder.fresh(f"{site.node.name}/previous")] if keeps_output else []
    site.builder.add(
        "Scan",
        f"{site.node.name}/Scan",
        inputs,
        [*after_names, *extra, _name(site, 0)],
        {
            "body": _step(body.graph(results), site),
            "num_scan_inputs": len(scanned),
            "scan_input_axes": (1,) * len(scanned),
            "scan_input_directions": (backwards,) * len(scanned),
            "scan_output_axes": (1,),
            "scan_output_directions": (backwards,),
        },
        site.node.layer,
    )


def _name(site: Site, index: int) -> str:
    return site.builder.define(site.node.outputs[index], site.order_at(index))


def _projection(site: Site, body: _Body) -> tuple[str, list[str]]:
    """What a step takes from ``x``, in the body, and what the Scan runs over for it: products for all steps, or images."""
    x, dtype = site.type(X), site.type(X).dtype
    if site.node.op == "conv_lstm":
        image = body.input("x", (x.shape[0], *x.shape[2:]), dtype)
        kernel = body.weight("kernel", site.weight(KERNEL))
        bias = body.weight("bias", site.weight(BIAS)) if site.given(BIAS) else None
        return body.emit("conv", image, kernel, bias, **{name: site.attrs[name] for name in WINDOW_ATTRIBUTES}), [site.read(X)]
    gates = site.known(site.type(KERNEL).shape[-1])
    products = site.add("MatMul", site.read(X), site.read(KERNEL))
    own, _ = _op(site).biases(site.attrs, site.weight(BIAS) if site.given(BIAS) else None)
    if own is not None:
        products = site.add("Add", products, site.array(own, "bias"))
    return body.input("projected", (x.shape[0], gates), dtype), [products]


def _product(site: Site, body: _Body) -> Callable[[int, str], str]:
    op, kernel = _op(site), site.weight(RECURRENT_KERNEL)
    units = kernel.shape[-1] // op.gates
    _, inner = op.biases(site.attrs, site.weight(BIAS) if site.given(BIAS) else None)

    def product(part: int, h: str) -> str:
        first, stop = op.products(site.attrs)[part]
        columns = body.weight(f"recurrent_kernel_{part}", kernel[..., first * units : stop * units])
        if kernel.ndim > 2:
            return body.emit("conv", h, columns, **recurrent_window(kernel.ndim - 2))
        bias = body.weight("recurrent_bias", inner) if inner is not None and part == 0 else None
        return body.emit("dense", h, columns, bias)

    return product


def _zeros(site: Site, state: Shape, scanned: str) -> str:
    """Zeros of the shape of a state, whose open sizes are those of what the Scan runs over."""
    entries: list[int | ScaledAxis] = [(0, 1), *(site.known(size) for size in state[1:])]
    shape = site.builder.shape_vector(scanned, entries, site.node.name)
    return site.add("Expand", site.number(0.0), shape)


def _step(graph: Graph, site: Site) -> Draft:
    """The body of the Scan; its names begin with the node's, since they share one space with those around it."""
    from sparsec.backends.onnx.export import make_draft

    infer_types(graph)
    return _below(make_draft(graph, opset=site.builder.opset), f"{site.node.name}/step/")


def _below(draft: Draft, prefix: str) -> Draft:
    def rename(name: str) -> str:
        return prefix + name if name else ""

    return replace(
        draft,
        inputs=tuple(replace(port, name=rename(port.name)) for port in draft.inputs),
        outputs=tuple(replace(port, name=rename(port.name)) for port in draft.outputs),
        constants=tuple(replace(constant, name=rename(constant.name)) for constant in draft.constants),
        nodes=tuple(
            replace(
                node, name=rename(node.name), inputs=tuple(map(rename, node.inputs)), outputs=tuple(map(rename, node.outputs))
            )
            for node in draft.nodes
        ),
    )
