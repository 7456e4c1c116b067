"""`ptychow calibrate`: one measured scan to a Model for its instrument, without labels."""

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
    Positions,
    Quiet,
    Report,
    Seed,
    open_scan,
    output_path,
    require_choice,
)

# Of the iterative methods the one whose probe converged soonest on the measured scans (docs/results/solvers.md).
PROBE_METHOD = "mpie"


def calibrate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Scan file, with or without a probe.")],
    output: Output = None,
    network: Annotated[str, typer.Option("--network", help="See ptychow networks.")] = "wc",
    steps: Annotated[
        int | None, typer.Option("--steps", help="Training steps, above 50 to the nearest 50; by default 4000.", min=1)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="Train for about so long, instead of --steps.", min=0)
    ] = None,
    probe_epochs: Annotated[
        int,
        typer.Option(
            "--probe-epochs", help="mPIE epochs that find or improve the probe; 0 takes the file's as it is.", min=0
        ),
    ] = 60,
    modes: Annotated[
        int | None, typer.Option("--modes", help="Incoherent probe modes; by default as many as the scan's probe has.")
    ] = None,
    size: Annotated[int | None, typer.Option("--size", help="Crop or bin the frames to this many pixels.")] = None,
    precision: Annotated[str, typer.Option("--precision", help="fp32 or bf16.")] = "fp32",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training.")] = False,
    device: Device = "auto",
    seed: Seed = 0,
    pixel_size_nm: PixelSize = None,
    positions: Positions = None,
    mapping: Mapping = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a network on simulated samples seen through the scan's own probe, then reconstruct the scan with it.

    Writes the Model, the reconstructed object and its picture. No label of the sample is needed or used.
    """
    from dataclasses import replace

    from ptychow.errors import InputError
    from ptychow.reconstruction import reconstruct
    from ptychow.training import LABEL_FREE
    from ptychow.training import calibrate as run

    report = Report(as_json, quiet)
    require_choice("--precision", precision, "fp32", "bf16")
    if minutes is not None and (steps is not None or resume):
        other = "--resume" if steps is None else "--steps"
        raise InputError(f"does not go with {other}", field="--minutes", remedy="Give the number of steps")
    target = output_path(output, file, f"_{network}.safetensors")
    checkpoint = target.with_name(f"{target.stem}_checkpoint.safetensors")
    if resume and not checkpoint.exists():
        raise InputError("nothing to resume", file=checkpoint, remedy="Calibrate without --resume")
    scan = open_scan(file, mapping, pixel_size_nm, positions)
    if probe_epochs:
        from ptychow.solver import label

        with report.progress("Finding the probe", probe_epochs) as advance:
            found = label(
                scan,
                method=PROBE_METHOD,
                epochs=probe_epochs,
                probe_modes=modes,
                device=device,
                seed=seed,
                on_epoch=lambda progress: advance(note=f"error {progress.errors[-1]:.4f}"),
            )
        for note in found.notes:
            report.line(f"note: {note}")
        # The probe only: the object that came with it is a label.
        scan = replace(scan, probe=found.scan.probe)
    recipe = LABEL_FREE
    if steps is not None:
        length = min(steps, recipe.steps_per_epoch)
        recipe = recipe.model_copy(update={"steps_per_epoch": length, "epochs": round(steps / length)})
    with report.progress("Training", None if minutes else recipe.epochs * recipe.steps_per_epoch) as advance:
        trained = run(
            scan,
            network,
            recipe,
            size=size,
            minutes=minutes,
            seed=seed,
            device=device,
            precision=precision,
            checkpoint=checkpoint,
            resume=resume,
            on_step=lambda epoch, step, loss: advance(note=f"loss {loss:.4f}"),
        )
    card = trained.model.card
    report.line(
        f"{network}: {card.training['steps']} steps in {card.training['seconds']:.0f} s, "
        f"last training loss {card.training['train_loss']:.4f}"
    )
    trained.model.save(target)
    checkpoint.unlink(missing_ok=True)
    report.wrote("Model", target)
    result = reconstruct(scan, trained.model, device=device, precision=precision)
    for warning in result.warnings:
        report.warn(warning)
    image, picture = target.with_suffix(".cxi"), target.with_suffix(".png")
    result.save(image)
    report.wrote("object", image)
    result.save_picture(picture, title=f"{scan.name}: {network}, trained without labels")
    report.wrote("picture", picture)
    report.finish({"network": network, **card.training, "reconstruction": result.summary})
