"""Networks of keras.applications for the benchmarks, those of the tests at their native size, and calls of their ONNX files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import sparsec
from sparsec.compiler import Compiled
from sparsec.ir import Array

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import zoo

NATIVE_SIZES = {"InceptionV3": 299, "Xception": 299}
NATIVE_SIZE = 224
"""Height and width of the images that the networks were made for."""


def families(names: Sequence[str] = ()) -> Iterator[zoo.Family]:
    """The networks at their native size: those that are named, or all of them."""
    for family in zoo.FAMILIES:
        if not names or family.name in names:
            yield replace(family, size=NATIVE_SIZES.get(family.name, NATIVE_SIZE))


@dataclass(frozen=True)
class Network:
    """A dense network.

    Attributes:
        family: which one.
        model: the Keras model, which pruning changes.
        weights: what its weights were before.
    """

    family: zoo.Family
    model: Any
    weights: list[Array]

    @classmethod
    def build(cls, family: zoo.Family) -> Network:
        """The network with random weights and calibrated BatchNormalization."""
        model = zoo.build(family, sparsity=0.0)
        return cls(family, model, model.get_weights())

    def images(self, count: int) -> Array:
        """Random images."""
        return zoo.images(self.family, count, seed=7)

    def compiled(self, sparsity: float = 0.0, *, whole: bool = True, **options: Any) -> Compiled:
        """The network with a share of its units pruned in groups, compiled."""
        self.model.set_weights(self.weights)
        sparsec.prune_units(self.model, sparsity, whole=whole)
        return sparsec.compile(self.model, verify=False, **options)


def onnx_call(path: Path, *batch: Array, threads: int | None = None) -> Callable[[], Array]:
    """A call that runs an ONNX file in ONNX Runtime, with its inputs in order, and returns its first output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options)
    feed = {entry.name: x for entry, x in zip(session.get_inputs(), batch, strict=True)}
    return lambda: np.asarray(session.run(None, feed)[0])
