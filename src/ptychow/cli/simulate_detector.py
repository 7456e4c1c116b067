"""`ptychow simulate-detector`: a real server that sends a scan as a detector does, on this machine only."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptychow.cli.common import Json, Mapping, PixelSize, Quiet, Report, Seed, open_scan, require_choice
from ptychow.errors import InputError, MissingExtraError, PtychoWError

if TYPE_CHECKING:
    from ptychow.scan import Geometry

CODECS = {"stream2": "bslz4", "pva": "none", "file": "bslz4"}
PORTS = {"stream2": 31001, "pva": 0, "file": 0}  # a Dectris detector has its own, an EPICS client asks for names


def simulate_detector(
    file: Annotated[Path, typer.Argument(metavar="SCAN", help="Scan file to send.")],
    protocol: Annotated[str, typer.Option("--protocol", help="pva, stream2 or file.")] = "stream2",
    rate: Annotated[float, typer.Option("--rate", help="Frames a second.")] = 100.0,
    frames: Annotated[
        int | None, typer.Option("--frames", help="How many; more than the scan has begin it again.", min=1)
    ] = None,
    positions: Annotated[
        str | None,
        typer.Option("--positions", help="attributes (pva), table or numbers (EPICS channels), or none."),
    ] = None,
    codec: Annotated[
        str | None, typer.Option("--codec", help="stream2: bslz4, lz4, none; pva: also blosc, zlib, lz4hdf5.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", help="To listen on; 0: any that is free. stream2: 31001, pva: 0.", min=0, max=65535),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write (--protocol file).")] = None,
    wait: Annotated[float, typer.Option("--wait", help="Seconds to wait for somebody to listen.", min=0)] = 600.0,
    drop: Annotated[float, typer.Option("--drop", help="Part of the frames that is not sent.")] = 0.0,
    duplicate: Annotated[float, typer.Option("--duplicate", help="Part that is sent twice.")] = 0.0,
    garbage: Annotated[float, typer.Option("--garbage", help="Nonsense messages, a frame.")] = 0.0,
    reorder: Annotated[int, typer.Option("--reorder", help="Places by which frames are late, at most.", min=0)] = 0,
    late_positions: Annotated[float, typer.Option("--late-positions", help="Seconds after their frames.", min=0)] = 0.0,
    restart: Annotated[
        int | None, typer.Option("--restart", help="Abort after so many frames and begin again.", min=1)
    ] = None,
    stall: Annotated[float, typer.Option("--stall", help="Seconds of silence in the middle.", min=0)] = 0.0,
    vanish: Annotated[float, typer.Option("--vanish", help="Seconds without a server in the middle.", min=0)] = 0.0,
    seed: Seed = 0,
    pixel_size_nm: PixelSize = None,
    mapping: Mapping = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Send a scan as a detector would: real protocol, chosen rate, chosen faults. Nothing leaves this machine."""
    require_choice("--protocol", protocol, *CODECS)
    if not rate > 0:
        raise InputError("not a rate", field="--rate", found=rate, expected="frames a second")
    where = positions or ("attributes" if protocol == "pva" and not late_positions else "none")
    require_choice("--positions", where, "table", "numbers", "none", *(["attributes"] if protocol == "pva" else []))
    if late_positions and where not in ("table", "numbers"):
        raise InputError("only a channel of their own can be late", field="--positions", expected="table or numbers")
    _refuse_idle(protocol, {"--codec": codec, "--port": port} if protocol == "file" else {"--output": output})
    report = Report(as_json, quiet)
    scan = open_scan(file, mapping, pixel_size_nm)
    count = frames or len(scan)

    try:
        from ptychow.live.simulated.detector import Server, require_of_a_file, send
        from ptychow.live.simulated.faults import Faults
        from ptychow.live.simulated.file import FileWriter
        from ptychow.live.simulated.pva import PositionServer, PvaServer
        from ptychow.live.simulated.stream2 import Stream2Server
    except ImportError:
        raise MissingExtraError("A simulated detector", "live") from None

    faults = Faults(drop, duplicate, garbage, reorder, late_positions, restart, stall, vanish, seed)
    codec = codec or CODECS[protocol]
    port = PORTS[protocol] if port is None else port
    with ExitStack() as stack:
        server: Server
        if protocol == "stream2":
            require_choice("--codec", codec, "bslz4", "lz4", "none")
            server = stack.enter_context(Stream2Server(scan, count=count, codec=codec, port=port))
        elif protocol == "pva":
            from ptychow.live.codecs import CODECS as KNOWN

            require_choice("--codec", codec, *(name for name in KNOWN if name != "bslz4hdf5"))
            server = stack.enter_context(PvaServer(scan, codec=codec, port=port, attributes=where == "attributes"))
        else:
            require_of_a_file(faults)
            server = stack.enter_context(FileWriter(scan, _new_file(output), count=count))
        stage = stack.enter_context(PositionServer(scan)) if where in ("table", "numbers") else None
        told = _where_positions(where, file, server, stage, scan.position_unit)
        more = _what_is_not_sent(protocol, scan.geometry, mapping if told == str(file) else None)
        report.line(f"listen with: ptychow live --source '{server.source}' --positions '{told}' --model MODEL{more}")
        with report.progress("Compressing", min(count, len(scan))) as advance:
            for index in range(min(count, len(scan))):
                server.prepare(index)
                advance()
        report.line("waiting for somebody to listen")
        if not (server.wait_for_client(wait) and (stage is None or stage.wait_for_client(wait))):
            raise PtychoWError(f"nobody has listened for {wait:g} s")
        with report.progress("Sending", count * (1 if restart is None else 2)) as advance:
            sent = send(server, count, rate, faults, positions=stage, advance=advance)
    _tell(report, sent, protocol, codec, server.source, told)


def _refuse_idle(protocol: str, options: dict[str, Any]) -> None:
    """Raise InputError for an option that was given, and says nothing to this protocol."""
    for option, given in options.items():
        if given is not None:
            raise InputError(f"says nothing to --protocol {protocol}", field=option, found=given, remedy="Leave it out")


def _new_file(output: Path | None) -> Path:
    if output is None or output.exists():
        raise InputError("a new file must be named", file=output, field="--output")
    return output


def _where_positions(where: str, file: Path, server: Any, stage: Any, unit: str) -> str:
    """What `ptychow live --positions` wants to know."""
    if stage is not None:
        return stage.table if where == "table" else stage.numbers
    if where == "attributes":
        return f"attributes:Y,X?unit={unit}"
    return getattr(server, "positions", str(file))


def _what_is_not_sent(protocol: str, geometry: Geometry, mapping: list[str] | None) -> str:
    """The options of `ptychow live` for what the detector does not tell, and for the file that the positions are in."""
    is_told = protocol == "stream2" and None not in (geometry.wavelength, geometry.distance, geometry.detector_pixel)
    size = None if is_told else geometry.pixel_size
    pixel = "" if size is None else f" --pixel-size-nm {size * 1e9:.6g}"
    return pixel + "".join(f" --map {shlex.quote(entry)}" for entry in mapping or ())


def _tell(report: Report, sent: dict[str, Any], protocol: str, codec: str, source: str, positions: str) -> None:
    report.line(
        f"sent {sent['frames']} frames in {sent['seconds']:.1f} s ({sent['rate']:.0f}/s), {sent['duplicates']} again, "
        f"and {sent['garbage']} nonsense messages; {sent['dropped']} left out, {sent['lost']} lost for want of room"
    )
    report.finish({**sent, "protocol": protocol, "codec": codec, "source": source, "positions": positions})
