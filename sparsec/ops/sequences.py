"""What is common to all that knows recurrent operators: where their inputs stand, and what their attributes say."""

from __future__ import annotations

from sparsec.ir import Attrs
from sparsec.ops.base import number

X, KERNEL, BIAS, RECURRENT_KERNEL, MASK, STATES = range(6)
"""The positions of the inputs; the states are the last ones."""


def activation_parameters(attrs: Attrs, name: str) -> tuple[str, float, float]:
    """The activation in an attribute, with its two parameters."""
    prefix = name.removesuffix("activation")
    return str(attrs[name]), number(attrs, f"{prefix}alpha"), number(attrs, f"{prefix}beta")
