"""The errors that sparsec raises on purpose.

Every one derives from :class:`SparsecError`, and each message says what is wrong, where, and what to do about it. Anything
else that escapes is a defect of sparsec.
"""

from __future__ import annotations


class SparsecError(Exception):
    """Base class of all errors that sparsec raises on purpose."""


class InputError(SparsecError):
    """An argument, a file or an array that was handed in cannot be used."""


class FormatError(InputError):
    """A file is not what it claims to be, is damaged, or breaks a limit of its format."""


class UnsupportedLayerError(InputError):
    """A model uses a layer, or an option of a layer, that sparsec does not read.

    Attributes:
        layer: its path; empty where the model as a whole is not read.
    """

    def __init__(self, message: str, layer: str = "") -> None:
        super().__init__(message)
        self.layer = layer


class UnsupportedOperatorError(SparsecError):
    """A backend cannot express an operator of the graph."""


class MissingExtraError(InputError):
    """An optional dependency is not installed; the message holds the command that installs it."""


class GraphError(SparsecError):
    """A graph is malformed: a pass, a front-end or a hand-written graph broke a rule of the IR."""


class VerificationError(SparsecError):
    """A check that was asked for failed: the outputs of two models differ."""
