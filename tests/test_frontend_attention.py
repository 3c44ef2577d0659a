"""Embedding, attention and products along named axes: every option against Keras, from every kind of source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_models import TOLERANCE, agree, fill, keras_outputs, random_inputs, read_all

from sparsec.errors import UnsupportedLayerError
from sparsec.frontends import read

pytestmark = pytest.mark.filterwarnings("ignore:.*destroy the mask information")

HALF = 4e-3
"""Of the range of an output, where Keras computes in half precision."""

WORDS = 12
"""The size of every vocabulary here."""


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("keras")


def batches_for(model: Any) -> list[np.ndarray]:
    """Random inputs; indices are words, of which 0 is padding, but for the first one of a sentence."""
    rng = np.random.default_rng(5)
    batches = random_inputs(model)
    for index, (tensor, batch) in enumerate(zip(model.inputs, batches, strict=True)):
        if "int" in tensor.dtype:
            words = rng.integers(1, WORDS, batch.shape).astype(batch.dtype)
            words[rng.random(batch.shape) < 0.3] = 0
            words[..., :1] = 1
            batches[index] = words
    return batches


def check(keras: Any, folder: Path, build: Callable[[Any], Any], dtype: str, h5: bool = True, empty: bool = False) -> list[Any]:
    """Build a model in ``dtype``, read it from every source, and compare; with ``empty``, also on a sample of padding alone."""
    keras.backend.clear_session()
    keras.config.set_dtype_policy(dtype)
    try:
        model = build(keras)
    finally:
        keras.config.set_dtype_policy("float32")
    fill(model)
    batches = batches_for(model)
    if empty:
        for batch in batches:
            batch[1] = 0
    models = read_all(model, folder, h5)
    agree(models, batches, keras_outputs(model, batches), TOLERANCE[dtype])
    return models


def operators(models: list[Any]) -> set[str]:
    return {node.op for node in models[0].graph.nodes}


DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])

# --- MultiHeadAttention and GroupQueryAttention -----------------------------------------------------------------------


def inputs(keras: Any, dtype: str) -> tuple[Any, Any, Any, Any]:
    """Queries, values, keys, and a mask over pairs of them."""
    shapes = (6, 8), (7, 5), (7, 4)
    return (*(keras.Input(shape, dtype=dtype) for shape in shapes), keras.Input((6, 7), dtype="bool"))


OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "wide values": {"value_dim": 5},
    "no biases": {"use_bias": False},
    "output of another size": {"output_shape": 3},
    "output of two axes": {"output_shape": (2, 3)},
    "gate": {"use_gate": True, "value_dim": 2},
    "dropout": {"dropout": 0.2},
    "window": {"sliding_window": 2},
}
CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"use_causal_mask": True},
    "mask": {"attention_mask": "mask"},
    "mask and causal": {"attention_mask": "mask", "use_causal_mask": True},
}


@DTYPES
@pytest.mark.parametrize("option", OPTIONS)
def test_multi_head_attention(keras: Any, tmp_path: Path, dtype: str, option: str) -> None:
    def build(keras: Any) -> Any:
        query, value, key, mask = inputs(keras, dtype)
        outputs = []
        for name in CALLS if option == "default" else ("causal", "mask and causal"):
            given = {name: mask if item == "mask" else item for name, item in CALLS[name].items()}
            layer = keras.layers.MultiHeadAttention(2, 3, **OPTIONS[option])
            outputs.append(layer(query, value, key=key if name != "plain" else None, **given))
        return keras.Model([query, value, key, mask], outputs)

    assert "attention" in operators(check(keras, tmp_path, build, dtype))


@DTYPES
def test_scores_are_returned(keras: Any, tmp_path: Path, dtype: str) -> None:
    def build(keras: Any) -> Any:
        query, value, key, mask = inputs(keras, dtype)
        outputs: list[Any] = []
        for call in CALLS.values():
            given = {name: mask if item == "mask" else item for name, item in call.items()}
            for layer in (
                keras.layers.MultiHeadAttention(2, 3, sliding_window=3),
                keras.layers.GroupQueryAttention(3, 4, 2),
            ):
                values = keras.layers.Dense(8)(value), keras.layers.Dense(8)(key)
                outputs += layer(query, *values, return_attention_scores=True, **given)
        return keras.Model([query, value, key, mask], outputs)

    assert "attention" not in operators(check(keras, tmp_path, build, dtype))


@DTYPES
def test_group_query_attention(keras: Any, tmp_path: Path, dtype: str) -> None:
    def build(keras: Any) -> Any:
        query, value, key, mask = inputs(keras, dtype)
        values, keys = keras.layers.Dense(8)(value), keras.layers.Dense(8)(key)
        outputs = []
        for options in ({}, {"use_bias": False}, {"use_gate": True}, {"dropout": 0.1}, {"sliding_window": 2}):
            for name in ("mask and causal",) if options else CALLS:
                given = {name: mask if item == "mask" else item for name, item in CALLS[name].items()}
                outputs.append(keras.layers.GroupQueryAttention(3, 4, 2, **options)(query, values, **given))
        outputs.append(keras.layers.GroupQueryAttention(3, 6, 1)(query, values, keys))
        return keras.Model([query, value, key, mask], outputs)

    assert "attention" in operators(check(keras, tmp_path, build, dtype))


@DTYPES
def test_attention_over_several_axes(keras: Any, tmp_path: Path, dtype: str) -> None:
    def build(keras: Any) -> Any:
        image, other = keras.Input((2, 3, 4), dtype=dtype), keras.Input((2, 4, 5), dtype=dtype)
        rows = keras.Input((3, 4), dtype="bool")
        each = keras.Input((2, 3, 4), dtype="bool")
        pixels = keras.Input((2, 3, 2, 3), dtype="bool")
        mha = keras.layers.MultiHeadAttention
        outputs = [
            mha(2, 3)(image, image),
            mha(2, 3, value_dim=2, output_shape=5)(image, image, attention_mask=pixels),
            mha(2, 3, attention_axes=(2,))(image, other),
            mha(2, 3, attention_axes=-2, use_gate=True)(image, other, attention_mask=rows),
            mha(2, 3, attention_axes=[2])(image, other, attention_mask=each),
            *mha(2, 3, attention_axes=2)(image, other, return_attention_scores=True),
            *mha(2, 3, attention_axes=(1, 2))(image, image, attention_mask=pixels, return_attention_scores=True),
        ]
        return keras.Model([image, other, rows, each, pixels], outputs)

    check(keras, tmp_path, build, dtype)


def test_masks_of_every_shape(keras: Any, tmp_path: Path) -> None:
    def build(keras: Any) -> Any:
        query, value, _, _ = inputs(keras, "float32")
        shapes = (1, 7), (6, 1), (2, 6, 7), (1, 6, 7)
        masks = [
            keras.Input(shape, dtype=dtype) for shape, dtype in zip(shapes, ("bool", "int32", "bool", "int32"), strict=True)
        ]
        outputs = [keras.layers.MultiHeadAttention(2, 3)(query, value, attention_mask=mask) for mask in masks]
        return keras.Model([query, value, *masks], outputs)

    check(keras, tmp_path, build, "float32")


def test_open_sizes(keras: Any, tmp_path: Path) -> None:
    def build(keras: Any) -> Any:
        query, words = keras.Input((None, 5)), keras.Input((None,), dtype="int32")
        value = keras.layers.Embedding(WORDS, 5, mask_zero=True)(words)
        layers = keras.layers
        outputs = [
            layers.MultiHeadAttention(2, 3)(query, value, use_causal_mask=True),
            layers.MultiHeadAttention(2, 3, sliding_window=2)(query, query),
            layers.GroupQueryAttention(3, 4, 2)(query, value),
            layers.GroupQueryAttention(3, 4, 2)(query, value, return_attention_scores=True)[1],
            layers.Attention()([value, value]),
            layers.AdditiveAttention()([value, value]),
            layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de")(query),
            layers.EinsumDense("...b,bc->...c", 3, bias_axes="c")(query),
        ]
        return keras.Model([query, words], outputs)

    check(keras, tmp_path, build, "float32")


# --- masks of the inputs ----------------------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("options", [{}, {"dropout": 0.2}], ids=["fused", "softmax"])
def test_masks_of_queries_keys_and_values(keras: Any, tmp_path: Path, dtype: str, options: dict[str, Any]) -> None:
    def build(keras: Any) -> Any:
        layers = keras.layers
        words, others = keras.Input((6,), dtype="int32"), keras.Input((7,), dtype="int32")
        mask, plain = keras.Input((6, 7), dtype="bool"), keras.Input((7, 4), dtype=dtype)
        keys = layers.Masking()(plain)
        outputs = []
        for make in (
            lambda: layers.MultiHeadAttention(2, 3, **options),
            lambda: layers.GroupQueryAttention(3, 4, 2, **options),
        ):
            for name in ("plain", "mask and causal"):
                given = {name: mask if item == "mask" else item for name, item in CALLS[name].items()}
                # The layer takes the masks off its inputs, so each has inputs of its own.
                query, value = (layers.Embedding(WORDS, 4, mask_zero=True)(item) for item in (words, others))
                outputs.append(make()(query, value, **given))
                query, value = (layers.Embedding(WORDS, 4, mask_zero=True)(item) for item in (words, others))
                outputs.append(make()(query, value, key=layers.Dense(4)(keys), **given))
        return keras.Model([words, others, mask, plain], outputs)

    check(keras, tmp_path, build, dtype, empty=True)


def test_masks_that_calls_give(keras: Any, tmp_path: Path) -> None:
    def build(keras: Any) -> Any:
        query, value, key, _ = inputs(keras, "float32")
        masks = [keras.Input((size,), dtype="bool") for size in (6, 7, 7)]
        given = dict(zip(("query_mask", "value_mask", "key_mask"), masks, strict=True))
        outputs = [
            keras.layers.MultiHeadAttention(2, 3)(query, value, key, **given),
            keras.layers.GroupQueryAttention(3, 4, 2)(query, *(keras.layers.Dense(8)(x) for x in (value, key)), **given),
            keras.layers.Attention()([value, value], mask=[masks[1], masks[2]]),
            keras.layers.AdditiveAttention()([value, value], mask=[None, masks[2]]),
        ]
        return keras.Model([query, value, key, *masks], outputs)

    check(keras, tmp_path, build, "float32")


def test_the_mask_of_the_queries_is_passed_on_and_that_of_the_inputs_is_lost(keras: Any, tmp_path: Path) -> None:
    def build(keras: Any) -> Any:
        layers = keras.layers
        words = keras.Input((6,), dtype="int32")
        x = layers.Embedding(WORDS, 4, mask_zero=True)(words)
        outputs = []
        for make in (
            lambda: layers.MultiHeadAttention(2, 3),
            lambda: layers.GroupQueryAttention(3, 2, 1),
            lambda: lambda query, value: layers.Attention()([query, value]),
            lambda: lambda query, value: layers.AdditiveAttention()([query, value]),
        ):
            x = layers.Embedding(WORDS, 4, mask_zero=True)(words)
            y = make()(x, x)
            # The mean is that of the positions that count: of y, and of the sum of both.
            outputs += [layers.GlobalAveragePooling1D()(item) for item in (y, layers.Add()([layers.Dropout(0.1)(x), y]))]
        return keras.Model(words, outputs)

    check(keras, tmp_path, build, "float32")


def test_masks_are_lost_in_the_order_in_which_keras_runs_layers(keras: Any, tmp_path: Path) -> None:
    def build(keras: Any) -> Any:
        layers = keras.layers
        words = keras.Input((6,), dtype="int32")
        x = layers.Embedding(WORDS, 4, mask_zero=True)(words)
        heads = [layers.MultiHeadAttention(2, 3)(x, x) for _ in range(3)]
        between = layers.MultiHeadAttention(2, 2)(heads[1], x)
        shared = layers.GroupQueryAttention(2, 2, 1)
        outputs = [
            shared(x, x),
            heads[0],
            layers.Dense(3)(heads[2]),
            shared(between, x),
            layers.GroupQueryAttention(3, 2, 2)(x, x),
        ]
        return keras.Model(words, [*outputs, layers.GroupQueryAttention(3, 2, 1)(layers.Dense(4)(layers.Dense(4)(x)), x)])

    check(keras, tmp_path, build, "float32")


# --- Attention and AdditiveAttention ----------------------------------------------------------------------------------


@DTYPES
def test_attention_without_projections(keras: Any, tmp_path: Path, dtype: str) -> None:
    def build(keras: Any) -> Any:
        layers = keras.layers
        words, others = keras.Input((6,), dtype="int32"), keras.Input((7,), dtype="int32")
        values = keras.Input((7, 5), dtype=dtype)
        outputs: list[Any] = []
        for options in (
            {},
            {"use_scale": True, "dropout": 0.3},
            {"score_mode": "concat"},
            {"score_mode": "concat", "use_scale": True},
            {"kind": layers.AdditiveAttention},
            {"kind": layers.AdditiveAttention, "use_scale": False},
        ):
            kind = options.pop("kind", layers.Attention)
            for masked in (False, True):
                query, key = (layers.Embedding(WORDS, 4, mask_zero=masked)(item) for item in (words, others))
                value = layers.Masking()(values) if masked else values
                outputs.append(kind(**options)([query, key]))
                outputs.append(kind(**options)([query, value, key], use_causal_mask=True))
                outputs += kind(**options)([query, value, key], return_attention_scores=True)
        return keras.Model([words, others, values], outputs)

    assert "attention" in operators(check(keras, tmp_path, build, dtype, empty=True))


# --- EinsumDense and Dot ----------------------------------------------------------------------------------------------

EQUATIONS: list[tuple[str, Any, str | None, tuple[int, ...]]] = [
    ("ab,bc->ac", 3, "c", (4,)),
    ("abc,cd->abd", (None, 3), "d", (6, 4)),
    ("abc,cd->abd", (6, 3), None, (6, 4)),
    ("abc,bd->adc", (3, 4), "d", (6, 4)),
    ("abc,cb->ab", 6, "b", (6, 4)),
    ("abc,cde->abde", (None, 2, 3), "de", (6, 4)),
    ("abc,cde->abed", (None, 3, 2), "ed", (6, 4)),
    ("abc,cde->adbe", (2, None, 3), "de", (6, 4)),
    ("abc,dce->abed", (None, 3, 2), "d", (6, 4)),
    ("abcd,cde->abe", (None, 3), "e", (6, 2, 4)),
    ("abcd,dce->abe", (None, 3), "e", (6, 2, 4)),
    ("abcd,bde->aec", (3, 2), "e", (6, 2, 4)),
    ("abc,bcd->abd", (6, 3), "bd", (6, 4)),
    ("abcd,cde->abce", (6, 2, 3), "ce", (6, 2, 4)),
    ("abcd,bcde->abce", (6, 2, 3), "e", (6, 2, 4)),
    ("ab,bc->abc", (4, 3), "bc", (4,)),
    ("ab,b->ab", (4,), "b", (4,)),
    ("abc,d->abcd", (6, 4, 3), "d", (6, 4)),
    ("...x,xy->...y", 3, "y", (6, 4)),
    ("...x,xy->...y", (None, 3), None, (6, 4)),
    ("...xy,xyz->...z", 3, "z", (2, 6, 4)),
    ("...xy,yxz->...zx", (3, 2), "z", (5, 2, 4)),
    ("ab...,bc->ac...", 3, "c", (6, 2, 4)),
]


@DTYPES
def test_einsum_dense(keras: Any, tmp_path: Path, dtype: str) -> None:
    def build(keras: Any) -> Any:
        starts, outputs = [], []
        for index, (equation, output_shape, bias_axes, shape) in enumerate(EQUATIONS):
            partial = output_shape
            if "..." in equation and isinstance(output_shape, tuple) and output_shape[:1] == (None,):
                partial = output_shape[1:]
            starts.append(keras.Input(shape, dtype=dtype))
            activation = "tanh" if index % 2 else None
            outputs.append(keras.layers.EinsumDense(equation, partial, activation=activation, bias_axes=bias_axes)(starts[-1]))
        return keras.Model(starts, outputs)

    found = operators(check(keras, tmp_path, build, dtype))
    assert {"dense", "matmul"} <= found


@DTYPES
@pytest.mark.parametrize("normalize", [False, True])
def test_dot(keras: Any, tmp_path: Path, dtype: str, normalize: bool) -> None:
    def build(keras: Any) -> Any:
        starts, outputs = [], []
        for axes, left, right in (
            (1, (4,), (4,)),
            (-1, (4,), (4,)),
            ((1, 2), (4,), (3, 4)),
            ((2, 1), (3, 4), (4,)),
            (1, (4, 3), (4, 5)),
            (2, (3, 4), (5, 4)),
            ((2, 1), (3, 4), (4, 5)),
            ((-2, -1), (4, 3, 2), (5, 3)),
            ((1, 3), (4, 3, 2), (5, 2, 4)),
        ):
            pair = keras.Input(left, dtype=dtype), keras.Input(right, dtype=dtype)
            starts += pair
            outputs.append(keras.layers.Dot(axes, normalize=normalize)(list(pair)))
        return keras.Model(starts, outputs)

    assert "matmul" in operators(check(keras, tmp_path, build, dtype))


# --- Embedding --------------------------------------------------------------------------------------------------------


@DTYPES
def test_embedding(keras: Any, tmp_path: Path, dtype: str) -> None:
    def build(keras: Any) -> Any:
        starts = [
            keras.Input((4,), dtype="int32"),
            keras.Input((2, 3), dtype="int64"),
            keras.Input((4,), dtype="uint8"),
            keras.Input((), dtype="int32"),
        ]
        outputs = [keras.layers.Embedding(WORDS, 5)(start) for start in starts]
        masked = keras.layers.Embedding(WORDS, 5, mask_zero=True)(starts[0])
        outputs.append(keras.layers.LayerNormalization()(masked))
        outputs.append(keras.layers.GlobalAveragePooling1D()(masked))
        return keras.Model(starts, outputs)

    check(keras, tmp_path, build, dtype)


def test_embedding_of_floating_point_numbers(keras: Any, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Embedding(WORDS, 5), keras.layers.Flatten()])
    fill(model)
    batch = np.random.default_rng(0).uniform(0, WORDS, (5, 4)).astype("float32")
    agree(read_all(model, tmp_path), [batch], keras_outputs(model, [batch]), TOLERANCE["float32"])


@DTYPES
@pytest.mark.parametrize("options", [{}, {"tie_weights": False}, {"logit_soft_cap": 2.0}, {"mask_zero": True}])
def test_reversible_embedding(keras: Any, tmp_path: Path, dtype: str, options: dict[str, Any]) -> None:
    def build(keras: Any) -> Any:
        words = keras.Input((4,), dtype="int32")
        table = keras.layers.ReversibleEmbedding(WORDS, 5, **options)
        x = table(words)
        return keras.Model(words, [keras.layers.GlobalAveragePooling1D()(x), table(keras.layers.Dense(5)(x), reverse=True)])

    # Keras stores the two variables of untied tables in legacy files under one name.
    check(keras, tmp_path, build, dtype, h5=options.get("tie_weights", True))


def test_half_precision(keras: Any, tmp_path: Path) -> None:
    keras.backend.clear_session()
    keras.config.set_dtype_policy("mixed_float16")
    layers = keras.layers
    words = keras.Input((6,), dtype="int32")
    calls = (
        lambda x: layers.MultiHeadAttention(2, 3)(x, x),
        lambda x: layers.MultiHeadAttention(2, 3, dropout=0.1)(x, x, use_causal_mask=True),
        lambda x: layers.GroupQueryAttention(3, 4, 2)(x, x),
        lambda x: layers.Attention(use_scale=True)([x, x]),
        lambda x: layers.AdditiveAttention()([x, x]),
        lambda x: layers.EinsumDense("abc,cd->abd", (None, 3))(layers.Dot(2)([x, x])),
    )
    model = keras.Model(words, [call(layers.Embedding(WORDS, 4, mask_zero=True)(words)) for call in calls])
    keras.config.set_dtype_policy("float32")
    fill(model)
    batches = batches_for(model)
    agree(read_all(model, tmp_path), batches, keras_outputs(model, batches), HALF)


# --- refusals ---------------------------------------------------------------------------------------------------------


def _open_scores(keras: Any) -> Any:
    query = keras.Input((None, 8))
    return keras.Model(
        query, keras.layers.MultiHeadAttention(2, 3)(query, query, use_causal_mask=True, return_attention_scores=True)
    )


def _lora(keras: Any) -> Any:
    words = keras.Input((4,), dtype="int32")
    return keras.Model(words, keras.layers.Embedding(WORDS, 5, lora_rank=2)(words))


def _image_masks(keras: Any) -> Any:
    image = keras.Input((2, 3, 4))
    return keras.Model(image, keras.layers.MultiHeadAttention(2, 3, attention_axes=(2,))(image, image, use_causal_mask=True))


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (_open_scores, "--input-shape"),
        (_lora, "LoRA tables are not read"),
        (_image_masks, "otherwise than by attention_mask"),
    ],
)
def test_what_is_refused(keras: Any, build: Callable[[Any], Any], match: str) -> None:
    with pytest.raises(UnsupportedLayerError, match=match):
        read(build(keras))
