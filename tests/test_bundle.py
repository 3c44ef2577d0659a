"""Bundles: what is written is read back; equal programs give equal bytes; nothing is left half-written."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from bundles import small_bundle, small_graph, small_program

from sparsec import __version__
from sparsec.bundle import (
    BundleMeta,
    InputSample,
    SelfCheck,
    content_digest,
    make_selfcheck,
    read_bundle,
    sample_inputs,
    write_bundle,
)
from sparsec.bundle.json_text import compact
from sparsec.bundle.selfcheck import to_json
from sparsec.encodings import LEVELS, POSITIONS, VALUES, StoredTensor
from sparsec.errors import InputError
from sparsec.ir import Graph, Input, Port, TensorType, symbol
from sparsec.lowering import lower
from sparsec.ops import evaluate_graph, make_node


def same_program(a, b):
    assert (a.inputs, a.outputs, a.nodes, a.name) == (b.inputs, b.outputs, b.nodes, b.name)
    assert list(a.tensors) == list(b.tensors)
    for path, stored in a.tensors.items():
        other = b.tensors[path]
        for field in ("shape", "dtype", "rows", "positions", "values"):
            assert getattr(stored, field) == getattr(other, field)
        assert list(stored.arrays) == list(other.arrays)
        for name, part in stored.arrays.items():
            assert part.dtype == other.arrays[name].dtype
            assert part.tobytes() == other.arrays[name].tobytes()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("values", VALUES)
def test_round_trip(tmp_path, level, positions, values):
    program = small_program(positions, values)
    meta = BundleMeta(
        source_sha256="0f" * 32, options={"a": [1, None, "x"]}, report={"n": 1.5}, selfcheck=make_selfcheck(small_graph())
    )
    path = tmp_path / "model.npz"
    size = write_bundle(path, program, level=level, meta=meta)
    assert path.stat().st_size == size
    expected = replace(meta, level=level, sparsec_version=__version__)
    for source, mmap in ((path, False), (str(path), False), (path.read_bytes(), False), (path, True)):
        bundle = read_bundle(source, mmap=mmap)
        same_program(bundle.program, program)
        assert bundle.meta == expected
    with path.open("rb") as file:
        same_program(read_bundle(file).program, program)


@pytest.mark.parametrize("level", LEVELS)
def test_lowered_models_round_trip_at_sizes_beyond_one_block(tmp_path, level):
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((1500, 1024)).astype(np.float32)
    kernel[:, rng.random(1024) < 0.5] = 0
    dense = rng.standard_normal((1024, 300)).astype(np.float32)
    nodes = (make_node("dense", "a", ["x", "k"], ["a"]), make_node("dense", "b", ["a", "d"], ["b"]))
    x = Input("x", TensorType("float32", (symbol("N"), 1500)))
    program = lower(Graph((x,), (Port("y", "b"),), nodes, {"k": kernel, "d": dense}), level)
    path = tmp_path / "model.npz"
    write_bundle(path, program, level=level)
    for mmap in (False, True):
        same_program(read_bundle(path, mmap=mmap).program, program)


@pytest.mark.parametrize("level", LEVELS)
def test_numpy_opens_it_without_pickle(tmp_path, level):
    path = tmp_path / "model.npz"
    path.write_bytes(small_bundle(level))
    with np.load(path, allow_pickle=False) as arrays:
        assert json.loads(arrays["manifest.json"])["format"] == "sparsec-bundle"
        assert all(arrays[name].ndim == 1 for name in arrays.files if name != "manifest.json")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_stored_parts_begin_on_multiples_of_64_bytes():
    data = small_bundle("stored")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        for info in archive.infolist():
            if info.filename == "manifest.json":
                continue
            assert info.compress_type == zipfile.ZIP_STORED
            name_length, extra_length = np.frombuffer(data, "<u2", 2, info.header_offset + 26)
            start = info.header_offset + 30 + int(name_length) + int(extra_length)
            assert data[start : start + 6] == b"\x93NUMPY"
            assert start % 64 == 0
    for tensor in manifest["tensors"]:
        for member, offset, _ in tensor["parts"].values():
            assert offset * np.dtype(member.split(".")[0]).itemsize % 64 == 0


def test_mapped_arrays_are_aligned_and_read_only(tmp_path):
    path = tmp_path / "model.npz"
    path.write_bytes(small_bundle("stored"))
    for stored in read_bundle(path, mmap=True).program.tensors.values():
        for part in stored.arrays.values():
            assert not part.flags.writeable or not part.size
            assert part.ctypes.data % 64 == 0 or not part.size


def test_arrays_that_were_read_cannot_be_changed():
    program = read_bundle(small_bundle("plain")).program
    with pytest.raises(ValueError, match="read-only"):
        program.tensors["hidden/bias"].arrays["values"][0] = 1


@pytest.mark.parametrize("level", LEVELS)
def test_same_program_same_bytes(level):
    assert small_bundle(level) == small_bundle(level)


def test_bytes_tell_nothing_of_time_path_or_host(tmp_path):
    path = tmp_path / "a-telling-name.npz"
    write_bundle(path, small_program())
    data = path.read_bytes()
    for told in ("a-telling-name", str(tmp_path), os.uname().nodename, str(os.getpid()).zfill(6)):
        assert told.encode() not in data
    with zipfile.ZipFile(path) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_digest_is_of_the_content_and_not_of_the_encoding():
    digests = {content_digest(small_program(p, v)) for p in POSITIONS for v in VALUES}
    digests |= {content_digest(read_bundle(small_bundle(level)).program) for level in LEVELS}
    assert len(digests) == 1
    graph = small_graph()
    changed = graph.weights["hidden/kernel"].copy()
    changed[3, 4] = 0.0
    other = lower(replace(graph, weights={**graph.weights, "hidden/kernel": changed}))
    assert content_digest(other) not in digests, "-0.0 and 0.0 are different contents"
    assert content_digest(replace(small_program(), name="other")) not in digests


def test_overheads_are_small():
    data = small_bundle("plain")
    arrays = sum(stored.nbytes for stored in small_program().tensors.values())
    assert len(data) < arrays + 3500


def pruned_mlp(sizes, sparsity):
    """Dense layers with Gaussian kernels; in all but the last the smallest magnitudes are zero."""
    rng = np.random.default_rng(0)
    weights, nodes = {}, []
    for index, shape in enumerate(itertools.pairwise(sizes)):
        kernel = rng.standard_normal(shape).astype(np.float32)
        if index < len(sizes) - 2:
            ranked = np.argsort(np.abs(kernel), axis=None, kind="stable")
            kernel.reshape(-1)[ranked[: int(sparsity * kernel.size)]] = 0
        weights[f"dense_{index}/kernel"] = kernel
        weights[f"dense_{index}/bias"] = rng.standard_normal(shape[1]).astype(np.float32)
        inputs = [nodes[-1].output if nodes else "x", f"dense_{index}/kernel", f"dense_{index}/bias"]
        nodes.append(make_node("dense", f"dense_{index}", inputs, [f"dense_{index}"], layer=f"dense_{index}"))
    x = Input("x", TensorType("float32", (symbol("N"), sizes[0])))
    return Graph((x,), (Port("y", nodes[-1].output),), tuple(nodes), weights)


@pytest.mark.parametrize(("level", "ratio"), [("stored", 7.4), ("plain", 10.0)])
def test_whole_files_reach_the_ratio(level, ratio):
    graph = pruned_mlp((784, 1000, 1000, 500, 200, 10), 0.9)
    file = io.BytesIO()
    meta = BundleMeta(source_sha256="0" * 64, selfcheck=make_selfcheck(graph))
    size = write_bundle(file, lower(graph, level), level=level, meta=meta)
    assert size == len(file.getvalue())
    assert sum(array.nbytes for array in graph.weights.values()) / size > ratio


# --- writing that fails -----------------------------------------------------------------------------------------------


def test_unwritable_targets(tmp_path):
    for target in (tmp_path, tmp_path / "missing" / "model.npz", "/proc/model.npz"):
        with pytest.raises(InputError):
            write_bundle(target, small_program())
    with pytest.raises(InputError, match="level"):
        write_bundle(tmp_path / "model.npz", small_program(), level="nonsense")
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_old_file_and_no_new_one(tmp_path):
    path = tmp_path / "model.npz"
    path.write_bytes(b"old")
    program = small_program()
    kernel = program.tensors["hidden/kernel"]
    broken = replace(kernel, arrays={**kernel.arrays, "pointers": kernel.arrays["pointers"][::-1].copy()})
    for bad, meta in (
        (replace(program, tensors={**program.tensors, "hidden/kernel": broken}), BundleMeta()),
        (program, BundleMeta(report={"a": object()})),
        (program, BundleMeta(options={"a": float("nan")})),
        (program, BundleMeta(source_sha256="not a digest")),
        (replace(program, nodes=program.nodes[:-1]), BundleMeta()),
        (replace(program, name="x" * 2000), BundleMeta()),
        (replace(program, inputs=(Input("x", TensorType("float32", (symbol("N") * 2, 12))),)), BundleMeta()),
    ):
        with pytest.raises(InputError):
            write_bundle(path, bad, meta=meta)
        assert path.read_bytes() == b"old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["model.npz"]


def test_a_file_that_reads_back_differently_is_not_put_in_place(tmp_path, monkeypatch):
    def damaged(member):
        for chunk in chunks(member):
            yield bytes(len(chunk)) if len(chunk) == 80 else chunk

    from sparsec.bundle import writer

    chunks = writer._chunks
    monkeypatch.setattr(writer, "_chunks", damaged)
    with pytest.raises(InputError, match="reads back differently"):
        write_bundle(tmp_path / "model.npz", small_program(), level="stored")
    assert not list(tmp_path.iterdir())


def test_new_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_bundle(tmp_path / "model.npz", small_program())
    assert (tmp_path / "model.npz").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_reading_what_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"missing\.npz cannot be read: No such file"):
        read_bundle(tmp_path / "missing.npz")
    with pytest.raises(InputError, match="Is a directory"):
        read_bundle(tmp_path)
    with pytest.raises(InputError, match="by its path"):
        read_bundle(small_bundle(), mmap=True)


def test_reading_imports_only_numpy():
    code = (
        "import sys; from sparsec.bundle import read_bundle; read_bundle(sys.stdin.buffer); "
        "heavy = {'scipy', 'h5py', 'onnx', 'onnxruntime', 'jsonschema', 'tensorflow', 'keras', 'typer', 'rich'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=small_bundle(), capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"


# --- the self-check ---------------------------------------------------------------------------------------------------


def test_generator_matches_its_definition():
    def splitmix64(seed, count):
        mask = 2**64 - 1
        for j in range(count):
            z = (seed + (j + 1) * 0x9E3779B97F4A7C15) & mask
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
            yield z ^ (z >> 31)

    numbers = list(splitmix64(7, 12))
    samples = [
        InputSample("float32", (2, 3), -1.0, 1.0),
        InputSample("int32", (2,), -5, 5),
        InputSample("bool", (1, 2), 0, 2),
        InputSample("float16", (2,), 0.0, 255.0),
    ]
    x, ids, mask, half = sample_inputs(samples, 7)
    assert x.dtype == np.float32
    assert x.reshape(-1).tolist() == [2.0 * ((u >> 40) / 2**24) - 1.0 for u in numbers[:6]], "exact in float32"
    assert ids.tolist() == [u % 10 - 5 for u in numbers[6:8]]
    assert ids.dtype == np.int32
    assert mask.tolist() == [[u % 2 == 1 for u in numbers[8:10]]]
    assert half.tolist() == [float(np.float16(255.0 * ((u >> 40) / 2**24))) for u in numbers[10:12]]


def test_first_numbers_are_those_that_the_page_states():
    (x,) = sample_inputs([InputSample("float64", (3,), 0.0, 2.0**24)], 1)
    assert x.tolist() == [u >> 40 for u in (10451216379200822465, 13757245211066428519, 17911839290282890590)]


def test_selfcheck_accepts_the_model_and_refuses_another():
    graph = small_graph()
    selfcheck = make_selfcheck(graph)
    assert selfcheck is not None
    assert len(compact(to_json(selfcheck))) <= 512
    inputs = selfcheck.make_inputs()
    assert [(x.dtype.name, x.shape) for x in inputs] == [("float32", (1, 12))]
    outputs = list(evaluate_graph(graph, inputs))
    result = selfcheck.compare(outputs)
    assert result.passed
    assert result.worst <= 1e-5
    for index, change in ((0, 1.002), (4, 1.002), (0, np.nan)):
        wrong = list(outputs)
        wrong[index] = wrong[index] * np.float64(change)
        result = selfcheck.compare(wrong)
        assert not result.passed
        assert result.output == index
    assert not selfcheck.compare([outputs[0][:, :2], *outputs[1:]]).passed
    assert not selfcheck.compare(outputs[:1]).passed


def wide_graph(width, outputs=1):
    x = Input("x", TensorType("float32", (symbol("N"), width)))
    nodes = tuple(make_node("exp", f"e{i}", ["x"], [f"e{i}"]) for i in range(outputs))
    return Graph((x,), tuple(Port(f"y{i}", f"e{i}") for i in range(outputs)), nodes, {})


def test_selfcheck_spreads_over_large_outputs_and_drops_what_does_not_fit():
    selfcheck = make_selfcheck(wide_graph(10_000))
    (expected,) = selfcheck.outputs
    assert 30 < len(expected.values) < 128
    (y,) = evaluate_graph(wide_graph(10_000), selfcheck.make_inputs(), dtype="float64")
    picked = [y[0, i * 10_000 // len(expected.values)] for i in range(len(expected.values))]
    assert np.allclose(expected.values, picked, rtol=5e-4)
    assert selfcheck.compare([y]).passed
    y[0, 10_000 // len(expected.values)] += 0.01
    assert not selfcheck.compare([y]).passed
    many = make_selfcheck(wide_graph(3, outputs=40))
    assert 1 <= len(many.outputs) < 40
    assert len(compact(to_json(many))) <= 512


def test_selfcheck_follows_ranges():
    selfcheck = make_selfcheck(wide_graph(50), ranges={"x": (0.0, 3.0)}, seed=5)
    (x,) = selfcheck.make_inputs()
    assert 0 <= x.min() < 0.5 < 2.5 < x.max() < 3
    assert not np.array_equal(x, replace(selfcheck, seed=6).make_inputs()[0])
    for ranges in ({"x": (1.0, 1.0)}, {"z": (0.0, 1.0)}, {"x": (-1e308, 1e308)}):
        with pytest.raises(InputError):
            make_selfcheck(wide_graph(50), ranges=ranges)


def test_selfcheck_binds_free_sizes_where_the_graph_accepts_them():
    def graph(size):
        x = Input("x", TensorType("float32", (symbol("N"), symbol("T"), 3)))
        nodes = (make_node("reshape", "r", ["x"], ["r"], shape=(0, size)),)
        return Graph((x,), (Port("y", "r"),), nodes, {})

    assert make_selfcheck(graph(-1)).inputs[0].shape == (1, 64, 3)
    assert make_selfcheck(graph(12)) is None


def test_no_selfcheck_of_outputs_that_are_not_finite():
    x = Input("x", TensorType("float32", (symbol("N"), 3)))
    graph = Graph((x,), (Port("y", "s"),), (make_node("sqrt", "s", ["x"], ["s"]),), {})
    assert make_selfcheck(graph, ranges={"x": (-2.0, -1.0)}) is None
    assert make_selfcheck(graph, ranges={"x": (1.0, 2.0)}) is not None


def test_an_output_of_zeros_is_compared_exactly():
    x = Input("x", TensorType("float32", (symbol("N"), 3)))
    graph = Graph((x,), (Port("y", "r"),), (make_node("relu", "r", ["x"], ["r"], max_value=0.0),), {})
    selfcheck = make_selfcheck(graph)
    assert selfcheck.compare([np.zeros((1, 3))]).passed
    assert not selfcheck.compare([np.full((1, 3), 1e-9)]).passed


def test_a_bundle_runs_its_own_check():
    bundle = read_bundle(small_bundle("plain", positions="bitmap", values="planes"))
    assert isinstance(bundle.meta.selfcheck, SelfCheck)
    outputs = evaluate_graph(bundle.program.graph(), bundle.meta.selfcheck.make_inputs())
    assert bundle.meta.selfcheck.compare(outputs).passed


def test_digest_of_a_tensor_is_over_its_decoded_bytes():
    from sparsec.bundle.digest import tensor_digest

    stored = small_program("bitmap", "planes").tensors["hidden/kernel"]
    assert isinstance(stored, StoredTensor)
    assert tensor_digest(stored) == hashlib.sha256(small_graph().weights["hidden/kernel"].tobytes()).hexdigest()
