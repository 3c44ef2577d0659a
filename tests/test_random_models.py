"""Random Keras models with dead units: outputs stay, wherever the model runs, and what could go goes."""

from __future__ import annotations

from pathlib import Path

import model_proofs
import pytest
from hypothesis import HealthCheck, given, settings
from model_proofs import Findings, examine, prove
from planted_units import plant
from random_models import Recipe, build, recipes

from sparsec.passes import optimise

QUICK, CHUNK = 60, 10
MANY, MANY_FIRST, MANY_CHUNK = 2000, 1000, 100

FILES_EVERY = 4
"""Of so many models one is written to files, ONNX and Keras."""

PLANTED = 19
"""A seed whose model has dead units."""

COULD_GO = 0.03
"""At most this share of what was planted stays though it could go; see ``model_proofs.WEAKER``."""


def examined(seeds: range, folder: Path) -> Findings:
    total = Findings()
    for seed in seeds:
        try:
            total.add(examine(Recipe.from_seed(seed), folder if seed % FILES_EVERY == 0 else None))
        except Exception as error:
            error.add_note(f"seed {seed}; to make it smaller: python tests/random_models_tool.py {seed}")
            raise
    return total


@pytest.mark.parametrize("first", range(0, QUICK, CHUNK))
def test_random_models_keep_their_outputs_and_lose_what_is_dead(first: int, tmp_path: Path) -> None:
    found = examined(range(first, first + CHUNK), tmp_path)
    assert not found.problems, found.summary()
    assert found.removed.total() > 0


@given(recipes())
@settings(max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
def test_recipes_that_hypothesis_draws(recipe: Recipe) -> None:
    assert not examine(recipe).problems


def test_the_same_seed_gives_the_same_model() -> None:
    (first, planted), (again, planted_again) = (plant(build(Recipe.from_seed(3)), 3) for _ in range(2))
    assert first.nodes == again.nodes
    assert planted == planted_again
    assert all((first.weights[path] == again.weights[path]).all() for path in first.weights)


def test_the_proofs_notice_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without shrinking, dead units stay without a reason; with a wrong bias, outputs differ."""
    model = build(Recipe.from_seed(PLANTED))
    graph, plantings = plant(model, PLANTED)
    assert plantings
    assert not prove(model, graph, plantings, PLANTED).problems
    monkeypatch.setattr(model_proofs, "optimise", lambda graph: optimise(graph, shrink=False))
    assert any("could go, but stay" in problem for problem in prove(model, graph, plantings, PLANTED).problems)
    path = next(path for path in graph.weights if path.endswith("bias") and graph.weights[path].any())
    wrong = graph.with_nodes(graph.nodes, {**graph.weights, path: graph.weights[path] + 1e-6})
    monkeypatch.setattr(model_proofs, "optimise", lambda _: optimise(wrong.lifted("float64")))
    assert any("in float64 differs" in problem for problem in prove(model, graph, plantings, PLANTED).problems)


@pytest.fixture(scope="module")
def total() -> Findings:
    return Findings()


@pytest.mark.slow
@pytest.mark.parametrize("first", range(MANY_FIRST, MANY_FIRST + MANY, MANY_CHUNK))
def test_many_random_models(first: int, tmp_path: Path, total: Findings, capsys: pytest.CaptureFixture[str]) -> None:
    found = examined(range(first, first + MANY_CHUNK), tmp_path)
    total.add(found)
    with capsys.disabled():
        worst = ", ".join(f"{value:.1e}" for value, _ in found.worst.values())
        print(f"\n{total.models} of {MANY} models, {found.removed.total()} of {found.planted.total()} dead units gone; {worst}")
    assert not found.problems, found.summary()


@pytest.mark.slow
def test_few_of_many_planted_units_stay_without_need(total: Findings, capsys: pytest.CaptureFixture[str]) -> None:
    if not total.models:
        pytest.skip("says something only after the models before it")
    with capsys.disabled():
        print(f"\n{total.summary()}")
    assert total.could_go <= COULD_GO * total.planted.total()
