"""What `ptychow live` writes: the object of each scan, and what follows once that is safe."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ptychow.cli.common import Report

if TYPE_CHECKING:
    from threading import Event

    from ptychow.live.pipeline import LiveScan
    from ptychow.reconstruction import Reconstruction


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
    what `Session` calls `save` and `follow_up`.
    """

    report: Report
    target: Path
    keep_frames: bool
    refining: Refining | None

    def require_room(self, inputs: Sequence[Path]) -> None:
        """Raise InputError where an object, or frames, of any scan would be written over one of the inputs."""
        from ptychow.errors import InputError

        name, suffix = re.escape(self.target.stem), re.escape(self.target.suffix)
        written, folder = re.compile(rf"{name}(_\d+)?(_frames)?{suffix}"), self.target.resolve().parent
        for given in inputs:
            if given.resolve().parent == folder and written.fullmatch(given.name):
                raise InputError(
                    "would overwrite the input", file=given, field="--output", remedy="Choose another name"
                )

    def save(self, scan: LiveScan, result: Reconstruction) -> None:
        """Write the object: what must not be lost."""
        result.save(self._path(scan))
        self.report.wrote("object", self._path(scan))

    def tell(self, scan: LiveScan, result: Reconstruction, given_up: Event) -> None:
        """Pass the result's warnings on."""
        for warning in result.warnings:
            self.report.warn(warning)

    def write_frames(self, scan: LiveScan, result: Reconstruction, given_up: Event) -> None:
        """Write the frames that were kept, where that is wanted."""
        from ptychow.formats import write_scan
        from ptychow.live.result import kept_scan

        path = self._path(scan)
        kept, beside = kept_scan(scan) if self.keep_frames else None, path.with_stem(f"{path.stem}_frames")
        if kept is not None:
            write_scan(beside, kept)
            self.report.wrote("frames", beside)

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

    def _path(self, scan: LiveScan) -> Path:
        return self.target.with_stem(scan.name)
