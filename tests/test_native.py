"""The native kernels: every kernel with every instruction set against the reference in float64, and what surrounds them."""

from __future__ import annotations

import ctypes
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sparsec.kernels.native_kernels import Tiles

from sparsec.encodings import encode
from sparsec.encodings.codec import Csr
from sparsec.errors import InputError
from sparsec.ir import BATCH, Graph, Input, Port, TensorType, symbol
from sparsec.kernels import IN_PLACE, KERNELS, NATIVE, TENSOR, Epilogue, Stage, Task, WeightStore, choose, library
from sparsec.kernels.sparse import ROWS
from sparsec.kernels.streams import SLICES, STREAM, SliceStream, Stream
from sparsec.lowering import lower
from sparsec.ops import OPS, make_node
from sparsec.runtime import Model

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "sparsec" / "kernels" / "native"
NAMES = ("dense/native", "dense/slices", "conv/native", "depthwise_conv/native")
BY_NAME = {kernel.name: kernel for kernel in KERNELS if NATIVE in kernel.needs}
needs_library = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")
many = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=library.status().isas)
def isa(request, monkeypatch):
    monkeypatch.setenv("SPARSEC_ISA", request.param)
    assert library.status().isa == request.param
    return request.param


def task_of(op, attrs, x, kernel):
    rows = tuple(axis % kernel.ndim for axis in OPS[op].matrix_rows[1])
    store = WeightStore({"k": encode(kernel, rows, "csr")})
    attrs = OPS[op].complete(attrs)
    (y,) = OPS[op].infer(attrs, [TensorType("float32", x.shape), TensorType("float32", kernel.shape)])
    return Task(op, attrs, x.shape, y.shape, "float32", store.weight("k"), store.nonzeros("k")), store


def run(name, attrs, x, kernel, bias=None, stages=()):
    row = BY_NAME[name]
    task, store = task_of(row.op, attrs, x, kernel)
    return row.bind(task, store.packed("k", row.packing, task.attrs), Epilogue(bias, stages))(x)


def check(name, attrs, x, kernel, bias):
    """Close to the reference, as a part of the sum of the magnitudes of all products."""
    op = OPS[BY_NAME[name].op]
    wide = [array.astype(np.float64) for array in (x, kernel, bias)]
    (expected,) = op.evaluate(op.complete(attrs), wide)
    (scale,) = op.evaluate(op.complete(attrs), [np.abs(array) for array in wide])
    y = run(name, attrs, x, kernel, bias)
    assert (y.shape, y.dtype) == (expected.shape, np.float32)
    assert np.all(np.abs(y - expected) <= 1e-5 * scale)
    # A clamp, and something that follows it in NumPy.
    negate = Stage("mul", IN_PLACE["mul"], {}, (np.full(1, -1, np.float32),))
    stages = (stage("relu", max_value=1.0), negate)
    clamped = -np.clip(expected, 0, 1)
    assert np.all(np.abs(run(name, attrs, x, kernel, bias, stages) - clamped) <= 1e-5 * scale)


def stage(op, **attrs):
    return Stage(op, IN_PLACE[op], OPS[op].complete(attrs))


@st.composite
def arrays(draw, x, kernel, out):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = rng.standard_normal(kernel).astype(np.float32)
    weight[rng.random(kernel) >= draw(st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]))] = 0
    if draw(st.booleans()):
        weight[..., rng.random(kernel[-1]) < 0.5] = 0
    return rng.standard_normal(x).astype(np.float32), weight, rng.standard_normal(out).astype(np.float32)


@needs_library
@pytest.mark.parametrize("name", ["dense/native", "dense/slices"])
@many
@given(data=st.data())
def test_dense(name, isa, data):
    inside, out = data.draw(st.integers(1, 400)), data.draw(st.integers(1, 70))
    lead = data.draw(st.sampled_from([(1,), (1, 1), (2,), (3, 5), (17,), (64,), (129,), (200,)]))
    check(name, {}, *data.draw(arrays((*lead, inside), (inside, out), out)))


@st.composite
def windows(draw, largest):
    rank = draw(st.integers(1, 2))

    def sizes(strategy, count):
        return tuple(draw(st.lists(strategy, min_size=count, max_size=count)))

    attrs = {"strides": sizes(st.integers(1, 3), rank), "dilations": sizes(st.integers(1, 3), rank)}
    attrs["padding"] = draw(st.sampled_from(["same", "explicit"]))
    attrs["pads"] = sizes(st.integers(0, 3), 2 * rank if attrs["padding"] == "explicit" else 0)
    window = sizes(st.integers(1, largest), rank)
    # What the window spans, and some more.
    spatial = tuple((k - 1) * d + draw(st.integers(1, 36)) for k, d in zip(window, attrs["dilations"], strict=True))
    return attrs, window, spatial


@needs_library
@many
@given(data=st.data())
def test_convolution(isa, data):
    attrs, window, spatial = data.draw(windows(4))
    samples, inside, out = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    check("conv/native", attrs, *data.draw(arrays((samples, *spatial, inside), (*window, inside, out), out)))


@needs_library
@many
@given(data=st.data())
def test_depthwise(isa, data):
    attrs, window, spatial = data.draw(windows(5))
    samples, channels = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([1, 3, 4, 16, 19, 64, 87]))
    check("depthwise_conv/native", attrs, *data.draw(arrays((samples, *spatial, channels), (*window, channels, 1), channels)))


@needs_library
@pytest.mark.parametrize(
    ("spatial", "channels", "window", "strides"),
    [
        ((1, 300), (5, 7), (1, 9), (1, 1)),
        ((9, 150), (3, 8), (3, 3), (1, 1)),
        ((7, 7), (130, 140), (3, 3), (1, 1)),
        ((14, 14), (140, 30), (1, 1), (1, 1)),
        ((57, 57), (3, 16), (7, 7), (2, 2)),
        ((15, 15), (600, 4), (1, 1), (2, 2)),
    ],
)
def test_convolutions_of_networks(isa, spatial, channels, window, strides):
    """Tiles of part of a row and of many rows, several blocks of channels, every form of stride."""
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((*window, *channels)).astype(np.float32)
    weight[rng.random(weight.shape) < 0.9] = 0
    x = rng.standard_normal((2, *spatial, channels[0])).astype(np.float32)
    attrs = {"strides": strides, "dilations": (1, 1), "padding": "same"}
    check("conv/native", attrs, x, weight, rng.standard_normal(channels[1]).astype(np.float32))


@needs_library
@pytest.mark.parametrize("name", ["dense/native", "dense/slices"])
@pytest.mark.parametrize("vectors", [1, 5])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_reaches_what_it_is_multiplied_with(name, vectors, bad, isa):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((vectors, 80)).astype(np.float32)
    x[:, 33] = bad
    weight = rng.standard_normal((80, 50)).astype(np.float32)
    weight[rng.random(weight.shape) < 0.8] = 0
    with np.errstate(invalid="ignore"):
        expected = np.where(weight != 0, x.astype(float)[:, :, None] * weight, 0).sum(axis=1)
    relu = np.where(np.isnan(expected), np.nan, np.maximum(expected, 0))
    for stages, wanted in (((), expected), ((stage("relu"),), relu)):
        y = run(name, {}, x, weight, stages=stages)
        reached = weight[33] != 0
        np.testing.assert_allclose(y[:, reached], wanted[:, reached], rtol=1e-4)
        if name == "dense/native":
            # The padding of slices multiplies by zero, as a dense product does.
            np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)


@needs_library
@pytest.mark.parametrize("name", NAMES)
def test_inputs_of_any_layout(name, isa):
    op = BY_NAME[name].op
    rng = np.random.default_rng(3)
    shape, kernel = ((6, 8), (8, 5)) if op == "dense" else ((2, 6, 5, 8), (3, 3, 8, 1 if op == "depthwise_conv" else 4))
    attrs = {} if op == "dense" else {"strides": (1, 1), "dilations": (1, 1), "padding": "same"}
    x, weight = rng.standard_normal(shape).astype(np.float32), rng.standard_normal(kernel).astype(np.float32)
    expected = run(name, attrs, x, weight)
    for other in (np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], x[::-1].copy()[::-1]):
        np.testing.assert_array_equal(run(name, attrs, other, weight), expected)


@needs_library
def test_what_is_refused():
    rng = np.random.default_rng(4)
    x, weight = rng.standard_normal((1, 8, 8, 4)).astype(np.float32), np.ones((3, 3, 2, 4), np.float32)
    attrs = {"strides": (1, 1), "dilations": (1, 1), "padding": "same"}
    task, _ = task_of("conv", {**attrs, "groups": 2}, x, weight)
    assert BY_NAME["conv/native"].refuses(task) == "it has groups"
    task, _ = task_of("depthwise_conv", attrs, x, np.ones((3, 3, 4, 2), np.float32))
    assert BY_NAME["depthwise_conv/native"].refuses(task) == "it has a multiplier"
    task, _ = task_of("dense", {}, x[0, 0], np.ones((4, 4), np.float32))
    assert "float64" in BY_NAME["dense/native"].refuses(replace(task, dtype="float64"))
    assert "rows (0,)" in BY_NAME["dense/native"].refuses(replace(task, weight=replace(task.weight, rows=(0,))))


@needs_library
def test_threads_may_call_one_model(isa):
    rng = np.random.default_rng(5)

    def sparse(*shape):
        return np.where(rng.random(shape) < 0.9, 0, rng.standard_normal(shape)).astype(np.float32)

    window = {"strides": (1, 1), "dilations": (1, 1), "padding": "same"}
    nodes = (
        make_node("conv", "c", ["x", "c/kernel"], ["c"], **window),
        make_node("depthwise_conv", "w", ["c", "w/kernel"], ["w"], **window),
        make_node("conv", "p", ["w", "p/kernel"], ["p"], **window),
        make_node("reduce_mean", "m", ["p"], ["m"], axes=(1, 2)),
        make_node("dense", "d", ["m", "d/kernel"], ["d"]),
    )
    weights = {
        "c/kernel": sparse(3, 3, 32, 64),
        "w/kernel": rng.standard_normal((3, 3, 64, 1)).astype(np.float32),
        "p/kernel": sparse(1, 1, 64, 256),
        "d/kernel": sparse(256, 900),
    }
    x = Input("x", TensorType("float32", (symbol(BATCH), 14, 14, 32)))
    model = Model(lower(Graph((x,), (Port("y", "d"),), nodes, weights)))
    assert {step.kernel for step in model.plan(1)} >= {"conv/native", "depthwise_conv/native"}
    inputs = [rng.standard_normal((1 + i % 3, 14, 14, 32)).astype(np.float32) for i in range(24)]
    expected = [model(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for y, wanted in zip(pool.map(model, inputs), expected, strict=True):
            np.testing.assert_array_equal(y, wanted)


# --- packing ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 50),
    channels=st.integers(1, 300),
    taps=st.sampled_from([1, 2, 9]),
    density=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    seed=st.integers(0, 1000),
)
def test_streams_keep_every_entry(rows, channels, taps, density, seed):
    rng = np.random.default_rng(seed)
    matrix = np.where(rng.random((rows, taps * channels)) < density, rng.standard_normal((rows, taps * channels)), 0)
    csr = _csr(matrix.astype(np.float32))
    part = _csr(matrix.astype(np.float32)[rows // 3 : rows // 3 + 1])
    for stream in (Stream.pack(csr, channels, taps), SliceStream.pack(csr, channels * taps)):
        for found, expected in ((stream.csr(), csr), (stream.part(rows // 3, rows // 3 + 1).csr(), part)):
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)


def _csr(matrix):
    row, column = np.nonzero(matrix)
    pointers = np.r_[0, np.cumsum(np.bincount(row, minlength=len(matrix)))]
    return Csr(pointers.astype(np.int32), column.astype(np.int32), matrix[row, column])


@pytest.mark.parametrize("first", [STREAM, SLICES])
@pytest.mark.parametrize("second", [TENSOR, ROWS, STREAM, SLICES])
def test_packed_forms_are_made_from_one_another(first, second):
    rng = np.random.default_rng(6)
    array = np.where(rng.random((3, 3, 4, 6)) < 0.8, 0, rng.standard_normal((3, 3, 4, 6))).astype(np.float32)
    store = WeightStore({"k": encode(array, (3,), "csr")})
    assert store.packed("k", first, {}).nbytes == store.nbytes
    store.packed("k", second, {})
    np.testing.assert_array_equal(store.array("k"), array)
    assert store.nonzeros("k") == np.count_nonzero(array)


def test_a_stream_takes_six_bytes_an_entry():
    rng = np.random.default_rng(7)
    matrix = np.where(rng.random((512, 4608)) < 0.9, 0, 1).astype(np.float32)
    stream = Stream.pack(_csr(matrix), 512, 9)
    assert stream.nbytes < 7 * np.count_nonzero(matrix)


# --- the library --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sse", "AVX2", "avx512 "])
def test_an_unknown_instruction_set_is_an_error(name, monkeypatch):
    monkeypatch.setenv("SPARSEC_ISA", name)
    with pytest.raises(InputError, match=rf"SPARSEC_ISA is '{name}'; use one of avx512, avx2, neon, baseline, or none"):
        library.status()


@needs_library
def test_an_instruction_set_of_another_machine_is_an_error(monkeypatch):
    absent = next(isa.name for isa in library.ISAS if isa.name not in library.status().isas)
    monkeypatch.setenv("SPARSEC_ISA", absent)
    with pytest.raises(InputError, match=f"SPARSEC_ISA is '{absent}', which this machine does not run; it runs .*baseline"):
        library.status()


def test_native_kernels_can_be_turned_off(monkeypatch):
    monkeypatch.setenv("SPARSEC_ISA", "none")
    assert (library.status().isa, library.status().library) == ("none", None)
    choice = choose(_wide_task())
    assert NATIVE not in choice.kernel.needs
    assert choice.missing == ()
    assert "dense/native cannot: SPARSEC_ISA=none" in choice.reason


@pytest.mark.parametrize("content", [None, b"no library"])
def test_without_the_library_numpy_and_scipy_run_and_it_is_said(content, tmp_path, monkeypatch):
    if content is not None:
        (tmp_path / "libsparsec_native.so").write_bytes(content)
    monkeypatch.setenv("SPARSEC_NATIVE", str(tmp_path))
    monkeypatch.delenv("SPARSEC_ISA", raising=False)
    assert library.status() == library.Status(None, built=False)
    choice = choose(_wide_task())
    assert choice.missing == (NATIVE,)
    assert "needs native library" in choice.reason
    kernel = np.zeros((500, 500), np.float32)
    kernel[3, 4] = 1
    graph = Graph(
        (Input("x", TensorType("float32", (symbol(BATCH), 500))),),
        (Port("y", "d"),),
        (make_node("dense", "d", ["x", "k"], ["d"]),),
        {"k": kernel},
    )
    model = Model(lower(graph))
    with pytest.warns(RuntimeWarning, match="sparsec was installed without its native library, for want of a C compiler"):
        y = model(np.ones((64, 500)))
    assert y.sum() == 64
    assert "not installed, and would make it faster: native library" in model.summary(64)


def _wide_task():
    task, _ = task_of("dense", {}, np.zeros((64, 1000), np.float32), np.zeros((1000, 1000), np.float32))
    return replace(task, nonzeros=50000)


def test_costs_do_not_need_the_library(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEC_NATIVE", str(tmp_path))
    assert choose(_wide_task(), [kernel for kernel in KERNELS if kernel.op == "dense"]).cost > 0
    installed = [replace(kernel, needs=()) for kernel in KERNELS]
    assert choose(_wide_task(), installed).kernel.name == "dense/native"
    assert choose(replace(_wide_task(), nonzeros=900_000), installed).kernel.name == "dense/blas"


@pytest.mark.parametrize(
    ("size", "lanes", "tiles", "positions"),
    [(56, 16, 28, 128), (28, 16, 7, 128), (14, 16, 2, 112), (7, 16, 1, 64), (56, 8, 56, 56)],
)
def test_tiles_follow_the_kernel(size, lanes, tiles, positions):
    x, weight = np.zeros((1, size, size, 2), np.float32), np.zeros((3, 3, 2, 2), np.float32)
    task, _ = task_of("conv", {"strides": (1, 1), "dilations": (1, 1), "padding": "same"}, x, weight)
    found = Tiles.of(task, lanes)
    assert (found.count, found.positions) == (tiles, positions)


def test_python_mirrors_the_header():
    header = (SOURCES / "kernels.h").read_text()
    assert re.findall(r"^    X\((\w+),", header, re.MULTILINE) == list(library.ARGUMENTS)
    assert f"#define SPARSEC_ABI {library.ABI}\n" in header
    plain = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    structures = dict(zip(("matrix", "geometry", "slices"), (library.Matrix, library.Geometry, library.Slices), strict=True))
    for body, name in re.findall(r"typedef struct \{(.*?)\} sparsec_(\w+);", plain, re.DOTALL):
        declared = []
        for kind, names in re.findall(r"(int32_t|float|const \w+) ([^;]+);", body):
            pointer = kind.startswith("const")
            type_ = ctypes.c_void_p if pointer else {"int32_t": ctypes.c_int32, "float": ctypes.c_float}[kind]
            declared += [(item.strip(" *\n"), type_) for item in names.split(",")]
        assert declared == list(structures.pop(name)._fields_)
    assert not structures
