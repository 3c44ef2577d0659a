"""Keras models in LiteRT: converted, and run in its interpreter."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np


def convert(model: Any, batches: Sequence[np.ndarray]) -> bytes:
    """A model as a LiteRT flat buffer for inputs of these shapes.

    Variables are frozen first: the way over a SavedModel, which ``TFLiteConverter.from_keras_model`` takes, makes the same and
    needs twenty times as long.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    specs = [tf.TensorSpec(batch.shape, batch.dtype) for batch in batches]
    function = tf.function(lambda *inputs: model(inputs[0] if len(inputs) == 1 else list(inputs), training=False))
    frozen = convert_variables_to_constants_v2(function.get_concrete_function(*specs))
    return tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert()


def run(converted: bytes, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What the interpreter makes of a batch for each input; inputs in the order of the model."""
    import tensorflow as tf

    with warnings.catch_warnings():
        # It says that it moves to a package of its own.
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(model_content=converted)
    interpreter.allocate_tensors()
    entries = sorted(interpreter.get_input_details(), key=lambda entry: entry["name"])
    for entry, batch in zip(entries, batches, strict=True):
        interpreter.set_tensor(entry["index"], batch)
    interpreter.invoke()
    return [interpreter.get_tensor(entry["index"]) for entry in interpreter.get_output_details()]
