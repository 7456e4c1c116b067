"""`ptychow label`: object and probe of a scan by iterative reconstruction, the labels for training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptychow.cli.common import (
    Device,
    Epochs,
    Json,
    Mapping,
    Output,
    PixelSize,
    Positions,
    ProbeModes,
    Quiet,
    Report,
    Seed,
    inputs_of,
    open_scan,
    output_path,
    warn_of_findings,
)
from ptychow.words import counted

if TYPE_CHECKING:
    from ptychow.scan import Scan
    from ptychow.solver import Labelled


def label(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Scan file.")],
    output: Output = None,
    solver: Annotated[str, typer.Option("--solver", help="lsqml, epie, mpie, rpie or dm.")] = "lsqml",
    epochs: Epochs = None,
    modes: ProbeModes = None,
    noise: Annotated[
        str | None, typer.Option("--noise", help="gaussian (of root counts) or poisson; lsqml knows both.")
    ] = None,
    refine_positions: Annotated[
        bool, typer.Option("--refine-positions", help="Correct the scan positions first (minutes).")
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Frames a step; the solver's by default.", min=1)
    ] = None,
    device: Device = "auto",
    seed: Seed = 0,
    pixel_size_nm: PixelSize = None,
    positions: Positions = None,
    mapping: Mapping = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Reconstruct object and probe iteratively (Pty-Chi) and write the scan with them."""
    from ptychow.solver import choose_modes, method_named, require_memory
    from ptychow.solver import label as run
    from ptychow.solver.engine import choose_noise
    from ptychow.solver.labelling import solver_device

    report = Report(as_json, quiet)
    target = output_path(output, file, "_labelled.cxi", *inputs_of(file, mapping, positions))
    scan = open_scan(file, mapping, pixel_size_nm, positions)
    method = method_named(solver)
    choose_noise(method, noise)
    memory = require_memory(scan, method, batch_size, choose_modes(scan, modes))
    report.line(f"{method.title}: {len(scan):,} frames, about {memory.needed:.1f} GiB of memory")
    if memory.tight:
        report.warn(f"memory is tight: {memory.free:.1f} GiB are free")
    device = solver_device(device)
    warn_of_findings(report, scan)
    if refine_positions:
        scan = _at_refined_positions(scan, report, modes, device, seed)
    with report.progress("Reconstructing", epochs) as advance:
        result = run(
            scan,
            method=solver,
            epochs=epochs,
            batch_size=batch_size,
            probe_modes=modes,
            noise=noise,
            device=device,
            seed=seed,
            on_epoch=lambda progress: advance(note=f"error {progress.errors[-1]:.4f}"),
        )
    finish(report, result, target, "labelled scan")


def finish(report: Report, result: Labelled, target: Path, what: str) -> None:
    """Write the scan with what was found and a picture of it, and say so."""
    from ptychow.figures import object_figure
    from ptychow.formats import write_scan
    from ptychow.solver import illumination

    for note in result.notes:
        report.line(f"note: {note}")
    scan, found = result.scan, result.scan.object
    assert found is not None and scan.probe is not None
    fell = f"{result.errors[0]:.4f} -> " if len(result.errors) > 1 else ""
    report.line(f"{found.source}: error {fell}{result.errors[-1]:.4f} in {result.seconds:.0f} s")
    write_scan(target, scan)
    report.wrote(what, target)
    light = illumination(scan)
    picture = target.with_suffix(".png")
    object_figure(
        picture,
        found,
        scan.probe,
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
            "probe_modes": len(scan.probe),
            "errors": result.errors,
            "seconds": result.seconds,
            "notes": result.notes,
        }
    )


def _at_refined_positions(scan: Scan, report: Report, modes: int | None, device: str, seed: int) -> Scan:
    """The scan with its positions corrected from the frames."""
    import numpy as np

    from ptychow.position_refinement import SCHEDULE
    from ptychow.position_refinement import refine_positions as run

    with report.progress("Positions", len(SCHEDULE)) as advance:
        found = run(
            scan,
            probe_modes=modes,
            device=device,
            seed=seed,
            on_round=lambda step: advance(note=f"error {step.error:.4f}, moved {step.moved:.2f} px"),
        )
    if len(found.scan) < len(scan):
        report.line(f"note: {counted(len(scan) - len(found.scan), 'frame')} without counts left out")
    distance = np.hypot(*found.moved_px.T)
    report.line(f"positions moved by {np.median(distance):.2f} px (median), in {found.seconds:.0f} s")
    if found.uncertain.any():
        report.warn(f"{found.uncertain.sum()} frames fit nowhere as well as the others: their positions are doubtful")
    return found.scan
