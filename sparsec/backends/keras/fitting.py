"""As much of a plan as Keras can state: layers that cannot be written smaller keep their channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sparsec.backends.keras.configuration import complete, edited_config
from sparsec.backends.keras.edits import Edits, Interpreted, UnwritableError, layer_edits
from sparsec.ir import Graph
from sparsec.passes.shrink import ShrinkPlan, apply_plan, shrink
from sparsec.passes.simplify import simplify


@dataclass(frozen=True)
class Fitted:
    """What is written.

    Attributes:
        shrunk: the graph with the plan applied.
        edits: what happens to each layer.
        config: the configuration of the outermost model afterwards.
        kept: the layers that stay as they are since Keras cannot state them smaller, with the reasons.
    """

    shrunk: Graph
    edits: Edits
    config: dict[str, Any]
    kept: Mapping[str, str]


def fit(model: Interpreted, plan: ShrinkPlan, check: Callable[[Edits], None] = lambda edits: None) -> Fitted:
    """Carry a plan out on a source, without what its layers cannot state.

    Args:
        model: the source.
        plan: made for the model's graph.
        check: raises what stands in the way of edits, beside the layers' own configurations.

    Raises:
        InputError: something cannot be stated that no layer can be held back for.
    """
    kept: dict[str, str] = {}
    while True:
        shrunk = apply_plan(model.graph, plan)
        try:
            edits = complete(model, layer_edits(model, plan, shrunk))
            check(edits)
            return Fitted(shrunk, edits, edited_config(model, edits), kept)
        except UnwritableError as error:
            if kept.keys() >= error.layers.keys():
                raise
            kept |= error.layers
        _, plan, _ = shrink(simplify(model.graph), plan.multiple, kept)
