"""Sample files that released versions of Keras and tf_keras wrote, each with the outputs that its version computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsec.frontends import SUFFIXES, read
from sparsec.ops import evaluate_graph

FOLDER = Path(__file__).parent / "frozen"
FILES = sorted(path for path in FOLDER.glob("*/*") if path.suffix in SUFFIXES)

TOLERANCE = 1e-5


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path.with_suffix(".npz")) as file:
        return dict(file)


def test_every_promised_version_has_samples() -> None:
    versions = {path.parent.name.rpartition("-")[::2] for path in FILES}
    assert {tool for tool, _ in versions} == {"keras", "tf_keras", "tfmot"}
    assert {version.partition(".")[0] for tool, version in versions if tool == "keras"} == {"2", "3"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_outputs_are_those_of_the_version_that_wrote_the_file(path: Path) -> None:
    model, stored = read(path), arrays(path)
    inputs = [stored[name] for name in sorted(stored) if name.startswith("x")]
    wanted = [stored[name] for name in sorted(stored) if name.startswith("y")]
    found = evaluate_graph(model.graph, inputs)
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= TOLERANCE * np.ptp(other)
