"""Dtype policies of half precision: computed in single precision, with the outputs' dtypes of Keras.

What Keras computes in half precision is met to its rounding; what it computes with the same numbers in single, exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from keras_models import fill, random_inputs, read_all

import sparsec
from sparsec.errors import UnsupportedLayerError
from sparsec.frontends import read
from sparsec.frontends.hdf5 import stored_as, widened
from sparsec.ops import evaluate_graph
from sparsec.pruning.files import prune_file

TOLERANCE = {"float16": 2e-3, "bfloat16": 2e-2}
"""Of the range of an output: what Keras' own rounding makes of a small net."""


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


@contextmanager
def policy(keras: Any, name: str) -> Iterator[None]:
    """Let new layers compute by a policy."""
    keras.config.set_dtype_policy(name)
    yield
    keras.config.set_dtype_policy("float32")


def small_net(keras: Any, dtype: str = "float32") -> Any:
    """Layers, operations, a nested model; outputs of several precisions."""
    layers, ops = keras.layers, keras.ops
    x = keras.Input((8, 8, 3), name="image", dtype=dtype)
    whole = keras.Input((8,), name="integers", dtype="int32")
    y = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same", use_bias=False)(x)))
    inner = keras.Input((8, 8, 6))
    block = keras.Model(inner, layers.Add()([inner, layers.DepthwiseConv2D(3, padding="same")(inner)]), name="block")
    y = layers.GlobalAveragePooling2D()(layers.MaxPooling2D()(block(y)))
    gate = ops.sigmoid(y[:, :3]) * 2.0 + y[:, 3:]
    mixed = layers.Concatenate()([layers.Dense(4, dtype="float32")(gate), gate])
    normal = layers.LayerNormalization()(layers.Dense(5, activation="gelu")(mixed))
    outputs = [normal, mixed, layers.Dense(3, activation="softmax", dtype="float32")(normal), ops.cast(gate, "float32") + 1.0]
    outputs += [gate * np.ones(3, np.float32), gate + whole[:, :3], layers.Dense(2)(whole)]
    return keras.Model([x, whole], outputs)


def same_weights(keras: Any, model: Any) -> Any:
    """The model in single precision, with the same numbers."""
    single = small_net(keras)
    single.set_weights([np.asarray(weight, np.float32) for weight in model.weights])
    return single


def halves(keras: Any, name: str, dtype: str = "float32") -> tuple[Any, list[np.ndarray]]:
    with policy(keras, name):
        model = small_net(keras, dtype)
    fill(model)
    images, integers = random_inputs(model)
    return model, [images, integers % 5]


@pytest.mark.parametrize("name", ["mixed_float16", "float16", "mixed_bfloat16", "bfloat16"])
def test_policies(name: str, keras: Any, tmp_path: Path) -> None:
    model, given = halves(keras, name)
    single = [np.asarray(output) for output in same_weights(keras, model)(given)]
    half = model(given)
    graphs = [found.graph for found in read_all(model, tmp_path)]
    for graph in graphs[1:]:
        assert graph.nodes == graphs[0].nodes
        assert all(np.array_equal(array, graphs[0].weights[path]) for path, array in graph.weights.items())
    assert {array.dtype.name for array in graphs[0].weights.values() if array.dtype.kind == "f"} == {"float32"}
    for found, exact, rounded in zip(evaluate_graph(graphs[0], given), single, half, strict=True):
        own = rounded.dtype.name
        assert found.dtype.name == ("float16" if own == "float16" else "float32")
        spread = np.ptp(exact)
        allowed = 1e-5 * spread + (2.0**-11 * np.abs(exact).max() if own == "float16" else 0.0)
        assert np.abs(found.astype(np.float32) - exact).max() <= allowed
        keras_rounds = TOLERANCE[name.removeprefix("mixed_")]
        assert np.abs(found.astype(np.float32) - np.asarray(rounded).astype(np.float32)).max() <= keras_rounds * max(spread, 1)


def test_recurrent_and_attention_layers(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    with policy(keras, "mixed_float16"):
        x, words = keras.Input((6, 4)), keras.Input((5,), dtype="int32")
        attended = layers.MultiHeadAttention(2, 3)(x, x)
        outputs = [attended, *layers.LSTM(4, return_state=True)(attended), layers.Bidirectional(layers.GRU(3))(x)]
        outputs += [layers.Embedding(10, 4)(words), layers.Dot(2)([x, attended]), layers.Attention()([x, attended])]
        model = keras.Model([x, words], outputs)
    fill(model)
    steps, numbers = random_inputs(model)
    given = [steps, numbers % 10]
    for found in read_all(model, tmp_path):
        for one, other in zip(evaluate_graph(found.graph, given), model(given), strict=True):
            assert one.dtype == other.dtype.name
            assert np.abs(one.astype(np.float32) - np.asarray(other, np.float32)).max() <= 4e-3 * max(np.ptp(other), 1)


def test_inputs_of_half_precision(keras: Any, tmp_path: Path) -> None:
    """They stay what they are, in the bundle and in ONNX; wider floats are taken too."""
    model, given = halves(keras, "mixed_float16", "float16")
    assert read(model).graph.inputs[0].type.dtype == "float16"
    compiled = sparsec.compile(model)
    compiled.save(tmp_path / "model.npz")
    compiled.save(tmp_path / "model.onnx")
    running = sparsec.load(tmp_path / "model.npz", check=True)
    feeds = dict(zip(("image", "integers"), given, strict=True))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    for found, again, in_onnx, wanted in zip(
        running(given), running([given[0].astype("float64"), given[1]]), session.run(None, feeds), model(given), strict=True
    ):
        assert found.dtype == in_onnx.dtype == again.dtype == wanted.dtype.name
        assert np.array_equal(found, again)
        for one in (found, in_onnx):
            assert np.abs(one.astype(np.float64) - np.asarray(wanted).astype(np.float64)).max() <= 2e-3 * max(np.ptp(wanted), 1)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_inputs_by_their_dtype(dtype: str, keras: Any) -> None:
    x = keras.Input((3,), dtype=dtype)
    model = keras.Model(x, [x * 2, x + np.ones(3, np.float32), x + np.ones(3, np.float16), keras.layers.Dense(2)(x)])
    given = np.arange(6, dtype=np.float32).reshape(2, 3)
    graph = read(model).graph
    found = evaluate_graph(graph, [given.astype(graph.inputs[0].type.dtype)])
    for one, other in zip(found, model(given), strict=True):
        assert one.dtype.name == ("float16" if other.dtype.name == "float16" else "float32")
        np.testing.assert_allclose(one, np.asarray(other).astype(np.float32), rtol=2e-3)


def test_policy_objects(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    x = keras.Input((3,))
    y = layers.Dense(4, dtype=keras.DTypePolicy("mixed_float16"))(x)
    y = layers.Dense(4, dtype=keras.dtype_policies.DTypePolicyMap(default_policy="mixed_bfloat16"))(y)
    model = keras.Model(x, [y, layers.Dense(2, dtype="float64")(y), layers.Dense(2, dtype="float16")(y)])
    fill(model)
    (given,) = random_inputs(model)
    for found in read_all(model, tmp_path):
        for one, other in zip(evaluate_graph(found.graph, [given]), model(given), strict=True):
            assert one.dtype.name == other.dtype.name.replace("bfloat16", "float32")
            np.testing.assert_allclose(one, np.asarray(other).astype(np.float64), atol=3e-2 * np.ptp(one))


def test_quantised_policies_are_refused(keras: Any) -> None:
    x = keras.Input((8,))
    model = keras.Model(x, keras.layers.Dense(4, name="small")(x))
    model.get_layer("small").quantize("int8")
    with pytest.raises(UnsupportedLayerError, match="'small'"):
        read(model)


# --- files -------------------------------------------------------------------------------------------------------------


def test_bfloat16_is_half_of_a_float32() -> None:
    rng = np.random.default_rng(0)
    numbers = np.concatenate([rng.normal(size=1000) * 10.0 ** rng.integers(-20, 20, 1000), [0.0, -0.0, 1.0, 1.00390625]])
    stored = stored_as(numbers.astype(np.float32).reshape(4, -1), np.dtype("V2"))
    assert stored.dtype == "V2"
    assert stored.shape == (4, 251)
    again = widened(stored)
    assert again.dtype == np.float32
    assert np.abs(again - numbers.reshape(4, -1)).max(where=numbers.reshape(4, -1) != 0, initial=0) >= 0
    np.testing.assert_allclose(again.reshape(-1), numbers.astype(np.float32), rtol=2.0**-8)
    assert np.array_equal(stored_as(again, np.dtype("V2")), stored)
    # Halfway between two, the even one.
    assert widened(stored_as(np.float32([1.00390625, 1.01171875]), np.dtype("V2"))).tolist() == [1.0, 1.015625]


def dead_net(keras: Any) -> Any:
    """Half of the units of two layers are dead, with constants to move on."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation="relu"), layers.Dense(8), layers.Dense(3)])
    fill(model)
    for layer in model.layers[:2]:
        kernel, bias = (np.asarray(weight).copy() for weight in layer.get_weights())
        kernel[:, ::2] = 0
        layer.set_weights([kernel, bias])
    return model


# Keras cannot load its own .h5 files with variables of bfloat16.
@pytest.mark.parametrize(
    ("name", "suffix"),
    [("mixed_float16", ".keras"), ("mixed_float16", ".h5"), ("float16", ".keras"), ("float16", ".h5"), ("bfloat16", ".keras")],
)
def test_written_back(name: str, suffix: str, keras: Any, tmp_path: Path) -> None:
    """A smaller file has the policies and stored dtypes of the first, and Keras loads it."""
    with policy(keras, name):
        model = dead_net(keras)
    source, target, pruned = (tmp_path / f"{stem}{suffix}" for stem in ("model", "small", "pruned"))
    model.save(source)
    sparsec.compile(source).save(target)
    prune_file(source, pruned, sparsity=0.5)
    (given,) = random_inputs(model)
    wanted = np.asarray(model(given)).astype(np.float32)
    small = keras.saving.load_model(target)
    assert [layer.units for layer in small.layers] == [4, 4, 3]
    assert [weight.dtype for weight in small.weights] == [weight.dtype for weight in model.weights]
    rounding = 3e-2 if name == "bfloat16" else 4e-3
    assert np.abs(np.asarray(small(given)).astype(np.float32) - wanted).max() <= rounding * np.ptp(wanted)
    kernel = np.asarray(keras.saving.load_model(pruned).layers[0].kernel).astype(np.float32)
    assert (kernel == 0).sum() >= kernel.size // 2


@pytest.mark.parametrize("name", ["mixed_float16", "float16", "bfloat16"])
def test_shrunk_in_memory(name: str, keras: Any) -> None:
    with policy(keras, name):
        model = dead_net(keras)
    (given,) = random_inputs(model)
    small = sparsec.shrink(model)
    assert [layer.units for layer in small.layers] == [4, 4, 3]
    assert [weight.dtype for weight in small.weights] == [weight.dtype for weight in model.weights]
    wanted, found = (np.asarray(one(given)).astype(np.float32) for one in (model, small))
    assert np.abs(found - wanted).max() <= (3e-2 if name == "bfloat16" else 4e-3) * np.ptp(wanted)
