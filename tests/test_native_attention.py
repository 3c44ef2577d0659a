"""Products of values that are both computed, and attention: every instruction set, and whole graphs, against float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_steps import Memory, post, run_step
from test_engine import draw

from sparsec.ir import BATCH, Graph, Input, Port, TensorType, symbol
from sparsec.kernels import library
from sparsec.lowering import lower
from sparsec.ops import OPS, make_node
from sparsec.runtime import Model

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")
many = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
threads = st.sampled_from([1, 3])
SIZE, LONG = st.integers(1, 9), st.one_of(st.integers(1, 9), st.integers(10, 80))


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


@many
@given(samples=st.integers(1, 2), rows=st.integers(1, 3), m=LONG, k=LONG, n=LONG, alone=st.sampled_from("ab "), count=threads)
def test_products_of_values(isa, samples, rows, m, k, n, alone, count):
    rng = np.random.default_rng(m + k + n)
    a = normal(rng, samples, 1 if alone == "a" else rows, m, k)
    b = normal(rng, samples, 1 if alone == "b" else rows, k, n)
    rows = max(a.shape[1], b.shape[1])
    memory, factor = Memory(), normal(rng, n)
    posts = [post(memory, "multiply", "channel", channel=factor)]
    y = run_step("matmul", a, (samples, rows, m, n), memory=memory, extra=b, posts=posts, high=2.0, threads=count)
    exact = a.astype(np.float64) @ b
    scale = (np.abs(a) @ np.abs(b) + 1) * np.abs(factor)
    assert np.all(np.abs(y - np.minimum(exact, 2.0) * factor) <= 1e-5 * scale)


@st.composite
def attentions(draw):
    """The inputs of attention and its attributes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    samples, queries, keys = draw(st.integers(1, 2)), draw(LONG), draw(LONG)
    groups, per_group, depth, width = (draw(st.integers(1, n)) for n in (2, 2, 9, 9))
    heads = groups * per_group
    q, k, v = (
        normal(rng, samples, queries, heads * depth),
        normal(rng, samples, keys, groups * depth),
        normal(rng, samples, keys, groups * width),
    )
    mask = None
    if draw(st.booleans()):
        sizes = [draw(st.sampled_from([1, size])) for size in (heads, queries, keys)]
        mask = rng.random((samples, *sizes)) < draw(st.sampled_from([0.1, 0.7]))
    attrs = {
        "heads": heads,
        "kv_heads": groups,
        "scale": draw(st.sampled_from([1.0, 0.3])),
        "causal": draw(st.booleans()),
        "window": draw(st.sampled_from([0, 0, 1, 4])),
        "empty": draw(st.sampled_from(["mean", "zero"])),
    }
    return q, k, v, mask, attrs


def run_attention(q, k, v, mask, attrs, threads):
    shape = (q.shape[0], 1, q.shape[1], attrs["heads"] * (v.shape[-1] // attrs["kv_heads"]))
    q, k, v = (x[:, None] for x in (q, k, v))
    options = (attrs["heads"], attrs["kv_heads"], int(attrs["causal"]), attrs["window"], int(attrs["empty"] == "zero"))
    numbers = (attrs["scale"],)
    mask = None if mask is None else mask.astype(np.float32)
    more = {"residual": k, "extra": v, "mask": mask, "options": options, "numbers": numbers, "threads": threads}
    return run_step("attention", q, shape, low=-1.0, **more)[:, 0]


@many
@given(given_=attentions(), count=threads)
def test_attention(isa, given_, count):
    q, k, v, mask, attrs = given_
    y = run_attention(q, k, v, mask, attrs, count)
    inputs = [x if x is None or x.dtype == bool else x.astype(np.float64) for x in (q, k, v, mask)]
    (expected,) = OPS["attention"].evaluate(OPS["attention"].complete(attrs), inputs)
    np.testing.assert_allclose(y, np.maximum(expected, -1.0), rtol=0, atol=1e-5 * max(np.abs(v).max(), 1))


def test_many_keys(isa):
    """The error of sums over keys does not grow with their number."""
    rng = np.random.default_rng(0)
    q, k, v = normal(rng, 1, 70, 8), normal(rng, 1, 5000, 8), normal(rng, 1, 5000, 8) + 1
    attrs = {"heads": 2, "kv_heads": 2, "scale": 0.1, "causal": False, "window": 0, "empty": "mean"}
    (expected,) = OPS["attention"].evaluate(OPS["attention"].complete(attrs), [x.astype(np.float64) for x in (q, k, v)])
    np.testing.assert_allclose(run_attention(q, k, v, None, attrs, 1), np.maximum(expected, -1.0), rtol=3e-6)


def test_masks_of_attention_are_true_where_they_are_not_zero(isa):
    rng = np.random.default_rng(1)
    q, k, v = normal(rng, 1, 3, 4), normal(rng, 1, 5, 4), normal(rng, 1, 5, 4)
    attrs = {"heads": 1, "kv_heads": 1, "scale": 1.0, "causal": False, "window": 0, "empty": "zero"}
    mask = np.zeros((1, 1, 1, 5), bool)
    np.testing.assert_array_equal(run_attention(q, k, v, mask, attrs, 1), np.zeros((1, 3, 4)))
    mask[..., 2] = True
    np.testing.assert_allclose(run_attention(q, k, v, mask, attrs, 1), np.maximum(v[:, [2] * 3], -1.0), rtol=1e-6)


# --- whole graphs ------------------------------------------------------------------------------------------------------------


def check_native(inputs, nodes, weights, batches=(1, 3)):
    """Check a graph of which every step is native; inputs are dtypes and shapes without samples."""
    entries = tuple(Input(name, TensorType(dtype, (symbol(BATCH), *shape))) for name, (dtype, shape) in inputs.items())
    graph = Graph(entries, (Port("y", nodes[-1].output),), tuple(nodes), weights)
    model, rng = Model(lower(graph)), np.random.default_rng(2)
    for batch in batches:
        given_ = {
            name: rng.random((batch, *shape)) < 0.6 if dtype == "bool" else normal(rng, batch, *shape)
            for name, (dtype, shape) in inputs.items()
        }
        values = {name: x if x.dtype == bool else x.astype(np.float64) for name, x in given_.items()}
        values |= {path: weight if weight.dtype == bool else weight.astype(np.float64) for path, weight in weights.items()}
        for node in nodes:
            found = OPS[node.op].evaluate(node.attrs, [values[name] if name else None for name in node.inputs])
            values.update(zip(node.outputs, found, strict=True))
        expected = values[nodes[-1].output]
        (y,) = model.run(given_)
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * max(np.abs(expected).max(), 1e-3))
        assert [step.reason for step in model.plan(batch) if not step.kernel.startswith("native/")] == []


FLOAT = "float32"
PLAIN = {"heads": 2, "kv_heads": 2, "scale": 0.5}


def projected(rng, name, width):
    return make_node("dense", f"d{name}", [name, f"w{name}"], [f"d{name}"]), {f"w{name}": draw(rng, 8, width)}


@pytest.mark.parametrize("masked", ["", "bool", "constant"])
def test_attention_between_dense_layers(masked):
    rng = np.random.default_rng(3)
    nodes, weights = [], {}
    for name, width in (("q", 12), ("k", 12), ("v", 10)):
        node, weight = projected(rng, name, width)
        nodes.append(node)
        weights |= weight
    inputs = {"q": (FLOAT, (7, 8)), "k": (FLOAT, (70, 8)), "v": (FLOAT, (70, 8))}
    if masked == "bool":
        inputs["m"] = ("bool", (1, 1, 70))
    elif masked:
        weights["m"] = rng.random((7, 70)) < 0.5
    nodes += [
        make_node("attention", "a", ["dq", "dk", "dv", *(["m"] if masked else [])], ["a"], **PLAIN),
        make_node("relu", "r", ["a"], ["r"]),
        make_node("dense", "o", ["r", "wo"], ["o"]),
    ]
    check_native(inputs, nodes, {**weights, "wo": draw(rng, 10, 5)})


@pytest.mark.parametrize(
    ("a", "b"), [((7, 8), (8, 5)), ((3, 7, 8), (3, 8, 5)), ((3, 7, 8), (1, 8, 5)), ((2, 1, 7, 8), (2, 3, 8, 5))]
)
@pytest.mark.parametrize("constant", [False, True])
def test_products(a, b, constant):
    rng = np.random.default_rng(4)
    weights = {"w": draw(rng, 8, 8), **({"b": draw(rng, 1, *b)} if constant else {})}
    nodes = [
        make_node("dense", "d", ["a", "w"], ["d"]),
        make_node("matmul", "m", ["d", "b"], ["m"]),
        make_node("tanh", "t", ["m"], ["t"]),
    ]
    check_native({"a": (FLOAT, a), **({} if constant else {"b": (FLOAT, b)})}, nodes, weights)


@pytest.mark.parametrize("op", ["greater", "equal"])
@pytest.mark.parametrize("kind", ["value", "number", "channels", "before"])
def test_comparisons(op, kind):
    rng = np.random.default_rng(5)
    weights = {"w": draw(rng, 8, 8)}
    if kind != "value":
        weights["b"] = np.float32(0) if kind == "number" else draw(rng, 8)
    order = ["d", "b"][:: -1 if kind == "before" else 1]
    nodes = [
        make_node("dense", "d", ["a", "w"], ["d"]),
        make_node(op, "m", order, ["m"]),
        make_node("cast", "c", ["m"], ["c"], dtype=FLOAT),
    ]
    check_native({"a": (FLOAT, (5, 8)), **({"b": (FLOAT, (5, 8))} if kind == "value" else {})}, nodes, weights)


@pytest.mark.parametrize("a", [(), (5, 8), (1, 8), "value"])
@pytest.mark.parametrize("b", [(), (5, 1), "value"])
@pytest.mark.parametrize("condition", [(5, 8), (5, 1), (1, 1), (1, 8)])
def test_choices(a, b, condition):
    rng = np.random.default_rng(6)
    inputs, weights = {"x": (FLOAT, (5, 8)), "m": ("bool", condition)}, {"w": draw(rng, 8, 8)}
    for name, shape in (("a", a), ("b", b)):
        if shape == "value":
            inputs[name] = (FLOAT, (5, 8))
        else:
            weights[name] = np.asarray(rng.standard_normal(shape), np.float32)
    nodes = [
        make_node("where", "c", ["m", "a", "b"], ["c"]),
        make_node("dense", "d", ["x", "w"], ["d"]),
        make_node("add", "y", ["d", "c"], ["y"]),
    ]
    if "value" in (a, b) or condition == (5, 8):
        check_native(inputs, nodes, weights)


@pytest.mark.parametrize("exponent", [1, 2, 3, 0.5, -0.5, -1])
def test_powers(exponent):
    weights = {"w": draw(np.random.default_rng(7), 8, 8), "p": np.float32(exponent)}
    nodes = [
        make_node("dense", "d", ["x", "w"], ["d"]),
        make_node("exp", "e", ["d"], ["e"]),
        make_node("pow", "y", ["e", "p"], ["y"]),
    ]
    check_native({"x": (FLOAT, (5, 8))}, nodes, weights)
