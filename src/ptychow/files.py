"""Writing files so that an interrupted run leaves nothing half-written; and where those are kept that nobody named."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ptychow.errors import PtychoWError

# Read once: that takes setting it, for all threads of the process.
UMASK = os.umask(0)
os.umask(UMASK)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` on success, delete it on any failure.

    Missing parent folders are made. The temporary name keeps the suffix, which some writers look at.
    Raises PtychoWError where the system refuses (no permission, disk full), during the writing too.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
        temporary = Path(name)
        os.close(handle)
        yield temporary
        # mkstemp makes private files; results get the permissions any new file would have.
        temporary.chmod(0o666 & ~UMASK)
        temporary.replace(target)
    except OSError as error:
        raise cannot_write(target, os.strerror(error.errno) if error.errno else str(error)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def cannot_write(path: str | os.PathLike[str], why: object) -> PtychoWError:
    """The error for a file that the system does not let us write."""
    return PtychoWError(f"{os.fspath(path)}: cannot be written ({why})")


def require_writable(path: str | os.PathLike[str]) -> None:
    """Raise PtychoWError where `path` surely cannot be written later: better now than after an hour of work."""
    target = Path(path)
    if target.is_dir():
        raise cannot_write(target, "it is a folder")
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise cannot_write(target, f"{folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise cannot_write(target, f"no permission to write to {folder}: name another place with --output")


def cache_folder() -> Path:
    """Where fetched scans and measured choices are kept (it may not exist yet)."""
    if os.environ.get("PTYCHOW_CACHE"):
        return Path(os.environ["PTYCHOW_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ptychow"


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write `content` as indented JSON (numpy scalars and arrays allowed), atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(to_json(content) + "\n", encoding="utf-8")


def to_json(content: Any, indent: int | None = 1) -> str:
    """JSON text of `content`; numpy scalars and arrays become numbers and lists, NaN becomes null."""
    return json.dumps(_plain(content), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    """`value` in JSON's own types."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, os.PathLike):
        return str(value)
    return value
