"""`ptychow inspect`: what a scan file holds, and what looks wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    parse_mapping,
)


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Scan file.")],
    output: Output = None,
    pixel_size_nm: PixelSize = None,
    positions: Positions = None,
    mapping: Mapping = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what a scan file holds and what looks wrong, and draw it."""
    from ptychow.figures_inspection import inspection_figure
    from ptychow.formats import recognise
    from ptychow.inspection import inspect_scan

    report = Report(as_json, quiet)
    target = output_path(output, file, "_inspection.png", *inputs_of(file, mapping, positions))
    scan = open_scan(file, mapping, pixel_size_nm, positions)
    with report.progress("Reading frames", len(scan)) as advance:
        found = inspect_scan(scan, format=recognise(file, parse_mapping(mapping)).title, on_frames=advance)
    report.table(scan.name, ["what", "found"], found.describe())
    report.line("Looks wrong:" if found.findings else "Nothing looks wrong.")
    for finding in found.findings:
        report.line(f"  - {finding}")
    inspection_figure(target, found)
    report.wrote("picture", target)
    report.finish(found.summary())
