"""Vocabularies of integers that layers have adapted to: Keras keeps them beside the weights, one token a line."""

from __future__ import annotations

import zipfile

import numpy as np

from sparsec.errors import FormatError
from sparsec.frontends.source import Variable
from sparsec.ir import Array

ASSETS, VOCABULARY = "assets", "/vocabulary.txt"
"""Where an archive keeps them: ``assets/layers/integer_lookup/vocabulary.txt``, in the order of the weights file's groups."""


def vocabularies(archive: zipfile.ZipFile, limit: int) -> dict[str, Variable]:
    """The vocabularies of integers in an archive, by the layer's group in the weights file; those of strings are left out.

    Raises:
        FormatError: one is longer than ``limit`` bytes.
    """
    found: dict[str, Variable] = {}
    for info in archive.infolist():
        name = info.filename
        if not (name.startswith(f"{ASSETS}/") and name.endswith(VOCABULARY)):
            continue
        if info.file_size > limit:
            raise FormatError(f"{archive.filename}: {name} claims {info.file_size} bytes, more than the limit of {limit}")
        try:
            tokens = np.array([int(line) for line in archive.read(info).split()], np.int64)
        except (ValueError, OverflowError):
            continue
        found[name.removeprefix(ASSETS).removesuffix(VOCABULARY)] = vocabulary_variable(name, tokens)
    return found


def vocabulary_variable(location: str, tokens: Array) -> Variable:
    """A vocabulary as a variable, which cannot be assigned."""
    return Variable(location, tokens.shape, lambda: tokens)
