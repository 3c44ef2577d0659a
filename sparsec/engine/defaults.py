"""The coefficients of the cost model where no calibration was made, one set for each instruction set.

They were measured on one machine by ``sparsec calibrate``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sparsec.engine.costs import Coefficients

_AVX512: Final = Coefficients(
    call=128.0,
    multiply=0.29,
    multiply_shared=0.265,
    visit=0.276,
    spill=0.255,
    spill_shared=0.0136,
    far=0.00115,
    carry=0.946,
    finish=0.933,
    residual=0.527,
    post=1.8,
    function=7.14,
    copy=1.06,
    gather=1.06,
    gather_strided=2.17,
    read=1.23,
    read_paired=2.62,
    row=1.94,
    piece=1.58,
    entry=0.233,
    entry_row=2.9,
    slot_few=0.225,
    slot_narrow=0.0753,
    slot_wide=0.121,
    far_few=0.00424,
    far_narrow=0.0118,
    far_wide=0.00637,
    slice=4.38,
)
_AVX2: Final = Coefficients(
    call=138.0,
    multiply=0.149,
    multiply_shared=0.125,
    visit=0.279,
    spill=0.132,
    spill_shared=0.0647,
    far=0.0,
    carry=0.675,
    finish=0.887,
    residual=0.255,
    post=1.22,
    function=5.97,
    copy=0.41,
    gather=0.797,
    gather_strided=1.72,
    read=0.855,
    read_paired=2.35,
    row=2.15,
    piece=0.822,
    entry=0.283,
    entry_row=3.08,
    slot_few=0.237,
    slot_narrow=0.0877,
    slot_wide=0.14,
    far_few=0.00313,
    far_narrow=0.00947,
    far_wide=0.00525,
    slice=2.79,
)
_BASELINE: Final = Coefficients(
    call=162.0,
    multiply=0.218,
    multiply_shared=0.259,
    visit=0.214,
    spill=0.0888,
    spill_shared=0.0298,
    far=0.0,
    carry=0.651,
    finish=1.05,
    residual=0.667,
    post=1.32,
    function=8.68,
    copy=0.259,
    gather=1.14,
    gather_strided=2.28,
    read=0.926,
    read_paired=2.48,
    row=4.17,
    piece=2.07,
    entry=0.254,
    entry_row=3.02,
    slot_few=0.251,
    slot_narrow=0.5,
    slot_wide=0.5,
    far_few=0.000382,
    far_narrow=0.02,
    far_wide=0.01,
    slice=2.46,
)

DEFAULTS: Final[Mapping[str, Coefficients]] = {"avx512": _AVX512, "avx2": _AVX2, "neon": _BASELINE, "baseline": _BASELINE}
"""By the name of the instruction set; those of NEON were not measured."""
