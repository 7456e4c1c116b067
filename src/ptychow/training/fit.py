"""The training loop: one explicit loop for one CPU, one GPU or many (accelerate), exactly resumable.

The batches and input jitter of epoch e come from a generator seeded with (seed, e), and the whole state is saved at the
end of every epoch, so that an interrupted training continues to the result of an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn

from ptychow.behind import ahead
from ptychow.devices import choose_device
from ptychow.errors import InputError, PtychoWError
from ptychow.training.checkpoint import AGAIN, clone_state, load_checkpoint, save_checkpoint
from ptychow.training.data import PairSet
from ptychow.training.losses import LOSSES
from ptychow.training.muon import Muon, parameter_groups
from ptychow.training.physics import PhysicsLoss
from ptychow.training.processes import is_first, processes, require_equal_shares
from ptychow.training.recipes import Recipe
from ptychow.training.virtual import DrawnPairs

# Inputs and labels, where there are any, and the jitter factor of each.
_Batch = tuple[tuple[Tensor, Tensor] | None, NDArray[np.float32]]
OnStep = Callable[[int, int, float], None]  # (epoch, step of all, training loss)


@dataclass
class History:
    """What happened, epoch by epoch."""

    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best_epoch: int | None = None

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        return len(self.train_loss)

    def curves(self) -> dict[str, list[float]]:
        """As `ptychow.figures.training_figure` draws them."""
        epochs = [float(epoch) for epoch in range(1, self.epochs + 1)]
        curves = {"epoch": epochs, "train": self.train_loss, "learning_rate": self.learning_rate}
        return curves | ({"validation": self.validation_loss} if self.validation_loss else {})


def steps_per_epoch(pairs: int, recipe: Recipe) -> int:
    """Whole batches in which every measured frame comes once (a scan smaller than one batch makes one); or, where
    nothing is measured, the recipe's number.
    """
    measured = recipe.measured_per_batch
    return max(1, pairs // measured) if measured else recipe.steps_per_epoch


def fit(
    network: nn.Module,
    train: PairSet,
    validation: PairSet,
    weight: NDArray[np.float32],
    recipe: Recipe,
    *,
    zero_input: NDArray[np.float32] | None = None,
    virtual: Sequence[DrawnPairs] = (),
    physics: Sequence[PhysicsLoss] = (),
    seed: int = 0,
    device: str = "auto",
    precision: str = "fp32",
    checkpoint: Path | None = None,
    resume: bool = False,
    identity: dict[str, Any] | None = None,
    on_step: OnStep | None = None,
    on_epoch: Callable[[History], None] | None = None,
) -> History:
    """Train `network` in place; it ends with the recipe's weights ("best" or "last") and in eval mode.

    weight: (n, n) loss weight of mean 1. zero_input: (n, n) network input of a frame without counts (0 by default),
    about which the recipe's jitter scales inputs. virtual: where the recipe's virtual pairs come from, one a scan.
    physics: where its physics term comes from, one a scan.
    device: "auto" takes what accelerate finds, else cpu, cuda, mps, xpu.
    precision: "fp32", or "bf16" for the network's forward pass (loss and weights stay fp32).
    identity: JSON-able facts that must be the same on resuming (network, data, recipe, seed).
    Raises InputError for an empty training set or a checkpoint of another training, PtychoWError when the loss is not
    finite or the run is interrupted (it says how to go on).
    """
    if precision not in ("fp32", "bf16"):
        raise InputError("unknown", field="precision", found=precision, expected="fp32 or bf16")
    if len(train) == 0 and (recipe.measured_per_batch or not (virtual or physics)):
        raise InputError("no frames to train on", field="split", remedy="Take smaller validation and holdout fractions")
    # accelerate's devices are one a process, for good: it is asked only where there are several processes.
    accelerator = Accelerator(cpu=device == "cpu") if processes() > 1 else None
    place = accelerator.device if accelerator and device == "auto" else torch.device(choose_device(device))
    require_equal_shares(recipe.batch_size, "batch_size")
    require_equal_shares(recipe.measured_per_batch, "batch_size less its virtual part")
    network.to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = _optimizer(network, recipe, half=precision == "bf16")
    total_steps = recipe.epochs * steps_per_epoch(len(train), recipe)
    schedule = _schedule(recipe, total_steps)
    history, best = History(), None
    if resume and checkpoint is not None and checkpoint.exists():
        history, best = _resume(checkpoint, network, optimizer, identity)
    wrapped = accelerator.prepare(network) if accelerator else network
    loss_weight = torch.as_tensor(weight, device=place)
    zero = torch.zeros(()) if zero_input is None else torch.as_tensor(zero_input)
    loop = _Loop(wrapped, recipe, optimizer, loss_weight, zero.to(place), place, precision == "bf16", physics)
    share = slice(accelerator.process_index, None, accelerator.num_processes) if accelerator else slice(0, None, 1)
    step = history.epochs * steps_per_epoch(len(train), recipe)
    try:
        for epoch in range(history.epochs, recipe.epochs):
            started, losses = perf_counter(), []
            network.train()
            for batch in ahead(_batches(train, virtual, recipe, seed, epoch, share)):
                rate = schedule(step)
                losses.append(loop.step(batch, rate, np.random.default_rng([seed, epoch, step, share.start])))
                step += 1
                if on_step is not None:
                    on_step(epoch, step, float(losses[-1]))
            mean = torch.stack(losses).mean()
            mean_loss = float(accelerator.reduce(mean, "mean") if accelerator else mean)
            _require_finite(mean_loss, "loss", epoch)
            history.train_loss.append(mean_loss)
            history.learning_rate.append(rate)
            if len(validation):
                history.validation_loss.append(loop.evaluate(network, validation, recipe.batch_size))
                _require_finite(history.validation_loss[-1], "validation loss", epoch)
                if recipe.keep == "best" and history.validation_loss[-1] <= min(history.validation_loss):
                    history.best_epoch, best = epoch, clone_state(network)
            history.seconds.append(perf_counter() - started)
            if checkpoint is not None and is_first():
                groups = {"network": network.state_dict()} | ({"best": best} if best is not None else {})
                save_checkpoint(checkpoint, groups, optimizer.state_dict(), [asdict(history), identity])
            if on_epoch is not None:
                on_epoch(history)
    except KeyboardInterrupt:
        saved = (
            f"; {history.epochs} epochs are in {checkpoint}, --resume goes on" if checkpoint and history.epochs else ""
        )
        raise PtychoWError(f"interrupted after {history.epochs} of {recipe.epochs} epochs{saved}") from None
    if best is not None:
        network.load_state_dict(best)
    network.eval()
    return history


def _require_finite(value: float, name: str, epoch: int) -> None:
    if not math.isfinite(value):
        raise PtychoWError(f"training diverged in epoch {epoch + 1} ({name} {value}); lower --learning-rate")


@dataclass(frozen=True)
class _Loop:
    """A step of the training, and one forward pass to a loss, the same in training and validation."""

    network: nn.Module
    recipe: Recipe
    optimizer: torch.optim.Optimizer
    weight: Tensor
    zero: Tensor
    device: torch.device
    half: bool
    physics: Sequence[PhysicsLoss]

    def step(self, batch: _Batch, rate: float, generator: np.random.Generator) -> Tensor:
        """Move the weights along the batch's gradient; its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.training_loss(batch, generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.recipe.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.gradient_clip)
        self.optimizer.step()
        return loss.detach()

    def training_loss(self, batch: _Batch, generator: np.random.Generator) -> Tensor:
        """The labels' loss of the batch, the physics' of frames drawn at random, or their sum."""
        pairs, factors = batch
        terms = [] if pairs is None else [self.loss(pairs, factors)]
        if self.physics:
            term = self.physics[int(generator.integers(len(self.physics)))]
            terms.append(self.recipe.physics_weight * term(self.network, generator, self.half))
        return torch.stack(terms).sum()

    def loss(self, pair: tuple[Tensor, Tensor], factors: NDArray[np.float32] | None = None) -> Tensor:
        inputs, labels = (part.to(self.device, non_blocking=True) for part in pair)
        if factors is not None:
            scale = torch.as_tensor(factors, device=self.device)[:, None, None, None]
            inputs = self.zero + scale * (inputs - self.zero)
        inputs = inputs.to(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            amplitude, phase = self.network(inputs)
        return LOSSES[self.recipe.loss](amplitude[:, 0].float(), phase[:, 0].float(), labels, self.weight)

    @torch.no_grad()
    def evaluate(self, network: nn.Module, pairs: PairSet, batch_size: int) -> float:
        network.eval()
        total = 0.0
        for start in range(0, len(pairs), batch_size):
            indices = np.arange(start, min(start + batch_size, len(pairs)))
            total += float(self.loss(pairs.batch(indices))) * len(indices)
        return total / len(pairs)


def _batches(
    train: PairSet, virtual: Sequence[DrawnPairs], recipe: Recipe, seed: int, epoch: int, share: slice
) -> Iterator[_Batch]:
    """The pairs of each batch, measured ones in a new order and then virtual ones, and the jitter factor of each input.

    share: the part of every batch that this process takes.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(train))
    measured = recipe.measured_per_batch
    for number in range(steps_per_epoch(len(train), recipe)):
        factors = np.exp(recipe.scale_jitter * generator.standard_normal(recipe.batch_size)).astype(np.float32)[share]
        parts = []
        if measured:
            parts.append(train.batch(order[number * measured : (number + 1) * measured][share]))
        if virtual:
            own = np.random.default_rng([seed, epoch, number, share.start])
            source = virtual[int(own.integers(len(virtual)))]
            parts.append(source.draw(len(factors) - sum(len(inputs) for inputs, _ in parts), own))
        if parts:
            inputs, labels = (torch.cat(part) for part in zip(*parts, strict=True))
            yield (inputs, labels), factors[: len(inputs)]
        else:
            yield None, factors


def _optimizer(network: nn.Module, recipe: Recipe, half: bool) -> torch.optim.Optimizer:
    """Weight decay only on convolution and linear kernels: not on biases, norms and single scales."""
    if recipe.optimizer == "muon":
        return Muon(parameter_groups(network, recipe.weight_decay), recipe.learning_rate, half)
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return kind(groups, lr=recipe.learning_rate)


def _schedule(recipe: Recipe, total_steps: int) -> Callable[[int], float]:
    """Learning rate of each step, a pure function of the step so that resuming needs no state."""
    peak = recipe.learning_rate
    if recipe.schedule == "constant":
        return lambda step: peak
    if recipe.schedule == "cyclic":
        half_cycle = max(1, round(6 * total_steps / recipe.epochs))

        def cyclic(step: int) -> float:
            cycle = math.floor(1 + step / (2 * half_cycle))
            height = max(0.0, 1 - abs(step / half_cycle - 2 * cycle + 1)) / 2 ** (cycle - 1)
            return peak * (0.1 + 0.9 * height)

        return cyclic
    rise = max(1, round(0.2 * total_steps))

    def one_cycle(step: int) -> float:
        if step < rise:
            return peak * (0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * step / rise)))
        progress = (step - rise) / max(1, total_steps - rise)
        return peak * (1e-3 + (1 - 1e-3) * 0.5 * (1 + math.cos(math.pi * progress)))

    return one_cycle


def _resume(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, identity: dict[str, Any] | None
) -> tuple[History, dict[str, Tensor] | None]:
    """Put the saved state into network and optimizer; give the history and the best weights so far."""
    groups, state, (record, saved_identity) = load_checkpoint(path)
    for name, value in (identity or {}).items():
        found = saved_identity.get(name)
        if (_completed(found) if name == "recipe" else found) != value:
            raise InputError(
                "belongs to another training",
                file=path,
                field=name,
                found=found,
                expected=value,
                remedy="Give the same options as before, or train again without --resume",
            )
    network.load_state_dict(groups["network"])
    optimizer.load_state_dict(state)
    return History(**record), groups.get("best")


def interrupted_recipe(checkpoint: Path) -> Recipe:
    """The recipe of an interrupted training. Raises InputError for a file that is no checkpoint."""
    _, _, (_, identity) = load_checkpoint(checkpoint)
    try:
        return Recipe.model_validate((identity or {}).get("recipe"))
    except ValidationError:
        raise InputError("not a training checkpoint", file=checkpoint, field="recipe", remedy=AGAIN) from None


def _completed(recipe: Any) -> Any:
    """A saved recipe with the defaults of fields that recipes have got since then."""
    try:
        return Recipe.model_validate(recipe).model_dump()
    except ValidationError:
        return recipe
