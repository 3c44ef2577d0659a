"""The table of every class in ``keras.layers``, docs/layers.md: what is read, by which test that is proven, what is refused.

``python tests/layer_table.py`` writes the page; ``test_layer_table.py`` fails where it is stale or a class is in no group.
What a test covers is found in its source: a differential test calls ``agree``, itself or through a helper, and covers the
classes of Keras that it names, itself, in its helpers, or in the tables of cases that it reads.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sparsec.frontends.layer import LAYERS
from sparsec.frontends.layers.core import AUGMENTATIONS, IDENTITIES
from sparsec.frontends.refusals import REFUSED
from sparsec.frontends.tree import snake_case

PAGE = Path(__file__).parents[1] / "docs" / "layers.md"

MODULES = tuple(f"test_frontend_{name}" for name in ("layers", "recurrent", "attention", "more_layers", "masks", "operations"))
"""The modules of differential tests."""

DIFFERENTIAL = "agree"
"""The function that compares with Keras."""

NOTHING = frozenset({*IDENTITIES, *AUGMENTATIONS, "InputLayer", "RandomCrop"})
"""Classes whose outputs at inference are their inputs."""

INSIDE_RNN = frozenset({"StackedRNNCells"})
"""Classes that are read as parts of RNN alone."""

NO_LAYERS = frozenset({"InputSpec"})
"""What ``keras.layers`` exports beside layers."""


@dataclass(frozen=True)
class LayerClass:
    """A class of ``keras.layers``.

    Attributes:
        name: its own name.
        aliases: other names under which it is exported; files may state one of these.
    """

    name: str
    aliases: tuple[str, ...]


@cache
def keras_classes() -> tuple[LayerClass, ...]:
    """Every layer class that ``keras.layers`` exports, once, by name."""
    import keras

    exported: dict[str, list[str]] = {}
    for name in dir(keras.layers):
        item = getattr(keras.layers, name)
        if inspect.isclass(item) and name not in NO_LAYERS:
            exported.setdefault(item.__name__, []).append(name)
    return tuple(
        LayerClass(name, tuple(alias for alias in aliases if alias != name)) for name, aliases in sorted(exported.items())
    )


# --- what tests cover --------------------------------------------------------------------------------------------------


@cache
def coverage() -> Mapping[str, str]:
    """A differential test of each class, as ``module::function``: the one that bears its name, else the first."""
    tests = [(f"{module}::{test}", words) for module in MODULES for test, words in _tests(module)]
    found: dict[str, str] = {}
    for each in keras_classes():
        names = {each.name, *each.aliases}
        covering = [test for test, words in tests if names & words]
        own = {f"test_{snake_case(name)}" for name in names}
        if covering:
            found[each.name] = next((test for test in covering if test.partition("::")[2] in own), covering[0])
    return found


def _tests(module: str) -> Iterator[tuple[str, set[str]]]:
    """The differential tests of a module with every attribute and string that they, their helpers and their tables hold."""
    path = Path(__file__).parent / f"{module}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    loaded = importlib.import_module(module)
    for name, function in functions.items():
        if not name.startswith("test_"):
            continue
        reached, words = {name}, set[str]()
        left: list[ast.FunctionDef] = [function]
        while left:
            for node in ast.walk(left.pop()):
                if isinstance(node, ast.Attribute):
                    words.add(node.attr)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    words.add(node.value)
                elif isinstance(node, ast.Name) and node.id not in reached:
                    reached.add(node.id)
                    if node.id in functions:
                        left.append(functions[node.id])
                    else:
                        words.update(_strings(getattr(loaded, node.id, None)))
        if reached & {DIFFERENTIAL, "check_group"}:
            yield name, words


def _strings(value: Any) -> Iterator[str]:
    """Every string in a table of cases; a set is no table."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _strings(list(value.items()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


# --- the page ----------------------------------------------------------------------------------------------------------


def refused() -> list[LayerClass]:
    """The classes that are refused whatever their options."""
    return [each for each in keras_classes() if each.name in REFUSED]


def doing_nothing() -> list[LayerClass]:
    """The classes that are read and do nothing at inference."""
    return [each for each in keras_classes() if each.name in NOTHING]


def supported() -> list[LayerClass]:
    """The classes that are read and do something at inference."""
    return [each for each in keras_classes() if each.name in {*LAYERS, *INSIDE_RNN} - NOTHING]


def page() -> str:
    """The contents of docs/layers.md."""
    import keras

    lines = [
        "# Layers",
        "",
        f"Every layer class that `keras.layers` of Keras {keras.__version__} exports. Each test compares with Keras itself;",
        "models are read from files and from memory. `python tests/layer_table.py` writes this page.",
        "",
        f"## {len(supported())} classes that do something at inference",
        "",
        "StackedRNNCells is read inside RNN alone.",
        "",
        "| class | also called | proven by |",
        "|---|---|---|",
        *(f"| `{each.name}` | {_also(each)} | {_proof(each)} |" for each in supported()),
        "",
        f"## {len(doing_nothing())} classes that do nothing at inference",
        "",
        "Read as their inputs. RandomCrop is refused where it would cut or resize: versions of Keras disagree on what it does.",
        "",
        "| class | proven by |",
        "|---|---|",
        *(f"| `{each.name}` | {_proof(each)} |" for each in doing_nothing()),
        "",
        f"## {len(refused())} classes that are refused",
        "",
        "| class | it |",
        "|---|---|",
        *(f"| `{each.name}` | {REFUSED[each.name]} |" for each in refused()),
        "",
    ]
    return "\n".join(lines)


def _also(each: LayerClass) -> str:
    return ", ".join(f"`{alias}`" for alias in each.aliases)


def _proof(each: LayerClass) -> str:
    return f"`{coverage()[each.name]}`" if each.name in coverage() else "every test" if each.name == "InputLayer" else ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
