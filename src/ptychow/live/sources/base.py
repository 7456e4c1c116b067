"""What sources without a connection have in common."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class LocalSource:
    """A source that reads what lies here, as slowly as one likes, and has nothing to open or close."""

    waits = True
    overruns = 0

    def __init__(self, name: str) -> None:
        self.name = name
        self.finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""
