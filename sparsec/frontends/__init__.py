"""Front-ends: from a Keras file or model to a Graph, without importing TensorFlow or Keras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparsec.errors import FormatError
from sparsec.frontends import layers, operations
from sparsec.frontends.builder import GraphBuilder
from sparsec.frontends.files import SUFFIXES, open_source
from sparsec.frontends.layer import LAYERS, OPERATIONS
from sparsec.frontends.memory import memory_source
from sparsec.frontends.model import read_model
from sparsec.frontends.source import SavedBy, Source, Variable
from sparsec.ir import Graph
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
    """

    graph: Graph
    description: str
    saved_by: SavedBy
    variables: Mapping[str, Variable]
    sha256: str


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
    return KerasModel(graph, source.description, source.saved_by, builder.read, source.sha256)
