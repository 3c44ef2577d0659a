"""What a Keras model is before its layers are read: a configuration, and variables by layer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

from sparsec.errors import FormatError, UnsupportedLayerError
from sparsec.ir import Array

Config = Mapping[str, Any]
LayerPath = tuple[str, ...]
"""The keys of layers from the outermost model inwards, without the outermost model's own name."""


@dataclass(frozen=True)
class Variable:
    """A stored variable of a layer.

    Attributes:
        location: where it is stored, in the source's own terms: an HDF5 path, or a path of an in-memory model.
        shape: its shape.
        load: reads it; of a file, while the file is open.
        assign: overwrites it, for models in memory; files are rewritten by location.
        dtype: in which it is stored; values of bfloat16, which NumPy has not, are loaded in single precision.
    """

    location: str
    shape: tuple[int, ...]
    load: Callable[[], Array]
    assign: Callable[[Array], None] | None = None
    dtype: str = ""


@dataclass(frozen=True)
class MatrixView:
    """How a variable of several axes is read as a weight of fewer: axes are reordered, then neighbours are merged.

    Attributes:
        order: the axes of the variable in the order in which they are merged.
        runs: how many of them each axis of the weight merges.
    """

    order: tuple[int, ...]
    runs: tuple[int, ...]

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the weight behind which a variable of the shape ``stored`` stands."""
        return tuple(prod(stored[axis] for axis in axes) for axes in self.merged())

    def merged(self) -> list[tuple[int, ...]]:
        """For each axis of the weight, the axes of the variable that it merges."""
        ends = [sum(self.runs[: index + 1]) for index in range(len(self.runs))]
        return [self.order[end - run : end] for end, run in zip(ends, self.runs, strict=True)]

    def read(self, array: Array) -> Array:
        """The weight, from the variable."""
        return array.transpose(self.order).reshape(self.shape(array.shape))

    def stored(self, weight: Array, shape: tuple[int, ...]) -> Array:
        """The variable of the shape ``shape``, from the weight."""
        return weight.reshape([shape[axis] for axis in self.order]).transpose([self.order.index(i) for i in range(len(shape))])


@dataclass(frozen=True)
class SavedBy:
    """Which Keras wrote the model; layers mean what they meant there.

    Attributes:
        generation: 2 for Keras 2 and tf_keras, 3 for Keras 3.
        version: the version as the file states it, for messages.
    """

    generation: Literal[2, 3]
    version: str

    @classmethod
    def from_version(cls, version: str) -> SavedBy:
        """From the version that a file or a module states."""
        return cls(3 if re.match(r"3\.", version) else 2, version)

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor number, to compare with; 0 where the version states none."""
        numbers = [int(number) for number in re.findall(r"\d+", self.version)[:2]]
        return (*numbers, 0, 0)[0], (*numbers, 0, 0)[1]


MODEL_CLASSES = frozenset({"Functional", "Model", "Sequential"})
"""Class names of models that hold layers; ``Model`` is what Keras before 2.4 called a functional model."""


@dataclass(frozen=True)
class Source:
    """A model as it was found, not yet interpreted.

    Attributes:
        description: how messages call it: the file's path, or ``the model 'name'``.
        config: the configuration of the outermost model: its name, its layers, and how they are connected.
        saved_by: the version that wrote it.
        variables: the stored variables of every layer that has any, in the order of the layer's ``weights``.
        sha256: of the file, empty for a model in memory.
    """

    description: str
    config: Config
    saved_by: SavedBy
    variables: Mapping[LayerPath, Sequence[Variable]]
    sha256: str = ""


def model_config(serialized: Any, where: str) -> Config:
    """The configuration of the outermost model, taken out of its serialised object.

    Raises:
        FormatError: it is no serialised model.
        UnsupportedLayerError: it is a model of a class of its own.
    """
    if not isinstance(serialized, dict) or not isinstance(serialized.get("class_name"), str):
        raise FormatError(f"{where}: the configuration is not that of a Keras model")
    class_name, config = serialized["class_name"], serialized.get("config")
    if class_name not in MODEL_CLASSES:
        raise UnsupportedLayerError(
            f"{where}: the model is of class {class_name!r}; sparsec reads Sequential and Functional models, not subclassed "
            "ones: rebuild it with keras.Model(inputs, outputs)"
        )
    if isinstance(config, list):
        # Sequential models of Keras before 2.2.3 stored the bare list of layers.
        return {"layers": config}
    if not isinstance(config, dict):
        raise FormatError(f"{where}: the configuration is not that of a Keras model")
    return config


INNER = "layer"
"""The attribute, and option, in which wrappers hold the layer inside."""

WRAPPERS = frozenset({"PruneLowMagnitude"})
"""Training-time wrappers of the TensorFlow Model Optimization toolkit that compute what the layer inside computes."""

_WRAPPER_VARIABLES = frozenset({"mask", "threshold", "pruning_step"})


_KERAS_MODULES = ("keras", "tf_keras", "tensorflow.keras", "tensorflow.python.keras")
"""Where the classes of Keras itself live; a class from elsewhere may bear the name of one of them."""


@dataclass(frozen=True)
class LayerEntry:
    """One layer of a model's configuration.

    Attributes:
        key: the name by which calls and stored variables refer to it, unique in its model.
        name: as users know it; differs from ``key`` only where a wrapper was taken off.
        class_name: the class; of a registered class with its package, ``Package>Name``.
        config: the layer's own configuration.
        inbound: what Keras stored about its calls; empty in a Sequential.
        module: the Python module of the class, empty where the file does not say.
        wrapped: whether a pruning wrapper was taken off.
    """

    key: str
    name: str
    class_name: str
    config: Config
    inbound: Sequence[Any] = field(default=())
    module: str = ""
    wrapped: bool = False

    @property
    def is_custom(self) -> bool:
        """Whether the class is known not to be one of Keras, whatever its name."""
        elsewhere = self.module and not any(f"{self.module}.".startswith(f"{own}.") for own in _KERAS_MODULES)
        return bool(elsewhere) or ">" in self.class_name

    @property
    def is_model(self) -> bool:
        """Whether the layer is itself a model with layers in its configuration."""
        return self.class_name in MODEL_CLASSES and isinstance(self.config.get("layers"), list)

    @property
    def inner_model(self) -> Config | None:
        """The configuration of the model that a wrapper such as TimeDistributed holds as its part :data:`INNER`."""
        inner = self.config.get(INNER)
        if not isinstance(inner, dict) or inner.get("class_name") not in MODEL_CLASSES:
            return None
        config = inner.get("config")
        return config if isinstance(config, dict) and isinstance(config.get("layers"), list) else None

    @property
    def stored_class_name(self) -> str:
        """The class under which the layer's variables were counted when they were stored."""
        return "PruneLowMagnitude" if self.wrapped else self.class_name


def layer_entries(config: Config, where: str) -> list[LayerEntry]:
    """The layers that a model's configuration lists, with pruning wrappers taken off.

    Raises:
        FormatError: the configuration is not that of a Sequential or Functional model.
    """
    layers = config.get("layers")
    if not isinstance(layers, list):
        raise FormatError(f"{where}: the configuration lists no layers; is it a Sequential or Functional model?")
    entries = [layer_entry(item, where) for item in layers]
    keys = Counter(entry.key for entry in entries)
    twice = next((key for key, count in keys.items() if count > 1), None)
    if twice is not None:
        raise FormatError(f"{where}: two layers of one model are called {twice!r}; rename one and save the model again")
    return entries


def layer_entry(item: Any, where: str) -> LayerEntry:
    """A layer as it is serialised, with a pruning wrapper taken off.

    Raises:
        FormatError: it is not a serialised layer.
    """
    try:
        class_name, config = str(item["class_name"]), item["config"]
        key = name = str(item.get("name") or config["name"])
        inbound, module = item.get("inbound_nodes") or (), str(item.get("module") or "")
        wrapped = class_name.rsplit(">", 1)[-1] in WRAPPERS
        if wrapped:
            inner = config["layer"]
            class_name, config, module = str(inner["class_name"]), inner["config"], str(inner.get("module") or "")
            name = str(config["name"])
        if not isinstance(config, dict):
            raise TypeError("its config is not an object")
        if not isinstance(inbound, list | tuple):
            raise TypeError("its inbound_nodes are not a list")
        if not key or not name:
            raise TypeError("it has no name")
    except (KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{where}: a layer's configuration cannot be read ({error!r})") from None
    return LayerEntry(key, name, class_name, config, inbound, module, wrapped)


def is_wrapper_variable(name: str) -> bool:
    """Whether a variable's name is that of a pruning wrapper's own bookkeeping."""
    return name.rsplit("/", 1)[-1].removesuffix(":0") in _WRAPPER_VARIABLES
