"""The native engine: whole graphs against the operators in float64, and what plans do to memory, threads and batches."""

from __future__ import annotations

import os
import resource
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from random_graphs import convolutional

from sparsec.engine.memory import ARENA, Memory
from sparsec.engine.segments import divide
from sparsec.engine.steps import Planes, Step
from sparsec.engine.translate import translate
from sparsec.ir import ABSENT, BATCH, Graph, Input, Port, TensorType, symbol
from sparsec.kernels import WeightStore, library
from sparsec.lowering import lower
from sparsec.ops import get_op, infer_types, make_node
from sparsec.runtime import Model

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")
SAME = {"strides": (1, 1), "dilations": (1, 1), "padding": "same"}


def evaluate(graph, x):
    """The outputs in float64."""
    values = {path: np.asarray(weight, np.float64) for path, weight in graph.weights.items()}
    values |= {entry.name: np.asarray(x, np.float64) for entry in graph.inputs}
    for node in graph.nodes:
        inputs = [None if name == ABSENT else values[name] for name in node.inputs]
        values.update(zip(node.outputs, get_op(node.op).evaluate(node.attrs, inputs), strict=True))
    return [values[port.value] for port in graph.outputs]


def in_float32(graph):
    inputs = tuple(Input(entry.name, TensorType("float32", entry.type.shape)) for entry in graph.inputs)
    weights = {path: weight.astype(np.float32) for path, weight in graph.weights.items()}
    return Graph(inputs, graph.outputs, graph.nodes, weights, graph.name)


def graph_of(shape, nodes, weights, output=""):
    x = Input("x", TensorType("float32", (symbol(BATCH), *shape)))
    return Graph((x,), (Port("y", output or nodes[-1].output),), tuple(nodes), weights)


def check(graph, batch=1, model=None, seed=0):
    shape = tuple(int(str(dim)) for dim in graph.inputs[0].type.shape[1:])
    x = np.random.default_rng(seed).standard_normal((batch, *shape)).astype(np.float32)
    model = model or Model(lower(graph))
    for y, expected in zip(model.run(x), evaluate(graph, x), strict=True):
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * max(np.ptp(expected), 1e-3))
    return model


def translated(graph, batch):
    """The items of a graph that is native as a whole."""
    types, store = infer_types(graph.bind({BATCH: batch})), WeightStore(lower(graph).tensors)
    (segment,) = divide(graph, infer_types(graph), types, store).items
    return translate(segment, types, store)


def draw(rng, *shape, density=0.3):
    return np.where(rng.random(shape) < density, rng.standard_normal(shape), 0).astype(np.float32)


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs(seed):
    graph, _ = convolutional(seed)
    graph = in_float32(graph)
    model = check(graph, 1)
    check(graph, 3, model)
    assert any(step.kernel.startswith("native/") for step in model.plan(1))


def test_groups_have_their_own_channels_bias_and_constants():
    rng = np.random.default_rng(1)
    weights = {
        "k": draw(rng, 3, 3, 4, 12),
        "b": draw(rng, 12, density=1),
        "s": draw(rng, 12, density=1),
        "e": draw(rng, 3, 3, 12, 2, density=1),
    }
    nodes = [
        make_node("conv", "c", ["x", "k", "b"], ["c"], groups=3, **SAME),
        make_node("relu", "r", ["c"], ["r"]),
        make_node("mul", "m", ["r", "s"], ["m"]),
        make_node("depthwise_conv", "d", ["m", "e"], ["d"], **SAME),
    ]
    model = check(graph_of((9, 10, 12), nodes, weights), 2)
    assert [step.fused for step in model.plan(2)][:1] == [("relu", "mul")]


@pytest.mark.parametrize(
    ("groups", "filters", "kernel"), [(24, 24, "native/depthwise"), (24, 48, "native/depthwise"), (12, 24, "native/")]
)
def test_a_group_for_each_channel_is_a_depthwise_convolution(groups, filters, kernel):
    rng = np.random.default_rng(6)
    node = make_node("conv", "c", ["x", "k", "b"], ["c"], groups=groups, **SAME)
    weights = {"k": draw(rng, 7, 7, 24 // groups, filters), "b": draw(rng, filters)}
    (step,) = check(graph_of((9, 10, 24), [node], weights)).plan(1)
    assert step.kernel.startswith(kernel)


@pytest.mark.parametrize(
    ("shape", "window", "attrs"),
    [
        ((112, 90, 4), (112, 90), {"padding": "explicit", "pads": (0, 0, 0, 0)}),
        ((300, 20, 3), (3, 3), {"strides": (2, 2), "dilations": (120, 3)}),
        ((260, 260, 1), (260, 260), {"padding": "explicit", "pads": (0, 0, 0, 0)}),
    ],
)
def test_windows_of_any_size(shape, window, attrs):
    weights = {"k": draw(np.random.default_rng(7), *window, shape[-1], 3, density=0.1)}
    check(graph_of(shape, [make_node("conv", "c", ["x", "k"], ["c"], **{**SAME, **attrs})], weights))


def test_one_convolution_along_a_line():
    rng = np.random.default_rng(2)
    line = {"strides": (2,), "dilations": (1,), "padding": "same"}
    nodes = [make_node("conv", "c", ["x", "k"], ["c"], **line), make_node("max_pool", "p", ["c"], ["p"], window=(3,), **line)]
    check(graph_of((37, 5), nodes, {"k": draw(rng, 4, 5, 7)}), 2)


def bottleneck(rng, channels=32, size=12):
    """Two residual blocks, of which the second begins with strides."""

    def conv(name, x, strides=1):
        return make_node("conv", name, [x, f"{name}/k", f"{name}/b"], [name], **{**SAME, "strides": (strides, strides)})

    shapes = {"a": (1, channels, 8), "b": (3, 8, 8), "c": (1, 8, channels), "d": (1, channels, 16), "s": (1, channels, 16)}
    weights = {f"{name}/k": draw(rng, k, k, i, o) for name, (k, i, o) in shapes.items()}
    weights |= {f"{name}/b": draw(rng, o, density=1) for name, (_, _, o) in shapes.items()}
    nodes = [
        *(conv("a", "x"), make_node("relu", "ar", ["a"], ["ar"]), conv("b", "ar"), make_node("relu", "br", ["b"], ["br"])),
        *(conv("c", "br"), make_node("add", "j", ["x", "c"], ["j"]), make_node("relu", "jr", ["j"], ["jr"])),
        *(conv("d", "jr", 2), conv("s", "jr", 2), make_node("add", "e", ["d", "s"], ["e"])),
    ]
    return graph_of((size, size, channels), nodes, weights)


@pytest.mark.parametrize("batch", [1, 3])
def test_strides_are_taken_where_positions_are_computed(batch):
    graph = bottleneck(np.random.default_rng(3))
    model = check(graph, batch)
    translation = translated(graph, batch)
    products = [step for step in translation.items if isinstance(step, Step) and step.kernel == "product"]
    # Only the first product needs all positions; those after "b" are computed at a quarter of them.
    assert [translation.planes[step.y].height for step in products] == [12, 6, 6, 6]
    assert model.plan(batch)[0].kernel.startswith("native/product")


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_strides_may_leave_one_position(size, batch):
    check(bottleneck(np.random.default_rng(17), size=size), batch)


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_zeros_around_a_maximum_count_where_something_is_below_them(low):
    rng = np.random.default_rng(4)
    window = {"strides": (2, 2), "dilations": (1, 1), "padding": "explicit", "pads": (0, 0, 0, 0)}
    nodes = [
        make_node("conv", "c", ["x", "k"], ["c"], **SAME),
        make_node("clip", "r", ["c"], ["r"], minimum=low, maximum=9.0),
        make_node("pad", "z", ["r"], ["z"], pads=(1, 1, 1, 1)),
        make_node("max_pool", "p", ["z"], ["p"], window=(3, 3), **window),
        make_node("pad", "q", ["p"], ["q"], pads=(0, 2, 1, 0)),
        make_node("depthwise_conv", "d", ["q", "e"], ["d"], **window),
    ]
    model = check(graph_of((11, 13, 3), nodes, {"k": draw(rng, 3, 3, 3, 5), "e": draw(rng, 3, 3, 5, 1, density=1)}), 2)
    assert sum(step.op == "pad" for step in model.plan(2)) == (0 if low == 0 else 1)


def test_parts_of_a_concatenation_lie_in_it_unless_they_are_in_another():
    rng = np.random.default_rng(5)
    nodes = [
        make_node("conv", "a", ["x", "ka"], ["a"], **SAME),
        make_node("conv", "b", ["x", "kb"], ["b"], **SAME),
        make_node("concat", "ab", ["a", "b"], ["ab"], axis=-1),
        make_node("conv", "c", ["ab", "kc"], ["c"], **SAME),
        make_node("concat", "abc", ["ab", "c", "x"], ["abc"], axis=-1),
        make_node("concat", "twice", ["a", "a", "abc"], ["twice"], axis=-1),
        make_node("slice", "s", ["twice"], ["s"], axis=3, start=2, stop=11),
        make_node("conv", "d", ["s", "kd"], ["d"], **SAME),
    ]
    weights = {
        "ka": draw(rng, 1, 1, 3, 4),
        "kb": draw(rng, 3, 3, 3, 5),
        "kc": draw(rng, 1, 1, 9, 2),
        "kd": draw(rng, 1, 1, 9, 3),
    }
    check(graph_of((6, 7, 3), nodes, weights), 2)
    check(graph_of((6, 7, 3), nodes, weights, "twice"), 1)


def test_a_gate_and_a_function_of_the_value_that_it_multiplies():
    rng = np.random.default_rng(6)
    nodes = [
        make_node("conv", "c", ["x", "k"], ["c"], **SAME),
        make_node("hard_sigmoid", "h", ["c"], ["h"], alpha=1 / 6, beta=0.5),
        make_node("mul", "m", ["c", "h"], ["m"]),
        make_node("reduce_mean", "g", ["m"], ["g"], axes=(1, 2), keepdims=True),
        make_node("conv", "q", ["g", "kq"], ["q"], **SAME),
        make_node("sigmoid", "s", ["q"], ["s"]),
        make_node("mul", "e", ["m", "s"], ["e"]),
        make_node("softmax", "o", ["e"], ["o"]),
    ]
    for batch in (1, 4):
        check(graph_of((5, 9, 6), nodes, {"k": draw(rng, 3, 3, 6, 8), "kq": draw(rng, 1, 1, 8, 8)}), batch)


def test_what_is_between_native_nodes_runs_in_numpy():
    rng = np.random.default_rng(7)
    nodes = [
        make_node("dense", "a", ["x", "ka"], ["a"]),
        make_node("cumsum", "u", ["a"], ["u"], axis=1),
        make_node("dense", "b", ["u", "kb"], ["b"]),
        make_node("add", "s", ["a", "b"], ["s"]),
        make_node("dense", "d", ["s", "kb"], ["d"]),
    ]
    model = check(graph_of((20,), nodes, {"ka": draw(rng, 20, 30), "kb": draw(rng, 30, 30)}), 3)
    kernels = [step.kernel.partition("/")[0] for step in model.plan(3)]
    assert kernels == ["native", "reference", "native", "native"]
    assert [step.fused for step in model.plan(3)] == [(), (), ("add",), ()]


@pytest.mark.parametrize("batch", [1, 2, 255, 257, 600])
def test_batches_are_run_in_parts(batch):
    rng = np.random.default_rng(8)
    nodes = [make_node("dense", "a", ["x", "k"], ["a"]), make_node("relu", "r", ["a"], ["r"])]
    check(graph_of((50,), nodes, {"k": draw(rng, 50, 70)}), batch)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_give_the_same_every_time(threads):
    graph = bottleneck(np.random.default_rng(9))
    model = Model(lower(graph), threads=threads)
    check(graph, 2, model)
    x = np.random.default_rng(10).standard_normal((2, 12, 12, 32)).astype(np.float32)
    first = model(x)
    for _ in range(20):
        np.testing.assert_array_equal(model(x), first)


def test_threads_may_call_one_model():
    rng = np.random.default_rng(11)
    model = Model(lower(bottleneck(rng)), threads=2)
    inputs = [rng.standard_normal((1 + i % 3, 12, 12, 32)).astype(np.float32) for i in range(24)]
    expected = [model(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for y, wanted in zip(pool.map(model, inputs), expected, strict=True):
            np.testing.assert_array_equal(y, wanted)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own():
    model = Model(lower(bottleneck(np.random.default_rng(16))), threads=2)
    x = np.ones((2, 12, 12, 32), np.float32)
    expected = model(x)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(model(x), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(model(x), expected)


def test_a_call_allocates_nothing_but_its_output():
    model = Model(lower(bottleneck(np.random.default_rng(12), size=40)))
    x = np.ones((1, 40, 40, 32), np.float32)
    for _ in range(5):
        y = model(x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        model(x)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults <= 50 * (y.nbytes // 4096 + 1)


def test_inputs_of_any_layout_and_dtype():
    rng = np.random.default_rng(13)
    model = Model(lower(bottleneck(rng)))
    x = rng.standard_normal((2, 12, 12, 32)).astype(np.float32)
    expected = model(x)
    for other in (np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], x[::-1].copy()[::-1], x.astype(np.float64)):
        np.testing.assert_array_equal(model(other), expected)
    expected[...] = 0
    assert np.any(model(x) != 0)


# --- memory ----------------------------------------------------------------------------------------------------------------


def test_values_that_live_at_the_same_time_do_not_share_memory():
    rng = np.random.default_rng(14)
    for _ in range(200):
        names = ["x"]
        planes = {"x": Planes(1, 1, 40, 3)}
        steps = []
        for index in range(12):
            x, other = (names[rng.integers(len(names))] for _ in range(2))
            y = f"v{index}"
            kernel = ("map", "product")[rng.integers(2)]
            planes[y] = planes[x] if kernel == "map" else Planes(1, 1, 40, int(rng.integers(1, 9)))
            residual = other if kernel == "product" and planes[other] == planes[y] else ""
            steps.append(Step(kernel, x, y, residual=residual))
            names.append(y)
        memory = Memory(steps, planes, {"x": 1})
        held: dict[int, str] = {}
        for step in memory.steps:
            for value in step.reads:
                place = memory.place(value)
                if place.base == ARENA:
                    assert {held.get(at) for at in _floats(memory, value)} == {value}
            held.update(dict.fromkeys(_floats(memory, step.y), step.y))


def _floats(memory, value):
    place = memory.place(value)
    return range(place.offset, place.offset + memory.planes[value].floats)
