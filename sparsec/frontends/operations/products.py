"""Products that sum over axes: matmul, dot, tensordot and einsum."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import count, takewhile

from sparsec.frontends.layer import Layer, Value, reads_operation
from sparsec.frontends.layers.shapes import reshaped, transposed
from sparsec.frontends.operations.operands import arguments, operands
from sparsec.frontends.operations.reductions import total
from sparsec.frontends.operations.shaping import without_axes
from sparsec.ir import Dim, product


def _is_matrix(layer: Layer, value: Value, given: object) -> bool:
    """Whether an operand is a matrix of numbers, not a tensor of the model."""
    return value.rank == 2 and not isinstance(given, Value)


@reads_operation("Matmul", "linalg.matmul")
def matmul(layer: Layer) -> Value:
    """Matrix products over the last two axes; a vector counts as a row on the left and a column on the right."""
    given = arguments(
        layer, "a|x1", "b|x2", "transpose_a", "transpose_b", "adjoint_a", "adjoint_b", "a_is_sparse", "b_is_sparse"
    )
    a, b = given.values("a", "b")
    if not a.is_float:
        layer.refuse(f"multiplies matrices of {a.type.dtype}, which is not read; cast them to float32 first")
    if given.flag("transpose_a", False) or given.flag("adjoint_a", False):
        a = _swapped(layer, a)
    if given.flag("transpose_b", False) or given.flag("adjoint_b", False):
        b = _swapped(layer, b)
    if _is_matrix(layer, b, given.option("b")):
        return layer.emit("dense", a, b)
    vectors = a.rank == 1, b.rank == 1
    a = layer.emit("reshape", a, shape=(1, -1)) if vectors[0] else a
    b = layer.emit("reshape", b, shape=(-1, 1)) if vectors[1] else b
    y = layer.emit("matmul", a, b)
    dropped = [y.rank - 2] * vectors[0] + [y.rank - 1] * vectors[1]
    return without_axes(layer, y, dropped) if dropped else y


def _swapped(layer: Layer, x: Value) -> Value:
    return transposed(layer, x, (*range(x.rank - 2), x.rank - 1, x.rank - 2))


@reads_operation("Dot")
def dot(layer: Layer) -> Value:
    """Sums over the last axis of one value and the last but one of numbers."""
    given = arguments(layer, "a|x1|x", "b|x2|y")
    a, b = given.values("a", "b")
    if isinstance(given.option("a"), Value) and _is_matrix(layer, b, given.option("b")):
        return layer.emit("dense", a, b)
    if isinstance(given.option("b"), Value) or b.rank != 1:
        layer.refuse("multiplies every sample with every other, or more than a matrix; use matmul or einsum")
    return without_axes(layer, layer.emit("dense", a, layer.emit("reshape", b, shape=(-1, 1))), [a.rank - 1])


@reads_operation("Tensordot", "tensordot")
def tensordot(layer: Layer) -> Value:
    """Sums over axes of one value and axes of numbers."""
    given = arguments(layer, "a|x1", "b|x2", "axes")
    a, b = given.values("a", "b")
    if isinstance(given.option("b"), Value) or not isinstance(given.option("a"), Value):
        layer.refuse("multiplies every sample with every other; use matmul or einsum")
    axes = given.option("axes", 2)
    left, right = (range(a.rank - axes, a.rank), range(axes)) if isinstance(axes, int) else axes
    pairs = [([side] if isinstance(side, int) else list(side)) for side in (left, right)]
    letters = [[f"a{axis}" for axis in range(a.rank)], [f"b{axis}" for axis in range(b.rank)]]
    for index, (one, other) in enumerate(zip(*pairs, strict=True)):
        letters[0][one], letters[1][other] = f"s{index}", f"s{index}"
    kept = [letter for side in letters for letter in side if not letter.startswith("s")]
    return contracted(layer, (a, letters[0]), (b, letters[1]), kept)


# --- einsum ------------------------------------------------------------------------------------------------------------

Labelled = tuple[Value, Sequence[str]]
"""A value, and a label for each of its axes."""


@reads_operation("Einsum", "einsum")
def einsum(layer: Layer) -> Value:
    """Sums of products by an equation, two operands at a time from the left."""
    if layer.saved_by.generation == 2:
        layer.refuse("Keras 2 does not store the operands of einsum; use matmul, tensordot or EinsumDense")
    given = list(takewhile(lambda item: item is not None, map(layer.operand, count())))
    values = operands(layer, given)
    terms, result = _equation(layer, layer.text("subscripts", ""), values)
    batches = {term[0] for term, item in zip(terms, given, strict=True) if isinstance(item, Value)}
    if batches != set(result[:1]):
        layer.refuse("its equation does not keep the batch axis as the first axis of every tensor")
    # Tensors before numbers, which so become matrices that are multiplied from the right.
    left = sorted(zip(values, terms, given, strict=True), key=lambda entry: not isinstance(entry[2], Value))
    labelled: list[Labelled] = [(value, term) for value, term, _ in left]
    while len(labelled) > 1:
        first, second, *rest = labelled
        needed = {label for _, labels in rest for label in labels} | set(result)
        kept = [label for label in dict.fromkeys((*first[1], *second[1])) if label in needed] if rest else result
        labelled = [(contracted(layer, first, second, kept), kept), *rest]
    return _arranged(layer, labelled[0], result)


def _equation(layer: Layer, text: str, values: Sequence[Value]) -> tuple[list[list[str]], list[str]]:
    """The labels of every operand and of the result; what an ellipsis stands for is labelled with numbers from the right."""
    left, arrow, right = text.replace(" ", "").partition("->")
    terms = left.split(",")
    pattern = re.compile(r"[a-zA-Z]*(\.\.\.)?[a-zA-Z]*")
    if len(terms) != len(values) or not all(pattern.fullmatch(term) for term in (*terms, right)):
        layer.refuse(f"its equation {text!r} does not fit {len(values)} operands")

    def labels(term: str, elided: int) -> list[str]:
        before, dots, after = term.partition("...")
        return [*before, *(str(index) for index in range(elided if dots else 0, 0, -1)), *after]

    elided = [value.rank - len(term.replace(".", "")) for term, value in zip(terms, values, strict=True)]
    named = [labels(term, count) for term, count in zip(terms, elided, strict=True)]
    if not arrow:
        once = sorted({label for term in named for label in term if not label.isdigit()})
        counts = [label for term in named for label in term]
        right = ("..." if "..." in left else "") + "".join(label for label in once if counts.count(label) == 1)
    if any(len(term) != value.rank for term, value in zip(named, values, strict=True)):
        layer.refuse(f"its equation {text!r} does not fit the axes of its operands")
    if any(len(set(term)) < len(term) for term in named):
        layer.refuse(f"its equation {text!r} takes a diagonal, which is not read")
    return named, labels(right, max(elided))


def _arranged(layer: Layer, operand: Labelled, result: Sequence[str]) -> Value:
    """An operand with the axes of the result alone, in its order; the others are summed."""
    x, labels = operand
    if not set(result) <= set(labels):
        layer.refuse("its equation makes an axis that no operand has")
    gone = tuple(axis for axis, label in enumerate(labels) if label not in result)
    if gone:
        x = total(layer, x, gone, False)
    left = [label for label in labels if label in result]
    return transposed(layer, x, [left.index(label) for label in result])


def contracted(layer: Layer, one: Labelled, other: Labelled, result: Sequence[str]) -> Value:
    """The product of two operands, summed over the axes that the result has not.

    Axes of both that stay are those along which matrices are multiplied; of the others, those of one operand alone become rows
    or columns, and those of both that go are summed over.
    """
    (a, a_labels), (b, b_labels) = (
        _reduced(layer, x, labels, rest, result) for (x, labels), (_, rest) in ((one, other), (other, one))
    )
    shared = [label for label in a_labels if label in b_labels and label in result]
    summed = [label for label in a_labels if label in b_labels and label not in result]
    rows = [label for label in a_labels if label not in b_labels]
    columns = [label for label in b_labels if label not in a_labels]
    sizes: dict[str, Dim] = dict(zip(b_labels, b.shape, strict=True)) | dict(zip(a_labels, a.shape, strict=True))

    def size(labels: Sequence[str]) -> Dim:
        return product(sizes[label] for label in labels)

    a = transposed(layer, a, [a_labels.index(label) for label in (*shared, *rows, *summed)])
    b = transposed(layer, b, [b_labels.index(label) for label in (*shared, *summed, *columns)])
    outer = [sizes[label] for label in shared]
    if shared:
        a = reshaped(layer, a, [*outer, size(rows), size(summed)])
        b = reshaped(layer, b, [*outer, size(summed), size(columns)])
        y = layer.emit("matmul", a, b)
    else:
        a = reshaped(layer, a, [*(sizes[label] for label in rows), size(summed)])
        y = layer.emit("dense", a, reshaped(layer, b, [size(summed), size(columns)]))
    y = reshaped(layer, y, [sizes[label] for label in (*shared, *rows, *columns)])
    return transposed(layer, y, [[*shared, *rows, *columns].index(label) for label in result])


def _reduced(layer: Layer, x: Value, labels: Sequence[str], rest: Sequence[str], result: Sequence[str]) -> Labelled:
    """An operand whose axes that nothing else has are summed."""
    gone = tuple(axis for axis, label in enumerate(labels) if label not in rest and label not in result)
    return (
        (total(layer, x, gone, False), [label for axis, label in enumerate(labels) if axis not in gone])
        if gone
        else (x, labels)
    )
