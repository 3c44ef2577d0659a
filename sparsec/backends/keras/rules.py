"""How the configuration of each layer class states what shrinking changes: one function a class.

The function gets the layer with the new shapes of its variables, in the order of ``layer.weights``, and edits its
configuration. A class without a function cannot lose channels in a written file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from sparsec.backends.keras.edits import LayerEdit
from sparsec.errors import InputError
from sparsec.frontends.layers.core import IDENTITIES
from sparsec.frontends.options import array_value
from sparsec.passes.shrink import WeightEdit


class EditedLayer:
    """A layer whose configuration is being edited.

    Attributes:
        config: its configuration, edited in place.
        edit: what happens to it.
    """

    def __init__(
        self, subject: str, class_name: str, config: dict[str, Any], edit: LayerEdit, shapes: Sequence[tuple[int, ...]]
    ) -> None:
        self.config = config
        self.edit = edit
        self._subject = subject
        self._class_name = class_name
        self._shapes = shapes

    def apply(self) -> None:
        """Edit the configuration.

        Raises:
            InputError: it cannot state the change.
        """
        if self._class_name not in RULES:
            self.refuse("the configuration of that class cannot be made smaller")
        self._check_initializers()
        RULES[self._class_name](self)
        if self.edit.bias is not None:
            self.config["use_bias"] = True

    def size(self, variable: int, axis: int) -> int:
        """The new size of one axis of a variable."""
        return self._shapes[variable][axis]

    def attribute(self, name: str) -> Any:
        """What an attribute becomes in every node of the layer; ``None`` where it stays.

        Raises:
            InputError: calls of the layer would need different values.
        """
        values = {after.attrs[name] for before, after in self.edit.nodes if before.attrs.get(name) != after.attrs.get(name)}
        if len(values) > 1:
            self.refuse(f"its calls would need different values of {name}: {sorted(map(str, values))}")
        return values.pop() if values else None

    def refuse(self, reason: str) -> NoReturn:
        """Refuse to edit the layer.

        Raises:
            InputError: always; names the layer, its class and the reason.
        """
        raise InputError(
            f"{self._subject} ({self._class_name}) loses channels, but cannot be written back to Keras: {reason}; "
            "write a bundle or ONNX, or compile without shrinking"
        )

    def _check_initializers(self) -> None:
        for name, value in self.config.items():
            stated = value.get("config") if name.endswith("_initializer") and isinstance(value, dict) else None
            if isinstance(stated, dict) and isinstance(array_value(stated.get("value")), list):
                self.refuse(f"its {name} holds an array, which fits the old shape alone")


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


@edits("Reshape")
def reshape(layer: EditedLayer) -> None:
    """Reshape: the last size of its target."""
    shape = layer.attribute("shape")
    if shape is not None:
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
