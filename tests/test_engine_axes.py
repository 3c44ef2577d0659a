"""Values of any number of axes in the native engine: whole graphs against the operators in float64."""

from __future__ import annotations

import numpy as np
import pytest
from test_engine import check, draw, graph_of, translated

from sparsec.engine.steps import Step
from sparsec.errors import InputError
from sparsec.ir import BATCH, Graph, Input, Port, TensorType, symbol
from sparsec.kernels import library
from sparsec.lowering import lower
from sparsec.ops import make_node
from sparsec.runtime import Model

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")
VOLUME = (5, 6, 7, 4)
SAME = {"padding": "same", "strides": (1, 1, 1), "dilations": (1, 1, 1)}


def check_native(graph, *, batches=(1, 3)):
    """Check a graph of which every step is native."""
    model = None
    for batch in batches:
        model = check(graph, batch, model)
        assert [step.reason for step in model.plan(batch) if not step.kernel.startswith("native/")] == []
    return model


def after_dense(shape, nodes, weights=None, output="", width=None):
    """A graph that begins with a dense layer, since what computes little is not worth a native call."""
    rng = np.random.default_rng(len(nodes))
    width = width or shape[-1]
    weights = {"in": draw(rng, shape[-1], width, density=0.7), **(weights or {})}
    return graph_of(shape, [make_node("dense", "d", ["x", "in"], ["d"]), *nodes], weights, output)


# --- convolutions over three axes ------------------------------------------------------------------------------------------

WINDOWS = [
    ((3, 3, 3), SAME),
    ((2, 3, 1), {**SAME, "strides": (2, 1, 2)}),
    ((3, 2, 2), {**SAME, "dilations": (2, 1, 1)}),
    ((1, 3, 3), SAME),
    ((1, 1, 1), SAME),
    ((1, 1, 1), {**SAME, "strides": (2, 2, 2)}),
    ((3, 1, 1), SAME),
    ((5, 6, 7), {**SAME, "padding": "explicit", "pads": (0,) * 6}),
    ((2, 2, 2), {**SAME, "padding": "explicit", "pads": (3, 0, 0, 1, 2, 0)}),
]


@pytest.mark.parametrize(("size", "attrs"), WINDOWS)
@pytest.mark.parametrize(("groups", "density"), [(1, 0.2), (2, 1.0), (4, 0.5)])
def test_convolutions_over_three_axes(size, attrs, groups, density):
    rng = np.random.default_rng(5)
    weights = {"k": draw(rng, *size, 4 // groups, 8, density=density), "b": draw(rng, 8, density=1)}
    nodes = [
        make_node("conv", "c", ["x", "k", "b"], ["c"], groups=groups, **attrs),
        make_node("relu", "r", ["c"], ["r"]),
    ]
    check_native(graph_of(VOLUME, nodes, weights))


@pytest.mark.parametrize(
    ("size", "strides", "crops", "dilations"),
    [
        ((3, 3, 3), (2, 2, 2), (0, 1, 0, 1, 0, 1), (1, 1, 1)),
        ((2, 3, 1), (1, 2, 1), (0, 0, 1, 1, 0, 0), (1, 1, 1)),
        ((2, 2, 2), (3, 2, 1), (1, 0, 0, -1, 0, 0), (2, 1, 2)),
        ((1, 1, 1), (1, 1, 1), (0,) * 6, (1, 1, 1)),
        ((3, 2, 2), (1, 1, 1), (2, -2, 0, 0, 0, 0), (1, 1, 1)),
    ],
)
@pytest.mark.parametrize("density", [0.2, 1.0])
def test_transposed_convolutions_over_three_axes(size, strides, crops, dilations, density):
    rng = np.random.default_rng(6)
    weights = {"k": draw(rng, *size, 6, 4, density=density), "b": draw(rng, 6, density=1)}
    attrs = {"strides": strides, "crops": crops, "dilations": dilations}
    nodes = [make_node("conv_transpose", "c", ["x", "k", "b"], ["c"], **attrs), make_node("tanh", "t", ["c"], ["t"])]
    check_native(graph_of(VOLUME, nodes, weights))


@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
@pytest.mark.parametrize(("size", "attrs"), WINDOWS[:3])
def test_pools_over_three_axes(op, size, attrs):
    check_native(after_dense(VOLUME, [make_node(op, "p", ["d"], ["p"], window=size, **attrs)]))


@pytest.mark.parametrize("method", ["nearest", "linear"])
def test_what_goes_along_three_axes(method):
    nodes = [
        make_node("pad", "p", ["d"], ["p"], pads=(1, 2, 0, 1, 3, 0)),
        make_node("resize", "r", ["p"], ["r"], sizes=(5, 20, 7), method=method),
        make_node("reduce_mean", "m", ["r"], ["m"], axes=(1, 2, 3)),
    ]
    for output in ("p", "r", "m"):
        check_native(after_dense(VOLUME, nodes, output=output))


# --- values of several axes --------------------------------------------------------------------------------------------------


def test_steps_that_become_samples():
    """What is done at every step of a sequence is done to as many samples."""
    rng = np.random.default_rng(7)
    attrs = {"padding": "same", "strides": (1, 1), "dilations": (1, 1)}
    weights = {"k": draw(rng, 3, 3, 4, 6), "u": draw(rng, 6, 12), "v": draw(rng, 3, 12)}
    nodes = [
        make_node("reshape", "a", ["x"], ["a"], shape=(-1, 6, 7, 4)),
        make_node("conv", "c", ["a", "k"], ["c"], **attrs),
        make_node("reduce_mean", "m", ["c"], ["m"], axes=(1, 2)),
        make_node("reshape", "s", ["m"], ["s"], shape=(-1, 5, 6)),
        make_node("lstm", "l", ["s", "u", "", "v"], ["l", "h", "e"], activation="tanh", recurrent_activation="sigmoid"),
    ]
    graph = graph_of(VOLUME, nodes, weights, "h")
    check_native(graph, batches=(1, 3, 2))
    # A value of several rows for a sample is given and taken as it is.
    check_native(graph_of(VOLUME, nodes[:2], weights, "c"))


@pytest.mark.parametrize("threads", [1, 2])
def test_batches_in_parts(threads):
    """A batch is cut where a sample ends, though it may have several rows in a value."""
    rng = np.random.default_rng(13)
    weights = {"k": draw(rng, 6, 5), "b": draw(rng, 2, 3, 1, density=1)}
    nodes = [
        make_node("reshape", "a", ["x"], ["a"], shape=(-1, 6)),
        make_node("dense", "d", ["a", "k"], ["d"]),
        make_node("reshape", "s", ["d"], ["s"], shape=(-1, 2, 3, 5)),
        make_node("mul", "m", ["s", "b"], ["m"]),
        make_node("transpose", "t", ["m"], ["t"], permutation=(0, 2, 3, 1)),
    ]
    graph = graph_of((2, 3, 6), nodes, weights)
    check(graph, 517, Model(lower(graph), threads=threads))
    check(graph_of((2, 3, 6), nodes[:2], weights), 517)


def test_integers_in_another_shape():
    """What looks up rows sees whether they are in the table, and integers that leave the native part are exact."""
    ids = Input("x", TensorType("int32", (symbol(BATCH), 6)))
    weights = {"t": draw(np.random.default_rng(14), 9, 4), "k": draw(np.random.default_rng(15), 4, 3)}
    nodes = (
        make_node("reshape", "r", ["x"], ["r"], shape=(-1, 2, 3)),
        make_node("cast", "c", ["r"], ["c"], dtype="int64"),
        make_node("gather", "g", ["t", "c"], ["g"], axis=0),
        make_node("dense", "d", ["g", "k"], ["d"]),
    )
    model = Model(lower(Graph((ids,), (Port("y", "d"),), nodes, weights)))
    x = np.array([[0, -1, 2, 8, -9, 5]] * 2, np.int32)
    np.testing.assert_allclose(model.run(x)[0], weights["t"][x.reshape(2, 2, 3)] @ weights["k"], rtol=1e-5, atol=1e-6)
    assert all(step.kernel.startswith("native/") for step in model.plan(2))
    with pytest.raises(InputError, match="an index is outside of a table of 9 entries: -1 to 9 were given"):
        model.run(np.where(x == 8, 9, np.maximum(x, -1)))
    model = Model(lower(Graph((ids,), (Port("y", "d"), Port("r", "c")), nodes, weights)))
    assert [step.op for step in model.plan(2) if not step.kernel.startswith("native/")] == ["reshape", "cast"]
    outputs = model.run(x)
    np.testing.assert_array_equal(outputs[1], x.reshape(2, 2, 3))
    assert outputs[1].dtype == np.int64


@pytest.mark.parametrize("permutation", [(0, 2, 1, 3), (0, 3, 1, 2), (0, 2, 3, 1), (0, 3, 2, 1), (0, 1, 3, 2)])
def test_axes_in_another_order(permutation):
    check_native(after_dense((9, 20, 6), [make_node("transpose", "t", ["d"], ["t"], permutation=permutation)]))


@pytest.mark.parametrize("axis", [1, 2, 3, 4])
@pytest.mark.parametrize("ends", [(1, 4, 1), (0, 5, 2), (-1, -(2**31), -1), (3, 0, -2)])
def test_parts_of_an_axis(axis, ends):
    start, stop, step = ends
    node = make_node("slice", "s", ["d"], ["s"], axis=axis, start=start, stop=stop, step=step)
    check_native(after_dense((5, 6, 7, 8), [node]))


@pytest.mark.parametrize("axis", [1, 2, 3, 4])
def test_values_one_after_the_other_along_an_axis(axis):
    nodes = [
        make_node("slice", "s", ["d"], ["s"], axis=axis, start=0, stop=2),
        make_node("concat", "c", ["d", "s", "d"], ["c"], axis=axis),
        make_node("relu", "r", ["c"], ["r"]),
    ]
    check_native(after_dense((3, 4, 5, 6), nodes))


@pytest.mark.parametrize("repeats", [(1, 2, 1, 1), (1, 1, 3, 1), (1, 1, 1, 4), (1, 2, 3, 2)])
def test_values_that_are_repeated(repeats):
    check_native(after_dense((3, 4, 5), [make_node("tile", "t", ["d"], ["t"], repeats=repeats)]))


@pytest.mark.parametrize("op", ["reduce_mean", "reduce_sum", "reduce_max"])
@pytest.mark.parametrize("axes", [(1,), (2,), (3,), (-1,), (1, 2), (1, 3), (2, -1), (1, 4), (1, 2, 3, 4), (4, 3)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions_over_any_axes(op, axes, keepdims):
    graph = after_dense((3, 4, 5, 6), [make_node(op, "r", ["d"], ["r"], axes=axes, keepdims=keepdims)])
    check_native(graph, batches=(1, 3) if len(axes) < 4 else (20,))


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [1, 2, -1])
def test_softmax_over_any_axis(op, axis):
    check_native(after_dense((5, 6, 7), [make_node(op, "s", ["d"], ["s"], axis=axis)]))


@pytest.mark.parametrize("axes", [(1,), (2,), (3,), (1, 2, 3), (2, 3), (1, 3)])
def test_layer_normalisation_over_any_axes(axes):
    shape, rng = (5, 6, 7), np.random.default_rng(8)
    sizes = [shape[axis - 1] for axis in axes]
    weights = {"g": draw(rng, *sizes, density=1), "b": draw(rng, *sizes, density=1)}
    node = make_node("layer_norm", "n", ["d", "g", "b"], ["n"], axes=axes, epsilon=1e-3)
    check_native(after_dense(shape, [node], weights))


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_batch_normalisation_along_any_axis(axis):
    shape, rng = (5, 6, 7), np.random.default_rng(9)
    weights = {name: rng.uniform(0.5, 2, shape[axis - 1]).astype(np.float32) for name in "gbmv"}
    node = make_node("batch_norm", "n", ["d", *"gbmv"], ["n"], axis=axis, epsilon=1e-3)
    check_native(after_dense(shape, [node], weights))


@pytest.mark.parametrize("shape", [(6,), (5, 6), (1, 4, 5, 6), (3, 1, 1, 6), (1, 4, 1, 1), (3, 4, 5, 1)])
@pytest.mark.parametrize("op", ["sub", "div", "prelu", "maximum"])
def test_constants_of_any_shape(shape, op):
    weights = {"w": np.random.default_rng(10).uniform(0.5, 2, shape).astype(np.float32)}
    nodes = [make_node(op, "y", ["d", "w"], ["y"])]
    check_native(after_dense((3, 4, 5, 6), nodes, weights))
    if op in ("sub", "div"):
        nodes = [make_node("exp", "e", ["d"], ["e"]), make_node(op, "y", ["w", "e"], ["y"])]
        check_native(after_dense((3, 4, 5, 6), nodes, weights))


@pytest.mark.parametrize(("a", "b"), [((3, 1, 5, 6), (3, 4, 1, 6)), ((3, 4, 5, 6), (1, 4, 1, 6)), ((1, 1, 5, 1), (3, 4, 1, 6))])
@pytest.mark.parametrize("op", ["add", "sub", "div"])
def test_values_that_broadcast(a, b, op):
    """Either is computed from what the graph takes, which has all channels in one row."""
    rng = np.random.default_rng(11)
    inputs = tuple(Input(name, TensorType("float32", (symbol(BATCH), 8))) for name in "xy")
    nodes, weights = [], {}
    for name, shape in (("x", a), ("y", b)):
        weights[f"k{name}"] = draw(rng, 8, int(np.prod(shape)))
        nodes.append(make_node("dense", f"d{name}", [name, f"k{name}"], [f"d{name}"]))
        nodes.append(make_node("exp", f"e{name}", [f"d{name}"], [f"e{name}"]))
        nodes.append(make_node("reshape", f"r{name}", [f"e{name}"], [f"r{name}"], shape=(-1, *shape)))
    nodes.append(make_node(op, "z", ["rx", "ry"], ["z"]))
    graph = Graph(inputs, (Port("z", "z"),), tuple(nodes), weights)
    model = Model(lower(graph))
    for batch in (1, 3):
        given = [rng.standard_normal((batch, 8)).astype(np.float32) for _ in "xy"]
        values = [np.exp(x.astype(np.float64) @ weights[f"k{name}"]) for x, name in zip(given, "xy", strict=True)]
        parts = [value.reshape(batch, *shape) for value, shape in zip(values, (a, b), strict=True)]
        expected = {"add": np.add, "sub": np.subtract, "div": np.divide}[op](*parts)
        (found,) = model.run(given)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.ptp(expected))
        assert all(step.kernel.startswith("native/") for step in model.plan(batch))


def test_what_follows_a_convolution_over_three_axes_is_computed_with_it():
    weights = {"k": draw(np.random.default_rng(12), 3, 3, 3, 4, 8)}
    nodes = [make_node("conv", "c", ["x", "k"], ["c"], **SAME), make_node("relu", "r", ["c"], ["r"])]
    kernels = [item.kernel for item in translated(graph_of(VOLUME, nodes, weights), 2).items if isinstance(item, Step)]
    assert kernels == ["load", "copy", "copy", "copy", "copy", "windows", "store"]


@pytest.mark.parametrize("strides", [(1, 2), (2, 1), (3, 1)])
@pytest.mark.parametrize("size", [(9, 7), (160, 120)])
def test_strides_of_rows_and_of_columns(strides, size):
    """Parts of the work begin at any row of the output, in several threads or where one part at a time fits into the cache."""
    rng = np.random.default_rng(14)
    node = make_node("conv", "c", ["x", "k"], ["c"], strides=strides, dilations=(1, 1), padding="same")
    for channels in (3, 10):
        graph = graph_of((*size, channels), [node], {"k": draw(rng, 3, 3, channels, 4, density=1)})
        for threads in (1, 2, 3):
            check(graph, 1, Model(lower(graph), threads=threads))
