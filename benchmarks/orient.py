"""Which way round a detector is, on the two real scans after each of the eight orientations has been imposed on them,
and on data that cannot tell. Writes docs/results/orient.{md,json}.

    python benchmarks/orient.py

Three searches: with the labelled scan's probe taken as known and the positions' axes as right (eight hypotheses), with
them open as well (64, once a scan), and with the probe that came with the scan as a first guess (the four classes).
Every finished search leaves a JSON; nothing is run twice.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import machine
from ptychow.datasets import fetch
from ptychow.files import write_json
from ptychow.formats import read_scan
from ptychow.optics.detection import Detector
from ptychow.optics.experiment import Experiment
from ptychow.optics.simulate import canvas, simulate
from ptychow.orientation import Orientation
from ptychow.orientation_search import find_orientation
from ptychow.scan import Scan
from real_scan import RESULTS, labelled_scan

UPRIGHT = Orientation.IDENTITY
SCANS = ("siemens-star", "tungsten-26id")
# Data that cannot tell, by why.
BLANKS = ("no object", "no overlap", "points on one line")
SEARCHES = {
    "known": "known probe, positions as stored",
    "open": "known probe, positions open",
    "blind": "first guess of a probe",
}


@dataclass(frozen=True)
class Case:
    """A scan, what was imposed on its frames and positions, and how it is searched."""

    scan: str
    frames: Orientation
    positions: Orientation
    search: str

    @property
    def name(self) -> str:
        """Of its JSON."""
        return f"{self.scan}_{self.frames}_{self.positions}_{self.search}".replace(" ", "-")


CASES = (
    *(Case(scan, frames, UPRIGHT, search) for scan in SCANS for search in ("known", "blind") for frames in Orientation),
    *(Case(scan, Orientation.ROTATE_90, Orientation.FLIP_ROWS, "open") for scan in SCANS),
    *(Case(blank, UPRIGHT, UPRIGHT, search) for blank in BLANKS for search in ("known", "blind")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", nargs="+", default=[*SCANS, *BLANKS])
    parser.add_argument("--searches", nargs="+", default=list(SEARCHES), choices=SEARCHES)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report-only", action="store_true", help="Only write the page from the JSONs there are.")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = RESULTS / "orient"
    for case in CASES:
        result = folder / f"{case.name}.json"
        wanted = case.scan in options.scans and case.search in options.searches and not options.report_only
        if wanted and not result.exists():
            run(case, result)
    write_report(folder)


def upright_scan(name: str, search: str) -> Scan:
    """A real scan with a known probe (its label's) or a first guess (the file's), or one of `BLANKS`; in pixels."""
    if name in SCANS:
        scan = labelled_scan(name, RESULTS / "real_scan")
        if search == "blind":
            scan = replace(scan, probe=read_scan(fetch(name)).probe)
        return replace(scan, positions=scan.positions_px, position_unit="px", nominal_positions=None, object=None)
    experiment = Experiment(size=64, points=81, step=70.0 if name == "no overlap" else 4.0, trajectory="raster")
    scan = experiment.run(workers=1)
    if name == "no object":
        scan = without_object(scan)
    if name == "points on one line":
        scan = replace(experiment, points=81**2).run(workers=1).select(np.arange(81))
    return replace(scan, object=None)


def without_object(scan: Scan) -> Scan:
    """The same points and beam, with nothing in it."""
    assert scan.probe is not None
    shape, origin = canvas(scan.positions_px, scan.frame_shape[0])
    empty = np.ones(shape, np.complex64)
    return simulate(scan.probe, empty, scan.positions_px, origin=origin, counts=1e6, detector=Detector(), workers=1)


def run(case: Case, result: Path) -> None:
    """Impose, search, write the JSON."""
    scan = upright_scan(case.scan, case.search)
    frames = case.frames.inverse.apply_about_zero_frequency(scan.frames[:])
    mask = None if scan.mask is None else case.frames.inverse.apply_about_zero_frequency(scan.mask)
    positions = case.positions.inverse.apply_to_positions(scan.positions)
    stored = replace(scan, frames=np.ascontiguousarray(frames), mask=mask, positions=positions, raster=None)
    began, used = time.perf_counter(), time.process_time()
    found = find_orientation(
        stored,
        trust_probe=case.search != "blind",
        positions=tuple(Orientation) if case.search == "open" else (UPRIGHT,),
        device="cpu",
    )
    facts = {
        "scan": case.scan,
        "search": case.search,
        "imposed": [case.frames, case.positions],
        "right": is_right(case, found),
        "seconds": time.perf_counter() - began,
        "processor_seconds": time.process_time() - used,
        "words": found.words(),
        **found.summary(),
        **machine(),
    }
    write_json(result, facts)
    print(f"{case.name}: {'right' if facts['right'] else 'WRONG'}: {found.words()[0]}", flush=True)


def is_right(case: Case, found: Any) -> bool:
    """The member with a probe, the class without, and nothing where nothing can be known.

    With a known probe even a blank tells which way round its frames are: by the beam on the detector.
    """
    if case.scan in BLANKS and (case.search == "blind" or not found.knows_member):
        return not found.knows_class
    if case.search == "blind":
        return found.knows_class and case.frames in found.best.members
    return found.knows_member and (found.best.frames, found.best.positions) == (case.frames, case.positions)


def write_report(folder: Path) -> None:
    """The page and its JSON."""
    paths = [folder / f"{case.name}.json" for case in CASES]
    runs = [json.loads(path.read_text()) for path in paths if path.exists()]
    if not runs:
        raise SystemExit(f"no finished search in {folder}")
    write_json(RESULTS / "orient.json", runs)
    (RESULTS / "orient.md").write_text(page(runs), encoding="utf-8")
    print(f"wrote {RESULTS / 'orient.md'}")


def page(runs: list[dict[str, Any]]) -> str:
    """The page in Markdown."""
    right = sum(run["right"] for run in runs)
    independent = {(run["scan"], run["search"]) for run in runs}
    lines = [
        "# Which way round the detector is",
        "",
        "Made by `python benchmarks/orient.py` ([source](../../benchmarks/orient.py)); one JSON a search in",
        "[orient/](orient/). `ptychow orient` does the same. The known probe is that of the scan's label, from LSQML",
        "on the upright scan; that of the star's file is a first guess, with which `orient` finds the class, after it",
        "has tried it as known in vain. What can be told apart at all is worked out in",
        "[conventions](../conventions.md#orientation). Each orientation was imposed on the frames; right is the member",
        "where the probe is known, the class where not, and no answer where the data cannot tell. Unexplained:",
        "median over the frames that the reconstruction had not seen, for the best hypothesis, for the best of another",
        "class, and for an empty object. Confidence: part of these frames that prefer the best to any other class.",
        "",
        f"**{right} of {len(runs)} searches are right.** The orientations of one search are the same calculation with",
        f"rows and columns exchanged, so that these are {len(independent)} independent trials.",
        "",
        f"*{runs[0]['machine']['cpu']}, {runs[0]['machine']['threads']} thread; processor time, on a shared machine.*",
        "",
        "| scan | search | imposed (frames / positions) | found | unexplained | next class | empty | confidence | s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(row(run) for run in runs), ""])


def row(run: dict[str, Any]) -> str:
    """One search."""
    best = run["hypotheses"][0]
    following = "-" if run["margin"] is None else f"{best['residual'] * (1 + run['margin']):.3f}"
    cells = [
        run["scan"],
        SEARCHES[run["search"]],
        "-" if run["scan"] in BLANKS else " / ".join(run["imposed"]),
        answer(run) + ("" if run["right"] else " **(wrong)**"),
        f"{best['residual']:.3f}",
        following,
        f"{best['flat']:.3f}",
        f"{run['confidence']:.2f}",
        f"{run['processor_seconds']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def answer(run: dict[str, Any]) -> str:
    """What the search says, in short."""
    if run["decided"] is None:
        return "refuses"
    return f"{run['frames']} / {run['positions']}" if run["decided"] == "member" else " or ".join(run["class"])


if __name__ == "__main__":
    main()
