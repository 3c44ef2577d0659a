"""sparsec: a sparse-deployment compiler for pruned Keras models.

A pruned Keras model goes in; a smaller and faster model with the same answers comes out::

    import sparsec

    result = sparsec.compile("model.keras")
    result.save("model.npz")
    model = sparsec.load("model.npz")
    y = model(x)

Importing the package imports nothing but the standard library; what a function needs is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparsec.errors import (
    FormatError,
    GraphError,
    InputError,
    MissingExtraError,
    SparsecError,
    UnsupportedLayerError,
    UnsupportedOperatorError,
    VerificationError,
)

if TYPE_CHECKING:
    from sparsec.backends.keras import shrink
    from sparsec.compiler import Compiled, compile  # noqa: A004
    from sparsec.pruning import prune_units, prune_weights
    from sparsec.runtime import Model, load
    from sparsec.verification import Verification, verify

__version__ = "0.1.0"

__all__ = [
    "Compiled",
    "FormatError",
    "GraphError",
    "InputError",
    "MissingExtraError",
    "Model",
    "SparsecError",
    "UnsupportedLayerError",
    "UnsupportedOperatorError",
    "Verification",
    "VerificationError",
    "__version__",
    "compile",
    "load",
    "prune_units",
    "prune_weights",
    "shrink",
    "verify",
]

_HOMES = {
    "Compiled": "sparsec.compiler",
    "Model": "sparsec.runtime",
    "Verification": "sparsec.verification",
    "compile": "sparsec.compiler",
    "load": "sparsec.runtime",
    "prune_units": "sparsec.pruning",
    "prune_weights": "sparsec.pruning",
    "shrink": "sparsec.backends.keras",
    "verify": "sparsec.verification",
}
"""The module of each public name that is imported on first use."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
