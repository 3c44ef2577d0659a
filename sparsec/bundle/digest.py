"""The content digest: the same on every machine for programs that compute the same, however they are encoded."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from sparsec.bundle.manifest import graph_to_json
from sparsec.encodings import StoredTensor, decode
from sparsec.program import Program


def content_digest(program: Program) -> str:
    """SHA-256, in lower-case hexadecimal, of the graph and the decoded tensors, as ``formats/bundle.md`` defines it."""
    digest = hashlib.sha256()
    graph = graph_to_json(program.name, program.inputs, program.outputs, program.nodes)
    digest.update(_line(graph))
    for name in sorted(program.tensors):
        stored = program.tensors[name]
        digest.update(_line([name, stored.dtype, list(stored.shape), tensor_digest(stored)]))
    return digest.hexdigest()


def tensor_digest(stored: StoredTensor) -> str:
    """SHA-256 of the decoded tensor, little-endian in row-major order."""
    array = decode(stored)
    return hashlib.sha256(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data.cast("B")).hexdigest()


def _line(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":")).encode() + b"\n"
