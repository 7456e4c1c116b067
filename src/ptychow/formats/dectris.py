"""Dectris's files: NAME_master.h5 and its NAME_data_000001.h5, ..., compressed with bitshuffle and LZ4.

    /entry/data/data_000001, ...            links to the frames (n, H, W) in the data files (FileWriter 1)
    /entry/data/data                        or all of them as (N, channels, H, W) or (N, H, W) (FileWriter 2)
    /entry/instrument/beam/incident_wavelength           angstrom
    /entry/instrument/detector/{detector_distance,x_pixel_size,beam_center_x,...}  m, m, pixels
    .../detectorSpecific/{pixel_mask,countrate_correction_count_cutoff}, or pixel_mask and saturation_value above

Any bit in the pixel mask makes a pixel bad. Counts at and above the cutoff are not to be believed, nor are those above
the saturation value, which is NeXus's: the largest that is valid. Positions are in no such file: they are given
(`ptychow.formats.position_files`). Layout: the SIMPLON API's manual, "HDF5 FileWriter", and Dectris's documentation of
FileWriter 2; links to data files that were never written are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats import dropping, position_files
from ptychow.formats.base import Format
from ptychow.formats.dropping import Pairing
from ptychow.formats.hdf5_files import (
    attribute_text,
    holds,
    open_hdf5,
    read_hdf5_array,
    read_hdf5_number,
    read_hdf5_text,
)
from ptychow.formats.lazy import HDF5Frames, JoinedFrames
from ptychow.formats.units import ELECTRONVOLT, metres, wavelength_of
from ptychow.scan import BEAM_CENTRE, Frames, Geometry, Scan, Subset

DATA, BEAM, DETECTOR = "entry/data", "entry/instrument/beam", "entry/instrument/detector"
SPECIFIC = f"{DETECTOR}/detectorSpecific"
KEYS = {
    "channel": "number, from 0, of the threshold to take where there are several",
    **position_files.KEYS,
    **dropping.KEYS,
}


def recognises(path: Path) -> bool:
    """Whether the file is HDF5 in a Dectris master file's layout; data files need not be there to tell."""
    if not h5py.is_hdf5(path):
        return False
    with open_hdf5(path) as file:
        if not holds(file, DATA, path) or not isinstance(file[DATA], h5py.Group):
            return False
        names = list(file[DATA])
        return bool(_parts(names)) or ("data" in names and holds(file, SPECIFIC, path)) or _is_filewriter_2(file, path)


def read(path: Path, mapping: Mapping[str, str]) -> Scan:
    """The scan of a master file and a file of positions. Raises InputError for what is missing or damaged."""
    given, unit = position_files.needed(path, mapping)
    with open_hdf5(path) as file:
        stored, channel = _frames(file, path, mapping)
        pairing = Pairing.of(stored.shape[0], path, mapping)
        facts = read_detector_facts(file, path, channel)
        return Scan(
            frames=pairing.images(stored),
            positions=pairing.positions(given),
            position_unit=unit,
            geometry=facts.geometry,
            mask=facts.mask,
            saturation=facts.saturation,
            name=path.name,
            metadata=facts.metadata,
        )


@dataclass(frozen=True)
class DetectorFacts:
    """What a master file says of all frames, as `Scan` has it. What it does not say is None."""

    geometry: Geometry
    mask: NDArray[np.bool_] | None
    saturation: float | None
    metadata: dict[str, str]


def read_detector_facts(file: h5py.File, path: Path, channel: int) -> DetectorFacts:
    """What a master file says of all frames of a threshold (`channel`, from 0), now or while a scan is running.

    Raises InputError for what cannot be read, unknown units, and pixels that are not square.
    """
    wavelength = _number(file, path, f"{BEAM}/incident_wavelength", f"{BEAM}/wavelength")
    if wavelength is None:
        energy = _number(file, path, f"{BEAM}/incident_energy", f"{SPECIFIC}/photon_energy")
        wavelength = wavelength_of(energy * ELECTRONVOLT if energy else None)
    across, down = (_number(file, path, f"{DETECTOR}/{axis}_pixel_size", length=True) for axis in "xy")
    if across and down and not np.isclose(across, down, rtol=1e-3):
        raise InputError("detector pixels are not square", file=path, found=f"{across:.4g} m x {down:.4g} m")
    distance = _number(file, path, f"{DETECTOR}/detector_distance", f"{DETECTOR}/distance", length=True)
    saturation = _number(file, path, f"{SPECIFIC}/countrate_correction_count_cutoff")
    if saturation is None:
        largest = _number(file, path, f"{DETECTOR}/saturation_value", f"{SPECIFIC}/saturation_value")
        saturation = None if largest is None else largest + 1
    centre = [read_hdf5_number(file, f"{DETECTOR}/beam_center_{axis}", path) for axis in "yx"]
    geometry, said = Geometry.told(wavelength=wavelength, distance=distance, detector_pixel=across or down)
    if None not in centre:
        said[BEAM_CENTRE] = f"{centre[0]:g},{centre[1]:g}"
    return DetectorFacts(geometry, _mask(file, path, channel), saturation, said)


def _parts(names: list[str]) -> list[str]:
    """The links to data files, in order."""
    return sorted(name for name in names if re.fullmatch(r"data_\d{6}", name))


def _is_filewriter_2(file: h5py.File, path: Path) -> bool:
    is_nxmx = read_hdf5_text(file, "entry/definition", path) == "NXmx"
    return is_nxmx and (read_hdf5_text(file, "entry/program_name", path) or "").startswith("DECTRIS")


def _frames(file: h5py.File, path: Path, mapping: Mapping[str, str]) -> tuple[Frames, int]:
    """The frames, and of which threshold they are, from 0."""
    parts = _parts(list(file[DATA]))
    if parts:
        return JoinedFrames(path, tuple(HDF5Frames.open(path, f"{DATA}/{part}") for part in parts)), 0
    frames = HDF5Frames.open(path, f"{DATA}/data")
    if frames.raster is None:
        return frames, 0
    images, channels = frames.raster
    channel = mapping.get("channel", "0" if channels == 1 else "")
    if not channel.isdecimal() or int(channel) >= channels:
        raise InputError(
            f"holds frames of {channels} thresholds",
            file=path,
            field="channel",
            found=channel or None,
            expected=f"one of 0 to {channels - 1}",
            remedy="Say which: --map channel=0",
        )
    return Subset(frames, np.arange(images) * channels + int(channel)), int(channel)


def _mask(file: h5py.File, path: Path, channel: int) -> NDArray[np.bool_] | None:
    """(H, W) of a threshold, or of the first where only that has one; (thresholds, H, W) is one for each."""
    groups = (SPECIFIC, DETECTOR, *(f"{DETECTOR}/threshold_{number}_channel" for number in (channel + 1, 1)))
    for name in (f"{group}/pixel_mask" for group in groups):
        if holds(file, name, path):
            good = read_hdf5_array(file, name, path) == 0
            if good.ndim == 3 and channel >= len(good):
                raise InputError("holds no mask of this threshold", file=path, field=name, found=f"shape {good.shape}")
            return good[channel] if good.ndim == 3 else good
    return None


def _number(file: h5py.File, path: Path, *names: str, length: bool = False) -> float | None:
    """The first number there is, in the SI's units where it says its own; None where all are absent or 0."""
    for name in names:
        value = read_hdf5_number(file, name, path)
        if value:
            unit = attribute_text(file[name], "units", "angstrom" if "wavelength" in name else "m" if length else "")
            return value * metres(unit, field=f"{name}, attribute units") if length or "wavelength" in name else value
    return None


FORMAT = Format(name="dectris", title="Dectris master file", recognises=recognises, read=read, keys=KEYS)
