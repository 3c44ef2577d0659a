"""The table of kernels, and the choice of one for a task."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sparsec.kernels.base import Kernel, Task
from sparsec.kernels.convolution import CONV_BLAS, CONV_CSR
from sparsec.kernels.costs import ADVANTAGE, MEASURED, Coefficients
from sparsec.kernels.dense import DENSE_BLAS, DENSE_CSR
from sparsec.kernels.depthwise import DEPTHWISE_TAPS
from sparsec.kernels.transposed import CONV_TRANSPOSE_BLAS, CONV_TRANSPOSE_CSR

KERNELS: Final = (
    DENSE_BLAS,
    DENSE_CSR,
    CONV_BLAS,
    CONV_CSR,
    DEPTHWISE_TAPS,
    CONV_TRANSPOSE_BLAS,
    CONV_TRANSPOSE_CSR,
)
"""Every kernel. The first row of an operator is the one that runs every task, and that others have to beat."""

KERNEL_OPS: Final = frozenset(kernel.op for kernel in KERNELS)
"""The operators that have kernels; all others run as their reference evaluation."""


@dataclass(frozen=True)
class Choice:
    """The kernel chosen for a task.

    Attributes:
        kernel: the kernel.
        cost: its estimated nanoseconds.
        reason: why it was chosen, in one line.
        missing: packages that are not installed and would have given a faster kernel.
    """

    kernel: Kernel
    cost: float
    reason: str
    missing: tuple[str, ...] = ()


def choose(task: Task, kernels: Iterable[Kernel] = KERNELS, coefficients: Coefficients = MEASURED) -> Choice:
    """The kernel with the lowest estimate; one that is not the operator's first must beat that by a margin.

    Args:
        task: what is to be run; its operator is one of :data:`KERNEL_OPS`.
        kernels: the table.
        coefficients: of the cost model.
    """
    first, *others = [kernel for kernel in kernels if kernel.op == task.op]
    baseline = first.cost(task, coefficients)
    best, cost = first, baseline
    absent: list[tuple[float, tuple[str, ...]]] = []
    compared = []
    for kernel in others:
        refusal = kernel.refuses(task)
        if refusal:
            compared.append(f"{kernel.name} cannot: {refusal}")
            continue
        estimate = kernel.cost(task, coefficients)
        compared.append(f"{kernel.name} {_duration(estimate)}")
        if estimate >= ADVANTAGE * baseline:
            continue
        if kernel.missing():
            absent.append((estimate, kernel.missing()))
            compared[-1] += f" needs {', '.join(kernel.missing())}"
        elif estimate < cost:
            best, cost = kernel, estimate
    missing = next((packages for estimate, packages in sorted(absent) if estimate < cost), ())
    rest = [f"{first.name} {_duration(baseline)}"] if best is not first else []
    rest += [entry for entry in compared if not entry.startswith(f"{best.name} ")]
    against = f" against {', '.join(rest)}" if rest else ""
    return Choice(best, cost, f"{task.density:.1%} nonzero: {_duration(cost)}{against}", missing)


def _duration(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e3:.3g} us" if nanoseconds < 1e6 else f"{nanoseconds / 1e6:.3g} ms"
