"""Compiling: what the result says and holds, what is checked on the way, and what it costs."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from edited_files import edited_weights, with_open_sizes

import sparsec
from sparsec import compiler
from sparsec.bundle import read_bundle
from sparsec.frontends import read
from sparsec.ops import evaluate_graph
from sparsec.passes import Decision
from sparsec.pruning import prune_file
from sparsec.record import describe

FROZEN = Path(__file__).parent / "frozen" / "keras-3.15.1"
READABLE = ("axes", "lenet", "mlp", "mobile", "nested", "norm", "ops", "resnet", "series", "volume")


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """A sample with half of its units zeroed."""
    path = tmp_path_factory.mktemp("pruned") / "lenet.keras"
    prune_file(FROZEN / "lenet.keras", path, method="unit", sparsity=0.5)
    return path


@pytest.mark.parametrize("name", READABLE)
def test_every_sample_compiles_and_computes_what_keras_computed(name, tmp_path):
    result = sparsec.compile(FROZEN / f"{name}.keras")
    facts = result.save(tmp_path / "model.npz")
    assert facts["bytes"] == (tmp_path / "model.npz").stat().st_size
    model = sparsec.load(tmp_path / "model.npz", check=True)
    graph = read(FROZEN / f"{name}.keras").graph
    rng = np.random.default_rng(1)
    inputs = [rng.uniform(-1, 1, (3, *i.type.shape[1:])).astype(np.float32) for i in graph.inputs]
    outputs = model(inputs)
    for expected, found in zip(
        evaluate_graph(graph, inputs), outputs if isinstance(outputs, tuple) else (outputs,), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_the_report_says_what_happened(pruned):
    result = sparsec.compile(pruned)
    report = json.loads(json.dumps(result.report))
    first = report["layers"][0]
    assert (first["before"]["units"], first["after"]["units"]) == (4, 2)
    assert first["notes"][0].startswith("shrunk 4 -> 2")
    assert report["parameters"]["nonzero"] <= report["parameters"]["after"] < report["parameters"]["before"]
    assert report["bytes"]["dense"] == 4 * report["parameters"]["before"]
    text = result.summary()
    assert "4 -> 2" in text
    assert "verified in sparsec's runtime" in text
    assert repr(result).startswith(f"<Compiled {pruned}: 250 parameters, ")


@pytest.mark.parametrize(
    ("decision", "text"),
    [
        (Decision("shrink", "a", "shrunk", "dead channels removed", 8, 5), "shrunk 8 -> 5: dead channels removed"),
        (Decision("shrink", "a", "refused", "1 dead channel kept: why", 8, 5), "not shrunk further: 1 dead channel kept: why"),
        (Decision("shrink", "a", "refused", "grouped convolution", 8, 8), "not shrunk: grouped convolution"),
        (Decision("fold", "a", "refused", "not before: why"), "not folded: not before: why"),
        (Decision("fold", "a", "folded", "into b before it"), "folded: into b before it"),
    ],
)
def test_decisions_in_words(decision, text):
    assert describe(decision.to_json()) == text


def test_a_layer_that_is_folded_away_is_reported(pruned):
    result = sparsec.compile(FROZEN / "resnet.keras")
    norms = [layer for layer in result.report["layers"] if layer["operators"] == ["batch_norm"]]
    assert norms
    assert all(layer["after"] is None for layer in norms)
    assert all(layer["notes"][0].startswith("folded: ") for layer in norms)


def test_the_bundle_carries_where_it_came_from(pruned, tmp_path):
    sparsec.compile(pruned, encoding="csr", level="stored").save(tmp_path / "model.npz")
    meta = read_bundle(tmp_path / "model.npz").meta
    assert meta.source_sha256 == read(pruned).sha256
    assert dict(meta.options) == {"shrink": True, "round_to": "auto", "encoding": "csr", "input_shape": None}
    assert meta.level == "stored"
    assert meta.selfcheck is not None
    assert any(item["outcome"] == "shrunk" for item in meta.report["decisions"])


def test_the_same_input_gives_the_same_bytes(pruned, tmp_path):
    for name in ("a.npz", "b.npz", "a.onnx", "b.onnx"):
        sparsec.compile(pruned).save(tmp_path / name)
    for suffix in ("npz", "onnx"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_the_graph_can_be_had_again(pruned):
    result = sparsec.compile(pruned)
    graph = result.graph
    x = np.random.default_rng(0).uniform(-1, 1, (2, 12, 12, 1)).astype(np.float32)
    np.testing.assert_allclose(evaluate_graph(graph, [x])[0], evaluate_graph(read(pruned).graph, [x])[0], rtol=1e-4, atol=1e-6)


def test_a_wrong_pass_is_caught_before_anything_is_written(pruned, monkeypatch):
    honest = compiler.optimise

    def wrong(graph, **options):
        result = honest(graph, **options)
        weights = {path: array * np.float32(1.01) for path, array in result.graph.weights.items()}
        return replace(result, graph=result.graph.with_nodes(result.graph.nodes, weights))

    monkeypatch.setattr(compiler, "optimise", wrong)
    with pytest.raises(sparsec.VerificationError, match=r"so nothing is written: output 'dense_1'.* defect of sparsec"):
        sparsec.compile(pruned)
    assert sparsec.compile(pruned, verify=False).comparisons == ()


def test_a_model_that_amplifies_rounding_is_told_from_a_defect(tmp_path):
    def amplify(variable):
        # Two units are s + 1e8 and 2 s + 1e8, and the next layer takes their difference: float32 loses all of it.
        value = np.zeros(variable.shape, np.float32)
        if variable.name.endswith("/dense/vars/0"):
            value[:, :2] = 1, 2
        elif variable.name.endswith("/dense/vars/1"):
            value[:2] = 1e8
        elif variable.name.endswith("/dense_1/vars/0"):
            value[0], value[1] = -1, 1
        else:
            value[...] = variable[...]
        variable[...] = value

    source = edited_weights(FROZEN / "mlp.keras", tmp_path / "model.keras", amplify)
    with pytest.raises(sparsec.VerificationError, match=r"rounding alone does as much to the original") as caught:
        sparsec.compile(source)
    assert "--no-verify" in str(caught.value)
    assert "defect" not in str(caught.value)
    assert sparsec.compile(source, verify=False).comparisons == ()


def test_an_original_that_is_not_finite_cannot_be_verified(monkeypatch, pruned):
    monkeypatch.setattr(compiler, "evaluate_graph", lambda *_, **__: (np.full((1, 3), np.nan),))
    with pytest.raises(sparsec.VerificationError, match="not finite"):
        sparsec.compile(pruned)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"encoding": "zip"}, "no encoding 'zip'"),
        ({"level": "max"}, "no level 'max'"),
        ({"opset": 3}, "operator set 3"),
        ({"onnx_weights": "some"}, "'some'"),
        ({"onnx_layout": "chwn"}, "'chwn'"),
        ({"input_shape": [[12, 12]]}, "does not fit"),
        ({"input_shape": [[12, 12, 0]]}, "does not fit"),
        ({"input_shape": []}, "a shape for each"),
        ({"input_shape": (12, 12, 1)}, r"\(12, 12, 1\) is no list of shapes; .* such as"),
        ({"input_shape": "12,12,1"}, "no list of shapes"),
        ({"input_shape": [["12", 12, 1]]}, "no list of shapes"),
        ({"input_shape": [[12.0, 12, 1]]}, "no list of shapes"),
    ],
)
def test_options_out_of_range(pruned, options, said):
    with pytest.raises(sparsec.InputError, match=said):
        sparsec.compile(pruned, **options)


def test_open_sizes_stay_open(tmp_path):
    source = with_open_sizes(FROZEN / "volume.keras", tmp_path / "open.keras", [None, None, None, 2])
    sparsec.compile(source).save(tmp_path / "open.npz")
    model = sparsec.load(tmp_path / "open.npz", check=True)
    assert [isinstance(size, str) for size in model.inputs[0].shape] == [True, True, True, True, False]
    for shape in ((2, 6, 8, 4, 2), (1, 7, 9, 5, 2)):
        x = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
        np.testing.assert_allclose(model(x), evaluate_graph(read(source).graph, [x])[0], rtol=1e-4, atol=1e-6)


def test_an_input_shape_binds_open_sizes(tmp_path):
    source = with_open_sizes(FROZEN / "volume.keras", tmp_path / "open.keras", [None, None, None, 2])
    sparsec.compile(source, input_shape=[(np.int64(6), 8, 4, 2)]).save(tmp_path / "bound.npz")
    model = sparsec.load(tmp_path / "bound.npz")
    assert model.inputs[0].shape == ("N", 6, 8, 4, 2)
    assert read_bundle(tmp_path / "bound.npz").meta.options["input_shape"] == [[6, 8, 4, 2]]


def test_a_model_that_needs_its_sizes_says_so(tmp_path):
    source = with_open_sizes(FROZEN / "lenet.keras", tmp_path / "open.keras", [None, None, 1])
    with pytest.raises(sparsec.InputError):
        sparsec.compile(source)
    assert sparsec.compile(source, input_shape=[(12, 12, 1)]).comparisons[0].passed


def test_progress_runs_forward_to_the_end(pruned):
    told = []
    sparsec.compile(pruned, progress=lambda what, done: told.append((what, done)))
    parts = [done for _, done in told]
    assert parts == sorted(parts)
    assert parts[-1] == 1.0
    assert {"reading", "verifying"} <= {what for what, _ in told}


def test_a_model_in_memory_compiles_like_its_file(pruned, tmp_path):
    keras = pytest.importorskip("keras")
    model = keras.models.load_model(pruned)
    for source, name in ((pruned, "file.npz"), (model, "memory.npz")):
        sparsec.compile(source).save(tmp_path / name)
    file, memory = (read_bundle(tmp_path / name) for name in ("file.npz", "memory.npz"))
    assert memory.meta.source_sha256 is None
    assert memory.program.nodes == file.program.nodes
    for path, array in file.program.graph().weights.items():
        np.testing.assert_array_equal(memory.program.graph().weights[path], array)


MEASURED = """
import resource, sys
bare = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from sparsec.cli import main
status = main(sys.argv[1:])
print(status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - bare)
"""


@pytest.mark.slow
def test_memory_stays_below_four_times_the_weights(tmp_path):
    """ResNet50 to both formats; Keras' own export takes about 47 times a kernel's bytes."""
    keras = pytest.importorskip("keras")
    model = keras.applications.ResNet50(weights=None, classifier_activation=None)
    model.save(tmp_path / "model.keras")
    argv = ["compile", tmp_path / "model.keras", "-o", tmp_path / "model.npz", "-o", tmp_path / "model.onnx"]
    done = subprocess.run([sys.executable, "-c", MEASURED, *argv], capture_output=True, text=True, check=True)
    status, peak = (int(number) for number in done.stdout.splitlines()[-1].split())
    assert status == 0
    assert peak * 1024 <= 4 * 4 * model.count_params()


def test_an_unfinished_zip_is_not_left_behind(pruned, tmp_path, monkeypatch):
    from sparsec.bundle import writer

    def fails(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "_write", fails)
    with pytest.raises(sparsec.InputError, match="No space left"):
        sparsec.compile(pruned).save(tmp_path / "model.npz")
    assert not list(tmp_path.iterdir())


def test_a_keras_file_is_written_back_smaller(pruned, tmp_path):
    result = sparsec.compile(pruned)
    facts = result.save(tmp_path / "model.keras")
    assert facts["format"] == "Keras"
    again = sparsec.compile(tmp_path / "model.keras")
    assert again.plan.empty
    assert again.report["parameters"]["before"] == result.report["parameters"]["after"]


def test_writing_back_needs_the_file_as_it_was_read(pruned, tmp_path):
    source = tmp_path / "source.keras"
    shutil.copyfile(pruned, source)
    result = sparsec.compile(source)
    with source.open("ab") as file:
        file.write(b"more")
    with pytest.raises(sparsec.InputError, match="has changed"):
        result.save(tmp_path / "model.keras")
    assert not (tmp_path / "model.keras").exists()


def test_save_needs_a_known_suffix(pruned, tmp_path):
    result = sparsec.compile(pruned)
    with pytest.raises(sparsec.InputError, match="stands for no format"):
        result.save(tmp_path / "model.bin")


def test_source_may_be_no_model():
    with pytest.raises(sparsec.InputError, match="not BytesIO"):
        sparsec.compile(io.BytesIO())
