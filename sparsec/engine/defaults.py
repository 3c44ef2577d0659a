"""The coefficients of the cost model where no calibration was made, one set for each instruction set.

They were measured on one machine by ``sparsec calibrate``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sparsec.engine.costs import Coefficients

_AVX512: Final = Coefficients(
    call=155.0,
    multiply=0.273,
    multiply_shared=0.263,
    visit=0.267,
    spill=0.226,
    spill_shared=0.00582,
    far=0.007,
    carry=0.95,
    finish=0.533,
    residual=0.903,
    post=2.24,
    function=7.5,
    copy=1.18,
    gather=1.26,
    gather_strided=2.77,
    gather_steady=1.07,
    row=1.49,
    piece=3.84,
    entry=0.178,
    entry_row=4.18,
    slot=0.0586,
    slice=0.762,
)
_AVX2: Final = Coefficients(
    call=115.0,
    multiply=0.141,
    multiply_shared=0.122,
    visit=0.289,
    spill=0.111,
    spill_shared=0.0993,
    far=0.00276,
    carry=0.712,
    finish=0.679,
    residual=0.41,
    post=1.45,
    function=6.25,
    copy=0.495,
    gather=0.781,
    gather_strided=1.77,
    gather_steady=0.755,
    row=2.24,
    piece=2.84,
    entry=0.271,
    entry_row=3.1,
    slot=0.4,
    slice=0.967,
)
_BASELINE: Final = Coefficients(
    call=136.0,
    multiply=0.201,
    multiply_shared=0.247,
    visit=0.253,
    spill=0.0753,
    spill_shared=0.0619,
    far=0.0033,
    carry=0.617,
    finish=1.1,
    residual=0.723,
    post=1.33,
    function=8.74,
    copy=0.304,
    gather=1.01,
    gather_strided=1.55,
    gather_steady=0.603,
    row=6.09,
    piece=11.4,
    entry=0.238,
    entry_row=3.17,
    slot=0.5,
    slice=1.0,
)

DEFAULTS: Final[Mapping[str, Coefficients]] = {"avx512": _AVX512, "avx2": _AVX2, "neon": _BASELINE, "baseline": _BASELINE}
"""By the name of the instruction set; those of NEON were not measured."""
