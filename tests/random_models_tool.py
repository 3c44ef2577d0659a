"""Reproduce and minimise what a seed of the random models brings up, or hunt through many seeds.

``python tests/random_models_tool.py SEED`` says what is found out about one model, and, where something is wrong, finds a
smaller one of which the same kind of thing is wrong. ``python tests/random_models_tool.py FIRST LAST`` looks for such seeds.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from model_proofs import Findings, examine
from random_models import ROW, Recipe, Row, build

REPORT_EVERY = 200


def kinds(recipe: Recipe, folder: Path | None) -> frozenset[str]:
    """What is wrong with a model, without seeds and figures."""
    try:
        problems = examine(recipe, folder).problems
    except Exception as error:
        return frozenset([f"{type(error).__name__}: {str(error)[:60]}"])
    return frozenset(problem.partition(": ")[2].partition(" by ")[0][:30] for problem in problems)


def minimise(recipe: Recipe, folder: Path) -> Recipe:
    """A recipe of which the same is wrong, and of none that is a step simpler."""
    wanted = kinds(recipe, None)
    # Without files it is faster, if that shows it.
    place = None if wanted else folder
    wanted = wanted or kinds(recipe, folder)
    progress = True
    while progress:
        progress = False
        for change in changes(recipe):
            candidate = change(recipe)
            if candidate != recipe and kinds(candidate, place) & wanted:
                recipe, progress = candidate, True
    return recipe


Change = Callable[[Recipe], Recipe]


def changes(recipe: Recipe) -> Iterator[Change]:
    """What may make a recipe simpler, the boldest changes first; later ones are applied to what earlier ones left."""
    for index in reversed(range(len(recipe.blocks))):
        yield lambda r, i=index: replace(r, blocks=r.blocks[:i] + r.blocks[i + 1 :])
    for index in range(-2, len(recipe.blocks)):
        for keep in (0, 1, 2, 4, 8, 16, 24, 32):
            yield lambda r, i=index, k=keep: with_row(r, i, lambda row: row[:k])
        for position in range(ROW):
            yield lambda r, i=index, p=position: with_row(
                r, i, lambda row: (*row[:p], 0, *row[p + 1 :]) if p < len(row) else row
            )


def with_row(recipe: Recipe, index: int, change: Callable[[Row], Row]) -> Recipe:
    """The recipe with one row changed; -2 is the head, -1 the tail."""
    if index == -2:
        return replace(recipe, head=change(recipe.head))
    if index == -1:
        return replace(recipe, tail=change(recipe.tail))
    if index >= len(recipe.blocks):
        return recipe
    return replace(recipe, blocks=(*recipe.blocks[:index], change(recipe.blocks[index]), *recipe.blocks[index + 1 :]))


def show(recipe: Recipe, folder: Path) -> None:
    model = build(recipe)
    for layer in model.layers:
        print(f"  {type(layer).__name__:24} {layer.name:28} {layer.output.shape if layer.output is not None else ''}")
    print(examine(recipe, folder).summary())


def hunt(first: int, last: int, folder: Path) -> None:
    total = Findings()
    for seed in range(first, last):
        try:
            total.add(examine(Recipe.from_seed(seed), folder if seed % 4 == 0 else None))
        except Exception as error:
            total.problems.append(f"seed {seed}: {type(error).__name__}: {error}")
        if (seed + 1 - first) % REPORT_EVERY == 0 or seed + 1 == last:
            print(f"--- {total.summary()}", flush=True)


def main(arguments: list[str]) -> None:
    # The folder is for files that come and go; Keras warns about models that were never trained.
    warnings.simplefilter("ignore")
    numbers = [int(argument) for argument in arguments]
    with TemporaryDirectory() as name:
        folder = Path(name)
        if len(numbers) == 2:
            hunt(*numbers, folder)
            return
        recipe = Recipe.from_seed(numbers[0])
        wrong = kinds(recipe, folder)
        if wrong:
            print("minimising: " + "; ".join(wrong), flush=True)
            recipe = minimise(recipe, folder)
            print(recipe)
        show(recipe, folder)


if __name__ == "__main__":
    main(sys.argv[1:])
