"""`ptychow live`: the object appears while the detector scans."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptychow.cli.common import (
    Device,
    Force,
    Json,
    PixelSize,
    Quiet,
    Report,
    StitchingOption,
    require_choice,
)

if TYPE_CHECKING:
    from ptychow.live.session import Session


def live(
    source: Annotated[
        str,
        typer.Option("--source", help="pva://CHANNEL, stream2://HOST:PORT, watch:FILE, or a scan file to replay."),
    ],
    model: Annotated[Path, typer.Option("--model", "-m", help="Model file, from ptychow train.")],
    positions: Annotated[
        str | None,
        typer.Option("--positions", help="A file, pva://Y,X, pva-table://CHANNEL, attributes:Y,X, or watch:FILE."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="CXI file to write.")] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    stay: Annotated[bool, typer.Option("--stay", help="Keep the page after the last scan, until Ctrl-C.")] = False,
    address: Annotated[str, typer.Option("--address", help="Where the page listens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Of the page; 0: any that is free.", min=0, max=65535)] = 8642,
    token: Annotated[str | None, typer.Option("--token", help="What other machines must know to see the page.")] = None,
    scans: Annotated[int, typer.Option("--scans", help="End after so many; 0: with Ctrl-C.", min=0)] = 1,
    every: Annotated[
        int, typer.Option("--every", help="When the machine is too slow, keep every K-th frame.", min=1)
    ] = 2,
    memory_gb: Annotated[float, typer.Option("--memory-gb", help="For frames that wait.", min=0.001)] = 0.25,
    spool_gb: Annotated[float, typer.Option("--spool-gb", help="Disk for frames that wait or are kept.", min=0)] = 4.0,
    patches_gb: Annotated[float, typer.Option("--patches-gb", help="Disk for patches.", min=0.001)] = 32.0,
    idle: Annotated[
        float | None, typer.Option("--idle", help="End a scan after so many silent seconds, if the detector does not.")
    ] = None,
    keep_frames: Annotated[bool, typer.Option("--keep-frames", help="Write the frames as a scan file, too.")] = False,
    refine: Annotated[
        bool, typer.Option("--refine", help="Let an iterative reconstruction (Pty-Chi LSQML) finish the picture.")
    ] = False,
    refine_from: Annotated[
        Path | None, typer.Option("--refine-from", help="Scan file of the detector with the frames to refine with.")
    ] = None,
    refine_epochs: Annotated[
        int | None, typer.Option("--refine-epochs", help="Its passes; by default until a plateau.", min=1)
    ] = None,
    refine_seconds: Annotated[
        float | None, typer.Option("--refine-seconds", help="Begin no further pass after so many seconds.", min=0)
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Frames at a time, at most.", min=1)] = 64,
    stitching: StitchingOption = "probe",
    scale: Annotated[str, typer.Option("--scale", help="Count scale: scan (its first 64 frames), or model.")] = "scan",
    engine: Annotated[
        str, typer.Option("--engine", help="What runs the network: auto, or a name that ptychow doctor lists.")
    ] = "torch",
    precision: Annotated[str | None, typer.Option("--precision", help="fp32, bf16 or int8.")] = None,
    device: Device = "auto",
    force: Force = False,
    pixel_size_nm: PixelSize = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Receive a scan while it runs, show its object in a web page, and write it as CXI at the end."""
    from ptychow.engines import open_engine
    from ptychow.files import require_writable
    from ptychow.live.pipeline import LiveSettings
    from ptychow.live.server import LiveServer
    from ptychow.live.session import Session
    from ptychow.live.sources import open_sources
    from ptychow.model import Model

    report = Report(as_json, quiet)
    require_choice("--stitching", stitching, "probe", "central-crop")
    require_choice("--scale", scale, "scan", "model")
    target = output or Path(time.strftime("live_%Y%m%d-%H%M%S.cxi"))
    require_writable(target)
    loaded = Model.load(model)
    frames, *others = open_sources(source, positions)
    wants_refining = refine or refine_from is not None or refine_epochs is not None or refine_seconds is not None
    settings = LiveSettings(
        batch_size=batch_size,
        idle_seconds=idle,
        every=every,
        memory=memory_gb * 1e9,
        disk=spool_gb * 1e9,
        patch_disk=patches_gb * 1e9,
        keep_frames=keep_frames or (wants_refining and refine_from is None),
        pixel_size=None if pixel_size_nm is None else pixel_size_nm * 1e-9,
        scale=scale,  # type: ignore[arg-type]  # checked above
        stitching=stitching,  # type: ignore[arg-type]
        force=force,
    )

    def save(scan: Any, result: Any) -> None:
        path = target if session.finished == 0 else target.with_stem(f"{target.stem}_{session.finished + 1}")
        for warning in result.warnings:
            report.warn(warning)
        result.save(path)
        report.wrote("object", path)
        if keep_frames:
            _write_frames(report, scan, path)
        if wants_refining:
            session.message = "refining"
            result = _refine(result, scan, loaded, refine_from, refine_epochs, refine_seconds, device)
            result.save(path)
            report.wrote("refined object", path)
        result.save_picture(path.with_suffix(".png"), title=f"{scan.name}: {loaded.card.network}")
        report.wrote("picture", path.with_suffix(".png"))

    session = Session(
        frames,
        others[0] if others else None,
        loaded,
        open_engine(loaded, engine, precision, device, batch=batch_size),
        settings,
        save,
        scans=scans,
        name=target.stem,
    )
    with LiveServer(session, address, port, token) as server, _stopping(session, stay) as stopped:
        report.line(f"page: {server.url}")
        if open_page:
            import webbrowser

            webbrowser.open(server.url)
        with report.progress("Frames") as advance, _following(session, advance):
            session.run()
        _tell(report, session)
        if stay:
            report.line("the page stays until Ctrl-C")
            stopped.wait()


def _write_frames(report: Report, scan: Any, path: Path) -> None:
    from ptychow.formats import write_scan
    from ptychow.live.result import kept_scan

    kept, beside = kept_scan(scan), path.with_stem(f"{path.stem}_frames")
    if kept is not None:
        write_scan(beside, kept)
        report.wrote("frames", beside)


def _refine(
    result: Any, scan: Any, model: Any, file: Path | None, epochs: int | None, seconds: float | None, device: str
) -> Any:
    """The result refined with the frames of the detector's file, or with those that were kept."""
    from ptychow.errors import PtychoWError
    from ptychow.formats import read_scan
    from ptychow.live.result import kept_scan
    from ptychow.refinement import refine_reconstruction

    frames = kept_scan(scan) if file is None else read_scan(file)
    if frames is None:
        raise PtychoWError("no frames were kept to refine with")
    return refine_reconstruction(result, frames, model, epochs=epochs, seconds=seconds, device=device)


@contextmanager
def _stopping(session: Session, stay: bool) -> Iterator[Event]:
    """Ctrl-C ends the scan as it is, and is written; the event is set by it."""
    stopped = Event()

    def stop(*_: object) -> None:
        if stopped.is_set() and not stay:
            raise KeyboardInterrupt
        stopped.set()
        session.stop()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _following(session: Session, advance: Any) -> Iterator[None]:
    """Move the progress bar while the session runs."""
    over = Event()

    def follow() -> None:
        shown = 0
        while not over.wait(0.5):
            scan = session.scan
            if scan is not None:
                stitched = scan.counters.counts().stitched
                advance(stitched - shown, note=session.state)
                shown = stitched

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
    report.line(f"light: {summary['light']}; the scan is over: {summary['ended']}")
    report.finish(summary)
