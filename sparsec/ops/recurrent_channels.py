"""How channel facts flow through recurrent operators.

Unit u owns column u of every gate, in both kernels and the bias, row u of the recurrent kernel, and channel u of every output
and state. It reads itself and other units: a unit is needed if its output is read, or if a needed unit has a weight on it.

A unit is constant only if it is 0 at every step. That is so if it begins as 0, its candidate does not depend on anything that
varies, and the candidate is 0: then whatever its gates let through is 0. A unit whose candidate is another constant moves
towards it step by step.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sparsec.ir import Array
from sparsec.ops.activations import CELL_ACTIVATIONS, Arrays
from sparsec.ops.channels import ChannelRule, Constants, KernelRows, Mask, NodeView, Ties, Vector
from sparsec.ops.channels.linear import BEHIND_PADDING, BORDERED, pads_zeros
from sparsec.ops.sequences import BIAS, KERNEL, MASK, RECURRENT_KERNEL, STATES, X, activation_parameters

ALONG_UNITS = frozenset({"log_softmax", "softmax", "sparsemax"})
"""The activations in which a unit depends on the others."""


CHANGES = "its bias moves it from step to step"


class RecurrentRule(ChannelRule):
    """Units stand and fall with all that belongs to them.

    Args:
        gates: how many gates the kernels hold.
        candidate: which of them holds what a unit moves towards.
    """

    def __init__(self, gates: int, candidate: int) -> None:
        self._gates = gates
        self._candidate = candidate

    def applies(self, view: NodeView) -> str:
        if not all(view.is_weight(index) for index in (KERNEL, BIAS, RECURRENT_KERNEL) if view.name(index) is not None):
            return f"{view.node.op} with computed weights"
        if any(view.attrs.get(name) in ALONG_UNITS for name in ("activation", "recurrent_activation")):
            return f"{view.node.op} with an activation along its units"
        return ""

    # --- ties ---

    def tie(self, view: NodeView, ties: Ties) -> None:
        kernel, recurrent, bias = view.node.inputs[KERNEL], view.node.inputs[RECURRENT_KERNEL], view.name(BIAS)
        units = view.channels(view.node.outputs[0])
        ids = ties.fresh(units)
        gates = np.tile(ids, self._gates)
        ties.tie_weight(kernel, view.types[kernel].rank - 2, ties.value(view.node.inputs[X]))
        ties.tie_weight(kernel, view.types[kernel].rank - 1, gates)
        ties.tie_weight(recurrent, view.types[recurrent].rank - 2, ids)
        ties.tie_weight(recurrent, view.types[recurrent].rank - 1, gates)
        if bias is not None:
            ties.tie_weight(bias, view.types[bias].rank - 1, gates)
        for value in view.node.outputs:
            ties.tie_value(value, ids)
        for index in self._states(view):
            name = view.node.inputs[index]
            if view.is_weight(index):
                ties.tie_weight(name, view.types[name].rank - 1, ids)
            else:
                ties.tie_value(name, ids)
        mask = view.name(MASK)
        if mask is not None and not view.is_weight(MASK):
            ties.pin(ties.value(mask), "a mask of steps")

    @staticmethod
    def _states(view: NodeView) -> list[int]:
        """The positions of the initial states that are given."""
        return [index for index in range(STATES, len(view.node.inputs)) if view.name(index) is not None]

    # --- weights ---

    def _by_gate(self, view: NodeView, index: int) -> Array:
        """A kernel as ``[window, in, gate, unit]``."""
        kernel = view.weight(index)
        assert kernel is not None
        return kernel.reshape(-1, kernel.shape[-2], self._gates, kernel.shape[-1] // self._gates)

    def _used(self, view: NodeView, index: int) -> Mask:
        """Whether a unit has a weight on an input of a kernel, in any gate, ``[in, unit]``."""
        key = f"used {index}"
        if key not in view.cache:
            view.cache[key] = (self._by_gate(view, index) != 0).any(axis=(0, 2))
        return view.cache[key]

    def _uniform(self, view: NodeView) -> bool:
        """Whether every position sums over the whole window, so that a constant input adds a constant."""
        return "padding" not in view.attrs or not pads_zeros(view.attrs)

    def _sums(self, view: NodeView, values: Vector) -> Vector:
        """What constant inputs add to each gate, ``[gates * units]``."""
        kernel = self._by_gate(view, KERNEL).astype(np.float64).sum(axis=0)
        return np.asarray(np.einsum("c,cgu->gu", values, kernel)).reshape(-1)

    # --- constants ---

    def constants(self, view: NodeView, facts: Mapping[str, Constants]) -> Constants:
        x = facts[view.node.inputs[X]] if view.node.inputs[X] in facts else Constants.none(view.channels(view.node.inputs[X]))
        movable = x.known if self._uniform(view) else x.known & (x.values == 0)
        depends = (self._by_gate(view, KERNEL)[:, ~movable, self._candidate] != 0).any(axis=(0, 1))
        zero = ~depends & self._rests(view, self._sums(view, x.values * movable)) & self._begins_as_zero(view, facts)
        feeds = (self._by_gate(view, RECURRENT_KERNEL)[:, :, self._candidate] != 0).any(axis=0)
        while True:
            # What a unit that is not 0 moves is not 0 either.
            left = zero & ~feeds[~zero].any(axis=0)
            if np.array_equal(left, zero):
                break
            zero = left
        view.cache["zero"] = zero
        return Constants.of(zero, np.zeros(zero.size))

    def _rests(self, view: NodeView, sums: Vector) -> Mask:
        """Whether the candidate of each unit is 0 where its inputs add ``sums`` and no unit moves it."""
        units = sums.size // self._gates
        chosen = slice(self._candidate * units, (self._candidate + 1) * units)
        bias = view.weight(BIAS)
        own = bias[0] if bias is not None and bias.ndim == 2 else bias
        inner = bias[1] if bias is not None and bias.ndim == 2 else None
        name, alpha, beta = activation_parameters(view.attrs, "activation")

        def activated(x: Vector) -> Array:
            with np.errstate(all="ignore"):
                return np.asarray(CELL_ACTIVATIONS[name](Arrays(), x, alpha, beta))

        candidate = activated(sums[chosen] + (0.0 if own is None else own[chosen].astype(np.float64)))
        # An LSTM applies the activation to its state once more.
        rests = (candidate == 0) & (activated(np.zeros(1)) == 0)
        return np.asarray(rests if inner is None else rests & (inner[chosen] == 0))

    def _begins_as_zero(self, view: NodeView, facts: Mapping[str, Constants]) -> Mask:
        begins = np.ones(view.channels(view.node.outputs[0]), bool)
        for index in self._states(view):
            weight = view.weight(index)
            if weight is not None:
                begins &= (weight == 0).reshape(-1, begins.size).all(axis=0)
            else:
                state = facts[view.node.inputs[index]]
                begins &= state.known & (state.values == 0)
        return begins

    def lingering(self, view: NodeView) -> tuple[Mask, str]:
        moved = self._used(view, KERNEL).any(axis=0) | self._used(view, RECURRENT_KERNEL).any(axis=0)
        return np.asarray(~moved & ~view.cache["zero"]), CHANGES

    # --- reads ---

    def reads(self, view: NodeView, read: Mask) -> dict[str, Mask]:
        # A unit that is always 0 stays so whatever becomes of what it reads.
        zero = view.cache.get("zero", np.zeros_like(read))
        needed, feeds = np.asarray(read & ~zero), self._used(view, RECURRENT_KERNEL)
        while True:
            more = np.asarray(needed | (feeds[:, needed].any(axis=1) & ~zero))
            if np.array_equal(more, needed):
                break
            needed = more
        found = {view.node.outputs[0]: needed}
        for index in self._states(view):
            if not view.is_weight(index):
                found[view.node.inputs[index]] = needed
        mask = view.name(MASK)
        if mask is not None and not view.is_weight(MASK):
            found[mask] = np.ones(view.channels(mask), bool)
        x = np.asarray(self._used(view, KERNEL)[:, needed].any(axis=1))
        name = view.node.inputs[X]
        found[name] = x | found[name] if name in found else x
        return found

    def refuses(self, view: NodeView, index: int, constants: Constants) -> tuple[Mask, str]:
        if index != X:
            return np.zeros(constants.known.size, bool), ""
        return (constants.shaped, BORDERED) if self._uniform(view) else (constants.nonzero, BEHIND_PADDING)

    def absorbed(self, view: NodeView, gone: Mask, constants: Constants) -> Array | None:
        movable = gone & constants.known & self._uniform(view)
        delta = self._sums(view, constants.values * movable)
        # The second row of such a bias belongs to the state.
        return np.stack([delta, np.zeros_like(delta)]) if view.attrs.get("reset_after") else delta

    def rows(self, view: NodeView) -> KernelRows | None:
        return KernelRows(view.types[view.node.inputs[KERNEL]].rank - 2)
