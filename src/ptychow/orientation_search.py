"""How a detector was mounted, found by the forward model: frames that a wrong orientation cannot predict.

A scan is what it should be up to two of the eight symmetries of the square: A, which the frames suffered about zero
frequency, and B, which the positions suffered (their axis order and signs). What can be known of the 64 pairs?

Let frames be I_j = |F[P(x) O(x + r_j)]|^2, and let A P mean P(A^-1 x). Substituting in the transform gives

    A I_j         = |F[(A P)(x)  (A O)(x + A r_j)]|^2          a common turn or mirror of everything
    A I_j about 0 = |F[(A P)*(x) (A O)*(x + A r_j)]|^2         and a conjugate, for I_j(-q) is that of P* and O*

so (A, B) explains the frames perfectly, with some probe and object, whenever B = A, or B = A turned by 180 degrees: 16
of the 64. Without a probe nothing can tell these from each other. As turning by 180 degrees commutes with everything
and the eight symmetries modulo it commute with each other, the 64 fall into four classes of 16, told by what is left
when both are turned back so that the positions are as stored: `CLASSES`, each a symmetry of the frames and the same
turned by 180 degrees. Which class it is, overlapping frames of an object with structure tell.

A probe that is known, P, picks the member: it must be A P, or its conjugate, up to a constant, a shift and a ramp, all
of which the object makes up for. Unless P has a symmetry itself only one of the 64 fits. A round probe leaves the eight
common turns and mirrors open; a real one (a flat wavefront, not defocused) the conjugate.

How well a hypothesis fits is judged on frames it has not seen: some frames are left out of a short reconstruction, and
predicted from it. Frames that do not overlap, or show nothing, are predicted equally badly by all, and nothing is
claimed.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychow.detector_fit import detector_of, preparation_of
from ptychow.errors import InputError
from ptychow.formats import scan_of
from ptychow.orientation import Orientation
from ptychow.patches import PatchExtractor
from ptychow.prepared import prepare_scan
from ptychow.residual import frame_residuals
from ptychow.scan import Scan
from ptychow.solver.engine import iterate
from ptychow.solver.labelling import choose_modes, solver_device
from ptychow.solver.measurement import Measurement, flat_object, measure
from ptychow.starting_probe import power_factor, starting_probe

TURN = Orientation.ROTATE_180
# The four classes that frames alone can tell apart, by what brings the frames upright where positions are as stored.
CLASSES = tuple(
    (first, first.then(TURN))
    for first in (Orientation.IDENTITY, Orientation.ROTATE_90, Orientation.FLIP_ROWS, Orientation.TRANSPOSE)
)

# Neighbouring frames used, and of those near their middle every fourth is not shown to the reconstruction.
FRAMES, INNER, UNSEEN = 64, 48, 4
BATCH = 8
# Rounds of (hypotheses kept, epochs): all are tried briefly, the best of them, and of each class, longer.
TRUSTED_ROUNDS = ((64, 2), (12, 6))
# Without a probe: far fields of the root mean pattern, defocused to these rms radii (parts of a frame).
SPREADS = (0.0, 0.07, 0.14, 0.21)
BLIND_ROUNDS = ((16, 6), (4, 20))
# Another hypothesis is told apart where it leaves this much more unexplained, in this part of the unseen frames ...
MARGIN, SHARE = 0.05, 0.8
# ... and nothing is claimed unless the best explains unseen frames this much better than a flat object does.
SEEN = 0.1


@dataclass(frozen=True)
class Hypothesis:
    """frames, positions: what is done to the stored ones to bring them upright. residual: median over the unseen
    frames of what is left unexplained (`residual.frame_residuals`). flat: the same for an object that is 1 everywhere.
    worse: part of the unseen frames that it explains worse than the best hypothesis does.
    """

    frames: Orientation
    positions: Orientation
    residual: float
    flat: float
    worse: float = 0.0

    @property
    def members(self) -> tuple[Orientation, Orientation]:
        """Its class: of `CLASSES`."""
        return class_of(self.frames, self.positions)


@dataclass(frozen=True)
class Oriented:
    """What `find_orientation` found.

    hypotheses: those tried to the end, best first. alike: those that fit as well as the best, itself among them.
    trusted: whether the scan's probe was taken as known. unseen: frames that judged.
    """

    hypotheses: tuple[Hypothesis, ...]
    alike: tuple[Hypothesis, ...]
    trusted: bool
    unseen: int

    @property
    def best(self) -> Hypothesis:
        """Of those alike, the one that leaves the stored scan most as it is."""
        order = list(Orientation)
        return min(self.alike, key=lambda h: (order.index(h.positions), order.index(h.frames)))

    @property
    def sees_object(self) -> bool:
        """Whether the best explains unseen frames better than a flat object."""
        return self.hypotheses[0].residual < (1 - SEEN) * self.hypotheses[0].flat

    @property
    def knows_class(self) -> bool:
        """Whether all that fit are of one class."""
        return self.sees_object and len({hypothesis.members for hypothesis in self.alike}) == 1

    @property
    def knows_member(self) -> bool:
        """Whether one fits and its class is told from within by a probe."""
        return self.trusted and self.knows_class and len(self.alike) == 1

    @property
    def confidence(self) -> float:
        """Part of the unseen frames that the best explains better than the next best of another class."""
        others = [h.worse for h in self.hypotheses if h.members != self.hypotheses[0].members]
        return min(others, default=1.0)

    @property
    def margin(self) -> float:
        """How much more the next best of another class leaves unexplained (0.5: half as much again)."""
        first = self.hypotheses[0]
        others = [h.residual for h in self.hypotheses if h.members != first.members]
        return min(others, default=np.inf) / first.residual - 1

    def words(self) -> list[str]:
        """For people: the answer, how sure it is, and what is left open; or why there is none."""
        best = self.best
        if not self.sees_object:
            first = self.hypotheses[0]
            why = f"no orientation predicts unseen frames {SEEN:.0%} better than an empty object does"
            hint = "; is the probe that of this scan, or a first guess (--rough-probe)?" if self.trusted else ""
            return [f"{why} ({first.residual:.3f} against {first.flat:.3f} unexplained){hint}"]
        if not self.knows_class:
            names = ", ".join(sorted({" or ".join(h.members) for h in self.alike}))
            return [f"these predict unseen frames alike: {names} (frames, where positions are as stored)"]
        sure = f"{self.confidence:.0%} of the unseen frames say so, the next class leaves {self.margin:.0%} more"
        if self.knows_member:
            return [f"frames: {best.frames}, positions: {best.positions} ({sure})"]
        lines = [f"frames: {' or '.join(best.members)}, where positions are as stored ({sure})"]
        if self.trusted:
            pairs = ", ".join(f"{h.frames} / {h.positions}" for h in self.alike)
            return [*lines, f"the probe looks the same from several sides: frames / positions may be {pairs}"]
        return [*lines, "without a trusted probe the two, and common mirrors of both, cannot be told apart"]

    def summary(self) -> dict[str, Any]:
        """For machines."""
        known = self.knows_class
        return {
            "decided": "member" if self.knows_member else "class" if known else None,
            "frames": self.best.frames if known else None,
            "positions": self.best.positions if known else None,
            "class": self.best.members if known else None,
            "confidence": self.confidence,
            "margin": self.margin if np.isfinite(self.margin) else None,
            "probe_trusted": self.trusted,
            "unseen_frames": self.unseen,
            "alike": [[h.frames, h.positions] for h in self.alike],
            "hypotheses": [asdict(h) for h in self.hypotheses],
        }


def class_of(frames: Orientation, positions: Orientation) -> tuple[Orientation, Orientation]:
    """The class of a pair, of `CLASSES`: what the frames need where the positions are left as they are."""
    relative = frames.then(positions.inverse)
    return next(members for members in CLASSES if relative in members)


def find_orientation(
    scan: Scan | str | os.PathLike[str],
    *,
    trust_probe: bool | None = None,
    positions: Sequence[Orientation] = tuple(Orientation),
    device: str = "auto",
    seed: int = 0,
    on_trial: Callable[[], Any] = lambda: None,
) -> Oriented:
    """Which orientation of frames and positions of a scan, or of that of a file, fits, by what it predicts of frames it
    has not seen.

    trust_probe: take the scan's probe as known in the object's frame; by default where there is one. Otherwise only the
    class can be found; a probe in the file is then where reconstructions start.
    positions: what may have to be done to the positions, where the probe is trusted; only `Orientation.IDENTITY` where
    their axes are known.
    device, seed: as for `label`. on_trial: called after every trial; `number_of_trials` says how often.

    Raises InputError for a probe to trust that is not there, for fewer than 8 frames with counts, and what `label`
    raises.
    """
    scan = scan_of(scan)
    trusted = scan.probe is not None if trust_probe is None else trust_probe
    if trusted and scan.probe is None:
        raise InputError("nothing to trust", file=scan.name, field="probe", remedy="Find the class without one")
    choose_modes(scan, None)
    trials = _Trials(scan.select(central(scan.positions_px, FRAMES)), trusted, solver_device(device), seed)
    candidates: list[_Candidate] = trials.trusted(positions) if trusted else trials.blind()
    for kept, epochs in TRUSTED_ROUNDS if trusted else BLIND_ROUNDS:
        candidates = _survivors(candidates, kept)
        for candidate in candidates:
            trials.run(candidate, epochs)
            on_trial()
        candidates.sort(key=lambda candidate: float(np.median(candidate.residuals)))
    best = candidates[0]
    hypotheses = tuple(candidate.hypothesis(best) for candidate in candidates)
    alike = tuple(h for h in hypotheses if h.residual < (1 + MARGIN) * hypotheses[0].residual or h.worse < SHARE)
    return Oriented(hypotheses, alike, trusted, len(best.residuals))


def number_of_trials(scan: Scan, trusted: bool, positions: int = 8) -> int:
    """Reconstructions that `find_orientation` makes, for so many orientations of the positions."""
    starts = len(SPREADS) if scan.probe is None else 2
    tried = 8 * positions if trusted else len(CLASSES) * starts
    return sum(min(kept, tried) for kept, _ in (TRUSTED_ROUNDS if trusted else BLIND_ROUNDS))


def upright(scan: Scan, frames: Orientation, positions: Orientation) -> Scan:
    """The scan with this done to frames and positions. The probe stays: it lies in the object's frame.

    An object or patches, which lie in that of the stored positions, are kept only where these stay.
    """
    fields, notes = detector_of(scan)
    turned = prepare_scan(
        scan, preparation_of(orientation=frames, transform="raw", scale="none", notes=notes, **fields)
    )
    if positions is Orientation.IDENTITY:
        return turned
    nominal = None if scan.nominal_positions is None else positions.apply_to_positions(scan.nominal_positions)
    moved = positions.apply_to_positions(scan.positions)
    return replace(turned, positions=moved, nominal_positions=nominal, object=None, label_patches=None, raster=None)


def central(positions_px: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Indices of the `count` points nearest to the one in the middle, nearest first."""
    middle = positions_px[np.argmin(_distance(positions_px, positions_px.mean(axis=0)))]
    return np.argsort(_distance(positions_px, middle), kind="stable")[:count]


def _distance(positions_px: NDArray[np.float64], point: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.hypot(*(positions_px - point).T))


@dataclass(eq=False)
class _Candidate:
    """A hypothesis with the probe it starts from; residuals: (n,) of the unseen frames, once it has run."""

    frames: Orientation
    positions: Orientation
    probe: NDArray[np.complex64]
    residuals: NDArray[np.float32] = field(default_factory=lambda: np.ones(1, np.float32))
    flat: float = np.inf

    def hypothesis(self, best: _Candidate) -> Hypothesis:
        worse = float((self.residuals > best.residuals).mean())
        return Hypothesis(self.frames, self.positions, float(np.median(self.residuals)), self.flat, worse)


def _survivors(candidates: list[_Candidate], kept: int) -> list[_Candidate]:
    """The first of each class, which the answer is compared with, and the first of the others, `kept` in all."""
    leaders: dict[tuple[Orientation, Orientation], _Candidate] = {}
    for candidate in candidates:
        leaders.setdefault(class_of(candidate.frames, candidate.positions), candidate)
    others = [candidate for candidate in candidates if candidate not in leaders.values()]
    return [*leaders.values(), *others][:kept]


class _Trials:
    """Short reconstructions of neighbouring frames, nearest to the middle first, some of them unseen."""

    def __init__(self, scan: Scan, trusted: bool, device: str, seed: int) -> None:
        self.fixed, self.device, self.seed = trusted, device, seed
        self.scan, data = measure(scan)
        if len(data) < 8:
            raise InputError("too few that hold counts", file=scan.name, field="frames", found=len(data), expected=8)
        self.data = {orientation: _turned(data, orientation) for orientation in Orientation}
        self.unseen = np.arange(min(len(data), INNER))[1::UNSEEN]
        self.seen = np.setdiff1d(np.arange(len(data)), self.unseen)

    def trusted(self, positions: Sequence[Orientation]) -> list[_Candidate]:
        """All pairs, with the scan's probe."""
        assert self.scan.probe is not None
        data = self.data[Orientation.IDENTITY]
        probe, _ = starting_probe(self.scan, len(self.scan.probe), data.mean_pattern, data.good)
        return [_Candidate(*pair, probe) for pair in itertools.product(Orientation, positions)]

    def blind(self) -> list[_Candidate]:
        """The classes, each from the scan's probe and from its conjugate, the other member's. Without a probe, from
        probes of several spreads: there the sign of the defocus is the other member's.
        """
        found = []
        for frames, _ in CLASSES:
            data = self.data[frames]
            if self.scan.probe is None:
                starts = [defocused(data, spread) for spread in SPREADS]
            else:
                own, _ = starting_probe(self.scan, len(self.scan.probe), data.mean_pattern, data.good)
                starts = [own, own.conj()]
            found += [_Candidate(frames, Orientation.IDENTITY, start) for start in starts]
        return found

    def run(self, candidate: _Candidate, epochs: int) -> None:
        """Reconstruct from the frames seen, and predict the others."""
        data = self.data[candidate.frames]
        size = data.frames.shape[1]
        positions = candidate.positions.apply_to_positions(self.scan.positions_px)
        made = iterate(
            replace(data, frames=data.frames[self.seen]),
            positions[self.seen],
            flat_object(positions, size),
            candidate.probe,
            epochs=epochs,
            batch_size=BATCH,
            free_probe=not self.fixed,
            device=self.device,
            seed=self.seed,
        )
        measured = np.fft.fftshift(np.sqrt(data.frames[self.unseen]), axes=(1, 2))
        good = np.fft.fftshift(data.good)
        patches = PatchExtractor(made.object, size)(positions[self.unseen])
        candidate.residuals = frame_residuals(measured, patches, made.probe, good)
        candidate.flat = float(np.median(frame_residuals(measured, np.ones_like(patches), made.probe, good)))


def defocused(data: Measurement, spread: float) -> NDArray[np.complex64]:
    """A probe (1, n, n) with the root mean pattern as far field, defocused to an rms radius of `spread` * n pixels.

    By geometrical optics: a far field exp(i pi c q^2), q in cycles a pixel, puts the ray of q at c q.
    """
    size = data.frames.shape[1]
    squared = np.add.outer(np.fft.fftfreq(size) ** 2, np.fft.fftfreq(size) ** 2)
    rms = np.sqrt(np.average(squared, weights=data.mean_pattern))
    field = np.sqrt(data.mean_pattern) * np.exp(1j * np.pi * spread * size / rms * squared)
    probe = np.fft.fftshift(np.fft.ifft2(field, norm="ortho"))[None]
    return (probe * power_factor(probe, data.mean_pattern, data.good)).astype(np.complex64)


def _turned(data: Measurement, orientation: Orientation) -> Measurement:
    """The measurement as if its frames had been stored turned."""

    def turn(images: NDArray[Any]) -> NDArray[Any]:
        centred = np.fft.fftshift(images, axes=(-2, -1))
        turned = orientation.apply_about_zero_frequency(centred)
        return np.ascontiguousarray(np.fft.ifftshift(turned, axes=(-2, -1)))

    return replace(data, frames=turn(data.frames), good=turn(data.good))
