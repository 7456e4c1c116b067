"""Scan files: reading by content, writing.

A new format is one file with a `FORMAT` and one entry in `FORMATS`; more particular formats come first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import h5py

from ptychow.errors import InputError, about
from ptychow.formats import (
    cxi,
    dectris,
    hdf5,
    nexus,
    nsls2,
    numpy_stack,
    position_files,
    ptychodus,
    ptychonn,
    ptychoshelves,
    ptyd,
    tiff,
    tike_npz,
)
from ptychow.formats.base import Format
from ptychow.formats.cxi import write_scan
from ptychow.formats.dropping import OF_POSITIONS
from ptychow.formats.matlab_files import is_matlab
from ptychow.formats.numpy_files import npz_members
from ptychow.scan import Scan

__all__ = ["FORMATS", "Format", "is_scan", "read_scan", "recognise", "scan_of", "with_pixel_size", "write_scan"]

MODULES = (nexus, cxi, ptyd, ptychodus, ptychoshelves, nsls2, dectris, tike_npz, ptychonn, numpy_stack, tiff, hdf5)
FORMATS: dict[str, Format] = {module.FORMAT.name: module.FORMAT for module in MODULES}


def read_scan(
    path: str | os.PathLike[str], *, mapping: Mapping[str, str] | None = None, pixel_size: float | None = None
) -> Scan:
    """The scan in a file; its frames stay on disk until wanted.

    path: any file one of `FORMATS` recognises by its content.
    mapping: what the file does not say by itself; every format has its own `keys`, and all take a file of positions
        (`position_files.KEYS`), which then count instead of the file's own.
    pixel_size: of the object, in metres, where the file does not say.
    Raises InputError for whatever is missing, damaged, unknown or contradictory.
    """
    path = Path(path)
    mapping = {key: str(value) for key, value in (mapping or {}).items()}
    chosen = recognise(path, mapping)
    with about(path):
        _require_table(mapping, chosen)
        if "positions_file" not in mapping or "positions_file" in chosen.keys:
            scan = chosen.read(path, mapping)
        else:
            # What is said of positions is said of those of the table.
            scan = chosen.read(path, {key: value for key, value in mapping.items() if key not in OF_POSITIONS})
            scan = position_files.with_positions(scan, mapping)
        return with_pixel_size(scan, pixel_size)


def scan_of(given: Scan | str | os.PathLike[str]) -> Scan:
    """A Scan itself, or that of a file that explains itself. Raises InputError as `read_scan`."""
    return given if isinstance(given, Scan) else read_scan(given)


def _require_table(mapping: Mapping[str, str], chosen: Format) -> None:
    """Raise InputError for what is said of a table of positions, where none is named and the file's own explain
    themselves.
    """
    own = {"position_unit"} & set(chosen.keys)
    idle = sorted({"position_unit", "position_columns"} & set(mapping) - own)
    if idle and "positions_file" not in mapping:
        remedy = f"Leave it out, or name the table: --positions FILE. A {chosen.title} file says this itself"
        raise InputError("speaks of a table of positions, and none is named", field=", ".join(idle), remedy=remedy)


def recognise(path: Path, mapping: Mapping[str, str] | None = None) -> Format:
    """The format of a file: the first that recognises it and understands every key of `mapping`; that of any HDF5 where
    `frames` names a dataset of the file.

    Raises InputError where there is none.
    """
    mapping = mapping or {}
    _require_file(path)
    candidates = _recognising(path)
    if not candidates:
        raise InputError(
            "not a scan file of a known kind",
            file=path,
            found=_looks_like(path),
            expected=" or ".join(known.title for known in FORMATS.values()),
            remedy="Make a ptychow.Scan of your arrays and write it (docs/formats.md, NumPy stacks)",
        )
    if hdf5.FORMAT in candidates and "frames" in mapping and hdf5.has_dataset(path, mapping["frames"]):
        candidates = [hdf5.FORMAT]  # for all others `frames` is another file
    for candidate in candidates:
        if set(mapping) <= {*candidate.keys, *position_files.KEYS}:
            return candidate
    known_keys = list(dict.fromkeys(key for known in candidates for key in (*known.keys, *position_files.KEYS)))
    raise InputError(
        "a mapping this kind of file does not understand",
        file=path,
        field=", ".join(sorted(set(mapping) - set(known_keys)) or sorted(mapping)),
        expected="some of " + ", ".join(known_keys),
    )


def is_scan(path: Path) -> bool:
    """Whether something lies there that some format recognises."""
    return path.exists() and bool(_recognising(path))


def _recognising(path: Path) -> list[Format]:
    of_folders = [tiff.FORMAT] if path.is_dir() else FORMATS.values()
    return [known for known in of_folders if known.recognises(path)]


def with_pixel_size(scan: Scan, pixel_size: float | None) -> Scan:
    """The scan with the object's pixel (metres) where it does not know it itself. None: the scan as it is.

    Raises InputError where the scan says another one, by more than 1 %.
    """
    known = scan.geometry.pixel_size
    if pixel_size is None:
        return scan
    if known is None:
        return replace(scan, geometry=replace(scan.geometry, pixel_size=pixel_size))
    if abs(pixel_size / known - 1) > 0.01:
        raise InputError(
            "contradicts the file",
            file=scan.name,
            field="pixel_size",
            found=f"{pixel_size * 1e9:.4g} nm",
            expected=f"{known * 1e9:.4g} nm",
            remedy="Leave the option out",
        )
    return scan


def _require_file(path: Path) -> None:
    """Raise InputError for whatever is not a readable file, or folder of pictures, with something in it."""
    if path.is_dir() and not tiff.recognises(path):
        names = sorted(item.name for item in path.iterdir())
        found = (
            "an empty folder"
            if not names
            else f"a folder with {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
        )
        raise InputError("not a file", file=path, found=found, expected="a scan file", remedy="Name the file itself")
    if not path.exists():
        raise InputError("no such file", file=path, remedy="Check the name")
    if not os.access(path, os.R_OK):
        raise InputError("not readable for you", file=path, remedy="Check the file's permissions")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError("empty", file=path, found="0 bytes", remedy="Copy it again")


def _looks_like(path: Path) -> str:
    """What the file's first bytes say it is, in words."""
    if h5py.is_hdf5(path):
        return "an HDF5 file"
    members = npz_members(path)
    if members:
        return f"an npz file with {', '.join(members[:8])}"
    if is_matlab(path):
        return "a MATLAB file without frames or a reconstruction in it"
    with path.open("rb") as file:
        head = file.read(8)
    known = {
        b"\x93NUMPY": "a numpy array file",
        b"PK\x03\x04": "a zip archive that is not a complete npz file (truncated? copy it again)",
        b"\x89PNG": "a PNG image",
        b"\x1f\x8b": "a gzip file (unpack it)",
        b"BZh": "a bzip2 file (unpack it)",
    }
    found = next((words for magic, words in known.items() if head.startswith(magic)), None)
    return found or f"unknown content beginning with {head!r}"
