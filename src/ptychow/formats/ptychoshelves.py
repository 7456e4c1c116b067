"""PtychoShelves and fold_slice: prepared data (.h5, .hdf5) and reconstructions (.mat).

    NAME_dp.hdf5 with NAME_para.hdf5        dp; ppX, ppY (m), and perhaps lambda (m), dx (object pixel, m)
    prepared data                           measurement/n0/{data,positions}, detector/n0/{modules,bad_pixels}
    .mat, version 5 to 7.3                  dp or cbed (rows, columns, frames); or object, probe,
                                            outputs.probe_positions (x, y, pixels), p.dx_spec, p.lambda, whose frames
                                            are named (--map frames=FILE) or lie beside as the one NAME_dp.hdf5

**Axes.** MATLAB writes arrays with their axes reversed; frames come as MATLAB's h5read gives them, (row, column). What
the reconstruction's script turned further (`detector.orientation`) is in no file. The probe moves by (-ppY, -ppX), as
in `+scans/+positions/hdf5_pos.m`; `probe_positions` count from the middle of the object, as in
`find_reconstruction_ROI_external.m`: patch [0, 0] lies at their (y, x) + ceil(object/2 - probe/2), counted from 1.
Prepared data are stored with zero frequency in the corner (`+core/prep_h5data.m`); it is moved to the middle.
Probes are in any scale and are brought to the frames' counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats import position_files
from ptychow.formats.base import Format
from ptychow.formats.hdf5_files import hdf5_listing, holds, open_hdf5, read_hdf5_number, read_hdf5_real
from ptychow.formats.lazy import HDF5Frames, JoinedFrames
from ptychow.formats.matlab_files import MatlabFile, is_matlab, open_matlab
from ptychow.formats.probes import probe_modes, with_scaled_probe
from ptychow.frame_views import RearrangedFrames
from ptychow.scan import Frames, Geometry, ObjectImage, Scan

STACKS = ("dp", "cbed")  # names of the frames
RESULT = ("object", "probe", "outputs")
MEASUREMENT = "measurement"
KEYS = {
    "frames": "file with the frames (dp) of a reconstruction",
    "parameters": "file with ppX and ppY, where it is not NAME_para.hdf5 beside NAME_dp.hdf5",
    **position_files.KEYS,
}


def recognises(path: Path) -> bool:
    """Whether the file is one of the three kinds."""
    if path.is_dir():
        return False
    if is_matlab(path):
        with open_matlab(path) as matlab:
            return any(matlab.has(name) for name in STACKS) or all(matlab.has(name) for name in RESULT)
    if not h5py.is_hdf5(path):
        return False
    with open_hdf5(path) as file:
        return holds(file, "dp", path) or holds(file, f"{MEASUREMENT}/n0/data", path)


def read(path: Path, mapping: Mapping[str, str]) -> Scan:
    """The scan. Raises InputError for what is missing, damaged or of the wrong size."""
    if is_matlab(path):
        return _read_matlab(path, mapping)
    with open_hdf5(path) as file:
        return _read_prepared(file, path) if MEASUREMENT in file else _read_pair(path, mapping)


def _read_pair(path: Path, mapping: Mapping[str, str]) -> Scan:
    """NAME_dp.hdf5 with the positions of NAME_para.hdf5, or of any file of positions."""
    frames = RearrangedFrames(HDF5Frames.open(path, "dp"), transposed=True)
    beside = path.with_name(path.stem.removesuffix("_dp") + "_para" + path.suffix)
    parameters = Path(mapping["parameters"]) if "parameters" in mapping else beside
    if "parameters" not in mapping and ("positions_file" in mapping or not beside.is_file()):
        positions, unit = position_files.needed(path, mapping)
        return Scan(frames=frames, positions=positions, position_unit=unit, name=path.name)
    if not parameters.is_file():
        raise InputError("no such file", file=parameters, field="parameters")
    with open_hdf5(parameters) as file:
        across, down = (read_hdf5_real(file, name, parameters).ravel() for name in ("ppX", "ppY"))
        if len(across) != len(down):
            raise InputError("not positions", file=parameters, field="ppX, ppY", found=f"{len(across)}, {len(down)}")
        geometry = Geometry(
            wavelength=read_hdf5_number(file, "lambda", parameters),
            pixel_size=read_hdf5_number(file, "dx", parameters),
        )
    positions = np.column_stack((-down.astype(np.float64), -across.astype(np.float64)))
    return Scan(frames=frames, positions=positions, position_unit="m", geometry=geometry, name=path.name)


def _read_prepared(file: h5py.File, path: Path) -> Scan:
    """What PtychoShelves prepared for its C++ engine: measured intensities, patches' corners in object pixels."""
    names = sorted((name for name in file[MEASUREMENT] if name[1:].isdecimal()), key=lambda name: int(name[1:]))
    stacks = tuple(HDF5Frames.open(path, f"{MEASUREMENT}/{name}/data") for name in names)
    if not stacks:
        found = ", ".join(hdf5_listing(file)) or "no dataset at all"
        raise InputError("prepared data without frames", file=path, found=found, expected=f"/{MEASUREMENT}/n0/data")
    frames = RearrangedFrames(JoinedFrames(path, stacks), shifted=True)
    corners = [read_hdf5_real(file, f"{MEASUREMENT}/{name}/positions", path) for name in names]
    if any(part.ndim != 2 or part.shape[1] != 2 or part.dtype.kind not in "iuf" for part in corners):
        found = ", ".join(f"{part.dtype} {part.shape}" for part in corners)
        raise InputError("not positions", file=path, field="positions", found=found, expected="(frames, 2)")
    middle = np.array(frames.shape[1:]) // 2
    scan = Scan(frames=frames, positions=np.concatenate(corners) + middle, position_unit="px", name=path.name)
    return replace(scan, mask=_mask(file, path, scan.frame_shape))


def _mask(file: h5py.File, path: Path, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Pixels in a module and not among the bad ones; None where neither is said."""
    names = {part: f"detector/n0/{part}" for part in ("modules", "bad_pixels")}
    found = {part: read_hdf5_real(file, name, path) for part, name in names.items() if holds(file, name, path)}
    if not found:
        return None
    for part, values in found.items():
        if values.size and (values.dtype.kind not in "iu" or values.min() < 0 or values.max() > max(shape)):
            raise InputError("no pixels of these frames", file=path, field=names[part], expected=f"within {shape}")
    good = np.full(shape, "modules" not in found)
    for rows, columns, top, left in np.reshape(found.get("modules", ()), (-1, 4)).astype(int):
        good[top : top + rows, left : left + columns] = True
    bad = np.reshape(found.get("bad_pixels", ()), (-1, 2)).astype(int)
    if (bad >= shape).any():
        expected = f"counted from 0, below {shape}"
        raise InputError("no pixels of these frames", file=path, field=names["bad_pixels"], expected=expected)
    good[tuple(bad.T)] = False
    return np.fft.fftshift(good)


def _read_matlab(path: Path, mapping: Mapping[str, str]) -> Scan:
    with open_matlab(path) as matlab:
        frames = _matlab_frames(path, matlab, mapping)
        wavelength, pixel = (_first_number(matlab.array(f"p.{name}"), path, name) for name in ("lambda", "dx_spec"))
        geometry = Geometry(wavelength=wavelength, pixel_size=pixel)
        positions = matlab.array("outputs.probe_positions")
        across, down = matlab.array("ppX"), matlab.array("ppY")
        if "positions_file" not in mapping and positions is None and across is not None and down is not None:
            motors = np.column_stack((-np.ravel(down), -np.ravel(across)))
            return Scan(frames, motors, "m", geometry, name=path.name)
        if "positions_file" in mapping or positions is None:
            given, unit = position_files.needed(path, mapping)
            return Scan(frames, given, unit, geometry, name=path.name)
        if positions.ndim != 2 or positions.shape[1] != 2 or np.iscomplexobj(positions):
            found = f"shape {positions.shape}"
            raise InputError("not positions", file=path, field="outputs.probe_positions", found=found)
        scan = Scan(frames, positions[:, ::-1].astype(np.float64), "px", geometry, name=path.name)
        return _with_result(scan, matlab)


def _with_result(scan: Scan, matlab: MatlabFile) -> Scan:
    """The scan with the probe and the object of a reconstruction."""
    probe, image = matlab.array("probe"), matlab.array("object")
    if probe is None or image is None:
        return scan
    modes = np.moveaxis(probe, (0, 1), (-2, -1))  # (rows, columns, modes, variations): the modes of the first
    modes = probe_modes(modes if modes.ndim < 4 else np.swapaxes(modes, 0, 1))
    if image.ndim != 2 or not np.iscomplexobj(image):
        return with_scaled_probe(scan, modes)  # several layers: no single transmission stands for them
    size, window = np.array(image.shape), np.array(modes.shape[1:])
    row, column = -(np.ceil(size / 2 - window / 2) - 1 + window // 2)
    placed = ObjectImage(image.astype(np.complex64), (float(row), float(column)), "PtychoShelves")
    return with_scaled_probe(replace(scan, object=placed), modes)


def _matlab_frames(path: Path, matlab: MatlabFile, mapping: Mapping[str, str]) -> Frames:
    name = next((name for name in STACKS if matlab.has(name)), None)
    if "frames" not in mapping and name is not None:
        return matlab.frames(name)
    beside = sorted(item for item in path.parent.iterdir() if item.name.endswith(("_dp.hdf5", "_dp.h5")))
    where = Path(mapping["frames"]) if "frames" in mapping else beside[0] if len(beside) == 1 else None
    if where is None or not where.is_file():
        raise InputError(
            "this reconstruction holds no frames",
            file=path,
            found=f"{len(beside)} files NAME_dp.hdf5 beside it" if where is None else f"no {where}",
            remedy="Name the file that does: --map frames=FILE",
        )
    return RearrangedFrames(HDF5Frames.open(where, "dp"), transposed=True)


def _first_number(values: NDArray[Any] | None, path: Path, name: str) -> float | None:
    """The first of one or two numbers, or None."""
    if values is None or not values.size:
        return None
    if values.size > 2 or values.dtype.kind not in "iuf":
        raise InputError("of the wrong length", file=path, field=f"p.{name}", found=values.size, expected="1 or 2")
    return float(np.ravel(values)[0])


FORMAT = Format(name="ptychoshelves", title="PtychoShelves / fold_slice", recognises=recognises, read=read, keys=KEYS)
