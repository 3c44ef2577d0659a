"""Operators: what is inferred holds for what is evaluated, and evaluation follows the definitions."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsec.errors import GraphError, InputError
from sparsec.ir import Array, Dim, TensorType, evaluate, substitute, symbol
from sparsec.kernels import IN_PLACE
from sparsec.ops import OPS, TO_THE_END, TO_THE_START, get_op
from sparsec.ops.base import broadcast_shapes
from sparsec.ops.elementwise import erf, sigmoid, softplus
from sparsec.ops.windows import same_pads

N, H, W = symbol("N"), symbol("H"), symbol("W")
SIZES = {"N": 3, "H": 7, "W": 6}


@dataclass(frozen=True)
class Case:
    """An application of an operator: shapes of its inputs with symbols, ``None`` for an input that is absent."""

    op: str
    shapes: Sequence[tuple[Dim, ...] | None]
    attrs: dict[str, Any] = field(default_factory=dict)
    dtypes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.op}-{json.dumps(self.attrs)}-{len(self.shapes)}".replace(" ", "")

    def types(self, dtype: str) -> list[TensorType | None]:
        dtypes = [*self.dtypes, *[dtype] * len(self.shapes)]
        return [
            None if shape is None else TensorType(dt or dtype, shape) for shape, dt in zip(self.shapes, dtypes, strict=False)
        ]


def windows(rank: int) -> Iterator[dict[str, Any]]:
    yield {"strides": (1,) * rank, "dilations": (1,) * rank, "padding": "same"}
    yield {"strides": (2,) * rank, "dilations": (1,) * rank, "padding": "same"}
    yield {"strides": (1,) * rank, "dilations": (2,) * rank, "padding": "explicit", "pads": (1, 2) * rank}
    yield {"strides": (2, 1, 3)[:rank], "dilations": (1,) * rank, "padding": "explicit", "pads": (0,) * (2 * rank)}


def recurrent_cases() -> Iterator[Case]:
    masked = ("", "", "", "", "bool")
    gates = {"activation": "tanh", "recurrent_activation": "sigmoid"}
    for op, count, attrs in (
        ("simple_rnn", 1, {"activation": "relu"}),
        ("gru", 3, {**gates, "reset_after": False}),
        ("lstm", 4, gates),
    ):
        shapes = [(N, H, 4), (4, 2 * count), (2 * count,), (2, 2 * count)]
        states = [(N, 2)] * (2 if op == "lstm" else 1)
        yield Case(op, shapes, attrs)
        yield Case(op, [*shapes, (N, H)], {**attrs, "reverse": True}, masked)
        yield Case(op, [*shapes, (N, H), *states], {**attrs, "zero_masked": True}, masked)
        yield Case(op, [*shapes[:2], None, shapes[3], None, *states], attrs)
    yield Case("gru", [(N, H, 4), (4, 6), (2, 6), (2, 6)], {**gates, "reset_after": True})
    window = {**gates, "strides": (2,), "dilations": (1,), "padding": "same"}
    yield Case("conv_lstm", [(N, H, 5, 4), (3, 4, 8), (8,), (2, 2, 8), (N, H)], window, masked)
    yield Case("conv_lstm", [(N, 3, H, W, 4), (2, 1, 4, 8), None, (3, 3, 2, 8)], {**gates, **next(windows(2))})


SPATIAL: dict[int, tuple[Dim, ...]] = {1: (H,), 2: (H, W), 3: (H, W, 5)}
ACTIVATIONS: dict[str, list[dict[str, Any]]] = {
    "relu": [{}, {"max_value": 1.0}, {"negative_slope": 0.2, "threshold": 0.5}],
    "elu": [{}, {"alpha": 0.3}],
    "gelu": [{}, {"approximate": True}],
    "hard_sigmoid": [{"alpha": 0.2, "beta": 0.5}],
    "clip": [{"minimum": -1.0, "maximum": 0.5}],
    **{
        name: [{}]
        for name in ("selu", "sigmoid", "silu", "tanh", "softplus", "softsign", "exp", "abs", "erf", "sin", "cos", "sign")
    },
    **{name: [{}] for name in ("floor", "round")},
}
CASES: list[Case] = [
    *(Case(op, [(N, H, 4)], attrs) for op, options in ACTIVATIONS.items() for attrs in options),
    *(Case(op, [(N, H, 4)], {}, ("positive",)) for op in ("sqrt", "log")),
    *(Case(op, [(N, H, 4)], {"axis": axis}) for op in ("softmax", "log_softmax", "sparsemax") for axis in (-1, 1)),
    *(Case("cast", [(N, H)], {"dtype": dtype}) for dtype in ("bool", "int32", "int64", "float16", "float32", "float64")),
    *(
        Case(op, [(N, H, 4), shape])
        for op in ("add", "sub", "mul", "maximum", "minimum", "greater", "equal")
        for shape in ((N, H, 4), (4,), (N, 1, 4), ())
    ),
    Case("div", [(N, H, 4), (4,)], {}, ("", "positive")),
    Case("pow", [(N, H, 4), (4,)], {}, ("positive", "")),
    Case("mod", [(N, H, 4), (4,)], {}, ("", "positive")),
    Case("where", [(N, H, 4), (N, H, 4), ()], {}, ("bool",)),
    Case("prelu", [(N, H, 4), (4,)]),
    Case("affine", [(N, H, 4), (4,)]),
    Case("affine", [(N, H, 4), (4,), (4,)]),
    Case("dense", [(N, 5), (5, 4)]),
    Case("dense", [(N, H, W, 5), (5, 4), (4,)]),
    Case("matmul", [(N, H, 5), (N, 5, W)]),
    Case("matmul", [(N, 2, H, 5), (2, 5, W)]),
    Case("gather", [(7, 4), (N, H)], {}, ("", "index")),
    Case("gather", [(N, 7, 4), (2, 3)], {"axis": 1}, ("", "index")),
    *(
        Case("attention", [(N, H, 8), (N, W, 8 // 4 * groups), (N, W, 3 * groups), mask], attrs, ("", "", "", "bool"))
        for groups in (4, 2)
        for attrs in (
            {"heads": 4, "kv_heads": groups, "scale": 0.7},
            {"heads": 4, "kv_heads": groups, "scale": 0.7, "causal": True, "window": 2, "empty": "zero"},
        )
        for mask in (None, (N, 4, H, W), (N, 1, 1, W), (H, W))
    ),
    *(Case("conv", [(N, *SPATIAL[r], 4), (*(2, 3, 2)[:r], 4, 6), (6,)], attrs) for r in (1, 2, 3) for attrs in windows(r)),
    *(
        Case("conv", [(N, *SPATIAL[r], 4), (*(2, 3, 2)[:r], 2, 6)], {**attrs, "groups": 2})
        for r in (1, 2, 3)
        for attrs in windows(r)
    ),
    *(
        Case("depthwise_conv", [(N, *SPATIAL[r], 4), (*(2, 3, 2)[:r], 4, 2), (8,)], attrs)
        for r in (1, 2, 3)
        for attrs in windows(r)
    ),
    *(
        Case(
            "conv_transpose",
            [(N, *SPATIAL[r], 4), (*(2, 3, 2)[:r], 5, 4), (5,)],
            {"strides": (s,) * r, "dilations": (d,) * r, "crops": crops * r},
        )
        for r in (1, 2, 3)
        for s, d, crops in ((1, 1, (0, 0)), (2, 1, (1, 0)), (3, 2, (0, -2)))
    ),
    *(
        Case(op, [(N, *SPATIAL[r], 4)], {**attrs, "window": (2, 3, 2)[:r]})
        for op in ("max_pool", "avg_pool")
        for r in (1, 2, 3)
        for attrs in windows(r)
    ),
    *(
        Case(op, [(N, H, W, 4)], {"axes": axes, "keepdims": keep})
        for op in ("reduce_mean", "reduce_max", "reduce_sum", "reduce_prod")
        for axes in ((1, 2), (-1,))
        for keep in (False, True)
    ),
    *(Case("argmax", [(N, H, W, 4)], {"axis": axis, "keepdims": keep}) for axis in (1, -1) for keep in (False, True)),
    *(Case("cumsum", [(N, H, 4)], {"axis": axis}) for axis in (1, -1)),
    Case("batch_norm", [(N, H, 4), (4,), (4,), (4,), (4,)], {"epsilon": 1e-3}, ("", "", "", "", "positive")),
    Case("batch_norm", [(N, 5, 4), None, None, (5,), (5,)], {"epsilon": 1e-3, "axis": 1}, ("", "", "", "", "positive")),
    Case("layer_norm", [(N, H, 4), (4,), (4,)], {"axes": (-1,), "epsilon": 1e-3}),
    Case("layer_norm", [(N, 5, 4), None, (5, 4)], {"axes": (1, 2), "epsilon": 1e-3}),
    Case("reshape", [(N, H, 4)], {"shape": (0, -1)}),
    Case("reshape", [(N, H, 4)], {"shape": (0, 0, 2, 2)}),
    Case("reshape", [(N, 6, 4)], {"shape": (0, 2, -1, 3)}),
    Case("transpose", [(N, H, W, 4)], {"permutation": (0, 3, 1, 2)}),
    *(Case("pad", [(N, *SPATIAL[r], 4)], {"pads": (1, 0, 2, 3, 0, 1)[: 2 * r]}) for r in (1, 2, 3)),
    *(
        Case("slice", [(N, H, 8)], {"axis": axis, "start": start, "stop": stop, "step": step})
        for axis, start, stop, step in (
            (-1, 1, 6, 2),
            (1, 2, TO_THE_END, 1),
            (1, 1, -2, 1),
            (1, -3, TO_THE_END, 2),
            (1, 1, TO_THE_END, 3),
            (1, -5, -2, 2),
            (1, -1, TO_THE_START, -1),
            (1, -2, 1, -2),
            (1, -2, -4, -1),
            (-1, 6, 1, -2),
        )
    ),
    Case("concat", [(N, H, 4)], {"axis": -1}),
    Case("concat", [(N, H, 4), (N, H, 2), (N, H, 4)], {"axis": -1}),
    Case("concat", [(N, H, 4), (N, W, 4)], {"axis": 1}),
    Case("tile", [(N, H, 1)], {"repeats": (1, 2, 3)}),
    *(
        Case("resize", [(N, H, W, 4)], {"sizes": sizes, "method": method})
        for sizes in ((5, 11), (-2, -3), (7, 6))
        for method in ("nearest", "linear")
    ),
    Case("resize", [(N, H, 4)], {"sizes": (-2,), "method": "nearest"}),
    Case("resize", [(N, H, W, 5, 4)], {"sizes": (-2, 3, -1), "method": "linear"}),
    *recurrent_cases(),
]


def arrays(types: Sequence[TensorType | None], sizes: dict[str, int], case: Case, seed: int = 0) -> list[Array | None]:
    rng = np.random.default_rng(seed)
    found: list[Array | None] = []
    for index, type_ in enumerate(types):
        if type_ is None:
            found.append(None)
            continue
        values = rng.normal(size=tuple(evaluate(dim, sizes) for dim in type_.shape)) * 2
        if index < len(case.dtypes) and case.dtypes[index] == "positive":
            values = np.abs(values) + 0.1
        if index < len(case.dtypes) and case.dtypes[index] == "index":
            values = np.abs(values)
        found.append((values > 0) if type_.dtype == "bool" else values.astype(type_.dtype))
    return found


def typed(case: Case, dtype: str) -> list[TensorType | None]:
    kinds = {"positive": "", "index": "int32"}
    plain = Case(case.op, case.shapes, case.attrs, tuple(kinds.get(dt, dt) for dt in case.dtypes))
    return plain.types(dtype)


def run(op: str, inputs: Sequence[Array | None], **attrs: Any) -> Array:
    (result,) = get_op(op).evaluate(get_op(op).complete(attrs), inputs)
    return result


def test_every_operator_has_a_case() -> None:
    assert {case.op for case in CASES} == set(OPS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_inference_agrees_with_evaluation(case: Case, dtype: str) -> None:
    op, types = get_op(case.op), typed(case, dtype)
    attrs = op.complete(case.attrs)
    bound = [t and TensorType(t.dtype, tuple(substitute(dim, dict(SIZES)) for dim in t.shape)) for t in types]
    inputs = arrays(types, SIZES, case)
    copies = [None if x is None else x.copy() for x in inputs]
    inferred = zip(op.infer(attrs, types), op.infer(attrs, bound), op.evaluate(attrs, inputs), strict=True)
    for symbolic, concrete, result in inferred:
        assert concrete.shape == tuple(evaluate(dim, SIZES) for dim in symbolic.shape)
        assert result.shape == concrete.shape
        assert result.dtype.name == symbolic.dtype == concrete.dtype
        assert np.isfinite(result).all()
    assert all(x is None or np.array_equal(x, copy) for x, copy in zip(inputs, copies, strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_empty_batch_gives_an_empty_result(case: Case) -> None:
    op, types, sizes = get_op(case.op), typed(case, "float32"), {**SIZES, "N": 0}
    attrs = op.complete(case.attrs)
    for inferred, result in zip(op.infer(attrs, types), op.evaluate(attrs, arrays(types, sizes, case)), strict=True):
        assert result.shape == tuple(evaluate(dim, sizes) for dim in inferred.shape)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_samples_do_not_touch_each_other(case: Case) -> None:
    op, types = get_op(case.op), typed(case, "float64")
    attrs, inputs = op.complete(case.attrs), arrays(types, SIZES, case)
    together = op.evaluate(attrs, inputs)
    for sample in range(SIZES["N"]):
        own = [
            x[sample : sample + 1] if type_ is not None and type_.shape[:1] == (N,) and x is not None else x
            for x, type_ in zip(inputs, types, strict=True)
        ]
        for alone, all_samples in zip(op.evaluate(attrs, own), together, strict=True):
            assert np.allclose(alone[0].astype(float), all_samples[sample].astype(float), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_single_precision_is_double_precision_rounded(case: Case) -> None:
    single, double = (
        get_op(case.op).evaluate(get_op(case.op).complete(case.attrs), arrays(typed(case, dtype), SIZES, case))[0]
        for dtype in ("float32", "float64")
    )
    if double.dtype.kind == "f":
        assert np.abs(single - double).max() <= 1e-3 if double.dtype == "float16" else 1e-5 * max(1.0, np.abs(double).max())
    else:
        assert np.array_equal(single, double)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_attributes_survive_json(case: Case) -> None:
    op = get_op(case.op)
    complete = op.complete(case.attrs)
    assert op.complete(json.loads(json.dumps(complete))) == complete
    assert set(complete) == set(op.attributes)


# --- definitions -------------------------------------------------------------------------------------------------------

SPANS = st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))


@given(SPANS)
def test_same_padding(span: tuple[int, int, int, int]) -> None:
    size, kernel, stride, dilation = span
    before, after = same_pads(size, kernel, stride, dilation)
    extent = (kernel - 1) * dilation + 1
    positions = -(-size // stride)
    assert 0 <= after - before <= 1
    if before or after:
        assert (size + before + after - extent) // stride + 1 == positions
    else:
        assert (positions - 1) * stride + extent <= size


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3).flatmap(lambda rank: st.tuples(*[SPANS] * rank)), st.booleans(), st.integers(1, 2), st.integers(0, 10**6)
)
def test_convolution_by_its_definition(spans: Sequence[tuple[int, int, int, int]], same: bool, groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes, kernel, strides, dilations = (tuple(column) for column in zip(*spans, strict=True))
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if same:
        padding, pads = {"padding": "same"}, [same_pads(*span) for span in spans]
    else:
        pads = [(int(rng.integers(0, 3)), int(rng.integers(0, 3)) + e) for e in extents]
        padding = {"padding": "explicit", "pads": tuple(count for pair in pads for count in pair)}
    x = rng.normal(size=(2, *sizes, 2 * groups))
    weights, bias = rng.normal(size=(*kernel, 2, 3 * groups)), rng.normal(size=3 * groups)
    found = run("conv", [x, weights, bias], strides=strides, dilations=dilations, groups=groups, **padding)
    padded = np.pad(x, [(0, 0), *pads, (0, 0)])
    for place in np.ndindex(*found.shape[1:-1]):
        for out in range(3 * groups):
            first = out // 3 * 2
            expected = bias[out] + sum(
                padded[(slice(None), *(p * s + t * d for p, s, t, d in zip(place, strides, tap, dilations, strict=True)))][
                    :, first : first + 2
                ]
                @ weights[(*tap, slice(None), out)]
                for tap in np.ndindex(*kernel)
            )
            assert np.allclose(found[(slice(None), *place, out)], expected, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3).flatmap(lambda rank: st.tuples(*[SPANS] * rank)), st.integers(0, 10**6))
def test_transposed_convolution_is_the_adjoint(spans: Sequence[tuple[int, int, int, int]], seed: int) -> None:
    """<conv(x), y> = <x, transpose(y)> for every x and y, where the kernel fits the input exactly."""
    rng = np.random.default_rng(seed)
    positions, kernel, strides, dilations = (tuple(column) for column in zip(*spans, strict=True))
    sizes = [(p - 1) * s + (k - 1) * d + 1 for p, k, s, d in zip(positions, kernel, strides, dilations, strict=True)]
    x, y = rng.normal(size=(2, *sizes, 3)), rng.normal(size=(2, *positions, 4))
    weights, rank = rng.normal(size=(*kernel, 3, 4)), len(kernel)
    forward = run("conv", [x, weights], strides=strides, dilations=dilations, padding="explicit", pads=(0,) * (2 * rank))
    back = run("conv_transpose", [y, weights], strides=strides, dilations=dilations, crops=(0,) * (2 * rank))
    assert back.shape == x.shape
    assert np.isclose((forward * y).sum(), (x * back).sum(), atol=1e-9)


def test_crops_of_transposed_convolutions() -> None:
    rng = np.random.default_rng(0)
    x, weights, bias = rng.normal(size=(2, 4, 3)), rng.normal(size=(3, 2, 3)), rng.normal(size=2)
    full = run("conv_transpose", [x, weights, bias], strides=(2,), dilations=(1,), crops=(0, 0))
    assert np.array_equal(run("conv_transpose", [x, weights, bias], strides=(2,), dilations=(1,), crops=(1, 2)), full[:, 1:-2])
    longer = run("conv_transpose", [x, weights, bias], strides=(2,), dilations=(1,), crops=(1, -2))
    assert np.array_equal(longer[:, :-2], full[:, 1:])
    assert np.array_equal(longer[:, -2:], np.broadcast_to(bias, (2, 2, 2)))


def test_depthwise_convolution_is_a_grouped_one() -> None:
    rng = np.random.default_rng(0)
    x, weights, bias = rng.normal(size=(2, 6, 7, 4)), rng.normal(size=(3, 2, 4, 2)), rng.normal(size=8)
    for attrs in windows(2):
        grouped = run("conv", [x, weights.reshape(3, 2, 1, 8), bias], groups=4, **attrs)
        assert np.allclose(run("depthwise_conv", [x, weights, bias], **attrs), grouped, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3).flatmap(lambda rank: st.tuples(*[SPANS] * rank)), st.integers(0, 10**6))
def test_pooling_by_its_definition(spans: Sequence[tuple[int, int, int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes, window, strides, dilations = (tuple(column) for column in zip(*spans, strict=True))
    x = rng.normal(size=(2, *sizes, 3)) - 5.0
    attrs = {"window": window, "strides": strides, "dilations": dilations, "padding": "same"}
    with np.errstate(invalid="ignore"):
        # A dilated window may fall between the elements, all of it; its mean is undefined.
        greatest, mean = run("max_pool", [x], **attrs), run("avg_pool", [x], **attrs)
    for place in np.ndindex(*greatest.shape[1:-1]):
        covered = [
            [q for t in range(k) if 0 <= (q := p * s + t * d - same_pads(n, k, s, d)[0]) < n]
            for p, (n, k, s, d) in zip(place, spans, strict=True)
        ]
        if all(covered):
            elements = np.stack([x[(slice(None), *q)] for q in itertools.product(*covered)])
            assert np.array_equal(greatest[(slice(None), *place)], elements.max(axis=0))
            assert np.allclose(mean[(slice(None), *place)], elements.mean(axis=0), atol=1e-12)


@pytest.mark.parametrize("method", ["nearest", "linear"])
@given(st.integers(1, 12), st.integers(1, 30))
def test_resize_by_its_definition(method: str, source: int, target: int) -> None:
    x = np.random.default_rng(source).normal(size=(1, source, 2))
    found = run("resize", [x], sizes=(target,), method=method)
    for i in range(target):
        place = (i + 0.5) * source / target
        if method == "nearest":
            # Exact arithmetic: the quotient of integers, rounded down.
            expected = x[:, min((2 * i + 1) * source // (2 * target), source - 1)]
        else:
            low = min(max(place - 0.5, 0.0), source - 1.0)
            left = math.floor(low)
            expected = x[:, left] + (x[:, min(left + 1, source - 1)] - x[:, left]) * (low - left)
        assert np.allclose(found[:, i], expected, atol=1e-12)


def test_functions_by_their_definitions() -> None:
    x = np.linspace(-30, 30, 601)
    with np.errstate(over="ignore"):
        logistic = 1 / (1 + np.exp(-x))
        assert np.allclose(sigmoid(x), logistic, atol=1e-15)
        assert np.allclose(softplus(x), np.log1p(np.exp(x)), atol=1e-13)
    assert np.allclose(erf(x), [math.erf(value) for value in x], atol=1e-15)
    assert np.allclose(run("gelu", [x]), [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x], atol=1e-13)
    assert np.allclose(run("silu", [x]), x * logistic, atol=1e-13)
    assert np.allclose(run("softsign", [x]), x / (1 + abs(x)))
    assert np.allclose(run("elu", [x], alpha=0.5), np.where(x > 0, x, 0.5 * np.expm1(x)))
    assert np.allclose(run("selu", [x]), 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)))
    assert np.allclose(run("hard_sigmoid", [x], alpha=0.2, beta=0.5), np.clip(0.2 * x + 0.5, 0, 1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions_do_not_overflow(dtype: str) -> None:
    x = np.array([-1e30, -1000.0, -0.0, 0.0, 1000.0, 1e30], dtype)
    with np.errstate(all="raise", under="ignore"):
        for op in ("sigmoid", "silu", "tanh", "softplus", "softsign", "elu", "selu", "softmax", "log_softmax"):
            assert np.isfinite(run(op, [x])).all(), op
    assert np.array_equal(run("sigmoid", [x]), np.array([0, 0, 0.5, 0.5, 1, 1], dtype))
    assert np.array_equal(run("softplus", [x])[[0, 5]], np.array([0, 1e30], dtype))


def test_what_is_normalised() -> None:
    x = np.random.default_rng(0).normal(2.0, 3.0, (4, 5, 6))
    for axis in (1, -1):
        assert np.allclose(run("softmax", [x], axis=axis).sum(axis=axis), 1.0)
        assert np.allclose(np.exp(run("log_softmax", [x], axis=axis)), run("softmax", [x], axis=axis))
        sparse = run("sparsemax", [x], axis=axis)
        assert (sparse >= 0).all()
        assert (sparse == 0).any()
    y = run("layer_norm", [x], axes=(1, 2), epsilon=0.0)
    assert np.allclose(y.mean(axis=(1, 2)), 0.0)
    assert np.allclose(y.var(axis=(1, 2)), 1.0)
    y = run("batch_norm", [x, None, None, x.mean(axis=(0, 2)), x.var(axis=(0, 2))], axis=1, epsilon=0.0)
    assert np.allclose(y.mean(axis=(0, 2)), 0.0)
    assert np.allclose(y.var(axis=(0, 2)), 1.0)


def test_casts() -> None:
    x = np.array([-1.7, 0.0, 0.4, 2.9])
    assert run("cast", [x], dtype="int32").tolist() == [-1, 0, 0, 2]
    assert run("cast", [x], dtype="bool").tolist() == [True, False, True, True]
    assert run("cast", [np.array([True, False])], dtype="float32").tolist() == [1.0, 0.0]


def attention_by_its_definition(q: Array, k: Array, v: Array, mask: Array, attrs: dict[str, Any]) -> Array:
    heads, groups = attrs["heads"], attrs["kv_heads"]
    depth, width = q.shape[-1] // heads, v.shape[-1] // groups
    result = np.zeros((*q.shape[:2], heads * width))
    for n, h, t in itertools.product(range(q.shape[0]), range(heads), range(q.shape[1])):
        g = h * groups // heads
        keys = [
            s
            for s in range(k.shape[1])
            if mask[n, h, t, s] and (s <= t or not attrs["causal"]) and (abs(t - s) < attrs["window"] or not attrs["window"])
        ]
        own = slice(h * width, (h + 1) * width)
        values = v[n, :, g * width : (g + 1) * width]
        if keys:
            query = q[n, t, h * depth : (h + 1) * depth]
            weights = np.exp([attrs["scale"] * query @ k[n, s, g * depth : (g + 1) * depth] for s in keys])
            result[n, t, own] = weights / weights.sum() @ values[keys]
        elif attrs["empty"] == "mean":
            result[n, t, own] = values.mean(axis=0)
    return result


@pytest.mark.parametrize("empty", ["mean", "zero"])
@pytest.mark.parametrize(("causal", "window"), [(False, 0), (True, 0), (False, 2), (True, 2)])
@pytest.mark.parametrize(("heads", "groups"), [(1, 1), (4, 4), (4, 2), (6, 1)])
def test_attention_by_its_definition(heads: int, groups: int, causal: bool, window: int, empty: str) -> None:
    rng = np.random.default_rng(heads)
    q, k = rng.normal(size=(2, 7, heads * 3)), rng.normal(size=(2, 4, groups * 3))
    v, mask = rng.normal(size=(2, 4, groups * 2)), rng.random((2, heads, 7, 4)) < 0.4
    mask[0, :, 2] = False
    attrs = {"heads": heads, "kv_heads": groups, "scale": 0.6, "causal": causal, "window": window, "empty": empty}
    found = run("attention", [q, k, v, mask], **attrs)
    assert np.allclose(found, attention_by_its_definition(q, k, v, mask, attrs), rtol=1e-12, atol=1e-12)


def test_attention_does_not_overflow() -> None:
    q = np.full((1, 2, 4), 1e15, np.float32)
    mask = np.array([[True, False]])
    attrs = {"heads": 1, "kv_heads": 1, "scale": -1.0}
    with np.errstate(over="raise", invalid="raise"):
        found = run("attention", [q, q, q, mask], **attrs)
    assert np.array_equal(found, q)


def test_indices_count_from_the_end_and_are_checked() -> None:
    table = np.arange(12.0).reshape(4, 3)
    assert np.array_equal(run("gather", [table, np.array([[-1, 0]])]), table[[[3, 0]]])
    with pytest.raises(InputError, match="an index is outside of a table of 4 entries: 0 to 4 were given"):
        run("gather", [table, np.array([0, 4])])


# --- refusals ----------------------------------------------------------------------------------------------------------

GATED = {"activation": "tanh", "recurrent_activation": "sigmoid"}
FLAT = {"strides": (1,), "dilations": (1,), "padding": "explicit", "pads": (0, 0)}
REFUSALS: list[tuple[Case, str]] = [
    (Case("relu", [(N, 4)], {}, ("int32",)), "a float was expected"),
    (Case("add", [(N, 4), (N, 4)], {}, ("float32", "float64")), "dtype float64, float32 was expected"),
    (Case("add", [(N, 4), (N, 3)]), "do not broadcast"),
    (Case("add", [(N, H), (N, W)]), "cannot be shown to be equal.*--input-shape"),
    (Case("add", [(N, 4), None]), "'b' is missing"),
    (Case("div", [(N, 4), (N, 4)], {}, ("int32", "int32")), "a float was expected"),
    (Case("where", [(N, 4), (N, 4), (N, 4)]), "bool was expected"),
    (Case("prelu", [(N, 4), (3, 4)]), "does not broadcast|cannot be shown"),
    (Case("affine", [(N, 4), (3,)]), r"'scale' has shape \(3\), \(4\) was expected"),
    (Case("dense", [(N, 4), (3, 2)]), r"'kernel' has shape \(3, 2\)"),
    (Case("dense", [(N, 4), (4, 2), (3,)]), r"'bias' has shape \(3\)"),
    (Case("dense", [(N,), (4, 2)]), "are not"),
    (Case("conv", [(N, 9, 4), (3, 4, 2)], {**FLAT, "groups": 3}), "do not fit with 3 groups"),
    (Case("conv", [(N, 9, 4), (3, 3, 4, 2)], FLAT), "has not 1 spatial axes"),
    (Case("conv", [(N, 2, 4), (3, 4, 2)], FLAT), "does not fit into"),
    (Case("conv", [(N, 9, H), (3, 4, 2)], FLAT), "is not known before the model runs"),
    (Case("conv", [(N, 9, 4), (3, 4, 2)], {**FLAT, "strides": (0,)}), "'strides'"),
    (Case("conv", [(N, 9, 4), (3, 4, 2)], {**FLAT, "pads": (1,)}), "'pads'"),
    (Case("conv", [(N, 9, 4), (3, 4, 2)], {**FLAT, "padding": "same"}), "'pads'"),
    (Case("conv", [(N, 4), (4, 2)], {"strides": (), "dilations": (), "padding": "same"}), "spatial axes"),
    (Case("depthwise_conv", [(N, 9, 4), (3, 3, 1)], FLAT), "do not fit"),
    (Case("conv_transpose", [(N, 9, 4), (3, 2, 4)], {"strides": (1,), "dilations": (1,), "crops": (-1, 0)}), "not negative"),
    (Case("conv_transpose", [(N, 2, 4), (1, 2, 4)], {"strides": (1,), "dilations": (1,), "crops": (1, 1)}), "leave nothing"),
    (Case("lstm", [(N, 5, 4), (4, 6), None, (2, 8)], GATED), "does not hold 4 gates"),
    (Case("lstm", [(N, 4), (4, 8), None, (2, 8)], GATED), r"is not \[N, steps, channels\]"),
    (Case("lstm", [(N, 5, 4), (4, 8), None, (3, 8)], GATED), r"'recurrent_kernel' has shape \(3, 8\)"),
    (Case("lstm", [(N, 5, 4), (4, 8), (2, 8), (2, 8)], GATED), r"'bias' has shape \(2, 8\)"),
    (Case("lstm", [(N, H, 4), (4, 8), None, (2, 8), (N, W)], GATED, ("", "", "", "", "bool")), "equal.*--input-shape"),
    (Case("lstm", [(N, 5, 4), (4, 8), None, (2, 8), None, (N, 3)], GATED), r"'h' has shape \(N, 3\)"),
    (Case("gru", [(N, 5, 4), (4, 6), (6,), (2, 6)], {**GATED, "reset_after": True}), r"'bias' has shape \(6\)"),
    (Case("max_pool", [(N, 2, 4)], {**FLAT, "window": (3,)}), "does not fit into"),
    (Case("batch_norm", [(N, 4), None, None, (3,), (4,)], {"epsilon": 1e-3}), r"'mean' has shape \(3\)"),
    (Case("layer_norm", [(N, 4), (3,)], {"axes": (-1,), "epsilon": 1e-3}), r"'gamma' has shape \(3\)"),
    (Case("softmax", [(N, 4)], {"axis": 2}), "axis 2 does not exist"),
    (Case("reduce_mean", [(N, 4)], {"axes": (2,)}), "axis 2 does not exist"),
    (Case("reshape", [(N, 4)], {"shape": (0, 3)}), "does not fit"),
    (Case("reshape", [(N, 4)], {"shape": (0, -1, 3)}), "does not fit"),
    (Case("reshape", [(N, 4)], {"shape": (0, -1, -1)}), "is not a target shape"),
    (Case("reshape", [(N, 4)], {"shape": (0, 4, 0)}), "copies axis 2"),
    (Case("transpose", [(N, 4)], {"permutation": (0, 0)}), "does not permute"),
    (Case("pad", [(N, 5, 4)], {"pads": (1, -1)}), "'pads'"),
    (Case("slice", [(N, 5)], {"axis": 1, "start": 0, "stop": 5, "step": 0}), "step 0"),
    (Case("slice", [(N, H)], {"axis": 1, "start": 0, "stop": 5}), "not known before the model runs"),
    (Case("concat", [(N, 4), (N, 4, 2)], {"axis": -1}), "differ outside axis"),
    (Case("concat", [(N, H, 4), (N, W, 4)], {"axis": -1}), "--input-shape"),
    (Case("tile", [(N, 4)], {"repeats": (1, 0)}), "'repeats'"),
    (Case("resize", [(N, 5, 4)], {"sizes": (0,), "method": "nearest"}), "'sizes'"),
    (Case("matmul", [(N, H, 5), (N, 4, W)]), "do not fit"),
    (Case("matmul", [(N, H, 5), (5,)]), "are not"),
    (Case("gather", [(7, 4), (N, H)]), "'indices' has dtype float32"),
    (Case("gather", [(7, 4), (N, H)], {"axis": 2}, ("", "int32")), "axis 2 does not exist"),
    (Case("attention", [(N, H, 8), (N, W, 8), (N, H, 8)], {"heads": 2, "kv_heads": 2, "scale": 1.0}), "are not"),
    (Case("attention", [(N, H, 8), (N, W, 8), (N, W, 8)], {"heads": 3, "kv_heads": 2, "scale": 1.0}), "do not fit"),
    (
        Case("attention", [(N, H, 8), (N, W, 8), (N, W, 8)], {"heads": 4, "kv_heads": 2, "scale": 1.0}),
        "as many channels a head",
    ),
    (
        Case("attention", [(N, H, 8), (N, W, 8), (N, W, 8), (N, W)], {"heads": 2, "kv_heads": 2, "scale": 1.0}),
        "bool was expected",
    ),
    (
        Case(
            "attention",
            [(N, H, 8), (N, W, 8), (N, W, 8), (3, 1, W)],
            {"heads": 2, "kv_heads": 2, "scale": 1.0},
            ("", "", "", "bool"),
        ),
        "do not broadcast",
    ),
]


@pytest.mark.parametrize(("case", "match"), REFUSALS, ids=lambda value: str(value) if isinstance(value, Case) else "")
def test_inputs_that_do_not_fit(case: Case, match: str) -> None:
    op = get_op(case.op)
    with pytest.raises(GraphError, match=match):
        op.infer(op.complete(case.attrs), case.types("float32"))


@pytest.mark.parametrize(
    ("op", "attrs", "match"),
    [
        ("relu", {"slope": 1.0}, "has no attribute 'slope'"),
        ("clip", {"minimum": 1.0}, "needs attribute 'maximum'"),
        ("relu", {"negative_slope": "steep"}, "is not a float"),
        ("relu", {"negative_slope": True}, "is not a float"),
        ("gelu", {"approximate": 1}, "is not a bool"),
        ("softmax", {"axis": 1.0}, "is not a int"),
        ("transpose", {"permutation": "ab"}, "is not a list of int"),
        ("cast", {"dtype": "uint8"}, "one of bool"),
    ],
)
def test_attributes_that_are_wrong(op: str, attrs: dict[str, Any], match: str) -> None:
    with pytest.raises(GraphError, match=match):
        get_op(op).complete(attrs)


def test_unknown_operator() -> None:
    with pytest.raises(GraphError, match="there is no operator 'fft'"):
        get_op("fft")


# --- broadcasting ------------------------------------------------------------------------------------------------------

SHAPES = st.lists(st.sampled_from([1, 2, 3]), max_size=4).map(tuple)


@given(SHAPES, SHAPES)
def test_broadcasting_is_that_of_numpy(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    try:
        expected = np.broadcast_shapes(a, b)
    except ValueError:
        with pytest.raises(GraphError):
            broadcast_shapes(a, b)
    else:
        assert broadcast_shapes(a, b) == expected


def test_broadcasting_of_symbols() -> None:
    assert broadcast_shapes((N, H, 4), (1, 1, 4)) == (N, H, 4)
    assert broadcast_shapes((4,), (N, H, 4)) == (N, H, 4)
    assert broadcast_shapes((N, (H + 1) // 2), (N, (H - 1) // 2 + 1)) == (N, (H + 1) // 2)


def test_small_results_of_sigmoid_are_accurate():
    x = np.array([-100.0, -87.0, -50.0, -20.0, -17.0, 0.0, 17.0, 100.0], np.float32)
    exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    for found in (get_op("sigmoid").evaluate({}, [x])[0], IN_PLACE["sigmoid"]({}, x.copy())):
        assert np.abs(found - exact)[1:].max() <= 1e-6
        assert (np.abs(found - exact) / exact)[1:].max() <= 1e-5
