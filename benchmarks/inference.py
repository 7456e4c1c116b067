"""How fast the networks run, on which engine. Writes docs/results/inference.{md,json}.

    python benchmarks/inference.py --threads 2 [--weights w3=FILE --weights w1=FILE --scan SCAN]

One process for each network, engine, precision and size, one JSON each: nothing is measured twice, and peak memory is
that of the process. Weights are drawn at random (seed 0) unless given: speed does not depend on them. What a precision
costs in accuracy does: it is measured where --weights and a labelled --scan are given.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import CONTENDERS, machine
from ptychow.behind import Behind
from ptychow.detector import Preparation
from ptychow.devices import choose_device
from ptychow.engines import ENGINES, accuracy, open_engine
from ptychow.engines.choice import cpu_name, library_version
from ptychow.engines.torch_engine import TorchEngine
from ptychow.errors import PtychoWError
from ptychow.files import write_json
from ptychow.formats import read_scan
from ptychow.metrics import patch_metrics
from ptychow.model import Model, ModelCard
from ptychow.networks import build
from ptychow.networks.count import count
from ptychow.optics.beam import intensity
from ptychow.patches import PatchExtractor, resample_object
from ptychow.scan import Geometry
from ptychow.stitch import Canvas

RESULTS = Path(__file__).parents[1] / "docs" / "results"
FOLDER = RESULTS / "inference"
NETWORKS = ("ptychonn", "w1", "w3", "w3f")
SIZES, BATCHES = (64, 128, 256), (1, 8, 64, 256)
# As PtychoNN's users run it: PyTorch's default layout. Ours is channels-last.
PUBLISHED = "torch, default layout"
SECONDS, RUNS = 0.5, 5
# The full line is measured on so many batches in a row.
LINE_SIZE, LINE_BATCH, LINE_BATCHES = 64, 64, 4
PREPARATION = Preparation(scale="fixed", scale_value=5.0)
LONGEST = 4.0  # seconds a run may take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--compiled", action="store_true", help="torch-compiled too: minutes a cell.")
    parser.add_argument("--weights", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--scan", help="Labelled scan to measure accuracy on.")
    parser.add_argument("--report-only", action="store_true")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        job = json.loads(options.job)
        json.dump((full_line if job["line"] else measure)(**job["cell"]), sys.stdout)
        return
    torch.set_num_threads(options.threads)
    if not options.report_only:
        for size in options.sizes:
            for network in NETWORKS:
                for engine, precision in kinds(options.compiled, options.device):
                    run_cell(network, engine, precision, size, options)
        for network in NETWORKS:
            for engine, precision in kinds(options.compiled, options.device):
                run_cell(network, engine, precision, LINE_SIZE, options, line=True)
        if not (FOLDER / "machine.json").exists():
            write_json(FOLDER / "machine.json", {**machine(), **peaks(), "versions": versions()})
        for entry in options.weights:
            name, _, file = entry.partition("=")
            write_json(FOLDER / f"accuracy_{name}.json", costs(name, file, options))
    write_report()


def kinds(compiled: bool, device: str) -> list[tuple[str, str]]:
    """Engines and precisions to measure."""
    found = [(PUBLISHED, "fp32")]
    for name, spec in ENGINES.items():
        if not spec.missing() and (compiled or not spec.compiles) and (device == "cpu" or "torch" in name):
            found += [(name, precision) for precision in spec.precisions]
    return found


def run_cell(
    network: str, engine: str, precision: str, size: int, options: argparse.Namespace, line: bool = False
) -> None:
    """Measure in a process of its own, unless it has been: the network alone, or the full line."""
    name = f"{'line_' if line else ''}{network}_{engine.replace(', ', '-').replace(' ', '-')}_{precision}_{size}"
    path = FOLDER / f"{name}.json"
    if path.exists():
        return
    cell = {"network": network, "engine": engine, "precision": precision, "size": size}
    cell |= {"threads": options.threads, "device": options.device}
    job = {"cell": cell, "line": line}
    command = [sys.executable, __file__, "--job", json.dumps(job)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    facts = json.loads(done.stdout)
    write_json(path, facts)
    rates = {row["batch"]: round(row["rate"]) for row in facts["rows"]} if "rows" in facts else facts["ratio"]
    print(f"{name}: {rates}", flush=True)


def measure(network: str, engine: str, precision: str, size: int, threads: int, device: str) -> dict[str, Any]:
    """Rates (patterns/s) and latencies (s) of one kind at every batch that takes less than `LONGEST`."""
    model, _, inputs = prepared_for(network, size, threads)
    began = time.perf_counter()
    opened = open_as(model, engine, precision, device, threads, BATCHES[0], inputs[:32])
    facts: dict[str, Any] = {"network": network, "engine": engine, "precision": precision, "size": size, "rows": []}
    facts["seconds_to_open"] = time.perf_counter() - began
    rate = 0.0
    for batch in BATCHES:
        if rate and batch / rate > LONGEST:
            break
        if batch != BATCHES[0]:
            opened = open_as(model, engine, precision, device, threads, batch, inputs[:32])
        seconds = timed(lambda some=inputs[:batch], runner=opened: runner.predict(some))
        low, rate, high = (batch / value for value in np.percentile(seconds, [75, 50, 25]))
        facts["rows"].append({"batch": batch, "rate": rate, "rate_quartiles": [low, high], "runs": len(seconds)})
        if batch == 1:
            facts["latency_p50_s"], facts["latency_p99_s"] = np.percentile(seconds, [50, 99]).tolist()
    facts["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    facts["macs"] = count(model.network, size).macs
    return facts


def open_as(model: Model, engine: str, precision: str, device: str, threads: int, batch: int, inputs: Any) -> Any:
    """The engine; `PUBLISHED` is the torch engine in the default layout."""
    if engine != PUBLISHED:
        return open_engine(model, engine, precision, device, threads, batch, inputs)
    opened = TorchEngine(model, device, precision, threads)
    opened.network = opened.network.to(memory_format=torch.contiguous_format)
    opened.layout = torch.contiguous_format
    return opened


def prepared_for(network: str, size: int, threads: int) -> tuple[Model, Any, Any]:
    """A Model, frames (n, H, W) and network inputs (n, 1, H, W), as many as the largest batch has."""
    torch.set_num_threads(threads)
    accuracy.LIMIT = float("inf")  # random weights have no accuracy to lose
    frames = np.random.default_rng(0).poisson(30, (max(BATCHES), size, size)).astype(np.uint16)
    return untrained(network, size), frames, PREPARATION.apply(frames)


def full_line(network: str, engine: str, precision: str, size: int, threads: int, device: str) -> dict[str, Any]:
    """Patterns per second of the network alone and of preparation, network and canvas, measured in turns.

    Batch after batch as `reconstruct` takes them: one is stitched while the network has the next.
    """
    model, frames, inputs = prepared_for(network, size, threads)
    frames, inputs = frames[:LINE_BATCH], inputs[:LINE_BATCH]
    opened = open_as(model, engine, precision, device, threads, LINE_BATCH, inputs)
    positions = np.random.default_rng(1).uniform(0, 6 * size, (len(frames), 2))
    canvas = Canvas(positions, np.ones((size, size), np.float32))

    def alone() -> None:
        for _ in range(LINE_BATCHES):
            opened.predict(inputs)

    def line() -> None:
        with Behind() as behind:
            for _ in range(LINE_BATCHES):
                behind.do(canvas.add, opened.predict(PREPARATION.apply(frames)), positions)

    rounds = [(timed(alone), timed(line)) for _ in range(2)]
    count = LINE_BATCHES * len(frames)
    rates = [count / float(np.median(np.concatenate(part))) for part in zip(*rounds, strict=True)]
    facts = {"network": network, "engine": engine, "precision": precision, "size": size}
    return facts | {"alone": rates[0], "line": rates[1], "ratio": rates[0] / rates[1]}


def timed(run: Callable[[], Any]) -> list[float]:
    """Seconds of repeated runs after one that does not count."""
    run()
    seconds: list[float] = []
    while sum(seconds) < SECONDS or (len(seconds) < RUNS and sum(seconds) < LONGEST):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return seconds


def untrained(network: str, size: int) -> Model:
    """A Model of random weights."""
    torch.manual_seed(0)
    contender = CONTENDERS[network]
    built = build(contender.network, **contender.settings)
    card = ModelCard(
        network=contender.network,
        settings=built.settings,
        preparation=Preparation(),
        frame_shape=(size, size),
        geometry=Geometry(),
        gauge="absolute",
        counts_per_frame=1e5,
        recipe={},
        training={},
        data=[],
        versions={},
    )
    return Model(card, built, None, np.ones((size, size), np.float32))


def peaks() -> dict[str, float]:
    """What this machine can do: multiply-accumulates a second of a large matrix product, bytes a second of a copy."""
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = torch.ones(2048, 2048, dtype=dtype), torch.ones(2048, 2048, dtype=dtype)
        found[f"peak_macs_{name}"] = 2048**3 / min(timed(lambda a=a, b=b: a @ b))
    block = torch.ones(64 * 2**20)
    target = torch.empty_like(block)
    found["copy_bytes_per_s"] = 2 * block.nbytes / min(timed(lambda: target.copy_(block)))
    return found


def versions() -> dict[str, str | None]:
    names = ("ptychow", "torch", "openvino", "onnxruntime")
    return {"cpu": cpu_name(), **{name: library_version(name) for name in names}}


def costs(name: str, file: str, options: argparse.Namespace) -> dict[str, Any]:
    """The headline metric of every engine and precision, on the scan's frames that the Model never saw."""
    model = Model.load(file)
    scan = read_scan(options.scan)
    preparation = model.prepare_for(scan)
    ratio = preparation.pixel_ratio(scan.frame_shape)
    known = {part.fingerprint: part for part in model.card.data}.get(scan.fingerprint())
    chosen = np.arange(len(scan)) if known is None else np.array(known.holdout or known.validation)
    inputs = preparation.apply(scan.frames[:][chosen])
    labels = PatchExtractor(resample_object(scan.object, ratio), model.patch_size)(scan.positions_px[chosen] / ratio)
    light = np.ones(labels.shape[1:]) if model.probe is None else intensity(model.probe)
    rows = []
    for engine, precision in kinds(False, choose_device(options.device))[1:]:
        try:
            patches = open_engine(model, engine, precision, "cpu", options.threads, inputs=inputs).predict(inputs)
            value = patch_metrics(patches, labels, light)[accuracy.METRIC]
        except PtychoWError as error:
            value = str(error)
        rows.append({"engine": engine, "precision": precision, "phase_unexplained_variance": value})
    facts = {"name": name, "scan": scan.name, "frames": len(chosen), "unseen": known is not None}
    return facts | {"own_error": accuracy.own_error(model), "rows": rows}


def write_report() -> None:
    """The page and its JSON."""
    facts = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
    cells = [fact for fact in facts if "rows" in fact and "network" in fact]
    full_lines = [fact for fact in facts if "line" in fact]
    costs_found = [fact for fact in facts if "frames" in fact]
    where = next((fact for fact in facts if "machine" in fact), {})
    write_json(RESULTS / "inference.json", {"cells": cells, "full_lines": full_lines, "accuracy": costs_found, **where})
    (RESULTS / "inference.md").write_text(page(cells, full_lines, costs_found, where), encoding="utf-8")
    print(f"wrote {RESULTS / 'inference.md'}")


def best(cells: list[dict[str, Any]], batches: Sequence[int] = BATCHES, **wanted: list[str]) -> float:
    """Highest rate at 64 x 64 among the cells with these values (0.0 where there is none)."""
    chosen = [c for c in cells if c["size"] == 64 and all(c[key] in value for key, value in wanted.items())]
    rows = [row for cell in chosen for row in cell["rows"] if row["batch"] in batches]
    return max((row["rate"] for row in rows), default=0.0)


def page(
    cells: list[dict[str, Any]],
    full_lines: list[dict[str, Any]],
    costs_found: list[dict[str, Any]],
    where: dict[str, Any],
) -> str:
    lines = [
        "# How fast the networks run",
        "",
        "Made by `python benchmarks/inference.py` ([source](../../benchmarks/inference.py)); one JSON a network,",
        "engine, precision and size in [inference/](inference/). Patterns per second, median of repeated runs in one",
        "process (quartiles in the JSON); prepared frames in, complex patches out. A cell is empty where one run would",
        f"have taken more than {LONGEST:.0f} s.",
        "",
        *describe(where),
        "## Against PtychoNN as its users run it, 64 x 64",
        "",
        "Best batch of each, unless said. The published PtychoNN runs in eager PyTorch in the default layout. int8 is",
        "compared with int8, all else with PtychoNN's best engine.",
        "",
        *headline(cells),
        "## Full line, 64 x 64, batch 64",
        "",
        f"Preparation (square root, scale), network and Canvas (sub-pixel positions) over {LINE_BATCHES} batches, each",
        "stitched while the network has the next, against the network alone.",
        "",
        "| network | engine | precision | network alone | full line | ratio |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {found['network']} | {found['engine']} | {found['precision']} | {found['alone']:.0f} | "
        f"{found['line']:.0f} | {found['ratio']:.2f} |"
        for found in full_lines
    ]
    for size in SIZES:
        measured = [cell for cell in cells if cell["size"] == size]
        lines += ["", f"## {size} x {size}", "", *(matrix(measured, where) if measured else ["Not measured yet."])]
    if costs_found:
        lines += [
            "",
            "## What a precision costs in accuracy",
            "",
            "ptychonn, w1, w3 and w3f are of the `paper` recipe, on raw counts, a few large among many small ones: no",
            "input for int8, which is refused where it would add more than a twentieth to the phase error.",
            "",
            *accuracy_table(costs_found),
        ]
    return "\n".join([*lines, ""])


def describe(where: dict[str, Any]) -> list[str]:
    if not where:
        return []
    versions_found = where["versions"]
    return [
        f"{versions_found['cpu']}; {where['machine']['threads']} threads. Largest measured here: "
        f"{where['peak_macs_fp32'] / 1e9:.0f} (fp32) and {where['peak_macs_bf16'] / 1e9:.0f} (bf16) thousand million "
        f"multiply-accumulates a second, {where['copy_bytes_per_s'] / 1e9:.0f} GB/s copied. torch "
        f"{versions_found['torch']}, OpenVINO {versions_found['openvino']}, ONNX Runtime "
        f"{versions_found['onnxruntime']}. Command: `{where['command']}`.",
        "",
    ]


def headline(cells: list[dict[str, Any]]) -> list[str]:
    published = best(cells, network=["ptychonn"], engine=[PUBLISHED])
    notebooks = best(cells, (64,), network=["ptychonn"], engine=[PUBLISHED])
    last = best(cells, network=["ptychonn"], engine=["torch"], precision=["fp32"])
    strongest = best(cells, network=["ptychonn"], precision=["fp32", "bf16"])
    lines = [
        f"Published PtychoNN: {notebooks:.0f} patterns/s at the notebooks' batch of 64, {published:.0f} at its best; "
        f"channels-last {last:.0f}.",
        "",
        "| network | precision | patterns/s | / published, batch 64 | / published, its best | / PtychoNN's best |",
        "|---|---|---|---|---|---|",
    ]
    for network in NETWORKS:
        for precision in ("fp32", "bf16", "int8"):
            rate = best(cells, network=[network], precision=[precision])
            rival = best(cells, network=["ptychonn"], precision=["int8"]) if precision == "int8" else strongest
            if rate and published and rival:
                ratios = f"{rate / notebooks:.1f} | {rate / published:.1f} | {rate / rival:.2f}"
                lines.append(f"| {network} | {precision} | {rate:.0f} | {ratios} |")
    return [*lines, ""]


def matrix(cells: list[dict[str, Any]], where: dict[str, Any]) -> list[str]:
    lines = [
        f"| network | engine | precision | {' | '.join(f'batch {b}' for b in BATCHES)} | p50, ms | p99, ms | "
        "peak memory, MB | part of peak |",
        "|---" * (len(BATCHES) + 7) + "|",
    ]
    for cell in cells:
        rates = {row["batch"]: row["rate"] for row in cell["rows"]}
        peak = where.get(f"peak_macs_{'fp32' if cell['precision'] == 'fp32' else 'bf16'}")
        part = f"{max(rates.values()) * cell['macs'] / peak:.1%}" if peak else ""
        shown = [f"{rates[batch]:.0f}" if batch in rates else "" for batch in BATCHES]
        lines.append(
            f"| {cell['network']} | {cell['engine']} | {cell['precision']} | {' | '.join(shown)} | "
            f"{cell['latency_p50_s'] * 1e3:.1f} | {cell['latency_p99_s'] * 1e3:.1f} | "
            f"{cell['peak_memory_bytes'] / 1e6:.0f} | {part} |"
        )
    return lines


def refused(words: str, found: dict[str, Any], here: float) -> str:
    """A refusal's cost, which is told as a part of the error that the Model's file says, in that of this scan."""
    cost = re.search(r"would add ([\d.]+)%", words)
    if cost is None:
        return words
    added = float(cost[1]) / 100 * found.get("own_error", accuracy.ASSUMED_ERROR)
    return f"refused: would add {added:.3f}, {added / here:.0%} of the error here"


def accuracy_table(costs_found: list[dict[str, Any]]) -> list[str]:
    lines = ["| weights | scan | frames | engine | precision | unexplained phase variance |", "|---" * 6 + "|"]
    for found in costs_found:
        here = next(row["phase_unexplained_variance"] for row in found["rows"] if row["precision"] == "fp32")
        frames = f"{found['frames']} {'unseen' if found['unseen'] else 'of a scan not trained on'}"
        for row in found["rows"]:
            value = row["phase_unexplained_variance"]
            text = refused(value, found, here) if isinstance(value, str) else f"{value:.5f}"
            lines.append(
                f"| {found['name']} | {found['scan']} | {frames} | {row['engine']} | {row['precision']} | {text} |"
            )
    return lines


if __name__ == "__main__":
    main()
