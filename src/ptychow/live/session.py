"""From sources to results: threads that receive, one worker, and one `LiveScan` after the other."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Literal

from ptychow.engines.base import Engine
from ptychow.errors import PtychoWError
from ptychow.live.counters import Rate
from ptychow.live.pipeline import LiveScan, LiveSettings
from ptychow.live.records import Corrupt, End, PositionRecord, Record, Source, SourceBack, SourceLost, Start, now
from ptychow.live.result import finish
from ptychow.model import Model
from ptychow.reconstruction import Reconstruction

State = Literal["waiting", "scanning", "silent", "finishing", "unsaved", "done", "failed"]

SILENT_AFTER = 5.0  # seconds without a record until the page says so
POLL_SECONDS = 0.1
RETRY_SECONDS = 5.0
MOST_EARLY = 1_000_000  # positions kept for a scan that has not begun

Save = Callable[[LiveScan, Reconstruction], object]


class Session:
    """Receives from sources until they end, the wanted number of scans is done, or `stop` is called.

    frames, positions: sources; positions None: the frames' source sends them too. save: writes a result; called again
    every few seconds while it raises PtychoWError (a full disk), so that nothing is lost. scans: end after so many, 0:
    never. name: of the scans.
    `state` and `message` say how things are; `scan` is the newest scan, `result` what became of the last finished one,
    after_the_end how many records came for scans that were over.
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
        scans: int = 1,
        name: str = "scan",
    ) -> None:
        self.sources = [frames] if positions is None else [frames, positions]
        self.model, self.engine, self.settings, self.save = model, engine, settings, save
        self.name, self.scans = name, scans
        self.scan: LiveScan | None = None
        self.result: Reconstruction | None = None
        self.message = "waiting for the first frame"
        self.finished = self.after_the_end = 0
        self.failures: list[PtychoWError] = []
        self._state: State = "waiting"
        self._open: dict[int, LiveScan] = {}
        self._overruns_before: dict[int, int] = {}
        self._newest_series = -1
        self._early: deque[Record] = deque(maxlen=MOST_EARLY)  # positions that came before their scan
        self._stored: list[Record] = []
        self._receivers: list[Thread] = []
        self._lost: str | None = None
        self._lock, self._stopped = Lock(), Event()
        self._rates = {"received": Rate(), "stitched": Rate()}
        self._files = ExitStack()

    @property
    def state(self) -> State:
        """In a word; `silent` is a scan from which nothing has come for some seconds."""
        scan = self.scan
        if self._state == "scanning" and scan is not None and scan.intake.ended is None:
            return "silent" if self._lost or scan.intake.silence() > SILENT_AFTER else "scanning"
        return self._state

    def stop(self) -> None:
        """End the scan that runs as it is, and the session with it."""
        self._stopped.set()

    def run(self) -> None:
        """Receive and work until the end. Raises PtychoWError where a scan, or all of them, came to nothing."""
        with self._files, ExitStack() as sources:
            for source in self.sources:
                sources.enter_context(source)
            self._receivers = [Thread(target=self._poll, args=(source,), daemon=True) for source in self.sources]
            for receiver in self._receivers:
                receiver.start()
            try:
                while not self._is_over():
                    self._work()
            finally:
                self._stopped.set()
                for receiver in self._receivers:
                    receiver.join()
        if self.failures:
            raise self.failures[0]
        if self.result is None:
            self._state, self.message = "failed", "no scan was received"
            raise PtychoWError(self.message)

    # --- receiving ---------------------------------------------------------------------------------------------------

    def _poll(self, source: Source) -> None:
        """Bring records to their scans. Sources that wait are left alone while the queue is full."""
        while not (self._stopped.is_set() or source.finished):
            newest = self.scan
            if source.waits and newest is not None and newest.intake.queue.full:
                self._stopped.wait(0.005)
                continue
            try:
                records = source.poll(POLL_SECONDS)
            except PtychoWError as error:
                self.failures.append(error)
                self._stopped.set()
                return
            with self._lock:
                for record in records:
                    self._route(record, source)

    def _route(self, record: Record, source: Source) -> None:
        """Bring a record to its scan: that of its series, or the newest. A new series begins a new scan."""
        if isinstance(record, SourceLost | SourceBack):
            self._lost = record.reason if isinstance(record, SourceLost) else None
            return
        if source is not self.sources[0]:  # of positions, which say nothing of the frames
            if isinstance(record, Start | End | Corrupt):
                self._note(record)
                return
            if source.waits:  # they lie in a file, and hold for every scan
                self._stored.append(record)
                if not self._open:
                    return
        series = self._newest_series if record.series is None else record.series
        if series > self._newest_series:
            self._begin(series)
        scan = self._open.get(series)
        if scan is not None:
            scan.intake.receive(record)
        elif isinstance(record, PositionRecord) and record.series is None:
            self._early.append(record)
        else:
            self.after_the_end += 1

    def _begin(self, series: int) -> None:
        """A new scan; what came of the one before is all there will be."""
        for before in self._open.values():
            before.intake.ended = before.intake.ended or "the detector was started again"
        folder = Path(self._files.enter_context(tempfile.TemporaryDirectory(prefix="ptychow-live-")))
        scan = LiveScan(self.model, self.engine, self.settings, folder, self.name)
        self._overruns_before[series] = self.sources[0].overruns
        self._open[series] = self.scan = scan
        self._newest_series = series
        self._state, self.message = "scanning", ""
        for record in [*self._stored, *self._early]:
            scan.intake.receive(record)
        self._early.clear()

    def _note(self, record: Record) -> None:
        """Say what is wrong with a position."""
        if isinstance(record, Corrupt) and self.scan is not None:
            self.scan.intake.warn(record.reason)

    # --- working -----------------------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        nothing_more = not any(
            receiver.is_alive() for receiver in self._receivers
        )  # asked before what they left behind
        enough = 0 < self.scans <= self.finished
        return not self._open and (nothing_more or enough)

    def _work(self) -> None:
        receiving = [receiver.is_alive() for receiver in self._receivers]
        with self._lock:
            scans = list(self._open.items())
        if not scans:
            self._stopped.wait(0.01)
        for series, scan in scans:
            scan.counters.overran(self.sources[0].overruns - self._overruns_before[series])
            if not receiving[0]:
                why = "stopped" if self._stopped.is_set() else "the source has ended"
                scan.intake.ended = scan.intake.ended or why
                scan.intake.nothing_more = not any(receiving)
            try:
                scan.work(0.02)
                reason = scan.over()
                if reason is not None:
                    self._finish(series, scan, reason)
            except PtychoWError as error:
                self._state, self.message = "failed", str(error)
                self.failures.append(error)
                self._close(series, scan)

    def _finish(self, series: int, scan: LiveScan, reason: str) -> None:
        self._state, self.message = "finishing", "solving the constants in index order"
        self.result = finish(scan, reason)
        while True:
            try:
                self.save(scan, self.result)
                break
            except PtychoWError as error:
                self._state = "unsaved"
                self.message = f"{error}. Nothing is lost: trying again every {RETRY_SECONDS:.0f} s"
                if self._stopped.wait(RETRY_SECONDS):
                    raise
        self._state, self.message = "done", f"over: {reason}"
        self._close(series, scan)

    def _close(self, series: int, scan: LiveScan) -> None:
        with self._lock:
            del self._open[series]
        self.finished += 1
        scan.close()

    # --- looking -----------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """How things are, in what JSON can hold."""
        scan = self.scan
        said: dict[str, Any] = {"state": self.state, "message": self._lost or self.message, "name": self.name}
        if scan is None:
            return said
        counts, at = scan.counters.counts(), now()
        rates = {name: rate(getattr(counts, name), at) for name, rate in self._rates.items()}
        left = None if counts.expected is None else counts.expected - counts.distinct
        verdict = scan.verdict()
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
            "light": verdict.light,
            "reasons": verdict.reasons,
            "warnings": scan.intake.warnings[-8:],
            "pixel_size": scan.pixel_size,
            "patch_size": self.model.patch_size,
        }
