"""What an engine's precision costs in accuracy, measured before anybody believes it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import PtychoWError
from ptychow.metrics import patch_metrics
from ptychow.model import Model
from ptychow.optics.beam import gaussian_beam, intensity
from ptychow.optics.detection import Detector
from ptychow.optics.samples import SAMPLES
from ptychow.optics.simulate import canvas, simulate, stream

# A precision may add this part to the Model's own phase error.
LIMIT = 0.05
# Unexplained phase variance of a Model whose file does not say its own: better than most.
ASSUMED_ERROR = 0.02
ASSUMED_COUNTS = 1e5  # of Models that do not know their light either
FRAMES = 64
NOMINAL = "defocus x 1"  # among the metrics of the Models that ship (benchmarks/weights.py)
METRIC = "weighted_phase_unexplained_variance"


def simulated_inputs(model: Model, count: int = FRAMES, seed: int = 0) -> NDArray[np.float32]:
    """Prepared frames (count, 1, n, n) as the Model's instrument would measure them on a labyrinth.

    With the Model's probe (a Gaussian beam where it knows none), at the count rate it was trained on.
    """
    size = model.patch_size
    probe = gaussian_beam(size, fwhm=size / 4) if model.probe is None else model.probe
    positions = stream(seed, 0).uniform(0, 4 * size, (count, 2))
    shape, origin = canvas(positions, size)
    sample = SAMPLES["labyrinth"](shape, stream(seed, 1))
    counts = model.card.counts_per_frame or ASSUMED_COUNTS
    scan = simulate(probe, sample, positions, origin=origin, counts=counts, detector=Detector(), seed=seed, workers=1)
    return model.card.preparation.finish(np.asarray(scan.frames[:], np.float32), model.card.frame_shape)


def phase_cost(model: Model, patches: NDArray[np.complex64], reference: NDArray[np.complex64]) -> float:
    """The part that an engine adds to the Model's phase error (unexplained variance, probe-weighted, 0.05 = 5 %).

    patches: (b, n, n) from the engine; reference: the same from the network as it was trained, in fp32. What they
    differ by is taken to be independent of the network's own error, so that variances add. That error is
    `own_error`.
    """
    light = np.ones(reference.shape[1:]) if model.probe is None else intensity(model.probe)
    if not np.isfinite(patches).all():
        return float("inf")
    return patch_metrics(patches, reference, light)[METRIC] / own_error(model)


def own_error(model: Model) -> float:
    """The Model's own phase error, in the same measure: of its held-out frames, or, of a Model of a family of
    instruments, on the nominal one; `ASSUMED_ERROR` where its file says neither.
    """
    metrics = model.card.metrics
    found = [part.get("patches", {}).get(METRIC) for part in (metrics, metrics.get(NOMINAL, {}))]
    return next((error for error in found if error), ASSUMED_ERROR)


def require_accuracy(what: str, cost: float) -> None:
    """Raise PtychoWError, with the number, where a cost exceeds `LIMIT`."""
    if not cost <= LIMIT:
        raise PtychoWError(
            f"{what} would add {cost:.1%} to this Model's phase error, more than the {LIMIT:.0%} that are allowed; "
            "use fp32 or bf16"
        )
