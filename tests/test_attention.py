"""Attention, look-ups and products in use: shrunk, written back to Keras, pruned, and in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_models import fill, keras_outputs
from random_graphs import RandomGraph

from sparsec.ir import Array, Graph
from sparsec.ops import evaluate_graph
from sparsec.passes import optimise
from sparsec.passes.shrink import shrink
from sparsec.sampling import guess_ranges

EXACT = 1e-9
"""Of the greatest magnitude of an output, in float64."""

TOLERANCE = 1e-5
"""Of the range of an output, in float32."""

STEPS, HEADS, DEPTH, WIDTH = 5, 4, 3, 4

pytestmark = pytest.mark.filterwarnings("ignore:.*destroy the mask information")


# --- shrinking, in float64 --------------------------------------------------------------------------------------------


def difference(graph: Graph, other: Graph) -> float:
    x = np.random.default_rng(0).normal(size=(3, *(int(str(size)) for size in graph.inputs[0].type.shape[1:])))
    a, b = evaluate_graph(graph, [x]), evaluate_graph(other, [x])
    assert all(np.ptp(y) > 0 for y in a)
    return max(float(np.abs(y - z).max() / np.abs(y).max()) for y, z in zip(a, b, strict=True))


def linear(g: RandomGraph, x: str, units: int, name: str, dead: Sequence[int] = (), rows: Sequence[int] = ()) -> str:
    """A dense node called ``name`` with zeroed columns and rows, and a bias that is nowhere zero."""
    kernel = g.rng.normal(size=(g.channels(x), units)) / 2
    kernel[:, list(dead)] = 0
    kernel[list(rows)] = 0
    bias = g.rng.normal(size=units)
    value = g.node("dense", x, g.weight(f"{name}/kernel", kernel), g.weight(f"{name}/bias", bias))
    g.planted[name] = np.array([value])
    return value


def channels(head: int, depth: int, *places: int) -> list[int]:
    """The channels of a head, or those at some places of it."""
    return [head * depth + place for place in (places or range(depth))]


def key_mask(g: RandomGraph, x: str) -> str:
    """A mask over keys that depends on the input and leaves some queries nothing."""
    first = g.node("greater", g.node("slice", x, axis=2, start=0, stop=1), g.weight("limit", np.array(1.0)))
    return g.node("reshape", g.node("transpose", first, permutation=(0, 2, 1)), shape=(0, 1, 1, -1))


def attending(
    g: RandomGraph,
    groups: int = HEADS,
    mask: bool = False,
    q: Sequence[int] = (),
    k: Sequence[int] = (),
    v: Sequence[int] = (),
    rows: Sequence[int] = (),
    **attrs: Any,
) -> Graph:
    """Projections with dead columns, attention, and a projection with dead rows."""
    x = g.start((STEPS, 6))
    queries, keys = linear(g, x, HEADS * DEPTH, "q", q), linear(g, x, groups * DEPTH, "k", k)
    values = linear(g, x, groups * WIDTH, "v", v)
    masks = [key_mask(g, x)] if mask else []
    y = g.node("attention", queries, keys, values, *masks, heads=HEADS, kv_heads=groups, scale=0.5, **attrs)
    g.planted["attention"] = np.array([y])
    return g.graph(linear(g, y, 4, "out", rows=rows))


def sizes(graph: Graph) -> dict[str, int]:
    """The channels that projections make, and of the last one those that it reads."""
    return {name: graph.weights[f"{name}/kernel"].shape[0 if name == "out" else 1] for name in ("q", "k", "v", "out")}


def attention_attrs(graph: Graph) -> tuple[Any, Any]:
    (node,) = (node for node in graph.nodes if node.op == "attention")
    return node.attrs["heads"], node.attrs["kv_heads"]


def builder(seed: int = 0) -> RandomGraph:
    return RandomGraph(np.random.default_rng(seed))


@pytest.mark.parametrize(
    "attrs", [{}, {"mask": True}, {"causal": True}, {"mask": True, "empty": "zero"}, {"window": 2, "empty": "zero"}]
)
def test_a_head_that_nobody_reads_goes_as_a_whole(attrs: dict[str, Any]) -> None:
    graph = attending(builder(), rows=channels(1, WIDTH) + channels(3, WIDTH), **attrs)
    small, _, _ = shrink(graph)
    assert difference(graph, small) < EXACT
    assert sizes(small) == {"q": 2 * DEPTH, "k": 2 * DEPTH, "v": 2 * WIDTH, "out": 2 * WIDTH}
    assert attention_attrs(small) == (2, 2)


def test_heads_that_share_their_keys_go_together() -> None:
    graph = attending(builder(), groups=2, rows=channels(0, WIDTH) + channels(2, WIDTH) + channels(3, WIDTH))
    small, _, _ = shrink(graph)
    assert difference(graph, small) < EXACT
    assert sizes(small) == {"q": 2 * DEPTH, "k": DEPTH, "v": WIDTH, "out": 2 * WIDTH}
    assert attention_attrs(small) == (2, 1)


@pytest.mark.parametrize("groups", [4, 2, 1])
def test_keys_that_are_the_same_everywhere_do_not_matter(groups: int) -> None:
    # In every group another channel is constant, and not 0: as many are left in each.
    dead = [channels(group, DEPTH, group % DEPTH)[0] for group in range(groups)]
    graph = attending(builder(), groups=groups, k=dead)
    small, plan, _ = shrink(graph)
    assert difference(graph, small) < EXACT
    assert sizes(small) == {"q": HEADS * 2, "k": groups * 2, "v": groups * WIDTH, "out": HEADS * WIDTH}
    assert all(edit.delta is None for edit in plan.edits.values())


def test_queries_that_are_the_same_everywhere_matter_unless_they_are_zero() -> None:
    dead = [channels(head, DEPTH, 1)[0] for head in range(HEADS)]
    graph = attending(builder(), q=dead)
    assert shrink(graph)[1].empty
    weights = dict(graph.weights)
    weights["q/bias"] = weights["q/bias"].copy()
    weights["q/bias"][dead] = 0
    graph = graph.with_nodes(graph.nodes, weights)
    small, _, _ = shrink(graph)
    assert difference(graph, small) < EXACT
    assert sizes(small) == {"q": HEADS * 2, "k": HEADS * 2, "v": HEADS * WIDTH, "out": HEADS * WIDTH}


@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize(("attrs", "goes"), [({}, True), ({"mask": True}, True), ({"mask": True, "empty": "zero"}, False)])
def test_values_that_are_the_same_everywhere_move_on(groups: int, attrs: dict[str, Any], goes: bool) -> None:
    dead = [channel for group in range(groups) for channel in channels(group, WIDTH, group % WIDTH, (group + 2) % WIDTH)]
    graph = attending(builder(), groups=groups, v=dead, **attrs)
    small, plan, _ = shrink(graph)
    # Where a query without keys gets 0, the constant would not be one.
    left = 2 if goes else WIDTH
    assert difference(graph, small) < EXACT
    assert sizes(small) == {"q": HEADS * DEPTH, "k": groups * DEPTH, "v": groups * left, "out": HEADS * left}
    assert ("out/bias" in plan.edits) == goes


def test_columns_of_a_table_that_are_one_number_move_on() -> None:
    g = builder()
    x = g.start((STEPS,))
    table = g.rng.normal(size=(9, 6))
    table[:, 1], table[:, 4] = 0.7, 0.0
    indices = g.node("cast", g.node("clip", x, minimum=-4.0, maximum=4.0), dtype="int32")
    graph = g.graph(linear(g, g.node("gather", g.weight("words/table", table), indices, axis=0), 3, "out"))
    small, _, decisions = shrink(graph)
    assert difference(graph, small) < EXACT
    assert small.weights["words/table"].shape == (9, 4)
    assert [(d.layer, d.before, d.after) for d in decisions if d.outcome == "shrunk"] == [("gather_2", 6, 4)]


def test_heads_stay_equally_large() -> None:
    graph = attending(
        builder(), v=[*channels(0, WIDTH, 1, 2), *channels(1, WIDTH, 3), *channels(2, WIDTH, 0), *channels(3, WIDTH, 0)]
    )
    small, _, decisions = shrink(graph)
    assert difference(graph, small) < EXACT
    assert sizes(small)["v"] == HEADS * (WIDTH - 1)
    assert any("equally large" in decision.reason for decision in decisions)


def test_a_mask_keeps_its_channels() -> None:
    g = builder()
    x = g.start((STEPS, STEPS))
    limits = g.weight("limits", np.zeros(STEPS))
    kernel = g.rng.normal(size=(STEPS, STEPS))
    kernel[:, 2] = 0
    mask = g.node("greater", g.node("dense", x, g.weight("mask/kernel", kernel)), limits)
    y = g.node("attention", x, x, x, g.node("reshape", mask, shape=(0, 1, STEPS, STEPS)), heads=1, kv_heads=1, scale=1.0)
    graph = g.graph(linear(g, y, 3, "out"))
    small, _, _ = shrink(graph)
    assert difference(graph, small) < EXACT
    assert small.weights["mask/kernel"].shape == (STEPS, STEPS)


def random_attention(seed: int) -> Graph:
    """Two blocks of attention beside shortcuts, with random dead columns and rows, heads, groups and masks."""
    g = builder(seed)
    rng = g.rng
    x = g.start((STEPS, 6))
    y = linear(g, x, 8, "in", dead=np.flatnonzero(rng.random(8) < 0.3).tolist())
    for block in range(2):
        heads = int(rng.choice([1, 2, 4]))
        groups = int(rng.choice([g for g in (1, 2, 4) if heads % g == 0]))
        depth, width = rng.integers(1, 4, 2)
        parts = []
        for name, units in (("q", heads * depth), ("k", groups * depth), ("v", groups * width)):
            dead = np.flatnonzero(rng.random(units) < 0.4).tolist()
            parts.append(linear(g, y, int(units), f"{name}{block}", dead))
            if rng.random() < 0.5:
                g.weights[f"{name}{block}/bias"][:] *= rng.random(units) < 0.5
        masks = [key_mask(g, x)] if rng.random() < 0.5 else []
        attrs = {
            "causal": bool(rng.random() < 0.5),
            "window": int(rng.integers(0, 3)),
            "empty": str(rng.choice(["mean", "zero"])),
        }
        z = g.node("attention", *parts, *masks, heads=heads, kv_heads=groups, scale=0.5, **attrs)
        gone = [channel for head in range(heads) if rng.random() < 0.3 for channel in channels(head, int(width))]
        z = linear(g, z, 8, f"out{block}", dead=np.flatnonzero(rng.random(8) < 0.3).tolist(), rows=gone)
        y = g.node("add", y, z) if rng.random() < 0.7 else z
    return g.graph(linear(g, y, 3, "last"))


def random_difference(seed: int) -> float:
    graph = random_attention(seed)
    return difference(graph, optimise(graph).graph)


def test_random_attention_keeps_its_outputs() -> None:
    differences = {seed: random_difference(seed) for seed in range(60)}
    assert {seed: d for seed, d in differences.items() if d > EXACT} == {}
    assert any(attention_sizes(seed) for seed in range(20)), "something is removed"


def attention_sizes(seed: int) -> bool:
    graph = random_attention(seed)
    small = optimise(graph).graph
    return sum(w.size for w in small.weights.values()) < sum(w.size for w in graph.weights.values())


@pytest.mark.slow
def test_two_thousand_random_attentions_keep_their_outputs() -> None:
    differences = {seed: random_difference(seed) for seed in range(1000, 3000)}
    assert {seed: d for seed, d in differences.items() if d > EXACT} == {}


# --- models -----------------------------------------------------------------------------------------------------------

WORDS = 15


def zero(variable: Any, *places: Any) -> None:
    """Set parts of a variable to 0."""
    values = np.array(variable.numpy())
    for place in places:
        values[place] = 0
    variable.assign(values)


def encoder(keras: Any, use_bias: bool = True) -> Any:
    """A transformer block over words, with dead heads, columns and embeddings."""
    layers = keras.layers
    words = keras.Input((6,), dtype="int32", name="words")
    x = layers.Embedding(WORDS, 8, name="table")(words)
    x = layers.Add()([x, layers.MultiHeadAttention(3, 4, value_dim=5, use_bias=use_bias, name="heads")(x, x)])
    y = layers.Dense(10, activation="gelu", name="up")(x)
    x = layers.Add()([x, layers.Dense(8, name="down")(y)])
    x = layers.EinsumDense("abc,cd->abd", (None, 7), activation="tanh", name="einsum")(x)
    model = keras.Model(words, layers.Dense(3, name="last")(layers.GlobalAveragePooling1D()(x)))
    fill(model)
    heads = model.get_layer("heads")
    zero(heads.output_dense.kernel, np.s_[1], np.s_[..., 6])
    zero(heads.key_dense.kernel, np.s_[:, 0, 2], np.s_[:, 2, 3])
    zero(heads.value_dense.kernel, np.s_[:, 0, 1], np.s_[:, 2, 4])
    zero(model.get_layer("table").embeddings, np.s_[:, 6])
    zero(model.get_layer("down").kernel, np.s_[:, 6])
    zero(model.get_layer("up").kernel, np.s_[:, 3:5])
    zero(model.get_layer("einsum").kernel, np.s_[:, 2])
    if use_bias:
        zero(heads.output_dense.bias, np.s_[6])
    zero(model.get_layer("down").bias, np.s_[6])
    return model


def grouped(keras: Any) -> Any:
    """Attention whose heads share keys, a group of which is dead."""
    layers = keras.layers
    steps = keras.Input((5, 6), name="steps")
    x = layers.Dense(8, name="in")(steps)
    x = layers.GroupQueryAttention(4, 4, 2, name="heads")(x, x)
    model = keras.Model(steps, layers.Dense(3, name="last")(x))
    fill(model)
    heads = model.get_layer("heads")
    zero(heads._output_dense.kernel, np.s_[:2])
    zero(heads._key_dense.kernel, np.s_[:, 1, 2])
    zero(heads._value_dense.kernel, np.s_[:, 1, 0])
    return model


def decoder(keras: Any) -> Any:
    """Attention to other values, with an output of its own size, and EinsumDense over several axes."""
    layers = keras.layers
    query, value = keras.Input((5, 6), name="query"), keras.Input((7, 4), name="value")
    x, y = layers.Dense(8, name="in")(query), layers.Dense(6, name="other")(value)
    x = layers.MultiHeadAttention(2, 3, value_dim=4, output_shape=9, name="heads")(x, y)
    x = layers.EinsumDense("abc,cde->abde", (5, 2, 3), bias_axes="de", name="einsum")(layers.Dense(5, name="between")(x))
    model = keras.Model([query, value], layers.Dense(3, name="last")(layers.Flatten()(x)))
    fill(model)
    zero(model.get_layer("in").kernel, np.s_[:, 1])
    zero(model.get_layer("other").kernel, np.s_[:, 4])
    zero(model.get_layer("between").kernel, np.s_[:, 2])
    heads = model.get_layer("heads")
    zero(heads.query_dense.kernel, np.s_[:, :, 1])
    zero(heads.query_dense.bias, np.s_[:, 1])
    zero(heads.output_dense.kernel, np.s_[..., 3])
    return model


def batches(model: Any, seed: int = 1) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [
        (rng.integers(0, WORDS, (4, *x.shape[1:])) if "int" in x.dtype else rng.normal(size=(4, *x.shape[1:]))).astype(x.dtype)
        for x in model.inputs
    ]


def assert_equal(model: Any, other: Any) -> None:
    given = batches(model)
    for a, b in zip(keras_outputs(model, given), keras_outputs(other, given), strict=True):
        assert np.abs(a - b).max() <= TOLERANCE * np.ptp(a)


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("keras")


def stated(layer: Any, *names: str) -> list[Any]:
    config = layer.get_config()
    return [config[name] for name in names]


@pytest.mark.parametrize("suffix", [".keras", ".h5", ""])
def test_an_encoder_comes_back_smaller(keras: Any, tmp_path: Path, suffix: str) -> None:
    model = encoder(keras)
    trained = suffix == ".keras"
    if trained:
        before = model.get_weights()
        model.compile("adam", "mean_squared_error")
        model.train_on_batch(batches(model)[0], np.zeros((4, 3)))
        # Training moves what nobody reads.
        model.set_weights([np.where(old == 0, 0, new) for old, new in zip(before, model.get_weights(), strict=True)])
    small = shrunk(keras, model, tmp_path, suffix)
    assert_equal(model, small)
    assert stated(small.get_layer("heads"), "num_heads", "key_dim", "value_dim", "output_shape") == [2, 3, 4, None]
    assert stated(small.get_layer("table"), "output_dim") == [7]
    assert stated(small.get_layer("einsum"), "output_shape", "bias_axes") == [(None, 6), None]
    if trained:
        slots = [variable.shape for variable in small.optimizer.variables[2:]]
        assert slots == [variable.shape for variable in small.trainable_variables for _ in range(2)]
        small.train_on_batch(batches(small)[0], np.zeros((4, 3)))


def shrunk(keras: Any, model: Any, folder: Path, suffix: str) -> Any:
    """The model made smaller in memory, or by way of a file."""
    import sparsec

    if not suffix:
        return sparsec.shrink(model)
    model.save(folder / f"model{suffix}")
    result = sparsec.compile(folder / f"model{suffix}")
    result.save(folder / f"small{suffix}")
    return keras.models.load_model(folder / f"small{suffix}", compile=suffix == ".keras")


@pytest.mark.parametrize("suffix", [".keras", ".h5", ""])
def test_groups_of_heads_come_back_smaller(keras: Any, tmp_path: Path, suffix: str) -> None:
    model = grouped(keras)
    small = shrunk(keras, model, tmp_path, suffix)
    assert_equal(model, small)
    assert stated(small.get_layer("heads"), "num_query_heads", "num_key_value_heads", "head_dim") == [2, 1, 3]


@pytest.mark.parametrize(("suffix", "narrow"), [(".keras", "_value_dense"), (".h5", "_value_dense"), ("", "_key_dense")])
def test_heads_of_one_width_are_filled_up_with_zeros(keras: Any, tmp_path: Path, suffix: str, narrow: str) -> None:
    model = grouped(keras)
    zero(getattr(model.get_layer("heads"), narrow).kernel, np.s_[:, 1, 3])
    small = shrunk(keras, model, tmp_path, suffix)
    assert_equal(model, small)
    heads = small.get_layer("heads")
    assert stated(heads, "num_query_heads", "num_key_value_heads", "head_dim") == [2, 1, 3]
    assert not getattr(heads, narrow).kernel.numpy()[..., 2].any()


def test_heads_stay_as_wide_as_those_that_lose_nothing(keras: Any) -> None:
    import sparsec

    steps = keras.Input((5, 6))
    model = keras.Model(steps, keras.layers.Dense(3)(keras.layers.GroupQueryAttention(4, 4, 2, name="heads")(steps, steps)))
    fill(model)
    zero(model.get_layer("heads")._value_dense.kernel, np.s_[:, :, 1])
    small = sparsec.shrink(model)
    assert_equal(model, small)
    assert stated(small.get_layer("heads"), "head_dim") == [4]


@pytest.mark.parametrize("suffix", [".keras", ".h5", ""])
def test_attention_to_other_values_comes_back_smaller(keras: Any, tmp_path: Path, suffix: str) -> None:
    model = decoder(keras)
    small = shrunk(keras, model, tmp_path, suffix)
    assert_equal(model, small)
    heads = small.get_layer("heads")
    assert stated(heads, "num_heads", "key_dim", "value_dim", "output_shape") == [2, 2, 4, (8,)]
    assert heads.query_dense.kernel.shape == (7, 2, 2)
    assert heads.value_dense.kernel.shape == (5, 2, 4)
    assert small.get_layer("einsum").kernel.shape == (4, 2, 3)


def test_what_cannot_be_stated_stays_whole(keras: Any) -> None:
    import sparsec

    model = constant_inputs(keras)
    with pytest.warns(UserWarning, match=r"'heads' keeps all its channels: one of its projections would need a bias"):
        small = sparsec.shrink(model)
    x = np.random.default_rng(0).normal(size=(3, 5, 6)).astype(np.float32)
    wanted, found = np.asarray(model(x)), np.asarray(small(x))
    assert np.abs(found - wanted).max() <= 1e-5 * np.ptp(wanted)


def constant_inputs(keras: Any) -> Any:
    """Projections without biases behind a layer with a dead unit whose bias is not 0."""
    steps = keras.Input((5, 6))
    x = keras.layers.Dense(8, name="in")(steps)
    model = keras.Model(steps, keras.layers.Dense(3)(keras.layers.MultiHeadAttention(2, 3, use_bias=False, name="heads")(x, x)))
    fill(model)
    zero(model.get_layer("in").kernel, np.s_[:, 1])
    return model


def test_an_einsum_dense_without_bias_gets_one(keras: Any, tmp_path: Path) -> None:
    steps = keras.Input((5, 6))
    x = keras.layers.Dense(8, name="in")(steps)
    model = keras.Model(steps, keras.layers.EinsumDense("abc,cd->abd", (None, 4), name="einsum")(x))
    fill(model)
    zero(model.get_layer("in").kernel, np.s_[:, 1])
    for suffix in (".keras", ".h5", ""):
        small = shrunk(keras, model, tmp_path, suffix)
        assert_equal(model, small)
        assert stated(small.get_layer("einsum"), "bias_axes") == ["d"]


# --- pruned, compiled and run -----------------------------------------------------------------------------------------


def image_transformer(keras: Any) -> Any:
    """A vision transformer: patches, a token for the class, two blocks, and a head on that token."""
    layers = keras.layers
    images = keras.Input((12, 12, 3))
    x = layers.Reshape((9, 16))(layers.Conv2D(16, 4, strides=4)(images))
    token = layers.Embedding(1, 16)(keras.ops.cast(x[:, :1, 0] * 0.0, "int32"))
    x = layers.Concatenate(axis=1)([token, x])
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 4)(y, y)])
        y = layers.Dense(24, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(16)(y)])
    return keras.Model(images, layers.Dense(5)(layers.LayerNormalization()(x)[:, 0]))


def sentence_encoder(keras: Any) -> Any:
    """Words and places embedded and added, a masked transformer block, and a head on the mean."""
    layers = keras.layers
    words, places = keras.Input((8,), dtype="int32"), keras.Input((8,), dtype="int32")
    x = layers.Embedding(WORDS, 16, mask_zero=True)(words) + layers.Embedding(WORDS, 16)(places)
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(4, 4)(y, y)])
    y = layers.Dense(24, activation="relu")(layers.LayerNormalization()(x))
    x = layers.Add()([x, layers.Dense(16)(y)])
    return keras.Model([words, places], layers.Dense(5)(layers.GlobalAveragePooling1D()(x)))


@pytest.mark.parametrize("build", [image_transformer, sentence_encoder])
@pytest.mark.parametrize("method", ["weights", "units"])
def test_pruned_transformers_run_everywhere(keras: Any, tmp_path: Path, build: Callable[[Any], Any], method: str) -> None:
    import onnxruntime

    import sparsec

    model = build(keras)
    fill(model)
    if method == "weights":
        sparsec.prune_weights(model, 0.8)
    else:
        sparsec.prune_units(model, 0.5, whole=True)
    given = batches(model)
    (wanted,) = keras_outputs(model, given)
    result = sparsec.compile(model)
    result.save(tmp_path / "model.npz")
    result.save(tmp_path / "model.onnx")
    found = [sparsec.load(tmp_path / "model.npz")(given if len(given) > 1 else given[0])]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    found += session.run(None, {port.name: x for port, x in zip(session.get_inputs(), given, strict=True)})
    for output in found:
        assert np.abs(output - wanted).max() <= TOLERANCE * np.ptp(wanted)


def test_tables_and_projections_are_stored_sparse(keras: Any) -> None:
    import sparsec

    model = sentence_encoder(keras)
    fill(model)
    sparsec.prune_weights(model, 0.95)
    tables = [layer for layer in model.layers if isinstance(layer, keras.layers.Embedding)]
    zero(tables[0].embeddings, np.s_[1:, 3:])
    facts = sparsec.compile(model)
    encodings = {path: note.encoding for path, note in facts.program.notes.items()}
    assert all(encodings[path] != "dense" for path in encodings if path.endswith("_dense/kernel")), encodings
    assert encodings[f"{tables[0].name}/embeddings"] != "dense"


def test_a_table_that_is_used_in_reverse_is_stored_once(keras: Any, tmp_path: Path) -> None:
    import onnxruntime

    import sparsec

    words = keras.Input((6,), dtype="int32")
    table = keras.layers.ReversibleEmbedding(WORDS, 8, name="table")
    model = keras.Model(words, table(keras.layers.Dense(8, activation="relu", name="between")(table(words)), reverse=True))
    fill(model)
    given = batches(model)[0]
    (wanted,) = keras_outputs(model, [given])
    result = sparsec.compile(model)
    assert set(result.program.tensors) == {"table/embeddings", "between/kernel", "between/bias"}
    for name in ("model.npz", "model.onnx"):
        result.save(tmp_path / name)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    found = [sparsec.load(tmp_path / "model.npz")(given), *session.run(None, {session.get_inputs()[0].name: given})]
    assert all(np.abs(output - wanted).max() <= TOLERANCE * np.ptp(wanted) for output in found)


def test_indices_are_drawn_from_their_tables(keras: Any) -> None:
    from sparsec.frontends import read

    words, numbers, free = keras.Input((4,), dtype="int32"), keras.Input((4,)), keras.Input((4,), dtype="int32")
    layers = keras.layers
    outputs = [
        layers.Embedding(9, 2)(words),
        layers.Embedding(7, 2)(layers.Reshape((2, 2))(words)),
        layers.Embedding(5, 2)(numbers),
    ]
    graph = read(keras.Model([words, numbers, free], [*outputs, free])).graph
    assert [(found.low, found.high) for found in guess_ranges(graph)] == [(0, 7), (0, 5), (0, 2)]
