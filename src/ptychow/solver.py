"""The one door to the iterative engine: Pty-Chi's LSQML makes the labels for training.

LSQML: Odstrcil, Menzel and Guizar-Sicairos, "Iterative least-squares solver for generalized maximum-likelihood
ptychography", Optics Express 26, 3108 (2018). Pty-Chi counts positions from a point of the object array, its far
field is an FFT without normalisation and without shifts, and it changes settings of the whole process: everything of
that kind is translated here and nowhere else.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptychow.detector import Preparation
from ptychow.detector_fit import detector_of
from ptychow.devices import choose_device
from ptychow.errors import InputError, MissingExtraError, PtychoWError, about
from ptychow.scan import ObjectImage, Scan
from ptychow.starting_probe import MOST_MODES, power_factor, starting_probe

if TYPE_CHECKING:
    import torch

OnEpoch = Callable[[int, float], None]

# Pixels of the object array beyond the outermost patches, so that sub-pixel shifts never leave it.
MARGIN = 2
# Complex arrays of (batch, modes, H, W), and of the object's size, that an LSQML step holds at once (measured).
WORKING_COPIES, OBJECT_COPIES = 12, 10


@dataclass(frozen=True)
class Labelled:
    """What `label` gives.

    scan: the scan with `object` (in the scan's own object pixels) and `probe` (modes, H, W) replaced.
    errors: per epoch, the relative amplitude error sqrt(sum (|far field| - sqrt(counts))^2 / sum counts) over the
    good pixels: 0 is perfect, 1 is what an empty prediction scores.
    seconds: wall time of the epochs.
    notes: what was assumed or left out, in words.
    """

    scan: Scan
    errors: tuple[float, ...]
    seconds: float
    notes: tuple[str, ...]


def label(
    scan: Scan,
    *,
    epochs: int = 40,
    batch_size: int = 64,
    probe_modes: int | None = None,
    device: str = "auto",
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Labelled:
    """Reconstruct object and probe of a scan iteratively (LSQML), from an object that is 1 everywhere.

    probe_modes: mutually incoherent modes; by default as many as the scan's probe has (1 without a probe).
    device: "auto", "cpu", "cuda" or "xpu". seed: order of the frames in the batches.
    on_epoch: called with (epoch, error) after every epoch, error as in `Labelled.errors`.

    The product of object and probe is all that is measured; the factor between them is fixed so that the probe alone
    would give the mean counts of a frame: |probe|^2, all modes, sums to them.

    Raises MissingExtraError without Pty-Chi, InputError where the scan cannot be used or does not fit into memory,
    PtychoWError where the reconstruction diverges.
    """
    try:
        import ptychi  # noqa: F401
    except ImportError:
        raise MissingExtraError("Iterative reconstruction (Pty-Chi)", "solver") from None

    for name, number in (("epochs", epochs), ("batch_size", batch_size), ("probe_modes", probe_modes)):
        if number is not None and number < 1:
            raise InputError("too few", field=name, found=number, expected="1 or more")
    device = _choose_device(device)
    modes = _choose_modes(scan, probe_modes)
    origin, shape = object_frame(scan)
    _require_memory(scan, shape, min(batch_size, len(scan)), modes)

    frames, good, notes = _load_frames(scan)
    mean_pattern = frames.mean(axis=0, dtype=np.float64)
    probe, probe_notes = starting_probe(scan, modes, mean_pattern, good)

    task = _Task(frames, good, scan.positions_px, origin, shape, probe, batch_size, device, seed)
    began = time.perf_counter()
    image, probe, errors = task.run(epochs, on_epoch, scan.name)
    seconds = time.perf_counter() - began

    factor = power_factor(probe, mean_pattern, good)
    counted = "1 probe mode" if modes == 1 else f"{modes} probe modes"
    settings = f"{epochs} epochs, batch {batch_size}, {counted}, seed {seed}"
    how = f"LSQML (Pty-Chi {version('ptychi')}), {settings}"
    found = ObjectImage((image / factor).astype(np.complex64), origin, how)
    # Label patches that came with the scan belong to another reconstruction.
    labelled = replace(scan, object=found, probe=(probe * factor).astype(np.complex64), label_patches=None)
    return Labelled(labelled, tuple(errors), seconds, (*notes, *probe_notes))


def object_frame(scan: Scan) -> tuple[tuple[float, float], tuple[int, int]]:
    """Origin (whole object pixels) and shape of an object array that holds every patch and `MARGIN` around."""
    half, size = np.array(scan.frame_shape) // 2, np.array(scan.frame_shape)
    first = np.floor(scan.positions_px.min(axis=0))
    last = np.floor(scan.positions_px.max(axis=0))
    rows, columns = (last - first + size + 2 * MARGIN).astype(int).tolist()
    row, column = (first - half - MARGIN).tolist()
    return (row, column), (rows, columns)


def illumination(scan: Scan) -> NDArray[np.float32]:
    """(rows, columns) counts that fell on each pixel of a labelled scan's object, over all frames.

    Patches are placed to the nearest pixel. Raises InputError for a scan without object and probe.
    """
    if scan.object is None or scan.probe is None:
        raise InputError("no object and probe", file=scan.name, remedy="Run `ptychow label` first")
    intensity = (np.abs(scan.probe) ** 2).sum(axis=0)
    height, width = intensity.shape
    total = np.zeros(scan.object.image.shape, np.float32)
    corners = np.round(scan.positions_px - scan.object.origin).astype(int) - [height // 2, width // 2]
    for row, column in corners:
        # Patches of a part of the object's scan may stick out.
        inside = total[max(row, 0) : max(row + height, 0), max(column, 0) : max(column + width, 0)]
        top, left = max(-row, 0), max(-column, 0)
        inside += intensity[top : top + inside.shape[0], left : left + inside.shape[1]]
    return total


def _choose_device(name: str) -> str:
    """Device type for `name`, of those Pty-Chi knows. Raises InputError where it is not there."""
    if ":" in name:
        remedy = "Choose the card with CUDA_VISIBLE_DEVICES: Pty-Chi takes the first it sees"
        raise InputError("one card of several", field="device", found=name, remedy=remedy)
    return choose_device(name, ("cpu", "cuda", "xpu"))


def _choose_modes(scan: Scan, wanted: int | None) -> int:
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


def _require_memory(scan: Scan, shape: tuple[int, int], batch: int, modes: int) -> None:
    """Raise InputError where Pty-Chi, which wants all frames at once, needs more memory than is free."""
    import psutil

    pixels = int(np.prod(scan.frame_shape))
    working = WORKING_COPIES * batch * modes * pixels + OBJECT_COPIES * shape[0] * shape[1]
    needed = 4 * len(scan) * pixels + 8 * working
    free = psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"does not fit into memory ({len(scan)} frames of {scan.frame_shape[0]} x {scan.frame_shape[1]}, "
            f"object of {shape[0]} x {shape[1]})",
            file=scan.name,
            field="frames",
            found=f"{needed / 2**30:.1f} GiB needed",
            expected=f"at most the {free / 2**30:.1f} GiB that are free",
            remedy="Label a part of the scan, crop or bin the frames, or check the positions' unit",
        )


def _load_frames(scan: Scan) -> tuple[NDArray[np.float32], NDArray[np.bool_], list[str]]:
    """All frames as float32 (N, H, W) and the good pixels (H, W), zero frequency at [0, 0]; and notes.

    Bad pixels, those of the scan's mask and those found in the data, are set to 0, and so are pixels that saturate in
    any frame: Pty-Chi takes one mask for all frames. Wrapped counts are unwrapped, and pixels marked as invalid in
    single frames filled from their neighbours, as for the networks.
    """
    with about(scan.name):
        fields, found = detector_of(scan)
        # Saturated pixels are left out here, not cut.
        detector = Preparation(**{**fields, "saturation": None}, transform="raw", scale="none")
    frames = np.empty(scan.frames.shape, np.float32)
    saturated = np.zeros(scan.frame_shape, bool)
    for indices, batch in scan.batches(256):
        if scan.saturation is not None:
            saturated |= (batch >= scan.saturation).any(axis=0)
        with about(scan.name):
            frames[indices] = detector.apply(batch)[:, 0]
    good = np.ones(scan.frame_shape, bool) if detector.mask is None else detector.mask
    notes = [*found]
    if (saturated & good).any():
        notes.append(f"{(saturated & good).sum()} saturated pixels left out")
    good = good & ~saturated
    if not good.any():
        raise InputError("no good pixel is left", file=scan.name, field="frames", remedy="Check the mask")
    frames[:, ~good] = 0
    if not frames.any():
        raise InputError("all zero", file=scan.name, field="frames", expected="some counts")
    for indices, _ in scan.batches(256):
        frames[indices] = np.fft.ifftshift(frames[indices], axes=(1, 2))
    return frames, np.fft.ifftshift(good), notes


@dataclass
class _Task:
    """One Pty-Chi task, in our conventions.

    frames, good: zero frequency at [0, 0]. positions: (N, 2) probe centres in object pixels. origin, shape: of the
    object array. probe: (modes, H, W) for the orthonormal transform.
    """

    frames: NDArray[np.float32]
    good: NDArray[np.bool_]
    positions: NDArray[np.float64]
    origin: tuple[float, float]
    shape: tuple[int, int]
    probe: NDArray[np.complex64]
    batch_size: int
    device: str
    seed: int

    def run(
        self, epochs: int, on_epoch: OnEpoch | None, name: str
    ) -> tuple[NDArray[np.complex64], NDArray[np.complex64], list[float]]:
        """Object (rows, columns), probe (modes, H, W) and the error of each epoch."""
        import torch
        from ptychi.api.task import PtychographyTask

        height, width = self.frames.shape[1:]
        unit = np.sqrt(height * width)  # Pty-Chi's transform is not normalised
        # Pty-Chi wants centred positions, and keeps its origin half a pixel off whole ones: a whole centre fits both.
        centre = np.rint(self.positions.mean(axis=0))
        y, x = (self.positions - centre).T
        with _untouched_process(self.device), self._explained_failures(name):
            task: Any = PtychographyTask(
                self._options(centre),
                diffraction_data=torch.from_numpy(self.frames),
                object_data=np.ones((1, *self.shape), np.complex64),
                probe_data=self.probe[None] / unit,
                probe_position_y_px=y,
                probe_position_x_px=x,
                valid_pixel_mask=self.good,
            )
            with task:
                good = torch.from_numpy(self.good).to(self.device)
                task.reconstructor.loss_tracker.metric_function = _SquaredError(good)
                task.reconstructor.dataloader.generator.manual_seed(self.seed)
                errors = []
                for epoch in range(1, epochs + 1):
                    task.run(1)
                    errors.append(float(task.reconstructor.loss_tracker.table.loss.iloc[-1]) ** 0.5)
                    if not errors[-1] < (1 if epoch == epochs else np.inf):
                        raise _diverged(name, f"error {errors[-1]:.3g} after epoch {epoch}, an empty prediction has 1")
                    if on_epoch is not None:
                        on_epoch(epoch, errors[-1])
                image = task.get_data_to_cpu("object", as_numpy=True)[0]
                probe = task.get_data_to_cpu("probe", as_numpy=True)[0] * unit
        if not (np.isfinite(image).all() and np.isfinite(probe).all()):
            raise _diverged(name, f"not finite after {epochs} epochs")
        return image, probe, errors

    def _options(self, centre: NDArray[np.float64]) -> Any:
        """Pty-Chi's defaults, but for the probe's scale (finding it would cost Pty-Chi an epoch) and the layout."""
        from ptychi.api import Devices, ObjectPosOriginCoordsMethods
        from ptychi.api.options.lsqml import LSQMLOptions

        options = LSQMLOptions()
        options.data_options.fft_shift = False
        reconstructor = options.reconstructor_options
        reconstructor.batch_size = min(self.batch_size, len(self.frames))
        reconstructor.default_device = Devices.CPU if self.device == "cpu" else Devices.GPU
        reconstructor.rescale_probe_intensity_in_first_epoch = False
        # Pty-Chi's patch of a position starts (H - 1)/2 before it, ours H//2.
        size = np.array(self.frames.shape[1:])
        reference = centre - np.array(self.origin) + (size - 1) / 2 - size // 2
        options.object_options.position_origin_coords = reference.tolist()
        options.object_options.determine_position_origin_coords_by = ObjectPosOriginCoordsMethods.SPECIFIED
        return options

    @contextmanager
    def _explained_failures(self, name: str) -> Iterator[None]:
        """Turn what torch raises into one clear line."""
        import torch

        try:
            yield
        except torch.linalg.LinAlgError as error:
            raise _diverged(name, str(error)) from error
        except torch.OutOfMemoryError as error:
            remedy = "use a smaller batch, fewer probe modes, or --device cpu"
            raise PtychoWError(f"{name}: {self.device} ran out of memory: {remedy}") from error


def _diverged(name: str, how: str) -> PtychoWError:
    remedy = "Check positions, probe and mask with `ptychow inspect`"
    return PtychoWError(f"{name}: the iterative reconstruction diverged ({how}). {remedy}")


class _SquaredError:
    """Squared relative amplitude error of a batch over the good pixels (Pty-Chi's own ignores the mask)."""

    def __init__(self, good: torch.Tensor) -> None:
        self.good = good

    def __call__(self, predicted: torch.Tensor, measured: torch.Tensor) -> torch.Tensor:
        """Of intensities (batch, H, W)."""
        difference = (predicted.sqrt() - measured.sqrt()) * self.good
        return (difference**2).sum() / measured.sum().clamp(min=1e-12)


@contextmanager
def _untouched_process(device: str) -> Iterator[None]:
    """Give back what a Pty-Chi task changes for the whole process: torch's defaults and root logging."""
    import torch
    from ptychi.device import get_torch_accelerator_module, set_torch_accelerator_module

    default_device, dtype = torch.get_default_device(), torch.get_default_dtype()
    module = get_torch_accelerator_module()
    root, own = logging.getLogger(), logging.getLogger("ptychi")
    level = own.level
    # With a handler present, logging.info() and the like do not install one of their own.
    silent = logging.NullHandler()
    root.addHandler(silent)
    own.setLevel(logging.ERROR)
    set_torch_accelerator_module(torch.xpu if device == "xpu" else torch.cuda)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True")
            yield
    finally:
        set_torch_accelerator_module(module)
        own.setLevel(level)
        root.removeHandler(silent)
        torch.set_default_dtype(dtype)
        # None, not "cpu", which would leave a function mode installed.
        torch.set_default_device(None if default_device.type == "cpu" else default_device)
