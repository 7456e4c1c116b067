"""Patterns a second in training, beside the published PtychoNN loop. Writes docs/results/training.{md,json}.

    python benchmarks/training.py [--threads 2] [--rounds 5]

The published loop is written here again from its description (the PtychoNN notebooks): a DataLoader of tensors, batches
of 64, eager fp32, the default memory layout, Adam, the sum of two mean absolute errors. Ours is `ptychow.training.fit`
with the `paper` recipe, which computes the same. Every measurement is a process of its own; all take turns, `rounds`
times, so that a busy machine troubles all of them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common import machine
from ptychow.files import write_json
from ptychow.networks import build
from ptychow.optics.twins import twin
from ptychow.scan import Scan
from ptychow.training import Split, recipe_named, train

RESULTS = Path(__file__).parents[1] / "docs" / "results"
PUBLISHED = "published loop"
# Network and precision of each contender; the published loop is the reference.
CONTENDERS: dict[str, tuple[str, str]] = {
    f"{network}, {precision}": (network, precision)
    for network in ("ptychonn", "w1", "w3", "w3f")
    for precision in ("fp32", "bf16")
}
TITLES = {"ptychonn": "PtychoNN", "w1": "W1", "w3": "W3", "w3f": "W3-fast"}
TARGETS = {"w1": 3.0, "w3": 6.0, "ptychonn": 2.0}
LINES, COLUMNS, BATCH, EPOCHS = 16, 16, 64, 3  # 256 patterns: an epoch is four steps; the first warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--report-only", action="store_true", help="Write the page again from its JSON.")
    options = parser.parse_args()
    if options.one:
        torch.set_num_threads(options.threads)
        print(json.dumps(measure(options.one)))
        return
    if not options.report_only:
        write_json(RESULTS / "training.json", run(options.threads, options.rounds))
    facts = json.loads((RESULTS / "training.json").read_text())
    (RESULTS / "training.md").write_text(page(facts), encoding="utf-8")
    print(f"wrote {RESULTS / 'training.md'}")


def run(threads: int, rounds: int) -> dict[str, Any]:
    """All contenders in turn, `rounds` times."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in (PUBLISHED, *CONTENDERS)}
    for number in range(rounds):
        for name in found:
            command = [sys.executable, __file__, "--one", name, "--threads", str(threads)]
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            found[name].append(json.loads(answer.stdout.splitlines()[-1]))
            print(f"{number + 1}/{rounds} {name}: {found[name][-1]['patterns_per_second']:.1f} patterns/s", flush=True)
    torch.set_num_threads(threads)
    return {**machine(), "batch": BATCH, "rounds": rounds, "contenders": found}


def measure(name: str) -> dict[str, float]:
    """Patterns a second of one contender, without its first epoch, and the process's peak memory."""
    scan = twin("sim-26id", 0, lines=slice(0, LINES), columns=slice(0, COLUMNS), workers=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = published_loop(scan) if name == PUBLISHED else our_loop(scan, *CONTENDERS[name])
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "patterns_per_second": len(scan) / float(np.median(seconds[1:])),
        "peak_memory_mib": after / 1024,
        "of_training_mib": (after - before) / 1024,
    }


def our_loop(scan: Scan, network: str, precision: str) -> list[float]:
    """Seconds of each epoch of `fit`."""
    everything, nothing = np.arange(len(scan)), np.zeros(0, np.int64)
    trained = train(
        scan,
        network,
        recipe_named("paper", epochs=EPOCHS, batch_size=BATCH),
        splits=[Split("random", everything, nothing, nothing)],
        device="cpu",
        precision=precision,
    )
    return trained.history.seconds


def published_loop(scan: Scan) -> list[float]:
    """Seconds of each epoch of the PtychoNN notebooks' loop."""
    torch.manual_seed(0)
    network = build("ptychonn")
    patterns, amplitudes, phases = (torch.from_numpy(part)[:, None] for part in _pairs(scan))
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(patterns, amplitudes, phases), batch_size=BATCH, shuffle=True, drop_last=True
    )
    criterion, optimizer = torch.nn.L1Loss(), torch.optim.Adam(network.parameters(), lr=1e-3)
    seconds = []
    for _ in range(EPOCHS):
        started = time.perf_counter()
        for pattern, amplitude, phase in loader:
            predicted_amplitude, predicted_phase = network(pattern)
            loss = criterion(predicted_amplitude, amplitude) + criterion(predicted_phase, phase)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds.append(time.perf_counter() - started)
    return seconds


def _pairs(scan: Scan) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Frames, amplitudes and phases (N, n, n)."""
    from ptychow.patches import PatchExtractor

    labels = PatchExtractor(scan.object, scan.frame_shape[0])(scan.positions_px)  # type: ignore[arg-type]
    frames = scan.frames[:].astype(np.float32)
    return frames, np.abs(labels).astype(np.float32), np.angle(labels).astype(np.float32)


def page(facts: dict[str, Any]) -> str:
    """Markdown."""
    contenders: dict[str, list[dict[str, float]]] = facts["contenders"]
    reference = np.array([one["patterns_per_second"] for one in contenders[PUBLISHED]])
    lines = [
        "# Training speed",
        "",
        f"Made by `{facts['command']}` ([source](../../benchmarks/training.py)); all numbers are in "
        "[training.json](training.json).",
        f"{facts['machine']['cpu']}, {facts['machine']['threads']} threads; 64 x 64 pixels, batches of "
        f"{facts['batch']}, channels-last; median and range over {facts['rounds']} rounds in which all took turns.",
        "The published loop is PtychoNN's notebook loop (DataLoader of tensors, eager fp32, default layout), written",
        "again from its description. The ratio is the median of the rounds' own ratios.",
        "",
        "| | precision | patterns/s | ratio to the published loop | target | peak memory, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in contenders.items():
        rates = np.array([one["patterns_per_second"] for one in found])
        memory = max(one["peak_memory_mib"] for one in found)
        network, precision = CONTENDERS.get(name, ("", "fp32"))
        title = f"{TITLES[network]}, `ptychow train`" if network else "PtychoNN, published loop"
        ratio = float(np.median(rates / reference))
        target = f"{TARGETS[network]:g}" if network in TARGETS else ""
        lines.append(
            f"| {title} | {precision} | {np.median(rates):.1f} ({rates.min():.1f}-{rates.max():.1f}) | {ratio:.2f} "
            f"| {target} | {memory:.0f} |"
        )
    return "\n".join([*lines, "", *verdicts(contenders), ""])


def verdicts(contenders: dict[str, list[dict[str, float]]]) -> list[str]:
    """Which targets are met, by the better precision of each network."""
    reference = np.array([one["patterns_per_second"] for one in contenders[PUBLISHED]])
    said = []
    for network, target in TARGETS.items():
        ratios = {
            precision: float(np.median([one["patterns_per_second"] for one in found] / reference))
            for name, found in contenders.items()
            for own, precision in [CONTENDERS.get(name, ("", ""))]
            if own == network
        }
        best = max(ratios, key=lambda precision: ratios[precision])
        met = "met" if ratios[best] >= target else "missed"
        said.append(f"* {TITLES[network]}: {ratios[best]:.2f} times ({best}); the target of {target:g} is {met}.")
    return said


if __name__ == "__main__":
    main()
