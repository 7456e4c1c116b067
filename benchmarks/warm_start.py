"""A network's picture as the start of LSQML, against a cold start. Writes docs/results/warm_start.{md,json}.

    python benchmarks/warm_start.py --model tungsten-26id=TUNGSTEN.safetensors --model siemens-star=STAR.safetensors \
        --model sim-26id-wide=SIM.safetensors

For each scan with a Model (`ptychow calibrate` makes one without labels): 40 epochs from a flat object and the probe of
the file (cold); the network, and 40 epochs from its stitched object and the Model's probe (warm); and the same with the
Model of another scan of the same frame size, which is wrong here. Distances are from LSQML after 200 epochs of the cold
start, on the simulated scan from the truth. Warm times include reading the Model and everything the network does. Every
finished run leaves a JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from common import machine
from iterative import CONVERGED_EPOCHS, REAL_SCANS, TWIN, Reference, Way, converged, unlabelled, ways_figure
from ptychow.errors import InputError
from ptychow.figures import reconstruction_figure
from ptychow.files import write_json
from ptychow.model import Model, software_versions
from ptychow.patches import PatchExtractor
from ptychow.reconstruction import reconstruct
from ptychow.refinement import refine_reconstruction
from ptychow.scan import Scan
from ptychow.solver import flat_object, label

RESULTS = Path(__file__).parents[1] / "docs" / "results"
SCANS = (*REAL_SCANS, TWIN)
EPOCHS = 40
DISTANCES = (0.02, 0.01, 0.005)
TARGETS = {"tungsten-26id": 8, "siemens-star": 5, TWIN: 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", default=[], metavar="SCAN=FILE", help="Repeated; a scan's Model.")
    parser.add_argument("--engine", default="torch", help="What runs the network, as for ptychow reconstruct.")
    parser.add_argument("--precision", help="Of the network; the engine's first by default.")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--reference-epochs", type=int, default=CONVERGED_EPOCHS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--report-only", action="store_true", help="Only write the page from the JSONs there are.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.output / "warm_start"
    models = {name: Path(file) for name, _, file in (entry.partition("=") for entry in options.model)}
    unknown = set(models) - set(SCANS)
    if unknown:
        parser.error(f"unknown scans: {', '.join(sorted(unknown))}; there are {', '.join(SCANS)}")
    if not options.report_only:
        for name in models:
            if not (folder / f"{name}.json").exists():
                run(name, models, options, folder)
    write_report(folder, options.output)


def run(name: str, models: dict[str, Path], options: argparse.Namespace, folder: Path) -> None:
    """Cold, warm and wrong on one scan, one after the other."""
    scan, reference = unlabelled(name), Reference(converged(name, options.reference_epochs))
    cold = Way(reference)
    ended = label(scan, epochs=options.epochs, device="cpu", on_epoch=cold).scan
    size = scan.frame_shape[0]
    facts: dict[str, Any] = {
        "scan": name,
        "reference_epochs": options.reference_epochs,
        "frames": len(scan),
        "frame_size": size,
        "flat": reference.distance(flat_object(scan.positions_px, size)),
        "cold": {"epochs": cold.epochs, "level": reference.distance(ended.object, level=True)},
        "warm": warm_run(scan, models[name], reference, options, folder / f"{name}.png"),
    }
    wrong = next((file for other, file in models.items() if other != name and fits(file, scan)), None)
    if wrong is not None:
        facts["wrong"] = warm_run(scan, wrong, reference, options, folder / f"{name}_wrong.png")
    write_json(
        folder / f"{name}.json", {**facts, "versions": software_versions(("numpy", "torch", "ptychi")), **machine()}
    )
    print(
        f"{name}: cold {cold.epochs[-1]['distance']:.4f}, warm {facts['warm']['epochs'][-1]['distance']:.4f}",
        flush=True,
    )


def fits(file: Path, scan: Scan) -> bool:
    """Whether a Model takes frames of the scan's size."""
    return Model.load(file).card.frame_shape == scan.frame_shape


def warm_run(
    scan: Scan, file: Path, reference: Reference, options: argparse.Namespace, picture: Path
) -> dict[str, Any]:
    """The way from the Model's file to the refined object; the first entry is the network's own object."""
    way = Way(reference)
    model = Model.load(file)
    engine = {"engine": options.engine, "precision": options.precision, "threads": 1, "device": "cpu"}
    found = reconstruct(scan, model, **engine, force=True)
    if model.card.preparation.pixel_ratio(scan.frame_shape) != 1:
        raise InputError("makes another object pixel than the reference's", file=file)
    way.record(found.image)
    refined = refine_reconstruction(found, scan, model, epochs=options.epochs, device="cpu", on_epoch=way)
    truth = PatchExtractor(reference.image, 1).region(found.image.origin, found.image.image.shape)
    reconstruction_figure(
        picture,
        truth,
        found.image.image,
        region=found.lit & (truth != 0),
        origin=found.image.origin,
        reference="Truth" if scan.name.startswith(TWIN) else "LSQML",
        title=f"{scan.name}: the network's object, before any iteration",
    )
    return {
        "network": f"{model.card.network}, {found.summary['engine']} {found.summary['precision']}",
        "start": refined.summary["refinement"]["notes"][-1],
        "said": list(refined.warnings),
        "level_network": reference.distance(found.image, level=True),
        "level": reference.distance(refined.image, level=True),
        "epochs": way.epochs,
    }


def write_report(folder: Path, output: Path) -> None:
    """The page and its JSON, from the JSONs of the finished runs."""
    runs = [json.loads(path.read_text()) for path in (folder / f"{name}.json" for name in SCANS) if path.exists()]
    if not runs:
        raise SystemExit(f"no finished run in {folder}: give --model SCAN=FILE")
    write_json(output / "warm_start.json", {"runs": runs})
    (output / "warm_start.md").write_text(page(runs, folder), encoding="utf-8")
    print(f"wrote {output / 'warm_start.md'}")


def page(runs: list[dict[str, Any]], folder: Path) -> str:
    """The page in Markdown."""
    made = runs[0]["machine"]
    lines = [
        "# Warm start: the network's picture, finished by physics",
        "",
        "Made by `python benchmarks/warm_start.py` ([source](../../benchmarks/warm_start.py)); every epoch is in",
        "[warm_start.json](warm_start.json). Distance is 1 - correlation of the complex object with LSQML's after",
        f"{runs[0]['reference_epochs']} epochs of the cold start (on the simulated scan: with the truth), over pixels",
        "whose summed probe intensity exceeds a tenth of its maximum; a constant factor does not count. *Cold*: LSQML",
        "from a flat object and the probe of the file. *Warm*: the network, then LSQML from its stitched object and",
        "the Model's probe. *Wrong*: warm with the Model of another instrument, forced. What a warm start begins with",
        "is chosen by how well it explains 64 frames: the network's object or a flat one, the Model's probe or the",
        "file's.",
        "",
        "The truth took the cold solver's place as the simulated scan's reference after a trial: its object of 20",
        "epochs was farther from the truth than the warm one's of 4. Measured scans have no truth, and their reference",
        "may favour the cold start in the same way.",
        "",
        "The Models of the measured scans are those of the calibrate benchmark trained without labels on simulated",
        "samples only. But their probe was found from these very scans (60 epochs of mPIE), and is better than the",
        "file's, with which the cold start begins: on another scan of the instrument a warm start may gain less.",
        "",
        f"*{made['cpu']}, {made['threads']} thread; seconds of processor time, which on one thread is what an idle",
        "core takes (wall times are in the JSON). Warm times include reading the Model, preparation, network and",
        "stitching.*",
    ]
    for run in runs:
        lines += section(run, folder)
    return "\n".join([*lines, ""])


def section(run: dict[str, Any], folder: Path) -> list[str]:
    """One scan: its table, its verdict and its pictures."""
    name = run["scan"]
    ways: dict[str, list[dict[str, float]]] = {
        way: run[way]["epochs"] for way in ("cold", "warm", "wrong") if way in run
    }
    ways_figure(folder / f"{name}_ways.png", ways, name)
    end = ways["cold"][-1]["distance"]
    lines = [
        "",
        f"## {name}",
        "",
        f"{run['frames']} frames of {run['frame_size']} x {run['frame_size']}; a flat object is at {run['flat']:.4f}, "
        f"the network's ({run['warm']['network']}) at {ways['warm'][0]['distance']:.4f}.",
        "",
        "| seconds to a distance of | cold | warm | cold / warm |",
        "|---|---|---|---|",
    ]
    for title, distance in (
        *((str(d), d) for d in DISTANCES),
        (f"{end:.4f}, cold's after {len(ways['cold'])} epochs", end),
    ):
        cold, warm = (seconds_to(ways[way], distance) for way in ("cold", "warm"))
        shown = ["never" if seconds is None else f"{seconds:.1f}" for seconds in (cold, warm)]
        lines.append(f"| {title} | {' | '.join(shown)} | {gain(ways, distance)[1]} |")
    lines += [
        "",
        verdict(name, ways),
        "",
        f"Warm started from {run['warm']['start'].removeprefix('started from ')}. With a phase ramp removed too, which",
        f"no pattern can tell, the network's object is at {run['warm']['level_network']:.4f}, and after",
        f"{len(ways['cold'])} epochs warm is at {run['warm']['level']:.4f} and cold at {run['cold']['level']:.4f}.",
    ]
    if "wrong" in run:
        worse = ways["wrong"][-1]["distance"] / end
        lines += [
            f"With the wrong Model the network's object is at {ways['wrong'][0]['distance']:.4f}; it "
            f"{run['wrong']['start']} and ended at {ways['wrong'][-1]['distance']:.4f}, {worse:.2f} times the cold "
            f"start's {end:.4f}.",
        ]
    pictures = [f"![Distance against time](warm_start/{name}_ways.png)", f"![Network](warm_start/{name}.png)"]
    return [*lines, "", *pictures]


def seconds_to(epochs: list[dict[str, float]], distance: float) -> float | None:
    """When a way first came so near."""
    return next((row["cpu"] for row in epochs if row["distance"] <= distance), None)


def gain(ways: dict[str, list[dict[str, float]]], distance: float) -> tuple[float | None, str]:
    """Cold's time over warm's, at least where cold never came so near; and in words."""
    cold, warm = (seconds_to(ways[way], distance) for way in ("cold", "warm"))
    if warm is None:
        return None, "-"
    if cold is None:
        ratio = ways["cold"][-1]["cpu"] / warm
        return ratio, f"more than {ratio:.1f}"
    return cold / warm, f"{cold / warm:.1f}"


def verdict(name: str, ways: dict[str, list[dict[str, float]]]) -> str:
    """Whether the target of the ratio at 0.01 was reached, in a sentence."""
    target = f"The target, {TARGETS[name]} times less time to 0.01,"
    ratio, said = gain(ways, 0.01)
    if ratio is None:
        return f"{target} is missed: warm never came so near."
    return f"{target} is {'reached' if ratio >= TARGETS[name] else 'missed'}: {said} times."


if __name__ == "__main__":
    main()
