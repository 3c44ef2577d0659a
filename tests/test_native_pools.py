"""Pools whose windows are two columns side by side, which have code of their own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_steps import run_step

from sparsec.kernels import library
from sparsec.kernels.library import Window
from sparsec.ops import OPS

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")


@pytest.mark.parametrize("kind", ["max", "avg"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_pairs_of_columns(kind, isa, data):
    samples, height, width = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 70))
    window, stride, dilation = (data.draw(st.integers(1, most)) for most in (4, 3, 2))
    # What is left over at the lower and the right edge is not looked at.
    rows = (height - 1) * stride + (window - 1) * dilation + 1 + data.draw(st.integers(0, stride - 1))
    columns = 2 * width + data.draw(st.integers(0, 1))
    rng = np.random.default_rng(columns)
    x = rng.standard_normal((samples, rows, columns, data.draw(st.integers(1, 3)))).astype(np.float32)
    if data.draw(st.booleans()):
        x[rng.random(x.shape) < 0.05] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    attrs = {
        "window": (window, 2),
        "strides": (stride, 2),
        "dilations": (dilation, 1),
        "padding": "explicit",
        "pads": (0, 0, 0, 0),
    }
    with np.errstate(invalid="ignore"):
        expected = OPS[f"{kind}_pool"].evaluate(attrs, [x])[0]
    geometry = Window(window, 2, stride, 2, dilation, 1, 0, 0)
    y = run_step(f"{kind}_pool", x, expected.shape, window=geometry, low=-0.5, threads=data.draw(st.integers(1, 2)))
    np.testing.assert_allclose(y, np.maximum(expected, np.float32(-0.5)), rtol=1e-6, atol=1e-6)
