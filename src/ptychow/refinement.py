"""The network's picture, finished by physics: a Reconstruction becomes the start of an iterative one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ptychow.model import Model
from ptychow.patches import PatchExtractor
from ptychow.prepared import prepare_scan
from ptychow.reconstruction import Reconstruction
from ptychow.scan import ObjectImage, Scan
from ptychow.solver import refine
from ptychow.solver.engine import OnEpoch


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
    The result has the refined object and probe, on the same pixels, and the network's object beside them.
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
            },
        },
    )


def as_counts(scan: Scan, model: Model) -> Scan:
    """The scan as the Model's network sees it, but in counts, and without labels."""
    return prepare_scan(replace(scan, object=None, label_patches=None), model.prepare_for(scan).as_counts())
