"""Which frames of a scan are meant, as a user writes it: "17,203,390:" are numbers 17 and 203, and all from 390."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError


def chosen_frames(text: str, count: int, field: str, things: str = "frames") -> NDArray[np.bool_]:
    """(count,) which of so many frames `text` means: numbers from 0 and FIRST:LAST (LAST not among them), separated by
    commas, negative ones from the end, as Python counts.

    Raises InputError, naming `field` and the `things` meant, for another text, and where one of its parts is no frame.
    """
    chosen = np.zeros(count, bool)
    for part in text.split(","):
        indices = _indices(part, count)
        if not len(indices):
            expected = f"NUMBER or FIRST:LAST, some of {count} {things} (from 0)"
            raise InputError(f"no {things}", field=field, found=part, expected=expected)
        chosen[indices] = True
    return chosen


def _indices(part: str, count: int) -> range:
    """The frames of one part of the text; none where it is not understood."""
    first, colon, last = (piece.strip() for piece in part.partition(":"))
    try:
        if colon:
            return range(count)[int(first) if first else None : int(last) if last else None]
        number = range(count)[int(first)]
    except (ValueError, IndexError):
        return range(0)
    return range(number, number + 1)
