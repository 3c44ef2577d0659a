"""Kernels of ``depthwise_conv``: one multiplication by a vector of channels for every element of the window."""

from __future__ import annotations

from typing import Final

import numpy as np

from sparsec.ir import Array
from sparsec.kernels.base import Epilogue, Kernel, Run, Task
from sparsec.kernels.costs import Coefficients
from sparsec.kernels.weights import TENSOR
from sparsec.ops.base import ints
from sparsec.ops.windows import axis_pads, blocks, padded, taps

BLOCK_BYTES: Final = 1 << 18
"""Output worked on at a time: it is read and written once for every element of the window, so it stays in the cache."""


def _cost(task: Task, c: Coefficients) -> float:
    return c.call + task.positions * task.weight.size * c.tap


def _bind_taps(task: Task, kernel: Array, epilogue: Epilogue) -> Run:
    window, (channels, multiplier) = kernel.shape[:-2], kernel.shape[-2:]
    strides, dilations = ints(task.attrs, "strides"), ints(task.attrs, "dilations")
    pads = axis_pads(task.attrs, task.x[1:-1], window)
    # Repeated along the last spatial axis, so that NumPy multiplies a whole row of positions in one loop. The channels of the
    # input meet [channels, multiplier] of the kernel; without a multiplier that is one axis less.
    vectors = [kernel[tap] if multiplier > 1 else kernel[tap][:, 0] for tap in np.ndindex(*window)]
    vectors = [np.broadcast_to(vector, (task.y[-2], *vector.shape)).copy() for vector in vectors]

    def run(x: Array) -> Array:
        y = np.empty(task.y, x.dtype)
        target = y if multiplier == 1 else y.reshape(*task.y[:-1], channels, multiplier)
        views = [view for _, view in taps(padded(x, pads), window, strides, dilations)]
        if multiplier != 1:
            views = [view[..., None] for view in views]
        for block in blocks(task.y[:-1], task.y[-1] * x.itemsize, BLOCK_BYTES):
            part = target[block]
            product = np.empty_like(part)
            np.multiply(views[0][block], vectors[0], out=part)
            for view, vector in zip(views[1:], vectors[1:], strict=True):
                np.multiply(view[block], vector, out=product)
                part += product
            epilogue(y[block])
        return y

    return run


DEPTHWISE_TAPS = Kernel("depthwise_conv/taps", "depthwise_conv", TENSOR, _cost, _bind_taps)
