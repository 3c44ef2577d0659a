"""Dimensions: arithmetic on symbols must say what arithmetic on numbers says, and equal expressions must look equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsec.errors import GraphError, InputError
from sparsec.ir import Dim, Expr, ceil_div, evaluate, format_shape, product, substitute, symbol, symbols
from sparsec.ir.dims import MAX_SIZE

NAMES = ("N", "H", "W")

Numbers = dict[str, int]


@dataclass(frozen=True)
class Formula:
    """A random formula, as a dimension and as a function of numbers that knows nothing of dimensions."""

    dim: Dim
    value: Callable[[Numbers], int]


def constant(number: int) -> Formula:
    return Formula(number, lambda _: number)


def variable(name: str) -> Formula:
    return Formula(symbol(name), lambda numbers: numbers[name])


def combined(pair: tuple[Formula, Formula, str]) -> Formula:
    a, b, kind = pair
    if kind == "+":
        return Formula(a.dim + b.dim, lambda numbers: a.value(numbers) + b.value(numbers))
    if kind == "-":
        return Formula(a.dim - b.dim, lambda numbers: a.value(numbers) - b.value(numbers))
    return Formula(a.dim * b.dim, lambda numbers: a.value(numbers) * b.value(numbers))


def divided(pair: tuple[Formula, int, bool]) -> Formula:
    a, divisor, up = pair
    if up:
        return Formula(ceil_div(a.dim, divisor), lambda numbers: -(-a.value(numbers) // divisor))
    return Formula(a.dim // divisor, lambda numbers: a.value(numbers) // divisor)


def grown(inner: st.SearchStrategy[Formula]) -> st.SearchStrategy[Formula]:
    return st.one_of(
        st.tuples(inner, inner, st.sampled_from("+-*")).map(combined),
        st.tuples(inner, st.integers(1, 7), st.booleans()).map(divided),
    )


FORMULAS = st.recursive(st.one_of(st.integers(-9, 9).map(constant), st.sampled_from(NAMES).map(variable)), grown, max_leaves=6)
SIZES = st.fixed_dictionaries({name: st.integers(0, 50) for name in NAMES})
H, W = symbol("H"), symbol("W")


@given(FORMULAS, SIZES)
def test_value_is_that_of_the_formula(formula: Formula, sizes: Numbers) -> None:
    assert evaluate(formula.dim, sizes) == formula.value(sizes)


@given(FORMULAS, SIZES)
def test_substituting_numbers_gives_a_number(formula: Formula, sizes: Numbers) -> None:
    found = substitute(formula.dim, sizes)
    assert isinstance(found, int)
    assert found == formula.value(sizes)


@given(FORMULAS, FORMULAS, SIZES)
def test_substituting_formulas_is_composition(formula: Formula, inner: Formula, sizes: Numbers) -> None:
    composed = substitute(formula.dim, {"H": inner.dim})
    assert evaluate(composed, sizes) == formula.value({**sizes, "H": inner.value(sizes)})
    assert symbols(composed) <= (symbols(formula.dim) - {"H"}) | symbols(inner.dim)


@given(FORMULAS, FORMULAS, FORMULAS)
def test_laws_of_rings_hold_in_form(a: Formula, b: Formula, c: Formula) -> None:
    x, y, z = a.dim, b.dim, c.dim
    assert x + y == y + x
    assert x * y == y * x
    assert (x + y) + z == x + (y + z)
    assert (x * y) * z == x * (y * z)
    assert x * (y + z) == x * y + x * z
    assert x - x == 0
    assert x + 0 == x * 1 == 0 - (0 - x) == x
    assert x * 0 == 0


@given(FORMULAS, st.integers(1, 7), st.integers(1, 7), st.integers(-20, 20))
def test_whole_multiples_leave_a_floor(a: Formula, divisor: int, factor: int, offset: int) -> None:
    x = a.dim
    assert x * divisor // divisor == x
    assert (x * divisor + offset) // divisor == x + offset // divisor
    assert (x * divisor * factor) // (divisor * factor) == x
    assert (x * factor + offset * divisor * factor) // (divisor * factor) == x // divisor + offset
    assert x // 1 == x
    assert ceil_div(x * divisor, divisor) == x


@given(FORMULAS)
def test_what_holds_no_symbol_is_a_number(a: Formula) -> None:
    assert isinstance(a.dim, int) == (not symbols(a.dim))


@given(FORMULAS)
def test_expressions_are_values(a: Formula) -> None:
    assert hash(a.dim) == hash(a.dim + 0)
    assert substitute(a.dim, {}) == a.dim


def test_same_padding_and_strides_meet_again() -> None:
    """Two branches of a network halve a size in different ways; the sizes must be seen to be equal."""
    halved = ceil_div(H, 2)
    assert halved == (H + 1) // 2 == (H - 1) // 2 + 1 == (H + 3) // 2 - 1
    assert ceil_div(halved, 2) == ceil_div(ceil_div(H + 0, 2), 2)
    assert halved * 2 != H


def test_text() -> None:
    assert str(H + 1) == "H + 1"
    assert str(2 * H * W - 3) == "2*H*W - 3"
    assert str(1 - H) == "-1*H + 1"
    assert str(H // 2 + W) == "W + floor((H)/2)"
    assert format_shape((symbol("N"), H // 2, 3)) == "(N, floor((H)/2), 3)"


def test_products() -> None:
    assert product([]) == 1
    assert product([2, H, 3]) == 6 * H
    assert product([H, W]) == W * H


def test_unknown_sizes_are_named() -> None:
    with pytest.raises(InputError, match="'W' is not known"):
        evaluate(H * W, {"H": 2})


def squared(dim: Dim, times: int) -> Dim:
    for _ in range(times):
        dim = dim * dim
    return dim


def halved(dim: Dim, times: int) -> Dim:
    for _ in range(times):
        dim = (dim * 3 + 1) // 2
    return dim


def test_expressions_do_not_run_away() -> None:
    for grow in (lambda: squared(H + W + symbol("N"), 10), lambda: halved(H, 10_000), lambda: (H + 1) * MAX_SIZE * 2):
        with pytest.raises(GraphError, match="too complicated"):
            grow()


def test_many_floors_in_each_other() -> None:
    deep, sizes = halved(H, 100), 1000
    for _ in range(100):
        sizes = (sizes * 3 + 1) // 2
    assert evaluate(deep, {"H": 1000}) == sizes
    assert deep == halved(H, 100)
    assert hash(deep) == hash(halved(H, 100))
    assert evaluate(substitute(deep, {"H": H + 1}), {"H": 999}) == sizes


def test_plain_numbers_stay_plain() -> None:
    assert type(ceil_div(7, 2)) is int
    assert isinstance(H, Expr)
    assert type(H - H + 3) is int
