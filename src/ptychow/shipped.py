"""Trained weights that come with the package: Models by name, usable wherever a Model file is.

To add one: put NAME.safetensors into `ptychow/weights`, and a line into `SHIPPED`. The Models say the rest themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ptychow.errors import InputError

FOLDER = Path(__file__).parent / "weights"
LICENCE = "BSD-3-Clause"


@dataclass(frozen=True)
class Shipped:
    """What a Model that ships was made for, and the command that trained it."""

    title: str
    command: str
    alias: str | None = None


SHIPPED: dict[str, Shipped] = {
    "w3-26id-64": Shipped(
        "the simulated twin sim-26id-wide and instruments around it",
        "python benchmarks/weights.py w3-26id-64",
        alias="w3",
    ),
    "w1-26id-64": Shipped(
        "the simulated twin sim-26id-wide and instruments around it",
        "python benchmarks/weights.py w1-26id-64",
        alias="w1",
    ),
    "w3f-26id-64": Shipped(
        "the simulated twin sim-26id-wide and instruments around it",
        "python benchmarks/weights.py w3f-26id-64",
        alias="w3f",
    ),
    "wc-tungsten-128": Shipped(
        "the measured scan of `ptychow fetch tungsten-26id`, without labels",
        "python benchmarks/calibrate.py --scans tungsten-26id --cases physics",
    ),
    "wc-siemens-128": Shipped(
        "the measured scan of `ptychow fetch siemens-star`, without labels",
        "python benchmarks/calibrate.py --scans siemens-star --cases physics",
    ),
}


def names() -> dict[str, str]:
    """Every name and alias that ships, and the full name behind it."""
    return {name: name for name in SHIPPED} | {one.alias: name for name, one in SHIPPED.items() if one.alias}


def model_file(name_or_path: str | Path) -> Path:
    """The file meant: one that exists, or else the shipped Model of that name.

    Raises InputError for what is neither, with the names there are.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    full = names().get(str(name_or_path))
    if full is None:
        raise InputError("no such Model file", file=path, expected=f"a file, or one of {', '.join(names())}")
    return FOLDER / f"{full}.safetensors"
