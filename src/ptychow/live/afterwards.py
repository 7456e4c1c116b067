"""What follows a result that is saved: in a thread of its own, one scan after the other, and no scan waits for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from threading import Condition, Event, Thread

from ptychow.live.open_scan import OpenScan
from ptychow.live.pipeline import LiveScan
from ptychow.reconstruction import Reconstruction

FollowUp = Callable[[LiveScan, Reconstruction, Event], Reconstruction | None]

# Scans whose kept frames may wait on the disk; beyond, what is optional gives way.
MOST_WAITING = 3


class Afterwards:
    """Takes `steps`, in order, with each result it is given: each may give back a better one; what fails is a warning.

    optional: those of the steps that end early, or are left out, while more than `MOST_WAITING` scans wait for theirs:
    they are what takes long. given_up: set where none of it is wanted any more. warn: told what went wrong. better:
    called with a result as it was saved, and with what became of it.
    """

    def __init__(
        self,
        steps: Sequence[FollowUp],
        optional: Collection[FollowUp],
        given_up: Event,
        *,
        warn: Callable[[str], None],
        better: Callable[[Reconstruction, Reconstruction], None],
    ) -> None:
        self.busy = ""  # with which step, in words
        self._steps, self._optional, self._given_up = steps, optional, given_up
        self._warn, self._better = warn, better
        self._hurry = Event()  # what optional steps are given
        self._scans: deque[tuple[OpenScan, Reconstruction]] = deque()  # the first one is being worked on
        self._changed = Condition()

    def add(self, running: OpenScan, saved: Reconstruction) -> None:
        """Take on a scan whose result is saved; its files are closed when all is done."""
        with self._changed:
            self._scans.append((running, saved))
            is_first = len(self._scans) == 1
        self._look_who_waits()
        if is_first:
            # A process that is told to end waits for no such thread.
            Thread(target=self._run, daemon=True).start()

    def give_up(self) -> None:
        """End what is being done, once the event `given_up` is set."""
        self._look_who_waits()

    def wait(self) -> None:
        """Until all is done."""
        with self._changed:
            self._changed.wait_for(lambda: not self._scans)

    def abandon(self) -> None:
        """Close all files at once, under the hands of the step that is being taken."""
        for running, _ in list(self._scans):
            running.close()

    def _run(self) -> None:
        more = True
        while more:
            running, saved = self._scans[0]
            try:
                self._better(saved, self._follow(running, saved))
            finally:
                running.close()
                with self._changed:
                    self._scans.popleft()
                    more = bool(self._scans)
                    self._changed.notify_all()

    def _follow(self, running: OpenScan, saved: Reconstruction) -> Reconstruction:
        result = saved
        for step in () if self._given_up.is_set() else self._steps:
            name, is_optional = step.__name__.replace("_", " "), step in self._optional
            self._look_who_waits()
            if is_optional and self._hurry.is_set():
                self._warn(f"{running.scan.name}: no time to {name}: {len(self._scans) - 1} more scans wait")
                continue
            self.busy = f"now: {name}"
            try:
                result = step(running.scan, result, self._hurry if is_optional else self._given_up) or result
            except Exception as error:
                self._warn(f"{running.scan.name}: cannot {name}: {str(error) or type(error).__name__}")
        self.busy = ""
        return result

    def _look_who_waits(self) -> None:
        """Whether what is optional has to give way."""
        with self._changed:
            waiting = len(self._scans) - 1
            if waiting > MOST_WAITING or self._given_up.is_set():
                self._hurry.set()
            else:
                self._hurry.clear()
