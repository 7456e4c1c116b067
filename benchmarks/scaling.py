"""Patterns a second in one and in two processes, and what a fast detector would take. Writes docs/results/scaling.*

    python benchmarks/scaling.py [--rounds 3]

Reconstruction: every process runs the network on its own scan, as `ptychow reconstruct --cluster` shares work out.
Training: one training of all processes, as `ptychow train --devices N` does, at the same global batch. Every process
has one thread. Two processes of a W-Net normalise with the statistics of their own half of a batch; how far that leads
them away from one process is measured beside PtychoNN, which has no batch norm.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import machine
from ptychow.engines import open_engine
from ptychow.files import write_json
from ptychow.formats import write_scan
from ptychow.model import Model
from ptychow.optics.twins import twin
from ptychow.training import Split, recipe_named, train

RESULTS = Path(__file__).parents[1] / "docs" / "results"
SECONDS, BATCH = 5.0, 64
TRAINED = ("ptychonn", "w3")
INFERRING = {"w3": "W3", "w3f": "W3-fast"}
# Detectors of the table: frames a second. Bytes a pixel as sent, and what bitshuffle-LZ4 leaves of sparse counts.
DETECTORS, SIZES, BYTES, COMPRESSION = (10_000, 100_000), (64, 128), 2, 5
# Babu et al., Nat Commun 14:7059 (2023): 128 x 128 pixels, phase only, one workstation GPU, without stitching.
PUBLISHED_GPU = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--report-only", action="store_true", help="Write the page again from its JSON.")
    parser.add_argument("--infer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, default=64, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.infer:
        print(json.dumps(infer(options.infer, options.size)))
        return
    if not options.report_only:
        with tempfile.TemporaryDirectory() as folder:
            write_json(RESULTS / "scaling.json", measure(Path(folder), options.rounds))
    facts = json.loads((RESULTS / "scaling.json").read_text())
    (RESULTS / "scaling.md").write_text(page(facts), encoding="utf-8")
    print(f"wrote {RESULTS / 'scaling.md'}")


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """All rates, in turn."""
    scan = twin("sim-26id", 0, lines=slice(0, 8), columns=slice(0, 32), workers=1)
    write_scan(folder / "scan.cxi", scan)
    everything, nothing = np.arange(len(scan)), np.zeros(0, np.int64)
    split = [Split("random", everything, nothing, nothing)]
    recipe = recipe_named("ptychow", epochs=1, virtual=0.0)
    for network in INFERRING:
        train(scan, network, recipe, splits=split, device="cpu").model.save(folder / f"{network}.safetensors")
    found: dict[str, Any] = {"inference": {}, "training": {}}
    for number in range(rounds):
        for network, size, processes in itertools.product(INFERRING, SIZES, (1, 2)):
            rates = _together([["--infer", folder / f"{network}.safetensors", "--size", size]] * processes)
            found["inference"].setdefault(f"{network} {size} {processes}", []).append(sum(rates))
            print(f"{number + 1}/{rounds} inference {network} {size}, {processes}: {sum(rates):.0f}/s", flush=True)
        for network in TRAINED:
            for processes in (1, 2):
                one = train_in(folder, network, processes, number)
                found["training"].setdefault(f"{network} {processes}", []).append(one)
                print(f"{number + 1}/{rounds} training {network}, {processes}: {one:.1f}/s", flush=True)
    found["difference"] = {network: difference(folder, network) for network in TRAINED}
    return {**machine(), "rounds": rounds, "batch": BATCH, **found}


def infer(model: Path, size: int) -> float:
    """Patterns a second of one process, one thread, through the network."""
    loaded = Model.load(model)
    card = loaded.card.model_copy(update={"frame_shape": (size, size)})
    resized = Model(card, loaded.network, None, np.ones((size, size), np.float32))
    engine = open_engine(resized, "openvino", "bf16", threads=1, batch=BATCH)
    inputs = np.random.default_rng(0).standard_normal((BATCH, 1, size, size), np.float32)
    engine.predict(inputs)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        engine.predict(inputs)
        done += BATCH
    return done / (time.perf_counter() - started)


def train_in(folder: Path, network: str, processes: int, number: int) -> float:
    """Patterns a second of a training of two epochs, without starting up; its Model stays in the folder."""
    output = folder / f"{network}_{processes}_{number}.safetensors"
    options = ["--recipe", "paper", "--split", "none", "--epochs", 2, "--batch-size", BATCH, "--precision", "bf16"]
    command = [sys.executable, "-m", "ptychow", "train", folder / "scan.cxi", "--network", network, *options]
    command += ["--device", "cpu", "--devices", processes, "--learning-rate", 1e-4, "--output", output, "--json"]
    summary = json.loads(_run(command))
    return summary["steps"] * BATCH / summary["seconds"]


def difference(folder: Path, network: str) -> float:
    """Largest difference of a weight between one process and two, over the weights' root mean square."""
    one, two = (Model.load(folder / f"{network}_{n}_0.safetensors").network.state_dict() for n in (1, 2))
    pairs = [(one[name].double(), two[name].double()) for name in one if one[name].is_floating_point()]
    scale = torch.cat([first.flatten() for first, _ in pairs]).square().mean().sqrt()
    return float(max((first - second).abs().max() for first, second in pairs) / scale)


def _together(arguments: list[list[Any]]) -> list[float]:
    """What this script prints, run with these arguments at once."""
    started = [_start([sys.executable, __file__, *own]) for own in arguments]
    return [json.loads(_finish(process).splitlines()[-1]) for process in started]


def _run(command: list[Any]) -> str:
    return _finish(_start(command))


def _start(command: list[Any]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _finish(process: subprocess.Popen[str]) -> str:
    shown, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{process.args} failed")
    return shown


def page(facts: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "# Beyond one process",
        "",
        f"Made by `{facts['command']}` ([source](../../benchmarks/scaling.py)); all numbers are in",
        f"[scaling.json](scaling.json). {facts['machine']['cpu']}, two cores, one thread a process; medians of",
        f"{facts['rounds']} rounds (range).",
        "",
        "| | one process, patterns/s | two processes | ratio |",
        "|---|---|---|---|",
    ]
    for network, size in itertools.product(INFERRING, SIZES):
        title = f"reconstruction, {INFERRING[network]}, OpenVINO bf16, {size} x {size}"
        lines.append(_row(title, facts["inference"], f"{network} {size}"))
    for network in TRAINED:
        lines.append(_row(f"training, {network}, bf16, batch {facts['batch']}", facts["training"], network))
    apart = facts["difference"]
    lines += [
        "",
        "After the same eight steps at the same global batch, the weight that differs most between one process and two"
        f" differs by {apart['ptychonn']:.1e} of the weights' root mean square for PtychoNN (rounding, in bf16), and by"
        f" {apart['w3']:.1e} for W3, whose two processes normalise with the statistics of half a batch each.",
        "On GPUs accelerate can synchronise them; on CPUs that does not exist.",
        "",
        "## What a fast detector takes",
        "",
        "Cores at the measured rate of one process, plus a quarter for preparation and stitching; network: "
        f"{BYTES} bytes a pixel, and {COMPRESSION} times less by bitshuffle-LZ4 (sparse counts; assumed). The",
        f"GPU column takes the published {PUBLISHED_GPU:,} frames/s of 128 x 128 pixels on one workstation GPU (phase",
        "only, without stitching), four times as many at 64 x 64: an assumption, not measured here.",
        "",
        "| detector | frames | raw, Gbit/s | compressed, Gbit/s | cores, W3 | cores, W3-fast | GPUs, published rate |",
        "|---|---|---|---|---|---|---|",
    ]
    for rate in DETECTORS:
        for size in SIZES:
            own = [float(np.median(facts["inference"][f"{network} {size} 1"])) for network in INFERRING]
            raw = rate * size * size * BYTES * 8 / 1e9
            gpus = rate / (PUBLISHED_GPU * (128 / size) ** 2)
            cells = [f"{rate:,} Hz", f"{size} x {size}", f"{raw:.2f}", f"{raw / COMPRESSION:.2f}"]
            cores = [f"{np.ceil(1.25 * rate / each):.0f}" for each in own]
            lines.append("| " + " | ".join([*cells, *cores, f"{np.ceil(gpus):.0f}"]) + " |")
    return "\n".join([*lines, ""])


def _row(title: str, found: dict[str, list[float]], name: str) -> str:
    one, two = (np.array(found[f"{name} {processes}"]) for processes in (1, 2))
    cells = [f"{np.median(rates):.0f} ({rates.min():.0f}-{rates.max():.0f})" for rates in (one, two)]
    return f"| {title} | {cells[0]} | {cells[1]} | {np.median(two / one):.2f} |"


if __name__ == "__main__":
    main()
