"""Dtype policies: in which dtype a layer computes.

Where Keras computes in half precision, the graph does so in single precision, which is more exact, and faster on processors.
What would be of half precision in Keras is known all the same, so that an output of the model has the dtype that it has there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sparsec.errors import UnsupportedLayerError

FLOATS = ("float32", "float64")

_INTEGERS = {
    "bool": "bool",
    # Narrow integers are widened: every value keeps its meaning, and the graph has fewer dtypes to know.
    **dict.fromkeys(("int8", "uint8", "int16", "uint16", "int32"), "int32"),
    **dict.fromkeys(("uint32", "int64"), "int64"),
}

NARROW = frozenset({"int8", "uint8", "int16", "uint16", "uint32"})
"""Input dtypes whose arithmetic wraps around where that of the wider dtype does not."""

DEFAULT = "float32"

_HALVES = {name: half for half in ("float16", "bfloat16") for name in (half, f"mixed_{half}")}
"""Policies of half precision, and the dtype in which Keras computes then."""


def policy_name(dtype: Any) -> str:
    """The name of a dtype or policy as a configuration states it: a string, or an object with a name."""
    if dtype is None:
        return DEFAULT
    if isinstance(dtype, dict):
        config = dtype.get("config")
        if not isinstance(config, dict):
            return str(dtype.get("class_name"))
        # A map of policies for the parts of a layer has a default; others without a name are those of quantised layers.
        name = config.get("name") or (config.get("default_policy") if not config.get("policy_map") else None)
        return str(name or dtype.get("class_name"))
    return str(dtype)


def half_precision(dtype: Any) -> str:
    """The half precision in which Keras computes by that dtype or policy: ``float16``, ``bfloat16``, or empty for none."""
    return _HALVES.get(policy_name(dtype), "")


def compute_dtype(dtype: Any, subject: str) -> str:
    """The graph's dtype in which a layer computes.

    Raises:
        UnsupportedLayerError: sparsec does not read that policy.
    """
    name = policy_name(dtype)
    if name in _HALVES:
        return DEFAULT
    if name not in FLOATS and name not in _INTEGERS:
        known = ", ".join((*FLOATS, *_HALVES))
        raise UnsupportedLayerError(f"{subject}: computes in {name!r}; sparsec reads the policies {known}")
    return _INTEGERS.get(name, name)


def input_dtype(dtype: Any, name: str) -> str:
    """The dtype in which the graph computes with the input ``name``, which the model declares with ``dtype``.

    Raises:
        UnsupportedLayerError: sparsec does not read inputs of that dtype.
    """
    declared = policy_name(dtype)
    if declared in _HALVES:
        return DEFAULT
    if declared not in FLOATS and declared not in _INTEGERS:
        known = ", ".join(sorted((*_INTEGERS, *FLOATS, "float16", "bfloat16")))
        raise UnsupportedLayerError(f"input {name!r} has dtype {declared!r}; sparsec reads {known}")
    return _INTEGERS.get(declared, declared)


def merged_half(halves: Iterable[str | None]) -> str:
    """The half precision of what Keras computes from values of these; ``None`` stands for a constant, which takes any."""
    known = {half for half in halves if half is not None}
    return known.pop() if len(known) == 1 else ""
