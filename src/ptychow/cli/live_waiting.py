"""What `ptychow live` says of a wait: once, and then ever more rarely."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ptychow.cli.common import Report

if TYPE_CHECKING:
    from ptychow.live.waiting import Wait

# Seconds of waiting that are worth a line, and between the first lines about the same, and the later ones.
FIRST, AGAIN, RARELY = 10.0, 30.0, 600.0


class Waiting:
    """Tells what is waited for: a warning where nothing can come, a line for people where it is only late."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._told: dict[tuple[str, str | None], tuple[float, float]] = {}  # when to say it again, and how long after

    def tell(self, waits: Sequence[Wait]) -> None:
        """Say what of it is worth a line now."""
        now = time.monotonic()
        for wait in waits:
            due, pause = self._told.get((wait.part, wait.why), (now, AGAIN))
            if now < due or not (wait.is_lost or wait.seconds >= FIRST):
                continue
            self._told[wait.part, wait.why] = now + pause, min(2 * pause, RARELY)
            if wait.is_lost:
                self._report.warn(str(wait))
            else:
                self._report.line(f"{wait} (Ctrl-C ends the waiting; what has come is written)")
