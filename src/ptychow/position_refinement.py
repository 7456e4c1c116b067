"""Positions from the frames themselves, where the stage did not go where it was told to.

Rounds of two steps. A short reconstruction (LSQML) at the positions so far; then every frame is compared with what
object and probe predict at every shift within reach, and goes where that fits best. Searching finds its way out of
wrong minima, which gradients do not; what gradients are good at, the last pixel, is left to them. Two things matter
where errors are as wide as the object's features:

* Each round starts from a flat object, which forgets the ghosts of earlier positions.
* Object and positions can stretch, turn and shear together, which the frames hardly notice. The affine part of what
  the positions moved is taken out.

Related: the searches of Maiden et al., Ultramicroscopy 120, 64 (2012), and Zhang et al., Opt. Express 21, 13592 (2013);
the gradient is that of Odstrcil et al., Opt. Express 26, 3108 (2018).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError, PtychoWError
from ptychow.patches import corners
from ptychow.scan import ObjectImage, Scan
from ptychow.solver.engine import Estimate, iterate
from ptychow.solver.labelling import choose_modes, require_memory, solver_device
from ptychow.solver.measurement import Measurement, flat_object, measure
from ptychow.solver.methods import method_named
from ptychow.starting_probe import starting_probe

if TYPE_CHECKING:
    import torch

# By default errors may be as large as this part of a frame.
REACH = 1 / 6
# A window of half the frame is searched where it holds this part of the probe's power.
WINDOW_POWER = 0.95
# Frames searched at a time.
BATCH = 32
# Steps of the reconstruction in an epoch, at least: few frames are taken in smaller batches.
STEPS = 4
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


# Known from earlier work on the tungsten scan, taken over as it was.
SCHEDULE = (
    Step(epochs=4, radius=1.0),
    Step(epochs=4, radius=1.0),
    Step(epochs=10, radius=1.0, gradient=10),
    Step(epochs=14, radius=1.0, gradient=15),
    Step(epochs=14, radius=0.7, gradient=15),
    Step(epochs=14, radius=0.42, gradient=15),
    Step(epochs=20, gradient=10),
    Step(epochs=20, gradient=4),
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
    `nominal_positions`, if nothing was there yet.

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
    device: str = "cpu",
    seed: int = 0,
    schedule: tuple[Step, ...] = SCHEDULE,
    on_round: Callable[[Round], Any] = lambda round: None,
) -> Refined:
    """Find the positions of a scan's frames, up to a common offset.

    reach: object pixels by which a position may be wrong along each axis; a sixth of the frame by default. The mean of
    all positions stays where it was.
    probe_modes, device, seed: as for `label`; the probe starts as it does there, in every round.
    schedule: the rounds. on_round: called after each.

    Needs overlap: what a frame shows must be known from others. Raises InputError for a reach that is not within a
    pixel and half a frame, PtychoWError where frames are hardly explained better than by an empty object, and what
    `label` raises.
    """
    began = time.perf_counter()
    size = scan.frame_shape[0]
    reach = size * REACH if reach is None else reach
    if not 1 <= reach <= size / 2:
        raise InputError("not a reach", field="reach", found=reach, expected=f"1 to {size // 2} object pixels")
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
        self.reach, self.device = reach, device
        self.probe, _ = starting_probe(scan, modes, self.data.mean_pattern, self.data.good)
        self.given = self.scan.positions_px
        self.positions = self.given.copy()
        self.errors = np.zeros(len(self.scan))
        self.seed = seed
        self.damping = 1.0
        self.rounds: list[Round] = []

    def run(self, step: Step) -> Round:
        """Reconstruct, search, take the affine part out."""
        made = self._reconstruct(step)
        radius = round(step.radius * self.reach)
        best, self.errors = ShiftSearch(self.data, made.object, made.probe)(made.positions, radius)
        moved = (best if radius else made.positions) - self.given
        sound = ~outliers(self.errors)
        terms = np.column_stack([np.ones(len(self.given)), self.given - self.given.mean(axis=0)])
        moved -= terms @ np.linalg.lstsq(terms[sound], moved[sound], rcond=None)[0]
        # Beyond the reach nothing is believed: a point with nothing to hold on to would wander off.
        before, self.positions = self.positions, self.given + np.clip(moved, -self.reach, self.reach)
        distance = float(np.median(np.hypot(*(self.positions - before).T)))
        self.rounds.append(Round(len(self.rounds) + 1, float(np.median(self.errors)), distance))
        return self.rounds[-1]

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
        scan = replace(self.scan, positions=positions, nominal_positions=nominal, raster=None)
        return Refined(scan, moved, tuple(self.rounds), outliers(self.errors), seconds)


class ShiftSearch:
    """Where on an object a frame fits best, by the amplitudes that object and probe predict at every whole pixel.

    Where a window of half the frame holds the probe, every second detector pixel is enough: it is what the window's
    transform gives.
    """

    def __init__(self, data: Measurement, image: ObjectImage, probe: NDArray[np.complex64]) -> None:
        import torch

        self.data, self.origin = data, np.asarray(image.origin)
        self.size = probe.shape[-1]
        half = self.size // 4
        middle = probe[:, half : half + self.size // 2, half : half + self.size // 2]
        fits = np.linalg.norm(middle) ** 2 >= WINDOW_POWER * np.linalg.norm(probe) ** 2
        self.stride, self.inset = 1, 0
        if fits and self.size % 4 == 0:
            self.stride, self.inset = 2, half
        window = self.size // self.stride
        inner = slice(self.inset, self.inset + window)
        self.probe = torch.from_numpy(np.ascontiguousarray(probe[:, inner, inner])) / self.size
        self.windows = torch.from_numpy(image.image).unfold(0, window, 1).unfold(1, window, 1)
        self.good = torch.from_numpy(data.good[:: self.stride, :: self.stride].astype(np.float32))

    def __call__(
        self, positions_px: NDArray[np.float64], radius: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Best places (N, 2) of all frames within `radius` pixels of their positions, and relative amplitude errors.

        Steps of up to a seventh of the radius; between them the minimum of a parabola along each axis.
        """
        step = max(1, round(radius / 7))
        shifts = np.arange(-(radius // step), radius // step + 1) * step
        nearest = np.rint(positions_px)
        errors = np.concatenate(
            [self._errors(slice(k, k + BATCH), nearest[k : k + BATCH], shifts) for k in range(0, len(nearest), BATCH)]
        )
        return nearest + step * (minimum(errors) - len(shifts) // 2), np.sqrt(errors.min(axis=(1, 2)))

    def _errors(self, frames: slice, places: NDArray[np.float64], shifts: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n, k, k) squared relative amplitude error of frames at whole-pixel places plus shifts along both axes."""
        import torch

        counts = self.data.frames[frames][:, :: self.stride, :: self.stride]
        measured = torch.from_numpy(np.sqrt(counts)) * self.good
        first = torch.from_numpy((corners(places, self.size) - self.origin).astype(np.int64) + self.inset)
        last = torch.tensor(self.windows.shape[:2]) - 1
        found = np.empty((len(places), len(shifts), len(shifts)))
        for i, down in enumerate(shifts):
            for j, right in enumerate(shifts):
                row, column = (first + torch.tensor([down, right])).clamp(torch.zeros_like(last), last).T
                predicted = self._amplitudes(self.windows[row, column])
                found[:, i, j] = ((predicted * self.good - measured) ** 2).sum(dim=(1, 2)).numpy()
        power = (measured**2).sum(dim=(1, 2)).clamp(min=1e-12).numpy()
        return found / power[:, None, None]

    def _amplitudes(self, patches: torch.Tensor) -> torch.Tensor:
        """Predicted root counts (n, w, w), zero frequency at [0, 0]."""
        import torch

        fields = [torch.fft.fft2(patches * mode) for mode in self.probe]
        return torch.stack([field.real**2 + field.imag**2 for field in fields]).sum(dim=0).sqrt()


def minimum(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Index (n, 2), with fractions, of the minimum of each (k, k) map: parabolas through the smallest value."""
    count, width = errors.shape[0], errors.shape[1]
    smallest = np.stack(np.unravel_index(errors.reshape(count, -1).argmin(axis=1), errors.shape[1:]), axis=1)
    found = smallest.astype(np.float64)
    every = np.arange(count)
    for axis in (0, 1):
        if width < 3:
            break
        inside = (smallest[:, axis] > 0) & (smallest[:, axis] < width - 1)
        centre = smallest.copy()
        centre[:, axis] = np.clip(centre[:, axis], 1, width - 2)
        step = np.eye(2, dtype=int)[axis]
        before, here, after = (errors[every, *(centre + offset * step).T] for offset in (-1, 0, 1))
        curvature = before - 2 * here + after
        inside &= curvature > 0
        found[inside, axis] += (0.5 * (before - after) / np.where(inside, curvature, 1))[inside]
    return found


def overshoots(errors: Sequence[float]) -> bool:
    """Whether the error of the last epoch is well above an earlier one."""
    return errors[-1] > OVERSHOOT * min(errors)


def outliers(errors: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which errors (N,) lie `OUTLIER` deviations above the median, the deviation being that of most of them."""
    median = np.median(errors)
    return np.asarray(errors > median + OUTLIER * 1.4826 * np.median(np.abs(errors - median)))
