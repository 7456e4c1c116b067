"""Object and probe of a scan from its frames alone: the labels for training."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np

from ptychow.devices import choose_device, free_memory
from ptychow.errors import InputError
from ptychow.formats import scan_of
from ptychow.scan import ObjectImage, Scan
from ptychow.solver.engine import Estimate, OnEpoch, choose_batch, iterate
from ptychow.solver.measurement import Measurement, flat_object, measure, object_frame
from ptychow.solver.methods import CHUNK, Method, method_named
from ptychow.starting_probe import MOST_MODES, power_factor, starting_probe

# Complex arrays of (batch, modes, H, W), of the object's size, and of all exit waves, that a step holds (measured).
WORKING_COPIES, OBJECT_COPIES, EXIT_WAVE_COPIES = 12, 10, 1


@dataclass(frozen=True)
class Labelled:
    """What `label` gives.

    scan: the scan, without frames that hold no counts, with `object` (in the scan's own object pixels) and `probe`
    (modes, H, W) replaced.
    errors: per epoch, see `Estimate.errors`. seconds: wall time of the epochs.
    notes: what was assumed or left out, in words. started_warm: whether it began at an object known before.
    """

    scan: Scan
    errors: tuple[float, ...]
    seconds: float
    notes: tuple[str, ...]
    started_warm: bool = False


def label(
    scan: Scan | str | os.PathLike[str],
    *,
    method: str = "lsqml",
    epochs: int | None = None,
    batch_size: int | None = None,
    probe_modes: int | None = None,
    noise: str | None = None,
    device: str = "auto",
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Labelled:
    """Reconstruct object and probe of a scan, or of that of a file, iteratively, from an object that is 1 everywhere.

    method: of `METHODS`. epochs: until a plateau of the error by default.
    batch_size, noise: the method's by default; a projection method has no batches.
    probe_modes: mutually incoherent modes; by default as many as the scan's probe has (1 without a probe).
    device: "auto", "cpu", "cuda" or "xpu". seed: order of the frames in the batches.
    on_epoch: called with the `Progress` after every epoch; True ends the iteration.

    The product of object and probe is all that is measured; the factor between them is fixed so that the probe alone
    would give the mean counts of a frame: |probe|^2, all modes, sums to them.

    Raises MissingExtraError without Pty-Chi, InputError where the scan cannot be used or does not fit into memory,
    PtychoWError where the reconstruction diverges.
    """
    scan, chosen = scan_of(scan), method_named(method)
    batch_size = choose_batch(chosen, batch_size)
    for name, number in (("epochs", epochs), ("probe_modes", probe_modes)):
        if number is not None and number < 1:
            raise InputError("too few", field=name, found=number, expected="1 or more")
    device = solver_device(device)
    modes = choose_modes(scan, probe_modes)
    require_memory(scan, chosen, batch_size, modes)

    scan, data = measure(scan)
    probe, probe_notes = starting_probe(scan, modes, data.mean_pattern, data.good)
    flat = flat_object(scan.positions_px, scan.frame_shape[0])
    found = iterate(
        data,
        scan.positions_px,
        flat,
        probe,
        epochs=epochs,
        method=method,
        noise=noise,
        batch_size=batch_size,
        device=device,
        seed=seed,
        on_epoch=on_epoch,
    )
    return Labelled(with_estimate(scan, data, found), found.errors, found.seconds, (*data.notes, *probe_notes))


def with_estimate(scan: Scan, data: Measurement, found: Estimate) -> Scan:
    """The scan with the object and probe found, scaled so that |probe|^2 sums to the mean counts of a frame."""
    factor = power_factor(found.probe, data.mean_pattern, data.good)
    image = ObjectImage((found.object.image / factor).astype(np.complex64), found.object.origin, found.object.source)
    # Label patches that came with the scan belong to another reconstruction.
    return replace(scan, object=image, probe=(found.probe * factor).astype(np.complex64), label_patches=None)


def solver_device(name: str) -> str:
    """Device type for `name`, of those Pty-Chi knows. Raises InputError where it is not there."""
    if ":" in name:
        remedy = "Choose the card with CUDA_VISIBLE_DEVICES: Pty-Chi takes the first it sees"
        raise InputError("one card of several", field="device", found=name, remedy=remedy)
    return choose_device(name, ("cpu", "cuda", "xpu"))


def choose_modes(scan: Scan, wanted: int | None) -> int:
    """How many probe modes to reconstruct. Raises InputError where frames or probe do not allow any."""
    height, width = scan.frame_shape
    if height != width:
        raise InputError(
            "not square",
            file=scan.name,
            field="frames",
            found=f"{height} x {width}",
            remedy="Crop them (ptychow prepare --crop): otherwise the object pixel differs between rows and columns",
        )
    if scan.probe is not None and scan.probe.shape[1:] != scan.frame_shape:
        found, expected = scan.probe.shape[1:], scan.frame_shape
        raise InputError("not of the frames' size", file=scan.name, field="probe", found=found, expected=expected)
    if wanted is not None and wanted > MOST_MODES:
        raise InputError("too many", field="probe_modes", found=wanted, expected=f"at most {MOST_MODES}")
    return wanted or (1 if scan.probe is None else len(scan.probe))


@dataclass(frozen=True)
class Memory:
    """What an iteration takes, and what the machine has left, GiB. tight: more than four fifths of it."""

    needed: float
    free: float

    @property
    def tight(self) -> bool:
        """Whether it may not be enough."""
        return self.needed > 0.8 * self.free


def require_memory(scan: Scan, method: Method, batch_size: int | None, modes: int) -> Memory:
    """An estimate, before anything is read: all frames at once, a step's working arrays, exit waves where all are kept.

    Raises InputError where that is more than is free.
    """
    height, width = scan.frame_shape
    _, shape = object_frame(scan.positions_px, height)
    step = modes * height * width * min(choose_batch(method, batch_size) or CHUNK, len(scan))
    complex_numbers = WORKING_COPIES * step + OBJECT_COPIES * shape[0] * shape[1]
    frames = len(scan) * height * width
    if method.batch_size is None:
        complex_numbers += EXIT_WAVE_COPIES * modes * frames
    memory = Memory((4 * frames + 8 * complex_numbers) / 2**30, free_memory() / 2**30)
    if memory.needed > memory.free:
        raise InputError(
            f"does not fit into memory ({len(scan)} frames of {height} x {width}, object of {shape[0]} x {shape[1]})",
            file=scan.name,
            field="frames",
            found=f"{memory.needed:.1f} GiB needed",
            expected=f"at most the {memory.free:.1f} GiB that are free",
            remedy="Label a part of the scan, crop or bin the frames, or check the positions' unit",
        )
    return memory
