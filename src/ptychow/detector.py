"""Preparation: from a detector's counts to what a network sees, and what that does to geometry and probe.

The steps, in this order:

1. crop about the pixel of zero frequency, which moves to [n//2, n//2]; what is cut away is never looked at;
2. turn into the object's frame (`Orientation`) about that pixel;
3. 16-bit counts that were read with a sign become counts again; values that mark a pixel as invalid make it
   bad in that frame; counts above saturation become the saturation value, negative floating-point counts 0;
4. bin (sum); a bin with any bad pixel is bad;
5. bad pixels (or bins) become the mean of their good neighbours;
6. resample (anti-aliased);
7. counts below the threshold become 0;
8. square root; scale; standardisation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from ptychow import detector_steps as steps
from ptychow.array_json import JsonArray
from ptychow.bad_pixels import Filling
from ptychow.errors import InputError, about
from ptychow.orientation import Orientation
from ptychow.scan import Geometry, Scan

# The scale is the mean over this many first frames: known early in a live scan, and the same afterwards.
SCALE_FRAMES = 64
PROBE_POWER = 0.99


@dataclass(frozen=True)
class _Plan:
    """What is worked out once for frames of one shape. good: the mask, cropped and turned, or None."""

    good: NDArray[np.bool_] | None
    filling: Filling | None


class Preparation(BaseModel):
    """Counts of a detector to network input, in the module's steps: validated, unchangeable, stored as JSON.

    centre: stored pixel (row, column) of zero frequency, for a crop; None: [H//2, W//2].
    crop: side in pixels of the square kept, or None. bin: pixels along a side of a bin.
    resample: side of the square resampled to, or None.
    orientation: what brings the stored frame into the object's frame.
    wrap_negative: counts were read with a sign. markers: values that mark a pixel as invalid in a frame.
    saturation: counts at and above it are set to it, or None.
    mask: (H, W) of the stored frame, True = good, or None: all are.
    threshold: counts of an output pixel below it become 0.
    transform: "sqrt" (amplitudes) or "raw" (counts).
    scale: the transformed counts are divided by `scale_value`: their mean over the scan's first 64 frames
        ("scan"), a value given ("fixed"), or 1 ("none"). Scaled inputs have a mean near 1.
    mean_input, deviation: subtracted (h, w), and divided by, where inputs are standardised.
    notes: in words, what was found and chosen when this was fitted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    centre: tuple[int, int] | None = None
    crop: int | None = Field(default=None, ge=1)
    bin: int = Field(default=1, ge=1)
    resample: int | None = Field(default=None, ge=1)
    orientation: Orientation = Orientation.IDENTITY
    wrap_negative: bool = False
    markers: tuple[float, ...] = ()
    saturation: float | None = Field(default=None, gt=0)
    mask: JsonArray | None = None
    threshold: float = Field(default=0.0, ge=0)
    transform: Literal["sqrt", "raw"] = "sqrt"
    scale: Literal["scan", "fixed", "none"] = "none"
    scale_value: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    mean_input: JsonArray | None = None
    deviation: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    notes: tuple[str, ...] = ()

    _plans: dict[tuple[int, ...], _Plan] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.centre is not None and self.crop is None:
            raise ValueError("a centre needs a crop that moves it to the middle")
        mask = self.mask
        if mask is not None and (mask.ndim != 2 or mask.dtype != np.bool_ or not mask.any()):
            raise ValueError("the mask is no (H, W) boolean array with good pixels")
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Preparation) and self.model_dump_json() == other.model_dump_json()

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    def replace(self, **changes: Any) -> Self:
        """A validated copy with some fields changed."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).model_validate({**fields, **changes})

    def with_scale_of(self, scan: Scan) -> Self:
        """The same with its scale measured on this scan, where its scale is a scan's; else unchanged.

        Raises InputError where the scan's first 64 frames hold no counts.
        """
        if self.scale != "scan":
            return self
        with about(scan.name):
            return self.replace(scale_value=self.measure_scale(scan.frames[:SCALE_FRAMES]))

    def unstandardised(self) -> Self:
        """The same without the data set's statistics: inputs are then positive and look like patterns."""
        return self.replace(mean_input=None, deviation=1.0)

    def as_counts(self) -> Self:
        """The same up to the square root: prepared frames are counts, whatever the network is given."""
        return self.unstandardised().replace(transform="raw", scale="none", scale_value=1.0, threshold=0.0)

    def with_statistics_of(self, scan: Scan) -> Self:
        """The same with inputs standardised: the scan's mean input subtracted, divided by the deviation about it."""
        plain = self.unstandardised()
        total = np.zeros(self.output_size(scan.frame_shape))
        squares = 0.0
        for _, frames in scan.batches():
            inputs = plain.apply(frames)[:, 0].astype(np.float64)
            total += inputs.sum(axis=0)
            squares += float(np.square(inputs).sum())
        mean = total / len(scan)
        variance = squares / (len(scan) * mean.size) - float(np.square(mean).mean())
        if not variance > 0:
            raise InputError("all frames are equal", file=scan.name, field="frames")
        return self.replace(mean_input=mean.astype(np.float32), deviation=float(np.sqrt(variance)))

    def measure_scale(self, frames: NDArray[Any]) -> float:
        """Mean of the transformed counts, unscaled, of those frames of (n, H, W) that hold any.

        Raises InputError where none does.
        """
        plain = self.unstandardised().replace(scale="none", scale_value=1.0)
        means = plain.apply(frames).mean(axis=(1, 2, 3), dtype=np.float64)
        mean = float(means[means > 0].mean()) if (means > 0).any() else 0.0
        if mean == 0:
            raise InputError(
                "the frames hold no counts",
                field="frames",
                found=f"{len(frames)} frames of zeros",
                expected="counts",
                remedy="Was the shutter open? If only at first it was not: ptychow prepare --frames",
            )
        return mean

    def mean_counts(self, frames: NDArray[Any]) -> float:
        """Mean counts that a network is shown of a frame, over those frames of (n, H, W) that hold any; or 0.

        As prepared: bad pixels are filled, and counts below the threshold are none.
        """
        shown = self.as_counts().replace(threshold=self.threshold)
        sums = shown.apply(frames).sum(axis=(1, 2, 3), dtype=np.float64)
        return float(sums[sums > 0].mean()) if (sums > 0).any() else 0.0

    def apply(self, frames: NDArray[Any]) -> NDArray[np.float32]:
        """Network input (n, 1, h, w) float32 of stored frames (n, H, W), integer or floating-point counts.

        Raises InputError for another rank, a frame shape that does not fit, negative integers that nothing
        explains, a frame without a good pixel, and what is not a finite number.
        """
        frames = np.asarray(frames)
        if frames.ndim != 3 or frames.dtype.kind not in "uif":
            found = f"{frames.dtype} {frames.shape}"
            raise InputError("not frames", field="frames", found=found, expected="counts (n, H, W)")
        plan = self._plan(frames.shape[1:])
        turned, marked = self._valued(frames)
        steps.refuse_negative(turned, plan.good, marked)
        counts = turned.astype(np.float32, order="C")
        if turned.dtype.kind == "f":
            np.maximum(counts, 0, out=counts)
        if self.saturation is not None:
            np.minimum(counts, np.float32(self.saturation), out=counts)
        if self.bin > 1:
            counts = steps.bin_frames(counts, self.bin)
        if plan.filling is not None:
            plan.filling.fill(counts)
        if marked is not None:
            self._fill_marked(counts, marked, plan.good)
        if self.resample is not None:
            counts = steps.resample(counts, self.resample)
        return self._transformed(counts)[:, None]

    def finish(self, counts: NDArray[np.float32], frame_shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Network input (n, 1, h, w) of counts (n, h, w) that lie on the prepared detector already, as simulated do.

        frame_shape: (H, W) of the stored frames, whose bad pixels are filled here too. Saturation is the prepared
        pixel's: a binned one is full where all of its pixels are. Changes `counts`.
        """
        if self.saturation is not None:
            np.minimum(counts, np.float32(self.saturation * self.bin**2), out=counts)
        filling = self._plan(frame_shape).filling
        if filling is not None and self.resample is None:
            filling.fill(counts)
        return self._transformed(counts)[:, None]

    def root_counts(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Square roots of the prepared counts (n, h, w) that the network inputs (n, 1, h, w) were made of."""
        values = inputs[:, 0] * np.float32(self.deviation)
        if self.mean_input is not None:
            values += self.mean_input
        values *= np.float32(self.scale_value)
        np.maximum(values, 0, out=values)  # what rounding left below
        return values if self.transform == "sqrt" else np.sqrt(values)

    def _transformed(self, counts: NDArray[np.float32]) -> NDArray[np.float32]:
        """Threshold, square root, scale and standardisation, in place."""
        if self.threshold > 0:
            counts *= counts >= np.float32(self.threshold)
        if self.transform == "sqrt":
            np.sqrt(counts, out=counts)
        if self.scale_value != 1:
            counts /= np.float32(self.scale_value)
        if self.mean_input is not None:
            counts -= self.mean_input
            counts /= np.float32(self.deviation)
        steps.refuse_not_finite(counts)
        return counts

    def _fill_marked(
        self, counts: NDArray[np.float32], marked: NDArray[np.bool_], good: NDArray[np.bool_] | None
    ) -> None:
        """Fill, in place, the frames in which pixels are marked as invalid that are good otherwise."""
        if good is not None:
            marked &= good
        for index in np.flatnonzero(marked.any(axis=(1, 2))):
            valid = ~marked[index] if good is None else good & ~marked[index]
            binned = steps.bin_mask(valid, self.bin)
            if binned.any():
                Filling.of(binned).fill(counts[index])
            else:
                counts[index] = 0  # the detector dropped the whole frame

    def count_saturated(self, frames: NDArray[Any]) -> NDArray[np.int64]:
        """(n,) how many good, unmarked pixels of each stored frame (n, H, W) are at or above saturation."""
        return self.saturated(frames).sum(axis=(1, 2))

    def saturated(self, frames: NDArray[Any]) -> NDArray[np.bool_]:
        """(n, h, w) which good, unmarked pixels of the stored frames (n, H, W), cropped and turned, are at or above
        saturation.
        """
        if self.saturation is None:
            return np.zeros(self.crop_and_turn(frames).shape, bool)
        plan = self._plan(frames.shape[1:])
        turned, marked = self._valued(frames)
        full = turned >= self.saturation
        if marked is not None:
            full &= ~marked
        if plan.good is not None:
            full &= plan.good
        return np.asarray(full)

    def crop_and_turn(self, images: NDArray[Any]) -> NDArray[Any]:
        """Images (..., H, W) of the stored frames' pixels in the object's frame, in their own type."""
        return self.orientation.apply_about_zero_frequency(images[..., *self._window(images.shape[-2:])])

    def _valued(self, frames: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Cropped and turned counts in their stored type, and which of their pixels are marked as invalid."""
        turned = self.crop_and_turn(frames)
        if self.wrap_negative:
            turned = steps.unwrap_negative(turned)
        return turned, steps.marked_pixels(turned, self.markers)

    def _plan(self, frame_shape: tuple[int, ...]) -> _Plan:
        if frame_shape not in self._plans:
            self._plans[frame_shape] = self._make_plan(frame_shape)
        return self._plans[frame_shape]

    def _make_plan(self, frame_shape: tuple[int, ...]) -> _Plan:
        self.output_size(frame_shape)
        if self.mask is None:
            return _Plan(None, None)
        good = self.crop_and_turn(self.mask)
        binned = steps.bin_mask(good, self.bin)
        return _Plan(good, None if binned.all() else Filling.of(binned))

    def _window(self, frame_shape: tuple[int, ...]) -> tuple[slice, slice]:
        height, width = frame_shape
        if self.crop is None:
            return slice(0, height), slice(0, width)
        row, column = self.centre or (height // 2, width // 2)
        return steps.crop_window(height, row, self.crop), steps.crop_window(width, column, self.crop)

    def output_size(self, frame_shape: tuple[int, ...]) -> tuple[int, int]:
        """(h, w) of the network input for stored frames (H, W). Raises InputError where they do not fit."""
        if len(frame_shape) != 2:
            raise InputError("not a frame", field="frames", found=f"shape {frame_shape}", expected="(H, W)")
        mask = self.mask
        if mask is not None and mask.shape != tuple(frame_shape):
            raise InputError("another size than the mask", field="frames", found=frame_shape, expected=mask.shape)
        height, width = (window.stop - window.start for window in self._window(frame_shape))
        if self.orientation.actions[0]:
            height, width = width, height
        if height % self.bin or width % self.bin:
            raise InputError(
                f"does not divide into bins of {self.bin}",
                field="frames",
                found=f"{height} x {width}",
                expected=f"a crop to a multiple of {self.bin}",
            )
        if self.resample is None:
            return height // self.bin, width // self.bin
        if height != width or height // self.bin < self.resample:
            raise InputError(
                f"cannot be resampled to {self.resample} x {self.resample}",
                field="frames",
                found=f"{height // self.bin} x {width // self.bin}",
                expected="square and no smaller",
            )
        return self.resample, self.resample

    def output_mask(self, frame_shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
        """(h, w) good pixels of the prepared frames: a bin with any bad pixel is bad. None where nothing is masked.

        Resampled pixels mix good ones with filled ones: after resampling nothing is masked.
        """
        good = self._plan(frame_shape).good
        return None if good is None or self.resample is not None else steps.bin_mask(good, self.bin)

    def pixel_ratio(self, frame_shape: tuple[int, ...]) -> float:
        """New object pixel / old object pixel for stored frames (H, W): a crop from N to n coarsens it by N/n.

        A bin or a resampling keeps it and shrinks the field of view instead. Raises InputError for a crop of
        frames that are not square, whose object pixels are not square either.
        """
        self.output_size(frame_shape)
        height, width = frame_shape
        if self.crop is None:
            return 1.0
        if height != width:
            raise InputError(
                "object pixel of frames that are not square",
                field="frames",
                found=f"{height} x {width}",
                expected="square frames",
                remedy="Crop the frames in the file to a square first",
            )
        return height / self.crop

    def _detector_ratio(self, frame_shape: tuple[int, ...]) -> float:
        """New detector pixel / old detector pixel."""
        rows = self._window(frame_shape)[0]
        return self.bin if self.resample is None else (rows.stop - rows.start) / self.resample

    def output_geometry(self, geometry: Geometry, frame_shape: tuple[int, ...]) -> Geometry:
        """The geometry of the network input made of stored frames of (H, W); what is unknown stays so."""
        size = self.output_size(frame_shape)
        known_pixel = None
        if geometry.pixel_size is not None and frame_shape[0] == frame_shape[1]:
            known_pixel = geometry.pixel_size * self.pixel_ratio(frame_shape)
        detector_pixel = geometry.detector_pixel
        if detector_pixel is not None:
            detector_pixel *= self._detector_ratio(frame_shape)
        changed = Geometry(geometry.wavelength, geometry.distance, detector_pixel, known_pixel)
        return changed.derive_pixel_size(size[0]) if size[0] == size[1] else changed

    def probe(self, probe: NDArray[np.complexfloating]) -> NDArray[np.complex64]:
        """The probe (modes, h, w) of the prepared frames, from that of the stored frames (modes, H, W).

        A detector crop is a Fourier crop of the probe. A bin or a resampling leaves the middle of its array,
        tilted by the half bin that bins lie off. |probe|^2 still sums to the mean counts of a prepared frame.
        The probe lives in the object's frame, which `orientation` does not turn.

        Raises InputError where less than 99 % of the probe's power fits into the smaller field of view.
        """
        if probe.ndim != 3:
            raise InputError("not a probe", field="probe", found=f"shape {probe.shape}", expected="(modes, H, W)")
        upright = self.replace(orientation=Orientation.IDENTITY, mask=None, centre=None)
        shape = upright.output_size(probe.shape[1:])
        ratio = upright._detector_ratio(probe.shape[1:])
        cropped = np.asarray(probe, np.complex64)
        if self.crop is not None and cropped.shape[1:] != (self.crop, self.crop):
            cropped = steps.crop_probe(cropped, self.crop)
        if ratio == 1:
            return cropped
        windowed = steps.window_probe(cropped, shape, ratio, PROBE_POWER)
        # Resampling takes means where binning takes sums.
        return windowed if self.resample is None else windowed * np.float32(self.bin / ratio)
