"""What the benchmark on the two real scans trains: lengths, splits, ways and recipes."""

from __future__ import annotations

from ptychow.scan import Scan
from ptychow.training import Recipe, Split, recipe_named, spatial_split, steps_per_epoch

TEST_FRAMES = {"siemens-star": 83, "tungsten-26id": 74}
GAP = 128  # object pixels: one patch
LABEL_EPOCHS = 40
STEPS = 600
LONGER = 4  # times as many steps, on request
# On request, simulated samples seen through the scan's probe come first; then the rows with labels, at a lower rate.
SIMULATED_EPOCHS, TUNING_RATE = 20, 5e-4
BATCH_SIZE = 8
# Folders of what was trained with the earlier optimizer, for longer, and on simulated samples first.
EARLIER, LONG, PRETRAINED = "adamw", "longer", "pretrained"


def rows_split(scan: Scan, name: str) -> Split:
    """Training rows | gap of one patch | test rows."""
    return spatial_split(scan.positions_px, GAP, validation=0, holdout=TEST_FRAMES[name] / len(scan), axis=0)


def recipe_of(way: str, frames: int) -> Recipe:
    """The recipe of the last part of a training in this way, on so many frames."""
    rate = TUNING_RATE if way == PRETRAINED else None
    recipe = recipe_named("ptychow", batch_size=BATCH_SIZE, learning_rate=rate, keep="last")
    steps = STEPS * (LONGER if way == LONG else 1)
    return recipe.model_copy(update={"epochs": max(1, round(steps / steps_per_epoch(frames, recipe)))})
