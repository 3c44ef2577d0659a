"""Masks and look-ups in the native engine: recurrent cells, against the operators in float64, and what masks are made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_steps import run_step
from test_native_recurrent import LAYERS, USUAL, VARIANTS, cell_graph, evaluate, sparse

import sparsec
from sparsec.errors import InputError
from sparsec.ir import BATCH, Graph, Input, Port, TensorType, symbol
from sparsec.kernels import library
from sparsec.lowering import lower
from sparsec.ops import make_node
from sparsec.runtime import Model

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")
many = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

KINDS = ("all", "none", "middle", "first", "last", "random", "by sample")


def mask_of(kind, rng, samples, steps):
    """A mask ``[samples, steps]``."""
    mask = np.full((samples, steps), kind != "none")
    match kind:
        case "middle":
            mask[:, steps // 3 : -(-2 * steps // 3)] = False
        case "first":
            mask[:, 0] = False
        case "last":
            mask[:, steps // 2 :] = False
        case "random":
            mask = rng.random((samples, steps)) < 0.5
        case "by sample":
            mask[rng.random(samples) < 0.5] = False
    return mask


def masked(graph):
    """A graph of one cell, with a mask for another input."""
    (node,) = graph.nodes
    names = list(node.inputs)
    mask = Input("mask", TensorType("bool", graph.inputs[0].type.shape[:2]))
    names[4:5] = ["mask"]
    node = make_node(node.op, node.name, names, node.outputs, **node.attrs)
    return Graph((*graph.inputs, mask), graph.outputs, (node,), graph.weights)


def check(graph, inputs, threads=None, tune=False):
    """Compare with the operators, and see that all of it is native; the model."""
    model = Model(lower(graph), threads=threads, tune=tune)
    for y, expected in zip(model.run(inputs), evaluate(graph, inputs), strict=True):
        assert y.shape == expected.shape
        if expected.dtype == bool:
            assert y.dtype == bool
            np.testing.assert_array_equal(y, expected)
        else:
            np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * max(np.abs(expected).max(), 0.1))
    kernels = [step.kernel for step in model.plan(len(inputs[0]))]
    assert all(kernel.startswith("native/") for kernel in kernels), kernels
    return model


def draw_inputs(graph, rng, samples, mask):
    shapes = [(samples, *(int(str(dim)) for dim in entry.type.shape[1:])) for entry in graph.inputs[:-1]]
    return [*(rng.standard_normal(shape).astype(np.float32) for shape in shapes), mask]


# --- recurrent cells -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("op", "attrs"), VARIANTS)
@many
@given(data=st.data())
def test_cells(op, attrs, isa, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    steps, samples = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    mask = mask_of(data.draw(st.sampled_from(KINDS)), rng, samples, steps)
    attrs = USUAL[op] | attrs | {"reverse": data.draw(st.booleans()), "zero_masked": data.draw(st.booleans())}
    graph = masked(cell_graph(rng, op, attrs, steps=steps, **data.draw(LAYERS)))
    check(graph, draw_inputs(graph, rng, samples, mask), data.draw(st.sampled_from([1, 3])))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [1, 3, 17])
@pytest.mark.parametrize("zero_masked", [False, True])
@pytest.mark.parametrize("given_states", [False, True])
def test_every_mask(kind, samples, zero_masked, given_states):
    """Of more steps than are brought together at a time."""
    rng = np.random.default_rng(5)
    for op in USUAL:
        for reverse in (False, True):
            attrs = USUAL[op] | {"zero_masked": zero_masked, "reverse": reverse}
            graph = masked(cell_graph(rng, op, attrs, 37, 3, 8, given_states=given_states))
            check(graph, draw_inputs(graph, rng, samples, mask_of(kind, rng, samples, 37)))


@pytest.mark.parametrize("samples", [1, 4])
def test_what_steps_are_given_that_do_not_count_is_not_looked_at(samples, isa):
    rng = np.random.default_rng(6)
    for op in USUAL:
        graph = masked(cell_graph(rng, op, USUAL[op], 12, 3, 8))
        mask = mask_of("random", rng, samples, 12)
        x, mask = draw_inputs(graph, rng, samples, mask)
        x[~mask] = np.nan
        model = Model(lower(graph))
        for y, expected in zip(model.run([x, mask]), evaluate(graph, [np.where(mask[..., None], x, 0), mask]), strict=True):
            np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)


def test_a_large_batch_is_run_in_parts():
    rng = np.random.default_rng(7)
    graph = masked(cell_graph(rng, "lstm", USUAL["lstm"], 9, 4, 12))
    check(graph, draw_inputs(graph, rng, 300, mask_of("random", rng, 300, 9)), threads=3)


@pytest.mark.parametrize("samples", [1, 3])
def test_candidates_are_timed_as_if_all_steps_counted(samples):
    rng = np.random.default_rng(8)
    graph = masked(cell_graph(rng, "gru", USUAL["gru"], 9, 4, 48))
    check(graph, draw_inputs(graph, rng, samples, mask_of("last", rng, samples, 9)), tune=True)


# --- look-ups --------------------------------------------------------------------------------------------------------------


@many
@given(data=st.data())
def test_gather(isa, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    samples, width, last, rows = (data.draw(st.integers(1, most)) for most in (4, 5, 30, 9))
    table = rng.standard_normal((rows, data.draw(st.integers(1, 40)))).astype(np.float32)
    shape = (samples, 1, width, last) if width > 1 else (samples, 1, 1, last)
    indices = rng.integers(-rows, rows, shape)
    expected = np.take(table, indices, axis=0)
    y = run_step(
        *("gather", indices.astype(np.float32), (samples, *expected.shape[2:])),
        weights=table,
        options=(rows,),
        low=-0.5,
        high=0.5,
        threads=data.draw(st.sampled_from([1, 3])),
    )
    np.testing.assert_array_equal(y, np.clip(expected[:, 0], -0.5, 0.5).reshape(y.shape))


def looking_up(rng, rows, steps, dtype="int32"):
    """Rows of a table, times a matrix."""
    nodes = (make_node("gather", "g", ["table", "ids"], ["g"], axis=0), make_node("dense", "d", ["g", "kernel"], ["y"]))
    ids = Input("ids", TensorType(dtype, (symbol(BATCH), *steps)))
    weights = {"table": sparse(rng, (rows, 12), 0.5), "kernel": sparse(rng, (12, 5), 0.5)}
    return Graph((ids,), (Port("y", "y"),), nodes, weights)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("steps", [(1,), (7,), (3, 6)])
@pytest.mark.parametrize("samples", [1, 5])
def test_indices(dtype, steps, samples, isa):
    rng = np.random.default_rng(9)
    graph = looking_up(rng, 11, steps, dtype)
    for least in (0, -11):
        check(graph, [rng.integers(least, 11, (samples, *steps)).astype(dtype)])


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("wrong", [11, -12, 2**31 - 1, -(2**31), 2**62, -(2**62)])
def test_an_index_outside_of_its_table_is_an_error_as_in_numpy(dtype, wrong, monkeypatch):
    if abs(wrong) > 2**31 and dtype == "int32":
        return
    graph = looking_up(np.random.default_rng(10), 11, (7,), dtype)
    ids = np.arange(14).reshape(2, 7).astype(dtype) % 11
    model = Model(lower(graph))
    before = model.run([ids])[0]
    outside = ids.copy()
    outside[1, 2] = wrong
    with pytest.raises(InputError) as native:
        model.run([outside])
    monkeypatch.setenv(library.VARIABLE, library.OFF)
    with pytest.raises(InputError) as in_numpy:
        Model(lower(graph)).run([outside])
    assert str(native.value) == str(in_numpy.value)
    np.testing.assert_array_equal(model.run([ids])[0], before)


def test_an_input_of_integers_takes_no_floats():
    model = Model(lower(looking_up(np.random.default_rng(11), 11, (7,))))
    model(np.zeros((1, 7), np.int32))
    with pytest.raises(InputError):
        model(np.full((1, 7), 99.0, np.float32))


# --- what masks are made of -------------------------------------------------------------------------------------------------


@many
@given(data=st.data())
def test_greatest_channels(isa, data):
    shape = tuple(data.draw(st.integers(1, most)) for most in (3, 4, 20, 6))
    x = np.random.default_rng(data.draw(st.integers(0, 99))).standard_normal(shape).astype(np.float32)
    if data.draw(st.booleans()):
        x.reshape(-1)[data.draw(st.integers(0, x.size - 1))] = np.nan
    y = run_step("reduce", x, (*shape[:3], 1), options=(3,), high=1.0, threads=data.draw(st.sampled_from([1, 3])))
    np.testing.assert_array_equal(y, np.minimum(x.max(axis=-1, keepdims=True), 1.0))


def beside_a_dense(nodes, inputs, outputs, weights=None, shape=(6, 4)):
    """A graph of some nodes on ``x``, with something beside them that is worth a native call."""
    x = Input("x", TensorType("float32", (symbol(BATCH), *shape)))
    rng = np.random.default_rng(12)
    dense = make_node("dense", "d", ["x", "kernel"], ["d"])
    weights = {"kernel": sparse(rng, (shape[-1], 3), 0.7), **(weights or {})}
    return Graph((x, *inputs), tuple(Port(name, name) for name in ("d", *outputs)), (*nodes, dense), weights)


ZERO, ONE, NO = np.float32(0), np.float32(-1), np.asarray(False)


def masking(value, keepdims):
    """What the layer Masking is, in both ways in which it is read."""
    return (
        make_node("equal", "e", ["x", "value"], ["e"]),
        make_node("equal", "n", ["e", "no"], ["n"]),
        make_node("reduce_max", "a", ["n"], ["a"], axes=(2,), keepdims=keepdims),
        make_node("sub", "s", ["x", "value"], ["s"]),
        make_node("cast", "b", ["s"], ["b"], dtype="bool"),
        make_node("cast", "f", ["b"], ["f"], dtype="float32"),
        make_node("reduce_max", "m", ["f"], ["m"], axes=(-1,), keepdims=True),
        make_node("cast", "c", ["m"], ["c"], dtype="bool"),
        make_node("where", "w", ["c", "x", "zero"], ["w"]),
        make_node("reshape", "r", ["c"], ["r"], shape=(0, 0)),
    ), {"value": np.float32(value), "no": NO, "zero": ZERO}


@pytest.mark.parametrize("samples", [1, 3, 17])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("value", [0.0, -1.5])
def test_masking(value, keepdims, samples, isa):
    nodes, weights = masking(value, keepdims)
    graph = beside_a_dense(nodes, (), ("a", "w", "r", "c"), weights)
    rng = np.random.default_rng(13)
    x = rng.standard_normal((samples, 6, 4)).astype(np.float32)
    x[rng.random((samples, 6)) < 0.5] = value
    x[0, 0, 1], x[0, 1, 0] = np.nan, np.inf
    model = Model(lower(graph))
    with np.errstate(invalid="ignore"):
        references = evaluate(graph, [x])
    for y, expected in zip(model.run([x])[1:], references[1:], strict=True):
        np.testing.assert_array_equal(y, expected)
        assert (y.dtype == bool) == (expected.dtype == bool)
    assert all(step.kernel.startswith("native/") for step in model.plan(samples))


@pytest.mark.parametrize("samples", [1, 3])
def test_truth_values_are_combined_and_leave_as_such(samples, isa):
    p, q = (Input(name, TensorType("bool", (symbol(BATCH), 6))) for name in "pq")
    nodes = (
        make_node("where", "either", ["p", "p", "q"], ["either"]),
        make_node("where", "both", ["p", "q", "p"], ["both"]),
        make_node("equal", "same", ["p", "q"], ["same"]),
        make_node("maximum", "or", ["same", "q"], ["or"]),
        make_node("concat", "join", ["p", "both"], ["join"], axis=1),
        make_node("slice", "part", ["either"], ["part"], axis=1, start=1, stop=4, step=1),
    )
    graph = beside_a_dense(nodes, (p, q), ("either", "both", "same", "or", "join", "part"))
    rng = np.random.default_rng(14)
    truths = [rng.random((samples, 6)) < 0.5 for _ in range(2)]
    check(graph, [rng.standard_normal((samples, 6, 4)).astype(np.float32), *truths])


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("number", [0, -3, 2**24 - 1])
def test_integers_are_compared_exactly(number, dtype, isa):
    ids = Input("ids", TensorType(dtype, (symbol(BATCH), 6)))
    graph = beside_a_dense([make_node("equal", "e", ["ids", "c"], ["e"])], (ids,), ("e",), {"c": np.array(number, dtype)})
    near = number + np.array([[-1, 0, 1, 2, 2**24, -(2**24)], [0, 2, 0, 7, 2**31 - 1 - max(number, 0), 0]])
    check(graph, [np.zeros((2, 6, 4), np.float32), near.astype(dtype)])


def refusal(nodes, inputs, output, weights):
    """Why the last of some nodes is not native."""
    graph = beside_a_dense(nodes, inputs, (output,), weights)
    steps = {step.node: step for step in Model(lower(graph)).plan(2)}
    return steps[nodes[-1].name].reason


def test_what_float32_does_not_hold_is_not_asked_of_it():
    ids, others = (Input(name, TensorType("int32", (symbol(BATCH), 6))) for name in ("ids", "others"))
    for other, weights in (("c", {"c": np.int32(2**24)}), ("others", {})):
        node = make_node("equal", "e", ["ids", other], ["e"])
        assert "integers that float32 may not hold" in refusal([node], (ids, others), "e", weights)
    node = make_node("cast", "c", ["x"], ["c"], dtype="int32")
    assert "it makes integers" in refusal([node], (), "c", {})


# --- models -----------------------------------------------------------------------------------------------------------------


def classifier(layers, keras):
    ids = keras.Input((30,), dtype="int32")
    h = layers.Embedding(50, 12, mask_zero=True)(ids)
    h = layers.Bidirectional(layers.LSTM(10, return_sequences=True))(h)
    h = layers.LSTM(9)(h)
    return keras.Model(ids, layers.Dense(4, activation="softmax")(h))


def series(layers, keras):
    x = keras.Input((12, 5))
    h = layers.Masking()(x)
    h = layers.GRU(8, return_sequences=True)(h)
    h = layers.SimpleRNN(7, return_sequences=True, go_backwards=True)(h)
    h = layers.Bidirectional(layers.GRU(6, reset_after=False), merge_mode="sum")(h)
    return keras.Model(x, layers.Dense(3)(h))


def branches(layers, keras):
    """Two inputs whose masks meet, states that are handed on, a mask that is given, and outputs at every step."""
    ids, others, flags = (keras.Input((9,), dtype=dtype) for dtype in ("int32", "int64", "bool"))
    embedded = [layers.Embedding(20, 6, mask_zero=True)(x) for x in (ids, others)]
    h, *states = layers.LSTM(8, return_sequences=True, return_state=True)(layers.Add()(embedded))
    h = layers.LSTM(8, return_sequences=True)(h, initial_state=states, mask=flags)
    return keras.Model([ids, others, flags], layers.TimeDistributed(layers.Dense(3))(h))


@pytest.mark.parametrize("make", [classifier, series, branches])
def test_models_are_what_keras_says(make):
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    model = make(keras.layers, keras)
    rng = np.random.default_rng(15)
    inputs = []
    for x in model.inputs:
        shape = (5, *x.shape[1:])
        counts = mask_of("last", rng, *shape[:2]) & mask_of("random", rng, *shape[:2])
        values = rng.standard_normal(shape) if x.dtype == "float32" else rng.integers(1, 20, shape)
        inputs.append(np.where(counts.reshape(*shape[:2], *(1,) * (len(shape) - 2)), values, 0).astype(x.dtype))
    loaded = Model(sparsec.compile(model).program)
    for samples in (1, 5):
        given = [x[:samples] for x in inputs]
        expected = model(given if len(given) > 1 else given[0], training=False)
        np.testing.assert_allclose(loaded.run(given)[0], expected, rtol=0, atol=2e-6)
        assert all(step.kernel.startswith("native/") for step in loaded.plan(samples)), loaded.summary(samples)


def test_sequences_without_steps_and_with_many():
    """Lengths that are known only when the model is called."""
    rng = np.random.default_rng(16)
    x = Input("x", TensorType("float32", (symbol(BATCH), symbol("T"), 4)))
    ids = Input("ids", TensorType("int32", (symbol(BATCH), symbol("T"))))
    cell = cell_graph(rng, "lstm", USUAL["lstm"], 1, 4, 8)
    nodes = (
        make_node("equal", "e", ["ids", "zero"], ["e"]),
        make_node("equal", "n", ["e", "no"], ["n"]),
        make_node("lstm", "r", ["x", "kernel", "bias", "recurrent", "n"], ["y", "h", "c"], **cell.nodes[0].attrs),
    )
    weights = {**cell.weights, "zero": np.int32(0), "no": NO}
    graph = Graph((x, ids), tuple(Port(name, name) for name in "yhc"), nodes, weights)
    model = Model(lower(graph))
    for steps in (1, 40):
        inputs = [rng.standard_normal((2, steps, 4)).astype(np.float32), rng.integers(0, 2, (2, steps), np.int32)]
        for y, expected in zip(model.run(inputs), evaluate(graph, inputs), strict=True):
            np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5)
    inputs = [np.zeros((2, 0, 4), np.float32), np.zeros((2, 0), np.int32)]
    for y, expected in zip(model.run(inputs), evaluate(graph, inputs), strict=True):
        np.testing.assert_array_equal(y, expected)
