"""Optional dependencies: importing them, and naming the command that installs what is missing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from sparsec.errors import MissingExtraError


def require(module: str, *, extra: str = "", purpose: str = "") -> ModuleType:
    """Import an optional dependency.

    Args:
        module: the module to import, such as ``onnx`` or ``matplotlib.pyplot``.
        extra: the extra of sparsec that installs it; none for what sparsec itself installs, unless told not to.
        purpose: what it is needed for, such as ``to write ONNX files``.

    Returns:
        the module.

    Raises:
        MissingExtraError: it is not installed; the message holds the command that installs it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if (error.name or package).partition(".")[0] != package:
            # The package is there but something that it needs itself is not: installing the extra again mends that too,
            # and the name of what is missing must not be hidden.
            package = f"{error.name} (which {package} needs)"
        reason = f" {purpose}" if purpose else ""
        command = f"pip install 'sparsec[{extra}]'" if extra else "pip install sparsec"
        raise MissingExtraError(f"{package} is needed{reason} and is not installed; install it with: {command}") from None
