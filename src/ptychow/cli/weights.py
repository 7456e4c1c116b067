"""`ptychow weights`: the trained Models that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ptychow.cli.common import Json, Quiet, Report, format_number, output_path
from ptychow.words import counted


def weights(
    name: Annotated[str | None, typer.Argument(help="Show all of one.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Copy the Model NAME to this file, or into this folder.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the Models that ship; their names serve wherever a Model file does (`--model w3`)."""
    from ptychow.errors import InputError
    from ptychow.model import Model
    from ptychow.shipped import LICENCE, SHIPPED, model_file, names

    report = Report(as_json, quiet)
    if name is None:
        if output is not None:
            raise InputError("copies one Model", field="--output", remedy="Give its name, too")
        cards = {}
        for one in SHIPPED:
            try:
                cards[one] = _card(Model.load(one), one)
            except InputError as error:
                report.warn(str(error))
        rows = [
            [one, SHIPPED[one].alias, card["network"], card["parameters"], card["frame"], SHIPPED[one].title]
            for one, card in cards.items()
        ]
        report.table("Models that ship", ["name", "alias", "network", "parameters", "frames", "made for"], rows)
        report.line(f"Licence: {LICENCE}. `ptychow weights NAME` shows data, error and valid range.")
        report.finish({"weights": cards, "licence": LICENCE})
        return
    full = names().get(name)
    if full is None:
        raise InputError("no such weights", found=name, expected=", ".join(names()))
    model = Model.load(full)
    card = _card(model, full)
    report.table(full, ["", ""], _headlines(model, card))
    report.line("All of it, with every metric: --json")
    if output is not None:
        _copy(model_file(full), output, report)
    report.finish(card)


def _card(model: Any, name: str) -> dict[str, Any]:
    """What a user should know of a Model before trusting it."""
    from ptychow.networks.count import count
    from ptychow.shipped import LICENCE, SHIPPED, model_file

    card, height = model.card, model.patch_size
    pixel = card.geometry.pixel_size
    return {
        "made for": SHIPPED[name].title,
        "network": card.network,
        "parameters": count(model.network, height).parameters,
        "file": f"{model_file(name).stat().st_size / 2**20:.2g} MiB",
        "frame": f"{card.frame_shape[0]} x {card.frame_shape[1]}",
        "object pixel": "unknown" if pixel is None else f"{pixel * 1e9:.4g} nm",
        "counts per frame": card.counts_per_frame,
        "count-rate limits (factors)": card.count_limits,
        "gauge": card.gauge,
        "data": "; ".join(f"{data.name}: {data.labels}" for data in card.data),
        "training": card.training,
        "recipe": card.recipe.get("name"),
        "metrics": card.metrics,
        "command": SHIPPED[name].command,
        "versions": card.versions,
        "licence": LICENCE,
    }


def _headlines(model: Any, card: dict[str, Any]) -> list[list[str]]:
    """What to know before all else, in five lines."""
    from ptychow.optics.propagation import photon_wavelength

    wavelength, limits = model.card.geometry.wavelength, model.card.count_limits
    energy = "energy unknown" if wavelength is None else f"{photon_wavelength(1e3) / wavelength:.4g} keV"
    scans, steps = counted(len(model.card.data), "scan"), model.card.training.get("steps")
    counts = "unknown" if model.card.counts_per_frame is None else f"{model.card.counts_per_frame:.3g} a frame"
    factors = "limits not measured" if limits is None else f"good from {limits[0]:.2g} to {limits[1]:.3g} times that"
    return [
        ["made for", f"{card['made for']}: {energy}, object pixel {card['object pixel']}, frames of {card['frame']}"],
        ["trained", f"{card['network']}, {card['recipe']} recipe, {steps} steps on {scans}: {card['command']}"],
        ["error", _error(model.card.metrics)],
        ["counts", f"{counts}; {factors}"],
        ["licence", card["licence"]],
    ]


def _error(metrics: dict[str, Any]) -> str:
    """The stitched error of each evaluation, beside that of knowing nothing; or what the Model's own says in words."""
    if "in words" in metrics:
        return str(metrics["in words"])
    cases = {"": metrics} if "stitched" in metrics else metrics
    key = "phase_unexplained_variance"
    found = [
        f"{format_number(part['stitched'][key])}{f' ({name})' if name else ''}"
        for name, part in cases.items()
        if isinstance(part, dict) and part.get("stitched")
    ]
    return f"unexplained phase variance {', '.join(found)}; a flat patch has 1" if found else "not measured"


def _copy(source: Path, output: Path, report: Report) -> None:
    from shutil import copyfile

    from ptychow.files import atomic_path

    into_folder = output.is_dir() or not output.suffix
    target = output_path(output / source.name if into_folder else output, source, ".safetensors")
    with atomic_path(target) as temporary:
        copyfile(source, temporary)
    report.wrote("Model", target)
