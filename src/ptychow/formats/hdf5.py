"""Any other HDF5 file (NeXus, Dectris, home-made): a mapping says where things are and what they mean.

On the command line `--map frames=/entry/data/data --map positions=/entry/xy --map position_unit=um`, or a
TOML file of such lines (`frames = "/entry/data/data"`). `KEYS` lists what can be said. Numbers are given as
such, or as the path of a dataset that holds them; its attribute `units`, where there is one, counts. Nothing is
guessed: a key that is left out leaves that part of the scan unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats import dropping, position_files
from ptychow.formats.amplitudes import AMPLITUDES, as_counts
from ptychow.formats.base import Format
from ptychow.formats.dropping import Pairing
from ptychow.formats.hdf5_files import (
    attribute_text,
    hdf5_listing,
    hdf5_shapes,
    holds,
    open_hdf5,
    read_hdf5_array,
    read_hdf5_complex,
)
from ptychow.formats.lazy import HDF5Frames
from ptychow.formats.probes import probe_modes
from ptychow.formats.units import ELECTRONVOLT, agreed_scale, joules, metres, wavelength_of
from ptychow.scan import Geometry, ObjectImage, PositionUnit, Scan

KEYS = {
    "frames": "dataset (N, H, W) or, for rasters, (lines, points, H, W); required",
    **AMPLITUDES,
    "positions": "dataset (N, 2) or (lines, points, 2): row (down) and column (right) of the probe's centre",
    **position_files.KEYS,
    "positions_y": "dataset (N,) instead of positions: down",
    "positions_x": "dataset (N,) instead of positions: right",
    "mask": "dataset (H, W), not 0 where the detector is good",
    "bad_pixels": "dataset (H, W), not 0 where it is bad (Dectris pixel_mask, NeXus)",
    "saturation": "counts from which values are not to be believed",
    "probe": "dataset (modes, H, W) or (H, W), complex",
    "object": "dataset (rows, columns), complex",
    "object_origin_px": "row,column of the object's pixel [0, 0] in object pixels; required with object",
    "wavelength_m": "number",
    "energy_ev": "number, instead of wavelength_m",
    "distance_m": "number",
    "detector_pixel_m": "number",
    "pixel_size_m": "number, of the object",
    **dropping.KEYS,
}


def read(path: Path, mapping: Mapping[str, str]) -> Scan:
    """The scan.

    Raises InputError for keys that are missing or contradict each other, and for what they lead to.
    """
    with open_hdf5(path) as file:
        _require_keys(file, path, mapping)
        stored = HDF5Frames.open(path, mapping["frames"])
        given, unit = _positions(file, path, mapping)
        pairing = Pairing.of(stored.shape[0], path, mapping)
        return Scan(
            frames=pairing.images(as_counts(stored, mapping, path)),
            positions=pairing.positions(given),
            position_unit=unit,
            geometry=_geometry(file, path, mapping),
            mask=_mask(file, path, mapping),
            saturation=_number(file, path, mapping, "saturation"),
            probe=_probe(file, path, mapping),
            object=_object(file, path, mapping),
            raster=stored.raster if pairing.is_whole else None,
            name=path.name,
            metadata={f"mapping {key}": value for key, value in mapping.items()},
        )


def has_dataset(path: Path, name: str) -> bool:
    """Whether the file has a dataset of this name. Raises InputError for damage."""
    with open_hdf5(path) as file:
        return holds(file, name, path) and isinstance(file[name], h5py.Dataset)


def _require_keys(file: h5py.File, path: Path, mapping: Mapping[str, str]) -> None:
    """Raise InputError where the mapping leaves open, or says twice, what must be known."""
    missing = [] if "frames" in mapping else ["frames"]
    if not {"positions_file", "positions"} & set(mapping) and not {"positions_x", "positions_y"} <= set(mapping):
        missing.append("positions (or positions_y and positions_x)")
    if missing:
        frames, positions = _example(file)
        raise InputError(
            "an HDF5 file that must be explained by a mapping" if not mapping else "not in the mapping",
            file=path,
            field=None if not mapping else ", ".join(missing),
            found="datasets " + (", ".join(hdf5_listing(file)) or "none"),
            remedy=f"Say, for example: --map frames={frames} --positions FILE (a table of its own), or, where this "
            f"file holds them: --map frames={frames} --map positions={positions} --map position_unit=um (more keys: "
            + ", ".join(KEYS)
            + ")",
        )
    exclusive = (("mask", "bad_pixels"), ("wavelength_m", "energy_ev"), ("positions", "positions_x"))
    for keys in (*exclusive, ("positions", "positions_file")):
        if set(keys) <= set(mapping):
            raise InputError("the mapping says the same thing twice", file=path, field=" and ".join(keys))
    if "object" in mapping and "object_origin_px" not in mapping:
        raise InputError("the mapping leaves out where the object lies", file=path, field="object_origin_px")


def _example(file: h5py.File) -> tuple[str, str]:
    """What in the file may well be its frames (the largest stack) and positions (the first table of two columns)."""
    shapes = hdf5_shapes(file)
    stacks = [name for name, shape in shapes.items() if len(shape) in (3, 4)]
    tables = [name for name, shape in shapes.items() if len(shape) == 2 and shape[1] == 2]
    return max(stacks, key=lambda name: math.prod(shapes[name]), default="/entry/data"), (*tables, "/entry/xy")[0]


def _positions(file: h5py.File, path: Path, mapping: Mapping[str, str]) -> tuple[NDArray[Any], PositionUnit]:
    """Positions in metres or pixels, and which of the two."""
    if "positions_file" in mapping:
        return position_files.read_positions(mapping)
    positions = _own_positions(file, path, mapping)
    names = [mapping[key] for key in ("positions", "positions_y", "positions_x") if key in mapping]
    written = {attribute_text(file[name], "units") for name in names}
    if len(written) > 1:
        raise InputError("in different units", file=path, field=", ".join(names), found=", ".join(sorted(written)))
    field = f"{names[0]}, attribute units"
    scale = agreed_scale(mapping.get("position_unit"), written.pop(), field=field)
    if scale is None:
        raise InputError(
            "the unit of the positions is not said",
            file=path,
            field="position_unit",
            found=f"no attribute units at {names[0]}",
            remedy="Say it: --map position_unit=um (m, mm, um, nm, or px for object pixels)",
        )
    return positions * scale[0], scale[1]


def _own_positions(file: h5py.File, path: Path, mapping: Mapping[str, str]) -> NDArray[Any]:
    if "positions" in mapping:
        values = read_hdf5_array(file, mapping["positions"], path)
        return values.reshape(-1, 2) if values.ndim == 3 and values.shape[2] == 2 else values
    down, right = (read_hdf5_array(file, mapping[f"positions_{axis}"], path).ravel() for axis in "yx")
    if len(down) != len(right):
        raise InputError(
            "of different length",
            file=path,
            field="positions_y, positions_x",
            found=f"{len(down)} and {len(right)}",
        )
    return np.column_stack((down, right))


def _geometry(file: h5py.File, path: Path, mapping: Mapping[str, str]) -> Geometry:
    energy = _number(file, path, mapping, "energy_ev")
    return Geometry(
        wavelength=wavelength_of(energy * ELECTRONVOLT) if energy else _number(file, path, mapping, "wavelength_m"),
        distance=_number(file, path, mapping, "distance_m"),
        detector_pixel=_number(file, path, mapping, "detector_pixel_m"),
        pixel_size=_number(file, path, mapping, "pixel_size_m"),
    )


def _mask(file: h5py.File, path: Path, mapping: Mapping[str, str]) -> NDArray[np.bool_] | None:
    if "mask" in mapping:
        return read_hdf5_array(file, mapping["mask"], path) != 0
    if "bad_pixels" in mapping:
        return read_hdf5_array(file, mapping["bad_pixels"], path) == 0
    return None


def _probe(file: h5py.File, path: Path, mapping: Mapping[str, str]) -> NDArray[np.complex64] | None:
    if "probe" not in mapping:
        return None
    return probe_modes(read_hdf5_complex(file, mapping["probe"], path))


def _object(file: h5py.File, path: Path, mapping: Mapping[str, str]) -> ObjectImage | None:
    if "object" not in mapping:
        return None
    row, column = _numbers(file, path, mapping, "object_origin_px", 2)
    image = read_hdf5_complex(file, mapping["object"], path)
    return ObjectImage(image, (row, column), f"{path.name}, {mapping['object']}")


def _number(file: h5py.File, path: Path, mapping: Mapping[str, str], key: str) -> float | None:
    return _numbers(file, path, mapping, key, 1)[0] if key in mapping else None


def _numbers(file: h5py.File, path: Path, mapping: Mapping[str, str], key: str, count: int) -> list[float]:
    """`count` numbers, written in the mapping separated by commas or held by the dataset it names."""
    text = mapping[key]
    if text in file:
        values = (np.ravel(read_hdf5_array(file, text, path)) * _scale(file, text, key)).tolist()
    else:
        try:
            values = [float(part) for part in text.split(",")]
        except ValueError:
            values = []
    if len(values) != count:
        raise InputError(
            "neither as many numbers nor a dataset that holds them",
            file=path,
            field=key,
            found=text,
            expected=f"{count}, in the unit of the key's name" if count == 1 else count,
        )
    return values


def _scale(file: h5py.File, name: str, key: str) -> float:
    """What the numbers of a dataset are multiplied by, as its attribute `units` says, for the unit of the key's name.

    Raises InputError for a unit not known.
    """
    unit, field = attribute_text(file[name], "units"), f"{name}, attribute units"
    if not unit:
        return 1.0
    if key.endswith("_ev"):
        return joules(unit, field=field) / ELECTRONVOLT
    return metres(unit, field=field) if key.endswith("_m") else 1.0


FORMAT = Format(name="hdf5", title="any HDF5 with a mapping", recognises=h5py.is_hdf5, read=read, keys=KEYS)
