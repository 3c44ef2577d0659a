"""Pruning: masks of arrays, groups of units in graphs, and what is decided for a whole model."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sparsec.errors import InputError
from sparsec.frontends import KerasModel, SavedBy, Variable
from sparsec.ir import Graph, Input, Port, TensorType, symbol
from sparsec.ops import check, evaluate_graph, make_node
from sparsec.ops.typing import infer_node
from sparsec.passes.shrink import shrink
from sparsec.passes.simplify import simplify
from sparsec.pruning import masks, unit_mask, unit_scores, weight_mask
from sparsec.pruning.groups import find_groups
from sparsec.pruning.kernels import find_kernels, find_output_layers, match_layers
from sparsec.pruning.masks import pruned_count, smallest, weight_masks
from sparsec.pruning.plan import Options, plan_pruning

SPARSITIES = (0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99)

# Few different magnitudes, so that most draws hold ties.
tied_values = st.integers(-3, 3).map(float) | st.floats(-2, 2, width=16)
kernels = st.sampled_from([np.float16, np.float32, np.float64]).flatmap(
    lambda dtype: arrays(dtype, array_shapes(min_dims=1, max_dims=4, max_side=6), elements=tied_values)
)
hundredths = st.integers(0, 99).map(lambda n: n / 100)


def oracle(flat, count):
    """The first ``count`` of a stable sort by magnitude."""
    marked = np.zeros(flat.size, bool)
    marked[np.argsort(np.abs(flat), kind="stable")[:count]] = True
    return marked


# --- masks of weights -------------------------------------------------------------------------------------------------


@given(kernels, hundredths)
def test_a_weight_mask_drops_the_smallest_weights_and_no_more(kernel, sparsity):
    before = kernel.copy()
    mask = weight_mask(kernel, sparsity)
    assert mask.shape == kernel.shape
    assert np.count_nonzero(~mask) == Fraction(str(sparsity)) * kernel.size // 1
    np.testing.assert_array_equal(~mask.reshape(-1), oracle(kernel.reshape(-1), np.count_nonzero(~mask)))
    np.testing.assert_array_equal(kernel, before)


@given(kernels, hundredths, hundredths)
def test_what_a_low_sparsity_drops_a_higher_one_drops_too(kernel, a, b):
    low, high = sorted((a, b))
    assert not (weight_mask(kernel, high) & ~weight_mask(kernel, low)).any()


@given(st.lists(kernels, min_size=1, max_size=4), hundredths)
def test_over_several_kernels_weights_are_ranked_together(kernels, sparsity):
    marked = np.concatenate([~mask.reshape(-1) for mask in weight_masks(kernels, sparsity)])
    pool = np.concatenate([kernel.reshape(-1).astype(np.float64) for kernel in kernels])
    np.testing.assert_array_equal(marked, oracle(pool, Fraction(str(sparsity)) * pool.size // 1))


@settings(max_examples=50)
@given(st.lists(kernels, min_size=1, max_size=3), hundredths, st.integers(1, 7))
def test_big_arrays_are_compared_block_by_block(kernels, sparsity, block):
    with pytest.MonkeyPatch.context() as patch:
        whole = weight_masks(kernels, sparsity)
        patch.setattr(masks, "BLOCK", block)
        for mask, expected in zip(weight_masks(kernels, sparsity), whole, strict=True):
            np.testing.assert_array_equal(mask, expected)


def test_a_narrow_kernel_is_compared_exactly_with_a_wide_one():
    # In float32 both would be equal, and the tie would go to the first.
    narrow, wide = np.array([np.float32(0.1)]), np.array([0.1])
    assert float(narrow[0]) > wide[0]
    first, second = weight_masks([narrow, wide], 0.5)
    assert first.all()
    assert not second.any()


def test_a_strided_kernel_is_masked_in_its_own_order():
    kernel = np.arange(12, dtype=np.float32).reshape(3, 4).T
    np.testing.assert_array_equal(weight_mask(kernel, 0.5), kernel >= 6)


@pytest.mark.parametrize("size", [10, 90, 180, 2700, 100_000])
def test_the_sparsity_is_taken_as_it_is_written(size):
    assert math.floor(0.7 * 90) == 62
    assert pruned_count(0.7, size) == 7 * size // 10
    assert np.count_nonzero(weight_mask(np.ones(size, np.float32), np.float32(0.9)) == 0) == 9 * size // 10


@pytest.mark.parametrize("sparsity", [-0.1, 1, 1.5, 90, float("nan"), "0.5", None, True, 1j])
def test_a_sparsity_out_of_range_is_refused(sparsity):
    with pytest.raises(InputError, match="from 0 up to but not including 1"):
        weight_mask(np.ones(4), sparsity)
    with pytest.raises(InputError, match="sparsity"):
        unit_mask(np.ones((4, 4)), sparsity)


def test_a_percentage_is_recognised():
    with pytest.raises(InputError, match=r"for 90 % give 0\.9"):
        weight_mask(np.ones(4), 90)


def test_kernels_with_nan_are_refused():
    with pytest.raises(InputError, match="not numbers"):
        weight_mask(np.array([1.0, np.nan]), 0.5)


# --- masks of units ---------------------------------------------------------------------------------------------------

LAYOUTS = {
    "dense": ((5, 4), (-1,), lambda k, u: k[:, u]),
    "conv": ((3, 3, 2, 6), (-1,), lambda k, u: k[..., u]),
    "transposed": ((3, 3, 6, 2), (-2,), lambda k, u: k[:, :, u, :]),
    "depthwise": ((3, 3, 4, 2), (-2, -1), lambda k, u: k[:, :, u // 2, u % 2]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_a_unit_mask_drops_whole_units_of_least_norm(layout, sparsity):
    shape, axes, unit = LAYOUTS[layout]
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    units = math.prod(shape[axis] for axis in axes)
    norms = [math.sqrt(math.fsum(float(w) ** 2 for w in unit(kernel, u).reshape(-1))) for u in range(units)]
    np.testing.assert_allclose(unit_scores(kernel, axes), norms, rtol=1e-12)
    mask = unit_mask(kernel, sparsity, axes)
    gone = [u for u in range(units) if not unit(mask, u).any()]
    assert all(unit(mask, u).all() for u in range(units) if u not in gone)
    assert sorted(gone) == sorted(np.argsort(norms)[: int(Fraction(str(sparsity)) * units)])


@given(arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 8)), elements=tied_values), hundredths, hundredths)
def test_unit_masks_are_exact_and_nested(kernel, a, b):
    low, high = (unit_mask(kernel, sparsity) for sparsity in sorted((a, b)))
    assert np.count_nonzero(~high[0]) == Fraction(str(max(a, b))) * kernel.shape[1] // 1
    assert not (high & ~low).any()


def test_equal_units_have_equal_scores_and_go_in_order():
    column = np.random.default_rng(1).normal(size=(1000, 1)).astype(np.float32)
    for axes, kernel in (((-1,), np.repeat(column, 7, 1)), ((-2,), np.repeat(column.T[None], 7, 1))):
        scores = unit_scores(kernel, axes)
        assert (scores == scores[0]).all()
        units = unit_mask(kernel, 0.5, axes).any(axis=(0,) if len(axes) + 1 == kernel.ndim else (0, 2))
        np.testing.assert_array_equal(units, [False] * 3 + [True] * 4)


def test_unit_scores_do_not_depend_on_the_block(monkeypatch):
    kernel = np.random.default_rng(2).normal(size=(50, 3)).astype(np.float32)
    expected = unit_scores(kernel)
    monkeypatch.setattr(masks, "BLOCK", 7)
    np.testing.assert_allclose(unit_scores(kernel), expected, rtol=1e-14)


def test_squares_beyond_float32_are_ranked():
    kernel = np.array([[3e30, 2e30], [3e30, 2e30]], np.float32)
    np.testing.assert_array_equal(unit_mask(kernel, 0.5), [[True, False], [True, False]])


def test_marking_nothing_of_nothing():
    assert smallest([np.zeros((0, 3))], 0)[0].shape == (0, 3)


# --- graphs -----------------------------------------------------------------------------------------------------------


class Net:
    """A small graph, node by node; layers are numbered kernels with a bias."""

    def __init__(self, *shape, seed=0):
        self.rng = np.random.default_rng(seed)
        self.inputs = (Input("x", TensorType("float32", (symbol("N"), *shape))),)
        self.types = {"x": self.inputs[0].type}
        self.nodes, self.weights = [], {}

    def op(self, op, name, *inputs, layer="", **attrs):
        node = make_node(op, name, inputs, [name], layer, **attrs)
        types = {**self.types, **{path: TensorType(a.dtype.name, a.shape) for path, a in self.weights.items()}}
        (self.types[name],) = infer_node(node, types)
        self.nodes.append(node)
        return name

    def weight(self, path, *shape, positive=False):
        values = self.rng.normal(size=shape)
        self.weights.setdefault(path, (np.abs(values) + 0.5 if positive else values).astype(np.float32))
        return path

    def channels(self, x):
        return self.types[x].shape[-1]

    def dense(self, name, x, units, call=""):
        kernel, bias = self.weight(f"{name}/kernel", self.channels(x), units), self.weight(f"{name}/bias", units)
        return self.op("dense", name + call, x, kernel, bias, layer=name)

    def conv(self, name, x, filters, size=3, groups=1, call=""):
        kernel = self.weight(f"{name}/kernel", size, size, self.channels(x) // groups, filters)
        bias = self.weight(f"{name}/bias", filters)
        window = {"strides": (1, 1), "dilations": (1, 1), "padding": "same", "groups": groups}
        return self.op("conv", name + call, x, kernel, bias, layer=name, **window)

    def depthwise(self, name, x, multiplier=1):
        kernel = self.weight(f"{name}/depthwise_kernel", 3, 3, self.channels(x), multiplier)
        bias = self.weight(f"{name}/bias", self.channels(x) * multiplier)
        return self.op("depthwise_conv", name, x, kernel, bias, layer=name, strides=(1, 1), dilations=(1, 1), padding="same")

    def norm(self, name, x, call="", scale=True, axis=-1):
        size = self.types[x].shape[axis]
        gamma = self.weight(f"{name}/gamma", size) if scale else ""
        rest = [self.weight(f"{name}/{part}", size) for part in ("beta", "moving_mean")]
        variance = self.weight(f"{name}/moving_variance", size, positive=True)
        return self.op("batch_norm", name + call, x, gamma, *rest, variance, layer=name, axis=axis, epsilon=1e-3)

    def head(self, x):
        """Global average pooling and an output layer."""
        if len(self.types[x].shape) == 4:
            x = self.op("reduce_mean", "pooled", x, axes=(1, 2))
        return self.dense("out", x, 3)

    def graph(self, *outputs):
        ports = tuple(Port(f"y{index}", value) for index, value in enumerate(outputs))
        graph = Graph(self.inputs, ports, tuple(self.nodes), self.weights)
        check(graph, after="the test")
        return graph

    def model(self, *outputs):
        graph = self.graph(*outputs)
        variables = {path: Variable(path, a.shape, a.copy) for path, a in graph.weights.items()}
        return KerasModel(graph, "the model 'test'", SavedBy(3, "3.15.1"), variables, "")


def plan(model, sparsity=0.5, method="unit", **options):
    return plan_pruning(model, Options(method, sparsity, **options))


def pruned(model, plan):
    """The weights after pruning."""
    return {
        path: np.where(plan.zeros[path], 0, array).astype(array.dtype) if path in plan.zeros else array
        for path, array in model.graph.weights.items()
    }


def pruned_units(plan):
    """The indices of the units that go, by layer."""
    return {path.split("/")[0]: np.flatnonzero(zeros) for path, zeros in plan.zeros.items() if path.endswith("kernel")}


def group_names(graph):
    return [{kernel.layer for kernel in group.kernels} for group in find_groups(graph, find_kernels(graph))]


def reports(plan):
    return {layer.layer: layer for layer in plan.report.layers}


def mlp(*sizes, seed=0):
    net = Net(sizes[0], seed=seed)
    x = "x"
    for index, size in enumerate(sizes[1:]):
        x = net.dense(f"dense_{index}", x, size)
        x = net.op("relu" if index + 2 < len(sizes) else "softmax", f"activation_{index}", x)
    return net.model(x)


def residual(seed=0, channels=8):
    """conv a; conv b and conv c on it; a + c; a head."""
    net = Net(6, 6, 3, seed=seed)
    a = net.op("relu", "a_relu", net.norm("a_norm", net.conv("a", "x", channels)))
    b = net.op("relu", "b_relu", net.norm("b_norm", net.conv("b", a, 5)))
    c = net.norm("c_norm", net.conv("c", b, channels))
    return net.model(net.head(net.op("relu", "sum_relu", net.norm("sum_norm", net.op("add", "sum", a, c)))))


# --- which kernels ----------------------------------------------------------------------------------------------------


def test_the_output_layers_are_those_before_an_output_with_nothing_weighted_between():
    net = Net(6)
    a = net.dense("a", "x", 4)
    b = net.dense("b", a, 4)
    c = net.dense("c", b, 4)
    summed = net.op("add", "sum", b, net.op("relu", "c_relu", c))
    graph = net.graph(net.op("softmax", "probabilities", summed), net.dense("auxiliary", a, 2))
    assert find_output_layers(graph, find_kernels(graph)) == {"b", "c", "auxiliary"}


def test_a_layer_with_two_kernels_is_an_output_layer_as_a_whole():
    net = Net(6, 6, 4)
    net.conv("first", "x", 4)
    net.weight("separable/depthwise_kernel", 3, 3, 4, 1)
    net.weight("separable/pointwise_kernel", 1, 1, 4, 2)
    window = {"strides": (1, 1), "dilations": (1, 1), "padding": "same", "layer": "separable"}
    middle = net.op("depthwise_conv", "separable", "first", "separable/depthwise_kernel", **window)
    model = net.model(net.op("conv", "separable/conv", middle, "separable/pointwise_kernel", **window))
    assert list(plan(model, method="weight").zeros) == ["first/kernel"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("encoder/dense", {"encoder/dense"}),
        ("encoder", {"encoder/dense", "encoder/inner/dense"}),
        ("encoder/inner", {"encoder/inner/dense"}),
        ("*dense", {"encoder/dense", "encoder/inner/dense"}),
        ("h??d", {"head"}),
        ("[eh]*", {"encoder/dense", "encoder/inner/dense", "head"}),
    ],
)
def test_layers_are_named_by_path_model_or_pattern(pattern, expected):
    assert match_layers([pattern], ["encoder/dense", "encoder/inner/dense", "head"]) == expected


def test_an_unknown_layer_is_refused_with_near_names():
    with pytest.raises(InputError, match=r"'dense_9'; near names are 'dense_"):
        plan(mlp(6, 5, 4, 3), skip=("dense_9",))
    with pytest.raises(InputError, match=r"'zzz'; near names are 'dense_0', 'dense_1', 'dense_2'"):
        plan(mlp(6, 5, 4, 3), skip=("zzz",))


def test_skipped_and_output_layers_stay():
    model = mlp(10, 8, 8, 8, 4)
    for method in ("weight", "unit"):
        result = plan(model, method=method, skip=("dense_1",))
        assert [layer.kept for layer in result.report.layers] == ["", "skipped", "", "output layer"]
        assert set(result.zeros) == {"dense_0/kernel", "dense_2/kernel"}


@pytest.mark.parametrize(("sizes", "skip"), [((6, 3), ()), ((6, 5, 3), ("dense_0",))])
def test_a_model_with_nothing_to_prune_is_refused(sizes, skip):
    with pytest.raises(InputError, match=r"the model 'test' has no layer to prune .*: output layer"):
        plan(mlp(*sizes), skip=skip)


@pytest.mark.parametrize("method", ["weight", "unit"])
@pytest.mark.parametrize("group", [True, False])
def test_a_model_without_kernels_is_refused(method, group):
    with pytest.raises(InputError, match=r"the model 'test' has no layer to prune \(it has no kernels\)"):
        plan(mlp(6), method=method, group=group)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "filter"}, "method 'filter' is none of weight, unit"),
        ({"scope": "model"}, "scope 'model' is none of layer, global"),
        ({"method": "weight", "whole": True}, "unit pruning only"),
        ({"sparsity": 1}, "from 0 up to"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Options(**{"method": "unit", "sparsity": 0.5, **options})


# --- per layer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_weight_pruning_zeroes_the_same_share_of_each_layer(sparsity):
    model = mlp(20, 30, 10, 5)
    result = plan(model, sparsity, method="weight")
    for layer in result.report.layers[:-1]:
        kernel = pruned(model, result)[layer.path]
        assert np.count_nonzero(kernel == 0) == layer.zeros_after == int(Fraction(str(sparsity)) * kernel.size)
    unchanged = model.graph.weights.keys() - {"dense_0/kernel", "dense_1/kernel"}
    assert all(pruned(model, result)[path] is model.graph.weights[path] for path in unchanged)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_unit_pruning_of_an_mlp_zeroes_whole_columns(sparsity):
    model = mlp(784, 300, 100, 10)
    result = plan(model, sparsity)
    weights = pruned(model, result)
    for path, units in (("dense_0/kernel", 300), ("dense_1/kernel", 100)):
        dead = ~weights[path].any(axis=0)
        assert dead.sum() == int(Fraction(str(sparsity)) * units)
        norms = np.linalg.norm(model.graph.weights[path].astype(np.float64), axis=0)
        assert norms[dead].max(initial=0) < norms[~dead].min()
        np.testing.assert_array_equal(weights[path][:, ~dead], model.graph.weights[path][:, ~dead])
    assert weights["dense_2/kernel"].all()
    assert all(layer.group is None for layer in result.report.layers)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_unit_pruning_of_a_convolutional_net_zeroes_whole_filters(sparsity):
    net = Net(8, 8, 1)
    a = net.op("relu", "a_relu", net.conv("a", "x", 6, 5))
    b = net.op("max_pool", "pool", a, window=(2, 2), strides=(2, 2), dilations=(1, 1), padding="explicit", pads=(0, 0, 0, 0))
    b = net.op("reshape", "flat", net.conv("b", b, 16), shape=(0, -1))
    model = net.model(net.dense("out", net.dense("c", b, 120), 10))
    result = plan(model, sparsity)
    for layer, units in (("a", 6), ("b", 16), ("c", 120)):
        kernel = pruned(model, result)[f"{layer}/kernel"]
        dead = ~kernel.reshape(-1, units).any(axis=0)
        assert dead.sum() == int(Fraction(str(sparsity)) * units) == reports(result)[layer].pruned_units


def test_zeros_that_were_there_are_counted_among_the_smallest():
    model = mlp(10, 10, 4)
    first = plan(model, 0.5, method="weight")
    again = KerasModel(
        Graph(model.graph.inputs, model.graph.outputs, model.graph.nodes, pruned(model, first)),
        model.description,
        model.saved_by,
        model.variables,
        "",
    )
    layer = plan(again, 0.3, method="weight").report.layers[0]
    assert (layer.zeros_before, layer.zeros_after) == (50, 50)
    layer = plan(again, 0.8, method="weight").report.layers[0]
    assert (layer.zeros_before, layer.zeros_after) == (50, 80)


# --- all layers together ----------------------------------------------------------------------------------------------


def test_globally_weights_compete_across_layers():
    model = mlp(10, 10, 10, 4)
    model.graph.weights["dense_1/kernel"][...] *= 1e-6
    result = plan(model, 0.5, method="weight", scope="global")
    assert [layer.zeros_after for layer in result.report.layers] == [0, 100, 0]


def test_globally_units_compete_by_norm_over_the_root_of_their_fan_in():
    net = Net(100)
    model = net.model(net.dense("out", net.dense("b", net.dense("a", "x", 4), 100), 2))
    model.graph.weights["a/kernel"][...] = 1.0
    model.graph.weights["b/kernel"][...] = 2.0
    # Norms are 10 and 4, per weight 1 and 2: 3 of a go and its best stays, whatever is asked for.
    result = plan(model, 0.03, scope="global")
    np.testing.assert_array_equal(pruned_units(result)["a"], [1, 2, 3])
    assert pruned_units(result)["b"].size == 0


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_globally_the_count_is_exact_and_no_layer_is_emptied(sparsity):
    model = mlp(20, 50, 30, 40, 4)
    model.graph.weights["dense_1/kernel"][...] *= 1e-3
    result = plan(model, sparsity, scope="global")
    assert result.report.pruned_units == min(int(Fraction(str(sparsity)) * 120), 117)
    assert all(layer.pruned_units < layer.units for layer in result.report.layers)


# --- groups -----------------------------------------------------------------------------------------------------------


def test_a_chain_has_no_groups():
    assert group_names(mlp(6, 5, 4, 3).graph) == [{"dense_0"}, {"dense_1"}, {"dense_2"}]


def test_the_producers_that_meet_in_an_add_go_together():
    model = residual()
    assert group_names(model.graph) == [{"a", "c"}, {"b"}, {"out"}]
    result = plan(model, 0.5)
    energy = sum(unit_scores(model.graph.weights[f"{layer}/kernel"]) ** 2 for layer in "ac")
    gone = pruned_units(result)
    np.testing.assert_array_equal(gone["a"], gone["c"])
    np.testing.assert_array_equal(gone["a"], np.sort(np.argsort(energy)[:4]))
    assert gone["b"].size == 2
    assert {layer.layer: layer.group for layer in result.report.layers} == {
        "a": "a/kernel",
        "b": None,
        "c": "a/kernel",
        "out": None,
    }


@pytest.mark.parametrize(("group", "left"), [(True, 4), (False, 7)])
def test_what_a_group_loses_can_be_removed(group, left):
    model = residual(seed=1)
    result = plan(model, 0.5, group=group, whole=True)
    both = np.intersect1d(pruned_units(result)["a"], pruned_units(result)["c"])
    assert both.size == 8 - left
    graph = Graph(model.graph.inputs, model.graph.outputs, model.graph.nodes, pruned(model, result))
    smaller, _, _ = shrink(simplify(graph))
    assert smaller.weights["a/kernel"].shape[-1] == smaller.weights["c/kernel"].shape[-1] == left


def test_without_groups_each_layer_is_ranked_by_itself():
    model = residual()
    result = plan(model, 0.5, group=False)
    for layer in "ac":
        scores = unit_scores(model.graph.weights[f"{layer}/kernel"])
        np.testing.assert_array_equal(pruned_units(result)[layer], np.sort(np.argsort(scores)[:4]))
    assert all(layer.group is None for layer in result.report.layers)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_a_depthwise_filter_goes_with_the_channel_that_feeds_it(multiplier):
    net = Net(6, 6, 3)
    a = net.op("relu", "a_relu", net.conv("a", "x", 8))
    model = net.model(net.head(net.conv("c", net.depthwise("b", a, multiplier), 6)))
    assert group_names(model.graph) == [{"a", "b"}, {"c"}, {"out"}]
    gone = pruned_units(plan(model, 0.4))
    assert gone["a"].size == 3
    np.testing.assert_array_equal(
        gone["b"], np.concatenate([np.arange(c * multiplier, (c + 1) * multiplier) for c in gone["a"]])
    )
    energy = unit_scores(model.graph.weights["a/kernel"]) ** 2
    energy += (unit_scores(model.graph.weights["b/depthwise_kernel"], (-2, -1)) ** 2).reshape(8, -1).sum(axis=1)
    np.testing.assert_array_equal(gone["a"], np.sort(np.argsort(energy)[:3]))


def test_depthwise_filters_on_an_input_of_the_model_are_units_by_themselves():
    net = Net(6, 6, 3)
    model = net.model(net.head(net.depthwise("a", "x", 4)))
    assert reports(plan(model, 0.5, skip=()))["a"].pruned_units == 6


def test_a_squeeze_and_excite_gate_goes_with_what_it_gates():
    net = Net(6, 6, 3)
    a = net.op("silu", "a_silu", net.norm("a_norm", net.conv("a", "x", 8)))
    squeezed = net.op("reduce_mean", "squeezed", a, axes=(1, 2), keepdims=True)
    gate = net.conv("excite", net.op("relu", "r", net.conv("reduce", squeezed, 4, 1)), 8, 1)
    gated = net.op("mul", "gated", a, net.op("sigmoid", "s", gate))
    model = net.model(net.head(gated))
    assert group_names(model.graph) == [{"a", "excite"}, {"reduce"}, {"out"}]
    gone = pruned_units(plan(model, 0.5))
    assert gone["a"].size == 4
    assert gone["reduce"].size == 2
    np.testing.assert_array_equal(gone["a"], gone["excite"])


def test_a_concatenation_ties_nothing_by_itself():
    net = Net(6, 6, 3)
    joined = net.op("concat", "joined", net.conv("a", "x", 4), net.conv("b", "x", 6), axis=-1)
    assert group_names(net.graph(net.head(joined))) == [{"a"}, {"b"}, {"out"}]


def test_a_concatenation_that_meets_another_value_ties_by_offset():
    net = Net(6, 6, 3)
    joined = net.op("concat", "joined", net.conv("a", "x", 4), net.conv("b", "x", 6), axis=-1)
    model = net.model(net.head(net.op("add", "sum", joined, net.conv("c", "x", 10))))
    (group, _) = find_groups(model.graph, find_kernels(model.graph))
    assert group.units == 10
    gone = pruned_units(plan(model, 0.5))
    assert gone["c"].size == 5
    np.testing.assert_array_equal(gone["c"], np.concatenate([gone["a"], gone["b"] + 4]))


def test_a_flattened_channel_ties_one_unit_for_every_position():
    net = Net(2, 2, 3)
    flat = net.op("reshape", "flat", net.conv("a", "x", 5), shape=(0, -1))
    model = net.model(net.head(net.op("add", "sum", flat, net.dense("b", net.op("reshape", "xs", "x", shape=(0, -1)), 20))))
    gone = pruned_units(plan(model, 0.5))
    assert gone["a"].size == 2
    np.testing.assert_array_equal(gone["b"], np.sort((np.arange(4)[:, None] * 5 + gone["a"]).reshape(-1)))


def test_a_layer_called_twice_is_pruned_once_and_ties_what_it_meets():
    net = Net(6)
    a = net.dense("shared", net.dense("in", "x", 6), 6)
    b = net.dense("shared", a, 6, call=":1")
    model = net.model(net.dense("out", net.op("add", "sum", b, net.dense("c", "x", 6)), 2))
    result = plan(model, 0.5)
    assert [layer.layer for layer in result.report.layers] == ["in", "shared", "c", "out"]
    gone = pruned_units(result)
    np.testing.assert_array_equal(gone["shared"], gone["c"])


def test_channels_first_layers_are_tied_across_their_transposes():
    net = Net(3, 6, 6)

    def conv(name, x, filters):
        y = net.conv(name, net.op("transpose", f"{name}_in", x, permutation=(0, 2, 3, 1)), filters)
        return net.op("transpose", f"{name}_out", y, permutation=(0, 3, 1, 2))

    a, b = net.norm("a_norm", conv("a", "x", 8), axis=1), conv("b", "x", 8)
    summed = net.op("relu", "relu", net.op("add", "sum", a, b))
    model = net.model(
        net.dense("out", net.op("reduce_mean", "pooled", net.op("relu", "c_relu", conv("c", summed, 4)), axes=(2, 3)), 2)
    )
    assert {"a", "b"} in group_names(model.graph)


def test_every_group_of_a_grouped_convolution_is_pruned_alike():
    net = Net(6, 6, 4)
    model = net.model(net.head(net.conv("b", net.conv("a", "x", 8), 12, groups=4)))
    gone = pruned_units(plan(model, 0.5))
    assert np.bincount(gone["a"] // 2).tolist() == [1, 1, 1, 1]
    assert gone["b"].size == 6, "as many as asked for, though a group has no half"
    assert np.bincount(gone["b"] // 3).min() == 1
    small, _, _ = shrink(simplify(model.graph.with_nodes(model.graph.nodes, pruned(model, plan(model, 0.5, whole=True)))))
    assert small.weights["a/kernel"].shape == (3, 3, 4, 4)
    assert small.weights["b/kernel"].shape == (3, 3, 1, 8)


def test_units_that_a_reshape_makes_positions_are_one_unit():
    net = Net(5)
    x = net.op("reshape", "places", net.dense("a", "x", 4 * 4 * 6), shape=(0, 4, 4, 6))
    model = net.model(net.head(net.conv("b", x, 8)))
    gone = pruned_units(plan(model, 0.5))
    assert gone["a"].size == 48
    assert np.unique(gone["a"] % 6).size == 3


def recurrent(op, gates, **attrs):
    net = Net(7, 5)
    sizes = {"kernel": (5, gates * 8), "recurrent_kernel": (8, gates * 8), "bias": (2, gates * 8) if attrs else (gates * 8,)}
    kernel, recurrent_kernel, bias = (net.weight(f"a/{name}", *shape) for name, shape in sizes.items())
    outputs = ["a", "a_h", "a_c"] if op == "lstm" else ["a", "a_h"]
    activations = {"activation": "tanh", **({"recurrent_activation": "sigmoid"} if gates > 1 else {})}
    node = make_node(op, "a", ["x", kernel, bias, recurrent_kernel], outputs, "a", **activations, **attrs)
    types = {**net.types, **{path: TensorType(a.dtype.name, a.shape) for path, a in net.weights.items()}}
    net.types.update(zip(outputs, infer_node(node, types), strict=True))
    net.nodes.append(node)
    return net.model(net.dense("out", net.op("reduce_mean", "mean", "a", axes=(1,)), 3))


@pytest.mark.parametrize(
    ("op", "gates", "attrs"), [("simple_rnn", 1, {}), ("lstm", 4, {}), ("gru", 3, {"reset_after": True})], ids=lambda x: str(x)
)
def test_a_unit_of_a_recurrent_layer_goes_with_all_its_gates(op, gates, attrs):
    model = recurrent(op, gates, **attrs)
    found = plan(model, 0.5, whole=True)
    (inputs, states, out) = found.report.layers
    assert (inputs.units, inputs.pruned_units, states.pruned_units, out.kept) == (8, 4, 4, "output layer")
    gone = [np.flatnonzero(found.zeros[f"a/{name}"].reshape(gates, 8)[0]) for name in ("kernel", "recurrent_kernel")]
    assert np.array_equal(*gone)
    energies = sum(
        np.square(model.graph.weights[f"a/{name}"]).sum(axis=0).reshape(gates, 8).sum(axis=0)
        for name in ("kernel", "recurrent_kernel")
    )
    assert set(gone[0]) == set(np.argsort(energies)[:4])
    before = model.graph.with_nodes(model.graph.nodes, pruned(model, found))
    small, _, _ = shrink(simplify(before))
    assert small.weights["a/recurrent_kernel"].shape == (4, gates * 4)
    classic = model.graph.with_nodes(model.graph.nodes, pruned(model, plan(model, 0.5)))
    kept, _, decisions = shrink(simplify(classic))
    assert kept.weights["a/recurrent_kernel"].shape == (8, gates * 8)
    assert "4 dead channels kept: its bias moves it from step to step" in [decision.reason for decision in decisions]
    x = np.random.default_rng(0).normal(size=(3, 7, 5)).astype(np.float32)
    np.testing.assert_allclose(evaluate_graph(small, [x])[0], evaluate_graph(before, [x])[0], atol=1e-6)


def test_every_head_of_an_attention_is_pruned_alike():
    net = Net(6, 10)
    q, k, v = (net.dense(name, "x", 12) for name in ("q", "k", "v"))
    y = net.op("attention", "y", q, k, v, heads=3, kv_heads=3, scale=0.5)
    model = net.model(net.dense("out", net.op("reduce_mean", "mean", y, axes=(1,)), 3))
    gone = pruned_units(plan(model, 0.5))
    assert np.array_equal(gone["q"], gone["k"])
    assert [np.bincount(gone[name] // 4).tolist() for name in ("q", "v")] == [[2, 2, 2], [2, 2, 2]]


def test_a_group_with_a_layer_that_stays_stays_as_a_whole():
    model = residual()
    kept = reports(plan(model, 0.5, skip=("c",)))
    assert (kept["a"].kept, kept["b"].kept, kept["c"].kept) == ("tied to c/kernel, skipped", "", "skipped")
    assert kept["a"].pruned_units == 0
    ungrouped = reports(plan(model, 0.5, skip=("c",), group=False))
    assert ungrouped["a"].pruned_units == 4


def test_a_group_with_an_output_layer_stays():
    net = Net(6)
    a = net.dense("a", "x", 4)
    model = net.model(net.op("add", "sum", a, net.dense("c", net.dense("b", a, 8), 4)))
    kept = {layer.layer: layer.kept for layer in plan(model).report.layers}
    assert kept == {"a": "output layer", "b": "", "c": "output layer"}
    net = Net(6, 6, 3)
    model = net.model(net.depthwise("b", net.conv("a", net.conv("first", "x", 4), 4)))
    kept = {layer.layer: layer.kept for layer in plan(model).report.layers}
    assert kept == {"first": "", "a": "tied to b/depthwise_kernel, output layer", "b": "output layer"}


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_group_counts_its_units_once(scope):
    model = residual(channels=10)
    result = reports(plan(model, 0.4, scope=scope, skip=("b",)))
    assert (result["a"].pruned_units, result["c"].pruned_units) == (4, 4)


# --- whole units ------------------------------------------------------------------------------------------------------


def observed(model, plan):
    """Every value of the pruned model for a random batch."""
    graph = Graph(model.graph.inputs, model.graph.outputs, model.graph.nodes, pruned(model, plan))
    (port,) = graph.inputs
    x = np.random.default_rng(5).normal(size=(2, *port.type.shape[1:])).astype(np.float32)
    values = {}
    evaluate_graph(graph, [x], observe=lambda node, results: values.update({node.output: results[0]}))
    return values


def dead_channels(value):
    return np.flatnonzero(~value.reshape(-1, value.shape[-1]).any(axis=0))


def test_only_kernels_change_unless_whole_units_go():
    model = residual()
    assert set(plan(model).zeros) == {"a/kernel", "b/kernel", "c/kernel"}
    assert plan(model).report.zeroed == ()


def test_whole_units_put_out_nothing():
    model = residual()
    result = plan(model, 0.5, whole=True)
    values, gone = observed(model, result), pruned_units(result)
    for value, layer in {"a_norm": "a", "b_norm": "b", "c_norm": "c", "sum": "a", "sum_norm": "a", "sum_relu": "a"}.items():
        np.testing.assert_array_equal(np.intersect1d(dead_channels(values[value]), gone[layer]), gone[layer])
    norms = [f"{norm}_norm/{part}" for norm in ("a", "b", "c", "sum") for part in ("gamma", "beta")]
    assert set(result.report.zeroed) == {"a/bias", "b/bias", "c/bias", *norms}
    for path in result.report.zeroed:
        layer = {"sum": "a"}.get(path.split("_")[0].split("/")[0], path[0])
        np.testing.assert_array_equal(np.flatnonzero(result.zeros[path]), gone[layer])


def test_a_value_that_is_not_wholly_pruned_keeps_its_normalisation():
    model = residual(seed=1)
    result = plan(model, 0.5, whole=True, group=False)
    gone = pruned_units(result)
    both = np.intersect1d(gone["a"], gone["c"])
    assert both.size not in (0, 4)
    np.testing.assert_array_equal(np.flatnonzero(result.zeros["sum_norm/gamma"]), both)
    np.testing.assert_array_equal(np.flatnonzero(result.zeros["c_norm/gamma"]), gone["c"])


def test_normalisation_without_gamma_loses_its_mean():
    net = Net(6, 6, 3)
    model = net.model(net.head(net.norm("norm", net.conv("a", "x", 8), scale=False)))
    result = plan(model, 0.5, whole=True)
    assert set(result.report.zeroed) == {"a/bias", "norm/beta", "norm/moving_mean"}
    np.testing.assert_array_equal(dead_channels(observed(model, result)["norm"]), pruned_units(result)["a"])


def test_normalisation_after_an_activation_that_moves_zero():
    net = Net(6, 6, 3)
    model = net.model(net.head(net.norm("norm", net.op("sigmoid", "s", net.conv("a", "x", 8)))))
    result = plan(model, 0.5, whole=True)
    np.testing.assert_array_equal(dead_channels(observed(model, result)["norm"]), pruned_units(result)["a"])


def test_shared_normalisation_is_zeroed_only_where_every_call_meets_a_pruned_unit():
    net = Net(6)
    a = net.norm("norm", net.dense("a", "x", 8))
    b = net.norm("norm", net.dense("b", "x", 8), call=":1")
    late = net.norm("late", b)
    model = net.model(net.dense("out", net.op("concat", "joined", a, late, axis=-1), 2))
    result = plan(model, 0.5, whole=True, group=False)
    gone = pruned_units(result)
    both = np.intersect1d(gone["a"], gone["b"])
    assert both.size not in (0, 4)
    for path in ("norm/gamma", "norm/beta", "late/gamma", "late/beta"):
        np.testing.assert_array_equal(np.flatnonzero(result.zeros[path]), both)


def test_a_factor_that_was_zero_before_is_no_pruned_unit():
    net = Net(6)
    scaled = net.op("affine", "scaled", net.dense("a", "x", 8), net.weight("scale/gamma", 8))
    model = net.model(net.dense("out", net.norm("norm", scaled), 2))
    gone = pruned_units(plan(model, 0.25, whole=True))["a"]
    model.graph.weights["scale/gamma"][...] = 0
    result = plan(model, 0.25, whole=True)
    np.testing.assert_array_equal(np.flatnonzero(result.zeros["norm/gamma"]), gone)


# --- the report -------------------------------------------------------------------------------------------------------


def test_the_report_adds_up_and_is_json():
    model = residual()
    report = plan(model, 0.5, whole=True).report
    text = json.loads(json.dumps(report.to_json()))
    assert text["totals"] == {
        "size": sum(model.graph.weights[f"{layer}/kernel"].size for layer in ("a", "b", "c", "out")),
        "zeros_before": 0,
        "zeros_after": report.zeros_after,
        "units": 8 + 5 + 8 + 3,
        "pruned_units": 4 + 2 + 4,
    }
    assert report.zeros_after == 4 * 27 + 2 * 72 + 4 * 45
    assert text["layers"][0] == {
        "path": "a/kernel",
        "layer": "a",
        "shape": [3, 3, 3, 8],
        "zeros_before": 0,
        "zeros_after": 108,
        "units": 8,
        "pruned_units": 4,
        "group": "a/kernel",
        "kept": "",
    }
    assert {key: text[key] for key in ("source", "method", "sparsity", "scope")} == {
        "source": "the model 'test'",
        "method": "unit",
        "sparsity": 0.5,
        "scope": "layer",
    }


def test_progress_names_each_kernel_that_is_ranked():
    for method in ("weight", "unit"):
        for scope in ("layer", "global"):
            seen = []
            plan_pruning(residual(), Options(method, 0.5, scope), seen.append)
            assert sorted(seen) == ["a/kernel", "b/kernel", "c/kernel"]
