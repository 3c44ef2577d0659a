"""The runtime: bundles give the answers of the reference evaluation, whatever the shapes, threads and plans."""

from __future__ import annotations

import io
import mmap
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import convolutional

import sparsec.kernels.base
import sparsec.runtime.model
from sparsec.bundle import BundleMeta, make_selfcheck, write_bundle
from sparsec.errors import FormatError, InputError, VerificationError
from sparsec.ir import BATCH, Graph, Input, Port, TensorType, symbol
from sparsec.lowering import lower
from sparsec.ops import evaluate_graph, make_node
from sparsec.runtime import Model, TensorInfo, load

N = symbol(BATCH)
"""The batch axis."""


def sparse_kernel(rng, shape, zeros, dtype="float32"):
    kernel = rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]) * (1 - zeros) + 1)
    kernel[rng.random(shape) < zeros] = 0
    return kernel.astype(dtype)


def mlp(zeros=0.97, dims=(60, 300, 40, 7), seed=0):
    rng = np.random.default_rng(seed)
    weights, nodes, value = {}, [], "x"
    for layer, (columns, rows) in enumerate(pairwise(dims)):
        weights[f"d{layer}/kernel"] = sparse_kernel(rng, (columns, rows), zeros)
        weights[f"d{layer}/bias"] = rng.standard_normal(rows).astype("float32")
        nodes.append(make_node("dense", f"d{layer}", [value, f"d{layer}/kernel", f"d{layer}/bias"], [f"d{layer}"]))
        nodes.append(make_node("relu", f"r{layer}", [f"d{layer}"], [f"r{layer}"]))
        value = f"r{layer}"
    nodes.append(make_node("softmax", "softmax", [value], ["softmax"]))
    inputs = (Input("x", TensorType("float32", (N, dims[0]))),)
    return Graph(inputs, (Port("probabilities", "softmax"),), tuple(nodes), weights, "mlp")


def graph_of(nodes, outputs, weights=None, inputs=(("x", (4,)),), dtype="float32"):
    entries = tuple(Input(name, TensorType(dtype, (N, *shape))) for name, shape in inputs)
    return Graph(entries, tuple(Port(f"out_{v}", v) for v in outputs), tuple(nodes), weights or {}, "small")


def random_inputs(graph, batch, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((batch, *i.type.shape[1:])).astype(i.type.dtype) for i in graph.inputs]


def assert_equal_to_reference(graph, batch=3, tolerance=1e-5, encoding="auto"):
    inputs = random_inputs(graph, batch)
    before = [x.copy() for x in inputs]
    expected = evaluate_graph(graph, inputs)
    found = Model(lower(graph, encoding=encoding)).run(inputs)
    assert len(found) == len(expected)
    for y, want in zip(found, expected, strict=True):
        assert y.dtype == want.dtype
        np.testing.assert_allclose(y, want, rtol=0, atol=tolerance * max(np.abs(want).max(initial=0), 1e-6))
    for x, original in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(x, original)
    return found


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["auto", "csr", "dense", "bitmap", "coo"])
@pytest.mark.parametrize("batch", [1, 2, 64])
def test_mlp_equals_reference(encoding, batch):
    assert_equal_to_reference(mlp(), batch, encoding=encoding)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), batch=st.integers(1, 3), zeros=st.sampled_from([0.2, 0.7, 0.95]))
def test_random_networks_equal_reference(seed, batch, zeros):
    """Residuals, concatenations, shared layers, several outputs: everything that shares buffers."""
    graph, _ = convolutional(seed, dead=zeros)
    assert_equal_to_reference(graph, batch, 1e-9)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_elementwise_graphs_never_overwrite_what_is_read_later(data):
    """Random expressions over views and shared values; each value may be read again, or leave the graph."""
    nodes, values = [], ["x", "y"]
    for index in range(data.draw(st.integers(1, 12))):
        name = f"v{index}"
        kind = data.draw(st.sampled_from(["add", "mul", "relu", "tanh", "reshape", "flip", "dense", "softmax", "w"]))
        pick = st.sampled_from(values)
        if kind in ("add", "mul"):
            nodes.append(make_node(kind, name, [data.draw(pick), data.draw(pick)], [name]))
        elif kind == "reshape":
            nodes.append(make_node(kind, name, [data.draw(pick)], [name], shape=(0, 4)))
        elif kind == "flip":
            nodes.append(make_node("slice", name, [data.draw(pick)], [name], axis=1, start=0, stop=4))
        elif kind == "dense":
            nodes.append(make_node(kind, name, [data.draw(pick), "k", "b"], [name]))
        elif kind == "w":
            nodes.append(make_node("add", name, [data.draw(pick), "b"], [name]))
        else:
            nodes.append(make_node(kind, name, [data.draw(pick)], [name]))
        values.append(name)
    outputs = data.draw(st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True))
    rng = np.random.default_rng(0)
    weights = {"k": rng.standard_normal((4, 4)) / 2, "b": rng.standard_normal(4)}
    graph = graph_of(nodes, outputs, weights, (("x", (4,)), ("y", (4,))), "float64").pruned_weights()
    found = assert_equal_to_reference(graph, 3, 1e-9)
    for index, y in enumerate(found):
        y += 1.0
        others = [other for i, other in enumerate(found) if i != index]
        assert not any(np.shares_memory(y, other) for other in others)


def test_epilogue_takes_only_vectors_along_the_channels():
    """A following operator that changes the shape, or that varies over positions, is no epilogue."""
    rng = np.random.default_rng(1)
    weights = {
        "k": rng.standard_normal((1, 1, 3, 1)),
        "channels": rng.standard_normal((1, 1, 5)),
        "positions": rng.standard_normal((4, 1)),
        "rank": rng.standard_normal((1, 1, 1, 1, 1)),
        "scalar": np.array(2.0),
    }
    attrs = {"strides": (1, 1), "dilations": (1, 1), "padding": "same"}
    for second in ("channels", "positions", "rank", "scalar"):
        nodes = [make_node("conv", "c", ["x", "k"], ["c"], **attrs), make_node("mul", "m", ["c", second], ["m"])]
        graph = graph_of(nodes, ["m"], weights, (("x", (4, 4, 3)),), "float64").pruned_weights()
        assert_equal_to_reference(graph, 2, 1e-12)
        fused = Model(lower(graph)).plan()[0].fused
        assert fused == (("mul",) if second == "scalar" else ())


def test_epilogue_covers_bias_activation_and_scale():
    rng = np.random.default_rng(2)
    weights = {"k": rng.standard_normal((4, 6)), "b": rng.standard_normal(6), "s": rng.standard_normal(6)}
    nodes = [
        make_node("dense", "d", ["x", "k", "b"], ["d"]),
        make_node("gelu", "g", ["d"], ["g"]),
        make_node("affine", "a", ["g", "s", "b"], ["a"]),
        make_node("softmax", "s1", ["a"], ["s1"]),
    ]
    graph = graph_of(nodes, ["s1"], weights, dtype="float64")
    assert_equal_to_reference(graph, 2, 1e-12)
    steps = Model(lower(graph)).plan()
    assert [(step.op, step.fused) for step in steps] == [("dense", ("gelu", "affine")), ("softmax", ())]


def test_kernel_of_a_value_that_is_no_weight_runs_as_reference():
    nodes = [make_node("reshape", "r", ["k"], ["r"], shape=(4, 4)), make_node("dense", "d", ["x", "r"], ["d"])]
    graph = graph_of(nodes, ["d"], {"k": np.arange(16, dtype="float32").reshape(2, 8)})
    assert_equal_to_reference(graph)
    assert [step.kernel for step in Model(lower(graph)).plan()] == ["reference", "reference"]


def test_inputs_weights_and_shared_values_are_copied_out():
    nodes = [make_node("reshape", "r", ["x"], ["r"], shape=(0, 2, 2)), make_node("relu", "a", ["x"], ["a"])]
    nodes.append(make_node("reshape", "b", ["a"], ["b"], shape=(0, 2, 2)))
    graph = graph_of(nodes, ["x", "r", "a", "b", "w"], {"w": np.ones(3, "float32")})
    model = Model(lower(graph))
    x = np.ones((2, 4), "float32")
    outputs = model.run(x)
    for index, y in enumerate(outputs):
        assert not np.shares_memory(x, y)
        assert not any(np.shares_memory(y, other) for other in outputs[:index])
        y[...] = 7
    np.testing.assert_array_equal(x, 1)
    np.testing.assert_array_equal(model.run(x)[4], 1)


def test_float16_runs():
    graph = mlp().lifted("float16")
    x = random_inputs(graph, 2)[0]
    (y,) = Model(lower(graph)).run(x)
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, evaluate_graph(graph, [x])[0], atol=1e-2)


def test_values_are_freed_after_their_last_use():
    """A long chain takes the memory of a few values, not of all."""
    import tracemalloc

    # Pooling over single positions makes a new value each time.
    one = {"window": (1, 1), "strides": (1, 1), "dilations": (1, 1), "padding": "same"}
    names = ["x", *(f"v{index}" for index in range(30))]
    nodes = [make_node("max_pool", b, [a], [b], **one) for a, b in pairwise(names)]
    model = Model(lower(graph_of(nodes, [names[-1]], inputs=(("x", (64, 64, 8)),))))
    x = np.ones((4, 64, 64, 8), "float32")
    model.prepare(4)
    tracemalloc.start()
    model.run(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * x.nbytes


# --- calling --------------------------------------------------------------------------------------------------------


def two_inputs(h="H"):
    nodes = [make_node("add", "sum", ["a", "b"], ["sum"]), make_node("mul", "product", ["a", "b"], ["product"])]
    shape = (N, symbol(h), 3)
    inputs = (Input("a", TensorType("float32", shape)), Input("b", TensorType("float32", shape)))
    return Model(lower(Graph(inputs, (Port("s", "sum"), Port("p", "product")), tuple(nodes), {}, "two")))


def test_signature():
    model = two_inputs()
    assert model.inputs == (TensorInfo("a", ("N", "H", 3), "float32"), TensorInfo("b", ("N", "H", 3), "float32"))
    assert model.outputs == (TensorInfo("s", ("N", "H", 3), "float32"), TensorInfo("p", ("N", "H", 3), "float32"))


def test_ways_of_calling():
    model = two_inputs()
    a, b = np.full((2, 4, 3), 2, "float32"), np.full((2, 4, 3), 5, "float32")
    for x in ([a, b], (a, b), {"b": b, "a": a}):
        outputs = model(x)
        assert isinstance(outputs, tuple)
        np.testing.assert_array_equal(outputs[0], 7)
        np.testing.assert_array_equal(outputs[1], 10)
    assert {name: y.flat[0] for name, y in model([a, b], as_dict=True).items()} == {"s": 7, "p": 10}


def test_one_input_as_array_list_dict_or_numbers():
    model = Model(lower(graph_of([make_node("relu", "r", ["x"], ["r"])], ["r"])))
    for x in (np.full((2, 4), 3.0), [np.full((2, 4), 3.0)], {"x": np.full((2, 4), 3.0)}, [[3.0] * 4] * 2, ([3.0] * 4,) * 2):
        y = model(x)
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y, np.full((2, 4), 3.0))
    assert list(model(np.zeros((1, 4)), as_dict=True)) == ["out_r"]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "uint8", "int16", "bool"])
def test_safe_casts_are_made(dtype):
    model = Model(lower(mlp()))
    x = (np.arange(120).reshape(2, 60) % 2).astype(dtype)
    np.testing.assert_array_equal(model(x), model(x.astype("float32")))


@pytest.mark.parametrize("dtype", ["int32", "int64", "complex64", "U3", "O"])
def test_other_casts_raise(dtype):
    with pytest.raises(InputError, match=f"input 'x' has dtype {np.dtype(dtype).name}.*float32 was expected"):
        Model(lower(mlp()))(np.ones((2, 60)).astype(dtype))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((2, 59), "f4"), r"input 'x' has shape \(2, 59\), \(N, 60\) was expected"),
        (np.ones(60, "f4"), r"input 'x' has shape \(60,\).*use x\[None\] for a single sample"),
        (np.ones((1, 1, 60), "f4"), r"input 'x' has shape \(1, 1, 60\), \(N, 60\) was expected"),
        ([np.ones((1, 60), "f4")] * 2, "takes 1 inputs \\('x'\\), not 2; stack samples"),
        ({"y": np.ones((1, 60), "f4")}, "input 'x' is missing; the model's inputs are 'x'"),
        ({"x": np.ones((1, 60), "f4"), "y": 1}, "there is no input 'y'; the model's inputs are 'x'"),
        ([[1.0, 2.0], [1.0]], "input 'x' is not an array"),
    ],
)
def test_wrong_inputs_say_what_is_wrong(x, message):
    with pytest.raises(InputError, match=message):
        Model(lower(mlp()))(x)


def test_symbols_agree_over_inputs():
    model = two_inputs()
    with pytest.raises(InputError, match=r"input 'b' has shape \(2, 5, 3\), \(N, H, 3\) was expected; H is 4 in input 'a'"):
        model([np.ones((2, 4, 3)), np.ones((2, 5, 3))])
    with pytest.raises(InputError, match="N is 2 in input 'a'"):
        model([np.ones((2, 4, 3)), np.ones((1, 4, 3))])


def test_sizes_that_the_model_cannot_take_are_refused():
    node = make_node(
        "max_pool", "p", ["x"], ["p"], window=(5, 5), strides=(1, 1), dilations=(1, 1), padding="explicit", pads=(0,) * 4
    )
    inputs = (Input("x", TensorType("float32", (N, symbol("H"), symbol("W"), 1))),)
    model = Model(lower(Graph(inputs, (Port("y", "p"),), (node,), {}, "pool")))
    assert model(np.ones((1, 6, 7, 1))).shape == (1, 2, 3, 1)
    with pytest.raises(InputError, match=r"H = 3.*does not fit into"):
        model(np.ones((1, 3, 7, 1)))


@pytest.mark.parametrize("batch_size", [None, 4])
def test_empty_batch(batch_size):
    y = Model(lower(mlp()))(np.ones((0, 60)), batch_size=batch_size)
    assert y.shape == (0, 7)
    assert y.dtype == np.float32


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_batch_size_runs_in_chunks(batch_size):
    graph = mlp()
    x = random_inputs(graph, 7)[0]
    model = Model(lower(graph))
    np.testing.assert_allclose(model(x, batch_size=batch_size), model(x), atol=1e-6)


def test_batch_size_is_checked():
    with pytest.raises(InputError, match="batch_size 0"):
        Model(lower(mlp()))(np.ones((2, 60)), batch_size=0)
    graph = graph_of([make_node("reshape", "r", ["x"], ["r"], shape=(-1,))], ["r"])
    with pytest.raises(InputError, match=r"axis 0 of out_r.* is not the batch"):
        Model(lower(graph))(np.ones((2, 4)), batch_size=1)


def test_not_contiguous_input():
    graph, _ = convolutional(11)
    (x,) = random_inputs(graph, 2)
    model = Model(lower(graph))
    strided = np.repeat(np.asfortranarray(x), 2, axis=2)[:, :, ::2]
    assert not strided.flags.c_contiguous
    for y, expected in zip(model.run(strided), model.run(x), strict=True):
        np.testing.assert_allclose(y, expected, atol=1e-12)


def test_infinite_values_pass_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = Model(lower(mlp()))(np.full((1, 60), np.inf, "float32"))
    assert np.isnan(y).all()


def test_calls_from_many_threads():
    graph = mlp()
    model = Model(lower(graph))
    batches = [random_inputs(graph, batch, seed)[0] for seed, batch in enumerate([1, 2, 3, 5, 8] * 8)]
    expected = [evaluate_graph(graph, [x])[0] for x in batches]
    barrier = threading.Barrier(8)

    def work(index):
        if index < 8:
            barrier.wait()
        return model(batches[index])

    with ThreadPoolExecutor(8) as pool:
        for y, want in zip(pool.map(work, range(len(batches))), expected, strict=True):
            np.testing.assert_allclose(y, want, atol=1e-6)


# --- plans ----------------------------------------------------------------------------------------------------------


def test_plans_are_kept_and_the_oldest_goes_first(monkeypatch):
    monkeypatch.setattr(sparsec.runtime.model, "MAX_PLANS", 2)
    model = Model(lower(mlp()))
    plans = [model.plan(batch) for batch in (1, 2)]
    assert model.plan(1) is plans[0]
    model.plan(3)
    assert model.plan(1) is plans[0]
    assert model.plan(2) is not plans[1]


def test_plans_share_packed_weights():
    model = Model(lower(mlp(zeros=0.0)))
    for batch, other in ((1, 1), (2, 3), (100, 120)):
        model.prepare(batch)
        packed = model.weight_bytes
        model.prepare(other)
        assert model.weight_bytes == packed


def test_plans_in_numpy_share_the_weights_as_they_are(monkeypatch):
    monkeypatch.setenv("SPARSEC_ISA", "none")
    graph = mlp(zeros=0.0)
    model = Model(lower(graph))
    for batch in (1, 2, 3, 100):
        model.prepare(batch)
    assert model.weight_bytes == sum(array.nbytes for array in graph.weights.values())


def test_summary_names_kernels_and_reasons(monkeypatch):
    monkeypatch.setenv("SPARSEC_ISA", "none")
    model = Model(lower(mlp(zeros=0.99, dims=(60, 500, 500, 7))))
    text = model.summary(batch=64)
    assert "dense/csr + relu" in text
    assert "% nonzero" in text
    assert "input  x: float32(N, 60)" in text
    step = model.plan(64)[1]
    assert (step.node, step.op, step.kernel, step.fused) == ("d1", "dense", "dense/csr", ("relu",))
    assert step.microseconds > 0
    assert "against dense/blas" in step.reason


def test_prepare_checks_sizes():
    model = two_inputs()
    with pytest.raises(InputError, match="batch 0"):
        model.prepare(0)
    with pytest.raises(InputError, match="the sizes H of the inputs a: float32"):
        model.prepare(1)
    model.prepare(1, {"H": 4})


def test_threads_are_checked_and_limited(monkeypatch):
    with pytest.raises(InputError, match="0 threads"):
        Model(lower(mlp()), threads=0)
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def current():
        return [entry["num_threads"] for entry in threadpoolctl.threadpool_info() if entry["user_api"] == "blas"]

    seen = []
    model = Model(lower(graph_of([make_node("relu", "r", ["x"], ["r"])], ["r"])), threads=1)
    before = current()
    original = sparsec.runtime.plan.Plan.run

    def run(self, inputs):
        seen.append(current())
        return original(self, inputs)

    monkeypatch.setattr(sparsec.runtime.plan.Plan, "run", run)
    model(np.ones((1, 4)))
    assert set(seen[0]) == {1}
    assert current() == before


def test_threads_without_threadpoolctl_say_so(monkeypatch):
    monkeypatch.setattr("sparsec.runtime.threads.find_spec", lambda name: None)
    with pytest.warns(RuntimeWarning, match="threadpoolctl is not installed; install it with"):
        model = Model(lower(mlp()), threads=1)
    monkeypatch.setattr("sparsec.runtime.threads.BLAS_THREADS._controller", None)
    assert model(np.ones((1, 60))).shape == (1, 7)


def test_without_scipy_sparse_weights_run_dense_and_it_is_said(monkeypatch):
    monkeypatch.setenv("SPARSEC_ISA", "none")
    graph = mlp(zeros=0.99, dims=(60, 500, 500, 7))
    model = Model(lower(graph))
    x = random_inputs(graph, 64)[0]
    expected = model(x)
    assert any(step.kernel == "dense/csr" for step in model.plan(64))
    monkeypatch.setattr(sparsec.kernels.base, "_installed", lambda package: False)
    model = Model(lower(graph))
    with pytest.warns(RuntimeWarning, match="scipy is not installed: sparse weights run as dense ones"):
        y = model(x)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    assert "not installed, and would make it faster: scipy" in model.summary(64)
    assert all(step.kernel != "dense/csr" for step in model.plan(64))


# --- loading --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    graph = mlp()
    paths = {}
    for level in ("stored", "plain"):
        program = lower(graph, level)
        paths[level] = folder / f"{level}.npz"
        write_bundle(paths[level], program, level=level, meta=BundleMeta(selfcheck=make_selfcheck(graph)))
    return graph, paths


@pytest.mark.parametrize("level", ["stored", "plain"])
def test_load_from_path_bytes_and_file(bundles, level):
    graph, paths = bundles
    x = random_inputs(graph, 3)[0]
    expected = evaluate_graph(graph, [x])[0]
    data = paths[level].read_bytes()
    for source in (paths[level], str(paths[level]), data, bytearray(data), memoryview(data), io.BytesIO(data)):
        np.testing.assert_allclose(load(source)(x), expected, atol=1e-6)


def test_mapped_bundle_keeps_dense_weights_in_the_file(tmp_path):
    graph = mlp(zeros=0.0)
    path = tmp_path / "m.npz"
    write_bundle(path, lower(graph, "stored"), level="stored")
    x = random_inputs(graph, 3)[0]
    model = load(path, mmap=True)
    np.testing.assert_allclose(model(x), evaluate_graph(graph, [x])[0], atol=1e-6)
    owner = model._store.array("d0/kernel")
    while isinstance(owner, np.ndarray):
        owner = owner.base
    assert isinstance(owner.obj if isinstance(owner, memoryview) else owner, mmap.mmap)


def test_load_checks_itself(bundles):
    _, paths = bundles
    assert load(paths["plain"], check=True).name == "mlp"


def test_load_refuses_a_bundle_that_computes_something_else(bundles, tmp_path):
    graph, _ = bundles
    write_bundle(tmp_path / "other.npz", lower(mlp(seed=5)), meta=BundleMeta(selfcheck=make_selfcheck(graph)))
    with pytest.raises(VerificationError, match="self-check of 'mlp' failed: output 'probabilities' is off by"):
        load(tmp_path / "other.npz", check=True)
    write_bundle(tmp_path / "none.npz", lower(graph))
    with pytest.raises(InputError, match="carries no self-check"):
        load(tmp_path / "none.npz", check=True)


def test_load_prepares_a_batch(bundles):
    _, paths = bundles
    model = load(paths["plain"], batch=4)
    assert model.weight_bytes > 0
    assert load(paths["plain"]).weight_bytes == 0


def test_load_of_what_is_no_bundle():
    with pytest.raises(FormatError):
        load(b"nothing")
    with pytest.raises(InputError, match=r"no_such\.npz"):
        load("no_such.npz")
    for source, found in (
        (None, "NoneType"),
        (5, "int"),
        (["m.npz"], "list"),
        (io.StringIO("PK"), "StringIO, which reads as str"),
    ):
        with pytest.raises(InputError, match=rf"a bundle is a path, bytes, or a file .*, not {found}"):
            load(source)
