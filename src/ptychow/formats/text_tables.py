"""Tables of numbers in text: commas, semicolons, tabs or blanks between columns, `#` comments, perhaps a header."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats.base import require_memory

LARGEST_TEXT = 2**28  # bytes: ten million lines
UNIT = r"[\s_(\[]+(m|mm|um|µm|μm|nm|px)"
WITH_UNIT = re.compile(rf"(?i).*?{UNIT}[\s)\]]*")
FRAME_NUMBER = re.compile(r"(?i)(?:frame|image|img|point|pt|idx|index|id)(?:[\W_]*(?:number|nr|no|id|index))?")

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

    def require_no_gaps(self, path: Path) -> None:
        """Raise InputError where a column that numbers the frames leaves some out."""
        for name in filter(FRAME_NUMBER.fullmatch, self.columns):
            numbers = self.columns[name]
            jumps = np.flatnonzero(np.diff(numbers) != 1)
            if len(jumps):
                raise InputError(
                    "lines are missing",
                    file=path,
                    field=name,
                    found=f"{numbers[jumps[0]]:g} and then {numbers[jumps[0] + 1]:g}",
                    expected="a line for every frame",
                    remedy="Put in the missing lines (nan for what is unknown), or rename the column",
                )


def read_text_table(path: Path, field: str) -> Table:
    """The table in a file, its columns as float64.

    Raises InputError, naming `field`, for what is no text or no table, lines of different length, and lines that a
    column of frame numbers shows to be out of order.
    """
    if path.stat().st_size > LARGEST_TEXT:
        raise InputError("too long for a table", file=path, field=field, found=f"{path.stat().st_size:,} bytes")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("neither text nor HDF5, npy or npz", file=path, field=field) from None
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
                where, hint = f"line {number}", _decimal_commas(line)
                raise InputError("not numbers", file=path, field=where, found=line[:60], remedy=hint) from None
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
        raise InputError("no line of numbers", file=path, field=field, found=header[:60], remedy=hint)
    columns = numbered(np.array(rows), path)
    if len(names) != len(rows[0]):
        return Table(columns, {}, header)
    numbers = dict(zip(names, columns, strict=False))
    for name in filter(FRAME_NUMBER.fullmatch, names):
        _require_order(columns[numbers[name]], name, path)
    units = units_in(names)
    return Table(
        columns | {name: columns[number] for name, number in numbers.items()},
        units | {numbers[name]: unit for name, unit in units.items()},
        header,
    )


def numbered(table: NDArray[Any], path: Path) -> Columns:
    """The columns of (N, columns), or of (lines, points, columns), by number from 1. Raises InputError for another."""
    table = table.reshape(-1, table.shape[-1]) if table.ndim == 3 else table
    if table.ndim != 2 or table.dtype.kind not in "iuf":
        found = f"{table.dtype} {table.shape}"
        raise InputError("not a table", file=path, found=found, expected="numbers (points, columns)")
    require_memory(2 * table.nbytes, path, "")
    return {str(number): column for number, column in enumerate(table.T[:64], 1)}


def units_in(names: list[str]) -> dict[str, str]:
    """The unit that stands in each name, where one does."""
    return {name: found[1] for name in names if (found := WITH_UNIT.fullmatch(name))}


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


def _split(line: str) -> list[str]:
    """Fields between commas, semicolons or tabs; without those, between blanks (but not before a bracket)."""
    line = line.strip()
    if not line:
        return []
    separator = next((mark for mark in ("\t", ";", ",") if mark in line), None)
    return line.split(separator) if separator else re.sub(r"\s+(?=[(\[])", "", line).split()
