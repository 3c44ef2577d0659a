"""The table of operations on tensors that are read, docs/operations.md, from the functions that read them.

``python tests/operation_table.py`` writes the page; ``test_operation_table.py`` fails where it is stale.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sparsec.frontends.layer import OPERATIONS

PAGE = Path(__file__).parents[1] / "docs" / "operations.md"

HEAD = """\
# Operations on tensors

What is read between layers of a functional model: nodes of `keras.ops` and plain operators (`a + b`, `x[:, 0]`, `a @ b`) in
Keras 3, and the layers TFOpLambda and SlicingOpLambda by which Keras 2 stands for functions of TensorFlow. They are named as a
model's configuration names them: by class in Keras 3, by function below `tf` in Keras 2. `tests/operation_table.py` writes this
page.

An operation that is not here is refused by name, and so is:

- what mixes samples: a reduction, slice, concatenation or transposition of the batch axis, or of all axes;
- what depends on the data: `where` with a condition alone, boolean masks, positions that are computed;
- a tensor whose values depend on an open size; `tf.shape` is read where it ends in the target of a reshape or as a number;
- casts to narrow integers, which cut values off, and arithmetic on them;
- `tf.einsum`, `x == number` and `x != number` in files of Keras 2, which do not hold their operands: use `tf.matmul` and
  `tf.math.equal`.

"""


def page() -> str:
    """The contents of docs/operations.md."""
    families: dict[str, list[str]] = {}
    for name, function in OPERATIONS.items():
        families.setdefault(function.__module__, []).append(name)
    rows = ["| operations | Keras 3 | Keras 2 |", "|---|---|---|"]
    for module, names in sorted(families.items()):
        title = (sys.modules[module].__doc__ or "").splitlines()[0].partition(":")[0].rstrip(".")
        keras, tensorflow = (
            ", ".join(f"`{name}`" for name in sorted(names) if name[0].isupper() is upper) or "-" for upper in (True, False)
        )
        rows.append(f"| {title} | {keras} | {tensorflow} |")
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
