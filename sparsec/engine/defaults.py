"""The coefficients of the cost model where no calibration was made, one set for each instruction set.

They were measured on one machine by ``sparsec calibrate``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sparsec.engine.costs import Coefficients

_AVX512: Final = Coefficients(
    call=199.0,
    multiply=0.331,
    multiply_shared=0.265,
    visit=0.194,
    spill=0.149,
    far=0.00383,
    carry=0.715,
    finish=0.497,
    residual=0.768,
    post=2.13,
    function=7.47,
    copy=1.16,
    gather=1.33,
    gather_strided=2.73,
    row=1.59,
    piece=2.96,
    entry=0.225,
    entry_row=2.86,
    slot=0.0604,
    slice=0.519,
)
_AVX2: Final = Coefficients(
    call=121.0,
    multiply=0.155,
    multiply_shared=0.122,
    visit=0.287,
    spill=0.116,
    far=0.00181,
    carry=0.569,
    finish=0.469,
    residual=0.638,
    post=1.42,
    function=6.27,
    copy=0.443,
    gather=0.923,
    gather_strided=1.77,
    row=2.55,
    piece=2.81,
    entry=0.272,
    entry_row=3.14,
    slot=0.4,
    slice=0.967,
)
_BASELINE: Final = Coefficients(
    call=122.0,
    multiply=0.208,
    multiply_shared=0.251,
    visit=0.194,
    spill=0.0859,
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
