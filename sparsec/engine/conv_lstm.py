"""The rule for long short-term memory with convolutions: one for what all steps take from the input, then the steps in turn.

A step is a convolution of the state, to which is added what it takes from the input, and elementwise operations. There are no
states before the first step unless they are given, so it has no convolution then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

from sparsec.engine.convolutions import TOO_LARGE, convolve, over, refuse_weights
from sparsec.engine.costs import is_too_large
from sparsec.engine.drafts import Draft, strides
from sparsec.engine.recurrent import activation
from sparsec.engine.rules import LOGIC, Found, Site, rule
from sparsec.engine.steps import Post, Product, Refusal, View, Window
from sparsec.engine.volumes import Depth
from sparsec.ir import ABSENT
from sparsec.ops.recurrent import recurrent_window
from sparsec.ops.sequences import BIAS, KERNEL, MASK, RECURRENT_KERNEL, STATES, X

MOST_STEPS: Final = 256
"""Sequences of more steps are left to NumPy: each step in time is some ten of a plan."""

Posts = tuple[Post, ...]


@dataclass(frozen=True)
class _Cell:
    """What the steps in time have in common.

    Attributes:
        draft: to which steps are added.
        shape: of a state.
        product: the recurrent kernel.
        window: of its convolution.
        depth: of its convolution.
        candidate: the activation of what is new, and of what is given out.
        gates: the activation of the gates.
    """

    draft: Draft
    shape: tuple[int, ...]
    product: Product
    window: Window
    depth: Depth | None
    candidate: Posts
    gates: Posts

    def step(self, projected: str, h: str, c: str) -> tuple[str, str]:
        """The names of the states after a step.

        Args:
            projected: what it takes from the input, ``[samples, positions, 4 * filters]``.
            h: the state before that was given out; empty where there is none.
            c: the other one.
        """
        i, f, new, o = self._gates(projected, h)
        kept = self._map(f, *self.gates, Post("multiply", value=c)) if c else ""
        taken = Post("multiply", value=self._map(i, *self.gates))
        c = self._map(new, *self.candidate, taken, *([Post("add", value=kept)] if kept else []))
        h = self._map(c, *self.candidate, Post("multiply", value=self._map(o, *self.gates)))
        return h, c

    def _gates(self, projected: str, h: str) -> list[str]:
        """The gates before their activations."""
        *sizes, filters = self.shape
        shape = (*sizes, 4 * filters)
        sums = projected
        if h:
            # The convolution takes planes of a volume for samples.
            planes = shape if self.depth is None else (shape[0] * shape[1], *shape[2:])
            residual = self.draft.view(projected, planes)
            sums = convolve(self.draft, h, shape, self.product, self.window, self.depth, residual=residual)
        return [self.draft.view(sums, self.shape, gate * filters) for gate in range(4)]

    def _map(self, value: str, *posts: Post) -> str:
        return self.draft.step("map", value, self.shape, posts=list(posts)) if posts else value

    def choose(self, new: str, old: str, counts: str, rests: str) -> str:
        """The one where a step counts, and the other, or zero where that is empty, where it does not."""
        posts = [Post("keep", value=counts)]
        if old:
            posts.append(Post("add", value=self._map(old, Post("keep", value=rests))))
        return self._map(new, *posts)


@rule("conv_lstm", dtypes=LOGIC)
def _conv_lstm(site: Site) -> Found:
    refusal = refuse_weights(site, [site.input(index) for index in (KERNEL, BIAS, RECURRENT_KERNEL)])
    if refusal:
        return refusal
    initial = [site.input(STATES + index) for index in range(2)]
    if any(name != ABSENT and site.is_constant(name) for name in initial):
        return Refusal("its initial states are constants")
    samples, steps, *sizes, channels = site.shape(site.input(X))
    if steps > MOST_STEPS:
        return Refusal(f"its sequence has more than {MOST_STEPS} steps")
    activations: list[Posts] = []
    for name in ("activation", "recurrent_activation"):
        post = activation(site.attrs, name)
        if isinstance(post, Refusal):
            return post
        activations.append(() if post is None else (post,))
    draft, shape = site.draft(), site.shape(site.y)
    kernel, recurrent = (site.store.weight(site.input(index)).shape[:-2] for index in (KERNEL, RECURRENT_KERNEL))
    first_depth, first = over(site.attrs, sizes, kernel)
    depth, window = over(recurrent_window(len(sizes)), shape[2:-1], recurrent)
    if is_too_large(first) or is_too_large(window):
        return TOO_LARGE
    frames = draft.view(site.x, (samples * steps, *sizes, channels))
    taken = (samples * steps, *shape[2:-1], 4 * shape[-1])
    projection = convolve(draft, frames, taken, Product(site.input(KERNEL)), first, first_depth, bias=site.vector(BIAS))
    projection = draft.view(projection, (samples, steps, prod(shape[2:-1]), 4 * shape[-1]))
    cell = _Cell(draft, (samples, *shape[2:]), Product(site.input(RECURRENT_KERNEL)), window, depth, *activations)
    return draft.made(_run(site, cell, projection, initial))


def _run(site: Site, cell: _Cell, projection: str, initial: Sequence[str]) -> str:
    """Add all steps in time; returns the name of what they give out."""
    draft, shape, (h, c) = cell.draft, site.shape(site.y), initial
    samples, steps, positions, channels = draft.shape(projection)
    mask, output, sequence = site.input(MASK), "", draft.name(shape)
    of_x, of_y = strides((samples, positions, shape[-1])), strides((samples, steps, positions, shape[-1]))
    for t in reversed(range(steps)) if site.attrs["reverse"] else range(steps):
        taken = draft.step("select", projection, (samples, 1, positions, channels), options=(t, 1, 0, 1))
        new, other = cell.step(draft.view(taken, (*cell.shape[:-1], channels)), h, c)
        if mask == ABSENT:
            h, c, output = new, other, new
        else:
            counts = draft.view(mask, (samples, 1), t)
            rests = draft.step("map", counts, (samples, 1), posts=[Post("equal")])
            output = cell.choose(new, "" if site.attrs["zero_masked"] else output, counts, rests)
            h, c = cell.choose(new, h, counts, rests), cell.choose(other, c, counts, rests)
        axes = zip((samples, positions, shape[-1]), of_x, (of_y[0], of_y[2], of_y[3]), strict=True)
        draft.copy(output, sequence, axes, (0, t * of_y[1]))
    draft.add(*(View(name, state) for name, state in zip(site.node.outputs[1:], (h, c), strict=True)))
    return sequence
