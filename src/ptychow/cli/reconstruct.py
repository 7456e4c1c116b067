"""`ptychow reconstruct`: a scan and a Model to a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychow.cli.common import (
    Device,
    Force,
    Json,
    Mapping,
    Output,
    PixelSize,
    Quiet,
    Report,
    StitchingOption,
    open_scan,
    output_path,
    require_choice,
)


def reconstruct(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Scan file.")],
    model: Annotated[Path, typer.Option("--model", "-m", help="Model file, from ptychow train.")],
    output: Output = None,
    stitching: StitchingOption = "probe",
    scale: Annotated[
        str, typer.Option("--scale", help="Count scale: scan (measured on it), or model (the Model's own).")
    ] = "scan",
    batch_size: Annotated[int, typer.Option("--batch-size", help="Frames at a time.", min=1)] = 64,
    precision: Annotated[str, typer.Option("--precision", help="fp32 or bf16.")] = "fp32",
    device: Device = "auto",
    force: Force = False,
    pixel_size_nm: PixelSize = None,
    mapping: Mapping = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Reconstruct with a network: writes the complex object as CXI and a picture of it."""
    from ptychow.model import Model
    from ptychow.reconstruction import reconstruct as run

    report = Report(as_json, quiet)
    require_choice("--stitching", stitching, "probe", "central-crop")
    require_choice("--scale", scale, "scan", "model")
    require_choice("--precision", precision, "fp32", "bf16")
    loaded = Model.load(model)
    scan = open_scan(file, mapping, pixel_size_nm)
    target = output_path(output, file, f"_{loaded.card.network}.cxi", model)
    with report.progress("Reconstructing", len(scan)) as advance:
        result = run(
            scan,
            loaded,
            stitching=stitching,  # type: ignore[arg-type]  # checked above
            scale=scale,  # type: ignore[arg-type]
            batch_size=batch_size,
            device=device,
            precision=precision,
            force=force,
            advance=advance,
        )
    for warning in result.warnings:
        report.warn(warning)
    summary = result.summary
    report.line(
        f"{summary['frames']:,} frames in {summary['seconds']:.2f} s: {summary['frames_per_second']:.0f} frames/s "
        f"in all, {summary['network_frames_per_second']:.0f} through preparation and network"
    )
    result.save(target)
    report.wrote("object", target)
    picture = target.with_suffix(".png")
    result.save_picture(picture, title=f"{scan.name}: {loaded.card.network}")
    report.wrote("picture", picture)
    report.finish(summary)
