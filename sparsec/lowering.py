"""Lowering: a graph becomes a program, its weights become stored tensors."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sparsec.encodings import Choice, choose
from sparsec.ir import Array, Graph
from sparsec.ops import check, get_op
from sparsec.program import EncodingNote, Program

MAX_THREADS = 8


def lower(
    graph: Graph, level: str = "plain", encoding: str = "auto", progress: Callable[[int, int], None] | None = None
) -> Program:
    """Encode the weights of a graph for a bundle of ``level``.

    The rows of a weight's matrix view are those that the first operator which reads it as a matrix declares. A weight that no
    operator reads as a matrix, such as a bias, is one row, and ``encoding`` does not apply to it: it is stored in the fewest
    bytes. Weights that nothing reads are left out.

    Args:
        graph: a checked graph.
        level: one of :data:`sparsec.encodings.LEVELS`.
        encoding: one of :data:`sparsec.encodings.ENCODINGS`, for the matrices.
        progress: called with the number of weights done and their total.

    Raises:
        InputError: the level or the encoding does not exist.
        GraphError: the graph is malformed.
    """
    graph = graph.pruned_weights()
    check(graph, "the passes, before lowering")
    rows = matrix_rows(graph)

    def encode_weight(item: tuple[str, Array]) -> Choice:
        path, array = item
        return choose(array, rows.get(path, ()), level, encoding if path in rows else "auto")

    choices: dict[str, Choice] = {}
    with ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_THREADS)) as pool:
        for path, choice in zip(graph.weights, pool.map(encode_weight, graph.weights.items()), strict=True):
            choices[path] = choice
            if progress is not None:
                progress(len(choices), len(graph.weights))
    return Program(
        graph.inputs,
        graph.outputs,
        graph.nodes,
        {path: choice.stored for path, choice in choices.items()},
        graph.name,
        {path: _note(choice) for path, choice in choices.items()},
    )


def matrix_rows(graph: Graph) -> dict[str, tuple[int, ...]]:
    """The axes that make up the rows of every weight that some operator reads as a matrix."""
    rows: dict[str, tuple[int, ...]] = {}
    for node in graph.nodes:
        for index, axes in get_op(node.op).matrix_rows.items():
            path = node.inputs[index] if index < len(node.inputs) else ""
            if path in graph.weights and path not in rows:
                rank = graph.weights[path].ndim
                rows[path] = tuple(axis % rank for axis in axes)
    return rows


def _note(choice: Choice) -> EncodingNote:
    return EncodingNote(
        choice.stored.encoding,
        choice.bytes,
        choice.stored.dense_nbytes,
        choice.zeros,
        choice.reason,
        choice.candidates,
    )
