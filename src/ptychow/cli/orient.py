"""`ptychow orient`: which way round detector and positions are, found by the forward model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ptychow.cli.common import (
    Device,
    Json,
    Mapping,
    PixelSize,
    Positions,
    Quiet,
    Report,
    Seed,
    inputs_of,
    open_scan,
    output_path,
)

if TYPE_CHECKING:
    from ptychow.orientation_search import Oriented
    from ptychow.scan import Scan


def orient(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Scan file.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the scan upright to this file or folder (otherwise nothing)."),
    ] = None,
    rough_probe: Annotated[
        bool, typer.Option("--rough-probe", help="The file's probe is a first guess: find the class alone.")
    ] = False,
    positions_known: Annotated[
        bool, typer.Option("--positions-known", help="The positions' axes and signs are right: turn frames only.")
    ] = False,
    device: Device = "auto",
    seed: Seed = 0,
    pixel_size_nm: PixelSize = None,
    positions: Positions = None,
    mapping: Mapping = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find which of the eight orientations brings the frames, and the positions, upright.

    Tried on neighbouring frames: some are left out of a short reconstruction and predicted from it. A scan that cannot
    tell ends with an error, not with a guess. Takes minutes on a CPU; --positions-known a fifth of that. Where
    it cannot be told with the file's probe, that is taken for a first guess, as with --rough-probe.
    """
    from ptychow.errors import PtychoWError
    from ptychow.formats import write_scan
    from ptychow.orientation_search import upright

    report = Report(as_json, quiet)
    target = None if output is None else output_path(output, file, "_upright.cxi", *inputs_of(file, mapping, positions))
    scan = open_scan(file, mapping, pixel_size_nm, positions)
    trusted = scan.probe is not None and not rough_probe
    found = _search(report, scan, trusted, positions_known, device, seed)
    if trusted and not found.knows_class:
        report.line("with the file's probe it cannot be told: looking again, as with --rough-probe")
        found = _search(report, scan, False, positions_known, device, seed)
    rows = [
        [
            h.frames,
            h.positions,
            h.residual,
            h.flat,
            f"{h.worse:.0%}",
            "yes" if found.sees_object and h in found.alike else "",
        ]
        for h in found.hypotheses
    ]
    columns = ["frames", "positions", "unexplained", "by a flat object", "frames worse than best", "fits"]
    report.table(f"{scan.name}: {found.unseen} frames predicted from their neighbours", columns, rows)
    for line in found.words() if found.knows_class else ():
        report.line(line)
    if found.knows_class and target is not None:
        with report.progress("Writing frames", len(scan)) as advance:
            write_scan(target, upright(scan, found.best.frames, found.best.positions), advance)
        report.wrote("upright scan", target)
    report.finish(found.summary())
    if not found.knows_class:
        raise PtychoWError(f"{scan.name}: the orientation cannot be told: {found.words()[0]}")


def _search(report: Report, scan: Scan, trusted: bool, positions_known: bool, device: str, seed: int) -> Oriented:
    """What `find_orientation` finds, with a progress bar."""
    from ptychow.orientation import Orientation
    from ptychow.orientation_search import find_orientation, number_of_trials

    turns = (Orientation.IDENTITY,) if positions_known else tuple(Orientation)
    with report.progress("Trying orientations", number_of_trials(scan, trusted, len(turns))) as advance:
        return find_orientation(scan, trust_probe=trusted, positions=turns, device=device, seed=seed, on_trial=advance)
