"""Which kernel and which packed form multiply with a weight."""

from __future__ import annotations

from dataclasses import dataclass

from sparsec.engine import packing
from sparsec.engine.steps import Planes, Product, Step
from sparsec.kernels import Packing, WeightStore
from sparsec.kernels.library import Isa
from sparsec.kernels.streams import DENSE_BLOCKS, POINTWISE_BLOCKS, WINDOW_BLOCKS


@dataclass(frozen=True)
class Choice:
    """How a step multiplies.

    Attributes:
        kernel: the kernel.
        packing: the form of the weight.
        reason: why, in one line.
    """

    kernel: str
    packing: Packing
    reason: str


def choose(step: Step, product: Product, x: Planes, store: WeightStore, isa: Isa, threads: int) -> Choice:
    """The kernel and packing for a step."""
    weight = store.weight(product.path)
    density = store.nonzeros(product.path) / max(weight.size, 1)
    if step.kernel == "vector":
        if isa.permutes:
            return Choice("slices", packing.slices(1, product.groups), f"{density:.1%} nonzero")
        return Choice("vector", packing.stream(DENSE_BLOCKS, 1, 1, product.groups), f"{density:.1%} nonzero")
    height = 4 if density > 0.35 else 1
    cut = WINDOW_BLOCKS if step.kernel == "windows" else DENSE_BLOCKS if len(weight.shape) == 2 else POINTWISE_BLOCKS
    return Choice(step.kernel, packing.stream(cut, height, 1, product.groups), f"{density:.1%} nonzero")
