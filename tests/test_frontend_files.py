"""Files that are missing, damaged, hostile or hold what is not read: each is one error of one clear line."""

from __future__ import annotations

import copy
import io
import json
import os
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sparsec.errors import FormatError, InputError, SparsecError, UnsupportedLayerError
from sparsec.frontends import files, read

SAMPLES = Path(__file__).parent / "frozen"
SEQUENTIAL = SAMPLES / "keras-3.15.1" / "mlp.keras"
FUNCTIONAL = SAMPLES / "keras-3.15.1" / "resnet.keras"
UNNAMED = SAMPLES / "tf_keras-2.21.0" / "resnet.keras"
NESTED = SAMPLES / "tf_keras-2.21.0" / "nested.keras"
LEGACY = SAMPLES / "tf_keras-2.21.0" / "resnet.h5"
LEGACY_NESTED = SAMPLES / "tf_keras-2.21.0" / "nested.h5"

Edit = Callable[[Any], Any]


def refused(path: Path, error: type[SparsecError], match: str) -> None:
    """Check that reading ``path`` raises one error of one line that holds ``match``."""
    with pytest.raises(error, match=match) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def rezipped(sample: Path, target: Path, members: dict[str, bytes | None], compression: int = zipfile.ZIP_STORED) -> Path:
    """A copy of an archive with members replaced, or left out where ``None`` is given."""
    with zipfile.ZipFile(sample) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            content = members[name] if name in members else old.read(name)
            if content is not None:
                new.writestr(name, content)
    return target


def with_config(sample: Path, target: Path, edit: Edit) -> Path:
    """A copy of an archive whose configuration ``edit`` has changed in place, or replaced by what it returns."""
    with zipfile.ZipFile(sample) as old:
        config = json.loads(old.read("config.json"))
    config = edit(config) or config
    return rezipped(sample, target, {"config.json": json.dumps(config).encode()})


def with_weights(sample: Path, target: Path, edit: Callable[[h5py.File], object]) -> Path:
    """A copy of an archive whose weights ``edit`` has changed."""
    with zipfile.ZipFile(sample) as old:
        buffer = io.BytesIO(old.read("model.weights.h5"))
    with h5py.File(buffer, "r+") as weights:
        edit(weights)
    return rezipped(sample, target, {"model.weights.h5": buffer.getvalue()})


def layer_of(config: Any, class_name: str) -> Any:
    """The first layer of a class in a configuration."""
    return next(layer for layer in config["config"]["layers"] if layer["class_name"] == class_name)


# --- paths -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".keras", ".h5", ".hdf5", ".KERAS"])
def test_missing_empty_and_text_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    refused(path, InputError, "there is no such file")
    path.write_bytes(b"")
    refused(path, FormatError, "neither a Keras archive nor an HDF5 file")
    path.write_text("a model, I promise\n" * 100)
    refused(path, FormatError, "neither a Keras archive nor an HDF5 file")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("model.onnx", "an ONNX file"),
        ("model.npz", "a bundle"),
        ("model.tflite", "TensorFlow Lite"),
        ("model.pb", "a TensorFlow graph"),
        ("model.pkl", "a pickle.* never opened"),
        ("model.json", "without weights"),
        ("model.pt", r"the suffix '\.pt'"),
        ("model", "the suffix ''"),
    ],
)
def test_other_kinds_of_file(name: str, match: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"anything")
    refused(tmp_path / name, InputError, match)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    folder = tmp_path / "saved.keras"
    folder.mkdir()
    refused(folder, InputError, "is a directory")
    (folder / "saved_model.pb").write_bytes(b"")
    refused(folder, InputError, r"is a SavedModel.*model\.save")
    refused(SEQUENTIAL / "inside.keras", InputError, "cannot be read")
    refused(Path("long" * 80 + ".keras"), InputError, "cannot be read")
    refused(tmp_path / "zero\0.keras", InputError, "cannot be read")
    os.mkfifo(tmp_path / "pipe.keras")
    refused(tmp_path / "pipe.keras", InputError, "not a regular file")


def test_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.keras"
    shutil.copy(SEQUENTIAL, path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    refused(path, InputError, "permission denied")


def test_misnamed_files_are_read(tmp_path: Path) -> None:
    shutil.copy(SEQUENTIAL, tmp_path / "zip.h5")
    shutil.copy(LEGACY, tmp_path / "h5.keras")
    assert read(tmp_path / "zip.h5").graph.nodes == read(SEQUENTIAL).graph.nodes
    assert read(tmp_path / "h5.keras").graph.nodes == read(LEGACY).graph.nodes


def test_object_that_is_no_model() -> None:
    with pytest.raises(InputError, match=r"a keras\.Model or the path of a Keras file was expected, not dict"):
        read({})  # type: ignore[arg-type]


# --- archives ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", [SEQUENTIAL, LEGACY], ids=["keras", "h5"])
@pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 0.5, 0.9, 0.99])
def test_truncated_files(sample: Path, share: float, tmp_path: Path) -> None:
    content = sample.read_bytes()
    path = tmp_path / sample.name
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, FormatError, "damaged|cut short")


@pytest.mark.parametrize("member", ["config.json", "metadata.json", "model.weights.h5"])
def test_archives_without_a_member(member: str, tmp_path: Path) -> None:
    refused(rezipped(SEQUENTIAL, tmp_path / "m.keras", {member: None}), FormatError, f"it holds no {member}")


def test_weights_cut_short_inside_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(SEQUENTIAL) as archive:
        weights = archive.read("model.weights.h5")
    for cut in (0, 10, len(weights) // 2, len(weights) - 1):
        path = rezipped(SEQUENTIAL, tmp_path / "m.keras", {"model.weights.h5": weights[:cut]})
        refused(path, FormatError, "damaged")


@pytest.mark.parametrize("text", [b"", b"{", b"[1, 2", b"\xff\xfe", b"[" * 100_000, b"null", b"[]", b"7", b'"text"', b"{}"])
def test_configurations_that_are_none(text: bytes, tmp_path: Path) -> None:
    refused(rezipped(SEQUENTIAL, tmp_path / "m.keras", {"config.json": text}), FormatError, "JSON|configuration")


@pytest.mark.parametrize("text", [b"null", b"[]", b"{}", b'{"keras_version": null}'])
def test_metadata_is_not_essential(text: bytes, tmp_path: Path) -> None:
    path = rezipped(SEQUENTIAL, tmp_path / "m.keras", {"metadata.json": text})
    assert read(path).saved_by.generation == 3


def test_compressed_archives_are_read(tmp_path: Path) -> None:
    for kind in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = rezipped(SEQUENTIAL, tmp_path / "m.keras", {}, kind)
        assert read(path).graph.nodes == read(SEQUENTIAL).graph.nodes


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_with_flipped_bytes(kind: int, tmp_path: Path) -> None:
    good = rezipped(SEQUENTIAL, tmp_path / "good.keras", {}, kind).read_bytes()
    rng = random.Random(kind)
    path = tmp_path / "m.keras"
    for _ in range(60):
        content = bytearray(good)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        harmless_or_refused(path)


def harmless_or_refused(path: Path) -> None:
    """Read a file that may be damaged: whatever is wrong with it, only errors meant for users come out."""
    try:
        read(path)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_limits_on_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_CONFIG_BYTES", 100)
    refused(SEQUENTIAL, FormatError, r"config\.json claims \d+ bytes, more than the limit of 100")
    monkeypatch.setattr(files, "MAX_CONFIG_BYTES", 1 << 20)
    monkeypatch.setattr(files, "MAX_WEIGHTS_BYTES", 1000)
    refused(SEQUENTIAL, FormatError, r"model\.weights\.h5 claims \d+ bytes, more than the limit of 1000")


def test_member_that_is_longer_than_it_claims(tmp_path: Path) -> None:
    """The limit holds for what is unpacked, not only for what the archive says."""
    path = rezipped(SEQUENTIAL, tmp_path / "m.keras", {"config.json": b" " * 5000}, zipfile.ZIP_DEFLATED)
    content = path.read_bytes().replace(struct.pack("<I", 5000), struct.pack("<I", 50))
    path.write_bytes(content)
    refused(path, FormatError, "damaged|JSON")


def test_encrypted_archives(tmp_path: Path) -> None:
    content = bytearray(SEQUENTIAL.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := content.find(signature, start + 1)) >= 0:
            content[start + offset] |= 1
    path = tmp_path / "m.keras"
    path.write_bytes(content)
    refused(path, FormatError, "encrypted")


def test_no_space_to_unpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.shutil, "copyfileobj", full)
    refused(SEQUENTIAL, InputError, "cannot be unpacked into .*No space left on device")


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    read(SEQUENTIAL)
    with pytest.raises(FormatError):
        read(rezipped(SEQUENTIAL, tmp_path / "m.keras", {"model.weights.h5": b"text"}))
    assert [path.name for path in tmp_path.iterdir()] == ["m.keras"]


# --- legacy files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def legacy(tmp_path: Path) -> Iterator[h5py.File]:
    shutil.copy(LEGACY, tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        yield file


def refused_legacy(file: h5py.File, error: type[SparsecError], match: str) -> None:
    path = Path(file.filename)
    file.close()
    refused(path, error, match)


def test_weights_without_a_model(legacy: h5py.File) -> None:
    del legacy.attrs["model_config"]
    refused_legacy(legacy, FormatError, r"weights but no model; save the whole model with model\.save\(\)")


def test_a_model_without_weights(legacy: h5py.File) -> None:
    del legacy["model_weights"]
    refused_legacy(legacy, FormatError, "a model but no weights")


@pytest.mark.parametrize("text", ["", "{", "null", '{"class_name": "Sequential"}', np.arange(3)])
def test_legacy_configurations_that_are_none(text: Any, legacy: h5py.File) -> None:
    legacy.attrs["model_config"] = text
    refused_legacy(legacy, FormatError, "JSON|configuration")


def test_files_of_keras_1(legacy: h5py.File) -> None:
    legacy.attrs["keras_version"] = legacy["model_weights"].attrs["keras_version"] = b"1.2.2"
    refused_legacy(legacy, FormatError, r"written by Keras 1\.2\.2; sparsec reads files of Keras 2 and 3")


def test_listed_weight_that_is_not_there(legacy: h5py.File) -> None:
    del legacy["model_weights/logits/logits/kernel:0"]
    refused_legacy(legacy, FormatError, r"holds no 'logits/kernel:0'")


def test_weights_of_a_layer_that_the_model_has_not(legacy: h5py.File) -> None:
    weights = legacy["model_weights"]
    weights.copy("logits", "more")
    weights.attrs["layer_names"] = [*weights.attrs["layer_names"], "more"]
    refused_legacy(legacy, FormatError, "holds weights of 'more'")


def test_list_of_names_in_chunks(legacy: h5py.File) -> None:
    """What h5py cannot store in one attribute, Keras stores in numbered ones."""
    group = legacy["model_weights/logits"]
    names = list(group.attrs["weight_names"])
    del group.attrs["weight_names"]
    for index, name in enumerate(names):
        group.attrs[f"weight_names{index}"] = [name]
    path = Path(legacy.filename)
    legacy.close()
    assert read(path).graph.weights.keys() == read(LEGACY).graph.weights.keys()


def test_list_of_names_that_is_none(legacy: h5py.File) -> None:
    legacy["model_weights/logits"].attrs["weight_names"] = "kernel"
    refused_legacy(legacy, FormatError, "'weight_names' of '/model_weights/logits' is not a list")


@pytest.mark.parametrize(
    ("renamed", "match"),
    [({"widen": "wide"}, "belongs to none of its layers"), ({"widen": "dense"}, "may belong to|belongs to none")],
)
def test_nested_weights_that_names_cannot_tell_apart(renamed: dict[str, str], match: str, tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    shutil.copy(LEGACY_NESTED, path)
    with h5py.File(path, "r+") as file:
        text = str(file.attrs["model_config"])
        for old, new in renamed.items():
            text = text.replace(f'"{old}"', f'"{new}"')
        file.attrs["model_config"] = text
        group = file["model_weights/encoder"]
        if "dense" in renamed.values():
            group.attrs["weight_names"] = [
                name.replace("widen", "dense_0") for name in group.attrs["weight_names"] if "widen" not in name
            ]
    refused(path, FormatError, f"{match}.*save the model as .keras")


# --- weights -----------------------------------------------------------------------------------------------------------

KERNEL = "layers/dense/vars/0"


def replaced(path: str, array: Any, **options: Any) -> Callable[[h5py.File], None]:
    """An edit that puts another dataset in the place of one."""

    def edit(file: h5py.File) -> None:
        del file[path]
        file.create_dataset(path, data=array, **options)

    return edit


def removed(path: str) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file[path]

    return edit


def external_link(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.ExternalLink("/etc/passwd", "/")


def soft_link(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.SoftLink("/layers/dense_1/vars/0")


def external_storage(file: h5py.File) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (6, 5), "f4", external=[("/etc/passwd", 0, 120)])


def virtual(file: h5py.File) -> None:
    del file[KERNEL]
    layout = h5py.VirtualLayout((6, 5), "f4")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "data", (6, 5))
    file.create_virtual_dataset(KERNEL, layout)


def hollow(file: h5py.File) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (6, 1 << 40), "f4", chunks=(6, 1024), compression="gzip")


def group_for_array(file: h5py.File) -> None:
    del file[KERNEL]
    file.create_group(KERNEL)


def ring(file: h5py.File) -> None:
    file["layers/dense/part"] = file["layers/dense"]


BAD_WEIGHTS: dict[str, tuple[Callable[[h5py.File], object], type[SparsecError], str]] = {
    "missing": (
        removed("layers/dense/vars/1"),
        UnsupportedLayerError,
        r"layer 'dense' \(Dense\): 1 variables .* 'bias' is missing",
    ),
    "none": (removed("layers/dense/vars"), UnsupportedLayerError, "no variables of it are stored|'kernel' is missing"),
    "too many": (
        lambda file: file.create_dataset("layers/dense/vars/2", data=np.ones(3, "f4")),
        UnsupportedLayerError,
        "asks for 2 only",
    ),
    "shape": (
        replaced(KERNEL, np.ones((5, 6), "f4")),
        UnsupportedLayerError,
        r"'kernel' is stored with shape \(5, 6\).* \(6, 5\)",
    ),
    "nan": (replaced(KERNEL, np.full((6, 5), np.nan, "f4")), InputError, "'dense/kernel' holds values that are not finite"),
    "infinity": (
        replaced(KERNEL, np.full((6, 5), -np.inf, "f4")),
        InputError,
        "'dense/kernel' holds values that are not finite",
    ),
    "overflow": (replaced(KERNEL, np.full((6, 5), 1e300, "f8")), InputError, "'dense/kernel' holds values that are not finite"),
    "text": (replaced(KERNEL, np.full((6, 5), b"text")), FormatError, "'dense/kernel'.*numbers were expected"),
    "complex": (replaced(KERNEL, np.ones((6, 5), "c8")), FormatError, "'dense/kernel'.*numbers were expected"),
    "integers": (replaced(KERNEL, np.ones((6, 5), "i4")), SparsecError, "dense"),
    "empty": (replaced(KERNEL, h5py.Empty("f4")), FormatError, "is not an array"),
    "group": (group_for_array, FormatError, "is not an array"),
    "unaccounted": (
        lambda file: file.copy("layers/dense", "layers/dense_7"),
        FormatError,
        "vars/0', which cannot be assigned",
    ),
    "part": (
        lambda file: file.copy("layers/dense", "layers/dense/part"),
        FormatError,
        "'dense/part' that nothing .* accounts for",
    ),
    "ring": (ring, FormatError, "nested too deeply"),
    "external link": (external_link, FormatError, "is a link.*not followed"),
    "soft link": (soft_link, FormatError, "is a link.*not followed"),
    "external storage": (external_storage, FormatError, "in another file, which is not opened"),
    "virtual": (virtual, FormatError, "in another file, which is not opened"),
    "hollow": (hollow, FormatError, r"claims \d+ bytes of values, the file holds 0"),
    "no layers": (removed("layers"), FormatError, "holds none of the groups layers|no variables of it are stored"),
}


@pytest.mark.parametrize(("edit", "error", "match"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_weights_that_do_not_fit(
    edit: Callable[[h5py.File], object], error: type[SparsecError], match: str, tmp_path: Path
) -> None:
    refused(with_weights(SEQUENTIAL, tmp_path / "m.keras", edit), error, match)


@pytest.mark.parametrize("dtype", [">f4", "<f8", ">f8", "f2"])
def test_weights_in_other_floating_point_dtypes(dtype: str, tmp_path: Path) -> None:
    """As Keras does, they are taken in the dtype of the layer."""
    kernel = np.arange(30.0).reshape(6, 5) / 8
    path = with_weights(SEQUENTIAL, tmp_path / "m.keras", replaced(KERNEL, kernel.astype(dtype)))
    found = read(path).graph.weights["dense/kernel"]
    assert found.dtype == np.dtype("float32")
    assert found.dtype.isnative
    assert np.array_equal(found, kernel)


def test_compressed_weights_are_read(tmp_path: Path) -> None:
    kernel = np.zeros((6, 5), "f4")
    path = with_weights(SEQUENTIAL, tmp_path / "m.keras", replaced(KERNEL, kernel, compression="gzip"))
    assert np.array_equal(read(path).graph.weights["dense/kernel"], kernel)


def test_groups_without_names_must_be_as_many_as_the_layers_of_their_class(tmp_path: Path) -> None:
    path = with_weights(UNNAMED, tmp_path / "m.keras", removed("layers/conv2d_1"))
    refused(path, FormatError, r"'/layers/conv2d/vars/0', which cannot be assigned to a layer")


def test_groups_without_names_are_checked_by_shape(tmp_path: Path) -> None:
    def swap(file: h5py.File) -> None:
        file.move("layers/conv2d", "layers/other")
        file.move("layers/conv2d_1", "layers/conv2d")
        file.move("layers/other", "layers/conv2d_1")

    refused(with_weights(UNNAMED, tmp_path / "m.keras", swap), UnsupportedLayerError, "'kernel' is stored with shape")


@pytest.mark.parametrize("sample", [LEGACY, LEGACY_NESTED], ids=["flat", "nested"])
def test_hdf5_with_flipped_bytes(sample: Path, tmp_path: Path) -> None:
    """In the configuration and in the values; what the HDF5 library makes of damage to its own structures is its affair."""
    good = sample.read_bytes()
    with h5py.File(sample) as file:
        regions = [(good.index(b'{"class_name"'), len(file.attrs["model_config"]))]
        file.visititems(
            lambda _, item: regions.append((item.id.get_offset(), item.nbytes)) if isinstance(item, h5py.Dataset) else None
        )
    rng = random.Random(len(good))
    path = tmp_path / "m.h5"
    for _ in range(150):
        content = bytearray(good)
        start, length = rng.choice(regions)
        content[start + rng.randrange(length)] = rng.randrange(256)
        path.write_bytes(content)
        harmless_or_refused(path)


# --- configurations ----------------------------------------------------------------------------------------------------


def setting(class_name: str, **options: Any) -> Edit:
    """An edit that changes options of the first layer of a class."""

    def edit(config: Any) -> None:
        layer_of(config, class_name)["config"].update(options)

    return edit


def turned_into(class_name: str, new: str, **entries: Any) -> Edit:
    """An edit that makes the first layer of a class one of another class."""

    def edit(config: Any) -> None:
        layer_of(config, class_name).update({"class_name": new, **entries})

    return edit


def called_with(class_name: str, **kwargs: Any) -> Edit:
    """An edit that adds arguments to the call of the first layer of a class."""

    def edit(config: Any) -> None:
        layer_of(config, class_name)["inbound_nodes"][0]["kwargs"].update(kwargs)

    return edit


TENSOR = {
    "class_name": "__keras_tensor__",
    "config": {"shape": [None, 3], "dtype": "float32", "keras_history": ["image", 0, 0]},
}
CODE = {"class_name": "__lambda__", "config": {"value": "4wEAAAAAAAAA"}}

BAD_CONFIGS: dict[str, tuple[Path, Edit, type[SparsecError], str]] = {
    "unknown class": (
        SEQUENTIAL,
        turned_into("Dropout", "Frobnicate"),
        UnsupportedLayerError,
        r"'dropout' .* 'Frobnicate', which .*docs/layers.md",
    ),
    "close class": (
        SEQUENTIAL,
        turned_into("Dropout", "Droput"),
        UnsupportedLayerError,
        r"\(the nearest that it reads is 'Dropout'\)",
    ),
    "lambda": (
        SEQUENTIAL,
        turned_into("Dropout", "Lambda", config={"name": "dropout", "function": CODE}),
        UnsupportedLayerError,
        "is a Lambda.*never executes",
    ),
    "custom": (
        SEQUENTIAL,
        turned_into("Dropout", "Dropout", module="my.layers", registered_name="Custom>Dropout"),
        UnsupportedLayerError,
        "'Dropout' of my.layers.*not one of Keras",
    ),
    "lookalike": (
        SEQUENTIAL,
        turned_into("Dropout", "Dropout", module="keras_extras.layers"),
        UnsupportedLayerError,
        "'Dropout' of keras_extras",
    ),
    "registered": (SEQUENTIAL, turned_into("Dropout", "Custom>Dropout"), UnsupportedLayerError, "'Custom>Dropout'"),
    "operation": (
        FUNCTIONAL,
        turned_into("ReLU", "Fft", module="keras.src.ops.math"),
        UnsupportedLayerError,
        "operation 'Fft'",
    ),
    "activation": (
        SEQUENTIAL,
        setting("Dense", activation="reluu"),
        UnsupportedLayerError,
        r"activation 'reluu' .*\(the nearest that it reads is 'relu'\)",
    ),
    "code as activation": (SEQUENTIAL, setting("Dense", activation=CODE), UnsupportedLayerError, "activation '__lambda__'"),
    "own activation": (
        SEQUENTIAL,
        setting("Dense", activation={"module": "my", "class_name": "function", "config": "relu", "registered_name": "my>relu"}),
        UnsupportedLayerError,
        "activation 'relu' is not read",
    ),
    "layer with weights as activation": (
        SEQUENTIAL,
        setting("Dense", activation={"class_name": "PReLU", "config": {}}),
        UnsupportedLayerError,
        "'PReLU'",
    ),
    "quantised": (
        SEQUENTIAL,
        setting("Dense", dtype={"class_name": "QuantizedDTypePolicy", "config": {"mode": "int8", "source_name": "float32"}}),
        UnsupportedLayerError,
        "computes in 'QuantizedDTypePolicy'",
    ),
    "quantisation": (
        SEQUENTIAL,
        setting("Dense", quantization_config={"mode": "int8"}),
        UnsupportedLayerError,
        "quantised and LoRA",
    ),
    "lora": (SEQUENTIAL, setting("Dense", lora_rank=4), UnsupportedLayerError, "LoRA"),
    "integer policy": (
        SEQUENTIAL,
        setting("Dense", dtype="int32"),
        UnsupportedLayerError,
        "casts its floating-point input to int32",
    ),
    "sparse input": (SEQUENTIAL, setting("InputLayer", sparse=True), UnsupportedLayerError, "sparse or ragged"),
    "ragged input": (SEQUENTIAL, setting("InputLayer", ragged=True), UnsupportedLayerError, "sparse or ragged"),
    "optional input": (SEQUENTIAL, setting("InputLayer", optional=True), UnsupportedLayerError, "is optional"),
    "text input": (SEQUENTIAL, setting("InputLayer", dtype="string"), UnsupportedLayerError, "has dtype 'string'"),
    "input shape": (SEQUENTIAL, setting("InputLayer", batch_shape=[None, "six"]), FormatError, "shape"),
    "no input shape": (SEQUENTIAL, setting("InputLayer", batch_shape=None), FormatError, "shape"),
    "wrong input shape": (SEQUENTIAL, setting("InputLayer", batch_shape=[None, 7]), UnsupportedLayerError, r"\(7, 5\)"),
    "open channels": (
        SEQUENTIAL,
        setting("InputLayer", batch_shape=[None, None]),
        UnsupportedLayerError,
        "last axis is open.*--input-shape",
    ),
    "units": (SEQUENTIAL, setting("Dense", units="many"), UnsupportedLayerError, "units = 'many', an integer was expected"),
    "no units": (SEQUENTIAL, setting("Dense", units=None), UnsupportedLayerError, "units = None"),
    "negative units": (SEQUENTIAL, setting("Dense", units=-1), UnsupportedLayerError, "units = -1, at least 1"),
    "groups": (FUNCTIONAL, setting("Conv2D", groups=0), UnsupportedLayerError, "groups = 0, at least 1"),
    "uneven groups": (FUNCTIONAL, setting("Conv2D", groups=2), UnsupportedLayerError, "stem_conv"),
    "strides": (FUNCTIONAL, setting("Conv2D", strides=[1, 0]), UnsupportedLayerError, r"strides = \[1, 0\], 2 integers"),
    "padding": (FUNCTIONAL, setting("Conv2D", padding="reflect"), UnsupportedLayerError, "padding = 'reflect'"),
    "causal in 2-D": (FUNCTIONAL, setting("Conv2D", padding="causal"), UnsupportedLayerError, "padding = 'causal'"),
    "data format": (FUNCTIONAL, setting("Conv2D", data_format="middle"), UnsupportedLayerError, "data_format = 'middle'"),
    "batch axis": (FUNCTIONAL, setting("BatchNormalization", axis=0), UnsupportedLayerError, "axes"),
    "several axes": (FUNCTIONAL, setting("BatchNormalization", axis=[1, 3]), UnsupportedLayerError, "'gamma' is stored with"),
    "no such axis": (FUNCTIONAL, setting("BatchNormalization", axis=9), UnsupportedLayerError, "axis = 9 does not name axes"),
    "renorm": (FUNCTIONAL, setting("BatchNormalization", renorm=True), UnsupportedLayerError, "renormalisation"),
    "epsilon": (
        FUNCTIONAL,
        setting("BatchNormalization", epsilon=float("nan")),
        UnsupportedLayerError,
        "epsilon = nan, a number",
    ),
    "mask": (
        FUNCTIONAL,
        called_with("GlobalAveragePooling2D", mask=TENSOR),
        UnsupportedLayerError,
        "argument 'mask', which sparsec does not read",
    ),
    "unknown argument": (FUNCTIONAL, called_with("ReLU", initial_state=3), UnsupportedLayerError, "argument 'initial_state'"),
    "subclass": (
        SEQUENTIAL,
        lambda config: config.update(class_name="Own"),
        UnsupportedLayerError,
        r"class 'Own'; .*rebuild it with keras\.Model",
    ),
    "no layers": (SEQUENTIAL, lambda config: config["config"].pop("layers"), FormatError, "lists no layers"),
    "layer without a class": (
        SEQUENTIAL,
        lambda config: layer_of(config, "Dense").pop("class_name"),
        FormatError,
        "a layer's configuration",
    ),
    "layer without a configuration": (
        SEQUENTIAL,
        lambda config: layer_of(config, "Dense").update(config=[]),
        FormatError,
        "a layer's configuration",
    ),
    "layer that is a number": (
        SEQUENTIAL,
        lambda config: config["config"]["layers"].append(7),
        FormatError,
        "a layer's configuration",
    ),
    "two layers of one name": (
        FUNCTIONAL,
        lambda config: config["config"]["layers"].append(copy.deepcopy(layer_of(config, "ReLU"))),
        FormatError,
        "two layers of one model are called",
    ),
    "circle": (
        FUNCTIONAL,
        lambda config: layer_of(config, "Conv2D")["inbound_nodes"][0]["args"][0]["config"].update(
            keras_history=["logits", 0, 0]
        ),
        FormatError,
        "is not connected to the .*inputs.*, or reads itself",
    ),
    "no such layer": (
        FUNCTIONAL,
        lambda config: layer_of(config, "Conv2D")["inbound_nodes"][0]["args"][0]["config"].update(
            keras_history=["nowhere", 0, 0]
        ),
        FormatError,
        "not connected",
    ),
    "no such output": (
        FUNCTIONAL,
        lambda config: layer_of(config, "ReLU")["inbound_nodes"][0]["args"][0]["config"].update(
            keras_history=["block_1_add", 0, 3]
        ),
        FormatError,
        "has no output 3",
    ),
    "no such end": (
        FUNCTIONAL,
        lambda config: config["config"].update(output_layers=[["nowhere", 0, 0]]),
        FormatError,
        "'nowhere'",
    ),
    "ends that are none": (
        FUNCTIONAL,
        lambda config: config["config"].update(output_layers=[[1, 2, 3]]),
        FormatError,
        "not a reference",
    ),
    "input that is none": (
        FUNCTIONAL,
        lambda config: config["config"].update(input_layers=["logits", 0, 0]),
        FormatError,
        "not an input layer",
    ),
    "call that is none": (
        FUNCTIONAL,
        lambda config: layer_of(config, "ReLU").update(inbound_nodes=[7]),
        FormatError,
        "the call 7 cannot be read",
    ),
    "wrong nested input": (
        NESTED,
        lambda config: layer_of(config, "Functional")["config"]["layers"][0]["config"].update(batch_input_shape=[None, 2, 5]),
        UnsupportedLayerError,
        "takes 3 axes",
    ),
    "trained at inference": (
        UNNAMED,
        lambda config: layer_of(config, "BatchNormalization")["inbound_nodes"][0][0].__setitem__(3, {"training": True}),
        UnsupportedLayerError,
        "training=True",
    ),
    "slicing": (
        SAMPLES / "tf_keras-2.21.0" / "ops.keras",
        lambda config: layer_of(config, "TFOpLambda")["config"].update(function="image.adjust_hue"),
        UnsupportedLayerError,
        r"operation 'image\.adjust_hue'",
    ),
}


@pytest.mark.parametrize(("sample", "edit", "error", "match"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_configurations_that_are_refused(
    sample: Path, edit: Edit, error: type[SparsecError], match: str, tmp_path: Path
) -> None:
    refused(with_config(sample, tmp_path / "m.keras", lambda config: edit(config) and None), error, match)


def test_deeply_nested_models(tmp_path: Path) -> None:
    def deepen(config: Any) -> Any:
        for _ in range(300):
            config = {"class_name": "Sequential", "config": {"name": "m", "layers": [config], "build_input_shape": [None, 6]}}
        return config

    refused(with_config(SEQUENTIAL, tmp_path / "m.keras", deepen), FormatError, "deep|none of the groups")


def test_deeply_nested_arguments(tmp_path: Path) -> None:
    def deepen(config: Any) -> None:
        node = layer_of(config, "ReLU")["inbound_nodes"][0]
        for _ in range(400):
            node["args"] = [node["args"]]

    harmless_or_refused(with_config(FUNCTIONAL, tmp_path / "m.keras", deepen))


JUNK = (
    None,
    True,
    -1,
    0,
    3,
    10**30,
    1e308,
    float("nan"),
    "",
    "same",
    "channels_first",
    [],
    [[]],
    [None],
    [-1, 2],
    {},
    {"config": {}},
    {"class_name": []},
)


def places(item: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value in a JSON document."""
    if path:
        yield path
    for key, inner in item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ():
        yield from places(inner, (*path, key))


@pytest.mark.parametrize("name", ["resnet", "mobile", "nested", "ops", "series", "norm"])
@pytest.mark.parametrize("version", ["keras-3.15.1", "tf_keras-2.21.0"])
def test_configurations_with_junk_in_any_place(version: str, name: str, tmp_path: Path) -> None:
    sample = SAMPLES / version / f"{name}.keras"
    with zipfile.ZipFile(sample) as archive:
        config = json.loads(archive.read("config.json"))
    rng = random.Random(f"{version} {name}")
    everywhere = list(places(config))
    for _ in range(120):
        edited = copy.deepcopy(config)
        *where, last = rng.choice(everywhere)
        target = edited
        for key in where:
            target = target[key]
        target[last] = rng.choice(JUNK)
        harmless_or_refused(rezipped(sample, tmp_path / "m.keras", {"config.json": json.dumps(edited).encode()}))


# --- parts of composite layers -----------------------------------------------------------------------------------------

PARTS = {
    "keras-3.15.1/lstm": {("lstm", "cell"): 3, ("lstm_1", "cell"): 3, ("time_distributed", "layer"): 2},
    "tf_keras-2.21.0/lstm": {("lstm", "cell"): 3, ("lstm_1", "cell"): 3, ("time_distributed", "layer"): 2},
    "keras-3.15.1/gru": {("bidirectional", "forward_layer", "cell"): 3, ("bidirectional", "backward_layer", "cell"): 3},
    "keras-3.15.1/attention": {("multi_head_attention", "query_dense"): 2, ("multi_head_attention_1", "output_dense"): 1},
    "tf_keras-2.21.0/attention": {("multi_head_attention", "_query_dense"): 2},
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_composite_layers_have_paths(name: str) -> None:
    with files.open_source(SAMPLES / f"{name}.keras") as source:
        found = {path: len(variables) for path, variables in source.variables.items()}
    assert PARTS[name].items() <= found.items()


def test_variables_that_nothing_reads_are_an_error(tmp_path: Path) -> None:
    """A part that a layer's function does not ask for must not be dropped in silence."""

    def edit(file: h5py.File) -> None:
        file.create_dataset("layers/dropout/mask_network/vars/0", data=np.ones(3, "f4"))

    path = with_weights(SEQUENTIAL, tmp_path / "m.keras", edit)
    refused(path, FormatError, "variables of 'dropout/mask_network' that nothing in the model's configuration accounts for")


def test_state_of_random_numbers_is_no_variable(tmp_path: Path) -> None:
    def edit(file: h5py.File) -> None:
        file.create_dataset("layers/dropout/seed_generator/vars/0", data=np.ones(2, "u4"))

    assert read(with_weights(SEQUENTIAL, tmp_path / "m.keras", edit)).graph.nodes == read(SEQUENTIAL).graph.nodes
