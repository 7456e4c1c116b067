"""From sources to results: threads that receive, one worker, and one `LiveScan` after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Lock, Thread
from typing import Any, Literal, TypeVar

from ptychow.engines.base import Engine
from ptychow.errors import InputError, PtychoWError, is_out_of_memory
from ptychow.live.afterwards import Afterwards, FollowUp
from ptychow.live.intake import remember
from ptychow.live.open_scan import OpenScan
from ptychow.live.pipeline import LiveScan, LiveSettings
from ptychow.live.queue import Frame
from ptychow.live.records import (
    Corrupt,
    End,
    NoPosition,
    PositionRecord,
    Record,
    Source,
    SourceBack,
    SourceLost,
    Start,
    now,
)
from ptychow.live.result import finish
from ptychow.live.waiting import Link, Wait, waits
from ptychow.model import Model
from ptychow.reconstruction import Reconstruction
from ptychow.stitching import patch_weight

State = Literal["waiting", "scanning", "silent", "finishing", "unsaved", "done", "failed"]

SILENT_AFTER = 5.0  # seconds without a record until the page says so
POLL_SECONDS = 0.1
RETRY_SECONDS = 5.0
MOST_EARLY = 1_000_000  # positions kept for a scan that has not begun

Save = Callable[[LiveScan, Reconstruction], object]
Rescue = Callable[[LiveScan], object]
Found = TypeVar("Found")


class Session:
    """Receives from sources until they end, the wanted number of scans is done, or `stop` is called.

    frames, positions: sources; positions None: the frames' source sends them too. save: writes a result; called again
    every few seconds while it raises PtychoWError (a full disk), so that nothing is lost, as the final solve is.
    rescue: what is done with a scan that comes to nothing, before its files go. follow_up: what is done with a
    result that is saved, in a thread of its own, so that the next scan does not wait: each may give back a better one,
    should end once the event is set, and what fails is a warning. optional: those of them that give way where too many
    scans wait. scans: end after so many, 0: never. name: of the scans; those after the first get a number. Raises
    InputError where the Model cannot be stitched as `settings` say.

    `state` and `message` say how things are, `warnings` what went wrong beside the scans. `scan` is the newest scan,
    `result` what became of the last finished one. begun: scans so far. astray: records that were of none of them.
    """

    def __init__(
        self,
        frames: Source,
        positions: Source | None,
        model: Model,
        engine: Engine,
        settings: LiveSettings,
        save: Save,
        *,
        rescue: Rescue = lambda scan: None,
        follow_up: Sequence[FollowUp] = (),
        optional: Collection[FollowUp] = (),
        scans: int = 1,
        name: str = "scan",
    ) -> None:
        patch_weight(model, settings.stitching)  # what is wrong with it should be said now
        self._links = [Link(frames, "frames")] + ([] if positions is None else [Link(positions, "positions")])
        self.model, self.engine, self.settings = model, engine, settings
        self.save, self.rescue = save, rescue
        self.name, self.scans = name, scans
        self.scan: LiveScan | None = None
        self.result: Reconstruction | None = None
        self.result_name = name  # of the scan whose result it is: the next one may run already
        self.message = "waiting for the first frame"
        self.warnings: list[str] = []
        self.begun = self.finished = self.astray = 0
        self.failures: list[PtychoWError] = []
        self._state: State = "waiting"
        self._open: dict[int, OpenScan] = {}
        self._newest_series = -1
        self._broken_off: set[int] = set()  # series that another one ended
        self._closed_at: float | None = None
        self._early: deque[Record] = deque(maxlen=MOST_EARLY)  # positions that came before their scan
        self._stored: list[Record] = []
        self._receivers: list[Thread] = []
        self._over = "the source has ended"
        self._lock, self._stopped, self._given_up = Lock(), Event(), Event()
        self._later = Afterwards(follow_up, optional, self._given_up, warn=self._warn, better=self._improve)

    @property
    def state(self) -> State:
        """In a word; `silent` is a scan from which nothing has come for some seconds."""
        scan = self.scan
        if self._state == "scanning" and scan is not None and scan.intake.ended is None:
            return "silent" if self._links[0].lost or scan.intake.silence() > SILENT_AFTER else "scanning"
        return self._state

    def stop(self, why: str = "stopped") -> None:
        """End the scan that runs as it is, and the session with it."""
        self._over = why
        self._stopped.set()

    def give_up(self) -> None:
        """Stop, and wait neither for a disk that is full nor for what follows a result."""
        self.stop()
        self._given_up.set()
        self._later.give_up()

    def run(self) -> None:
        """Receive and work until the end. Raises PtychoWError where a scan, or all of them, came to nothing.

        A KeyboardInterrupt ends it at once, whatever is still being done with results.
        """
        try:
            self._run()
            self._later.wait()
        except KeyboardInterrupt:
            self._later.abandon()
            raise
        if self.failures:
            raise self.failures[0]
        if self.result is None:
            why = [*self.warnings, *(str(link.wait()) for link in self._links if link.lost)]
            self._state, self.message = "failed", ": ".join(["no scan was received", *why[:1]])
            raise PtychoWError(self.message)

    def _run(self) -> None:
        with ExitStack() as sources:
            for link in self._links:
                sources.enter_context(link.source)
                link.newest = now()
            self._receivers = [Thread(target=self._receive, args=(link,), daemon=True) for link in self._links]
            for receiver in self._receivers:
                receiver.start()
            try:
                while not self._is_over():
                    self._work()
            finally:
                self._stopped.set()
                for receiver in self._receivers:
                    receiver.join()
                for running in self._open.values():
                    running.close()

    @property
    def _frames(self) -> Source:
        return self._links[0].source

    # --- receiving ---------------------------------------------------------------------------------------------------

    def _receive(self, link: Link) -> None:
        """Poll a source to its end. Whatever fails here ends the session, and is told."""
        source = link.source
        try:
            while not (self._stopped.is_set() or source.finished):
                self._poll(link)
            return
        except Exception as error:
            failure = _as_failure(error, source.name)
        self.failures.append(failure)
        self.stop(str(failure))

    def _poll(self, link: Link) -> None:
        """Bring records to their scans. Sources that wait are left alone while the queue is full."""
        newest, source = self.scan, link.source
        if source.waits and newest is not None and newest.intake.queue.full:
            self._stopped.wait(0.005)
            return
        records = source.poll(POLL_SECONDS)
        link.hear(records)
        with self._lock:
            for record in records:
                self._route(record, source)

    def _route(self, record: Record, source: Source) -> None:
        """Bring a record to its scan: that of its series, or the newest. A frame of a new series begins a new scan."""
        if isinstance(record, SourceLost | SourceBack):
            return
        if source is not self._frames:  # of positions, which say nothing of the frames
            if isinstance(record, Start | End | Corrupt | NoPosition):
                if isinstance(record, Corrupt | NoPosition):
                    remember(self.warnings if self.scan is None else self.scan.intake.warnings, record.reason)
                return
            if source.waits:  # they lie in a file, and hold for every scan
                self._stored.append(record)
                if not self._open:
                    return
        series = self._newest_series if record.series is None else record.series
        if series > self._newest_series and isinstance(record, Start | Frame) and not self._has_enough():
            self._begin(series)
        running = self._open.get(series)
        if running is not None:
            running.receive(record)
        elif isinstance(record, PositionRecord) and record.series is None and not self._has_just_closed():
            self._early.append(record)
        else:
            self.astray += 1
            if isinstance(record, Corrupt | NoPosition):
                remember(self.warnings, record.reason)
            elif series > self._newest_series:
                why = "not one of the scans that were asked for" if self._has_enough() else "no frame of it came"
                remember(self.warnings, f"series {series} was passed over: {why}")

    def _has_enough(self) -> bool:
        """Whether those scans have all come that were asked for, those that were broken off aside."""
        complete = [running.scan.intake for running in self._open.values()]
        ended = sum(intake.ended is not None or intake.is_complete() for intake in complete)
        broken = len(self._broken_off - set(self._open))
        return 0 < self.scans <= self.finished - broken + ended

    def _has_just_closed(self) -> bool:
        """Whether a scan was over so lately that positions may still be its own."""
        return self._closed_at is not None and now() - self._closed_at < self.settings.settle_seconds

    def _begin(self, series: int) -> None:
        """A new scan; what came of the one before is all there will be."""
        for number, before in self._open.items():
            if before.scan.intake.ended is None and not before.scan.intake.is_complete():
                self._broken_off.add(number)
            before.scan.intake.ended = before.scan.intake.ended or "the detector was started again"
        folder = TemporaryDirectory(prefix="ptychow-live-", ignore_cleanup_errors=True)
        name = self.name if self.begun == 0 else f"{self.name}_{self.begun + 1}"
        scan = LiveScan(self.model, self.engine, self.settings, Path(folder.name), name)
        running = self._open[series] = OpenScan(scan, folder, self._frames.overruns)
        self.scan = scan
        self.begun += 1
        self._newest_series = series
        self._state, self.message = "scanning", ""
        if self._early and self._closed_at is not None:
            scan.intake.warn(f"{len(self._early):,} positions came between the last scan and this one: used for this")
        for record in [*self._stored, *self._early]:
            running.receive(record)
        self._early.clear()

    # --- working -----------------------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        # The receivers are asked before what they left behind.
        nothing_more = not any(receiver.is_alive() for receiver in self._receivers)
        enough = 0 < self.scans <= self.finished
        return not self._open and (nothing_more or enough)

    def _work(self) -> None:
        receiving = [receiver.is_alive() for receiver in self._receivers]
        with self._lock:
            opened = list(self._open.items())
        if not opened:
            self._stopped.wait(0.01)
        for series, running in opened:
            scan = running.scan
            scan.counters.overran(self._frames.overruns - running.overruns_before)
            if not receiving[0]:
                scan.intake.ended = scan.intake.ended or self._over
                scan.intake.nothing_more = not any(receiving)
            failure = None
            try:
                scan.work(0.02)
                reason = scan.over()
                if reason is not None:
                    self._finish(series, running, reason)
            except Exception as error:
                failure = _as_failure(error, scan.name)
            if failure is not None:  # only now is the memory free that the attempt had taken
                self._forget(series, "failed", str(failure))
                self.failures.append(failure)
                self._rescue(scan)
                running.close()

    def _finish(self, series: int, running: OpenScan, reason: str) -> None:
        scan = running.scan
        self._state, self.message = "finishing", "solving the constants in index order"
        self.result = None  # the last scan's is no result of this one
        result = self._insist(lambda: finish(scan, reason), scan)
        self.result, self.result_name = result, scan.name
        self._insist(lambda: self.save(scan, result), scan)
        self._forget(series, "done", f"over: {reason}")
        running.keep_frames_only()
        self._later.add(running, result)

    def _insist(self, attempt: Callable[[], Found], scan: LiveScan) -> Found:
        """What an attempt gives, for however long the disk is full, or the memory, where there is anything to lose.

        Raises what waiting does not help, and what still fails when given up.
        """
        while True:
            try:
                return attempt()
            except (PtychoWError, MemoryError, RuntimeError) as error:
                may_pass = is_out_of_memory(error) or isinstance(error, PtychoWError)
                if not may_pass or isinstance(error, InputError) or not scan.counters.counts().stitched:
                    raise
                self._state = "unsaved"
                why = _as_failure(error, scan.name)
                self.message = f"{why}. Nothing is lost: trying again every {RETRY_SECONDS:.0f} s"
                self._warn(self.message)
                if self._given_up.wait(RETRY_SECONDS):
                    raise

    def _rescue(self, scan: LiveScan) -> None:
        """Save what can be saved of a scan without a result."""
        try:
            self.rescue(scan)
        except Exception as error:
            self._warn(f"{scan.name}: cannot be rescued: {_as_failure(error, scan.name)}")

    def _forget(self, series: int, state: State, message: str) -> None:
        """A scan is over. The state is its own, unless another one runs."""
        with self._lock:
            del self._open[series]
            self._closed_at = now()
            self._state, self.message = ("scanning", "") if self._open else (state, message)
        self.finished += 1

    def _improve(self, saved: Reconstruction, result: Reconstruction) -> None:
        """What became of a result that was saved, which nothing can lose any more."""
        if self.result is saved:
            self.result = result

    def _warn(self, text: str) -> None:
        remember(self.warnings, text)

    # --- looking -----------------------------------------------------------------------------------------------------

    def waits(self) -> list[Wait]:
        """What has not come for some seconds, or cannot come; none of that once the session ends."""
        if not any(receiver.is_alive() for receiver in self._receivers) or self._stopped.is_set():
            return []
        runs = self.scan is not None and self._newest_series in self._open
        more_scans = not 0 < self.scans <= self.finished + len(self._open)
        found = waits(self._links, self.scan if runs else None, more_scans)
        return [wait for wait in found if wait.is_lost or wait.seconds > SILENT_AFTER]

    @property
    def scan_name(self) -> str:
        """Of the scan there is to see: its files are called so, too."""
        return self.name if self.scan is None else self.scan.name

    def snapshot(self) -> dict[str, Any]:
        """How things are, in what JSON can hold."""
        scan = self.scan
        message = "; ".join(text for text in (self.message, *map(str, self.waits()), self._later.busy) if text)
        said: dict[str, Any] = {"state": self.state, "message": message, "name": self.scan_name}
        if scan is None:
            return said
        counts, rates = scan.counters.counts(), scan.counters.rates(now())
        left = None if counts.expected is None else counts.expected - counts.distinct
        return {
            **said,
            "preview": scan.is_preview and self.state != "done",
            "counts": counts.to_dict(),
            "rates": rates,
            "seconds_left": left / rates["received"] if left is not None and rates["received"] > 0 else None,
            "lag": scan.lag(),
            "latency": scan.counters.latency(),
            "on_disk": scan.intake.queue.spooled,
            "skipping": scan.intake.queue.ruled,
            "light": scan.verdict.light,
            "reasons": scan.verdict.reasons,
            "warnings": [*self.warnings, *scan.intake.warnings][-8:],
            "pixel_size": scan.pixel_size,
            "patch_size": self.model.patch_size,
        }


def _as_failure(error: Exception, where: str) -> PtychoWError:
    """What failed in words that a user can understand. where: in which scan or source."""
    if isinstance(error, PtychoWError):
        return error
    if is_out_of_memory(error):
        said = " ".join(str(error).split())[:200]
        remedy = "end other programs, or give less to --batch-size and --memory-gb"
        return PtychoWError(f"{where}: out of memory{said and f' ({said})'}: {remedy}")
    failure = PtychoWError(f"{where}: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
