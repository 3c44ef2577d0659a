"""Convolutions over three axes as convolutions over the last two of them.

Where a position meets several positions along the first of the axes, the depth, these become input channels: what it meets of
a plane lies beside what it meets of the next. So a plane of the output is a convolution of one plane with as many times the
channels as the window is deep, whose weight has the same entries in another order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from sparsec.encodings import Csr
from sparsec.engine.drafts import Draft, strides
from sparsec.engine.phases import Phases, moved
from sparsec.kernels import Weight


@dataclass(frozen=True)
class Layers:
    """How the weight of a convolution over three axes is arranged.

    Attributes:
        depth: of the window.
        plane: what is done to the convolution over the last two axes where it is a transposed one, else ``None``.
    """

    depth: int
    plane: Phases | None = None

    @property
    def name(self) -> str:
        """Unique among the arrangements of a weight."""
        return f"depth{self.depth}" + ("" if self.plane is None else f"/{self.plane.name}")

    def weight(self, weight: Weight) -> Weight:
        """The shape of the weight of the convolution over two axes."""
        folded = self._folded(weight)
        return folded if self.plane is None else self.plane.weight(folded)

    def arrange(self, csr: Csr, weight: Weight) -> Csr:
        """The compressed rows of the weight of the convolution over two axes.

        Args:
            csr: those of the convolution over three.
            weight: the shape of that.
        """
        folded = self._turned(csr, weight, (self.depth, prod(weight.shape[1:-2])))
        return folded if self.plane is None else self.plane.arrange(folded, self._folded(weight))

    def restore(self, csr: Csr, weight: Weight) -> Csr:
        """What :meth:`arrange` was given."""
        folded = csr if self.plane is None else self.plane.restore(csr, self._folded(weight))
        return self._turned(folded, weight, (prod(weight.shape[1:-2]), self.depth))

    def _channels(self, weight: Weight) -> tuple[int, int]:
        """The input and output channels."""
        a, b = weight.shape[-2:]
        return (a, b) if self.plane is None else (b, a)

    def _folded(self, weight: Weight) -> Weight:
        """The shape of the weight before phases."""
        inputs, outputs = self._channels(weight)
        ends = (self.depth * inputs, outputs)
        rows = 3 if self.plane is None else 2
        return replace(weight, shape=(*weight.shape[1:-2], *(ends if self.plane is None else ends[::-1])), rows=(rows,))

    def _turned(self, csr: Csr, weight: Weight, sizes: tuple[int, int]) -> Csr:
        """Entries for elements of a window of these two sizes as those of one in which the sizes have changed places."""
        inputs, outputs = self._channels(weight)
        outer, inner = np.divmod(np.arange(prod(sizes)), sizes[1])
        places = np.arange(outputs)[:, None] * prod(sizes) + inner * sizes[0] + outer
        return moved(csr, inputs, places, outputs, prod(sizes))


@dataclass(frozen=True)
class Depth:
    """How a window goes over the depth.

    Attributes:
        size: of the window.
        stride: between neighbouring output positions; of a transposed convolution, between what input positions add to.
        dilation: between neighbouring elements of the window.
        pad: the zeros before the input; of a transposed convolution, the positions that are cut off.
        transposed: whether it is one of a transposed convolution.
    """

    size: int
    stride: int
    dilation: int
    pad: int
    transposed: bool = False

    @property
    def is_point(self) -> bool:
        """Whether every position meets itself alone."""
        return (self.size, self.stride, self.pad) == (1, 1, 0)

    def meets(self, tap: int, x: int, y: int) -> tuple[range, range]:
        """The output positions that meet something with an element of the window, and what they meet.

        Args:
            tap: the element.
            x: how many input positions there are.
            y: how many output positions there are.
        """
        shift = tap * self.dilation - self.pad
        given, found = (x, y) if self.transposed else (y, x)
        # Of a convolution, output position i meets i * stride + shift; of a transposed one it is the other way round.
        first = max(-(shift // self.stride), 0)
        stop = max(min(given, (found - 1 - shift) // self.stride + 1), first)
        near, far = range(first, stop), range(first * self.stride + shift, stop * self.stride + shift, self.stride)
        return (far, near) if self.transposed else (near, far)


def gather_depth(draft: Draft, x: str, depth: Depth, planes: int, groups: int) -> str:
    """What the planes of an output meet, each as many times the channels as the window is deep; returns its name.

    Args:
        draft: to which the steps are added.
        x: a value ``[samples, depth, height, width, channels]``.
        depth: how the window goes over the depth.
        planes: of each sample of the output.
        groups: into how many parts channels are divided; all channels of a part follow one another.
    """
    samples, before, height, width, channels = draft.shape(x)
    if depth.is_point:
        return draft.view(x, (samples * before, height, width, channels))
    shape = (samples * planes, height, width, depth.size * channels)
    met = [depth.meets(tap, before, planes) for tap in range(depth.size)]
    full = all(len(outputs) == planes for outputs, _ in met)
    y = draft.name(shape) if full else draft.broadcast(np.zeros(1, np.float32), shape)
    of_x, of_y, each = strides(draft.shape(x)), strides(shape), channels // groups
    for tap, (outputs, inputs) in enumerate(met):
        if not outputs:
            continue
        axes = (
            (samples, of_x[0], planes * of_y[0]),
            (len(outputs), inputs.step * of_x[1], outputs.step * of_y[0]),
            (height, of_x[2], of_y[1]),
            (width, of_x[3], of_y[2]),
            (groups, each * of_x[4], depth.size * each * of_y[3]),
            (each, of_x[4], of_y[3]),
        )
        draft.copy(x, y, axes, (inputs.start * of_x[1], outputs.start * of_y[0] + tap * each * of_y[3]))
    return y
