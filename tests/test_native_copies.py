"""Copies of elements in another order, and reductions over channels: every instruction set against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_steps import pitch_of, run_step

from sparsec.engine.drafts import in_turn
from sparsec.kernels import library
from sparsec.kernels.library import Copy

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")
many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
threads = st.sampled_from([1, 3])
SIZES = st.tuples(st.integers(1, 3), st.integers(1, 9), st.one_of(st.integers(1, 9), st.integers(10, 70)), st.integers(1, 40))


def apart(shape):
    """Floats from one element to the next along each axis of a value."""
    samples, height, width, _ = shape
    return np.array([height * width, width, 1, pitch_of(samples * height * width)])


def structure(axes, first=(0, 0), constant=None):
    axes = np.array(axes, np.int64)
    made = Copy(len(axes), 0 if constant is None else constant.size, *first, axes.ctypes.data)
    made.constant = None if constant is None else constant.ctypes.data
    made.kept = axes, constant
    return made


@many
@given(
    shape=SIZES,
    order=st.permutations(range(4)),
    steps=st.tuples(*[st.sampled_from([1, 1, 2, -1])] * 4),
    ordered=st.booleans(),
    count=threads,
    seed=st.integers(0, 99),
)
def test_elements_in_another_order(isa, shape, order, steps, ordered, count, seed):
    """The output has the axes of a part of the input in another order, and some of them backwards, or every other element."""
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    expected = x[tuple(slice(None, None, step) for step in steps)].transpose(order)
    begin = sum(int(each) * (size - 1) for each, size, step in zip(apart(shape), shape, steps, strict=True) if step < 0)
    of_x = apart(shape) * steps
    axes = list(zip(expected.shape, map(int, of_x[list(order)]), map(int, apart(expected.shape)), strict=True))
    made = structure(in_turn(axes) if ordered else axes, (begin, 0))
    np.testing.assert_array_equal(run_step("copy", x, expected.shape, weights=made, threads=count), expected)


@many
@given(shape=SIZES, repeated=st.tuples(*[st.booleans()] * 4), count=threads, constant=st.booleans())
def test_elements_that_are_repeated(isa, shape, repeated, count, constant):
    """What has one element along an axis is met by all of that axis; constants lie in row-major order."""
    small = tuple(1 if each else size for size, each in zip(shape, repeated, strict=True))
    x = np.random.default_rng(len(shape)).standard_normal(small).astype(np.float32)
    of_x = np.array(x.strides) // 4 if constant else apart(small)
    of_x = np.where(repeated, 0, of_x)
    axes = zip(shape, map(int, of_x), map(int, apart(shape)), strict=True)
    made = structure(in_turn(axes), constant=x if constant else None)
    given_x = np.full((1, 1, 1, 1), np.nan, np.float32) if constant else x
    y = run_step("copy", given_x, shape, weights=made, threads=count)
    np.testing.assert_array_equal(y, np.broadcast_to(x, shape))


@many
@given(shape=SIZES, axis=st.integers(0, 3), before=st.integers(0, 5), count=threads)
def test_other_elements_stay(isa, shape, axis, before, count):
    x = np.random.default_rng(axis).standard_normal(shape).astype(np.float32)
    larger = tuple(size + (before + 2) * (i == axis) for i, size in enumerate(shape))
    expected = np.full(larger, np.nan, np.float32)
    expected[tuple(slice(before, before + size) if i == axis else slice(None) for i, size in enumerate(shape))] = x
    axes = zip(shape, map(int, apart(shape)), map(int, apart(larger)), strict=True)
    made = structure(in_turn(axes), (0, before * int(apart(larger)[axis])))
    np.testing.assert_array_equal(run_step("copy", x, larger, weights=made, threads=count), expected)


@many
@given(shape=SIZES, kind=st.sampled_from([(3, np.max), (4, np.mean), (5, np.sum)]), count=threads, seed=st.integers(0, 99))
def test_reductions_over_channels(isa, shape, kind, count, seed):
    number, reduce = kind
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    y = run_step("reduce", x, (*shape[:-1], 1), options=(number,), low=-1.0, threads=count)
    expected = reduce(x.astype(np.float64), axis=-1, keepdims=True)
    np.testing.assert_allclose(y, np.maximum(expected, -1), rtol=1e-6, atol=1e-6 * np.abs(x).sum(axis=-1).max())
