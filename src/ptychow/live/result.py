"""The end of a live scan: the constants solved once more, in index order, and what `reconstruct` would have given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats import read_scan
from ptychow.live.counters import Counts
from ptychow.live.join import DARK
from ptychow.live.pipeline import LiveScan
from ptychow.live.records import now
from ptychow.live.spool import SlotFile, SpooledPatches
from ptychow.reconstruction import Reconstruction, finished
from ptychow.scan import Scan
from ptychow.stitch import Canvas
from ptychow.stitching import STITCHED_AT_A_TIME, stitch_solved
from ptychow.words import counted


def finish(scan: LiveScan, reason: str) -> Reconstruction:
    """The Reconstruction of the frames that met their positions, which equals that of the same frames read from a file
    up to the spool's float16, where the bad pixels are known: live they are looked for in the first frames, offline in
    frames of the whole scan. reason: why the scan is over.

    Raises InputError where there is no such frame, PtychoWError where the disk has no room to solve the constants.
    """
    scan.settle()
    counts, placed = final_counts(scan), scan.placed()
    slots, positions = scan.join.find(placed)
    bright = np.flatnonzero(slots != DARK)
    if not bright.size:
        found = f"{counts.received} frames, {scan.join.positions} positions"
        why = "; ".join(scan.intake.warnings[:2]) or None
        raise InputError("no frame with counts and a position was received", file=scan.name, found=found, remedy=why)
    assert scan.described is not None and scan.preparation is not None
    began = now()
    positions = scan.to_pixels(positions)
    canvas = Canvas(positions, scan.weight)
    patches = SpooledPatches(scan.patches, slots[bright])
    everything = np.arange(len(bright))
    if scan.model.card.gauge == "constant-free":
        stitch_solved(canvas, patches, positions[bright], everything, scan.folder)
    else:
        for start in range(0, len(bright), STITCHED_AT_A_TIME):
            part = everything[start : start + STITCHED_AT_A_TIME]
            canvas.add(patches[part], positions[bright[part]])
    scan.mosaic.show(canvas)
    scan.judge()
    there = np.isin(scan.sample.indices, placed)
    places = scan.join.find(scan.sample.indices[there])[1]
    return finished(
        canvas,
        scan.model,
        scan.preparation,
        scan.described,
        scan.engine,
        frames=len(placed),
        dark=len(placed) - len(bright),
        seconds=now() - scan.began,
        stitching=scan.settings.stitching,
        residuals=scan.residuals[placed],
        warnings=[*scan.intake.warnings, *_warnings(counts), *scan.verdict.reasons],
        saturated_pixels=scan.saturated,
        ended=reason,
        counters=counts.to_dict(),
        indices_missing=_missing(placed, counts),
        latency_seconds=scan.counters.latency(),
        final_solve_seconds=now() - began,
        light=scan.verdict.light,
        sampled=(scan.sample.inputs[there], scan.to_pixels(places)),
    )


def final_counts(scan: LiveScan) -> Counts:
    """The counters at the end, when first to last index says what was expected if nothing else did."""
    if scan.counters.counts().expected is None and scan.intake.largest_index >= 0:
        scan.counters.expect(scan.intake.largest_index + 1)
    counts = scan.counters.counts()
    imbalance = counts.imbalance()
    if imbalance is not None:
        scan.intake.warn(imbalance)
    return counts


def _missing(placed: NDArray[np.int64], counts: Counts, most: int = 1000) -> list[int]:
    """The first of the expected frames that are not in the object."""
    return np.setdiff1d(np.arange(counts.expected or 0), placed)[:most].tolist()


def _warnings(counts: Counts) -> list[str]:
    said = (
        (counts.lost, "lost: expected, and never received"),
        (counts.overruns, "lost by the transport before they could be received"),
        (counts.corrupt, "received damaged"),
        (counts.skipped, "skipped: the machine or its disk could not keep up"),
        (counts.waiting, "without a position, which never came"),
        (counts.refused, "too far away for the mosaic"),
        (counts.dark, "without counts, left out"),
    )
    return [f"{counted(number, 'frame')} {words}" for number, words in said if number]


@dataclass(frozen=True)
class KeptFrames:
    """Frames in a slot file, in the order of their indices: `scan.Frames`. slots: (N,)."""

    file: SlotFile
    slots: NDArray[np.int32]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W)."""
        return (len(self.slots), *self.file.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored values."""
        return self.file.dtype

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """As `Frames`."""
        chosen = self.slots[index]
        return self.file.get(int(chosen)) if np.ndim(chosen) == 0 else np.stack([self.file.get(int(s)) for s in chosen])


def detectors_scan(scan: LiveScan, path: Path) -> Scan:
    """The frames of the detector's own file at the positions that came live: the k-th frame there is that of index k.

    Raises InputError where the file cannot be read, or does not hold as many frames as were expected.
    """
    placed, counts = scan.placed(), final_counts(scan)
    positions = np.zeros((counts.expected or 0, 2))
    positions[placed] = scan.join.find(placed)[1]
    table, unit = scan.folder / "positions.npy", "m" if scan.unit == "m" else "px"
    np.save(table, positions)
    stored = read_scan(
        path, mapping={"positions_file": str(table), "position_columns": "1,2", "position_unit": unit}
    ).select(placed)
    if stored.geometry.pixel_size is not None or scan.described is None:
        return stored
    return replace(stored, geometry=scan.described.geometry)


def kept_without_positions(scan: LiveScan) -> tuple[KeptFrames, NDArray[np.int64]] | None:
    """The frames that were kept, and their indices, where none of them met its position; else None."""
    indices = scan.kept_slots.where(lambda slots: slots >= 0)
    if scan.kept is None or not indices.size or kept_scan(scan) is not None:
        return None
    return KeptFrames(scan.kept, scan.kept_slots[indices]), indices


def kept_scan(scan: LiveScan) -> Scan | None:
    """The frames that were kept and met their positions, in index order; None where there are none."""
    placed = scan.placed()
    placed = placed[scan.kept_slots[placed] >= 0]
    if scan.kept is None or scan.described is None or not placed.size:
        return None
    return replace(
        scan.described,
        frames=KeptFrames(scan.kept, scan.kept_slots[placed]),
        positions=scan.join.find(placed)[1],
        position_unit="m" if scan.unit == "m" else "px",
    )
