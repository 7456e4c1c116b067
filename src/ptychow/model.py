"""Model: a network with everything one must know to use it, in one safetensors file.

The file is a contract. It says what the data must look like (frame size, pixel size, orientation, probe, count rate),
and `Model.check` says where a scan differs: a warning, or a refusal that can be overridden. Loading unpickles nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ptychow._version import __version__
from ptychow.detector import Preparation
from ptychow.detector_fit import BadPixels, with_detector_of
from ptychow.errors import InputError, MismatchError, about
from ptychow.likeness import FOREIGN_PATTERN, Moved, judge_counts, judge_pattern
from ptychow.networks import build
from ptychow.networks.base import PatternNetwork
from ptychow.optics.beam import intensity
from ptychow.orientation import Orientation
from ptychow.residual import Reference
from ptychow.scan import Geometry, Scan, spread
from ptychow.shipped import model_file
from ptychow.tensor_files import read_tensors, write_tensors

FORCED = "forced: "  # begins the warnings that were refusals
OWN_LIBRARIES = ("numpy", "torch", "accelerate", "safetensors")
# Frames looked at when a scan is compared with a Model: as many as set the scale.
CHECKED_FRAMES = 64
# Raw counts without a scale are another input where the count rate is another: refused beyond this factor.
MOST_RAW_COUNTS = 16.0


class TrainingData(BaseModel):
    """One scan a Model was trained on, and which of its frames were used for what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    fingerprint: str
    frames: int
    train: list[int]
    validation: list[int]
    holdout: list[int]
    labels: str


class ModelCard(BaseModel):
    """All of a Model but its arrays.

    frame_shape: (H, W) of the raw frames. geometry: of the prepared frames.
    gauge: "constant-free" patches are right up to one constant phase each; "absolute" ones are not corrected.
    amplitude_scale: predicted amplitudes are multiplied by it (labels were divided by it).
    counts_per_frame: `Preparation.mean_counts` of the frames trained on, None where unknown.
    count_limits: factors of it between which the Model's phase error stays below twice its own, from its own dose
    study; None where none was made.
    residual, disagreement: how well its patches explain frames it knows, and agree with each other (`trust`), which
    calibrates its light; None where not measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    network: str
    settings: dict[str, Any]
    preparation: Preparation
    frame_shape: tuple[int, int]
    geometry: Geometry
    gauge: Literal["constant-free", "absolute"]
    amplitude_scale: float = 1.0
    counts_per_frame: float | None = Field(gt=0, allow_inf_nan=False)
    count_limits: tuple[float, float] | None = None
    residual: Reference | None = None
    disagreement: Reference | None = None
    recipe: dict[str, Any]
    training: dict[str, Any]
    data: list[TrainingData]
    metrics: dict[str, Any] = {}
    versions: dict[str, str]


class Model:
    """A trained network and its contract.

    card: `ModelCard`. network: in eval mode. probe: (modes, n, n) complex64 on the prepared grid, or None.
    mean_pattern: (n, n) float32, mean input of the training frames before standardisation: shows another orientation,
    probe or centre; all 0 where unknown. name: what to call it in results: its file's stem, or what `training` names.
    """

    def __init__(
        self,
        card: ModelCard,
        network: PatternNetwork,
        probe: NDArray[np.complex64] | None,
        mean_pattern: NDArray[np.float32],
        name: str = "",
    ) -> None:
        self.card = card
        self.name = name or card.network
        self.network = network.eval()
        self.probe = probe
        self.mean_pattern = mean_pattern

    @property
    def patch_size(self) -> int:
        """Pixels along a side of the predicted patches."""
        return self.mean_pattern.shape[0]

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, atomically."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors["mean_pattern"] = torch.from_numpy(self.mean_pattern.copy())
        if self.probe is not None:
            tensors["probe"] = torch.view_as_real(torch.from_numpy(self.probe.copy()))
        write_tensors(path, tensors, {"ptychow": self.card.model_dump_json()})

    @classmethod
    def load(cls, path: str | Path) -> Model:
        """Read a Model file, or the shipped Model of that name. Raises InputError where it is none, or is damaged."""
        path = model_file(path)
        tensors, texts = read_tensors(path, "Model file")
        text = texts.get("ptychow")
        if text is None:
            raise InputError("a safetensors file, but no PtychoW Model", file=path, expected="metadata under 'ptychow'")
        try:
            card = ModelCard.model_validate_json(text)
            # Shapes only: whatever settings a file names, memory is taken for the weights that it holds.
            with about(path), torch.device("meta"):
                network = build(card.network, **card.settings)
            weights = {n.removeprefix("network."): v for n, v in tensors.items() if n.startswith("network.")}
            network.load_state_dict(weights, assign=True)
            network.float()
            mean_pattern = tensors["mean_pattern"].numpy()
            probe = torch.view_as_complex(tensors["probe"]).numpy() if "probe" in tensors else None
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(
                f"damaged or from another version ({first['msg']})", file=path, field=str(first["loc"])
            ) from None
        except (RuntimeError, KeyError, TypeError) as error:
            raise InputError(f"weights do not fit the network ({str(error).splitlines()[0]})", file=path) from None
        if mean_pattern.ndim != 2 or (probe is not None and probe.shape[1:] != mean_pattern.shape):
            raise InputError(
                "damaged", file=path, field="mean_pattern, probe", found=mean_pattern.shape, expected="equal (n, n)"
            )
        return cls(card, network, probe, mean_pattern, path.stem)

    @classmethod
    def of(cls, given: Model | str | Path) -> Model:
        """A Model itself, or that of a file or name. Raises InputError as `load`."""
        return given if isinstance(given, Model) else cls.load(given)

    def prepare_for(
        self, scan: Scan, scale: Literal["scan", "model"] = "scan", bad_pixels: BadPixels = "auto"
    ) -> Preparation:
        """The Model's Preparation for this scan: with the scan's own bad pixels, saturation and markers.

        scale: the count scale is measured on the scan, or is the Model's own. bad_pixels: as `fit_preparation`.
        """
        if scale not in ("scan", "model"):
            raise InputError("unknown", field="scale", found=scale, expected="scan or model")
        preparation = self.card.preparation
        if scan.frame_shape == self.card.frame_shape:
            preparation = with_detector_of(preparation, scan, bad_pixels)
        return preparation if scale == "model" else preparation.with_scale_of(scan)

    def check(self, scan: Scan, force: bool = False) -> list[str]:
        """What differs between this scan and the data the Model was made for, in words.

        Raises MismatchError for what makes the result meaningless (frame size, pixel size, another instrument's mean
        pattern, a raw-count network far outside its count rate), unless `force`: then it is a warning that begins with
        `FORCED`. Frames that cannot be brought to the network's size are always refused.
        """
        refusals, warnings = [], []
        expected, found = self.card.frame_shape, scan.frame_shape
        if expected != found:
            sizes = [f"{height} x {width}" for height, width in (found, expected)]
            words = f"frames of {sizes[0]} pixels, but the Model {self.name} was made for {sizes[1]}"
            if not self._takes(found):
                raise MismatchError(words, file=scan.name, remedy=_way(found, expected))
            refusals.append(words)
        model_pixel = self.card.geometry.pixel_size
        scan_pixel = self.card.preparation.output_geometry(scan.geometry, found).pixel_size
        if scan_pixel is None:
            warnings.append("the scan's pixel size is unknown, not checked (--pixel-size-nm)")
        elif model_pixel is None:
            warnings.append(f"the Model {self.name} does not know its pixel size: the scan's is not checked")
        elif abs(scan_pixel / model_pixel - 1) > 0.02:
            refusals.append(
                f"object pixel of {scan_pixel * 1e9:.4g} nm, but the Model was made for {model_pixel * 1e9:.4g} nm"
            )
        if expected == found:
            with about(scan.name):
                preparation = self.prepare_for(scan)
                self._check_counts(scan, preparation, refusals, warnings)
                self._check_pattern(scan, preparation, refusals, warnings)
            self._check_probe(scan, warnings)
        if refusals and not force:
            raise MismatchError(
                "; ".join(refusals), file=scan.name, remedy="Use a Model made for this instrument, or --force"
            )
        return [FORCED + words for words in refusals] + warnings

    def _takes(self, frame_shape: tuple[int, int]) -> bool:
        """Whether the Model's Preparation makes its network's input of frames (H, W)."""
        try:
            return self.card.preparation.output_size(frame_shape) == (self.patch_size, self.patch_size)
        except InputError:
            return False

    def _check_counts(self, scan: Scan, preparation: Preparation, refusals: list[str], warnings: list[str]) -> None:
        known = self.card.counts_per_frame
        counts = 0.0 if known is None else preparation.mean_counts(scan.frames[: min(CHECKED_FRAMES, len(scan))])
        ratio = None if known is None else counts / known
        _, said = judge_counts(self.card, ratio)
        is_raw = self.card.preparation.transform == "raw" and self.card.preparation.scale == "none"
        unmeasured = is_raw and self.card.count_limits is None
        if unmeasured and ratio is not None and not 1 / MOST_RAW_COUNTS <= ratio <= MOST_RAW_COUNTS:
            refusals.append(f"{said}; raw-count networks are wrong beyond x{MOST_RAW_COUNTS:g}")
        elif said:
            warnings.append(said)

    def match_pattern(self, mean: NDArray[np.floating]) -> dict[Orientation, float]:
        """Cosine between a mean pattern (n, n), turned in each of the eight ways, and the Model's own; 1 is equal."""
        return {o: _correlation(o.apply_about_zero_frequency(mean), self.mean_pattern) for o in Orientation}

    def _check_pattern(self, scan: Scan, preparation: Preparation, refusals: list[str], warnings: list[str]) -> None:
        chosen = scan.frames[spread(len(scan), CHECKED_FRAMES)]
        mean = preparation.unstandardised().apply(chosen)[:, 0].mean(axis=0)
        match = self.match_pattern(mean)
        _, said = judge_pattern(match, Moved.of(mean, self.mean_pattern))
        is_foreign = any(match.values()) and match[Orientation.IDENTITY] <= FOREIGN_PATTERN
        if said:
            (refusals if is_foreign else warnings).append(said)

    def _check_probe(self, scan: Scan, warnings: list[str]) -> None:
        if scan.probe is None or self.probe is None:
            return
        # The Model's may be the better probe of a scan it was made from.
        if scan.fingerprint() in {record.fingerprint for record in self.card.data}:
            return
        if scan.probe.shape[1:] != scan.frame_shape:
            warnings.append(f"probe of {scan.probe.shape[1:]} pixels, not of the frames' size: not checked")
            return
        try:
            probe = self.card.preparation.probe(scan.probe)
        except InputError as error:
            warnings.append(f"the file's probe cannot be compared with the Model's: {error}")
            return
        overlap = _correlation(intensity(probe), intensity(self.probe))
        if overlap < 0.8:
            warnings.append(
                f"probe intensity matches the Model's only to {overlap:.2f} (1 is equal): another beam, or the "
                "file's probe is a rough guess"
            )


def _way(found: tuple[int, int], expected: tuple[int, int]) -> str:
    """How frames of one shape could be brought to another, in words."""
    other, size = "a Model made for such frames", expected[0]
    factor = min(found) // size
    if expected != (size, size) or factor < 1:
        return f"Use {other}"
    bins = f", or --crop {size * factor} --bin {factor}" if factor > 1 else ""
    middle = "with --centre ROW,COLUMN where the beam is not in the middle"
    return f"Bring them there (ptychow prepare FILE --crop {size}{bins}; {middle}), or use {other}"


def _correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Cosine of the angle between two images; 1 for proportional ones."""
    norm = np.linalg.norm(first) * np.linalg.norm(second)
    return float((first * second).sum() / norm) if norm > 0 else 0.0


def software_versions(packages: Sequence[str] = OWN_LIBRARIES) -> dict[str, str]:
    """Versions of PtychoW and of what its numbers depend on."""
    return {"ptychow": __version__, **{package: version(package) for package in packages}}
