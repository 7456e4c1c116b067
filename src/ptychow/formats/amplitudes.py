"""Files that somebody made for a program of amplitudes: their frames are square roots of counts, if it is said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ptychow.errors import InputError
from ptychow.formats.lazy import LazyFrames
from ptychow.frame_views import SquaredFrames
from ptychow.scan import Frames

AMPLITUDES = {"frames_are": "counts (if it is not said), or amplitudes: square roots of counts"}


def as_counts(stored: LazyFrames, mapping: Mapping[str, str], path: Path) -> Frames:
    """The frames in counts. Raises InputError for what they cannot be."""
    said = mapping.get("frames_are", "counts")
    if said not in ("counts", "amplitudes"):
        raise InputError("not understood", file=path, field="frames_are", found=said, expected="counts or amplitudes")
    return SquaredFrames(stored) if said == "amplitudes" else stored
