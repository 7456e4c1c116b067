"""`ptychow prepare`: a scan with its frames turned, centred, cropped or binned, ready to be labelled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ptychow.cli.common import (
    Json,
    Mapping,
    Output,
    PixelSize,
    Positions,
    Quiet,
    Report,
    inputs_of,
    open_scan,
    output_path,
    require_choice,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ptychow.scan import Scan


def prepare(
    file: Annotated[Path, typer.Argument(help="Scan file.")],
    output: Output = None,
    orientation: Annotated[
        str,
        typer.Option(
            "--orientation",
            help="What brings the stored frame upright: identity, rotate-90, rotate-180, rotate-270, flip-rows, "
            "flip-columns, transpose or antitranspose.",
        ),
    ] = "identity",
    centre: Annotated[
        str | None, typer.Option("--centre", help="Pixel of zero frequency, ROW,COLUMN, or auto (of the light).")
    ] = None,
    crop: Annotated[int | None, typer.Option("--crop", help="Keep so many pixels a side about the centre.")] = None,
    bin: Annotated[int | None, typer.Option("--bin", help="Sum bins of so many pixels a side.")] = None,
    resample: Annotated[
        int | None, typer.Option("--resample", help="Resize to so many pixels a side, anti-aliased.")
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", help="Choose crop and bin so that frames have this size.")
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            "--mask",
            metavar="FILE",
            help="More bad pixels: an image (npy, TIFF, HDF5 as FILE:/DATASET), not 0 where bad, or lines ROW,COLUMN.",
        ),
    ] = None,
    monitor: Annotated[
        str | None,
        typer.Option(
            "--monitor",
            metavar="FILE:COLUMN",
            help="Readings of the incoming intensity (I0), one a frame, that counts are divided by: a column of a "
            "table, HDF5 as FILE:/DATASET.",
        ),
    ] = None,
    frames: Annotated[
        str | None,
        typer.Option("--frames", metavar="FIRST:LAST", help="Keep these, as Python counts: 10:, :500 or 1:-1."),
    ] = None,
    drop: Annotated[
        str | None,
        typer.Option("--drop", metavar="LIST", help="Leave these frames out: numbers from 0 and FIRST:LAST, 17,390:."),
    ] = None,
    fftshift: Annotated[
        bool, typer.Option("--fftshift", help="Swap the quarters of frames with zero frequency in the corners.")
    ] = False,
    negative: Annotated[
        str | None,
        typer.Option(
            "--negative",
            help="What negative integers are: zero (a background was subtracted) or wrap (16-bit counts stored with a "
            "sign). By default what their type says, and refused where it says nothing.",
        ),
    ] = None,
    threshold: Annotated[float, typer.Option("--threshold", help="Set counts below it to 0.", min=0)] = 0.0,
    pixel_size_nm: PixelSize = None,
    positions: Positions = None,
    mapping: Mapping = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Mask, turn, centre, crop, bin or normalise the frames of a scan; geometry, mask, probe and labels follow."""
    import numpy as np

    from ptychow.detector_fit import fit_preparation
    from ptychow.formats import write_scan
    from ptychow.formats.base import file_and_part
    from ptychow.orientation import Orientation
    from ptychow.prepared import prepare_scan, swap_quarters, zero_negative

    report = Report(as_json, quiet)
    require_choice("--orientation", orientation, *Orientation)
    require_choice("--negative", negative or "zero", "zero", "wrap")
    inputs = [*inputs_of(file, mapping, positions), *(file_and_part(name)[0] for name in (mask, monitor) if name)]
    target = output_path(output, file, "_prepared.cxi", *inputs)
    whole = open_scan(file, mapping, pixel_size_nm, positions)
    chosen = chosen_of(len(whole), frames, drop)
    scan = whole if chosen is None else whole.select(chosen)
    if mask is not None:
        scan = _masked(scan, mask, report)
    if fftshift:
        scan = swap_quarters(scan)
    if negative == "zero":
        scan = zero_negative(scan)
    preparation = fit_preparation(
        scan,
        wrap_negative=True if negative == "wrap" else None,
        size=size,
        orientation=Orientation(orientation),
        centre=parse_centre(centre),
        crop=crop,
        bin=bin,
        resample=resample,
        threshold=threshold,
        transform="raw",
        scale="none",
    )
    prepared = prepare_scan(scan, preparation)
    if monitor is not None:
        kept = np.ones(len(whole), bool) if chosen is None else chosen
        prepared = _normalised(prepared, monitor, kept, report)
    for note in preparation.notes:
        report.line(f"note: {note}")
    with report.progress("Writing frames", len(scan)) as advance:
        write_scan(target, prepared, advance)
    pixel = prepared.geometry.pixel_size
    height, width = prepared.frame_shape
    words = "unknown" if pixel is None else f"{pixel * 1e9:.4g} nm"
    report.line(f"{len(scan)} frames of {height} x {width}; object pixel {words}")
    if pixel is None and scan.geometry.pixel_size is not None:
        report.warn(
            "the object pixel was not kept: frames that are not square have two. Give that of the prepared frames to "
            "the next command (--pixel-size-nm)"
        )
    report.wrote("scan", target)
    report.finish(
        {
            "frames": len(scan),
            "frame_shape": prepared.frame_shape,
            "pixel_size": pixel,
            "notes": preparation.notes,
        }
    )


def chosen_of(count: int, keep: str | None, drop: str | None) -> NDArray[np.bool_] | None:
    """(N,) which of so many frames are to keep (None: all) and not to drop; None where nothing is said.

    Raises InputError where there are none, and as `chosen_frames`.
    """
    from ptychow.errors import InputError
    from ptychow.frame_choice import chosen_frames

    if keep is None and drop is None:
        return None
    if keep is not None and ":" not in keep:  # it could be meant as how many
        raise InputError("no range", field="--frames", found=keep, expected="FIRST:LAST")
    chosen = chosen_frames(keep or ":", count, "--frames")
    if drop is not None:
        chosen &= ~chosen_frames(drop, count, "--drop")
    if not chosen.any():
        raise InputError("no frame is left", field="--frames and --drop", found=f"{keep or ':'} without {drop}")
    return chosen


def _normalised(prepared: Scan, monitor: str, kept: NDArray[np.bool_], report: Report) -> Scan:
    """The scan divided by a monitor that has a reading for each of the frames (N,), of which it has those kept."""
    import numpy as np

    from ptychow.formats.monitors import read_monitor
    from ptychow.prepared import by_monitor

    readings = read_monitor(monitor, kept)
    low, middle, high = np.quantile(readings, [0, 0.5, 1])
    report.line(f"incoming intensity {low / middle:.3g} to {high / middle:.3g} times its median: divided by it")
    return by_monitor(prepared, readings)


def _masked(scan: Scan, name: str, report: Report) -> Scan:
    """The scan with the bad pixels of a mask file added to those of its own mask."""
    from ptychow.formats.masks import read_mask
    from ptychow.words import counted

    good = read_mask(name, scan.frame_shape)
    report.line(f"{counted(int((~good).sum()), 'bad pixel')} in {name}")
    return replace(scan, mask=good if scan.mask is None else good & scan.mask)


def parse_centre(text: str | None) -> tuple[int, int] | Literal["auto"] | None:
    """ "auto", or ROW,COLUMN as a pair. Raises InputError for anything else."""
    from ptychow.errors import InputError

    if text is None or text == "auto":
        return text  # type: ignore[return-value]
    try:
        row, column = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError("no pixel", field="--centre", found=text, expected="ROW,COLUMN or auto") from None
    return row, column
