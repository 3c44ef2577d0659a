"""The bench: every figure is a number or a reason, and results have the documented form."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest

from sparsec.backends.onnx import export_onnx
from sparsec.bench import BenchResult, Entry, Latency, Machine, Memory, NotMeasured, Settings, run_bench
from sparsec.bench import measure as bench_measure
from sparsec.bench.machine import cpu_model, package_versions
from sparsec.bench.runners import RUNNERS, OnnxRunner, Port, Request, UnavailableError, runner_for
from sparsec.bundle import write_bundle
from sparsec.errors import FormatError, InputError, MissingExtraError
from sparsec.ir import BATCH, Graph, Input, TensorType, symbol
from sparsec.ir import Port as GraphPort
from sparsec.lowering import lower
from sparsec.ops import evaluate_graph, make_node

FORMATS = Path(__file__).parent.parent / "formats"
FROZEN = Path(__file__).parent / "frozen"


def small_graph():
    rng = np.random.default_rng(0)
    window = {"strides": (1, 1), "dilations": (1, 1), "padding": "same"}
    nodes = (
        make_node("conv", "c", ["x", "c/kernel"], ["c"], **window),
        make_node("relu", "r", ["c"], ["r"]),
        make_node("reduce_mean", "m", ["r"], ["m"], axes=(1, 2)),
        make_node("dense", "d", ["m", "d/kernel"], ["d"]),
    )
    shapes = {"c/kernel": (3, 3, 3, 8), "d/kernel": (8, 4)}
    weights = {name: rng.standard_normal(shape).astype("float32") for name, shape in shapes.items()}
    weights["c/kernel"][rng.random((3, 3, 3, 8)) < 0.9] = 0
    return Graph((Input("x", TensorType("float32", (symbol(BATCH), 6, 6, 3))),), (GraphPort("y", "d"),), nodes, weights)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    graph = small_graph()
    write_bundle(folder / "m.npz", lower(graph))
    export_onnx(graph, folder / "m.onnx")
    export_onnx(graph, folder / "channels_first.onnx", layout="nchw")
    x = np.random.default_rng(1).standard_normal((250, 6, 6, 3)).astype("float32")
    labels = evaluate_graph(graph, [x])[0].argmax(-1)
    labels[:50] = 3 - labels[:50]
    np.savez(folder / "xy.npz", x=x, y=labels)
    return folder


@pytest.fixture(scope="module")
def result(files):
    steps = []
    found = run_bench(
        files / "m.onnx",
        [files / "m.npz", files / "channels_first.onnx"],
        batch=(1, 3),
        threads=1,
        device="all",
        data=files / "xy.npz",
        input_shapes=[(6, 6, 3)],
        rounds=5,
        progress=lambda what, part: steps.append((what, part)),
    )
    return found, steps


def figures(value):
    """Every figure of a result."""
    if isinstance(value, float | int | NotMeasured):
        return [value]
    if is_dataclass(value):
        return [figure for field in fields(value) for figure in figures(getattr(value, field.name))]
    return [figure for item in value for figure in figures(item)] if isinstance(value, tuple) else []


def schema_errors(facts):
    schema = json.loads((FORMATS / "bench.schema.json").read_text())
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(facts)]


def test_everything_on_the_cpu_is_measured(result):
    found, _ = result
    assert [entry.engine for entry in (found.reference, *found.artefacts)] == ["onnxruntime", "sparsec", "onnxruntime"]
    for entry in (found.reference, *found.artefacts):
        on_cpu = [item for item in entry.latency if item.device == "cpu"]
        assert [item.batch for item in on_cpu] == [1, 3]
        assert not [figure for figure in figures(replace(entry, latency=tuple(on_cpu))) if isinstance(figure, NotMeasured)]
        for item in on_cpu:
            assert 0 < item.minimum_ms <= item.median_ms
            assert item.iqr_ms >= 0
        assert 0 < entry.memory.loaded <= entry.memory.peak
        assert entry.memory.running <= entry.memory.peak < 500e6
        assert entry.load_ms > 0
        assert entry.accuracy == pytest.approx(0.8)


def test_file_sizes_and_settings(result, files):
    found, _ = result
    assert found.reference.file_bytes == (files / "m.onnx").stat().st_size
    assert found.artefacts[0].file == "m.npz"
    assert found.settings == Settings((1, 3), 1, ("cpu", "gpu"), 5, 0, "xy.npz", 250)
    assert {"python", "sparsec", "numpy", "onnxruntime"} <= found.versions.keys()
    assert found.machine.cores >= 1
    assert found.machine.cpu


def test_a_gpu_that_is_not_there_is_not_measured(result):
    found, _ = result
    if found.machine.gpus:
        pytest.skip("this machine has a GPU")
    on_gpu = [item for entry in (found.reference, *found.artefacts) for item in entry.latency if item.device == "gpu"]
    assert len(on_gpu) == 6
    reasons = {item.median_ms.reason for item in on_gpu}
    assert any("CUDAExecutionProvider" in reason for reason in reasons)
    assert "sparsec runs bundles on the CPU" in reasons
    ratios = found.ratios(found.artefacts[0])
    assert [isinstance(ratio, NotMeasured) for ratio in ratios.latency] == [False, False, True, True]


def test_progress_goes_from_nothing_to_all(result):
    _, steps = result
    parts = [part for _, part in steps]
    assert parts == sorted(parts)
    assert parts[0] == 0.0
    assert parts[-1] == pytest.approx(1.0)
    assert {"memory of m.onnx", "latency on the cpu", "accuracy on xy.npz"} <= {what for what, _ in steps}


def test_json_conforms_to_its_schema(result):
    found, _ = result
    facts = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert schema_errors(facts) == []
    assert facts["artefacts"][0]["ratios"]["file"] == found.reference.file_bytes / found.artefacts[0].file_bytes


def test_schema_refuses_what_the_page_forbids(result):
    found, _ = result

    def changed(change):
        facts = found.to_json()
        change(facts)
        return schema_errors(facts)

    assert changed(lambda f: f.update(version=2))
    assert changed(lambda f: f["reference"].update(accuracy=None))
    assert changed(lambda f: f["reference"].pop("accuracy"))
    assert changed(lambda f: f["reference"].update(accuracy={"not_measured": ""}))
    assert changed(lambda f: f["artefacts"][0].pop("ratios"))
    assert changed(lambda f: f["reference"]["latency"][0].update(device="tpu"))
    assert not changed(lambda f: f.update(later_member=1))


def test_page_and_schema_name_the_same_members(result):
    page = (FORMATS / "bench.md").read_text()
    found, _ = result

    def names(value):
        if isinstance(value, dict):
            return set(value).union(*(names(item) for item in value.values()))
        return set().union(*(names(item) for item in value)) if isinstance(value, list) else set()

    facts = found.to_json()
    facts["versions"] = {}
    assert [name for name in names(facts) if f"`{name}`" not in page and name != "not_measured"] == []


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"artefacts": ["no_such.npz"]}, r"no_such\.npz: there is no such file"),
        ({"artefacts": ["m.txt"]}, r"the suffix '\.txt' is none of \.npz, \.onnx, \.keras"),
        ({"device": "tpu"}, "device 'tpu' is none of cpu, gpu, all"),
        ({"batch": 0}, "batch 0 is too small"),
        ({"batch": ()}, "no batch size"),
        ({"threads": 0}, "threads 0 is too small"),
        ({"rounds": 0}, "rounds 0 is too small"),
        ({"seed": -1}, "seed -1 is negative"),
        ({"data": "no_such.npz"}, r"no_such\.npz: there is no such file"),
    ],
)
def test_arguments_are_checked_before_anything_runs(files, arguments, message, monkeypatch):
    monkeypatch.setattr(bench_measure, "_run_worker", None)
    with pytest.raises(InputError, match=message):
        run_bench(files / "m.onnx", arguments.pop("artefacts", []), **arguments)


def test_damaged_files_are_errors(files, tmp_path):
    for name in ("bad.npz", "bad.onnx"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            run_bench(tmp_path / name, [], rounds=1)
    (tmp_path / "bad.keras").write_bytes(b"nothing")
    with pytest.raises(FormatError):
        run_bench(tmp_path / "bad.keras", [], rounds=1)


def test_data_that_does_not_fit_is_an_error(files, tmp_path):
    np.savez(tmp_path / "xy.npz", x=np.zeros((4, 5, 5, 3), "float32"), y=np.zeros(4, int))
    with pytest.raises(InputError, match=r"m\.npz: input .* does not take an array of shape \(4, 5, 5, 3\)"):
        run_bench(files / "m.npz", [], rounds=1, data=tmp_path / "xy.npz")


def test_psutil_is_named_with_its_extra(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sparsec\[report\]'"):
        run_bench(files / "m.npz", [])


def test_a_worker_that_dies_leaves_a_reason(files, tmp_path, monkeypatch):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho out of memory >&2\nexit 9\n")
    fake.chmod(0o755)
    monkeypatch.setattr(bench_measure.sys, "executable", str(fake))
    found = run_bench(files / "m.npz", [files / "m.onnx"], data=files / "xy.npz")
    everything = figures(replace(found.reference, file_bytes=NotMeasured("left out"), latency=()))
    assert everything
    assert all(isinstance(figure, NotMeasured) for figure in everything)
    assert found.reference.load_ms.reason == "the process that measured ended with status 9: out of memory"
    assert schema_errors(found.to_json()) == []


def test_open_sizes_ask_for_a_shape(tmp_path):
    entry = Input("x", TensorType("float32", (symbol(BATCH), symbol("H"), symbol("W"), 2)))
    graph = Graph((entry,), (GraphPort("y", "r"),), (make_node("relu", "r", ["x"], ["r"]),), {})
    write_bundle(tmp_path / "open.npz", lower(graph))
    with pytest.raises(InputError, match=r"input 'x' has open sizes.*give its shape"):
        run_bench(tmp_path / "open.npz", [], rounds=1)
    found = run_bench(tmp_path / "open.npz", [], rounds=1, input_shapes=[(4, 5, 2)])
    assert found.reference.latency[0].median_ms > 0


def test_one_missing_engine_does_not_keep_the_others_from_being_measured(files, monkeypatch):
    """The CUDA provider is not there; the job of the CPU still has both models."""
    job = {
        "job": "latency",
        "models": [asdict(Request(str(files / "m.npz"), "gpu")), asdict(Request(str(files / "m.npz")))],
        "batches": [1],
        "shapes": None,
        "rounds": 2,
        "seed": 0,
        "threads": 1,
    }
    environment = {"PYTHONPATH": str(FORMATS.parent)}
    times = bench_measure._run_worker(job, environment, lambda part: None)["times"]
    assert times[0] == "sparsec runs bundles on the CPU"
    assert len(times[1][0]) == 2


# --- runners --------------------------------------------------------------------------------------------------------


def test_runners_by_suffix():
    assert {suffix: runner_for(Path(f"model{suffix}")).engine for suffix in (".npz", ".onnx", ".keras", ".H5")} == {
        ".npz": "sparsec",
        ".onnx": "onnxruntime",
        ".keras": "keras",
        ".H5": "keras",
    }
    suffixes = [suffix for runner in RUNNERS.values() for suffix in runner.suffixes]
    assert len(suffixes) == len(set(suffixes))


@pytest.mark.parametrize("name", ["onnxruntime", "tensorflow"])
def test_engines_that_are_not_installed_name_their_extra(files, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    engine, extra = ("onnxruntime", "onnx") if name == "onnxruntime" else ("keras", "keras")
    with pytest.raises(MissingExtraError, match=rf"pip install 'sparsec\[{extra}\]'"):
        RUNNERS[engine](Request("model"))


class FakeCuda:
    """ONNX Runtime as it behaves with a GPU, or where its CUDA libraries do not load."""

    __version__ = "0.0"

    def __init__(self, works):
        self.works = works
        self.log = []
        self.OrtValue = SimpleNamespace(ortvalue_from_numpy=lambda x, device, index: (device, x))

    def SessionOptions(self):
        return SimpleNamespace()

    def get_available_providers(self):
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def InferenceSession(self, path, options, providers):
        fake, used = self, providers if self.works else providers[1:]
        bound = {}

        class Binding:
            def bind_ortvalue_input(self, name, value):
                bound[name] = value

            def bind_output(self, name, device):
                fake.log.append(f"output {name} on {device}")

            def synchronize_outputs(self):
                fake.log.append("synchronised")

            def get_outputs(self):
                return [SimpleNamespace(numpy=lambda: bound["x"][1] * 2)]

        return SimpleNamespace(
            get_providers=lambda: used,
            get_inputs=lambda: [SimpleNamespace(name="x", shape=["N", 4], type="tensor(float)")],
            get_outputs=lambda: [SimpleNamespace(name="y")],
            io_binding=Binding,
            run_with_iobinding=lambda binding: fake.log.append(f"run on {bound['x'][0]}"),
        )


def test_onnx_runner_on_a_gpu_keeps_inputs_on_the_device(monkeypatch):
    fake = FakeCuda(works=True)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    runner = OnnxRunner(Request("m.onnx", "gpu", threads=2))
    assert runner.ports == (Port("x", (None, 4), "float32"),)
    call = runner.bind([np.ones((1, 4), "float32")])
    outputs = [call(), call()][-1]
    assert fake.log == ["output y on cuda", "run on cuda", "synchronised", "run on cuda", "synchronised"]
    np.testing.assert_array_equal(runner.arrays(outputs)[0], np.full((1, 4), 2))


def test_onnx_runner_whose_gpu_does_not_start_is_unavailable(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", FakeCuda(works=False))
    with pytest.raises(UnavailableError, match="could not start CUDAExecutionProvider"):
        OnnxRunner(Request("m.onnx", "gpu"))


@pytest.mark.slow
@pytest.mark.parametrize("file", ["keras-3.15.1/lenet.keras", "tf_keras-2.21.0/lenet.h5"])
def test_keras_reference(file, files):
    found = run_bench(FROZEN / file, [], batch=2, rounds=3, device="all")
    entry = found.reference
    assert entry.engine == "keras"
    on_cpu, on_gpu = entry.latency
    assert on_cpu.median_ms > 0
    assert entry.memory.peak > 100e6
    if not found.machine.gpus:
        assert "sees no GPU" in on_gpu.median_ms.reason


# --- parts ----------------------------------------------------------------------------------------------------------


def entry_with(file_bytes=100, running=50.0, median=2.0):
    memory = Memory(running, running, running)
    return Entry("m", "sparsec", file_bytes, 1.0, memory, (Latency("cpu", 1, median, 0.1, 1.0),), NotMeasured("no data"))


def test_ratios_say_how_many_times_better():
    reference, artefact = entry_with(), entry_with(25, 100.0, 1.0)
    found = BenchResult(Machine("cpu", 1, 1, "os"), {}, Settings((1,), 1, ("cpu",), 1, 0), reference, (artefact,))
    ratios = found.ratios(artefact)
    assert (ratios.file, ratios.memory, ratios.latency) == (4.0, 0.5, (2.0,))
    for worse in (entry_with(median=NotMeasured("why")), entry_with(median=0.0)):
        (ratio,) = found.ratios(worse).latency
        assert isinstance(ratio, NotMeasured)
        assert ratio.reason.startswith("the artefact was")


def test_statistics_of_latency():
    (latency,) = bench_measure._latencies("cpu", [4], [[1.0, 2.0, 3.0, 4.0, 100.0]])
    assert latency == Latency("cpu", 4, 3.0, 2.0, 1.0)
    (latency,) = bench_measure._latencies("gpu", [4], "no GPU")
    assert latency.median_ms == latency.iqr_ms == NotMeasured("no GPU")


def test_inputs_are_fitted_to_a_model():
    from sparsec.bench import worker

    x = np.arange(2 * 4 * 5 * 3, dtype="float32").reshape(2, 4, 5, 3)

    def fit(*shape, dtype="float32"):
        return worker._fit([x], SimpleNamespace(label="m.npz", ports=(Port("x", (None, *shape), dtype),)))[0]

    assert fit(4, 5, 3) is x
    np.testing.assert_array_equal(fit(3, 4, 5), np.moveaxis(x, -1, 1))
    assert fit(None, None, 3, dtype="float16").dtype == np.float16
    with pytest.raises(InputError, match="does not take an array of shape"):
        fit(7, 5, 3)
    with pytest.raises(InputError, match=r"m\.npz: takes 0 inputs, 1 were expected"):
        worker._fit([x], SimpleNamespace(label="m.npz", ports=()))


def test_short_calls_are_repeated_until_the_clock_can_tell():
    from sparsec.bench import worker

    calls = []
    assert worker._warm_up(lambda: calls.append(0)) > 100
    assert len(calls) >= worker.WARM_UP_CALLS


def test_threads_reach_the_worker(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def environment(threads, device):
        bench = bench_measure._Bench([], Settings((1,), threads, (device,), 1, 0), None, None)
        return bench._environment(device)

    assert environment(3, "cpu")["OMP_NUM_THREADS"] == "3"
    assert environment(3, "cpu")["CUDA_VISIBLE_DEVICES"] == "-1"
    assert "CUDA_VISIBLE_DEVICES" not in environment(None, "gpu")


def test_machine_and_versions():
    assert cpu_model()
    versions = package_versions(["numpy", "no-such-package"])
    assert versions.keys() == {"python", "numpy"}
