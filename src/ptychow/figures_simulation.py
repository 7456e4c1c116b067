"""The picture of a simulated scan: truth, beam, and what the detector saw."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ptychow.figures import (
    AMPLITUDE,
    CYCLIC,
    INTENSITY,
    LEAST_SPAN,
    PHASE,
    centred,
    new_figure,
    robust_limits,
    save_figure,
    show_image,
)
from ptychow.optics.beam import intensity
from ptychow.scan import ObjectImage, Scan, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def simulation_figure(path: str | Path, scan: Scan, *, most: int = 2000) -> None:
    """Truth and scan points, the beam at the sample, mean pattern and three single patterns.

    The mean is over at most `most` frames. The scan needs probe and object.
    """
    assert scan.object is not None and scan.probe is not None
    figure, axes = new_figure(2, 4, title=f"{scan.name}: {len(scan)} frames, {scan.object.source}")
    pixel = scan.geometry.pixel_size
    truth, origin = scan.object.image, scan.object.origin
    show_image(axes[0, 0], np.angle(truth), label="Phase", unit="rad", pixel_size=pixel, colours=PHASE, origin=origin)
    show_image(
        axes[0, 1],
        np.abs(truth),
        label="Amplitude, scan points",
        unit="amplitude",
        limits=robust_limits(np.abs(truth), least_span=LEAST_SPAN),
        pixel_size=pixel,
        colours=AMPLITUDE,
        origin=origin,
    )
    _draw_points(axes[0, 1], scan.object, scan.positions_px)
    beam = intensity(scan.probe)
    show_image(
        axes[0, 2],
        np.sqrt(beam),
        label="Beam at the sample",
        unit="√ photons",
        pixel_size=pixel,
        origin=centred(beam),
        colours=INTENSITY,
        limits=(0.0, float(np.sqrt(beam.max()))),
    )
    show_image(
        axes[0, 3],
        np.angle(scan.probe[0]),
        label="Phase of the first mode",
        unit="rad",
        pixel_size=pixel,
        origin=centred(beam),
        colours=CYCLIC,
        limits=(-np.pi, np.pi),
    )
    mean = scan.frames[spread(len(scan), most)].mean(axis=0, dtype=np.float64)
    chosen = spread(len(scan), 5)[1:4]
    patterns = {"Mean pattern": mean} | {f"Frame {index}": scan.frames[int(index)] for index in chosen}
    logarithms = {label: np.log10(pattern + 1.0) for label, pattern in patterns.items()}
    limits = robust_limits(*logarithms.values())
    for panel, (label, pattern) in zip(axes[1], logarithms.items(), strict=False):
        show_image(
            panel,
            pattern,
            label=label,
            unit="log10(counts + 1)",
            limits=limits,
            pixels="detector pixels",
            colours=INTENSITY,
        )
    for panel in axes[1, len(logarithms) :]:
        panel.set_axis_off()
    save_figure(path, figure)


def _draw_points(axes: Axes, image: ObjectImage, positions: NDArray[np.float64], most: int = 2000) -> None:
    """Probe centres on a drawn object: dots, or for more than `most` of them the box that they fill."""
    left, right, _, top = axes.images[0].get_extent()
    scale = (right - left) / image.image.shape[1]
    rows, columns = ((positions - image.origin + 0.5) * scale + (top, left)).T
    if len(rows) <= most:
        axes.plot(columns, rows, ".", color="tab:orange", markersize=2)
        return
    corners = np.array([(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)])
    ends = np.array([(rows.min(), columns.min()), (rows.max(), columns.max())])
    axes.plot(ends[corners[:, 1], 1], ends[corners[:, 0], 0], color="tab:orange", linewidth=1)
