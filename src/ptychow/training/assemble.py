"""From labelled scans to what a training needs: splits, Preparation, loss weight and pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ptychow.detector import Preparation
from ptychow.detector_fit import fit_preparation, with_detector_of
from ptychow.errors import InputError, about
from ptychow.prepared import require_probe_of_frames
from ptychow.scan import Scan
from ptychow.stitch import probe_weight
from ptychow.training.data import LABEL_AGAIN, LABEL_GAUGE, LabelledFrames, PairSet, wrapped_fraction
from ptychow.training.physics import Mismatch, PhysicsLoss
from ptychow.training.recipes import Recipe
from ptychow.training.split import Indices, Split, split_scan
from ptychow.training.virtual import VirtualPoints
from ptychow.words import counted

# Label patches surveyed at a time.
_SAMPLE = 256


@dataclass(frozen=True)
class TrainingSet:
    """The scans of a training, their splits (one a scan) and what belongs to all of them.

    preparation, probe: the Model's; probe (modes, n, n), of the first scan unless another was given, prepared, or None.
    preparations, probes: for each scan: with its own bad pixels and scale; its own probe, unless one was given for all.
    parts: the pairs of each scan, none where the recipe asks for no labels. weight: (n, n) of mean 1, of the loss.
    warnings: in words.
    """

    scans: tuple[Scan, ...]
    splits: tuple[Split, ...]
    preparation: Preparation
    probe: NDArray[np.complex64] | None
    preparations: tuple[Preparation, ...]
    probes: tuple[NDArray[np.complex64] | None, ...]
    weight: NDArray[np.float32]
    parts: tuple[LabelledFrames, ...]
    warnings: tuple[str, ...]

    @cached_property
    def train(self) -> PairSet:
        """The training pairs."""
        return PairSet(self._chosen([split.train for split in self.splits]))

    @cached_property
    def validation(self) -> PairSet:
        """The validation pairs."""
        return PairSet(self._chosen([split.validation for split in self.splits]))

    def virtual_points(self) -> list[VirtualPoints]:
        """Virtual points of every scan that trains."""
        return [
            VirtualPoints(part, split.train)
            for part, split in zip(self.parts, self.splits, strict=False)
            if len(split.train)
        ]

    def physics(self, kind: Mismatch) -> list[PhysicsLoss]:
        """The physics of every scan that trains, through its probe."""
        return [
            PhysicsLoss(
                scan,
                preparation,
                probe,
                split.train,
                kind=kind,
            )
            for scan, preparation, probe, split in zip(
                self.scans, self.preparations, self.probes, self.splits, strict=True
            )
            if len(split.train)
        ]

    def _chosen(self, indices: Sequence[Indices]) -> list[tuple[LabelledFrames, Indices]]:
        # Without labels there are no parts.
        return list(zip(self.parts, indices, strict=False))


def assemble(
    scans: Sequence[Scan],
    recipe: Recipe,
    *,
    preparation: Preparation | None = None,
    probe: NDArray[np.complex64] | None = None,
    size: int | None = None,
    splits: Sequence[Split] | None = None,
    split: str = "spatial",
    validation: float = 0.1,
    holdout: float = 0.0,
    seed: int = 0,
) -> TrainingSet:
    """Check the scans against each other and the recipe, split them, and fit what is fitted to data.

    probe: (modes, n, n), prepared, instead of the first scan's. A preparation given with statistics keeps them. The
    other arguments are those of `ptychow.training.train`. Raises InputError for what does not fit.
    """
    first = scans[0]
    _require_same_instrument(scans)
    if recipe.loss != "complex":
        _require_absolute_labels(scans)
    if preparation is None:
        preparation = fit_preparation(
            first, size=size, transform=recipe.transform, threshold=recipe.threshold, scale=recipe.scale
        )
    patch_size = preparation.output_size(first.frame_shape)[0]
    reach = patch_size * preparation.pixel_ratio(first.frame_shape)
    if splits is None:
        splits = [
            split_scan(scan.positions_px, reach, split, seed=seed, validation=validation, holdout=holdout)
            for scan in scans
        ]
    elif len(splits) != len(scans):
        raise InputError("not one a scan", field="splits", found=len(splits), expected=len(scans))
    details = [preparation if scan is first else with_detector_of(preparation, scan) for scan in scans]
    splits, warnings = _lit_splits(scans, splits, details)
    if recipe.standardise and preparation.mean_input is None:
        # The training frames' own statistics: what is held out stays unseen.
        preparation = preparation.with_scale_of(first).with_statistics_of(first.select(splits[0].train))
    given = probe
    if given is None:
        for scan in scans:
            require_probe_of_frames(scan)
    if probe is None and first.probe is not None:
        probe = preparation.probe(first.probe)
    weight = _loss_weight(first, recipe, probe, patch_size)
    statistics = {"mean_input": preparation.mean_input, "deviation": preparation.deviation}
    preparations = tuple(
        own.replace(**statistics).with_scale_of(scan) for scan, own in zip(scans, details, strict=True)
    )
    probes = tuple(
        probe if given is not None or scan.probe is None else own.probe(scan.probe)
        for scan, own in zip(scans, preparations, strict=True)
    )
    common = tuple(scans), tuple(splits), preparation, probe, preparations, probes, weight
    if not recipe.measured_per_batch:
        return TrainingSet(*common, parts=(), warnings=tuple(warnings))

    def parts(amplitude_scale: float) -> tuple[LabelledFrames, ...]:
        return tuple(
            LabelledFrames(scan, own, weight, recipe.loss == "complex", amplitude_scale)
            for scan, own in zip(scans, preparations, strict=True)
        )

    of_labels, largest = _survey_labels(parts(1.0), splits, weight)
    amplitude_scale = largest if recipe.amplitude_max == 1 else 1.0
    return TrainingSet(*common, parts=parts(amplitude_scale), warnings=(*warnings, *of_labels))


def _lit_splits(
    scans: Sequence[Scan], splits: Sequence[Split], preparations: Sequence[Preparation]
) -> tuple[list[Split], list[str]]:
    """The splits without frames that hold no counts, and what was left out, in words.

    The shutter was closed or the detector dropped them: they are no measured darkness, whatever their labels say.
    """
    counted_only, warnings = [], []
    for scan, split, preparation in zip(scans, splits, preparations, strict=True):
        counts = preparation.as_counts()
        with about(scan.name):
            lit = np.concatenate([counts.apply(frames).any(axis=(1, 2, 3)) for _, frames in scan.batches()])
        blocks = [np.asarray(block, np.int64) for block in (split.train, split.validation, split.holdout)]
        highest = max((int(block.max()) for block in blocks if len(block)), default=-1)
        if highest >= len(scan):
            raise InputError("no such frame", file=scan.name, field="splits", found=highest, expected=len(scan) - 1)
        blocks = [block[lit[block]] for block in blocks]
        counted_only.append(Split(split.kind, *blocks))
        dark = int(np.count_nonzero(~lit))
        if dark:
            warnings.append(f"{scan.name}: {counted(dark, 'frame')} without counts left out")
    return counted_only, warnings


def _require_absolute_labels(scans: Sequence[Scan]) -> None:
    """Raise InputError where a teacher left open the constant phases that the recipe wants to be learnt."""
    for scan in scans:
        if scan.metadata.get(LABEL_GAUGE) == "constant-free":
            raise InputError(
                "the teacher leaves each patch's constant phase open, and the recipe trains absolute phases",
                file=scan.name,
                field="label_patches",
                remedy="Train with the recipe ptychow, or take a teacher of absolute phases",
            )


def _require_same_instrument(scans: Sequence[Scan]) -> None:
    """Raise InputError unless all frames have one size and, where known, one object pixel."""
    first = scans[0]
    for scan in scans[1:]:
        if scan.frame_shape != first.frame_shape:
            raise InputError(
                "another frame size than the first scan's",
                file=scan.name,
                found=scan.frame_shape,
                expected=first.frame_shape,
            )
        here, there = scan.geometry.pixel_size, first.geometry.pixel_size
        if here is not None and there is not None and abs(here / there - 1) > 0.02:
            raise InputError(
                "another pixel size than the first scan's",
                file=scan.name,
                found=f"{here * 1e9:.4g} nm",
                expected=f"{there * 1e9:.4g} nm",
            )


def _loss_weight(scan: Scan, recipe: Recipe, probe: NDArray[np.complex64] | None, size: int) -> NDArray[np.float32]:
    """(n, n) of mean 1: uniform for the uniform loss, the probe's intensity otherwise."""
    if recipe.loss == "uniform":
        return np.ones((size, size), np.float32)
    if probe is None:
        raise InputError(
            f"the {recipe.name} recipe weights pixels by the probe, and there is none",
            file=scan.name,
            field="probe",
            remedy="Make labels and probe with: ptychow label, or use --recipe paper",
        )
    weight = probe_weight(probe)
    return weight / weight.mean()


def _survey_labels(
    parts: Sequence[LabelledFrames], splits: Sequence[Split], weight: NDArray[np.float32]
) -> tuple[list[str], float]:
    """Warnings about the training labels, and their largest amplitude."""
    largest, wrapped, total = 0.0, 0.0, 0
    for part, split in zip(parts, splits, strict=True):
        for start in range(0, len(split.train), _SAMPLE):
            labels = part.labels(split.train[start : start + _SAMPLE])
            largest = max(largest, float(np.abs(labels).max()))
            wrapped += wrapped_fraction(labels, weight) * len(labels)
            total += len(labels)
    if total and not largest > 0:
        raise InputError("zero wherever the scan goes", file=parts[0].scan.name, field="object", remedy=LABEL_AGAIN)
    warnings = []
    if total and wrapped / total > 1e-3:
        warnings.append(
            f"{100 * wrapped / total:.2g} % of the lit label pixels have phases beyond 0.9 pi, where a phase head "
            "cannot follow the jump to -pi; a network with heads=complex has no such limit"
        )
    return warnings, largest
