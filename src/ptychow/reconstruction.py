"""Model x Scan -> Reconstruction: prepare, infer, stitch. Frames are read from disk a batch at a time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptychow.behind import Behind
from ptychow.detector import Preparation
from ptychow.engines import ENGINES, open_engine
from ptychow.engines.base import Engine
from ptychow.errors import InputError, about
from ptychow.formats import scan_of
from ptychow.formats.cxi import write_reconstruction
from ptychow.likeness import Light
from ptychow.model import CHECKED_FRAMES, FORCED, OWN_LIBRARIES, Model, software_versions
from ptychow.scan import Geometry, ObjectImage, Scan
from ptychow.scan_pattern import impossible, scan_pattern
from ptychow.stitch import Canvas, central_crop
from ptychow.stitching import Stitching, patch_weight, room_for_patches, stitch_solved
from ptychow.trust import WINDOW, FrameSample, Verdict, Watch, judge, object_residual
from ptychow.words import counted

# Windows of a scan at most in which patches are compared with their neighbours.
MOST_WINDOWS = 16


@dataclass(frozen=True)
class Reconstruction:
    """A stitched object and what it rests on.

    image: `ObjectImage` on the Model's pixels. coverage, variance: (Y, X), see `Canvas`.
    geometry: of the prepared frames. probe: the Model's. warnings: where scan and Model differ, in words.
    summary: frames, seconds and rates, what was applied, versions: JSON-able.
    residuals: (N,) what its patch leaves unexplained of each frame, see `frame_residuals`; NaN where not known.
    patches: (N, m, m) complex, brought to one constant, where they were asked for.
    network_image: what the network gave, where `image` and `probe` have been refined from it.
    """

    image: ObjectImage
    coverage: NDArray[np.float32]
    variance: NDArray[np.float32]
    geometry: Geometry
    probe: NDArray[np.complex64] | None
    warnings: tuple[str, ...]
    summary: dict[str, Any]
    residuals: NDArray[np.float32]
    patches: NDArray[np.complex64] | None = None
    network_image: ObjectImage | None = None

    def save(self, path: str | Path) -> None:
        """Write CXI: object, coverage, variance, probe, geometry and summary."""
        write_reconstruction(
            path,
            self.image,
            geometry=self.geometry,
            coverage=self.coverage,
            variance=self.variance,
            probe=self.probe,
            residuals=self.residuals,
            refined_from=self.network_image,
            summary=self.summary,
        )

    def save_picture(self, path: str | Path, title: str = "") -> None:
        """Write a PNG of amplitude and phase where light fell. title: by default `self.title`."""
        from ptychow.figures import reconstruction_figure

        reconstruction_figure(
            path,
            None,
            self.image.image,
            region=self.lit,
            pixel_size=self.geometry.pixel_size,
            origin=self.image.origin,
            title=title or self.title,
        )

    @property
    def title(self) -> str:
        """Scan and Model, and before them whether use of the Model was forced, or what it gave is doubtful."""
        forced = any(words.startswith(FORCED) for words in self.warnings)
        mark = FORCED if forced else "doubtful: " if self.summary["light"] in ("amber", "red") else ""
        refined = "" if self.network_image is None else ", refined"
        return f"{mark}{self.summary['scan']}, {self.summary['model']}{refined}"

    @property
    def lit(self) -> NDArray[np.bool_]:
        """(Y, X) True where the coverage exceeds a tenth of its largest value."""
        return self.coverage > 0.1 * self.coverage.max()


def reconstruct(
    scan: Scan | str | Path,
    model: Model | str | Path,
    *,
    stitching: Stitching = "probe",
    scale: Literal["scan", "model"] = "scan",
    batch_size: int = 64,
    engine: str = "torch",
    device: str = "auto",
    precision: str | None = None,
    threads: int | None = None,
    force: bool = False,
    keep_patches: bool = False,
    advance: Callable[[int], object] = lambda frames: None,
    on_sweep: Callable[[int], object] = lambda sweep: None,
) -> Reconstruction:
    """Reconstruct a scan, or that of a file, with a Model, or with the one of a file or name.

    stitching: weights from the probe, or the notebooks' uniform central 12 x 12 pixels. scale: count scale measured on
    the scan's first frames, or the Model's own. engine, device, precision, threads: as `engines.open_engine` takes
    them; what it has to measure it measures on the scan's first frames. force: go on where `Model.check` refuses.
    keep_patches: give them back too (in memory). advance: called with the number of frames finished; on_sweep: then,
    while their patches are brought to one constant, as `solve_constants` has it. Frames without counts are left out,
    with a warning: a network would make an object of them too.
    Raises MismatchError, and InputError for bad frames or positions (that can be no scan's: unless forced).
    """
    scan = scan_of(scan)
    for name, number in (("batch_size", batch_size), ("threads", threads)):
        if number is not None and number < 1:
            raise InputError("none", field=name, found=number, expected="1 or more")
    model = Model.of(model)
    warnings = [*model.check(scan, force), *_check_positions(scan, force)]
    preparation = model.prepare_for(scan, scale)
    weight = patch_weight(model, stitching)
    first = None
    if engine == "auto" or precision == "int8":
        with about(scan.name):
            first = preparation.apply(scan.frames[: min(CHECKED_FRAMES, len(scan))])
    opened = open_engine(model, engine, precision, device, threads, batch_size, first)
    positions = scan.positions_px / preparation.pixel_ratio(scan.frame_shape)
    canvas = Canvas(positions, weight)
    solve = model.card.gauge == "constant-free"
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="ptychow-") as folder:
        patches = (
            room_for_patches((len(scan), *weight.shape), Path(folder, "patches")) if solve or keep_patches else None
        )
        passed = _Pass(scan, positions, model, preparation, opened, len(weight))

        def finish(indices: NDArray[np.int64], inputs: NDArray[np.float32], found: NDArray[np.complex64]) -> None:
            """Judge and place a batch, while the network has the next."""
            passed.note(indices, inputs, found)
            batch = central_crop(found, len(weight))
            if not solve:
                canvas.add(batch, positions[indices])
            if patches is not None:
                patches[indices] = batch

        with Behind() as behind:
            for batch in passed.batches(batch_size):
                behind.do(finish, *batch)
                advance(passed.batch_length)
        lit = np.flatnonzero(passed.lit)
        if not lit.size:
            raise InputError("no frame holds counts", file=scan.name, field="frames", remedy="Was the shutter open?")
        if solve and patches is not None:
            constants = stitch_solved(canvas, patches, positions, lit, folder, on_sweep)
            if keep_patches:
                patches *= constants[:, None, None]
        kept = np.array(patches) if keep_patches else None
        patches = None  # a memory map is closed before its folder goes
    verdict = passed.verdict()
    return finished(
        canvas,
        model,
        preparation,
        scan,
        opened,
        frames=len(scan),
        dark=len(scan) - len(lit),
        seconds=time.perf_counter() - started,
        stitching=stitching,
        residuals=passed.residuals,
        warnings=[*warnings, *passed.warnings(), *unsaid(verdict, warnings)],
        light=verdict.light,
        sampled=(passed.sample.inputs, positions[passed.sample.indices]),
        patches=kept,
        fingerprint=scan.fingerprint(),
        saturated_pixels=passed.saturated,
        window_disagreement=passed.window_disagreement,
        network_frames_per_second=len(scan) / passed.seconds,
    )


def _check_positions(scan: Scan, force: bool) -> list[str]:
    """What can be no scan's about the positions, as `Model.check` tells it; raises InputError unless `force`."""
    positions = scan.positions_px
    pattern = scan_pattern(positions)
    found = impossible(pattern, pattern.step, min(scan.frame_shape))
    if found and not force:
        raise InputError(
            found, file=scan.name, field="positions", remedy="Correct them (--map, --positions), or --force"
        )
    return [FORCED + found] if found else []


def finished(
    canvas: Canvas,
    model: Model,
    preparation: Preparation,
    scan: Scan,
    engine: Engine,
    *,
    frames: int,
    dark: int,
    seconds: float,
    stitching: Stitching,
    residuals: NDArray[np.float32],
    warnings: list[str],
    light: Light,
    sampled: tuple[NDArray[np.float32], NDArray[np.float64]],
    patches: NDArray[np.complex64] | None = None,
    **more: Any,
) -> Reconstruction:
    """The Reconstruction of a stitched canvas, offline and live.

    scan: whose name and geometry it has. frames, dark: how many there were, and how many of them held no counts.
    residuals: (frames,). light: what was seen of them says of the Model's use (`trust.judge`). sampled: network inputs
    and positions (canvas pixels) of some frames, which the object is tried on. more: entries of the summary.
    """
    known = residuals[np.isfinite(residuals)]
    image = canvas.object_image(
        f"network {model.card.network} of the Model {model.name}, {frames} frames of {scan.name}, "
        f"stitched by {stitching}"
    )
    # Cropped patches leave a rim without an object, which no frame is explained by.
    whole = stitching == "probe"
    left = object_residual(model, preparation, scan.frame_shape, image, *sampled) if whole else None
    return Reconstruction(
        image,
        canvas.coverage(),
        canvas.variance(),
        preparation.output_geometry(scan.geometry, scan.frame_shape),
        model.probe,
        tuple(warnings),
        {
            "scan": scan.name,
            "model": model.name,
            "network": model.card.network,
            "frames": frames,
            "frames_without_counts": dark,
            "seconds": seconds,
            "frames_per_second": frames / seconds,
            "engine": engine.name,
            "device": str(engine.device),
            "precision": engine.precision,
            "stitching": stitching,
            "constants": "absolute phases, none" if model.card.gauge == "absolute" else "solved from overlaps",
            "count_scale": preparation.scale_value,
            "median_residual": float(np.median(known)) if known.size else None,
            "object_residual": left,
            "disagreement": canvas.disagreement(),
            "light": light,
            "warnings": warnings,
            "versions": software_versions((*OWN_LIBRARIES, *ENGINES[engine.name].needs)),
            "model_versions": model.card.versions,
            **more,
        },
        residuals,
        patches,
    )


class _Pass:
    """One pass of a scan's frames through preparation and network, and what was met on the way."""

    def __init__(
        self,
        scan: Scan,
        positions: NDArray[np.float64],
        model: Model,
        preparation: Preparation,
        engine: Engine,
        size: int,
    ) -> None:
        self.scan, self.positions, self.preparation, self.engine, self.size = scan, positions, preparation, engine, size
        self.watch = Watch(model, preparation, scan.frame_shape, memory=len(scan))
        self.sample = FrameSample()
        self.disagreements: list[float] = []
        self._to_next_window = WINDOW
        self.residuals = np.full(len(scan), np.nan, np.float32)
        self.lit = np.zeros(len(scan), bool)
        self.saturated = 0
        self.seconds = 0.0
        self.batch_length = 0

    def batches(
        self, batch_size: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.complex64]]]:
        """Indices, network inputs (b, 1, n, n) and complex patches (b, n, n) of the frames that hold counts, a batch at
        a time: for `note`.
        """
        for indices, frames in self.scan.batches(batch_size):
            began = time.perf_counter()
            with about(self.scan.name):
                inputs = self.preparation.apply(frames)
                self.saturated += int(self.preparation.count_saturated(frames).sum())
            lit = self.watch.lit(inputs)
            patches = self.engine.predict(inputs[lit]) if lit.any() else np.zeros((0, *inputs.shape[2:]), np.complex64)
            self.seconds += time.perf_counter() - began
            self.lit[indices] = lit
            self.batch_length = len(indices)
            yield indices[lit], inputs[lit], patches

    def note(self, indices: NDArray[np.int64], inputs: NDArray[np.float32], patches: NDArray[np.complex64]) -> None:
        """What a batch says of the Model; batches in their order."""
        self.residuals[indices] = self.watch.see(inputs, patches)
        self.sample.see(indices, inputs)
        self._compare(patches, self.positions[indices])

    def _compare(self, patches: NDArray[np.complex64], positions: NDArray[np.float64]) -> None:
        """Measure now and then, as `calibrate_light` did, how much neighbours disagree."""
        self.watch.place(patches, positions)
        self._to_next_window -= len(patches)
        if self._to_next_window <= 0 and self.watch.model.card.disagreement is not None:
            found = self.watch.disagreement()
            self.disagreements += [] if found is None else [found]
            self._to_next_window = max(WINDOW, len(self.scan) // MOST_WINDOWS)

    def warnings(self) -> list[str]:
        """What the user should know of the frames, in words."""
        found = []
        if not self.lit.all():
            dark = counted(int((~self.lit).sum()), "frame")
            found.append(f"without counts, left out: {dark} (the first: {self.lit.argmin()})")
        if self.saturated:
            cut = f"cut at {self.preparation.saturation:g} counts"
            found.append(f"{counted(self.saturated, 'saturated pixel')}, {cut}")
        return found

    def verdict(self) -> Verdict:
        """What all of its frames say of the Model's use."""
        return judge(self.watch.model.card, replace(self.watch.evidence(), disagreement=self.window_disagreement))

    @property
    def window_disagreement(self) -> float | None:
        """What the light judges: the median over windows of frames; None where it was not measured."""
        whole = self.size == len(self.watch.model.mean_pattern)
        return float(np.median(self.disagreements)) if self.disagreements and whole else None


def unsaid(verdict: Verdict, warnings: Sequence[str]) -> Iterator[str]:
    """The verdict's reasons, in words, but for those of a kind (what stands before the colon) that has been told."""
    told = {words.removeprefix(FORCED).partition(":")[0] for words in warnings}
    return (words for words in verdict.reasons if words.partition(":")[0] not in told)
