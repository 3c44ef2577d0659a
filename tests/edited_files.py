"""Keras files made from the frozen samples by editing their configuration or their weights, without Keras."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py


def _copy(source: Path, target: Path, member: str, edit: Callable[[bytes], bytes]) -> Path:
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        for name in before.namelist():
            data = before.read(name)
            after.writestr(name, edit(data) if name == member else data)
    return target


def edited_config(source: Path, target: Path, edit: Callable[[list[dict[str, Any]]], None]) -> Path:
    """A copy of a ``.keras`` file after ``edit`` has changed the list of its layers."""

    def edit_json(data: bytes) -> bytes:
        config = json.loads(data)
        edit(config["config"]["layers"])
        return json.dumps(config).encode()

    return _copy(source, target, "config.json", edit_json)


def edited_weights(source: Path, target: Path, edit: Callable[[h5py.Dataset], None]) -> Path:
    """A copy of a ``.keras`` file after ``edit`` has changed each of its variables."""

    def edit_h5(data: bytes) -> bytes:
        buffer = io.BytesIO(data)
        with h5py.File(buffer, "r+") as h5:
            h5.visititems(lambda _, item: edit(item) if isinstance(item, h5py.Dataset) else None)
        return buffer.getvalue()

    return _copy(source, target, "model.weights.h5", edit_h5)


def with_open_sizes(source: Path, target: Path, shape: list[int | None]) -> Path:
    """A copy of a ``.keras`` file whose first input leaves the sizes open that ``shape`` gives as ``None``."""

    def edit(layers: list[dict[str, Any]]) -> None:
        layers[0]["config"]["batch_shape"] = [None, *shape]

    return edited_config(source, target, edit)


def of_version(source: Path, target: Path, version: str) -> Path:
    """A copy of a ``.keras`` file that says it was written by another version of Keras."""
    return _copy(
        source, target, "metadata.json", lambda data: json.dumps({**json.loads(data), "keras_version": version}).encode()
    )
