"""W3-fast beside W3: how much faster, and whether it is as accurate. Writes docs/results/fast.{md,json}.

    python benchmarks/paper.py --only 'paper_w*'      # the trainings, where they have not been done
    python benchmarks/fast.py [--threads 1]           # rates, then the page

The errors are of the paper benchmark's trainings: same data, recipe, steps and seeds for all; W3-fast also with the
predictions of W1 on the training frames as its only labels. The rates are measured in one run, in turns; those of other
processors, measured before, stay on the page.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch

from common import machine
from inference import open_as, timed, untrained, versions
from paper_data import TWIN
from paper_networks import LEARNERS
from paper_plan import Training
from paper_results import Results, number
from paper_statistics import t_interval
from ptychow.devices import has_bfloat16
from ptychow.engines import ENGINES
from ptychow.files import write_json
from ptychow.networks.count import count

RESULTS = Path(__file__).parents[1] / "docs" / "results"
FOLDER = RESULTS / "paper" / f"{TWIN}_small"
SIZE, BATCH, ROUNDS, SEEDS = 64, 64, 5, 3
RACERS = ("ptychonn", "w3", "w3f")
TARGET = 2.0  # times W3's patterns per second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report-only", action="store_true", help="Only write the page, with the rates there are.")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    path = RESULTS / "fast.json"
    rates = json.loads(path.read_text())["rates"] if path.exists() else []
    if not options.report_only:
        measured = {"patterns_per_s": race(options.threads), "versions": versions(), **machine()}
        rates = [known for known in rates if processor(known) != processor(measured)] + [measured]
    results = Results.read(FOLDER)
    write_json(path, {"rates": rates, "errors": {name: errors(results, training) for name, training in LEARNT.items()}})
    (RESULTS / "fast.md").write_text(page(rates, results), encoding="utf-8")
    print(f"wrote {RESULTS / 'fast.md'}")


def processor(rates: dict[str, Any]) -> tuple[str, int]:
    """On what, and on how many of its cores, rates were measured."""
    return rates["versions"]["cpu"], rates["machine"]["threads"]


LEARNT = {
    "PtychoNN": Training("ptychonn"),
    "W1": Training("w1"),
    "W3": Training("w3"),
    "W3-fast": Training("w3f"),
    "W3-fast, taught by W1": Training("w3f", teacher="w1"),
}


def race(threads: int) -> dict[str, dict[str, list[float]]]:
    """Patterns per second by network and engine, one median a round; the networks take turns in every round."""
    inputs = np.random.default_rng(0).normal(size=(BATCH, 1, SIZE, SIZE)).astype(np.float32)
    models = {name: untrained(name, SIZE) for name in RACERS}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in RACERS}
    for engine, spec in ENGINES.items():
        if spec.missing() or spec.compiles:
            continue
        # Imitated bfloat16 is no offer.
        left_out = {"int8"} if has_bfloat16("cpu") else {"int8", "bf16"}
        for precision in (one for one in spec.precisions if one not in left_out):
            opened = {
                name: open_as(model, engine, precision, "cpu", threads, BATCH, inputs) for name, model in models.items()
            }
            for _, (name, runner) in product(range(ROUNDS), opened.items()):
                rate = BATCH / median(timed(lambda runner=runner: runner.predict(inputs)))
                found[name].setdefault(f"{engine}, {precision}", []).append(rate)
    return found


def errors(results: Results, like: Training) -> dict[int, float]:
    """Headline on the leak-free block by seed."""
    runs = {seed: results.of(Training(like.network, seed=seed, teacher=like.teacher)) for seed in range(SEEDS)}
    return {seed: number(run) for seed, run in runs.items() if run is not None}


def page(rates: list[dict[str, Any]], results: Results) -> str:
    """In Markdown."""
    lines = [
        "# W3-fast",
        "",
        "Made by `python benchmarks/fast.py` ([source](../../benchmarks/fast.py)); numbers in [fast.json](fast.json).",
        "The network is [networks/fast.py](../../src/ptychow/networks/fast.py).",
        "",
        "## How fast",
        "",
        f"Patterns per second, {SIZE} x {SIZE}, batches of {BATCH}, prepared frames in, complex patches out: median of",
        f"{ROUNDS} rounds (range), the networks by turns. Random weights.",
    ]
    for measured in rates:
        lines += ["", *speed(measured)]
    return "\n".join([*lines, "", *accuracy(results), "", verdict(rates, results), ""])


def speed(rates: dict[str, Any]) -> list[str]:
    """The table of one processor."""
    versions, measured = rates["versions"], rates["patterns_per_s"]
    lines = [
        f"### {versions['cpu']}",
        "",
        f"{rates['machine']['threads']} thread(s); torch {versions['torch']}, OpenVINO {versions['openvino']}, ONNX",
        f"Runtime {versions['onnxruntime']}."
        + ("" if "torch, bf16" in measured["w3"] else " bfloat16 is only imitated there and was left out."),
        "",
        "| engine | " + " | ".join(LEARNERS[name].title for name in RACERS) + " | W3-fast / W3 | W3-fast / PtychoNN |",
        "|---" * (len(RACERS) + 3) + "|",
    ]
    for engine in measured["w3"]:
        of = {name: measured[name][engine] for name in RACERS}
        cells = [f"{median(values):.0f} ({min(values):.0f}-{max(values):.0f})" for values in of.values()]
        cells += [f"{median(of['w3f']) / median(of[other]):.1f}" for other in ("w3", "ptychonn")]
        lines.append(f"| {engine} | {' | '.join(cells)} |")
    return lines


def accuracy(results: Results) -> list[str]:
    """The section on errors."""
    lines = [
        "## How accurate",
        "",
        f"Unexplained phase variance of the stitched map on the leak-free block of the twin `{TWIN}`, as in the paper",
        "benchmark (paper recipe, small scale, another object for every seed). Taught by W1: its labels are what W1 of",
        "the same seed predicts for the training frames.",
        "",
        "| network | parameters | MACs, M | " + " | ".join(f"seed {seed}" for seed in range(SEEDS)) + " | mean |"
        " ratio to W3 (t, 95 %) |",
        "|---" * (SEEDS + 5) + "|",
    ]
    baseline = errors(results, LEARNT["W3"])
    for title, training in LEARNT.items():
        cost = count(untrained(training.network, SIZE).network, SIZE)
        found = errors(results, training)
        cells = [f"{cost.parameters:,}", f"{cost.macs / 1e6:.0f}"]
        cells += [f"{found[seed]:.4f}" if seed in found else "not trained yet" for seed in range(SEEDS)]
        cells += [f"{mean(found.values()):.4f}" if found else "", ratio_text(ratios(found, baseline))]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def ratios(found: dict[int, float], baseline: dict[int, float]) -> list[float]:
    """Paired by seed."""
    return [found[seed] / baseline[seed] for seed in found if seed in baseline]


def ratio_text(values: list[float]) -> str:
    """Mean and interval."""
    if not values:
        return ""
    interval = t_interval(values)
    return f"{mean(values):.2f}" + (f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else "")


def verdict(rates: list[dict[str, Any]], results: Results) -> str:
    """Whether W3-fast is what it should be: at least twice as fast as W3, and no less accurate."""
    said = [f"{faster(measured):.1f} ({processor(measured)[0]})" for measured in rates]
    text = (
        f"W3-fast on its best engine runs {' and '.join(said)} times as many patterns as W3 on its own "
        f"(target: {TARGET:g})."
    )
    for title, how in (("W3-fast", "With the labels"), ("W3-fast, taught by W1", "Taught by W1")):
        found = ratios(errors(results, LEARNT[title]), errors(results, LEARNT["W3"]))
        if found:
            text += (
                f" {how} it leaves {mean(found):.2f} of W3's error ({len(found)} of {SEEDS} seeds; target: at most 1)."
            )
    return text


def faster(rates: dict[str, Any]) -> float:
    """How many times as many patterns as W3, each on its best engine."""
    best = {name: max(map(median, rates["patterns_per_s"][name].values())) for name in ("w3", "w3f")}
    return best["w3f"] / best["w3"]


if __name__ == "__main__":
    main()
