"""Products of computed values: batched matrix products, and scaled dot-product attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from sparsec.errors import GraphError
from sparsec.ir import Array, Attrs, AttrValue, Dim, TensorType, format_shape, product
from sparsec.ops.base import (
    Attribute,
    Kind,
    Op,
    broadcast_shapes,
    expect_dtype,
    expect_float,
    given,
    integer,
    number,
    optional,
    optional_array,
    register,
    required,
    static,
)
from sparsec.ops.channels import ChannelRule, Constants, Mask, NodeView, Partition, Ties


@register
class Matmul(Op):
    """``a @ b`` over the last two axes; the axes before them broadcast by NumPy's rule."""

    name = "matmul"
    inputs = ("a", "b")
    matrix_rows: ClassVar = {0: (-2,), 1: (-1,)}

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        a, b = required(inputs, 0, "a"), required(inputs, 1, "b")
        expect_float(a, "a")
        expect_dtype(b, a.dtype, "b")
        if a.rank < 2 or b.rank < 2:
            raise GraphError(f"a {a} and b {b} are not [..., m, k] and [..., k, n]")
        if a.shape[-1] != b.shape[-2]:
            raise GraphError(f"a {a} and b {b} do not fit, or cannot be shown to before the model runs")
        return (TensorType(a.dtype, (*broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])),)

    def macs(self, attrs: Attrs, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]) -> Dim:
        return product((*outputs[0].shape, required(inputs, 0, "a").shape[-1]))

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        return (given(inputs[0]) @ given(inputs[1]),)


KEYS, MASK = 1, 3
"""The positions of keys and mask among the inputs of attention."""


class Attending(ChannelRule):
    """Scaled dot-product attention, whose channels are those of its heads, one head after the other.

    Channel d of head h of the queries meets channel d of the keys of that head (or of its group of heads), and nothing else:
    they are tied. What is summed over them is the same for all keys where the keys' channel is constant, and softmax does not
    see it; it is 0 where the queries' channel is. The weights of a query sum to one, so a constant channel of the values stays
    one; not where a query without keys gives 0.

    Every head has the same number of channels, whichever they are; a head goes as a whole from queries, keys, values and
    output, and with it all that share its keys.
    """

    def applies(self, view: NodeView) -> str:
        if any(view.is_weight(index) for index in range(MASK)):
            return "attention to weights"
        if not all(view.channels(name) for name in view.node.inputs[:MASK]):
            return "attention on values whose channels are not known"
        return ""

    def partitions(self, view: NodeView) -> Sequence[Partition]:
        groups = integer(view.attrs, "kv_heads")
        # The heads of a group lose the same channels, since each is tied to those of the keys.
        return [Partition(value, groups) for value in (*view.node.inputs[:MASK], view.node.output)]

    @staticmethod
    def _per_head(view: NodeView, grouped: Array) -> Array:
        """An array over the channels of keys or values, ``[kv_heads * D]``, as the heads see them, ``[heads * D]``."""
        heads, groups = integer(view.attrs, "heads"), integer(view.attrs, "kv_heads")
        return np.repeat(grouped.reshape(groups, -1), heads // groups, axis=0).reshape(-1)

    @staticmethod
    def _per_group(view: NodeView, mask: Mask) -> Mask:
        """Which channels of keys or values some head of their group marks; ``mask`` is ``[heads * D]``."""
        heads, groups = integer(view.attrs, "heads"), integer(view.attrs, "kv_heads")
        return np.asarray(mask.reshape(groups, heads // groups, -1).any(axis=1)).reshape(-1)

    def tie(self, view: NodeView, ties: Ties) -> None:
        q, k, v = view.node.inputs[:MASK]
        ties.tie_value(q, self._per_head(view, ties.value(k)))
        ties.tie_value(view.node.output, self._per_head(view, ties.value(v)))
        if view.name(MASK) is not None and not view.is_weight(MASK):
            ties.pin(ties.value(view.node.inputs[MASK]), "attention needs every entry of its mask")

    def constants(self, view: NodeView, facts: Mapping[str, Constants]) -> Constants:
        q, k, v = (facts[name] for name in view.node.inputs[:MASK])
        # Remembered for the other direction, which is asked afterwards.
        view.cache["idle"] = self._per_head(view, k.known) | (q.known & (q.values == 0))
        known, values = self._per_head(view, v.known), self._per_head(view, v.values)
        if view.attrs["empty"] == "zero" and _may_be_empty(view):
            known = known & (values == 0)
        return Constants.of(known, values)

    def reads(self, view: NodeView, read: Mask) -> dict[str, Mask]:
        q, k, v = view.node.inputs[:MASK]
        heads = integer(view.attrs, "heads")
        used = np.repeat(read.reshape(heads, -1).any(axis=1), view.channels(q) // heads) & ~view.cache["idle"]
        result: dict[str, Mask] = {}
        for name, mask in ((q, used), (k, self._per_group(view, used)), (v, self._per_group(view, read))):
            result[name] = mask | result.get(name, False)
        if view.name(MASK) is not None and not view.is_weight(MASK):
            result[view.node.inputs[MASK]] = np.ones(view.channels(view.node.inputs[MASK]), bool)
        return result

    def refuses(self, view: NodeView, index: int, constants: Constants) -> tuple[Mask, str]:
        # One number for all keys does not matter; a map over the positions makes some of them count more than others.
        return constants.nonzero & constants.shaped & (
            index == KEYS
        ), "keys that differ by position are told apart by attention"

    def resized(self, view: NodeView, kept: Mapping[str, Mask]) -> dict[str, AttrValue]:
        heads, groups = integer(view.attrs, "heads"), integer(view.attrs, "kv_heads")
        left = int(kept[view.node.inputs[KEYS]].reshape(groups, -1).any(axis=1).sum())
        return {} if left == groups else {"heads": heads // groups * left, "kv_heads": left}

    def spoils(self, view: NodeView) -> str:
        return "attention makes of it what depends on the input"


def _may_be_empty(view: NodeView) -> bool:
    """Whether a query may have no key; the causal rule alone leaves it the first one."""
    return view.name(MASK) is not None or integer(view.attrs, "window") > 0


@register
class Attention(Op):
    """Scaled dot-product attention of several heads, whose channels lie one head after the other in the last axis.

    Vaswani et al. 2017, section 3.2; with fewer heads of keys and values than of queries Ainslie et al. 2023, section 2.2. For
    each head the logits are ``scale * q @ k^T``; a query looks at the keys that ``mask`` allows, with ``causal`` at none behind
    its own position, with a ``window`` at those less than that far from it. Its weights are the softmax of its logits over
    them, the result is the sum of the values by these weights. For a query without any key, ``empty`` says what the result is:
    the ``mean`` of all values, or ``zero``.
    """

    name = "attention"
    inputs = ("q", "k", "v", "mask?")
    channels: ClassVar = Attending()
    attributes: ClassVar = {
        "heads": Attribute(Kind.INT),
        "kv_heads": Attribute(Kind.INT),
        "scale": Attribute(Kind.FLOAT),
        "causal": Attribute(Kind.BOOL, False),
        "window": Attribute(Kind.INT, 0),
        "empty": Attribute(Kind.STR, "mean", choices=("mean", "zero")),
    }

    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        q, k, v = (required(inputs, index, label) for index, label in enumerate("qkv"))
        mask = optional(inputs, MASK)
        expect_float(q, "q")
        expect_dtype(k, q.dtype, "k")
        expect_dtype(v, q.dtype, "v")
        expect_dtype(mask, "bool", "mask")
        heads, groups, window = (integer(attrs, name) for name in ("heads", "kv_heads", "window"))
        if (q.rank, k.rank, v.rank) != (3, 3, 3) or q.shape[0] != k.shape[0] or k.shape[:2] != v.shape[:2]:
            raise GraphError(f"q {q}, k {k} and v {v} are not [N, T, C], [N, S, C] and [N, S, C]")
        channels, keys, values = (static(x.shape[-1], "the channel count") for x in (q, k, v))
        if groups < 1 or heads < 1 or heads % groups or channels % heads or values % groups or window < 0:
            raise GraphError(f"q {q} and v {v} do not fit {heads} heads of queries and {groups} of keys")
        if keys != channels // heads * groups:
            raise GraphError(f"q {q} and k {k} have not as many channels a head with {heads} and {groups} heads")
        logits = (q.shape[0], heads, q.shape[1], k.shape[1])
        if mask is not None and (mask.rank > 4 or broadcast_shapes(mask.shape, logits) != logits):
            raise GraphError(f"mask {mask} does not broadcast to {format_shape(logits)}")
        return (TensorType(q.dtype, (*q.shape[:2], values // groups * heads)),)

    def macs(self, attrs: Attrs, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]) -> Dim:
        q, k = required(inputs, 0, "q"), required(inputs, 1, "k")
        return product((*q.shape[:2], k.shape[1], q.shape[-1] + outputs[0].shape[-1]))

    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        q, k, v = given(inputs[0]), given(inputs[1]), given(inputs[2])
        heads, groups = integer(attrs, "heads"), integer(attrs, "kv_heads")
        samples, queries, keys = q.shape[0], q.shape[1], k.shape[1]
        # In half precision the logits would lose what softmax makes of them.
        wide = np.promote_types(q.dtype, np.float32)
        depth, width = q.shape[-1] // heads, v.shape[-1] // groups
        q = q.astype(wide, copy=False).reshape(samples, queries, groups, heads // groups, depth).transpose(0, 2, 3, 1, 4)
        k = k.astype(wide, copy=False).reshape(samples, keys, groups, 1, depth).transpose(0, 2, 3, 4, 1)
        logits = q @ k
        logits *= number(attrs, "scale")
        allowed = _allowed(attrs, queries, keys, optional_array(inputs, MASK))
        if allowed is not None:
            # Far below every logit, and far enough above the least number not to overflow.
            np.copyto(logits, np.finfo(wide).min / 2, where=~allowed)
        logits -= logits.max(axis=-1, keepdims=True)
        weights = np.exp(logits, out=logits)
        weights /= weights.sum(axis=-1, keepdims=True)
        if allowed is not None and attrs["empty"] == "zero":
            weights *= allowed
        values = v.reshape(samples, keys, groups, 1, width).transpose(0, 2, 3, 1, 4)
        y = weights.astype(v.dtype, copy=False) @ values
        return (y.transpose(0, 3, 1, 2, 4).reshape(samples, queries, heads * width),)


def near(queries: int, keys: int, causal: bool, window: int) -> Array | None:
    """Which keys the positions allow, ``[queries, keys]``; ``None`` for all."""
    if not causal and not window:
        return None
    distance = np.arange(queries)[:, None] - np.arange(keys)
    allowed = np.ones((queries, keys), bool)
    if causal:
        allowed &= distance >= 0
    if window:
        allowed &= np.abs(distance) < window
    return allowed


def _allowed(attrs: Attrs, queries: int, keys: int, mask: Array | None) -> Array | None:
    """Which keys each query looks at, broadcasting to ``[N, groups, heads of a group, queries, keys]``; ``None`` for all."""
    allowed = near(queries, keys, bool(attrs["causal"]), integer(attrs, "window"))
    if mask is None:
        return allowed
    full = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
    heads = full.shape[1]
    groups = integer(attrs, "kv_heads") if heads > 1 else 1
    full = full.reshape(full.shape[0], groups, heads // groups, *full.shape[2:])
    return full if allowed is None else full & allowed
