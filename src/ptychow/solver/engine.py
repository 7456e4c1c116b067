"""The one door to Pty-Chi: some epochs of one method, from an object, a probe and positions to better ones.

Pty-Chi counts positions from a point of the object array, its far field is an FFT without normalisation and without
shifts, and it changes settings of the whole process: everything of that kind is translated here and nowhere else.
"""

from __future__ import annotations

import itertools
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError, MissingExtraError, PtychoWError
from ptychow.patches import corners
from ptychow.scan import ObjectImage
from ptychow.solver.measurement import Measurement
from ptychow.solver.methods import CHUNK, Method, method_named
from ptychow.words import counted

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Estimate:
    """Where an iteration has arrived.

    object: on the array it started on. probe: (modes, H, W) complex64, for the orthonormal transform; the factor
    between both is as the iteration left it. positions: (N, 2) float64 probe centres, object pixels.
    errors: per epoch, the relative amplitude error sqrt(sum (|far field| - sqrt(counts))^2 / sum counts) over the
    good pixels: 0 is perfect, 1 is what an empty prediction scores. seconds: wall time of the epochs.
    """

    object: ObjectImage
    probe: NDArray[np.complex64]
    positions: NDArray[np.float64]
    errors: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class Progress:
    """An iteration after an epoch.

    epoch: 1 is the first. errors: of all epochs so far, as `Estimate.errors`. seconds: wall time of the epochs, without
    what was done between them. estimate(): where it is, copied.
    """

    epoch: int
    errors: tuple[float, ...]
    seconds: float
    estimate: Callable[[], Estimate]


# Called after every epoch; True ends the iteration.
OnEpoch = Callable[[Progress], bool | None]

# Of an iteration that runs until a plateau: epochs at most; and it is one where the mean error of so many epochs is
# less than so much below that of as many before.
MOST_EPOCHS, PLATEAU_EPOCHS, PLATEAU_GAIN = 100, 5, 0.01


def iterate(
    data: Measurement,
    positions_px: NDArray[np.float64],
    start: ObjectImage,
    probe: NDArray[np.complex64],
    *,
    epochs: int | None = None,
    seconds: float | None = None,
    method: str = "lsqml",
    noise: str | None = None,
    batch_size: int | None = None,
    position_step: float = 0.0,
    free_probe: bool = True,
    device: str = "cpu",
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Estimate:
    """Run an iterative method (`METHODS`) on all frames for some epochs.

    epochs: exactly so many. seconds: no further epoch after so many. With neither, until a plateau of the error.

    positions_px: (N, 2) probe centres, object pixels. start: the object to start from; its origin is whole pixels, and
    it holds every patch (`flat_object`, `place`). probe: (modes, H, W) to start from, for the orthonormal transform;
    it is taken as it is: scale it to the counts first (`starting_probe`, `data_error`).
    noise: "gaussian" or "poisson", of those the method knows. batch_size: frames a step; the method's by default.
    position_step: above 0, positions follow the gradient too, with this step and no limit to how far they go.
    free_probe: False keeps the probe as given, whatever the method.
    device: "cpu", "cuda" or "xpu". seed: order of the frames in the batches.

    On one thread the result is exactly reproducible. The process's torch defaults, Pty-Chi's own, and the root logger
    are left as they were.
    Raises MissingExtraError without Pty-Chi, InputError for a start that does not fit, PtychoWError where it diverges.
    """
    require_pty_chi()
    if epochs is not None and epochs < 1:
        raise InputError("no number of epochs", field="epochs", found=epochs, expected="1 or more")
    if seconds is not None and not seconds >= 0:
        raise InputError("no time", field="seconds", found=seconds, expected="0 (one epoch) or more")
    chosen = method_named(method)
    noise, batch_size = choose_noise(chosen, noise), choose_batch(chosen, batch_size)
    positions_px = np.asarray(positions_px, np.float64)
    _require_fit(data, positions_px, start, probe)
    task = _Task(data, positions_px, start, probe, chosen, noise, batch_size, position_step, free_probe, device, seed)
    return task.run(epochs, seconds, on_epoch)


def choose_noise(method: Method, noise: str | None) -> str:
    """The noise model: the one named, or the method's own. Raises InputError for one that the method does not know."""
    chosen = noise or method.noise_models[0]
    if chosen not in method.noise_models:
        expected = " or ".join(method.noise_models)
        raise InputError(f"{method.title} knows no such model", field="noise", found=chosen, expected=expected)
    return chosen


def choose_batch(method: Method, batch_size: int | None) -> int | None:
    """Frames a step: as many as said, or the method's own; None for a method that takes all frames at once.

    Raises InputError for a number below 1, and for any where the method has no batches.
    """
    if batch_size is None:
        return method.batch_size
    if method.batch_size is None:
        found, remedy = batch_size, "Leave the batch size out, or take another method"
        raise InputError(f"{method.title} takes all frames at once", field="batch_size", found=found, remedy=remedy)
    if batch_size < 1:
        raise InputError("too few", field="batch_size", found=batch_size, expected="1 or more")
    return batch_size


def require_pty_chi() -> None:
    """Raise MissingExtraError where Pty-Chi is not installed."""
    try:
        import ptychi  # noqa: F401
    except ImportError:
        raise MissingExtraError("Iterative reconstruction (Pty-Chi)", "solver") from None


def on_plateau(errors: Sequence[float]) -> bool:
    """Whether the error of each epoch has all but stopped falling."""
    if len(errors) < 2 * PLATEAU_EPOCHS:
        return False
    recent, before = np.mean(errors[-PLATEAU_EPOCHS:]), np.mean(errors[-2 * PLATEAU_EPOCHS : -PLATEAU_EPOCHS])
    return bool(recent > (1 - PLATEAU_GAIN) * before)


def _require_fit(
    data: Measurement, positions_px: NDArray[np.float64], start: ObjectImage, probe: NDArray[np.complex64]
) -> None:
    """Raise InputError where the parts do not belong together."""
    size = data.frames.shape[1]
    first = corners(positions_px, size) - start.origin
    inside = first.shape == (len(data), 2) and (first >= 0).all() and (first + size <= start.image.shape).all()
    if np.mod(start.origin, 1).any() or not inside:
        found = f"{start.image.shape} from {start.origin}, {len(first)} positions"
        expected = f"whole pixels, and the patches of all {len(data)} frames in them"
        raise InputError("does not fit", file=data.name, field="starting object", found=found, expected=expected)
    if probe.ndim != 3 or probe.shape[1:] != data.frames.shape[1:]:
        expected = f"(modes, {size}, {size})"
        raise InputError("does not fit", file=data.name, field="starting probe", found=probe.shape, expected=expected)


@dataclass
class _Task:
    """One Pty-Chi task, in our conventions (see `iterate`)."""

    data: Measurement
    positions: NDArray[np.float64]
    start: ObjectImage
    probe: NDArray[np.complex64]
    method: Method
    noise: str
    batch_size: int | None
    position_step: float
    free_probe: bool
    device: str
    seed: int
    task: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        height, width = self.data.frames.shape[1:]
        self.unit = np.sqrt(height * width)  # Pty-Chi's transform is not normalised
        # Pty-Chi wants centred positions, and keeps its origin half a pixel off whole ones: a whole centre fits both.
        self.centre = np.rint(self.positions.mean(axis=0))

    def run(self, epochs: int | None, limit: float | None, on_epoch: OnEpoch | None) -> Estimate:
        """Build the task, run it, fetch what it found."""
        import torch
        from ptychi.api.task import PtychographyTask

        y, x = (self.positions - self.centre).T
        with _untouched_process(self.device), self._explained_failures():
            self.task = PtychographyTask(
                self._options(),
                diffraction_data=torch.from_numpy(self.data.frames),
                object_data=self.start.image[None],
                probe_data=self.probe[None] / self.unit,
                probe_position_x_px=x,
                probe_position_y_px=y,
                valid_pixel_mask=self.data.good,
            )
            with self.task:
                good = torch.from_numpy(self.data.good).to(self.device)
                if self.method.batch_size is not None:
                    self.task.reconstructor.loss_tracker.metric_function = _SquaredError(good)
                self.task.reconstructor.dataloader.generator.manual_seed(self.seed)
                errors: list[float] = []
                seconds = 0.0
                until_plateau = epochs is None and limit is None
                most = MOST_EPOCHS if until_plateau else epochs
                for epoch in range(1, most + 1) if most is not None else itertools.count(1):
                    began = time.perf_counter()
                    self.task.run(1)
                    errors.append(self._error(good))
                    seconds += time.perf_counter() - began
                    if not np.isfinite(errors[-1]):
                        raise self._diverged(f"not finite after epoch {epoch}")
                    progress = Progress(epoch, tuple(errors), seconds, lambda: self._fetch(errors, seconds))  # noqa: B023
                    if on_epoch is not None and on_epoch(progress):
                        break
                    if (until_plateau and on_plateau(errors)) or (limit is not None and seconds >= limit):
                        break
                if errors[-1] >= 1:
                    raise self._diverged(f"error {errors[-1]:.3g}, an empty prediction has 1")
                return self._fetch(errors, seconds)

    def _error(self, good: torch.Tensor) -> float:
        """Relative amplitude error: of the epoch's steps, or of its result where the method takes all frames at once.

        What Pty-Chi tracks for the projection methods is how far the exit waves moved.
        """
        import torch

        if self.method.batch_size is not None:
            return float(self.task.reconstructor.loss_tracker.table.loss.iloc[-1]) ** 0.5
        total = 0.0
        with torch.no_grad():
            for indices in torch.arange(len(self.data)).split(CHUNK):
                predicted = self.task.reconstructor.forward_model.forward(indices)
                measured = self.task.dataset.patterns[indices].to(predicted.device)
                total += float((((predicted.sqrt() - measured.sqrt()) * good) ** 2).sum())
        return float(np.sqrt(total / self.data.frames.sum(dtype=np.float64)))

    def _fetch(self, errors: list[float], seconds: float) -> Estimate:
        """What the task holds now, in our conventions."""
        image = self.task.get_data_to_cpu("object", as_numpy=True)[0].copy()
        probe = self.task.get_data_to_cpu("probe", as_numpy=True)[0] * np.float32(self.unit)
        if not (np.isfinite(image).all() and np.isfinite(probe).all()):
            raise self._diverged(f"not finite after {len(errors)} epochs")
        positions = self.positions
        if self.position_step:
            positions = self.task.get_data_to_cpu("probe_positions", as_numpy=True).astype(np.float64) + self.centre
        return Estimate(
            ObjectImage(image, self.start.origin, self._how(errors)), probe, positions, tuple(errors), seconds
        )

    def _how(self, errors: list[float]) -> str:
        """Method and settings, in words."""
        modes = len(self.probe)
        said = [f"{self.method.title} (Pty-Chi {version('ptychi')})", counted(len(errors), "epoch")]
        if self.batch_size is not None:
            said.append(f"batch {self.batch_size}")
        if self.noise != self.method.noise_models[0]:
            said.append(f"{self.noise} noise")
        return ", ".join([*said, "1 probe mode" if modes == 1 else f"{modes} probe modes", f"seed {self.seed}"])

    def _options(self) -> Any:
        """The method's, and the layout of our arrays."""
        from ptychi.api import Devices, ObjectPosOriginCoordsMethods

        options = self.method.options()
        options.data_options.fft_shift = False
        reconstructor = options.reconstructor_options
        reconstructor.default_device = Devices.CPU if self.device == "cpu" else Devices.GPU
        if self.batch_size is not None:
            reconstructor.batch_size = min(self.batch_size, len(self.data))
        if len(self.method.noise_models) > 1:
            reconstructor.noise_model = self.noise
        options.probe_options.optimizable &= self.free_probe
        positions = options.probe_position_options
        if self.position_step:
            positions.optimizable = True
            positions.step_size = self.position_step
            # Pty-Chi raises TypeError for one without the other.
            positions.correction_options.clip_update_magnitude_by_mad = False
            positions.correction_options.update_magnitude_limit = None
        # Pty-Chi scales the object by its norm within the positions' rectangle; a single line has none.
        options.object_options.remove_object_probe_ambiguity.enabled = bool(np.ptp(self.positions, axis=0).min() >= 1)
        # Pty-Chi's patch of a position starts (H - 1)/2 before it, ours H//2.
        size = np.array(self.data.frames.shape[1:])
        reference = self.centre - np.array(self.start.origin) + (size - 1) / 2 - size // 2
        options.object_options.position_origin_coords = reference.tolist()
        options.object_options.determine_position_origin_coords_by = ObjectPosOriginCoordsMethods.SPECIFIED
        return options

    @contextmanager
    def _explained_failures(self) -> Iterator[None]:
        """Turn what torch raises into one clear line."""
        import torch

        try:
            yield
        except torch.linalg.LinAlgError as error:
            raise self._diverged(str(error)) from error
        except torch.OutOfMemoryError as error:
            remedy = "use a smaller batch, fewer probe modes, or --device cpu"
            raise PtychoWError(f"{self.data.name}: {self.device} ran out of memory: {remedy}") from error

    def _diverged(self, how: str) -> PtychoWError:
        remedy = "Check positions, probe and mask with `ptychow inspect`"
        return PtychoWError(f"{self.data.name}: the iterative reconstruction diverged ({how}). {remedy}")


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
    """Give back what a Pty-Chi task changes for the whole process: torch's defaults, its own, and root logging."""
    import torch
    from ptychi import maths, utils
    from ptychi.device import get_torch_accelerator_module, set_torch_accelerator_module

    default_device, dtype = torch.get_default_device(), torch.get_default_dtype()
    module = get_torch_accelerator_module()
    complex_dtype = utils.get_default_complex_dtype()
    double_fft = maths.get_use_double_precision_for_fft()
    nondeterministic = maths.get_allow_nondeterministic_algorithms()
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
        utils.set_default_complex_dtype(complex_dtype)
        maths.set_use_double_precision_for_fft(double_fft)
        maths.set_allow_nondeterministic_algorithms(nondeterministic)
        torch.set_default_dtype(dtype)
        # None, not "cpu", which would leave a function mode installed.
        torch.set_default_device(None if default_device.type == "cpu" else default_device)
