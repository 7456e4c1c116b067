"""npz files with the arrays `diffraction`, `positions_px` and perhaps `positions_px_nominal` and `probe`.

diffraction: (N, H, W) counts. positions_px: (N, 2), (row, column) of each patch's top-left corner in object
pixels, as tike counts them; the probe's centre lies H//2, W//2 further. probe: (modes, H, W) complex, in any
scale. Nothing is said about wavelength, distance and pixel size, so they stay unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychow.formats.base import Format
from ptychow.formats.lazy import NumpyFrames
from ptychow.formats.numpy_files import npz_members, read_array
from ptychow.formats.probes import with_scaled_probe
from ptychow.scan import Scan


def recognises(path: Path) -> bool:
    """Whether the file is an npz with these arrays."""
    return {"diffraction", "positions_px"} <= set(npz_members(path))


def read(path: Path, mapping: Mapping[str, str]) -> Scan:
    """The scan, its probe scaled so that |probe|^2 sums to the mean counts of a frame (see metadata).

    Raises InputError where arrays are damaged, pickled, or do not fit together.
    """
    frames = NumpyFrames.open(path, "diffraction")
    members = npz_members(path)
    to_centre = np.array(frames.shape[1:], np.float64) // 2

    def centres(member: str) -> NDArray[Any]:
        corners = read_array(path, member)
        return corners + to_centre if corners.shape[-1:] == (2,) else corners  # Scan refuses any other shape

    scan = Scan(
        frames=frames,
        positions=centres("positions_px"),
        position_unit="px",
        probe=read_array(path, "probe") if "probe" in members else None,
        nominal_positions=centres("positions_px_nominal") if "positions_px_nominal" in members else None,
        name=path.name,
    )
    return scan if scan.probe is None else with_scaled_probe(scan, scan.probe)


FORMAT = Format(
    name="npz",
    title="npz (diffraction, positions_px)",
    recognises=recognises,
    read=read,
    keys={},
)
