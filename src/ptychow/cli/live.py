"""`ptychow live`: the object appears while the detector scans."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptychow.cli.common import (
    Device,
    EngineOption,
    Force,
    Json,
    Mapping,
    PixelSize,
    PrecisionOption,
    Quiet,
    Refine,
    RefineEpochs,
    RefineSeconds,
    Report,
    StitchingOption,
    output_path,
    parse_mapping,
    require_choice,
    require_engine,
    tell_residuals,
    warn_of_bf16,
)
from ptychow.cli.live_results import Refining, Results
from ptychow.cli.live_waiting import Waiting
from ptychow.errors import InputError

if TYPE_CHECKING:
    from ptychow.live.session import Session


def live(
    source: Annotated[
        str,
        typer.Option("--source", help="pva://CHANNEL, stream2://HOST:PORT, watch:FILE, or a scan file to replay."),
    ],
    model: Annotated[
        Path, typer.Option("--model", "-m", help="Model file, or the name of one that ships (ptychow weights).")
    ],
    positions: Annotated[
        str | None,
        typer.Option("--positions", help="A file, pva://Y,X, pva-table://CHANNEL, attributes:Y,X, or watch:FILE."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File, or existing folder, to write to; by default live_TIME.cxi here."),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    stay: Annotated[bool, typer.Option("--stay", help="Keep the page after the last scan, until Ctrl-C.")] = False,
    address: Annotated[str, typer.Option("--address", help="Where the page listens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Of the page; 0: any that is free.", min=0, max=65535)] = 8642,
    token: Annotated[str | None, typer.Option("--token", help="What other machines must know to see the page.")] = None,
    scans: Annotated[int, typer.Option("--scans", help="End after so many; 0: with Ctrl-C.", min=0)] = 1,
    every: Annotated[
        int, typer.Option("--every", help="When the machine is too slow, keep every K-th frame.", min=1)
    ] = 2,
    memory_gb: Annotated[float, typer.Option("--memory-gb", help="For frames that wait.", min=0.001, max=1e6)] = 0.25,
    spool_gb: Annotated[
        float,
        typer.Option("--spool-gb", help="Disk for frames that wait, and as much for kept ones.", min=0, max=1e6),
    ] = 4.0,
    patches_gb: Annotated[float, typer.Option("--patches-gb", help="Disk for patches.", min=0.001, max=1e6)] = 32.0,
    idle: Annotated[
        float | None, typer.Option("--idle", help="End a scan after so many silent seconds, if the detector does not.")
    ] = None,
    keep_frames: Annotated[bool, typer.Option("--keep-frames", help="Write the frames as a scan file, too.")] = False,
    refine: Refine = False,
    refine_from: Annotated[
        Path | None, typer.Option("--refine-from", help="Scan file of the detector with the frames to refine with.")
    ] = None,
    refine_epochs: RefineEpochs = None,
    refine_seconds: RefineSeconds = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Frames at a time, at most.", min=1)] = 64,
    stitching: StitchingOption = "probe",
    scale: Annotated[str, typer.Option("--scale", help="Count scale: scan (its first 64 frames), or model.")] = "scan",
    engine: EngineOption = "torch",
    precision: PrecisionOption = None,
    device: Device = "auto",
    force: Force = False,
    pixel_size_nm: PixelSize = None,
    mapping: Mapping = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Receive a scan while it runs, show its object in a web page, and write it as CXI at the end."""
    from ptychow.engines import open_engine
    from ptychow.live.pipeline import LiveSettings
    from ptychow.live.server import LiveServer
    from ptychow.live.session import Session
    from ptychow.live.sources import files_of, open_sources
    from ptychow.model import Model

    report = Report(as_json, quiet)
    require_choice("--stitching", stitching, "probe", "central-crop")
    require_choice("--scale", scale, "scan", "model")
    require_engine(engine, precision)
    if engine.startswith("torch"):
        warn_of_bf16(report, precision, device)
    if idle is not None and not 0 < idle < math.inf:
        raise InputError("not a time to wait", field="--idle", found=idle, expected="seconds, more than 0")
    refining = None
    if refine or refine_from is not None or refine_epochs is not None or refine_seconds is not None:
        refining = Refining(refine_from, refine_epochs, refine_seconds, device)
    watched = files_of(source, positions)
    said = parse_mapping(mapping) or {}
    tables = [Path(value) for value in said.values() if Path(value).is_file()]
    inputs = [model, *watched, *tables, *([] if refine_from is None else [refine_from])]
    target = output_path(output, Path("live"), time.strftime("_%Y%m%d-%H%M%S.cxi"), *inputs)
    results = Results(report, target, keep_frames, refining)
    results.require_room(inputs)
    if refining is not None:
        refining.require(watched)
    loaded = Model.load(model)
    frames, *others = open_sources(
        source,
        positions,
        mapping=said,
        idle=60.0 if idle is None else idle,
        pixel_size_known=pixel_size_nm is not None,
    )
    settings = LiveSettings(
        wait_for_start=any(path.name.endswith("_master.h5") for path in watched),
        batch_size=batch_size,
        idle_seconds=idle,
        every=every,
        memory=memory_gb * 1e9,
        disk=spool_gb * 1e9,
        patch_disk=patches_gb * 1e9,
        keep_frames=keep_frames or (refining is not None and refine_from is None),
        pixel_size=None if pixel_size_nm is None else pixel_size_nm * 1e-9,
        scale=scale,  # type: ignore[arg-type]  # checked above
        stitching=stitching,  # type: ignore[arg-type]
        force=force,
    )
    session = Session(
        frames,
        others[0] if others else None,
        loaded,
        open_engine(loaded, engine, precision, device, batch=batch_size),
        settings,
        results.save,
        rescue=results.rescue,
        follow_up=(results.tell, results.write_frames, results.refine, results.draw_picture),
        optional=(results.refine,),
        scans=scans,
        name=target.stem,
    )
    with LiveServer(session, address, port, token) as server, _stopping(session) as stopped:
        report.note(f"page: {server.url}")
        if open_page:
            import webbrowser

            webbrowser.open(server.url)
        with report.progress("Frames") as advance, _following(report, session, advance):
            session.run()
        _tell(report, session)
        if stay:
            report.line("the page stays until Ctrl-C")
            stopped.wait()


@contextmanager
def _stopping(session: Session) -> Iterator[Event]:
    """Ctrl-C ends the scan as it is, which is written, and sets the event. A second one gives up what takes long after
    that (a full disk, refining, writing frames), a third one everything. So do `kill` and the end of a batch job, and a
    terminal that is closed.
    """
    stopped, given_up = Event(), Event()
    terminals = [stream.fileno() for stream in (sys.stdout, sys.stderr) if stream.isatty()]

    def stop(number: int, _: object) -> None:
        if number == getattr(signal, "SIGHUP", None):
            # The terminal is gone, and whoever writes to it now fails.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for terminal in terminals:
                os.dup2(nowhere, terminal)
            os.close(nowhere)
        if not stopped.is_set():
            stopped.set()
            session.stop()
        elif not given_up.is_set():
            given_up.set()
            session.give_up()
        else:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in _ending_signals()}
    try:
        yield stopped
    except KeyboardInterrupt:
        # At once: Python's own end would take a library from under a step that still computes, and abort.
        print("error: interrupted", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ending_signals() -> list[int]:
    """What asks a process to end; without that of a closed terminal where `nohup` has it ignored."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        numbers.append(hangup)
    return [int(number) for number in numbers]


@contextmanager
def _following(report: Report, session: Session, advance: Any) -> Iterator[None]:
    """Move the progress bar and pass warnings on while the session runs, and say what it waits for."""
    over, waiting = Event(), Waiting(report)

    def follow() -> None:
        shown = warned = 0
        while True:
            last = over.wait(0.5)
            for warning in session.warnings[warned:]:
                report.warn(warning)
                warned += 1
            if session.scan is not None:
                stitched = session.scan.counters.counts().stitched
                advance(stitched - shown, note=session.state)
                shown = stitched
            if last:
                return
            waiting.tell(session.waits())

    thread = Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _tell(report: Report, session: Session) -> None:
    """What became of the last scan's frames."""
    assert session.result is not None
    summary = session.result.summary
    counts, latency = summary["counters"], summary["latency_seconds"]
    report.table(
        "Frames",
        ["what became of them", "number"],
        [[name, counts[name]] for name in counts if counts[name] is not None],
    )
    if latency["p50"] is not None:
        report.line(f"from a frame to its pixels: p50 {latency['p50'] * 1e3:.0f} ms, p99 {latency['p99'] * 1e3:.0f} ms")
    if session.astray:
        report.line(f"{session.astray:,} records were of no scan, or came when theirs was over")
    tell_residuals(report, summary)
    report.line(f"light: {summary['light']}; the scan is over: {summary['ended']}")
    report.finish(summary)
