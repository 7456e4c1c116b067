"""The Models for the 26-ID twins that ship with the package: one network for a family of instruments, without labels.

    python benchmarks/weights.py w3-26id-64 --output src/ptychow/weights
    python benchmarks/weights.py w1-26id-64 --output src/ptychow/weights

Random samples are seen through instruments around `sim-26id`: defocus and astigmatism, the power of the incoherent
modes and the counts differ from one to the next. The samples' contrast differs anyway. The Model is then tested on
twins it has not met: the nominal one, and one at either end of the defocus. An interrupted training goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ptychow.evaluation import Evaluation, evaluate
from ptychow.model import Model
from ptychow.optics.beam import incoherent_modes, scale_to_counts, zone_plate_beam
from ptychow.optics.twins import COUNTS as COUNTS_PER_FRAME
from ptychow.optics.twins import PIXEL_SIZE, SIZE, TWINS, WAVELENGTH, twin
from ptychow.training import LABEL_FREE, History, calibrate
from study_parts import count_limits

TWIN = TWINS["sim-26id"]
# Name: network, steps.
MODELS = {"w3-26id-64": ("w3", 4000), "w1-26id-64": ("w1", 2000)}
INSTRUMENTS = 64
DEFOCUS, ASTIGMATISM = (0.8, 1.2), (0.8, 1.2)  # of the twin's
FIRST_MODE = (0.75, 0.95)  # of the power; the second gets two thirds of the rest
COUNTS = (2e5, 2e7)
DOSES = (1 / 256, 1 / 64, 1 / 16, 1 / 4, 1, 4, 16, 64)  # of the twin's counts
SEED = 26
TEST_SEED, TEST_LINES, TEST_COLUMNS = 100, slice(121, 145), slice(60, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("--output", type=Path, default=Path())
    parser.add_argument("--steps", type=int)
    parser.add_argument("--test-only", action="store_true", help="Test the finished Model in --output again.")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.test_only:
        target = options.output / f"{options.name}.safetensors"
        examined(Model.load(target)).save(target)
        return
    network, steps = MODELS[options.name]
    target = options.output / f"{options.name}.safetensors"
    recipe = LABEL_FREE.model_copy(update={"epochs": (options.steps or steps) // LABEL_FREE.steps_per_epoch})
    # The nominal instrument: its mean pattern and mask go into the Model.
    nominal = twin(TWIN.name, SEED, lines=slice(0, 12), columns=slice(0, 40))
    checkpoint = target.with_suffix(".checkpoint")
    trained = calibrate(
        nominal,
        network,
        recipe,
        instruments=family(np.random.default_rng(SEED)),
        seed=SEED,
        device="cpu",
        checkpoint=checkpoint,
        resume=True,
        on_epoch=say,
    )
    examined(trained.model).save(target)
    checkpoint.unlink(missing_ok=True)
    print(f"wrote {target}")


def examined(model: Model) -> Model:
    """The Model with what tests on twins it has not met say: its metrics, and its count-rate limits."""
    metrics: dict[str, Any] = {}
    for factor in (DEFOCUS[0], 1.0, DEFOCUS[1]):
        found = unseen(model, probe=instrument(factor, 1.0, 0.85))
        metrics[f"defocus x {factor:g}"] = found.summary()
        print(f"defocus x {factor:g}: {found.headline:.4f}", flush=True)
    errors = [unseen(model, counts=factor * COUNTS_PER_FRAME).headline for factor in DOSES]
    limits = count_limits(DOSES, errors)
    metrics["dose"] = {"factors": DOSES, "phase_unexplained_variance": errors}
    print(f"dose {dict(zip(DOSES, errors, strict=True))}: limits {limits}", flush=True)
    model.card = model.card.model_copy(update={"metrics": metrics, "count_limits": limits})
    return model


def unseen(model: Model, **changes: Any) -> Evaluation:
    """The evaluation on a part of a twin of another seed. Limits are what is being measured: none hold."""
    scan = twin(TWIN.name, TEST_SEED, lines=TEST_LINES, columns=TEST_COLUMNS, **changes)
    return evaluate(model, scan, device="cpu", force=True)


def instrument(defocus: float, astigmatism: float, first: float) -> NDArray[np.complex64]:
    """(3, 64, 64) modes of total power 1: the twin's beam, aberrations times these, `first` in the first mode."""
    beam = zone_plate_beam(
        SIZE,
        wavelength=WAVELENGTH,
        pixel_size=PIXEL_SIZE,
        defocus=defocus * TWIN.defocus,
        astigmatism=astigmatism * TWIN.astigmatism,
        edge=0.03,
    )
    return incoherent_modes(beam, (first, (1 - first) * 2 / 3, (1 - first) / 3))


def family(rng: np.random.Generator) -> list[NDArray[np.complex64]]:
    """Probes of instruments like the twin, each with the counts of its frames."""
    return [
        scale_to_counts(
            instrument(rng.uniform(*DEFOCUS), rng.uniform(*ASTIGMATISM), rng.uniform(*FIRST_MODE)),
            float(np.exp(rng.uniform(*np.log(COUNTS)))),
        )
        for _ in range(INSTRUMENTS)
    ]


def say(history: History) -> None:
    steps = history.epochs * LABEL_FREE.steps_per_epoch
    print(f"step {steps}: loss {history.train_loss[-1]:.4f}, {history.seconds[-1]:.0f} s", flush=True)


if __name__ == "__main__":
    main()
