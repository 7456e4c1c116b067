"""One scan on its way from records to a mosaic: decoded, prepared, inferred, joined, stitched.

Receivers (any number of threads) hand records to `LiveScan.intake`; one worker calls `LiveScan.work` until the scan is
`over`. A frame goes through the network before it meets its position: late positions hold nothing up, and where a patch
lies is decided by its index alone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychow.detector import SCALE_FRAMES, Preparation
from ptychow.engines.base import Engine
from ptychow.errors import InputError
from ptychow.live.description import PATIENCE_FRAMES, described_late, is_ready, prepare, waits_for_start
from ptychow.live.intake import Intake
from ptychow.live.join import DARK, ByIndex, Join
from ptychow.live.mosaic import Mosaic, near_enough
from ptychow.live.queue import Frame
from ptychow.live.records import LARGEST_INDEX, Corrupt, FrameRecord, PositionRecord, Start, now
from ptychow.live.settings import LiveSettings
from ptychow.live.spool import PatchSpool, SlotFile
from ptychow.model import Model
from ptychow.scan import Scan
from ptychow.stitch import central_crop
from ptychow.stitching import patch_weight
from ptychow.trust import FrameSample, Verdict, Watch

# Positions joined, and patches of late ones stitched, at a time.
POSITIONS_AT_A_TIME, LATE_AT_A_TIME = 4096, 64
JUDGE_SECONDS = 1.0  # between two looks at the light


class LiveScan:
    """One scan being received. folder: for its spools, emptied by whoever made it. name: what to call it.

    intake: where its records go. mosaic: the object so far, a preview where `is_preview`; another one where it began
    again. join: what met its position. patches: all of them, on disk. residuals: by index. kept: frames that were kept,
    by `kept_slots`. path: (b, 3) each, position (object pixels) and residual of the frames in this mosaic. latest: root
    counts (n, n) of the newest frame.
    described, preparation: the scan as its first frames and the detector describe it; None before those have come.
    verdict: the light of the latest frames. sample: frames that the finished object is tried on.
    """

    def __init__(self, model: Model, engine: Engine, settings: LiveSettings, folder: Path, name: str) -> None:
        self.model, self.engine, self.settings, self.folder, self.name = model, engine, settings, folder, name
        self.intake = Intake(folder, memory=settings.memory, disk=settings.disk, every=settings.every)
        self.counters = self.intake.counters
        self.weight = patch_weight(model, settings.stitching)
        self.is_preview = model.card.gauge == "constant-free"
        self.mosaic = Mosaic(self.weight, turn=self.is_preview)
        self.join = Join()
        self.patches = PatchSpool(folder / "patches", len(self.weight), settings.patch_disk)
        self.residuals = ByIndex(np.nan, np.float32)
        self.kept: SlotFile | None = None
        self.kept_slots = ByIndex(-1, np.int32)
        self.unit: str | None = None
        self.described: Scan | None = None
        self.preparation: Preparation | None = None
        self.sample = FrameSample()
        self.saturated = 0
        self.began = now()
        self.path: list[NDArray[np.float32]] = []
        self.latest: NDArray[np.float32] | None = None
        self._start: Start | None = None  # as far as it has been heeded
        self._pixel: float | None = None  # of the mosaic, in the positions' unit
        self._watch: Watch | None = None
        self._joined_when_settled = 0
        self.verdict, self._judged_at = Verdict("unknown", ()), now()

    def judge(self) -> None:
        """Look at the latest frames again: `verdict`. By the worker, once in `JUDGE_SECONDS` and at the end."""
        if self._watch is not None:
            self.verdict, counts = self._watch.verdict(), self.counters.counts()
            if counts.refused > counts.stitched:
                said = f"positions: {counts.refused:,} of {counts.joined:,} frames lie too far from the others"
                self.verdict = Verdict("red", (said, *self.verdict.reasons))
        self._judged_at = now()

    @property
    def pixel_size(self) -> float | None:
        """Of the mosaic, metres, where that is known."""
        if self.described is None or self.preparation is None:
            return None
        return self.preparation.output_geometry(self.described.geometry, self.described.frame_shape).pixel_size

    def lag(self) -> float:
        """Seconds that the frame that waits longest for the network has waited."""
        oldest = self.intake.queue.oldest
        return 0.0 if oldest is None else now() - oldest

    def is_held(self) -> bool:
        """Whether frames wait for the detector to describe them."""
        return self.preparation is None and len(self.intake.queue) > 0 and waits_for_start(self.intake, self.settings)

    def over(self) -> str | None:
        """Why the scan is over, or None while it is not."""
        counts, intake = self.counters.counts(), self.intake
        unheeded = self.described is not None and intake.start is not self._start
        if counts.queued or intake.positions or unheeded:
            return None
        silence, complete = intake.silence(), intake.is_complete()
        settled = intake.nothing_more or silence > self.settings.settle_seconds
        if complete and counts.waiting == 0 and (counts.decoded > 0 or settled):
            return intake.ended or "complete"
        if intake.nothing_more or (intake.ended is not None and settled):
            return intake.ended or "the source has ended"
        if self.settings.idle_seconds is not None and counts.received and silence > self.settings.idle_seconds:
            return f"no frame for {silence:.0f} s"
        return None

    def work(self, timeout: float) -> bool:
        """One batch of what there is, or nothing within `timeout` seconds. Whether anything was done.

        Raises InputError where the scan and the Model do not belong together.
        """
        queue, size = self.intake.queue, self.settings.batch_size
        self._heed_late_start()
        self._recover()
        if now() - self._judged_at >= JUDGE_SECONDS:
            self.judge()
        placed = self._take_positions()
        if self.preparation is None:
            if not is_ready(self.intake, self.settings):
                queue.wait(SCALE_FRAMES, timeout)
                return placed
            first = sorted(queue.take(PATIENCE_FRAMES), key=lambda record: record.index)
            self._prepare(first)
            for start in range(0, len(first), size):
                self._process(first[start : start + size])
            return True
        if len(queue) < size and not self.intake.nothing_more:
            queue.wait(1, 0 if placed else timeout)
            if len(queue):
                queue.wait(size, self.settings.batch_seconds)
        frames = queue.take(size)
        self._process(frames)
        return placed or bool(frames)

    def close(self) -> None:
        """Give files back."""
        for part in (self.intake.queue, self.patches, self.kept):
            if part is not None:
                part.close()

    def _prepare(self, first: list[Frame]) -> None:
        """Describe the scan by its first frames, as a file would, and prepare for it as `reconstruct` does."""
        self._start = self.intake.start
        found = prepare(first, self._start, self.intake, self.model, self.settings, self.name)
        self.described, self.preparation = found
        self._watch = Watch(self.model, self.preparation, self.described.frame_shape)

    def _heed_late_start(self) -> None:
        """Use what can be used of a Start that came after the preparation, and say what cannot."""
        start = self.intake.start
        if self.described is None or start is None or start is self._start:
            return
        before, self._start = self.described, start
        self.described, words = described_late(before, start, self.settings.pixel_size)
        if self.described is not before:
            words += self.model.check(self.described, force=True)
        for each in words:
            self.intake.warn(each)

    def _process(self, frames: list[Frame]) -> None:
        """Decode, prepare, infer, spool, and stitch what has its position."""
        records, inputs = self._read(frames)
        if not records:
            return
        assert self._watch is not None and self.preparation is not None
        lit = self._watch.lit(inputs)
        indices = np.array([record.index for record in records])
        patches = np.zeros((len(records), *self.weight.shape), np.complex64)
        if lit.any():
            found = self.engine.predict(inputs[lit])
            self.residuals[indices[lit]] = self._watch.see(inputs[lit], found)
            self.sample.see(indices[lit], inputs[lit])
            patches[lit] = PatchSpool.rounded(central_crop(found, len(self.weight)))
        self.latest = self.preparation.root_counts(inputs[-1:])[0]
        slots = np.full(len(records), DARK, np.int32)
        kept = np.ones(len(records), bool)
        for number in np.flatnonzero(lit):
            slot = self.patches.put(patches[number])
            kept[number] = slot is not None
            slots[number] = DARK if slot is None else slot
        if not kept.all():
            self.intake.warn("no room on the disk for patches: frames are skipped")
        chosen = np.flatnonzero(kept)
        self._keep([records[number] for number in chosen])
        placed = self.join.add_patches(indices[chosen], slots[chosen])
        bright = int((slots[chosen] != DARK).sum())
        self.counters.add(
            queued=-len(records),
            skipped=len(records) - len(chosen),
            decoded=len(chosen),
            dark=len(chosen) - bright,
            inferred=bright,
            waiting=bright - int(placed.sum()),
        )
        stitched = chosen[placed]
        self._stitch(indices[stitched], patches[stitched])
        done = now()
        self.counters.took([done - records[number].received_at for number in stitched])

    def _read(self, frames: list[Frame]) -> tuple[list[FrameRecord], NDArray[np.float32]]:
        """Decoded frames and their network inputs; those that cannot be had are counted as corrupt."""
        assert self.described is not None
        records, expected = [], self.described.frame_shape
        for frame in frames:
            record = frame.decode()
            if isinstance(record, Corrupt):
                self.intake.spoilt(frame.index, record.reason)
            elif record.frame.shape != expected:
                self.intake.spoilt(frame.index, f"a frame of {record.frame.shape} pixels among others of {expected}")
            else:
                records.append(record)
        try:
            return records, self._inputs(records)
        except InputError:  # of one of them: find out which
            inputs = []
            for record in records.copy():
                try:
                    inputs.append(self._inputs([record]))
                except InputError as error:
                    records.remove(record)
                    self.intake.spoilt(record.index, str(error))
            return records, np.concatenate([self._inputs([]), *inputs])

    def _inputs(self, records: list[FrameRecord]) -> NDArray[np.float32]:
        assert self.described is not None and self.preparation is not None
        if not records:
            return np.zeros((0, 1, self.model.patch_size, self.model.patch_size), np.float32)
        frames = np.stack([record.frame for record in records])
        inputs = self.preparation.apply(frames)
        self.saturated += int(self.preparation.count_saturated(frames).sum())
        return inputs

    def _keep(self, records: list[FrameRecord]) -> None:
        """Put whole frames by, where that was asked for."""
        for record in records if self.settings.keep_frames else ():
            if self.kept is None:
                path, frame = self.folder / "kept", record.frame
                self.kept = SlotFile(path, frame.shape, frame.dtype, self.settings.disk)
            if not np.can_cast(record.dtype, self.kept.dtype):
                self.intake.warn(f"frames of {record.dtype} among others of {self.kept.dtype}: not kept")
                continue
            slot = self.kept.put(record.frame)
            if slot is None:
                self.intake.warn("no room on the disk to keep all frames")
            else:
                self.kept_slots[np.array([record.index])] = slot

    def _take_positions(self) -> bool:
        """Join positions that have come, and stitch the patches that waited for them."""
        came = self.intake.positions
        told = self.settings.pixel_size is not None or self.intake.has_told(self.settings.idle_seconds)
        if came and came[0].unit == "m" and not told:
            self.intake.warn("positions in metres wait until the detector has told its geometry (--pixel-size-nm)")
            return False
        taken: dict[int, PositionRecord] = {}
        for _ in range(min(len(came), POSITIONS_AT_A_TIME)):
            record = came.popleft()
            self.unit = self.unit or record.unit
            if not (0 <= record.index <= LARGEST_INDEX and np.isfinite(record.position).all()):
                self.intake.warn(f"position {record.position} of index {record.index}: cannot be, not used")
            elif record.unit != self.unit:
                self.intake.warn(f"position in {record.unit} among others in {self.unit}: not used")
            elif taken.setdefault(record.index, record).position != record.position:
                self._contradicted(record.index)
        if not taken:
            return False
        indices = np.array(list(taken))
        positions = np.array([record.position for record in taken.values()])
        held = self.join.find(indices)[1]
        for index in indices[np.isfinite(held[:, 0]) & (held != positions).any(axis=1)].tolist():
            self._contradicted(index)
        waited = indices[self.join.add_positions(indices, positions)]
        self.counters.add(waiting=-len(waited))
        for start in range(0, len(waited), LATE_AT_A_TIME):
            late = waited[start : start + LATE_AT_A_TIME]
            self._stitch(late, self.patches.get(self.join.find(late)[0]))
        done = now()
        self.counters.took([done - taken[index].received_at for index in waited.tolist()])
        return True

    def _contradicted(self, index: int) -> None:
        if not any("the first holds" in warning for warning in self.intake.warnings):
            self.intake.warn(f"different positions came for frame {index}, and perhaps others: the first holds")

    def _stitch(self, indices: NDArray[np.int64], patches: NDArray[np.complex64]) -> None:
        """Put patches (b, m, m) of frames that have their position into the mosaic."""
        if not len(indices):
            return
        fits = self.mosaic.fits(self.to_pixels(self.join.find(indices)[1]))
        if not fits.all():
            self.intake.warn("positions too far apart for one mosaic: frames far from most others are refused")
        self._draw(indices[fits], patches[fits])
        self.counters.add(joined=len(indices), refused=int((~fits).sum()), stitched=int(fits.sum()))

    def _draw(self, indices: NDArray[np.int64], patches: NDArray[np.complex64]) -> None:
        """Add patches (b, m, m) of frames whose positions were found to fit."""
        assert self._watch is not None
        positions = self.to_pixels(self.join.find(indices)[1])
        self.mosaic.add(patches, positions)
        self._watch.place(patches, positions)
        self.path.append(np.column_stack([positions, self.residuals[indices]]).astype(np.float32))

    def _recover(self) -> None:
        """Settle where most frames are refused: at ever longer intervals, so that this costs no more than stitching."""
        counts = self.counters.counts()
        if counts.refused > counts.stitched and counts.joined >= 2 * self._joined_when_settled:
            self._joined_when_settled = counts.joined
            self.settle()

    def settle(self) -> None:
        """Refuse the frames that are not `placed`, and no others: where it did, the mosaic begins again. To be called
        between two batches.
        """
        placed = self.placed()
        slots, positions = self.join.find(placed)
        lit = slots != DARK
        if not lit.any():
            return
        indices, slots, places = placed[lit], slots[lit], self.to_pixels(positions[lit])
        if not self.mosaic.holds(places):
            assert self._watch is not None
            self.path, self.mosaic = [], Mosaic(self.weight, turn=self.is_preview)
            self._watch.forget_places()
            self.mosaic.fits(places)
            for start in range(0, len(indices), LATE_AT_A_TIME):
                part = slice(start, start + LATE_AT_A_TIME)
                self._draw(indices[part], self.patches.get(slots[part]))
        more = len(indices) - self.counters.counts().stitched
        self.counters.add(stitched=more, refused=-more)

    def placed(self) -> NDArray[np.int64]:
        """Indices, in order, of the frames (dark ones too) that met their position, near enough to the others' for one
        mosaic. In which order frames and positions came makes no difference.
        """
        met = self.join.placed()
        slots, positions = self.join.find(met)
        lit = slots != DARK
        return met[near_enough(self.to_pixels(positions), len(self.weight), lit)] if lit.any() else met

    def to_pixels(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions (b, 2) as they came, in pixels of the mosaic. Raises InputError where the pixel is unknown."""
        if self._pixel is None:
            assert self.described is not None and self.preparation is not None
            scan = replace(self.described, position_unit="m" if self.unit == "m" else "px")
            self._pixel = self.preparation.pixel_ratio(scan.frame_shape) / scan.to_pixels(np.ones(1))[0]
        return positions / self._pixel
