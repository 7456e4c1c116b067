"""Evaluate: a Model on a labelled scan, on object pixels it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychow import metrics
from ptychow.errors import InputError
from ptychow.formats import scan_of
from ptychow.model import Model
from ptychow.optics.beam import intensity
from ptychow.patches import PatchExtractor, resample_object
from ptychow.reconstruction import Reconstruction, reconstruct
from ptychow.scan import Scan
from ptychow.stitch import central_crop
from ptychow.stitching import Stitching
from ptychow.training.data import LabelledFrames
from ptychow.training.split import Indices, shares_pixels

# A pixel counts where the summed probe intensity exceeds this fraction of its maximum.
LIT_FRACTION = 0.1


@dataclass(frozen=True)
class Evaluation:
    """Numbers, and the images they were computed on.

    region: in words. indices: the frames of it that hold counts. stitched, patches: name -> number for the Model; flat:
    the same for a flat patch (what knowing nothing scores). notebook: the paper's metric with its floor, on raster
    blocks, else None. reference: what was compared with, "truth" (simulated) or "label". truth: it, (Y, X) complex on
    the reconstruction's grid; aligned: the reconstruction after alignment. lit: the pixels that count.
    """

    region: str
    indices: Indices
    removed: tuple[str, ...]
    stitched: dict[str, float]
    stitched_flat: dict[str, float]
    patches: dict[str, float]
    patches_flat: dict[str, float]
    notebook: dict[str, float] | None
    reconstruction: Reconstruction
    reference: str
    truth: NDArray[np.complex64] | None
    aligned: NDArray[np.complex64] | None
    lit: NDArray[np.bool_] | None

    @property
    def headline(self) -> float:
        """Stitched unexplained phase variance; NaN where labels are patches of no common object."""
        return self.stitched.get("phase_unexplained_variance", float("nan"))

    def summary(self) -> dict[str, Any]:
        """All numbers, JSON-able."""
        return {
            "region": self.region,
            "frames": len(self.indices),
            "reference": self.reference,
            "removed_by_alignment": list(self.removed),
            "stitched": self.stitched,
            "stitched_flat": self.stitched_flat,
            "patches": self.patches,
            "patches_flat": self.patches_flat,
            "notebook": self.notebook,
        }


def unseen_frames(scan: Scan, model: Model) -> Indices:
    """Frames that share no object pixel with a frame the Model was trained on or chosen by (its validation).

    For a scan the Model has never met these are all of them.
    """
    used = [
        np.concatenate([record.train, record.validation]).astype(int)
        for record in model.card.data
        if record.fingerprint == scan.fingerprint()
    ]
    if not used:
        return np.arange(len(scan))
    size = model.patch_size * model.card.preparation.pixel_ratio(scan.frame_shape)
    seen = shares_pixels(scan.positions_px, scan.positions_px[np.concatenate(used)], size)
    return np.flatnonzero(~seen)


def evaluate(
    model: Model | str | Path,
    scan: Scan | str | Path,
    *,
    indices: Indices | NDArray[np.bool_] | Sequence[int] | None = None,
    region: str | None = None,
    remove: tuple[str, ...] | None = None,
    stitching: Stitching = "probe",
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "fp32",
    force: bool = False,
) -> Evaluation:
    """Compare the Model's patches and stitched object with the scan's labels.

    model, scan: themselves, or their files; a Model's name, too.
    indices: the frames, by number or as (N,) bool, described by `region`; by default the unseen ones. remove: what
    alignment takes out of the stitched object, by default the constant for simulated truth, and constant, ramp and
    shift (the ambiguities of an iterative reconstruction) otherwise. Raises InputError where there are no labels or no
    unseen frames.
    """
    scan = scan_of(scan)
    if scan.object is None and scan.label_patches is None:
        raise InputError("has no labels to compare with", file=scan.name, remedy="Make them with: ptychow label")
    model = Model.of(model)
    if indices is None:
        indices = unseen_frames(scan, model)
        known = any(record.fingerprint == scan.fingerprint() for record in model.card.data)
        region = (
            "frames that share no object pixel with training or validation"
            if known
            else "all frames: by its fingerprint the Model has not met this scan"
        )
        if len(indices) == 0:
            raise InputError(
                "every frame shares object pixels with the training",
                file=scan.name,
                remedy="Train with --holdout 0.2, take another scan, or name --region all and mistrust the numbers",
            )
    chosen: Indices = np.arange(len(scan))[np.asarray(indices)]
    part = scan.select(chosen)
    preparation = model.prepare_for(scan)
    labelled = LabelledFrames(part, preparation, _unit_weight(model), constant_free=False)
    labels = labelled.labels(np.arange(len(part)))
    found = reconstruct(
        part,
        model,
        stitching=stitching,
        batch_size=batch_size,
        device=device,
        precision=precision,
        force=force,
        keep_patches=True,
    )
    assert found.patches is not None  # asked for
    # Frames without counts have no patch: nothing is claimed of them, and nothing is scored.
    lit = found.patches.any(axis=(1, 2))
    chosen, patches = chosen[lit], found.patches[lit]
    labels = central_crop(labels[lit], patches.shape[1])
    light = None if model.probe is None else central_crop(intensity(model.probe), patches.shape[1])
    simulated = scan.object is not None and scan.object.source.startswith("simulation")
    if remove is None:
        remove = ("constant",) if simulated else ("constant", "ramp", "shift")
    return Evaluation(
        region=region or "chosen frames",
        indices=chosen,
        removed=remove,
        reference="truth" if simulated else "label",
        patches=metrics.patch_metrics(patches, labels, light),
        patches_flat=metrics.patch_metrics(np.ones_like(labels), labels, light),
        notebook=_notebook(scan, chosen, patches, labels, model),
        reconstruction=found,
        **_stitched(scan, found, labels, remove, preparation.pixel_ratio(scan.frame_shape)),
    )


def _unit_weight(model: Model) -> NDArray[np.float32]:
    return np.ones((model.patch_size, model.patch_size), np.float32)


def _stitched(
    scan: Scan, found: Reconstruction, labels: NDArray[np.complex64], removed: tuple[str, ...], ratio: float
) -> dict[str, Any]:
    """Fields of `Evaluation` about the stitched object; empty where labels are patches of no common object."""
    if scan.object is None:
        return {"stitched": {}, "stitched_flat": {}, "truth": None, "aligned": None, "lit": None}
    image = found.image
    truth = PatchExtractor(resample_object(scan.object, ratio), labels.shape[1]).region(image.origin, image.image.shape)
    lit = (found.coverage > LIT_FRACTION * found.coverage.max()) & (truth != 0)
    weight = lit.astype(np.float64)
    return {
        "stitched": metrics.image_metrics(image.image, truth, weight=weight, remove=removed),
        "stitched_flat": metrics.flat_metrics(truth, weight=weight, remove=removed),
        "truth": truth,
        "aligned": metrics.align(image.image, truth, weight=weight, remove=removed).image.astype(np.complex64),
        "lit": lit,
    }


def _notebook(
    scan: Scan, indices: Indices, predicted: NDArray[np.complex64], labels: NDArray[np.complex64], model: Model
) -> dict[str, float] | None:
    """The paper's metric where the frames are a rectangular block of a regular raster with a whole-pixel step."""
    if scan.raster is None:
        return None
    lines, points = np.unravel_index(indices, scan.raster)
    shape = (int(np.ptp(lines)) + 1, int(np.ptp(points)) + 1)
    if len(indices) != shape[0] * shape[1] or min(shape) < 8:
        return None
    positions = scan.positions_px[indices] / model.card.preparation.pixel_ratio(scan.frame_shape)
    whole = round(float(np.linalg.norm(positions[1] - positions[0])))
    # The notebooks' map wants lines downward and points to the right, no snake and no column first.
    grid = positions[0] + whole * np.indices(shape).reshape(2, -1).T
    if not 1 <= whole <= 12 or np.abs(positions - grid).max() > 0.01:
        return None
    if model.card.gauge == "constant-free":
        # The patches agree with each other; one global constant brings them to the labels' absolute phases.
        overlap = complex(np.vdot(predicted, labels))
        predicted = predicted * np.complex64(overlap / max(abs(overlap), 1e-12))
    block = (*shape, *predicted.shape[1:])
    return metrics.notebook_metric(predicted.reshape(block), labels.reshape(block), step=whole)
