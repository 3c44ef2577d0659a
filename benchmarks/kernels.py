"""Every kernel on layers of real networks: what the choice by cost loses against the fastest kernel.

It also fits the coefficients of the cost model to this machine; those in ``sparsec/kernels/costs.py`` were found so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import exp, log
from typing import Any

import numpy as np
from common import milliseconds, save
from scipy.optimize import nnls
from threadpoolctl import threadpool_limits

from sparsec.encodings import encode
from sparsec.ir import Array, TensorType
from sparsec.kernels import KERNELS, MEASURED, Coefficients, Epilogue, Task, WeightStore, choose
from sparsec.ops import OPS
from sparsec.text import Column

DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.01)
WINDOW = {"strides": (1, 1), "dilations": (1, 1), "padding": "same"}
ATTRS: dict[str, dict[str, Any]] = {
    "dense": {},
    "conv": WINDOW,
    "depthwise_conv": WINDOW,
    "conv_transpose": {"strides": (2, 2), "dilations": (1, 1), "crops": (0, 0, 0, 0)},
}
NOT_FITTED = ("cache_bytes", "thread_gain")


@dataclass(frozen=True)
class Layer:
    """A layer: its operator, its input without the batch, its kernel, and the batch sizes to try."""

    name: str
    op: str
    x: tuple[int, ...]
    kernel: tuple[int, ...]
    batches: tuple[int, ...] = (1,)


LAYERS = (
    Layer("dense 84-10", "dense", (84,), (84, 10), (1, 64)),
    Layer("dense 200-500", "dense", (200,), (200, 500), (1, 64)),
    Layer("dense 784-1000", "dense", (784,), (784, 1000), (1, 4, 16, 64)),
    Layer("dense 4096-4096", "dense", (4096,), (4096, 4096), (1, 16)),
    Layer("1x1 64-256 at 56", "conv", (56, 56, 64), (1, 1, 64, 256)),
    Layer("1x1 512-512 at 14", "conv", (14, 14, 512), (1, 1, 512, 512), (1, 8)),
    Layer("1x1 960-320 at 7", "conv", (7, 7, 960), (1, 1, 960, 320)),
    Layer("3x3 64-64 at 56", "conv", (56, 56, 64), (3, 3, 64, 64)),
    Layer("3x3 256-256 at 14", "conv", (14, 14, 256), (3, 3, 256, 256), (1, 8)),
    Layer("3x3 512-512 at 7", "conv", (7, 7, 512), (3, 3, 512, 512)),
    Layer("3x3 depthwise 96 at 56", "depthwise_conv", (56, 56, 96), (3, 3, 96, 1)),
    Layer("3x3 depthwise 960 at 7", "depthwise_conv", (7, 7, 960), (3, 3, 960, 1), (8,)),
    Layer("2x2 transposed 64-64 at 28", "conv_transpose", (28, 28, 64), (2, 2, 64, 64)),
)


@dataclass(frozen=True)
class Timed:
    """A task, and the milliseconds of each kernel that can run it."""

    layer: Layer
    task: Task
    milliseconds: dict[str, float]

    @property
    def chosen(self) -> str:
        """The kernel that the cost model chooses."""
        return choose(self.task).kernel.name

    @property
    def regret(self) -> float:
        """Its time over that of the fastest."""
        return self.milliseconds[self.chosen] / min(self.milliseconds.values())


def main() -> None:
    """Measure, report, and fit."""
    rng = np.random.default_rng(0)
    timed = [measure(layer, batch, density, rng) for layer in LAYERS for batch in layer.batches for density in DENSITIES]
    several = [item for item in timed if len(item.milliseconds) > 1]
    mean = exp(sum(log(item.regret) for item in several) / len(several))
    fitted = fit(timed)
    text = (
        "The median time of each kernel with one BLAS thread, the kernel that the cost model chooses, and its time over that\n"
        f"of the fastest kernel: {mean:.3f} in the geometric mean, {max(item.regret for item in several):.2f} at worst.\n\n"
        f"Coefficients fitted to these times: {', '.join(f'{name} {value:.3g}' for name, value in fitted.items())}."
    )
    facts = [
        {
            "layer": item.layer.name,
            "batch": item.task.x[0],
            "density": item.task.density,
            "milliseconds": item.milliseconds,
            "chosen": item.chosen,
            "regret": item.regret,
        }
        for item in timed
    ]
    columns = [
        Column("Layer"),
        Column("Batch", numeric=True),
        Column("Nonzero", numeric=True),
        Column("Kernels"),
        Column("Chosen"),
        Column("Over fastest", numeric=True),
    ]
    save("kernels", "Kernels", text, columns, [_row(item) for item in timed], {"layers": facts, "fitted": fitted})


def measure(layer: Layer, batch: int, density: float, rng: np.random.Generator) -> Timed:
    """The time of each kernel on one task."""
    task, store, x = make_task(layer, batch, density, rng)
    runs = {}
    for kernel in KERNELS:
        if kernel.op == layer.op and not kernel.missing() and not kernel.refuses(task):
            bound = kernel.bind(task, store.packed("kernel", kernel.packing, task.attrs), Epilogue())
            runs[kernel.name] = lambda bound=bound: bound(x)
    with threadpool_limits(1, user_api="blas"):
        return Timed(layer, task, milliseconds(runs))


def make_task(layer: Layer, batch: int, density: float, rng: np.random.Generator) -> tuple[Task, WeightStore, Array]:
    """A task with a random weight of that density, and a random input."""
    op = OPS[layer.op]
    attrs = op.complete(ATTRS[layer.op])
    kernel = rng.standard_normal(layer.kernel, np.float32)
    kernel[rng.random(layer.kernel) >= density] = 0
    store = WeightStore({"kernel": encode(kernel, op.matrix_rows[1], "csr")})
    x = rng.standard_normal((batch, *layer.x), np.float32)
    (y,) = op.infer(attrs, [TensorType("float32", x.shape), TensorType("float32", kernel.shape)])
    sizes = tuple(int(str(size)) for size in y.shape)
    return Task(layer.op, attrs, x.shape, sizes, "float32", store.weight("kernel"), store.nonzeros("kernel")), store, x


def fit(timed: Sequence[Timed]) -> dict[str, float]:
    """The coefficients that fit the times best, by least squares of relative errors; none is negative."""
    names = [field.name for field in fields(Coefficients) if field.name not in NOT_FITTED]
    nothing = replace(MEASURED, **dict.fromkeys(names, 0.0))
    units = [replace(nothing, **{name: 1.0}) for name in names]
    # A cost is linear in the coefficients: its factors are the costs with one of them 1 and the others 0.
    pairs = [(kernel, item) for item in timed for kernel in KERNELS if kernel.name in item.milliseconds]
    factors = np.array([[kernel.cost(item.task, unit) for unit in units] for kernel, item in pairs])
    nanoseconds = np.array([item.milliseconds[kernel.name] * 1e6 for kernel, item in pairs])
    solution, _ = nnls(factors / nanoseconds[:, None], np.ones(len(pairs)))
    return {**dict(zip(names, solution.tolist(), strict=True)), **{name: asdict(MEASURED)[name] for name in NOT_FITTED}}


def _row(item: Timed) -> tuple[str, ...]:
    times = ", ".join(f"{name.split('/')[1]} {time:.3g} ms" for name, time in item.milliseconds.items())
    return (
        item.layer.name,
        str(item.task.x[0]),
        f"{item.task.density:.0%}",
        times,
        item.chosen.split("/")[1],
        f"{item.regret:.2f}",
    )


if __name__ == "__main__":
    main()
