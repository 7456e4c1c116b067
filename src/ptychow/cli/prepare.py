"""`ptychow prepare`: a scan with its frames turned, centred, cropped or binned, ready to be labelled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ptychow.cli.common import (
    Json,
    Mapping,
    Output,
    PixelSize,
    Positions,
    Quiet,
    Report,
    open_scan,
    output_path,
    require_choice,
)


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
        str | None, typer.Option("--centre", help="Pixel of zero frequency, ROW,COLUMN, or auto (centre of mass).")
    ] = None,
    crop: Annotated[int | None, typer.Option("--crop", help="Keep so many pixels a side about the centre.")] = None,
    bin: Annotated[int | None, typer.Option("--bin", help="Sum bins of so many pixels a side.")] = None,
    resample: Annotated[
        int | None, typer.Option("--resample", help="Resize to so many pixels a side, anti-aliased.")
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", help="Choose crop and bin so that frames have this size.")
    ] = None,
    threshold: Annotated[float, typer.Option("--threshold", help="Set counts below it to 0.", min=0)] = 0.0,
    pixel_size_nm: PixelSize = None,
    positions: Positions = None,
    mapping: Mapping = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn, centre, crop or bin the frames of a scan; geometry, mask, probe and labels follow."""
    from ptychow.detector import Preparation
    from ptychow.formats import write_scan
    from ptychow.orientation import Orientation
    from ptychow.prepared import prepare_scan

    report = Report(as_json, quiet)
    require_choice("--orientation", orientation, *Orientation)
    target = output_path(output, file, "_prepared.cxi")
    scan = open_scan(file, mapping, pixel_size_nm, positions)
    preparation = Preparation.fit(
        scan,
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
    for note in preparation.notes:
        report.line(f"note: {note}")
    with report.progress("Writing frames", len(scan)) as advance:
        write_scan(target, prepared, advance)
    pixel = prepared.geometry.pixel_size
    height, width = prepared.frame_shape
    words = "unknown" if pixel is None else f"{pixel * 1e9:.4g} nm"
    report.line(f"{len(scan)} frames of {height} x {width}; object pixel {words}")
    report.wrote("scan", target)
    report.finish(
        {
            "frames": len(scan),
            "frame_shape": prepared.frame_shape,
            "pixel_size": pixel,
            "notes": preparation.notes,
        }
    )


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
