"""What follows kernels that compute several rows at once, whether rows are joined or not, with every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_steps import Memory, post, run_step
from test_native import csr_of, places_of, structures

from sparsec.kernels import library
from sparsec.kernels.library import Window
from sparsec.kernels.streams import Blocks, Stream

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")

SHAPES = [(1, 7, 7, 21), (1, 14, 14, 40), (3, 5, 5, 9), (2, 1, 3, 4), (1, 2, 8, 6), (1, 60, 70, 2), (4, 30, 40, 3)]
OPERANDS = ["number", "channel", "value", "gate"]


def following(rng, operand, shape):
    """Memory, operations and a function that does the same: a number added, silu, and a multiplication by an operand."""
    memory = Memory()
    sizes = {"number": (), "channel": shape[-1:], "value": shape, "gate": (shape[0], 1, 1, shape[-1])}
    w = np.asarray(rng.standard_normal(sizes[operand]), np.float32)
    given = {"number": {"a": float(w) if w.ndim == 0 else 0.0}, "channel": {"channel": w}}.get(operand, {"value": w})
    posts = [post(memory, "add", a=0.5), post(memory, "silu"), post(memory, "multiply", operand, **given)]
    return memory, posts, lambda y: (y + 0.5) / (1 + np.exp(-(y + 0.5))) * w


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("operand", OPERANDS)
def test_after_depthwise_convolutions(operand, threads, isa):
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        x = rng.standard_normal(shape).astype(np.float32)
        factors = rng.standard_normal(shape[-1]).astype(np.float32)
        kernel = np.zeros((shape[-1], 3, 3), np.float32)
        kernel[:, 1, 1] = factors
        memory, posts, reference = following(rng, operand, shape)
        window = Window(3, 3, 1, 1, 1, 1, 1, 1)
        given = {"memory": memory, "posts": posts, "window": window, "options": (1,), "threads": threads}
        y = run_step("depthwise", x, shape, weights=kernel, **given)
        np.testing.assert_allclose(y, reference(x.astype(float) * factors), rtol=1e-5, atol=1e-5, err_msg=str(shape))


@pytest.mark.parametrize(("kernel", "options"), [("product", ()), ("windows", (3, 2, 1, 5, 2))])
@pytest.mark.parametrize("operand", OPERANDS)
def test_after_sparse_products(operand, kernel, options, isa):
    rng = np.random.default_rng(1)
    places = places_of((1, 1), {"strides": (1, 1), "dilations": (1, 1)}, 1) if kernel == "windows" else None
    for shape in SHAPES:
        x = rng.standard_normal(shape).astype(np.float32)
        matrix = rng.standard_normal((shape[-1], shape[-1])).astype(np.float32)
        memory, posts, reference = following(rng, operand, shape)
        pieces = Stream.pieces(csr_of(matrix), shape[-1], 1, Blocks(1, 8, 8), 1, 1, places)
        given = {"memory": memory, "weights": structures(pieces), "posts": posts, "options": options}
        y = run_step(kernel, x, shape, **given)
        np.testing.assert_allclose(y, reference(x.astype(float) @ matrix.T), rtol=1e-5, atol=2e-5, err_msg=str(shape))
