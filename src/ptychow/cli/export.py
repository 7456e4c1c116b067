"""`ptychow export`: a Model as one file for a machine without PtychoW."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychow.cli.common import Json, Output, Quiet, Report, output_path, require_choice


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file, or the name of shipped weights.")],
    to: Annotated[str, typer.Option("--to", help="onnx, openvino or torch.")] = "onnx",
    output: Output = None,
    preparation_inside: Annotated[
        bool, typer.Option("--preparation-inside", help="The file takes raw counts, not prepared frames.")
    ] = False,
    counts: Annotated[
        str, typer.Option("--counts", help="Type of the raw counts, with --preparation-inside: uint16 or uint32.")
    ] = "uint16",
    batch: Annotated[str, typer.Option("--batch", help="Frames at a time: a number, or dynamic.")] = "dynamic",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a Model's network as ONNX, OpenVINO or PyTorch program, checked against the Model."""
    from ptychow.engines.export import COUNT_TYPES, ENDINGS
    from ptychow.engines.export import export as run
    from ptychow.errors import InputError
    from ptychow.model import Model

    report = Report(as_json, quiet)
    require_choice("--to", to, *ENDINGS)
    require_choice("--counts", counts, *COUNT_TYPES)
    if batch != "dynamic" and not (batch.isascii() and batch.isdigit() and int(batch) > 0):
        raise InputError("no batch", field="--batch", found=batch, expected="a positive number, or dynamic")
    loaded = Model.load(model)
    target = output_path(output, model, ENDINGS[to])
    size = None if batch == "dynamic" else int(batch)
    found = run(loaded, target, to, preparation_inside=preparation_inside, counts=counts, batch=size)
    for file in found.files:
        report.wrote(to if file.suffix == ENDINGS[to] else "its weights", file)
    shape = " x ".join(str(length) for length in found.input_shape)
    report.line(f"input {found.input}: {found.input_type}, {shape}; outputs amplitude and phase")
    report.line(f"patches agree with the Model's to {found.difference:.1g} of their size")
    report.finish(
        {
            "input": found.input,
            "input_shape": found.input_shape,
            "input_type": found.input_type,
            "difference": found.difference,
        }
    )
