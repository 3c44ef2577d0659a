"""How convolutions cut the positions of their output into lines."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsec.engine.stacks import Cutter, Section, worthwhile
from sparsec.engine.steps import Planes, Window
from sparsec.kernels.library import ISAS

SAME = Window((3, 3), pads=(1, 1))


@given(
    isa=st.sampled_from(ISAS),
    most=st.sampled_from([3, 6, 8]),
    size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    samples=st.integers(1, 3),
)
def test_cuts_have_every_position_and_get_better(isa, most, size, samples):
    found = worthwhile(SAME, Planes(samples, *size, 1), most, isa)
    for cut in found:
        assert cut.tally.lines * isa.lanes >= samples * size[0] * size[1]
        assert cut.tally.lines <= cut.tally.largest * cut.tally.tiles
        assert cut.tally.largest <= most
        assert cut.tally.read > cut.tally.lines
        assert sum(section.width for section in cut.beside) == size[1] % isa.lanes
        assert len(cut.options) in (0, 3, 5)
    efforts = [cut.tally.effort for cut in found]
    assert efforts == sorted(efforts, reverse=True)


@pytest.mark.parametrize(("size", "lines"), [(7, 3.5), (8, 4), (10, 6.5), (14, 12.5), (28, 49), (56, 196)])
def test_few_lanes_are_empty(size, lines):
    assert worthwhile(SAME, Planes(1, size, size, 1), 8, ISAS[0])[-1].tally.lines == lines


def test_two_sections_are_cut_where_they_save_lines():
    fourteen, eight = (worthwhile(SAME, Planes(1, size, size, 1), 8, ISAS[0]) for size in (14, 8))
    assert [cut.name for cut in fourteen][-1] == "8x2+6x5"
    assert fourteen[-1].options == (8, 2, 1, 5, 2)
    # One tile of 7 lines and one of 5.5, which two threads would not share evenly.
    assert fourteen[-1].tally.unevenness == 2 * 7 / 12.5
    assert [cut.name for cut in eight] == ["8x1", "8x2"]


@given(width=st.integers(1, 15), rows=st.integers(1, 100))
def test_half_lines_are_counted_once_for_a_section(width, rows):
    cutter = Cutter(rows, SAME, 8, ISAS[0])
    best = cutter.best(width)
    one = cutter.tally(Section(width))
    assert cutter.tally(best).effort <= one.effort
    assert one.lines == rows - (0.5 if width <= 8 else 0)
    assert cutter.tally(best).lines >= ceil(2 * width * rows / 16) / 2
