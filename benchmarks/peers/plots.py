"""Plots of speed against sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from peers.crossover import Curve, curves
from peers.engines import ENGINES, REFERENCE, SPARSEC
from peers.facts import Fact
from peers.workloads import BLOCKS, LAYERS, NETWORKS, WORKLOADS

PLOTS = {"Layers": ("layers", LAYERS), "Layers with blocks": ("blocks", BLOCKS), "Networks": ("networks", NETWORKS)}
LEAST_POINTS = 3
"""Sparsities that make a curve."""

COLUMNS = 3
PANEL = (4.2, 3.0)
"""Width and height of a panel, in inches."""


def plot_groups(facts: Sequence[Fact], folder: Path) -> list[tuple[str, str]]:
    """Plot those of layers, layers with blocks, and networks that were measured at several sparsities; older plots go.

    Args:
        facts: what was measured.
        folder: for the files.

    Returns:
        title and file of each.
    """
    found = []
    for title, (name, workloads) in PLOTS.items():
        names = {workload.name for workload in workloads}
        own = curves((fact for fact in facts if fact.workload in names), LEAST_POINTS)
        file = f"native-{name}.svg"
        (folder / file).unlink(missing_ok=True)
        if own:
            plot_curves(own, folder / file)
            found.append((title, file))
    return found


def plot_curves(curves: Sequence[Curve], path: Path) -> None:
    """Plot how many times faster than the reference every engine is, against sparsity, one panel for each curve.

    Args:
        curves: what to plot.
        path: the SVG to write.
    """
    columns = min(COLUMNS, len(curves))
    rows = ceil(len(curves) / columns)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for panel, curve in zip(panels, curves, strict=False):
        for index, engine in enumerate(ENGINES.values()):
            points = curve.points(engine.name)
            if points:
                x, y = zip(*((100 * sparsity, 1.0 / ratio) for sparsity, ratio in points), strict=True)
                # Dense originals do not change with the sparsity.
                style = "o-" if engine.sparse else ("-" if engine.name == REFERENCE else "--")
                wide = 2.2 if engine.name == SPARSEC else 1.2
                panel.plot(x, y, style, color=f"C{index}", label=engine.title, markersize=3, linewidth=wide)
        first = curve.first
        threads = "1 thread" if first.threads == 1 else f"{first.threads} threads"
        panel.set_title(f"{WORKLOADS[first.workload].title}, batch {first.batch}, {threads}", fontsize=9)
        panel.set_yscale("log", base=2)
        panel.yaxis.set_major_formatter("{x:g}")
        panel.set_xlabel("zeros, %")
        panel.grid(alpha=0.3)
    for panel in panels[len(curves) :]:
        panel.set_visible(False)
    for row in range(rows):
        panels[row * columns].set_ylabel("times faster than ONNX Runtime")
    entries = {label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=min(len(entries), 5), fontsize=8)
    # The same figures make the same file; letters drawn as outlines would be most of it.
    with mpl.rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
