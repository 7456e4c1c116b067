"""`ptychow reconstruct PATTERN --cluster ...`: many scans, one table."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

from ptychow.cli.common import Report
from ptychow.errors import InputError, PtychoWError


def reconstruct_many(
    report: Report,
    pattern: str,
    model: Path,
    output: Path | None,
    cluster: str,
    workers: int | None,
    reading: dict[str, Any],
    options: dict[str, Any],
) -> None:
    """Reconstruct every file that matches; prints a line a scan. Raises PtychoWError where some could not be."""
    from dataclasses import asdict

    from ptychow.cluster import MANIFEST, reconstruct_scans
    from ptychow.shipped import model_file

    names = glob.glob(pattern, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute patterns)
    files = sorted(Path(name) for name in names)
    if not files:
        raise InputError("matches no file", field="FILE", found=pattern, remedy="Quote the pattern: 'scans/*.h5'")
    folder = output or Path("reconstructions")
    if folder.is_file():
        raise InputError("a file, not a folder", file=folder, field="--output")
    with report.progress("Reconstructing", len(files)) as advance:
        outcomes = reconstruct_scans(
            files,
            model_file(model),
            folder,
            cluster=cluster,
            workers=workers,
            reading=reading,
            options=options,
            on_outcome=lambda outcome: advance(note=outcome.file.name),
        )
    rows = [
        [
            outcome.file.name,
            outcome.state,
            outcome.summary.get("frames"),
            outcome.seconds,
            outcome.problem or "; ".join(outcome.summary.get("warnings", [])),
        ]
        for outcome in outcomes
    ]
    report.table(f"{len(files)} scans", ["scan", "", "frames", "s", "problem or warnings"], rows)
    report.wrote("objects and table", folder / MANIFEST)
    failed = [outcome.file.name for outcome in outcomes if outcome.state == "failed"]
    report.finish({"scans": [{**asdict(o), "file": str(o.file), "output": str(o.output)} for o in outcomes]})
    if failed:
        raise PtychoWError(f"{len(failed)} of {len(files)} scans could not be reconstructed; the first: {failed[0]}")
