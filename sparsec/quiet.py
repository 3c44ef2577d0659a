"""Importing Keras without the messages that TensorFlow prints while it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from sparsec.extras import require


def import_keras(package: str = "keras", purpose: str = "") -> ModuleType:
    """Import ``keras`` or ``tf_keras`` and start its backend, quietly.

    Args:
        package: the package.
        purpose: what it is needed for, such as ``to train networks``.

    Raises:
        MissingExtraError: it is not installed.
    """
    loaded = sys.modules.get(package)
    if loaded is not None:
        return loaded
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _silenced():
        module = require(package, extra="keras", purpose=purpose)
        # The first operation looks for devices, and says at length that there is no GPU.
        (module.ops if hasattr(module, "ops") else module.backend).zeros((1,))
    return module


@contextmanager
def _silenced() -> Iterator[None]:
    # TensorFlow's C++ code writes to the file descriptor, whatever sys.stderr is, before it reads any setting. What goes wrong
    # is raised besides, so nothing that matters is lost.
    sys.stderr.flush()
    saved = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(sink)
        os.close(saved)
