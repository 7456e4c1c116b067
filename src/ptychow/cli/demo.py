"""`ptychow demo`: simulate, train and reconstruct a small scan, from nothing to a picture in two minutes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptychow.cli.common import Device, Json, Quiet, Report, Seed
from ptychow.errors import InputError

if TYPE_CHECKING:
    from ptychow.evaluation import Evaluation

# Lines of the twin's raster: the network trains on the first and is tested on the last. Two lines whose distance is at
# least 22 share no object pixel (64-pixel patches, 3-pixel steps).
TRAINING_LINES, TEST_LINES, COLUMNS = slice(0, 46), slice(67, 90), slice(0, 70)
EPOCHS, BATCH_SIZE = 4, 16
WORST_ACCEPTED = 0.25
# With the shipped Model: a twin of an object that it has never seen.
INSTANT_LINES, INSTANT_COLUMNS = slice(0, 24), slice(0, 36)


def demo(
    instant: Annotated[
        bool, typer.Option("--instant", help="Train nothing: a Model that ships reconstructs, within seconds.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write to; by default ptychow-demo here.")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", help=f"Passes over the training lines; {EPOCHS} by default.", min=1),
    ] = None,
    device: Device = "auto",
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Simulate a scan, train W3 on one part, reconstruct a part it has not seen, and measure.

    Exit code 1 where the stitched unexplained phase variance on the unseen lines exceeds 0.25.
    """
    from ptychow.files import require_writable

    report = Report(as_json, quiet)
    if instant and epochs is not None:
        raise InputError("nothing is trained with --instant", field="--epochs", remedy="Leave one of them out")
    folder = output or Path("ptychow-demo")
    require_writable(folder / "metrics.json")
    if instant:
        _instant(report, folder, seed, device)
    else:
        _trained(report, folder, epochs or EPOCHS, seed, device)


def _instant(report: Report, folder: Path, seed: int, device: str) -> None:
    """Simulate, reconstruct with the shipped W3-fast, measure."""
    from ptychow.evaluation import evaluate
    from ptychow.model import Model
    from ptychow.optics.twins import twin

    model = Model.load("w3f-26id-64")
    points = (INSTANT_LINES.stop, INSTANT_COLUMNS.stop)
    with report.progress("Simulating the scan", points[0] * points[1]) as advance:
        # Seeds of its own: none of the objects that weights were tested on.
        scan = twin("sim-26id-wide", 1000 + seed, lines=INSTANT_LINES, columns=INSTANT_COLUMNS, advance=advance)
    result = evaluate(model, scan, device=device)
    title = f"{model.name}, trained on twins of other samples, on {len(scan)} frames of a new one"
    _show(report, folder, result, title, "W3-fast")
    _finish(report, folder, result, {"network": model.card.network, "weights": model.name, "seed": seed})


def _trained(report: Report, folder: Path, epochs: int, seed: int, device: str) -> None:
    """Simulate, train W3 on one part, reconstruct another, measure."""
    import numpy as np

    from ptychow.evaluation import evaluate
    from ptychow.optics.twins import twin
    from ptychow.training import Split, recipe_named, steps_per_epoch, train

    lines = TEST_LINES.stop
    points = COLUMNS.stop - COLUMNS.start
    with report.progress("Simulating the scan", lines * points) as advance:
        scan = twin("sim-26id-wide", seed, lines=slice(0, lines), columns=COLUMNS, advance=advance)
    line = np.arange(len(scan)) // points
    nothing = np.zeros(0, np.int64)
    split = Split(
        "spatial",
        np.flatnonzero(line < TRAINING_LINES.stop),
        nothing,
        np.flatnonzero(line >= TEST_LINES.start),
    )
    recipe = recipe_named("ptychow", epochs=epochs, batch_size=BATCH_SIZE, virtual=0.0, keep="last")
    with report.progress("Training W3", epochs * steps_per_epoch(len(split.train), recipe)) as advance:
        trained = train(
            scan,
            "w3",
            recipe,
            splits=[split],
            seed=seed,
            device=device,
            on_step=lambda epoch, step, loss: advance(note=f"loss {loss:.3f}"),
        )
    result = evaluate(trained.model, scan, device=device)
    trained.model.save(folder / "w3.safetensors")
    report.wrote("Model", folder / "w3.safetensors")
    title = f"W3 on lines {TEST_LINES.start}-{lines - 1}, trained on lines 0-{TRAINING_LINES.stop - 1}"
    _show(report, folder, result, title, "W3")
    _finish(report, folder, result, {"network": "w3", "seed": seed, "training": trained.model.card.training})


def _show(report: Report, folder: Path, result: Evaluation, title: str, network: str) -> None:
    """Print the metrics, draw the picture, write the object."""
    from ptychow.cli.evaluate import print_evaluation
    from ptychow.figures import reconstruction_figure

    print_evaluation(report, network, result)
    path = folder / "reconstruction.png"
    reconstruction_figure(
        path,
        result.truth,
        result.aligned,  # type: ignore[arg-type]  # a simulated scan has a truth
        region=result.lit,
        pixel_size=result.reconstruction.geometry.pixel_size,
        origin=result.reconstruction.image.origin,
        title=title,
    )
    report.wrote("picture", path)
    result.reconstruction.save(folder / "reconstruction.cxi")
    report.wrote("object", folder / "reconstruction.cxi")


def _finish(report: Report, folder: Path, result: Evaluation, facts: dict[str, Any]) -> None:
    """Write the metrics. Raises PtychoWError where the picture is not good enough."""
    from ptychow.errors import PtychoWError
    from ptychow.files import write_json

    summary = {**facts, **result.summary()}
    write_json(folder / "metrics.json", summary)
    report.wrote("metrics", folder / "metrics.json")
    report.finish(summary)
    if not result.headline <= WORST_ACCEPTED:
        raise PtychoWError(
            f"unexplained phase variance {result.headline:.3f} on unseen lines is above {WORST_ACCEPTED}: "
            "the network has not learnt the scan"
        )
