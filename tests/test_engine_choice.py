"""How the native engine chooses kernels: the cost model and its calibration, candidates, measuring them, and what is shown."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from kernel_steps import run_step

from sparsec.bundle import write_bundle
from sparsec.cli.app import run
from sparsec.encodings import encode
from sparsec.engine import calibration
from sparsec.engine.calibration import CASES, Case, calibrate, fit, forget, keep, kept_calibration, least_squares, make
from sparsec.engine.choice import SCALES, Cheapest, candidates
from sparsec.engine.costs import NAMES, Coefficients
from sparsec.engine.defaults import DEFAULTS
from sparsec.engine.steps import Planes
from sparsec.engine.trial import Stopwatch
from sparsec.engine.tuning import Fastest
from sparsec.errors import InputError
from sparsec.ir import BATCH, Graph, Input, Port, TensorType, symbol
from sparsec.kernels import WeightStore, library
from sparsec.lowering import lower
from sparsec.ops import make_node
from sparsec.runtime import load

pytestmark = pytest.mark.skipif(not library.status().isas, reason="the native library was not built")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """No calibration is kept, and none that a test keeps stays."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sparsec"


@pytest.fixture
def found():
    return library.status().library


SCHEMA = json.loads((Path(__file__).parents[1] / "formats" / "cli.schema.json").read_text())


def result(capsys, *arguments):
    """What a command prints as JSON, checked against the schema."""
    assert run([*arguments, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    definition = {**SCHEMA, **SCHEMA["$defs"][value["command"]], "allOf": []}
    jsonschema.Draft202012Validator(definition).validate(value["result"])
    return value["result"]


def machine(found):
    return calibration.machine_of(found)


def planted(rng):
    return Coefficients(**{name: float(value) for name, value in zip(NAMES, rng.uniform(0.5, 2.0, len(NAMES)), strict=True)})


# --- the fit -------------------------------------------------------------------------------------------------------------


def test_least_squares_are_exact_and_never_negative():
    rng = np.random.default_rng(0)
    system = rng.standard_normal((30, 6))
    inside = np.abs(rng.standard_normal(6))
    np.testing.assert_allclose(least_squares(system, system @ inside), inside, rtol=1e-8)
    for _ in range(20):
        wanted = rng.standard_normal(30)
        x = least_squares(system, wanted)
        slopes = system.T @ (wanted - system @ x)
        # The conditions of Kuhn and Tucker.
        assert (x >= 0.0).all()
        assert (slopes <= 1e-8).all()
        np.testing.assert_allclose(slopes[x > 0.0], 0.0, atol=1e-8)


def test_the_fit_recovers_planted_coefficients(monkeypatch):
    monkeypatch.setattr(calibration, "TRUST", 1e-6)
    rng = np.random.default_rng(0)
    truth = planted(rng)
    counts = [{name: float(rng.uniform(0, 1e4)) for name in NAMES if rng.random() < 0.4} | {"call": 1.0} for _ in range(300)]
    fitted = fit(counts, [truth.cost(each) for each in counts], planted(rng))
    assert fitted.error < 1e-3
    for name, value in asdict(truth).items():
        if name != "call":  # a nanosecond in times of thousands
            assert asdict(fitted.coefficients)[name] == pytest.approx(value, rel=0.01), name


def test_the_cases_tell_the_coefficients_apart(found, monkeypatch):
    """Times that are as the model says give back the coefficients which made them, though the fit starts from others."""
    monkeypatch.setattr(calibration, "TRUST", 1e-4)
    before = DEFAULTS[found.isa.name]
    truth = Coefficients(**{name: value * (0.5 + index % 3) for index, (name, value) in enumerate(asdict(before).items())})
    exact = calibrate(found, timer=lambda store: lambda step, planes, choices: [truth.cost(each.counts) for each in choices])
    assert exact.measurements > 200
    assert exact.largest < 0.02
    kinds = {"few", "narrow", "wide"} - {slicing.kind for slicing in found.isa.slicings}
    never = {f"{what}_{kind}" for what in ("slot", "far") for kind in kinds}
    for name in set(NAMES) - never - {"call", "far", "post"}:
        assert asdict(exact.coefficients)[name] == pytest.approx(asdict(truth)[name], rel=0.2), name


def test_what_is_not_measured_stays_as_it_was():
    before = planted(np.random.default_rng(1))
    fitted = fit([{"call": 1.0}, {"call": 2.0}], [7.0, 14.0], before).coefficients
    assert fitted.call == pytest.approx(7.0, rel=0.02)
    assert fitted.multiply == pytest.approx(before.multiply, rel=1e-3)


def test_estimates_are_near_the_times(found):
    """Roughly: other programs may run while tests do."""
    measured = calibrate(found)
    assert measured.error < 0.4


# --- the file ------------------------------------------------------------------------------------------------------------


def some_calibration():
    return fit([{"call": 1.0}], [50.0], planted(np.random.default_rng(2)))


def test_a_calibration_is_kept_and_forgotten(found, cache):
    assert kept_calibration(found) is None
    assert machine(found).coefficients == DEFAULTS[found.isa.name]
    made = some_calibration()
    path = keep(found, made)
    assert path.parent == cache
    assert [entry.name for entry in cache.iterdir()] == [path.name]
    assert kept_calibration(found) == made
    assert machine(found).coefficients == made.coefficients
    other = replace(found, isa=replace(found.isa, name="other"))
    assert kept_calibration(other) is None
    assert forget(found)
    assert not forget(found)
    assert kept_calibration(found) is None


def test_a_damaged_file_is_as_none(found):
    path = keep(found, some_calibration())
    whole = json.loads(path.read_text())
    damaged = [
        "",
        "{",
        "[]",
        "null",
        json.dumps({**whole, "schema": "other"}),
        json.dumps({**whole, "coefficients": {"call": 1.0}}),
        json.dumps({**whole, "coefficients": {**whole["coefficients"], "call": -1.0}}),
        json.dumps({**whole, "coefficients": {**whole["coefficients"], "call": float("nan")}}),
        json.dumps({**whole, "coefficients": {**whole["coefficients"], "call": "fast"}}),
        json.dumps({**whole, "coefficients": {**whole["coefficients"], "call": None}}),
    ]
    for text in damaged:
        path.write_text(text)
        assert kept_calibration(found) is None, text
    path.write_bytes(b"\xff\xfe\x00")
    assert kept_calibration(found) is None
    path.unlink()
    path.mkdir()
    assert kept_calibration(found) is None


def test_the_command_measures_shows_and_resets(found, capsys, monkeypatch):
    monkeypatch.setattr(calibration, "CASES", CASES[:6])
    before = result(capsys, "calibrate", "--show")
    assert before["coefficients"] == asdict(DEFAULTS[found.isa.name])
    assert not before["calibrated"]
    made = result(capsys, "calibrate")
    assert made["isa"] == found.isa.name
    assert made["measurements"] >= 6
    assert made["coefficients"] == asdict(kept_calibration(found).coefficients)
    assert run(["calibrate", "--show"]) == 0
    assert "measurements, kept at" in capsys.readouterr().out
    assert run(["calibrate", "--reset"]) == 0
    assert "removed" in capsys.readouterr().out
    assert run(["calibrate", "--reset"]) == 0
    assert "there was no calibration" in capsys.readouterr().out
    assert run(["calibrate", "--reset", "--show"]) == 2


def test_without_native_kernels_there_is_nothing_to_calibrate(capsys, monkeypatch):
    monkeypatch.setenv("SPARSEC_ISA", "none")
    assert run(["calibrate"]) == 2
    assert "no native kernels" in capsys.readouterr().err


# --- candidates ----------------------------------------------------------------------------------------------------------


def test_shared_rows_are_chosen_for_blocks_of_four(found):
    rng = np.random.default_rng(0)
    for tall, height in ((True, "4x1"), (False, "1x1")):
        step, planes, store = make(Case(Planes(1, 14, 14, 256), 256, 0.1, tall=tall), rng)
        assert height in Cheapest(store, machine(found))(step, planes).label


def test_a_form_that_is_there_is_taken_where_it_is_nearly_as_good(found):
    rng = np.random.default_rng(0)
    step, planes, store = make(Case(Planes(1, 14, 14, 256), 256, 0.02), rng)
    chooser = Cheapest(store, machine(found))
    first = chooser(step, planes)
    wider = {name: replace(value, samples=64) for name, value in planes.items()}
    assert chooser(step, wider).packing.name == first.packing.name


class Planted:
    """A timer for which one candidate, by its label, takes so many times what the others take."""

    def __init__(self, label, share):
        self.label, self.share, self.calls = label, share, 0

    def __call__(self, step, planes, choices):
        self.calls += 1
        return [100.0 * (self.share if choice.label == self.label else 1.0) for choice in choices]


def same(a, b):
    return (a.kernel, a.packing.name, a.options) == (b.kernel, b.packing.name, b.options)


@pytest.mark.parametrize("case", [Case(Planes(1, 28, 28, 64), 64, 0.1, (3, 3)), Case(Planes(1, 14, 14, 256), 128, 0.1)])
def test_tuning_picks_the_faster_candidate(found, case):
    step, planes, store = make(case, np.random.default_rng(0))
    usual = Cheapest(store, machine(found)).choose(step, planes)
    others = [each for each in candidates(step, planes, store, machine(found), SCALES) if not same(each, usual)]
    other = min(others, key=lambda each: each.nanoseconds)
    for share, wanted in ((0.9, other), (0.98, usual), (1.0, usual)):
        timer = Planted(other.label, share)
        tuned = Fastest(Cheapest(store, machine(found)), timer)
        assert same(tuned(step, planes), wanted), share
        assert tuned(replace(step, y="y"), planes) is tuned(step, planes)
        assert timer.calls == 1


def test_the_stopwatch_times_what_runs(found):
    """More work takes longer; both are far from noise."""
    rng = np.random.default_rng(0)
    times = []
    for filters in (16, 512):
        step, planes, store = make(Case(Planes(1, 28, 28, 128), filters, 0.2), rng)
        times.append(min(Stopwatch(found, store)(step, planes, candidates(step, planes, store, machine(found)))))
        assert store.nbytes == 0  # nothing that was tried is kept
    assert times[1] > 4 * times[0] > 0


LAYERS = [
    Case(Planes(2, 9, 11, 12), 10, 0.3, (3, 3)),
    Case(Planes(1, 14, 15, 40), 21, 0.1, (3, 3), stride=2),
    Case(Planes(1, 17, 17, 24), 22, 1.0, (1, 7)),
    Case(Planes(1, 33, 70, 3), 8, 0.5, (3, 3)),
    Case(Planes(3, 8, 8, 64), 18, 0.1),
    Case(Planes(2, 25, 25, 20), 18, 1.0),
    Case(Planes(1, 9, 9, 100), 30, 0.2, tall=True),
    Case(Planes(37, 1, 1, 700), 50, 0.05),
    Case(Planes(1, 1, 1, 700), 50, 0.05),
]


@pytest.mark.parametrize("name", library.status().isas)
@pytest.mark.parametrize("case", LAYERS, ids=lambda case: f"{case.x.channels}-{case.filters}")
def test_all_candidates_give_the_same(case, name, monkeypatch):
    monkeypatch.setenv("SPARSEC_ISA", name)
    rng = np.random.default_rng(7)
    step, planes, store = make(case, rng)
    kernel, y = store.weight("w"), planes["y"]
    weight = store.array("w") * rng.standard_normal(kernel.shape, np.float32)
    store = WeightStore({"w": encode(weight, kernel.rows, "csr")})
    x = rng.standard_normal((case.x.samples, case.x.height, case.x.width, case.x.channels), np.float32)
    pads = [(before, size - 1 - before) for size, before in zip(case.size, step.window.pads, strict=True)]
    padded = np.pad(x.astype(np.float64), ((0, 0), *pads, (0, 0)))
    views = np.lib.stride_tricks.sliding_window_view(padded, case.size, axis=(1, 2))[:, :: case.stride, :: case.stride]
    expected = np.einsum("nhwcij,ijco->nhwo", views, weight.astype(np.float64).reshape(*case.size, -1, case.filters))
    found = candidates(step, planes, store, machine(library.status().library), SCALES)
    window = library.Window(*case.size, case.stride, case.stride, 1, 1, *step.window.pads)
    for choice in found:
        packed = store.pack_apart("w", choice.packing, {})
        (weights,) = packed.structures
        given = run_step(choice.kernel, x, expected.shape, weights=weights, window=window, options=choice.options)
        np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max(), err_msg=choice.label)
    assert len({choice.label for choice in found}) == len(found)
    assert len(found) > 1 or y.positions == 1 or case.x.channels < 100


# --- what is shown -------------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path):
    """A small network with a step that does not run natively."""
    rng = np.random.default_rng(0)
    weights = {
        "k": rng.standard_normal((3, 3, 8, 16), np.float32) * (rng.random((3, 3, 8, 16)) < 0.2),
        "g": rng.standard_normal((3, 3, 8, 12), np.float32),
        "d": rng.standard_normal((12, 5), np.float32),
    }
    conv = {"strides": (1, 1), "dilations": (1, 1), "padding": "same"}
    nodes = (
        make_node("conv", "first", ["x", "k"], ["a"], **conv),
        make_node("relu", "r", ["a"], ["b"]),
        make_node("cumsum", "sums", ["b"], ["c"], axis=1),
        make_node("conv", "grouped", ["c", "g"], ["e"], **conv, groups=2),
        make_node("reduce_mean", "mean", ["e"], ["f"], axes=(1, 2), keepdims=False),
        make_node("dense", "last", ["f", "d"], ["y"]),
    )
    x = Input("x", TensorType("float32", (symbol(BATCH), 10, 12, 8)))
    path = tmp_path / "model.npz"
    write_bundle(path, lower(Graph((x,), (Port("y", "y"),), nodes, weights)))
    return path


@pytest.mark.parametrize("options", [(), ("--tune",), ("--batch", "3")])
def test_inspect_shows_how_a_bundle_runs(bundle, capsys, options):
    runtime = result(capsys, "inspect", str(bundle), "--runtime", *options)["runtime"]
    assert runtime["tuned"] == ("--tune" in options)
    assert runtime["batch"] == (3 if "--batch" in options else 1)
    steps = {step["node"]: step for step in runtime["steps"]}
    assert [*steps] == ["first", "sums", "grouped", "mean", "last"]
    assert steps["first"]["fused"] == ["relu"]
    assert steps["first"]["kernel"].split("/")[:2] in [["native", kernel] for kernel in ("windows", "unrolled", "winograd")]
    assert not steps["sums"]["native"]
    assert "not native: its operator has no native kernel" in steps["sums"]["reason"]
    assert all(step["native"] for name, step in steps.items() if name != "sums")
    assert all(step["measured"] > 0 for step in steps.values())
    assert all(steps[name]["microseconds"] > 0 for name in ("first", "grouped", "last"))
    assert runtime["total"] == pytest.approx(runtime["between"] + sum(step["measured"] for step in steps.values()))
    assert runtime["call"] > 0
    assert run(["inspect", str(bundle), "--runtime", *options]) == 0
    text = capsys.readouterr().out
    for part in ("native/", "not native", "to and from the native layout", "1 of 5 steps do not run natively", "100.0 %"):
        assert part in text


def test_the_groups_of_a_step_are_measured_together(bundle):
    model = load(bundle)
    profile = model.profile(np.zeros((2, 10, 12, 8), np.float32), 3)
    assert [step.node for step in profile.steps] == [step.node for step in model.plan(2)]
    with pytest.raises(InputError, match="empty batch"):
        model.profile(np.zeros((0, 10, 12, 8), np.float32))


def test_inspect_refuses_what_makes_no_sense(bundle, tmp_path, capsys):
    for arguments in (
        [str(bundle), "--tune"],
        [str(bundle), "--batch", "2"],
        [str(bundle), "--runtime", "--batch", "0"],
        [str(bundle), "--runtime", "--threads", "0"],
        [str(tmp_path / "model.keras"), "--runtime"],
        [str(tmp_path / "none.npz"), "--runtime"],
    ):
        assert run(["inspect", *arguments]) == 2, arguments
        assert capsys.readouterr().err.startswith("error:")


def test_a_tuned_model_gives_the_same_outputs(bundle):
    x = np.random.default_rng(1).standard_normal((4, 10, 12, 8), np.float32)
    np.testing.assert_allclose(load(bundle, tune=True)(x), load(bundle)(x), rtol=1e-4, atol=1e-4)
