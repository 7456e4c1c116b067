"""What the benchmarks of iterative reconstruction share: the converged reference, and the way to it against time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import ptychi.api.task  # noqa: F401  # takes seconds, which are no method's

from ptychow.datasets import cache_folder, fetch
from ptychow.figures import new_figure, save_figure
from ptychow.formats import read_scan, write_scan
from ptychow.metrics import align
from ptychow.optics.twins import twin
from ptychow.patches import PatchExtractor
from ptychow.scan import ObjectImage, Scan
from ptychow.solver import Progress, illumination, label

REAL_SCANS = ("siemens-star", "tungsten-26id")
TWIN, TWIN_SEED, TWIN_PART = "sim-26id-wide", 300, slice(0, 81, 3)
CONVERGED_EPOCHS = 200
LIT = 0.1  # of the largest summed probe intensity


def unlabelled(name: str) -> Scan:
    """The scan as it was measured, or simulated: without object, with the probe of its file."""
    scan = simulated() if name == TWIN else read_scan(fetch(name))
    return replace(scan, object=None, label_patches=None)


def simulated() -> Scan:
    """The twin with its truth: every third line and column of a quarter of it."""
    return twin(TWIN, TWIN_SEED, lines=TWIN_PART, columns=TWIN_PART, workers=1)


def converged(name: str, epochs: int = CONVERGED_EPOCHS) -> Scan:
    """What distances are measured from: the truth where there is one, else LSQML's object after so many epochs.

    LSQML's is made once and kept in the cache.
    """
    if name == TWIN:
        return simulated()
    kept = cache_folder() / f"{name}_converged_{epochs}.cxi"
    if not kept.exists():
        write_scan(kept, label(unlabelled(name), epochs=epochs, device="cpu").scan)
    return read_scan(kept)


class Reference:
    """A reference object, and how far an object on the same pixels is from it."""

    def __init__(self, scan: Scan) -> None:
        assert scan.object is not None
        light = illumination(scan)
        self.image, self.lit = scan.object, light > LIT * light.max()
        self.values = scan.object.image[self.lit].astype(np.complex128)

    def distance(self, image: ObjectImage, *, level: bool = False) -> float:
        """1 - |correlation| of the complex values where light fell: one constant factor does not count.

        level: nor does a phase ramp, which object and probe can exchange unseen.
        """
        placed = PatchExtractor(image, 1).region(self.image.origin, self.lit.shape)
        if level:
            placed = align(placed, self.image.image, weight=self.lit, remove=("constant", "ramp")).image
        values = placed[self.lit]
        norms = np.linalg.norm(values) * np.linalg.norm(self.values)
        return 1 - float(abs(np.vdot(values, self.values)) / norms)


@dataclass
class Way:
    """The way of an iteration, an epoch at a time; give it as `on_epoch`.

    Times count from its making, without its own: `cpu` of this process (on one thread, what an idle core would take),
    and `wall`. distance: from the reference. error: of the data.
    """

    reference: Reference
    epochs: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def record(self, image: ObjectImage, error: float | None = None) -> None:
        """Where the object is now."""
        cpu, wall = time.process_time(), time.perf_counter()
        row = {"cpu": cpu - self._cpu, "wall": wall - self._wall, "distance": self.reference.distance(image)}
        self.epochs.append(row if error is None else {**row, "error": error})
        self._cpu += time.process_time() - cpu
        self._wall += time.perf_counter() - wall

    def __call__(self, progress: Progress) -> None:
        """After an epoch."""
        self.record(progress.estimate().object, progress.errors[-1])


def ways_figure(path: Path, ways: Mapping[str, Sequence[Mapping[str, float]]], title: str) -> None:
    """Distance from the reference against seconds, both logarithmic, one line a way."""
    figure, axes = new_figure(1, 1, panel=(6.4, 4.6), title=title)
    plot = axes[0, 0]
    for name, epochs in ways.items():
        plot.plot([row["cpu"] for row in epochs], [row["distance"] for row in epochs], ".-", linewidth=1, label=name)
    plot.set(xscale="log", yscale="log", xlabel="seconds on one thread", ylabel="1 - correlation with the reference")
    plot.grid(True, which="both", alpha=0.3)
    plot.legend()
    save_figure(path, figure)
