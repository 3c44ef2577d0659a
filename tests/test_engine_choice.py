"""How the native engine chooses kernels: the cost model and its calibration, candidates, measuring them, and what is shown."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from sparsec.cli.app import run
from sparsec.engine import calibration
from sparsec.engine.calibration import CASES, Case, calibrate, fit, forget, keep, kept_calibration, least_squares, make
from sparsec.engine.choice import Cheapest
from sparsec.engine.costs import NAMES, Coefficients
from sparsec.engine.defaults import DEFAULTS
from sparsec.engine.steps import Planes
from sparsec.kernels import library

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
    never = {"slot", "slice"} if not found.isa.permutes else set()
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
