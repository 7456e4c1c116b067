"""A scan as it would be had its detector been turned, centred, cropped or binned: still counts, still lazy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychow.detector import Preparation
from ptychow.errors import InputError
from ptychow.patches import resample_object
from ptychow.scan import Frames, Scan


@dataclass(frozen=True)
class PreparedFrames:
    """Frames that are prepared when they are read: uint32 where they were integers and still are, else float32."""

    frames: Frames
    preparation: Preparation

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, h, w)."""
        return (self.frames.shape[0], *self.preparation.output_size(self.frames.shape[1:]))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the prepared counts."""
        whole = np.dtype(self.frames.dtype).kind in "ui" and self.preparation.resample is None
        return np.dtype(np.uint32 if whole else np.float32)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """As `ptychow.scan.Frames`."""
        stored = self.frames[index]
        counts = self.preparation.apply(stored[None] if stored.ndim == 2 else stored)[:, 0]
        counts = np.rint(counts) if self.dtype.kind == "u" else counts
        return counts.astype(self.dtype)[0 if stored.ndim == 2 else slice(None)]


def prepare_scan(scan: Scan, preparation: Preparation) -> Scan:
    """The scan with prepared frames, and with mask, geometry, probe, object and pixel positions to match.

    preparation: raw counts, unscaled (`transform="raw"`, `scale="none"`). A crop coarsens the object's pixel, on which
    object and positions in pixels are then given. Raises InputError for another Preparation, for a bin in which the
    probe does not fit, for frames that are not square where positions or object count their pixels, and for label
    patches, which cannot be resampled here.
    """
    if preparation.transform != "raw" or preparation.scale != "none" or preparation.mean_input is not None:
        raise InputError("gives no counts", field="preparation", expected="transform raw, scale none, not standardised")
    in_pixels = scan.position_unit == "px"
    on_pixels = in_pixels or scan.object is not None or scan.label_patches is not None
    if on_pixels and scan.frame_shape[0] != scan.frame_shape[1]:
        raise InputError(
            "object pixels of frames that are not square are not square either",
            file=scan.name,
            field="positions, object",
            found=f"given in such pixels, frames of {scan.frame_shape[0]} x {scan.frame_shape[1]}",
            expected="positions in metres, and no object yet",
            remedy="Give positions in metres, with wavelength, distance and detector pixel",
        )
    ratio = preparation.pixel_ratio(scan.frame_shape) if on_pixels else 1.0
    if scan.label_patches is not None and ratio != 1:
        raise InputError("would no longer fit the frames", file=scan.name, field="label_patches")
    nominal = scan.nominal_positions
    return replace(
        scan,
        frames=PreparedFrames(scan.frames, preparation),
        positions=scan.positions / ratio if in_pixels else scan.positions,
        nominal_positions=nominal / ratio if in_pixels and nominal is not None else nominal,
        geometry=preparation.output_geometry(scan.geometry, scan.frame_shape),
        mask=preparation.output_mask(scan.frame_shape),
        saturation=None if preparation.bin > 1 or preparation.resample else scan.saturation,
        probe=None if scan.probe is None else preparation.probe(scan.probe),
        object=None if scan.object is None else resample_object(scan.object, ratio),
        metadata={**scan.metadata, "preparation": preparation.model_dump_json(exclude={"mask"})},
    )
