"""Arrays that begin at a line of the cache: where vectors of the same size are loaded from them, none lies in two lines."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np

from sparsec.ir import Array

LINE_BYTES: Final = 64


def zeros(shape: Sequence[int], dtype: Any) -> Array:
    """Zeros, the first of which begins a line.

    Args:
        shape: of the array.
        dtype: of its elements.
    """
    nbytes = prod(shape) * np.dtype(dtype).itemsize
    room = np.zeros(nbytes + LINE_BYTES, np.uint8)
    first = -room.ctypes.data % LINE_BYTES
    array: Array = room[first : first + nbytes].view(dtype).reshape(shape)
    return array
