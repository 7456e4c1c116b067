"""The light: does what arrives look like what the Model knows, and if not, what is it that differs?

Four things are watched: how much of a frame its patch leaves unexplained (`frame_residuals`), how much overlapping
patches disagree (`Canvas.disagreement`), the counts per frame, and the mean pattern. The first two tell that something
is wrong; the others tell what. A frame from a turned detector can be explained by a turned patch, all the better the
rounder the beam: only its neighbours contradict it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychow.detector import Preparation
from ptychow.likeness import SEVERITY, Light, Moved, judge_counts, judge_evenness, judge_pattern, uneven_part
from ptychow.model import Model, ModelCard
from ptychow.orientation import Orientation
from ptychow.patches import few_patches
from ptychow.residual import Reference, flat_residuals, frame_residuals
from ptychow.scan import ObjectImage, Scan
from ptychow.stitch import Canvas, probe_weight

# The light speaks of the median of so many latest frames, and of a mean pattern over about as many.
WINDOW = 64
# Disagreement differs from window to window: from fewer than these its usual size cannot be told.
FEWEST_WINDOWS = 4
# Known frames whose residuals are measured.
KNOWN_FRAMES = 512
# To this part must turned patches disagree of what they do as they are, before orientation is blamed.
TURNED_AGREES = 0.75


@dataclass(frozen=True)
class Evidence:
    """What was seen of some frames.

    residual: their median. disagreement: of their patches, None where it was not measured.
    counts_ratio: their mean counts over the training's, None where those are unknown.
    match: of their mean pattern with the Model's in each orientation, see `Model.match_pattern`.
    moved: how far it lies from the Model's, None where that was not looked for.
    uneven: part of them whose counts are far from their median, see `likeness.uneven_part`.
    turn: what makes patches that disagree agree, see `turn_that_fits`; None where nothing does.
    """

    residual: float
    counts_ratio: float | None
    match: Mapping[Orientation, float]
    disagreement: float | None = None
    turn: Orientation | None = None
    uneven: float = 0.0
    moved: Moved | None = None


@dataclass(frozen=True)
class Verdict:
    """light: "green" (as in training), "amber", "red", or "unknown". reasons: what differs, in words, worst first."""

    light: Light
    reasons: tuple[str, ...]


def judge(card: ModelCard, evidence: Evidence) -> Verdict:
    """What the evidence says of a Model's use. The light is unknown where the Model was never calibrated."""
    found = [
        judge_counts(card, evidence.counts_ratio),
        judge_evenness(evidence.uneven),
        judge_pattern(evidence.match, evidence.moved),
    ]
    if card.residual is None:
        found.append(("unknown", "residuals of known frames were never measured for this Model"))
    else:
        found.append(judge_residual(card.residual, evidence.residual))
    explained = any(light in ("amber", "red") for light, _ in found)
    if card.disagreement is not None and evidence.disagreement is not None:
        light, words = judge_disagreement(card.disagreement, evidence.disagreement)
        if words and evidence.turn is not None:
            words = f"orientation: patches agree with their neighbours when turned by {evidence.turn}; {words}"
        elif words and not explained:
            words += (
                "; each frame is explained: think of positions (unit, --pixel-size-nm, axes: ptychow orient), the "
                "probe's phase, or the sample"
            )
        found.append((light, words))
    found.sort(key=lambda each: -SEVERITY.index(each[0]))
    return Verdict(found[0][0], tuple(words for _, words in found if words))


def judge_residual(reference: Reference, residual: float) -> tuple[Light, str]:
    """The light for a median residual, and what it says, in words (nothing where it is green)."""
    if not reference.is_learnt:
        words = "the Model explains the frames it knows no better than an empty object does"
        return "red", f"residual: {words} ({reference.median:.3f} against {reference.flat:.3f})"
    return _judge(reference, residual, "residual: {:.3f} of the diffraction is not explained by the patches")


def judge_disagreement(reference: Reference, disagreement: float) -> tuple[Light, str]:
    """The light for a disagreement, and what it says, in words (nothing where it is green)."""
    return _judge(reference, disagreement, "disagreement: {:.3f} of the patches is not shared by their neighbours")


def _judge(reference: Reference, value: float, words: str) -> tuple[Light, str]:
    if not value > reference.amber:
        return "green", ""
    light: Light = "red" if value > reference.red else "amber"
    return light, f"{words.format(value)} ({reference.median:.3f} in known frames, doubtful from {reference.amber:.3f})"


class Watch:
    """Follows prepared frames and their patches. preparation: as used. frame_shape: (H, W) of the stored frames.
    memory: how many of the latest frames residual, counts and mean pattern speak of.
    """

    def __init__(
        self, model: Model, preparation: Preparation, frame_shape: tuple[int, int], memory: int = WINDOW
    ) -> None:
        self.model, self.preparation, self.memory = model, preparation, memory
        self._good = preparation.output_mask(frame_shape)
        self._nothing = preparation.apply(np.zeros((1, *frame_shape), np.uint16))
        self._residuals: deque[float] = deque(maxlen=memory)
        self._counts: deque[float] = deque(maxlen=memory)
        self._pattern = np.zeros(model.mean_pattern.shape)
        self._placed: deque[tuple[NDArray[np.complexfloating], NDArray[np.float64]]] = deque()

    def lit(self, inputs: NDArray[np.float32]) -> NDArray[np.bool_]:
        """(b,) which of the network inputs (b, 1, n, n) are of frames that hold counts: only these are to be seen."""
        return (inputs != self._nothing).any(axis=(1, 2, 3))

    def see(self, inputs: NDArray[np.float32], patches: NDArray[np.complexfloating]) -> NDArray[np.float32]:
        """Residuals (b,) of network inputs (b, 1, n, n) that gave patches (b, n, n); NaN without a probe."""
        measured = self.preparation.root_counts(inputs)
        residuals = np.full(len(patches), np.nan, np.float32)
        if self.model.probe is not None:
            residuals = frame_residuals(measured, patches, self.model.probe, self._good)
        self._residuals.extend(residuals.tolist())
        self._counts.extend(np.einsum("bij,bij->b", measured, measured, dtype=np.float64).tolist())
        # The Model's mean pattern is one of inputs, which are roots or counts.
        patterns = measured if self.preparation.transform == "sqrt" else np.square(measured)
        self._pattern = self._pattern * (1 - 1 / self.memory) ** len(patterns) + patterns.sum(axis=0) / self.memory
        return residuals

    def place(self, patches: NDArray[np.complexfloating], positions_px: NDArray[np.float64]) -> None:
        """Note where patches (b, n, n) lie (b, 2): the latest `WINDOW` are compared with each other. Cropped ones are
        not: what is usual is known of whole ones.
        """
        if self.model.probe is None or patches.shape[1:] != self.model.probe.shape[1:]:
            return
        self._placed.append((patches, positions_px))
        while sum(len(part) for part, _ in self._placed) - len(self._placed[0][0]) >= WINDOW:
            self._placed.popleft()

    def forget_places(self) -> None:
        """Where the patches were found to lie was wrong."""
        self._placed.clear()

    def disagreement(self) -> float | None:
        """Of the latest `WINDOW` patches; None before there are as many."""
        latest = self._latest_placed()
        return None if latest is None else patch_disagreement(self.model, *latest)

    def _latest_placed(self) -> tuple[NDArray[np.complexfloating], NDArray[np.float64]] | None:
        if sum(len(part) for part, _ in self._placed) < WINDOW:
            return None
        patches, positions = zip(*self._placed, strict=True)
        return np.concatenate(patches)[-WINDOW:], np.concatenate(positions)[-WINDOW:]

    def evidence(self) -> Evidence:
        """Of the latest frames; at least one must have been seen."""
        card, latest, disagreement, turn = self.model.card, self._latest_placed(), None, None
        if card.disagreement is not None and latest is not None:
            disagreement = patch_disagreement(self.model, *latest)
            turn = turn_that_fits(self.model, *latest) if disagreement > card.disagreement.amber else None
        known = card.counts_per_frame
        ratio = None if known is None else float(np.mean(list(self._counts))) / known
        match = self.model.match_pattern(self._pattern)
        uneven = uneven_part(np.array(self._counts))
        moved = Moved.of(self._pattern, self.model.mean_pattern)
        return Evidence(float(np.median(list(self._residuals))), ratio, match, disagreement, turn, uneven, moved)

    def verdict(self) -> Verdict:
        """The light of the latest frames; unknown before the first."""
        return judge(self.model.card, self.evidence()) if self._counts else Verdict("unknown", ())


def patch_disagreement(model: Model, patches: NDArray[np.complexfloating], positions_px: NDArray[np.float64]) -> float:
    """How much overlapping patches (b, n, n) at positions (b, 2) disagree, once brought to one constant where the Model
    leaves it open. The Model must have a probe.
    """
    assert model.probe is not None
    canvas = Canvas(positions_px, probe_weight(model.probe))
    (canvas.add if model.card.gauge == "absolute" else canvas.add_turned_to_fit)(patches, positions_px)
    return canvas.disagreement()


class FrameSample:
    """`WINDOW` frames of a scan, each as likely as any other, to try the finished object on: algorithm R of Vitter, ACM
    Trans. Math. Softw. 11, 37 (1985). indices: which. inputs: (k, 1, n, n) what the network was given of them.
    """

    def __init__(self) -> None:
        self._random, self._seen = np.random.default_rng(0), 0
        self._chosen: list[tuple[int, NDArray[np.float32]]] = []

    def see(self, indices: NDArray[np.int64], inputs: NDArray[np.float32]) -> None:
        """Frames (b,) that pass, and the network's inputs (b, 1, n, n)."""
        for index, one in zip(indices.tolist(), inputs, strict=True):
            self._seen += 1
            place = len(self._chosen) if len(self._chosen) < WINDOW else int(self._random.integers(self._seen))
            if place < WINDOW:
                self._chosen[place : place + 1] = [(index, one.copy())]

    @property
    def indices(self) -> NDArray[np.int64]:
        """(k,) of the frames held."""
        return np.array([index for index, _ in self._chosen], np.int64)

    @property
    def inputs(self) -> NDArray[np.float32]:
        """(k, 1, n, n) of the frames held."""
        return np.array([one for _, one in self._chosen], np.float32)


def object_residual(
    model: Model,
    preparation: Preparation,
    frame_shape: tuple[int, int],
    image: ObjectImage,
    inputs: NDArray[np.float32],
    positions_px: NDArray[np.float64],
) -> float | None:
    """What a stitched object leaves unexplained of some of its frames, the median (`frame_residuals`).

    Other than the residual of patches it rises where neighbours contradict each other, and where the whole object is
    tilted or out of place. frame_shape: of the stored frames. inputs: (k, 1, n, n), prepared. positions_px: (k, 2), in
    pixels of the image, which are the network's. None where there is no frame, or no probe.
    """
    if model.probe is None or not len(positions_px):
        return None
    patches = few_patches(image, positions_px, model.patch_size)
    measured, good = preparation.root_counts(inputs), preparation.output_mask(frame_shape)
    return float(np.median(frame_residuals(measured, patches, model.probe, good)))


def turn_that_fits(
    model: Model, patches: NDArray[np.complexfloating], positions_px: NDArray[np.float64]
) -> Orientation | None:
    """The orientation in which neighbouring patches (b, n, n) at positions (b, 2) agree much better than as they are,
    if they do not agree as known ones do: a turned detector has turned patches. None where there is none.
    """
    reference = model.card.disagreement
    if reference is None or model.probe is None:
        return None
    found = {o: patch_disagreement(model, o.apply_about_zero_frequency(patches), positions_px) for o in Orientation}
    best, here = min(found, key=lambda turn: found[turn]), found[Orientation.IDENTITY]
    return best if here > reference.amber and found[best] < TURNED_AGREES * here else None


def calibrate_light(model: Model, scan: Scan, parts: Mapping[str, NDArray[np.int64]]) -> Model:
    """The Model with what is usual on frames it knows, of one scan it was trained on.

    parts: indices by what they are ("held-out", "validation", "training"); the first that has any is used, up to
    `KNOWN_FRAMES` from its beginning, without those that hold no counts. Disagreement is measured where these are
    neighbours. The Model itself where it has no probe, or nothing is left.
    """
    from ptychow.engines.torch_engine import TorchEngine

    data, indices = next(((name, part) for name, part in parts.items() if len(part)), ("", np.zeros(0, np.int64)))
    if model.probe is None or not len(indices):
        return model
    chosen = np.sort(indices)[:KNOWN_FRAMES]
    preparation, engine = model.prepare_for(scan), TorchEngine(model, "cpu")
    positions = scan.positions_px[chosen] / preparation.pixel_ratio(scan.frame_shape)
    watch, good = Watch(model, preparation, scan.frame_shape), preparation.output_mask(scan.frame_shape)
    residuals, flat, disagreements = np.zeros(0, np.float32), np.zeros(0, np.float32), []
    for start in range(0, len(chosen), WINDOW):
        part = slice(start, start + WINDOW)
        inputs = preparation.apply(scan.frames[chosen[part]])
        lit = watch.lit(inputs)
        if not lit.any():
            continue
        patches = engine.predict(inputs[lit])
        residuals = np.append(residuals, watch.see(inputs[lit], patches))
        flat = np.append(flat, flat_residuals(preparation.root_counts(inputs[lit]), model.probe, good))
        watch.place(patches, positions[part][lit])
        disagreements.append(watch.disagreement())
    if not residuals.size:
        return model
    found = {"residual": Reference.of(residuals, len(residuals), data, float(np.median(flat)))}
    known = np.array([value for value in disagreements if value is not None])
    if len(known) >= FEWEST_WINDOWS and np.median(np.diff(chosen)) == 1:
        found["disagreement"] = Reference.of(known, len(residuals), data)
    return Model(model.card.model_copy(update=found), model.network, model.probe, model.mean_pattern)
