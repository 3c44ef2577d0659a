"""Encodings of weights: positions x values, their conversions, and the choice of the smallest."""

from sparsec.encodings.choice import ENCODINGS, LEVELS, Choice, choose
from sparsec.encodings.codec import Csr, check_stored, decode, encode, from_scipy, nonzeros, to_csr, to_scipy
from sparsec.encodings.positions import POSITIONS
from sparsec.encodings.stored import StoredTensor
from sparsec.encodings.values import VALUES

__all__ = [
    "ENCODINGS",
    "LEVELS",
    "POSITIONS",
    "VALUES",
    "Choice",
    "Csr",
    "StoredTensor",
    "check_stored",
    "choose",
    "decode",
    "encode",
    "from_scipy",
    "nonzeros",
    "to_csr",
    "to_scipy",
]
