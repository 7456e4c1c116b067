"""`ptychow evaluate`: how good a Model is on a labelled scan, on pixels it was not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptychow.cli.common import (
    Device,
    Force,
    Json,
    Mapping,
    Output,
    PixelSize,
    Positions,
    Quiet,
    Report,
    StitchingOption,
    inputs_of,
    named_after,
    open_scan,
    output_path,
    require_choice,
)

if TYPE_CHECKING:
    from ptychow.evaluation import Evaluation

STITCHED = {
    "phase_unexplained_variance": "phase, unexplained variance",
    "phase_mse": "phase MSE, rad^2",
    "phase_psnr_255": "phase PSNR (R = 255, the paper's), dB",
    "phase_psnr_2pi": "phase PSNR (R = 2 pi), dB",
    "phase_ssim_255": "phase SSIM (R = 255, the paper's)",
    "phase_ssim_2pi": "phase SSIM (R = 2 pi)",
    "phase_explained_variance": "phase EVA",
    "phase_offset": "phase offset, rad",
    "amplitude_mse": "amplitude MSE",
    "amplitude_psnr": "amplitude PSNR (R = 1), dB",
    "amplitude_ssim": "amplitude SSIM",
    "complex_error": "complex error",
}
PATCHES = {
    "weighted_phase_unexplained_variance": "phase, unexplained variance, probe-weighted",
    "phase_unexplained_variance": "phase, unexplained variance, uniform",
    "weighted_phase_mse": "phase MSE, probe-weighted, rad^2",
    "phase_mse": "phase MSE, uniform, rad^2",
    "weighted_amplitude_mse": "amplitude MSE, probe-weighted",
    "amplitude_mse": "amplitude MSE, uniform",
}


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file, or the name of one of ptychow weights.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Labelled scan.")],
    output: Output = None,
    region: Annotated[
        str, typer.Option("--region", help="unseen (shares no object pixel with training), or all frames.")
    ] = "unseen",
    stitching: StitchingOption = "probe",
    device: Device = "auto",
    force: Force = False,
    pixel_size_nm: PixelSize = None,
    positions: Positions = None,
    mapping: Mapping = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare a Model with a scan's labels: table, JSON and picture.

    The flat patch beside it says what knowing nothing scores.
    """
    import numpy as np

    from ptychow.evaluation import evaluate as run
    from ptychow.figures import frc_figure, reconstruction_figure
    from ptychow.files import write_json
    from ptychow.metrics import frc
    from ptychow.model import Model

    report = Report(as_json, quiet)
    require_choice("--region", region, "unseen", "all")
    require_choice("--stitching", stitching, "probe", "central-crop")
    loaded = Model.load(model)
    inputs = [model, *inputs_of(file, mapping, positions)]
    target = output_path(output, file, named_after(file, loaded.name, "_evaluation.json"), *inputs)
    scan = open_scan(file, mapping, pixel_size_nm, positions)
    result = run(
        loaded,
        scan,
        indices=np.arange(len(scan)) if region == "all" else None,
        region="all frames, training pixels included" if region == "all" else None,
        stitching=stitching,  # type: ignore[arg-type]  # checked above
        device=device,
        force=force,
    )
    for warning in result.reconstruction.warnings:
        report.warn(warning)
    print_evaluation(report, loaded.name, result)
    summary = {"model": loaded.name, "network": loaded.card.network, "scan": scan.name, **result.summary()}
    write_json(target, summary)
    report.wrote("metrics", target)
    if result.aligned is not None and result.truth is not None:
        picture = target.with_suffix(".png")
        reconstruction_figure(
            picture,
            result.truth,
            result.aligned,
            region=result.lit,
            pixel_size=result.reconstruction.geometry.pixel_size,
            origin=result.reconstruction.image.origin,
            reference=result.reference.capitalize(),
            title=result.reconstruction.title,
        )
        report.wrote("picture", picture)
        curve = frc(result.aligned, result.truth, result.lit)
        curve_picture = target.with_name(f"{target.stem}_frc.png")
        frc_figure(curve_picture, {loaded.name: curve}, pixel_size=result.reconstruction.geometry.pixel_size)
        report.wrote("Fourier ring correlation", curve_picture)
    report.finish(summary)


def _removed(result: Evaluation) -> str:
    """What alignment took out of the stitched object, with its units."""
    found = result.stitched
    words = {
        "constant": f"constant {found['removed_constant']:.3g} rad",
        "scale": f"scale {found['removed_scale']:.3g}",
        "ramp": f"ramp ({found['removed_ramp_y']:.2g}, {found['removed_ramp_x']:.2g}) rad/pixel",
        "shift": f"shift ({found['removed_shift_y']:.2g}, {found['removed_shift_x']:.2g}) pixels",
    }
    return ", ".join(words[name] for name in result.removed)


def print_evaluation(report: Report, name: str, result: Evaluation) -> None:
    """The tables of one evaluation, the network beside the flat patch."""
    from ptychow.metrics import resolution_text

    report.line(f"region: {result.region} ({len(result.indices)} frames)")
    if result.stitched:
        report.line(f"removed from the stitched object: {_removed(result)}")
    for title, labels, found, flat in (
        ("Stitched", STITCHED, result.stitched, result.stitched_flat),
        ("Per patch (one constant removed from each)", PATCHES, result.patches, result.patches_flat),
    ):
        rows = [[label, found[key], flat[key]] for key, label in labels.items() if key in found]
        if rows:
            report.table(title, ["", name, "flat patch"], rows)
    if result.stitched:
        reached = resolution_text(result.stitched["frc_half"], result.reconstruction.geometry.pixel_size)
        report.line(f"Fourier ring correlation of the stitched object falls to 0.5 at {reached}")
    if result.notebook is not None:
        found = result.notebook
        rows = [
            ["amplitude MSE", found["notebook_amplitude_mse"], found["notebook_amplitude_floor"]],
            ["phase MSE, rad^2", found["notebook_phase_mse"], found["notebook_phase_floor"]],
            ["phase, unexplained variance, read on the grid", found["grid_phase_unexplained_variance"], 0.0],
        ]
        report.table("The notebooks' metric (absolute phases)", ["", name, "floor: perfect patches"], rows)
