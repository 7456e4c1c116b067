"""Positions as files and stages tell them, to records."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ptychow.formats.units import position_scale
from ptychow.live.records import LARGEST_INDEX, NoPosition, PositionRecord


def require_unit(unit: str) -> str:
    """`unit` itself. Raises InputError for an unknown one."""
    position_scale(unit, field="unit of the positions")
    return unit


def to_position(
    index: int, position: Sequence[float], unit: str, received_at: float, series: int | None = None
) -> PositionRecord | NoPosition:
    """The record of (y, x) in `unit`: metres, or object pixels for "px". NoPosition where that is none."""
    scale, kind = position_scale(unit, field="unit of the positions")
    y, x = (float(coordinate) * scale for coordinate in position)
    if not (math.isfinite(y) and math.isfinite(x)):
        return NoPosition(f"a position is not finite: ({y}, {x})", series)
    if not 0 <= index <= LARGEST_INDEX:
        return NoPosition(f"a position of frame {index}", series)
    return PositionRecord(index, (y, x), kind, received_at, series)
