"""Operations on tensors, and half precision, as released versions of Keras 2 wrote them into files."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from sparsec.frontends import SUFFIXES, read
from sparsec.ops import evaluate_graph

FOLDER = Path(__file__).parent / "frozen"
ARCHIVES = sorted(FOLDER.glob("*/tensors.zip"))

HALF_ROUNDING = 2e-3
"""Of the range of an output: what Keras rounds where it computes in half precision."""


def members() -> list[tuple[Path, str]]:
    found = []
    for path in ARCHIVES:
        with zipfile.ZipFile(path) as archive:
            found += [(path, name) for name in archive.namelist() if PurePosixPath(name).suffix in SUFFIXES]
    return found


def test_there_are_samples() -> None:
    names = {name for _, name in members()}
    assert {"tensor_slices.keras", "tensor_slices.h5", "tensor_nested.h5", "half_mixed.keras", "half_stored.h5"} <= names


@pytest.mark.parametrize(("path", "name"), members(), ids=[f"{path.parent.name}/{name}" for path, name in members()])
def test_outputs_are_those_of_the_version_that_wrote_the_file(path: Path, name: str, tmp_path: Path) -> None:
    stem = PurePosixPath(name).stem
    with zipfile.ZipFile(path) as archive:
        archive.extract(name, tmp_path)
        stored = dict(np.load(io.BytesIO(archive.read(f"{stem}.npz"))))
    wanted = [stored[f"y{index}"] for index in range(sum(key.startswith("y") for key in stored))]
    inputs = [stored[f"x{index}"] for index in range(len(stored) - len(wanted))]
    found = evaluate_graph(read(tmp_path / name).graph, inputs)
    assert len(found) == len(wanted)
    tolerance = HALF_ROUNDING if stem.startswith("half") else 1e-5
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        one, other = one.astype(np.float64), other.astype(np.float64)
        assert np.abs(one - other).max() <= tolerance * max(np.ptp(other), 1e-6)
