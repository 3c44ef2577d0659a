"""Opening Keras files: ``.keras`` archives and ``.h5``/``.hdf5`` files, without TensorFlow or Keras."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparsec.errors import FormatError, InputError
from sparsec.frontends.hdf5 import H5Group, open_h5
from sparsec.frontends.legacy import legacy_variables
from sparsec.frontends.source import SavedBy, Source, model_config
from sparsec.frontends.tree import tree_variables
from sparsec.frontends.vocabularies import vocabularies

SUFFIXES = (".keras", ".h5", ".hdf5")

_OTHER_SUFFIXES = {
    ".npz": "a bundle, which sparsec runs and verifies but cannot turn back into a model; give the Keras file it was made from",
    ".onnx": "an ONNX file, which sparsec writes but does not read as a model; give the Keras file it was made from",
    ".tflite": "a TensorFlow Lite file, which holds no layers; give the Keras file it was made from",
    ".pb": "a TensorFlow graph, which holds no layers; save the model as .keras",
    ".pkl": "a pickle, which can run code and is never opened; save the model as .keras",
    ".pickle": "a pickle, which can run code and is never opened; save the model as .keras",
    ".json": "a configuration without weights; save the whole model as .keras",
}

MAX_CONFIG_BYTES = 1 << 28
MAX_WEIGHTS_BYTES = 1 << 36
"""No member of an archive is unpacked beyond these sizes."""

CONFIG_MEMBER, METADATA_MEMBER, WEIGHTS_MEMBER = "config.json", "metadata.json", "model.weights.h5"

_ARCHIVE_DAMAGE = (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, struct.error, zlib.error, lzma.LZMAError)
"""What zipfile raises: RuntimeError stands for encryption, its subclass NotImplementedError for unknown compression."""


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open a Keras file; variables are read while the context lasts.

    Raises:
        InputError: there is no such file, it cannot be read, or it has another suffix.
        FormatError: it is not the file that its suffix promises.
        UnsupportedLayerError: the model is of a class of its own.
    """
    _check_path(path)
    # Files are often renamed: what counts is what is inside.
    if zipfile.is_zipfile(path):
        with _open_archive(path) as source:
            yield source
    else:
        with open_h5(path, str(path)) as root:
            yield _legacy_source(path, root)


def _check_path(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_ISDIR(mode):
        if (path / "saved_model.pb").exists():
            raise InputError(
                f"{path} is a SavedModel, which holds no layers; save the model as .keras: model.save('model.keras')"
            )
        raise InputError(f"{path} is a directory; a .keras or .h5 file was expected")
    suffix = path.suffix.lower()
    if suffix in _OTHER_SUFFIXES:
        raise InputError(f"{path} is {_OTHER_SUFFIXES[suffix]}")
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: the suffix {path.suffix!r} is not one of a Keras model ({', '.join(SUFFIXES)})")
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is not a regular file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} cannot be read: permission denied")


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _open_archive(path: Path) -> Iterator[Source]:
    with tempfile.TemporaryDirectory(prefix="sparsec-") as folder:
        # HDF5 needs random access, which a compressed member cannot give.
        weights = Path(folder) / WEIGHTS_MEMBER
        try:
            with zipfile.ZipFile(path) as archive:
                serialized = _read_json(archive, CONFIG_MEMBER, path)
                metadata = _read_json(archive, METADATA_MEMBER, path)
                assets = vocabularies(archive, MAX_CONFIG_BYTES)
                _unpack(archive, WEIGHTS_MEMBER, weights, path)
        except _ARCHIVE_DAMAGE as error:
            raise FormatError(f"{path}: the archive is damaged ({error}); save the model again") from None
        except OSError as error:
            raise InputError(f"{path}: its weights cannot be unpacked into {folder}: {error.strerror or error}") from None
        config = model_config(serialized, str(path))
        version = metadata.get("keras_version") if isinstance(metadata, dict) else None
        with open_h5(weights, str(path)) as root:
            variables = tree_variables(root, config, str(path), assets)
            yield Source(str(path), config, SavedBy.from_version(str(version or "3.0.0")), variables, file_sha256(path))


def _member(archive: zipfile.ZipFile, member: str, limit: int, path: Path) -> zipfile.ZipInfo:
    try:
        info = archive.getinfo(member)
    except KeyError:
        raise FormatError(f"{path}: not a Keras archive, it holds no {member}") from None
    if info.file_size > limit:
        raise FormatError(f"{path}: {member} claims {info.file_size} bytes, more than the limit of {limit}")
    return info


def _read_json(archive: zipfile.ZipFile, member: str, path: Path) -> Any:
    return _parse_json(archive.read(_member(archive, member, MAX_CONFIG_BYTES, path)), f"{path}: {member}")


def _parse_json(text: str | bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where} is not JSON ({error})") from None


def _unpack(archive: zipfile.ZipFile, member: str, target: Path, path: Path) -> None:
    with archive.open(_member(archive, member, MAX_WEIGHTS_BYTES, path)) as packed, target.open("wb") as out:
        shutil.copyfileobj(packed, out, 1 << 22)


def _legacy_source(path: Path, root: H5Group) -> Source:
    text = root.text("model_config")
    if text is None:
        raise FormatError(
            f"{path}: holds weights but no model; save the whole model with model.save(), not model.save_weights()"
        )
    if not root.holds("model_weights"):
        raise FormatError(f"{path}: holds a model but no weights; save it with model.save()")
    config = model_config(_parse_json(text, f"{path}: the model's configuration"), str(path))
    weights = root.group("model_weights")
    version = root.text("keras_version") or weights.text("keras_version") or "2.0.0"
    if version.startswith("1."):
        raise FormatError(f"{path}: written by Keras {version}; sparsec reads files of Keras 2 and 3")
    variables = legacy_variables(weights, config, str(path))
    return Source(str(path), config, SavedBy.from_version(version), variables, file_sha256(path))
