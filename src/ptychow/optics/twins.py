"""Simulated twins of the PtychoNN data set (APS 26-ID, etched tungsten): by name, version and seed.

161 x 161 points, 30 nm step = 3 pixels of 10 nm, 64 x 64 pixels, far field. The instrument (beam, dead
pixels) is the same for every seed; the seed draws the object and the noise. What the paper does not state
follows a real 26-ID scan.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.optics.beam import incoherent_modes, zone_plate_beam
from ptychow.optics.detection import Detector, random_dead_pixels
from ptychow.optics.propagation import photon_wavelength
from ptychow.optics.samples import labyrinth
from ptychow.optics.simulate import OBJECT_STREAM, canvas, simulate, stream
from ptychow.optics.trajectories import raster
from ptychow.scan import Geometry, Scan

LINES = COLUMNS = 161
STEP = 3  # pixels
SIZE = 64
# 10 keV, three 55-um pixels binned to one, and the distance at which these make object pixels of 10 nm.
WAVELENGTH = photon_wavelength(10e3)
DETECTOR_PIXEL = 165e-6
PIXEL_SIZE = 10e-9
GEOMETRY = Geometry(WAVELENGTH, SIZE * DETECTOR_PIXEL * PIXEL_SIZE / WAVELENGTH, DETECTOR_PIXEL, PIXEL_SIZE)
MODE_POWERS = (0.85, 0.10, 0.05)
DEAD_PIXELS = 20
INSTRUMENT_SEED = 26
COUNTS = 2e6


@dataclass(frozen=True)
class Twin:
    """One of the twins: they differ in their beam.

    version: goes up whenever the same seed gives other frames. defocus, astigmatism: metres.
    """

    name: str
    title: str
    defocus: float
    astigmatism: float
    version: int = 1

    def probe(self) -> NDArray[np.complex64]:
        """(3, 64, 64) incoherent modes of total power 1; far field an annulus, 0.25 to 0.47 of the frame."""
        beam = zone_plate_beam(
            SIZE,
            wavelength=WAVELENGTH,
            pixel_size=PIXEL_SIZE,
            defocus=self.defocus,
            astigmatism=self.astigmatism,
            edge=0.03,
        )
        return incoherent_modes(beam, MODE_POWERS)


TWINS = {
    twin.name: twin
    for twin in (
        Twin("sim-26id", "beam of 60 nm, the paper's 50 % overlap at its 30-nm step", 3.5e-6, 0.5e-6),
        Twin("sim-26id-wide", "ring of 230 nm, as in a real 26-ID scan", 26.2e-6, 2e-6),
    )
}


def twin_part(lines: slice = slice(None), columns: slice = slice(None)) -> NDArray[np.intp]:
    """Frame numbers, (lines, columns), of a part of the raster. Raises InputError for an empty one."""
    part = np.arange(LINES * COLUMNS).reshape(LINES, COLUMNS)[lines, columns]
    if not part.size:
        raise InputError(
            "no scan point there", field="lines, columns", found=(lines, columns), expected=f"0 to {LINES}"
        )
    return part


def twin(
    name: str,
    seed: int = 0,
    *,
    lines: slice = slice(None),
    columns: slice = slice(None),
    counts: float = COUNTS,
    probe: NDArray[np.complexfloating] | None = None,
    mask_known: bool = True,
    workers: int = -1,
    advance: Callable[[int], Any] = lambda steps: None,
) -> Scan:
    """A twin of `seed`, whole or the part of its raster that `lines` and `columns` select.

    A part is a part: object (always the whole one), positions, noise and frames are those of the whole twin
        there.
    counts: photons a frame at the sample. probe: another instrument's (modes, 64, 64) instead of the twin's
        own.
    mask_known: whether the scan says which twenty pixels are dead. workers, advance: see `simulate`.

    Returns frames (N, 64, 64) uint16, positions in metres, the geometry, probe, truth, `raster`, and in the
    metadata name, version, seed, parameters and the frames' fingerprint. Raises InputError for an unknown
    name or an empty part.
    """
    if name not in TWINS:
        raise InputError("no such twin", field="twin", found=name, expected=" or ".join(TWINS))
    model = TWINS[name]
    positions = raster(LINES, COLUMNS, STEP)
    part = twin_part(lines, columns)
    shape, origin = canvas(positions, SIZE)
    detector = Detector(dead=random_dead_pixels((SIZE, SIZE), DEAD_PIXELS, np.random.default_rng(INSTRUMENT_SEED)))
    parameters = {"lines": str(lines), "columns": str(columns), "counts": counts, "own_probe": probe is None}
    scan = simulate(
        model.probe() if probe is None else probe,
        labyrinth(shape, stream(seed, OBJECT_STREAM)),
        positions[part.ravel()],
        origin=origin,
        counts=counts,
        geometry=GEOMETRY,
        detector=detector,
        seed=seed,
        indices=part.ravel(),
        mask_known=mask_known,
        raster=(part.shape[0], part.shape[1]),
        name=f"{name}-{seed}",
        metadata={
            "twin": name,
            "twin_version": str(model.version),
            "twin_seed": str(seed),
            "twin_parameters": json.dumps(parameters),
        },
        workers=workers,
        advance=advance,
    )
    return replace(scan, metadata={**scan.metadata, "fingerprint": scan.fingerprint()})
