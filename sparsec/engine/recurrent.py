"""The rule for recurrent operators: what steps take from the input as one product, then all steps in one kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Final

import numpy as np

from sparsec.engine.convolutions import refuse_weights
from sparsec.engine.rules import LOGIC, Found, Site, rule
from sparsec.engine.steps import Concat, Item, Made, Planes, Post, Product, Refusal, Step, View, multiplying
from sparsec.ir import ABSENT, Array, Attrs
from sparsec.kernels.library import FUNCTIONS
from sparsec.ops import get_op
from sparsec.ops.recurrent import Recurrent
from sparsec.ops.sequences import BIAS, KERNEL, MASK, RECURRENT_KERNEL, STATES, X, activation_parameters

CELLS: Final = ("simple_rnn", "lstm", "gru", "gru after")
"""The cells, in the order of ``recurrent.c``."""

PLAIN: Final = frozenset({"sigmoid", "tanh", "silu", "selu", "softplus", "softsign", "exp", "gelu", "gelu_tanh"})
"""The activations of cells that are functions of the library by the same name, without parameters."""

ACTIVATIONS: Final[dict[str, Callable[[float, float], Post]]] = {
    "clip": lambda alpha, beta: Post("clamp", alpha, beta),
    "elu": lambda alpha, beta: Post("elu", alpha),
    "hard_sigmoid": lambda alpha, beta: Post("hard_sigmoid", alpha, beta),
    "relu": lambda alpha, beta: Post("leaky", alpha) if alpha else Post("clamp", 0.0, inf),
}
"""Others, by their two parameters."""

LINEAR: Final = -1
"""The number of no function."""


Function = tuple[int, float, float]
"""The number of a function and its parameters."""


def activation(attrs: Attrs, name: str) -> Post | Refusal | None:
    """The activation in an attribute of a cell, as an operation; ``None`` where it does nothing."""
    if name not in attrs:
        return None
    chosen, alpha, beta = activation_parameters(attrs, name)
    if chosen == "linear":
        return None
    if chosen not in PLAIN and chosen not in ACTIVATIONS:
        return Refusal(f"its activation {chosen} has no native kernel")
    return Post(chosen) if chosen in PLAIN else ACTIVATIONS[chosen](alpha, beta)


def _function(site: Site, name: str) -> Function | Refusal:
    post = activation(site.attrs, name)
    if isinstance(post, Refusal):
        return post
    return (LINEAR, 0.0, 0.0) if post is None else (FUNCTIONS.index(post.function), post.a, post.b)


@rule("simple_rnn", "lstm", "gru", dtypes=LOGIC)
def _recurrent(site: Site) -> Found:
    refusal = refuse_weights(site, [site.input(index) for index in (KERNEL, BIAS, RECURRENT_KERNEL)])
    if refusal:
        return refusal
    op = get_op(site.node.op)
    assert isinstance(op, Recurrent)
    initial = [site.input(STATES + index) for index in range(len(op.state_names))]
    if any(name == ABSENT or site.is_constant(name) for name in initial) and any(name != ABSENT for name in initial):
        return Refusal("not all of its initial states are computed")
    of_candidate, of_gates = (_function(site, name) for name in ("activation", "recurrent_activation"))
    if isinstance(of_candidate, Refusal):
        return of_candidate
    if isinstance(of_gates, Refusal):
        return of_gates
    return _items(site, op, [name for name in initial if name != ABSENT], (of_candidate, of_gates))


def _items(site: Site, op: Recurrent, initial: Sequence[str], functions: Sequence[Function]) -> Made:
    x, y = site.planes(site.input(X)), site.planes(site.y)
    projection, states, joined = (f"{site.y}.{name}" for name in ("projection", "states", "initial"))
    own, inner = _biases(site, op, y.channels)
    cell = CELLS.index("gru after" if site.attrs.get("reset_after") else site.node.op)
    ended = Planes(y.samples, 1, 1, len(op.state_names) * y.channels)
    project = Step(
        multiplying(x),
        *(site.x, projection, [site.node]),
        product=Product(site.input(KERNEL)),
        bias=own,
    )
    first = initial[0] if len(initial) == 1 else joined
    run = Step(
        "recurrent",
        *(projection, site.y, [site.node]),
        product=Product(site.input(RECURRENT_KERNEL), rows=(2 * y.channels, y.channels) if site.node.op == "gru" else ()),
        bias=inner,
        options=(
            *(0, cell, int(bool(site.attrs["reverse"]))),
            *(number for number, _, _ in functions),
            int(bool(site.attrs["zero_masked"])),
        ),
        numbers=tuple(parameter for _, a, b in functions for parameter in (a, b)),
        residual=first if initial else "",
        also=states,
        mask=site.input(MASK),
    )
    items: list[Item] = [Concat(joined, tuple(initial))] if len(initial) > 1 else []
    items += [project, run]
    items += [View(name, states, index * y.channels) for index, name in enumerate(site.node.outputs[1:])]
    gates = Planes(x.samples, x.height, x.width, op.gates * y.channels)
    return Made(items, {projection: gates, states: ended, joined: ended})


def _biases(site: Site, op: Recurrent, units: int) -> tuple[Array | None, Array | None]:
    """The biases of the projection, and of what is multiplied with the gate r; all that is simply added is in the first."""
    if site.input(BIAS) == ABSENT:
        return None, None
    own, inner = op.biases(site.attrs, np.asarray(site.store.array(site.input(BIAS)), np.float32))
    assert own is not None
    if inner is None:
        return np.ascontiguousarray(own), None
    own = own.copy()
    own[: 2 * units] += inner[: 2 * units]
    return own, np.ascontiguousarray(inner[2 * units :])
