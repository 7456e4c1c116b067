"""Fitting a `Preparation` to a scan: bad pixels, centre, and the crop and bin that reach a frame size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ptychow import detector_steps as steps
from ptychow.bad_pixels import count_once, find_bad_pixels
from ptychow.detector import PROBE_POWER, Preparation
from ptychow.errors import InputError
from ptychow.orientation import Orientation
from ptychow.pattern_centre import pattern_centre
from ptychow.scan import Scan, frames_at_a_time, spread
from ptychow.words import counted

BadPixels = Literal["auto", "scan", "none"]
# What is looked at for bad pixels and the centre, evenly spread over the scan: frames, and pixels in all.
SAMPLE_FRAMES = 512
SAMPLE_PIXELS = 2**27
# Every network takes frames of such multiples.
SIZE_MULTIPLE = 16
# A crop chosen unasked keeps at least this part of the counts.
COUNTS_KEPT = 0.9


def fit_preparation(
    scan: Scan,
    *,
    size: int | None = None,
    orientation: Orientation = Orientation.IDENTITY,
    centre: tuple[int, int] | Literal["auto"] | None = None,
    crop: int | None = None,
    bin: int | None = None,
    resample: int | None = None,
    transform: Literal["sqrt", "raw"] = "sqrt",
    scale: float | Literal["scan", "none"] = "scan",
    threshold: float = 0.0,
    bad_pixels: BadPixels = "auto",
    markers: tuple[float, ...] | None = None,
    wrap_negative: bool | None = None,
    saturation: float | None = None,
    standardise: bool = False,
) -> Preparation:
    """The Preparation that brings this scan's frames to a network.

    size: side of the network input. Where the frames are larger, the crop and the bin that are not given are
        chosen: of the bins that leave the probe 99 % of its power the smallest whose crop keeps 99 % of the
        counts, or else the largest. Without `size` frames are never cropped or binned unasked.
    centre: stored pixel of zero frequency; None: [H//2, W//2]; "auto": of the mean frame's light, see `pattern_centre`.
    scale: "scan", "none", or a value.
    bad_pixels: "auto": the scan's mask, where it has one, and what `find_bad_pixels` finds; "scan": its mask
        only; "none": every pixel is believed.
    markers, wrap_negative, saturation: where not given, by the type of the counts (16-bit integers with a
        sign are taken to have wrapped around) and as the scan says.
    standardise: subtract the mean input and divide by the deviation.
    The other options are the fields of `Preparation`. Raises InputError where they cannot be met, where
    frames hold no counts, and where no network takes the resulting size, with the sizes that work.
    """
    known_centre = None if centre == "auto" else centre
    detector, notes = detector_of(scan, bad_pixels, markers, wrap_negative, saturation, known_centre)
    sample = _Sample.of(scan, detector)
    if sample.mean.max() <= 0:
        raise InputError(
            "the frames hold no counts",
            file=scan.name,
            field="frames",
            found=f"zeros in all of {sample.frames} frames looked at",
            expected="counts",
            remedy="Is this the data set of the frames?",
        )
    if centre == "auto":
        centre = sample.centre()
        # A sharp direct beam is no hot pixel: what is hot is judged about zero frequency.
        detector, notes = detector_of(scan, bad_pixels, markers, wrap_negative, saturation, centre)
        sample = _Sample.of(scan, detector)
        notes = (*notes, f"zero frequency taken to be at pixel {centre}, the centre of the light")
    middle = (scan.frame_shape[0] // 2, scan.frame_shape[1] // 2)
    at = centre or middle
    if size is not None and resample is None:
        crop, bin = _reach(scan, sample.mean, at, size, crop, bin)
    elif at != middle and crop is None:
        room = _room(scan.frame_shape, at)
        if room <= 0:
            expected = f"a pixel of {scan.frame_shape[0]} x {scan.frame_shape[1]}"
            raise InputError("outside the frames", file=scan.name, field="centre", found=at, expected=expected)
        raise InputError(
            "zero frequency is not in the middle of the frames",
            file=scan.name,
            field="centre",
            found=at,
            expected=f"{middle}, or a crop",
            remedy=f"Crop to at most {room} pixels" + _advice(scan.frame_shape, at),
        )
    if crop is not None:
        notes = (
            *notes,
            f"a crop to {crop} pixels keeps {_counts_kept(sample.mean, at, crop):.1%} of the counts",
        )
    preparation = preparation_of(
        centre=None if crop is None or at == middle else at,
        crop=crop,
        bin=1 if bin is None else bin,
        resample=resample,
        orientation=orientation,
        threshold=threshold,
        transform=transform,
        scale=scale if isinstance(scale, str) else "fixed",
        scale_value=1.0 if isinstance(scale, str) else scale,
        notes=notes,
        **detector,
    )
    _check_size(preparation, scan, size)
    if scan.probe is not None and scan.probe.shape[1:] == scan.frame_shape:
        preparation.probe(scan.probe)
    preparation = preparation.with_scale_of(scan)
    return preparation.with_statistics_of(scan) if standardise else preparation


def preparation_of(**fields: Any) -> Preparation:
    """A `Preparation` of these fields. Raises InputError for one that cannot be."""
    try:
        return Preparation(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(first["msg"], field=".".join(map(str, first["loc"])), found=first["input"]) from None


def with_detector_of(preparation: Preparation, scan: Scan, bad_pixels: BadPixels = "auto") -> Preparation:
    """The same with what belongs to the detector (bad pixels, saturation, markers) taken from this scan."""
    fields, notes = detector_of(scan, bad_pixels, centre=preparation.centre)
    return preparation.replace(**fields, notes=notes)


def detector_of(
    scan: Scan,
    bad_pixels: BadPixels = "auto",
    markers: tuple[float, ...] | None = None,
    wrap_negative: bool | None = None,
    saturation: float | None = None,
    centre: tuple[int, int] | None = None,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The fields of a `Preparation` that belong to the scan's detector, and what was found, in words."""
    dtype = np.dtype(scan.frames.dtype)
    fields: dict[str, Any] = {
        "markers": steps.default_markers(dtype) if markers is None else markers,
        "wrap_negative": dtype.str[1:] == "i2" if wrap_negative is None else wrap_negative,
        "saturation": scan.saturation if saturation is None else saturation,
        "mask": None if bad_pixels == "none" else scan.mask,
    }
    if bad_pixels != "auto":
        return fields, ()
    sample = _Sample.of(scan, fields)
    _, reasons = find_bad_pixels(sample.mean, sample.largest, frames=sample.frames, centre=centre)
    given = np.zeros(scan.frame_shape, bool) if scan.mask is None else ~scan.mask
    bad, added = count_once({"by the scan's mask": given, "marked in most frames": sample.valid < 0.5, **reasons})
    words = [f"{count} {rule}" for rule, count in added.items() if count]
    if not words:
        return fields, ()
    return {**fields, "mask": ~bad}, (f"{counted(int(bad.sum()), 'bad pixel')}: {', '.join(words)}",)


@dataclass(frozen=True)
class _Sample:
    """What some frames say of every pixel (H, W): mean and largest count, part of the frames it is valid in."""

    mean: NDArray[np.float64]
    largest: NDArray[np.float64]
    valid: NDArray[np.float64]
    frames: int

    @classmethod
    def of(cls, scan: Scan, detector: dict[str, Any]) -> _Sample:
        """Raises InputError where pixels that the detector's fields do not call bad hold negative integers, or are NaN
        in some frames; those that are NaN in most are not valid.
        """
        pixels = scan.frame_shape[0] * scan.frame_shape[1]
        indices = spread(len(scan), min(SAMPLE_FRAMES, max(SAMPLE_PIXELS // pixels, 16)))
        batch = frames_at_a_time(scan.frame_shape)
        good = detector["mask"]
        total = np.zeros(scan.frame_shape)
        largest = np.zeros(scan.frame_shape)
        valid = np.zeros(scan.frame_shape)
        absent, first = np.zeros(scan.frame_shape, np.int64), np.full(scan.frame_shape, len(scan))
        for start in range(0, len(indices), batch):
            frames = np.asarray(scan.frames[indices[start : start + batch]])
            if detector["wrap_negative"]:
                frames = steps.unwrap_negative(frames)
            marked = steps.marked_pixels(frames, detector["markers"])
            steps.refuse_negative(frames, good, marked)
            usable = np.ones(frames.shape, bool) if marked is None else ~marked
            if good is not None:
                usable &= good
            if frames.dtype.kind == "f":
                unknown = usable & ~np.isfinite(frames)
                absent += unknown.sum(axis=0)
                at = indices[start + unknown.argmax(axis=0)]
                first = np.where(unknown.any(axis=0), np.minimum(first, at), first)
                usable &= ~unknown
            counts = np.maximum(np.where(usable, frames, 0).astype(np.float64), 0)
            total += counts.sum(axis=0)
            largest = np.maximum(largest, counts.max(axis=0))
            valid += usable.sum(axis=0)
        usual = valid >= 0.5 * len(indices)
        sometimes = (absent > 0) & (usual if usual.any() else True)
        if sometimes.any():
            raise InputError(
                "NaN or infinite counts",
                file=scan.name,
                field="frames",
                found=f"{absent[sometimes].sum()} (first in frame {first[sometimes].min()})",
                expected="finite counts, or none of a pixel in most frames",
                remedy=steps.NOT_FINITE_REMEDY,
            )
        return cls(total / np.maximum(valid, 1), largest, valid / len(indices), len(indices))

    def centre(self) -> tuple[int, int]:
        """The pixel nearest to the middle of the light; there must be some."""
        found = pattern_centre(self.mean, self.valid > 0)
        assert found is not None
        return round(found[0]), round(found[1])


def network_sizes(frame_shape: tuple[int, int], centre: tuple[int, int] | None = None) -> dict[int, int]:
    """Sizes that networks take and frames of (H, W) can be brought to, each with the largest bin that gets there.

    Smaller bins work too: the crop is size x bin pixels.
    """
    room = _room(frame_shape, centre or (frame_shape[0] // 2, frame_shape[1] // 2))
    sizes = {64, 128, 256, room // SIZE_MULTIPLE * SIZE_MULTIPLE}
    return {size: room // size for size in sorted(sizes) if 0 < size <= room}


def _room(frame_shape: tuple[int, int], centre: tuple[int, int]) -> int:
    return min(steps.largest_crop(length, at) for length, at in zip(frame_shape, centre, strict=True))


def _advice(frame_shape: tuple[int, int], centre: tuple[int, int]) -> str:
    ways = [
        f"{size} (crop to {size}" + (f", or crop to {size * bin} and bin by {bin})" if bin > 1 else ")")
        for size, bin in network_sizes(frame_shape, centre).items()
    ]
    return "; sizes that work: " + ", ".join(ways) if ways else "; these frames are too small for any network"


def _check_size(preparation: Preparation, scan: Scan, size: int | None) -> None:
    """Raise InputError unless the prepared frames have the size asked for and a network takes them."""
    found = preparation.output_size(scan.frame_shape)
    wanted = found if size is None else (size, size)
    if found == wanted and found[0] == found[1] and found[0] % SIZE_MULTIPLE == 0:
        return
    middle = (scan.frame_shape[0] // 2, scan.frame_shape[1] // 2)
    raise InputError(
        "a frame size no network takes" if found == wanted else "not the size asked for",
        file=scan.name,
        field="frames",
        found=f"{found[0]} x {found[1]} pixels",
        expected=f"square, a multiple of {SIZE_MULTIPLE}" if found == wanted else f"{size} x {size}",
        remedy="Choose a size" + _advice(scan.frame_shape, preparation.centre or middle),
    )


def _reach(
    scan: Scan,
    mean: NDArray[np.float64],
    centre: tuple[int, int],
    size: int,
    crop: int | None,
    bin: int | None,
) -> tuple[int | None, int]:
    """The crop (None where nothing is cut) and bin that bring the frames to `size`, as `fit_preparation` says."""
    room = _room(scan.frame_shape, centre)
    choices = [
        factor
        for factor in range(1, room // max(size, 1) + 1)
        if size > 0 and (bin is None or bin == factor) and (crop is None or crop == size * factor)
    ]
    if not choices:
        raise InputError(
            f"cannot be brought to {size} x {size}",
            file=scan.name,
            field="size",
            found=f"frames of {scan.frame_shape[0]} x {scan.frame_shape[1]}, crop {crop}, bin {bin}",
            expected=f"{size} x bin pixels about {centre}",
            remedy="Choose a size" + _advice(scan.frame_shape, centre),
        )
    counts = {factor: _counts_kept(mean, centre, size * factor) for factor in choices}
    power = {factor: _probe_kept(scan, size, factor) for factor in choices}
    fitting = [factor for factor in choices if power[factor] >= PROBE_POWER] or choices[:1]
    factor = next((f for f in fitting if counts[f] >= 0.99), fitting[-1])
    if counts[factor] < COUNTS_KEPT and crop is None and bin is None:
        ways = "; ".join(
            f"bin by {f}: {counts[f]:.1%} of the counts, {power[f]:.1%} of the probe's power" for f in choices
        )
        raise InputError(
            f"no good way to {size} x {size}",
            file=scan.name,
            field="size",
            found=ways,
            expected=f"{COUNTS_KEPT:.0%} of the counts and {PROBE_POWER:.0%} of the probe",
            remedy="Choose a larger size, or a crop or bin yourself",
        )
    whole = scan.frame_shape == (size * factor, size * factor)
    return (None if whole else size * factor), factor


def _counts_kept(mean: NDArray[np.float64], centre: tuple[int, int], crop: int) -> float:
    rows, columns = (steps.crop_window(length, at, crop) for length, at in zip(mean.shape, centre, strict=True))
    return float(mean[rows, columns].sum() / mean.sum())


def _probe_kept(scan: Scan, size: int, factor: int) -> float:
    """Part of the probe's power within `size` pixels after a crop to size x factor; 1 where it is unknown."""
    if scan.probe is None or scan.probe.shape[1:] != scan.frame_shape:
        return 1.0
    power = np.square(np.abs(steps.crop_probe(scan.probe, size * factor))).sum(axis=0)
    window = steps.crop_window(size * factor, size * factor // 2, size)
    return float(power[window, window].sum() / power.sum())
