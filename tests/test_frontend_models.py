"""How layers are put together: nesting, sharing, several inputs and outputs, as files and models in memory state them."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_models import TOLERANCE, agree, fill, keras_outputs, random_inputs, read_all

from sparsec.errors import InputError, UnsupportedLayerError
from sparsec.frontends import read
from sparsec.ops import evaluate_graph


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


def compare(model: Any, folder: Path, h5: bool = True) -> list[Any]:
    """Read the model from everywhere, compare it with Keras, and return the readings."""
    fill(model)
    batches = random_inputs(model)
    models = read_all(model, folder, h5)
    agree(models, batches, keras_outputs(model, batches), TOLERANCE["float32"])
    return models


# --- sharing and nesting -----------------------------------------------------------------------------------------------


def test_layer_called_three_times(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    left, right = keras.Input((4,)), keras.Input((4,))
    shared = layers.Dense(4, activation="tanh", name="shared")
    model = keras.Model([left, right], layers.Concatenate()([shared(left), shared(right), shared(shared(left))]))
    graph = compare(model, tmp_path)[0].graph
    assert len(graph.weights) == 2
    assert [node.name for node in graph.nodes if node.op == "dense"] == ["shared", "shared:1", "shared:2", "shared:3"]


def test_model_nested_twice_and_called_twice(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    innermost = keras.Sequential([keras.Input((3,)), layers.Dense(3, "relu", name="dense"), layers.Softmax()], name="innermost")
    start = keras.Input((5,))
    inner = keras.Model(start, innermost(layers.Dense(3, name="first")(start)), name="inner")
    a, b = keras.Input((5,)), keras.Input((5,))
    model = keras.Model([a, b], layers.Subtract()([inner(a), innermost(inner(b))]))
    fill(model)
    batches = random_inputs(model)
    found = read(model)
    agree([found], batches, keras_outputs(model, batches), TOLERANCE["float32"])
    assert {"inner/innermost/dense/kernel", "innermost/dense/kernel", "inner/first/kernel"} < set(found.graph.weights)
    # Keras stores what two models share only once, and cannot load such a file itself.
    model.save(tmp_path / "model.keras")
    with pytest.raises(UnsupportedLayerError, match=r"innermost/dense.*pass the model itself"):
        read(tmp_path / "model.keras")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 1, 0)])
def test_nested_model_is_an_output_and_read_further(order: tuple[int, ...], keras: Any, tmp_path: Path) -> None:
    """Keras 3 counts the calls of a nested functional model differently in ``output_layers``."""
    layers = keras.layers
    start = keras.Input((4,))
    inner = keras.Model(start, layers.Dense(4, activation="tanh")(start), name="inner")
    x = keras.Input((4,))
    calls = [inner(x)]
    calls += [inner(layers.Dense(4, name="between")(calls[0]))]
    ends = [*calls, layers.Dense(2, name="after")(calls[1])]
    compare(keras.Model(x, [ends[index] for index in order]), tmp_path)


def test_nested_model_with_several_inputs_and_outputs(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    inner = keras.Model([a, b], [layers.Dense(2)(a), layers.Concatenate()([a, b]), layers.Dense(3)(b)], name="inner")
    x, y = keras.Input((4,)), keras.Input((3,))
    _, joined, narrow = inner([x, y])
    again = inner({"a": x, "b": narrow})
    compare(keras.Model([y, x], [narrow, layers.Dense(2)(joined), again[0]]), tmp_path)


def test_nested_model_with_dictionaries(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    a, b = keras.Input((4,), name="zeta"), keras.Input((3,), name="alpha")
    inner = keras.Model({"zeta": a, "alpha": b}, {"wide": layers.Dense(5)(a), "narrow": layers.Dense(2)(b)}, name="inner")
    x, y = keras.Input((4,)), keras.Input((3,))
    outputs = inner({"alpha": y, "zeta": x})
    compare(keras.Model([x, y], [outputs["wide"], outputs["narrow"]]), tmp_path)


def test_layers_shared_with_another_model(keras: Any, tmp_path: Path) -> None:
    """Calls that belong to other models are not counted."""
    layers = keras.layers
    shared, joint = layers.Dense(4, activation="relu"), layers.Add()
    a, b = keras.Input((4,)), keras.Input((4,))
    first, second = shared(a), shared(b)
    keras.Model(a, joint([first, shared(first)]))
    compare(keras.Model([a, b], [joint([second, first]), shared(second)]), tmp_path)
    compare(keras.Model(b, layers.Dense(2)(second)), tmp_path)


def test_model_from_the_middle_of_another(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    start = keras.Input((6, 6, 2))
    x = layers.Conv2D(3, 3, name="one")(start)
    y = layers.Conv2D(4, 3, name="two")(layers.ReLU()(x))
    keras.Model(start, y)
    compare(keras.Model(x, y), tmp_path)
    compare(keras.Model(start, [y, x]), tmp_path)


# --- ends --------------------------------------------------------------------------------------------------------------


def test_structures_of_inputs_and_outputs(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    a, b, c = keras.Input((4,), name="b_in"), keras.Input((3,), name="a_in"), keras.Input((2,), name="c_in")
    dense = layers.Dense(2, name="dense")
    outputs = {"second": dense(a), "first": [layers.Dense(3, name="three")(b), c]}
    model = keras.Model({"b_in": a, "a_in": b, "c_in": c}, outputs)
    graph = compare(model, tmp_path)[0].graph
    assert [i.name for i in graph.inputs] == ["a_in", "b_in", "c_in"]
    assert [port.name for port in graph.outputs] == ["first", "first_1", "second"]


def test_outputs_that_repeat_and_outputs_that_are_inputs(keras: Any, tmp_path: Path) -> None:
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    dense, other = keras.layers.Dense(4, name="dense"), keras.layers.Dense(4, name="dense_1")
    once = dense(x)
    graph = compare(keras.Model([x, y], [once, y, once, other(x), dense(y)]), tmp_path)[0].graph
    assert [port.name for port in graph.outputs] == ["dense", "y", "dense_2", "dense_1", "dense_3"]


def test_unused_branches(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    x = keras.Input((4,), name="x")
    kept = layers.Dense(3, name="kept")(x)
    layers.Dense(3, name="dropped")(kept)
    graph = compare(keras.Model(x, kept), tmp_path)[0].graph
    assert set(graph.weights) == {"kept/kernel", "kept/bias"}


def test_sequential_without_input(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    model = keras.Sequential([layers.Dense(4, activation="relu"), layers.Dropout(0.5), layers.Dense(2)])
    with pytest.raises(InputError, match="never built"):
        read(model)
    model.build((None, 3))
    compare(model, tmp_path)


def test_sequential_of_models(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    first = keras.Sequential([layers.Dense(4, activation="relu"), layers.Dense(3)])
    start = keras.Input((3,))
    second = keras.Model(start, layers.Add()([layers.Dense(3)(start), start]))
    compare(keras.Sequential([keras.Input((5,)), first, second, layers.Softmax()]), tmp_path, h5=False)


def test_names_with_slashes_in_an_old_file(keras: Any, tmp_path: Path) -> None:
    """Two layers whose paths are the same would share weights; Keras 2 allowed it."""
    layers = keras.layers
    start = keras.Input((3,))
    inner = keras.Model(start, layers.Dense(3, name="dense")(start), name="block")
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(3, name="block_dense")(inner(x)))
    model.save(tmp_path / "model.keras")
    path = tmp_path / "renamed.keras"
    with zipfile.ZipFile(tmp_path / "model.keras") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content.replace(b"block_dense", b"block/dense") if name == "config.json" else content)
    with pytest.raises(InputError):
        read(path)


# --- depth -------------------------------------------------------------------------------------------------------------


def test_a_thousand_layers(keras: Any, tmp_path: Path) -> None:
    """Keras itself needs a higher limit of recursion for it."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        x = start = keras.Input((4,))
        for _ in range(500):
            x = keras.layers.ReLU(negative_slope=0.99)(x) * 0.999
        model = keras.Model(start, x)
        model.save(tmp_path / "deep.keras")
        batches = random_inputs(model)
        wanted = keras_outputs(model, batches)
    finally:
        sys.setrecursionlimit(limit)
    found = read(tmp_path / "deep.keras")
    assert len(found.graph.nodes) == 1000
    agree([found], batches, wanted, 1e-4)


def test_layers_listed_in_any_order(keras: Any, tmp_path: Path) -> None:
    layers = keras.layers
    start = keras.Input((4,))
    x = layers.Dense(4, activation="relu")(start)
    model = keras.Model(start, layers.Add()([layers.Dense(4)(x), x]))
    fill(model)
    wanted = read(model).graph
    config = json.loads(model.to_json())

    class Shuffled:
        """A model whose configuration lists its layers backwards."""

        __module__ = "keras.models"
        name, layers, built = model.name, model.layers, True

        def to_json(self) -> str:
            shuffled = copy.deepcopy(config)
            shuffled["config"]["layers"].reverse()
            return json.dumps(shuffled)

    found = read(Shuffled()).graph  # type: ignore[arg-type]
    batch = random_inputs(model)
    assert np.array_equal(evaluate_graph(found, batch)[0], evaluate_graph(wanted, batch)[0])


# --- what an import costs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_are_read_without_tensorflow(suffix: str) -> None:
    sample = Path(__file__).parent / "frozen" / "keras-3.15.1" / f"resnet{suffix}"
    code = (
        "import sys, sparsec.frontends\n"
        "assert not {'h5py', 'scipy', 'tensorflow', 'keras'} & set(sys.modules)\n"
        f"sparsec.frontends.read({str(sample)!r})\n"
        "assert 'h5py' in sys.modules and not {'tensorflow', 'keras', 'tf_keras', 'torch', 'jax'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# --- refusals ----------------------------------------------------------------------------------------------------------


def test_subclassed_models(keras: Any, tmp_path: Path) -> None:
    class Own(keras.Model):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.dense = keras.layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Own()
    model(np.zeros((1, 3), np.float32))
    with pytest.raises(UnsupportedLayerError, match="'Own'"):
        read(model)
    model.save(tmp_path / "own.keras")
    with pytest.raises(UnsupportedLayerError, match=r"'Own'.*rebuild it with keras\.Model"):
        read(tmp_path / "own.keras")


def test_lambda_is_never_executed(keras: Any, tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    x = keras.Input((3,))

    def leave_a_trace(value: Any) -> Any:
        trace.touch()
        return value

    model = keras.Model(x, keras.layers.Lambda(leave_a_trace, name="shady")(x))
    model.save(tmp_path / "model.keras")
    trace.unlink()
    for source in (tmp_path / "model.keras", model):
        with pytest.raises(UnsupportedLayerError, match=r"'shady' is a Lambda.* never executes"):
            read(source)
    assert not trace.exists()


def test_classes_of_the_users_own(keras: Any, tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable(package="mine")
    class Dense(keras.layers.Dense):
        """Bears the name of a layer of Keras and computes something else."""

        def call(self, x: Any) -> Any:
            return -super().call(x)

    x = keras.Input((3,))
    model = keras.Model(x, Dense(2, name="odd")(x))
    model.save(tmp_path / "model.keras")
    model.save(tmp_path / "model.h5")
    for source in (tmp_path / "model.keras", tmp_path / "model.h5", model):
        with pytest.raises(UnsupportedLayerError, match=r"'odd' is of the class .*Dense.*not one of Keras"):
            read(source)


def test_quantised_models(keras: Any) -> None:
    x = keras.Input((8,))
    model = keras.Model(x, keras.layers.Dense(4, name="small")(x))
    model.get_layer("small").quantize("int8")
    with pytest.raises(UnsupportedLayerError, match="'small'"):
        read(model)


def test_training_behaviour_recorded_in_a_call(keras: Any, tmp_path: Path) -> None:
    """In Keras 3 the model's own call decides about training, so what the layer's call says is of no account."""
    x = keras.Input((3,))
    compare(keras.Model(x, keras.layers.Dense(2)(keras.layers.Dropout(0.5)(x, training=True))), tmp_path)


Refusal = Callable[[Any, Any], Any]

REFUSALS: dict[str, tuple[tuple[int | None, ...], str, Refusal, str]] = {
    "narrow integers": ((3,), "uint8", lambda keras, x: x + x, "arithmetic on narrow integers"),
    "narrow integers, reshaped": (
        (4,),
        "int8",
        lambda keras, x: keras.layers.Multiply()([keras.layers.Reshape((2, 2))(x)] * 2),
        "arithmetic on narrow integers",
    ),
    "average of integers": ((3,), "int32", lambda keras, x: keras.layers.Average()([x, x]), "average of integers"),
    "activation of integers": ((3,), "int32", lambda keras, x: keras.layers.ReLU()(x), "a float was expected"),
    "cast to narrow integers": ((3,), "float32", lambda keras, x: keras.ops.cast(x, "uint8"), "casts to 'uint8'"),
    "column": ((3, 3), "float32", lambda keras, x: x + np.ones((3, 1), np.float32), "by a mistake of Keras along axis 2"),
    "infinity": ((3,), "float32", lambda keras, x: x * float("inf"), "not finite"),
    "nearest": (
        (8, 8, 3),
        "float32",
        lambda keras, x: keras.layers.Resizing(7, 41, interpolation="nearest")(x),
        "depends on rounding",
    ),
    "nearest, open size": (
        (None, None, 3),
        "float32",
        lambda keras, x: keras.layers.Resizing(4, 4, interpolation="nearest")(x),
        "is open.*--input-shape",
    ),
    "integer images": ((8, 8, 3), "uint8", lambda keras, x: keras.layers.Resizing(4, 4)(x), "rounds integer images"),
    "open cubic": (
        (None, 8, 3),
        "float32",
        lambda keras, x: keras.layers.Resizing(4, 4, interpolation="bicubic")(x),
        "axis 1 is open",
    ),
    "random crop": ((8, 8, 3), "float32", lambda keras, x: keras.layers.RandomCrop(4, 6)(x), "replace it by CenterCrop"),
    "batch concatenation": ((3,), "float32", lambda keras, x: keras.layers.Concatenate(axis=0)([x, x]), "batch axis"),
    "other class": ((3,), "int32", lambda keras, x: keras.layers.Hashing(3)(x), "is a Hashing: it hashes"),
    "other operation": ((3,), "float32", lambda keras, x: keras.ops.arctan(x), "operation 'Arctan', which sparsec"),
}


@pytest.mark.parametrize(("shape", "dtype", "build", "match"), REFUSALS.values(), ids=REFUSALS)
def test_what_would_not_be_exact(
    shape: tuple[int | None, ...], dtype: str, build: Refusal, match: str, keras: Any, tmp_path: Path
) -> None:
    x = keras.Input(shape, dtype=dtype)
    model = keras.Model(x, build(keras, x))
    model.save(tmp_path / "model.keras")
    for source in (model, tmp_path / "model.keras"):
        with pytest.raises(UnsupportedLayerError, match=match) as caught:
            read(source)
        assert "\n" not in str(caught.value)


def test_sizes_that_decide_are_taken_from_the_caller(keras: Any) -> None:
    x = keras.Input((None, None, 3))
    model = keras.Model(x, keras.layers.Resizing(4, 4, interpolation="nearest")(x))
    assert read(model, input_shape=[(8, 12, 3)]).graph.inputs[0].type.shape[1:] == (8, 12, 3)
    model = keras.Model(x, keras.layers.Resizing(41, 4, interpolation="nearest")(x))
    with pytest.raises(UnsupportedLayerError, match="depends on rounding"):
        read(model, input_shape=[(8, 12, 3)])
