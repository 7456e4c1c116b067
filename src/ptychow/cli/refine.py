"""`ptychow refine`: an object that is known already, finished by iterative reconstruction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychow.cli.common import (
    Device,
    Epochs,
    Json,
    Mapping,
    Output,
    PixelSize,
    Positions,
    Quiet,
    Report,
    Seed,
    inputs_of,
    open_scan,
    output_path,
)
from ptychow.cli.label import finish


def refine(
    file: Annotated[Path, typer.Argument(metavar="SCAN", help="Scan file.")],
    start: Annotated[Path, typer.Argument(metavar="OBJECT", help="CXI file from ptychow reconstruct (or label).")],
    output: Output = None,
    epochs: Epochs = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="Begin no further pass after so many seconds.", min=0)
    ] = None,
    device: Device = "auto",
    seed: Seed = 0,
    pixel_size_nm: PixelSize = None,
    mapping: Mapping = None,
    positions: Positions = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Start an iterative reconstruction (Pty-Chi LSQML) from an object and write the scan with what it finds."""
    from ptychow.errors import InputError
    from ptychow.formats.cxi import read_reconstruction
    from ptychow.solver import refine as run

    report = Report(as_json, quiet)
    target = output_path(output, file, "_refined.cxi", start, *inputs_of(file, mapping, positions))
    scan = open_scan(file, mapping, pixel_size_nm, positions)
    known = read_reconstruction(start)
    pixels = known.pixel_size, scan.geometry.pixel_size
    if pixels[0] is not None and pixels[1] is not None and abs(pixels[0] / pixels[1] - 1) > 0.01:
        raise InputError(
            "of another object pixel than the scan",
            file=start,
            found=f"{pixels[0] * 1e9:.4g} nm",
            expected=f"{pixels[1] * 1e9:.4g} nm",
            remedy="A Model that crops the frames coarsens it: use ptychow reconstruct --refine",
        )
    with report.progress("Refining", epochs) as advance:
        result = run(
            scan,
            known.image,
            probe=known.probe,
            coverage=known.coverage,
            epochs=epochs,
            seconds=seconds,
            device=device,
            seed=seed,
            on_epoch=lambda progress: advance(note=f"error {progress.errors[-1]:.4f}"),
        )
    if not result.started_warm:
        report.warn(f"the object given does not explain the frames: {result.notes[-1]}")
    finish(report, result, target, "refined scan")
