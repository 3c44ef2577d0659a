# SPDX-License-Identifier: Apache-2.0
"""Models of Keras 2 that hold operations on tensors, and models of half precision; :mod:`make` saves them.

Keras 2 writes such operations down as layers of the classes TFOpLambda and SlicingOpLambda. Each function takes the kit of
:mod:`make` and returns a model and its inputs. They need TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np


def _start(kit: Any) -> tuple[Any, Any, Any]:
    """TensorFlow, an image [4, 4, 2] and integers [3]."""
    tf = importlib.import_module("tensorflow")
    return tf, kit.keras.Input((4, 4, 2), name="image"), kit.keras.Input((3,), dtype="int32", name="numbers")


def _made(kit: Any, image: Any, numbers: Any, outputs: list[Any]) -> tuple[Any, list[Any]]:
    model = kit.model([image, numbers], outputs)
    kit.fill(model)
    return model, [kit.normal(3, 4, 4, 2), np.asarray([[0, 4, 2], [3, 1, 4], [2, 2, 0]], np.int32)]


def tensor_slices(kit: Any) -> tuple[Any, list[Any]]:
    """Slices in all notations, and picked positions."""
    tf, x, n = _start(kit)
    table = np.arange(10, dtype=np.float32).reshape(5, 2)
    y = kit.layers.Dense(3)(x)
    outputs = [y[:, 0], y[:, -1, :, 1], y[:, 1:3, ::2], y[:, ::-1, 3:0:-2], y[:, None, 1:3, -1], n[:, 1], n[:, tf.newaxis]]
    outputs += [tf.slice(y, [0, 1, 0, 0], [-1, 2, -1, 2]), tf.strided_slice(y, [0, 1], [3, 4], [1, 2], begin_mask=1, end_mask=1)]
    outputs += [*tf.split(y, 3, axis=-1), tf.split(y, [1, 3], axis=1)[1], tf.unstack(y, axis=1)[2]]
    outputs += [tf.gather(y, [0, 2], axis=2), tf.gather(table, n), tf.reverse(y, [1, 3]), tf.roll(y, 1, axis=2)]
    return _made(kit, x, n, outputs)


def tensor_ellipsis(kit: Any) -> tuple[Any, list[Any]]:
    """Slices with an ellipsis, which Keras 2 can save as ``.h5`` alone."""
    _, x, n = _start(kit)
    y = kit.layers.Dense(3)(x)
    return _made(kit, x, n, [y[..., ::2], y[..., 0], y[:, 1, ..., 2], n[..., 1:]])


def tensor_shapes(kit: Any) -> tuple[Any, list[Any]]:
    """Reshaping, by ``tf.shape`` too, joining, padding."""
    tf, x, n = _start(kit)
    backend = kit.keras.backend
    outputs = [tf.reshape(x, (-1, 8, 4)), tf.reshape(x, [tf.shape(x)[0], 16, 2]), tf.transpose(x, (0, 2, 1, 3))]
    outputs += [tf.reshape(tf.reshape(x, (-1, 2)) * 2.0, tf.shape(x)), backend.dot(x, tf.constant([[1.0, 2.0], [0.5, -1.0]]))]
    outputs += [tf.squeeze(x[:, :1], axis=1), tf.expand_dims(x, 1), tf.concat([x, x], axis=-1), tf.stack([x, x], 2)]
    outputs += [tf.tile(x, (1, 1, 2, 1)), tf.repeat(x, 2, axis=1), tf.pad(x, [[0, 0], [1, 0], [0, 2], [0, 0]])]
    outputs += [tf.pad(x, [[0, 0], [1, 1], [0, 2], [0, 0]], "REFLECT"), tf.pad(x, [[0, 0], [0, 1], [0, 0], [1, 0]], constant_values=2.0)]
    outputs += [tf.nn.space_to_depth(x, 2), tf.one_hot(n, 5), tf.broadcast_to(x[:, :1], tf.shape(x))]
    return _made(kit, x, n, outputs)


def tensor_maths(kit: Any) -> tuple[Any, list[Any]]:
    """Functions, arithmetic, comparisons, logic."""
    tf, x, n = _start(kit)
    p = abs(x) + 0.5
    outputs = [tf.exp(x), tf.math.log(p), tf.math.rsqrt(p), x**2, 2.0**x, p**-1.5, x // 0.3, x % 0.7, -x / p, tf.sin(x), tf.math.erf(x)]
    outputs += [tf.floor(x), tf.round(x * 2), tf.sign(x), tf.clip_by_value(x, -0.5, 1), tf.maximum(x, p - 1), 1 - x, n * 2 - 1]
    outputs += [x > p - 1, x <= 0, tf.not_equal(n, 2), (x > 0) & (p < 1), ~(x > 0), tf.where(x > 0, x, tf.zeros_like(x))]
    outputs += [tf.cast(n, tf.float32) / 3, n // 2, n % 3, tf.nn.leaky_relu(x, 0.3), tf.nn.swish(x)]
    return _made(kit, x, n, outputs)


def tensor_sums(kit: Any) -> tuple[Any, list[Any]]:
    """Reductions, normalisation, products, windows, resizing."""
    tf, x, n = _start(kit)
    kernel = np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 2, 2, 3)
    outputs = [tf.reduce_mean(x, axis=[1, 2]), tf.reduce_sum(x, -1, keepdims=True), tf.reduce_max(x, 1), tf.reduce_min(x, axis=2)]
    outputs += [tf.reduce_prod(x, axis=-1), tf.math.reduce_std(x, axis=1), tf.reduce_logsumexp(x, axis=[1, 2]), tf.argmax(x, axis=1)]
    outputs += [tf.reduce_any(x > 1, axis=1), tf.cumsum(x, axis=1, exclusive=True, reverse=True), tf.norm(x, axis=-1)]
    outputs += [tf.math.l2_normalize(x, axis=-1), *tf.nn.moments(x, [1, 2]), tf.nn.softmax(x, axis=1), tf.matmul(x, x, transpose_b=True)]
    outputs += [tf.tensordot(x, kernel[0, 0], axes=1)]
    outputs += [tf.nn.max_pool2d(x, 2, 2, "VALID"), tf.nn.conv2d(x, kernel, 1, "SAME"), tf.image.resize(x, (6, 3))]
    return _made(kit, x, n, outputs)


def tensor_nested(kit: Any) -> tuple[Any, list[Any]]:
    """Models within models that hold operations, and slashes in names."""
    tf, x, n = _start(kit)
    layers = kit.layers
    inner = kit.keras.Input((4, 4, 2), name="inner/input")
    y = layers.Conv2D(4, 3, padding="same", name="block/conv")(inner)
    gated = kit.model(inner, y[..., :2] * tf.sigmoid(y[:, :, :, 2:]), name="gate")
    twice = gated(gated(x) + x)
    weights = tf.nn.softmax(tf.matmul(twice, twice, transpose_b=True) / 2.0)
    outputs = [tf.matmul(weights, twice), layers.Dense(3, name="head/dense")(tf.reduce_mean(twice, axis=[1, 2]))]
    return _made(kit, x, n, [*outputs, tf.cast(n[:, :2], tf.float32) + tf.reduce_max(twice, axis=[1, 2])])


def _half(kit: Any, policy: str) -> tuple[Any, list[Any]]:
    tf = importlib.import_module("tensorflow")
    layers = kit.layers
    kit.keras.mixed_precision.set_global_policy(policy)
    try:
        x = kit.keras.Input((6, 4), name="steps")
        y = layers.LayerNormalization()(layers.Conv1D(4, 3, padding="same", activation="relu")(x))
        y = layers.Add()([layers.BatchNormalization()(y), layers.Dense(4)(y)])
        pooled = tf.reduce_mean(y[:, 1:], axis=1)
        model = kit.model(x, [y, pooled, layers.Dense(3, dtype="float32")(pooled)])
    finally:
        kit.keras.mixed_precision.set_global_policy("float32")
    kit.fill(model)
    return model, [kit.normal(3, 6, 4)]


def half_mixed(kit: Any) -> tuple[Any, list[Any]]:
    """Half precision with variables of single precision."""
    return _half(kit, "mixed_float16")


def half_stored(kit: Any) -> tuple[Any, list[Any]]:
    """Half precision with variables of half precision."""
    return _half(kit, "float16")


TENSORS = (
    tensor_slices,
    tensor_ellipsis,
    tensor_shapes,
    tensor_maths,
    tensor_sums,
    tensor_nested,
    half_mixed,
    half_stored,
)
