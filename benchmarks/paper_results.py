"""What the finished trainings of the paper benchmark say: their JSONs, and ratios paired by seed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from paper_plan import Scale, Training, at_size
from paper_statistics import Interval, block_bootstrap, t_interval

Run = dict[str, Any]
TABLE = ("ptychonn", "w3", "w1", "w2", "w3f")  # W3-fast is not of the paper
BLOCKS = ("leak-free", "paper")
HEADLINE = "grid_phase_unexplained_variance"
COMPLEX_ERROR = "grid_complex_error"
LEARNT = 0.20  # PtychoNN's unexplained variance up to which a ratio to it means something; in the paper it is 0.17
TARGETS = {"w1": 0.75, "w2": 0.55, "w3": 0.90}

# Xing et al. 2024, Tables 4 and 5: parameters, FLOPs (G), MSE amplitude and phase, PSNR amplitude and phase, SSIM
# amplitude and phase, EVA, inference (ms), training (s).
PUBLISHED: dict[str, tuple[float | None, ...]] = {
    "ptychonn": (1247e3, 154.86, 4.25e-5, 0.0906, 43.721, 58.559, 0.9890, 0.9930, 0.832, 21.437, 1326),
    "w1": (1780e3, 60.77, 3.96e-5, 0.0780, 44.027, 59.211, 0.9897, 0.9941, 0.855, 29.906, 1299),
    "w2": (6656e3, 435.99, 3.89e-5, 0.0590, None, None, None, None, None, 96.704, 5014),
    "w3": (103e3, 10.77, 4.00e-5, 0.0826, 43.981, 58.959, 0.9897, 0.9939, 0.869, 15.823, 897),
}
# The baseline's own runs, from the public notebooks with the same metric: amplitude and phase MSE.
BASELINE_RUNS = {
    "PtychoNN, torch": (4.18e-5, 0.0879),
    "PtychoNN, Keras": (3.91e-5, 0.0881),
    "PtychoNN, TensorFlow 2": (3.94e-5, 0.0852),
    "PtychoNN, 20 epochs, mixed precision": (4.73e-5, 0.0961),
    "Inception variant": (3.84e-5, 0.0972),
    "PtychoNN of 0.3 M, 24 epochs": (5.17e-5, 0.0943),
    "PtychoNN of 0.3 M, another notebook": (None, 0.0783),
    "PtychoNN, ten training lines": (5.15e-5, 0.1027),
}
# Tables 1 and 2: single shots at four points that the paper shows in a figure; amplitude and phase MSE.
PUBLISHED_POINTS = {
    "ptychonn": ((1.014e-4, 9.769e-5, 1.045e-4, 7.311e-5), (0.4118, 0.5274, 0.5580, 0.3093)),
    "w1": ((8.620e-5, 1.234e-4, 6.707e-5, 8.914e-5), (0.2427, 0.3076, 0.2730, 0.2480)),
}


@dataclass(frozen=True)
class Ratio:
    """A network's headline over PtychoNN's, one value a seed. baseline: PtychoNN's own mean."""

    values: tuple[float, ...]
    over_seeds: Interval | None
    over_places: Interval
    baseline: float

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return mean(self.values)

    @property
    def learnt(self) -> bool:
        """Whether PtychoNN had learnt enough for a ratio to it to be quoted."""
        return self.baseline <= LEARNT


@dataclass(frozen=True)
class Results:
    """The finished trainings by name."""

    runs: dict[str, Run]

    @classmethod
    def read(cls, folder: Path) -> Results:
        """Of the JSONs in this folder."""
        return cls({path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))})

    def of(self, training: Training) -> Run | None:
        """None where it is not finished."""
        return self.runs.get(training.name)

    def seeds(self, network: str, recipe: str, lines: int | None = None) -> dict[int, Run]:
        """The plain trainings of a network by their seed."""
        named = {seed: self.of(Training(network, recipe, seed, lines)) for seed in range(100)}
        return {seed: run for seed, run in named.items() if run is not None}

    def ratio(self, network: str, recipe: str, block: str) -> Ratio | None:
        """To PtychoNN of the same recipe, over the seeds that both have; None where there is none."""
        ours, baseline = self.seeds(network, recipe), self.seeds("ptychonn", recipe)
        common = sorted(ours.keys() & baseline.keys())
        if not common or network == "ptychonn":
            return None
        values = [number(ours[seed], block) / number(baseline[seed], block) for seed in common]
        errors = ([found[seed]["blocks"][block]["error_blocks"] for seed in common] for found in (ours, baseline))
        return Ratio(
            tuple(values),
            t_interval(values),
            block_bootstrap(*errors),
            mean(number(baseline[seed], block) for seed in common),
        )


def number(run: Run, block: str = "leak-free", name: str = HEADLINE, of: str = "notebook") -> float:
    """One of the numbers of the headline's map, or `of` another part of the evaluation."""
    return float(run["blocks"][block][of][name])


def is_imitated(run: Run) -> bool:
    """Whether it was made in float32 because the processor only imitates the bfloat16 that was planned."""
    return bool(run.get("precision", run["training"]["precision"]) != run["training"]["precision"])


def timed_alike(runs: dict[int, Run]) -> dict[int, Run]:
    """Those whose times can be compared: made on processors that calculate in bfloat16 themselves."""
    return {seed: run for seed, run in runs.items() if "bf16" in run["cost"]["milliseconds_a_pattern"]}


def average(runs: dict[int, Run], block: str, name: str = HEADLINE) -> float:
    """Of one number over seeds."""
    return mean(number(run, block, name) for run in runs.values())


def step_curve(runs: dict[int, Run], name: str = HEADLINE) -> list[tuple[float, list[float]]]:
    """(steps, one number of every seed on the leak-free block) at the milestones and the end."""
    curve: dict[float, list[float]] = {}
    for run in runs.values():
        for point in run["milestones"]:
            curve.setdefault(point["steps"], []).append(point[name])
        curve.setdefault(run["steps"], []).append(number(run, name=name))
    return sorted(curve.items())


def steps_since_best(run: Run) -> float:
    """Steps that a training went on after its lowest validation loss."""
    losses = run["history"]["validation_loss"]
    return run["steps"] * (1 - (losses.index(min(losses)) + 1) / len(losses))


def size_curve(results: Results, scale: Scale, network: str) -> list[tuple[float, list[float]]]:
    """(training patterns, the seeds' headlines) of the sizes that have been trained."""
    columns = scale.columns[1] - scale.columns[0]
    curve = []
    for lines in scale.sizes:
        training = next(training for training in at_size(scale, lines) if training.network == network)
        runs = results.seeds(network, "paper", training.lines)
        if runs:
            curve.append((lines * columns, [number(run) for run in runs.values()]))
    return curve
