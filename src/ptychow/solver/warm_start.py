"""Start an iteration from an object that is known already, a network's say, where that beats starting from nothing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ptychow.patches import PatchExtractor
from ptychow.residual import predicted_amplitudes
from ptychow.scan import ObjectImage, Scan, spread
from ptychow.solver.engine import OnEpoch, iterate
from ptychow.solver.labelling import Labelled, choose_modes, require_memory, solver_device, with_estimate
from ptychow.solver.measurement import Measurement, flat_object, measure, object_frame
from ptychow.solver.methods import METHODS
from ptychow.starting_probe import starting_probe

# Frames, evenly spread, on which starts are compared.
TRIAL_FRAMES = 64
# Below this part of the largest coverage a stitched object is rim, and fades into 1.
RIM_COVERAGE = 0.1


@dataclass(frozen=True)
class Start:
    """Where an iteration may begin.

    name: what it comes from, in words. warm: whether its object was known before. object: on an array that holds every
    patch. probe: (modes, H, W), scaled so that both predict the mean counts. error: relative amplitude error of what
    they predict, as `Estimate.errors`.
    """

    name: str
    warm: bool
    object: ObjectImage
    probe: NDArray[np.complex64]
    error: float

    @classmethod
    def of(
        cls,
        name: str,
        warm: bool,
        data: Measurement,
        positions_px: NDArray[np.float64],
        image: ObjectImage,
        probe: NDArray[np.complex64],
    ) -> Start:
        """Scale the probe to the counts, and see how well object and probe explain some of the frames."""
        chosen = spread(len(data), TRIAL_FRAMES)
        patches = PatchExtractor(image, data.frames.shape[1])(positions_px[chosen])
        good = np.fft.fftshift(data.good)
        predicted = predicted_amplitudes(patches, probe) * good
        measured = np.fft.fftshift(np.sqrt(data.frames[chosen]), axes=(1, 2))
        counts = float((measured**2).sum(dtype=np.float64))
        factor = np.sqrt(counts / (predicted**2).sum(dtype=np.float64))
        error = np.sqrt(((factor * predicted - measured) ** 2).sum(dtype=np.float64) / counts)
        return cls(name, warm, image, (probe * factor).astype(np.complex64), float(error))


def place(
    image: ObjectImage, coverage: NDArray[np.float32] | None, positions_px: NDArray[np.float64], size: int
) -> ObjectImage:
    """The object on the array of `object_frame`, 1 where it is unknown.

    coverage: (rows, columns) weights of the object's pixels; where it is below a tenth of its largest value the object
    fades into 1 with it. Without it every pixel that is not 0 is known.
    """
    origin, shape = object_frame(positions_px, size)
    weight = (image.image != 0).astype(np.float32)
    if coverage is not None:
        weight = np.minimum(coverage / max(RIM_COVERAGE * float(coverage.max()), 1e-30), 1).astype(np.float32)
    mixed = ObjectImage(weight * (image.image - 1), image.origin, image.source)
    placed = 1 + PatchExtractor(mixed, size).region(origin, shape)
    return ObjectImage(placed.astype(np.complex64), origin, image.source)


def refine(
    scan: Scan,
    image: ObjectImage,
    *,
    probe: NDArray[np.complex64] | None = None,
    coverage: NDArray[np.float32] | None = None,
    epochs: int | None = None,
    seconds: float | None = None,
    device: str = "auto",
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Labelled:
    """Object and probe of a scan by LSQML that starts from an object which is known already.

    image: the object, on the scan's object pixels. coverage: see `place`. probe: (modes, H, W) that goes with it, a
    Model's, or None. epochs, seconds: see `iterate`.

    Not to end worse than without it: object and probe given are each compared with what `label` starts from (1
    everywhere; the scan's probe, or one made from its mean pattern), in all combinations, and the one that explains
    some frames best is taken. The notes say which.
    Raises what `label` does.
    """
    device = solver_device(device)
    modes = choose_modes(scan, None)
    most_modes = max(modes, 0 if probe is None else len(probe))
    require_memory(scan, METHODS["lsqml"], METHODS["lsqml"].batch_size, most_modes)
    scan, data = measure(scan)
    start = best_start(scan, data, image, probe=probe, coverage=coverage)
    found = iterate(
        data,
        scan.positions_px,
        start.object,
        start.probe,
        epochs=epochs,
        seconds=seconds,
        device=device,
        seed=seed,
        on_epoch=on_epoch,
    )
    note = f"started from {start.name}, error {start.error:.4f}"
    return Labelled(with_estimate(scan, data, found), found.errors, found.seconds, (*data.notes, note), start.warm)


def best_start(
    scan: Scan,
    data: Measurement,
    image: ObjectImage,
    *,
    probe: NDArray[np.complex64] | None = None,
    coverage: NDArray[np.float32] | None = None,
) -> Start:
    """Of the object given and a flat one, with the probe given and the scan's own: what explains the frames best.

    A probe of another size than the frames is left out.
    """
    positions, size = scan.positions_px, scan.frame_shape[0]
    own, _ = starting_probe(scan, choose_modes(scan, None), data.mean_pattern, data.good)
    objects = {
        "the object given": place(image, coverage, positions, size),
        "a flat object": flat_object(positions, size),
    }
    probes = {"the scan's own probe": own}
    if probe is not None and probe.shape[1:] == scan.frame_shape:
        probes["the probe given"] = probe
    starts = [
        Start.of(f"{known} and {light}", known == "the object given", data, positions, objects[known], probes[light])
        for known, light in product(objects, probes)
    ]
    return min(starts, key=lambda start: start.error)
