"""Typed access to a configuration: every value that a layer's function uses is checked for its type when it is read."""

from __future__ import annotations

import math
from typing import Any, NoReturn

from sparsec.errors import UnsupportedLayerError
from sparsec.frontends.source import Config


class Options:
    """The options of a layer, or the parameters of an activation.

    A value that is missing or null counts as not stated: the default holds.

    Attributes:
        config: the values as the source states them.
        subject: what they belong to, as messages call it.
    """

    def __init__(self, config: Config, subject: str) -> None:
        self.config = config
        self.subject = subject

    def refuse(self, reason: str) -> NoReturn:
        """Refuse what the options belong to.

        Raises:
            UnsupportedLayerError: always; names the layer, its class and the reason.
        """
        raise UnsupportedLayerError(f"{self.subject}: {reason}")

    def option(self, name: str, default: Any = None) -> Any:
        """A value of any type; prefer the typed accessors."""
        value = self.config.get(name)
        return default if value is None else value

    def flag(self, name: str, default: bool) -> bool:
        """A boolean."""
        value = self.option(name, default)
        if not isinstance(value, bool):
            self.refuse(f"{name} = {value!r}, true or false was expected")
        return value

    def text(self, name: str, default: str) -> str:
        """A string."""
        value = self.option(name, default)
        if not isinstance(value, str):
            self.refuse(f"{name} = {value!r}, a string was expected")
        return value

    def integer(self, name: str, default: int | None = None, least: int | None = None) -> int:
        """An integer, not below ``least`` where that is given."""
        value = self.option(name, default)
        if not _is_int(value):
            self.refuse(f"{name} = {value!r}, an integer was expected")
        if least is not None and value < least:
            self.refuse(f"{name} = {value}, at least {least} was expected")
        return int(value)

    def number(self, name: str, default: float) -> float:
        """A finite number."""
        value = array_value(self.option(name, default))
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.refuse(f"{name} = {value!r}, a number was expected")
        return float(value)

    def integers(self, name: str, count: int, default: int | None = None, least: int = 1) -> tuple[int, ...]:
        """One integer for all of ``count`` axes, or one for each; none below ``least``."""
        value = self.option(name, default)
        items = [value] * count if _is_int(value) else value
        if (
            not isinstance(items, list | tuple)
            or len(items) != count
            or not all(_is_int(item) and item >= least for item in items)
        ):
            self.refuse(f"{name} = {value!r}, {count} integers of at least {least} were expected")
        return tuple(items)

    def axes(self, name: str, rank: int, default: int = -1) -> tuple[int, ...]:
        """One axis or several of a value of ``rank`` axes, counted from the front, in the order stated."""
        value = self.option(name, default)
        items = list(value) if isinstance(value, list | tuple) else [value]
        if not all(_is_int(item) and -rank <= item < rank for item in items):
            self.refuse(f"{name} = {value!r} does not name axes of an input of rank {rank}")
        axes = tuple(item % rank for item in items)
        if len(set(axes)) < len(axes):
            self.refuse(f"{name} = {value!r} names an axis twice")
        return axes


def array_value(value: Any) -> Any:
    """The numbers behind a value that Keras 3 wrote as an array or tensor object; other values as they are."""
    if (
        isinstance(value, dict)
        and value.get("class_name") in ("__numpy__", "__tensor__")
        and isinstance(value.get("config"), dict)
    ):
        return value["config"].get("value")
    return value


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
