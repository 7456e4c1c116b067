"""What `ptychow live` writes: the object of each scan, and what follows once that is safe."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ptychow.cli.common import Report

if TYPE_CHECKING:
    from threading import Event

    import numpy as np
    from numpy.typing import NDArray

    from ptychow.live.pipeline import LiveScan
    from ptychow.reconstruction import Reconstruction
    from ptychow.scan import Frames


@dataclass(frozen=True)
class Refining:
    """How to refine a result. file: of the detector, with the frames; None: with those that were kept."""

    file: Path | None
    epochs: int | None
    seconds: float | None
    device: str

    def require(self, watched: Sequence[Path]) -> None:
        """Raise MissingExtraError without Pty-Chi, InputError where the file will not do: now, not after the scan.

        A file that is not there yet, or is among those `watched`, is still to be written.
        """
        from ptychow.errors import InputError
        from ptychow.formats import recognise
        from ptychow.solver.engine import require_pty_chi

        require_pty_chi()
        if self.file is None or self.file in watched:
            return
        if self.file.exists():
            recognise(self.file)
        elif not self.file.parent.is_dir():
            raise InputError("no such folder", file=self.file, field="--refine-from")


@dataclass(frozen=True)
class Results:
    """Writes what becomes of a session's scans beside each other, by their names, and reports it.

    target: of the first scan's object. keep_frames: write the frames as a scan file, too. The methods that write are
    what `Session` calls `save`, `rescue` and `follow_up`.
    """

    report: Report
    target: Path
    keep_frames: bool
    refining: Refining | None

    def require_room(self, inputs: Sequence[Path]) -> None:
        """Raise InputError where an object, or frames, of any scan would be written over one of the inputs, or over
        those of an earlier scan, which cannot be measured again.
        """
        from ptychow.errors import InputError

        name, suffix = re.escape(self.target.stem), re.escape(self.target.suffix)
        written, folder = re.compile(rf"{name}(_\d+)?(_frames|_preview)?{suffix}"), self.target.resolve().parent
        for given in inputs:
            if given.resolve().parent == folder and written.fullmatch(given.name):
                raise InputError(
                    "would overwrite the input", file=given, field="--output", remedy="Choose another name"
                )
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if written.fullmatch(path.name):
                remedy = "Choose another name, or move it away"
                raise InputError("an earlier scan would be overwritten", file=path, field="--output", remedy=remedy)

    def save(self, scan: LiveScan, result: Reconstruction) -> None:
        """Write the object: what must not be lost."""
        result.save(self._path(scan))
        self.report.wrote("object", self._path(scan))

    def tell(self, scan: LiveScan, result: Reconstruction, given_up: Event) -> None:
        """Pass the result's warnings on."""
        for warning in result.warnings:
            self.report.warn(warning)

    def write_frames(self, scan: LiveScan, result: Reconstruction, given_up: Event) -> None:
        """Write the frames that were kept, where that is wanted. Raises PtychoWError when given up."""
        from ptychow.errors import PtychoWError

        def go_on(_: int) -> None:
            if given_up.is_set():
                raise PtychoWError("given up")

        self._write_frames(scan, go_on)

    def rescue(self, scan: LiveScan) -> None:
        """Write what there is of a scan without a result: the frames that were kept, where that is wanted, and the
        object as it was shown.
        """
        from ptychow.errors import PtychoWError
        from ptychow.formats.cxi import write_reconstruction
        from ptychow.scan import Geometry

        try:
            self._write_frames(scan, lambda _: None)
        except (PtychoWError, MemoryError) as error:
            self.report.warn(f"{scan.name}: the frames cannot be written: {error or 'out of memory'}")
        with scan.mosaic.still() as canvas:
            if canvas is None:
                return
            image, coverage = canvas.object_image("preview of a live scan without a final solve"), canvas.coverage()
        path = self._path(scan, "_preview")
        summary = {"scan": scan.name, "preview": True, "counters": scan.counters.counts().to_dict()}
        geometry = Geometry(pixel_size=scan.pixel_size)
        write_reconstruction(path, image, geometry=geometry, coverage=coverage, summary=summary)
        self.report.wrote("preview", path)
        self.report.warn(f"{scan.name}: there is no result: its object as it was shown is in {path}")

    def refine(self, scan: LiveScan, result: Reconstruction, given_up: Event) -> Reconstruction:
        """The result refined, where that is wanted; as far as it has come when given up."""
        from ptychow.errors import PtychoWError
        from ptychow.live.result import detectors_scan, kept_scan
        from ptychow.refinement import refine_reconstruction

        how = self.refining
        if how is None:
            return result
        frames = kept_scan(scan) if how.file is None else detectors_scan(scan, how.file)
        if frames is None:
            raise PtychoWError("no frames were kept")
        refined = refine_reconstruction(
            result,
            frames,
            scan.model,
            epochs=how.epochs,
            seconds=how.seconds,
            device=how.device,
            on_epoch=lambda _: given_up.is_set(),
        )
        refined.save(self._path(scan))
        self.report.wrote("refined object", self._path(scan))
        return refined

    def draw_picture(self, scan: LiveScan, result: Reconstruction, given_up: Event) -> None:
        """Draw the object."""
        path = self._path(scan).with_suffix(".png")
        result.save_picture(path)
        self.report.wrote("picture", path)

    def _write_frames(self, scan: LiveScan, progress: Callable[[int], object]) -> None:
        from ptychow.formats import write_scan
        from ptychow.live.result import kept_scan, kept_without_positions

        if not self.keep_frames:
            return
        kept, alone, path = kept_scan(scan), kept_without_positions(scan), self._path(scan, "_frames")
        if kept is not None:
            write_scan(path, kept, progress)
        elif alone is not None:
            _write_alone(path, *alone, progress)
            self.report.warn(f"{scan.name}: no frame has a position: read them with --map frames=/frames --positions")
        if kept is not None or alone is not None:
            self.report.wrote("frames", path)

    def _path(self, scan: LiveScan, suffix: str = "") -> Path:
        return self.target.with_stem(scan.name + suffix)


def _write_alone(path: Path, frames: Frames, indices: NDArray[np.int64], progress: Callable[[int], object]) -> None:
    """Write frames (N, H, W) without positions, and their indices (N,), as an HDF5 file that is no scan yet."""
    from ptychow.formats.cxi import stream_frames
    from ptychow.formats.new_hdf5 import new_hdf5

    with new_hdf5(path) as (file, disk):
        stream_frames(file, disk, "frames", frames, progress)
        file["index"] = indices
