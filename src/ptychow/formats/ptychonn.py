"""PtychoNN's pair of files: a raster of frames in an .npz, and the object's patch at every point in an .npy.

The .npz (or .npy) holds one array (lines, points, H, W) of counts, named `arr_0`; the labels (lines, points,
h, w) are complex. `20191008_39_diff_reduced.npz` (161, 161, 64, 64) or `20191008_39_diff.npz` (161, 161, 256,
256) with `20191008_39_amp_pha_10nm_full.npy` (161, 161, 64, 64) are the published ones (Cherukara et al.,
Applied Physics Letters 117, 044103, 2020). The files hold neither step nor pixel size. For the published
names they are taken from
that paper: 30 nm steps and 10 nm object pixels; the 256-pixel frames, of which 192 pixels make the 10 nm,
have pixels of 7.5 nm. For all others the step must be given. Counts are left as they are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ptychow.errors import InputError
from ptychow.formats.base import Format
from ptychow.formats.lazy import NumpyFrames
from ptychow.formats.numpy_files import is_npy, npz_members, read_header
from ptychow.scan import Geometry, PositionUnit, Scan

KEYS = {
    "labels": "path of the .npy file with the complex patches",
    "step_m": "distance of neighbouring points, metres",
    "step_px": "distance of neighbouring points, object pixels",
}
PUBLISHED = "20191008_39_diff"
PUBLISHED_STEP = 30e-9
PUBLISHED_LABEL_PIXEL = 10e-9
PUBLISHED_PIXEL = {64: 10e-9, 256: 10e-9 * 192 / 256}


def recognises(path: Path) -> bool:
    """Whether the file is an .npz or .npy with one array of four dimensions."""
    if is_npy(path):
        return len(read_header(path).shape) == 4
    return npz_members(path) == ["arr_0"] and len(read_header(path, "arr_0").shape) == 4


def read(path: Path, mapping: Mapping[str, str]) -> Scan:
    """The scan, with `label_patches` where labels are named or lie beside the file.

    Raises InputError where the step is unknown and where frames and labels do not belong together.
    """
    frames = NumpyFrames.open(path, "" if is_npy(path) else "arr_0")
    lines, points = frames.stored_shape[:2]
    step, unit, geometry, origin = _step(path, mapping, frames.shape[1])
    metadata = {"positions": f"raster of {lines} lines of {points} points, step {step:g} {unit}, {origin}"}
    labels = Path(mapping["labels"]) if "labels" in mapping else _labels_beside(path)
    patches = None
    if labels is not None:
        if not labels.is_file():
            raise InputError("no such file", file=labels, field="labels")
        patches = NumpyFrames.open(labels)
        if patches.stored_shape[:2] != (lines, points) or patches.dtype.kind != "c":
            raise InputError(
                "not the labels of these frames",
                file=labels,
                found=f"{patches.dtype} {patches.stored_shape}",
                expected=f"complex ({lines}, {points}, h, w) as in {path.name}",
            )
        metadata["labels"] = labels.name
        if geometry.pixel_size is not None:
            metadata["label_pixel_size"] = str(PUBLISHED_LABEL_PIXEL)
    grid = np.mgrid[:lines, :points].reshape(2, -1).T
    return Scan(
        frames=frames,
        positions=grid * step,
        position_unit=unit,
        geometry=geometry,
        label_patches=patches,
        raster=(lines, points),
        name=path.name,
        metadata=metadata,
    )


def _step(path: Path, mapping: Mapping[str, str], size: int) -> tuple[float, PositionUnit, Geometry, str]:
    """(step, its unit, geometry, who says so)."""
    units: dict[str, PositionUnit] = {"step_m": "m", "step_px": "px"}
    given = [key for key in units if key in mapping]
    if not given and path.name.startswith(PUBLISHED) and size in PUBLISHED_PIXEL:
        geometry = Geometry(pixel_size=PUBLISHED_PIXEL[size])
        return PUBLISHED_STEP, "m", geometry, "as published (Cherukara et al. 2020), not in the file"
    if len(given) != 1:
        raise InputError(
            "the step of the raster is not in the file" if not given else "the step is given twice",
            file=path,
            field="step_m or step_px",
            remedy="Give it once: --map step_m=30e-9, or --map step_px=3 where the pixel size is unknown",
        )
    try:
        step = float(mapping[given[0]])
    except ValueError:
        step = np.nan
    if not (np.isfinite(step) and step > 0):
        raise InputError("not a distance", file=path, field=given[0], found=mapping[given[0]])
    return step, units[given[0]], Geometry(), "as given"


def _labels_beside(path: Path) -> Path | None:
    """The one file in the same folder that is named as the labels of `path`, or None.

    `NAME_diff....npz` goes with `NAME_amp_pha....npy`. Raises InputError where several do.
    """
    name, separator, _ = path.name.partition("_diff")
    beside = path.parent.iterdir() if separator else ()
    found = sorted(item for item in beside if item.name.startswith(f"{name}_amp_pha") and item.suffix == ".npy")
    if len(found) > 1:
        raise InputError(
            "several files may be its labels",
            file=path,
            found=", ".join(item.name for item in found),
            remedy="Say which: --map labels=FILE",
        )
    return found[0] if found else None


FORMAT = Format(name="ptychonn", title="PtychoNN raster (arr_0 in npz)", recognises=recognises, read=read, keys=KEYS)
