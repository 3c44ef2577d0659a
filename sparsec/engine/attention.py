"""The rules for products of values that are both computed."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from sparsec.engine.drafts import Draft
from sparsec.engine.rules import LOGIC, Found, Site, rule
from sparsec.engine.steps import Refusal
from sparsec.ir import ABSENT
from sparsec.ops.attention import MASK
from sparsec.ops.base import integer, number


@rule("matmul")
def _matmul(site: Site) -> Found:
    shape, draft = site.shape(site.y), site.draft()
    if any(site.types[name].rank != len(shape) for name in site.node.inputs if not site.is_constant(name)) or len(shape) < 3:
        return Refusal("its inputs have not as many axes as its output, or no matrix for each sample")
    a, b = (_factor(site, draft, name, shape[:-2]) for name in site.node.inputs)
    return draft.made(draft.step("matmul", a, shape, gate=b))


def _factor(site: Site, draft: Draft, name: str, batch: Sequence[int]) -> str:
    """An input with matrices for all of a batch, or one for each sample; its name."""
    if site.is_constant(name):
        array = site.store.array(name)
        return draft.broadcast(array, (*batch, *array.shape[-2:]))
    shape = site.shape(name)
    if shape[:-2] == tuple(batch) or prod(shape[1:-2]) == 1:
        return name
    return draft.broadcast(name, (*batch, *shape[-2:]))


@rule("attention", dtypes=LOGIC)
def _attention(site: Site) -> Found:
    draft, attrs = site.draft(), site.attrs
    q, k, v = site.node.inputs[:MASK]
    if any(site.is_constant(name) for name in (q, k, v)):
        return Refusal("one of its inputs is a constant")
    mask = site.input(MASK)
    if mask != ABSENT and site.is_constant(mask):
        array = np.asarray(site.store.array(mask))
        array = array.reshape(*(1,) * (4 - array.ndim), *array.shape)
        mask = draft.broadcast(array, (site.shape(q)[0], *array.shape[1:]))
    elif mask != ABSENT and len(site.shape(mask)) != 4:
        return Refusal("its mask is not one for samples, heads, queries and keys")
    flags = (int(attrs["causal"] is True), integer(attrs, "window"), int(attrs["empty"] == "zero"))
    options = (integer(attrs, "heads"), integer(attrs, "kv_heads"), *flags)
    scale = (number(attrs, "scale"),)
    y = draft.step("attention", q, site.shape(site.y), residual=k, gate=v, mask=mask, options=options, numbers=scale)
    return draft.made(y)
