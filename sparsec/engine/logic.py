"""The rules for what Keras' masks are made of, and for look-ups.

In a native plan all values are float32. True is 1 and false is 0. Integers are rounded, and nothing is asked of them but what
that leaves as it is, since it keeps their order: whether one equals a number below 2^24, and which row it names of a table that
has no more. They come from outside alone; native steps give them other shapes at most, and no segment gives them out.

A mask ``[N, T]`` has a row for each step, with all samples side by side, as they are in the states of a recurrent cell.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from sparsec.engine.drafts import Draft
from sparsec.engine.rules import INTEGERS, LOGIC, Found, Site, binary, rule, with_value
from sparsec.engine.steps import Elementwise, Post, Refusal, Step, View
from sparsec.ops.base import integer

WHOLE: Final = 1 << 24
"""Up to this number, float32 holds every integer."""


@rule("equal", dtypes=LOGIC | INTEGERS)
def _equal(site: Site) -> Found:
    constants = [site.store.array(name) for name in site.node.inputs if site.is_constant(name)]
    of_integers = any(site.types[name].dtype in INTEGERS for name in site.node.inputs if not site.is_constant(name))
    held = len(constants) == 1 and bool((np.abs(constants[0].astype(np.float64)) < WHOLE).all())
    return Refusal("it compares integers that float32 may not hold") if of_integers and not held else binary(site)


@rule("cast", dtypes=LOGIC | INTEGERS)
def _cast(site: Site) -> Found:
    before, after = site.types[site.x].dtype, site.types[site.y].dtype
    if after in INTEGERS and not (before == "int32" or before == after):
        return Refusal("it makes integers")
    if after == "bool" and before != "bool":
        return Elementwise({site.x: (Post("equal"), Post("equal"))})
    return [View(site.y, site.x)]


@rule("where", dtypes=LOGIC)
def _where(site: Site) -> Found:
    """What is chosen is kept where the condition is true, or not, and then added: what is not chosen is zero."""
    condition, a, b = site.node.inputs
    rank = site.types[site.y].rank
    if any(site.types[name].rank != rank for name in site.node.inputs if not site.is_constant(name)):
        return Refusal("its inputs have not as many axes as its output")
    if site.is_constant(condition):
        return Refusal("its condition is a constant")
    if condition in (a, b) and site.shape(condition) == site.shape(a) == site.shape(b):
        function, other = ("maximum", b) if condition == a else ("minimum", a)
        return Elementwise({condition: (Post(function, value=other),)})
    post = with_value(site, condition, "keep")
    if post and _is_zero(site, b) and not site.is_constant(a) and site.shape(a) == site.shape(site.y):
        return Elementwise({a: (post,)})
    draft, shape = site.draft(), site.shape(site.y)
    if post is None:
        condition = draft.broadcast(condition, shape)
    opposite = draft.step("map", condition, draft.shape(condition), posts=[Post("equal")])
    chosen = [_kept(site, draft, name, which) for name, which in ((a, condition), (b, opposite)) if not _is_zero(site, name)]
    if len(chosen) < 2:
        return draft.made(chosen[0] if chosen else draft.broadcast(np.zeros(1, np.float32), shape))
    return draft.made(draft.step("map", chosen[0], shape, posts=[Post("add", value=chosen[1])]))


def _is_zero(site: Site, name: str) -> bool:
    return site.is_constant(name) and not site.store.array(name).any()


def _kept(site: Site, draft: Draft, name: str, condition: str) -> str:
    """What is chosen, and zero where it is not; its name."""
    shape = site.shape(site.y)
    if not site.is_constant(name) and site.shape(name) == shape:
        value = name
    else:
        value = draft.broadcast(site.store.array(name) if site.is_constant(name) else name, shape)
    return draft.step("map", value, shape, posts=[Post("keep", value=condition)])


@rule("greater", dtypes=LOGIC)
def _greater(site: Site) -> Found:
    return binary(site)


@rule("gather", dtypes=LOGIC | INTEGERS)
def _gather(site: Site) -> Found:
    table, indices = site.node.inputs
    if not site.is_constant(table) or site.is_constant(indices):
        return Refusal("its table is computed")
    weight = site.store.weight(table)
    if weight.dtype != "float32" or len(weight.shape) != 2 or integer(site.attrs, "axis") % 2:
        return Refusal("it does not look up the rows of a matrix of float32")
    if not 0 < weight.shape[0] <= WHOLE:
        return Refusal("its table has more rows than float32 can name, or none")
    rows = np.ascontiguousarray(site.store.array(table))
    return [Step("gather", indices, site.y, [site.node], weights=rows, options=(weight.shape[0],))]
