"""NXcxi_ptycho, the NeXus application definition for ptychography: CXI 1.6 with NeXus's classes, units and beam.

    /cxi_version                                        160
    /entry_1  NXentry
        definition                                      "NXcxi_ptycho" ("NXptycho" in older files)
        instrument_1/beam_1/energy                      of the photons, with units; incident_wavelength beside it
        instrument_1/detector_1/data                    (N, H, W), or (ny, nx, H, W) for a raster
        instrument_1/detector_1/{distance,x_pixel_size,y_pixel_size}  with units
        sample_1/transformations/{x,y}                  (N,), (ny, nx), or the axes (nx,) and (ny,), with units
        sample_1/geometry_1/translation                 (N, 3): x, y, z, with units
        data_1/data                                     always (N, H, W): for a raster a virtual dataset in others'
                                                        files; PtychoW's own keep the frames here, detector_1 is virtual
        data_1/translation

Groups are found by CXI's names, without the "_1" too, or by their NX_class. `source_1/energy` is the storage ring's.
What CXI has no place for lies in /entry_1/ptychow, so that a scan goes from CXI to NXcxi_ptycho and back unchanged.
The definition: https://manual.nexusformat.org/classes/contributed_definitions/NXcxi_ptycho.html
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats import cxi
from ptychow.formats.base import Format
from ptychow.formats.cxi_mask import read_masks
from ptychow.formats.cxi_reading import (
    DETECTOR,
    FRAMES,
    OWN,
    SOURCE,
    TRANSLATION,
    complete,
    read_detector,
    read_length,
    read_translation,
)
from ptychow.formats.dropping import Pairing
from ptychow.formats.hdf5_files import (
    attribute_text,
    hdf5_dataset,
    holds,
    open_hdf5,
    read_hdf5_number,
    read_hdf5_real,
    read_hdf5_text,
)
from ptychow.formats.lazy import HDF5Frames
from ptychow.formats.position_files import REMEDY, place
from ptychow.formats.units import KNOWN_UNITS, agreed_scale, joules, wavelength_of
from ptychow.scan import NOT_BELIEVED, Geometry, PositionUnit, Scan

DEFINITIONS = ("NXcxi_ptycho", "NXptycho")
BEAM = "entry_1/instrument_1/beam_1"
MOTORS = "entry_1/sample_1/transformations"
# The beam travels along z; x and y of the sample move across it (McStas coordinates, as NeXus has them).
VECTORS = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0)}
CLASSES = {
    "entry_1": "NXentry",
    "entry_1/instrument_1": "NXinstrument",
    "entry_1/instrument_1/detector_1": "NXdetector",
    "entry_1/instrument_1/source_1": "NXsource",
    "entry_1/instrument_1/beam_1": "NXbeam",
    "entry_1/sample_1": "NXsample",
    "entry_1/sample_1/transformations": "NXtransformations",
    "entry_1/sample_1/geometry_1": "NXcollection",
    "entry_1/data_1": "NXdata",
    "entry_1/process_1": "NXprocess",
    "entry_1/ptychow": "NXcollection",
}


def recognises(path: Path) -> bool:
    """Whether the file is HDF5 with an entry of this definition."""
    if not h5py.is_hdf5(path):
        return False
    with open_hdf5(path) as file:
        return _entry(file, path) is not None


def read(path: Path, mapping: Mapping[str, str]) -> Scan:
    """The scan in an NXcxi_ptycho file. Raises InputError for what is missing, damaged or contradictory."""
    with open_hdf5(path) as file:
        entry = _entry(file, path)
        instrument = _child(file, entry or "entry_1", "instrument", "NXinstrument", path)
        detector = _child(file, instrument, "detector", "NXdetector", path)
        sample = _child(file, entry or "entry_1", "sample", "NXsample", path)
        stored = HDF5Frames.open(path, f"{detector}/data")
        flat = f"{entry}/data_1/data"
        is_virtual = hdf5_dataset(file, f"{detector}/data", path).is_virtual
        frames = HDF5Frames.open(path, flat) if is_virtual and holds(file, flat, path) else stored
        if frames.shape != stored.shape:
            found = f"shape {frames.shape}"
            raise InputError("not the detector's data", file=path, field=flat, found=found, expected=stored.shape)
        distance, pixel = read_detector(file, detector, path)
        wavelength, said = _wavelength(file, _child(file, instrument, "beam", "NXbeam", path), path)
        geometry = Geometry(
            wavelength=wavelength,
            distance=distance,
            detector_pixel=pixel,
            pixel_size=read_hdf5_number(file, f"{OWN}/pixel_size", path),
        )
        # What is told of a unit is told of the table, where there is one.
        told = None if "positions_file" in mapping else mapping.get("position_unit")
        own = partial(_positions, file, path, entry or "entry_1", detector, sample, stored, told)
        pairing = Pairing.of(stored.shape[0], path, mapping)
        placed = place(own, pairing, mapping)
        scan = complete(file, path, frames, placed, geometry, pairing)
        scan = replace(scan, metadata=scan.metadata | said)
        if scan.raster is None and pairing.is_whole and not placed.is_table:
            scan = replace(scan, raster=stored.raster)
        if scan.mask is None:
            names = (f"{detector}/mask", f"{detector}/pixel_mask")
            scan = replace(scan, mask=read_masks(file, names, path, len(pairing.kept), scan.frame_shape)[0])
        return scan


def write_scan(path: str | os.PathLike[str], scan: Scan, progress: cxi.Advance | None = None) -> None:
    """Write everything in `scan` as NXcxi_ptycho. Raises PtychoWError where the file cannot be written.

    What the definition wants and the scan does not say (name and energy of the source, spread of the energy) is left
    out.
    """
    with cxi.new_cxi(Path(path), scan.name, scan.geometry, scan.probe, scan.metadata) as (file, disk):
        frames_at = FRAMES[0] if scan.raster else f"{DETECTOR}/data"
        cxi.write_parts(file, disk, scan, progress, frames_at)
        if scan.raster:
            _write_raster(file, scan.raster, scan.frames.shape)
        else:
            file[FRAMES[0]] = h5py.SoftLink(f"/{DETECTOR}/data")
        file[f"{DETECTOR}/translation"] = h5py.SoftLink(f"/{TRANSLATION[1]}")
        _write_motors(file, scan)
        if scan.geometry.wavelength is not None:
            file.move(f"{SOURCE}/energy", f"{BEAM}/energy")  # of the photons: NeXus's source is the storage ring
            file[f"{BEAM}/incident_beam_energy"] = h5py.SoftLink(f"/{BEAM}/energy")
            file.move(f"{SOURCE}/wavelength", f"{BEAM}/incident_wavelength")
        _write_attributes(file, scan)


def _write_raster(file: h5py.File, raster: tuple[int, int], shape: tuple[int, ...]) -> None:
    """The detector's data as (ny, nx, H, W), made of the frames in data_1."""
    lines, points = raster
    frames = file[FRAMES[0]]
    layout = h5py.VirtualLayout((lines, points, *shape[1:]), frames.dtype)
    source = h5py.VirtualSource(".", frames.name, shape, frames.dtype)
    for line in range(lines):
        layout[line] = source[line * points : (line + 1) * points]
    file.create_virtual_dataset(f"{DETECTOR}/data", layout)


def _write_motors(file: h5py.File, scan: Scan) -> None:
    for axis, values in (("y", scan.positions[:, 0]), ("x", scan.positions[:, 1])):
        name = f"{MOTORS}/{axis}"
        file[name] = values if scan.raster is None else values.reshape(scan.raster)
        attributes = {
            "units": scan.position_unit,
            "vector": VECTORS[axis],
            "transformation_type": "translation",
            "depends_on": "." if axis == "y" else f"/{MOTORS}/y",
        }
        file[name].attrs.update(attributes)
        file[f"entry_1/data_1/{axis}"] = h5py.SoftLink(f"/{name}")


def _write_attributes(file: h5py.File, scan: Scan) -> None:
    file["entry_1/definition"] = DEFINITIONS[0]
    for name, kind in CLASSES.items():
        if name in file:
            file[name].attrs["NX_class"] = kind
    file.attrs["default"] = "entry_1"
    file["entry_1"].attrs["default"] = "data_1"
    file["entry_1/data_1"].attrs.update({"signal": "data", "axes": ["x", ".", "."], "x_indices": 0, "y_indices": 0})
    file[DETECTOR].attrs["signal"] = "data"
    file[TRANSLATION[1]].attrs.update({"axes": "translation:y:x", "interpretation": "image"})
    units = {"distance": "m", "x_pixel_size": "m", "y_pixel_size": "m"}
    places = {f"{DETECTOR}/{name}": unit for name, unit in units.items()}
    for name, unit in (places | {f"{BEAM}/energy": "J", f"{BEAM}/incident_wavelength": "m"}).items():
        if name in file:
            file[name].attrs["units"] = unit


def _entry(file: h5py.File, path: Path) -> str | None:
    """Name of the first entry of this definition; entries that are links to other files are not looked into."""
    for name in file:
        elsewhere = isinstance(file.get(name, getlink=True), h5py.ExternalLink)
        if not elsewhere and read_hdf5_text(file, f"{name}/definition", path) in DEFINITIONS:
            return str(name)
    return None


def _child(file: h5py.File, group: str, name: str, kind: str, path: Path) -> str:
    """Path of a group in `group`, by its CXI name, its plain name or its NX_class; the CXI name where there is none."""
    for candidate in (f"{group}/{name}_1", f"{group}/{name}"):
        if holds(file, candidate, path):
            return candidate
    for key in file[group] if holds(file, group, path) and isinstance(file[group], h5py.Group) else ():
        item = f"{group}/{key}"
        hard = isinstance(file.get(item, getlink=True), h5py.HardLink)
        if hard and isinstance(file[item], h5py.Group) and attribute_text(file[item], "NX_class") == kind:
            return item
    return f"{group}/{name}_1"


def _wavelength(file: h5py.File, beam: str, path: Path) -> tuple[float | None, dict[str, str]]:
    """In metres, and what a scan's metadata should say of it."""
    wavelength = read_length(file, f"{beam}/incident_wavelength", path)
    if wavelength is not None:
        return wavelength, {}
    for name in (f"{beam}/energy", f"{beam}/incident_beam_energy", f"{beam}/incident_energy"):
        energy = read_hdf5_number(file, name, path)
        if energy is not None:
            unit = attribute_text(file[name], "units")
            if not unit:
                return None, {NOT_BELIEVED: f"{name} has no attribute units"}
            return wavelength_of(energy * joules(unit, field=f"{name}, attribute units")), {}
    return None, {}


def _positions(
    file: h5py.File, path: Path, entry: str, detector: str, sample: str, frames: HDF5Frames, told: str | None
) -> tuple[NDArray[np.float64], PositionUnit]:
    """(N, 2) of (row, column), and the unit: of `translation`, or of the motors. told: theirs, if they do not say."""
    for name in (f"{entry}/data_1/translation", f"{detector}/translation", f"{sample}/geometry_1/translation"):
        if holds(file, name, path):
            if told is not None:
                raise InputError("is said of motors without a unit", file=path, field="position_unit", found=f"/{name}")
            return read_translation(file, name, path)
    motors = {axis: _motor(file, sample, axis, path) for axis in "yx"}
    found = [name for name in motors.values() if name]
    if len(found) != 2:
        raise InputError(
            "an NXcxi_ptycho file without positions",
            file=path,
            found=", ".join(found) or "neither translation nor motors",
            expected=f"/{entry}/data_1/translation, or x and y in /{sample}/transformations",
            remedy=REMEDY,
        )
    values = [read_hdf5_real(file, name, path).astype(np.float64) * _sign(file, name, path) for name in found]
    units = {attribute_text(file[name], "units") for name in found}
    if len(units) != 1:
        raise InputError("motors in different units", file=path, field=", ".join(found), found=", ".join(sorted(units)))
    field = f"{found[0]}, attribute units"
    scale = agreed_scale(told, units.pop(), field=field)
    if scale is None:
        remedy = "Say it: --map position_unit=um"
        raise InputError("unknown unit", file=path, field=field, found="nothing", expected=KNOWN_UNITS, remedy=remedy)
    if frames.raster and [value.squeeze().shape for value in values] == [(length,) for length in frames.raster]:
        values = list(np.meshgrid(*map(np.ravel, values), indexing="ij"))  # the axes of the raster
    down, right = (np.ravel(value) for value in values)
    if len(down) != len(right):
        raise InputError("of different length", file=path, field=", ".join(found), found=f"{len(down)}, {len(right)}")
    return np.column_stack((down, right)) * scale[0], scale[1]


def _motor(file: h5py.File, sample: str, axis: str, path: Path) -> str:
    """Path of the sample's motor for an axis: by its name, or by its vector; "" where there is none."""
    group = f"{sample}/transformations"
    if holds(file, f"{group}/{axis}", path):
        return f"{group}/{axis}"
    for key in file[group] if holds(file, group, path) and isinstance(file[group], h5py.Group) else ():
        name = f"{group}/{key}"
        is_motor = holds(file, name, path) and isinstance(file[name], h5py.Dataset)
        if is_motor and np.array_equal(np.abs(_vector(file, name, path)), VECTORS[axis]):
            return name
    return ""


def _vector(file: h5py.File, name: str, path: Path) -> NDArray[Any]:
    """Along which a motor moves the sample (NXtransformations); empty where it is not said."""
    return np.ravel(hdf5_dataset(file, name, path).attrs.get("vector", ()))


def _sign(file: h5py.File, name: str, path: Path) -> float:
    """-1 for a motor that counts against its axis, else 1."""
    return -1.0 if (_vector(file, name, path) < 0).any() else 1.0


FORMAT = Format(
    name="nxcxi",
    title="NeXus NXcxi_ptycho",
    recognises=recognises,
    read=read,
    keys=cxi.KEYS | {"position_unit": "of motors without an attribute `units`"},
    write=write_scan,
    suffix=".nxs",
)
