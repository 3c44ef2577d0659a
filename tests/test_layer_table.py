"""docs/layers.md: every class of ``keras.layers`` is in one group, and what is read is proven by a differential test."""

from __future__ import annotations

import pytest
from keras_models import BUILT
from layer_table import PAGE, coverage, doing_nothing, keras_classes, page, refused, supported

LEAST_SUPPORTED = 92
"""Classes that do something at inference."""


@pytest.fixture(autouse=True)
def keras_of_the_page() -> None:
    """Other versions of Keras have other classes."""
    import keras

    if f"Keras {keras.__version__} " not in PAGE.read_text(encoding="utf-8"):
        pytest.skip(f"the page is not about Keras {keras.__version__}")


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python tests/layer_table.py"


def test_the_readme_states_the_same_numbers() -> None:
    readme = " ".join((PAGE.parents[1] / "README.md").read_text(encoding="utf-8").split())
    assert f"All classes of `keras.layers` but {len(refused())}: {len(supported())} that do something at inference" in readme
    assert f"and {len(doing_nothing())} that do nothing" in readme


def test_every_class_is_in_one_group() -> None:
    groups = [*supported(), *doing_nothing(), *refused()]
    assert sorted(each.name for each in groups) == [each.name for each in keras_classes()]


def test_enough_classes_are_supported() -> None:
    assert len(supported()) >= LEAST_SUPPORTED


@pytest.mark.parametrize("group", [supported, doing_nothing])
def test_every_class_that_is_read_has_a_differential_test(group) -> None:
    # Every model has an input.
    assert not [each.name for each in group() if each.name not in coverage() and each.name != "InputLayer"]


def test_differential_tests_build_what_their_source_says(request: pytest.FixtureRequest) -> None:
    """As far as they ran before this one."""
    options = request.config.option
    if options.keyword or options.lf or any("::" in argument for argument in request.config.args):
        pytest.skip("tests ran in part")
    names = {each.name: {each.name, *each.aliases} for each in keras_classes()}
    assert not [(name, test) for name, test in coverage().items() if test in BUILT and not names[name] & BUILT[test]]
