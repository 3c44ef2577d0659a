"""Choosing by measurement: the candidates of each step are timed with the model's own weights."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Final

from sparsec.engine.choice import SCALES, Cheapest, Choice, candidates
from sparsec.engine.steps import Planes, Step
from sparsec.engine.trial import Timer

ADVANTAGE: Final = 0.97
"""A candidate is taken instead of the cost model's choice where it needs at most this part of its time."""

HOPELESS: Final = 2.0
"""Candidates of more than so many times the lowest cost are not timed."""


class Fastest:
    """Chooses the candidate that was the fastest when it was timed, and keeps to that.

    Args:
        cheapest: chooses by the cost model.
        timer: times candidates.
    """

    def __init__(self, cheapest: Cheapest, timer: Timer) -> None:
        self._cheapest = cheapest
        self._timer = timer
        self._chosen: dict[Hashable, Choice] = {}

    def __call__(self, step: Step, planes: Mapping[str, Planes]) -> Choice:
        """The choice for a step; steps that differ in nothing but the values of their activations get the same."""
        assert step.product is not None
        posts = tuple(post.function for post in step.posts)
        key = (step.product, step.kernel, step.window, bool(step.residual), posts, planes[step.x], planes[step.y])
        if key not in self._chosen:
            self._chosen[key] = self._choose(step, planes)
        self._cheapest.use(step, self._chosen[key])
        return self._chosen[key]

    def _choose(self, step: Step, planes: Mapping[str, Planes]) -> Choice:
        usual = self._cheapest.choose(step, planes)
        found = candidates(step, planes, self._cheapest.store, self._cheapest.machine, SCALES)
        limit = HOPELESS * min(choice.nanoseconds for choice in found)
        others = [choice for choice in found if choice.nanoseconds <= limit and not _same(choice, usual)]
        if not others:
            return usual
        of_usual, *times = self._timer(step, planes, [usual, *others])
        # Of equal times the first counts, so that a choice depends on the times alone.
        fastest, time = min(zip(others, times, strict=True), key=lambda pair: pair[1])
        return fastest if time < ADVANTAGE * of_usual else usual


def _same(a: Choice, b: Choice) -> bool:
    return (a.kernel, a.packing.name, a.options) == (b.kernel, b.packing.name, b.options)
