"""Positions from the frames themselves, where the stage did not go where it was told to.

Rounds of two steps. A short reconstruction (LSQML) at the positions so far; then every frame is compared with what
object and probe predict at every shift within reach, and goes where that fits best. Searching finds its way out of
wrong minima, which gradients do not; what gradients are good at, the last pixel, is left to them. Two things matter
where errors are as wide as the object's features:

* Each round starts from a flat object, which forgets the ghosts of earlier positions.
* Object and positions can stretch, turn and bend together, which the frames hardly notice: along the spokes of a star,
  say. A stage's errors are taken to be each point's own. What neighbours moved together is taken out where there are
  enough of them for their own errors to cancel, and the affine part of all movements in any case: a slow drift of the
  stage stays as it was. And where a frame fits nearly as well elsewhere, it stays near where the stage was told to go.

Related: the searches of Maiden et al., Ultramicroscopy 120, 64 (2012), and Zhang et al., Opt. Express 21, 13592 (2013);
the gradient is that of Odstrcil et al., Opt. Express 26, 3108 (2018).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ptychow.errors import InputError, PtychoWError
from ptychow.scan import Scan
from ptychow.shift_search import COARSE, FINE, Pull, ShiftSearch
from ptychow.solver.engine import Estimate, iterate
from ptychow.solver.labelling import choose_modes, require_memory, solver_device
from ptychow.solver.measurement import flat_object, measure
from ptychow.solver.methods import method_named
from ptychow.starting_probe import starting_probe

# By default errors may be as large as this part of a frame.
REACH = 1 / 6
# Steps of the reconstruction in an epoch, at least: few frames are taken in smaller batches.
STEPS = 4
# The first rounds, on poor objects, show how large the errors are; after them positions are pulled to those given: a
# deviation as large as the errors' costs this part of a frame's squared error.
FREE_ROUNDS = 2
PULL = 1 / 30
# The first rounds search all frames in coarse steps: their objects are poor. Then the better half of the frames is
# looked for within so many pixels only.
WIDE_ROUNDS, NEARBY = 3, 3
# What neighbours moved together is taken out where the mean of their own errors is at most so large (pixels).
CANCELLED = 0.35
# Neighbours that a point's own error is told from, and that are taken together at least.
NEIGHBOURS = 8
# A frame explained worse than the median by so many deviations is an outlier: nobody follows it.
OUTLIER = 4.0
# Positions overshoot when the error rises by this factor: the gradient's step is halved, at last to none at all.
OVERSHOOT = 1.05
LEAST_STEP = 1 / 8
# Nothing is claimed unless frames are explained so much better than by an object that is 1 everywhere.
SEEN = 0.1


@dataclass(frozen=True)
class Step:
    """Reconstruct for `epochs` from a flat object, then search within `radius`, a part of the reach (0: no search).

    gradient: while reconstructing, positions follow the gradient with this step (`iterate`'s position_step), or with as
    large a part of it as does not overshoot.
    """

    epochs: int
    radius: float = 0.0
    gradient: float = 0.0


# Epochs, radii and the number of rounds are known from the tungsten scan; gradient steps are as large as did not
# overshoot there and on a simulated scan.
SCHEDULE = (
    Step(epochs=4, radius=1.0),
    Step(epochs=4, radius=1.0),
    Step(epochs=10, radius=1.0, gradient=8),
    Step(epochs=14, radius=1.0, gradient=8),
    Step(epochs=14, radius=0.7, gradient=8),
    Step(epochs=14, radius=0.42, gradient=8),
    Step(epochs=14, radius=0.25, gradient=8),
    Step(epochs=16, gradient=2),
)


@dataclass(frozen=True)
class Round:
    """number: 1 is the first. error: median over the frames of the relative amplitude error at the place where it
    fits best. moved: median distance that points went in this round, pixels.
    """

    number: int
    error: float
    moved: float


@dataclass(frozen=True)
class Refined:
    """scan: with the refined positions, without frames that hold no counts; what they were before is in
    `nominal_positions`, if nothing was there yet; and without object and label patches, which were of those positions.

    moved_px: (n, 2) by how much, object pixels, of mean zero. rounds: what each did. uncertain: (n,) bool, frames that
    no place explains as well as the others are explained. seconds: wall time.
    """

    scan: Scan
    moved_px: NDArray[np.float64]
    rounds: tuple[Round, ...]
    uncertain: NDArray[np.bool_]
    seconds: float


def refine_positions(
    scan: Scan,
    *,
    reach: float | None = None,
    probe_modes: int | None = None,
    device: str = "auto",
    seed: int = 0,
    schedule: tuple[Step, ...] = SCHEDULE,
    on_round: Callable[[Round], Any] = lambda round: None,
) -> Refined:
    """Find the positions of a scan's frames, up to a common offset.

    reach: object pixels by which a position may be wrong along each axis; a sixth of the frame by default. The mean of
    all positions stays where it was.
    probe_modes, device, seed: as for `label`; the probe starts as it does there, in every round.
    schedule: the rounds, one or more. on_round: called after each.

    Needs overlap: what a frame shows must be known from others. Raises InputError for a reach that is not within a
    pixel and half a frame and for too few frames, PtychoWError where frames are hardly explained better than by an
    empty object, and what `label` raises.
    """
    began = time.perf_counter()
    size = scan.frame_shape[0]
    reach = size * REACH if reach is None else reach
    if not 1 <= reach <= size / 2:
        raise InputError("not a reach", field="reach", found=reach, expected=f"1 to {size // 2} object pixels")
    if not schedule:
        raise InputError("no round", field="schedule", expected="one Step or more")
    method = method_named("lsqml")
    modes = choose_modes(scan, probe_modes)
    require_memory(scan, method, method.batch_size, modes)
    refinement = _Refinement(scan, modes, reach, solver_device(device), seed)
    for step in schedule:
        on_round(refinement.run(step))
    return refinement.result(time.perf_counter() - began)


class _Refinement:
    """Positions on their way; see `refine_positions`."""

    def __init__(self, scan: Scan, modes: int, reach: float, device: str, seed: int) -> None:
        self.scan, self.data = measure(scan)
        if len(self.data) <= NEIGHBOURS:
            expected = f"more than {NEIGHBOURS}"
            raise InputError(
                "too few that hold counts", file=scan.name, field="frames", found=len(self.data), expected=expected
            )
        self.reach, self.device = reach, device
        self.probe, _ = starting_probe(scan, modes, self.data.mean_pattern, self.data.good)
        self.given = self.scan.positions_px
        self.positions = self.given.copy()
        self.errors = np.zeros(len(self.scan))
        self.spread = np.inf
        self.seed = seed
        self.damping = 1.0
        self.rounds: list[Round] = []

    def run(self, step: Step) -> Round:
        """Reconstruct, search, take out what points moved together."""
        made = self._reconstruct(step)
        radius = round(step.radius * self.reach)
        free = len(self.rounds) < FREE_ROUNDS
        strength = 0.0 if free else PULL / max(self.spread, 1.0) ** 2
        best, self.errors = self._search(made, radius, strength)
        moved = (best if radius else made.positions) - self.given
        sound = ~outliers(self.errors)
        moved -= affine_part(self.given, moved, sound)
        self.spread = own_spread(self.given[sound], moved[sound])
        moved -= common_part(self.given, moved, sound, self.spread)
        # Beyond the reach nothing is believed: a point with nothing to hold on to would wander off.
        before, self.positions = self.positions, self.given + np.clip(moved, -self.reach, self.reach)
        distance = float(np.median(np.hypot(*(self.positions - before).T)))
        self.rounds.append(Round(len(self.rounds) + 1, float(np.median(self.errors)), distance))
        return self.rounds[-1]

    def _search(self, made: Estimate, radius: int, pull: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Best places and errors of all frames; those explained well so far are only looked for nearby."""
        search = ShiftSearch(self.data, made.object, made.probe)
        wide = len(self.rounds) < WIDE_ROUNDS
        part = COARSE if wide else FINE
        nearby = np.zeros(len(self.scan), bool) if wide else self.errors <= np.median(self.errors)
        best, errors = np.empty_like(made.positions), np.empty(len(nearby))
        for some, reach in ((nearby, min(NEARBY, radius)), (~nearby, radius)):
            frames = np.flatnonzero(some)
            if len(frames):
                places = Pull(self.given[frames], pull)
                best[frames], errors[frames] = search(made.positions[frames], reach, places, frames, part)
        return best, errors

    def _reconstruct(self, step: Step) -> Estimate:
        """Object, probe and followed positions, without overshooting; how much of the gradient that took is kept."""
        # Positions searched and followed lie on the object too; the rim that no frame lights stays flat.
        flat = flat_object(self.positions, self.scan.frame_shape[0], margin=int(np.ceil(self.reach)) + 2)
        while True:
            gradient = self.damping * step.gradient
            made = iterate(
                self.data,
                self.positions,
                flat,
                self.probe,
                epochs=step.epochs,
                batch_size=int(np.clip(len(self.scan) // STEPS, 1, method_named("lsqml").batch_size)),
                position_step=gradient,
                device=self.device,
                seed=self.seed,
                on_epoch=(lambda progress: overshoots(progress.errors)) if gradient else None,
            )
            if not (gradient and overshoots(made.errors)):
                return made
            self.damping = self.damping / 2 if self.damping > LEAST_STEP else 0.0

    def result(self, seconds: float) -> Refined:
        """What `refine_positions` gives."""
        flat = ShiftSearch(self.data, flat_object(self.positions, self.scan.frame_shape[0]), self.probe)
        empty = float(np.median(flat(self.positions, 0)[1]))
        if not self.rounds[-1].error < (1 - SEEN) * empty:
            raise PtychoWError(
                f"{self.scan.name}: positions cannot be found: at the best ones frames have an error of "
                f"{self.rounds[-1].error:.3f}, an empty object's is {empty:.3f}. Is there enough overlap, and is the "
                "probe this scan's?"
            )
        moved = self.positions - self.given
        moved -= moved.mean(axis=0)
        # Positions may be in metres.
        unit = 1.0 if self.scan.position_unit == "px" else float(self.scan.geometry.pixel_size or np.nan)
        nominal = self.scan.positions if self.scan.nominal_positions is None else self.scan.nominal_positions
        positions = self.scan.positions + moved * unit
        # An object and patches are those of the positions before.
        scan = replace(
            self.scan,
            positions=positions,
            nominal_positions=nominal,
            object=None,
            label_patches=None,
            raster=None,
        )
        return Refined(scan, moved, tuple(self.rounds), outliers(self.errors), seconds)


def affine_part(points: NDArray[np.float64], moved: NDArray[np.float64], sound: NDArray[np.bool_]) -> NDArray[Any]:
    """(N, 2) what a stretch, turn, shear and offset of all points make of their movements, fitted to the sound ones."""
    terms = np.column_stack([np.ones(len(points)), points - points.mean(axis=0)])
    return np.asarray(terms @ np.linalg.lstsq(terms[sound], moved[sound], rcond=None)[0])


def own_spread(points: NDArray[np.float64], moved: NDArray[np.float64]) -> float:
    """Standard deviation along an axis of what points (N, 2) moved apart from their neighbours; robust."""
    near = cKDTree(points).query(points, min(NEIGHBOURS + 1, len(points)))[1][:, 1:]
    apart = np.hypot(*(moved - moved[near].mean(axis=1)).T)
    # The median distance of a normal deviation in the plane is 1.18 of it; the neighbours' mean has an error too.
    return float(np.median(apart) / 1.18 / np.sqrt(1 + 1 / near.shape[1]))


def common_part(
    points: NDArray[np.float64], moved: NDArray[np.float64], sound: NDArray[np.bool_], spread: float
) -> NDArray[np.float64]:
    """(N, 2) mean movement of each point's sound neighbours, as many as leave `CANCELLED` of errors of this spread.

    Zero where there are not so many.
    """
    count = max(NEIGHBOURS, round((spread / CANCELLED) ** 2))
    if count >= sound.sum():
        return np.zeros_like(moved)
    near = cKDTree(points[sound]).query(points, count)[1]
    return np.asarray(moved[sound][near].mean(axis=1))


def overshoots(errors: Sequence[float]) -> bool:
    """Whether the error of the last epoch is well above an earlier one."""
    return errors[-1] > OVERSHOOT * min(errors)


def outliers(errors: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which errors (N,) lie `OUTLIER` deviations above the median, the deviation being that of most of them."""
    median = np.median(errors)
    return np.asarray(errors > median + OUTLIER * 1.4826 * np.median(np.abs(errors - median)))
