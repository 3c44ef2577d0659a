"""The ``.npy`` header (NumPy enhancement proposal 1) of a flat, little-endian array."""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from sparsec.errors import FormatError

PREFIX_BYTES: Final = 10
"""Magic string, version 1.0, and the length of the header text as uint16."""

_MAGIC: Final = b"\x93NUMPY\x01\x00"
_BLOCK: Final = 64
_TEXT: Final = re.compile(rb"\{'descr': '([<|][a-z][0-9])', 'fortran_order': False, 'shape': \(([0-9]{1,16}),\), \} *\n")

MEMBER_DTYPES: Final = ("bool", "uint8", "uint16", "uint32", "int32", "int64", "float16", "float32", "float64")
_BY_DESCR: Final = {np.dtype(name).newbyteorder("<").str.encode(): name for name in MEMBER_DTYPES}


def header(dtype: str, count: int) -> bytes:
    """The bytes before ``count`` elements of ``dtype``, a multiple of 64."""
    descr = np.dtype(dtype).newbyteorder("<").str
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({count},), }}".encode()
    padding = -(PREFIX_BYTES + len(text) + 1) % _BLOCK
    text += b" " * padding + b"\n"
    return _MAGIC + len(text).to_bytes(2, "little") + text


def text_length(prefix: bytes) -> int:
    """The length of the header text that follows the first :data:`PREFIX_BYTES` bytes.

    Raises:
        FormatError: these are not the first bytes of a ``.npy`` of version 1.0.
    """
    if len(prefix) != PREFIX_BYTES or not prefix.startswith(_MAGIC):
        raise FormatError("it is not a .npy array of format version 1.0")
    return int.from_bytes(prefix[8:10], "little")


def parse_text(text: bytes) -> tuple[str, int]:
    """The dtype and the number of elements that a header text states.

    Raises:
        FormatError: the array has another dtype, order or rank than bundles use, Python objects among them.
    """
    match = _TEXT.fullmatch(text)
    if match is None or match[1] not in _BY_DESCR:
        raise FormatError(
            f"its header {text[:80].decode('ascii', 'backslashreplace').strip()!r} is none of a flat array of numbers"
        )
    return _BY_DESCR[match[1]], int(match[2])
