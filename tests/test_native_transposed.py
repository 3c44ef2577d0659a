"""Transposed convolutions in the native engine: the kernel that interleaves, arranged weights, and layers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_steps import Memory, post, run_step

from sparsec.encodings import encode, to_csr
from sparsec.engine.packing import stream
from sparsec.engine.phases import Axis, Phases
from sparsec.engine.segments import divide
from sparsec.engine.steps import Product
from sparsec.engine.translate import translate
from sparsec.ir import BATCH, Graph, Input, Port, TensorType, symbol
from sparsec.kernels import Weight, WeightStore, library
from sparsec.kernels.library import Window
from sparsec.kernels.streams import WINDOW_BLOCKS
from sparsec.kernels.weights import CsrSource
from sparsec.lowering import lower
from sparsec.ops import evaluate_graph, infer_types, make_node
from sparsec.runtime import Model

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")
many = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def interleaved(x, down, across, height, width):
    """Phases put between one another."""
    samples, rows, columns, channels = x.shape
    phases = x.reshape(samples, rows, columns, down, across, channels // (down * across))
    return phases.transpose(0, 1, 3, 2, 4, 5).reshape(samples, rows * down, columns * across, -1)[:, :height, :width]


@many
@given(data=st.data())
def test_interleave(isa, data):
    down, across = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([1, 2, 2, 3, 4, 5, 8]))
    rows, columns = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 70))
    height, width = rows * down - data.draw(st.integers(0, down - 1)), columns * across - data.draw(st.integers(0, across - 1))
    samples, channels = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    x = rng.standard_normal((samples, rows, columns, down * across * channels)).astype(np.float32)
    if data.draw(st.booleans()):
        x[rng.random(x.shape) < 0.02] = np.nan
    expected, memory, posts = np.clip(interleaved(x, down, across, height, width), -1, 1.5), Memory(), []
    if data.draw(st.booleans()):
        other = rng.standard_normal(expected.shape).astype(np.float32)
        scale = rng.standard_normal(channels).astype(np.float32)
        posts = [post(memory, "add", "value", value=other), post(memory, "multiply", "channel", channel=scale)]
        expected = (expected + other) * scale
    window = Window(1, 1, down, across, 1, 1, 0, 0)
    threads = data.draw(st.sampled_from([1, 3]))
    y = run_step("interleave", x, expected.shape, memory=memory, window=window, low=-1, high=1.5, posts=posts, threads=threads)
    np.testing.assert_array_equal(y, expected)


# --- arrangements --------------------------------------------------------------------------------------------------------

AXES = st.builds(Axis, st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.integers(0, 12))


@many
@given(AXES, AXES, st.integers(1, 5), st.integers(1, 4), st.sampled_from([1, 4]), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_an_arranged_weight_is_restored(first, second, outputs, inputs, height, pieces, seed):
    rng = np.random.default_rng(seed)
    kernel = rng.standard_normal((first.size, second.size, outputs, inputs)).astype(np.float32)
    kernel[rng.random(kernel.shape) < 0.5] = 0
    csr, weight, phases = (
        to_csr(encode(kernel, (2,), "csr")),
        Weight("w", kernel.shape, (2,), "float32"),
        Phases((first, second)),
    )
    packing = stream(WINDOW_BLOCKS, height, pieces, Product("w", arrangement=phases))
    assert packing.back is not None
    source = packing.back(packing.make(CsrSource(csr, weight), weight, {}), weight)
    for restored, given_ in zip(source.csr(), csr, strict=True):
        np.testing.assert_array_equal(restored, given_)
    np.testing.assert_array_equal(source.tensor(), kernel)
    assert source.nonzeros() == np.count_nonzero(kernel)


# --- layers --------------------------------------------------------------------------------------------------------------


def transposed(name, x, weights, rng, window, channels, *, density=0.5, strides, dilations=None, crops=None, bias=True):
    """A node, whose weights are added to ``weights``."""
    axes = len(window)
    kernel = rng.standard_normal((*window, *channels)).astype(np.float32)
    weights[f"{name}/k"] = np.where(rng.random(kernel.shape) < density, kernel, 0).astype(np.float32)
    if bias:
        weights[f"{name}/b"] = rng.standard_normal(channels[0]).astype(np.float32)
    inputs = [x, f"{name}/k", *([f"{name}/b"] if bias else [])]
    attrs = {"strides": strides, "dilations": dilations or (1,) * axes, "crops": crops or (0,) * 2 * axes}
    return make_node("conv_transpose", name, inputs, [name], **attrs)


def graph_of(shape, nodes, weights):
    x = Input("x", TensorType("float32", (symbol(BATCH), *shape)))
    return Graph((x,), (Port("y", nodes[-1].output),), tuple(nodes), weights)


def steps_of(shape, nodes, weights, batch=1):
    """What the native engine does for a graph that it runs as a whole, but for changing layouts."""
    graph = graph_of(shape, nodes, weights)
    types, store = infer_types(graph.bind({BATCH: batch})), WeightStore(lower(graph).tensors)
    (segment,) = divide(graph, infer_types(graph), types, store).items
    translation = translate(segment, types, store)
    return [step for step in translation.items if step.nodes], translation.planes


def check(shape, nodes, weights, *, batches=(1, 3), threads=1, tune=False):
    """Compares a model with the operators in float64; the model."""
    graph = graph_of(shape, nodes, weights)
    exact = Graph(
        (Input("x", TensorType("float64", graph.inputs[0].type.shape)),),
        graph.outputs,
        graph.nodes,
        {name: weight.astype(np.float64) for name, weight in weights.items()},
    )
    model = Model(lower(graph), threads=threads, tune=tune)
    for batch in batches:
        given_ = np.random.default_rng(batch).standard_normal((batch, *shape)).astype(np.float32)
        (expected,) = evaluate_graph(exact, [given_.astype(np.float64)])
        y = model(given_)
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * max(np.ptp(expected), np.abs(expected).max(), 1e-3))
        assert all(step.kernel.startswith("native/") for step in model.plan(batch))
    return model


@st.composite
def axis(draw):
    """The size of an input along an axis, window, stride, dilation and crops, that leave something."""
    size, window = draw(st.one_of(st.integers(1, 9), st.integers(1, 40))), draw(st.integers(1, 5))
    stride, dilation = draw(st.integers(1, 4)), draw(st.sampled_from([1, 1, 2, 3]))
    full = (size - 1) * stride + (window - 1) * dilation + 1
    before = draw(st.integers(0, min(full - 1, 7)))
    return size, window, stride, dilation, (before, draw(st.integers(-4, min(full - 1 - before, 6))))


@many
@given(data=st.data())
def test_layers(isa, data):
    axes = data.draw(st.lists(axis(), min_size=1, max_size=2))
    sizes, window, strides, dilations, crops = zip(*axes, strict=True)
    rng, weights = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))), {}
    inputs, outputs = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    node = transposed(
        *("t", "x", weights, rng, window, (outputs, inputs)),
        density=data.draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])),
        strides=strides,
        dilations=dilations,
        crops=tuple(crop for pair in crops for crop in pair),
        bias=data.draw(st.booleans()),
    )
    nodes = [node]
    if data.draw(st.booleans()):
        nodes += [make_node("relu", "r", ["t"], ["r"]), make_node("sigmoid", "s", ["r"], ["s"])]
    check((*sizes, inputs), nodes, weights, batches=(data.draw(st.integers(1, 3)),), threads=data.draw(st.sampled_from([1, 2])))


def test_without_strides_it_is_a_convolution_that_takes_up_what_follows():
    rng, weights = np.random.default_rng(1), {}
    nodes = [
        transposed("a", "x", weights, rng, (3, 3), (8, 8), strides=(1, 1), crops=(1, 1, 1, 1)),
        make_node("add", "j", ["a", "x"], ["j"]),
        make_node("relu", "r", ["j"], ["r"]),
    ]
    (step,), _ = steps_of((7, 9, 8), nodes, weights)
    assert (step.kernel, step.residual, step.low) == ("windows", "x", 0.0)
    check((7, 9, 8), nodes, weights, threads=2, tune=True)


@pytest.mark.parametrize(("size", "crops", "window"), [(2, 0, (1, 1)), (3, 0, (2, 2)), (4, 1, (3, 3)), (1, 0, (1, 1))])
def test_with_strides_it_computes_no_more_than_the_output(size, crops, window):
    rng, weights = np.random.default_rng(size), {}
    nodes = [
        transposed("a", "x", weights, rng, (size, size), (6, 4), strides=(2, 2), crops=(crops, size - 2 - crops) * 2),
        make_node("add", "j", ["a", "a"], ["j"]),
    ]
    (convolution, interleaving), planes = steps_of((8, 9, 4), nodes[:1], weights)
    assert convolution.window.size == window
    assert convolution.kernel == ("product" if window == (1, 1) else "windows")
    assert interleaving.kernel == "interleave"
    assert planes[convolution.y].floats <= planes[interleaving.y].floats + 16 * 24
    check((8, 9, 4), nodes, weights, threads=3, tune=True)


def test_every_position_that_a_single_one_becomes_is_a_phase():
    rng, weights = np.random.default_rng(2), {}
    node = transposed("a", "x", weights, rng, (4, 3), (6, 20), strides=(1, 1))
    for batch, kernel in ((1, "vector"), (5, "product")):
        (step, _), planes = steps_of((1, 1, 20), [node], weights, batch)
        assert (step.kernel, planes[step.y].channels) == (kernel, 4 * 3 * 6)
    check((1, 1, 20), [node], weights, batches=(1, 5))


def test_one_weight_in_several_arrangements():
    rng, weights = np.random.default_rng(3), {}
    attrs = {"dilations": (1, 1), "crops": (0, 0, 0, 0)}
    nodes = [
        transposed("a", "x", weights, rng, (3, 3), (6, 6), strides=(2, 2)),
        make_node("conv_transpose", "b", ["a", "a/k"], ["b"], strides=(1, 1), **attrs),
        make_node("conv_transpose", "c", ["b", "a/k"], ["c"], strides=(3, 2), **attrs),
    ]
    check((4, 5, 6), nodes, weights, threads=2)


def test_zeros_around_the_input_are_padding_of_the_convolution():
    rng, weights = np.random.default_rng(4), {}
    nodes = [
        make_node("pad", "p", ["x"], ["p"], pads=(1, 2, 0, 3)),
        transposed("a", "p", weights, rng, (3, 3), (5, 4), strides=(2, 2)),
    ]
    (first, _), _ = steps_of((5, 6, 4), nodes, weights)
    assert first.x == "x"
    check((5, 6, 4), nodes, weights)
