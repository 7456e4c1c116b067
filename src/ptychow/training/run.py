"""The whole training: labelled scans to a Model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from copy import deepcopy
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
from ptychow.scan import Scan, spread
from ptychow.training.assemble import TrainingSet, assemble
from ptychow.training.fit import History, OnStep, fit, steps_per_epoch
from ptychow.training.recipes import Recipe, recipe_named
from ptychow.training.split import Indices, Split
from ptychow.trust import calibrate_light, judge_residual


@dataclass(frozen=True)
class Trained:
    """What `train` gives: the Model, the history, the splits (one a scan) and warnings in words."""

    model: Model
    history: History
    splits: tuple[Split, ...]
    warnings: tuple[str, ...]


def train(
    scans: Scan | Sequence[Scan],
    network: str = "w1",
    recipe: str | Recipe = "ptychow",
    *,
    settings: dict[str, Any] | None = None,
    start: Model | None = None,
    preparation: Preparation | None = None,
    size: int | None = None,
    splits: Sequence[Split] | None = None,
    split: str = "spatial",
    validation: float = 0.1,
    holdout: float = 0.0,
    seed: int = 0,
    force: bool = False,
    device: str = "auto",
    precision: str = "fp32",
    checkpoint: Path | None = None,
    resume: bool = False,
    on_step: OnStep | None = None,
    on_epoch: Callable[[History], None] | None = None,
) -> Trained:
    """Train a network on labelled scans of one instrument.

    scans: with `object` or `label_patches` (truth, or labels of `ptychow label`); the "ptychow" recipe needs object and
    probe. Each is prepared with its own bad pixels and scale, and physics takes its own probe, or that of `start`.
    settings: the network's own. start: the Model to go on from, whose network, settings, preparation and probe then
    hold. preparation: otherwise fitted to the first scan, with frames of `size` pixels.
    splits: one a scan; otherwise made by `split_scan`. force: go on where `start` was made for another instrument
    (`Model.check`). checkpoint: where the state is kept after every epoch;
    resume: go on from it. The other arguments are those of `fit`.
    Raises InputError for scans that do not fit each other or the recipe, MismatchError for those that do not fit
    `start`; see `fit` for the rest.
    """
    if seed < 0:
        raise InputError("negative", field="seed", found=seed, expected="0 or more")
    scans = [scans] if isinstance(scans, Scan) else list(scans)
    if not scans:
        raise InputError("no scan to train on", field="scans", expected="one or more")
    recipe = recipe_named(recipe) if isinstance(recipe, str) else recipe
    differences: list[str] = []
    if start is not None:
        differences = [f"{scan.name}: {words}" for scan in scans for words in start.check(scan, force)]
        _require_same_gauge(start, recipe)
        network, preparation = start.card.network, start.prepare_for(scans[0])
    if recipe.physics and recipe.loss != "complex":
        raise InputError("physics goes with the complex loss", field="recipe", found=recipe.name, expected="ptychow")
    if not (recipe.measured_per_batch or recipe.physics):
        raise InputError(
            "nothing to train on", field="recipe", found="virtual 1, no physics", expected="virtual below 1, or physics"
        )
    data = assemble(
        scans,
        recipe,
        preparation=preparation,
        probe=None if start is None else start.probe,
        size=size,
        splits=splits,
        split=split,
        validation=validation,
        holdout=holdout,
        seed=seed,
    )
    torch.manual_seed(seed)
    if start is None:
        net = build(network, amplitude_max=recipe.amplitude_max, **(settings or {}))
    else:
        net = deepcopy(start.network)
    dark = np.zeros((1, *scans[0].frame_shape), np.uint16)
    history = fit(
        net,
        data.train,
        data.validation,
        data.weight,
        recipe,
        virtual=data.virtual_points() if recipe.virtual else (),
        physics=data.physics(recipe.physics) if recipe.physics else (),
        zero_input=data.preparation.apply(dark)[0, 0],
        seed=seed,
        device=device,
        precision=precision,
        checkpoint=checkpoint,
        resume=resume,
        identity=_identity(network, net, recipe, data, seed, precision) | _start_identity(start),
        on_step=on_step,
        on_epoch=on_epoch,
    )
    card, mean_pattern = model_card(
        network,
        net,
        recipe,
        data.scans[0],
        data.preparation,
        data.splits[0].train,
        history,
        steps=history.epochs * steps_per_epoch(len(data.train), recipe),
        seed=seed,
        precision=precision,
        split=data.splits[0].kind,
        amplitude_scale=data.parts[0].amplitude_scale if data.parts else 1.0,
        records=[
            _data_record(scan, split, bool(data.parts)) for scan, split in zip(data.scans, data.splits, strict=True)
        ],
        start=start,
    )
    model = Model(card, net.cpu(), data.probe, mean_pattern)
    first = data.splits[0]
    known = {"held-out": first.holdout, "validation": first.validation, "training": first.train}
    model = calibrate_light(model, data.scans[0], known)
    usual, warnings = model.card.residual, (*differences, *data.warnings)
    if usual is not None and not usual.is_learnt:
        warnings += (judge_residual(usual, usual.median)[1],)
    return Trained(model, history, data.splits, warnings)


def _require_same_gauge(start: Model, recipe: Recipe) -> None:
    """Raise InputError unless the recipe trains what the Model it starts from predicts."""
    expected = "constant-free" if recipe.loss == "complex" else "absolute"
    if start.card.gauge != expected or start.card.amplitude_scale != 1:
        raise InputError(
            "this recipe does not go on from such a Model",
            field="start",
            found=f"{start.card.gauge} phases, amplitudes times {start.card.amplitude_scale:g}",
            expected=f"{expected} phases, amplitudes times 1",
        )


def _identity(
    name: str, net: PatternNetwork, recipe: Recipe, data: TrainingSet, seed: int, precision: str
) -> dict[str, Any]:
    """What must not change between an interrupted training and its continuation."""
    parts = list(zip(data.parts, data.splits, strict=False))  # none without labels
    frames = b"".join(part.tobytes() for split in data.splits for part in (split.train, split.validation))
    return {
        "ptychow": __version__,
        "network": name,
        "settings": net.settings,
        "recipe": recipe.model_dump(),
        "seed": seed,
        "data": [scan.fingerprint() for scan in data.scans],
        "precision": precision,
        "preparation": _digest(data.preparation.model_dump_json(exclude={"notes"}).encode()),
        "probes": [None if probe is None else _digest(probe.tobytes()) for probe in data.probes],
        "weight": _digest(data.weight.tobytes()),
        "labels": [_digest(part.labels(split.train[:8]).tobytes()) for part, split in parts],
        "frames": [len(data.train), len(data.validation)],
        "split": _digest(frames),
    }


def _start_identity(start: Model | None) -> dict[str, Any]:
    """The weights that a training goes on from, where it does."""
    if start is None:
        return {}
    weights = start.network.state_dict().values()
    return {"start": _digest(b"".join(tensor.cpu().float().numpy().tobytes() for tensor in weights))}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def model_card(
    name: str,
    net: PatternNetwork,
    recipe: Recipe,
    scan: Scan,
    preparation: Preparation,
    frames: Indices,
    history: History,
    *,
    steps: int,
    seed: int,
    precision: str,
    split: str,
    amplitude_scale: float,
    records: list[TrainingData],
    start: Model | None = None,
) -> tuple[ModelCard, NDArray[np.float32]]:
    """The contract of a Model for the instrument of `scan`, and the mean pattern of its `frames` that goes with it."""
    counts, mean_pattern = _frame_statistics(scan, frames, preparation)
    validated, best = history.validation_loss, history.best_epoch
    card = ModelCard(
        network=name,
        settings=net.settings,
        preparation=preparation,
        frame_shape=scan.frame_shape,
        geometry=preparation.output_geometry(scan.geometry, scan.frame_shape),
        gauge="constant-free" if recipe.loss == "complex" else "absolute",
        amplitude_scale=amplitude_scale,
        counts_per_frame=counts,
        recipe=recipe.model_dump(),
        training={
            "seed": seed,
            "steps": steps,
            "epochs": history.epochs,
            "best_epoch": best,
            "seconds": sum(history.seconds),
            "precision": precision,
            "threads": torch.get_num_threads(),
            "train_loss": history.train_loss[-1],
            "validation_loss": validated[-1 if best is None else best] if validated else None,
            "split": split,
        }
        | ({} if start is None else {"started_from": start.card.training}),
        data=[*([] if start is None else start.card.data), *records],
        versions=software_versions(),
    )
    return card, mean_pattern


def _frame_statistics(scan: Scan, frames: Indices, preparation: Preparation) -> tuple[float, NDArray[np.float32]]:
    """Mean counts of a prepared frame, and the mean network input before standardisation, of some of the `frames`."""
    chosen = scan.frames[frames[spread(len(frames), CHECKED_FRAMES)]]
    prepared = preparation.with_scale_of(scan).unstandardised()
    return prepared.mean_counts(chosen), prepared.apply(chosen)[:, 0].mean(axis=0)


def _data_record(scan: Scan, split: Split, labelled: bool) -> TrainingData:
    source = "label patches" if scan.object is None else scan.object.source
    return TrainingData(
        name=scan.name,
        fingerprint=scan.fingerprint(),
        frames=len(scan),
        train=split.train.tolist(),
        validation=split.validation.tolist(),
        holdout=split.holdout.tolist(),
        labels=source if labelled else "none: the scan's own diffraction",
    )
