"""The command line: what each command prints, writes and returns, and the JSON that formats/ defines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import typer
from referencing import Registry, Resource
from rich.console import Console

import sparsec
from sparsec import encodings, pruning
from sparsec.backends.onnx import LAYOUTS
from sparsec.backends.onnx.storage import CHOICES
from sparsec.bench.measure import DEVICES
from sparsec.cli import app as application
from sparsec.cli import bench, compilation, inspection, main, terminal
from sparsec.cli import pruning as prune_command
from sparsec.cli.app import app
from sparsec.kernels import library
from sparsec.text import Column

ROOT = Path(__file__).parents[1]
FROZEN = ROOT / "tests" / "frozen" / "keras-3.15.1"
COMMANDS = ("inspect", "prune", "compile", "run", "verify", "bench", "demo", "calibrate")


def _schema(name):
    return Resource.from_contents(json.loads((ROOT / "formats" / name).read_text()))


SCHEMA = _schema("cli.schema.json")
REGISTRY = Registry().with_resources([("cli.schema.json", SCHEMA), ("bench.schema.json", _schema("bench.schema.json"))])
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA.contents, registry=REGISTRY)


@pytest.fixture
def no_keras(monkeypatch):
    """As if neither Keras nor tf_keras were installed; starting them takes seconds."""
    monkeypatch.setattr("sparsec.executors.find_spec", lambda name: None)


@pytest.fixture
def cli(capfd):
    """Run a command and return its exit status, stdout and stderr."""

    def run(*argv):
        status = main([str(item) for item in argv])
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def cli_json(cli):
    """Run a command that succeeds, check its JSON against the schema, and return the result."""

    def run(*argv, status=0):
        found, out, err = cli(*argv, "--json")
        assert (found, err) == (status, "")
        value = json.loads(out)
        VALIDATOR.validate(value)
        assert value["command"] == argv[0]
        return value["result"]

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pruned and compiled samples: ``lenet`` with dead units, ``nested`` with two inputs and two outputs."""
    folder = tmp_path_factory.mktemp("cli")
    pruning.prune_file(FROZEN / "lenet.keras", folder / "lenet.keras", method="unit", sparsity=0.5)
    for name, source in (("lenet", folder / "lenet.keras"), ("nested", FROZEN / "nested.keras")):
        result = sparsec.compile(source)
        for suffix in ("npz", "onnx"):
            result.save(folder / f"{name}.{suffix}")
    rng = np.random.default_rng(0)
    np.save(folder / "x.npy", rng.uniform(-1, 1, (5, 12, 12, 1)))
    np.savez(folder / "two.npz", x0=rng.uniform(-1, 1, (4, 5)), x1=rng.uniform(-1, 1, (4, 3)))
    return folder


# --- the application ---------------------------------------------------------------------------------------------------


def test_version_agrees_with_the_project(cli):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version == sparsec.__version__
    native = library.status()
    found = f"{native.isa}, built by {native.compiler}" if native.built else "not built"
    assert cli("--version") == (0, f"sparsec {version}\nnative kernels: {found}\n", "")
    status, out, err = cli("--version", "--json")
    assert (status, err) == (0, "")
    result = json.loads(out)
    VALIDATOR.validate(result)
    assert result["result"]["native"] == {
        "built": native.built,
        "isa": native.isa,
        "isas": list(native.isas),
        "compiled": list(native.compiled),
        "compiler": native.compiler,
    }
    assert set(native.isas) <= set(native.compiled)
    assert bool(native.compiler) == native.built


def test_no_command_shows_the_help(cli):
    status, out, err = cli()
    assert (status, err) == (0, "")
    assert all(re.search(rf"│ {name} ", out) for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_with_an_example_that_parses(cli, command):
    status, out, _ = cli(command, "--help")
    assert status == 0
    text = " ".join(out.replace("│", " ").split())
    example = re.search(r"Examples?: sparsec ([^;]+?)(;|$)", text)
    assert example is not None
    words = example[1].split()
    assert words[0] == command
    options = {name for name in words if name.startswith("--")}
    assert all(option in text for option in options)


def test_every_option_has_a_help_text():
    root = typer.main.get_command(app)
    assert set(root.commands) == set(COMMANDS)
    for command in root.commands.values():
        for parameter in command.params:
            assert getattr(parameter, "help", "") or parameter.name == "help", f"{command.name}: {parameter.name}"


@pytest.mark.parametrize(
    ("enum", "values"),
    [
        (compilation.Encoding, encodings.ENCODINGS),
        (compilation.Level, encodings.LEVELS),
        (compilation.OnnxWeights, CHOICES),
        (compilation.OnnxLayout, LAYOUTS),
        (prune_command.Method, pruning.METHODS),
        (prune_command.Scope, pruning.SCOPES),
        (bench.Device, DEVICES),
    ],
)
def test_choices_are_those_of_the_library(enum, values):
    assert {item.value for item in enum} == set(values)


def test_an_unexpected_exception_is_reported_as_a_defect(cli, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(inspection, "inspect", broken)
    status, out, err = cli("inspect", FROZEN / "mlp.keras")
    assert (status, out) == (70, "")
    assert err.count("\n") == 1
    assert "ZeroDivisionError: division by zero; this is a defect of sparsec" in err
    monkeypatch.setenv("SPARSEC_DEBUG", "1")
    assert "Traceback" in cli("inspect", FROZEN / "mlp.keras")[2]


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (MemoryError(), 2, "error: there is not enough memory for this model\n"),
        (OSError(28, "No space left on device", "/tmp/x"), 2, "error: /tmp/x: No space left on device\n"),
        (sparsec.VerificationError("outputs differ"), 1, "error: outputs differ\n"),
    ],
)
def test_what_becomes_of_other_exceptions(cli, monkeypatch, raised, status, line):
    def broken(*_):
        raise raised

    monkeypatch.setattr(inspection, "inspect", broken)
    found, out, err = cli("inspect", FROZEN / "mlp.keras")
    assert (found, out) == (status, "")
    assert err.endswith(line)
    assert "Traceback" not in err


def test_warnings_are_lines_on_stderr(cli, monkeypatch):
    def warns(*_):
        warnings.warn("a thing\nto know", RuntimeWarning, stacklevel=1)
        raise sparsec.InputError("no")

    monkeypatch.setattr(inspection, "inspect", warns)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert cli("inspect", "x.keras") == (2, "", "warning: a thing to know\nerror: no\n")


def test_a_closed_pipe_is_no_error(folder):
    command = f"{sys.executable} -m sparsec inspect {folder / 'lenet.npz'} | true"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_page_describes_every_command_and_its_example_is_valid():
    page = (ROOT / "formats" / "cli.md").read_text()
    documented = [*COMMANDS, "version"]
    assert all(f"\n## `{command}`\n" in page for command in documented)
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    VALIDATOR.validate(json.loads(example))
    assert SCHEMA.contents["properties"]["command"]["enum"] == documented


# --- the commands ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [20, 80, 500])
def test_tables_are_never_cut(capsys, monkeypatch, width):
    monkeypatch.setattr(terminal, "out", lambda: Console(file=sys.stdout, width=width, force_terminal=True))
    columns = (Column("Layer"), Column("Bytes", numeric=True), Column("What happened, and why"))
    reasons = ", ".join(["a long reason"] * 9)
    rows = [("block_1/a_layer_with_a_long_name", "12,345,678", reasons), ("größe", "1", "")]
    terminal.show_table(columns, rows)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    first = lines[0].index(columns[-1].title)
    found = [tuple(line[:first].split()) for line in lines if line[:first].strip()]
    assert found == [("Layer", "Bytes"), *(row[:2] for row in rows)]
    assert " ".join(line[first:].strip() for line in lines[1:]).strip() == reasons
    if width == 500:
        assert len(lines) == 1 + len(rows)


def test_inspect_a_keras_file(cli, cli_json, folder):
    result = cli_json("inspect", folder / "lenet.keras")
    assert result["kind"] == "keras"
    layers = {layer["layer"]: layer for layer in result["layers"]}
    first = layers["conv2d_1"]
    assert (first["zero_units"], first["units"]) == (first["units"] // 2, first["units"])
    assert any(note.startswith("shrunk") for note in first["notes"])
    assert result["parameters"] == sum(layer["parameters"] for layer in layers.values())
    status, out, _ = cli("inspect", folder / "lenet.keras")
    assert status == 0
    assert re.search(r"conv2d_1 +conv", out)
    assert "shrunk" in out


def test_inspect_a_bundle_says_how_it_is_stored_and_what_was_decided(cli_json, folder):
    result = cli_json("inspect", folder / "lenet.npz")
    assert result["kind"] == "bundle"
    assert result["details"]["self-check"] == "present"
    weights = [weight for layer in result["layers"] for weight in layer["weights"]]
    assert all(weight["encoding"] for weight in weights)
    assert any(note.startswith("shrunk") for layer in result["layers"] for note in layer["notes"])


def test_inspect_an_onnx_file_lists_its_initialisers(cli_json, folder):
    result = cli_json("inspect", folder / "lenet.onnx")
    assert result["kind"] == "onnx"
    assert {layer["operators"][0] for layer in result["layers"]} >= {"Conv"}
    assert result["details"]["opset"] == "ai.onnx 17"


def test_inspect_counts_zeros_of_sparse_initialisers(cli_json, tmp_path):
    pruning.prune_file(FROZEN / "mlp.keras", tmp_path / "mlp.keras", sparsity=0.9, skip="dense_1")
    sparsec.compile(tmp_path / "mlp.keras", onnx_weights="sparse", shrink=False).save(tmp_path / "mlp.onnx")
    sparse = [
        layer for layer in cli_json("inspect", tmp_path / "mlp.onnx")["layers"] if "sparse" in layer["weights"][0]["encoding"]
    ]
    sizes = {layer["parameters"]: layer["zeros"] for layer in sparse}
    assert sizes[30] == 27


def test_prune(cli, cli_json, tmp_path):
    out = tmp_path / "pruned.keras"
    result = cli_json("prune", FROZEN / "mlp.keras", "-o", out, "--method", "unit", "--sparsity", "0.5", "--skip", "dense")
    assert result["method"] == "unit"
    assert {layer["layer"] for layer in result["layers"] if not layer["kept"]} == {"dense_1"}
    assert sparsec.compile(out).report["parameters"]["nonzero"] < result["totals"]["size"]
    status, text, _ = cli("prune", FROZEN / "mlp.keras", "-o", out, "--sparsity", "0.9")
    assert status == 0
    assert "zeros in kernels" in text


def test_compile_writes_every_output(cli, cli_json, folder, tmp_path):
    outputs = [tmp_path / "a.npz", tmp_path / "b.onnx"]
    argv = ["compile", folder / "lenet.keras", "-o", outputs[0], "-o", outputs[1]]
    result = cli_json(*argv, "--level", "stored", "--onnx-layout", "nchw", "--opset", "18", "--onnx-weights", "dense")
    assert [file["bytes"] for file in result["files"]] == [path.stat().st_size for path in outputs]
    assert result["files"][0]["level"] == "stored"
    assert (result["files"][1]["opset"], result["files"][1]["layout"]) == (18, "nchw")
    assert result["verification"]["outputs"][0]["passed"]
    assert result["parameters"]["after"] < result["parameters"]["before"]
    status, text, _ = cli(*argv)
    assert status == 0
    assert "shrunk" in text
    assert f"wrote {outputs[1]}: ONNX" in text


def test_compile_options_reach_the_compiler(cli_json, folder, tmp_path):
    result = cli_json(
        "compile", folder / "lenet.keras", "-o", tmp_path / "a.npz", "--no-shrink", "--encoding", "csr", "--no-verify"
    )
    assert result["verification"] is None
    assert result["parameters"]["after"] == result["parameters"]["before"]
    assert {layer["encoding"] for layer in result["layers"] if layer["before"]["units"]} <= {"csr", "csr+planes"}
    assert cli_json("inspect", tmp_path / "a.npz")["details"]["self-check"] == "none"


def test_run_one_input(cli, cli_json, folder, tmp_path):
    result = cli_json("run", folder / "lenet.npz", "--input", folder / "x.npy", "-o", tmp_path / "y.npy", "--batch-size", "2")
    expected = sparsec.load(folder / "lenet.npz")(np.load(folder / "x.npy"))
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5, atol=1e-6)
    assert result["samples"] == 5
    status, text, _ = cli("run", folder / "lenet.npz", "--input", folder / "x.npy", "-o", tmp_path / "y.npz")
    assert status == 0
    assert "5 samples" in text
    assert np.load(tmp_path / "y.npz").files == ["y0"]


def test_run_several_inputs_and_outputs(cli_json, folder, tmp_path):
    result = cli_json("run", folder / "nested.npz", "--input", folder / "two.npz", "-o", tmp_path / "y.npz")
    arrays = np.load(folder / "two.npz")
    expected = sparsec.load(folder / "nested.npz")([arrays["x0"], arrays["x1"]])
    with np.load(tmp_path / "y.npz") as found:
        for entry, array in zip(result["outputs"], expected, strict=True):
            np.testing.assert_array_equal(found[entry["key"]], array)
    np.savez(tmp_path / "named.npz", right=arrays["x1"], left=arrays["x0"])
    cli_json("run", folder / "nested.npz", "--input", tmp_path / "named.npz", "-o", tmp_path / "z.npz")
    with np.load(tmp_path / "y.npz") as a, np.load(tmp_path / "z.npz") as b:
        assert all(np.array_equal(a[key], b[key]) for key in a.files)


def test_verify_passes(cli, cli_json, folder, no_keras):
    for suffix in ("npz", "onnx"):
        result = cli_json("verify", folder / "lenet.keras", folder / f"lenet.{suffix}", "--samples", "4", "--seed", "3")
        assert result["passed"]
        assert result["samples"] == 4
        assert result["reference"]["engine"] == "sparsec's evaluator"
        assert "keras is not installed" in result["notes"][0]
    status, text, _ = cli("verify", folder / "lenet.keras", folder / "lenet.npz", "--input", folder / "x.npy")
    assert status == 0
    assert "passed: 5 samples" in text


def test_verify_fails_with_status_1(cli, cli_json, folder, no_keras):
    result = cli_json("verify", FROZEN / "lenet.keras", folder / "lenet.npz", status=1)
    assert not result["passed"]
    status, text, err = cli("verify", FROZEN / "lenet.keras", folder / "lenet.npz")
    assert (status, err) == (1, "")
    assert re.search(r"failed: output 'dense_1' differs by \S+, \S+ of its range", text)


def test_verify_a_bundle_alone_runs_its_self_check(cli, cli_json, folder):
    assert cli_json("verify", folder / "lenet.npz")["passed"]
    assert "self-check passed" in cli("verify", folder / "lenet.npz")[1]


def test_a_failing_self_check_has_status_1(cli_json, folder, tmp_path):
    from dataclasses import replace

    from sparsec.bundle import read_bundle, write_bundle

    bundle = read_bundle(folder / "lenet.npz")
    check = bundle.meta.selfcheck
    outputs = tuple(replace(o, values=tuple(value + o.scale for value in o.values)) for o in check.outputs)
    meta = replace(bundle.meta, selfcheck=replace(check, outputs=outputs))
    write_bundle(tmp_path / "other.npz", bundle.program, meta=meta)
    result = cli_json("verify", tmp_path / "other.npz", status=1)
    assert not result["passed"]
    assert result["worst"] == pytest.approx(1, rel=1e-2)


def test_bench(cli, cli_json, folder, tmp_path):
    argv = ["bench", folder / "lenet.onnx", folder / "lenet.npz", "--rounds", "3", "-o", tmp_path / "result.json"]
    result = cli_json(*argv, "--batch", "1", "--batch", "2")
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert [entry["batch"] for entry in result["reference"]["latency"]] == [1, 2]
    status, text, _ = cli(*argv)
    assert status == 0
    assert re.search(r"lenet\.npz +sparsec", text)


def test_the_module_runs_as_a_command(folder):
    done = subprocess.run(
        [sys.executable, "-m", "sparsec", "verify", folder / "lenet.npz"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "passed" in done.stdout


def test_usage_error_names_the_command_help():
    assert issubclass(typer.BadParameter, application.UsageError)
