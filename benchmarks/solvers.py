"""Every iterative method on both real scans, against time. Writes docs/results/solvers.{md,json}.

    python benchmarks/solvers.py                      # everything that is not there yet, then the page
    python benchmarks/solvers.py --scans siemens-star --methods lsqml epie

Each method runs for 40 epochs from a flat object and the probe of the scan's file, on one thread. The reference is
LSQML after 200 epochs (kept in the cache: `ptychow` fetches the scans there), so that distances are agreement with
LSQML, not with a truth. Every finished run leaves a JSON and a picture; nothing is run twice.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from common import machine
from iterative import REAL_SCANS, Reference, Way, converged, unlabelled, ways_figure
from ptychow.errors import PtychoWError
from ptychow.figures import object_figure
from ptychow.files import write_json
from ptychow.model import software_versions
from ptychow.solver import METHODS, illumination, label

RESULTS = Path(__file__).parents[1] / "docs" / "results"
EPOCHS = 40

NOTES = """## The settings, and what was left out

Chosen by trials of five to ten epochs on the Siemens star and on a small simulated scan whose truth is known; the
tungsten scan had no part in it, so that its table is the independent one. Single runs: small differences mean nothing.

* *LSQML*: Pty-Chi's defaults, batches of 64. The probe is scaled to the counts beforehand, and the rescaling that costs
  Pty-Chi its first epoch is off. `--noise poisson` works too, and starts more slowly.
* *ePIE*: alpha 1, batches of 16. Pty-Chi's defaults (0.1 and 100) are slow.
* *rPIE*: alpha 0.5, batches of 16. With Pty-Chi's 0.1 the star took twice as many epochs to the same distance, and on
  the small simulated scan the error jumped up and down.
* *mPIE*: rPIE with Nesterov momentum 0.9, step 0.1.
* *Difference map*: chunks of 64 frames; Pty-Chi's default of 1 loops over the frames in Python. It does not come to
  rest at real noise: that `ptychow label` stops it on a plateau of the error is what it needs.
* *RAAR* is left out. In Pty-Chi 2.2 it diverges, also with the probe fixed at its true value: on the small simulated
  scan 1 - correlation with the truth is 0.0035 after 5 epochs, 0.0071 after 20 and 0.32 after 40. The last term of its
  update is beta (P_Q - I), which its documentation takes from Marchesini et al. (2016); Luke's relaxed averaged
  alternating reflections, beta/2 (R_Q R_F + I) + (1 - beta) P_F, give beta (I - P_Q). With that sign, tried by hand,
  the same run goes to 0.0012, 0.00004 and 0.00002; with the probe free it still diverges.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", nargs="+", default=list(REAL_SCANS), choices=REAL_SCANS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--report-only", action="store_true", help="Only write the page from the JSONs there are.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.output / "solvers"
    if not options.report_only:
        for scan in options.scans:
            for method in options.methods:
                result = folder / f"{scan}_{method}.json"
                if not result.exists():
                    run(scan, method, result)
    write_report(folder, options.output)


def run(name: str, method: str, result: Path) -> None:
    """Reconstruct once; write the way and the picture."""
    scan = unlabelled(name)
    way = Way(Reference(converged(name)))
    facts: dict[str, Any] = {"scan": name, "method": method, "title": METHODS[method].title}
    try:
        found = label(scan, method=method, epochs=EPOCHS, device="cpu", on_epoch=way)
    except PtychoWError as error:
        facts["failure"] = str(error)
    else:
        facts["source"] = found.scan.object.source
        light = illumination(found.scan)
        object_figure(
            result.with_suffix(".png"),
            found.scan.object,
            found.scan.probe,
            region=light > 0.05 * light.max(),
            title=f"{name}: {found.scan.object.source}",
        )
    versions = software_versions(("numpy", "torch", "ptychi"))
    if not way.epochs:
        raise SystemExit(f"{name} {method}: failed in its first epoch: {facts.get('failure')}")
    write_json(result, {**facts, "epochs": way.epochs, "versions": versions, **machine()})
    print(f"{name} {method}: {way.epochs[-1]['distance']:.4f} after {way.epochs[-1]['cpu']:.0f} s", flush=True)


def write_report(folder: Path, output: Path) -> None:
    """The page and its JSON, from the JSONs of the finished runs."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    if not runs:
        raise SystemExit(f"no finished run in {folder}")
    write_json(output / "solvers.json", {"runs": runs})
    (output / "solvers.md").write_text(page(runs, folder), encoding="utf-8")
    print(f"wrote {output / 'solvers.md'}")


def page(runs: list[dict[str, Any]], folder: Path) -> str:
    """The page in Markdown."""
    made = runs[0]["machine"]
    lines = [
        "# Iterative methods on two real scans",
        "",
        "Made by `python benchmarks/solvers.py` ([source](../../benchmarks/solvers.py)); every epoch of every run is",
        "in [solvers.json](solvers.json). Distance is 1 - correlation of the complex object with LSQML's after 200",
        "epochs, over pixels whose summed probe intensity exceeds a tenth of its maximum: agreement with another",
        "reconstruction, not with a truth, and LSQML has the advantage of being compared with itself. The error is",
        "sqrt(sum (|far field| - sqrt(counts))^2 / sum counts): of the epoch's steps as they are taken, for the",
        "difference map of the object and probe after the epoch.",
        "",
        f"*{made['cpu']}, {made['threads']} thread; seconds of processor time, which on one thread is what an idle",
        f"core takes. {EPOCHS} epochs from a flat object and the probe of the file.*",
    ]
    for scan in REAL_SCANS:
        mine = [run for method in METHODS for run in runs if (run["scan"], run["method"]) == (scan, method)]
        if mine:
            lines += section(scan, mine, folder)
    return "\n".join([*lines, "", NOTES])


def section(scan: str, runs: list[dict[str, Any]], folder: Path) -> list[str]:
    """One scan: its table and pictures."""
    ways_figure(folder / f"{scan}.png", {run["title"]: run["epochs"] for run in runs}, scan)
    lines = [
        "",
        f"## {scan}",
        "",
        "| | nearest | after epoch | distance at the end | error at the end | an epoch, s | all, s (wall) |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        epochs = run["epochs"]
        distances = [row["distance"] for row in epochs]
        last = epochs[-1]
        cells = [
            run["title"] + (f" (failed: {run['failure']})" if "failure" in run else ""),
            f"{min(distances):.4f}",
            str(distances.index(min(distances)) + 1),
            f"{last['distance']:.4f}",
            f"{last['error']:.4f}",
            f"{last['cpu'] / len(epochs):.2f}",
            f"{last['cpu']:.0f} ({last['wall']:.0f})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    pictures = [f"![{run['title']}](solvers/{scan}_{run['method']}.png)" for run in runs if "failure" not in run]
    return [*lines, "", f"![Distance against time](solvers/{scan}.png)", *pictures]


if __name__ == "__main__":
    main()
