"""`ptychow calibrate`: one measured scan to a Model for its instrument, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptychow.cli.common import (
    Device,
    Json,
    Mapping,
    NetworkSettings,
    NetworkSize,
    Output,
    PixelSize,
    Positions,
    ProbeModes,
    Quiet,
    Report,
    Resume,
    Seed,
    TrainingPrecision,
    checkpoint_beside,
    inputs_of,
    network_settings,
    open_scan,
    output_path,
    require_choice,
    warn_of_bf16,
    warn_of_findings,
)

if TYPE_CHECKING:
    from ptychow.model import Model
    from ptychow.scan import Scan
    from ptychow.training import Trained

# Of the iterative methods the one whose probe converged soonest on the measured scans (docs/results/solvers.md).
PROBE_METHOD = "mpie"


def calibrate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Scan file, with or without a probe.")],
    output: Output = None,
    network: Annotated[str, typer.Option("--network", help="See ptychow networks.")] = "wc",
    network_setting: NetworkSettings = None,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Training steps, above 50 to the nearest 50; by default 4000.", min=1)
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="Train for about so long, instead of --steps.", min=0)
    ] = None,
    diffraction_steps: Annotated[
        int,
        typer.Option(
            "--diffraction-steps",
            help="Then so many steps on what the patches leave unexplained of the scan's own frames; 0 for none.",
            min=0,
        ),
    ] = 1000,
    probe_epochs: Annotated[
        int,
        typer.Option(
            "--probe-epochs", help="mPIE epochs that find or improve the probe; 0 takes the file's as it is.", min=0
        ),
    ] = 60,
    modes: ProbeModes = None,
    size: NetworkSize = None,
    precision: TrainingPrecision = "fp32",
    resume: Resume = False,
    device: Device = "auto",
    seed: Seed = 0,
    pixel_size_nm: PixelSize = None,
    positions: Positions = None,
    mapping: Mapping = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a network on simulated samples seen through the scan's own probe, then on the scan's own diffraction.

    Writes the Model, the reconstructed object and its picture. No label of the sample is needed or used.
    """
    from ptychow.detector_fit import fit_preparation
    from ptychow.errors import InputError
    from ptychow.model import Model
    from ptychow.networks import build
    from ptychow.reconstruction import reconstruct
    from ptychow.training import DIFFRACTION, LABEL_FREE, interrupted_recipe
    from ptychow.training import calibrate as run

    report = Report(as_json, quiet)
    require_choice("--precision", precision, "fp32", "bf16")
    warn_of_bf16(report, precision, device)
    if minutes is not None and steps is not None:
        raise InputError("does not go with --steps", field="--minutes", remedy="Give one of the two")
    given = inputs_of(file, mapping, positions)
    target = output_path(output, file, f"_{network}.safetensors", *given)
    image = output_path(target.with_suffix(".cxi"), file, ".cxi", *given)
    checkpoint = checkpoint_beside(target, resume)
    scan = open_scan(file, mapping, pixel_size_nm, positions)
    # What is wrong with the network or its size is said before minutes go into a probe.
    build(network, **network_settings(network_setting))
    fit_preparation(scan, size=size)
    warn_of_findings(report, scan)
    begun = interrupted_recipe(checkpoint) if resume else None
    on_diffraction = begun is not None and begun.name == DIFFRACTION.name
    if on_diffraction:
        model = Model.load(target)
    else:
        if probe_epochs:
            scan = _with_probe(report, scan, probe_epochs, modes, device, seed)
        recipe = LABEL_FREE
        if steps is not None:
            recipe = recipe.model_copy(update=lengths(steps, recipe.steps_per_epoch))
        epochs = recipe.epochs if minutes is None else None if begun is None else begun.epochs
        with report.progress("Training", epochs and epochs * recipe.steps_per_epoch) as advance:
            trained = run(
                scan,
                network,
                recipe,
                settings=network_settings(network_setting),
                size=size,
                minutes=minutes,
                seed=seed,
                device=device,
                precision=precision,
                checkpoint=checkpoint,
                resume=resume,
                on_step=lambda epoch, step, loss: advance(note=f"loss {loss:.4f}"),
            )
        _tell(report, trained)
        model = trained.model
        model.save(target)
    if diffraction_steps:
        # Until the first epoch of these is over, the checkpoint is that of the training before.
        model = _on_diffraction(
            report, scan, model, diffraction_steps, device, precision, seed, checkpoint, resume=on_diffraction
        )
        model.save(target)
    checkpoint.unlink(missing_ok=True)
    report.wrote("Model", target)
    result = reconstruct(scan, model, device=device, precision=precision)
    for warning in result.warnings:
        report.warn(warning)
    result.save(image)
    report.wrote("object", image)
    picture = target.with_suffix(".png")
    result.save_picture(picture)
    report.wrote("picture", picture)
    report.finish({"network": network, **model.card.training, "reconstruction": result.summary})


def _with_probe(report: Report, scan: Scan, epochs: int, modes: int | None, device: str, seed: int) -> Scan:
    """The scan with the probe that so many epochs find, or improve."""
    from dataclasses import replace

    from ptychow.solver import label

    with report.progress("Finding the probe", epochs) as advance:
        found = label(
            scan,
            method=PROBE_METHOD,
            epochs=epochs,
            probe_modes=modes,
            device=device,
            seed=seed,
            on_epoch=lambda progress: advance(note=f"error {progress.errors[-1]:.4f}"),
        )
    for note in found.notes:
        report.line(f"note: {note}")
    # The probe only: the object that came with it is a label.
    return replace(scan, probe=found.scan.probe)


def _tell(report: Report, trained: Trained) -> None:
    """One line on a training."""
    card = trained.model.card
    report.line(
        f"{card.network}, {card.recipe['name']}: {card.training['steps']} steps in {card.training['seconds']:.0f} s, "
        f"last training loss {card.training['train_loss']:.4f}"
    )


def _on_diffraction(
    report: Report,
    scan: Scan,
    model: Model,
    steps: int,
    device: str,
    precision: str,
    seed: int,
    checkpoint: Path,
    resume: bool,
) -> Model:
    """The Model after so many steps on the scan's own diffraction; the one given, where its object explains more.

    Diffraction alone can also lead astray, with a wrong probe for one (docs/results/calibrate.md).
    """
    from ptychow.reconstruction import reconstruct
    from ptychow.training import DIFFRACTION, no_split, train

    recipe = DIFFRACTION.model_copy(update=lengths(steps, DIFFRACTION.steps_per_epoch))
    with report.progress("On diffraction", recipe.epochs * recipe.steps_per_epoch) as advance:
        trained = train(
            scan,
            recipe=recipe,
            start=model,
            splits=[no_split(len(scan))],
            seed=seed,
            device=device,
            precision=precision,
            checkpoint=checkpoint,
            resume=resume,
            on_step=lambda epoch, step, loss: advance(note=f"loss {loss:.4f}"),
        )
    _tell(report, trained)
    before, after = (
        reconstruct(scan, one, device=device, precision=precision).summary["object_residual"]
        for one in (model, trained.model)
    )
    report.line(f"the object leaves {after:.4f} of the diffraction unexplained, before these steps {before:.4f}")
    if after < before:
        return trained.model
    report.warn("the steps on diffraction made it worse: the Model of before is kept")
    return model


def lengths(steps: int, most: int) -> dict[str, int]:
    """So many steps in epochs of at most `most`, to the nearest whole epoch."""
    length = min(steps, most)
    return {"steps_per_epoch": length, "epochs": round(steps / length)}
