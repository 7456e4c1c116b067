"""Scan: the one container for what was measured (and, where known, what the truth or the labels are).

Conventions (docs/conventions.md): arrays are (row, column); frames (N, H, W) with zero frequency at [H//2, W//2] once
prepared; positions (N, 2) are of the probe centre, which is pixel [H//2, W//2] of the probe array; what is not known is
None and stays None.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError

PASS_PIXELS = 2**21
UNPAIRED = "docs/formats.md, frames without a position, positions without a frame"
PositionUnit = Literal["m", "px"]
# In a scan's metadata: why the lengths that a detector told are not used; and
NOT_BELIEVED = "geometry not believed"
BEAM_CENTRE = "beam_center_px"  # the pixel that the detector names, "row,column".


class Frames(Protocol):
    """A stack of equal images (N, H, W) that may still lie on disk. A numpy array is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored values."""
        ...

    def __getitem__(self, index: Any, /) -> NDArray[Any]:
        """Frames of an integer (H, W), a slice, or an integer index array in any order (n, H, W)."""
        ...


@dataclass(frozen=True)
class Subset:
    """Some frames of a stack, still lazy."""

    frames: Frames
    indices: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, H, W)."""
        return (len(self.indices), *self.frames.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored values."""
        return self.frames.dtype

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """As `Frames`."""
        return self.frames[self.indices[index]]


# Metres beyond which a length of a Geometry was surely meant in another unit.
LARGEST = {"wavelength": 1e-4, "distance": 200.0, "detector_pixel": 0.1, "pixel_size": 1e-2}


@dataclass(frozen=True)
class Geometry:
    """Far-field geometry in metres. What is unknown is None: nothing is invented.

    `pixel_size` is the object pixel, wavelength * distance / (N * detector_pixel) for frames of N x N pixels; it may be
    known without the other three (published data often state only that).
    """

    wavelength: float | None = None
    distance: float | None = None
    detector_pixel: float | None = None
    pixel_size: float | None = None

    def __post_init__(self) -> None:
        for name in LARGEST:
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value > 0):
                raise InputError(
                    "not a length", field=name, found=value, expected="a positive number of metres, or nothing"
                )
            if value is not None and value > LARGEST[name]:
                expected = f"metres, at most {LARGEST[name]:g}"
                raise InputError("no instrument has such a length", field=name, found=value, expected=expected)

    @classmethod
    def told(cls, **lengths: float | None) -> tuple[Geometry, dict[str, str]]:
        """Of the lengths (metres) that a detector tells, and what a scan's metadata should say of them.

        Detectors tell what somebody once entered. Where one of the lengths cannot be, nothing of it is known.
        """
        try:
            return cls(**lengths), {}
        except InputError as error:
            return cls(), {NOT_BELIEVED: str(error)}

    def derive_pixel_size(self, frame_size: int) -> Geometry:
        """Fill in `pixel_size` for square frames of `frame_size` pixels where the other three lengths are known.

        Raises InputError where a pixel size is given that contradicts them by more than 1 %.
        """
        if self.wavelength is None or self.distance is None or self.detector_pixel is None:
            return self
        derived = self.wavelength * self.distance / (frame_size * self.detector_pixel)
        if self.pixel_size is not None and abs(self.pixel_size / derived - 1) > 0.01:
            raise InputError(
                "contradicts wavelength x distance / (frame size x detector pixel)",
                field="pixel_size",
                found=f"{self.pixel_size:.4g} m",
                expected=f"{derived:.4g} m",
                remedy="Correct the wrong length in the file, or remove it",
            )
        return replace(self, pixel_size=derived)


@dataclass(frozen=True)
class ObjectImage:
    """A complex transmission on the scan's object-pixel grid, and where it lies.

    image: (rows, columns) complex64, amplitude * exp(+i phase).
    origin: position, in object pixels of the scan's frame, of pixel [0, 0]; position p lies at index p - origin.
    source: how it came about, in words ("simulation", "LSQML, 40 epochs", "network w3 of ...").
    """

    image: NDArray[np.complex64]
    origin: tuple[float, float]
    source: str

    def __post_init__(self) -> None:
        if self.image.ndim != 2 or not np.iscomplexobj(self.image):
            raise InputError(
                "not a complex image",
                field="object",
                found=f"{self.image.dtype} {self.image.shape}",
                expected="complex, (rows, columns)",
            )


@dataclass(frozen=True)
class Scan:
    """A ptychography scan.

    frames: (N, H, W) counts, lazy (`Frames`); integer or floating point, as stored.
    positions: (N, 2) float64, (y, x) of the probe centre in `position_unit`: "m", or "px" (object pixels).
    geometry: `Geometry`.
    mask: (H, W) bool, True where the detector can be believed, or None where nothing is known.
    saturation: counts at and above this value are not to be believed, or None.
    probe: (modes, H, W) complex64, mutually incoherent, |probe|^2 summing to the mean counts of a frame.
    object: truth or labels, see `ObjectImage.source`.
    label_patches: (N, h, w) complex patch of each frame, for data sets that come with patches instead of an object.
    nominal_positions: (N, 2) as commanded, in the same unit, where `positions` have been corrected.
    raster: (lines, points per line) where the frames lie on a regular raster in that order.
    name: what to call it in messages and pictures (the file name).
    metadata: provenance, strings only; written and read back by the formats.

    Raises InputError where the parts do not fit together.
    """

    frames: Frames
    positions: NDArray[np.float64]
    position_unit: PositionUnit = "px"
    geometry: Geometry = field(default_factory=Geometry)
    mask: NDArray[np.bool_] | None = None
    saturation: float | None = None
    probe: NDArray[np.complex64] | None = None
    object: ObjectImage | None = None
    label_patches: Frames | None = None
    nominal_positions: NDArray[np.float64] | None = None
    raster: tuple[int, int] | None = None
    name: str = "scan"
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self)
        object.__setattr__(self, "positions", np.asarray(self.positions, np.float64))
        height, width = self.frames.shape[1:]
        if height == width:
            object.__setattr__(self, "geometry", self.geometry.derive_pixel_size(height))

    def __len__(self) -> int:
        return self.frames.shape[0]

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(H, W) of a frame."""
        return self.frames.shape[1], self.frames.shape[2]

    @cached_property
    def positions_px(self) -> NDArray[np.float64]:
        """Positions in object pixels, (N, 2). Raises InputError where they are in metres and the pixel is unknown."""
        return self.to_pixels(self.positions)

    def to_pixels(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions given in this scan's unit, in object pixels."""
        if self.position_unit == "px":
            return positions
        if self.geometry.pixel_size is None:
            raise InputError(
                "positions are in metres but the object's pixel size is unknown",
                file=self.name,
                field="pixel_size",
                remedy="Give it (--pixel-size-nm), or wavelength, distance and detector pixel",
            )
        return positions / self.geometry.pixel_size

    def select(self, indices: NDArray[Any]) -> Scan:
        """The scan of the frames at `indices` (integers or a boolean mask), still lazy."""
        chosen = np.arange(len(self))[indices]
        return replace(
            self,
            frames=Subset(self.frames, chosen),
            positions=self.positions[chosen],
            label_patches=None if self.label_patches is None else Subset(self.label_patches, chosen),
            nominal_positions=None if self.nominal_positions is None else self.nominal_positions[chosen],
            raster=None,
        )

    def batches(self, size: int | None = None) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """(indices, frames) of at most `size` frames at a time, by default `frames_at_a_time`, in order."""
        size = size or frames_at_a_time(self.frame_shape)
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            yield np.arange(start, stop), self.frames[start:stop]

    def fingerprint(self) -> str:
        """SHA-256 (hex, 16 digits) of shape, dtype, positions and up to 16 frames: tells data sets apart cheaply."""
        digest = hashlib.sha256(f"{self.frames.shape}{self.frames.dtype}{self.position_unit}".encode())
        digest.update(np.ascontiguousarray(self.positions).tobytes())
        for index in spread(len(self), 16):
            digest.update(np.ascontiguousarray(self.frames[int(index)]).tobytes())
        return digest.hexdigest()[:16]


def frames_at_a_time(frame_shape: tuple[int, int]) -> int:
    """How many frames of (H, W) a pass over a scan takes into memory at once: PASS_PIXELS, or one frame."""
    return max(1, PASS_PIXELS // math.prod(frame_shape))


def spread(count: int, most: int) -> NDArray[np.int64]:
    """At most so many of `count` indices, in order, evenly spread from the first to the last."""
    return np.unique(np.linspace(0, count - 1, most).astype(np.int64))


def _pair_up(shape: tuple[int, ...], positions: int) -> str:
    """What to do about frames (N, H, W) and another number of positions."""
    if positions == shape[2]:
        return "The last axis of the frames is as long: store them with the frame number first (numpy.moveaxis)"
    if positions > shape[0] and positions % shape[0] == 0:
        each = positions // shape[0]
        return f"There are {each} positions a frame. A fly scan? Take their mean: --map positions_per_frame={each}"
    missing = positions < shape[0]
    which, key = ("frames have no position", "drop") if missing else ("positions have no frame", "drop_positions")
    least, extra = min(positions, shape[0]), abs(positions - shape[0])
    return (
        f"Which {which} is not known. Where they are the last: --map {key}={least}:, where the first: "
        f"--map {key}=:{extra} ({UNPAIRED})"
    )


def _listed(chosen: NDArray[np.bool_]) -> str:
    """The first numbers of what is chosen (N,), for a message."""
    numbers = np.flatnonzero(chosen)
    return ",".join(map(str, numbers[:20])) + (",..." if len(numbers) > 20 else "")


def _check(scan: Scan) -> None:
    """Raise InputError for the first part of the scan that does not fit."""

    def require(condition: bool, part: str, found: Any, expected: Any, remedy: str | None = None) -> None:
        if not condition:
            raise InputError("does not fit", file=scan.name, field=part, found=found, expected=expected, remedy=remedy)

    shape = tuple(scan.frames.shape)
    require(len(shape) == 3, "frames", f"shape {shape}", "three dimensions (frames, rows, columns)")
    require(min(shape) > 0, "frames", f"shape {shape}", "at least one frame of at least one pixel")
    kind = np.dtype(scan.frames.dtype).kind
    require(kind in "uif", "frames", f"dtype {scan.frames.dtype}", "integers or floating-point counts")
    count, frame_shape = shape[0], shape[1:]
    for name in ("positions", "nominal_positions"):
        positions = getattr(scan, name)
        if positions is None:
            continue
        require(np.ndim(positions) == 2 and np.shape(positions)[1] == 2, name, f"shape {np.shape(positions)}", "(N, 2)")
        require(
            len(positions) == count,
            name,
            f"{len(positions)} positions for {count} frames",
            "as many as frames",
            _pair_up(shape, len(positions)),
        )
        bad = ~np.isfinite(positions).all(axis=1)
        require(
            not bad.any(),
            name,
            f"{bad.sum()} not finite (first at index {bad.argmax()})",
            "finite numbers",
            f"Leave these frames out: --map drop={_listed(bad)} ({UNPAIRED})",
        )
    require(scan.saturation is None or scan.saturation > 0, "saturation", scan.saturation, "counts above 0, or none")
    require(scan.position_unit in ("m", "px"), "position_unit", scan.position_unit, "m or px")
    if scan.mask is not None:
        require(scan.mask.shape == frame_shape, "mask", f"shape {scan.mask.shape}", f"the frames' {frame_shape}")
        require(scan.mask.dtype == np.bool_, "mask", f"dtype {scan.mask.dtype}", "bool, True where good")
        require(
            bool(scan.mask.any()), "mask", "every pixel bad", "some good pixels", "Check the mask's meaning of 0 and 1"
        )
    if scan.probe is not None:
        require(scan.probe.ndim == 3, "probe", f"shape {scan.probe.shape}", "(modes, H, W)")
        require(np.iscomplexobj(scan.probe), "probe", f"dtype {scan.probe.dtype}", "complex")
    if scan.label_patches is not None:
        found = tuple(scan.label_patches.shape)
        require(len(found) == 3 and found[0] == count, "label_patches", f"shape {found}", f"({count}, h, w)")
    if scan.raster is not None:
        require(scan.raster[0] * scan.raster[1] == count, "raster", scan.raster, f"lines x points = {count}")
