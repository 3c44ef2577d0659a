"""Recurrent operators: one node runs a cell over a whole sequence.

A value ``x`` of ``[N, T, ...]`` is a sequence of T steps. What a step takes from ``x`` is computed for all steps at once
(the *projection*); what it takes from the state, step by step. A mask ``[N, T]`` says which steps of which samples count: at
one that does not, the state stays and the output is that of the step before (zeros at first), or zeros.

Gates stand one after the other along the last axis of the kernels and of the bias, in Keras' order.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

import numpy as np

from sparsec.errors import GraphError
from sparsec.ir import Array, Attrs, AttrValue, Dim, Shape, TensorType, product
from sparsec.ops.activations import CELL_ACTIVATIONS, Arrays, Emitter
from sparsec.ops.base import (
    Attribute,
    Kind,
    Op,
    broadcast_shapes,
    expect_dtype,
    expect_float,
    expect_shape,
    get_op,
    given,
    optional,
    optional_array,
    register,
    required,
    static,
)
from sparsec.ops.recurrent_channels import RecurrentRule
from sparsec.ops.sequences import BIAS, KERNEL, MASK, RECURRENT_KERNEL, STATES, X, activation_parameters
from sparsec.ops.windows import WINDOW_ATTRIBUTES, check_window_attrs, expect_spatial, output_sizes

V = TypeVar("V")
Product = Callable[[int, V], V]
"""The product of a state and a part of the recurrent kernel, by the number of the part, with the bias that belongs to it."""


def _activation_attributes(name: str) -> dict[str, Attribute]:
    prefix = name.removesuffix("activation")
    return {
        name: Attribute(Kind.STR, choices=tuple(CELL_ACTIVATIONS)),
        f"{prefix}alpha": Attribute(Kind.FLOAT, 0.0),
        f"{prefix}beta": Attribute(Kind.FLOAT, 0.0),
    }


ACTIVATION = _activation_attributes("activation")
RECURRENT_ACTIVATION = _activation_attributes("recurrent_activation")
ORDER = {"reverse": Attribute(Kind.BOOL, False), "zero_masked": Attribute(Kind.BOOL, False)}


def activated(ops: Emitter[V], attrs: Attrs, name: str, x: V) -> V:
    """The activation in an attribute, applied."""
    chosen, alpha, beta = activation_parameters(attrs, name)
    result: V = CELL_ACTIVATIONS[chosen](ops, x, alpha, beta)
    return result


class Recurrent(Op):
    """Base of the operators over sequences.

    Attributes:
        state_names: of the states; the first one is the output of a step.
    """

    state_names: ClassVar[tuple[str, ...]]
    matrix_rows: ClassVar = {KERNEL: (-1,), RECURRENT_KERNEL: (-1,)}

    # --- types ---

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        x, kernel = required(inputs, X, "x"), required(inputs, KERNEL, "kernel")
        recurrent, mask = required(inputs, RECURRENT_KERNEL, "recurrent_kernel"), optional(inputs, MASK)
        expect_float(x, "x")
        for label, operand in (("kernel", kernel), ("recurrent_kernel", recurrent), ("bias", optional(inputs, BIAS))):
            expect_dtype(operand, x.dtype, label)
        if kernel.rank < 2 or kernel.shape[-1] == 0 or static(kernel.shape[-1], "the units") % self.gates:
            raise GraphError(f"kernel {kernel} does not hold {self.gates} gates along its last axis")
        units = static(kernel.shape[-1], "the units") // self.gates
        state = self._state(attrs, x, kernel, recurrent, units)
        expect_shape(optional(inputs, BIAS), self.bias_shape(attrs, units), "bias")
        if mask is not None:
            expect_dtype(mask, "bool", "mask")
            # Open sizes that may differ are an error of their own.
            broadcast_shapes(mask.shape, x.shape[:2])
            expect_shape(mask, x.shape[:2], "mask")
        for index, label in enumerate(self.state_names):
            initial = optional(inputs, STATES + index)
            expect_dtype(initial, x.dtype, label)
            expect_shape(initial, state, label)
        return (TensorType(x.dtype, (*x.shape[:2], *state[1:])), *(TensorType(x.dtype, state) for _ in self.state_names))

    def _state(self, attrs: Attrs, x: TensorType, kernel: TensorType, recurrent: TensorType, units: int) -> Shape:
        """The shape of a state, once the operands are known to fit."""
        if x.rank != 3:
            raise GraphError(f"x {x} is not [N, steps, channels]")
        expect_shape(kernel, (x.shape[-1], self.gates * units), "kernel")
        expect_shape(recurrent, (units, self.gates * units), "recurrent_kernel")
        return (x.shape[0], units)

    def macs(self, attrs: Attrs, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]) -> Dim:
        # At every step and position all elements of both kernels; products within the cell are no sums.
        kernels = (required(inputs, KERNEL, "kernel"), required(inputs, RECURRENT_KERNEL, "recurrent_kernel"))
        return product(outputs[0].shape[:-1]) * sum((product(kernel.shape) for kernel in kernels), start=0)

    def bias_shape(self, attrs: Attrs, units: int) -> Shape:
        """The shape of the bias."""
        return (self.gates * units,)

    # --- evaluation ---

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        bias, recurrent = optional_array(inputs, BIAS), given(inputs[RECURRENT_KERNEL])
        own, inner = self.biases(attrs, bias)
        projected = self._projected(attrs, given(inputs[X]), given(inputs[KERNEL]), own)
        units = recurrent.shape[-1] // self.gates
        parts = [recurrent[..., first * units : stop * units] for first, stop in self.products(attrs)]
        biases = [inner] + [None] * (len(parts) - 1)
        initial = [optional_array(inputs, STATES + index) for index in range(len(self.state_names))]

        def product(part: int, h: Array) -> Array:
            return self._product(h, parts[part], biases[part])

        return self._run(attrs, projected, product, optional_array(inputs, MASK), initial)

    def biases(self, attrs: Attrs, bias: Array | None) -> tuple[Array | None, Array | None]:
        """The biases of the projection and of the recurrent product."""
        return bias, None

    def products(self, attrs: Attrs) -> list[tuple[int, int]]:
        """The gates, from and to, of each product of a state and a part of the recurrent kernel."""
        return [(0, self.gates)]

    def _projected(self, attrs: Attrs, x: Array, kernel: Array, bias: Array | None) -> Array:
        y: Array = x @ kernel
        if bias is not None:
            y += bias
        return y

    def _product(self, h: Array, kernel: Array, bias: Array | None) -> Array:
        y: Array = h @ kernel
        return y if bias is None else y + bias

    @abstractmethod
    def cell(
        self, ops: Emitter[V], attrs: Attrs, units: int, projected: V, product: Product[V], states: Sequence[V]
    ) -> list[V]:
        """One step, in whatever terms: the new states.

        Args:
            ops: what emits operators.
            attrs: the operator's attributes.
            units: how many there are in each gate.
            projected: what the step takes from ``x``, ``[..., gates * units]``.
            product: the product of a state with part i of :meth:`products`.
            states: those before.
        """

    def _run(
        self, attrs: Attrs, projected: Array, product: Product[Array], mask: Array | None, initial: Sequence[Array | None]
    ) -> tuple[Array, ...]:
        units = projected.shape[-1] // self.gates
        shape = (projected.shape[0], *projected.shape[2:-1], units)
        states = [np.zeros(shape, projected.dtype) if state is None else state for state in initial]
        output, steps, ops = np.zeros(shape, projected.dtype), projected.shape[1], Arrays()
        sequence = np.empty((shape[0], steps, *shape[1:]), projected.dtype)
        for t in reversed(range(steps)) if attrs["reverse"] else range(steps):
            after = self.cell(ops, attrs, units, projected[:, t], product, states)
            if mask is None:
                states, output = after, after[0]
            else:
                counts = mask[:, t].reshape(-1, *(1,) * (len(shape) - 1))
                output = np.where(counts, after[0], np.zeros_like(output) if attrs["zero_masked"] else output)
                states = [np.where(counts, new, old) for new, old in zip(after, states, strict=True)]
            sequence[:, t] = output
        return sequence, *states


def _gate(ops: Emitter[V], values: V, index: int, units: int) -> V:
    return ops.emit("slice", values, axis=-1, start=index * units, stop=(index + 1) * units)


@register
class SimpleRnn(Recurrent):
    """``h = activation(x @ kernel + bias + h @ recurrent_kernel)``."""

    name = "simple_rnn"
    inputs = ("x", "kernel", "bias?", "recurrent_kernel", "mask?", "h?")
    attributes: ClassVar = {**ACTIVATION, **ORDER}
    gates, state_names = 1, ("h",)
    channels: ClassVar = RecurrentRule(gates=1, candidate=0)

    def cell(
        self, ops: Emitter[V], attrs: Attrs, units: int, projected: V, product: Product[V], states: Sequence[V]
    ) -> list[V]:
        return [activated(ops, attrs, "activation", ops.emit("add", projected, product(0, states[0])))]


class _LongShortTerm(Recurrent):
    """Base of the operators with gates i, f, c and o."""

    attributes: ClassVar = {**ACTIVATION, **RECURRENT_ACTIVATION, **ORDER}
    inputs = ("x", "kernel", "bias?", "recurrent_kernel", "mask?", "h?", "c?")
    gates, state_names = 4, ("h", "c")
    channels: ClassVar = RecurrentRule(gates=4, candidate=2)

    def cell(
        self, ops: Emitter[V], attrs: Attrs, units: int, projected: V, product: Product[V], states: Sequence[V]
    ) -> list[V]:
        h, c = states
        gates = ops.emit("add", projected, product(0, h))
        i, f, o = (activated(ops, attrs, "recurrent_activation", _gate(ops, gates, index, units)) for index in (0, 1, 3))
        candidate = activated(ops, attrs, "activation", _gate(ops, gates, 2, units))
        c = ops.emit("add", ops.emit("mul", f, c), ops.emit("mul", i, candidate))
        return [ops.emit("mul", o, activated(ops, attrs, "activation", c)), c]


@register
class Lstm(_LongShortTerm):
    """Long short-term memory: ``c = f * c + i * activation(z_c)``, ``h = o * activation(c)``."""

    name = "lstm"


@register
class Gru(Recurrent):
    """Gated recurrent unit with gates z, r, h: ``h = z * h + (1 - z) * activation(...)``.

    With ``reset_after`` the gate r multiplies the product of the state and the recurrent kernel, else the state before it.
    """

    name = "gru"
    attributes: ClassVar = {**ACTIVATION, **RECURRENT_ACTIVATION, **ORDER, "reset_after": Attribute(Kind.BOOL)}
    inputs = ("x", "kernel", "bias?", "recurrent_kernel", "mask?", "h?")
    gates, state_names = 3, ("h",)
    channels: ClassVar = RecurrentRule(gates=3, candidate=2)

    def bias_shape(self, attrs: Attrs, units: int) -> Shape:
        return (2, self.gates * units) if attrs["reset_after"] else (self.gates * units,)

    def biases(self, attrs: Attrs, bias: Array | None) -> tuple[Array | None, Array | None]:
        return (bias[0], bias[1]) if bias is not None and attrs["reset_after"] else (bias, None)

    def products(self, attrs: Attrs) -> list[tuple[int, int]]:
        return [(0, 3)] if attrs["reset_after"] else [(0, 2), (2, 3)]

    def cell(
        self, ops: Emitter[V], attrs: Attrs, units: int, projected: V, product: Product[V], states: Sequence[V]
    ) -> list[V]:
        (h,), inner = states, product(0, states[0])
        z, r = (
            activated(
                ops,
                attrs,
                "recurrent_activation",
                ops.emit("add", *(_gate(ops, part, index, units) for part in (projected, inner))),
            )
            for index in (0, 1)
        )
        read = ops.emit("mul", r, _gate(ops, inner, 2, units)) if attrs["reset_after"] else product(1, ops.emit("mul", r, h))
        candidate = activated(ops, attrs, "activation", ops.emit("add", _gate(ops, projected, 2, units), read))
        kept, new = ops.emit("mul", z, h), ops.emit("mul", ops.emit("sub", ops.like(z, 1.0), z), candidate)
        return [ops.emit("add", kept, new)]


@register
class ConvLstm(_LongShortTerm):
    """The operator ``lstm`` with convolutions for products.

    ``kernel`` is ``[*window, in, 4 * filters]`` and slides as in ``conv``; ``recurrent_kernel`` is ``[*window, filters, 4 *
    filters]`` and slides by single positions with padding ``same``.
    """

    name = "conv_lstm"
    attributes: ClassVar = {**_LongShortTerm.attributes, **WINDOW_ATTRIBUTES}

    def _state(self, attrs: Attrs, x: TensorType, kernel: TensorType, recurrent: TensorType, units: int) -> Shape:
        if x.rank < 4:
            raise GraphError(f"x {x} is not [N, steps, spatial..., channels]")
        image = TensorType(x.dtype, (x.shape[0], *x.shape[2:]))
        rank = expect_spatial(image)
        check_window_attrs(attrs, rank)
        if kernel.rank != rank + 2 or recurrent.rank != rank + 2:
            raise GraphError(f"kernels {kernel} and {recurrent} have not {rank} spatial axes, as x {x} has")
        expect_shape(kernel, (*kernel.shape[:-2], x.shape[-1], self.gates * units), "kernel")
        expect_shape(recurrent, (*recurrent.shape[:-2], units, self.gates * units), "recurrent_kernel")
        window = [static(size, "the window") for size in kernel.shape[:-2]]
        return (x.shape[0], *output_sizes(attrs, image.shape[1:-1], window), units)

    def _projected(self, attrs: Attrs, x: Array, kernel: Array, bias: Array | None) -> Array:
        conv = get_op("conv")
        window = conv.complete({name: attrs[name] for name in WINDOW_ATTRIBUTES})
        (y,) = conv.evaluate(window, [x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), kernel, bias])
        return y.reshape(*x.shape[:2], *y.shape[1:])

    def _product(self, h: Array, kernel: Array, bias: Array | None) -> Array:
        return get_op("conv").evaluate(recurrent_window(kernel.ndim - 2), [h, kernel, bias])[0]


def recurrent_window(rank: int) -> dict[str, AttrValue]:
    """The attributes of the convolution of a state with the recurrent kernel."""
    return get_op("conv").complete({"strides": (1,) * rank, "padding": "same", "dilations": (1,) * rank})
