"""What a scan is, and how its frames are prepared: by the first of them, and by what its detector says of them, in time
or late.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptychow.detector import SCALE_FRAMES, Preparation
from ptychow.detector_fit import BadPixels
from ptychow.errors import InputError
from ptychow.formats import with_pixel_size
from ptychow.live.intake import Intake
from ptychow.live.queue import Frame
from ptychow.live.records import FrameRecord, Start
from ptychow.live.settings import LiveSettings
from ptychow.model import Model
from ptychow.scan import NOT_BELIEVED, Scan
from ptychow.words import counted

# Frames received after which the count scale is measured even where some of the first 64 have not come.
PATIENCE_FRAMES = 4 * SCALE_FRAMES
# Bad pixels are looked for in so many frames, or all there are: in fewer, dark spots of a pattern look the same.
FEWEST_FOR_BAD_PIXELS = 16


def waits_for_start(intake: Intake, settings: LiveSettings) -> bool:
    """Whether the detector has still to describe the frames, and there is memory to hold them until then."""
    return settings.wait_for_start and not (intake.has_told(settings.idle_seconds) or intake.queue.full)


def is_ready(intake: Intake, settings: LiveSettings) -> bool:
    """Whether the first frames are there, on which the count scale is measured, or no better ones will come."""
    waiting = len(intake.queue)
    first = intake.start is not None and intake.came_of_first(SCALE_FRAMES) == SCALE_FRAMES
    ended = intake.nothing_more or (intake.ended is not None and intake.is_complete())
    silent = intake.silence() > settings.settle_seconds
    enough = first or waiting >= PATIENCE_FRAMES or ended or silent
    return waiting > 0 and enough and not waits_for_start(intake, settings)


def prepare(
    first: list[Frame], start: Start | None, intake: Intake, model: Model, settings: LiveSettings, name: str
) -> tuple[Scan, Preparation]:
    """The scan as its first frames and the detector's `start` describe it, and the preparation of all its frames. What
    is to be said of them goes to the warnings of `intake`.

    Raises InputError where no frame can be read, or the scan and the Model do not belong together.
    """
    if start is None and settings.wait_for_start:
        intake.warn("the detector did not describe its frames in time: prepared without its mask")
    start = start or Start()
    decoded = [frame for frame in (record.decode() for record in first) if isinstance(frame, FrameRecord)]
    shape = start.frame_shape or (decoded[0].frame.shape if decoded else None)
    alike = [record for record in decoded if record.frame.shape == shape][:SCALE_FRAMES]
    if not alike:
        raise InputError("no frame could be read", file=name, remedy="; ".join(intake.warnings))
    described = describe(alike, start, settings.pixel_size, name)
    intake.warnings += _not_believed(start)
    intake.warnings += model.check(described, settings.force)
    first_frames = min(SCALE_FRAMES, intake.frames_to_come() or SCALE_FRAMES)
    few = len(alike) < min(FEWEST_FOR_BAD_PIXELS, first_frames)
    bad_pixels: BadPixels = "scan" if few else "auto"
    preparation = model.prepare_for(described, settings.scale, bad_pixels)
    if few:
        known = "bad pixels are only those that the detector names"
        intake.warn(f"prepared with {counted(len(alike), 'frame')}: {known}")
    if preparation.scale == "scan" and [record.index for record in alike] != list(range(first_frames)):
        intake.warn(f"some of the first {SCALE_FRAMES} frames had not come when the count scale was measured")
    return described, preparation


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
    words += _not_believed(start)
    try:
        told = replace(scan, geometry=start.geometry, metadata=start.metadata)
        told = with_pixel_size(told, pixel_size)
    except InputError as error:  # the frames are worth more than what is said of them now
        return scan, [*words, str(error)]
    return (told if scan.geometry.pixel_size is None else scan), words


def _not_believed(start: Start) -> list[str]:
    """What of the geometry that the detector told cannot be, in words."""
    why = start.metadata.get(NOT_BELIEVED)
    return [] if why is None else [f"the detector's geometry is not used: {why} (--pixel-size-nm)"]
