"""Verification: the comparison of outputs, the inputs that are drawn, and the engines that run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edited_files import with_open_sizes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import sparsec
from sparsec.comparison import LEAST_RANGE, accuracy, compare, compare_all
from sparsec.executors import BATCH_SIZE, open_artefact
from sparsec.frontends import read
from sparsec.ir import Graph, Input, Port, TensorType, symbol
from sparsec.ops import make_node
from sparsec.pruning import prune_file
from sparsec.sampling import DEFAULT_RANGE, draw, given_ranges, guess_ranges
from sparsec.verification import verify

FROZEN = Path(__file__).parent / "frozen" / "keras-3.15.1"
LEGACY = Path(__file__).parent / "frozen" / "tf_keras-2.21.0"


@pytest.fixture
def no_keras(monkeypatch):
    """As if neither Keras nor tf_keras were installed; starting them takes seconds."""
    monkeypatch.setattr("sparsec.executors.find_spec", lambda name: None)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """``compiled(name, **options)``: the bundle and the ONNX file of a sample."""
    folder = tmp_path_factory.mktemp("compiled")

    def make(name, **options):
        result = sparsec.compile(FROZEN / f"{name}.keras", **options)
        for suffix in ("npz", "onnx"):
            result.save(folder / f"{name}.{suffix}")
        return folder / f"{name}.npz", folder / f"{name}.onnx"

    return make


# --- comparison --------------------------------------------------------------------------------------------------------

FLOATS = arrays(np.float32, (4, 3), elements=st.floats(-100, 100, width=32))


@given(FLOATS)
def test_an_output_equals_itself(a):
    found = compare("y", a, a)
    assert found.equal
    assert found.difference == 0
    assert found.flips.count == 0
    assert found.passed == found.varies


@given(FLOATS, st.floats(1e-6, 0.5), st.floats(0.1, 10))
def test_the_tolerance_is_a_part_of_the_range(a, tolerance, excess):
    a = a.astype(np.float64)
    magnitude = np.abs(a).max()
    scale = max(np.ptp(a), LEAST_RANGE * magnitude)
    b = a.copy()
    b[0, 0] += excess * tolerance * scale
    found = compare("y", a, b, tolerance)
    assert found.allowed == pytest.approx(tolerance * scale)
    if scale > 1e-3 and abs(excess - 1) > 1e-3:
        assert found.equal == (excess < 1)
        assert (found.relative <= tolerance) == found.equal


def test_what_is_not_finite_never_passes():
    a = np.array([[0.0, 1.0], [1.0, 0.0]])
    for value in (np.nan, np.inf):
        b = np.where(a == 1, value, a)
        assert not compare("y", a, b).passed
        assert not compare("y", b, a).passed
        assert not compare("y", b, b).passed


def test_an_output_that_does_not_vary_fails():
    a = np.broadcast_to(np.array([0.1, 0.9]), (5, 2))
    found = compare("y", a, a)
    assert found.equal
    assert not found.varies
    assert not found.passed
    assert compare("y", a[:1], a[:1]).passed
    assert not compare("y", np.zeros((5, 2)), np.zeros((5, 2))).passed


def test_a_single_value_is_held_to_its_magnitude():
    assert compare("y", np.array([[3.0]]), np.array([[3.0002]])).equal
    assert not compare("y", np.array([[3.0]]), np.array([[3.0004]])).equal


def test_flips_and_their_margins():
    a = np.array([[0.5, 0.3, 0.2], [0.4, 0.39, 0.21], [0.1, 0.2, 0.7]])
    b = a[:, [1, 0, 2]]
    flips = compare("y", a, b).flips
    assert (flips.count, flips.of) == (2, 3)
    assert flips.margin == pytest.approx(0.2)
    assert compare("y", a[:, :1], b[:, :1]).flips is None


def test_outputs_of_different_models_are_refused():
    with pytest.raises(sparsec.InputError, match="is it the same model"):
        compare("y", np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(sparsec.InputError, match="2 outputs"):
        compare_all(["a", "b"], [np.zeros(1)] * 2, [np.zeros(1)])


def test_accuracy():
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    labels = np.array([0, 1, 1, 1])
    assert accuracy(scores, labels) == 0.75
    assert accuracy(scores, labels[:, None]) == 0.75
    assert accuracy(scores, np.eye(2)[labels]) == 0.75
    assert accuracy(scores[:, 1:], labels) == 0.75
    assert accuracy(np.stack([scores, scores]), np.stack([labels, labels])) == 0.75
    with pytest.raises(sparsec.InputError, match=r"labels of shape \(3,\)"):
        accuracy(scores, labels[:3])


# --- inputs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "labels", "said"),
    [
        (np.eye(3), np.array([1, 2, 3]), r"label 3, but classes are numbered from 0 to 2"),
        (np.eye(3), np.array([0, 1, -1]), r"label -1"),
        (np.eye(3), np.array([0.0, 1.0, np.nan]), r"label nan"),
        (np.eye(3), np.array(["a", "b", "c"]), r"labels of dtype <U1 are no class numbers"),
        (np.zeros((3, 1)), np.array([-1, 1, 1]), r"label -1, but classes are numbered from 0 to 1"),
        (np.zeros((3, 1)), np.array([0.2, 0.0, 1.0]), r"label 0.2"),
    ],
)
def test_labels_that_no_output_can_equal_are_refused(output, labels, said):
    with pytest.raises(sparsec.InputError, match=said):
        accuracy(output, labels)


def scaled(scale, shift, channels=3):
    """A graph that begins with an affine layer."""
    weights = {"first/scale": np.full(channels, scale, np.float32)}
    inputs = ["x", "first/scale"]
    if shift is not None:
        weights["first/shift"] = np.full(channels, shift, np.float32)
        inputs.append("first/shift")
    nodes = (make_node("affine", "first", inputs, ["first"], layer="first"), make_node("relu", "y", ["first"], ["y"]))
    return Graph((Input("x", TensorType("float32", (symbol("N"), channels))),), (Port("y", "y"),), nodes, weights)


@pytest.mark.parametrize(
    ("scale", "shift", "low", "high"),
    [(1 / 255, None, 0, 255), (1 / 127.5, -1, 0, 255), (1 / 255, -0.5, 0, 255), (1 / 255, 0.5, -2.5 * 255, 1.5 * 255)],
)
def test_ranges_are_guessed_from_a_rescaling(scale, shift, low, high):
    (found,) = guess_ranges(scaled(scale, shift))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-5)
    assert "'first'" in found.reason


def test_ranges_are_guessed_from_a_normalization():
    graph = scaled(1.0, 0.0)
    mean, deviation = np.array([120.0, 110.0, 100.0]), np.array([60.0, 50.0, 40.0])
    weights = {"first/scale": 1 / deviation, "first/shift": -mean / deviation}
    (found,) = guess_ranges(graph.with_nodes(graph.nodes, weights))
    assert (found.low, found.high) == pytest.approx((0, 240))


@pytest.mark.parametrize(("dtype", "low", "high"), [("int32", 0, 1e12), ("int32", -3e9, 0), ("float32", -1e39, 0)])
def test_ranges_that_a_dtype_does_not_hold_are_refused(dtype, low, high):
    graph = Graph(inputs=(Input("x", TensorType(dtype, (symbol("N"), 3))),), outputs=(Port("x", "x"),), nodes=(), weights={})
    with pytest.raises(sparsec.InputError, match=f"of input 'x' does not fit {dtype}"):
        draw(graph, given_ranges(graph, low, high), 2, 0)


def test_ranges_without_a_hint():
    graph = read(FROZEN / "mlp.keras").graph
    (found,) = guess_ranges(graph)
    assert (found.low, found.high, found.reason) == (*DEFAULT_RANGE, "the default")
    (found,) = guess_ranges(scaled(-1.0, None))
    assert (found.low, found.high) == DEFAULT_RANGE


@given(st.integers(0, 2**32), st.floats(-10, 10), st.floats(0.1, 10))
def test_drawn_inputs_lie_in_their_range_and_repeat(seed, low, width):
    types = {"a": "float32", "b": "int32", "c": "bool"}
    graph = Graph(tuple(Input(n, TensorType(t, (symbol("N"), 2))) for n, t in types.items()), (Port("y", "a"),), (), {})
    ranges = given_ranges(graph, low, low + width)
    first, second = draw(graph, ranges, 5, seed), draw(graph, ranges, 5, seed)
    for array, again, dtype in zip(first, second, types.values(), strict=True):
        assert array.dtype == dtype
        assert array.shape == (5, 2)
        np.testing.assert_array_equal(array, again)
    assert first[0].min() >= np.float32(low)
    assert first[0].max() <= np.float32(low + width)
    assert first[1].min() >= low


# --- verify ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "nested", "ops", "series", "volume"])
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_artefacts_equal_their_reference(name, layout, compiled, no_keras):
    for artefact in compiled(name, onnx_layout=layout):
        result = verify(FROZEN / f"{name}.keras", artefact, samples=4)
        assert result.passed, result.failures
        assert result.reference_engine == "sparsec's evaluator"
        assert any("not installed" in note for note in result.notes)


def test_the_reference_runs_in_keras(compiled):
    keras = pytest.importorskip("keras")
    for name in ("nested", "ops", "lenet"):
        bundle, onnx = compiled(name)
        result = verify(FROZEN / f"{name}.keras", bundle)
        assert result.passed, result.failures
        assert result.reference_engine == f"Keras {keras.__version__}"
        assert result.notes == ()
        model = keras.models.load_model(FROZEN / f"{name}.keras")
        assert verify(model, onnx).passed


def test_keras_3_is_no_reference_for_what_keras_2_saved(tmp_path, monkeypatch):
    monkeypatch.setattr("sparsec.executors.find_spec", lambda name: None if name == "tf_keras" else object())
    sparsec.compile(LEGACY / "lenet.h5").save(tmp_path / "lenet.npz")
    result = verify(LEGACY / "lenet.h5", tmp_path / "lenet.npz")
    assert result.passed
    assert result.reference_engine == "sparsec's evaluator"
    assert "tf_keras is not installed; the file was saved by Keras 2" in result.notes[0]


def test_a_file_that_keras_cannot_load_runs_in_the_evaluator(compiled, monkeypatch):
    class Broken:
        __version__ = "3.0"

        class models:
            @staticmethod
            def load_model(*_, **__):
                raise TypeError("no such thing\nand more")

    monkeypatch.setattr("sparsec.executors.import_keras", lambda package: Broken)
    result = verify(FROZEN / "mlp.keras", compiled("mlp")[0])
    assert result.passed
    assert "cannot load the file (TypeError: no such thing and more)" in result.notes[0]


def test_a_keras_file_can_be_the_artefact(tmp_path, no_keras):
    prune_file(FROZEN / "mlp.keras", tmp_path / "pruned.keras", sparsity=0.9)
    assert verify(FROZEN / "mlp.keras", FROZEN / "mlp.keras").passed
    result = verify(FROZEN / "mlp.keras", tmp_path / "pruned.keras")
    assert not result.passed
    assert "differs by" in result.failures[0]


def test_a_dead_model_proves_nothing(tmp_path, no_keras):
    prune_file(FROZEN / "mlp.keras", tmp_path / "dead.keras", sparsity=0.99, skip="dense_1")
    sparsec.compile(tmp_path / "dead.keras").save(tmp_path / "dead.npz")
    result = verify(tmp_path / "dead.keras", tmp_path / "dead.npz", input_range=(0, 1e-12))
    assert not result.passed
    assert "does not vary" in result.failures[0]


def test_data_gives_the_accuracy_of_both(compiled, tmp_path, no_keras):
    bundle, _ = compiled("mlp")
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, (50, 6)).astype(np.float32)
    labels = sparsec.load(bundle)(x).argmax(axis=1)
    labels[:10] = (labels[:10] + 1) % 3
    np.savez(tmp_path / "xy.npz", x=x, y=labels)
    result = verify(FROZEN / "mlp.keras", bundle, data=tmp_path / "xy.npz")
    assert result.accuracy == (0.8, 0.8)
    assert result.samples == 50
    both = verify(FROZEN / "mlp.keras", bundle, data=tmp_path / "xy.npz", inputs=[x[:7]])
    assert (both.accuracy, both.samples) == ((0.8, 0.8), 7)


def test_a_single_sample_is_noted(compiled, no_keras):
    result = verify(FROZEN / "mlp.keras", compiled("mlp")[0], inputs=[np.ones((1, 6))])
    assert result.passed
    assert any("single sample" in note for note in result.notes)


def test_models_run_in_batches(compiled):
    executor = open_artefact(compiled("mlp")[0])
    x = np.random.default_rng(0).uniform(-1, 1, (2 * BATCH_SIZE + 3, 6)).astype(np.float32)
    told = []
    (y,) = executor([x], lambda done, total: told.append((done, total)))
    np.testing.assert_allclose(y, sparsec.load(compiled("mlp")[0])(x), rtol=1e-5)
    assert told == [(n, len(x)) for n in (BATCH_SIZE, 2 * BATCH_SIZE, len(x))]


def test_sizes_that_the_model_leaves_open_come_from_the_artefact(tmp_path, no_keras):
    source = with_open_sizes(FROZEN / "volume.keras", tmp_path / "open.keras", [None, None, None, 2])
    result = sparsec.compile(source, input_shape=[(6, 8, 4, 2)], onnx_layout="nchw")
    result.save(tmp_path / "bound.onnx")
    found = verify(source, tmp_path / "bound.onnx", samples=3)
    assert found.passed
    assert "(6, 8, 4, 2)" in found.inputs
    sparsec.compile(source).save(tmp_path / "open.npz")
    assert "(9, 8, 7, 2)" in verify(source, tmp_path / "open.npz", samples=2, input_shape=[(9, 8, 7, 2)]).inputs


def test_inputs_and_outputs_may_be_dicts(tmp_path):
    keras = pytest.importorskip("keras")
    inputs = {"b": keras.Input((4,), name="b"), "a": keras.Input((3,), name="a")}
    hidden = keras.layers.Dense(5, activation="tanh")(keras.layers.Concatenate()([inputs["b"], inputs["a"]]))
    outputs = {"z": keras.layers.Dense(2)(hidden), "y": keras.layers.Dense(3)(hidden)}
    model = keras.Model(inputs, outputs)
    model.save(tmp_path / "model.keras")
    for suffix in ("npz", "onnx"):
        sparsec.compile(model).save(tmp_path / f"model.{suffix}")
        for reference in (model, tmp_path / "model.keras"):
            result = verify(reference, tmp_path / f"model.{suffix}")
            assert result.passed, result.failures
            assert {output.output for output in result.outputs} == {"y", "z"}


def test_what_keras_raises_is_reported_in_short(compiled, monkeypatch):
    class Model:
        input = [type("Tensor", (), {"name": "input_layer"})]

        def __call__(self, *_, **__):
            raise ValueError("\x1b[1mtoo\nbad\x1b[0m " + "x" * 1000)

    class Keras:
        __version__ = "3.0"

        class models:
            @staticmethod
            def load_model(*_, **__):
                return Model()

    monkeypatch.setattr("sparsec.executors.import_keras", lambda package: Keras)
    with pytest.raises(sparsec.InputError, match=r"Keras 3.0 cannot run it on these inputs \(too bad \.\.\.\)"):
        verify(FROZEN / "mlp.keras", compiled("mlp")[0])
