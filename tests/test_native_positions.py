"""The native kernels that compute along positions or over channels: every instruction set against the operators in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_steps import Memory, post, run_step

from sparsec.kernels import library
from sparsec.kernels.library import Window
from sparsec.ops import OPS
from sparsec.ops.windows import axis_pads

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")
many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
threads = st.sampled_from([1, 3])


def evaluate(op, attrs, *inputs):
    """What an operator gives in float64."""
    with np.errstate(divide="ignore", invalid="ignore"):
        (y,) = OPS[op].evaluate(OPS[op].complete(attrs), [np.asarray(x, np.float64) for x in inputs])
    return y


def close(y, expected, scale):
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    known = np.isfinite(expected)
    np.testing.assert_array_equal(y[~known], expected[~known].astype(np.float32))
    assert np.all(np.abs(y[known] - expected[known]) <= 1e-5 * np.broadcast_to(scale, y.shape)[known])


@st.composite
def values(draw, height, width, channels):
    """An input of a few samples."""
    samples = draw(st.sampled_from([1, 1, 2, 3]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.standard_normal((samples, height, width, channels)).astype(np.float32)


@st.composite
def windows(draw, largest, spans, usual):
    """Attributes of a window, and how many rows and columns the input has; what is usual has code of its own."""
    if draw(st.booleans()):
        size, stride = draw(st.sampled_from(usual))
        window, strides, dilations = (size, size), (stride, stride), (1, 1)
    else:
        window, strides, dilations = ((draw(st.integers(1, n)), draw(st.integers(1, n))) for n in (largest, 3, 3))
    attrs = {"strides": strides, "dilations": dilations, "padding": draw(st.sampled_from(["same", "explicit"]))}
    attrs["pads"] = tuple(draw(st.integers(0, 2)) for _ in range(4)) if attrs["padding"] == "explicit" else ()
    sizes = tuple((k - 1) * d + draw(span) for k, d, span in zip(window, dilations, spans, strict=True))
    return attrs, window, sizes


def window_of(attrs, window, sizes):
    (top, _), (left, _) = axis_pads(attrs, sizes, window)
    return Window(*window, *attrs["strides"], *attrs["dilations"], top, left)


# Rows shorter than a vector, of about one, and of several; planes that a few vectors hold.
ROWS, COLUMNS = st.integers(1, 12), st.one_of(st.integers(1, 9), st.integers(10, 80))


@many
@given(data=st.data())
def test_depthwise(isa, data):
    attrs, window, sizes = data.draw(windows(6, (ROWS, COLUMNS), [(3, 1), (3, 2), (5, 1), (5, 2), (7, 1)]))
    channels, multiplier = data.draw(st.integers(1, 5)), data.draw(st.sampled_from([1, 1, 2]))
    x = data.draw(values(*sizes, channels))
    rng = np.random.default_rng(len(x))
    kernel = rng.standard_normal((*window, channels, multiplier)).astype(np.float32)
    bias = rng.standard_normal(channels * multiplier).astype(np.float32)
    expected = evaluate("depthwise_conv", attrs, x, kernel, bias)
    scale = evaluate("depthwise_conv", attrs, *(np.abs(array) for array in (x, kernel, bias))) + 1
    residual = rng.standard_normal(expected.shape).astype(np.float32) if data.draw(st.booleans()) else None
    expected = np.clip(expected + (0 if residual is None else residual), -2, 3)
    memory, posts = Memory(), []
    if data.draw(st.booleans()):
        posts = [post(memory, "multiply", "channel", channel=bias)]
        expected = expected * bias
    weights = np.ascontiguousarray(np.moveaxis(kernel.reshape(*window, -1), -1, 0))
    shape, geometry = expected.shape, window_of(attrs, window, sizes)
    y = run_step(
        *("depthwise", x, shape),
        memory=memory,
        weights=weights,
        bias=bias,
        window=geometry,
        options=[multiplier],
        low=-2,
        high=3,
        posts=posts,
        residual=residual,
        threads=data.draw(threads),
    )
    close(y, expected, scale)


@pytest.mark.parametrize("kind", ["max", "avg"])
@many
@given(data=st.data())
def test_pools(kind, isa, data):
    attrs, window, sizes = data.draw(windows(4, (ROWS, COLUMNS), [(3, 1), (3, 2), (2, 2)]))
    x = data.draw(values(*sizes, data.draw(st.integers(1, 4))))
    if data.draw(st.booleans()):
        x[np.random.default_rng(0).random(x.shape) < 0.02] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    expected = evaluate(f"{kind}_pool", {**attrs, "window": window}, x)
    memory, posts, low = Memory(), [], -np.inf
    if data.draw(st.booleans()):
        posts, low = [post(memory, "add", a=1.5)], -0.5
    y = run_step(
        *(f"{kind}_pool", x, expected.shape),
        memory=memory,
        window=window_of(attrs, window, sizes),
        low=low,
        posts=posts,
        threads=data.draw(threads),
    )
    close(y, np.maximum(expected, low) + 1.5 * bool(posts), 3)


@many
@given(data=st.data())
def test_reductions(isa, data):
    x = data.draw(values(data.draw(st.integers(1, 12)), data.draw(st.integers(1, 40)), data.draw(st.integers(1, 20))))
    if data.draw(st.booleans()):
        x[np.random.default_rng(0).random(x.shape) < 0.01] = np.nan
    for option, name in enumerate(("mean", "sum", "max")):
        expected = evaluate(f"reduce_{name}", {"axes": (1, 2), "keepdims": True}, x)
        scale = evaluate(f"reduce_{name}", {"axes": (1, 2), "keepdims": True}, np.abs(x))
        y = run_step("reduce", x, expected.shape, options=[option], low=-0.25, threads=data.draw(threads))
        close(y, np.maximum(expected, -0.25), 0.1 * scale)


@pytest.mark.parametrize("value", [1, 0.1])
def test_the_mean_of_many_numbers(value, isa):
    x = np.full((1, 1, 5_000_001, 1), value, np.float32)
    np.testing.assert_allclose(run_step("reduce", x, (1, 1, 1, 1)), x[:, :, :1], rtol=1e-6)


# One position is a vector of channels; many are gone over in tiles, of a few hundred where there are few channels.
PLACES = st.sampled_from([(1, 1, 1), (1, 1, 5), (1, 3, 5), (2, 9, 7), (1, 1, 600)])


@many
@given(data=st.data())
def test_over_channels(isa, data):
    places = data.draw(PLACES)
    channels = data.draw(st.one_of(st.integers(1, 20), st.integers(21, 300))) if places[-1] < 600 else 3
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    x = (rng.standard_normal((*places, channels)) * data.draw(st.sampled_from([1, 30]))).astype(np.float32)
    if data.draw(st.booleans()):
        x[0, 0, 0, 0] = data.draw(st.sampled_from([np.nan, -np.inf, 100]))
    beta = rng.standard_normal(channels).astype(np.float32)
    cases = [
        ("softmax", "softmax", {}, [0], [], 1),
        ("softmax", "log_softmax", {}, [1], [], 200),
        ("normalise", "layer_norm", {"axes": (-1,), "epsilon": 0.01}, [], [0.01], 10),
    ]
    for kernel, op, attrs, options, numbers, scale in cases:
        if op == "log_softmax" and np.isinf(x).any():
            continue  # The scale of the error has no meaning.
        expected = evaluate(op, attrs, x)
        memory, posts = Memory(), []
        if data.draw(st.booleans()):
            posts, expected = [post(memory, "add", "channel", channel=beta)], expected + beta
        y = run_step(
            *(kernel, x, x.shape),
            memory=memory,
            options=options,
            numbers=numbers,
            posts=posts,
            threads=data.draw(threads),
            in_place=data.draw(st.booleans()),
        )
        close(y, expected, scale)


@many
@given(data=st.data())
def test_resizing(isa, data):
    sizes = [data.draw(st.integers(1, 40)) for _ in range(4)]
    x = data.draw(values(*sizes[:2], data.draw(st.integers(1, 4))))
    sizes = [-data.draw(st.integers(1, 3)) if data.draw(st.booleans()) else size for size in sizes[2:]]
    for option, method in enumerate(("nearest", "linear")):
        expected = evaluate("resize", {"sizes": tuple(sizes), "method": method}, x)
        y = run_step("resize", x, expected.shape, options=[option], high=0.5, threads=data.draw(threads))
        close(y, np.minimum(expected, 0.5), 5)
