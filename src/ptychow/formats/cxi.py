"""CXI, the file format of the Coherent X-ray Imaging Data Bank (version 1.6): scans and reconstructions.

    /cxi_version                                160
    /entry_1/title
    /entry_1/instrument_1/source_1/energy       J; wavelength (m) beside it
    /entry_1/instrument_1/source_1/illumination probe (modes, H, W) complex, in root counts
    /entry_1/instrument_1/detector_1/data       frames (N, H, W), counts
    /entry_1/instrument_1/detector_1/distance   m; x_pixel_size and y_pixel_size (m) and mask beside it
    /entry_1/sample_1/geometry_1/translation    (N, 3): x, y, z of the sample
    /entry_1/data_1/{data,translation}          links to the two above
    /entry_1/image_1/data                       object (rows, columns); attributes `origin_px`, `source`
    /entry_1/ptychow/...                        what CXI has no place for, see below

**Axes and signs.** CXI's z points along the beam, y up, x to the left as the beam sees it. `translation`
moves the sample, so the probe moves over the sample by its negative. Rows grow downward (-y) and columns to
the right (-x): the two signs cancel, and the probe's (row, column) is the translation's (y, x). Where a
file's author meant the other sign, the frames fit the positions after a turn by 180 degrees (an orientation
of `Preparation`).

**Units.** SI. Where the object's pixel size is unknown, positions cannot be had in metres; then the attribute
`units` of `translation` says "px" (object pixels) instead of "m". Without that attribute they are metres, as
in any CXI file.

**Mask.** Bits; 0 is a good pixel. Bit 0x1000 marks signal and is no defect. PtychoW writes 1, invalid, for
bad pixels. Of a mask for every frame, a pixel that is bad in any frame is taken as bad.

**/entry_1/ptychow.** `pixel_size` (of the object, m), `nominal_translation` (as `translation`), `raster`
(lines, points per line), `saturation` (counts), `label_patches` (N, h, w) complex, `metadata` (JSON); of
reconstructions `coverage` and `variance` (rows, columns) and `summary` (JSON). What is unknown is absent.

Frames are written one a chunk with bitshuffle and LZ4: lossless, five times as fast as gzip at the same size,
and read by every h5py that has imported hdf5plugin.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from ptychow._version import __version__
from ptychow.errors import InputError
from ptychow.files import to_json
from ptychow.formats.base import Format
from ptychow.formats.lazy import HDF5Frames, hdf5_listing, open_hdf5, read_hdf5_array, read_hdf5_complex
from ptychow.formats.new_hdf5 import Disk, new_hdf5
from ptychow.scan import Frames, Geometry, ObjectImage, Scan

PLANCK_TIMES_LIGHT = 6.62607015e-34 * 299792458.0  # J m, exact by definition of the SI

SOURCE = "entry_1/instrument_1/source_1"
DETECTOR = "entry_1/instrument_1/detector_1"
PROBE = f"{SOURCE}/illumination"
IMAGE = "entry_1/image_1"
OWN = "entry_1/ptychow"
# Where writers put frames and positions, in the order in which they are looked for.
FRAMES = ("entry_1/data_1/data", f"{DETECTOR}/data")
TRANSLATION = (
    "entry_1/data_1/translation",
    "entry_1/sample_1/geometry_1/translation",
    f"{DETECTOR}/translation",
)
HAS_SIGNAL = 0x1000

Advance = Callable[[int], object]


def recognises(path: Path) -> bool:
    """Whether the file is HDF5 in CXI's layout."""
    if not h5py.is_hdf5(path):
        return False
    with open_hdf5(path) as file:
        return "cxi_version" in file or any(name in file for name in FRAMES)


def read(path: Path, mapping: Mapping[str, str]) -> Scan:
    """The scan in a CXI file. Raises InputError for what is missing, damaged or contradictory."""
    with open_hdf5(path) as file:
        dataset = _first(file, FRAMES, path, "frames")
        frames = HDF5Frames.open(path, dataset)
        positions, unit = _translation(file, _first(file, TRANSLATION, path, "positions"), path, frames.shape[0])
        own = f"{OWN}/nominal_translation"
        raster = _numbers(file, f"{OWN}/raster", path, 2)
        return Scan(
            frames=frames,
            positions=positions,
            position_unit="px" if unit == "px" else "m",
            geometry=_geometry(file, path),
            mask=_mask(file, path, frames.shape[1:]),
            saturation=_scalar(file, f"{OWN}/saturation", path),
            probe=_probe(file, path),
            object=_object(file, path) if f"{IMAGE}/data" in file else None,
            label_patches=HDF5Frames.open(path, f"{OWN}/label_patches") if f"{OWN}/label_patches" in file else None,
            nominal_positions=_translation(file, own, path, frames.shape[0])[0] if own in file else None,
            raster=frames.raster if raster is None else (int(raster[0]), int(raster[1])),
            name=path.name,
            metadata=_metadata(file, path),
        )


def read_object(path: str | os.PathLike[str]) -> ObjectImage:
    """The object in a CXI file: of a reconstruction, or the truth or labels of a scan.

    Raises InputError where there is none.
    """
    path = Path(path)
    with open_hdf5(path) as file:
        return _object(file, path)


def write_scan(path: str | os.PathLike[str], scan: Scan, progress: Advance | None = None) -> None:
    """Write everything in `scan`, the frames streamed; `progress` is told how many have just been written.

    Nothing half-written is left. Raises PtychoWError where the file cannot be written (disk full, no
    permission).
    """
    with _create(Path(path), scan.name, scan.geometry, scan.probe, scan.metadata) as (file, disk):
        _stream(file, disk, f"{DETECTOR}/data", scan.frames, progress)
        if scan.mask is not None:
            file[f"{DETECTOR}/mask"] = (~scan.mask).astype(np.uint32)
        _write_translation(file, TRANSLATION[1], scan.positions, scan.position_unit)
        file[FRAMES[0]] = h5py.SoftLink(f"/{DETECTOR}/data")
        file[TRANSLATION[0]] = h5py.SoftLink(f"/{TRANSLATION[1]}")
        if scan.object is not None:
            _write_object(file, scan.object)
        if scan.nominal_positions is not None:
            _write_translation(file, f"{OWN}/nominal_translation", scan.nominal_positions, scan.position_unit)
        if scan.raster is not None:
            file[f"{OWN}/raster"] = scan.raster
        if scan.saturation is not None:
            file[f"{OWN}/saturation"] = float(scan.saturation)
        if scan.label_patches is not None:
            _stream(file, disk, f"{OWN}/label_patches", scan.label_patches, None)


def write_reconstruction(
    path: str | os.PathLike[str],
    image: ObjectImage,
    *,
    geometry: Geometry,
    coverage: NDArray[Any],
    variance: NDArray[Any] | None = None,
    probe: NDArray[np.complex64] | None = None,
    metadata: Mapping[str, str],
    summary: Mapping[str, Any],
) -> None:
    """Write a reconstructed object, readable by `read_object` and by any CXI viewer.

    coverage, variance: (rows, columns) of the image's shape; summary: what JSON can hold, numpy too.
    Raises InputError where the maps do not fit the image, PtychoWError where the file cannot be written.
    """
    with _create(Path(path), image.source, geometry, probe, metadata) as (file, _):
        _write_object(file, image)
        for name, values in (("coverage", coverage), ("variance", variance)):
            if values is None:
                continue
            if values.shape != image.image.shape:
                raise InputError("not of the image's shape", field=name, found=values.shape, expected=image.image.shape)
            file.create_dataset(f"{OWN}/{name}", data=values, compression="gzip", shuffle=True)
        file[f"{OWN}/summary"] = to_json(dict(summary), indent=None)


@contextmanager
def _create(
    path: Path,
    title: str,
    geometry: Geometry,
    probe: NDArray[np.complex64] | None,
    metadata: Mapping[str, str],
) -> Iterator[tuple[h5py.File, Disk]]:
    """A new CXI file with what scans and reconstructions share; it takes its name only when complete."""
    with new_hdf5(path) as (file, disk):
        file["cxi_version"] = 160
        file["number_of_entries"] = 1
        file["entry_1/title"] = title
        file["entry_1/process_1/program"] = "ptychow"
        file["entry_1/process_1/version"] = __version__
        if geometry.wavelength is not None:
            file[f"{SOURCE}/energy"] = PLANCK_TIMES_LIGHT / geometry.wavelength
            file[f"{SOURCE}/wavelength"] = geometry.wavelength
        if geometry.distance is not None:
            file[f"{DETECTOR}/distance"] = geometry.distance
        if geometry.detector_pixel is not None:
            file[f"{DETECTOR}/x_pixel_size"] = geometry.detector_pixel
            file[f"{DETECTOR}/y_pixel_size"] = geometry.detector_pixel
        if geometry.pixel_size is not None:
            file[f"{OWN}/pixel_size"] = geometry.pixel_size
        if probe is not None:
            file[PROBE] = probe
        file[f"{OWN}/metadata"] = json.dumps(dict(metadata))
        yield file, disk


def _stream(file: h5py.File, disk: Disk, name: str, frames: Frames, progress: Advance | None) -> None:
    """Write frames a few megabytes at a time."""
    count, height, width = frames.shape
    dataset = file.create_dataset(
        name, frames.shape, frames.dtype, chunks=(1, height, width), **hdf5plugin.Bitshuffle(cname="lz4")
    )
    batch = max(1, 2**24 // (height * width * frames.dtype.itemsize))
    for start in range(0, count, batch):
        part = frames[start : start + batch]
        dataset[start : start + len(part)] = part
        disk.require_written()
        if progress is not None:
            progress(len(part))


def _write_translation(file: h5py.File, name: str, positions: NDArray[np.float64], unit: str) -> None:
    file[name] = np.column_stack((positions[:, 1], positions[:, 0], np.zeros(len(positions))))
    file[name].attrs["units"] = unit


def _write_object(file: h5py.File, image: ObjectImage) -> None:
    file.create_dataset(f"{IMAGE}/data", data=image.image, compression="gzip", shuffle=True)
    file[IMAGE].attrs["origin_px"] = image.origin
    file[IMAGE].attrs["source"] = image.source


def _first(file: h5py.File, names: tuple[str, ...], path: Path, what: str) -> str:
    found = next((name for name in names if name in file), None)
    if found is None:
        is_picture = what == "frames" and f"{IMAGE}/data" in file
        raise InputError(
            "this CXI file holds a reconstruction, not a scan" if is_picture else f"a CXI file without {what}",
            file=path,
            found=", ".join(hdf5_listing(file)) or "no dataset at all",
            expected=f"/{names[0]}",
            remedy=None
            if is_picture
            else "For another layout say where things are: --map frames=/... --map positions=/...",
        )
    return found


def _translation(file: h5py.File, name: str, path: Path, count: int) -> tuple[NDArray[np.float64], str]:
    """(N, 2) of (row, column), and the unit."""
    values = read_hdf5_array(file, name, path)
    unit = file[name].attrs.get("units", "m")
    unit = unit.decode() if isinstance(unit, bytes) else str(unit)
    if unit not in ("m", "px"):
        raise InputError("unknown unit of positions", file=path, field=name, found=unit, expected="m or px")
    if values.ndim == 2 and values.shape[1] != 3 and values.shape[0] == 3:
        values = values.T  # as old writers had it
    if values.ndim != 2 or values.shape[1] != 3:
        raise InputError(
            "not positions", file=path, field=name, found=f"shape {values.shape}", expected=f"({count}, 3)"
        )
    return values[:, [1, 0]].astype(np.float64), unit


def _geometry(file: h5py.File, path: Path) -> Geometry:
    wavelength, energy = (_scalar(file, f"{SOURCE}/{name}", path) for name in ("wavelength", "energy"))
    if wavelength is None and energy:
        wavelength = PLANCK_TIMES_LIGHT / energy
    across, down = (_scalar(file, f"{DETECTOR}/{axis}_pixel_size", path) for axis in "xy")
    if across is not None and down is not None and not math.isclose(across, down, rel_tol=1e-3):
        raise InputError(
            "detector pixels are not square",
            file=path,
            field=f"{DETECTOR}/x_pixel_size",
            found=f"{across:.4g} m x {down:.4g} m",
            expected="equal lengths",
            remedy="Bin or resample the frames to square pixels",
        )
    return Geometry(
        wavelength=wavelength,
        distance=_scalar(file, f"{DETECTOR}/distance", path),
        detector_pixel=across if across is not None else down,
        pixel_size=_scalar(file, f"{OWN}/pixel_size", path),
    )


def _mask(file: h5py.File, path: Path, frame_shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    name = f"{DETECTOR}/mask"
    if name not in file:
        return None
    shape = file[name].shape
    if shape[-2:] != frame_shape or len(shape) not in (2, 3):
        raise InputError("does not fit the frames", file=path, field=name, found=f"shape {shape}", expected=frame_shape)
    layers = file[name] if len(shape) == 3 else [read_hdf5_array(file, name, path)]
    bad = np.zeros(frame_shape, bool)
    for layer in layers:
        bad |= (layer.astype(np.uint32) & ~np.uint32(HAS_SIGNAL)) != 0
    return ~bad


def _probe(file: h5py.File, path: Path) -> NDArray[np.complex64] | None:
    if PROBE not in file:
        return None
    probe = read_hdf5_complex(file, PROBE, path)
    return probe[None] if probe.ndim == 2 else probe


def _object(file: h5py.File, path: Path) -> ObjectImage:
    image = read_hdf5_complex(file, f"{IMAGE}/data", path)
    origin = np.ravel(file[IMAGE].attrs.get("origin_px", ()))
    if origin.size != 2:
        raise InputError(
            "where the object lies in the scan is not said",
            file=path,
            field=f"{IMAGE}, attribute origin_px",
            expected="(row, column) of its pixel [0, 0] in object pixels of the scan",
        )
    source = str(file[IMAGE].attrs.get("source", "unknown"))
    return ObjectImage(image, (float(origin[0]), float(origin[1])), source)


def _numbers(file: h5py.File, name: str, path: Path, count: int) -> list[float] | None:
    """A dataset of `count` numbers, or None where it is absent."""
    if name not in file:
        return None
    values = read_hdf5_array(file, name, path)
    if values.size != count:
        raise InputError("of the wrong length", file=path, field=name, found=values.size, expected=count)
    return np.ravel(values).tolist()


def _scalar(file: h5py.File, name: str, path: Path) -> float | None:
    numbers = _numbers(file, name, path, 1)
    return None if numbers is None else float(numbers[0])


def _metadata(file: h5py.File, path: Path) -> dict[str, str]:
    name = f"{OWN}/metadata"
    if name not in file:
        return {}
    try:
        return {str(key): str(value) for key, value in json.loads(file[name].asstr()[()]).items()}
    except (TypeError, AttributeError, ValueError):
        raise InputError("not a JSON text of names and values", file=path, field=name) from None


FORMAT = Format(name="cxi", title="CXI", recognises=recognises, read=read, keys={})
