"""Pruning models in memory, of Keras 3 or tf_keras."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from sparsec.errors import InputError
from sparsec.frontends import read
from sparsec.pruning.plan import Options, layer_names, plan_pruning
from sparsec.pruning.report import PruneReport

if TYPE_CHECKING:
    import keras


def prune_weights(model: keras.Model, sparsity: float, *, scope: str = "layer", skip: str | Iterable[str] = ()) -> PruneReport:
    """Zero the smallest weights of a model, in place.

    Of each kernel the ``floor(sparsity * size)`` weights of least magnitude become zero; ties go by flat index. Biases and
    BatchNormalization stay, and so do the output layers: those from which an output is reached without another kernel.

    Args:
        model: a Sequential or Functional ``keras.Model``, of Keras 3 or tf_keras.
        sparsity: from 0 up to, but not including, 1.
        scope: ``layer`` ranks within each kernel, ``global`` over all of them together.
        skip: names of layers or nested models, or patterns such as ``block1_*``, that are left alone.

    Returns:
        what was done, layer by layer.

    Raises:
        InputError: an option is wrong, there is nothing to prune, or ``model`` is no Keras model.
        UnsupportedLayerError: the model holds a layer that sparsec does not read.
    """
    return _prune(model, Options("weight", sparsity, scope, layer_names(skip)))


def prune_units(
    model: keras.Model,
    sparsity: float,
    *,
    scope: str = "layer",
    skip: str | Iterable[str] = (),
    group: bool = True,
    whole: bool = False,
) -> PruneReport:
    """Zero the smallest units of a model, in place: columns of Dense layers, filters of convolutions.

    Of each kernel the ``floor(sparsity * units)`` units of least L2 norm become zero; ties go by the number of the
    unit. Units of several layers that can only be removed together (the producers that meet in an Add, the depthwise
    filter that a channel feeds, the gate over it) form a group: they are ranked together, by the root of their summed
    squares, and counted once, so that of a group with n units in each layer ``floor(sparsity * n)`` go. A group with
    a layer that is not pruned is left alone.

    Args:
        model: a Sequential or Functional ``keras.Model``, of Keras 3 or tf_keras.
        sparsity: from 0 up to, but not including, 1.
        scope: ``layer`` ranks within each kernel or group; ``global`` over all of them together, by norm over the root of the
            number of weights, and leaves each at least one unit.
        skip: names of layers or nested models, or patterns such as ``block1_*``, that are left alone.
        group: whether tied units are ranked together; else each kernel is ranked by itself.
        whole: whether biases, gamma and beta of pruned units are zeroed too.

    Returns:
        what was done, layer by layer.

    Raises:
        InputError: an option is wrong, there is nothing to prune, or ``model`` is no Keras model.
        UnsupportedLayerError: the model holds a layer that sparsec does not read.
    """
    return _prune(model, Options("unit", sparsity, scope, layer_names(skip), group, whole))


def _prune(model: keras.Model, options: Options) -> PruneReport:
    found = read(model)
    plan = plan_pruning(found, options)
    for path, zeros in plan.zeros.items():
        variable = found.variables[path]
        if variable.assign is None:
            raise InputError(f"{found.description} is a file; prune it with prune_file")
        values = variable.load()
        np.copyto(values, 0, where=found.as_stored(path, zeros))
        variable.assign(values)
    return plan.report
