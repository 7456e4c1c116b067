"""`simulate`: probe, sample, positions and detector to a `Scan` with its truth.

The object is drawn at half the object pixel and the exit waves are computed on 2 N x 2 N of these half
pixels. Their far field has the detector's pixel and twice its width; only the N x N pixels in the middle are
measured. So light that the sample scatters beyond the detector is lost, as in an experiment; on an N x N grid
it would wrap around onto the other side.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from ptychow.errors import InputError
from ptychow.optics.beam import scale_to_counts
from ptychow.optics.detection import Detector
from ptychow.optics.propagation import fourier_resample, shift
from ptychow.scan import Geometry, ObjectImage, Scan

OVERSAMPLING = 2
# Half pixels nearer to a whole number than this are taken for one: metres divided by metres are not exact.
POSITION_TOLERANCE = 1e-6
MOST_COUNTS = 1e15  # numpy's Poisson generator ends at 9e18, a pixel of any known detector far below
# Independent random streams of one seed: SeedSequence(seed, spawn_key=(stream, ...)).
OBJECT_STREAM, NOISE_STREAM, POSITION_STREAM, DETECTOR_STREAM = 0, 1, 2, 3


def stream(seed: int, *key: int) -> np.random.Generator:
    """The random generator of a seed for one purpose, independent of every other key's."""
    if seed < 0:
        raise InputError("negative", field="seed", found=seed, expected="zero or more")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def canvas(positions: ArrayLike, size: int, margin: int = 8) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shape of the sample to draw, in half pixels, and its origin: where its pixel [0, 0] lies, in pixels.

    positions: (N, 2) in object pixels. The sample reaches `margin` pixels beyond the outermost N x N patch.
    """
    points = np.asarray(positions, np.float64)
    first = np.floor(points.min(axis=0)).astype(int) - size // 2 - margin
    last = np.ceil(points.max(axis=0)).astype(int) + size // 2 + margin
    rows, columns = (int(extent) for extent in (last - first) * OVERSAMPLING)
    return (rows, columns), (int(first[0]), int(first[1]))


def simulate(
    probe: NDArray[np.complexfloating],
    sample: NDArray[np.complexfloating],
    positions: ArrayLike,
    *,
    origin: tuple[float, float],
    counts: float,
    geometry: Geometry | None = None,
    detector: Detector | None = None,
    seed: int = 0,
    indices: Sequence[int] | NDArray[np.integer] | None = None,
    mask_known: bool = True,
    raster: tuple[int, int] | None = None,
    name: str = "simulation",
    metadata: dict[str, str] | None = None,
    batch: int = 32,
    workers: int = -1,
    advance: Callable[[int], Any] = lambda steps: None,
) -> Scan:
    """A simulated scan with its truth.

    probe: (modes, N, N) or (N, N) complex on the object-pixel grid, N even; scaled here to `counts`.
    sample: (rows, columns) complex transmission on half object pixels; `origin` is the position, in object
        pixels, of its pixel [0, 0]. `canvas` gives both for a list of positions.
    positions: (N, 2) probe centres in object pixels; sub-pixel positions are exact (the probe is shifted, it
        is band-limited by its array).
    counts: photons a frame that arrive at the sample. What it absorbs and scatters beyond the detector is not
        measured.
    geometry: of the returned scan; with a known pixel size its positions are in metres, else in pixels.
    detector: None for the expected counts themselves, float32, without noise.
    seed, indices: the noise of frame k is drawn from (seed, indices[k]), `indices` counting from 0 by
        default: a part of a scan has the noise that the whole has there.
    mask_known: whether the scan says which pixels are dead.
    batch: frames computed at a time; workers: FFT threads, -1 for all; advance(n) is called after n more
        frames.

    The truth is the sample band-limited to the object-pixel grid: pixel i lies at half pixel 2 i. It gives
    the same frames as the sample as long as no exit wave exceeds the detector.

    Raises InputError where the parts do not fit.
    """
    modes = np.asarray(probe) if np.ndim(probe) == 3 else np.asarray(probe)[None]
    points = np.asarray(positions, np.float64)
    _check(modes, sample, points, origin)
    size = modes.shape[-1]
    if not 0 < counts < MOST_COUNTS:
        raise InputError("cannot simulate", field="counts", found=counts, expected=f"0 to {MOST_COUNTS:.0e} a frame")
    if detector is not None and detector.dead is not None and detector.dead.shape != (size, size):
        raise InputError(
            "not of the probe's size", field="dead pixels", found=detector.dead.shape, expected=(size, size)
        )
    modes = scale_to_counts(modes, counts)
    # Interpolating keeps the probe's values; on four times as many pixels that is four times its power.
    fine_probe = fourier_resample(modes, (OVERSAMPLING * size,) * 2) / OVERSAMPLING
    frame_numbers = np.arange(len(points)) if indices is None else np.asarray(indices)
    frames = np.empty((len(points), size, size), np.float32 if detector is None else detector.dtype)
    corners = OVERSAMPLING * (points - np.asarray(origin, np.float64)) - size
    for chunk in _chunks(len(points), batch):
        expected = _expected_counts(fine_probe, sample, corners[chunk], workers)
        if detector is None:
            frames[chunk] = expected
        else:
            for target, pattern, number in zip(frames[chunk], expected, frame_numbers[chunk], strict=True):
                target[...] = detector.measure(pattern, stream(seed, NOISE_STREAM, int(number)))
        advance(len(expected))
    truth = fourier_resample(sample, (sample.shape[0] // OVERSAMPLING, sample.shape[1] // OVERSAMPLING))
    geometry = (geometry or Geometry()).derive_pixel_size(size)
    pixel = geometry.pixel_size
    dead = None if detector is None else detector.dead
    return Scan(
        frames=frames,
        positions=points if pixel is None else points * pixel,
        position_unit="px" if pixel is None else "m",
        geometry=geometry,
        mask=~dead if dead is not None and mask_known else None,
        saturation=None if detector is None else float(detector.limit),
        probe=modes,
        object=ObjectImage(truth.astype(np.complex64), (float(origin[0]), float(origin[1])), "simulation"),
        raster=raster,
        name=name,
        metadata={"simulation": json.dumps({"seed": seed, "counts": counts}), **(metadata or {})},
    )


def _expected_counts(
    probe: NDArray[np.complex64],
    sample: NDArray[np.complexfloating],
    corners: NDArray[np.float64],
    workers: int,
) -> NDArray[np.float32]:
    """Noiseless frames (n, N, N) of a probe (modes, 2N, 2N) at patch corners (n, 2) in half pixels."""
    whole = np.rint(corners).astype(int)
    fraction = corners - whole
    moved = np.abs(fraction).max(axis=1) > POSITION_TOLERANCE
    size = probe.shape[-1]
    patches = np.lib.stride_tricks.sliding_window_view(sample, (size, size))[whole[:, 0], whole[:, 1]]
    total = np.zeros((len(corners), size // OVERSAMPLING, size // OVERSAMPLING), np.float32)
    for mode in probe:
        exit_waves = mode * patches
        if moved.any():
            exit_waves[moved] = shift(mode, fraction[moved]) * patches[moved]
        field = _detected_field(exit_waves, workers)
        total += field.real**2 + field.imag**2
    return total


def _detected_field(exit_waves: NDArray[np.complex64], workers: int) -> NDArray[np.complex64]:
    """The middle N x N of the far field of (n, 2N, 2N) exit waves, up to a phase that no intensity shows.

    One axis at a time: what the first crop drops need not be transformed along the second.
    """
    size = exit_waves.shape[-1]
    kept = np.arange(-(size // (2 * OVERSAMPLING)), size // (2 * OVERSAMPLING))
    rows = scipy.fft.fft(exit_waves, axis=2, norm="ortho", workers=workers)[:, :, kept]
    return scipy.fft.fft(rows, axis=1, norm="ortho", workers=workers)[:, kept]


def _chunks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _check(
    probe: NDArray[np.complexfloating],
    sample: NDArray[np.complexfloating],
    positions: NDArray[np.float64],
    origin: tuple[float, float],
) -> None:
    """Raise InputError unless every patch lies on the sample and the arrays have shapes to work with."""
    if probe.ndim != 3 or probe.shape[1] != probe.shape[2] or probe.shape[1] % 2:
        raise InputError("cannot simulate", field="probe", found=probe.shape, expected="(modes, N, N) with N even")
    if sample.ndim != 2 or sample.shape[0] % OVERSAMPLING or sample.shape[1] % OVERSAMPLING:
        raise InputError(
            "cannot simulate", field="sample", found=sample.shape, expected="two even lengths of half pixels"
        )
    if not (np.isfinite(probe).all() and probe.any() and np.isfinite(sample).all()):
        raise InputError("cannot simulate", field="probe, sample", expected="finite numbers and some light")
    if positions.ndim != 2 or positions.shape[1] != 2 or not len(positions) or not np.isfinite(positions).all():
        raise InputError("cannot simulate", field="positions", found=positions.shape, expected="(N, 2) finite numbers")
    first = OVERSAMPLING * (positions.min(axis=0) - origin) - probe.shape[1]
    last = OVERSAMPLING * (positions.max(axis=0) - origin) + probe.shape[1]
    if np.rint(first).min() < 0 or (np.rint(last) > sample.shape).any():
        raise InputError(
            "the sample does not reach as far as the scan",
            field="sample",
            found=f"{sample.shape} half pixels from {origin}",
            expected=f"to hold {np.rint(first)} to {np.rint(last)}",
            remedy="Draw it on the shape and origin that optics.simulate.canvas gives",
        )
