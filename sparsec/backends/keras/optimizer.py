"""The state of an optimizer, which holds for every trainable variable of the model some variables of the same shape: slots.

Keras stores the slots without saying whose they are, after a few numbers (the iteration, the learning rate). Some kinds of
slots stand together: those of the first trainable variable, then those of the second, and so on (Adam's momentum and velocity).
After them each other kind follows by itself, one slot of every variable (RMSprop's, Adam's third with amsgrad, averages). How
many stand together shows in the shapes; where it does not, the state cannot be sliced along and is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsec.backends.keras.edits import Edits, VariableEdit, parts_of, walk
from sparsec.frontends.source import Source, Variable

Shape = tuple[int, ...]

BATCH_NORMALIZATION = ("BatchNormalization", "SyncBatchNormalization")


@dataclass(frozen=True)
class Trainable:
    """A trainable variable of the model: its shape before, and what happens to it."""

    shape: Shape
    edit: VariableEdit | None


@dataclass(frozen=True)
class OptimizerEdit:
    """What happens to the state of the optimizer.

    Attributes:
        outcome: ``none`` where there is none, ``kept``, ``sliced`` or ``dropped``.
        reason: why it is dropped, empty otherwise.
        slots: the edit of every variable that changes, by its place.
    """

    outcome: str
    reason: str
    slots: dict[int, VariableEdit]


def trainable_variables(source: Source, edits: Edits) -> list[Trainable]:
    """The trainable variables of a model in the order in which Keras lists them."""
    found: list[Trainable] = []
    frozen: set[tuple[str, ...]] = set()
    for path, entry, _ in walk(source.config, source.description):
        if entry.config.get("trainable") is False or path[:-1] in frozen:
            frozen.add(path)
        elif not entry.is_model:
            for part in parts_of(path, entry, source.variables):
                edit = edits.get(part)
                for index, variable in enumerate(_trainable_of(entry.class_name, source.variables[part])):
                    found.append(Trainable(variable.shape, edit.variables.get(index) if edit is not None else None))
    return found


def _trainable_of(class_name: str, variables: Sequence[Variable]) -> Sequence[Variable]:
    if class_name in BATCH_NORMALIZATION:
        return variables[:-2]
    return () if class_name == "Normalization" else variables


def edit_optimizer(shapes: Sequence[Shape], source: Source, edits: Edits) -> OptimizerEdit:
    """What happens to an optimizer whose variables have these shapes.

    Args:
        shapes: of the optimizer's variables, in order.
        source: the model.
        edits: what happens to its layers.
    """
    first = next((index for index, shape in enumerate(shapes) if shape), len(shapes))
    slots = shapes[first:]
    if not shapes:
        return OptimizerEdit("none", "", {})
    if not slots or not edits:
        return OptimizerEdit("kept", "", {})
    if any(edit.bias is not None for edit in edits.values()):
        return OptimizerEdit("dropped", "a layer gets a bias that it had not", {})
    owners = _owners(slots, trainable_variables(source, edits))
    if owners is None:
        return OptimizerEdit("dropped", "its variables do not map to the model's one to one", {})
    changed = {first + index: owner.edit for index, owner in enumerate(owners) if owner.edit is not None}
    return OptimizerEdit("sliced", "", changed)


def _owners(slots: Sequence[Shape], trainable: Sequence[Trainable]) -> list[Trainable] | None:
    """The trainable variable behind each slot; ``None`` where that is not certain."""
    kinds, rest = divmod(len(slots), len(trainable)) if trainable else (0, 1)
    if rest:
        return None
    orders = [
        [owner for owner in trainable for _ in range(together)]
        + [owner for _ in range(kinds - together) for owner in trainable]
        for together in (0, *range(2, kinds + 1))
    ]
    fitting = [order for order in orders if [owner.shape for owner in order] == list(slots)]
    return fitting[0] if len(fitting) == 1 else None
