"""The native library: products, convolutions and changes of layout with every instruction set, packing, and finding it."""

from __future__ import annotations

import ctypes
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from kernel_steps import Memory, post, run_step

from sparsec.encodings.codec import Csr
from sparsec.errors import InputError
from sparsec.ir import BATCH, Graph, Input, Port, TensorType, symbol
from sparsec.kernels import library
from sparsec.kernels.filters import FilterGroups
from sparsec.kernels.library import Window
from sparsec.kernels.streams import Blocks, Places, Stream
from sparsec.lowering import lower
from sparsec.ops import OPS, make_node
from sparsec.ops.windows import axis_pads
from sparsec.runtime import Model

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "sparsec" / "kernels" / "native"
needs_library = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")
many = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
threads = st.sampled_from([1, 3])
DENSITIES = st.sampled_from([0.0, 0.1, 0.4, 1.0])


def csr_of(matrix):
    row, column = np.nonzero(matrix)
    pointers = np.r_[0, np.cumsum(np.bincount(row, minlength=len(matrix)))]
    return Csr(pointers.astype(np.int32), column.astype(np.int32), matrix[row, column])


def sparse(rng, shape, density):
    return np.where(rng.random(shape) < density, rng.standard_normal(shape), 0).astype(np.float32)


def structures(pieces):
    """The C structures of packed matrices, which have to be kept as long as these."""
    first = pieces[0].structure
    return (type(first) * len(pieces))(*(piece.structure for piece in pieces))


@st.composite
def packed(draw, matrix, channels, taps, places_of=lambda height: None):
    """A matrix as some pieces, in blocks and groups of rows of any size."""
    block = draw(st.sampled_from([1, 3, 8, 1000])) * taps
    height, count = draw(st.sampled_from([1, 4])), draw(st.sampled_from([1, 1, 3]))
    return Stream.pieces(csr_of(matrix), channels, taps, Blocks(1, block, block), height, count, places_of(height))


def places_of(window, attrs, height):
    """Where ``windows`` has what the columns of a matrix meet."""
    return Places(window, attrs["strides"][0], attrs["dilations"][0], library.status().library.isa.lines[height > 1])


@st.composite
def epilogues(draw, rng, shape):
    """What follows a kernel: keywords of ``run_step``, and a function that does the same in float64."""
    memory, posts = Memory(), []
    bias = rng.standard_normal(shape[-1]).astype(np.float32) if draw(st.booleans()) else None
    residual = rng.standard_normal(shape).astype(np.float32) if draw(st.booleans()) else None
    low, high = draw(st.sampled_from([(-np.inf, np.inf), (0.0, np.inf), (-1.0, 2.0)]))
    gate = rng.standard_normal((shape[0], 1, 1, shape[-1])).astype(np.float32) if draw(st.booleans()) else None
    other = rng.standard_normal(shape).astype(np.float32) if draw(st.booleans()) else None
    slope = rng.standard_normal(shape[-1]).astype(np.float32) if draw(st.booleans()) else None
    if slope is not None:
        posts.append(post(memory, "prelu", "channel", channel=slope))
    if other is not None:
        posts.append(post(memory, "subtract_from", "value", value=other))
    if gate is not None:
        posts.append(post(memory, "multiply", "value" if shape[1:3] == (1, 1) else "gate", value=gate))

    def reference(y):
        y = y + (0 if bias is None else bias) + (0 if residual is None else residual)
        y = np.clip(y, low, high)
        y = y if slope is None else np.where(y < 0, y * slope, y)
        y = y if other is None else other - y
        return y if gate is None else y * gate

    keywords = {"memory": memory, "posts": posts, "bias": bias, "residual": residual, "low": low, "high": high}
    return keywords, reference, 1 + (0 if gate is None else np.abs(gate))


def close(y, expected, scale):
    assert y.shape == expected.shape
    assert np.all(np.abs(y - expected) <= 1e-5 * scale)


# --- products --------------------------------------------------------------------------------------------------------------


@needs_library
@many
@given(data=st.data())
def test_products(isa, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    samples, positions = data.draw(
        st.sampled_from([(1, 2), (1, 7), (1, 30), (1, 49), (2, 49), (1, 196), (1, 300), (1, 305), (3, 400)])
    )
    channels, rows = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    matrix = sparse(rng, (rows, channels), data.draw(DENSITIES))
    x = rng.standard_normal((samples, 1, positions, channels)).astype(np.float32)
    shape = (samples, 1, positions, rows)
    keywords, reference, scale = data.draw(epilogues(rng, shape))
    pieces = data.draw(packed(matrix, channels, 1))
    options = data.draw(st.sampled_from([(0, 0), (4, 1), (1, 0)]))
    y = run_step(
        *("product", x, shape),
        weights=structures(pieces),
        pieces=len(pieces),
        options=options,
        threads=data.draw(threads),
        **keywords,
    )
    wide = x.astype(np.float64), matrix.T.astype(np.float64)
    close(y, reference(wide[0] @ wide[1]), scale * (8 + np.abs(wide[0]) @ np.abs(wide[1])))


@st.composite
def convolutions(draw):
    """Attributes of a convolution, its window, and the size of its input."""
    window = draw(st.sampled_from([(1, 1), (3, 3), (1, 7), (7, 1), (5, 5), (2, 4)]))
    strides = draw(st.sampled_from([(1, 1), (2, 2), (1, 2), (3, 3)]))
    dilations = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 3)]))
    attrs = {"strides": strides, "dilations": dilations, "padding": draw(st.sampled_from(["same", "explicit"]))}
    attrs["pads"] = tuple(draw(st.integers(0, 2)) for _ in range(4)) if attrs["padding"] == "explicit" else ()
    span = st.one_of(st.integers(1, 18), st.integers(19, 70))
    return attrs, window, tuple((k - 1) * d + draw(span) for k, d in zip(window, dilations, strict=True))


@needs_library
@pytest.mark.parametrize("kernel", ["windows", "unrolled", "direct", "sliding"])
@many
@given(data=st.data())
def test_convolutions(kernel, isa, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    attrs, window, sizes = data.draw(convolutions())
    if kernel == "sliding":
        attrs["strides"] = (1, 1)
    samples, channels, rows = data.draw(st.sampled_from([1, 1, 2])), data.draw(st.integers(1, 9)), data.draw(st.integers(1, 20))
    weights = sparse(rng, (*window, channels, rows), data.draw(DENSITIES))
    x = rng.standard_normal((samples, *sizes, channels)).astype(np.float32)
    conv, attrs = OPS["conv"], OPS["conv"].complete({**attrs, "groups": 1})
    (expected,) = conv.evaluate(attrs, [x.astype(np.float64), weights.astype(np.float64)])
    (largest,) = conv.evaluate(attrs, [np.abs(x).astype(np.float64), np.abs(weights).astype(np.float64)])
    # Rows of one position lie side by side, where whole vectors cannot be stored.
    assume(kernel != "unrolled" or expected.shape[:-1] != (1, 1, 1))
    keywords, reference, scale = data.draw(epilogues(rng, expected.shape))
    matrix, taps = weights.reshape(-1, rows).T, window[0] * window[1]
    if kernel == "direct":
        most = data.draw(st.sampled_from([2, 4, library.status().library.isa.filters]))
        pieces = [FilterGroups.pack(csr_of(matrix), channels, taps, most)]
    else:
        places = partial(places_of, window, attrs) if kernel == "windows" else lambda height: None
        pieces = data.draw(packed(matrix, channels, taps, places))
    (top, _), (left, _) = axis_pads(attrs, sizes, window)
    y = run_step(
        *(kernel, x, expected.shape),
        weights=structures(pieces),
        pieces=len(pieces),
        options=data.draw(
            st.tuples(*[st.integers(0, 17)] * 5) if kernel == "windows" else st.sampled_from([(0,), (4,), (16,)])
        ),
        window=Window(*window, *attrs["strides"], *attrs["dilations"], top, left),
        threads=data.draw(threads),
        **keywords,
    )
    close(y, reference(expected), scale * (8 + largest))


@needs_library
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kernel", ["product", "windows", "unrolled"])
def test_what_is_not_finite_reaches_what_it_is_multiplied_with(kernel, bad, isa):
    rng = np.random.default_rng(3)
    matrix = sparse(rng, (8, 8), 0.5)
    x = rng.standard_normal((1, 3, 6, 8)).astype(np.float32)
    x[0, 1, 2, 3] = bad
    places = places_of((1, 1), {"strides": (1, 1), "dilations": (1, 1)}, 1) if kernel == "windows" else None
    (piece,) = pieces = Stream.pieces(csr_of(matrix), 8, 1, Blocks(1, 4, 4), 1, 1, places)
    y = run_step(kernel, x, x.shape, weights=structures(pieces), low=-3.0, high=3.0)
    reached = matrix[:, 3] != 0
    assert np.all(np.isfinite(np.delete(y.reshape(-1, 8), 8, axis=0)))
    found = y[0, 1, 2]
    assert np.all(np.isfinite(found[~reached]))
    assert piece.nbytes > 0
    if np.isnan(bad):
        assert np.all(np.isnan(found[reached]))
    else:
        np.testing.assert_array_equal(np.abs(found[reached]), 3.0)


# --- layout ----------------------------------------------------------------------------------------------------------------


@needs_library
@pytest.mark.parametrize("shape", [(1, 1, 1, 5), (3, 1, 1, 33), (1, 5, 7, 1), (2, 5, 7, 19), (1, 16, 16, 4)])
@pytest.mark.parametrize("count", [1, 3])
def test_values_are_padded_picked_and_flattened(shape, count, isa):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    samples, height, width, channels = shape
    window = Window(1, 1, 1, 1, 1, 1, 2, 1)
    y = run_step("map", x, (samples, height + 3, width + 5, channels), window=window, low=-0.5, threads=count)
    np.testing.assert_array_equal(y, np.maximum(np.pad(x, ((0, 0), (2, 1), (1, 4), (0, 0))), -0.5))
    for down, right in ((2, 2), (1, 3)):
        picked = x[:, ::down, ::right]
        y = run_step("map", x, picked.shape, window=Window(1, 1, down, right, 1, 1, 0, 0), threads=count)
        np.testing.assert_array_equal(y, picked)
    flat = x.reshape(samples, 1, 1, -1)
    np.testing.assert_array_equal(run_step("flatten", x, flat.shape, threads=count), flat)
    np.testing.assert_array_equal(run_step("unflatten", flat, shape, threads=count), x)


# --- packing ---------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 50),
    channels=st.integers(1, 300),
    taps=st.sampled_from([1, 2, 9]),
    density=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    height=st.sampled_from([1, 4]),
    count=st.sampled_from([1, 2, 5]),
    seed=st.integers(0, 1000),
)
def test_streams_keep_every_entry(rows, channels, taps, density, height, count, seed):
    matrix = sparse(np.random.default_rng(seed), (rows, taps * channels), density)
    csr = csr_of(matrix)
    for pieces in (
        Stream.pieces(csr, channels, taps, Blocks(13, 96, 256), height, count),
        Stream.pieces(csr, channels, taps, Blocks(13, 96, 256), height, count, Places((taps, 1), 2, 3, 8)),
        [FilterGroups.pack(csr, channels, taps, 2 * count)],
    ):
        assert 1 <= len(pieces) <= count
        assert sum(piece.rows for piece in pieces) == rows
        found = [piece.csr() for piece in pieces]
        np.testing.assert_array_equal(np.concatenate([part.values for part in found]), csr.values)
        np.testing.assert_array_equal(np.concatenate([part.indices for part in found]), csr.indices)
        np.testing.assert_array_equal(np.concatenate([np.diff(part.pointers) for part in found]), np.diff(csr.pointers))


def test_a_stream_takes_six_bytes_an_entry():
    matrix = sparse(np.random.default_rng(7), (512, 4608), 0.1)
    assert Stream.pack(csr_of(matrix), 512, 9).nbytes < 7 * np.count_nonzero(matrix)


# --- the library -----------------------------------------------------------------------------------------------------------


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


def wide_dense():
    """One dense layer of which a single weight is not zero."""
    kernel = np.zeros((500, 500), np.float32)
    kernel[3, 4] = 1
    x = Input("x", TensorType("float32", (symbol(BATCH), 500)))
    return Graph((x,), (Port("y", "d"),), (make_node("dense", "d", ["x", "k"], ["d"]),), {"k": kernel})


def test_the_native_library_can_be_turned_off(monkeypatch):
    monkeypatch.setenv("SPARSEC_ISA", "none")
    assert (library.status().isa, library.status().library) == ("none", None)
    model = Model(lower(wide_dense()))
    assert model(np.ones((64, 500))).sum() == 64
    assert [step.kernel for step in model.plan(64)] == ["dense/csr"]


@pytest.mark.parametrize("content", [None, b"no library"])
def test_without_the_library_numpy_and_scipy_run_and_it_is_said(content, tmp_path, monkeypatch):
    if content is not None:
        (tmp_path / "libsparsec_native.so").write_bytes(content)
    monkeypatch.setenv("SPARSEC_NATIVE", str(tmp_path))
    monkeypatch.delenv("SPARSEC_ISA", raising=False)
    assert library.status() == library.Status(None, built=False)
    model = Model(lower(wide_dense()))
    with pytest.warns(RuntimeWarning, match="sparsec was installed without its native library, for want of a C compiler"):
        y = model(np.ones((64, 500)))
    assert y.sum() == 64
    assert "not installed, and would make it faster: native library" in model.summary(64)


MIRRORED = ("Value", "Window", "Matrix", "Filters", "Slices", "Copy", "Post", "Step", "Plan", "Call")


def test_python_mirrors_the_header():
    header = (SOURCES / "kernels.h").read_text()
    assert f"#define SPARSEC_ABI {library.ABI}\n" in header
    for macro, names in (("KERNELS", library.KERNELS), ("FUNCTIONS", library.FUNCTIONS)):
        table = re.search(rf"#define SPARSEC_{macro}\(X\) \\\n((?:    X\(.*\).*\n)+)", header).group(1)
        assert tuple(re.findall(r"X\((\w+)", table)) == names
    plain = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    kinds = {"int32_t": ctypes.c_int32, "int64_t": ctypes.c_int64, "float": ctypes.c_float}
    kinds |= {f"sparsec_{name.lower()}": getattr(library, name) for name in MIRRORED}
    declared = {name: body for body, name in re.findall(r"typedef struct \{(.*?)\} sparsec_(\w+);", plain, re.DOTALL)}
    for name in MIRRORED:
        fields = []
        for constant, kind, names in re.findall(r"(const )?(\w+) ([^;]+);", declared[name.lower()]):
            for item in names.split(","):
                label, _, size = item.rpartition("*")[2].strip().partition("[")
                type_ = ctypes.c_void_p if constant or "*" in item else kinds[kind]
                fields.append((label, type_ * int(size[:-1]) if size else type_))
        assert fields == list(getattr(library, name)._fields_), name
