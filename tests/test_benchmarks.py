"""The benchmark of the native engine and its peers: what it keeps, what it survives, and what it says. Nothing is timed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from test_bench import small_graph

from sparsec.bench import Machine
from sparsec.lowering import lower

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import choice
import native
from common import Rounds, in_turn, unsureness
from peers import measure as peers_measure
from peers import remote
from peers.engines import ENGINES, Engine, Local
from peers.facts import Fact, Run
from peers.measure import Case, measure
from peers.page import page
from peers.plots import plot_groups
from peers.remote import RemoteError, Worker, Workers
from peers.results import Results
from peers.setups import Setup, merged
from peers.verdicts import verdicts
from peers.workloads import WORKLOADS
from targets import TARGETS, Measure

HERE = Setup(Machine("a processor", 2, 1 << 30, "Linux 6 x86_64"), {"python": "3.11.7", "sparsec": "1.0"}, "build")
RESNET = ("resnet50", 1, 1, 0.9)


def fact(*key, setup=HERE, single=None, missing=None, conversion=None, **milliseconds):
    times = {name.replace("_", "-"): value for name, value in milliseconds.items()}
    return Fact(*(key or RESNET), (Run(setup, times, single or {}, missing or {}, 1e-7, conversion),))


# --- facts -------------------------------------------------------------------------------------------------------------------


def test_a_run_keeps_what_older_runs_found_of_other_engines_beside_their_own_reference():
    older = fact(onnxruntime=10.0, sparsec=5.0, deepsparse=4.0, litert=20.0)
    found = fact(onnxruntime=8.0, sparsec=2.0, litert=10.0).after(older)
    assert found.reference == 8.0
    assert found.speedup("sparsec") == 4.0
    assert found.speedup("litert") == 0.8
    assert found.speedup("deepsparse") == 2.5
    assert found.ratio("sparsec", "litert") == 5.0
    assert found.ratio("sparsec", "deepsparse") is None
    assert [sorted(run.milliseconds) for run in found.runs] == [
        ["litert", "onnxruntime", "sparsec"],
        ["deepsparse", "onnxruntime"],
    ]


def test_a_run_whose_engines_were_all_measured_anew_is_gone():
    assert len(fact(onnxruntime=8.0, sparsec=2.0).after(fact(onnxruntime=9.0, sparsec=3.0)).runs) == 1


def test_an_engine_that_fails_loses_its_older_figure():
    older = fact(onnxruntime=10.0, sparsec=5.0, deepsparse=4.0)
    found = fact(onnxruntime=8.0, missing={"deepsparse": "it ended"}).after(older)
    assert found.speedup("deepsparse") is None
    assert found.missing == {"deepsparse": "it ended"}
    assert found.speedup("sparsec") == 2.0
    assert "deepsparse" not in fact(onnxruntime=8.0, deepsparse=2.0).after(found).missing


def test_figures_of_other_builds_go_and_those_of_peers_stay():
    older = fact(onnxruntime=10.0, sparsec=5.0, sparsec_avx2=6.0, litert=20.0)
    found = older.by_build("another")
    assert (found.speedup("sparsec"), found.speedup("sparsec-avx2"), found.speedup("litert")) == (None, None, 0.5)
    assert older.by_build("build") == older
    assert fact(onnxruntime=10.0, sparsec=5.0).by_build("another").runs == ()


def test_conversion_is_taken_off_sparsec_alone():
    found = fact("1x1-512-14", 1, 1, 0.9, onnxruntime=8.0, sparsec=3.0, sparsec_avx2=5.0, deepsparse=4.0, conversion=1.0)
    assert found.speedup("sparsec") == 4.0
    assert found.ratio("sparsec-avx2", "sparsec") == 0.5
    assert found.speedup("deepsparse") == 2.0


def test_scaling_is_of_one_run():
    found = fact("resnet50", 1, 2, 0.9, onnxruntime=5.0, sparsec=2.0, single={"onnxruntime": 8.0, "sparsec": 3.0})
    assert (found.scaling("onnxruntime"), found.scaling("sparsec"), found.scaling("litert")) == (1.6, 1.5, None)


# --- results -----------------------------------------------------------------------------------------------------------------


def test_results_are_read_as_they_were_saved(tmp_path):
    other = replace(HERE, versions={"python": "3.11.7", "sparsec": "1.0", "deepsparse": "1.8.0"}, build="before")
    results = Results(tmp_path)
    results.add([fact(onnxruntime=10.0, sparsec=5.0, deepsparse=4.0, setup=other)])
    results.add(
        [fact(onnxruntime=8.0, sparsec=2.0), fact("lenet5", 1, 1, 0.9, onnxruntime=1.0, missing={"litert": "it ended"})]
    )
    results.save()
    again = Results(tmp_path)
    assert [found.key[0] for found in again.facts] == ["lenet5", "resnet50"]
    assert [run.setup.build for run in again.facts[1].runs] == ["build", "before"]
    assert again.facts[1].runs[0].milliseconds == {"onnxruntime": 8.0, "sparsec": 2.0}
    assert len(json.loads((tmp_path / "native.json").read_text())["setups"]) == 1
    again.save()
    assert Results(tmp_path).facts == again.facts


def test_what_this_build_measured_is_known():
    results = Results(Path("nowhere"))
    results.add([fact(onnxruntime=8.0, sparsec=2.0, missing={"deepsparse": "it ended"})])
    assert results.has(RESNET, ["onnxruntime", "sparsec", "deepsparse"], HERE)
    assert not results.has(RESNET, ["onnxruntime", "sparsec", "litert"], HERE)
    assert not results.has(RESNET, ["onnxruntime", "sparsec"], replace(HERE, build="another"))
    assert not results.has(("resnet50", 1, 1, 0.8), ["onnxruntime"], HERE)


def test_setups_that_contradict_stay_apart():
    newer = replace(HERE, versions={"python": "3.11.7", "sparsec": "2.0"})
    more = replace(HERE, versions={"sparsec": "1.0", "openvino": "2026"})
    assert merged([HERE, newer, more]) == [replace(HERE, versions={**HERE.versions, "openvino": "2026"}), newer]
    elsewhere = replace(HERE, machine=replace(HERE.machine, cpu="another"))
    assert len(merged([HERE, elsewhere])) == 2


# --- turns -------------------------------------------------------------------------------------------------------------------


def test_a_call_that_fails_takes_no_more_turns():
    calls = count()

    def fails_the_third_time(repeats):
        return None if next(calls) >= 2 else 1e-3

    times = in_turn({"good": lambda repeats: 2e-3, "bad": fails_the_third_time}, Rounds(5, 5), 1e-3)
    assert times == {"good": 2.0}
    assert next(calls) == 3


def test_rounds_end_once_medians_are_sure():
    quiet, noisy = [1.0] * 9, [1.0, 2.0, 3.0]
    assert unsureness(quiet) == 0.0 < unsureness(noisy)
    rounds = Rounds(3, 9, 0.01)
    assert not rounds.enough([quiet], 2)
    assert rounds.enough([quiet], 3)
    assert not rounds.enough([quiet, noisy], 3)
    assert rounds.enough([quiet, noisy], 9)


def test_unsureness_is_the_standard_error_of_a_median():
    rng = np.random.default_rng(0)
    samples = rng.normal(100.0, 5.0, (2000, 25))
    assert np.mean([unsureness(own) for own in samples]) == pytest.approx(np.median(samples, axis=1).std() / 100.0, rel=0.15)


# --- workers -----------------------------------------------------------------------------------------------------------------

WORKER = """
import json, os, sys, time
print(json.dumps({"version": "1"}), flush=True)
for line in sys.stdin:
    command = json.loads(line)
    if "open" in command and "crash" in command["open"]:
        os._exit(3)
    if "open" in command and "hang" in command["open"]:
        time.sleep(60)
    print(json.dumps({"error": "no such thing"} if "run" in command else {"model": 0}), flush=True)
"""


@pytest.fixture
def worker(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(WORKER)
    monkeypatch.setattr(remote, "SCRIPT", script)
    started = Worker("engine", Path(sys.executable), tmp_path, limit=2.0)
    yield started
    started.close()


def test_a_worker_that_ends_says_so_from_then_on(worker):
    x = np.zeros(1, np.float32)
    model = worker.open("good", x, 1)
    with pytest.raises(RemoteError, match="no such thing"):
        model.seconds(1)
    for path in ("crash", "good"):
        with pytest.raises(RemoteError, match="its process ended with status 3"):
            worker.open(path, x, 1)
    with pytest.raises(RemoteError, match="ended"):
        model.seconds(1)
    assert worker.version == "1"


def test_a_worker_that_hangs_is_ended(worker):
    with pytest.raises(RemoteError, match="did not answer within 2 seconds"):
        worker.open("hang", np.zeros(1, np.float32), 1)


def test_a_worker_that_does_not_start_says_so_when_it_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "SCRIPT", tmp_path / "missing.py")
    started = Worker("engine", Path(sys.executable), tmp_path)
    with pytest.raises(RemoteError, match="its process ended with status 2"):
        started.open("good", np.zeros(1, np.float32), 1)
    started.close()


# --- measuring ---------------------------------------------------------------------------------------------------------------


class FakeArtefacts:
    """Files of a model that gives ones."""

    def __init__(self, workload):
        self.workload = workload

    def dense_onnx(self, batch):
        return "dense"

    def pruned_onnx(self, sparsity, batch):
        return "pruned"

    def fed(self, batch):
        return np.zeros(1, np.float32)


OUTPUT = np.array([0.0, 1.0], np.float32)


class Dying(Local):
    """A model whose process ends once it is timed."""

    def seconds(self, repeats):
        raise RemoteError("its process ended with status -9")


def raising(setting):
    raise ValueError("a message\nof two lines")


@pytest.fixture
def measured(monkeypatch):
    monkeypatch.setattr(peers_measure, "Artefacts", FakeArtefacts)
    monkeypatch.setattr(peers_measure, "open_onnx", lambda path, x, threads: Local(lambda: OUTPUT))

    def run(threads=1, **openers):
        good = {"onnxruntime": lambda setting: Local(lambda: OUTPUT), "sparsec": lambda setting: Local(lambda: OUTPUT)}
        engines = [replace(ENGINES[name], open=opener) for name, opener in (good | openers).items()]
        with Workers() as workers:
            return measure(Case(WORKLOADS["lenet5"], 1, (0.8, 0.9), threads), engines, Rounds(3, 3), workers)

    return run


def test_peers_that_fail_do_not_end_a_run(measured):
    wrong = {"openvino": lambda setting: Local(lambda: OUTPUT + 1), "scipy": raising}
    found = measured(litert=raising, deepsparse=lambda setting: Dying(lambda: OUTPUT), **wrong)
    assert [fact.sparsity for fact in found] == [0.8, 0.9]
    for fact in found:
        assert sorted(fact.runs[0].milliseconds) == ["onnxruntime", "sparsec"]
        assert fact.missing == {
            "litert": "a message",
            "deepsparse": "its process ended with status -9",
            "openvino": "it is off by more than 0.001 of the range of the outputs",
        }
        assert fact.wrong == []


def test_sparsec_has_to_work(measured):
    with pytest.raises(ValueError, match="a message"):
        measured(sparsec=raising)
    found = measured(sparsec=lambda setting: Local(lambda: OUTPUT * np.nan))
    assert all("off by more" in fact.wrong[0] for fact in found)


def test_several_threads_are_measured_beside_one(measured):
    (run,) = measured(threads=2)[0].runs
    assert sorted(run.single) == sorted(run.milliseconds) == ["onnxruntime", "sparsec"]


def test_scipy_is_compared_where_it_has_the_product():
    fits = {name for name, workload in WORKLOADS.items() if ENGINES["scipy"].fits(workload, 1)}
    assert {"1x1-512-14", "dense-4096"} <= fits
    assert not fits & {"3x3-64-56", "resnet50"}
    assert not ENGINES["scipy"].fits(WORKLOADS["dense-4096"], 2)
    assert isinstance(ENGINES["scipy"], Engine)


def test_layers_whose_kernels_are_compared():
    found = list(choice.layers_of("net", lower(small_graph())))
    assert [layer.name for layer in found] == ["net c: 3x3x3x8 at 6x6", "net d: 8x4 at 1x1"]


# --- page, targets and the command -------------------------------------------------------------------------------------------


def facts_of_resnet():
    shares = (0.0, 0.6, 0.7, 0.8, 0.9, 0.95)
    times = zip(shares, (80.0, 40.0, 30.0, 25.0, 16.0, 11.0), (60.0, 50.0, 40.0, 20.0, 24.0, 22.0), strict=True)
    found = [
        fact("resnet50", 1, 1, share, onnxruntime=70.0, sparsec=own, sparsec_avx2=own / 0.8, deepsparse=deepsparse)
        for share, own, deepsparse in times
    ]
    two = fact("resnet50", 1, 2, 0.9, onnxruntime=40.0, sparsec=9.0, single={"onnxruntime": 70.0, "sparsec": 16.0})
    return [*found, two]


def test_the_page_compares_and_names_what_is_slower(tmp_path):
    facts = facts_of_resnet()
    plots = plot_groups(facts, tmp_path)
    assert plots == [("Networks", "native-networks.svg")]
    text = page(facts, plots)
    assert "At 80%, 90%, 95% the median is 1.50, and the least 0.80 (ResNet50, batch 1, at 80%)." in text
    assert "more than 5% in 1 of 3:\n\n* ResNet50, batch 1, at 80%: 0.80\n\n| What |" in text
    assert "the least is 80% (ResNet50, batch 1, at" in text
    assert "| ResNet50 | 1 | 2 | 90% | 1.75 |  | 1.78 |" in text
    assert "| ResNet50 | 1 | 1 | 15% |" in text
    assert text.endswith(f"{HERE}\n")


def test_the_page_tells_setups_and_builds_apart():
    newer = replace(HERE, versions={"python": "3.11.7", "sparsec": "2.0"}, build="newer")
    older = fact("lenet5", 1, 1, 0.9, onnxruntime=1.0, sparsec=0.5, litert=2.0)
    text = page([fact("lenet5", 1, 1, 0.9, onnxruntime=1.0, sparsec=0.4, setup=newer).after(older)], [])
    assert f"* {newer}: lenet5 (sparsec).\n* {HERE}: lenet5 (LiteRT)." in text
    assert "builds" not in text
    assert "from 2 builds" in page([older, fact(onnxruntime=1.0, sparsec=0.4, setup=newer)], [])


def by_title(facts, memory=()):
    return {(verdict.what, verdict.measure, len(verdict.points)): verdict for verdict in verdicts(facts, dict(memory))}


def test_verdicts_on_what_was_measured():
    found = by_title(facts_of_resnet(), {"resident": 0.2, "peak": 0.6, "ready": 0.9})
    speed = found["ResNet50, batch 1", Measure.SPEED.value, 3]
    assert (speed.missed, speed.measured, speed.row[2:]) == (
        False,
        True,
        ("80%/90%/95%", "2.00/3.30/4.60", "2.80/4.38/6.36", "yes"),
    )
    assert not found["ResNet50, batch 1", Measure.INT8.value, 1].measured
    assert found["ResNet50, batch 1, 2 threads", Measure.SCALING.value, 1].row[-2:] == ("1.02", "yes")
    assert not found["layers and networks, median", Measure.DEEPSPARSE.value, 1].measured
    met = {measure: verdict.row[-1] for (what, measure, _), verdict in found.items() if what == "memory and start"}
    assert list(met.values()) == ["yes", "NO", "yes"]


def test_without_results_nothing_is_missed():
    found = list(verdicts([], {}))
    assert not any(verdict.missed or verdict.measured for verdict in found)


def test_targets_are_of_workloads_that_there_are():
    for target in TARGETS:
        assert target.workload in WORKLOADS
        assert target.least
    about = [(target.measure, target.workload, target.batch, target.threads, *target.least) for target in TARGETS]
    assert len(about) == len(set(about))


def test_help_can_be_printed(capsys):
    with pytest.raises(SystemExit) as ended:
        native.main(["--help"])
    assert ended.value.code == 0
    assert "--check" in capsys.readouterr().out


@pytest.mark.parametrize(("milliseconds", "status"), [(16.0, 0), (60.0, 1)])
def test_check_fails_where_something_measured_is_missed(tmp_path, monkeypatch, capsys, milliseconds, status):
    results = Results(tmp_path)
    results.add([fact(onnxruntime=70.0, sparsec=milliseconds)])
    monkeypatch.setattr(native, "Results", lambda: results)
    monkeypatch.setattr(native.memory, "shares", dict)
    with pytest.raises(SystemExit) as ended:
        native.main(["--check"])
    assert ended.value.code == status
    assert "not measured" in capsys.readouterr().out


def test_a_workload_that_cannot_be_measured_does_not_end_the_others(tmp_path, monkeypatch, capsys):
    results = Results(tmp_path)

    def measured(case, engines, rounds, workers):
        if case.workload.name == "lenet300":
            raise MemoryError("no memory")
        return [fact(case.workload.name, case.batch, 1, share, onnxruntime=1.0, sparsec=0.5) for share in case.sparsities]

    monkeypatch.setattr(native, "Results", lambda: results)
    monkeypatch.setattr(native, "measure", measured)
    with pytest.raises(SystemExit, match="lenet300 batch 1 threads 1 zeros 90%: MemoryError: no memory"):
        native.main(["--workloads", "lenet300", "lenet5", "--batches", "1", "--sparsities", "0.9", "--peers"])
    assert [found.workload for found in Results(tmp_path).facts] == ["lenet5"]
    assert "lenet5" in (tmp_path / "native.md").read_text()
