"""Positions that lie in a file of their own: text (CSV, TSV, blanks), HDF5, npy or npz.

Detectors and pictures know nothing of positions, and corrected ones come in files of their own: `--positions FILE`,
or the key `positions_file` of a mapping. Which columns are down and right, and their unit, is said by the file's
header (`x_um, y_um`; `sample_y[nm]`; `SY (mm)`) or by the keys `position_columns` and `position_unit`; nothing is
guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats.dropping import OF_POSITIONS, Pairing
from ptychow.formats.hdf5_files import attribute_text, hdf5_listing, open_hdf5, read_hdf5_array
from ptychow.formats.numpy_files import is_npy, npz_members, read_array
from ptychow.formats.text_tables import UNIT, Columns, Table, numbered, read_text_table, units_in
from ptychow.formats.units import agreed_scale
from ptychow.scan import PositionUnit, Scan

KEYS = {
    "positions_file": "file of text, HDF5, npy or npz with the positions (--positions)",
    "position_columns": "DOWN,RIGHT: names or numbers (from 1) of columns, or names of datasets; -NAME turns the sign",
    "position_unit": "m, mm, um, nm or px (object pixels)",
}
REMEDY = "Name the file that holds them: --positions FILE (text, CSV, HDF5, npy or npz)"
# A word before the letter must be set apart from it or be a usual one: "index" and "energy" are no axes.
AXIS_AND_UNIT = re.compile(rf"(?i)(?:.*[\W_]|s|sam|sample|stage|motor|pos|position)?([xy])(?:{UNIT})?[\s)\]]*")


def needed(path: Path, mapping: Mapping[str, str]) -> tuple[NDArray[np.float64], PositionUnit]:
    """The positions for a scan file that holds none: (N, 2) (row, column), and "m" or "px".

    Raises InputError where no file of positions is named, and as `read_positions`.
    """
    if "positions_file" not in mapping:
        raise InputError("holds no positions", file=path, remedy=REMEDY)
    return read_positions(mapping)


def read_positions_alone(mapping: Mapping[str, str]) -> tuple[NDArray[np.float64], PositionUnit]:
    """As `read_positions`, one a frame, for frames that are not there yet.

    Raises InputError as `read_positions`, as `Pairing`, for what a mapping says of anything but positions, and for
    lines that are missing by their own numbers: the frames that follow would get each other's positions.
    """
    foreign = sorted(set(mapping) - {*KEYS, *OF_POSITIONS})
    if foreign:
        expected = ", ".join((*KEYS, *OF_POSITIONS))
        raise InputError("says nothing of positions", field="--map", found=", ".join(foreign), expected=expected)
    positions, unit = read_positions(mapping, gaps=False)
    return Pairing.of(0, Path(mapping["positions_file"]), mapping).positions(positions), unit


class Placed(NamedTuple):
    """positions (N, 2), (row, column), of the frames that are kept, and their unit; the file's own as the nominal ones
    where a table's count instead and they are in one unit; what a scan's metadata should say of that.
    """

    positions: NDArray[np.float64]
    unit: PositionUnit
    nominal: NDArray[np.float64] | None
    said: dict[str, str]

    @property
    def is_table(self) -> bool:
        """Whether they are a table's."""
        return bool(self.said)


def place(
    own: Callable[[], tuple[NDArray[np.float64], PositionUnit]], pairing: Pairing, mapping: Mapping[str, str]
) -> Placed:
    """Where the frames of a scan file lie: as it says itself, or else as the table that a mapping names.

    own: reads all that the file says. Where a table counts, that may raise InputError, or not pair up with the frames:
    the file is none the worse for it. Raises InputError as `own`, `Pairing` and `read_positions`.
    """
    if "positions_file" not in mapping:
        positions, unit = own()
        return Placed(pairing.positions(positions), unit, None, {})
    positions, unit = read_positions(mapping)
    nominal, said = None, {"positions": f"from {Path(mapping['positions_file']).name}"}
    try:
        stored, own_unit = own()
    except InputError:
        said["positions in the file"] = "none that can be read"
    else:
        stored = pairing.of_frames().positions(stored)
        if len(stored) != pairing.kept.sum() or not np.isfinite(stored).all():
            said["positions in the file"] = "do not pair up with its frames"
        elif own_unit == unit:
            nominal = stored
    return Placed(pairing.positions(positions), unit, nominal, said)


def with_positions(scan: Scan, mapping: Mapping[str, str]) -> Scan:
    """A whole scan with the positions of the table that `mapping` names, as `place` has it."""
    said = {key: mapping[key] for key in OF_POSITIONS if key in mapping}
    pairing = Pairing.of(len(scan), Path(scan.name), said)
    placed = place(lambda: (scan.positions, scan.position_unit), pairing, mapping)
    return replace(
        scan,
        positions=placed.positions,
        position_unit=placed.unit,
        nominal_positions=placed.nominal,
        raster=None,
        metadata=scan.metadata | placed.said,
    )


def read_positions(mapping: Mapping[str, str], *, gaps: bool = True) -> tuple[NDArray[np.float64], PositionUnit]:
    """(N, 2) of (row, column) in metres or pixels, and which of the two.

    gaps: whether a column that numbers the frames may leave some out, as it does where their frames are missing too.
    Raises InputError where the file is missing or damaged, and where columns or unit are not said.
    """
    path = Path(mapping["positions_file"])
    if not path.is_file():
        raise InputError("no such file", file=path, field="positions_file", remedy="Check the name")
    wanted = [name.strip() for name in mapping.get("position_columns", "").split(",") if name.strip()]
    table = _read_columns(path, [name.lstrip("-") for name in wanted])
    if not gaps:
        table.require_no_gaps(path)
    if "1" in table.columns and "2" not in table.columns:
        raise InputError("a single column", file=path, field="positions_file", expected="two: down and right")
    down, right = _choose(table, wanted, path)
    scale, unit = _unit_of(table, [down, right], path, mapping.get("position_unit"))
    # One name stands for both columns, and so does its sign.
    signs = [-1.0 if name.startswith("-") else 1.0 for name in (wanted or [""]) * (1 if len(wanted) == 2 else 2)]
    values = [table.columns[name].astype(np.float64) * sign for name, sign in zip((down, right), signs, strict=True)]
    if len(values[0]) != len(values[1]):
        found = f"{len(values[0])} and {len(values[1])}"
        raise InputError("columns of different length", file=path, field=f"{down}, {right}", found=found)
    return np.column_stack(values) * scale, unit


def _read_columns(path: Path, wanted: list[str]) -> Table:
    if h5py.is_hdf5(path):
        return _hdf5_columns(path, wanted)
    if is_npy(path):
        return Table(numbered(read_array(path), path), {})
    members = npz_members(path)
    if members:
        if len(members) == 1:
            return Table(numbered(read_array(path, members[0]), path), {})
        if len(wanted) == 1:
            return Table(numbered(read_array(path, wanted[0]), path), {})
        names = wanted or [name for name in members if AXIS_AND_UNIT.fullmatch(name)]
        return Table(_flat({name: read_array(path, name) for name in names}, path), units_in(names))
    return read_text_table(path, "positions_file")


def _hdf5_columns(path: Path, wanted: list[str]) -> Table:
    with open_hdf5(path) as file:
        if not wanted:
            raise InputError(
                "which datasets hold the positions is not said",
                file=path,
                field="position_columns",
                found="datasets " + (", ".join(hdf5_listing(file)) or "none"),
                remedy="Say: --map position_columns=/path/of/y,/path/of/x",
            )
        arrays = {name: read_hdf5_array(file, name, path) for name in wanted}
        units = {name: attribute_text(file[name], "units") for name in wanted}
    if len(wanted) == 1:
        unit = units[wanted[0]]
        return Table(numbered(arrays[wanted[0]], path), {"1": unit, "2": unit} if unit else {})
    return Table(_flat(arrays, path), {name: unit for name, unit in units.items() if unit})


def _choose(table: Table, wanted: list[str], path: Path) -> tuple[str, str]:
    """Names of the columns down and right."""
    columns = table.columns
    if len(wanted) == 2:
        names = [name.lstrip("-") for name in wanted]
    elif len(wanted) == 1 and {"1", "2"} <= set(columns):
        names = ["1", "2"]
    else:
        axes = [(found[1].lower(), name) for name in columns if (found := AXIS_AND_UNIT.fullmatch(name))]
        named = [[name for letter, name in axes if letter == axis] for axis in "yx"]
        names = [found[0] if len(found) == 1 else "" for found in named]
    unknown = [name for name in names if name and name not in columns]
    if len(wanted) > 2 or not all(name in columns for name in names):
        raise InputError(
            f"no column {' or '.join(unknown)}" if unknown else "which columns are down and right is not said",
            file=path,
            field="position_columns",
            found=table.described(),
            remedy=_example(path, [name for name in columns if name.isdigit()][-2:]),
        )
    return names[0], names[1]


def _example(path: Path, names: list[str]) -> str:
    """What a user could say of this file. names: two of its columns."""
    columns = ",".join(names) or "2,3"
    return (
        f"Say, for example: --positions {path} --map position_columns={columns} --map position_unit=um (DOWN,RIGHT: "
        "names or numbers from 1; m, mm, um, nm, or px for object pixels; for ptychow live "
        f"'{path}?columns={columns}&unit=um')"
    )


def _unit_of(table: Table, names: list[str], path: Path, told: str | None) -> tuple[float, PositionUnit]:
    """As `position_scale`, for the unit that the user tells, or else of that of these columns."""
    found = {table.units.get(name, "") for name in names}
    if len(found) == 2 and "" in found and len(table.units) == 2:
        found.remove("")  # "x y (mm)": the only unit in the header, once by name and once by number
    if len(found - {""}) == 2:
        units = ", ".join(table.units[name] for name in names)
        raise InputError("columns in different units", file=path, field=", ".join(names), found=units)
    scale = agreed_scale(told, found.pop() if len(found) == 1 else "", field="the table's own")
    if scale is None:
        raise InputError(
            "the unit of the positions is not said",
            file=path,
            field="position_unit",
            found=table.described(),
            remedy=_example(path, names),
        )
    return scale


def _flat(arrays: Columns, path: Path) -> Columns:
    for name, values in arrays.items():
        if values.dtype.kind not in "iuf":
            raise InputError("not numbers", file=path, field=name, found=f"dtype {values.dtype}")
    return {name: values.ravel() for name, values in arrays.items()}
