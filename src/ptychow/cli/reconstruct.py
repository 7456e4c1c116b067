"""`ptychow reconstruct`: a scan and a Model to a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ptychow.cli.common import (
    Device,
    EngineOption,
    Force,
    Json,
    Mapping,
    Output,
    PixelSize,
    Positions,
    PrecisionOption,
    Quiet,
    Refine,
    RefineEpochs,
    RefineSeconds,
    Report,
    StitchingOption,
    Threads,
    explanation,
    inputs_of,
    named_after,
    open_scan,
    output_path,
    require_choice,
    require_engine,
    tell_residuals,
    warn_of_bf16,
)
from ptychow.cli.many_scans import reconstruct_many
from ptychow.words import counted


def reconstruct(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Scan file; with --cluster a quoted pattern of files.")],
    model: Annotated[Path, typer.Option("--model", "-m", help="Model file, or the name of one of ptychow weights.")],
    output: Output = None,
    stitching: StitchingOption = "probe",
    scale: Annotated[
        str, typer.Option("--scale", help="Count scale: scan (measured on it), or model (the Model's own).")
    ] = "scan",
    batch_size: Annotated[int, typer.Option("--batch-size", help="Frames at a time.", min=1)] = 64,
    engine: EngineOption = "torch",
    precision: PrecisionOption = None,
    threads: Threads = None,
    refine: Refine = False,
    refine_epochs: RefineEpochs = None,
    refine_seconds: RefineSeconds = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            help="Many scans over dask: local, or a scheduler's address. Results go to ./reconstructions, or --output.",
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes of --cluster local.", min=1)] = None,
    device: Device = "auto",
    force: Force = False,
    pixel_size_nm: PixelSize = None,
    positions: Positions = None,
    mapping: Mapping = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Reconstruct with a network: writes the complex object as CXI and a picture of it."""
    from ptychow.errors import InputError
    from ptychow.model import Model
    from ptychow.reconstruction import reconstruct as run

    report = Report(as_json, quiet)
    require_choice("--stitching", stitching, "probe", "central-crop")
    require_choice("--scale", scale, "scan", "model")
    require_engine(engine, precision)
    if engine.startswith("torch"):
        warn_of_bf16(report, precision, device)
    options: dict[str, Any] = {
        "stitching": stitching,
        "scale": scale,
        "batch_size": batch_size,
        "engine": engine,
        "device": device,
        "precision": precision,
        "threads": threads,
        "force": force,
    }
    if workers is not None and cluster != "local":
        raise InputError("goes with --cluster local", field="--workers", found=workers)
    if cluster is not None:
        single: dict[str, Any] = {
            "--positions": positions,
            "--refine": refine or None,
            "--refine-epochs": refine_epochs,
            "--refine-seconds": refine_seconds,
        }
        for option, value in single.items():
            if value is not None:
                raise InputError("not for many scans", field=option, found=value, remedy="Leave out --cluster")
        reading = explanation(mapping, pixel_size_nm)
        reconstruct_many(report, str(file), model, output, cluster, workers, reading, options)
        return
    if "*" in file.name and not file.exists():
        raise InputError("a pattern of files", file=file, remedy="Many scans: add --cluster local")
    loaded = Model.load(model)
    scan = open_scan(file, mapping, pixel_size_nm, positions)
    inputs = [model, *inputs_of(file, mapping, positions)]
    target = output_path(output, file, named_after(file, loaded.name, ".cxi"), *inputs)
    with report.progress("Reconstructing", len(scan)) as advance:

        def on_sweep(sweep: int) -> None:
            advance(0, note=f"joining patches, sweep {sweep + 1}")

        result = run(scan, loaded, **options, advance=advance, on_sweep=on_sweep)
    if refine or refine_epochs is not None or refine_seconds is not None:
        from ptychow.refinement import refine_reconstruction

        with report.progress("Refining", refine_epochs) as advance:
            result = refine_reconstruction(
                result,
                scan,
                loaded,
                epochs=refine_epochs,
                seconds=refine_seconds,
                device=device,
                on_epoch=lambda progress: advance(note=f"error {progress.errors[-1]:.4f}"),
            )
    for warning in result.warnings:
        report.warn(warning)
    summary = result.summary
    report.line(
        f"{summary['frames']:,} frames in {summary['seconds']:.2f} s: {summary['frames_per_second']:.0f} frames/s "
        f"in all, {summary['network_frames_per_second']:.0f} through preparation and network "
        f"({summary['engine']}, {summary['precision']})"
    )
    tell_residuals(report, summary)
    if result.network_image is not None:
        refinement = summary["refinement"]
        report.line(
            f"{counted(refinement['epochs'], 'epoch')} in {refinement['seconds']:.1f} s, {refinement['notes'][-1]}"
        )
    result.save(target)
    report.wrote("object", target)
    picture = target.with_suffix(".png")
    result.save_picture(picture)
    report.wrote("picture", picture)
    report.finish(summary)
