"""Pictures of the paper benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paper_networks import LEARNERS
from paper_plan import Scale, Training, scaling
from paper_results import TABLE, Results, number, size_curve, step_curve
from paper_run import POINTS
from ptychow.figures import AMPLITUDE, PHASE, new_figure, robust_limits, save_figure

Curve = Sequence[tuple[float, Sequence[float]]]  # (x, the values of the seeds there)
MOST_TICKS = 6
CAPTIONS = {
    "stitched": "Figure 7: the stitched leak-free block, seed 0",
    "points": "Figure 2: single shots, seed 0",
    "steps": "Table 3: against steps",
    "sizes": "Figures 3 and 4: against training patterns",
    "scaling": "Scaling: against parameters",
}


def draw(results: Results, scale: Scale, folder: Path, cache: Path) -> list[str]:
    """Draw what can be drawn into `folder`; pictures of which a prediction is not at hand stay. Their Markdown."""
    trainings = [Training(network, recipe) for recipe in ("paper", "ptychow") for network in TABLE]
    predictions = {
        f"{LEARNERS[training.network].title}, {training.recipe}": cache / f"{training.name}.npz"
        for training in trainings
        if results.of(training)
    }
    if predictions and all(path.exists() for path in predictions.values()):
        stitched_figure(folder / "stitched.png", predictions)
        points_figure(folder / "points.png", predictions)
    steps = {LEARNERS[name].title: step_curve(results.seeds(name, "paper")) for name in TABLE}
    sizes = {LEARNERS[name].title: size_curve(results, scale, name) for name in ("ptychonn", "w1")}
    curves = {"steps": (steps, "steps of 64 patterns"), "sizes": (sizes, "training patterns")}
    curves["scaling"] = network_sizes(results), "parameters"
    for name, (curve, along) in curves.items():
        if any(len(points) > 1 for points in curve.values()):
            curves_figure(folder / f"{name}.png", curve, along=along, title=CAPTIONS[name])
    there = [name for name in CAPTIONS if (folder / f"{name}.png").exists()]
    return [f"![{CAPTIONS[name]}]({folder.name}/{name}.png)" for name in there]


def network_sizes(results: Results) -> dict[str, Curve]:
    """(parameters, headline) of the W-Nets of one rule as a curve, of the others as points."""
    named = {"W-Nets of one rule": scaling()}
    named |= {LEARNERS[name].title: [Training(name)] for name in ("ptychonn", "w3", "w2")}
    return {
        title: [(run["cost"]["parameters"], [number(run)]) for t in trainings if (run := results.of(t)) is not None]
        for title, trainings in named.items()
    }


def stitched_figure(path: Path, kept: Mapping[str, Path]) -> None:
    """Figure 7: amplitude and phase of the stitched leak-free block, truth first. kept: title -> predictions (npz)."""
    maps = {title: np.load(file) for title, file in kept.items()}
    images = {"Truth": next(iter(maps.values()))["map_truth"], **{title: found["map"] for title, found in maps.items()}}
    grid(path, {"amplitude": images, "phase": images}, "stitched, one pixel a scan point")


def points_figure(path: Path, kept: Mapping[str, Path]) -> None:
    """Figure 2: single-shot amplitudes and phases at the four points, truth first."""
    patches = {title: np.load(file) for title, file in kept.items()}
    truth = next(iter(patches.values()))["patches_truth"]
    rows = {
        f"{quantity}, {name}": {
            "Truth": truth[point],
            **{title: found["patches"][point] for title, found in patches.items()},
        }
        for quantity in ("amplitude", "phase")
        for point, name in enumerate(POINTS)
    }
    grid(path, rows, "single shots, 64 x 64 pixels of 10 nm")


def grid(path: Path, rows: Mapping[str, Mapping[str, NDArray[Any]]], title: str) -> None:
    """Complex images, a row for each quantity or point, a column for each title; a row shares its limits.

    A row whose name begins with "amplitude" shows that; the others phases, at the first image's mean.
    """
    columns = len(next(iter(rows.values())))
    figure, axes = new_figure(len(rows), columns, panel=(2.1, 2.2), title=title)
    for row, (name, images) in zip(axes, rows.items(), strict=True):
        colours = AMPLITUDE if name.startswith("amplitude") else PHASE
        first = next(iter(images.values()))
        shown = [np.abs(image) if colours == AMPLITUDE else phase_about(image, first) for image in images.values()]
        low, high = robust_limits(shown[0])
        for axis, image, heading in zip(row, shown, images, strict=True):
            axis.imshow(image, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
            axis.set(xticks=[], yticks=[], title=heading if row[0] is axes[0, 0] else "")
        row[0].set_ylabel(f"{name}\n{low:.2f} to {high:.2f}", fontsize="small")
    save_figure(path, figure)


def phase_about(image: NDArray[Any], first: NDArray[Any]) -> NDArray[np.float64]:
    """Phases of an image turned onto the first, about the first's mean direction, so that nothing wraps."""
    return np.angle(image * np.exp(-1j * (np.angle(np.vdot(first, image)) + np.angle(first.sum()))))


def curves_figure(path: Path, curves: Mapping[str, Curve], *, along: str, log: bool = True, title: str = "") -> None:
    """Unexplained variance along something: the mean over the seeds as a line, the seeds as dots."""
    figure, axes = new_figure(1, 1, panel=(6.0, 4.0), title=title)
    plot = axes[0, 0]
    for name, curve in curves.items():
        points = sorted(curve)
        if not points:
            continue
        (line,) = plot.plot([x for x, _ in points], [np.mean(values) for _, values in points], "-", label=name)
        for x, values in points:
            plot.plot([x] * len(values), values, ".", color=line.get_color())
    plot.axhline(1, color="k", linestyle=":", linewidth=1, label="flat")
    plot.set(xlabel=along, ylabel="unexplained phase variance", xscale="log" if log else "linear", yscale="log")
    places = sorted({x for curve in curves.values() for x, _ in curve})
    if len(places) <= MOST_TICKS:  # where something was measured
        plot.set_xticks(places, [f"{x:,.0f}" for x in places])
        plot.set_xticks([], minor=True)
    plot.grid(True, which="both", alpha=0.3)
    plot.legend(fontsize="small")
    save_figure(path, figure)
