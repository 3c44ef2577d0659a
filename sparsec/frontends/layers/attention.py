"""Attention layers: of several heads, with projections of their own, and plain ones.

They become the operator ``attention`` wherever they can. Where scores are asked for, are not dot products, or where the axes
attended to are not the only ones, the products and the softmax are emitted one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod, sqrt

import numpy as np

from sparsec.frontends.layer import Layer, Value, reads, tensors
from sparsec.frontends.layers.masks import both, over_channels
from sparsec.frontends.layers.shapes import reshaped, transposed, with_axis
from sparsec.frontends.source import MatrixView
from sparsec.ir import Dim
from sparsec.ops.attention import near

FUSED = (3, 7)
"""Since this version of Keras a query that may look at nothing gets the mean of the values, where nothing else is asked for."""

ZEROED = (3, 10)
"""Since this version it gets 0 in the other cases; before, masked logits are lowered by a large number."""

REPLACED = (3, 13)
"""Since this version masked logits are replaced by it."""

TAKEN = (3, 8)
"""Since this version MultiHeadAttention takes the mask of its queries from them alone, whatever its call gives, and takes the
masks off its inputs, for all that reads them afterwards."""

MASKED = -1e9
"""What is added to masked logits, or takes their place."""


@dataclass(frozen=True)
class Rule:
    """How queries choose among keys.

    Attributes:
        scale: of the dot products.
        causal: whether no query looks at a key behind its own position.
        window: how near keys must be; 0 for any distance.
        empty: what a query gets that may look at nothing: ``mean`` of the values, ``zero``, or ``added``: what it would get if
            it looked at everything, up to the rounding of the large number that is added.
    """

    scale: float
    causal: bool = False
    window: int = 0
    empty: str = "mean"


# --- several heads ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heads:
    """The projections of a layer with several heads.

    Attributes:
        queries: how many heads the queries have.
        keys: how many the keys and values have.
        depth: channels of queries and keys in a head.
        width: channels of values in a head.
        output: the shape of what one position becomes.
    """

    queries: int
    keys: int
    depth: int
    width: int
    output: tuple[int, ...]


@reads("MultiHeadAttention")
def multi_head_attention(layer: Layer) -> Value | tuple[Value, ...]:
    """MultiHeadAttention of Keras 2 and 3."""
    heads, depth = layer.integer("num_heads", least=1), layer.integer("key_dim", least=1)
    query = layer.operand(0, "query")
    value = layer.option("output_shape") or layer.channels(_given(layer, query))
    output = [value] if isinstance(value, int) else value
    if not isinstance(output, list | tuple) or not all(type(size) is int and size > 0 for size in output):
        layer.refuse(f"output_shape = {value!r}, sizes were expected")
    return _projected_attention(layer, Heads(heads, heads, depth, layer.integer("value_dim", depth, 1), tuple(output)))


@reads("GroupQueryAttention", "GroupedQueryAttention")
def group_query_attention(layer: Layer) -> Value | tuple[Value, ...]:
    """GroupQueryAttention: groups of heads share keys and values."""
    depth, query = layer.integer("head_dim", least=1), _given(layer, layer.operand(0, "query"))
    heads, groups = layer.integer("num_query_heads", least=1), layer.integer("num_key_value_heads", least=1)
    if query.rank != 3:
        layer.refuse(f"its queries have {query.rank} axes, 3 were expected")
    return _projected_attention(layer, Heads(heads, groups, depth, depth, (layer.channels(query),)))


def _given(layer: Layer, value: object) -> Value:
    if not isinstance(value, Value):
        layer.refuse("is called without queries and values")
    return value


def _projected_attention(layer: Layer, heads: Heads) -> Value | tuple[Value, ...]:
    query, value = _given(layer, layer.operand(0, "query")), _given(layer, layer.operand(1, "value"))
    given_key = layer.operand(2, "key")
    key = value if given_key is None else _given(layer, given_key)
    masks = _Masks.of(layer, query, value, None if given_key is None else key)
    bare_query, bare_key, bare_value = (layer.cast(item, layer.dtype) for item in (query, key, value))
    q = _projection(layer, "query", bare_query, heads.queries, heads.depth)
    k = _projection(layer, "key", bare_key, heads.keys, heads.depth)
    gate = None
    if layer.flag("use_gate", False):
        gate = layer.emit("sigmoid", _projection(layer, "gate", bare_query, heads.queries, heads.width))
    v = _projection(layer, "value", bare_value, heads.keys, heads.width)
    with_scores = bool(layer.operand(99, "return_attention_scores"))
    axes = _attention_axes(layer, query.rank)
    plain = query.rank == 3 and not with_scores
    fused = plain and layer.saved_by.release >= FUSED and not layer.number("dropout", 0.0)
    mask, window = masks.over_heads(layer), layer.integer("sliding_window", 0)
    rule = Rule(
        _scale(layer, heads.depth),
        bool(layer.operand(99, "use_causal_mask")),
        window,
        "mean" if fused or (mask is None and not window) else _empty(layer),
    )
    if query.rank > 3 and (masks.automatic or rule.causal or rule.window):
        layer.refuse("masks queries and values of more than one axis of positions otherwise than by attention_mask")
    scores: tuple[Value, ...] = ()
    if plain and rule.empty != "added":
        attributes = {"scale": rule.scale, "causal": rule.causal, "window": rule.window, "empty": rule.empty}
        y = layer.emit("attention", q, k, v, mask, heads=heads.queries, kv_heads=heads.keys, **attributes)
    else:
        parts = _Parts(layer, heads, axes)
        y, found = parts.attend(q, k, v, mask, rule)
        scores = (found,) if with_scores else ()
    if gate is not None:
        y = layer.emit("mul", y, gate)
    if layer.class_name == "MultiHeadAttention" and layer.saved_by.release >= TAKEN:
        layer.forget_masks(query, value, key)
    result = layer.masked(_output(layer, y, heads), query.mask)
    return (result, *scores) if scores else result


def _projection(layer: Layer, name: str, x: Value, heads: int, width: int) -> Value:
    """Queries, keys, values or the gate, the channels of one head after those of the other."""
    part = layer.part(f"{name}_dense", f"_{name}_dense")
    kernel = part.weight("kernel", (layer.channels(x), heads, width), MatrixView((0, 1, 2), (1, 2)))
    bias = part.weight("bias", (heads, width), MatrixView((0, 1), (2,))) if layer.flag("use_bias", True) else None
    part.finish()
    return part.emit("dense", x, kernel, bias)


def _output(layer: Layer, y: Value, heads: Heads) -> Value:
    part = layer.part("output_dense", "_output_dense")
    sizes = heads.output
    kernel = part.weight("kernel", (heads.queries, heads.width, *sizes), MatrixView((*range(len(sizes) + 2),), (2, len(sizes))))
    view = MatrixView((*range(len(sizes)),), (len(sizes),)) if len(sizes) > 1 else None
    bias = part.weight("bias", sizes, view) if layer.flag("use_bias", True) else None
    part.finish()
    result = part.emit("dense", y, kernel, bias)
    return reshaped(layer, result, [*result.shape[:-1], *sizes])


def _attention_axes(layer: Layer, rank: int) -> tuple[int, ...]:
    """The axes of positions over which queries choose."""
    stated = layer.option("attention_axes")
    if stated is None:
        return tuple(range(1, rank - 1))
    axes = layer.axes("attention_axes", rank)
    if 0 in axes or rank - 1 in axes or list(axes) != sorted(axes):
        layer.refuse(f"attention_axes = {stated!r} are not axes of positions in ascending order")
    return axes


def _scale(layer: Layer, depth: int) -> float:
    """The factor of the dot products, which Keras 3 rounds to single precision whatever it computes in."""
    scale = 1.0 / sqrt(depth)
    return float(np.float32(scale)) if layer.saved_by.generation == 3 else scale


def _empty(layer: Layer) -> str:
    """What a query gets that may look at nothing, where logits are masked before a softmax of their own."""
    if layer.saved_by.release >= ZEROED:
        return "zero"
    replaced = layer.saved_by.release >= REPLACED or layer.flag("softmax_robust_masking", False)
    return "mean" if replaced else _when_added(layer)


def _when_added(layer: Layer) -> str:
    """What a query gets where a large number is added to all its logits: but in double precision it leaves nothing of them."""
    return "added" if layer.dtype == "float64" else "mean"


@dataclass(frozen=True)
class _Masks:
    """The masks of a call with several heads.

    Attributes:
        queries: which queries count, ``[N, T]``.
        keys: which keys do, ``[N, S]``; all of them must.
        pairs: which keys each query may look at, ``[N, ..., T, S]``.
    """

    queries: Value | None
    keys: tuple[Value, ...]
    pairs: Value | None

    @classmethod
    def of(cls, layer: Layer, query: Value, value: Value, key: Value | None) -> _Masks:
        """The masks that a call gives, else those that its arguments have."""
        found = [query.mask, value.mask, None if key is None else key.mask, None]
        if layer.saved_by.generation == 3:
            names = ("query_mask", "value_mask", "key_mask", "attention_mask")
            given = [layer.operand(3 + index, name) for index, name in enumerate(names)]
            if layer.class_name == "MultiHeadAttention" and layer.saved_by.release >= TAKEN:
                given[0] = None
            found = [own if mask is None else mask for mask, own in zip(given, found, strict=True)]
        else:
            found[3] = layer.operand(3, "attention_mask")
        queries, values, keys, pairs = (None if mask is None else layer.cast(mask, "bool") for mask in found)
        return cls(queries, tuple(mask for mask in (values, keys) if mask is not None), pairs)

    @property
    def automatic(self) -> bool:
        """Whether queries or keys have masks of their own."""
        return self.queries is not None or bool(self.keys)

    def over_heads(self, layer: Layer) -> Value | None:
        """All of them as one, broadcasting to ``[N, heads, T, S]`` where there is one axis of positions."""
        found = [] if self.queries is None else [layer.emit("reshape", self.queries, shape=(0, 1, -1, 1))]
        found += [layer.emit("reshape", mask, shape=(0, 1, 1, -1)) for mask in self.keys]
        if self.pairs is not None:
            if self.pairs.rank > 3 and self.automatic:
                layer.refuse("combines an attention_mask of its heads with masks of its inputs, which Keras does not align")
            found.append(with_axis(layer, self.pairs, 1) if self.pairs.rank == 3 else self.pairs)
        result = found[0] if found else None
        for mask in found[1:]:
            result = mask if result is None else both(layer, result, mask)
        return result


# --- one product after the other --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Parts:
    """Attention in its parts, over some of the axes of positions.

    Attributes:
        layer: the layer.
        heads: its heads.
        axes: the axes over which queries choose; the others are as the batch.
    """

    layer: Layer
    heads: Heads
    axes: tuple[int, ...]

    def attend(self, q: Value, k: Value, v: Value, mask: Value | None, rule: Rule) -> tuple[Value, Value]:
        """The values chosen, as the queries are shaped, and the weights ``[N, others..., heads, T..., S...]``."""
        layer, heads = self.layer, self.heads
        sizes = [[x.shape[axis] for axis in self.axes] for x in (q, k)]
        others = [q.shape[axis] for axis in range(1, q.rank - 1) if axis not in self.axes]
        scaled = layer.emit("mul", q, layer.like(q, rule.scale))
        queries = self._by_head(scaled, heads.queries, heads.depth)
        keys = self._by_head(self._copied(k, heads.depth), heads.queries, heads.depth)
        logits = layer.emit("matmul", queries, _swapped(layer, keys))
        if mask is not None:
            mask = self._aligned(self._merged(mask, sizes) if len(self.axes) > 1 else mask, logits.rank)
        weights = _weights(layer, logits, mask, rule)
        values = self._by_head(self._copied(v, heads.width), heads.queries, heads.width)
        y = self._back(layer.emit("matmul", weights, values), sizes[0], q.shape)
        return y, reshaped(layer, weights, [q.shape[0], *others, heads.queries, *sizes[0], *sizes[1]])

    def _copied(self, x: Value, width: int) -> Value:
        """Keys or values with a copy for each head that shares them."""
        layer, heads = self.layer, self.heads
        if heads.queries == heads.keys:
            return x
        split = reshaped(layer, x, [*x.shape[:-1], heads.keys, 1, width])
        copies = layer.emit("tile", split, repeats=(1, 1, 1, heads.queries // heads.keys, 1))
        return reshaped(layer, copies, [*x.shape[:-1], heads.queries * width])

    def _order(self, rank: int) -> list[int]:
        """The axes of a value of ``rank`` axes, its last one split: those that are as the batch, heads, positions, channels."""
        others = [axis for axis in range(rank - 1) if axis not in self.axes]
        return [*others, rank - 1, *self.axes, rank]

    def _by_head(self, x: Value, heads: int, width: int) -> Value:
        """``[N, others..., heads, positions, width]``."""
        layer = self.layer
        split = transposed(layer, reshaped(layer, x, [*x.shape[:-1], heads, width]), self._order(x.rank))
        return self._merged_run(split, split.rank - 1 - len(self.axes))

    def _merged_run(self, x: Value, start: int) -> Value:
        """``x`` with the axes of positions from ``start`` on as one."""
        count = len(self.axes)
        if count == 1:
            return x
        length = prod(self.layer.size(x, axis) for axis in range(start, start + count))
        return reshaped(self.layer, x, [*x.shape[:start], length, *x.shape[start + count :]])

    def _merged(self, mask: Value, sizes: Sequence[Sequence[Dim]]) -> Value:
        """A mask whose last axes are those of queries and keys, each merged; any before them are batch and heads."""
        count = len(self.axes)
        if mask.rank < 1 + 2 * count:
            self.layer.refuse(f"its attention_mask {mask.type} has not the axes of its queries and keys")
        ends = [mask.rank - 2 * count, mask.rank - count]
        if [list(mask.shape[end : end + count]) for end in ends] != [list(part) for part in sizes]:
            self.layer.refuse(f"its attention_mask {mask.type} has other sizes than its queries and keys")
        return self._merged_run(self._merged_run(mask, ends[1]), ends[0])

    def _aligned(self, mask: Value, rank: int) -> Value:
        """A mask of positions with axes of size 1 before them, as Keras inserts them, up to ``rank`` axes."""
        while mask.rank < rank:
            mask = with_axis(self.layer, mask, mask.rank - 2)
        return mask

    def _back(self, y: Value, positions: Sequence[Dim], shape: Sequence[Dim]) -> Value:
        """``[N, others..., heads, positions, width]`` as the queries are shaped, heads and channels in one axis."""
        layer, rank = self.layer, len(shape)
        split = reshaped(layer, y, [*y.shape[:-2], *positions, y.shape[-1]])
        order = self._order(rank)
        back = transposed(layer, split, [order.index(axis) for axis in range(rank + 1)])
        return reshaped(layer, back, [*shape[:-1], self.heads.queries * layer.size(back, -1)])


def _swapped(layer: Layer, x: Value) -> Value:
    return transposed(layer, x, (*range(x.rank - 2), x.rank - 1, x.rank - 2))


def _weights(layer: Layer, logits: Value, mask: Value | None, rule: Rule) -> Value:
    """The softmax of logits ``[..., T, S]`` over the keys that the mask and the positions allow."""
    if rule.causal or rule.window:
        allowed = near(layer.size(logits, -2), layer.size(logits, -1), rule.causal, rule.window)
        assert allowed is not None
        positions = layer.constant("positions", allowed, "bool")
        mask = positions if mask is None else both(layer, mask, positions)
    if mask is None:
        return layer.emit("softmax", logits, axis=-1)
    lowered = layer.like(logits, MASKED)
    if rule.empty == "added":
        lowered = layer.emit("add", logits, lowered)
    weights = layer.emit("softmax", layer.emit("where", mask, logits, lowered), axis=-1)
    return layer.emit("where", mask, weights, layer.like(weights, 0.0)) if rule.empty == "zero" else weights


# --- without projections ----------------------------------------------------------------------------------------------


@reads("Attention")
def attention(layer: Layer) -> Value | tuple[Value, ...]:
    """Attention: scores are dot products, or sums of tanh."""
    call = _PlainCall.of(layer)
    mode = layer.text("score_mode", "dot")
    scale = layer.weight("scale", ()) if layer.flag("use_scale", False) else None
    if mode == "dot":
        query = call.query if scale is None else layer.emit("mul", call.query, scale)
        if not call.with_scores and (call.keys is None or call.rule.empty == "mean"):
            mask = None if call.keys is None else layer.emit("reshape", call.keys, shape=(0, 1, 1, -1))
            single = {"heads": 1, "kv_heads": 1, "scale": 1.0, "causal": call.rule.causal}
            return call.finish(layer.emit("attention", query, call.key, call.value, mask, **single))
        return call.choose(layer.emit("matmul", query, _swapped(layer, call.key)))
    if mode != "concat":
        layer.refuse(f"score_mode = {mode!r} is not read")
    weight = layer.weight("concat_score_weight", ())
    terms = layer.emit("tanh", call.pairs() if scale is None else layer.emit("mul", call.pairs(), scale))
    return call.choose(layer.emit("mul", _summed(layer, terms), weight))


@reads("AdditiveAttention")
def additive_attention(layer: Layer) -> Value | tuple[Value, ...]:
    """AdditiveAttention: scores are sums of tanh, with a learnt factor for each channel."""
    call = _PlainCall.of(layer)
    terms = layer.emit("tanh", call.pairs())
    if not layer.flag("use_scale", True):
        return call.choose(_summed(layer, terms))
    scale = layer.weight("scale", (layer.channels(terms),), MatrixView((0,), (1, 0)))
    scores = layer.emit("dense", terms, scale)
    return call.choose(layer.emit("reshape", scores, shape=(0, 0, 0)))


def _summed(layer: Layer, terms: Value) -> Value:
    mean = layer.emit("reduce_mean", terms, axes=(-1,), keepdims=False)
    return layer.emit("mul", mean, layer.like(mean, layer.channels(terms)))


@dataclass(frozen=True)
class _PlainCall:
    """A call of a layer without projections, on queries ``[N, T, C]``, values ``[N, S, V]`` and keys ``[N, S, C]``.

    Attributes:
        layer: the layer.
        query: the queries.
        value: the values.
        key: the keys.
        queries: which queries count, ``[N, T]``; the others get 0.
        keys: which keys do, ``[N, S]``.
        rule: how queries choose.
        with_scores: whether the weights are asked for.
    """

    layer: Layer
    query: Value
    value: Value
    key: Value
    queries: Value | None
    keys: Value | None
    rule: Rule
    with_scores: bool

    @classmethod
    def of(cls, layer: Layer) -> _PlainCall:
        """The call that a layer reads."""
        values = [layer.cast(value, layer.dtype) for value in layer.inputs]
        if len(values) not in (2, 3) or any(value.rank != 3 for value in values):
            layer.refuse("is called on other inputs than two or three values of three axes, which is not read")
        given = layer.operand(1, "mask")
        masks = [value.mask for value in layer.inputs]
        if given is not None:
            stated = given if isinstance(given, list | tuple) else list(tensors(given))
            masks = [None if mask is None else layer.cast(mask, "bool") for mask in stated]
        causal = bool(layer.operand(99, "use_causal_mask")) or layer.flag("causal", False)
        rule = Rule(1.0, causal, empty=_when_added(layer))
        with_scores = bool(layer.operand(99, "return_attention_scores"))
        return cls(layer, values[0], values[1], values[-1], masks[0], masks[1], rule, with_scores)

    def pairs(self) -> Value:
        """Every query plus every key, ``[N, T, S, C]``."""
        return self.layer.emit("add", with_axis(self.layer, self.query, 2), with_axis(self.layer, self.key, 1))

    def choose(self, scores: Value) -> Value | tuple[Value, ...]:
        """What the layer returns, from scores ``[N, T, S]``."""
        mask = None if self.keys is None else self.layer.emit("reshape", self.keys, shape=(0, 1, -1))
        weights = _weights(self.layer, scores, mask, self.rule)
        result = self.finish(self.layer.emit("matmul", weights, self.value))
        return (result, weights) if self.with_scores else result

    def finish(self, y: Value) -> Value:
        """The result with 0 for the queries that do not count."""
        if self.queries is None:
            return y
        y = self.layer.emit("where", over_channels(self.layer, self.queries), y, self.layer.like(y, 0.0))
        return self.layer.masked(y, self.queries)
