"""What TIFF and NumPy stacks have in common: frames that know nothing of the scan, which is said in the mapping."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychow.formats import dropping, position_files
from ptychow.formats.amplitudes import AMPLITUDES, as_counts
from ptychow.formats.base import mapped_number
from ptychow.formats.dropping import Pairing
from ptychow.formats.lazy import LazyFrames
from ptychow.formats.units import ELECTRONVOLT, wavelength_of
from ptychow.scan import Geometry, PositionUnit, Scan

KEYS = {
    **AMPLITUDES,
    "energy_ev": "number",
    "distance_m": "number",
    "detector_pixel_m": "number",
    "saturation": "counts from which values are not to be believed",
    **position_files.KEYS,
    **dropping.KEYS,
}


def scan_of_stack(
    stored: LazyFrames, positions: NDArray[np.float64], unit: PositionUnit, path: Path, mapping: Mapping[str, str]
) -> Scan:
    """The scan of stored frames and positions (M, 2) that lie elsewhere, with what the mapping says besides.

    Raises InputError where they do not pair up, and for what is no number.
    """
    pairing = Pairing.of(stored.shape[0], path, mapping)
    energy = mapped_number(mapping, "energy_ev", path)
    return Scan(
        frames=pairing.images(as_counts(stored, mapping, path)),
        positions=pairing.positions(positions),
        position_unit=unit,
        geometry=Geometry(
            wavelength=wavelength_of(energy * ELECTRONVOLT if energy else None),
            distance=mapped_number(mapping, "distance_m", path),
            detector_pixel=mapped_number(mapping, "detector_pixel_m", path),
        ),
        saturation=mapped_number(mapping, "saturation", path),
        raster=stored.raster if pairing.is_whole else None,
        name=path.name,
    )
