"""`ptychow networks`: the networks, their sizes and their costs beside the paper's."""

from __future__ import annotations

from typing import Annotated

import typer

from ptychow.cli.common import Json, Quiet, Report

NOTE = "W1, W2 and W3 are reconstructed from the paper's text and Table 5; they are not the authors' code."


def networks(
    size: Annotated[
        int, typer.Option("--size", help="Frame size in pixels; the paper's numbers are for 64.", min=1)
    ] = 64,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the networks with parameters, multiply-accumulates and FLOPs beside the paper's numbers."""
    from ptychow.networks import NETWORKS, build
    from ptychow.networks.count import count

    report = Report(as_json, quiet)
    rows, summary = [], {}
    for name, spec in NETWORKS.items():
        cost = count(build(name), size)
        paper_parameters = None if spec.paper_parameters is None else round(spec.paper_parameters / 1e3)
        paper_flops = None if spec.paper_flops is None or size != 64 else f"{spec.paper_flops / 1e9:.2f}"
        rows.append(
            [
                name,
                spec.title,
                cost.parameters,
                paper_parameters,
                cost.macs / 1e6,
                f"{cost.table5_flops / 1e9:.2f}",
                paper_flops,
            ]
        )
        summary[name] = {
            "title": spec.title,
            "parameters": cost.parameters,
            "macs_per_pattern": cost.macs,
            "flops_per_pattern": cost.flops,
            "table5_flops": cost.table5_flops,
            "paper_parameters": spec.paper_parameters,
            "paper_table5_flops": spec.paper_flops,
        }
    report.table(
        f"Networks, for frames of {size} x {size}",
        ["name", "", "parameters", "paper (k)", "MMAC / pattern", "GFLOP (Table 5)", "paper (64 x 64)"],
        rows,
    )
    report.line("GFLOP: a training step of 64 patterns, counted as in Table 5 of Xing et al. 2024.")
    report.line(NOTE)
    report.finish({"size": size, "networks": summary, "note": NOTE})
