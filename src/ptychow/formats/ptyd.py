"""ptypy's .ptyd: frames in chunks, positions in metres, and what is known of the geometry.

    meta/{energy, distance, psize, propagation, label}  keV, m, m; any may be missing or "None"
    chunks/0/{data, positions, weights, indices}        (M, H, W), (M, 2) in metres, (M, H, W) or empty
    chunks/1/..., chunks/2/...                          in this file, or links to NAME.ptyd.part001, ...

Positions are (row, column) of ptypy's object axes and need no sign turned. Weights of 0 mark bad pixels; a pixel that
is bad in any frame is taken as bad in all. A weight for all frames may lie in meta, info or common as `weight2d`.
Layout: the documentation of ptypy, "Ptyd file format", and `PtydScan` of ptypy 0.8.
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
from ptychow.formats.cxi_reading import near_field
from ptychow.formats.dropping import Pairing
from ptychow.formats.hdf5_files import (
    hdf5_dataset,
    hdf5_listing,
    holds,
    open_hdf5,
    read_hdf5_real,
    read_hdf5_text,
    read_part,
)
from ptychow.formats.lazy import HDF5Frames, JoinedFrames
from ptychow.formats.position_files import place
from ptychow.formats.units import ELECTRONVOLT, wavelength_of
from ptychow.scan import Geometry, PositionUnit, Scan

KEYS = {**dropping.KEYS, "positions_file": position_files.KEYS["positions_file"]}
LAYERS = 2**22  # pixels of the weights that are read at a time


def recognises(path: Path) -> bool:
    """Whether the file is HDF5 with ptypy's chunks."""
    if not h5py.is_hdf5(path):
        return False
    with open_hdf5(path) as file:
        return isinstance(file.get("chunks", getlink=True), h5py.HardLink) and holds(file, "meta", path)


def read(path: Path, mapping: Mapping[str, str]) -> Scan:
    """The scan in a .ptyd file. Raises InputError for what is missing or damaged, and for near fields."""
    with open_hdf5(path) as file:
        if (read_hdf5_text(file, "meta/propagation", path) or "").lower() == "nearfield":
            raise near_field(path, "meta/propagation")
        numbers = sorted(int(key) for key in file["chunks"] if str(key).isdecimal())
        chunks = [f"chunks/{number}" for number in numbers]
        if not chunks:
            found = ", ".join(hdf5_listing(file)) or "no dataset at all"
            raise InputError("a .ptyd file without frames", file=path, found=found, expected="chunks/0/data")
        frames = JoinedFrames(path, tuple(HDF5Frames.open(path, f"{chunk}/data") for chunk in chunks))
        energy = _lengths(file, "meta/energy", path)
        pixel = _lengths(file, "meta/psize", path)
        if pixel and not np.isclose(pixel[0], pixel[-1], rtol=1e-3):
            raise InputError("detector pixels are not square", file=path, field="meta/psize", found=pixel)
        distance = _lengths(file, "meta/distance", path)
        label = read_hdf5_text(file, "meta/label", path)
        pairing = Pairing.of(frames.shape[0], path, mapping)
        placed = place(lambda: _positions(file, chunks, path), pairing, mapping)
        return Scan(
            frames=pairing.images(frames),
            positions=placed.positions,
            position_unit=placed.unit,
            nominal_positions=placed.nominal,
            mask=_mask(file, chunks, frames, path),
            geometry=Geometry(
                wavelength=wavelength_of(energy[0] * 1e3 * ELECTRONVOLT if energy else None),
                distance=distance[0] if distance else None,
                detector_pixel=pixel[0] if pixel else None,
            ),
            name=path.name,
            metadata=({"label": label} if label and label != "None" else {}) | placed.said,
        )


def _lengths(file: h5py.File, name: str, path: Path) -> list[float] | None:
    """One or two numbers; None where ptypy says nothing, or "None"."""
    if not holds(file, name, path) or hdf5_dataset(file, name, path).dtype.kind not in "iuf":
        return None
    values = np.ravel(read_hdf5_real(file, name, path)).tolist()
    if len(values) not in (1, 2):
        raise InputError("of the wrong length", file=path, field=name, found=len(values), expected="1 or 2")
    return values


def _positions(file: h5py.File, chunks: list[str], path: Path) -> tuple[NDArray[np.float64], PositionUnit]:
    parts = []
    for name in (f"{chunk}/positions" for chunk in chunks):
        if not holds(file, name, path):
            raise InputError("holds no positions", file=path, expected=f"/{name}", remedy=position_files.REMEDY)
        positions = read_hdf5_real(file, name, path)
        if positions.ndim != 2 or positions.shape[1] != 2:
            found = f"shape {positions.shape}"
            raise InputError("not positions", file=path, field=name, found=found, expected="(frames, 2)")
        parts.append(positions.astype(np.float64))
    return np.concatenate(parts), "m"


def _mask(file: h5py.File, chunks: list[str], frames: JoinedFrames, path: Path) -> NDArray[np.bool_] | None:
    """Pixels whose weight is not 0 in any frame; None where there are no weights."""
    shape = frames.shape[1:]
    good = np.ones(shape, bool)
    weighted = [f"{group}/weight2d" for group in ("meta", "info", "common")] + [f"{chunk}/weights" for chunk in chunks]
    used = False
    for name in weighted:
        if not holds(file, name, path):
            continue
        dataset = hdf5_dataset(file, name, path)
        if dataset.size <= 1 or dataset.dtype.kind not in "biuf":
            continue  # empty, or a flag that weights were there
        counts = {part.stored_shape[0] for part in frames.parts if isinstance(part, HDF5Frames)}
        if dataset.shape[-2:] != shape or dataset.ndim > 3 or (dataset.ndim == 3 and dataset.shape[0] not in counts):
            found = f"shape {dataset.shape}"
            raise InputError("does not fit the frames", file=path, field=name, found=found, expected=shape)
        used = True
        if dataset.ndim == 2:
            good &= read_hdf5_real(file, name, path) > 0
            continue
        count, step = dataset.shape[0], max(1, LAYERS // good.size)
        for start in range(0, count, step):
            good &= (read_part(dataset, [(start, min(start + step, count))], path, name) > 0).all(axis=0)
    return good if used else None


FORMAT = Format(name="ptyd", title="ptypy .ptyd", recognises=recognises, read=read, keys=KEYS)
