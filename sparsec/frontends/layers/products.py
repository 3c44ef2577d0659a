"""Layers that are products along named axes: EinsumDense and Dot."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from sparsec.frontends.layer import Layer, Value, reads
from sparsec.frontends.layers.shapes import reshaped, transposed
from sparsec.frontends.options import Options
from sparsec.frontends.source import MatrixView
from sparsec.ir import Dim

EQUATION = re.compile(r"(\.\.\.)?([a-zA-Z]+)(\.\.\.)?,([a-zA-Z]+)->(\.\.\.)?([a-zA-Z]+)(\.\.\.)?")


@dataclass(frozen=True)
class Equation:
    """What an EinsumDense computes: one label for each axis, the same where axes go together.

    Attributes:
        x: of the input.
        kernel: of the kernel.
        result: of the output.
        stated: the axes of the output whose sizes the layer's ``output_shape`` states, in order.
    """

    x: tuple[str, ...]
    kernel: tuple[str, ...]
    result: tuple[str, ...]
    stated: tuple[str, ...]

    @classmethod
    def of(cls, options: Options, rank: int) -> Equation:
        """The equation of a layer whose input has ``rank`` axes; those behind an ellipsis are labelled with numbers."""
        text = options.text("equation", "")
        found = EQUATION.fullmatch(text.replace(" ", ""))
        if found is None:
            options.refuse(f"equation = {text!r} is not of the form ab,bc->ac, ...b,bc->...c or ab...,bc->ac...")
        left, x, right, kernel, result_left, result, result_right = found.groups()
        elided = tuple(str(index) for index in range(rank - len(x)))
        if (left, right) != (result_left, result_right) or (left and right) or (elided and not (left or right)):
            options.refuse(f"equation = {text!r} does not fit an input of rank {rank}")
        labels = [tuple(part) for part in (x, kernel, result)]
        if any(len(set(part)) < len(part) for part in labels) or len(x) > rank:
            options.refuse(f"equation = {text!r} repeats an axis, or has more than an input of rank {rank}")
        if left:
            return cls((*elided, *x), labels[1], (*elided, *result), labels[2] if elided else labels[2][1:])
        return cls((*x, *elided), labels[1], (*result, *elided), labels[2][1:])

    @property
    def summed(self) -> list[str]:
        """The axes of the input that are summed over, in the kernel's order."""
        return [label for label in self.kernel if label in self.x and label not in self.result]

    @property
    def matched(self) -> list[str]:
        """The axes that input, kernel and output share."""
        return [label for label in self.kernel if label in self.x and label in self.result]

    @property
    def made(self) -> list[str]:
        """The axes of the output that the kernel makes."""
        return [label for label in self.kernel if label not in self.x]

    @property
    def kept(self) -> list[str]:
        """The axes of the input that the kernel has not."""
        return [label for label in self.x if label not in self.kernel]

    def bias_labels(self, axes: str) -> list[tuple[str, bool]]:
        """The axes of the bias, and whether it has a size there; the axes of the output from the first one of those on."""
        first = min(self.result.index(axis) for axis in axes)
        return [(label, label in axes) for label in self.result[first:]]


@reads("EinsumDense")
def einsum_dense(layer: Layer) -> Value:
    """EinsumDense: a matrix product over the axes that the equation sums, one for each index that kernel and output share."""
    x = layer.float_input
    if layer.option("quantization_config") is not None or layer.option("lora_rank") is not None:
        layer.refuse("quantised and LoRA kernels are not read")
    equation = Equation.of(layer, x.rank)
    _check(layer, equation)
    sizes = _sizes(layer, equation, x)
    made, summed, matched = equation.made, equation.summed, equation.matched
    order = tuple(equation.kernel.index(label) for label in (*matched, *summed, *made))
    view = MatrixView(order, (*(1,) * len(matched), len(summed), len(made)))
    shape = tuple(_known(layer, sizes, label) for label in equation.kernel)
    kernel = layer.weight("kernel", shape, None if view == MatrixView((0, 1), (1, 1)) else view)
    axes = layer.text("bias_axes", "")
    # The product itself adds a bias that has all axes that the kernel makes, and no other.
    inside = bool(axes) and set(axes) == set(made) and not matched
    bias = _bias(layer, equation, axes, sizes, inside) if axes else None
    if matched:
        # The axes that meet those of the kernel stand before the two that the product reads.
        kept, rows = (equation.kept[:-1], equation.kept[-1:]) if len(equation.kept) > 1 else (equation.kept, [])
        labels = [*kept, *matched, *rows]
        y = layer.emit("matmul", _gathered(layer, x, equation, labels, [] if rows else [1], sizes), kernel)
    else:
        labels = equation.kept
        y = layer.emit("dense", _gathered(layer, x, equation, labels, [], sizes), kernel, bias if inside else None)
    labels = [*labels, *made]
    y = reshaped(layer, y, [sizes[label] for label in labels])
    y = transposed(layer, y, [labels.index(label) for label in equation.result])
    if bias is not None and not inside:
        y = layer.emit("add", y, bias)
    return layer.activation(y)


def _check(layer: Layer, equation: Equation) -> None:
    known = {*equation.x, *equation.kernel}
    if not known.issuperset(equation.result) or any(label not in equation.result for label in (*equation.kept, *equation.made)):
        layer.refuse("its equation sums over an axis that input and kernel do not share")
    if equation.x[0] in equation.kernel or equation.result[0] != equation.x[0]:
        layer.refuse("its equation moves or sums the batch axis, which is not read")


def _sizes(layer: Layer, equation: Equation, x: Value) -> dict[str, Dim]:
    """The size of every axis: those of the input, and those that the layer states."""
    value = layer.option("output_shape")
    stated = [value] if isinstance(value, int) else value
    if (
        not isinstance(stated, list | tuple)
        or len(stated) != len(equation.stated)
        or not all(size is None or (type(size) is int and size > 0) for size in stated)
    ):
        layer.refuse(f"output_shape = {value!r}, {len(equation.stated)} sizes were expected")
    sizes: dict[str, Dim] = dict(zip(equation.x, x.shape, strict=True))
    for label, size in zip(equation.stated, stated, strict=True):
        if size is not None and not isinstance(sizes.get(label), int):
            sizes[label] = size
    return sizes


def _known(layer: Layer, sizes: dict[str, Dim], label: str) -> int:
    size = sizes.get(label)
    if not isinstance(size, int):
        layer.refuse(f"the size of its kernel's axis {label!r} is open; give it with --input-shape")
    return size


def _bias(layer: Layer, equation: Equation, axes: str, sizes: dict[str, Dim], inside: bool) -> Value:
    """The bias: a vector over what the kernel makes where the product adds it, else as it is stored."""
    if not set(axes) <= set(equation.result):
        layer.refuse(f"bias_axes = {axes!r} are not axes of its output")
    labels = equation.bias_labels(axes)
    shape = tuple(_known(layer, sizes, label) if sized else 1 for label, sized in labels)
    if not inside:
        return layer.weight("bias", shape)
    names = [label for label, _ in labels]
    single = [index for index, (_, sized) in enumerate(labels) if not sized]
    order = (*single, *(names.index(label) for label in equation.made))
    return layer.weight("bias", shape, MatrixView(order, (len(order),)) if len(order) > 1 else None)


def _gathered(
    layer: Layer, x: Value, equation: Equation, labels: Sequence[str], ones: list[int], sizes: dict[str, Dim]
) -> Value:
    """The input with the axes ``labels``, then ``ones``, then all that is summed over in one axis."""
    summed = equation.summed
    x = transposed(layer, x, [equation.x.index(label) for label in (*labels, *summed)])
    length = prod(_known(layer, sizes, label) for label in summed)
    return reshaped(layer, x, [*(sizes[label] for label in labels), *ones, length])


NORM_LIMIT = {2: 1e-6, 3: 1e-7}
"""What Dot divides by at least when it normalises, by generation of Keras."""


@reads("Dot")
def dot(layer: Layer) -> Value:
    """Dot: sums of products of two values along one axis of each."""
    if len(layer.inputs) != 2:
        layer.refuse(f"{len(layer.inputs)} inputs where two were expected")
    a, b = (layer.cast(value, layer.dtype) for value in layer.inputs)
    value = layer.option("axes")
    stated = [value, value] if isinstance(value, int) else value
    if not isinstance(stated, list | tuple) or len(stated) != 2:
        layer.refuse(f"axes = {value!r}, one axis of each input was expected")
    (left,), (right,) = (
        Options({"axes": axis}, layer.subject).axes("axes", x.rank) for axis, x in zip(stated, (a, b), strict=True)
    )
    if 0 in (left, right):
        layer.refuse("sums over the batch axis, which is not read")
    if layer.flag("normalize", False):
        a, b = _normalised(layer, a, left), _normalised(layer, b, right)
    rows = [axis for axis in range(1, a.rank) if axis != left]
    columns = [axis for axis in range(1, b.rank) if axis != right]
    a_sizes, b_sizes = [a.shape[axis] for axis in rows], [b.shape[axis] for axis in columns]
    a = reshaped(layer, transposed(layer, a, (0, *rows, left)), [a.shape[0], _product(a_sizes), a.shape[left]])
    b = reshaped(layer, transposed(layer, b, (0, right, *columns)), [b.shape[0], b.shape[right], _product(b_sizes)])
    y = layer.emit("matmul", a, b)
    return reshaped(layer, y, [y.shape[0], *((*a_sizes, *b_sizes) or (1,))])


def _product(sizes: Sequence[Dim]) -> Dim:
    total: Dim = 1
    for size in sizes:
        total = total * size
    return total


def _normalised(layer: Layer, x: Value, axis: int) -> Value:
    """``x`` divided by its Euclidean norm along one axis."""
    mean = layer.emit("reduce_mean", layer.emit("mul", x, x), axes=(axis,), keepdims=True)
    norm = layer.emit("sqrt", layer.emit("mul", mean, layer.like(x, layer.size(x, axis))))
    return layer.emit("div", x, layer.emit("maximum", norm, layer.like(x, NORM_LIMIT[layer.saved_by.generation])))
