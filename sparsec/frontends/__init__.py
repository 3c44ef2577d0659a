"""Front-ends: from a Keras file or model to a Graph, without importing TensorFlow or Keras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparsec.errors import FormatError
from sparsec.frontends import layers, operations
from sparsec.frontends.builder import GraphBuilder
from sparsec.frontends.files import SUFFIXES, open_source
from sparsec.frontends.layer import LAYERS, OPERATIONS
from sparsec.frontends.memory import memory_source
from sparsec.frontends.model import read_model
from sparsec.frontends.source import MatrixView, SavedBy, Source, Variable
from sparsec.ir import Array, Graph
from sparsec.ops import check
from sparsec.shapes import check_count

if TYPE_CHECKING:
    import keras

__all__ = ["LAYERS", "OPERATIONS", "SUFFIXES", "KerasModel", "SavedBy", "Variable", "layers", "operations", "read"]


@dataclass(frozen=True)
class KerasModel:
    """A Keras model, read.

    Attributes:
        graph: what it computes at inference.
        description: how messages call it.
        saved_by: the version of Keras that wrote it.
        variables: the stored variable behind each weight of the graph that has one.
        sha256: of the file, empty for a model in memory.
        views: how the variable is read as the weight, where the two differ in their axes.
    """

    graph: Graph
    description: str
    saved_by: SavedBy
    variables: Mapping[str, Variable]
    sha256: str
    views: Mapping[str, MatrixView] = field(default_factory=dict)

    def as_stored(self, path: str, array: Array) -> Array:
        """An array that broadcasts over the weight at ``path``, in the axes of the variable behind it."""
        if path not in self.views:
            return array
        whole = np.broadcast_to(array, self.graph.weights[path].shape)
        return self.views[path].stored(whole, self.variables[path].shape)


def read(source: str | Path | keras.Model, input_shape: Sequence[Sequence[int]] | None = None) -> KerasModel:
    """Read a model.

    Args:
        source: the path of a ``.keras``, ``.h5`` or ``.hdf5`` file, or a model in memory.
        input_shape: the shape of each input, without the batch, where the model leaves sizes open.

    Raises:
        InputError: there is no such file, its suffix is another one, a shape does not fit, or a weight is not finite.
        FormatError: the file is damaged or not what its suffix promises.
        UnsupportedLayerError: the model holds a layer, or an option of one, that sparsec does not read.
    """
    try:
        if isinstance(source, str | Path):
            with open_source(Path(source)) as opened:
                return _interpret(opened, input_shape)
        return _interpret(memory_source(source), input_shape)
    except RecursionError:
        raise FormatError(f"{source}: the model's configuration is nested too deeply") from None


def _interpret(source: Source, shapes: Sequence[Sequence[int]] | None) -> KerasModel:
    builder = GraphBuilder(source.saved_by, source.variables, shapes or ())
    graph = read_model(builder, source)
    if shapes is not None:
        check_count(graph, shapes)
    check(graph, after=f"reading {source.description}")
    return KerasModel(graph, source.description, source.saved_by, builder.read, source.sha256, builder.views)
