"""Adaptive pooling: the windows follow from the sizes, which are known, and become pools of fixed windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sparsec.frontends.layer import Layer, Value, reads
from sparsec.frontends.layers.convolutional import Window, spatial_rank
from sparsec.frontends.layers.formats import in_channels_last


@dataclass(frozen=True)
class _Run:
    """Windows of one size at one distance from each other, along one axis."""

    start: int
    window: int
    stride: int
    count: int

    @property
    def stop(self) -> int:
        return self.start + (self.count - 1) * self.stride + self.window


def _runs(size: int, target: int) -> Iterator[_Run]:
    """The windows from ``floor(i size / target)`` to before ``ceil((i + 1) size / target)``, in as few runs as they make."""
    windows = [(i * size // target, -(-(i + 1) * size // target)) for i in range(target)]
    first = 0
    while first < target:
        start, stop = windows[first]
        stride = windows[first + 1][0] - start if first + 1 < target else 0
        count = 1
        while stride and first + count < target and windows[first + count] == (start + count * stride, stop + count * stride):
            count += 1
        yield _Run(start, stop - start, stride if count > 1 else 1, count)
        first += count


def _pool(layer: Layer, op: str) -> Value:
    rank = spatial_rank(layer)
    sizes = layer.integers("output_size", rank)
    return in_channels_last(layer, layer.float_input, rank, lambda x: _pooled(layer, op, x, sizes))


def _pooled(layer: Layer, op: str, x: Value, sizes: Sequence[int]) -> Value:
    """One pool where the windows of every axis are one run; else the axes by turns, the runs of each one after the other."""
    runs = [list(_runs(layer.size(x, axis), target)) for axis, target in enumerate(sizes, start=1)]
    if all(len(along) == 1 for along in runs):
        return _fixed(layer, op, x, [along[0] for along in runs])
    whole = _Run(0, 1, 1, 1)
    for axis, along in enumerate(runs):
        parts = [
            _fixed(layer, op, _part(layer, x, axis + 1, run), [run if other == axis else whole for other in range(len(runs))])
            for run in along
        ]
        x = layer.emit("concat", *parts, axis=axis + 1) if len(parts) > 1 else parts[0]
    return x


def _part(layer: Layer, x: Value, axis: int, run: _Run) -> Value:
    if (run.start, run.stop) == (0, x.shape[axis]):
        return x
    return layer.emit("slice", x, axis=axis, start=run.start, stop=run.stop)


def _fixed(layer: Layer, op: str, x: Value, runs: Sequence[_Run]) -> Value:
    window = Window(tuple(run.window for run in runs), tuple(run.stride for run in runs), (1,) * len(runs))
    if set(window.size) == {1}:
        return x
    return layer.emit(op, x, window=window.size, **window.attributes(("explicit", (0,) * (2 * len(runs)))))


@reads(*(f"AdaptiveAveragePooling{rank}D" for rank in (1, 2, 3)))
def adaptive_average_pooling(layer: Layer) -> Value:
    """AdaptiveAveragePooling1D, 2D and 3D."""
    return _pool(layer, "avg_pool")


@reads(*(f"AdaptiveMaxPooling{rank}D" for rank in (1, 2, 3)))
def adaptive_max_pooling(layer: Layer) -> Value:
    """AdaptiveMaxPooling1D, 2D and 3D."""
    return _pool(layer, "max_pool")
