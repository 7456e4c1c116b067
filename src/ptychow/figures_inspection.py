"""The picture of `ptychow inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptychow.figures import INTENSITY, new_figure, save_figure, show_image
from ptychow.inspection import Inspection
from ptychow.words import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def inspection_figure(path: str | Path, found: Inspection) -> None:
    """Mean pattern (bad pixels marked), positions in their order, counts of a frame over positions and over
    time.
    """
    figure, axes = new_figure(2, 2, panel=(5.6, 4.2), title=f"{found.scan.name}: {len(found.scan):,} frames")
    pattern = np.log10(np.maximum(found.frames.mean, 0) + 1)
    rows, columns = np.nonzero(~found.good)
    label = f"Mean pattern, {counted(len(rows), 'bad pixel')} (blue)" if len(rows) else "Mean pattern"
    unit, pixels = "log10(counts + 1)", "detector pixels"
    show_image(axes[0, 0], pattern, label=label, unit=unit, pixels=pixels, colours=INTENSITY)
    # The more there are, the smaller they are marked: what lies below stays visible.
    size = float(np.clip(40 / np.sqrt(max(len(rows), 1)), 0.5, 4))
    axes[0, 0].plot(columns, rows, ".", color="tab:cyan", markersize=size, markeredgewidth=0)
    order = np.arange(len(found.scan))
    _scatter(axes[0, 1], found, order, label=f"Positions: {found.pattern.kind}", unit="frame", colours="viridis")
    _scatter(
        axes[1, 0],
        found,
        found.frames.totals,
        label="Counts over the positions",
        unit="counts a frame",
        colours=INTENSITY,
    )
    axes[1, 1].plot(order, found.frames.totals, linewidth=0.8)
    axes[1, 1].set_ylim(bottom=0)
    axes[1, 1].set_title("Counts over time", fontsize="medium")
    axes[1, 1].set_xlabel("frame", fontsize="small")
    axes[1, 1].set_ylabel("counts a frame", fontsize="small")
    axes[1, 1].tick_params(labelsize="small")
    save_figure(path, figure)


def _scatter(axes: Axes, found: Inspection, values: np.ndarray, *, label: str, unit: str, colours: str) -> None:
    """`values` (N,) as the colours of points at the positions, rows downward."""
    scale, length = (1.0, "object pixels") if found.scan.position_unit == "px" else (1e6, "µm")
    rows, columns = found.scan.positions.T * scale
    size = float(np.clip(2e4 / len(values), 0.5, 30))  # about square points that fill the panel
    points = axes.scatter(columns, rows, c=values, s=size, cmap=colours, linewidths=0)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.set_title(label, fontsize="medium")
    axes.set_xlabel(f"x ({length})", fontsize="small")
    axes.set_ylabel(f"y ({length})", fontsize="small")
    axes.tick_params(labelsize="small")
    bar = axes.figure.colorbar(points, ax=axes, shrink=0.9)
    bar.set_label(unit, fontsize="small")
    bar.ax.tick_params(labelsize="small")
