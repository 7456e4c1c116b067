"""How fast is `ptychow live`, and does it lose frames? Writes docs/results/live.{md,json}.

    python benchmarks/live.py [--engine auto] [--seconds 60] [--only NAME ...] [--report-only]

A simulated detector (its own process, real protocol, compressing as detectors do), the live session with its web
server, and a headless browser that watches, all share this machine. Rates are tried upwards from half the target, for
ten seconds each; the highest without a lost, skipped or spooled frame is then held for a minute, and half of it for the
latency. Trials that have a JSON are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch

from common import machine
from ptychow.engines import open_engine
from ptychow.files import write_json
from ptychow.formats import write_scan
from ptychow.live.codecs import encode
from ptychow.live.pipeline import LiveScan, LiveSettings
from ptychow.live.records import EncodedFrame, FrameRecord, PositionRecord, Start, now
from ptychow.live.server import LiveServer
from ptychow.live.session import Session
from ptychow.live.sources import open_sources
from ptychow.live.sources.replay import StoredPositions
from ptychow.model import Model
from ptychow.optics.experiment import Experiment
from ptychow.scan import Scan
from ptychow.training import recipe_named, train

RESULTS = Path(__file__).parents[1] / "docs" / "results"
FOLDER = RESULTS / "live"
RATES = (125, 250, 500, 750, 1000, 1250, 1500, 1750, 2000, 2500, 3000, 4000)
TRIAL_SECONDS = 10.0
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@dataclass(frozen=True)
class Trial:
    """A protocol, a frame size and a network, with the rate that was asked for."""

    protocol: str
    size: int
    network: str
    target: int

    @property
    def name(self) -> str:
        """Of its JSON."""
        return f"{self.protocol}_{self.size}_{self.network}"


TRIALS = tuple(
    Trial(protocol, size, network, target)
    for protocol, size, target in (("stream2", 64, 1000), ("stream2", 128, 250), ("pva", 64, 1000))
    for network in ("w3", "w3f")
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default=None)
    parser.add_argument("--seconds", type=float, default=60.0, help="How long the highest rate is held.")
    parser.add_argument("--frames", type=int, default=100_000, help="Of the memory trial.")
    parser.add_argument("--only", nargs="*", default=[*(trial.name for trial in TRIALS), "receiving", "memory"])
    parser.add_argument("--report-only", action="store_true")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not options.report_only:
        with tempfile.TemporaryDirectory(prefix="ptychow-bench-") as folder:
            run_all(options, Path(folder))
    found = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
    write_json(RESULTS / "live.json", found)
    (RESULTS / "live.md").write_text(page(found), encoding="utf-8")
    print(f"wrote {RESULTS / 'live.md'}")


def run_all(options: argparse.Namespace, folder: Path) -> None:
    for trial in TRIALS:
        path = FOLDER / f"{trial.name}.json"
        if trial.name in options.only and not path.exists():
            write_json(path, {**rates(trial, options, folder), **machine()})
    for name, measure in (("receiving", receiving), ("memory", memory)):
        path = FOLDER / f"{name}.json"
        if name in options.only and not path.exists():
            write_json(path, {**measure(options, folder), **machine()})


def subject(size: int, network: str) -> tuple[Scan, Model]:
    """A scan of 400 frames, and a network of the right size that has hardly learnt: its speed is the same."""
    scan = Experiment(trajectory="raster", size=size, points=400, step=4.0, counts=1e5).run(workers=1)
    model = train(scan, network, recipe_named("ptychow", epochs=1, batch_size=32), split="none", device="cpu").model
    return scan, model


# --- rates -----------------------------------------------------------------------------------------------------------


def rates(trial: Trial, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The highest rate held without loss, and the latency at half of it."""
    scan, model = subject(trial.size, trial.network)
    file = folder / f"scan_{trial.size}.cxi"
    write_scan(file, scan)
    engine = open_engine(model, options.engine, options.precision)
    ladder, best = [], None
    for rate in (each for each in RATES if each >= trial.target / 2):
        row = one_run(trial, rate, TRIAL_SECONDS, scan, model, engine, file)
        ladder.append(row)
        print(trial.name, rate, row["sent_rate"], row["kept_up"], row["counters"], flush=True)
        if not row["kept_up"]:
            break
        best = rate
    long, half = None, None
    for rate in (each for each in reversed(RATES) if best is not None and each <= best):
        long = one_run(trial, rate, options.seconds, scan, model, engine, file)
        print(trial.name, "long", rate, long["kept_up"], long["latency_seconds"], flush=True)
        if long["kept_up"]:
            half = one_run(trial, rate / 2, 2 * TRIAL_SECONDS, scan, model, engine, file)
            break
    return {
        "target": trial.target,
        "network": trial.network,
        "engine": f"{engine.name} {engine.precision}",
        "browser": CHROMIUM is not None,
        "ladder": ladder,
        "long": long,
        "half": half,
    }


def one_run(
    trial: Trial, rate: float, seconds: float, scan: Scan, model: Model, engine: Any, file: Path
) -> dict[str, Any]:
    """A detector at `rate` for so many seconds. kept_up: nothing lost, skipped, or put on disk for want of time."""
    count = int(rate * seconds)
    with detector(trial, rate, count, file) as (process, source, positions):
        frames, *others = open_sources(source, positions if trial.protocol == "pva" else str(file))
        if trial.protocol != "pva":
            tiled = scan.positions[np.arange(count) % len(scan)]
            others = [StoredPositions(tiled, scan.position_unit, "positions")]
        results: list[Any] = []
        session = Session(
            frames,
            others[0] if others else None,
            model,
            engine,
            # areaDetector tells no pixel size.
            LiveSettings(
                idle_seconds=10.0,
                every=1,
                pixel_size=scan.geometry.pixel_size if trial.protocol == "pva" else None,
            ),
            lambda _, result: results.append(result),
            name=trial.name,
        )
        seen = {"spooled": 0, "lag": 0.0}
        watcher = Thread(target=_watch, args=(session, seen), daemon=True)
        with LiveServer(session, port=0) as server, browser(server.url):
            watcher.start()
            session.run()
        sent = _sent(process.communicate(timeout=60)[0])
    summary = results[0].summary
    counts = summary["counters"]
    kept_up = (
        counts["stitched"] == count
        and seen["lag"] < 1.0
        and seen["spooled"] == 0
        and sent["lost"] == 0
        and sent["rate"] > 0.98 * rate
    )
    return {
        "rate": rate,
        "seconds": seconds,
        "kept_up": kept_up,
        "sent_rate": sent["rate"],
        "largest_lag": seen["lag"],
        "largest_spool": seen["spooled"],
        **{key: summary[key] for key in ("counters", "latency_seconds", "final_solve_seconds", "ended")},
    }


def _sent(text: str) -> dict[str, float]:
    """What `ptychow simulate-detector` says that it sent."""
    found = re.search(r"sent (\d+) frames in ([\d.]+) s .* (\d+) lost", text)
    assert found is not None, text
    frames, seconds, lost = (float(number) for number in found.groups())
    return {"lost": lost, "rate": frames / seconds}


def _watch(session: Session, seen: dict[str, Any]) -> None:
    while session.state not in ("done", "failed"):
        scan = session.scan
        # Until the first 64 frames set the scale, nothing is late.
        if scan is not None and scan.preparation is not None and scan.counters.counts().stitched > 2 * 64:
            seen["lag"] = max(seen["lag"], scan.lag())
            seen["spooled"] = max(seen["spooled"], scan.intake.queue.spooled)
        time.sleep(0.05)


@contextmanager
def detector(trial: Trial, rate: float, count: int, file: Path) -> Iterator[tuple[Any, str, str]]:
    """`ptychow simulate-detector` in a process of its own: (process, source, positions)."""
    code = "from ptychow.cli import main; main()"
    command = [sys.executable, "-u", "-c", code, "simulate-detector", str(file)]
    command += ["--protocol", trial.protocol, "--rate", str(rate), "--frames", str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stdout is not None
    line = process.stdout.readline()
    while "--source" not in line:
        if not line:
            raise RuntimeError("the simulated detector did not start")
        line = process.stdout.readline()
    _, source, _, positions, *_ = line.split("'")
    try:
        yield process, source, positions
    finally:
        process.kill()
        process.wait()


@contextmanager
def browser(url: str) -> Iterator[None]:
    """A headless browser that shows the page, where there is one."""
    if CHROMIUM is None:
        yield
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        options += ["--disable-component-update", "--disable-sync", "--remote-debugging-port=0"]
        process = subprocess.Popen(
            [CHROMIUM, *options, f"--user-data-dir={profile}", url],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(2)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


# --- parts -----------------------------------------------------------------------------------------------------------


def receiving(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Decode, prepare and join, without network and mosaic: frames a second of 128 x 128 uint16, bslz4."""
    scan, model = subject(128, "w3")
    packed = [encode(frame, "bslz4") for frame in scan.frames]
    rounds, rows = 10, []
    for repeat in range(3):
        place = folder / f"receiving{repeat}"
        place.mkdir()
        live = LiveScan(model, open_engine(model), LiveSettings(), place, "receiving")
        live.intake.receive(Start(None, scan.frame_shape, scan.mask, scan.saturation, scan.geometry))
        live._prepare([FrameRecord(index, frame, now()) for index, frame in enumerate(scan.frames[:64])])
        began, done, joined = time.perf_counter(), 0, 0
        for start in range(0, rounds * len(scan), 64):
            for index in range(start, min(start + 64, rounds * len(scan))):
                k = index % len(scan)
                live.intake.receive(
                    EncodedFrame(index, packed[k], "bslz4", scan.frame_shape, scan.frames.dtype, now(), 0)
                )
                live.intake.receive(PositionRecord(index, tuple(scan.positions[k]), scan.position_unit, now()))
            live._take_positions()
            records, inputs = live._read(live.intake.queue.take(64))
            indices = np.array([record.index for record in records])
            joined += int(live.join.add_patches(indices, np.zeros(len(indices), np.int32)).sum())
            done += len(inputs)
        rows.append(done / (time.perf_counter() - began))
        assert done == joined == rounds * len(scan)
        live.close()
    return {"frames": rounds * len(scan), "rates": rows, "target": 5000}


def memory(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Memory of this process while a very long scan passes through; an engine that answers at once."""
    scan, model = subject(64, "w3")

    class Instant:
        name, precision, device = "torch", "none", "cpu"

        def predict(self, inputs: Any) -> Any:
            return np.ones((len(inputs), *inputs.shape[2:]), np.complex64)

    samples: list[dict[str, float]] = []
    results: list[Any] = []
    source = _Endless(scan, options.frames)
    session = Session(source, None, model, Instant(), LiveSettings(), lambda _, result: results.append(result))

    def sample() -> None:
        while not results:
            stitched = 0 if session.scan is None else session.scan.counters.counts().stitched
            samples.append({"stitched": stitched, "state": session.state, **resident()})  # type: ignore[dict-item]
            time.sleep(0.5)

    watcher = Thread(target=sample, daemon=True)
    watcher.start()
    session.run()
    watcher.join()
    counts = results[0].summary["counters"]
    return {
        "frames": options.frames,
        "counters": counts,
        "samples": samples,
        "final_solve_seconds": results[0].summary["final_solve_seconds"],
        "patch_spool_gb": options.frames * 64 * 64 * 4 / 1e9,
    }


class _Endless:
    """Frames and positions of a scan, again and again, as fast as they are taken."""

    name, waits, overruns, finished = "endless", True, 0, False

    def __init__(self, scan: Scan, frames: int) -> None:
        self._scan, self._frames, self._sent = scan, frames, -1

    def poll(self, timeout: float) -> list[Any]:
        scan = self._scan
        if self._sent < 0:
            self._sent = 0
            return [Start(self._frames, scan.frame_shape, scan.mask, None, scan.geometry)]
        records: list[Any] = []
        for index in range(self._sent, min(self._sent + 64, self._frames)):
            k = index % len(scan)
            records.append(FrameRecord(index, scan.frames[k], now()))
            records.append(PositionRecord(index, tuple(scan.positions[k]), scan.position_unit, now()))
        self._sent += len(records) // 2
        self.finished = self._sent >= self._frames
        return records

    def __enter__(self) -> _Endless:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def resident() -> dict[str, float]:
    """Megabytes of this process: its own, and of files that it maps."""
    text = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines())
    return {name: int(fields[key].split()[0]) / 1e3 for name, key in (("own", "RssAnon"), ("mapped", "RssFile"))}


# --- report -----------------------------------------------------------------------------------------------------------


def latency(run: dict[str, Any] | None) -> str:
    """Half and 99 % of a run's frames took at most so long."""
    if run is None:
        return "-"
    p50, p99 = (1e3 * run["latency_seconds"][key] for key in ("p50", "p99"))
    return f"{p50:.0f} / {p99:.0f} ms at {run['rate']:g}/s"


def page(found: dict[str, Any]) -> str:
    first = next(iter(found.values()))
    lines = [
        "# The live pipeline: rates, latency, memory",
        "",
        "Made by `python benchmarks/live.py` ([source](../../benchmarks/live.py)); the numbers are in",
        "[live.json](live.json). Simulated detector, live session, web server and a headless browser on one machine:",
        f"{os.cpu_count()} cores, {first['machine']['cpu']}.",
        "",
        "| protocol | frames | network, engine | highest rate, none lost | target | p50 / p99 there | at half | lost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for trial in TRIALS:
        row = found.get(trial.name)
        if row is None:
            continue
        long, half = row["long"], row["half"]
        held = f"{long['rate']:g}/s for {long['seconds']:g} s" if long and long["kept_up"] else "none of those tried"
        there, halved = (latency(run) for run in (long, half))
        lost = "-" if long is None else str(long["counters"]["lost"] + long["counters"]["skipped"])
        size, engine = f"{trial.size} x {trial.size}", f"{row['network']}, {row['engine']}"
        lines.append(
            f"| {trial.protocol} | {size} | {engine} | {held} | {row['target']}/s | {there} | {halved} | {lost} |"
        )
    lines += [
        "",
        "Latency is from the last byte of a frame to its pixels in the mosaic; a batch waits for at most 50 ms. Rows",
        "were measured one after the other.",
    ]
    if "receiving" in found:
        rates = found["receiving"]["rates"]
        lines += [
            "",
            "## The receiving side alone",
            "",
            f"Decode, prepare and join {found['receiving']['frames']} frames of 128 x 128 uint16 (bslz4), one thread,",
            f"no network: {np.median(rates):,.0f} frames/s (of three runs {min(rates):,.0f} to {max(rates):,.0f}); "
            f"the target is {found['receiving']['target']:,}.",
        ]
    if "memory" in found:
        row = found["memory"]
        scanning = [each for each in row["samples"] if each["state"] == "scanning" and each["stitched"] > 1000]
        early = next(each for each in scanning if each["stitched"] >= row["frames"] / 10)
        lines += [
            "",
            "## Memory",
            "",
            f"{row['frames']:,} frames of 64 x 64 through everything but a network: {early['own']:.0f} MB after "
            f"{early['stitched']:,} frames, {scanning[-1]['own']:.0f} MB after {scanning[-1]['stitched']:,}. What",
            "grows is 40 bytes a frame (index, position, residual, path). Patches lay on disk:",
            f"{row['patch_spool_gb']:.1f} GB as float16 (the limit is `--patches-gb`, 32 by default). The final solve",
            f"took {row['final_solve_seconds']:.0f} s and held another, weighted, copy of them: "
            f"{max(each['own'] for each in row['samples']):.0f} MB at most (beyond 2 GB the copy lies on disk).",
            f"Before the first frame the process, with PyTorch and its Model, had {row['samples'][0]['own']:.0f} MB.",
        ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    main()
