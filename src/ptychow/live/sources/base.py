"""What sources have in common: those with a connection, and those without."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self

# A source says why nothing can come after so many seconds, and looks again after so many more.
LOOK_AFTER, LOOK_AGAIN = 3.0, 30.0


def unreachable(host: str, port: int) -> str | None:
    """Why nobody can be reached over TCP at `host`:`port`, in words; None where somebody answers."""
    try:
        socket.create_connection((host.strip("[]"), port), timeout=1.0).close()
    except OSError as error:
        return f"cannot be reached ({error.strerror or error})"
    return None


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
