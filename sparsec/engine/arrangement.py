"""Weights of convolutions that are computed as convolutions of another kind."""

from __future__ import annotations

from typing import Protocol

from sparsec.encodings import Csr
from sparsec.kernels import Weight


class Arrangement(Protocol):
    """How the entries of a weight are moved, so that it is the weight of a convolution that kernels know."""

    def __hash__(self) -> int:
        """What is found out about a weight as it is arranged is remembered."""

    @property
    def name(self) -> str:
        """Unique among the arrangements of a weight."""

    def weight(self, weight: Weight) -> Weight:
        """The shape of what :meth:`arrange` gives."""

    def arrange(self, csr: Csr, weight: Weight) -> Csr:
        """The compressed rows of the weight of the convolution that is computed.

        Args:
            csr: those of the weight as the operator has it.
            weight: the shape of that.
        """

    def restore(self, csr: Csr, weight: Weight) -> Csr:
        """What :meth:`arrange` was given."""
