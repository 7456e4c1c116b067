"""Errors a user may meet: one clear line each, with an exit code for the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any


class PtychoWError(Exception):
    """Something failed that the user can understand. Exit code 1."""

    exit_code = 1


class InputError(PtychoWError):
    """The input or the usage is wrong. Exit code 2.

    The message is built from what was wrong, so that every error names the same things in the same order:
    ``FILE: FIELD: problem; found FOUND, expected EXPECTED. REMEDY``.
    """

    exit_code = 2

    def __init__(
        self,
        problem: str,
        *,
        file: str | PathLike[str] | None = None,
        field: str | None = None,
        found: Any = None,
        expected: Any = None,
        remedy: str | None = None,
    ) -> None:
        where = "".join(f"{part}: " for part in (file, field) if part is not None)
        facts = [f"{name} {value}" for name, value in (("found", found), ("expected", expected)) if value is not None]
        message = where + problem + (f"; {', '.join(facts)}" if facts else "")
        super().__init__(message + (f". {remedy}" if remedy else ""))


class MismatchError(InputError):
    """A Model and the data it is applied to do not belong together (overridden by ``--force``)."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether that is what an exception says, Python's or torch's."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error))


@contextmanager
def about(file: str | PathLike[str]) -> Iterator[None]:
    """Name `file` in an InputError from inside that does not name it yet."""
    try:
        yield
    except InputError as error:
        if Path(file).name in str(error):
            raise
        raise type(error)(str(error), file=file) from error


class MissingExtraError(PtychoWError):
    """An optional dependency is not installed; names the pip line that adds it."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs an optional part. Install it with: pip install '.[{extra}]' in PtychoW's folder"
        )
