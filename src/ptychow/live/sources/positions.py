"""Positions as files and stages tell them, to records."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ptychow.errors import InputError
from ptychow.formats.units import UNITS
from ptychow.live.records import LARGEST_INDEX, Corrupt, PositionRecord


def require_unit(unit: str) -> str:
    """`unit` itself. Raises InputError for an unknown one."""
    if unit not in UNITS:
        raise InputError("unknown", field="unit of the positions", found=unit, expected=", ".join(UNITS))
    return unit


def to_position(
    index: int, position: Sequence[float], unit: str, received_at: float, series: int | None = None
) -> PositionRecord | Corrupt:
    """The record of (y, x) in `unit`: metres, or object pixels for "px". Corrupt where that is no position."""
    y, x = (float(coordinate) * UNITS[unit] for coordinate in position)
    if not (math.isfinite(y) and math.isfinite(x)):
        return Corrupt(index, f"position ({y}, {x}) of frame {index} is not finite", series)
    if not 0 <= index <= LARGEST_INDEX:
        return Corrupt(None, f"a position of frame {index}", series)
    return PositionRecord(index, (y, x), "px" if unit == "px" else "m", received_at, series)
