"""Dtype policies: in which dtype a layer computes."""

from __future__ import annotations

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


def policy_name(dtype: Any) -> str:
    """The name of a dtype or policy as a configuration states it: a string, or an object with a name."""
    if dtype is None:
        return DEFAULT
    if isinstance(dtype, dict):
        config = dtype.get("config")
        name = config.get("name") if isinstance(config, dict) else None
        # A policy of another class, for quantised layers or a map of them, has no name.
        return str(name or dtype.get("class_name"))
    return str(dtype)


def compute_dtype(dtype: Any, subject: str) -> str:
    """The graph's dtype in which a layer computes.

    Raises:
        UnsupportedLayerError: sparsec does not read that policy.
    """
    name = policy_name(dtype)
    if name not in FLOATS and name not in _INTEGERS:
        raise UnsupportedLayerError(f"{subject}: computes in {name!r}; sparsec reads the policies {' and '.join(FLOATS)}")
    return _INTEGERS.get(name, name)


def input_dtype(dtype: Any, name: str) -> str:
    """The graph's dtype for the input ``name`` that the model declares with ``dtype``.

    Raises:
        UnsupportedLayerError: sparsec does not read inputs of that dtype.
    """
    declared = policy_name(dtype)
    if declared not in FLOATS and declared not in _INTEGERS:
        raise UnsupportedLayerError(
            f"input {name!r} has dtype {declared!r}; sparsec reads {', '.join(sorted((*_INTEGERS, *FLOATS)))}"
        )
    return _INTEGERS.get(declared, declared)
