"""Bad input on the command line: exit status 2, one clear line, no traceback, and nothing half-written."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundles import npy, repack, unpack
from edited_files import edited_config, edited_weights

import sparsec
from sparsec.cli import main
from sparsec.pruning import prune_file

ROOT = Path(__file__).parents[1]
FROZEN = ROOT / "tests" / "frozen" / "keras-3.15.1"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A pruned model, its bundle and ONNX file, and an input."""
    folder = tmp_path_factory.mktemp("good")
    prune_file(FROZEN / "lenet.keras", folder / "model.keras", sparsity=0.8)
    result = sparsec.compile(folder / "model.keras", encoding="csr", level="stored")
    result.save(folder / "model.npz")
    result.save(folder / "model.onnx")
    np.save(folder / "x.npy", np.zeros((2, 12, 12, 1), np.float32))
    return folder


@pytest.fixture
def refused(tmp_path, capfd):
    """Run a command that must be refused, and return the line that it prints; ``tmp_path`` stays as it was."""

    def run(*argv):
        before = _content(tmp_path)
        status = main([str(item) for item in argv])
        out, err = capfd.readouterr()
        assert status == 2, err
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        assert _content(tmp_path) == before
        return err

    return run


def _content(folder):
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}


def with_class(name):
    def edit(layers):
        layer = next(layer for layer in layers if layer["class_name"] == "Flatten")
        layer["class_name"] = name

    return edit


# --- models ------------------------------------------------------------------------------------------------------------

USES = {
    "inspect": lambda model, out: ["inspect", model],
    "prune": lambda model, out: ["prune", model, "-o", out / "out.keras", "--sparsity", "0.5"],
    "compile": lambda model, out: ["compile", model, "-o", out / "out.npz", "-o", out / "out.onnx"],
    "verify": lambda model, out: ["verify", model, out / "artefact.npz"],
    "bench": lambda model, out: ["bench", model, model, "-o", out / "out.json"],
}


@pytest.fixture(params=USES)
def use(request, good, tmp_path):
    """Every command that reads a Keras file."""
    (tmp_path / "artefact.npz").write_bytes((good / "model.npz").read_bytes())
    return lambda model: USES[request.param](model, tmp_path)


def test_missing_file(refused, use, tmp_path):
    assert "nowhere.keras" in refused(*use(tmp_path / "nowhere.keras"))


@pytest.mark.parametrize("name", ["folder.keras", "folder.npz", "folder.onnx"])
def test_a_directory_is_called_one(refused, tmp_path, name):
    (tmp_path / name).mkdir()
    assert "is a directory" in refused("inspect", tmp_path / name)


def test_text_named_keras(refused, use, tmp_path):
    model = tmp_path / "model.keras"
    model.write_text("this is no model\n" * 100)
    assert "neither a Keras archive nor an HDF5 file" in refused(*use(model))


def test_truncated_archive(refused, use, tmp_path):
    model = tmp_path / "model.keras"
    data = (FROZEN / "lenet.keras").read_bytes()
    model.write_bytes(data[: len(data) // 2])
    assert str(model) in refused(*use(model))


@pytest.mark.parametrize("command", ["inspect", "prune", "compile", "verify"])
@pytest.mark.parametrize(
    ("class_name", "said"),
    [("Mystery", "'Mystery', which sparsec does not read"), ("Lambda", "sparsec never executes")],
)
def test_layers_that_are_not_read(refused, good, tmp_path, command, class_name, said):
    model = tmp_path / "model.keras"
    edited_config(FROZEN / "lenet.keras", model, with_class(class_name))
    (tmp_path / "artefact.npz").write_bytes((good / "model.npz").read_bytes())
    line = refused(*USES[command](model, tmp_path))
    assert said in line
    assert "'flatten'" in line


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(refused, tmp_path, value):
    def spoil(dataset):
        if dataset.ndim == 4:
            dataset[0, 0, 0, 0] = value

    model = tmp_path / "model.keras"
    edited_weights(FROZEN / "lenet.keras", model, spoil)
    line = refused("compile", model, "-o", tmp_path / "out.npz")
    assert "not finite" in line
    assert "/kernel" in line


def test_a_saved_model_is_explained(refused, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"")
    assert "SavedModel" in refused("compile", tmp_path / "model", "-o", tmp_path / "out.npz")


def test_onnx_files_and_bundles_are_no_source(refused, good, tmp_path):
    assert "ONNX files are not a source for compile yet" in refused("compile", good / "model.onnx", "-o", tmp_path / "out.npz")
    assert "a bundle is compiled already" in refused("compile", good / "model.npz", "-o", tmp_path / "out.onnx")


# --- bundles and ONNX files --------------------------------------------------------------------------------------------


def hostile_bundle(good, target):
    """The bundle with the column of one weight far outside."""
    manifest, members = unpack((good / "model.npz").read_bytes())
    entry = next(entry for entry in manifest["tensors"] if entry["positions"] == "csr")
    member, offset, _ = entry["parts"]["indices"]
    array = np.load(io.BytesIO(members[member])).copy()
    array[offset] = 255
    target.write_bytes(repack(manifest, {**members, member: npy(array)}))


def test_bundle_with_an_index_out_of_range(refused, good, tmp_path):
    hostile_bundle(good, tmp_path / "bad.npz")
    for argv in (
        ["run", tmp_path / "bad.npz", "--input", good / "x.npy", "-o", tmp_path / "y.npy"],
        ["inspect", tmp_path / "bad.npz"],
        ["verify", tmp_path / "bad.npz"],
        ["verify", FROZEN / "lenet.keras", tmp_path / "bad.npz"],
    ):
        line = refused(*argv)
        assert "bad.npz" in line
        assert "index 255 is outside of" in line


@pytest.mark.parametrize("suffix", [".npz", ".onnx"])
def test_artefacts_that_are_damaged(refused, good, tmp_path, suffix):
    bad = tmp_path / f"bad{suffix}"
    bad.write_bytes((good / f"model{suffix}").read_bytes()[:-200])
    refused("inspect", bad)
    refused("verify", FROZEN / "lenet.keras", bad)


def test_an_artefact_of_another_model(refused, good):
    line = refused("verify", FROZEN / "nested.keras", good / "model.npz")
    assert "is it the same model?" in line


@pytest.mark.parametrize("suffix", [".npz", ".onnx"])
def test_reference_and_artefact_in_the_wrong_order(refused, good, suffix):
    line = refused("verify", good / f"model{suffix}", good / "model.keras")
    assert "the reference is a Keras file and comes first" in line


def test_self_check_of_what_has_none(refused, good, tmp_path):
    assert "only a bundle" in refused("verify", good / "model.keras")
    sparsec.compile(good / "model.keras", verify=False).save(tmp_path / "bare.npz")
    assert "carries no self-check" in refused("verify", tmp_path / "bare.npz")


# --- arrays ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 12, 12, 3), np.float32), "(2, 12, 12, 3)"),
        (np.zeros((12, 12, 1), np.float32), "(12, 12, 1)"),
        (np.zeros((2, 12, 12, 1), np.complex64), "complex64"),
        (np.zeros((2, 12, 12, 1), "U3"), "str"),
    ],
)
def test_inputs_that_do_not_fit(refused, good, tmp_path, array, said):
    np.save(tmp_path / "x.npy", array)
    for argv in (
        ["run", good / "model.npz", "--input", tmp_path / "x.npy", "-o", tmp_path / "y.npy"],
        ["verify", good / "model.keras", good / "model.npz", "--input", tmp_path / "x.npy"],
    ):
        line = refused(*argv)
        assert said in line
        assert "'input_layer'" in line


def test_inputs_that_cannot_be_read(refused, good, tmp_path):
    run = ["run", good / "model.npz", "-o", tmp_path / "y.npy", "--input"]
    assert "there is no such file" in refused(*run, tmp_path / "nowhere.npy")
    (tmp_path / "text.npy").write_text("1 2 3")
    line = refused(*run, tmp_path / "text.npy")
    assert "not a .npy or .npz file" in line
    assert "pickle" not in line, "nobody should be advised to load pickles"
    (tmp_path / "folder.npy").mkdir()
    assert "is a directory" in refused(*run, tmp_path / "folder.npy")
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    assert "not a .npy or .npz file" in refused(*run, tmp_path / "objects.npy")
    np.savez(tmp_path / "named.npz", image=np.zeros(3), other=np.zeros(3))
    line = refused(*run, tmp_path / "named.npz")
    assert "holds 'image', 'other'" in line
    assert "'input_layer'" in line


@pytest.mark.parametrize("compressed", [False, True])
def test_inputs_in_a_damaged_archive(refused, good, tmp_path, compressed):
    path = tmp_path / "x.npz"
    (np.savez_compressed if compressed else np.savez)(path, x=np.random.default_rng(0).normal(size=(2, 12, 12, 1)))
    whole = path.read_bytes()
    run = ["run", good / "model.npz", "-o", tmp_path / "y.npy", "--input", path]
    directory = whole.index(b"PK\x01\x02")
    for start in range(64, directory, 97):
        damaged = bytearray(whole)
        damaged[start : start + 9] = (byte ^ 0xFF for byte in whole[start : start + 9])
        path.write_bytes(damaged)
        assert str(path) in refused(*run)
    encrypted = bytearray(whole)
    for flags in (6, directory + 8):
        encrypted[flags] |= 1
    path.write_bytes(encrypted)
    assert "not a .npy or .npz file" in refused(*run)


def test_data_without_labels_or_with_too_few(refused, good, tmp_path):
    verify = ["verify", good / "model.keras", good / "model.npz", "--data"]
    x = np.load(good / "x.npy")
    np.savez(tmp_path / "x.npz", x=x)
    assert "no labels 'y'" in refused(*verify, tmp_path / "x.npz")
    np.savez(tmp_path / "few.npz", x=x, y=np.zeros(1))
    assert "1 labels for 2 samples" in refused(*verify, tmp_path / "few.npz")
    for name, arrays in {"x": {"x": np.float32(1), "y": np.zeros(2)}, "y": {"x": x, "y": np.int64(1)}}.items():
        np.savez(tmp_path / f"scalar_{name}.npz", **arrays)
        assert "holds no samples" in refused(*verify, tmp_path / f"scalar_{name}.npz")
    np.savez(tmp_path / "none.npz", x=x[:0], y=np.zeros(0))
    assert "holds no samples" in refused(*verify, tmp_path / "none.npz")


# --- outputs -----------------------------------------------------------------------------------------------------------

WRITES = {
    "prune": lambda good, out: ["prune", good / "model.keras", "--sparsity", "0.5", "-o", out],
    "compile": lambda good, out: ["compile", good / "model.keras", "-o", out],
    "run": lambda good, out: ["run", good / "model.npz", "--input", good / "x.npy", "-o", out],
    "bench": lambda good, out: ["bench", good / "model.onnx", good / "model.npz", "-o", out],
}
SUFFIX = {"prune": ".keras", "compile": ".npz", "run": ".npy", "bench": ".json"}


@pytest.fixture(params=WRITES)
def write(request, good, monkeypatch):
    """Every command that writes a file; none may begin its work before it knows that it can write."""

    def begun(*_args, **_options):
        raise AssertionError("the work began")

    for work in ("pruning.prune_file", "compilation.compile", "running.load", "bench.run_bench"):
        monkeypatch.setattr(f"sparsec.cli.{work}", begun)
    return lambda out: WRITES[request.param](good, out.with_suffix(SUFFIX[request.param]))


def test_output_in_a_folder_that_does_not_exist(refused, write, tmp_path):
    assert "there is no directory" in refused(*write(tmp_path / "nowhere" / "out"))


def test_output_below_a_file(refused, write, tmp_path):
    (tmp_path / "file").write_text("")
    assert "is not a directory" in refused(*write(tmp_path / "file" / "out"))


def test_output_that_is_a_folder(refused, write, tmp_path):
    for suffix in SUFFIX.values():
        (tmp_path / f"out{suffix}").mkdir()
    assert "is a directory" in refused(*write(tmp_path / "out"))


def test_output_that_would_replace_an_input(refused, good, tmp_path):
    for name in ("model.npz", "x.npy"):
        (tmp_path / name).write_bytes((good / name).read_bytes())
    model, x = tmp_path / "model.npz", tmp_path / "x.npy"
    for output in (x, model, tmp_path / ".." / tmp_path.name / "x.npy"):
        assert "is read by this command" in refused("run", model, "--input", x, "-o", output)
    np.savez(tmp_path / "xy.npz", x=np.load(x), y=np.zeros(2))
    for output in (model, tmp_path / "xy.npz"):
        assert "is read by this command" in refused("bench", model, model, "--data", tmp_path / "xy.npz", "-o", output)


def test_output_without_permission(refused, write, tmp_path, monkeypatch):
    # The tests may run as root, whom no permission stops.
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    assert "permission denied" in refused(*write(tmp_path / "out"))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that cannot be written to")
@pytest.mark.parametrize("suffix", [".npz", ".onnx"])
def test_writing_that_fails_late(refused, good, suffix):
    assert "/proc/out" in refused("compile", good / "model.keras", "-o", f"/proc/out{suffix}")


@pytest.mark.parametrize(
    ("name", "said"),
    [("out.tflite", "stands for no format"), ("out", "stands for no format"), ("out.pb", "stands for no format")],
)
def test_unknown_suffix_is_refused_before_the_work(refused, write, good, tmp_path, name, said):
    assert said in refused("compile", good / "model.keras", "-o", tmp_path / "out.npz", "-o", tmp_path / name)


def test_run_with_an_unknown_suffix(refused, good, tmp_path):
    assert ".npy, .npz" in refused("run", good / "model.npz", "--input", good / "x.npy", "-o", tmp_path / "y.csv")
    assert "takes a bundle" in refused("run", good / "model.onnx", "--input", good / "x.npy", "-o", tmp_path / "y.npy")


def test_an_existing_file_survives_a_failure(refused, tmp_path):
    model = tmp_path / "model.keras"
    edited_config(FROZEN / "lenet.keras", model, with_class("Mystery"))
    (tmp_path / "out.npz").write_bytes(b"precious")
    refused("compile", model, "-o", tmp_path / "out.npz")
    assert (tmp_path / "out.npz").read_bytes() == b"precious"


# --- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["compile", "{good}/model.keras", "-o", "{out}/a.npz", "--encoding", "zip"], "--encoding"),
        (["compile", "{good}/model.keras", "-o", "{out}/a.npz", "--opset", "99"], "13 to"),
        (["compile", "{good}/model.keras", "-o", "{out}/a.npz", "--input-shape", "big"], "no list of sizes"),
        (["compile", "{good}/model.keras", "-o", "{out}/a.npz", "--input-shape", "24,24,1"], "does not fit input"),
        (["compile", "{good}/model.keras", "-o", "{out}/a.npz", *["--input-shape", "12,12,1"] * 2], "a shape for each"),
        (["compile", "{good}/model.keras"], "sparsec compile --help"),
        (["compile", "-o", "{out}/a.npz"], "MODEL"),
        (["prune", "{good}/model.keras", "-o", "{out}/a.keras", "--sparsity", "1.5"], "sparsity"),
        (["prune", "{good}/model.keras", "-o", "{out}/a.h5", "--sparsity", "0.5"], ".h5"),
        (["verify", "{good}/model.keras", "{good}/model.npz", "--input-range", "high"], "two numbers"),
        (["verify", "{good}/model.keras", "{good}/model.npz", "--input-range", "2,1"], "empty"),
        (["verify", "{good}/model.keras", "{good}/model.npz", "--samples", "1"], "2 or more"),
        (["verify", "{good}/model.keras", "{good}/model.npz", "--tolerance", "-1"], "tolerance"),
        (["verify", "{good}/model.keras", "{good}/model.npz", "--seed", "-1"], "seed -1 is negative"),
        (["verify", "{good}/model.keras", "{good}/model.npz", "--input-range", "0,1e39"], "does not fit float32"),
        (["run", "{good}/model.npz", "--input", "{good}/x.npy", "-o", "{out}/y.npy", "--batch-size", "0"], "batch_size"),
        (["run", "{good}/model.npz", "--input", "{good}/x.npy", "-o", "{out}/y.npy", "--threads", "-1"], "threads"),
        (["bench", "{good}/model.onnx", "{good}/model.npz", "--batch", "0"], "batch"),
        (["inspect", "{out}"], "suffix"),
        (["deploy"], "deploy"),
        (["--speed"], "--speed"),
    ],
)
def test_options_that_are_wrong(refused, good, tmp_path, argv, said):
    assert said in refused(*(item.format(good=good, out=tmp_path) for item in argv))


# --- extras ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("package", "extra", "argv"),
    [
        ("onnx", "onnx", ["compile", "{good}/model.keras", "-o", "{out}/a.npz", "-o", "{out}/a.onnx"]),
        ("onnx", "onnx", ["inspect", "{good}/model.onnx"]),
        ("onnxruntime", "onnx", ["verify", "{good}/model.keras", "{good}/model.onnx"]),
        ("psutil", "report", ["bench", "{good}/model.npz", "{good}/model.npz"]),
        ("mlxtend", "demo", ["demo", "-o", "{out}"]),
        ("matplotlib", "demo", ["demo", "-o", "{out}"]),
    ],
)
def test_missing_extra_names_the_command(refused, good, tmp_path, monkeypatch, package, extra, argv):
    # None in sys.modules makes Python raise as if the package were not there.
    for name in list(sys.modules):
        if name.partition(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    line = refused(*(item.format(good=good, out=tmp_path) for item in argv))
    assert line.startswith(f"error: {package} is needed ")
    assert line.endswith(f"pip install 'sparsec[{extra}]'\n")


BLOCKED = """
import sys

class Missing:
    '''As if these packages were not installed.'''

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {packages}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return None

sys.meta_path.insert(0, Missing)
from sparsec.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("packages", "argv", "said"),
    [
        (["onnx"], ["compile", "{good}/model.keras", "-o", "{out}/a.onnx"], "onnx is needed to write ONNX files"),
        (["keras", "tensorflow"], ["demo", "-o", "{out}"], "keras is needed to train networks in the demo"),
        (["tensorflow"], ["demo", "-o", "{out}"], "tensorflow (which keras needs) is needed to train networks in the demo"),
        (["h5py"], ["inspect", "{good}/model.keras"], "h5py"),
        (["typer"], ["--version"], "typer is needed for the command line"),
    ],
)
def test_missing_packages_in_a_process_of_its_own(good, tmp_path, packages, argv, said):
    words = [item.format(good=good, out=tmp_path) for item in argv]
    code = BLOCKED.format(packages=packages)
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert "pip install" in done.stderr
    assert not list(tmp_path.iterdir())
