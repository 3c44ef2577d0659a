"""The coefficients of the cost model where no calibration was made, one set for each instruction set.

They were measured on one machine by ``sparsec calibrate``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sparsec.engine.costs import Coefficients

_AVX512: Final = Coefficients(
    call=174.0,
    multiply=0.334,
    multiply_shared=0.276,
    visit=0.266,
    spill=0.184,
    far=0.0132,
    carry=0.854,
    finish=0.347,
    residual=0.767,
    post=2.08,
    function=7.5,
    copy=0.998,
    gather=1.28,
    gather_strided=2.78,
    row=2.6,
    piece=4.0,
    entry=0.226,
    entry_row=3.1,
    slot=0.0639,
    slice=0.351,
)
_AVX2: Final = Coefficients(
    call=106.0,
    multiply=0.174,
    multiply_shared=0.134,
    visit=0.205,
    spill=0.133,
    far=0.0,
    carry=0.598,
    finish=0.462,
    residual=0.613,
    post=1.22,
    function=5.93,
    copy=0.527,
    gather=0.888,
    gather_strided=1.97,
    row=2.17,
    piece=2.63,
    entry=0.28,
    entry_row=3.07,
    slot=0.4,
    slice=0.967,
)
_BASELINE: Final = Coefficients(
    call=110.0,
    multiply=0.247,
    multiply_shared=0.272,
    visit=0.0473,
    spill=0.0762,
    far=0.00726,
    carry=0.733,
    finish=0.881,
    residual=1.34,
    post=1.17,
    function=8.35,
    copy=0.493,
    gather=1.43,
    gather_strided=1.95,
    row=6.18,
    piece=5.13,
    entry=0.256,
    entry_row=3.02,
    slot=0.5,
    slice=1.0,
)

DEFAULTS: Final[Mapping[str, Coefficients]] = {"avx512": _AVX512, "avx2": _AVX2, "neon": _BASELINE, "baseline": _BASELINE}
"""By the name of the instruction set; those of NEON were not measured."""
