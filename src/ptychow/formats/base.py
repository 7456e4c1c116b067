"""What a file format is to PtychoW, and the guard every reader passes before it takes memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ptychow.errors import InputError
from ptychow.scan import Scan


@dataclass(frozen=True)
class Format:
    """One way of laying out a scan in a file.

    name: short, for the registry. title: in words.
    recognises: looks into the file (never at its suffix) and says whether this format is for it.
    read: the scan, frames still on disk; gets the mapping, whose keys are all among `keys`.
    keys: what a mapping may say about such a file, with the meaning of each.
    write: writes a scan, telling how many frames have just been written; None where PtychoW does not write it.
    suffix: of the files that `ptychow convert` writes in this format.
    leaves_out: what of a scan the format has no place for, in words.
    """

    name: str
    title: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Mapping[str, str]], Scan]
    keys: Mapping[str, str]
    write: Callable[[Path, Scan, Callable[[int], object] | None], None] | None = None
    suffix: str = ""
    leaves_out: Callable[[Scan], list[str]] = lambda scan: []


@lru_cache
def physical_memory() -> int:
    """Bytes of memory in this machine; unlimited where the system cannot be asked (Windows)."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return 2**63
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def require_memory(size: int, path: Path, field: str) -> None:
    """Raise InputError where `size` bytes cannot be held: no damaged header brings the machine down."""
    if size > physical_memory():
        raise InputError(
            "does not fit in memory",
            file=path,
            field=field or None,
            found=f"{size / 2**30:,.1f} GiB",
            expected=f"at most {physical_memory() / 2**30:,.1f} GiB",
            remedy="Read fewer frames at a time; unpack a compressed npz first",
        )


def file_and_part(name: str) -> tuple[Path, str]:
    """The file, and the dataset or column in it, of FILE:PART; without a part where the whole name is a file's."""
    file, separator, part = name.rpartition(":")
    return (Path(name), "") if not separator or Path(name).is_file() else (Path(file), part)


def mapped_number(mapping: Mapping[str, str], key: str, path: Path) -> float | None:
    """The number that a mapping gives for a key, or None. Raises InputError for what is no number."""
    if key not in mapping:
        return None
    try:
        return float(mapping[key])
    except ValueError:
        remedy = "Give the number alone, in the unit of the key's name"
        raise InputError("not a number", file=path, field=key, found=mapping[key], remedy=remedy) from None
