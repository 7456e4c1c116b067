"""A scan as it would be had its detector been turned, centred, cropped or binned: still counts, still lazy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychow.detector import Preparation
from ptychow.errors import InputError
from ptychow.frame_views import FrameView, NonNegativeFrames, RearrangedFrames, ScaledFrames
from ptychow.patches import resample_object
from ptychow.scan import Scan


@dataclass(frozen=True)
class PreparedFrames(FrameView):
    """Frames that are prepared when they are read: uint32 where they were integers and still are, else float32."""

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


def by_monitor(scan: Scan, readings: NDArray[np.float64]) -> Scan:
    """The scan with its counts as if the incoming intensity had been the median of its readings (N,) all the time.

    The counts stay noisy as they were measured: a weak frame's are multiplied with their noise. The scan's bad pixels
    and saturated values should have been dealt with before (`prepare_scan`): its saturation holds no longer.
    """
    factors = np.median(readings) / readings
    said = scan.metadata | {"monitor": "counts divided by the readings of a monitor of the incoming intensity"}
    return replace(scan, frames=ScaledFrames(scan.frames, factors), saturation=None, metadata=said)


def zero_negative(scan: Scan) -> Scan:
    """The scan with its negative counts set to 0, as where a background was subtracted."""
    return replace(scan, frames=NonNegativeFrames(scan.frames))


def swap_quarters(scan: Scan) -> Scan:
    """The scan with zero frequency of its frames, and of its mask, moved from pixel [0, 0] to [H//2, W//2]."""
    mask = None if scan.mask is None else np.fft.fftshift(scan.mask)
    return replace(scan, frames=RearrangedFrames(scan.frames, shifted=True), mask=mask)


def prepare_scan(scan: Scan, preparation: Preparation) -> Scan:
    """The scan with prepared frames, and with mask, geometry, probe, object and pixel positions to match.

    preparation: raw counts, unscaled (`transform="raw"`, `scale="none"`). A crop coarsens the object's pixel, on which
    object and positions in pixels are then given. Raises InputError for another Preparation, for a bin in which the
    probe does not fit, for frames that are not square where positions or object count their pixels, and where
    `require_label_pixel` does.
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
    require_label_pixel(scan, preparation)
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


def require_probe_of_frames(scan: Scan) -> None:
    """Raise InputError unless the scan's probe, where it has one, has the frames' size."""
    if scan.probe is not None and scan.probe.shape[1:] != scan.frame_shape:
        raise InputError(
            "of another size than the frames",
            file=scan.name,
            field="probe",
            found=scan.probe.shape[1:],
            expected=scan.frame_shape,
            remedy="Crop the frames to it (ptychow prepare --crop), or find it again: ptychow label",
        )


def require_label_pixel(scan: Scan, preparation: Preparation) -> None:
    """Raise InputError unless the scan's label patches, where it has any, have the size and pixel of prepared frames.

    Their own object pixel, in metres, is the scan's unless its metadata names another under "label_pixel_size": the
    256-pixel PtychoNN data come with patches of a coarser pixel, which a crop to 192 and a resampling to 64 reach.
    """
    if scan.label_patches is None:
        return
    size = preparation.output_size(scan.frame_shape)
    found = tuple(scan.label_patches.shape[1:])
    if found != size:
        raise InputError(
            "of another size than the frames", file=scan.name, field="label_patches", found=found, expected=size
        )
    pixel = preparation.output_geometry(scan.geometry, scan.frame_shape).pixel_size
    known = scan.metadata.get("label_pixel_size")
    own = float(known) if known else scan.geometry.pixel_size
    if pixel is not None and own is not None and abs(pixel / own - 1) > 0.01:
        raise InputError(
            "of another object pixel than the frames",
            file=scan.name,
            field="label_patches",
            found=f"{own * 1e9:.4g} nm",
            expected=f"{pixel * 1e9:.4g} nm",
            remedy="Crop the frames (ptychow prepare --crop, --resample) until the two agree",
        )
