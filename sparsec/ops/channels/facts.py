"""What is known of the channels of a value: which are constant, and what they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sparsec.ir import Array, TensorType

Mask = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.intp]
Vector = npt.NDArray[np.float64]

UNIFORM = 0
"""The code of channels that are the same at every position; other codes count templates from 1."""


@dataclass(frozen=True)
class Template:
    """A map over the positions of a value of which constant channels are multiples: ones with zeros around them, say.

    Attributes:
        key: says how the map comes about; two values of one shape with equal keys have equal maps.
        map: its values over the spatial axes, in float64; ``None`` where sizes are open.
        binary: whether it holds zeros and ones only.
        border: zeros before and after each spatial axis, where it is ones inside a border of zeros; else empty.
    """

    key: str
    map: Array | None = field(default=None, compare=False)
    binary: bool = False
    border: tuple[int, ...] = ()


Moved = Template | float | None
"""What becomes of a template: another one, a multiple of ones, or nothing that is known."""


@dataclass(frozen=True)
class Constants:
    """The constant channels of a value: those that are the same for every input.

    Attributes:
        known: which channels are one number at every position, ``[C]``.
        values: their values, or the factors of their templates, ``[C]``; 0 where nothing is known.
        codes: for channels that are a multiple of a template, its place in ``templates`` counted from 1; else 0, ``[C]``.
        templates: the maps of channels that are constant but not the same at every position.
    """

    known: Mask
    values: Vector
    codes: Ids = field(default_factory=lambda: np.zeros(0, np.intp))
    templates: tuple[Template, ...] = ()

    def __post_init__(self) -> None:
        if self.codes.size != self.known.size:
            object.__setattr__(self, "codes", np.zeros(self.known.size, np.intp))

    @classmethod
    def none(cls, channels: int) -> Constants:
        """No channel is constant."""
        return cls(np.zeros(channels, bool), np.zeros(channels))

    @classmethod
    def of(cls, known: Mask, values: Array, codes: Ids | None = None, templates: Sequence[Template] = ()) -> Constants:
        """The channels in ``known`` have ``values``, which may be anything elsewhere.

        Args:
            known: the constant channels, those of a template included.
            values: their values or factors.
            codes: their templates; by default none has one.
            templates: the templates that ``codes`` counts.
        """
        sound = np.asarray(known & np.isfinite(values))
        factors = np.where(sound, values, 0.0).astype(np.float64)
        if codes is None or not codes.any():
            return cls(sound, factors)
        # Zero times a template is zero everywhere.
        shaped = sound & (codes != UNIFORM) & (factors != 0)
        return cls(sound & ~shaped, factors, np.where(shaped, codes, UNIFORM), tuple(templates))

    @property
    def shaped(self) -> Mask:
        """The channels that are a multiple of a template."""
        return np.asarray(self.codes != UNIFORM)

    @property
    def fixed(self) -> Mask:
        """The channels that are the same for every input, uniform or not."""
        return np.asarray(self.known | self.shaped)

    @property
    def nonzero(self) -> Mask:
        """The channels that are the same for every input, and not 0."""
        return np.asarray(self.fixed & (self.values != 0))

    def moved(self, uniform: Moved, move: Callable[[Template], Moved], only: Mask | None = None) -> Constants:
        """The channels after positions were moved, or several positions made into one.

        Args:
            uniform: what becomes of channels that are one number everywhere.
            move: what becomes of a template.
            only: the channels of which that is true; of the others nothing is known afterwards.
        """
        fixed, values, codes = self.fixed if only is None else self.fixed & only, self.values.copy(), self.codes.copy()
        templates: list[Template] = []
        for code, result in enumerate([uniform, *(move(template) for template in self.templates)]):
            these = fixed & (self.codes == code)
            if isinstance(result, Template):
                templates.append(result)
                codes[these] = len(templates)
            elif result is None:
                fixed = fixed & ~these
            else:
                values[these] *= result
                codes[these] = UNIFORM
        return Constants.of(fixed, values, codes, templates)

    def joined(self, other: Constants) -> Constants:
        """What is known of either; of no channel both know anything."""
        table = TemplateTable()
        codes = table.codes(self) + table.codes(other)
        return Constants.of(self.fixed | other.fixed, self.values + other.values, codes, table.templates)


class TemplateTable:
    """The templates of several values in one numbering."""

    def __init__(self) -> None:
        self.templates: list[Template] = []

    def codes(self, constants: Constants) -> Ids:
        """The codes of a value's channels in this numbering."""
        own = [UNIFORM]
        for template in constants.templates:
            if template not in self.templates:
                self.templates.append(template)
            own.append(self.templates.index(template) + 1)
        return np.asarray(own, np.intp)[constants.codes]

    def binary(self, codes: Ids) -> Mask:
        """Which channels are uniform, or multiples of zeros and ones."""
        return np.asarray([True, *(template.binary for template in self.templates)])[codes]


def channel_count(type_: TensorType) -> int:
    """The number of channels of a value; 0 where it is not known or the value has no axis beside the batch."""
    size = type_.shape[-1] if type_.rank > 1 else 0
    return size if isinstance(size, int) else 0
