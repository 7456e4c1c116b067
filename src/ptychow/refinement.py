"""The network's picture, finished by physics: a Reconstruction becomes the start of an iterative one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptychow.model import Model
from ptychow.patches import PatchExtractor, few_patches
from ptychow.prepared import prepare_scan
from ptychow.reconstruction import Reconstruction
from ptychow.residual import frame_residuals
from ptychow.scan import ObjectImage, Scan, spread
from ptychow.solver import refine
from ptychow.solver.engine import OnEpoch

TRIED = 64  # frames that the refined object is tried on


def refine_reconstruction(
    found: Reconstruction,
    scan: Scan,
    model: Model,
    *,
    epochs: int | None = None,
    seconds: float | None = None,
    device: str = "auto",
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Reconstruction:
    """Refine what `reconstruct(scan, model)` found, by LSQML on the same prepared frames.

    epochs, seconds: see `solver.iterate`; until a plateau by default. Where the network is of no help the iteration
    starts without it (`solver.refine`), and a warning says so.
    The result has the refined object and probe, on the same pixels, and the network's object beside them. Its light,
    residuals and summary are the network's, but for `refinement` in the summary, with the `object_residual` of the
    refined object.
    """
    counts = as_counts(scan, model)
    refined = refine(
        counts,
        found.image,
        probe=found.probe,
        coverage=found.coverage,
        epochs=epochs,
        seconds=seconds,
        device=device,
        seed=seed,
        on_epoch=on_epoch,
    )
    image = refined.scan.object
    assert image is not None
    canvas = PatchExtractor(image, counts.frame_shape[0]).region(found.image.origin, found.image.image.shape)
    ignored = (
        () if refined.started_warm else (f"the network's object does not explain the frames: {refined.notes[-1]}",)
    )
    return replace(
        found,
        image=ObjectImage(
            canvas.astype(np.complex64), found.image.origin, f"{image.source}, from {found.image.source}"
        ),
        probe=refined.scan.probe,
        network_image=found.image,
        warnings=(*found.warnings, *ignored),
        summary={
            **found.summary,
            "refinement": {
                "epochs": len(refined.errors),
                "errors": refined.errors,
                "seconds": refined.seconds,
                "notes": refined.notes,
                "object_residual": _residual(refined.scan, counts),
            },
        },
    )


def _residual(refined: Scan, counts: Scan) -> float:
    """What the refined object and probe leave unexplained of `TRIED` frames, the median (`frame_residuals`)."""
    assert refined.object is not None and refined.probe is not None
    rows = spread(len(counts), TRIED)
    patches = few_patches(refined.object, refined.positions_px[rows], counts.frame_shape[0])
    measured = np.sqrt(counts.frames[rows]).astype(np.float32)
    return float(np.median(frame_residuals(measured, patches, refined.probe, counts.mask)))


def as_counts(scan: Scan, model: Model) -> Scan:
    """The scan as the Model's network sees it, but in counts, and without labels."""
    return prepare_scan(replace(scan, object=None, label_patches=None), model.prepare_for(scan).as_counts())
