"""`Experiment`: what a free simulation can be told, by name and number, and the scan that follows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.optics.beam import gaussian_beam, incoherent_modes, ring_defocus, zone_plate_beam
from ptychow.optics.detection import Detector, random_dead_pixels
from ptychow.optics.propagation import photon_wavelength
from ptychow.optics.samples import SAMPLES
from ptychow.optics.simulate import (
    DETECTOR_STREAM,
    OBJECT_STREAM,
    OVERSAMPLING,
    POSITION_STREAM,
    canvas,
    simulate,
    stream,
)
from ptychow.optics.trajectories import TRAJECTORIES, jitter
from ptychow.scan import Geometry, Scan

POSITIVE = ("size", "points", "step", "energy", "pixel_size", "detector_pixel", "fwhm", "feature")
BEAMS = ("zone-plate", "gaussian")
RING_RMS_RADIUS = 0.2  # of the frame: the real 26-ID beam's


@dataclass(frozen=True)
class Experiment:
    """A simulated experiment. Lengths in metres, `step`, `jitter`, `fwhm` and `feature` in object pixels.

    sample, phase_step, amplitude_contrast, feature: see `samples`; None for the sample's own.
    beam: "zone-plate" (`defocus` None: a ring of rms radius 0.2 of the frame) or "gaussian" (`fwhm` None: 0.3
        of it).
    mode_powers: of the incoherent modes. points: of the trajectory. counts: photons a frame; noise False:
    expected counts instead. background, dead_pixels, saturation, dtype: see `Detector`.
    """

    sample: str = "labyrinth"
    beam: str = "zone-plate"
    trajectory: str = "fermat"
    size: int = 64
    points: int = 400
    step: float = 4.0
    jitter: float = 0.0
    counts: float = 1e6
    seed: int = 0
    mode_powers: tuple[float, ...] = (1.0,)
    defocus: float | None = None
    astigmatism: float = 0.0
    fwhm: float | None = None
    phase_step: float | None = None
    amplitude_contrast: float | None = None
    feature: float | None = None
    energy: float = 10e3  # electronvolts
    pixel_size: float = 10e-9
    detector_pixel: float = 75e-6
    noise: bool = True
    background: float = 0.0
    dead_pixels: int = 0
    mask_known: bool = True
    saturation: int | None = None
    dtype: str = "uint16"

    def __post_init__(self) -> None:
        for field, names in (("sample", SAMPLES), ("beam", BEAMS), ("trajectory", TRAJECTORIES)):
            if getattr(self, field) not in names:
                raise InputError("no such name", field=field, found=getattr(self, field), expected=", ".join(names))
        for field in POSITIVE:
            value = getattr(self, field)
            if value is not None and not 0 < value < np.inf:
                raise InputError("not a positive number", field=field, found=value)
        if self.feature is not None and self.feature < 1:
            raise InputError("smaller than a pixel", field="feature", found=self.feature, expected="1 or more")
        if not 0 <= self.jitter < np.inf:
            raise InputError("negative", field="jitter", found=self.jitter, expected="zero or more pixels")
        if self.amplitude_contrast is not None and not 0 <= self.amplitude_contrast < 1:
            raise InputError(
                "no such contrast", field="amplitude_contrast", found=self.amplitude_contrast, expected="0 to 1"
            )
        if self.size % 2:
            raise InputError("an odd number of pixels", field="size", found=self.size, expected="an even one")
        if not self.mode_powers or min(self.mode_powers) <= 0:
            raise InputError("not positive", field="mode_powers", found=self.mode_powers)

    @property
    def geometry(self) -> Geometry:
        """Far field: the distance is the one that makes `pixel_size` of wavelength and detector pixel."""
        wavelength = photon_wavelength(self.energy)
        distance = self.pixel_size * self.size * self.detector_pixel / wavelength
        return Geometry(wavelength, distance, self.detector_pixel, self.pixel_size)

    def probe(self) -> NDArray[np.complex64]:
        """(modes, size, size), not yet scaled to counts."""
        if self.beam == "gaussian":
            beam = gaussian_beam(self.size, fwhm=self.fwhm or 0.3 * self.size)
        else:
            lengths = {"wavelength": photon_wavelength(self.energy), "pixel_size": self.pixel_size}
            defocus = ring_defocus(self.size, RING_RMS_RADIUS, **lengths) if self.defocus is None else self.defocus
            beam = zone_plate_beam(self.size, defocus=defocus, astigmatism=self.astigmatism, **lengths)
        return incoherent_modes(beam, self.mode_powers)

    def run(
        self,
        *,
        probe: NDArray[np.complexfloating] | None = None,
        workers: int = -1,
        advance: Callable[[int], Any] = lambda steps: None,
    ) -> Scan:
        """The scan. probe: (modes, size, size) to use instead of `beam`; workers, advance: see `simulate`."""
        if probe is not None and probe.shape[-1] != self.size:
            raise InputError(
                "not of the frames' size", field="probe", found=probe.shape, expected=f"{self.size} pixels"
            )
        positions = TRAJECTORIES[self.trajectory](self.points, self.step)
        side = math.isqrt(self.points)
        is_full_raster = self.trajectory == "raster" and side**2 == self.points
        if self.jitter:
            positions = jitter(positions, self.jitter, stream(self.seed, POSITION_STREAM))
        shape, origin = canvas(positions, self.size)
        chosen = {
            "phase_step": self.phase_step,
            "amplitude_contrast": self.amplitude_contrast,
            "feature": None if self.feature is None else self.feature * OVERSAMPLING,
        }
        given = {name: value for name, value in chosen.items() if value is not None}
        return simulate(
            self.probe() if probe is None else probe,
            SAMPLES[self.sample](shape, stream(self.seed, OBJECT_STREAM), **given),
            positions,
            origin=origin,
            counts=self.counts,
            geometry=self.geometry,
            detector=self._detector() if self.noise else None,
            seed=self.seed,
            mask_known=self.mask_known,
            raster=(side, side) if is_full_raster else None,
            name=f"{self.sample}-{self.seed}",
            metadata={"experiment": json.dumps({**asdict(self), "own_probe": probe is None})},
            workers=workers,
            advance=advance,
        )

    def _detector(self) -> Detector:
        shape = (self.size, self.size)
        dead = random_dead_pixels(shape, self.dead_pixels, stream(self.seed, DETECTOR_STREAM))
        return Detector(self.background, dead if self.dead_pixels else None, self.saturation, self.dtype)
