"""`ptychow train`: labelled scans to a Model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptychow.cli.common import (
    Device,
    Force,
    Json,
    Mapping,
    NetworkSettings,
    NetworkSize,
    Output,
    PixelSize,
    Positions,
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
)

if TYPE_CHECKING:
    from ptychow.model import Model
    from ptychow.scan import Scan
    from ptychow.training import History, Trained


def train(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Labelled scans of one instrument.")],
    network: Annotated[
        str | None, typer.Option("--network", help="w1 by default, or that of --start; see ptychow networks.")
    ] = None,
    recipe: Annotated[str, typer.Option("--recipe", help="ptychow, or paper; see docs/training.md.")] = "ptychow",
    network_setting: NetworkSettings = None,
    output: Output = None,
    start: Annotated[Path | None, typer.Option("--start", help="Model to go on from: fine-tuning.")] = None,
    physics: Annotated[
        str | None,
        typer.Option("--physics", help="amplitude or poisson: compare measured with predicted diffraction, too."),
    ] = None,
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="With --physics: by diffraction alone, labels are not looked at.")
    ] = False,
    teacher: Annotated[
        Path | None,
        typer.Option("--teacher", help="Model whose predictions are the labels: distillation; scans need none."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Passes over the training frames, instead of the recipe's.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Frames a step, instead of the recipe's.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Largest rate, instead of the recipe's.")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option("--schedule", help="constant, one-cycle or cyclic, instead of the recipe's.")
    ] = None,
    size: NetworkSize = None,
    split: Annotated[
        str, typer.Option("--split", help="spatial (blocks with a guard gap), random (the paper's) or none.")
    ] = "spatial",
    validation: Annotated[
        float, typer.Option("--validation", help="Fraction of the frames to validate on.", min=0, max=0.9)
    ] = 0.1,
    holdout: Annotated[
        float, typer.Option("--holdout", help="Fraction kept unseen, for ptychow evaluate.", min=0, max=0.9)
    ] = 0.0,
    precision: TrainingPrecision = "fp32",
    resume: Resume = False,
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", help="Also write TensorBoard logs to this folder.")
    ] = None,
    force: Force = False,
    device: Device = "auto",
    devices: Annotated[int, typer.Option("--devices", help="Processes here, one for each GPU.", min=1)] = 1,
    nodes: Annotated[int, typer.Option("--nodes", help="Machines; give the command on each.", min=1)] = 1,
    meeting: Annotated[
        str | None, typer.Option("--meeting", metavar="HOST:PORT", help="Where several machines meet: one of them.")
    ] = None,
    seed: Seed = 0,
    pixel_size_nm: PixelSize = None,
    positions: Positions = None,
    mapping: Mapping = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit a network to labelled scans; writes the Model, and the loss curves as a picture and as JSON."""
    from ptychow.errors import InputError
    from ptychow.model import Model
    from ptychow.training import recipe_named
    from ptychow.training import train as run
    from ptychow.training.processes import adopt_slurm, is_first, launch, processes

    adopt_slurm()
    if devices * nodes > 1 and processes() == 1:
        raise typer.Exit(launch(sys.argv[1:], devices, nodes, meeting))
    report = Report(as_json, quiet or not is_first())
    require_choice("--precision", precision, "fp32", "bf16")
    warn_of_bf16(report, precision, device)
    require_choice("--split", split, "spatial", "random", "none")
    if physics is not None:
        require_choice("--physics", physics, "amplitude", "poisson")
    if no_labels and teacher is not None:
        raise InputError("does not go with --teacher", field="--no-labels", remedy="Give one of them")
    if no_labels and physics is None:
        raise InputError("leaves nothing to train by", field="--no-labels", remedy="Add --physics amplitude")
    model = None if start is None else Model.load(start)
    if model is not None and network not in (None, model.card.network):
        raise InputError("not the network of --start", field="--network", found=network, expected=model.card.network)
    network = network or ("w1" if model is None else model.card.network)
    if network_setting and model is not None:
        raise InputError("does not go with --start", field="--set", remedy="The Model knows its network")
    if size is not None and model is not None:
        raise InputError("does not go with --start", field="--size", remedy="The Model knows its frames")
    read = [path for file in files for path in inputs_of(file, mapping, positions)]
    inputs = [*read, *(path for path in (start, teacher) if path is not None)]
    target = output_path(output, files[0], f"_{network}.safetensors", *inputs)
    checkpoint = checkpoint_beside(target, resume)
    settings = recipe_named(
        recipe,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        schedule=schedule,
        physics=physics,
        # Virtual points need an object.
        virtual=1 if no_labels else 0 if teacher else None,
    )
    if positions is not None and len(files) > 1:
        raise InputError("goes with one scan", field="--positions", found=f"{len(files)} scans")
    scans = [open_scan(file, mapping, pixel_size_nm, positions) for file in files]
    labelled = scans if teacher is None else _taught(report, teacher, scans, device)
    with report.progress("Training", settings.epochs) as advance, _log(tensorboard if is_first() else None) as log:

        def on_epoch(history: History) -> None:
            validated = f", validation {history.validation_loss[-1]:.4f}" if history.validation_loss else ""
            advance(note=f"loss {history.train_loss[-1]:.4f}{validated}")
            log(history)

        trained = run(
            labelled,
            network,
            settings,
            settings=network_settings(network_setting),
            start=model,
            size=size,
            split=split,
            validation=validation,
            holdout=holdout,
            seed=seed,
            force=force,
            device=device,
            precision=precision,
            checkpoint=checkpoint,
            resume=resume,
            on_epoch=on_epoch,
        )
    if not is_first():
        return
    # Hours of work first: what is measured on it comes after.
    trained.model.save(target)
    checkpoint.unlink(missing_ok=True)
    report.wrote("Model", target)
    for warning in trained.warnings:
        report.warn(warning)
    report.line(_describe(trained))
    _write_curves(report, trained, target, f"{network}, {settings.name} recipe, seed {seed}")
    has_labels = scans[0].object is not None or scans[0].label_patches is not None
    if has_labels and len(trained.splits[0].holdout) and trained.model.probe is not None:
        _evaluate(report, trained.model, scans[0], device)
        trained.model.save(target)
    report.finish({"network": network, **trained.model.card.training, "warnings": list(trained.warnings)})


def _taught(report: Report, teacher: Path, scans: list[Scan], device: str) -> list[Scan]:
    """The scans with a teacher's predictions as labels."""
    from ptychow.model import Model
    from ptychow.training.distillation import taught_by

    model = Model.load(teacher)
    for scan in scans:
        for warning in model.check(scan):
            report.warn(warning)
    with report.progress("Asking the teacher", len(scans)) as advance:
        taught = []
        for scan in scans:
            taught.append(taught_by(model, scan, device))
            advance()
    return taught


def _write_curves(report: Report, trained: Trained, target: Path, title: str) -> None:
    """The loss curves beside the Model, as JSON and as a picture."""
    from dataclasses import asdict

    from ptychow.figures import training_figure
    from ptychow.files import write_json

    numbers, picture = (target.with_name(f"{target.stem}_training.{ending}") for ending in ("json", "png"))
    card = trained.model.card
    write_json(numbers, {"history": asdict(trained.history), "training": card.training, "recipe": card.recipe})
    report.wrote("loss curves", numbers)
    training_figure(picture, trained.history.curves(), title=title)
    report.wrote("picture", picture)


def _evaluate(report: Report, model: Model, scan: Scan, device: str) -> None:
    """Put the Model's numbers on the held-out part of the scan into its card, and say them."""
    from ptychow.evaluation import evaluate

    found = evaluate(model, scan, device=device)
    model.card = model.card.model_copy(update={"metrics": found.summary()})
    report.line(
        f"held-out part of the first scan: unexplained phase variance {found.headline:.4f} "
        f"(flat patch {found.stitched_flat['phase_unexplained_variance']:.4f})"
    )


def _describe(trained: Trained) -> str:
    """One line on what was trained, and how long it took."""
    card, split = trained.model.card, trained.splits[0]
    blocks = f"{len(split.train)} training, {len(split.validation)} validation, {len(split.holdout)} held-out frames"
    steps, seconds, loss = (card.training[name] for name in ("steps", "seconds", "train_loss"))
    result = f"{card.network}: {steps} steps in {seconds:.0f} s, last training loss {loss:.4f}"
    return f"{result}; {split.kind} split of the first scan: {blocks}"


class _log:
    """Context: a function that writes the newest epoch to TensorBoard, or does nothing without a folder."""

    def __init__(self, folder: Path | None) -> None:
        self.writer = None
        if folder is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                from ptychow.errors import MissingExtraError

                raise MissingExtraError("--tensorboard", "tensorboard") from None
            self.writer = SummaryWriter(str(folder))

    def __enter__(self) -> _log:
        return self

    def __exit__(self, *unused: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def __call__(self, history: History) -> None:
        if self.writer is None:
            return
        for name in ("train_loss", "validation_loss", "learning_rate"):
            values = getattr(history, name)
            if values:
                self.writer.add_scalar(name, values[-1], history.epochs)
