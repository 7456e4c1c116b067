"""Training: labelled scans to a Model."""

from __future__ import annotations

import time
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
from ptychow.scan import Scan
from ptychow.stitch import probe_weight
from ptychow.training.data import LABEL_AGAIN, LabelledFrames, PairSet, wrapped_fraction
from ptychow.training.fit import History, OnStep, fit, steps_per_epoch
from ptychow.training.recipes import RECIPES, Recipe, recipe_named
from ptychow.training.split import Split, no_split, random_split, shares_pixels, spatial_split
from ptychow.training.virtual import VirtualPoints

__all__ = [
    "RECIPES",
    "History",
    "Recipe",
    "Split",
    "Trained",
    "no_split",
    "random_split",
    "recipe_named",
    "shares_pixels",
    "spatial_split",
    "split_scan",
    "steps_per_epoch",
    "train",
]

# Label patches looked at for the wrapped-phase warning and the amplitude's maximum, at a time.
_SAMPLE = 256


@dataclass(frozen=True)
class Trained:
    """What `train` gives: the Model, the history, the splits (one a scan) and warnings in words."""

    model: Model
    history: History
    splits: tuple[Split, ...]
    warnings: tuple[str, ...]


def split_scan(
    scan: Scan,
    patch_size: float,
    kind: str = "spatial",
    *,
    seed: int = 0,
    validation: float = 0.1,
    holdout: float = 0.0,
    axis: int | None = None,
) -> Split:
    """Divide a scan's frames.

    kind: "spatial" (blocks with a guard gap of `patch_size` scan pixels), "random" or "none".
    """
    if kind == "spatial":
        return spatial_split(scan.positions_px, patch_size, validation=validation, holdout=holdout, axis=axis)
    if holdout:
        raise InputError("only the spatial split can hold frames out", field="split", found=kind, expected="spatial")
    if kind == "random":
        return random_split(len(scan), seed, validation=validation)
    if kind == "none":
        return no_split(len(scan))
    raise InputError("unknown split", field="split", found=kind, expected="spatial, random or none")


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
    first = scans[0]
    _require_same_instrument(scans)
    if preparation is None:
        preparation = Preparation.fit(
            first, size=size, transform=recipe.transform, threshold=recipe.threshold, scale=recipe.scale
        )
    patch_size = preparation.output_size(first.frame_shape)[0]
    ratio = preparation.pixel_ratio(first.frame_shape)
    probe = None if first.probe is None else preparation.probe(first.probe)
    weight = _loss_weight(first, recipe, probe, patch_size)
    if splits is None:
        splits = [
            split_scan(scan, patch_size * ratio, split, seed=seed, validation=validation, holdout=holdout)
            for scan in scans
        ]
    if recipe.standardise:
        # The training frames' own scale and statistics: what is held out stays unseen.
        preparation = preparation.with_scale_of(first).with_statistics_of(first.select(splits[0].train))
    parts = [
        LabelledFrames(scan, preparation.with_scale_of(scan), weight, constant_free=recipe.loss == "complex")
        for scan in scans
    ]
    warnings, largest = _survey_labels(parts, splits, weight)
    amplitude_scale = 1.0
    if recipe.amplitude_max == 1:
        amplitude_scale = largest
        parts = [
            LabelledFrames(part.scan, part.preparation, weight, part.constant_free, amplitude_scale) for part in parts
        ]
    train_pairs = PairSet([(part, one.train) for part, one in zip(parts, splits, strict=True)])
    validation_pairs = PairSet([(part, one.validation) for part, one in zip(parts, splits, strict=True)])

    virtual = []
    if recipe.virtual:
        virtual = [VirtualPoints(part, one.train) for part, one in zip(parts, splits, strict=True) if len(one.train)]
    torch.manual_seed(seed)
    net = build(network, amplitude_max=recipe.amplitude_max, **(settings or {}))
    identity = {
        "ptychow": __version__,
        "network": network,
        "settings": net.settings,
        "recipe": recipe.model_dump(),
        "seed": seed,
        "data": [scan.fingerprint() for scan in scans],
        "frames": [len(train_pairs), len(validation_pairs)],
    }
    started = time.perf_counter()
    history = fit(
        net,
        train_pairs,
        validation_pairs,
        weight,
        recipe,
        virtual=virtual,
        zero_input=preparation.apply(np.zeros((1, *first.frame_shape), np.uint16))[0, 0],
        seed=seed,
        device=device,
        precision=precision,
        checkpoint=checkpoint,
        resume=resume,
        identity=identity,
        on_step=on_step,
        on_epoch=on_epoch,
    )
    best = history.best_epoch
    counts, mean_pattern = _training_statistics(first, splits[0], preparation)
    card = ModelCard(
        network=network,
        settings=net.settings,
        preparation=preparation,
        frame_shape=first.frame_shape,
        geometry=preparation.output_geometry(first.geometry, first.frame_shape),
        gauge="constant-free" if recipe.loss == "complex" else "absolute",
        amplitude_scale=amplitude_scale,
        counts_per_frame=counts,
        recipe=recipe.model_dump(),
        training={
            "seed": seed,
            "steps": history.epochs * steps_per_epoch(len(train_pairs), recipe),
            "epochs": history.epochs,
            "best_epoch": history.best_epoch,
            "seconds": sum(history.seconds),
            "seconds_with_setup": time.perf_counter() - started,
            "precision": precision,
            "threads": torch.get_num_threads(),
            "train_loss": history.train_loss[-1],
            "validation_loss": None
            if not history.validation_loss
            else history.validation_loss[-1 if best is None else best],
            "split": splits[0].kind,
        },
        data=[_data_record(scan, one) for scan, one in zip(scans, splits, strict=True)],
        versions=software_versions(),
    )
    return Trained(Model(card, net.cpu(), probe, mean_pattern), history, tuple(splits), tuple(warnings))


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
    """(n, n) of mean 1: the probe's intensity for the complex loss, uniform otherwise."""
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


def _training_statistics(scan: Scan, split: Split, preparation: Preparation) -> tuple[float, NDArray[np.float32]]:
    """Mean counts of a training frame, and the mean network input before standardisation."""
    chosen = split.train[np.unique(np.linspace(0, len(split.train) - 1, CHECKED_FRAMES).astype(int))]
    frames = scan.frames[chosen]
    prepared = preparation.with_scale_of(scan).unstandardised().apply(frames)[:, 0]
    return float(frames.sum(axis=(1, 2), dtype=np.float64).mean()), prepared.mean(axis=0)


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
