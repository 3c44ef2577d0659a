"""Opening Keras files: ``.keras`` archives and ``.h5``/``.hdf5`` files, without TensorFlow or Keras."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsec.errors import FormatError, InputError
from sparsec.frontends.legacy import legacy_variables
from sparsec.frontends.source import Config, SavedBy, Source
from sparsec.frontends.tree import tree_variables

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".keras", ".h5", ".hdf5")

MAX_CONFIG_BYTES = 1 << 28
MAX_WEIGHTS_BYTES = 1 << 36
"""No member of an archive is unpacked beyond these sizes."""

CONFIG_MEMBER, METADATA_MEMBER, WEIGHTS_MEMBER = "config.json", "metadata.json", "model.weights.h5"


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open a Keras file; variables are read while the context lasts.

    Raises:
        InputError: there is no such file, or it has another suffix.
        FormatError: it is not the file that its suffix promises.
    """
    if path.is_dir():
        if (path / "saved_model.pb").exists():
            raise InputError(
                f"{path} is a SavedModel, which holds no layers; save the model as .keras: keras.Model.save('model.keras')"
            )
        raise InputError(f"{path} is a directory; a .keras or .h5 file was expected")
    if not path.exists():
        raise InputError(f"{path}: there is no such file")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: the suffix {path.suffix!r} is not one of a Keras model ({', '.join(SUFFIXES)})")
    # Files are often renamed: what counts is what is inside.
    if zipfile.is_zipfile(path):
        with _open_archive(path) as source:
            yield source
    else:
        with _open_h5(path, path) as h5:
            yield _legacy_source(path, h5)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _open_archive(path: Path) -> Iterator[Source]:
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory(prefix="sparsec-") as folder:
            config = _read_json(archive, CONFIG_MEMBER, path)
            metadata = _read_json(archive, METADATA_MEMBER, path)
            # HDF5 needs random access, which a compressed member cannot give.
            weights = Path(folder) / WEIGHTS_MEMBER
            _unpack(archive, WEIGHTS_MEMBER, weights, path)
            with _open_h5(weights, path) as h5:
                yield Source(
                    str(path),
                    "keras",
                    config,
                    SavedBy.from_version(str(metadata.get("keras_version", "3.0.0"))),
                    tree_variables(h5, _model_config(config, str(path)), str(path)),
                    file_sha256(path),
                )
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise FormatError(f"{path}: the archive is damaged ({error}); save the model again") from None


def _member(archive: zipfile.ZipFile, member: str, limit: int, path: Path) -> zipfile.ZipInfo:
    try:
        info = archive.getinfo(member)
    except KeyError:
        raise FormatError(f"{path}: not a Keras archive, it holds no {member}") from None
    if info.file_size > limit:
        raise FormatError(f"{path}: {member} claims {info.file_size} bytes, more than the limit of {limit}")
    return info


def _read_json(archive: zipfile.ZipFile, member: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(archive.read(_member(archive, member, MAX_CONFIG_BYTES, path)))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: {member} is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise FormatError(f"{path}: {member} does not hold an object")
    return value


def _unpack(archive: zipfile.ZipFile, member: str, target: Path, path: Path) -> None:
    with archive.open(_member(archive, member, MAX_WEIGHTS_BYTES, path)) as packed, target.open("wb") as out:
        shutil.copyfileobj(packed, out, 1 << 22)


@contextmanager
def _open_h5(file: Path, path: Path) -> Iterator[h5py.File]:
    import h5py

    try:
        h5 = h5py.File(file, "r")
    except OSError:
        raise FormatError(f"{path}: neither a Keras archive nor an HDF5 file; is it damaged or cut short?") from None
    with h5:
        try:
            yield h5
        except OSError as error:
            raise FormatError(f"{path}: the HDF5 data is damaged ({error})") from None


def _legacy_source(path: Path, h5: h5py.File) -> Source:
    if "model_config" not in h5.attrs:
        raise FormatError(
            f"{path}: holds weights but no model (save the whole model with model.save(), not model.save_weights())"
        )
    text = h5.attrs["model_config"]
    try:
        config = json.loads(text)
    except (ValueError, RecursionError, TypeError) as error:
        raise FormatError(f"{path}: the model's configuration is not JSON ({error})") from None
    version = h5.attrs.get("keras_version", h5.get("model_weights", h5).attrs.get("keras_version", "2.0.0"))
    version = version.decode() if isinstance(version, bytes) else str(version)
    if "model_weights" not in h5:
        raise FormatError(f"{path}: holds a model but no weights")
    variables = legacy_variables(h5["model_weights"], _model_config(config, str(path)), str(path))
    return Source(str(path), "h5", config, SavedBy.from_version(version), variables, file_sha256(path))


def _model_config(config: Config, where: str) -> Config:
    inner = config.get("config") if isinstance(config, dict) else None
    if isinstance(inner, list):
        # Sequential models of Keras before 2.2.3 stored the bare list of layers.
        return {"layers": inner}
    if not isinstance(inner, dict):
        raise FormatError(f"{where}: the configuration is not that of a Keras model")
    return inner
