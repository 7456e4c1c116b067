"""The whole training: labelled scans to a Model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ptychow._version import __version__
from ptychow.detector import Preparation
from ptychow.errors import InputError
from ptychow.model import CHECKED_FRAMES, Model, ModelCard, TrainingData, software_versions
from ptychow.networks import build
from ptychow.networks.base import PatternNetwork
from ptychow.scan import Scan
from ptychow.training.assemble import TrainingSet, assemble
from ptychow.training.fit import History, OnStep, fit, steps_per_epoch
from ptychow.training.recipes import Recipe, recipe_named
from ptychow.training.split import Split


@dataclass(frozen=True)
class Trained:
    """What `train` gives: the Model, the history, the splits (one a scan) and warnings in words."""

    model: Model
    history: History
    splits: tuple[Split, ...]
    warnings: tuple[str, ...]


def train(
    scans: Scan | Sequence[Scan],
    network: str = "w3",
    recipe: str | Recipe = "ptychow",
    *,
    settings: dict[str, Any] | None = None,
    preparation: Preparation | None = None,
    size: int | None = None,
    splits: Sequence[Split] | None = None,
    split: str = "spatial",
    validation: float = 0.1,
    holdout: float = 0.0,
    seed: int = 0,
    device: str = "auto",
    precision: str = "fp32",
    checkpoint: Path | None = None,
    resume: bool = False,
    on_step: OnStep | None = None,
    on_epoch: Callable[[History], None] | None = None,
) -> Trained:
    """Train a network on labelled scans of one instrument.

    scans: with `object` or `label_patches` (truth, or labels of `ptychow label`); the "ptychow" recipe needs object and
    probe.
    settings: the network's own. preparation: otherwise fitted to the first scan, with frames of `size` pixels.
    splits: one a scan; otherwise made by `split_scan`. checkpoint: where the state is kept after every epoch;
    resume: go on from it. The other arguments are those of `fit`.
    Raises InputError for scans that do not fit each other or the recipe; see `fit` for the rest.
    """
    if seed < 0:
        raise InputError("negative", field="seed", found=seed, expected="0 or more")
    scans = [scans] if isinstance(scans, Scan) else list(scans)
    recipe = recipe_named(recipe) if isinstance(recipe, str) else recipe
    data = assemble(
        scans,
        recipe,
        preparation=preparation,
        size=size,
        splits=splits,
        split=split,
        validation=validation,
        holdout=holdout,
        seed=seed,
    )
    torch.manual_seed(seed)
    net = build(network, amplitude_max=recipe.amplitude_max, **(settings or {}))
    dark = np.zeros((1, *scans[0].frame_shape), np.uint16)
    history = fit(
        net,
        data.train,
        data.validation,
        data.weight,
        recipe,
        virtual=data.virtual_points() if recipe.virtual else (),
        zero_input=data.preparation.apply(dark)[0, 0],
        seed=seed,
        device=device,
        precision=precision,
        checkpoint=checkpoint,
        resume=resume,
        identity=_identity(network, net, recipe, data, seed, precision),
        on_step=on_step,
        on_epoch=on_epoch,
    )
    card, mean_pattern = _card(network, net, recipe, data, history, seed, precision)
    return Trained(Model(card, net.cpu(), data.probe, mean_pattern), history, data.splits, data.warnings)


def _identity(
    name: str, net: PatternNetwork, recipe: Recipe, data: TrainingSet, seed: int, precision: str
) -> dict[str, Any]:
    """What must not change between an interrupted training and its continuation."""
    parts = list(zip(data.parts, data.splits, strict=True))
    frames = b"".join(part.tobytes() for split in data.splits for part in (split.train, split.validation))
    return {
        "ptychow": __version__,
        "network": name,
        "settings": net.settings,
        "recipe": recipe.model_dump(),
        "seed": seed,
        "data": [scan.fingerprint() for scan in data.scans],
        "precision": precision,
        "weight": hashlib.sha256(data.weight.tobytes()).hexdigest()[:16],
        "labels": [hashlib.sha256(part.labels(split.train[:8]).tobytes()).hexdigest()[:16] for part, split in parts],
        "frames": [len(data.train), len(data.validation)],
        "split": hashlib.sha256(frames).hexdigest()[:16],
    }


def _card(
    name: str, net: PatternNetwork, recipe: Recipe, data: TrainingSet, history: History, seed: int, precision: str
) -> tuple[ModelCard, NDArray[np.float32]]:
    """The Model's contract, and the mean pattern that goes with it."""
    first, preparation, best = data.scans[0], data.preparation, history.best_epoch
    counts, mean_pattern = _training_statistics(first, data.splits[0], preparation)
    validated = history.validation_loss
    card = ModelCard(
        network=name,
        settings=net.settings,
        preparation=preparation,
        frame_shape=first.frame_shape,
        geometry=preparation.output_geometry(first.geometry, first.frame_shape),
        gauge="constant-free" if recipe.loss == "complex" else "absolute",
        amplitude_scale=data.parts[0].amplitude_scale,
        counts_per_frame=counts,
        recipe=recipe.model_dump(),
        training={
            "seed": seed,
            "steps": history.epochs * steps_per_epoch(len(data.train), recipe),
            "epochs": history.epochs,
            "best_epoch": best,
            "seconds": sum(history.seconds),
            "precision": precision,
            "threads": torch.get_num_threads(),
            "train_loss": history.train_loss[-1],
            "validation_loss": validated[-1 if best is None else best] if validated else None,
            "split": data.splits[0].kind,
        },
        data=[_data_record(scan, split) for scan, split in zip(data.scans, data.splits, strict=True)],
        versions=software_versions(),
    )
    return card, mean_pattern


def _training_statistics(scan: Scan, split: Split, preparation: Preparation) -> tuple[float, NDArray[np.float32]]:
    """Mean counts of a prepared training frame, and the mean network input before standardisation."""
    chosen = split.train[np.unique(np.linspace(0, len(split.train) - 1, CHECKED_FRAMES).astype(int))]
    frames = scan.frames[chosen]
    prepared = preparation.with_scale_of(scan).unstandardised()
    return prepared.mean_counts(frames), prepared.apply(frames)[:, 0].mean(axis=0)


def _data_record(scan: Scan, split: Split) -> TrainingData:
    return TrainingData(
        name=scan.name,
        fingerprint=scan.fingerprint(),
        frames=len(scan),
        train=split.train.tolist(),
        validation=split.validation.tolist(),
        holdout=split.holdout.tolist(),
        labels=scan.object.source if scan.object is not None else "label patches",
    )
