"""What the benchmarks share: who takes part, and where a number was made."""

from __future__ import annotations

import json
import platform
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ptychow.files import to_json


@dataclass(frozen=True)
class Contender:
    """A network as it takes part."""

    name: str
    network: str
    settings: dict[str, Any]
    title: str


REFERENCE = "ptychonn-16-bn"
CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("w1", "w1", {}, "W1"),
        Contender("w3", "w3", {}, "W3"),
        Contender("w3f", "w3f", {}, "W3-fast"),
        Contender("wc", "wc", {}, "WC (W3-fast for 128 x 128)"),
        Contender("ptychonn", "ptychonn", {}, "PtychoNN, as published (nconv 32)"),
        Contender(REFERENCE, "ptychonn", {"nconv": 16, "batch_norm": True}, "PtychoNN, nconv 16, BatchNorm"),
    )
}


def is_done(result: Path, expected: dict[str, Any]) -> bool:
    """Whether a JSON is there, so that nothing is done twice.

    Raises SystemExit where its entries are not the `expected` ones: it was made in another way, and a page must not mix
    the two.
    """
    if not result.exists():
        return False
    found = json.loads(result.read_text())
    for name, value in json.loads(to_json(expected)).items():
        if found.get(name) != value:
            raise SystemExit(f"{result}: made with another {name} than today's; move it away to do it again")
    return True


def machine() -> dict[str, Any]:
    """Where a number was made."""
    threads = torch.get_num_threads()
    # Folders of one machine mean nothing on another: files by their name.
    arguments = [re.sub(r"(?<![^=])/\S*/", "", argument) for argument in sys.argv[1:]]
    return {
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *arguments]),
        "machine": {"cpu": cpu_name(), "threads": threads},
    }


def cpu_name() -> str:
    """The processor's name and what matters here of its instruction sets."""
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"
