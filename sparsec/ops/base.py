"""What an operator is: a name, typed attributes, type inference, and evaluation in NumPy.

The set of operators is closed: front-ends emit these, backends and the runtime know these. One operator is one subclass of
:class:`Op`, registered under its name. Evaluation is the reference semantics; everything that runs faster is tested against it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

from sparsec.errors import GraphError
from sparsec.ir import Array, Attrs, AttrValue, Dim, Shape, TensorType, format_shape

if TYPE_CHECKING:
    from sparsec.ops.channels import ChannelRule


class Kind(Enum):
    """The type of an attribute's value, as it stands in JSON too."""

    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    OPTIONAL_FLOAT = "float or null"
    STR = "string"
    INTS = "list of int"


class _Required(Enum):
    REQUIRED = "required"


REQUIRED: Final = _Required.REQUIRED


@dataclass(frozen=True)
class Attribute:
    """Declares one attribute: its kind, its default, and for strings the values allowed."""

    kind: Kind
    default: AttrValue | _Required = REQUIRED
    choices: tuple[str, ...] = ()

    def convert(self, value: object) -> AttrValue:
        """``value`` in the attribute's type (lists become tuples, integers become floats where a float is due).

        Raises:
            GraphError: the value has another type or is none of the choices.
        """
        match self.kind:
            case Kind.BOOL if isinstance(value, bool):
                return value
            case Kind.INT if _is_int(value):
                return int(value)  # type: ignore[call-overload,no-any-return]
            case Kind.FLOAT | Kind.OPTIONAL_FLOAT if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
            case Kind.OPTIONAL_FLOAT if value is None:
                return None
            case Kind.STR if isinstance(value, str) and (not self.choices or value in self.choices):
                return value
            case Kind.INTS if isinstance(value, list | tuple) and all(_is_int(item) for item in value):
                return tuple(int(item) for item in value)
        wanted = self.kind.value + (f", one of {', '.join(self.choices)}" if self.choices else "")
        raise GraphError(f"the value {value!r} is not a {wanted}")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class Op(ABC):
    """An operator.

    Attributes:
        name: its name in graphs, bundles and ``formats/operators.md``.
        inputs: names of the inputs in order; a trailing ``?`` marks an optional one, a trailing ``*`` one or more.
        attributes: its attributes by name.
        matrix_rows: for every input that can be a weight matrix, the axes that make up the rows of its 2-D view
            (the output channels); the remaining axes, in order, are the columns.
        gates: how many rows of a weight's matrix make up one output channel; they stand gate after gate.
        channels: how facts about channels flow through it; ``None`` makes it opaque: its channels stay.
    """

    name: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]]
    attributes: ClassVar[Mapping[str, Attribute]] = {}
    matrix_rows: ClassVar[Mapping[int, tuple[int, ...]]] = {}
    gates: ClassVar[int] = 1
    channels: ClassVar[ChannelRule | None] = None

    @abstractmethod
    def infer(self, attrs: Attrs, inputs: Sequence[TensorType | None]) -> tuple[TensorType, ...]:
        """The types of the outputs.

        Args:
            attrs: complete and converted attributes.
            inputs: types in order, ``None`` for an optional input that is absent.

        Raises:
            GraphError: the inputs do not fit the operator.
        """

    @abstractmethod
    def evaluate(self, attrs: Attrs, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        """The outputs, in the dtype of the inputs; ``inputs`` have passed :meth:`infer`."""

    def macs(self, attrs: Attrs, inputs: Sequence[TensorType | None], outputs: Sequence[TensorType]) -> Dim:
        """The multiply-accumulates: every product that goes into a sum, those with zeros and padding included.

        None by default: activations, normalisation, pooling and the like are not counted.

        Args:
            attrs: complete and converted attributes.
            inputs: types in order, ``None`` for an optional input that is absent.
            outputs: the types that :meth:`infer` gives.
        """
        return 0

    @classmethod
    def complete(cls, attrs: Mapping[str, object]) -> dict[str, AttrValue]:
        """``attrs`` converted, with defaults for those that are not given.

        Raises:
            GraphError: an attribute is unknown, missing or has the wrong type.
        """
        unknown = attrs.keys() - cls.attributes.keys()
        if unknown:
            raise GraphError(f"operator {cls.name!r} has no attribute {sorted(unknown)[0]!r}")
        complete: dict[str, AttrValue] = {}
        for name, attribute in cls.attributes.items():
            if name in attrs:
                try:
                    complete[name] = attribute.convert(attrs[name])
                except GraphError as error:
                    raise GraphError(f"attribute {name!r} of operator {cls.name!r}: {error}") from None
            elif attribute.default is REQUIRED:
                raise GraphError(f"operator {cls.name!r} needs attribute {name!r}")
            else:
                complete[name] = attribute.default
        return complete

    @classmethod
    def arity(cls) -> tuple[int, int | None]:
        """The least and the greatest number of inputs; ``None`` where there is no greatest."""
        least = sum(not name.endswith("?") for name in cls.inputs)
        variadic = any(name.endswith("*") for name in cls.inputs)
        return least, None if variadic else len(cls.inputs)


OPS: dict[str, Op] = {}
"""Every operator by name."""

OpClass = TypeVar("OpClass", bound=type[Op])


def register(cls: OpClass) -> OpClass:
    """Enter an operator into :data:`OPS`; a class decorator."""
    if cls.name in OPS:
        raise GraphError(f"operator {cls.name!r} is registered twice")
    OPS[cls.name] = cls()
    return cls


def get_op(name: str) -> Op:
    """The operator called ``name``.

    Raises:
        GraphError: there is none.
    """
    try:
        return OPS[name]
    except KeyError:
        raise GraphError(f"there is no operator {name!r}") from None


# --- helpers for the operators' own modules -------------------------------------------------------------------------


def ints(attrs: Attrs, name: str) -> tuple[int, ...]:
    """The integer-list attribute ``name``."""
    value = attrs[name]
    if not isinstance(value, tuple):
        raise GraphError(f"attribute {name!r} is not a list")
    return value  # type: ignore[return-value]


def number(attrs: Attrs, name: str) -> float:
    """The float attribute ``name``."""
    value = attrs[name]
    if not isinstance(value, int | float):
        raise GraphError(f"attribute {name!r} is not a number")
    return float(value)


def integer(attrs: Attrs, name: str) -> int:
    """The integer attribute ``name``."""
    value = attrs[name]
    if not isinstance(value, int):
        raise GraphError(f"attribute {name!r} is not an integer")
    return value


def given(value: Array | None) -> Array:
    """An input that cannot be absent here."""
    assert value is not None
    return value


def required(inputs: Sequence[TensorType | None], index: int, label: str) -> TensorType:
    """The type of an input that must be given."""
    found = inputs[index] if index < len(inputs) else None
    if found is None:
        raise GraphError(f"input {label!r} is missing")
    return found


def optional(inputs: Sequence[TensorType | None], index: int) -> TensorType | None:
    """The type of an input that may be absent."""
    return inputs[index] if index < len(inputs) else None


def optional_array(inputs: Sequence[Array | None], index: int) -> Array | None:
    """The value of an input that may be absent."""
    return inputs[index] if index < len(inputs) else None


def expect_float(type_: TensorType, label: str) -> None:
    """Require a floating-point dtype.

    Raises:
        GraphError: the dtype is another one.
    """
    if not type_.dtype.startswith("float"):
        raise GraphError(f"input {label!r} has dtype {type_.dtype}, a float was expected")


def expect_number(type_: TensorType, label: str) -> None:
    """Require integers or floating-point numbers.

    Raises:
        GraphError: the dtype is bool.
    """
    if type_.dtype == "bool":
        raise GraphError(f"input {label!r} has dtype bool, numbers were expected")


def expect_dtype(type_: TensorType | None, dtype: str, label: str) -> None:
    """Require one dtype of an input, where it is given.

    Raises:
        GraphError: the dtype is another one.
    """
    if type_ is not None and type_.dtype != dtype:
        raise GraphError(f"input {label!r} has dtype {type_.dtype}, {dtype} was expected")


def expect_shape(type_: TensorType | None, shape: Shape, label: str) -> None:
    """Require one shape of an input, where it is given.

    Raises:
        GraphError: the shape is another one.
    """
    if type_ is not None and type_.shape != shape:
        raise GraphError(f"input {label!r} has shape {format_shape(type_.shape)}, {format_shape(shape)} was expected")


def static(dim: Dim, label: str) -> int:
    """``dim`` as an integer.

    Raises:
        GraphError: the dimension is symbolic.
    """
    if not isinstance(dim, int):
        raise GraphError(f"{label} is {dim}, which is not known before the model runs; give it with --input-shape")
    return dim


def normal_axis(axis: int, rank: int) -> int:
    """``axis`` counted from the front.

    Raises:
        GraphError: there is no such axis.
    """
    if not -rank <= axis < rank:
        raise GraphError(f"axis {axis} does not exist in a value of rank {rank}")
    return axis % rank


def broadcast_shapes(a: Shape, b: Shape) -> Shape:
    """The shape of an elementwise result, by NumPy's rule.

    Raises:
        GraphError: the shapes do not fit, or symbolic sizes cannot be shown to be equal.
    """
    rank = max(len(a), len(b))
    padded_a: Shape = (1,) * (rank - len(a)) + a
    padded_b: Shape = (1,) * (rank - len(b)) + b
    result: list[Dim] = []
    for x, y in zip(padded_a, padded_b, strict=True):
        if x == y or y == 1:
            result.append(x)
        elif x == 1:
            result.append(y)
        elif isinstance(x, int) and isinstance(y, int):
            raise GraphError(f"shapes {format_shape(a)} and {format_shape(b)} do not broadcast")
        else:
            raise GraphError(
                f"sizes {x} and {y} cannot be shown to be equal before the model runs; give them with --input-shape"
            )
    return tuple(result)
