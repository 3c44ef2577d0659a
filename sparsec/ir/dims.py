"""Dimensions: integers, or polynomials over named symbols that are not yet known.

A model that was built with ``Input((None, None, 3))`` has spatial sizes that are known only when it runs. Type inference
computes with them all the same: ``SAME`` padding and stride 2 turn ``H`` into ``floor((H + 1) / 2)``. Expressions are kept in
one canonical form, so that two ways of reaching a size compare equal exactly when their forms agree:

* a sum of monomials with integer coefficients, sorted, without zero terms;
* a monomial is a sorted product of atoms, an atom is a symbol or ``floor(expression / divisor)``;
* inside a floor the constant term is reduced modulo the divisor and its quotient moved outside.

An expression without symbols is always a plain ``int``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import gcd

from sparsec.errors import GraphError, InputError

MAX_SIZE = 2**63 - 1
MAX_TERMS = 64
MAX_DEGREE = 16
MAX_KEY_LENGTH = 4096
"""Bounds on sizes and expressions, far beyond what models have: a file must not make type inference run away."""


@dataclass(frozen=True)
class FloorDiv:
    """The atom ``floor(numerator / divisor)``."""

    key: str
    numerator: Expr
    divisor: int

    def __hash__(self) -> int:
        # The key says it all; hashing the numerator would go down through every floor in it, again and again.
        return hash(self.key)


Atom = str | FloorDiv
Monomial = tuple[Atom, ...]


def _atom_key(atom: Atom) -> str:
    return atom if isinstance(atom, str) else atom.key


@dataclass(frozen=True)
class Expr:
    """A polynomial over atoms; build one with :func:`symbol` and arithmetic, not directly."""

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: Dim) -> Dim:
        return _from_terms((*self.terms, *_terms(other)))

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        return self + other * -1

    def __rsub__(self, other: int) -> Dim:
        return self * -1 + other

    def __mul__(self, other: Dim) -> Dim:
        products = ((tuple(sorted(a + b, key=_atom_key)), ca * cb) for a, ca in self.terms for b, cb in _terms(other))
        return _from_terms(products)

    __rmul__ = __mul__

    def __floordiv__(self, divisor: int) -> Dim:
        return _floor_div(self, divisor)

    def __str__(self) -> str:
        parts = []
        for monomial, coefficient in self.terms:
            factors = [_atom_key(atom) for atom in monomial]
            if coefficient != 1 or not factors:
                factors.insert(0, str(coefficient))
            parts.append("*".join(factors))
        return " + ".join(parts).replace("+ -", "- ")


Dim = int | Expr
Shape = tuple[Dim, ...]


def symbol(name: str) -> Expr:
    """The unknown size called ``name``."""
    return Expr((((name,), 1),))


def _terms(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(dim, Expr):
        return dim.terms
    return (((), dim),) if dim else ()


def _from_terms(terms: Iterable[tuple[Monomial, int]]) -> Dim:
    total: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        total[monomial] = total.get(monomial, 0) + coefficient
    kept = sorted(
        ((monomial, c) for monomial, c in total.items() if c),
        key=lambda term: (-len(term[0]), [_atom_key(atom) for atom in term[0]]),
    )
    if not kept:
        return 0
    if len(kept) > MAX_TERMS or len(kept[0][0]) > MAX_DEGREE or max(abs(c) for _, c in kept) > MAX_SIZE:
        raise GraphError("a symbolic size has become too complicated; give the sizes of the inputs with --input-shape")
    if len(kept) == 1 and not kept[0][0]:
        return kept[0][1]
    return Expr(tuple(kept))


def _floor_div(numerator: Dim, divisor: int) -> Dim:
    if isinstance(numerator, int):
        return numerator // divisor
    if divisor == 1:
        return numerator
    # Whole multiples of the divisor leave the floor; the constant leaves all but its remainder there.
    outside: list[tuple[Monomial, int]] = []
    inside: list[tuple[Monomial, int]] = []
    for monomial, coefficient in numerator.terms:
        if monomial:
            (outside if coefficient % divisor == 0 else inside).append((monomial, coefficient))
        else:
            outside.append(((), coefficient // divisor * divisor))
            inside.append(((), coefficient % divisor))
    quotient = _from_terms((monomial, coefficient // divisor) for monomial, coefficient in outside)
    rest = _from_terms(inside)
    if isinstance(rest, int):
        return quotient + rest // divisor
    (monomial, coefficient), *others = rest.terms
    if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], FloorDiv) and not any(m for m, _ in others):
        # floor((floor(a / m) + c) / n) = floor((a + c m) / (m n))
        inner, constant = monomial[0], sum(c for _, c in others)
        return quotient + _floor_div(inner.numerator + constant * inner.divisor, inner.divisor * divisor)
    common = gcd(divisor, *(coefficient for _, coefficient in rest.terms))
    if common > 1:
        rest = _from_terms((monomial, coefficient // common) for monomial, coefficient in rest.terms)
        return quotient + _floor_div(rest, divisor // common)
    key = f"floor(({rest})/{divisor})"
    if len(key) > MAX_KEY_LENGTH:
        raise GraphError("a symbolic size has become too complicated; give the sizes of the inputs with --input-shape")
    atom = FloorDiv(key, rest, divisor)
    return quotient + Expr((((atom,), 1),))


def ceil_div(numerator: Dim, divisor: int) -> Dim:
    """``ceil(numerator / divisor)``, symbolic where the numerator is."""
    return _floor_div(numerator + (divisor - 1), divisor)


def evaluate(dim: Dim, sizes: Mapping[str, int]) -> int:
    """The value of ``dim`` where every symbol has the size that ``sizes`` names.

    Raises:
        InputError: a symbol of ``dim`` is missing in ``sizes``.
    """
    if isinstance(dim, int):
        return dim
    total = 0
    for monomial, coefficient in dim.terms:
        product = coefficient
        for atom in monomial:
            if isinstance(atom, FloorDiv):
                product *= evaluate(atom.numerator, sizes) // atom.divisor
            elif atom in sizes:
                product *= sizes[atom]
            else:
                raise InputError(f"the size of dimension {atom!r} is not known; give it with --input-shape")
        total += product
    return total


def substitute(dim: Dim, sizes: Mapping[str, Dim]) -> Dim:
    """``dim`` with the symbols that ``sizes`` names replaced."""
    if isinstance(dim, int):
        return dim
    total: Dim = 0
    for monomial, coefficient in dim.terms:
        product: Dim = coefficient
        for atom in monomial:
            if isinstance(atom, FloorDiv):
                product = product * _floor_div(substitute(atom.numerator, sizes), atom.divisor)
            else:
                product = product * sizes.get(atom, symbol(atom))
        total = total + product
    return total


def symbols(dim: Dim) -> frozenset[str]:
    """The names of the symbols in ``dim``."""
    if isinstance(dim, int):
        return frozenset()
    names: set[str] = set()
    for monomial, _ in dim.terms:
        for atom in monomial:
            names |= symbols(atom.numerator) if isinstance(atom, FloorDiv) else {atom}
    return frozenset(names)


def product(dims: Iterable[Dim]) -> Dim:
    """The product of ``dims``."""
    total: Dim = 1
    for dim in dims:
        total = total * dim
    return total


def format_shape(shape: Iterable[Dim]) -> str:
    """``(N, 28, 28, 1)``, for messages."""
    return "(" + ", ".join(str(dim) for dim in shape) + ")"
