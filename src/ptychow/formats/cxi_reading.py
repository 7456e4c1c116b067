"""Reading CXI files, PtychoW's own and others'; `ptychow.formats.cxi` says what lies where.

What others do differently: masks in several places, for every frame or shared, with bits for many reasons;
`translation` in any of four places, and across; no probe, or one with more axes; pictures in `image_1` that are no
object of this scan. NXcxi_ptycho is CXI with more names, so `complete` serves both.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats.cxi_mask import read_masks
from ptychow.formats.dropping import Pairing
from ptychow.formats.hdf5_files import (
    attribute_text,
    hdf5_dataset,
    hdf5_listing,
    holds,
    open_hdf5,
    read_hdf5_array,
    read_hdf5_complex,
    read_hdf5_number,
    read_hdf5_numbers,
    read_hdf5_real,
)
from ptychow.formats.lazy import HDF5Frames
from ptychow.formats.position_files import REMEDY, Placed, place
from ptychow.formats.probes import probe_modes
from ptychow.formats.units import ELECTRONVOLT, metres, position_scale, wavelength_of
from ptychow.scan import Geometry, ObjectImage, PositionUnit, Scan

SOURCE = "entry_1/instrument_1/source_1"
DETECTOR = "entry_1/instrument_1/detector_1"
PROBE = f"{SOURCE}/illumination"
IMAGE = "entry_1/image_1"
OWN = "entry_1/ptychow"
# Where writers put things, in the order in which they are looked for.
FRAMES = ("entry_1/data_1/data", f"{DETECTOR}/data")
TRANSLATION = (
    "entry_1/data_1/translation",
    "entry_1/sample_1/geometry_1/translation",
    "entry_1/sample_1/translation",
    f"{DETECTOR}/translation",
)
MASKS = (f"{DETECTOR}/mask", f"{DETECTOR}/mask_shared", "entry_1/data_1/mask")
MACHINE = 1e6 * ELECTRONVOLT  # J; NeXus keeps the storage ring's energy where CXI keeps the photons'
# PyNX keeps the settings it imported a scan with; CXI itself has no word for the near field.
NEAR_FIELD = tuple(
    f"entry_1/{group}{name}"
    for group in ("", "data_1/process_1/configuration/", "process_1/configuration/")
    for name in ("near_field", "nearfield")
)


def recognises(path: Path) -> bool:
    """Whether the file is HDF5 in CXI's layout."""
    if not h5py.is_hdf5(path):
        return False
    with open_hdf5(path) as file:
        return any(holds(file, name, path) for name in ("cxi_version", *FRAMES))


def read(path: Path, mapping: Mapping[str, str]) -> Scan:
    """The scan in a CXI file. Raises InputError for what is missing, damaged or contradictory, and for near fields."""
    with open_hdf5(path) as file:
        frames = HDF5Frames.open(path, _first(file, FRAMES, path, "frames"))
        pairing = Pairing.of(frames.shape[0], path, mapping)
        own = partial(_translation, file, path)
        return complete(file, path, frames, place(own, pairing, mapping), _geometry(file, path), pairing)


def complete(
    file: h5py.File,
    path: Path,
    frames: HDF5Frames,
    placed: Placed,
    geometry: Geometry,
    pairing: Pairing,
) -> Scan:
    """The Scan of what has been read and of all that CXI keeps at known places.

    placed: the positions of the frames that `pairing` keeps.
    """
    _refuse_near_field(file, path)
    scan = Scan(pairing.images(frames), placed.positions, placed.unit, geometry, name=path.name)
    own_positions, own_patches = f"{OWN}/nominal_translation", f"{OWN}/label_patches"
    raster = read_hdf5_numbers(file, f"{OWN}/raster", path, 2) or frames.raster
    patches = HDF5Frames.open(path, own_patches) if holds(file, own_patches, path) else None
    nominal = placed.nominal
    if not placed.is_table and holds(file, own_positions, path):
        nominal = pairing.positions(read_translation(file, own_positions, path)[0])
    mask, words = read_masks(file, MASKS, path, len(pairing.kept), scan.frame_shape)
    picture = holds(file, f"{IMAGE}/data", path)
    known = picture and "origin_px" in file[IMAGE].attrs
    remarks = {"mask": words} if words else {}
    if picture and not known:
        remarks["image_1"] = "left out: it is not said where in the scan it lies"
    return replace(
        scan,
        mask=mask,
        saturation=read_hdf5_number(file, f"{OWN}/saturation", path),
        probe=probe_modes(read_hdf5_complex(file, PROBE, path)) if holds(file, PROBE, path) else None,
        object=_object(file, path) if known else None,
        label_patches=None if patches is None else pairing.images(patches),
        nominal_positions=nominal,
        raster=(int(raster[0]), int(raster[1])) if raster and pairing.is_whole and not placed.is_table else None,
        metadata={**remarks, **_metadata(file, path), **placed.said},
    )


def read_object(path: str | os.PathLike[str]) -> ObjectImage:
    """The object in a CXI file: of a reconstruction, or the truth or labels of a scan.

    Raises InputError where there is none.
    """
    path = Path(path)
    with open_hdf5(path) as file:
        return _object(file, path)


class KnownObject(NamedTuple):
    """image: of image_1; probe (modes, H, W), coverage (rows, columns), pixel_size (of the object, metres) or None."""

    image: ObjectImage
    probe: NDArray[np.complex64] | None
    coverage: NDArray[np.float32] | None
    pixel_size: float | None


def read_reconstruction(path: str | os.PathLike[str]) -> KnownObject:
    """The object in a CXI file and what belongs to it. Raises InputError where there is no object."""
    path = Path(path)
    with open_hdf5(path) as file:
        image, own = _object(file, path), f"{OWN}/coverage"
        coverage = read_hdf5_array(file, own, path).astype(np.float32) if holds(file, own, path) else None
        if coverage is not None and coverage.shape != image.image.shape:
            raise InputError("not of the object's shape", file=path, field=own, found=coverage.shape)
        probe = probe_modes(read_hdf5_complex(file, PROBE, path)) if holds(file, PROBE, path) else None
        return KnownObject(image, probe, coverage, _geometry(file, path).pixel_size)


def _translation(file: h5py.File, path: Path) -> tuple[NDArray[np.float64], PositionUnit]:
    return read_translation(file, _first(file, TRANSLATION, path, "positions"), path)


def read_translation(file: h5py.File, name: str, path: Path) -> tuple[NDArray[np.float64], PositionUnit]:
    """(N, 2) of (row, column), and the unit, "m" or "px". Raises InputError for what is no translation."""
    values = read_hdf5_real(file, name, path)
    scale, unit = position_scale(attribute_text(file[name], "units", "m"), field=f"{name}, attribute units")
    if values.ndim == 2 and values.shape[1] != 3 and values.shape[0] == 3:
        values = values.T  # as PyNX has it
    if values.ndim != 2 or values.shape[1] != 3:
        raise InputError("not positions", file=path, field=name, found=f"shape {values.shape}", expected="(frames, 3)")
    positions = values[:, [1, 0]].astype(np.float64)
    return positions * scale, unit


def read_detector(file: h5py.File, detector: str, path: Path) -> tuple[float | None, float | None]:
    """(distance, pixel) in metres, as the attributes `units` say. Raises InputError for pixels that are not square."""
    distance, across, down = (
        read_length(file, f"{detector}/{name}", path) for name in ("distance", "x_pixel_size", "y_pixel_size")
    )
    if across is not None and down is not None and not math.isclose(across, down, rel_tol=1e-3):
        raise InputError(
            "detector pixels are not square",
            file=path,
            field=f"{detector}/x_pixel_size",
            found=f"{across:.4g} m x {down:.4g} m",
            expected="equal lengths",
            remedy="Bin or resample the frames to square pixels",
        )
    return distance, across if across is not None else down


def _first(file: h5py.File, names: tuple[str, ...], path: Path, what: str) -> str:
    found = next((name for name in names if holds(file, name, path)), None)
    if found is None:
        is_picture = what == "frames" and holds(file, f"{IMAGE}/data", path)
        elsewhere = "For another layout say where things are: --map frames=/... --map positions=/..."
        raise InputError(
            "this CXI file holds a reconstruction, not a scan" if is_picture else f"a CXI file without {what}",
            file=path,
            found=", ".join(hdf5_listing(file)) or "no dataset at all",
            expected=f"/{names[0]}",
            remedy=None if is_picture else elsewhere if what == "frames" else f"{REMEDY}. {elsewhere}",
        )
    return found


def _refuse_near_field(file: h5py.File, path: Path) -> None:
    for name in NEAR_FIELD:
        if holds(file, name, path) and hdf5_dataset(file, name, path).size == 1 and np.ravel(file[name][()])[0]:
            raise near_field(path, f"/{name}")


def near_field(path: Path, field: str) -> InputError:
    """The error for a scan whose detector stood in the near field, as `field` of its file says."""
    return InputError(
        "a near-field scan",
        file=path,
        field=field,
        expected="far-field diffraction patterns",
        remedy="Networks, label solver and propagation here are for the far field; use a near-field program",
    )


def _geometry(file: h5py.File, path: Path) -> Geometry:
    wavelength = read_length(file, f"{SOURCE}/wavelength", path)
    energy = read_hdf5_number(file, f"{SOURCE}/energy", path) or 0.0
    distance, pixel = read_detector(file, DETECTOR, path)
    return Geometry(
        wavelength=wavelength_of(energy if energy < MACHINE else None) if wavelength is None else wavelength,
        distance=distance,
        detector_pixel=pixel,
        pixel_size=read_hdf5_number(file, f"{OWN}/pixel_size", path),
    )


def read_length(file: h5py.File, name: str, path: Path) -> float | None:
    """A length in metres; without the attribute `units` it is one already."""
    value = read_hdf5_number(file, name, path)
    if value is None:
        return None
    return value * metres(attribute_text(file[name], "units", "m"), field=f"{name}, attribute units")


def _object(file: h5py.File, path: Path) -> ObjectImage:
    image = read_hdf5_complex(file, f"{IMAGE}/data", path)
    origin = np.ravel(file[IMAGE].attrs.get("origin_px", ()))
    if origin.size != 2 or origin.dtype.kind not in "iuf":
        raise InputError(
            "where the object lies in the scan is not said",
            file=path,
            field=f"{IMAGE}, attribute origin_px",
            expected="(row, column) of its pixel [0, 0] in object pixels of the scan",
        )
    source = attribute_text(file[IMAGE], "source", "unknown")
    return ObjectImage(image, (float(origin[0]), float(origin[1])), source)


def _metadata(file: h5py.File, path: Path) -> dict[str, str]:
    name = f"{OWN}/metadata"
    if not holds(file, name, path):
        return {}
    try:
        return {str(key): str(value) for key, value in json.loads(file[name].asstr()[()]).items()}
    except (TypeError, AttributeError, ValueError):
        raise InputError("not a JSON text of names and values", file=path, field=name) from None
