"""The plot of the demo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sparsec.demo.sweep import SPARSITIES, Curve
from sparsec.extras import require
from sparsec.files import replacing

MARKERS = {"weight": "o", "unit": "s"}


def plot_curves(curves: Mapping[str, Sequence[Curve]], path: Path) -> None:
    """Plot accuracy against sparsity, one panel for each network.

    Args:
        curves: by title of the network.
        path: the PNG to write.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figures = require("matplotlib.figure", extra="demo", purpose="to plot")
    figure = figures.Figure(figsize=(5.2 * len(curves), 3.8), layout="constrained")
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for panel, (title, own) in zip(panels, curves.items(), strict=True):
        for curve in own:
            percents = [100 * value for value in curve.accuracies]
            panel.plot([100 * k for k in SPARSITIES], percents, marker=MARKERS[curve.method], label=f"{curve.method} pruning")
        panel.set(title=title, xlabel="sparsity, %", ylim=(0, 102))
        panel.grid(alpha=0.3)
        panel.legend(loc="lower left")
    panels[0].set_ylabel("accuracy on 1,000 digits, %")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
