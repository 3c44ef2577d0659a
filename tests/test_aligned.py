"""What kernels load in whole vectors begins at a line of the cache."""

import numpy as np
import pytest

from sparsec.encodings import Csr
from sparsec.kernels import aligned, library
from sparsec.kernels.filters import FilterGroups
from sparsec.kernels.library import FEW
from sparsec.kernels.streams import SliceStream

IDENTITY = Csr(np.arange(41, dtype=np.int32), np.arange(40, dtype=np.int32), np.ones(40, np.float32))


@pytest.mark.parametrize("shape", [(1,), (3, 5, 7), (1000, 33)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_zeros_begin_a_line(shape, dtype):
    array = aligned.zeros(shape, dtype)
    assert array.ctypes.data % aligned.LINE_BYTES == 0
    assert (array.shape, array.dtype) == (shape, dtype)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert not array.any()


def test_filters_begin_a_line():
    assert FilterGroups.pack(IDENTITY, 40, 1, 16).values.ctypes.data % aligned.LINE_BYTES == 0


@pytest.mark.skipif(library.packers() is None, reason="slices are packed by the native library")
def test_slices_begin_a_line():
    packed = SliceStream.pack(IDENTITY, 40, FEW)
    assert [array.ctypes.data % aligned.LINE_BYTES for array in (packed.places, packed.values)] == [0, 0]
