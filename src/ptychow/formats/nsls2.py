"""scan_NUMBER.h5 as the ptychography programs of NSLS-II (HXN, CSX) write and read it.

`diffamp` (N, x, y) are amplitudes, square roots of counts, with zero frequency in the corner: the beamline's converters
shift it there. `points` (2, N) are x and y in micrometres, which their reconstruction lays along the first and the
second axis of a frame. x is the motor's: seen along a beam that meets the sample's stage at `angle` (degrees) it is
shorter by |cos|, beyond 45 degrees, where z is scanned, by |sin|. `z_m`, `lambda_nm`, `ccd_pixel_um`: the geometry.

Sources: NSLS-II/ptycho_gui and the pipelines that took over its conventions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats import dropping, position_files
from ptychow.formats.base import Format
from ptychow.formats.dropping import Pairing
from ptychow.formats.hdf5_files import holds, open_hdf5, read_hdf5_number, read_hdf5_real
from ptychow.formats.lazy import HDF5Frames
from ptychow.formats.position_files import place
from ptychow.frame_views import RearrangedFrames, SquaredFrames
from ptychow.scan import Geometry, Scan

FRAMES, POINTS = "diffamp", "points"
SCALES = {"lambda_nm": 1e-9, "z_m": 1.0, "ccd_pixel_um": 1e-6}
Z_IS_SCANNED = 45.0  # degrees
KEYS = {
    "fftshifted": "yes (zero frequency in the corner, as the beamline's converters leave it) or no",
    **dropping.KEYS,
    "positions_file": position_files.KEYS["positions_file"],
}


def recognises(path: Path) -> bool:
    """Whether the file is HDF5 with these datasets."""
    if not h5py.is_hdf5(path):
        return False
    with open_hdf5(path) as file:
        return holds(file, FRAMES, path) and any(holds(file, name, path) for name in (POINTS, *SCALES))


def read(path: Path, mapping: Mapping[str, str]) -> Scan:
    """The scan. Raises InputError for what is missing or damaged, and for positions that do not pair with frames."""
    shifted = mapping.get("fftshifted", "yes")
    if shifted not in ("yes", "no"):
        raise InputError("not understood", file=path, field="fftshifted", found=shifted, expected="yes or no")
    stored = HDF5Frames.open(path, FRAMES)
    frames = SquaredFrames(RearrangedFrames(stored, transposed=True, shifted=shifted == "yes"))
    pairing = Pairing.of(stored.shape[0], path, mapping)
    with open_hdf5(path) as file:
        wavelength, distance, pixel = (_length(file, name, path) for name in SCALES)
        angle = read_hdf5_number(file, "angle", path) or 0.0
        placed = place(lambda: (_positions(file, path, angle), "m"), pairing, mapping)
    return Scan(
        frames=pairing.images(frames),
        positions=placed.positions,
        position_unit=placed.unit,
        nominal_positions=placed.nominal,
        geometry=Geometry(wavelength=wavelength, distance=distance, detector_pixel=pixel),
        name=path.name,
        metadata={"angle": f"{angle:g} degrees: x times {foreshortening(angle):.6g}"} | placed.said,
    )


def _length(file: h5py.File, name: str, path: Path) -> float | None:
    """In metres; None where it is not there, or 0, as writers say it that do not know it."""
    found = read_hdf5_number(file, name, path)
    return found * SCALES[name] if found else None


def _positions(file: h5py.File, path: Path, angle: float) -> NDArray[np.float64]:
    """(N, 2) of (row, column) in metres."""
    if not holds(file, POINTS, path):
        raise InputError("holds no positions", file=path, expected=f"/{POINTS}", remedy=position_files.REMEDY)
    points = read_hdf5_real(file, POINTS, path)
    if points.ndim != 2 or points.shape[0] != 2:
        found, expected = f"shape {points.shape}", "(2, N): x, y in micrometres"
        raise InputError("not the points of a scan", file=path, field=POINTS, found=found, expected=expected)
    x, y = points * 1e-6
    return np.column_stack((y, x * foreshortening(angle)))


def foreshortening(angle: float) -> float:
    """What a step of the x motor is seen as, where the stage is turned by `angle` (degrees)."""
    turned = np.deg2rad(angle)
    return float(abs(np.cos(turned) if abs(angle) <= Z_IS_SCANNED else np.sin(turned)))


FORMAT = Format(name="nsls2", title="NSLS-II scan (diffamp, points)", recognises=recognises, read=read, keys=KEYS)
