"""Dtype policies: in which dtype a layer computes."""

from __future__ import annotations

from typing import Any

from sparsec.errors import UnsupportedLayerError

COMPUTE_DTYPES = ("float32", "float64")

_INPUT_DTYPES = {
    **{name: name for name in ("bool", "int32", "int64", "float32", "float64")},
    # Narrow integers are widened: every value keeps its meaning, and the graph has fewer dtypes to know.
    **dict.fromkeys(("int8", "uint8", "int16", "uint16"), "int32"),
    "uint32": "int64",
}


def policy_name(dtype: Any) -> str:
    """The name of a dtype or policy as a configuration states it: a string, or an object with a name."""
    if dtype is None:
        return "float32"
    if isinstance(dtype, dict):
        return str(dtype.get("config", {}).get("name", dtype.get("class_name")))
    return str(dtype)


def compute_dtype(dtype: Any, layer: str, class_name: str) -> str:
    """The dtype in which a layer computes.

    Raises:
        UnsupportedLayerError: sparsec does not read that policy.
    """
    name = policy_name(dtype)
    if name not in COMPUTE_DTYPES and name not in _INPUT_DTYPES:
        raise UnsupportedLayerError(
            f"layer {layer!r} ({class_name}) computes in {name!r}; sparsec reads the policies {', '.join(COMPUTE_DTYPES)}"
        )
    return name


def input_dtype(dtype: Any) -> str:
    """The graph's dtype for an input that the model declares with ``dtype``.

    Raises:
        UnsupportedLayerError: sparsec does not read inputs of that dtype.
    """
    name = policy_name(dtype)
    if name not in _INPUT_DTYPES:
        raise UnsupportedLayerError(f"an input has dtype {name!r}; sparsec reads {', '.join(sorted(_INPUT_DTYPES))}")
    return _INPUT_DTYPES[name]
