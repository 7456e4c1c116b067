"""How long and how fast to train, on a small simulated scan. Writes docs/results/schedule.{md,json}.

    python benchmarks/schedule.py

The recipe's optimizer, rate, standardised input and virtual points were chosen from trials like these. The
scan is every fifth line and column of a part of `sim-26id-wide`: 240 training frames of 64 x 64 pixels, 15 pixels
apart, and 176 test frames that share no object pixel with them. One seed each: differences of a tenth mean nothing.
Nothing is trained twice.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import CONTENDERS, REFERENCE, machine
from ptychow.evaluation import evaluate
from ptychow.files import write_json
from ptychow.optics.twins import twin
from ptychow.scan import Scan
from ptychow.training import Split, recipe_named, steps_per_epoch, train

RESULTS = Path(__file__).parents[1] / "docs" / "results"
SEED = 100  # of the twin's object; trainings have seed 0
LINES, COLUMNS, STRIDE = 150, 80, 5
TRAINING_LINES, FIRST_TEST_LINE = 15, 20


@dataclass(frozen=True)
class Trial:
    """One training."""

    network: str
    steps: int
    learning_rate: float = 7e-4
    virtual: float = 0.0
    standardise: bool = True
    optimizer: str = "adamw"

    @property
    def name(self) -> str:
        """Of its JSON."""
        plain = "" if self.standardise else "_plain"
        optimizer = "" if self.optimizer == "adamw" else f"_{self.optimizer}"
        return f"{self.network}_{self.steps}_{self.learning_rate:g}_{self.virtual:g}{plain}{optimizer}"


LEARNERS = (REFERENCE, "w1", "w3")
TRIALS = (
    *(Trial(network, 240, rate) for rate in (2e-3, 7e-4, 3e-4) for network in LEARNERS),
    *(Trial(network, 240, standardise=False) for network in LEARNERS),
    *(Trial(network, 1000, virtual=part) for part in (0.0, 0.5) for network in LEARNERS),
    *(Trial(network, 240, rate, optimizer="muon") for rate in (5e-3, 2e-3, 7e-4) for network in LEARNERS),
    *(Trial(network, 1000, 2e-3, virtual=0.5, optimizer="muon") for network in (*LEARNERS, "w3f")),
    *(Trial(network, 3000, 2e-3, virtual=0.5, optimizer="muon") for network in (REFERENCE, "w3f", "w1")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--part", default="0/1", help="k/n: only every n-th trial, from the k-th.")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    first, parts = (int(number) for number in options.part.split("/"))
    folder = RESULTS / "schedule"
    scan = twin("sim-26id-wide", SEED, lines=slice(0, LINES, STRIDE), columns=slice(0, COLUMNS, STRIDE), workers=1)
    for trial in TRIALS[first::parts]:
        if not (folder / f"{trial.name}.json").exists():
            run(scan, trial, folder)
    write_report(folder)


def run(scan: Scan, trial: Trial, folder: Path) -> None:
    """Train, evaluate on the unseen lines, write the JSON."""
    points = len(range(0, COLUMNS, STRIDE))
    line = np.arange(len(scan)) // points
    nothing = np.zeros(0, np.int64)
    split = Split("spatial", np.flatnonzero(line < TRAINING_LINES), nothing, np.flatnonzero(line >= FIRST_TEST_LINE))
    changes = {key: value for key, value in asdict(trial).items() if key not in ("network", "steps")}
    recipe = recipe_named("ptychow", keep="last", **changes)
    epochs = max(1, round(trial.steps / steps_per_epoch(len(split.train), recipe)))
    contender = CONTENDERS[trial.network]
    trained = train(
        scan,
        contender.network,
        recipe.model_copy(update={"epochs": epochs}),
        settings=contender.settings,
        splits=[split],
        device="cpu",
        precision="bf16",
    )
    found = evaluate(trained.model, scan, device="cpu")
    facts = {
        "trial": asdict(trial),
        "training": trained.model.card.training,
        "evaluation": found.summary(),
        **machine(),
    }
    write_json(folder / f"{trial.name}.json", facts)
    print(f"{trial.name}: {found.patches['weighted_phase_unexplained_variance']:.4f}", flush=True)


def write_report(folder: Path) -> None:
    """The page and its JSON."""
    found = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    rows = [found[trial.name] for trial in TRIALS if trial.name in found]
    write_json(RESULTS / "schedule.json", rows)
    (RESULTS / "schedule.md").write_text(page(rows), encoding="utf-8")
    print(f"wrote {RESULTS / 'schedule.md'}")


def page(rows: list[dict[str, Any]]) -> str:
    lines = [
        "# How long and how fast to train",
        "",
        "Made by `python benchmarks/schedule.py` ([source](../../benchmarks/schedule.py)); one JSON a training in",
        "[schedule/](schedule/). A simulated scan (`sim-26id-wide`, seed 100, every fifth line and column): 240",
        "training and 176 test frames of 64 x 64 pixels that share no object pixel. Unexplained phase variance against",
        "the truth, 0 is perfect, a flat patch scores 1. One seed: differences of a tenth mean nothing.",
        "",
        "| network | steps of 8 | optimizer | rate | virtual | input | per patch, weighted | stitched | training, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        trial, evaluation = asdict(Trial(**row["trial"])), row["evaluation"]
        cells = [
            CONTENDERS[trial["network"]].title,
            str(trial["steps"]),
            trial["optimizer"],
            f"{trial['learning_rate']:g}",
            f"{trial['virtual']:g}",
            "standardised" if trial["standardise"] else "root counts / scale",
            f"{evaluation['patches']['weighted_phase_unexplained_variance']:.3f}",
            f"{evaluation['stitched']['phase_unexplained_variance']:.3f}",
            f"{row['training']['seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
