"""`ptychow label`: object and probe of a scan by iterative reconstruction, the labels for training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychow.cli.common import (
    Device,
    Json,
    Mapping,
    Output,
    PixelSize,
    Quiet,
    Report,
    Seed,
    open_scan,
    output_path,
)


def label(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Scan file.")],
    output: Output = None,
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over all frames.")] = 40,
    modes: Annotated[
        int | None,
        typer.Option("--modes", help="Incoherent probe modes; by default as many as the scan's probe has."),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Frames a step.")] = 64,
    device: Device = "auto",
    seed: Seed = 0,
    pixel_size_nm: PixelSize = None,
    mapping: Mapping = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Reconstruct object and probe iteratively (Pty-Chi LSQML) and write the scan with them."""
    from ptychow.figures import object_figure
    from ptychow.formats import write_scan
    from ptychow.solver import illumination
    from ptychow.solver import label as run

    report = Report(as_json, quiet)
    target = output_path(output, file, "_labelled.cxi")
    scan = open_scan(file, mapping, pixel_size_nm)
    with report.progress("Reconstructing", epochs) as advance:
        result = run(
            scan,
            epochs=epochs,
            batch_size=batch_size,
            probe_modes=modes,
            device=device,
            seed=seed,
            on_epoch=lambda _, error: advance(note=f"error {error:.4f}"),
        )
    for note in result.notes:
        report.line(f"note: {note}")
    found = result.scan.object
    assert found is not None and result.scan.probe is not None
    report.line(f"{found.source}: error {result.errors[0]:.4f} -> {result.errors[-1]:.4f} in {result.seconds:.0f} s")

    write_scan(target, result.scan)
    report.wrote("labelled scan", target)
    light = illumination(result.scan)
    picture = target.with_suffix(".png")
    object_figure(
        picture,
        found,
        result.scan.probe,
        region=light > 0.05 * light.max(),
        pixel_size=scan.geometry.pixel_size,
        title=f"{scan.name}: {found.source}",
    )
    report.wrote("picture", picture)
    report.finish(
        {
            "source": found.source,
            "frames": len(scan),
            "object_shape": found.image.shape,
            "object_origin_px": found.origin,
            "probe_modes": len(result.scan.probe),
            "errors": result.errors,
            "seconds": result.seconds,
            "notes": result.notes,
        }
    )
