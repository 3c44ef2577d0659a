"""tanh of the native engine, which every instruction set computes and the widest from a table."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_steps import Memory, post, run_step

from sparsec.kernels import library

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")


def tanh(v):
    memory = Memory()
    shape = (1, 1, v.size, 1)
    return run_step("map", v.reshape(shape), shape, memory=memory, posts=[post(memory, "tanh")]).reshape(-1)


def floats(first, last, step):
    """Every so many-th float between two."""
    ends = np.array([first, last], np.float32).view(np.int32)
    return np.arange(ends[0], ends[1], step, dtype=np.int32).view(np.float32)


def test_tanh(isa):
    v = floats(2.0**-20, 12.0, 997)
    y, expected = tanh(v), np.tanh(v.astype(np.float64))
    units = np.abs(y - expected) / np.spacing(expected.astype(np.float32))
    assert units.max() <= (1.3 if isa == "avx512" else 6)
    np.testing.assert_array_equal(tanh(-v), -y)
    assert y.max() == 1


def test_tanh_hardly_decreases(isa):
    if isa != "avx512":
        pytest.skip("it is not computed from a table")
    # All floats around the ends of intervals, and some of the others.
    octaves = np.array([octave * quarter for octave in (0.5, 1, 2, 4, 8) for quarter in (1, 1.25, 1.5, 1.75)], np.float32)
    ends = octaves[1:-3] - np.float32(0.625)
    near = (ends.view(np.int32)[:, None] + np.arange(-50, 50, dtype=np.int32)).view(np.float32)
    v = np.sort(np.concatenate([near[near > 0], floats(2.0**-20, 12.0, 4999)]))
    y = tanh(v)
    assert (np.diff(y) >= -np.spacing(y[1:])).all()
