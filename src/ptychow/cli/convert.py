"""`ptychow convert`: a scan from one file format to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychow.cli.common import (
    Json,
    Mapping,
    Output,
    PixelSize,
    Positions,
    Quiet,
    Report,
    inputs_of,
    open_scan,
    output_path,
    require_choice,
)

SUFFIXES = {
    ".cxi": "cxi",
    ".nxs": "nxcxi",
    ".nx5": "nxcxi",
    ".h5": "ptychodus",
    ".hdf5": "ptychodus",
    ".npz": "ptychodus",
}


def convert(
    file: Annotated[Path, typer.Argument(metavar="IN", help="Scan file of any known kind.")],
    target: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="File to write: .cxi, .nxs, or .h5 and .npz for Ptychodus.")
    ] = None,
    output: Output = None,
    to: Annotated[
        str | None, typer.Option("--to", help="cxi, nxcxi or ptychodus; by default what OUT's ending says.")
    ] = None,
    positions: Positions = None,
    pixel_size_nm: PixelSize = None,
    mapping: Mapping = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a scan as CXI, NeXus NXcxi_ptycho or a Ptychodus product; say what that format has no place for."""
    from ptychow.errors import InputError
    from ptychow.formats import FORMATS

    report = Report(as_json, quiet)
    if target is not None and output is not None:
        raise InputError("the output is named twice", field="OUT and --output", found=f"{target}, {output}")
    wanted = target or output
    suffix = None if wanted is None or wanted.is_dir() else wanted.suffix.lower()
    if to is None and suffix is not None and suffix not in SUFFIXES:
        found, expected = suffix or "none", ", ".join(SUFFIXES)
        raise InputError("unknown ending", file=wanted, found=found, expected=expected, remedy="Or name the kind: --to")
    name = to or ("cxi" if suffix is None else SUFFIXES[suffix])
    require_choice("--to", name, *(known.name for known in FORMATS.values() if known.write))
    chosen = FORMATS[name]
    path = output_path(wanted, file, chosen.suffix, *inputs_of(file, mapping, positions))
    scan = open_scan(file, mapping, pixel_size_nm, positions)
    left_out = chosen.leaves_out(scan)
    assert chosen.write is not None
    with report.progress("Writing frames", len(scan)) as advance:
        chosen.write(path, scan, advance)
    if left_out:
        report.warn(f"left out, because {chosen.title} has no place for it: {', '.join(left_out)}")
    report.line(f"{len(scan)} frames of {scan.frame_shape[0]} x {scan.frame_shape[1]}, as {chosen.title}")
    report.wrote("scan", path)
    report.finish({"format": name, "frames": len(scan), "left_out": left_out})
