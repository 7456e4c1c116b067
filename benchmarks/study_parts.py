"""The studies' measurements; each gives what its JSON holds. One network (W3), one seed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from paper_data import TWIN, open_source
from paper_plan import SCALES, Scale, Training
from paper_run import model_path, run
from ptychow.datasets import cache_folder
from ptychow.devices import has_bfloat16
from ptychow.errors import MismatchError
from ptychow.evaluation import Evaluation, evaluate
from ptychow.metrics import image_metrics
from ptychow.model import Model
from ptychow.optics.experiment import Experiment
from ptychow.optics.samples import SAMPLES
from ptychow.optics.twins import COUNTS, STEP, twin
from ptychow.patches import PatchExtractor
from ptychow.reconstruction import reconstruct
from ptychow.scan import ObjectImage, Scan
from ptychow.solver import METHODS, Progress, illumination, label
from ptychow.training import recipe_named, steps_per_epoch, train

PATCH = "weighted_phase_unexplained_variance"
STITCHED = "phase_unexplained_variance"
DOSE_FACTORS = (1e-4, 1e-3, 1e-2, 1 / 16, 0.1, 1 / 4, 1.0, 4.0, 16.0)
STRIDES = (1, 2, 3, 4, 6, 8)
ENGINE_EPOCHS = (1, 2, 5, 10, 20, 40, 80)
YARDSTICK = 40  # epochs of LSQML beside the networks: engines may be run on another machine
OVERLAP_EPOCHS = 40  # of LSQML at the shortest step; with fewer frames as many more
DEFOCUS = (2.0e-6, 2.75e-6, 3.5e-6, 4.25e-6, 5.0e-6, 7.0e-6)
OWN_DEFOCUS = 3.5e-6
LIT = 0.1  # of the largest illumination: pixels that count in stitched objects
# A processor that only imitates bfloat16 would take hours.
PRECISION = "bf16" if has_bfloat16("cpu") else "fp32"
STEPS, BATCH_SIZE = 1500, 16
DEFOCUS_STEPS = 6000  # after 1,500 its error at its own defocus hides what another does


def paper_model(training: Training, output: Path, scale: Scale = SCALES["small"]) -> Model:
    """The Model of a training of the paper benchmark; trained now where that has not been done on this machine."""
    place = f"{TWIN}_{scale.name}"
    cache = cache_folder() / "paper" / place
    kept = model_path(cache, training)
    if not kept.exists():
        run(training, scale, open_source(TWIN), output / "paper" / place / f"{training.name}.json", cache)
    return Model.load(kept)


def dose(output: Path) -> dict[str, Any]:
    """Two trained W3, root counts and raw counts, on the leak-free block at other count rates than their training's."""
    models = {"sqrt": paper_model(Training("w3", "ptychow"), output), "raw": paper_model(Training("w3"), output)}
    found: dict[str, list[float]] = {name: [] for name in models}
    for factor in DOSE_FACTORS:
        scan = twin(TWIN, 0, lines=slice(121, 161), columns=slice(101, 161), counts=factor * COUNTS, workers=1)
        for name, model in models.items():
            found[name].append(
                _map_error(evaluate(model, scan, indices=np.arange(len(scan)), device="cpu", force=True))
            )
    return {
        "counts": [factor * COUNTS for factor in DOSE_FACTORS],
        "factors": DOSE_FACTORS,
        "unexplained": found,
        "limits": {name: count_limits(DOSE_FACTORS, errors) for name, errors in found.items()},
    }


def _map_error(found: Evaluation) -> float:
    """The paper benchmark's headline; a flat map's 1 where the input's threshold left frames without counts, and so the
    map without points.
    """
    return 1.0 if found.notebook is None else found.notebook["grid_phase_unexplained_variance"]


def count_limits(factors: Sequence[float], errors: Sequence[float]) -> tuple[float, float]:
    """Factors of the training's count rate between which the error stays below twice its own: `ModelCard.count_limits`.

    Interpolated between the logarithms of both; where the error never doubles, the outermost factor tried.
    """
    order = np.argsort(factors)
    x, y = np.log(np.asarray(factors)[order]), np.log(np.asarray(errors)[order])
    own = int(np.argmin(np.abs(x)))
    doubled = y[own] + np.log(2)

    def outward(step: int) -> float:
        here = own
        while 0 <= here + step < len(x):
            if y[here + step] > doubled:
                part = (doubled - y[here]) / (y[here + step] - y[here])
                return float(np.exp(x[here] + part * (x[here + step] - x[here])))
            here += step
        return float(np.exp(x[here]))

    return outward(-1), outward(1)


def overlap(output: Path) -> dict[str, Any]:
    """W3 and LSQML on every n-th line and column of 32 x 32 points of the leak-free block.

    LSQML sees as many patterns at every step: fewer frames, more epochs.
    """
    model = paper_model(Training("w3", "ptychow"), output)
    rows = []
    for stride in STRIDES:
        scan = twin(TWIN, 0, lines=slice(125, 157, stride), columns=slice(105, 137, stride), workers=1)
        truth = Truth(scan)
        epochs = OVERLAP_EPOCHS * stride**2
        labelled = label(replace(scan, object=None), epochs=epochs, device="cpu")
        assert labelled.scan.object is not None
        rows.append(
            {
                "step_px": STEP * stride,
                "frames": len(scan),
                "lsqml_epochs": epochs,
                "w3": truth.error(reconstruct(scan, model, device="cpu").image, NETWORK),
                "lsqml": truth.error(labelled.scan.object, ITERATIVE),
            }
        )
    return {"rows": rows}


class Truth:
    """The true object where a scan's light fell, and how far an object on the same pixels is from it."""

    def __init__(self, scan: Scan) -> None:
        assert scan.object is not None and scan.probe is not None
        light = illumination(scan)
        lit = light > LIT * light.max()
        rows, columns = (np.flatnonzero(lit.any(axis=axis)) for axis in (1, 0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        self.image, self.weight = scan.object.image[box], lit[box].astype(float)
        self.origin = scan.object.origin[0] + rows[0], scan.object.origin[1] + columns[0]

    def error(self, found: ObjectImage, remove: tuple[str, ...]) -> float:
        """Unexplained phase variance after alignment."""
        image = PatchExtractor(found, 1).region(self.origin, self.image.shape)
        return image_metrics(image, self.image, weight=self.weight * (image != 0), remove=remove)[STITCHED]


# What simulated truth leaves open of a network's object, and of an iterative one's.
NETWORK, ITERATIVE = ("constant",), ("constant", "ramp", "shift")


def samples(output: Path) -> dict[str, Any]:
    """W3 trained on each family of samples, tested on another object of each."""
    tests = {name: _experiment(name, seed=1).run() for name in SAMPLES}
    table = {}
    for trained_on in SAMPLES:
        model = _trained(trained_on)
        table[trained_on] = {name: _patch_error(evaluate(model, scan, device="cpu")) for name, scan in tests.items()}
    return {"table": table, "precision": PRECISION}


def defocus(output: Path) -> dict[str, Any]:
    """W3 trained at one defocus, tested at others; and what the Model says before it is forced."""
    model = _trained("labyrinth", DEFOCUS_STEPS)
    rows = []
    for metres in DEFOCUS:
        scan = _experiment("labyrinth", seed=1, metres=metres).run()
        try:
            said = "; ".join(model.check(scan)) or "nothing"
        except MismatchError as refusal:
            said = f"refused: {refusal}"
        numbers = evaluate(model, scan, device="cpu", force=True)
        rows.append({"defocus_m": metres, "unexplained": _patch_error(numbers), "said": said})
    return {"rows": rows, "own": OWN_DEFOCUS, "steps": DEFOCUS_STEPS, "precision": PRECISION}


def _experiment(sample: str, *, seed: int, metres: float = OWN_DEFOCUS) -> Experiment:
    """A scan of 900 (training, seed 0) or 300 points through a beam as the twin's."""
    return Experiment(
        sample=sample,
        points=300 if seed else 900,
        step=4.0,
        defocus=metres,
        astigmatism=0.5e-6,
        mode_powers=(0.85, 0.10, 0.05),
        seed=seed,
    )


def _trained(sample: str, steps: int = STEPS) -> Model:
    scan = _experiment(sample, seed=0).run()
    recipe = recipe_named("ptychow", batch_size=BATCH_SIZE, keep="last")
    epochs = max(1, round(steps / steps_per_epoch(len(scan), recipe)))
    recipe = recipe.model_copy(update={"epochs": epochs})
    return train(scan, "w3", recipe, split="none", device="cpu", precision=PRECISION).model


def _patch_error(found: Evaluation) -> float:
    return found.patches[PATCH]


def networks(output: Path) -> dict[str, Any]:
    """Error and seconds of trained networks on the leak-free block, all of the `paper` recipe; and LSQML's seconds."""
    scan = _leak_free_block()
    truth = Truth(scan)
    points = {}
    for network in ("w3", "w1", "ptychonn"):
        model = paper_model(Training(network, "paper"), output)
        started = time.process_time()
        image = reconstruct(scan, model, device="cpu").image
        points[network] = [(time.process_time() - started, truth.error(image, NETWORK))]
    [(seconds, _)] = _way(scan, "lsqml", (YARDSTICK,))
    return {"points": points, "frames": len(scan), "lsqml": {"epochs": YARDSTICK, "seconds": seconds}}


def engines(output: Path) -> dict[str, Any]:
    """Error against seconds of every iterative method on the same block, after more and more epochs."""
    scan = _leak_free_block()
    points = {method: _way(scan, method, ENGINE_EPOCHS) for method in METHODS}
    return {"points": points, "epochs": ENGINE_EPOCHS, "frames": len(scan)}


def _way(scan: Scan, method: str, epochs: Sequence[int]) -> list[tuple[float, float]]:
    """(processor seconds, error) of an iterative method after each of these epochs."""
    truth = Truth(scan)
    points: list[tuple[float, float]] = []
    began, own = time.process_time(), 0.0

    def record(progress: Progress) -> None:
        nonlocal own
        if progress.epoch in epochs:
            now = time.process_time()
            points.append((now - began - own, truth.error(progress.estimate().object, ITERATIVE)))
            own += time.process_time() - now

    label(replace(scan, object=None), method=method, epochs=epochs[-1], device="cpu", on_epoch=record)
    return points


def _leak_free_block() -> Scan:
    return twin(TWIN, 0, lines=slice(121, 161), columns=slice(101, 161), workers=1)
