"""Positions that lie in a file of their own: text (CSV, TSV, blanks), HDF5, npy or npz.

Detectors and pictures know nothing of positions, and corrected ones come in files of their own: `--positions FILE`,
or the key `positions_file` of a mapping. Which columns are down and right, and their unit, is said by the file's
header (`x_um, y_um`; `sample_y[nm]`; `SY (mm)`) or by the keys `position_columns` and `position_unit`; nothing is
guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats.base import require_memory
from ptychow.formats.dropping import OF_POSITIONS, Pairing
from ptychow.formats.hdf5_files import attribute_text, hdf5_listing, open_hdf5, read_hdf5_array
from ptychow.formats.numpy_files import is_npy, npz_members, read_array
from ptychow.formats.units import agreed_scale
from ptychow.scan import PositionUnit, Scan

KEYS = {
    "positions_file": "file of text, HDF5, npy or npz with the positions (--positions)",
    "position_columns": "DOWN,RIGHT: names or numbers (from 1) of columns, or names of datasets; -NAME turns the sign",
    "position_unit": "m, mm, um, nm or px (object pixels)",
}
LARGEST_TEXT = 2**28  # bytes: ten million lines
UNIT = r"[\s_(\[]+(m|mm|um|µm|μm|nm|px)"
# A word before the letter must be set apart from it or be a usual one: "index" and "energy" are no axes.
AXIS_AND_UNIT = re.compile(rf"(?i)(?:.*[\W_]|s|sam|sample|stage|motor|pos|position)?([xy])(?:{UNIT})?[\s)\]]*")
FRAME_NUMBER = re.compile(r"(?i)(?:frame|image|img|point|pt|idx|index|id)(?:[\W_]*(?:number|nr|no|id|index))?")
WITH_UNIT = re.compile(rf"(?i).*?{UNIT}[\s)\]]*")

Columns = dict[str, NDArray[Any]]


class Table(NamedTuple):
    """Columns by name and by number from 1, the units that the file gives them, and its header as it stands there."""

    columns: Columns
    units: dict[str, str]
    header: str = ""

    def described(self) -> str:
        """What there is, in words."""
        names = "columns " + ", ".join(list(self.columns)[:12])
        return f"{names}, header {self.header[:120]!r}" if self.header else f"{names}, no header"


def needed(path: Path, mapping: Mapping[str, str]) -> tuple[NDArray[np.float64], PositionUnit]:
    """The positions for a scan file that holds none: (N, 2) (row, column), and "m" or "px".

    Raises InputError where no file of positions is named, and as `read_positions`.
    """
    if "positions_file" not in mapping:
        raise InputError(
            "holds no positions",
            file=path,
            remedy="Name the file that does: --positions FILE (text, CSV, HDF5, npy or npz)",
        )
    return read_positions(mapping)


def with_positions(scan: Scan, mapping: Mapping[str, str]) -> Scan:
    """The scan with the positions of `positions_file`; its own become the nominal ones where the units agree."""
    positions, unit = read_positions(mapping)
    # What `drop` leaves out is not in the scan any more.
    left_out = {key: mapping[key] for key in OF_POSITIONS if key in mapping}
    positions = Pairing.of(len(scan), Path(scan.name), left_out).positions(positions)
    nominal = scan.positions if unit == scan.position_unit else None
    record = {"positions": f"from {Path(mapping['positions_file']).name}"}
    return replace(
        scan,
        positions=positions,
        position_unit=unit,
        nominal_positions=nominal,
        raster=None,
        metadata=scan.metadata | record,
    )


def read_positions(mapping: Mapping[str, str]) -> tuple[NDArray[np.float64], PositionUnit]:
    """(N, 2) of (row, column) in metres or pixels, and which of the two.

    Raises InputError where the file is missing or damaged, and where columns or unit are not said.
    """
    path = Path(mapping["positions_file"])
    if not path.is_file():
        raise InputError("no such file", file=path, field="positions_file", remedy="Check the name")
    wanted = [name.strip() for name in mapping.get("position_columns", "").split(",") if name.strip()]
    table = _read_columns(path, [name.lstrip("-") for name in wanted])
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
        return Table(_numbered(read_array(path), path), {})
    members = npz_members(path)
    if members:
        if len(members) == 1:
            return Table(_numbered(read_array(path, members[0]), path), {})
        if len(wanted) == 1:
            return Table(_numbered(read_array(path, wanted[0]), path), {})
        names = wanted or [name for name in members if AXIS_AND_UNIT.fullmatch(name)]
        return Table(_flat({name: read_array(path, name) for name in names}, path), _units_in(names))
    return _text_columns(path)


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
        return Table(_numbered(arrays[wanted[0]], path), {"1": unit, "2": unit} if unit else {})
    return Table(_flat(arrays, path), {name: unit for name, unit in units.items() if unit})


def _text_columns(path: Path) -> Table:
    if path.stat().st_size > LARGEST_TEXT:
        raise InputError("too long for a file of positions", file=path, found=f"{path.stat().st_size:,} bytes")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("neither text nor HDF5, npy or npz", file=path, field="positions_file") from None
    names: list[str] = []
    header = ""
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), 1):
        is_comment = line.lstrip().startswith("#")
        fields = [field.strip() for field in _split(line.lstrip().lstrip("#"))]
        if not fields or (is_comment and rows):
            continue
        try:
            values = [float(field) for field in fields]
        except ValueError:
            if rows:
                field, hint = f"line {number}", _decimal_commas(line)
                raise InputError("not numbers", file=path, field=field, found=line[:60], remedy=hint) from None
            names, header = fields, line.strip()  # the last line of words before the numbers is the header
            continue
        if is_comment:
            continue
        if rows and len(values) != len(rows[0]):
            found = f"{len(values)} columns after {len(rows[0])}"
            raise InputError("a line of another length", file=path, field=f"line {number}", found=found)
        rows.append(values)
    if not rows:
        hint = _decimal_commas(header)
        raise InputError("no line of numbers", file=path, field="positions_file", found=header[:60], remedy=hint)
    columns = _numbered(np.array(rows), path)
    if len(names) != len(rows[0]):
        return Table(columns, {}, header)
    numbers = dict(zip(names, columns, strict=False))
    for name in filter(FRAME_NUMBER.fullmatch, names):
        _require_order(columns[numbers[name]], name, path)
    units = _units_in(names)
    return Table(
        columns | {name: columns[number] for name, number in numbers.items()},
        units | {numbers[name]: unit for name, unit in units.items()},
        header,
    )


def _require_order(numbers: NDArray[Any], name: str, path: Path) -> None:
    """Raise InputError where a column that numbers the frames does not rise: lines are frames, in their order."""
    falls = np.flatnonzero(~(np.diff(numbers) > 0))
    if len(falls):
        raise InputError(
            "the lines are not in the frames' order",
            file=path,
            field=name,
            found=f"{numbers[falls[0]]:g} and then {numbers[falls[0] + 1]:g}",
            remedy="Sort the lines by it, or rename the column where it is no number of frames",
        )


def _decimal_commas(line: str) -> str | None:
    """What to do about numbers such as 1,25 in a line whose fields are otherwise separated."""
    is_decimal = re.search(r"\d,\d", line) and re.search(r"[;\t]", line)
    return "Write decimal points, not commas" if is_decimal else None


def _units_in(names: list[str]) -> dict[str, str]:
    """The unit that stands in each name, where one does."""
    return {name: found[1] for name in names if (found := WITH_UNIT.fullmatch(name))}


def _split(line: str) -> list[str]:
    """Fields between commas, semicolons or tabs; without those, between blanks (but not before a bracket)."""
    line = line.strip()
    if not line:
        return []
    separator = next((mark for mark in ("\t", ";", ",") if mark in line), None)
    return line.split(separator) if separator else re.sub(r"\s+(?=[(\[])", "", line).split()


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


def _numbered(table: NDArray[Any], path: Path) -> Columns:
    """The columns of (N, columns), or of (lines, points, columns), by number from 1."""
    table = table.reshape(-1, table.shape[-1]) if table.ndim == 3 else table
    if table.ndim != 2 or table.dtype.kind not in "iuf":
        found = f"{table.dtype} {table.shape}"
        raise InputError("not a table of positions", file=path, found=found, expected="(points, 2)")
    if table.shape[1] < 2:
        raise InputError("a single column", file=path, field="positions_file", expected="two: down and right")
    require_memory(2 * table.nbytes, path, "positions_file")
    return {str(number): column for number, column in enumerate(table.T[:64], 1)}


def _flat(arrays: Columns, path: Path) -> Columns:
    for name, values in arrays.items():
        if values.dtype.kind not in "iuf":
            raise InputError("not numbers", file=path, field=name, found=f"dtype {values.dtype}")
    return {name: values.ravel() for name, values in arrays.items()}
