"""Running recurrent operators: what a step takes from ``x`` as one product for all steps, then step by step.

The products are those of the operator ``dense``, so each kernel of a recurrent operator is dense or sparse by its own cost:
that of ``x`` with as many vectors as there are samples and steps, that of the state with as many as there are samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from sparsec.ir import Array, Attrs
from sparsec.kernels.base import Epilogue, Run, Task
from sparsec.kernels.elementwise import IN_PLACE
from sparsec.kernels.table import Choice, choose
from sparsec.ops import get_op
from sparsec.ops.activations import CELL_ACTIVATIONS, Arrays
from sparsec.ops.recurrent import Recurrent
from sparsec.ops.sequences import activation_parameters

RECURRENT_OPS: Final = frozenset({"simple_rnn", "lstm", "gru"})
"""The recurrent operators that run here; the others run as their reference evaluation."""

Activate = Callable[[Array], Array]
"""An activation that may write over its input; the result."""

Step = Callable[[Array, Sequence[Run], list[Array]], list[Array]]
"""One step, from what it takes from ``x``, the products with its states, and these: new arrays for the states."""


@dataclass(frozen=True)
class RecurrentTask:
    """One application of a recurrent operator, at known shapes.

    Attributes:
        op: the operator's name.
        attrs: its attributes.
        projection: the product of ``x`` and the kernel, as a task of ``dense``.
        product: the product of a state and the recurrent kernel, as one.
        steps: how many there are.
    """

    op: str
    attrs: Attrs
    projection: Task
    product: Task
    steps: int


@dataclass(frozen=True)
class RecurrentChoice:
    """The kernels chosen for the two products of a task."""

    projection: Choice
    product: Choice
    steps: int

    @property
    def name(self) -> str:
        """The kernels' names."""
        return f"{self.projection.kernel.name}, then {self.product.kernel.name} a step"

    @property
    def cost(self) -> float:
        """Estimated nanoseconds of all products."""
        return self.projection.cost + self.steps * self.product.cost

    @property
    def reason(self) -> str:
        """Why these, in one line."""
        return f"{self.projection.reason}; each step {self.product.reason}"

    @property
    def missing(self) -> tuple[str, ...]:
        """Packages that are not installed and would have given faster kernels."""
        return tuple(dict.fromkeys((*self.projection.missing, *self.product.missing)))


def choose_recurrent(task: RecurrentTask) -> RecurrentChoice:
    """The kernels with the lowest estimates."""
    return RecurrentChoice(choose(task.projection), choose(task.product), task.steps)


Pack = Callable[[Task, Choice], Any]
"""Gives the packed weight of a task in the form that the kernel chosen for it wants."""


def bind_recurrent(
    task: RecurrentTask, choice: RecurrentChoice, pack: Pack, bias: Array | None
) -> Callable[[Array, Array | None, Sequence[Array | None]], tuple[Array, ...]]:
    """Make a recurrent operator ready for one task.

    Returns:
        a function of ``x``, the mask and the initial states, of which any but ``x`` may be ``None``: the operator's outputs.
    """
    op = get_op(task.op)
    assert isinstance(op, Recurrent)
    own, inner = op.biases(task.attrs, bias)
    kernel = choice.projection.kernel
    project = kernel.bind(task.projection, pack(task.projection, choice.projection), Epilogue(own))
    products = _products(task, op, choice.product, pack(task.product, choice.product), inner)
    step = STEPS[task.op](task.attrs)
    zeros, backwards = bool(task.attrs["zero_masked"]), bool(task.attrs["reverse"])
    shape, dtype = (task.product.x[0], task.product.x[-1]), np.dtype(task.product.dtype)
    order = range(task.steps)[::-1] if backwards else range(task.steps)

    def run(x: Array, mask: Array | None, initial: Sequence[Array | None]) -> tuple[Array, ...]:
        projected = project(x)
        states = [np.zeros(shape, dtype) if state is None else state for state in initial]
        output, sequence = np.zeros(shape, dtype), np.empty((shape[0], task.steps, shape[1]), dtype)
        for t in order:
            after = step(projected[:, t], products, states)
            if mask is None:
                states, output = after, after[0]
            else:
                counts = mask[:, t, None]
                output = np.where(counts, after[0], np.zeros_like(output) if zeros else output)
                states = [np.where(counts, new, old) for new, old in zip(after, states, strict=True)]
            sequence[:, t] = output
        return sequence, *states

    return run


def _products(task: RecurrentTask, op: Recurrent, choice: Choice, packed: Any, inner: Array | None) -> list[Run]:
    units, parts = task.product.x[-1], op.products(task.attrs)
    bound = []
    for index, (first, stop) in enumerate(parts):
        width = (stop - first) * units
        weight = replace(task.product.weight, shape=(units, width))
        part = replace(task.product, y=(*task.product.y[:-1], width), weight=weight)
        columns = packed if len(parts) == 1 else _columns(packed, first * units, stop * units)
        bound.append(choice.kernel.bind(part, columns, Epilogue(inner if index == 0 else None)))
    return bound


def _columns(packed: Any, first: int, stop: int) -> Any:
    """Some columns of a packed kernel ``[in, out]``, which are rows where it is packed by rows."""
    if isinstance(packed, np.ndarray):
        return np.ascontiguousarray(packed[:, first:stop])
    return tuple(matrix[first:stop] for matrix in packed)


# --- steps -------------------------------------------------------------------------------------------------------------


def _activate(attrs: Attrs, name: str) -> Activate:
    chosen, alpha, beta = activation_parameters(attrs, name)
    own: dict[str, dict[str, Any]] = {
        "hard_sigmoid": {"alpha": alpha, "beta": beta},
        "relu": {"negative_slope": alpha, "threshold": 0.0, "max_value": None},
        "sigmoid": {},
        "tanh": {},
    }
    if chosen == "linear":
        return lambda x: x
    if chosen in own:
        function, parameters = IN_PLACE[chosen], own[chosen]
        return lambda x: function(parameters, x, out=x)
    compose, ops = CELL_ACTIVATIONS[chosen], Arrays()
    return lambda x: compose(ops, x, alpha, beta)


def _simple_steps(attrs: Attrs) -> Step:
    activate = _activate(attrs, "activation")

    def step(projected: Array, products: Sequence[Run], states: list[Array]) -> list[Array]:
        z = products[0](states[0])
        z += projected
        return [activate(z)]

    return step


def _lstm_gates(attrs: Attrs) -> Callable[[Array, int], tuple[Array, Array, Array, Array]]:
    """The gates i, f, g and o after their activations, from ``z``, which is written over."""
    activate, recurrent = _activate(attrs, "activation"), _activate(attrs, "recurrent_activation")

    def separate(z: Array, units: int) -> tuple[Array, Array, Array, Array]:
        i, f, g, o = (z[:, gate * units : (gate + 1) * units] for gate in range(4))
        return recurrent(i), recurrent(f), activate(g), recurrent(o)

    def together(z: Array, units: int) -> tuple[Array, Array, Array, Array]:
        # sigmoid(x) is tanh(x / 2) / 2 + 1 / 2: one tanh over all gates.
        candidate = z[:, 2 * units : 3 * units]
        candidate += candidate
        z *= 0.5
        np.tanh(z, out=z)
        for part in (z[:, : 2 * units], z[:, 3 * units :]):
            part *= 0.5
            part += 0.5
        return z[:, :units], z[:, units : 2 * units], candidate, z[:, 3 * units :]

    usual = attrs["activation"] == "tanh" and attrs["recurrent_activation"] == "sigmoid"
    return together if usual else separate


def _lstm_steps(attrs: Attrs) -> Step:
    gates, activate = _lstm_gates(attrs), _activate(attrs, "activation")

    def step(projected: Array, products: Sequence[Run], states: list[Array]) -> list[Array]:
        h, c = states
        z = products[0](h)
        z += projected
        i, f, g, o = gates(z, h.shape[-1])
        c = f * c
        c += i * g
        return [o * activate(c.copy()), c]

    return step


def _gru_steps(attrs: Attrs) -> Step:
    activate, recurrent = _activate(attrs, "activation"), _activate(attrs, "recurrent_activation")
    reset_after = bool(attrs["reset_after"])

    def step(projected: Array, products: Sequence[Run], states: list[Array]) -> list[Array]:
        (h,), units = states, states[0].shape[-1]
        inner = products[0](h)
        z, r = inner[:, :units], inner[:, units : 2 * units]
        z += projected[:, :units]
        r += projected[:, units : 2 * units]
        z, r = recurrent(z), recurrent(r)
        candidate = r * inner[:, 2 * units :] if reset_after else products[1](r * h)
        candidate += projected[:, 2 * units :]
        return [z * h + (1 - z) * activate(candidate)]

    return step


STEPS: Final[dict[str, Callable[[Attrs], Step]]] = {"simple_rnn": _simple_steps, "lstm": _lstm_steps, "gru": _gru_steps}
"""By operator, what makes its step from its attributes."""
