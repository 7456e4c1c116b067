"""One training of the paper benchmark: train, evaluate on both blocks, write its JSON."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common import machine
from paper_data import Source, preparation_for, shuffled
from paper_networks import LEARNERS
from paper_plan import VALIDATION, Scale, Training
from paper_results import HEADLINE
from paper_statistics import block_sums
from ptychow.devices import has_bfloat16
from ptychow.engines.torch_engine import TorchEngine
from ptychow.evaluation import Evaluation, evaluate
from ptychow.files import atomic_path, write_json
from ptychow.metrics import align, grid_map, image_metrics, phase_metrics
from ptychow.model import Model
from ptychow.networks import build
from ptychow.networks.count import count
from ptychow.scan import Scan
from ptychow.stitch import central_crop
from ptychow.training import History, train
from ptychow.training.checkpoint import load_checkpoint
from ptychow.training.data import LabelledFrames
from ptychow.training.distillation import taught_by

STATISTICS = 32  # batches that batch norms' statistics are taken anew of
BLOCK = 10  # scan points along a side of the bootstrap's blocks: 30 pixels, five times the beam
# Of a milestone: the headline, and what Table 3 has.
MILESTONE_NUMBERS = ("grid_phase_unexplained_variance", "notebook_phase_mse", "grid_phase_ssim_2pi")
MILESTONES = (1 / 6, 1 / 3, 1 / 2, 2 / 3)
POINTS = ("P1", "P2", "P3", "P4")


class OutOfTimeError(Exception):
    """The time given is over. The training's state is kept, and it goes on from there next time."""


def run(
    training: Training, scale: Scale, source: Source, result: Path, cache: Path, deadline: float = float("inf")
) -> None:
    """Train what is left of it, evaluate, and write `result`; Model, checkpoints and predictions go to `cache`.

    deadline: of `time.monotonic`. Raises OutOfTimeError after the epoch in which it passes.
    """
    first, stop = scale.training_lines
    lines = (first if training.lines is None else stop - training.lines, stop)
    scan = source.part(training.seed, lines, scale.columns)
    if training.shuffled:
        scan = shuffled(scan, training.seed)
    if training.teacher:
        scan = taught_by(Model.load(model_path(cache, training.teaching)), scan, "cpu")
    recipe = training.settings(scale, len(scan) - round(VALIDATION * len(scan)))
    kept = {max(1, round(part * recipe.epochs)) for part in MILESTONES} if recipe.schedule == "constant" else set()
    checkpoint = cache / f"{training.name}.checkpoint"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    clock = _Clock()
    # A processor that only imitates bfloat16 would take days.
    precision = training.precision if has_bfloat16("cpu") else "fp32"

    def after_epoch(history: History) -> None:
        if history.epochs in kept:
            shutil.copy(checkpoint, _milestone(checkpoint, history.epochs))
        clock.tick()
        if time.monotonic() > deadline and history.epochs < recipe.epochs:
            raise OutOfTimeError(training.name)

    contender = LEARNERS[training.network]
    trained = train(
        scan,
        contender.network,
        recipe,
        settings=contender.settings,
        preparation=preparation_for(scan, recipe),
        split="random",
        validation=VALIDATION,
        seed=training.seed,
        device="cpu",
        precision=precision,
        checkpoint=checkpoint,
        resume=True,
        on_epoch=after_epoch,
    )
    model = trained.model
    test = source.part(training.seed, scale.test_lines, scale.test_columns)
    steps = model.card.training["steps"]
    facts = {
        "training": asdict(training),
        "data": source.name,
        "scale": asdict(scale),
        "pairs": len(trained.splits[0].train),
        "recipe": model.card.recipe,
        "precision": precision,
        "history": asdict(trained.history),
        "steps": steps,
        "cpu_seconds": clock.seconds_per_tick() * recipe.epochs,
        "cost": _cost(model),
        "milestones": _milestones(model, checkpoint, sorted(kept), test, scale, steps / recipe.epochs),
        "blocks": _blocks(model, test, scale, cache / f"{training.name}.npz"),
        "versions": model.card.versions,
        **machine(),
    }
    model.save(model_path(cache, training))
    facts["statistics_anew"] = _statistics_anew(model, scan, test, scale)
    write_json(result, facts)
    for path in [checkpoint, *(_milestone(checkpoint, epochs) for epochs in kept)]:
        path.unlink(missing_ok=True)


def model_path(cache: Path, training: Training) -> Path:
    """Where the Model of a finished training is kept."""
    return cache / f"{training.name}.safetensors"


class _Clock:
    """Processor seconds of an epoch: what a training takes on a core of its own, however busy the machine is."""

    def __init__(self) -> None:
        self._started, self._ticks = time.process_time(), [0.0]

    def tick(self) -> None:
        self._ticks.append(time.process_time() - self._started)

    def seconds_per_tick(self) -> float:
        """Median; NaN where nothing was left to train."""
        return float(np.median(np.diff(self._ticks))) if len(self._ticks) > 1 else float("nan")


def _milestone(checkpoint: Path, epochs: int) -> Path:
    return checkpoint.with_suffix(f".{epochs}.checkpoint")


def _milestones(
    model: Model, checkpoint: Path, kept: Sequence[int], test: Scan, scale: Scale, steps: float
) -> list[dict[str, float]]:
    """The headline after so many epochs. At a constant rate the beginning of a training is a shorter training."""
    found = []
    for epochs in kept:
        groups, _, _ = load_checkpoint(_milestone(checkpoint, epochs))
        network = build(model.card.network, **model.card.settings)
        network.load_state_dict(groups["best"])
        earlier = Model(model.card, network, model.probe, model.mean_pattern)
        numbers = _evaluate(earlier, test, scale, "leak-free").notebook or {}
        found.append({"steps": steps * epochs, **{name: numbers[name] for name in MILESTONE_NUMBERS}})
    return found


def _evaluate(model: Model, test: Scan, scale: Scale, block: str) -> Evaluation:
    """On the paper's block (all of `test`), or on its lines that share no object pixel with training."""
    columns = scale.test_columns[1] - scale.test_columns[0]
    skipped = 0 if block == "paper" else columns * (scale.leak_free - scale.test_lines[0])
    return evaluate(
        model,
        test,
        indices=np.arange(skipped, len(test)),
        region=f"{block} block",
        stitching="central-crop" if model.probe is None else "probe",
        device="cpu",
    )


def _blocks(model: Model, test: Scan, scale: Scale, pictures: Path) -> dict[str, Any]:
    """All numbers of both blocks; what the pictures need is kept beside the Model."""
    facts: dict[str, Any] = {}
    for block in ("paper", "leak-free"):
        found = _evaluate(model, test, scale, block)
        part = test.select(found.indices)
        labels = _labels(model, part)
        image, truth = _maps(found, labels, model, scale.test_columns[1] - scale.test_columns[0])
        facts[block] = {
            **found.summary(),
            "error_blocks": block_sums(np.angle(image * np.conj(truth)) ** 2, BLOCK).ravel().round(6),
        }
    # Of the leak-free block, the last one.
    chosen = points(truth.shape)
    shots, true_shots = (
        TorchEngine(model, "cpu").predict(model.prepare_for(part).apply(part.frames[chosen])),
        labels[chosen],
    )
    facts["points"] = {
        name: {
            **image_metrics(shot, label),
            "phase_mse_as_predicted": phase_metrics(shot, label)["phase_mse"],
        }
        for name, shot, label in zip(POINTS, shots, true_shots, strict=True)
    }
    with atomic_path(pictures) as temporary, temporary.open("wb") as file:
        shown = {"map": image, "map_truth": truth, "patches": shots, "patches_truth": true_shots}
        np.savez_compressed(file, **{name: value.astype(np.complex64) for name, value in shown.items()})
    return facts


def _maps(
    found: Evaluation, labels: NDArray[np.complex64], model: Model, columns: int
) -> tuple[NDArray[np.complex128], NDArray[np.complex64]]:
    """The headline's map, one constant removed, and its truth."""
    patches = found.reconstruction.patches
    assert patches is not None  # evaluate keeps them
    raster = (-1, columns)
    overlap = complex(np.vdot(patches, central_crop(labels, patches.shape[1])))
    # Patches without absolute phases may lie on the wrap, which averaging raw phases does not bear.
    if model.card.gauge == "constant-free":
        patches = patches * np.complex64(overlap / abs(overlap))
    middle = labels.shape[1] // 2
    truth = labels[:, middle, middle].reshape(raster)
    image = grid_map(patches.reshape(*raster, *patches.shape[1:]))
    return align(image, truth, remove=("constant",)).image, truth


def _statistics_anew(model: Model, scan: Scan, test: Scan, scale: Scale) -> float | None:
    """The headline with the batch norms' statistics averaged over training frames, not running; None without such."""
    norms = [module for module in model.network.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return None
    network = copy.deepcopy(model.network).train()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None  # the mean of all batches
    order = np.random.default_rng(0).permutation(len(scan))[: STATISTICS * scale.batch_size]
    with torch.no_grad():
        for chosen in np.array_split(order, max(1, len(order) // scale.batch_size)):
            patterns = model.prepare_for(scan).apply(scan.frames[np.sort(chosen)])
            network(torch.as_tensor(patterns).reshape(len(chosen), 1, *patterns.shape[-2:]))
    found = _evaluate(Model(model.card, network.eval(), model.probe, model.mean_pattern), test, scale, "leak-free")
    return (found.notebook or {})[HEADLINE]


def _labels(model: Model, scan: Scan) -> NDArray[np.complex64]:
    weight = np.ones((model.patch_size, model.patch_size), np.float32)
    return LabelledFrames(scan, model.prepare_for(scan), weight, constant_free=False).labels(np.arange(len(scan)))


def points(shape: tuple[int, ...]) -> list[int]:
    """P1 to P4 by rule: the middle of each quarter of a block of so many lines and points, as frame numbers."""
    lines, columns = shape
    return [
        row * columns + column for row in (lines // 4, 3 * lines // 4) for column in (columns // 4, 3 * columns // 4)
    ]


def _cost(model: Model) -> dict[str, Any]:
    """Parameters, MACs, Table 5's FLOPs, and processor milliseconds a pattern, forward in batches of 64, one thread.

    bf16 is left out where the processor only imitates it.
    """
    cost = count(model.network, model.patch_size)
    patterns = torch.zeros(64, 1, model.patch_size, model.patch_size).to(memory_format=torch.channels_last)
    times: dict[str, float] = {}
    for precision in ("fp32", "bf16") if has_bfloat16("cpu") else ("fp32",):
        taken = []
        for _ in range(6):
            started = time.process_time()
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                model.network(patterns)
            taken.append(time.process_time() - started)
        times[precision] = 1e3 * min(taken) / len(patterns)
    return {
        "parameters": cost.parameters,
        "macs": cost.macs,
        "table5_flops": cost.table5_flops,
        "milliseconds_a_pattern": times,
    }
