"""Which files a scan consists of: its own, those beside it that belong to it by name, those that a mapping names."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path

from ptychow.formats.ptychodus import BESIDE

# NAME_master.h5 with its NAME_data_000001.h5 (Dectris), NAME_dp.hdf5 with its NAME_para.hdf5 (PtychoShelves).
BY_NAME = {"_master": "_data_*", "_dp": "_para"}


def files_of(path: Path, mapping: Mapping[str, str] | None = None) -> list[Path]:
    """`path` first, then what else a scan read from it with this mapping depends on, as far as it is there."""
    found = [path]
    for ending, others in BY_NAME.items():
        if path.stem.endswith(ending):
            pattern = glob.escape(path.stem.removesuffix(ending)) + others + path.suffix
            found += sorted(path.parent.glob(pattern))
    found += [other for other in [path.with_name(BESIDE)] if other != path and other.is_file()]
    return found + [Path(value) for value in (mapping or {}).values() if Path(value).is_file()]
