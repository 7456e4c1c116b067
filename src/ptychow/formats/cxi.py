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

**Mask.** Bits; 0 is a good pixel; `ptychow.formats.cxi_mask` says which are defects. PtychoW writes 1, invalid,
for bad pixels. Of several masks, and of one for every frame, a pixel that is bad in any is taken as bad.

**/entry_1/ptychow.** `pixel_size` (of the object, m), `nominal_translation` (as `translation`), `raster`
(lines, points per line), `saturation` (counts), `label_patches` (N, h, w) complex, `metadata` (JSON); of
reconstructions `coverage` and `variance` (rows, columns), `residuals` (N,) and `summary` (JSON). What is unknown is
absent.

Frames are written one a chunk with bitshuffle and LZ4: lossless, five times as fast as gzip at the same size,
and read by every h5py that has imported hdf5plugin.
"""

from __future__ import annotations

import json
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
from ptychow.formats import dropping, position_files
from ptychow.formats.base import Format
from ptychow.formats.cxi_mask import INVALID
from ptychow.formats.cxi_reading import (
    DETECTOR,
    FRAMES,
    IMAGE,
    OWN,
    PROBE,
    SOURCE,
    TRANSLATION,
    read,
    read_object,
    read_reconstruction,
    recognises,
)
from ptychow.formats.new_hdf5 import Disk, new_hdf5
from ptychow.formats.units import PLANCK_TIMES_LIGHT
from ptychow.scan import Frames, Geometry, ObjectImage, Scan

__all__ = ["FORMAT", "read", "read_object", "read_reconstruction", "write_reconstruction", "write_scan"]

KEYS = {**dropping.KEYS, "positions_file": position_files.KEYS["positions_file"]}
Advance = Callable[[int], object]


def write_scan(path: str | os.PathLike[str], scan: Scan, progress: Advance | None = None) -> None:
    """Write everything in `scan`, the frames streamed; `progress` is told how many have just been written.

    Nothing half-written is left. Raises PtychoWError where the file cannot be written (disk full, no
    permission).
    """
    with new_cxi(Path(path), scan.name, scan.geometry, scan.probe, scan.metadata) as (file, disk):
        write_parts(file, disk, scan, progress, f"{DETECTOR}/data")
        file[FRAMES[0]] = h5py.SoftLink(f"/{DETECTOR}/data")


def write_parts(file: h5py.File, disk: Disk, scan: Scan, progress: Advance | None, frames_at: str) -> None:
    """Write into a new CXI file what only a scan has, the frames at the path `frames_at`."""
    stream_frames(file, disk, frames_at, scan.frames, progress)
    if scan.mask is not None:
        file[f"{DETECTOR}/mask"] = np.where(scan.mask, 0, INVALID).astype(np.uint32)
    _write_translation(file, TRANSLATION[1], scan.positions, scan.position_unit)
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
        stream_frames(file, disk, f"{OWN}/label_patches", scan.label_patches, None)


def write_reconstruction(
    path: str | os.PathLike[str],
    image: ObjectImage,
    *,
    geometry: Geometry,
    coverage: NDArray[Any],
    variance: NDArray[Any] | None = None,
    probe: NDArray[np.complex64] | None = None,
    residuals: NDArray[np.float32] | None = None,
    refined_from: ObjectImage | None = None,
    summary: Mapping[str, Any],
) -> None:
    """Write a reconstructed object, readable by `read_object` and by any CXI viewer.

    coverage, variance: (rows, columns) of the image's shape; residuals: (N,) of the frames, NaN where there is none;
    refined_from: the network's object, where `image` is a refined one, goes to image_2; summary: what JSON can hold,
    numpy too.
    Raises InputError where the maps do not fit the image, PtychoWError where the file cannot be written.
    """
    with new_cxi(Path(path), image.source, geometry, probe, {}) as (file, _):
        _write_object(file, image)
        if refined_from is not None:
            _write_object(file, refined_from, "entry_1/image_2")
        for name, values in (("coverage", coverage), ("variance", variance)):
            if values is None:
                continue
            if values.shape != image.image.shape:
                raise InputError("not of the image's shape", field=name, found=values.shape, expected=image.image.shape)
            file.create_dataset(f"{OWN}/{name}", data=values, compression="gzip", shuffle=True)
        if residuals is not None:
            file[f"{OWN}/residuals"] = residuals
        file[f"{OWN}/summary"] = to_json(dict(summary), indent=None)


@contextmanager
def new_cxi(
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


def stream_frames(file: h5py.File, disk: Disk, name: str, frames: Frames, progress: Advance | None) -> None:
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


def _write_object(file: h5py.File, image: ObjectImage, group: str = IMAGE) -> None:
    file.create_dataset(f"{group}/data", data=image.image, compression="gzip", shuffle=True)
    file[group].attrs["origin_px"] = image.origin
    file[group].attrs["source"] = image.source


FORMAT = Format(name="cxi", title="CXI", recognises=recognises, read=read, keys=KEYS, write=write_scan, suffix=".cxi")
