"""The main job on the two real scans: label, train, reconstruct, evaluate. Writes docs/results/real_scan.{md,json}.

    python benchmarks/real_scan.py                     # everything that is not there yet, then the page
    python benchmarks/real_scan.py --scans siemens-star --networks w3 --seeds 1
    python benchmarks/real_scan.py --longer --networks w1 ptychonn-16-bn      # four times as many steps
    python benchmarks/real_scan.py --pretrained --networks wc ptychonn-16-bn  # on simulated samples first

Each scan is labelled once (LSQML on all its frames) and split along its rows: the test rows lie a whole patch (128
object pixels) beyond the training rows, so that no object pixel of a test patch was in a training patch. There is no
validation set: rate and virtual points were chosen on a simulated scan (`schedule.py`), the number of steps by what two
cores can do in an hour, and the last weights count. Every finished training leaves a JSON; nothing is trained twice.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import CONTENDERS, Contender, is_done, machine
from ptychow.alignment import align
from ptychow.datasets import fetch
from ptychow.evaluation import Evaluation, evaluate
from ptychow.figures import object_figure, reconstruction_figure
from ptychow.files import write_json
from ptychow.formats import read_scan, write_scan
from ptychow.metrics import patch_metrics
from ptychow.patches import PatchExtractor
from ptychow.scan import Scan
from ptychow.solver import illumination, label
from ptychow.training import LABEL_FREE, Recipe, calibrate, train
from real_scan_page import HEADLINE, write_report
from real_scan_plan import (
    GAP,
    LABEL_EPOCHS,
    LONG,
    LONGER,
    PRETRAINED,
    SIMULATED_EPOCHS,
    TEST_FRAMES,
    recipe_of,
    rows_split,
)

RESULTS = Path(__file__).parents[1] / "docs" / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", nargs="+", default=list(TEST_FRAMES), choices=TEST_FRAMES)
    parser.add_argument("--networks", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--seeds", type=int, default=3)
    way = parser.add_mutually_exclusive_group()
    for name, help_text in ((LONG, f"{LONGER} times as many steps."), (PRETRAINED, "On simulated samples first.")):
        way.add_argument(f"--{name}", dest="way", action="store_const", const=name, default="", help=help_text)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--report-only", action="store_true", help="Only write the page from the JSONs there are.")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = options.output / "real_scan"
    if not options.report_only:
        for name in options.scans:
            scan = labelled_scan(name, folder)
            if not (folder / f"{name}_halves.json").exists():
                write_json(folder / f"{name}_halves.json", {**halves(scan, name), **machine()})
            for seed in range(options.seeds):
                for network in options.networks:
                    result = folder / options.way / f"{name}_{network}_{seed}.json"
                    recipe = recipe_of(options.way, len(rows_split(scan, name).train))
                    if not is_done(result, {"recipe": recipe.model_dump()}):
                        run(scan, name, CONTENDERS[network], recipe, options.way, seed, result)
    write_report(folder, options.output)


def labelled_scan(name: str, folder: Path) -> Scan:
    """The scan with LSQML's object and probe, made once and kept beside the fetched scan."""
    source = fetch(name)
    kept = source.with_name(f"{source.stem}_labelled_{LABEL_EPOCHS}.cxi")
    if not kept.exists():
        labelled = label(read_scan(source), epochs=LABEL_EPOCHS, device="cpu")
        write_scan(kept, labelled.scan)
        facts = {"seconds": labelled.seconds, "error": labelled.errors[-1], "notes": labelled.notes}
        write_json(folder / f"{name}_label.json", {**facts, "source": labelled.scan.object.source, **machine()})
    scan = read_scan(kept)
    light = illumination(scan)
    title = f"{name}: {scan.object.source}"
    object_figure(folder / f"{name}_label.png", scan.object, scan.probe, region=light > 0.05 * light.max(), title=title)
    return scan


def halves(scan: Scan, name: str) -> dict[str, Any]:
    """How well LSQML on every second frame agrees with the label, on the test patches: what a label is worth itself."""
    assert scan.object is not None and scan.probe is not None
    light = illumination(scan)
    lit = light > 0.1 * light.max()
    points = scan.positions_px[rows_split(scan, name).holdout]
    first = np.array(scan.object.origin) + GAP / 2 + 1
    inside = ((points >= first) & (points <= first + np.array(scan.object.image.shape) - GAP - 2)).all(axis=1)
    labels = PatchExtractor(scan.object, GAP)(points[inside])
    found = []
    for start in (0, 1):
        half = replace(scan.select(np.arange(start, len(scan), 2)), object=None)
        image = label(half, epochs=LABEL_EPOCHS, device="cpu").scan.object
        assert image is not None
        placed = PatchExtractor(image, 1).region(scan.object.origin, scan.object.image.shape)
        aligned = align(placed, scan.object.image, weight=lit.astype(float), remove=("constant", "ramp", "shift")).image
        patches = PatchExtractor(replace(scan.object, image=aligned), GAP)(points[inside])
        found.append(patch_metrics(patches, labels, (np.abs(scan.probe) ** 2).sum(axis=0)))
    return {"scan": name, "epochs": LABEL_EPOCHS, "patches": int(inside.sum()), "halves": found}


def run(scan: Scan, name: str, contender: Contender, recipe: Recipe, way: str, seed: int, result: Path) -> None:
    """Train one network in this way, evaluate it on the test rows, write its JSON (of the first seed its picture)."""
    split = rows_split(scan, name)
    result.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = result.with_suffix(".checkpoint")
    common: dict[str, Any] = {"seed": seed, "device": "cpu", "precision": "bf16", "resume": True}
    start = None
    if way == PRETRAINED:
        simulated = LABEL_FREE.model_copy(update={"epochs": SIMULATED_EPOCHS})
        first = result.with_suffix(".simulated.checkpoint")
        settings = contender.settings
        start = calibrate(scan, contender.network, simulated, settings=settings, checkpoint=first, **common).model
    trained = train(
        scan,
        contender.network,
        recipe,
        settings=contender.settings,
        start=start,
        splits=[split],
        checkpoint=checkpoint,
        **common,
    )
    for path in (checkpoint, result.with_suffix(".simulated.checkpoint")):
        path.unlink(missing_ok=True)
    found = evaluate(trained.model, scan, device="cpu")
    parameters = sum(p.numel() for p in trained.model.network.parameters())
    write_json(
        result,
        {
            "scan": name,
            "network": contender.name,
            "seed": seed,
            "parameters": parameters,
            "training_frames": len(split.train),
            "training": trained.model.card.training,
            "recipe": trained.model.card.recipe,
            "evaluation": found.summary(),
            "versions": trained.model.card.versions,
            **machine(),
        },
    )
    if seed == 0:
        picture(found, f"{contender.title} on the test rows of {name}", result.with_suffix(".png"))
    print(
        f"{name} {contender.name} seed {seed}: {found.patches[HEADLINE]:.4f}, stitched {found.headline:.4f}", flush=True
    )


def picture(found: Evaluation, title: str, path: Path) -> None:
    reconstruction_figure(
        path,
        found.truth,
        found.aligned,
        region=found.lit,
        origin=found.reconstruction.image.origin,
        reference=found.reference.capitalize(),
        title=title,
    )


if __name__ == "__main__":
    main()
