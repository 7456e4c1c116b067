"""Which engine is fastest here: measured once for a network, a size and a machine, and remembered."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ptychow.devices import choose_device
from ptychow.engines import ENGINES, open_engine
from ptychow.engines.accuracy import LIMIT, phase_cost, simulated_inputs
from ptychow.engines.torch_engine import TorchEngine
from ptychow.errors import PtychoWError
from ptychow.files import cache_folder, write_json
from ptychow.model import Model

# Seconds spent on an engine's rate; the median of its runs counts.
SECONDS = 1.0


@dataclass(frozen=True)
class Candidate:
    """What was found of an engine: patterns per second, part added to the phase error, or why it was left out."""

    engine: str
    precision: str
    rate: float | None = None
    phase_cost: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Choice:
    """The fastest engine whose precision adds at most `accuracy.LIMIT` to the phase error, and all that were tried."""

    engine: str
    precision: str
    key: dict[str, Any]
    candidates: tuple[Candidate, ...]


def choose(
    model: Model,
    precision: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    batch: int = 64,
    inputs: NDArray[np.float32] | None = None,
) -> Choice:
    """The fastest engine for this Model here; arguments as in `engines.open_engine`.

    Remembered in the user's cache for the same weights, size, batch, threads, precision, versions and CPU. On an
    accelerator nothing is measured: PyTorch runs there, in fp32 unless another precision is asked for.
    """
    key = _key(model, precision, choose_device(device), threads or torch.get_num_threads(), batch)
    if key["device"] != "cpu":
        return Choice("torch", precision or "fp32", key, ())
    path = _path(key)
    known = _read(path)
    if known is not None and known.key == key:
        return known
    inputs = simulated_inputs(model) if inputs is None else inputs
    inputs = np.ascontiguousarray(np.resize(inputs, (batch, *inputs.shape[1:])))
    reference = TorchEngine(model, "cpu").predict(inputs)
    candidates = tuple(
        _measure(model, engine, tried, key["threads"], inputs, reference)
        for engine, spec in ENGINES.items()
        if not (spec.missing() or spec.compiles)
        for tried in spec.precisions
        if tried == (precision or tried)
    )
    usable = [candidate for candidate in candidates if candidate.problem is None]
    if not usable:
        reasons = "; ".join(f"{candidate.engine}: {candidate.problem}" for candidate in candidates)
        raise PtychoWError(f"no engine here runs this Model in {precision} ({reasons or 'none knows it'})")
    best = max(usable, key=lambda candidate: candidate.rate or 0.0)
    chosen = Choice(best.engine, best.precision, key, candidates)
    with suppress(PtychoWError):  # a cache that cannot be written costs the next run a few seconds, no more
        write_json(path, asdict(chosen))
    return chosen


def remembered() -> list[Choice]:
    """The choices in the user's cache."""
    return [found for path in sorted(_folder().glob("*.json")) if (found := _read(path)) is not None]


def _measure(
    model: Model,
    engine: str,
    precision: str,
    threads: int,
    inputs: NDArray[np.float32],
    reference: NDArray[np.complex64],
) -> Candidate:
    try:
        opened = open_engine(model, engine, precision, "cpu", threads, len(inputs), inputs)
    except PtychoWError as error:
        return Candidate(engine, precision, problem=str(error))
    cost = phase_cost(model, opened.predict(inputs), reference)
    if not cost <= LIMIT:
        return Candidate(engine, precision, phase_cost=cost, problem=f"adds {cost:.1%} to the phase error")
    seconds: list[float] = []
    while sum(seconds) < SECONDS or len(seconds) < 3:
        began = time.perf_counter()
        opened.predict(inputs)
        seconds.append(time.perf_counter() - began)
    return Candidate(engine, precision, len(inputs) / float(np.median(seconds)), cost)


def _key(model: Model, precision: str | None, device: str, threads: int, batch: int) -> dict[str, Any]:
    """All that a choice depends on, in JSON's types."""
    weights = hashlib.sha256()
    for tensor in model.network.state_dict().values():
        weights.update(tensor.detach().cpu().numpy().tobytes())
    return {
        "network": model.card.network,
        "settings": json.loads(json.dumps(model.card.settings)),
        "weights": weights.hexdigest()[:16],
        "size": model.patch_size,
        "batch": batch,
        "precision": precision,
        "device": device,
        "threads": threads,
        "cpu": cpu_name(),
        "versions": {name: library_version(name) for name in ("ptychow", "torch", "openvino", "onnxruntime")},
    }


def cpu_name() -> str:
    """The processor as the system calls it, and the widest vectors torch uses on it."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores"


def library_version(name: str) -> str | None:
    """The version installed, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _folder() -> Path:
    return cache_folder() / "engines"


def _path(key: dict[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return _folder() / f"{key['network']}-{key['size']}-{digest}.json"


def _read(path: Path) -> Choice | None:
    """A remembered choice; None where there is none, or one that another version wrote."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        candidates = tuple(Candidate(**candidate) for candidate in stored.pop("candidates"))
        return Choice(**stored, candidates=candidates)
    except (OSError, ValueError, TypeError, KeyError):
        return None
