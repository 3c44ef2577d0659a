"""How the configuration of each layer class states what shrinking changes: one function a class.

The function gets the layer with the new shapes of its variables, in the order of ``layer.weights``, and edits its
configuration. A class without a function cannot lose channels in a written file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, NoReturn

import numpy as np

from sparsec.backends.keras.edits import LayerEdit, UnwritableError
from sparsec.frontends.layers.core import IDENTITIES
from sparsec.frontends.layers.products import EQUATION, Equation
from sparsec.frontends.options import Options, array_value
from sparsec.frontends.tree import numbered_names
from sparsec.passes.shrink import WeightEdit


class EditedLayer:
    """A layer whose configuration is being edited.

    Attributes:
        config: its configuration, edited in place.
        edit: what happens to it and its parts.
        weights: the new shapes of its variables and those of its parts, by the names that they have in the graph below the
            layer's: ``kernel``, ``query_dense/kernel``.
    """

    def __init__(
        self,
        where: str,
        name: str,
        class_name: str,
        config: dict[str, Any],
        edit: LayerEdit,
        shapes: Sequence[tuple[int, ...]],
        weights: Mapping[str, tuple[int, ...]],
    ) -> None:
        self.config = config
        self.edit = edit
        self.weights = weights
        self._where = where
        self._name = name
        self._class_name = class_name
        self._shapes = shapes

    def apply(self) -> None:
        """Edit the configuration.

        Raises:
            UnwritableError: it cannot state the change.
        """
        if self._class_name not in RULES:
            self.refuse("the configuration of that class cannot be made smaller")
        self._check_initializers()
        RULES[self._class_name](self)
        if self.edit.bias is not None and self._class_name not in OTHER_BIASES:
            self.config["use_bias"] = True

    def part(self, name: str, option: str) -> EditedLayer:
        """A part that is a layer of its own, whose configuration stands in an option."""
        inner = self.config[option]
        class_name, config = str(inner["class_name"]), inner["config"]
        weights = {path.removeprefix(f"{name}/"): shape for path, shape in self.weights.items() if path.startswith(f"{name}/")}
        return EditedLayer(self._where, self._name, class_name, config, self.edit, list(weights.values()), weights)

    def size(self, variable: int, axis: int) -> int:
        """The new size of one axis of a variable."""
        return self._shapes[variable][axis]

    def attribute(self, name: str) -> Any:
        """What an attribute becomes in every node of the layer; ``None`` where it stays.

        Raises:
            UnwritableError: calls of the layer would need different values.
        """
        values = {after.attrs[name] for before, after in self.edit.nodes if before.attrs.get(name) != after.attrs.get(name)}
        if len(values) > 1:
            self.refuse(f"its calls would need different values of {name}: {sorted(map(str, values))}")
        return values.pop() if values else None

    def refuse(self, reason: str) -> NoReturn:
        """Refuse to edit the layer.

        Raises:
            UnwritableError: always; names the layer, its class and the reason.
        """
        raise UnwritableError(self._where, {self._name: f"{reason} ({self._class_name})"})

    def _check_initializers(self) -> None:
        for name, value in self.config.items():
            stated = value.get("config") if name.endswith("_initializer") and isinstance(value, dict) else None
            if isinstance(stated, dict) and isinstance(array_value(stated.get("value")), list):
                self.refuse(f"its {name} holds an array, which fits the old shape alone")


OTHER_BIASES = frozenset({"EinsumDense", "TimeDistributed"})
"""The classes that state otherwise that they have a bias."""

RULES: dict[str, Callable[[EditedLayer], None]] = {}
"""The function of every class that can lose channels."""

Rule = Callable[[EditedLayer], None]


def edits(*class_names: str) -> Callable[[Rule], Rule]:
    """Register the function that edits layers of these classes."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(class_names, function))
        return function

    return register


@edits(
    "AdditiveAttention",
    "BatchNormalization",
    "SyncBatchNormalization",
    "LayerNormalization",
    "PReLU",
    "RepeatVector",
    "Flatten",
    "CustomScaleLayer",
    *IDENTITIES,
)
def unstated(layer: EditedLayer) -> None:
    """Layers whose configuration does not state the number of channels."""


@edits("Dense")
def dense(layer: EditedLayer) -> None:
    """Dense: units."""
    layer.config["units"] = layer.size(0, -1)


@edits("Conv1D", "Conv2D", "Conv3D", "Convolution1D", "Convolution2D", "Convolution3D")
def conv(layer: EditedLayer) -> None:
    """Conv1D, Conv2D, Conv3D: filters, and groups where whole ones go."""
    layer.config["filters"] = layer.size(0, -1)
    groups = layer.attribute("groups")
    if groups is not None:
        layer.config["groups"] = groups


@edits("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise_conv(layer: EditedLayer) -> None:
    """DepthwiseConv1D, DepthwiseConv2D: channels follow the input."""
    layer.config["depth_multiplier"] = layer.size(0, -1)


@edits("SeparableConv1D", "SeparableConv2D", "SeparableConvolution1D", "SeparableConvolution2D")
def separable_conv(layer: EditedLayer) -> None:
    """SeparableConv1D, SeparableConv2D: the filters of the pointwise part."""
    layer.config["depth_multiplier"] = layer.size(0, -1)
    layer.config["filters"] = layer.size(1, -1)


@edits("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose", "Convolution2DTranspose", "Convolution3DTranspose")
def conv_transpose(layer: EditedLayer) -> None:
    """Transposed convolutions: filters, the last but one axis of the kernel."""
    layer.config["filters"] = layer.size(0, -2)


@edits("LayerScale")
def layer_scale(layer: EditedLayer) -> None:
    """LayerScale of keras.applications."""
    layer.config["projection_dim"] = layer.size(0, -1)


@edits("Embedding")
def embedding(layer: EditedLayer) -> None:
    """Embedding: the columns of the table."""
    layer.config["output_dim"] = layer.size(0, -1)


@edits("EinsumDense")
def einsum_dense(layer: EditedLayer) -> None:
    """EinsumDense: the sizes that it states of what the kernel makes; an added bias has all of them."""
    labels = EQUATION.fullmatch(str(layer.config["equation"]).replace(" ", ""))
    assert labels is not None
    equation = Equation.of(Options(layer.config, "the layer"), len(labels[2]) + bool(labels[1] or labels[3]))
    stated, kernel = layer.config["output_shape"], layer.weights["kernel"]
    sizes = [stated] if isinstance(stated, int) else list(stated)
    for index, label in enumerate(equation.stated):
        if label in equation.kernel and sizes[index] is not None:
            sizes[index] = kernel[equation.kernel.index(label)]
    layer.config["output_shape"] = sizes
    if layer.edit.bias is not None:
        if list(equation.result[-len(equation.made) :]) != equation.made or len(equation.made) > 1:
            layer.refuse("it would need a bias over other axes than its last one")
        layer.config["bias_axes"] = equation.made[0]


@edits("MultiHeadAttention")
def multi_head_attention(layer: EditedLayer) -> None:
    """MultiHeadAttention: heads, their widths, and the shape of the output where that is not the queries'."""
    _check_no_bias(layer)
    query, output = layer.weights["query_dense/kernel"], layer.weights["output_dense/kernel"]
    layer.config["num_heads"], layer.config["key_dim"] = query[1:]
    layer.config["value_dim"] = layer.weights["value_dense/kernel"][2]
    if layer.config.get("output_shape") is not None or output[2:] != query[:1]:
        layer.config["output_shape"] = list(output[2:])
    for name in ("query_shape", "key_shape", "value_shape"):
        # Keras 2 states the shapes for which it once built the layer; without them it builds it when it is called.
        if name in layer.config:
            layer.config[name] = None


@edits("GroupQueryAttention", "GroupedQueryAttention")
def group_query_attention(layer: EditedLayer) -> None:
    """GroupQueryAttention: heads and their groups, of one width."""
    _check_no_bias(layer)
    query, key, output = (layer.weights[f"{part}_dense/kernel"] for part in ("query", "key", "output"))
    if output[2:] != query[:1]:
        layer.refuse(f"its output would have {output[2]} channels and its queries {query[0]}, which are the same in Keras")
    layer.config["num_query_heads"], layer.config["head_dim"] = query[1:]
    layer.config["num_key_value_heads"] = key[1]


def _check_no_bias(layer: EditedLayer) -> None:
    if layer.edit.bias is not None:
        layer.refuse("one of its projections would need a bias, and all have one or none")


# --- recurrent layers --------------------------------------------------------------------------------------------------


def _units(layer: EditedLayer, cell: str) -> int:
    """The units of a cell; what is written of how cells were built is dropped, since it states the old ones."""
    if layer.edit.bias is not None:
        layer.refuse("a cell would need a bias that it has not")
    forget_builds(layer.config)
    return layer.weights[f"{cell}/recurrent_kernel"][-2]


@edits("LSTM", "GRU", "SimpleRNN")
def recurrent(layer: EditedLayer) -> None:
    """LSTM, GRU, SimpleRNN: units."""
    layer.config["units"] = _units(layer, "cell")


@edits("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
def conv_lstm(layer: EditedLayer) -> None:
    """ConvLSTM1D, ConvLSTM2D, ConvLSTM3D: filters."""
    layer.config["filters"] = _units(layer, "cell")


@edits("RNN")
def rnn(layer: EditedLayer) -> None:
    """RNN: the units of its cells."""
    cell = layer.config["cell"]
    if cell["class_name"] != "StackedRNNCells":
        cell["config"]["units"] = _units(layer, "cell")
        return
    cells = cell["config"]["cells"]
    for name, item in zip(numbered_names([item["class_name"] for item in cells]), cells, strict=True):
        item["config"]["units"] = _units(layer, f"cell/cells/{name}")


@edits("Bidirectional")
def bidirectional(layer: EditedLayer) -> None:
    """Bidirectional: each direction by itself; Keras 2 states the one that goes backwards only if it is another one."""
    forward = layer.config["layer"]
    if layer.config.get("backward_layer") is None:
        options = {**deepcopy(forward["config"]), "go_backwards": True}
        layer.config["backward_layer"] = {**forward, "config": {**options, "name": f"backward_{options['name']}"}}
    directions = layer.part("forward_layer", "layer"), layer.part("backward_layer", "backward_layer")
    for direction in directions:
        direction.apply()
    one, other = (
        [shape[0] for path, shape in direction.weights.items() if path.endswith("recurrent_kernel")][-1]
        for direction in directions
    )
    if one != other:
        layer.refuse(f"its directions would have {one} and {other} units, and Keras takes them for equally wide")


@edits("TimeDistributed")
def time_distributed(layer: EditedLayer) -> None:
    """TimeDistributed: the layer inside."""
    forget_builds(layer.config)
    layer.part("layer", "layer").apply()


def forget_builds(config: Mapping[str, Any]) -> None:
    """Drop what is written, in place, of the shapes for which the parts of a layer were built."""
    for option in PARTS:
        value = config.get(option)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and isinstance(item.get("config"), dict):
                item.pop("build_config", None)
                forget_builds(item["config"])


PARTS = ("layer", "backward_layer", "cell", "cells")
"""The options in which layers state layers that are parts of them."""


@edits("Reshape")
def reshape(layer: EditedLayer) -> None:
    """Reshape: the last size of its target; the operation of that name states the batch and all sizes."""
    shape = layer.attribute("shape")
    if shape is None:
        return
    if "newshape" in layer.config:
        stated = zip(layer.config["newshape"], shape, strict=True)
        layer.config["newshape"] = [old if old in (None, -1) or new < 1 else new for old, new in stated]
    else:
        layer.config["target_shape"] = [*layer.config["target_shape"][:-1], shape[-1]]


@edits("Normalization")
def normalization(layer: EditedLayer) -> None:
    """Normalization with statistics in its configuration; adapted ones are variables."""
    for name in ("mean", "variance"):
        _slice_stated(layer, name)


@edits("Rescaling")
def rescaling(layer: EditedLayer) -> None:
    """Rescaling with numbers for each channel."""
    for name in ("scale", "offset"):
        _slice_stated(layer, name)


def _slice_stated(layer: EditedLayer, name: str) -> None:
    """Slice numbers that the configuration states along the channels, if it states more than one."""
    value = layer.config.get(name)
    numbers = array_value(value)
    if np.ndim(numbers) == 0 or np.shape(numbers)[-1] == 1:
        return
    sliced = channel_slice(layer.edit, np.ndim(numbers)).sliced(np.asarray(numbers)).tolist()
    if isinstance(value, dict):
        value["config"]["value"] = sliced
    else:
        layer.config[name] = sliced


def channel_slice(edit: LayerEdit, rank: int) -> WeightEdit:
    """The slice along the last axis, for an array of ``rank`` axes from which a layer's constants were computed."""
    kept = next(iter(next(iter(edit.constants.values())).kept.values()))
    return WeightEdit(kept={rank - 1: kept})
