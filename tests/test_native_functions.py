"""The elementwise operations of the native engine: every function with every instruction set against float64."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_steps import Memory, post, run_step

from sparsec.kernels import library
from sparsec.kernels.library import FUNCTIONS
from sparsec.ops import OPS

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")

# How each function is called as an operator: its name, and what its numbers a and b are called.
OPERATORS = {
    "clamp": ("clip", "minimum", "maximum"),
    "leaky": ("relu", "negative_slope"),
    "sigmoid": ("sigmoid",),
    "tanh": ("tanh",),
    "silu": ("silu",),
    "hard_sigmoid": ("hard_sigmoid", "alpha", "beta"),
    "elu": ("elu", "alpha"),
    "selu": ("selu",),
    "softplus": ("softplus",),
    "softsign": ("softsign",),
    "exp": ("exp",),
    "log": ("log",),
    "sqrt": ("sqrt",),
    "abs": ("abs",),
    "erf": ("erf",),
}
NUMBERS = {"clamp": (-1.5, 4.0), "leaky": (0.3, 0.0), "hard_sigmoid": (0.2, 0.5), "elu": (0.7, 0.0)}

# Results below these need not be right to the last digit: they are differences, or exponentials of what was rounded.
SMALLEST = {"hard_sigmoid": 0.5, "gelu": 0.1, "gelu_tanh": 0.1, "silu": 1e-30}

BINARY = {
    "add": np.add,
    "subtract": np.subtract,
    "subtract_from": lambda v, w: w - v,
    "multiply": np.multiply,
    "divide": np.divide,
    "divide_into": lambda v, w: w / v,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "prelu": lambda v, w: np.where(v < 0, v * w, v),
    "equal": np.equal,
    "greater": np.greater,
    "less": np.less,
    "keep": lambda v, w: np.where(w != 0, v, 0),
}


def samples():
    """Floats of every magnitude, and more of those where functions bend."""
    rng = np.random.default_rng(0)
    every = np.frombuffer(rng.integers(0, 2**32, 20000, dtype=np.uint32).tobytes(), np.float32)
    near = [rng.uniform(-size, size, 4000).astype(np.float32) for size in (0.01, 1, 3, 10, 30, 110)]
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4e38, -3.4e38, 1, -1], np.float32)
    return np.concatenate([every, *near, special])


def reference(function, v):
    v = v.astype(np.float64)
    if function.startswith("gelu"):
        # The operator loses the digits of small results, also in float64, and of what is far below zero even their sign.
        (tail,) = OPS["erf"].evaluate({}, [v * np.sqrt(0.5)])
        inner = np.sqrt(2 / np.pi) * (v + 0.044715 * v**3)
        return v * (0.5 * (1 + tail) if function == "gelu" else 1 / (1 + np.exp(-2 * inner)))
    op, *names = OPERATORS[function]
    attrs = dict(zip(names, NUMBERS.get(function, ()), strict=False))
    return OPS[op].evaluate(OPS[op].complete(attrs), [v])[0]


def test_every_function_is_tested():
    assert {*OPERATORS, *BINARY, "gelu", "gelu_tanh"} == set(FUNCTIONS)


@pytest.mark.parametrize("function", [*OPERATORS, "gelu", "gelu_tanh"])
def test_functions(function, isa):
    v = samples()
    a, b = NUMBERS.get(function, (0.0, 0.0))
    memory = Memory()
    y = run_step("map", v.reshape(1, 1, -1, 1), (1, 1, v.size, 1), memory=memory, posts=[post(memory, function, a=a, b=b)])
    y = y.reshape(-1)
    with np.errstate(all="ignore"):
        expected = reference(function, v)
        narrow = expected.astype(np.float32)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(narrow))
    infinite = np.isinf(narrow) | np.isinf(y)
    np.testing.assert_array_equal(y[infinite], narrow[infinite])
    known = ~np.isnan(narrow) & ~infinite
    error = np.abs(y[known] - expected[known]) / np.maximum(np.abs(expected[known]), SMALLEST.get(function, 1e-37))
    assert error.max() <= 4e-7, (v[known][error.argmax()], y[known][error.argmax()])


@pytest.mark.parametrize("operand", ["number", "channel", "value", "gate"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 37), (2, 3, 7, 5), (3, 1, 1, 4)])
def test_operands(operand, shape, isa):
    rng = np.random.default_rng(1)
    v = rng.standard_normal(shape).astype(np.float32)
    v.reshape(-1)[[0, 3]] = np.nan, -np.inf
    sizes = {"number": (), "channel": shape[-1:], "value": shape, "gate": (shape[0], 1, 1, shape[-1])}
    w = rng.standard_normal(sizes[operand]).astype(np.float32)
    w.reshape(-1)[-1] += 2
    w.reshape(-1)[0] = 0 if w.ndim else w
    v.reshape(-1)[-1] = w.reshape(-1)[-1]
    for function, operator in BINARY.items():
        memory = Memory()
        given = {"number": {"a": float(w) if w.ndim == 0 else 0.0}, "channel": {"channel": w}}.get(operand, {"value": w})
        y = run_step("map", v, shape, memory=memory, posts=[post(memory, function, operand, **given)])
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(y, operator(v, w), rtol=1e-6, err_msg=function)


def test_operations_follow_one_another(isa):
    v = np.random.default_rng(2).standard_normal((2, 4, 5, 3)).astype(np.float32)
    channel = np.arange(3, dtype=np.float32)
    memory = Memory()
    posts = [post(memory, "multiply", "channel", channel=channel), post(memory, "add", a=1.0), post(memory, "abs")]
    y = run_step("map", v, v.shape, memory=memory, low=-1.0, high=0.5, posts=posts)
    np.testing.assert_allclose(y, np.abs(np.clip(v, -1, 0.5) * channel + 1), rtol=1e-6, atol=1e-7)
