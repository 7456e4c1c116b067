"""Reading HDF5 files without trusting them.

Links are looked at before HDF5 follows them: none leads out of the folder of the file they start from. Sizes are
checked before memory is taken. Whatever h5py says about damage becomes one InputError.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the filters detectors compress with: bitshuffle, LZ4, Zstandard, Blosc)
import numpy as np
from numpy.typing import NDArray

from ptychow.errors import InputError
from ptychow.formats.base import require_memory
from ptychow.formats.hdf5_chunks import require_sound_chunks

MOST_LINKS = 16  # one behind the other
MOST_NESTED = 3  # virtual datasets, one made of the other
# No filter makes less of zeros than a four-thousandth; below this size it does not matter.
MOST_COMPRESSION, HARMLESS = 4096, 2**26
MOST_VIRTUAL = 2**28


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file for reading. What h5py says about damage, which is anything, becomes an InputError with the name."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError, OverflowError) as error:
        raise InputError(
            f"cannot be read ({' '.join(str(error).split())})",
            file=path,
            expected="a complete HDF5 file",
            remedy="It is truncated, damaged, still being written, or compressed by an unknown filter",
        ) from error


def holds(file: h5py.File, name: str, path: Path) -> bool:
    """Whether something is at `name`.

    Raises InputError where a link on the way leads to a missing file, out of the folder, or in a circle.
    """
    return _follow(file, name, path, path.parent, 0)


def hdf5_dataset(file: h5py.File, name: str, path: Path, deep: int = MOST_NESTED) -> h5py.Dataset:
    """The dataset `name`. Raises InputError where it, or a file that it is made of, is missing or elsewhere.

    deep: how far to look into the files of a virtual dataset; 0 asks only whether they are there.
    """
    found = file[name] if holds(file, name, path) else None
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise InputError(
            "no such dataset",
            file=path,
            field=name,
            found=", ".join(hdf5_listing(file)) or "no dataset at all",
            remedy="Check the name; if the file is incomplete, copy it again",
        )
    if found.external:
        where = found.external[0][0]
        raise InputError("keeps its values in a file of raw bytes", file=path, field=name, found=where)
    if found.is_virtual:
        _require_sources(found, name, path, deep)
    return found


def read_hdf5_array(file: h5py.File, name: str, path: Path) -> NDArray[Any]:
    """A dataset as an array. Raises InputError where it is missing, not numbers, or larger than memory or the file."""
    dataset = hdf5_dataset(file, name, path)
    if dataset.dtype.kind not in "biufc":
        raise InputError("not numbers", file=path, field=name, found=f"dtype {dataset.dtype}")
    return _read(dataset, name, path)


def read_hdf5_real(file: h5py.File, name: str, path: Path) -> NDArray[Any]:
    """As `read_hdf5_array`. Raises InputError where it is complex."""
    values = read_hdf5_array(file, name, path)
    if np.iscomplexobj(values):
        raise InputError("not real", file=path, field=name, found=f"dtype {values.dtype}")
    return values


def read_hdf5_complex(file: h5py.File, name: str, path: Path) -> NDArray[np.complex64]:
    """As `read_hdf5_array`, for a complex dataset, h5py's or MATLAB's. Raises InputError where it is real."""
    dataset = hdf5_dataset(file, name, path)
    if dataset.dtype.names == ("real", "imag"):
        parts = _read(dataset, name, path)
        return np.asarray(parts["real"] + 1j * parts["imag"], np.complex64)
    values = read_hdf5_array(file, name, path)
    if not np.iscomplexobj(values):
        raise InputError("not complex", file=path, field=name, found=f"dtype {values.dtype}")
    return values.astype(np.complex64, copy=False)


def read_hdf5_numbers(file: h5py.File, name: str, path: Path, count: int) -> list[float] | None:
    """A dataset of `count` numbers; None where it is absent. Raises InputError for anything else."""
    if not holds(file, name, path):
        return None
    values = read_hdf5_real(file, name, path)
    if values.size != count:
        raise InputError("of the wrong length", file=path, field=name, found=values.size, expected=count)
    return np.ravel(values).tolist()


def read_hdf5_number(file: h5py.File, name: str, path: Path) -> float | None:
    """A dataset of one number; None where it is absent. Raises InputError for anything else."""
    numbers = read_hdf5_numbers(file, name, path, 1)
    return None if numbers is None else float(numbers[0])


def read_hdf5_text(file: h5py.File, name: str, path: Path) -> str | None:
    """A dataset of one text; None where it is absent or none. Raises InputError as `holds`."""
    if not holds(file, name, path):
        return None
    found = file[name]
    if not isinstance(found, h5py.Dataset) or found.size != 1 or h5py.check_string_dtype(found.dtype) is None:
        return None
    return _text(np.ravel(found[()])[0])


def attribute_text(item: h5py.Dataset | h5py.Group, name: str, default: str = "") -> str:
    """An attribute that holds one text, or `default`."""
    values = np.ravel(np.asarray(item.attrs.get(name, default), object))
    return _text(values[0]) if values.size == 1 else default


def hdf5_shapes(file: h5py.File, most: int = 12) -> dict[str, tuple[int, ...]]:
    """Path and shape of the first arrays in a file, for messages."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, item: h5py.Group | h5py.Dataset) -> bool | None:
        if isinstance(item, h5py.Dataset) and item.shape:
            shapes[f"/{name}"] = item.shape
        return True if len(shapes) == most else None  # anything but None ends the visit

    file.visititems(note)
    return shapes


def hdf5_listing(file: h5py.File) -> list[str]:
    """Path and shape, as messages name them."""
    return [f"{name} {shape}" for name, shape in hdf5_shapes(file).items()]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _read(dataset: h5py.Dataset, name: str, path: Path) -> NDArray[Any]:
    require_memory(dataset.nbytes, path, name)
    size = dataset.nbytes
    room = MOST_VIRTUAL if dataset.is_virtual else max(HARMLESS, MOST_COMPRESSION * dataset.id.get_storage_size())
    if size > room:
        raise InputError("larger than what the file can hold", file=path, field=name, found=f"shape {dataset.shape}")
    return np.asarray(read_part(dataset, [], path, name))


def read_part(dataset: h5py.Dataset, ranges: list[tuple[int, int]], path: Path, name: str) -> NDArray[Any]:
    """The values from first to before last along the leading axes, all along the others; no axis is dropped.

    Raises InputError, before a filter unpacks it, for a chunk that does not add up (`require_sound_chunks`).
    """
    require_sound_chunks(dataset, ranges, path, name)
    return dataset[tuple(slice(first, last) for first, last in ranges)]


def _follow(file: h5py.File, name: str, path: Path, folder: Path, hops: int) -> bool:
    """Whether something is at `name`; every link on the way is judged before HDF5 would follow it."""
    if hops > MOST_LINKS:
        raise InputError("links lead in a circle", file=path, field=name)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    group = file.id
    for index, part in enumerate(parts):
        key, rest = part.encode(), parts[index + 1 :]
        if not isinstance(group, h5py.h5g.GroupID) or not group.links.exists(key):
            return False
        kind = group.links.get_info(key).type
        if kind == h5py.h5l.TYPE_SOFT:
            target = _text(group.links.get_val(key))
            start = [] if target.startswith("/") else parts[:index]
            return _follow(file, "/".join([*start, target, *rest]), path, folder, hops + 1)
        if kind == h5py.h5l.TYPE_EXTERNAL:
            other, target = (_text(item) for item in group.links.get_val(key))
            where = local_file(other, path, folder, name, f"{target} of {other}")
            with open_hdf5(where) as linked:
                return _follow(linked, "/".join([target, *rest]), where, folder, hops + 1)
        if kind != h5py.h5l.TYPE_HARD:
            return False
        group = h5py.h5o.open(group, key)
    return True


def local_file(name: str, path: Path, folder: Path, field: str, found: str) -> Path:
    """The file that a link in `path` names. Raises InputError where it is missing, or not in `folder` or below."""
    target = path.parent / name
    if Path(name).is_absolute() and not target.exists():
        target = path.parent / Path(name).name  # where HDF5 looks next
    if not target.absolute().is_relative_to(folder.absolute()) or ".." in Path(name).parts:
        raise InputError(
            "a link to a file outside the folder is not followed",
            file=path,
            field=field,
            found=found,
            remedy="Copy that file beside this one and link to its bare name",
        )
    if not target.is_file():
        raise InputError(
            "a link to another file leads nowhere",
            file=path,
            field=field,
            found=found,
            remedy="Copy that file beside this one",
        )
    return target


def _require_sources(dataset: h5py.Dataset, name: str, path: Path, deep: int) -> None:
    """Raise InputError where a virtual dataset is made of what is missing, which HDF5 replaces by zeros in silence."""
    sources = {(source.file_name, source.dset_name) for source in dataset.virtual_sources()}
    files = sorted({other for other, _ in sources} - {"."})
    missing = [other for other in files if not (path.parent / other).is_file()]
    if missing:
        raise InputError(
            "made of files of which some are missing",
            file=path,
            field=name,
            found=f"no {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""),
            remedy="Copy them beside this one",
        )
    where = {other: local_file(other, path, path.parent, name, other) for other in files} | {".": path}
    if deep == 1:
        raise InputError("made of virtual datasets, one made of the other", file=path, field=name)
    for other, inner in sorted(sources) if deep else ():
        with open_hdf5(where[other]) as file:
            hdf5_dataset(file, inner, where[other], deep - 1)
