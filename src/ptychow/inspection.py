"""What a scan holds and what looks wrong, in words: `ptychow inspect`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptychow.bad_pixels import count_once, find_bad_pixels
from ptychow.detector_fit import SIZE_MULTIPLE, network_sizes
from ptychow.detector_steps import NOT_FINITE_REMEDY
from ptychow.formats import scan_of
from ptychow.frame_statistics import FrameStatistics, measure_frames
from ptychow.optics.beam import intensity, rms_radius
from ptychow.pattern_centre import pattern_centre
from ptychow.scan import BEAM_CENTRE, NOT_BELIEVED, Scan
from ptychow.scan_pattern import ScanPattern, impossible, scan_pattern
from ptychow.words import counted

CLIPPED_VALUES = 10  # so many values at exactly the largest are no chance ...
CLIPPED_COUNTS = 100  # ... where counts are as high as this
OFF_CENTRE = 0.03  # of the frame's side
COMPACT = 0.8  # of the rms radius: so much narrower are patterns whose quarters were swapped ...
DARK = 0.5  # ... or so much darker was the middle than the rim
EVEN = 0.3  # of the mean: nine tenths of the pixels of an evenly lit frame count as much
NAMED = 20  # frames at most that a finding names
COUNTS = 10  # below this at most, numbers that are not whole are no counts
MANY_BAD = 0.1  # of the pixels

# The scan's own mask, then the rules by which `inspect_scan` and `find_bad_pixels` call further pixels bad.
RULES = {
    "mask": "by the scan's mask",
    "marked": "by the detector, in most frames",
    "dead": "never count",
    "dim": "less than 0.3 of their neighbours",
    "hot": "more than 5 times their neighbours",
    "gap": "rows or columns that never count",
}


@dataclass(frozen=True)
class Inspection:
    """A scan, what one pass over its frames told, and what follows.

    format: the file's format, in words. frames: `FrameStatistics`. pattern: of the positions, in their unit.
    good: (H, W) pixels that can be believed; bad_pixels: how many each of `RULES` calls bad, those that the
    mask already names not counted again.
    """

    scan: Scan
    format: str
    frames: FrameStatistics
    pattern: ScanPattern
    good: NDArray[np.bool_]
    bad_pixels: dict[str, int]

    @property
    def saturation(self) -> tuple[float, int, str] | None:
        """(value, how many values are there, by which rule), or None where nothing looks saturated."""
        found = self.frames
        if self.scan.saturation is not None:
            return self.scan.saturation, found.saturated, "the scan's saturation value"
        if found.at_largest >= CLIPPED_VALUES and found.largest_value >= CLIPPED_COUNTS:
            return found.largest_value, found.at_largest, "the largest value occurs so often"
        return None

    @cached_property
    def centre(self) -> tuple[float, float] | None:
        """Of the mean pattern's light, (row, column), see `pattern_centre`; None where there is nothing."""
        return pattern_centre(self.frames.mean, self.good)

    @cached_property
    def is_fft_shifted(self) -> bool:
        """Whether zero frequency looks to be in the corner: with its quarters swapped the mean pattern is much more
        compact; or no wider, and the light is on the frame's rim instead of its middle (an annulus).
        """
        pattern = np.maximum(np.where(self.good, self.frames.mean, 0), 0)
        if pattern.sum() == 0:
            return False
        swapped = rms_radius(np.fft.fftshift(pattern)) / rms_radius(pattern)
        middle, rim = (_light_along(pattern, self.good, lines) for lines in ("middle", "rim"))
        return swapped < COMPACT or (swapped < 1 and middle < DARK * rim)

    @cached_property
    def is_even(self) -> bool:
        """Whether the mean pattern lights the whole detector about evenly, as in the near field: no dark hole or
        rim.
        """
        pattern = self.frames.mean[self.good]
        return pattern.size > 0 and np.quantile(pattern, 0.1) > EVEN * pattern.mean() > 0

    @cached_property
    def beam_diameter(self) -> float | None:
        """Diameter, object pixels, of the disc with the probe's rms radius (2 sqrt(2) of it); None without a
        probe.
        """
        if self.scan.probe is None or not np.any(self.scan.probe):
            return None
        return 2 * np.sqrt(2) * rms_radius(intensity(self.scan.probe))

    @cached_property
    def step_px(self) -> float | None:
        """Step in object pixels, where that is known."""
        if self.scan.position_unit == "px":
            return self.pattern.step
        pixel = self.scan.geometry.pixel_size
        return None if pixel is None else self.pattern.step / pixel

    @property
    def impossible_positions(self) -> str | None:
        """What can be no scan's about the positions, in words."""
        return impossible(self.pattern, self.step_px, min(self.scan.frame_shape))

    @property
    def overlap(self) -> tuple[float, str] | None:
        """(1 - step / beam diameter, in words what it rests on), or None where that cannot be known."""
        if self.step_px is None or self.impossible_positions:
            return None
        if self.beam_diameter is not None:
            return 1 - self.step_px / self.beam_diameter, f"beam of {self.beam_diameter:.1f} px, from the probe"
        return 1 - self.step_px / min(self.scan.frame_shape), "at most: no probe, so a beam as wide as a frame"

    @cached_property
    def findings(self) -> list[str]:
        """What looks wrong, in words, with what to do."""
        return [*_wrong_with_frames(self), *_wrong_with_pixels(self), *_wrong_with_geometry(self)]

    def summary(self) -> dict[str, Any]:
        """Everything but the images, machine-readable; lengths in metres unless named otherwise."""
        scan, frames, geometry = self.scan, self.frames, self.scan.geometry
        return {
            "name": scan.name,
            "format": self.format,
            "shape": scan.frames.shape,
            "dtype": str(scan.frames.dtype),
            "counts_per_frame": dict(zip(("min", "median", "max"), _three(frames.totals), strict=True)),
            "smallest_value": frames.smallest_value,
            "largest_value": frames.largest_value,
            "not_finite": frames.not_finite,
            "negative": frames.negative,
            "marked_invalid": frames.marked,
            "bad_pixels": self.bad_pixels,
            "saturation": self.saturation,
            "pattern": self.pattern.kind,
            "raster": scan.raster or self.pattern.shape,
            "step": self.pattern.step,
            "extent": self.pattern.extent,
            "position_unit": scan.position_unit,
            "step_px": self.step_px,
            "beam_diameter_px": self.beam_diameter,
            "overlap": self.overlap,
            "pixel_size_m": geometry.pixel_size,
            "wavelength_m": geometry.wavelength,
            "distance_m": geometry.distance,
            "detector_pixel_m": geometry.detector_pixel,
            "centre_of_mass": self.centre,
            "fft_shifted": self.is_fft_shifted,
            "network_sizes": list(network_sizes(scan.frame_shape)),
            "probe_modes": None if scan.probe is None else len(scan.probe),
            "object": None if scan.object is None else scan.object.source,
            "label_patches": None if scan.label_patches is None else scan.label_patches.shape,
            "fingerprint": scan.fingerprint(),
            "metadata": scan.metadata,
            "findings": self.findings,
        }

    def describe(self) -> list[tuple[str, str]]:
        """(what, found) for people."""
        scan, frames, unit = self.scan, self.frames, self.scan.position_unit
        count, height, width = scan.frames.shape
        low, middle, high = _three(frames.totals)
        pixel = scan.geometry.pixel_size
        saturation, overlap = self.saturation, self.overlap
        bad = ", ".join(f"{number} {rule} ({RULES[rule]})" for rule, number in self.bad_pixels.items() if number)
        raster, told = scan.raster or self.pattern.shape, scan.metadata.get(BEAM_CENTRE)
        modes = "none"
        if scan.probe is not None:
            number, rows, columns = scan.probe.shape
            modes = f"{number} mode{'s' if number > 1 else ''} of {rows} x {columns}"
        labels = scan.object.source if scan.object is not None else "none"
        return [
            ("format", self.format),
            ("frames", f"{count:,} of {height} x {width}, {scan.frames.dtype}"),
            ("counts per frame", f"{low:.4g} min, {middle:.4g} median, {high:.4g} max"),
            ("values", f"{frames.smallest_value:.6g} to {frames.largest_value:.6g}"),
            *([("beam centre", f"{told} (row,column), as the detector says")] if told else []),
            ("bad pixels", bad or "none"),
            (
                "saturated",
                "none" if saturation is None else f"{saturation[1]:,} values at {saturation[0]:.6g} ({saturation[2]})",
            ),
            ("positions", self.pattern.kind + (f", {raster[0]} lines x {raster[1]} points" if raster else "")),
            ("step", _length(self.pattern.step, unit) + ", median to the nearest point"),
            ("field", " x ".join(_length(length, unit) for length in self.pattern.extent)),
            ("overlap", "unknown" if overlap is None else f"{overlap[0]:.0%} ({overlap[1]})"),
            ("object pixel", "unknown" if pixel is None else _length(pixel, "m")),
            ("probe", modes),
            ("object", labels if scan.label_patches is None else f"label patches {scan.label_patches.shape}"),
        ]


def inspect_scan(
    scan: Scan | str | os.PathLike[str], *, format: str = "", on_frames: Callable[[int], object] = lambda count: None
) -> Inspection:
    """Read all frames of a scan, or of that of a file, once and look at everything.

    format: its name, in words. on_frames: told how many have just been read.
    Raises InputError where the frames cannot be read.
    """
    scan = scan_of(scan)
    frames = measure_frames(scan, on_frames)
    _, reasons = find_bad_pixels(frames.mean, frames.largest, frames=len(scan))
    invalid = frames.valid < 0.5 * len(scan)
    given = np.zeros(scan.frame_shape, bool) if scan.mask is None else ~scan.mask
    bad, counted = count_once({"mask": given, "marked": invalid, **reasons})
    return Inspection(scan, format, frames, scan_pattern(scan.positions), ~bad, counted)


def _wrong_with_frames(found: Inspection) -> Iterator[str]:
    frames, totals = found.frames, found.frames.totals
    # Where a pixel is so in most frames it is among the bad pixels, and filled.
    not_finite = int((len(totals) - frames.valid)[found.good].sum()) if frames.not_finite else 0
    if not_finite:
        # More than what every frame has, which is its bad pixels.
        where = np.flatnonzero(frames.unknown > np.median(frames.unknown))
        names = ", ".join(map(str, where[:NAMED])) + (" ..." if len(where) > NAMED else "")
        yield (
            f"NaN or infinite: {counted(not_finite, 'value')} of otherwise good pixels"
            f"{f', in frames {names}' if len(where) else ''}. {NOT_FINITE_REMEDY}"
        )
    if frames.rooted:
        yield (
            "the values are square roots of whole numbers: amplitudes, where networks and solvers want counts; "
            "store their squares"
        )
    elif not frames.whole and 0 < frames.largest_value < COUNTS:
        yield (
            f"the largest value is {frames.largest_value:.3g}, and values are not whole numbers: normalised, or a "
            "logarithm? Networks and solvers want counts"
        )
    if frames.wrapped:
        yield (
            f"{frames.negative:,} values are negative 16-bit integers: a counter above 32767 was stored with a sign; "
            "they are read as value + 65536 (a background was subtracted: ptychow prepare --negative zero)"
        )
    elif frames.negative:
        whole = np.dtype(found.scan.frames.dtype).kind == "i"
        way = " (ptychow prepare --negative)" if whole else "; they are read as 0"
        yield f"{counted(frames.negative, 'value')} below zero: background subtracted, or not counts at all{way}"
    empty = np.flatnonzero(totals == 0)
    if len(empty):
        number = f"{len(empty):,} of {counted(len(totals), 'frame')}"
        yield f"all zero: {number} (first: {empty[0]}); shutter closed, or not yet written"
    typical = float(np.median(totals))
    dim = np.flatnonzero((totals > 0) & (totals < typical / 2))
    if len(dim):
        first = f"(first: {dim[0]})"
        yield f"less than half the median counts: {counted(len(dim), 'frame')} {first}; beam lost, or a strong absorber"
    bright = np.flatnonzero(totals > 2 * typical) if typical > 0 else dim[:0]
    if len(bright):
        yield f"more than twice the median counts: {counted(len(bright), 'frame')} (first: {bright[0]})"


def _wrong_with_pixels(found: Inspection) -> Iterator[str]:
    scan = found.scan
    words = ", ".join(f"{number} {rule}" for rule, number in found.bad_pixels.items() if number and rule != "mask")
    if words:
        yield f"bad pixels that no mask names: {words}; all commands find them, too, and fill or leave them out"
    bad = 1 - found.good.mean()
    if bad > MANY_BAD:
        yield f"{bad:.0%} of all pixels are bad: does the mask mean the opposite, or is much of the detector dark?"
    if found.saturation is not None and found.saturation[1]:
        value, number, rule = found.saturation
        yield f"{number:,} values look saturated at {value:.6g} ({rule})"
    if found.is_fft_shifted:
        yield "zero frequency looks to be in the corners (fft-shifted): ptychow prepare --fftshift swaps the quarters"
    elif found.is_even:
        yield "the mean pattern lights the detector evenly: a near-field scan? All here is for the far field"
    elif found.centre is not None:
        off = [at - length // 2 for at, length in zip(found.centre, scan.frame_shape, strict=True)]
        if any(abs(part) > OFF_CENTRE * length for part, length in zip(off, scan.frame_shape, strict=True)):
            yield (
                f"the mean pattern's light lies {off[0]:+.1f} rows, {off[1]:+.1f} columns from the middle: "
                f"crop about the true zero frequency (ptychow prepare --centre {_likely_centre(found)} --crop SIZE)"
            )
    height, width = scan.frame_shape
    if height != width or height % SIZE_MULTIPLE:
        sizes = ", ".join(str(size) for size in network_sizes(scan.frame_shape))
        remedy = f"crop or bin to {sizes} (ptychow prepare)" if sizes else "they are too small for any network"
        yield f"no network takes frames of {height} x {width} (square, a multiple of {SIZE_MULTIPLE}): {remedy}"


def _likely_centre(found: Inspection) -> str:
    """The pixel that the detector names as the beam's, else that of the light, as an option wants it."""
    told = found.scan.metadata.get(BEAM_CENTRE)
    return ",".join(f"{float(part):.0f}" for part in (told.split(",") if told else found.centre or ()))


def _wrong_with_geometry(found: Inspection) -> Iterator[str]:
    scan, pattern = found.scan, found.pattern
    if NOT_BELIEVED in scan.metadata:
        yield f"the detector's geometry is not used: {scan.metadata[NOT_BELIEVED]}"
    if scan.geometry.pixel_size is None:
        stop = "; positions in metres cannot be used without it" if scan.position_unit == "m" else ""
        yield f"the object's pixel size is unknown, so a Model's cannot be checked against it{stop} (--pixel-size-nm)"
    if pattern.repeated and pattern.kind != "single point":
        yield f"{pattern.repeated:,} positions occur more than once"
    step, diameter = found.step_px, found.beam_diameter
    if found.impossible_positions:
        yield found.impossible_positions
    elif step is not None and diameter is not None and step > 0.7 * diameter:
        yield f"little overlap: steps of {step:.1f} px under a beam of {diameter:.1f} px"
    if scan.probe is None:
        return
    if scan.probe.shape[1:] != scan.frame_shape:
        yield f"the probe is {scan.probe.shape[1]} x {scan.probe.shape[2]} pixels, the frames are not"
    power, counts = float(intensity(scan.probe).sum()), float(found.frames.totals.mean())
    if counts > 0 and not 0.5 < power / counts < 2:
        yield f"the probe's power {power:.4g} is far from the mean counts of a frame {counts:.4g}: scale the probe"


def _light_along(pattern: NDArray[np.float64], good: NDArray[np.bool_], lines: Literal["middle", "rim"]) -> float:
    """Mean of the good pixels of a pattern (H, W) along the two middle rows and columns, or the outermost."""
    rows, columns = ([n // 2 - 1, n // 2] if lines == "middle" else [0, n - 1] for n in pattern.shape)
    light = pattern[rows].sum() + pattern[:, columns].sum()
    return float(light / max(good[rows].sum() + good[:, columns].sum(), 1))


def _three(values: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values.min()), float(np.median(values)), float(values.max())


def _length(value: float, unit: str) -> str:
    """A length in object pixels, or in metres as nanometres or micrometres."""
    if unit == "px":
        return f"{value:.4g} px"
    return f"{value * 1e9:.4g} nm" if value < 1e-6 else f"{value * 1e6:.4g} µm"
