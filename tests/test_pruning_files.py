"""Pruning Keras files without Keras, and models in memory: Keras reads back what was asked for, and nothing else changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest

from sparsec.errors import FormatError, InputError, SparsecError
from sparsec.frontends import read
from sparsec.pruning import prune_file, prune_units, prune_weights

FROZEN = Path(__file__).parent / "frozen"
WEIGHTS = "model.weights.h5"
SUFFIXES = (".keras", ".h5")


@pytest.fixture(scope="module")
def keras():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    import keras

    return keras


def mlp(keras):
    """LeNet-300-100, trained for a step, so that its file holds the optimizer's variables."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28)),
            layers.Flatten(),
            layers.Dense(300, activation="relu", name="first"),
            layers.Dense(100, activation="relu", name="second"),
            layers.Dense(10, activation="softmax", name="probabilities"),
        ],
        name="mlp",
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    random = np.random.default_rng(0)
    model.fit(random.normal(size=(8, 28, 28)), random.integers(0, 10, 8), verbose=0)
    return model


def net(keras):
    """Convolutions that meet in an Add, a depthwise and a transposed one, a nested model, a layer called twice."""
    layers = keras.layers
    inner = keras.Sequential(
        [keras.Input((12,)), layers.Dense(16, activation="relu", name="wide"), layers.Dense(12, name="narrow")], name="inner"
    )
    shared = layers.Dense(12, activation="tanh", name="shared")
    x = image = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, padding="same", name="stem")(x)
    x = stem = layers.ReLU()(layers.BatchNormalization(name="stem_norm")(x))
    x = layers.SeparableConv2D(8, 3, padding="same", name="separable")(x)
    x = layers.Add()([x, stem])
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Conv2DTranspose(12, 3, strides=2, name="transposed")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    x = shared(shared(inner(x)))
    return keras.Model(image, layers.Dense(5, name="logits")(x), name="net")


KERNELS = {
    "mlp": {"first/kernel": 1, "second/kernel": 1},
    "net": {
        "stem/kernel": 3,
        "separable/depthwise_kernel": 2,
        "separable/pointwise_kernel": 3,
        "depthwise/kernel": 2,
        "transposed/kernel": 2,
        "inner/wide/kernel": 1,
        "inner/narrow/kernel": 1,
        "shared/kernel": 1,
    },
}
"""The kernels that are pruned, as Keras calls them, and the axis of their units (multipliers are 1)."""

TIED = (
    ("stem/kernel", "separable/depthwise_kernel", "separable/pointwise_kernel", "depthwise/kernel"),
    ("inner/narrow/kernel", "shared/kernel"),
)
"""Kernels whose units go together: around an Add, and around a layer that is called on its own output."""


@pytest.fixture(scope="module")
def saved(keras, tmp_path_factory):
    """The two models, and each in a file of each kind."""
    folder = tmp_path_factory.mktemp("saved")
    keras.utils.set_random_seed(0)
    models = {"mlp": mlp(keras), "net": net(keras)}
    files = {}
    for name, model in models.items():
        for suffix in SUFFIXES:
            files[name + suffix] = folder / (name + suffix)
            model.save(files[name + suffix])
    return models, files


def weights(model):
    """The weights of a Keras model by path."""
    found = {}
    for layer in model.layers:
        if hasattr(layer, "layers"):
            found.update({f"{layer.name}/{path}": value for path, value in weights(layer).items()})
        else:
            found.update({f"{layer.name}/{w.path.rsplit('/', 1)[-1]}": w.numpy() for w in layer.weights})
    return found


def without_smallest(kernel, sparsity):
    """Weight pruning by a plain sort."""
    flat = kernel.reshape(-1).copy()
    flat[np.argsort(np.abs(flat), kind="stable")[: int(Fraction(str(sparsity)) * flat.size)]] = 0
    return flat.reshape(kernel.shape)


def unit_norms(kernel, axis):
    others = tuple(a for a in range(kernel.ndim) if a != axis)
    return np.sqrt(np.square(kernel.astype(np.float64)).sum(axis=others))


def without_units(kernel, axis, units):
    kernel = np.moveaxis(kernel.copy(), axis, -1)
    kernel[..., units] = 0
    return np.moveaxis(kernel, -1, axis)


def datasets(path):
    """The bytes of every dataset of a model's file, by HDF5 path."""
    found = {}

    def collect(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = (item.dtype, item.shape, item[()].tobytes())

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive, archive.open(WEIGHTS) as member, h5py.File(member, "r") as h5:
            h5.visititems(collect)
    else:
        with h5py.File(path, "r") as h5:
            h5.visititems(collect)
    return found


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- what Keras reads back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("sparsity", [0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", KERNELS)
def test_keras_reads_back_the_masked_weights(keras, saved, tmp_path, name, sparsity, suffix):
    models, files = saved
    out = tmp_path / f"pruned{suffix}"
    report = prune_file(files[name + suffix], out, sparsity=sparsity)
    before, after = weights(models[name]), weights(keras.saving.load_model(out))
    assert before.keys() == after.keys()
    for path, value in before.items():
        expected = without_smallest(value, sparsity) if path in KERNELS[name] else value
        np.testing.assert_array_equal(after[path], expected, err_msg=path)
    assert sum(not layer.kept for layer in report.layers) == len(KERNELS[name])
    assert report.zeros_after - report.zeros_before == sum(
        int(Fraction(str(sparsity)) * before[path].size) for path in KERNELS[name]
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("name", KERNELS)
def test_keras_reads_back_the_masked_units(keras, saved, tmp_path, name, group, suffix):
    models, files = saved
    out = tmp_path / f"pruned{suffix}"
    prune_file(files[name + suffix], out, method="unit", sparsity=0.7, group=group)
    before, after = weights(models[name]), weights(keras.saving.load_model(out))
    norms = {path: unit_norms(before[path], axis) for path, axis in KERNELS[name].items()}
    for tied in TIED if group and name == "net" else ():
        norms.update(dict.fromkeys(tied, np.sqrt(sum(np.square(norms[path]) for path in tied))))
    for path, value in before.items():
        expected = value
        if path in KERNELS[name]:
            count = int(Fraction("0.7") * norms[path].size)
            expected = without_units(value, KERNELS[name][path], np.argsort(norms[path], kind="stable")[:count])
        np.testing.assert_array_equal(after[path], expected, err_msg=path)


def test_whole_units_put_out_nothing_in_keras(keras, saved, tmp_path):
    models, files = saved
    out = tmp_path / "pruned.keras"
    report = prune_file(files["net.keras"], out, method="unit", sparsity=0.5, whole=True)
    assert {"stem/bias", "stem_norm/gamma", "stem_norm/beta", "separable/bias", "inner/wide/bias"} <= set(report.zeroed)
    after = weights(keras.saving.load_model(out))
    gone = ~after["stem/kernel"].any(axis=(0, 1, 2))
    assert gone.sum() == 4
    for path in ("stem/bias", "stem_norm/gamma", "stem_norm/beta", "separable/bias", "depthwise/bias"):
        np.testing.assert_array_equal(after[path], np.where(gone, 0, weights(models["net"])[path]), err_msg=path)


def test_pruning_in_memory_does_what_pruning_a_file_does(keras, saved, tmp_path):
    models, files = saved
    options = {"scope": "global", "skip": ("inner", "s*m"), "group": True, "whole": True}
    for method, prune, chosen in (
        ("weight", prune_weights, {"scope": "global", "skip": ("inner",)}),
        ("unit", prune_units, options),
        ("unit", prune_units, {"group": False, "skip": "shared"}),
    ):
        out = tmp_path / "pruned.keras"
        from_file = prune_file(files["net.keras"], out, method=method, sparsity=0.6, **chosen)
        model = keras.models.clone_model(models["net"])
        model.set_weights(models["net"].get_weights())
        in_memory = prune(model, 0.6, **chosen)
        expected, found = weights(keras.saving.load_model(out)), weights(model)
        for path, value in expected.items():
            np.testing.assert_array_equal(found[path], value, err_msg=path)
        assert in_memory.layers == from_file.layers
        assert in_memory.zeroed == from_file.zeroed
        assert in_memory.source == "the model 'net'"


def test_nothing_is_assigned_when_an_option_is_wrong(keras, saved):
    model = saved[0]["mlp"]
    before = model.get_weights()
    for options in ({"skip": "first_"}, {"scope": "all"}):
        with pytest.raises(InputError):
            prune_weights(model, 0.5, **options)
    with pytest.raises(InputError, match="sparsity"):
        prune_units(model, 1.0)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_no_model_is_refused():
    with pytest.raises(InputError, match=r"a keras\.Model or the path"):
        prune_weights(np.ones(3), 0.5)


def test_a_path_is_not_pruned_in_memory(saved):
    with pytest.raises(InputError, match="prune_file"):
        prune_units(saved[1]["mlp.keras"], 0.5)


# --- what else is in the file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_but_the_kernels_changes(saved, tmp_path, suffix):
    source, out = saved[1]["mlp" + suffix], tmp_path / f"out{suffix}"
    digest = source.read_bytes()
    prune_file(source, out, sparsity=0.9)
    before, after = datasets(source), datasets(out)
    assert list(before) == list(after)
    changed = [path for path in before if before[path] != after[path]]
    assert len(changed) == 2
    assert all(before[path][:2] == after[path][:2] for path in changed)
    assert len(before) > 10  # the optimizer's variables are there
    assert source.read_bytes() == digest
    if suffix == ".h5":
        with h5py.File(source) as a, h5py.File(out) as b:
            assert dict(a.attrs) == dict(b.attrs)
        return
    with zipfile.ZipFile(source) as a, zipfile.ZipFile(out) as b:
        assert a.namelist() == b.namelist()
        for left, right in zip(a.infolist(), b.infolist(), strict=True):
            assert (left.date_time, left.compress_type, left.external_attr) == (
                right.date_time,
                right.compress_type,
                right.external_attr,
            )
            if left.filename != WEIGHTS:
                assert a.read(left) == b.read(right)


def test_an_archive_of_any_shape_keeps_it(keras, saved, tmp_path):
    source, out = tmp_path / "source.keras", tmp_path / "out.keras"
    with zipfile.ZipFile(saved[1]["mlp.keras"]) as plain, zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.comment = b"made by hand"
        packed.writestr("assets/", b"")
        packed.writestr("assets/vocabulary.txt", b"a b c", zipfile.ZIP_STORED)
        packed.writestr(zipfile.ZipInfo(WEIGHTS, (2001, 2, 3, 4, 5, 6)), plain.read(WEIGHTS), zipfile.ZIP_DEFLATED)
        packed.writestr("config.json", plain.read("config.json"))
        packed.writestr("metadata.json", plain.read("metadata.json"), zipfile.ZIP_BZIP2)
    prune_file(source, out, sparsity=0.9)
    with zipfile.ZipFile(source) as a, zipfile.ZipFile(out) as b:
        assert b.testzip() is None
        assert b.comment == b"made by hand"
        for left, right in zip(a.infolist(), b.infolist(), strict=True):
            assert (left.filename, left.compress_type, left.date_time) == (right.filename, right.compress_type, right.date_time)
            assert (a.read(left) == b.read(right)) == (left.filename != WEIGHTS)
        assert b.getinfo(WEIGHTS).compress_size < a.getinfo(WEIGHTS).compress_size
    kernel = weights(keras.saving.load_model(out))["first/kernel"]
    np.testing.assert_array_equal(kernel, without_smallest(weights(saved[0]["mlp"])["first/kernel"], 0.9))


def test_compressed_datasets_and_their_settings_stay(saved, tmp_path):
    source, out = tmp_path / "source.h5", tmp_path / "out.h5"
    shutil.copyfile(saved[1]["mlp.h5"], source)
    (path,) = [name for name in datasets(source) if name.endswith("first/kernel") and name.startswith("model_weights")]
    with h5py.File(source, "r+") as h5:
        values = h5[path][()].astype(np.float16)
        del h5[path]
        h5.create_dataset(path, data=values, chunks=(100, 100), compression="gzip", shuffle=True)
    prune_file(source, out, sparsity=0.5)
    with h5py.File(out) as h5:
        assert (h5[path].dtype, h5[path].chunks, h5[path].compression) == (np.float16, (100, 100), "gzip")
        np.testing.assert_array_equal(h5[path][()], without_smallest(values, 0.5))


# --- where it is written ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_is_pruned_in_place(saved, tmp_path, suffix):
    path, out = tmp_path / f"model{suffix}", tmp_path / f"other{suffix}"
    shutil.copyfile(saved[1]["net" + suffix], path)
    prune_file(path, out, sparsity=0.8)
    prune_file(str(path), str(path), sparsity=0.8)
    assert datasets(path) == datasets(out)
    assert names(tmp_path) == sorted((path.name, out.name))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failure_leaves_everything_as_it_was(saved, tmp_path, suffix, monkeypatch):
    path = tmp_path / f"model{suffix}"
    shutil.copyfile(saved[1]["mlp" + suffix], path)
    before = path.read_bytes()

    def full(self, index, values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(h5py.Dataset, "__setitem__", full)
    with pytest.raises(InputError, match="cannot be written: No space left"):
        prune_file(path, path, sparsity=0.8)
    assert path.read_bytes() == before
    assert names(tmp_path) == [path.name]


def test_the_suffix_says_the_kind(saved, tmp_path):
    _, files = saved
    with pytest.raises(InputError, match=r"must end in \.keras, not '\.h5'"):
        prune_file(files["mlp.keras"], tmp_path / "out.h5", sparsity=0.5)
    with pytest.raises(InputError, match=r"must end in \.h5 or \.hdf5, not '\.keras'"):
        prune_file(files["mlp.h5"], tmp_path / "out.keras", sparsity=0.5)
    prune_file(files["mlp.h5"], tmp_path / "out.HDF5", sparsity=0.5)
    assert names(tmp_path) == ["out.HDF5"]


def test_a_file_with_the_suffix_of_the_other_kind_may_keep_it(saved, tmp_path):
    path = tmp_path / "model.keras"
    shutil.copyfile(saved[1]["mlp.h5"], path)
    prune_file(path, path, sparsity=0.5)
    assert h5py.is_hdf5(path)


def test_what_cannot_be_read_or_written_is_refused(saved, tmp_path):
    source = saved[1]["mlp.keras"]
    with pytest.raises(InputError, match="there is no such file"):
        prune_file(tmp_path / "none.keras", tmp_path / "out.keras", sparsity=0.5)
    with pytest.raises(InputError, match="is a directory"):
        prune_file(source, tmp_path, sparsity=0.5)
    with pytest.raises(InputError, match="no directory"):
        prune_file(source, tmp_path / "none" / "out.keras", sparsity=0.5)
    text = tmp_path / "text.keras"
    text.write_text("not a model")
    with pytest.raises(FormatError):
        prune_file(text, tmp_path / "out.keras", sparsity=0.5)
    with pytest.raises(FormatError):
        prune_file(text, tmp_path / "out.h5", sparsity=0.5)
    assert names(tmp_path) == ["text.keras"]


def test_a_damaged_member_is_named(saved, tmp_path):
    path, out = tmp_path / "model.keras", tmp_path / "out.keras"
    shutil.copyfile(saved[1]["mlp.keras"], path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("assets/notes.txt", b"some notes")
    path.write_bytes(path.read_bytes().replace(b"some notes", b"some nodes"))
    with pytest.raises(FormatError, match=r"assets/notes\.txt cannot be unpacked"):
        prune_file(path, out, sparsity=0.5)
    assert names(tmp_path) == ["model.keras"]


@pytest.mark.parametrize("kind", ["external link", "external data", "virtual"])
def test_data_outside_the_file_is_never_written(saved, tmp_path, kind):
    path, other, out = tmp_path / "model.h5", tmp_path / "other.h5", tmp_path / "out.h5"
    shutil.copyfile(saved[1]["mlp.h5"], path)
    (name,) = [name for name in datasets(path) if name.endswith("first/kernel") and name.startswith("model_weights")]
    with h5py.File(path, "r+") as h5:
        values = h5[name][()]
        del h5[name]
        if kind == "external data":
            other.write_bytes(values.tobytes())
            h5.create_dataset(name, values.shape, values.dtype, external=[(str(other), 0, values.nbytes)])
        else:
            with h5py.File(other, "w") as elsewhere:
                elsewhere["kernel"] = values
            if kind == "virtual":
                layout = h5py.VirtualLayout(values.shape, values.dtype)
                layout[...] = h5py.VirtualSource(str(other), "kernel", values.shape)
                h5.create_virtual_dataset(name, layout)
            else:
                h5[name] = h5py.ExternalLink(str(other), "kernel")
    before = other.read_bytes()
    with pytest.raises(SparsecError):
        prune_file(path, out, sparsity=0.5)
    assert other.read_bytes() == before
    assert names(tmp_path) == ["model.h5", "other.h5"]


# --- files of every version -------------------------------------------------------------------------------------------

SAMPLES = sorted(
    path.relative_to(FROZEN).as_posix()
    for name in ("lenet", "mlp", "mobile", "nested", "pruned_*", "resnet")
    for suffix in SUFFIXES
    for path in FROZEN.glob(f"*/{name}{suffix}")
)


def test_there_are_samples_of_keras_tf_keras_and_wrapped_models():
    assert {sample.split("-")[0] for sample in SAMPLES} == {"keras", "tf_keras", "tfmot"}


@pytest.mark.parametrize("sample", SAMPLES)
def test_files_of_every_version_are_pruned(tmp_path, sample):
    source, out = FROZEN / sample, tmp_path / Path(sample).name
    before = read(source).graph.weights
    for method in ("weight", "unit"):
        report = prune_file(source, out, method=method, sparsity=0.6, group=False)
        after = read(out).graph.weights
        pruned = {layer.path: layer for layer in report.layers if not layer.kept}
        assert pruned
        assert before.keys() == after.keys()
        for path, value in before.items():
            if path not in pruned:
                np.testing.assert_array_equal(after[path], value, err_msg=path)
            elif method == "weight":
                np.testing.assert_array_equal(after[path], without_smallest(value, 0.6), err_msg=path)
            else:
                assert pruned[path].pruned_units == int(Fraction("0.6") * pruned[path].units)
                assert ((value == 0).sum(), (after[path] == 0).sum()) == (pruned[path].zeros_before, pruned[path].zeros_after)
                if pruned[path].zeros_before == 0:
                    assert pruned[path].zeros_after == pruned[path].pruned_units * value.size // pruned[path].units
                assert ((after[path] == 0) | (after[path] == value)).all()
        assert len(datasets(source)) == len(datasets(out))


def test_pruning_a_file_needs_neither_keras_nor_tensorflow(tmp_path):
    source = FROZEN / next(sample for sample in SAMPLES if sample.endswith("resnet.keras"))
    code = (
        "import sys; from sparsec.pruning import prune_file; "
        f"prune_file({str(source)!r}, {str(tmp_path / 'out.keras')!r}, method='unit', sparsity=0.5, whole=True); "
        "print(sorted({'keras', 'tensorflow', 'tf_keras', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
