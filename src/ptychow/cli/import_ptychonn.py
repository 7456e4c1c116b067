"""`ptychow import-ptychonn`: a published PtychoNN checkpoint becomes a Model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychow.cli.common import (
    Json,
    Mapping,
    Output,
    PixelSize,
    Quiet,
    Report,
    inputs_of,
    open_scan,
    output_path,
    require_choice,
)


def import_ptychonn(
    file: Annotated[Path, typer.Argument(help="PyTorch state dict (.pth) of a PtychoNN.")],
    scan: Annotated[
        Path | None, typer.Option("--scan", help="A scan of its instrument: fills the Model's contract.")
    ] = None,
    inputs: Annotated[
        str, typer.Option("--inputs", help="What it was trained on: counts (below 3 set to 0) or standardised.")
    ] = "counts",
    size: Annotated[int | None, typer.Option("--size", help="Side of its input in pixels.", min=8)] = None,
    mapping: Mapping = None,
    pixel_size_nm: PixelSize = None,
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn a published PtychoNN PyTorch state dict into a Model that predicts the same."""
    require_choice("--inputs", inputs, "counts", "standardised")
    from ptychow.networks.count import count
    from ptychow.ptychonn_checkpoint import import_ptychonn as read_checkpoint

    report = Report(as_json, quiet)
    target = output_path(output, file, ".safetensors", *(inputs_of(scan, mapping) if scan else []))
    reference = None if scan is None else open_scan(scan, mapping, pixel_size_nm)
    model = read_checkpoint(file, reference, inputs=inputs, size=size)  # type: ignore[arg-type]  # checked above
    if reference is None:
        report.warn("without --scan the Model knows no frame statistics, probe or pixel size, and cannot check a scan")
    model.save(target)
    settings, parameters = model.network.settings, count(model.network).parameters
    report.line(
        f"PtychoNN, nconv {settings['nconv']}, {settings['levels']} levels, "
        f"{'with' if settings['batch_norm'] else 'without'} BatchNorm"
        f"{', phase only' if settings['phase_only'] else ''}: {parameters:,} parameters"
    )
    report.wrote("Model", target)
    report.finish({"network": "ptychonn", "settings": settings, "parameters": parameters, "inputs": inputs})
