"""The limits of a bundle. What breaks one is refused before memory is spent on it; ``formats/bundle.md`` repeats them."""

from __future__ import annotations

from typing import Final

from sparsec.encodings import stored

MAX_FILE_BYTES: Final = 2**32 - 1
"""Offsets in the zip have 32 bits; zip64 is not used."""

MAX_MEMBERS: Final = 64
MAX_DIRECTORY_BYTES: Final = 2**20
"""Of the directory of the zip."""

MAX_MANIFEST_BYTES: Final = 2**25
MAX_JSON_DEPTH: Final = 32
MAX_INTEGER: Final = 2**53 - 1
"""The largest magnitude of an integer; every language reads it exactly."""

MAX_NAME_LENGTH: Final = 1024
MAX_RANK: Final = 8
MAX_ELEMENTS: Final = stored.MAX_ELEMENTS
"""Of a tensor, and of a part."""

MAX_NODES: Final = 100_000
MAX_TENSORS: Final = 100_000
MAX_PORTS: Final = 1000
"""Inputs, outputs, and values that one node reads or defines."""

MAX_SELFCHECK_VALUES: Final = 1000
"""Expected elements of one output."""

MAX_SELFCHECK_ELEMENTS: Final = 2**26
"""Of the inputs of the self-check, and of one output."""

MAX_DEFLATE_RATIO: Final = 1032
"""What DEFLATE can reach at most; a member that claims more is lying."""

FREE_BYTES: Final = 2**31
MAX_EXPANSION: Final = 1000
"""All members inflated, and all tensors decoded, take at most ``FREE_BYTES + MAX_EXPANSION * file size`` bytes each."""


def most_bytes(file_size: int) -> int:
    """The most bytes that a file of ``file_size`` may inflate or decode to."""
    return FREE_BYTES + MAX_EXPANSION * file_size
