"""Operations on tensors outside layers, nodes of ``keras.ops`` and plain operators, compared with Keras itself.

Each family of operations is one model with an output for each of them, read from a ``.keras`` file, from an ``.h5`` file, which
Keras itself cannot read again, and from memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from keras_models import SAMPLES, TOLERANCE, agree, fill, keras_outputs, random_inputs, read_all

import sparsec
from sparsec.errors import UnsupportedLayerError
from sparsec.frontends import OPERATIONS, operations, read
from sparsec.ops import evaluate_graph

ROW = np.array([1.0, -2.0, 0.5], np.float32)
TABLE = np.arange(40, dtype=np.float32).reshape(10, 4) / 7 - 2
RNG = np.random.default_rng(5)

Family = Callable[[Any, Any, Any, Any, Any], Sequence[Any]]
"""Outputs made of ``keras.ops``, an image [4, 6, 3], a positive one, integers [5], and a condition [4, 6, 3]."""

FAMILIES: dict[str, Family] = {
    "slices": lambda ops, x, p, i, c: [
        x[:, 0],
        x[:, -1],
        x[..., 0],
        x[:, 1:3],
        x[:, :-1, 2:],
        x[..., ::2],
        x[:, ::-1],
        x[:, 3:0:-2, 4::-1],
        x[:, None],
        x[..., None],
        x[:, None, 1:3, ::-1, -1],
        x[:, 1, ..., 2],
        i[:, 2],
        ops.flip(x, axis=1),
        ops.flip(x, axis=(1, -1)),
        ops.roll(x, 2, axis=1),
        ops.roll(x, (1, -2), axis=(1, 2)),
        ops.take(x, [0, 2, 1, 2], axis=1),
        ops.take(x, np.array([[0, 2], [1, -1]]), axis=-1),
        ops.take(x, 1, axis=2),
        ops.take(TABLE, i // 11, axis=0),
        ops.unstack(x, axis=1)[2],
        ops.unstack(x, axis=-1)[0],
        *ops.split(x, 3, axis=-1),
        *ops.split(x, [1, 3], axis=2),
    ],
    "shapes": lambda ops, x, p, i, c: [
        ops.reshape(x, (-1, 24, 3)),
        ops.reshape(x, (-1, 4, 18)),
        ops.reshape(x, (-1, 72)),
        ops.reshape(ops.reshape(x, (-1, 3)) * 2.0, (-1, 4, 6, 3)),
        ops.transpose(x, (0, 2, 1, 3)),
        ops.transpose(x, (0, 3, 1, 2)),
        ops.swapaxes(x, 1, -1),
        ops.moveaxis(x, 1, -1),
        ops.moveaxis(x, (3, 1), (1, 2)),
        ops.squeeze(x[:, 1:2], axis=1),
        ops.squeeze(x[:, 1:2, 2:3]),
        ops.squeeze(x[:, 1:2, 2:3], axis=(1, 2)),
        ops.expand_dims(x, 1),
        ops.expand_dims(x, (1, -1)),
        ops.expand_dims(i, -1),
    ],
    "blocks": lambda ops, x, p, i, c: [
        ops.nn.space_to_depth(x, 2),
        ops.nn.depth_to_space(ops.reshape(x, (-1, 3, 2, 12)), 2),
    ],
    "joined": lambda ops, x, p, i, c: [
        ops.concatenate([x, p], axis=-1),
        ops.concatenate([x, p, x], axis=1),
        ops.concatenate([x, ops.cast(c, "int32")], axis=2),
        ops.stack([x, p], axis=1),
        ops.stack([x, p, x], axis=-1),
        ops.hstack([x, p]),
        ops.dstack([x, p]),
        ops.tile(x, (1, 2, 1, 3)),
        ops.tile(x, (2, 1)),
        ops.repeat(x, 2, axis=1),
        ops.repeat(x, 3, axis=-1),
        ops.repeat(x, [1, 0, 2, 1], axis=1),
        ops.one_hot(i, 40),
        ops.one_hot(i, 40, axis=1),
        ops.one_hot(i, 40, dtype="int32"),
    ],
    "padded": lambda ops, x, p, i, c: [
        ops.pad(x, [[0, 0], [1, 2], [3, 0], [0, 0]]),
        ops.pad(x, [[0, 0], [1, 2], [3, 0], [0, 2]]),
        ops.pad(x, [[0, 0], [1, 0], [0, 2], [0, 0]], constant_values=2.5),
        ops.pad(x, [[0, 0], [2, 1], [0, 3], [1, 0]], mode="reflect"),
        ops.pad(x, [[0, 0], [2, 4], [0, 3], [1, 0]], mode="symmetric"),
        ops.pad(i, [[0, 0], [2, 1]], constant_values=7),
        ops.pad(i, [[0, 0], [2, 1]]),
    ],
    "functions": lambda ops, x, p, i, c: [
        ops.exp(x),
        ops.exp2(x),
        ops.expm1(x),
        ops.log(p),
        ops.log2(p),
        ops.log10(p),
        ops.log1p(p),
        ops.sqrt(p),
        ops.rsqrt(p),
        ops.square(x),
        ops.reciprocal(p),
        ops.sin(x),
        ops.cos(x),
        ops.tan(ops.clip(x, -1, 1)),
        ops.sinh(x),
        ops.cosh(x),
        ops.tanh(x),
        ops.erf(x),
        ops.erfc(x),
        ops.floor(x),
        ops.ceil(x),
        ops.trunc(x),
        ops.round(x * 2.0),
        ops.sign(x),
        ops.abs(x),
        -x,
        abs(x),
        ops.negative(x),
        ops.clip(x, -0.5, 1),
        ops.copy(x),
        ops.stop_gradient(x),
        ops.convert_to_tensor(x) + 0.5,
    ],
    "arithmetic": lambda ops, x, p, i, c: [
        x + 1,
        2 - x,
        x * ROW,
        x / 4,
        1.5 / p,
        x**2,
        x**3,
        p**0.5,
        p**-1.5,
        2.0**x,
        p**x,
        x**1,
        x % 0.7,
        x % p,
        x // 0.7,
        -2.0 // p,
        ops.power(p, ROW),
        ops.mod(x, ROW),
        ops.floor_divide(x, p),
        ops.maximum(x, p),
        ops.minimum(x, 0.3),
        ops.logaddexp(x, p),
        ops.divide(x, p),
        ops.divide_no_nan(x, ops.relu(x)),
        ops.add(x, p) - ops.subtract(p, x),
    ],
    "integers": lambda ops, x, p, i, c: [
        i // 7,
        i % 7,
        (i - 50) // 7,
        (i - 50) % -7,
        i**3,
        i * 2 - 1,
        i / 3,
        ops.abs(i - 50),
        ops.sign(i - 50),
        ops.clip(i, 10, 60),
        ops.sqrt(i),
        ops.sum(i, axis=1),
        ops.mean(i, axis=-1),
        ops.max(i, axis=1, keepdims=True),
        ops.min(i, axis=1),
        ops.cumsum(i, axis=1),
        ops.argmax(i, axis=1),
        ops.cast(i, "float32"),
        ops.cast(i, "int64"),
        ops.saturate_cast(x, "float32"),
        ops.full_like(i, 3) + i,
        ops.where(i > 50, i, 0),
        ops.equal(i, ops.flip(i, axis=1)),
        i + np.arange(5),
    ],
    "comparisons": lambda ops, x, p, i, c: [
        x > p,
        x >= 0,
        x < 0.3,
        x <= ROW,
        ops.equal(ops.round(x), 1.0),
        ops.not_equal(ops.round(x), 1.0),
        ops.greater(x, p),
        ops.less_equal(x, p),
        ops.logical_and(c, x > 0),
        ops.logical_or(c, x > 0),
        ops.logical_xor(c, x > 0),
        ops.logical_not(c),
        ops.logical_and(ops.round(x), c),
        ops.where(c, x, p),
        ops.where(x > 0, x, 0.0),
        ops.where(c, 1.0, -1.0),
        ops.where(c, ROW, x),
        ops.any(c, axis=1),
        ops.all(ops.logical_or(c, x > -1), axis=-1, keepdims=True),
        ops.count_nonzero(c, axis=(1, 2)),
        ops.sum(c, axis=1),
        ops.ones_like(x) * p,
        ops.zeros_like(x) + p,
        ops.full_like(x, 2.5) * x,
        ops.zeros_like(x, dtype="int32") + ops.cast(c, "int32"),
    ],
    "reductions": lambda ops, x, p, i, c: [
        ops.mean(x, axis=(1, 2)),
        ops.mean(x, axis=-1, keepdims=True),
        ops.sum(x, axis=1),
        ops.sum(x, axis=(1, 3), keepdims=True),
        ops.max(x, axis=2),
        ops.amax(x, axis=(1, 2)),
        ops.min(x, axis=2),
        ops.amin(x, axis=-1, keepdims=True),
        ops.prod(x, axis=-1),
        ops.ptp(x, axis=1),
        ops.var(x, axis=(1, 2)),
        ops.std(x, axis=-1),
        ops.logsumexp(x, axis=-1),
        ops.logsumexp(x, axis=(1, 2), keepdims=True),
        ops.argmax(x, axis=-1),
        ops.argmin(x, axis=1, keepdims=True),
        ops.cumsum(x, axis=1),
        ops.norm(x, axis=-1),
        ops.norm(x, axis=(1, 2)),
        ops.norm(x, ord=1, axis=-1),
        ops.norm(x, ord=3, axis=1, keepdims=True),
        ops.norm(x, ord="fro", axis=(1, 2)),
        *ops.moments(x, axes=[1, 2]),
    ],
    "normalised": lambda ops, x, p, i, c: [
        ops.normalize(x),
        ops.normalize(x, axis=1, order=1),
        ops.softmax(x),
        ops.softmax(x, axis=1),
        ops.log_softmax(x, axis=2),
        ops.batch_normalization(x, ROW, ROW**2, -1, offset=ROW, scale=2 * ROW),
        ops.batch_normalization(x, ROW, ROW**2, -1, epsilon=0.1),
        ops.layer_normalization(x),
        ops.layer_normalization(x, ROW, ROW, axis=-1, epsilon=1e-3),
        ops.rms_normalization(x, ROW),
    ],
    "products": lambda ops, x, p, i, c: [
        ops.matmul(x, ops.swapaxes(p, -1, -2)),
        x @ ops.transpose(p, (0, 1, 3, 2)),
        ops.matmul(x, TABLE[:3]),
        ops.matmul(x, ROW),
        ops.matmul(x[:, 0], TABLE[:3]),
        ops.dot(x, TABLE[:3]),
        ops.dot(x, ROW),
        ops.tensordot(x, TABLE[:3], axes=1),
        ops.tensordot(x, np.arange(18, dtype="float32").reshape(6, 3) / 9, axes=2),
        ops.tensordot(x, TABLE[:6], axes=[[2], [0]]),
        ops.einsum("nhwc,nhwd->ncd", x, p),
        ops.einsum("nhwc,nvwc->nhv", x, p),
        ops.einsum("nhwc,cd->nhwd", x, TABLE[:3]),
        ops.einsum("...c,cd->...d", x, TABLE[:3]),
        ops.einsum("dc,nhwc->nhdw", TABLE[:4, :3], x),
        ops.einsum("nhwc->nc", x),
        ops.einsum("nhwc->nwch", x),
        ops.einsum("n...c,n...c->n...", x, p),
        ops.einsum("nhwc,nhwc,nhc->nwc", x, p, x[:, :, 0]),
    ],
    "images": lambda ops, x, p, i, c: [
        ops.image.resize(x, (8, 9)),
        ops.image.resize(x, (2, 3), interpolation="nearest"),
        ops.image.resize(x, (7, 4), interpolation="bicubic", antialias=True),
        ops.image.resize(ops.transpose(x, (0, 3, 1, 2)), (5, 5), data_format="channels_first"),
    ],
    "windows": lambda ops, x, p, i, c: [
        ops.max_pool(x, 2, 2),
        ops.max_pool(x, (2, 3), (1, 2), padding="same"),
        ops.max_pool(x, 2),
        ops.average_pool(x, 2, 2, padding="same"),
        ops.average_pool(x, 3, 1),
        ops.conv(x, np.ones((2, 2, 3, 4), "float32") / 7),
        ops.conv(x, np.ones((3, 2, 3, 4), "float32") / 7, strides=2, padding="same"),
        ops.conv(x, np.ones((2, 2, 3, 4), "float32") / 7, dilation_rate=(1, 2)),
        ops.depthwise_conv(x, np.ones((2, 2, 3, 2), "float32") / 7, padding="same"),
    ],
}

IN_DOUBLE = frozenset({"slices", "shapes", "blocks", "joined", "padded", "functions", "reductions"})
"""Families in which Keras keeps double precision throughout."""


@pytest.fixture(scope="module")
def keras() -> Any:
    import keras

    return keras


@contextmanager
def floats(keras: Any, dtype: str) -> Iterator[None]:
    """Let new models compute in ``dtype``."""
    keras.config.set_floatx(dtype)
    yield
    keras.config.set_floatx("float32")


def family_model(keras: Any, family: str) -> Any:
    """A model with an output for each operation of a family."""
    inputs = [
        keras.Input((4, 6, 3), name="x"),
        keras.Input((4, 6, 3), name="positive"),
        keras.Input((5,), dtype="int32", name="integers"),
        keras.Input((4, 6, 3), dtype="bool", name="condition"),
    ]
    return keras.Model(inputs, list(FAMILIES[family](keras.ops, *inputs)))


def batches(dtype: str) -> list[np.ndarray]:
    x = 1.5 * RNG.normal(size=(SAMPLES, 4, 6, 3))
    positive = RNG.uniform(0.2, 3, (SAMPLES, 4, 6, 3))
    return [
        x.astype(dtype),
        positive.astype(dtype),
        RNG.integers(0, 10, (SAMPLES, 5)).astype("int32") * 11,
        RNG.random((SAMPLES, 4, 6, 3)) < 0.6,
    ]


@pytest.mark.parametrize(
    ("family", "dtype"),
    [(name, dt) for name in FAMILIES for dt in ("float32", "float64") if dt == "float32" or name in IN_DOUBLE],
)
def test_operations(family: str, dtype: str, keras: Any, tmp_path: Path) -> None:
    with floats(keras, dtype):
        model = family_model(keras, family)
        given = batches(dtype)
        agree(read_all(model, tmp_path), given, keras_outputs(model, given), TOLERANCE[dtype])


def test_every_operation_is_in_a_family(keras: Any) -> None:
    """But for activations, which have a test of their own, and what fixes the batch, which is refused."""
    proven = {type(operation).__name__ for family in FAMILIES for operation in family_model(keras, family).operations}
    read_here = {name for name, function in OPERATIONS.items() if function.__module__.startswith(operations.__name__)}
    assert {name for name in read_here if name[0].isupper()} - proven == {"BroadcastTo"}


@pytest.mark.parametrize("family", FAMILIES)
def test_compiled(family: str, keras: Any, tmp_path: Path) -> None:
    """Bundle and ONNX compute what the reference computes."""
    model = family_model(keras, family)
    given = batches("float32")
    compiled = sparsec.compile(model, verify=False)
    wanted = evaluate_graph(read(model).graph, given)
    compiled.save(tmp_path / "model.npz")
    compiled.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    feeds = {port.name: batch for port, batch in zip(compiled.graph.inputs, given, strict=True)}
    for found in (sparsec.load(tmp_path / "model.npz")(given), session.run(None, feeds)):
        for one, other in zip(found, wanted, strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * max(np.ptp(other.astype(float)), 1))


def test_sizes_that_are_open(keras: Any, tmp_path: Path) -> None:
    ops, x = keras.ops, keras.Input((None, None, 3))
    outputs = [
        x[:, 0],
        x[:, -1, :, 1],
        x[:, ::-1, 1:],
        x[:, None],
        ops.expand_dims(x, 2),
        ops.squeeze(ops.expand_dims(x, 1), 1),
        ops.mean(x, axis=(1, 2)),
        ops.sum(x, axis=1),
        ops.min(x, axis=2, keepdims=True),
        ops.argmax(x, axis=1),
        ops.cumsum(x, axis=2),
        ops.repeat(x, 2, axis=-1),
        ops.pad(x, [[0, 0], [1, 2], [0, 1], [0, 0]], constant_values=1.0),
        ops.stack([x, x], axis=-1),
        ops.einsum("nhwc,cd->nhwd", x, TABLE[:3]),
        ops.take(x, [0, 2], axis=2),
        ops.reshape(x, (-1, 3)) * 2,
        x - ops.max(x, axis=(1, 2), keepdims=True),
    ]
    model = keras.Model(x, outputs)
    given = random_inputs(model)
    agree(read_all(model, tmp_path), given, keras_outputs(model, given), TOLERANCE["float32"])


def test_operations_between_layers(keras: Any, tmp_path: Path) -> None:
    """Attention by hand, a gate, a residual over a padded shortcut, and a nested model that holds operations."""
    ops, layers = keras.ops, keras.layers
    x = keras.Input((6, 8), name="x")
    heads = [ops.transpose(ops.reshape(layers.Dense(8)(x), (-1, 6, 2, 4)), (0, 2, 1, 3)) for _ in range(3)]
    weights = ops.softmax(ops.matmul(heads[0], ops.swapaxes(heads[1], -1, -2)) / 2.0)
    attended = ops.reshape(ops.transpose(ops.matmul(weights, heads[2]), (0, 2, 1, 3)), (-1, 6, 8))
    inner = keras.Input((6, 8))
    gate = keras.Model(inner, inner[..., :4] * ops.sigmoid(inner[..., 4:]), name="gate")
    gated = gate(layers.Dense(8)(attended) + x)
    padded = ops.pad(gated, [[0, 0], [0, 0], [2, 2]])
    model = keras.Model(x, [layers.Dense(3)(padded + x), layers.Flatten()(gate(x))])
    fill(model)
    given = random_inputs(model)
    agree(read_all(model, tmp_path), given, keras_outputs(model, given), TOLERANCE["float32"])


Refusal = Callable[[Any, Any, Any], Any]

REFUSALS: dict[str, tuple[Refusal, str]] = {
    "all axes": (lambda ops, x, i: ops.mean(x), "all axes, the batch included"),
    "batch axis": (lambda ops, x, i: ops.sum(x, axis=(0, 1)), "includes the batch axis"),
    "batch slice": (lambda ops, x, i: x[1:, :], "a part of the batch"),
    "sample": (lambda ops, x, i: x[0], "takes samples out of the batch"),
    "batch transposed": (lambda ops, x, i: ops.transpose(x), "moves the batch axis"),
    "batch reshaped": (lambda ops, x, i: ops.reshape(x, (5, 24, 3)), "fixes the size of the batch"),
    "batch padded": (lambda ops, x, i: ops.pad(x, 1), "add samples to the batch"),
    "batch concatenated": (lambda ops, x, i: ops.concatenate([x, x], axis=0), "is the batch axis"),
    "batch broadcast": (lambda ops, x, i: ops.broadcast_to(x[:, :1], (5, 4, 6, 3)), "fixes the size of the batch"),
    "new batch": (lambda ops, x, i: ops.expand_dims(x, 0), "includes the batch axis"),
    "empty": (lambda ops, x, i: x[:, 3:1], "is empty"),
    "outside": (lambda ops, x, i: ops.take(x, [7], axis=1), "outside of axis 1"),
    "computed positions": (lambda ops, x, i: ops.take(x, i, axis=1), "positions that are computed"),
    "positions of a condition": (lambda ops, x, i: ops.where(x > 0)[0], "depend on the data"),
    "every sample with every other": (lambda ops, x, i: ops.einsum("nhwc,mhwc->nm", x, x), "keep the batch axis"),
    "diagonal": (lambda ops, x, i: ops.einsum("nhwhc->nhw", ops.stack([x[:, :3]] * 3, axis=3)), "takes a diagonal"),
    "power of integers": (lambda ops, x, i: i**-1, "exponent is none of 1 to 16"),
    "narrow": (lambda ops, x, i: ops.one_hot(i, 3, dtype="uint8"), "casts to 'uint8'"),
    "decimals": (lambda ops, x, i: ops.round(x, 2), "rounds to decimals"),
    "order of conditions": (lambda ops, x, i: ops.max(x > 0, axis=1), "orders conditions"),
    "spectral norm": (lambda ops, x, i: ops.norm(x, ord=2, axis=(1, 2)), "ord = 2 over 2 axes"),
}


@pytest.mark.parametrize(("build", "match"), REFUSALS.values(), ids=REFUSALS)
def test_what_is_refused(build: Refusal, match: str, keras: Any) -> None:
    x, i = keras.Input((4, 6, 3)), keras.Input((5,), dtype="int32")
    model = keras.Model([x, i], build(keras.ops, x, i))
    with pytest.raises(UnsupportedLayerError, match=match) as caught:
        read(model)
    assert "\n" not in str(caught.value)


def test_written_back_between_operations(keras: Any) -> None:
    """Dead channels go through operations, whose target shapes are corrected; numbers of them in a call are not."""
    ops, layers = keras.ops, keras.layers

    def model(between: Callable[[Any], Any]) -> Any:
        x = keras.Input((6, 6, 3))
        y = layers.Conv2D(8, 3, padding="same", activation="relu", name="pruned")(x)
        built = keras.Model(x, layers.Dense(4)(between(y)))
        fill(built)
        kernel, bias = (np.asarray(weight).copy() for weight in built.get_layer("pruned").get_weights())
        kernel[..., [0, 2, 5]] = 0
        built.get_layer("pruned").set_weights([kernel, bias])
        return built

    cases = [
        lambda y: ops.reshape(y, (-1, 36, 8)) * 2.0 + 1.0,
        lambda y: ops.reshape(y[:, 1:4], (-1, 144)),
        lambda y: ops.mean(ops.exp(-y), axis=(1, 2)),
        lambda y: ops.sum(ops.pad(y, [[0, 0], [1, 1], [0, 0], [0, 0]]), axis=1),
    ]
    for between in cases:
        before = model(between)
        (given,) = random_inputs(before)
        small = sparsec.shrink(before)
        assert small.get_layer("pruned").filters == 5
        wanted, found = np.asarray(before(given)), np.asarray(small(given))
        assert np.abs(found - wanted).max() <= 1e-5 * np.ptp(wanted)
    with pytest.warns(UserWarning, match="keeps all its channels"):
        sparsec.shrink(model(lambda y: y * np.arange(8, dtype=np.float32)))


@pytest.mark.parametrize("name", ["sum", "prod", "cumsum", "min"])
def test_narrow_integers_are_not_computed_with(name: str, keras: Any) -> None:
    """Some versions of Keras widen them, others wrap around."""
    x = keras.Input((5,), dtype="uint8")
    with pytest.raises(UnsupportedLayerError, match="arithmetic on narrow integers"):
        read(keras.Model(x, getattr(keras.ops, name)(x, axis=1)))
