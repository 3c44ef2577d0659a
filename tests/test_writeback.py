"""Writing shrunk models back to Keras: Keras loads the files, computes the same and trains on; the rest of each file stays."""

from __future__ import annotations

import json
import os
import shutil
import warnings
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import h5py
import keras
import numpy as np
import pytest
from conformance.models import MODELS, randomise
from keras import layers as L
from keras_models import fill, keras_outputs, random_inputs

from sparsec.backends.keras import shrink, write_keras
from sparsec.backends.keras.edits import LayerEdit
from sparsec.backends.keras.optimizer import edit_optimizer
from sparsec.backends.keras.rules import RULES
from sparsec.backends.keras.shapes import corrected
from sparsec.errors import InputError
from sparsec.frontends import SUFFIXES, read
from sparsec.frontends.files import open_source
from sparsec.ops import evaluate_graph
from sparsec.passes.shrink import ShrinkPlan, WeightEdit
from sparsec.passes.shrink import shrink as shrink_graph
from sparsec.passes.simplify import simplify
from sparsec.pruning import prune_file, prune_units

FROZEN = Path(__file__).parent / "frozen"
FILES = sorted(path for path in FROZEN.glob("*/*") if path.suffix in SUFFIXES)
WITHOUT_UNITS = {"axes", "categories", "gru", "images", "local", "masked", "ops", "steps", "words"}
"""Samples of which nothing goes when units are pruned: they have none, or the biases of their cells move them."""

WRITTEN = [path for path in FILES if path.stem != "attention"]
"""Those of which a smaller file can be written: one projection of that sample's attention would need a bias."""

TOLERANCE = 1e-5

NOTHING_TO_PRUNE = {"arithmetic_between_tensors", "outputs_of_every_kind"}


@pytest.fixture(autouse=True)
def _fresh_names():
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


def plan_of(source, multiple=None):
    return shrink_graph(simplify(read(source).graph), multiple)[1]


@contextmanager
def lenient():
    """What Keras says about legacy files, and about files of models that were compiled but never trained."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def saved(model, path):
    with lenient():
        model.save(path)
    return path


def loaded(path):
    with lenient():
        return keras.models.load_model(path)


def assert_equal_outputs(before, after):
    inputs = random_inputs(before)
    for a, b in zip(keras_outputs(before, inputs), keras_outputs(after, inputs), strict=True):
        assert np.abs(a - b).max() <= TOLERANCE * max(np.ptp(a), 0.1 * np.abs(a).max())


def assert_same_kind(before, after):
    assert type(after) is type(before)
    assert after.name == before.name
    assert [(type(layer), layer.name) for layer in after.layers] == [(type(layer), layer.name) for layer in before.layers]
    for one, other in zip(before.layers, after.layers, strict=True):
        if hasattr(one, "layers"):
            assert_same_kind(one, other)


def pruned(model, sparsity=0.5, whole=False):
    fill(model)
    prune_units(model, sparsity, whole=whole)
    return model


def written_back(model, folder, suffix=".keras"):
    source, out = saved(model, folder / f"before{suffix}"), folder / f"after{suffix}"
    facts = write_keras(source, plan_of(source), out)
    assert facts.bytes == out.stat().st_size
    return loaded(out), facts


def check_both(model, folder, suffixes=SUFFIXES[:2]):
    """The model through files of every kind and in memory; returns the smaller one."""
    small = shrink(model)
    for after in (*(written_back(model, folder, suffix)[0] for suffix in suffixes), small):
        assert_same_kind(model, after)
        assert_equal_outputs(model, after)
        assert after.count_params() == small.count_params() < model.count_params()
    return small


def stated_config(item):
    """A configuration without what Keras leaves to itself: how layers were built, and which objects are shared."""
    if isinstance(item, dict):
        return {key: stated_config(value) for key, value in item.items() if key not in ("build_config", "shared_object_id")}
    return [stated_config(value) for value in item] if isinstance(item, list) else item


def config_in(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


# --- architectures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(MODELS.keys() - NOTHING_TO_PRUNE))
def test_architectures_come_back_smaller_and_equal(name, tmp_path):
    seed = list(MODELS).index(name)
    model = randomise(MODELS[name](), seed, zeros=0.0)
    prune_units(model, 0.5, whole=seed % 2 == 0)
    after, _ = written_back(model, tmp_path)
    small = shrink(model)
    for result in (after, small):
        assert_same_kind(model, result)
        assert_equal_outputs(model, result)
    assert [w.shape for w in after.weights] == [w.shape for w in small.weights]
    # What the file states is what Keras works out for itself, shapes in calls and of inner inputs included.
    own = json.loads(after.to_json())
    assert stated_config(config_in(tmp_path / "after.keras")["config"]) == stated_config(own["config"])


def nested_model():
    """A Sequential and a Functional model whose inputs shrink, the second called twice, and two outputs."""
    sequential = keras.Sequential([keras.Input((12,)), L.Dense(10, activation="relu"), L.Dense(8)], name="sequential_part")
    x = keras.Input((8,))
    functional = keras.Model(x, L.Dense(8, activation="tanh")(L.Dropout(0.1)(x)), name="functional_part")
    inputs = keras.Input((5,))
    y = sequential(L.Dense(12, activation="relu", name="stem")(inputs))
    y = functional(functional(y))
    return keras.Model(inputs, [L.Dense(3, name="a")(y), L.Dense(2, name="b")(y)])


def gated_model():
    """A gate through a Reshape, and a Reshape that does nothing, in front of a merge."""
    inputs = keras.Input((9, 9, 2))
    x = L.Conv2D(8, 3, activation="relu")(inputs)
    gate = L.Reshape((1, 1, 8))(L.GlobalAveragePooling2D()(x))
    gate = L.Conv2D(8, 1, activation="sigmoid")(L.Reshape((1, 1, 8), name="idle")(gate))
    x = L.Concatenate()([L.Multiply()([x, gate]), L.SeparableConv2D(6, 3, padding="same")(x)])
    return keras.Model(inputs, L.Conv2D(3, 1)(L.Conv2DTranspose(6, 2, strides=2)(x)))


@pytest.mark.parametrize("build", [nested_model, gated_model])
def test_nested_models_and_gates(build, tmp_path):
    small = check_both(pruned(build(), whole=True), tmp_path)
    if build is nested_model:
        assert small.get_layer("sequential_part").input_shape == (None, 6)
        assert small.get_layer("functional_part").input_shape == (None, 4)
    else:
        assert small.get_layer("idle").target_shape == (1, 1, 4)


def test_nested_models_state_the_shapes_of_their_inputs(tmp_path):
    written_back(pruned(nested_model(), whole=True), tmp_path)
    parts = {item["name"]: item["config"] for item in config_in(tmp_path / "after.keras")["config"]["layers"]}
    assert parts["sequential_part"]["build_input_shape"] == [None, 6]
    assert [part["layers"][0]["config"]["batch_shape"] for part in (parts["sequential_part"], parts["functional_part"])] == [
        [None, 6],
        [None, 4],
    ]


@pytest.mark.parametrize("suffix", SUFFIXES[:2])
@pytest.mark.parametrize("nested", [False, True])
def test_a_layer_without_bias_gets_one(nested, suffix, tmp_path):
    part = [L.Dense(8, activation="sigmoid"), L.Dense(6, use_bias=False, activation="relu", name="biasless"), L.Dense(4)]
    norm = [L.BatchNormalization(), L.Dense(2)]
    model = keras.Sequential([keras.Input((5,)), *([keras.Sequential([keras.Input((5,)), *part])] if nested else part), *norm])
    model = pruned(model)
    model.compile("adam", keras.losses.MeanSquaredError())
    model.train_on_batch(np.ones((4, 5)), np.zeros((4, 2)))
    prune_units(model, 0.5)
    after, facts = written_back(model, tmp_path, suffix)
    assert_same_kind(model, after)
    assert_equal_outputs(model, after)
    layer = (after.layers[0] if nested else after).get_layer("biasless")
    assert layer.use_bias
    assert layer.bias.numpy().any()
    assert (facts.optimizer, facts.optimizer_reason) == ("dropped", "a layer gets a bias that it had not")
    with pytest.warns(UserWarning, match="fresh optimizer: a layer gets a bias"):
        small = shrink(model)
    assert_equal_outputs(model, small)


def test_separable_convolution_gets_a_bias(tmp_path):
    inputs = keras.Input((8, 8, 2))
    x = L.Conv2D(6, 3, activation="sigmoid")(inputs)
    x = L.SeparableConv2D(6, 1, depth_multiplier=2, use_bias=False, activation="relu", name="biasless")(x)
    model = keras.Model(inputs, L.Conv2D(2, 3)(x))
    fill(model)
    prune_units(model, 0.5, group=False, skip="biasless")
    small = check_both(model, tmp_path)
    assert small.get_layer("biasless").bias.numpy().any()


def normalised(kind):
    """Constants that stand in the configuration, or in variables that are no weights of the graph, between two layers."""
    if kind == "rescaling":
        return L.Rescaling(scale=[0.5, 1.0, 1.5, 2.0, 2.5, 3.0], offset=0.5)
    if kind == "given":
        return L.Normalization(mean=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], variance=[1.0, 2.0, 1.0, 2.0, 1.0, 2.0])
    layer = L.Normalization()
    layer.adapt(np.random.default_rng(0).normal(size=(50, 6)))
    return layer


@pytest.mark.parametrize("kind", ["rescaling", "given", "adapted"])
def test_constants_of_layers_shrink(kind, tmp_path):
    model = keras.Sequential([keras.Input((4,)), L.Dense(6, activation="relu"), normalised(kind), L.Dense(3)])
    first, last = model.layers[0], model.layers[-1]
    rng = np.random.default_rng(1)
    for layer in (first, last):
        layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    prune_units(model, 0.5)
    # Keras does not load statistics of a legacy file that holds adapted ones as they are saved.
    check_both(model, tmp_path, (".keras",))


def test_prelu_and_layer_norm_over_positions(tmp_path):
    inputs = keras.Input((6, 4))
    x = L.PReLU(shared_axes=[1])(L.Conv1D(8, 3, padding="same")(inputs))
    x = L.BatchNormalization(scale=False)(x)
    check_both(pruned(keras.Model(inputs, L.Dense(2)(L.GlobalMaxPooling1D()(x)))), tmp_path)


def test_options_of_layers_survive(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            L.Dense(
                8,
                activation="relu",
                dtype="float64",
                kernel_initializer=keras.initializers.HeNormal(seed=3),
                kernel_regularizer=keras.regularizers.L1L2(0.25, 0.5),
                bias_constraint="non_neg",
                name="with_options",
            ),
            L.Dense(2, dtype="float64", trainable=False),
        ]
    )
    small = check_both(pruned(model), tmp_path)
    before, after = model.get_layer("with_options").get_config(), small.get_layer("with_options").get_config()
    assert after == {**before, "units": 4}
    assert not small.layers[1].trainable


# --- frozen samples -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WRITTEN, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_files_of_every_version(path, tmp_path):
    source, out = tmp_path / f"source{path.suffix}", tmp_path / f"out{path.suffix}"
    try:
        prune_file(path, source, method="unit", sparsity=0.5)
    except InputError:
        shutil.copyfile(path, source)
    model, plan = read(source), plan_of(source, 1)
    assert plan.empty == (path.stem in WITHOUT_UNITS)
    facts = write_keras(source, plan, out)
    small = read(out)
    assert facts.optimizer != "dropped"
    if plan.empty:
        assert out.read_bytes() == source.read_bytes()
        return
    count, left = (sum(w.size for w in one.graph.weights.values()) for one in (model, small))
    assert left < count
    with np.load(path.with_suffix(".npz")) as stored:
        inputs = [stored[name] for name in sorted(stored) if name.startswith("x")]
    wanted, found = (evaluate_graph(one.graph.lifted("float64"), inputs, dtype="float64") for one in (model, small))
    for a, b in zip(wanted, found, strict=True):
        # Constants moved into biases are rounded to the biases' own precision.
        assert np.abs(a - b).max() <= 1e-6 * np.abs(a).max()


KERAS_LOADS = [p for p in WRITTEN if p.parent.name in ("keras-3.0.5", "keras-3.10.0") and p.suffix == ".keras"]
"""Files of older versions; of those of Keras 2 few load in Keras 3, shrunk or not."""


@pytest.mark.parametrize(
    "path", [p for p in KERAS_LOADS if p.stem not in WITHOUT_UNITS], ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_keras_loads_what_older_versions_wrote(path, tmp_path):
    source, out = tmp_path / "source.keras", tmp_path / "out.keras"
    prune_file(path, source, method="unit", sparsity=0.5)
    write_keras(source, plan_of(source), out)
    before, after = loaded(source), loaded(out)
    assert_same_kind(before, after)
    assert_equal_outputs(before, after)
    assert after.count_params() < before.count_params()


@pytest.mark.parametrize("path", sorted((FROZEN / "tfmot-0.8.1").glob("pruned_*.h5")), ids=lambda p: p.name)
def test_masks_of_pruning_wrappers_are_sliced(path, tmp_path):
    source, out = tmp_path / "source.h5", tmp_path / "out.h5"
    prune_file(path, source, method="unit", sparsity=0.5)
    write_keras(source, plan_of(source, 1), out)
    masks, shapes = {}, {}
    for file in (source, out):
        with h5py.File(file) as h5:

            def visit(name, item, file=file):
                if name.endswith("mask:0"):
                    masks.setdefault(file, []).append(item.shape)
                elif name.endswith("kernel:0") and "depthwise" not in name and name.startswith("model_weights"):
                    shapes.setdefault(file, []).append(item.shape)

            h5.visititems(visit)
    assert masks[source] != masks[out]
    assert set(masks[out]) <= set(shapes[out])


def test_wrapped_archive_keeps_copies_of_kernels_equal(tmp_path):
    path = next((FROZEN / "tfmot-0.8.1").glob("pruned_sequential.keras"))
    source, out = tmp_path / "source.keras", tmp_path / "out.keras"
    prune_file(path, source, method="unit", sparsity=0.5)
    write_keras(source, plan_of(source), out)
    with zipfile.ZipFile(out) as archive:
        archive.extract("model.weights.h5", tmp_path)
    with h5py.File(tmp_path / "model.weights.h5") as h5:
        wrapped = [g for g in h5["layers"].values() if len(g["vars"]) == 4]
        assert wrapped
        for group in wrapped:
            shapes = {item.shape for item in group["layer/vars"].values()}
            assert group["vars/0"].shape == group["vars/1"].shape
            assert group["vars/0"].shape in shapes


# --- the rest of the file -----------------------------------------------------------------------------------------------


def trained_mlp(optimizer="adam"):
    model = keras.Sequential([keras.Input((6,)), L.Dense(8, activation="relu"), L.Dense(6, activation="relu"), L.Dense(3)])
    fill(model)
    model.compile(optimizer, keras.losses.MeanSquaredError(), metrics=["mae"])
    model.train_on_batch(np.ones((4, 6)), np.zeros((4, 3)))
    prune_units(model, 0.5)
    return model


def test_other_members_stay_as_they_are(tmp_path):
    source = saved(trained_mlp(), tmp_path / "plain.keras")
    extended = tmp_path / "extended.keras"
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(extended, "w") as after:
        after.comment = b"a comment"
        after.writestr("assets/words.txt", "one two", zipfile.ZIP_DEFLATED)
        for name in before.namelist():
            after.writestr(name, before.read(name))
    out = tmp_path / "out.keras"
    write_keras(extended, plan_of(extended), out)
    with zipfile.ZipFile(extended) as before, zipfile.ZipFile(out) as after:
        assert after.comment == b"a comment"
        assert after.namelist() == before.namelist()
        for one, other in zip(before.infolist(), after.infolist(), strict=True):
            assert (one.date_time, one.compress_type, one.external_attr) == (
                other.date_time,
                other.compress_type,
                other.external_attr,
            )
            changed = one.filename in ("config.json", "model.weights.h5")
            assert (before.read(one) == after.read(other)) != changed
        for key in ("compile_config", "build_config", "module", "registered_name"):
            assert config_in(extended)[key] == config_in(out)[key]


def test_legacy_files_keep_attributes_and_what_did_not_change(tmp_path):
    source, out = saved(trained_mlp(), tmp_path / "a.h5"), tmp_path / "b.h5"
    with h5py.File(source, "a") as h5:
        h5["notes"] = h5py.SoftLink("/nowhere")
        h5.create_group("mine").create_dataset("numbers", data=np.arange(4), compression="gzip")
        h5.attrs["nothing"] = h5py.Empty("f")
    write_keras(source, plan_of(source), out)
    with h5py.File(source) as before, h5py.File(out) as after:
        assert isinstance(after.get("notes", getlink=True), h5py.SoftLink)
        assert after["mine/numbers"][:].tolist() == [0, 1, 2, 3]
        assert after["mine/numbers"].compression == "gzip"
        items = {"/": before}
        before.visititems(items.__setitem__)
        for name, item in items.items():
            assert list(item.attrs) == list(after[name].attrs)
            for key in item.attrs:
                assert item.attrs.get_id(key).dtype == after[name].attrs.get_id(key).dtype
                if key not in ("model_config", "nothing"):
                    assert np.array_equal(item.attrs[key], after[name].attrs[key])


def test_writing_in_place(tmp_path):
    source = saved(trained_mlp(), tmp_path / "a.keras")
    before = loaded(source)
    write_keras(source, plan_of(source), source)
    assert_equal_outputs(before, loaded(source))
    assert [path.name for path in tmp_path.iterdir()] == ["a.keras"]


# --- optimizers ---------------------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(),
    "amsgrad": lambda: keras.optimizers.Adam(amsgrad=True),
    "sgd": lambda: keras.optimizers.SGD(),
    "momentum": lambda: keras.optimizers.SGD(momentum=0.9),
    "rmsprop": lambda: keras.optimizers.RMSprop(momentum=0.5, centered=True),
    "adagrad": lambda: keras.optimizers.Adagrad(),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_go_on_where_they_were(name, tmp_path):
    model = trained_mlp(OPTIMIZERS[name]())
    after, facts = written_back(model, tmp_path)
    small = shrink(model)
    assert facts.optimizer == ("kept" if name == "sgd" else "sliced")
    edits = plan_of(model).edits
    paths = [f"{layer.name}/{variable}" for layer in model.layers for variable in ("kernel", "bias")]
    for result in (after, small):
        assert result.optimizer.get_config() == model.optimizer.get_config()
        expected = {}
        for variable in model.optimizer.variables:
            values = np.asarray(variable)
            for path in paths:
                if values.ndim and path.replace("/", "_") in variable.path:
                    values = edits[path].sliced(values) if path in edits else values
            expected[variable.path.rpartition("/")[2].replace("sequential_", "")] = values
        for variable in result.optimizer.variables:
            wanted = expected.pop(variable.path.rpartition("/")[2].replace("sequential_", ""))
            assert np.array_equal(np.asarray(variable), wanted)
        assert not expected
        assert result.optimizer.iterations == 1
        result.train_on_batch(np.ones((4, 6)), np.zeros((4, 3)))
        assert result.optimizer.iterations == 2


def test_frozen_layers_have_no_slots(tmp_path):
    model = keras.Sequential([keras.Input((6,)), L.Dense(8), L.BatchNormalization(), L.Dense(8), L.Dense(3)])
    fill(model)
    model.layers[0].trainable = False
    model.compile("adam", keras.losses.MeanSquaredError())
    model.train_on_batch(np.ones((4, 6)), np.zeros((4, 3)))
    prune_units(model, 0.5)
    after, facts = written_back(model, tmp_path)
    assert facts.optimizer == "sliced"
    assert [v.shape for v in after.optimizer.variables[2::2]] == [v.shape for v in after.trainable_variables]


def test_slots_that_fit_two_ways_are_dropped(tmp_path):
    source = saved(trained_mlp(), tmp_path / "a.keras")
    with open_source(source) as opened:
        (path,) = [key for key in opened.variables if key[0] == "dense"]
        square = {path: [replace(variable, shape=(4, 4)) for variable in opened.variables[path]]}
        config = {**opened.config, "layers": opened.config["layers"][:2]}
        alike = replace(opened, config=config, variables=square)
        edits = {path: LayerEdit({0: WeightEdit(kept={1: np.arange(2)})})}
        assert edit_optimizer([(), (4, 4), (4, 4)], alike, edits).outcome == "sliced"
        assert edit_optimizer([(), (4, 4), (4, 4), (4, 4), (4, 4)], alike, edits).outcome == "dropped"
        assert edit_optimizer([(), (4, 4), (2, 4)], alike, edits).outcome == "dropped"
        assert edit_optimizer([(), (4, 4), (4, 4), (4, 4)], alike, edits).outcome == "dropped"
        assert edit_optimizer([], alike, edits).outcome == "none"


def test_compile_state_survives(tmp_path):
    model = trained_mlp()
    # Keras takes the optimizer out of the compile state of a model that it saves as a legacy file.
    saved(model, tmp_path / "legacy.h5")
    small = shrink(model)
    assert small.optimizer.name == "adam"
    assert isinstance(small.loss, keras.losses.MeanSquaredError)
    results = small.evaluate(np.ones((2, 6)), np.ones((2, 3)), verbose=0, return_dict=True)
    assert set(results) == {"loss", "mae"}


def test_models_that_were_never_compiled_are_not():
    assert not shrink(pruned(nested_model())).compiled


# --- refusals -----------------------------------------------------------------------------------------------------------


def test_other_kind_of_file(tmp_path):
    source = saved(trained_mlp(), tmp_path / "a.h5")
    with pytest.raises(InputError, match=r"is an HDF5 file, so what is written must end in \.h5"):
        write_keras(source, plan_of(source), tmp_path / "b.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_initializer_that_holds_an_array(tmp_path):
    values = np.ones((6, 8)).tolist()
    layer = L.Dense(8, kernel_initializer=keras.initializers.Constant(values), name="constant")
    model = pruned(keras.Sequential([keras.Input((6,)), layer, L.Dense(2)]))
    source = saved(model, tmp_path / "a.keras")
    facts = write_keras(source, plan_of(source), tmp_path / "b.keras")
    assert "its kernel_initializer holds an array" in facts.whole["constant"]
    assert_equal_outputs(model, loaded(tmp_path / "b.keras"))


def test_constants_of_operations(tmp_path):
    inputs = keras.Input((6,))
    x = L.Dense(8, activation="relu")(inputs) * np.arange(1, 9, dtype="float32")
    model = pruned(keras.Model(inputs, L.Dense(2)(x)))
    with pytest.warns(UserWarning, match=r"layer 'multiply' keeps all its channels: .* \(Multiply\)"):
        small = shrink(model)
    assert small.get_layer("dense").units == 8


def test_class_without_a_rule(tmp_path, monkeypatch):
    source = saved(trained_mlp(), tmp_path / "a.keras")
    monkeypatch.delitem(RULES, "Dense")
    facts = write_keras(source, plan_of(source), tmp_path / "b.keras")
    assert set(facts.whole) == {"dense", "dense_1", "dense_2"}
    assert facts.layers == 0
    assert (tmp_path / "b.keras").read_bytes() == source.read_bytes()


def test_layer_shared_by_two_models():
    shared = L.Dense(8, activation="relu", name="shared")
    parts = []
    for name in ("left", "right"):
        x = keras.Input((4,))
        parts.append(keras.Model(x, L.Dense(2)(shared(x)), name=name))
    inputs = keras.Input((4,))
    model = pruned(keras.Model(inputs, [part(inputs) for part in parts]))
    with pytest.warns(UserWarning, match="two models share 'right/shared' and 'left/shared'"):
        small = shrink(model)
    for part in ("left", "right"):
        assert small.get_layer(part).get_layer("shared").units == 8
    assert_equal_outputs(model, small)


def test_plan_of_another_model(tmp_path):
    source = saved(trained_mlp(), tmp_path / "a.keras")
    plan = ShrinkPlan({"dense/kernel": WeightEdit(kept={1: np.arange(3)})})
    # What does not fit the model is not carried out.
    write_keras(source, plan, tmp_path / "b.keras")
    assert_equal_outputs(loaded(source), loaded(tmp_path / "b.keras"))


def test_shapes_are_corrected_only_where_they_are_certain():
    assert corrected([None, 8], [((None, 8), (None, 4))]) == [None, 4]
    assert corrected([None, -1, 8], [((1, 2, 8), (1, 2, 4))]) == [None, -1, 4]
    assert corrected([None, 8], [((None, 8), (None, 4)), ((None, 8), (None, 5))]) == [None, 8]
    assert corrected([None, 7], [((None, 8), (None, 4))]) == [None, 7]


# --- the real thing -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["residual_network", "inverted_residuals_with_gates", "two_headed_detector", "u_net", "lenet"])
def test_models_train_on_and_convert_to_litert(name, tmp_path):
    import tensorflow as tf

    model = randomise(MODELS[name](), 3, zeros=0.0)
    prune_units(model, 0.5, whole=True)
    after, _ = written_back(model, tmp_path)
    converted = tf.lite.TFLiteConverter.from_keras_model(after).convert()
    assert len(converted) < len(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    batch = random_inputs(model)[0]
    targets = keras.tree.map_structure(lambda y: np.zeros(y.shape), after(batch))
    after.compile("sgd", keras.tree.map_structure(lambda _: keras.losses.MeanSquaredError(), targets))
    before = [np.asarray(w) for w in after.trainable_variables]
    after.train_on_batch(batch, targets)
    assert any((one != np.asarray(w)).any() for one, w in zip(before, after.trainable_variables, strict=True))
