"""What the native engine is to reach; ``native.py --check`` compares it with what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from peers.workloads import BLOCKS, LAYERS, NETWORKS, Workload


class Measure(Enum):
    """A ratio of two times in one run; its value is a title."""

    SPEED = "times faster than ONNX Runtime"
    INT8 = "times faster than ONNX Runtime int8"
    DEEPSPARSE = "times faster than DeepSparse"
    AVX2 = "speed with AVX2 over that with AVX-512"
    SCALING = "gain by threads over that of ONNX Runtime"


@dataclass(frozen=True)
class Target:
    """What one workload is to reach.

    Attributes:
        measure: in what.
        workload: its name.
        batch: the number of samples.
        least: the values to reach, by the share of zeros.
        threads: how many may be used.
    """

    measure: Measure
    workload: str
    batch: int
    least: Mapping[float, float]
    threads: int = 1


USUAL = (0.8, 0.9, 0.95)
"""Shares of zeros that everything is measured at."""

PAYING = (0.6, 0.7, *USUAL)
"""Shares of zeros at which no network is to be slower than ONNX Runtime."""

NOISE = 0.05
"""Two engines are as fast as each other where their times differ by less than this."""

DEEPSPARSE_MEDIAN = 1.5
"""How many times faster than DeepSparse the median of layers and networks is to be; those with blocks do not count."""

MEMORY = {"resident": 1 / 3, "peak": 1 / 2, "ready": 1.0}
"""The most of what ONNX Runtime takes for a network of 26 million parameters: memory, and time until it can be called."""


def _speeds(names: str, *least: float) -> list[Target]:
    """The same for several layers at the usual sparsities."""
    return [Target(Measure.SPEED, name, 1, dict(zip(USUAL, least, strict=True))) for name in names.split()]


def _at_ninety(least: Mapping[str, float], batch: int = 1) -> list[Target]:
    return [Target(Measure.SPEED, name, batch, {0.9: value}) for name, value in least.items()]


def _everywhere(measure: Measure, workloads: Iterable[Workload], least: Mapping[float, float]) -> list[Target]:
    return [Target(measure, workload.name, batch, least) for workload in workloads for batch in workload.batches]


_COMPARED = [network for network in NETWORKS if network.name in ("mobilenet", "resnet50")]

TARGETS = (
    *_speeds("1x1-512-14 1x1-256-28 1x1-1024-7", 2.4, 4.6, 7.5),
    *_speeds("3x3-64-56", 2.2, 3.4, 4.6),
    *_speeds("3x3-128-28 3x3-256-14 3x3-512-7", 2.4, 4.2, 6.2),
    *(
        target
        for batch, least in ((1, 7.2), (16, 5.4), (64, 5.8), (256, 5.5))
        for target in _at_ninety({"dense-4096": least}, batch)
    ),
    *_at_ninety(dict.fromkeys(("1x1-512-14-4x1", "1x1-256-28-4x1", "1x1-1024-7-4x1"), 8.0)),
    *_at_ninety(dict.fromkeys(("3x3-64-56-4x1", "3x3-128-28-4x1", "3x3-256-14-4x1", "3x3-512-7-4x1"), 5.0)),
    *_at_ninety({"dense-4096-4x1": 9.0}, batch=64),
    *_speeds("resnet50", 2.0, 3.3, 4.6),
    *_speeds("mobilenet", 1.9, 2.6, 3.1),
    *_at_ninety({"mobilenetv2": 1.8, "efficientnetb0": 1.3, "densenet121": 1.8, "inceptionv3": 2.5}),
    *_at_ninety({"lenet300": 1.8, "lenet5": 4.0}),
    Target(Measure.SPEED, "resnet50", 1, {0.0: 0.7}),
    *_everywhere(Measure.SPEED, NETWORKS, dict.fromkeys(PAYING, 1.0)),
    Target(Measure.INT8, "resnet50", 1, {0.9: 1.0}),
    *_everywhere(Measure.DEEPSPARSE, (*LAYERS, *_COMPARED), dict.fromkeys(USUAL, 1.0 - NOISE)),
    *_everywhere(Measure.DEEPSPARSE, BLOCKS, {0.9: 1.0 - NOISE}),
    *_everywhere(Measure.AVX2, (*LAYERS, *NETWORKS), dict.fromkeys(USUAL, 0.6)),
    *_everywhere(Measure.AVX2, BLOCKS, {0.9: 0.6}),
    Target(Measure.SCALING, "resnet50", 1, {0.9: 0.9}, threads=2),
)
