"""Model x Scan -> Reconstruction: prepare, infer, stitch. Frames are read from disk a batch at a time."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptychow.detector import Preparation
from ptychow.engines.torch_engine import TorchEngine
from ptychow.errors import InputError, about
from ptychow.formats.cxi import write_reconstruction
from ptychow.model import Model
from ptychow.scan import Geometry, ObjectImage, Scan
from ptychow.stitch import Canvas, central_crop, probe_weight, solve_constants

# Patches are kept for the final solve of their constants; beyond this many bytes in a temporary file instead of memory.
SPOOL_LIMIT = 2e9
CENTRAL_CROP = 12  # pixels, the PtychoNN notebooks'

Stitching = Literal["probe", "central-crop"]


@dataclass(frozen=True)
class Reconstruction:
    """A stitched object and what it rests on.

    image: `ObjectImage` on the Model's pixels. coverage, variance: (Y, X), see `Canvas`.
    geometry: of the prepared frames. probe: the Model's. warnings: where scan and Model differ, in words.
    summary: frames, seconds and rates, what was applied, versions: JSON-able.
    patches: (N, m, m) complex, brought to one constant, where they were asked for.
    """

    image: ObjectImage
    coverage: NDArray[np.float32]
    variance: NDArray[np.float32]
    geometry: Geometry
    probe: NDArray[np.complex64] | None
    warnings: tuple[str, ...]
    summary: dict[str, Any]
    patches: NDArray[np.complex64] | None = None

    def save(self, path: str | Path) -> None:
        """Write CXI: object, coverage, variance, probe, geometry and summary."""
        write_reconstruction(
            path,
            self.image,
            geometry=self.geometry,
            coverage=self.coverage,
            variance=self.variance,
            probe=self.probe,
            metadata={},
            summary=self.summary,
        )

    def save_picture(self, path: str | Path, title: str = "") -> None:
        """Write a PNG of amplitude and phase where light fell."""
        from ptychow.figures import reconstruction_figure

        reconstruction_figure(
            path,
            None,
            self.image.image,
            region=self.lit,
            pixel_size=self.geometry.pixel_size,
            origin=self.image.origin,
            title=title,
        )

    @property
    def lit(self) -> NDArray[np.bool_]:
        """(Y, X) True where the coverage exceeds a tenth of its largest value."""
        return self.coverage > 0.1 * self.coverage.max()


def reconstruct(
    scan: Scan,
    model: Model,
    *,
    stitching: Stitching = "probe",
    scale: Literal["scan", "model"] = "scan",
    batch_size: int = 64,
    device: str = "auto",
    precision: str = "fp32",
    force: bool = False,
    keep_patches: bool = False,
    advance: Callable[..., None] | None = None,
) -> Reconstruction:
    """Reconstruct a scan with a Model.

    stitching: weights from the probe, or the notebooks' uniform central 12 x 12 pixels. scale: count scale measured on
    the scan's first frames, or the Model's own. force: go on where `Model.check` refuses. keep_patches: give them back
    too (in memory). advance: called with the number of frames finished. Frames without counts are left out, with a
    warning: a network would make an object of them too.
    Raises MismatchError, and InputError for bad frames or positions.
    """
    warnings = model.check(scan, force)
    preparation = model.prepare_for(scan, scale)
    weight = patch_weight(model, stitching)
    engine = TorchEngine(model, device, precision)
    positions = scan.positions_px / preparation.pixel_ratio(scan.frame_shape)
    canvas = Canvas(positions, weight)
    solve = model.card.gauge == "constant-free"
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="ptychow-") as folder:
        patches = _spool((len(scan), *weight.shape), Path(folder, "patches")) if solve or keep_patches else None
        passed = _Pass(scan, preparation, engine, len(weight))
        for indices, batch in passed.batches(batch_size):
            if not solve:
                canvas.add(batch, positions[indices])
            if patches is not None:
                patches[indices] = batch
            if advance is not None:
                advance(passed.newest)
        lit = np.flatnonzero(passed.lit)
        if not lit.size:
            raise InputError("no frame holds counts", file=scan.name, field="frames", remedy="Was the shutter open?")
        if solve and patches is not None:
            room = partial(_spool, path=Path(folder, "weighted"))
            constants = solve_constants(patches, positions, weight, allocate=room)
            for start in range(0, len(lit), batch_size):
                chosen = lit[start : start + batch_size]
                patches[chosen] *= constants[chosen, None, None]
                canvas.add(patches[chosen], positions[chosen])
        kept = np.array(patches) if keep_patches else None
        del patches
    seconds = time.perf_counter() - started
    warnings += passed.warnings()
    return Reconstruction(
        canvas.object_image(
            f"network {model.card.network}, {len(scan)} frames of {scan.name}, stitched by {stitching}"
        ),
        canvas.coverage(),
        canvas.variance(),
        preparation.output_geometry(scan.geometry, scan.frame_shape),
        model.probe,
        tuple(warnings),
        {
            "scan": scan.name,
            "fingerprint": scan.fingerprint(),
            "network": model.card.network,
            "frames": len(scan),
            "frames_without_counts": len(scan) - len(lit),
            "saturated_pixels": passed.saturated,
            "seconds": seconds,
            "frames_per_second": len(scan) / seconds,
            "network_frames_per_second": len(scan) / passed.seconds,
            "device": str(engine.device),
            "precision": precision,
            "stitching": stitching,
            "constants": "solved from overlaps" if solve else "absolute phases, none",
            "count_scale": preparation.scale_value,
            "warnings": warnings,
            "versions": model.card.versions,
        },
        kept,
    )


class _Pass:
    """One pass of a scan's frames through preparation and network, and what was met on the way."""

    def __init__(self, scan: Scan, preparation: Preparation, engine: TorchEngine, size: int) -> None:
        self.scan, self.preparation, self.engine, self.size = scan, preparation, engine, size
        self.lit = np.zeros(len(scan), bool)
        self.saturated = 0
        self.seconds = 0.0
        self.newest = 0

    def batches(self, batch_size: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.complex64]]]:
        """Indices and complex patches (b, m, m) of the frames that hold counts, a batch at a time."""
        nothing = self.preparation.apply(np.zeros((1, *self.scan.frame_shape), np.uint16))
        for indices, frames in self.scan.batches(batch_size):
            began = time.perf_counter()
            with about(self.scan.name):
                inputs = self.preparation.apply(frames)
                self.saturated += int(self.preparation.count_saturated(frames).sum())
            lit = (inputs != nothing).any(axis=(1, 2, 3))
            patches = self.engine.predict(inputs[lit]) if lit.any() else np.zeros((0, *inputs.shape[2:]), np.complex64)
            self.seconds += time.perf_counter() - began
            self.lit[indices] = lit
            self.newest = len(indices)
            yield indices[lit], central_crop(patches, self.size)

    def warnings(self) -> list[str]:
        """What the user should know of the frames, in words."""
        found = []
        if not self.lit.all():
            dark = f"{(~self.lit).sum()} frames without counts were left out (the first: {self.lit.argmin()})"
            found.append(dark)
        if self.saturated:
            found.append(f"{self.saturated} saturated pixels, cut at {self.preparation.saturation:g} counts")
        return found


def patch_weight(model: Model, stitching: Stitching) -> NDArray[np.float32]:
    """Stitching weights (m, m) of the central m x m pixels of a patch."""
    if stitching == "central-crop":
        return np.ones((CENTRAL_CROP, CENTRAL_CROP), np.float32)
    if stitching != "probe":
        raise InputError("unknown stitching", found=stitching, expected="probe or central-crop")
    if model.probe is None:
        raise InputError(
            "the Model knows no probe to weight patches by", field="probe", remedy="Use --stitching central-crop"
        )
    return probe_weight(model.probe)


def _spool(shape: tuple[int, ...], path: Path) -> NDArray[np.complex64]:
    """Room for all patches, zero, in memory or in a new file."""
    if np.prod(shape, dtype=float) * 8 <= SPOOL_LIMIT:
        return np.zeros(shape, np.complex64)
    # Room is taken now: a memory map of a disk that fills up later would end the process without a word.
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)) * 8)
    return np.memmap(path, np.complex64, "r+" if path.stat().st_size else "w+", shape=shape)
