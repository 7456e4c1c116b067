"""Training without labels: one measured scan, its probe, and simulated samples seen through it, to a Model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ptychow._version import __version__
from ptychow.detector_fit import fit_preparation
from ptychow.errors import InputError
from ptychow.model import Model, TrainingData
from ptychow.networks import build
from ptychow.prepared import require_probe_of_frames
from ptychow.scan import Scan
from ptychow.training.data import PairSet
from ptychow.training.fit import History, OnStep, fit, interrupted_recipe
from ptychow.training.recipes import LABEL_FREE, Recipe
from ptychow.training.run import Trained, model_card
from ptychow.training.simulated import SimulatedPairs
from ptychow.trust import calibrate_light

# Steps that tell how long a step takes.
TRIAL_STEPS = 10


def calibrate(
    scan: Scan,
    network: str = "wc",
    recipe: Recipe = LABEL_FREE,
    *,
    instruments: Sequence[NDArray[np.complex64]] = (),
    settings: dict[str, Any] | None = None,
    size: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "fp32",
    checkpoint: Path | None = None,
    resume: bool = False,
    on_step: OnStep | None = None,
    on_epoch: Callable[[History], None] | None = None,
) -> Trained:
    """Fit a network to the instrument of a measured scan, by simulated samples only.

    Of the scan its probe, geometry, bad pixels and count rate are used, and no label: a Model for this scan's sample
    that never saw one.

    instruments: probes (modes, n, n) on the network's pixels, |probe|^2 summing to the counts of a frame, to train for
    instead of the scan's own: a family of instruments. settings: the network's own. size: of the frames, see
    `fit_preparation`. minutes: as many epochs as fit into this time by a short trial, instead of the recipe's; where
    it goes on (`resume`) as many as it began with. The other arguments are those of `fit`.
    Raises InputError for a scan without a probe; see `fit` for the rest.
    """
    if scan.probe is None:
        raise InputError(
            "a network without labels needs the probe, and there is none",
            file=scan.name,
            field="probe",
            remedy="Find it with: ptychow label, or ptychow calibrate --probe-epochs 20",
        )
    if seed < 0:
        raise InputError("negative", field="seed", found=seed, expected="0 or more")
    require_probe_of_frames(scan)
    preparation = fit_preparation(
        scan, size=size, transform=recipe.transform, threshold=recipe.threshold, scale=recipe.scale
    )
    probe = preparation.probe(scan.probe)
    pairs = SimulatedPairs(instruments or [probe], preparation, scan.frame_shape, seed)
    torch.manual_seed(seed)
    net = build(network, amplitude_max=recipe.amplitude_max, **(settings or {}))
    dark = np.zeros((1, *scan.frame_shape), np.uint16)
    run = partial(
        fit,
        train=PairSet([]),
        validation=PairSet([]),
        weight=pairs.weight,
        zero_input=pairs.preparation.apply(dark)[0, 0],
        virtual=[pairs],
        seed=seed,
        device=device,
        precision=precision,
    )
    if minutes is not None and resume and checkpoint is not None and checkpoint.exists():
        recipe = recipe.model_copy(update={"epochs": interrupted_recipe(checkpoint).epochs})
    elif minutes is not None:
        trial = run(deepcopy(net), recipe=recipe.model_copy(update={"epochs": 1, "steps_per_epoch": TRIAL_STEPS}))
        epoch_seconds = trial.seconds[0] / TRIAL_STEPS * recipe.steps_per_epoch
        recipe = recipe.model_copy(update={"epochs": max(1, int(60 * minutes / epoch_seconds))})
    history = run(
        net,
        recipe=recipe,
        checkpoint=checkpoint,
        resume=resume,
        identity={
            "ptychow": __version__,
            "network": network,
            "settings": net.settings,
            "recipe": recipe.model_dump(),
            "seed": seed,
            "precision": precision,
            "instruments": hashlib.sha256(pairs.preparation.model_dump_json().encode()).hexdigest()[:16],
        },
        on_step=on_step,
        on_epoch=on_epoch,
    )
    record = TrainingData(
        name=scan.name,
        fingerprint=scan.fingerprint(),
        frames=len(scan),
        train=[],
        validation=[],
        holdout=[],
        labels="none: simulated samples seen through this scan's probe"
        if not len(instruments)
        else f"none: simulated samples seen through {len(instruments)} instruments like this scan's",
    )
    card, mean_pattern = model_card(
        network,
        net,
        recipe,
        scan,
        pairs.preparation.with_scale_of(scan),
        np.arange(len(scan)),
        history,
        steps=history.epochs * recipe.steps_per_epoch,
        seed=seed,
        precision=precision,
        split="none",
        amplitude_scale=1.0,
        records=[record],
    )
    model = Model(card, net.cpu(), probe, mean_pattern)
    return Trained(calibrate_light(model, scan, {"unlabelled": np.arange(len(scan))}), history, (), ())
