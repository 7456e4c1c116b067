"""What a scan is: by its first frames, and by what its detector says of them, in time or late."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptychow.errors import InputError
from ptychow.formats import with_pixel_size
from ptychow.live.records import FrameRecord, Start
from ptychow.scan import Scan


def describe(records: list[FrameRecord], start: Start, pixel_size: float | None, name: str) -> Scan:
    """The scan of frames of one shape, at least one, as a file would describe it; their positions are not known yet.

    pixel_size: of the object, metres, where the detector does not say. Raises InputError for what does not fit.
    """
    scan = Scan(
        frames=np.stack([record.frame for record in records]),
        positions=np.zeros((len(records), 2)),
        geometry=start.geometry,
        mask=start.mask,
        saturation=start.saturation,
        name=name,
        metadata=start.metadata,
    )
    return with_pixel_size(scan, pixel_size)


def described_late(scan: Scan, start: Start, pixel_size: float | None) -> tuple[Scan, list[str]]:
    """A scan that was described and prepared without this Start: with its geometry, where none was known; and what of
    the Start comes too late or cannot be, in words. pixel_size: as `describe` was given it.
    """
    words = []
    masks_differ = start.mask is not None and (scan.mask is None or not np.array_equal(start.mask, scan.mask))
    if masks_differ or start.saturation not in (None, scan.saturation):
        words.append("the detector's mask and saturation came after the first frames were prepared: not used")
    try:
        told = replace(scan, geometry=start.geometry, metadata=start.metadata)
        told = with_pixel_size(told, pixel_size)
    except InputError as error:  # the frames are worth more than what is said of them now
        return scan, [*words, str(error)]
    return (told if scan.geometry.pixel_size is None else scan), words
