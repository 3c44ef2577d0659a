"""Writing models back to Keras without the channels that shrinking removed; files are written without Keras."""

from __future__ import annotations

from sparsec.backends.keras.files import WriteBack, write_keras
from sparsec.backends.keras.memory import shrink

__all__ = ["WriteBack", "shrink", "write_keras"]
