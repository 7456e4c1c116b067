"""`ptychow weights`: the trained Models that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ptychow.cli.common import Json, Quiet, Report, format_number


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
        cards = {one: _card(Model.load(one), one) for one in SHIPPED}
        rows = [
            [one, SHIPPED[one].alias, card["network"], card["parameters"], card["frame"], SHIPPED[one].title]
            for one, card in cards.items()
        ]
        report.table("Models that ship", ["name", "alias", "network", "parameters", "frames", "made for"], rows)
        report.line(f"Licence: {LICENCE}. `ptychow weights NAME` shows data, recipe, metrics and valid range.")
        report.finish({"weights": cards, "licence": LICENCE})
        return
    full = names().get(name)
    if full is None:
        raise InputError("no such weights", found=name, expected=", ".join(names()))
    card = _card(Model.load(full), full)
    report.table(full, ["", ""], [[key, _text(value)] for key, value in card.items()])
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


def _text(value: Any) -> str:
    """A cell of the card's table."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(part)}" for key, part in value.items()) or "-"
    if isinstance(value, list | tuple):
        return " to ".join(_text(part) for part in value)
    return format_number(value)


def _copy(source: Path, output: Path, report: Report) -> None:
    from shutil import copyfile

    from ptychow.files import atomic_path

    target = output / source.name if output.is_dir() else output
    with atomic_path(target) as temporary:
        copyfile(source, temporary)
    report.wrote("Model", target)
