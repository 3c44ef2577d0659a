"""Accuracy against sparsity: both pruning methods, in one shot, without training after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.comparison import accuracy
from sparsec.demo.data import Digits
from sparsec.demo.networks import Network
from sparsec.ir import Array
from sparsec.pruning import prune_units, prune_weights

SPARSITIES = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99)


@dataclass(frozen=True)
class Curve:
    """The accuracies of one network under one method.

    Attributes:
        method: ``weight`` or ``unit``.
        accuracies: one for each of :data:`SPARSITIES`.
    """

    method: str
    accuracies: tuple[float, ...]


def sweep(model: Any, network: Network, digits: Digits, progress: Callable[[float], None]) -> tuple[Curve, ...]:
    """Prune a trained network at each sparsity, with both methods, and measure its accuracy; its weights are put back.

    Args:
        model: the trained ``keras.Model``.
        network: which it is.
        digits: its accuracy is measured on the test part.
        progress: called with the part that is done.
    """
    trained = model.get_weights()
    x = network.inputs(digits.test_x)
    methods: dict[str, Callable[[Any, float], Any]] = {"weight": prune_weights, "unit": prune_units}
    curves = []
    for index, (name, prune) in enumerate(methods.items()):
        accuracies = []
        for step, sparsity in enumerate(SPARSITIES):
            prune(model, sparsity)
            accuracies.append(accuracy(predict(model, x), digits.test_y))
            model.set_weights(trained)
            progress((index * len(SPARSITIES) + step + 1) / (len(methods) * len(SPARSITIES)))
        curves.append(Curve(name, tuple(accuracies)))
    return tuple(curves)


def predict(model: Any, x: Array) -> Array:
    """The outputs of a ``keras.Model``."""
    return np.asarray(model.predict(x, batch_size=1000, verbose=0))
