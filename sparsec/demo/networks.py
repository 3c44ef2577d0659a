"""The two networks of the demo, and how they are trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sparsec.demo.data import Digits
from sparsec.ir import Array
from sparsec.quiet import import_keras

SEED = 0


@dataclass(frozen=True)
class Network:
    """A network of the demo.

    Attributes:
        name: for files.
        title: for tables and plots.
        shape: of one input.
        build: makes it, untrained.
        epochs: how long it is trained.
        batch: samples in a step of training.
        rate: at which training starts to learn; it falls to 0 along a cosine.
    """

    name: str
    title: str
    shape: tuple[int, ...]
    build: Callable[[Any], Any]
    epochs: int
    batch: int
    rate: float

    def inputs(self, x: Array) -> Array:
        """Digits ``[samples, 784]`` in the shape that the network takes."""
        return x.reshape(-1, *self.shape)


def _dense(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((784,), name="digit"),
            layers.Dense(1000, name="dense_1"),
            layers.Dense(1000, activation="relu", name="dense_2"),
            layers.Dense(500, activation="relu", name="dense_3"),
            layers.Dense(200, activation="relu", name="dense_4"),
            layers.Dense(10, activation="softmax", name="class"),
        ],
        name="dense",
    )


def _lenet(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="digit"),
            layers.Conv2D(6, 5, padding="same", activation="relu", name="conv_1"),
            layers.MaxPooling2D(name="pool_1"),
            layers.Conv2D(16, 5, activation="relu", name="conv_2"),
            layers.MaxPooling2D(name="pool_2"),
            layers.Flatten(name="flatten"),
            layers.Dense(120, activation="relu", name="dense_1"),
            layers.Dense(84, activation="relu", name="dense_2"),
            layers.Dense(10, activation="softmax", name="class"),
        ],
        name="lenet5",
    )


DENSE = Network("dense", "784-1000-1000-500-200-10", (784,), _dense, epochs=8, batch=64, rate=1e-3)
LENET = Network("lenet5", "LeNet-5", (28, 28, 1), _lenet, epochs=12, batch=32, rate=2e-3)


def train(network: Network, digits: Digits, progress: Callable[[float], None]) -> Any:
    """Train a network from fixed seeds.

    Args:
        network: which.
        digits: what it learns.
        progress: called with the part of the training that is done.

    Returns:
        the trained ``keras.Model``, without its optimizer.

    Raises:
        MissingExtraError: Keras is not installed.
    """
    keras = import_keras(purpose="to train networks")
    keras.utils.set_random_seed(SEED)
    model = network.build(keras)
    steps = network.epochs * -(-len(digits.train_x) // network.batch)
    rate = keras.optimizers.schedules.CosineDecay(network.rate, steps)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    told = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, _logs: progress((epoch + 1) / network.epochs))
    x = network.inputs(digits.train_x)
    model.fit(x, digits.train_y, batch_size=network.batch, epochs=network.epochs, verbose=0, callbacks=[told])
    # A model that was never compiled is saved without an optimizer, whose state is twice the size of the weights.
    bare = network.build(keras)
    bare.set_weights(model.get_weights())
    return bare
