"""`ptychow doctor`: what is here, and what was chosen."""

from __future__ import annotations

from typing import Any

from ptychow.cli.common import Json, Quiet, Report
from ptychow.words import counted

# Optional parts by extra: the libraries one imports, and what they are for.
EXTRAS = {
    "solver": (("ptychi",), "label, refine"),
    "fast": (("onnx", "onnxruntime", "openvino"), "engines, export"),
    "live": (("zmq", "cbor2", "p4p", "starlette", "uvicorn", "websockets", "imagecodecs", "PIL"), "live"),
    "cluster": (("distributed",), "reconstruct --cluster"),
    "tensorboard": (("tensorboard",), "train --tensorboard"),
}


def doctor(as_json: Json = False, quiet: Quiet = False) -> None:
    """Show the machine, the libraries, the engines, and which engine was chosen for which Model, and why."""
    report = Report(as_json, quiet)
    machine, extras, engines, choices = _machine(), _extras(), _engines(), _choices()
    report.table("Machine", ["", ""], list(machine.items()))
    report.table("Optional parts", ["extra", "for", "missing"], extras)
    report.table("Engines", ["engine", "", "precisions", "missing"], engines)
    for choice in choices:
        key = choice.key
        title = (
            f"{key['network']} at {key['size']}, {key['batch']} frames at a time, {counted(key['threads'], 'thread')}"
        )
        rows = [
            [
                candidate.engine,
                candidate.precision,
                candidate.rate,
                _percent(candidate.phase_cost),
                candidate.problem or ("chosen" if _is_chosen(candidate, choice) else ""),
            ]
            for candidate in choice.candidates
        ]
        report.table(title, ["engine", "precision", "patterns/s", "phase error added, %", ""], rows)
    if not choices:
        report.line("No engine has been chosen yet: the first `ptychow reconstruct --engine auto` does.")
    report.finish(
        {
            "machine": machine,
            "missing_extras": {extra: missing for extra, _, missing in extras if missing},
            "engines": {name: {"precisions": precisions, "missing": lacks} for name, _, precisions, lacks in engines},
            "choices": choices and [_as_json(choice) for choice in choices],
        }
    )


def _percent(part: float | None) -> str | None:
    """A part of 1 for people, to a hundredth of a percent."""
    return None if part is None else "< 0.01" if part < 1e-4 else f"{100 * part:.3g}"


def _machine() -> dict[str, Any]:
    import platform

    import torch

    from ptychow.devices import has_bfloat16
    from ptychow.engines import compiler
    from ptychow.engines.choice import cpu_name, library_version
    from ptychow.files import cache_folder

    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "xpu": torch.xpu.is_available(),
    }
    libraries = ("ptychow", "torch", "numpy", "openvino", "onnx", "onnxruntime", "ptychi")
    return {
        "Python": f"{platform.python_version()}, {platform.platform()}",
        "CPU": cpu_name(),
        "bf16": "yes" if has_bfloat16("cpu") else "no instructions for it: slower than fp32",
        "threads": torch.get_num_threads(),
        "accelerators": ", ".join(name for name, there in present.items() if there) or "none",
        "C++ compiler": compiler() or "none",
        **{library: library_version(library) or "not installed" for library in libraries},
        "cache": str(cache_folder()),
    }


def _extras() -> list[list[str]]:
    """Extra, what it is for, what of it is missing."""
    from importlib.util import find_spec

    return [
        [extra, use, ", ".join(library for library in libraries if find_spec(library) is None)]
        for extra, (libraries, use) in EXTRAS.items()
    ]


def _engines() -> list[list[str]]:
    """Name, title, precisions, what is missing."""
    from ptychow.engines import ENGINES

    return [[name, spec.title, ", ".join(spec.precisions), ", ".join(spec.missing())] for name, spec in ENGINES.items()]


def _choices() -> list[Any]:
    from ptychow.engines.choice import remembered

    return remembered()


def _is_chosen(candidate: Any, choice: Any) -> bool:
    return (candidate.engine, candidate.precision) == (choice.engine, choice.precision)


def _as_json(choice: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(choice)
