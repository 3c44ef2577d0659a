"""The coefficients of the cost model where no calibration was made, one set for each instruction set.

They were measured on one machine by ``sparsec calibrate``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sparsec.engine.costs import Coefficients

_AVX512: Final = Coefficients(
    call=166.0,
    multiply=0.338,
    multiply_shared=0.266,
    visit=0.201,
    spill=0.152,
    spill_shared=0.021,
    far=0.00459,
    carry=0.667,
    finish=0.467,
    residual=0.732,
    post=2.14,
    function=7.25,
    copy=1.09,
    gather=1.33,
    gather_strided=2.7,
    row=1.5,
    piece=2.83,
    entry=0.22,
    entry_row=2.86,
    slot=0.0585,
    slice=0.58,
)
_AVX2: Final = Coefficients(
    call=132.0,
    multiply=0.156,
    multiply_shared=0.121,
    visit=0.283,
    spill=0.119,
    spill_shared=0.124,
    far=0.000872,
    carry=0.538,
    finish=0.501,
    residual=0.583,
    post=1.42,
    function=6.26,
    copy=0.451,
    gather=0.881,
    gather_strided=1.76,
    row=2.52,
    piece=2.7,
    entry=0.275,
    entry_row=3.09,
    slot=0.4,
    slice=0.967,
)
_BASELINE: Final = Coefficients(
    call=122.0,
    multiply=0.208,
    multiply_shared=0.251,
    visit=0.194,
    spill=0.0859,
    spill_shared=0.05,
    far=0.0112,
    carry=0.742,
    finish=1.01,
    residual=0.65,
    post=1.35,
    function=8.36,
    copy=0.282,
    gather=1.31,
    gather_strided=2.28,
    row=5.93,
    piece=5.48,
    entry=0.226,
    entry_row=3.24,
    slot=0.5,
    slice=1.0,
)

DEFAULTS: Final[Mapping[str, Coefficients]] = {"avx512": _AVX512, "avx2": _AVX2, "neon": _BASELINE, "baseline": _BASELINE}
"""By the name of the instruction set; those of NEON were not measured."""
