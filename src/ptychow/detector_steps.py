"""The steps of a `Preparation` as pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError

NOT_FINITE_REMEDY = "Mask these pixels (ptychow prepare --mask), or leave these frames out (ptychow prepare --drop)"


def default_markers(dtype: np.dtype[Any]) -> tuple[float, ...]:
    """Values that mark an invalid pixel in counts of this type: the largest of 16 and 32 unsigned bits, -1 and -2."""
    markers: dict[tuple[str, int], tuple[float, ...]] = {
        ("u", 2): (65535,),
        ("i", 2): (65535,),
        ("u", 4): (4294967295,),
        ("i", 4): (-1, -2),
        ("i", 8): (-1, -2),
    }
    return markers.get((dtype.kind, dtype.itemsize), ())


def unwrap_negative(frames: NDArray[Any]) -> NDArray[Any]:
    """Counts of a 16-bit counter read with a sign: 65536 is added to the negative ones. No copy of int16."""
    if frames.dtype.kind == "u":
        return frames
    if frames.dtype.kind == "i" and frames.dtype.itemsize == 2:
        return frames.view(frames.dtype.str.replace("i", "u"))
    return np.where(frames < 0, frames + 65536, frames)


def marked_pixels(frames: NDArray[Any], markers: Sequence[float]) -> NDArray[np.bool_] | None:
    """Where frames (n, H, W) hold one of the markers; None where nowhere."""
    found: NDArray[np.bool_] | None = None
    for marker in markers:
        if frames.dtype.kind in "iu":
            limits = np.iinfo(frames.dtype)
            if not (marker == int(marker) and limits.min <= marker <= limits.max):
                continue
        # Compared in the frames' own type, which is much faster than in float64.
        here = frames == frames.dtype.type(marker)
        found = here if found is None else found | here
    return found if found is not None and found.any() else None


def crop_window(length: int, centre: int, size: int) -> slice:
    """The `size` pixels of an axis that put pixel `centre` at size//2. Raises InputError where they do not fit."""
    start = centre - size // 2
    if start < 0 or start + size > length:
        raise InputError(
            "the crop leaves the frame",
            field="crop",
            found=f"{size} pixels about pixel {centre} of {length}",
            expected=f"at most {largest_crop(length, centre)}",
        )
    return slice(start, start + size)


def largest_crop(length: int, centre: int) -> int:
    """The largest even number of pixels that has pixel `centre` in its middle."""
    return 2 * min(centre, length - centre)


def bin_frames(frames: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Sums of factor x factor pixels of (n, H, W), whose sides are multiples of `factor`."""
    rows = frames[:, ::factor].copy()
    for start in range(1, factor):
        rows += frames[:, start::factor]
    binned = rows[:, :, ::factor].copy()
    for start in range(1, factor):
        binned += rows[:, :, start::factor]
    return binned


def bin_mask(mask: NDArray[np.bool_], factor: int) -> NDArray[np.bool_]:
    """(H, W), True = good: a bin is good where all of its pixels are."""
    height, width = mask.shape
    return np.asarray(mask.reshape(height // factor, factor, width // factor, factor).all(axis=(1, 3)))


def resample(frames: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Square frames (n, m, m) on size x size pixels as scikit-image's anti-aliased `resize` (means, not sums)."""
    matrix = resample_matrix(frames.shape[-1], size)
    return np.asarray(matrix @ frames @ matrix.T, np.float32)


@lru_cache(maxsize=8)
def resample_matrix(size: int, new_size: int) -> NDArray[np.float32]:
    """(new_size, size): what `resize` does along one axis; it is linear, and the axes do not mix."""
    from skimage.transform import resize

    matrix = resize(np.eye(size), (new_size, size), anti_aliasing=new_size < size, preserve_range=True)
    return np.ascontiguousarray(matrix, np.float32)


def crop_probe(probe: NDArray[np.complex64], size: int) -> NDArray[np.complex64]:
    """The probe (modes, H, W) as a detector cropped to size x size sees it: a Fourier crop.

    The pixels become coarser and the field of view stays; |probe|^2 sums to the counts on the cropped detector.
    """
    from ptychow.optics.propagation import far_field, from_far_field

    rows, columns = (crop_window(length, length // 2, size) for length in probe.shape[1:])
    return from_far_field(far_field(probe)[:, rows, columns]).astype(np.complex64)


def window_probe(
    probe: NDArray[np.complex64], shape: tuple[int, int], ratio: float, least: float
) -> NDArray[np.complex64]:
    """The middle (h, w) of the probe (modes, H, W), for a detector of pixels `ratio` times as large.

    Raises InputError where it holds less than `least` of the probe's power.
    """
    rows, columns = (
        crop_window(length, length // 2, size) for length, size in zip(probe.shape[1:], shape, strict=True)
    )
    windowed = probe[:, rows, columns]
    kept = np.square(np.abs(windowed)).sum() / np.square(np.abs(probe)).sum()
    if not kept >= least:
        raise InputError(
            f"after binning by {ratio:.3g} the field of view is too small for the probe",
            field="probe",
            found=f"{kept:.1%} of its power within {shape[0]} x {shape[1]} pixels",
            expected=f"at least {least:.0%}",
            remedy="Bin less and crop more, or use larger frames",
        )
    return windowed * _half_bin_tilt(shape, ratio)


def _half_bin_tilt(shape: tuple[int, int], ratio: float) -> NDArray[np.complex64]:
    """(h, w) phase factor that moves a far field by the half bin that bins lie off.

    Bin j of `ratio` pixels is centred on pixel ratio * j + (ratio - 1) / 2, not ratio * j; the same holds for
    resampled pixels. In the object's plane that is a tilt of the wave.
    """
    rows, columns = (np.arange(size) / size - size // 2 / size for size in shape)
    cycles = (ratio - 1) / (2 * ratio) * (rows[:, None] + columns[None, :])
    return np.exp(-2j * np.pi * cycles).astype(np.complex64)


def refuse_not_finite(frames: NDArray[np.float32]) -> None:
    """Raise InputError for NaN or infinity in prepared frames (n, h, w)."""
    # The sum is much cheaper than a test of every pixel, and as telling.
    if np.isfinite(frames.sum()):
        return
    bad = np.flatnonzero(~np.isfinite(frames).all(axis=(1, 2)))
    raise InputError(
        "not finite",
        field="frames",
        found=f"NaN or infinite counts in {len(bad)} of {len(frames)} frames (first at {bad[:1]})",
        expected="finite counts",
        remedy=NOT_FINITE_REMEDY,
    )


def refuse_negative(frames: NDArray[Any], good: NDArray[np.bool_] | None, marked: NDArray[np.bool_] | None) -> None:
    """Raise InputError where a pixel (n, H, W) that is good (H, W) and not marked holds a negative integer."""
    if frames.dtype.kind != "i":
        return
    negative = frames < 0
    if good is not None:
        negative &= good
    if marked is not None:
        negative &= ~marked
    if negative.any():
        raise InputError(
            "negative counts",
            field="frames",
            found=f"{negative.sum()} of them, such as {frames[negative][0]}",
            expected="counts of 0 and more",
            remedy="If a background was subtracted, or 16-bit counts stored with a sign: ptychow prepare --negative; "
            "if they mark bad pixels: ptychow prepare --mask",
        )
