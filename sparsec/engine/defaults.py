"""The coefficients of the cost model where no calibration was made, one set for each instruction set.

They were measured on one machine by ``sparsec calibrate``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sparsec.engine.costs import Coefficients

_AVX512: Final = Coefficients(
    call=105.0,
    multiply=0.3482,
    multiply_shared=0.2731,
    visit=0.1617,
    spill=0.1824,
    far=0.008311,
    carry=0.8409,
    finish=0.3688,
    residual=0.6463,
    post=1.624,
    function=7.199,
    copy=1.2,
    gather=1.326,
    gather_strided=2.457,
    row=1.725,
    piece=3.228,
    entry=0.215,
    entry_row=2.96,
    slot=0.06003,
    slice=0.3308,
)
_AVX2: Final = Coefficients(
    call=69.25,
    multiply=0.1706,
    multiply_shared=0.1332,
    visit=0.2154,
    spill=0.1231,
    far=0.002,
    carry=0.5385,
    finish=0.4253,
    residual=0.4936,
    post=1.104,
    function=5.924,
    copy=0.5228,
    gather=0.9426,
    gather_strided=1.964,
    row=2.042,
    piece=2.544,
    entry=0.2775,
    entry_row=3.107,
    slot=0.4,
    slice=0.967,
)
_BASELINE: Final = Coefficients(
    call=161.1,
    multiply=0.2441,
    multiply_shared=0.2657,
    visit=0.0202,
    spill=0.07161,
    far=0.02199,
    carry=0.6779,
    finish=0.7441,
    residual=0.7891,
    post=1.189,
    function=7.798,
    copy=0.566,
    gather=1.412,
    gather_strided=2.165,
    row=6.065,
    piece=4.922,
    entry=0.2538,
    entry_row=2.948,
    slot=0.5,
    slice=1.0,
)

DEFAULTS: Final[Mapping[str, Coefficients]] = {"avx512": _AVX512, "avx2": _AVX2, "neon": _BASELINE, "baseline": _BASELINE}
"""By the name of the instruction set; those of NEON were not measured."""
