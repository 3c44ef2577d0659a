"""The coefficients of the cost model where no calibration was made, one set for each instruction set.

They were measured on one machine by ``sparsec calibrate``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sparsec.engine.costs import Coefficients

_AVX512: Final = Coefficients(
    call=157.0,
    multiply=0.29,
    multiply_shared=0.262,
    visit=0.27,
    spill=0.255,
    spill_shared=0.00867,
    far=0.00206,
    carry=0.929,
    finish=0.768,
    residual=0.681,
    post=1.83,
    function=7.29,
    copy=1.17,
    gather=1.24,
    gather_strided=2.41,
    gather_steady=1.03,
    row=1.44,
    piece=3.97,
    entry=0.234,
    entry_row=2.69,
    slot_few=0.226,
    slot_narrow=0.072,
    slot_wide=0.125,
    far_few=0.00295,
    far_narrow=0.014,
    far_wide=0.00477,
    slice=3.89,
)
_AVX2: Final = Coefficients(
    call=142.0,
    multiply=0.149,
    multiply_shared=0.121,
    visit=0.266,
    spill=0.126,
    spill_shared=0.0343,
    far=0.000328,
    carry=0.643,
    finish=0.669,
    residual=0.402,
    post=1.45,
    function=6.27,
    copy=0.512,
    gather=0.847,
    gather_strided=1.74,
    gather_steady=0.792,
    row=2.28,
    piece=3.07,
    entry=0.279,
    entry_row=3.04,
    slot_few=0.244,
    slot_narrow=0.09,
    slot_wide=0.14,
    far_few=0.001,
    far_narrow=0.0085,
    far_wide=0.00265,
    slice=2.36,
)
_BASELINE: Final = Coefficients(
    call=116.0,
    multiply=0.206,
    multiply_shared=0.248,
    visit=0.22,
    spill=0.0826,
    spill_shared=0.0495,
    far=0.0,
    carry=0.605,
    finish=0.985,
    residual=0.695,
    post=1.39,
    function=8.41,
    copy=0.31,
    gather=0.893,
    gather_strided=1.5,
    gather_steady=0.648,
    row=6.65,
    piece=11.7,
    entry=0.251,
    entry_row=3.02,
    slot_few=0.254,
    slot_narrow=0.5,
    slot_wide=0.5,
    far_few=0.00442,
    far_narrow=0.02,
    far_wide=0.01,
    slice=2.55,
)

DEFAULTS: Final[Mapping[str, Coefficients]] = {"avx512": _AVX512, "avx2": _AVX2, "neon": _BASELINE, "baseline": _BASELINE}
"""By the name of the instruction set; those of NEON were not measured."""
