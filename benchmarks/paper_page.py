"""The page of the paper benchmark, from the JSONs of what has been trained; what has not is said to be missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import paper_tables as tables
from paper_claims import claims, reasons
from paper_data import TWIN, Source
from paper_figures import draw
from paper_plan import Scale, Training
from paper_results import BLOCKS, TABLE, Results, is_imitated, number
from ptychow.files import atomic_path, write_json


def write_page(
    output: Path, place: str, source: Source, scale: Scale, wanted: Sequence[Training], folder: Path, cache: Path
) -> Path:
    """Write the page, its JSON and its pictures; give the page. The twin's small run is docs/results/paper.md."""
    results = Results.read(folder)
    name = "paper" if place == f"{TWIN}_small" else f"paper_{place}"
    pictures = output / name
    drawn = draw(results, scale, pictures, cache)
    sections = [
        header(source, scale, name, folder.relative_to(output)),
        claims(results),
        *filter(None, [reasons(results, scale)]),
        tables.headline(results),
        tables.whole_map(results),
        tables.table5(results),
        tables.single_shots(results),
        tables.against_steps(results),
        tables.longer_training(results, scale),
        tables.against_size(results, scale),
        tables.what_makes_the_difference(results),
        tables.size_of_network(results),
        tables.control(results),
        *(["## Pictures", *drawn] if drawn else []),
        progress(results, wanted),
    ]
    page = output / f"{name}.md"
    with atomic_path(page) as temporary:
        temporary.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    write_json(output / f"{name}.json", summary(results))
    return page


def header(source: Source, scale: Scale, name: str, folder: Path) -> str:
    lines, test, columns = scale.training_lines, scale.test_lines, scale.test_columns
    return f"""# The paper's tables and figures

Made by `python benchmarks/paper.py` ([source](../../benchmarks/paper.py)) on {source.title}. Numbers:
[{name}.json]({name}.json), and one JSON a training in [{folder}/]({folder}/). The networks are reconstructions from the
paper's text and Table 5, not the authors' code.

* **Data.** 161 x 161 points, 3 pixels apart, frames of 64 x 64. Lines {lines[0]}-{lines[1] - 1} train, 90 % of their
  frames to learn from and 10 % to validate, at random [stated in the paper, there for lines 0-99].
* **Blocks.** The *paper's block*: lines {test[0]}-{test[1] - 1}, columns {columns[0]}-{columns[1] - 1}; a third of it
  shares object pixels with training labels. The *leak-free block*: lines {scale.leak_free}-{test[1] - 1} of it, which
  share none with training or validation.
* **Length.** Every training takes about {scale.steps} steps of {scale.batch_size} patterns ({scale.epochs} epochs of
  the paper's recipe on all its training lines). The paper: 60 epochs of 226 steps.{pilot(scale)}
* **Recipes.** `paper`: raw counts below 3 set to 0, mean absolute error of amplitude plus phase, every pixel alike,
  absolute phases, Adam at 1e-3, weights of the best validation loss. `ptychow`: root counts, standardised, complex
  error weighted by the probe, constant-free, half of each batch from virtual points, Muon, one cycle up to 2e-3,
  last weights; its batch is {scale.batch_size} here instead of 8.
* **Precision.** Layers in bfloat16 (large depthwise kernels, heads, loss and weights in float32) where the processor
  has it; at the end it says which trainings had to do without. A float32 control is below.
* **Headline.** Unexplained phase variance of the stitched map read at every third pixel, one constant removed: 0 is
  perfect, a flat patch scores 1. The paper's own (notebook) metric does not score perfect patches 0: its floor is
  printed beside it."""


def pilot(scale: Scale) -> str:
    """How the small scale's length was chosen."""
    if scale.name != "small":
        return ""
    return """ The length is the one at which
  PtychoNN (seed 0, paper's recipe) was expected from a pilot of eleven epochs to leave less than 0.20 unexplained; two
  cores allow no more for all trainings. Table 3 says how long validation had stood still at the end."""


def progress(results: Results, wanted: Iterable[Training]) -> str:
    missing = [training.name for training in wanted if training.name not in results.runs]
    hours = sum(run["cpu_seconds"] or 0 for run in results.runs.values()) / 3600
    machines: dict[str, list[str]] = {}
    for name, run in results.runs.items():
        words = f"{run['machine']['cpu']}, {run['machine']['threads']} thread(s) a training"
        if is_imitated(run):
            words += ", all in float32"
        machines.setdefault(words, []).append(name)
    most = max(map(len, machines.values()), default=0)
    where = [
        f"On {words}: {len(names) if len(names) == most else ', '.join(names)}." for words, names in machines.items()
    ]
    return (
        f"## What has been trained\n\n{len(results.runs)} trainings, {hours:.1f} core hours. {' '.join(where)} "
        f"Not trained yet: {len(missing)}" + (f" ({', '.join(missing)})." if missing else ".")
    )


def summary(results: Results) -> dict[str, Any]:
    """What the headline's tables hold."""
    found: dict[str, Any] = {}
    for recipe in ("paper", "ptychow"):
        for network in TABLE:
            runs = results.seeds(network, recipe)
            for block in BLOCKS if runs else ():
                ratio = results.ratio(network, recipe, block)
                found.setdefault(recipe, {}).setdefault(network, {})[block] = {
                    "seeds": list(runs),
                    "unexplained": [number(run, block) for run in runs.values()],
                    "ratios": ratio and ratio.values,
                    "t_interval": ratio and ratio.over_seeds,
                    "bootstrap_interval": ratio and ratio.over_places,
                    "baseline_has_learnt": ratio and ratio.learnt,
                }
    return found
