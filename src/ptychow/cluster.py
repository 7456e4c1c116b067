"""Many scans on many machines: every scan is one task of a dask cluster (dask.distributed).

A worker that dies is replaced and its scan done again by another; a scan that cannot be reconstructed is a line in the
table, not the end of the run. A manifest beside the results, written after every scan, says what is done: a run that
was stopped goes on where it was. Workers hold one scan's batch and its spool at a time, and scans travel as paths, so
that all machines must see the same files.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ptychow import __version__
from ptychow.errors import InputError, MissingExtraError, PtychoWError
from ptychow.files import write_json
from ptychow.formats.companions import files_of

MANIFEST = "reconstructions.json"
# Times a scan may take its worker down with it before it counts as failed.
DEATHS = 3
CONNECTING_SECONDS = 20

State = Literal["done", "kept", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What became of a scan: "done" in this run, "kept" from an earlier one, or "failed" with the problem in words.

    seconds: of its task. summary: of its `Reconstruction`; empty where it failed.
    """

    file: Path
    output: Path
    state: State
    seconds: float
    summary: dict[str, Any]
    problem: str = ""


def reconstruct_scans(
    files: Sequence[Path],
    model: Path,
    folder: Path,
    *,
    cluster: str = "local",
    workers: int | None = None,
    reading: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Reconstruct every file into `folder` (NAME.cxi and a picture each), and say what became of each, in their order.

    cluster: "local" starts `workers` processes (as many as cores) on this machine; otherwise the address of a running
    dask scheduler. reading, options: keyword arguments of `read_scan` and `reconstruct`. on_outcome: called as scans
    finish.
    Raises InputError where two files would be written to one name, MissingExtraError without dask.distributed,
    PtychoWError for a scheduler that does not answer.
    """
    try:
        import distributed
    except ImportError:
        raise MissingExtraError("dask.distributed", "cluster") from None
    model, settings = model.resolve(), (reading or {}, options or {})
    outputs = _outputs(files, folder)
    digests = {file: _digest(file, model, *settings) for file in files}
    manifest = _read_manifest(folder / MANIFEST)
    outcomes: dict[Path, Outcome] = {}

    def note(outcome: Outcome) -> None:
        outcomes[outcome.file] = outcome
        record = {**asdict(outcome), "file": str(outcome.file), "output": str(outcome.output)}
        manifest[outcome.output.name] = record | {"digest": digests[outcome.file]}
        write_json(folder / MANIFEST, manifest)
        if on_outcome is not None:
            on_outcome(outcome)

    folder.mkdir(parents=True, exist_ok=True)
    for file, output in outputs.items():
        earlier = manifest.get(output.name, {})
        if earlier.get("digest") == digests[file] and earlier.get("state") != "failed" and output.is_file():
            note(Outcome(file, output, "kept", earlier["seconds"], earlier["summary"]))
    with ExitStack() as stack:
        client = _connect(stack, distributed, cluster, workers)
        futures = {
            client.submit(
                reconstruct_file, str(file.resolve()), str(model), str(output.resolve()), *settings, pure=False
            ): (file, output)
            for file, output in outputs.items()
            if file not in outcomes
        }
        for future in distributed.as_completed(futures):
            file, output = futures[future]
            note(_outcome(file, output, future))
            future.release()
    return [outcomes[file] for file in files]


def reconstruct_file(
    file: str, model: str, output: str, reading: dict[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    """The task of a worker: read, reconstruct, write object and picture; {"seconds", "summary"} or {"problem"}."""
    from ptychow.formats import read_scan
    from ptychow.model import Model
    from ptychow.reconstruction import reconstruct

    started = time.perf_counter()
    try:
        scan, network = read_scan(Path(file), **reading), Model.load(model)
        result = reconstruct(scan, network, **options)
        result.save(output)
        result.save_picture(Path(output).with_suffix(".png"))
    except (PtychoWError, OSError) as error:
        # Trying again would not help: told as a result, not raised.
        return {"seconds": time.perf_counter() - started, "problem": " ".join(str(error).split())}
    return {"seconds": time.perf_counter() - started, "summary": result.summary}


def _outcome(file: Path, output: Path, future: Any) -> Outcome:
    """What became of a finished future."""
    if future.status != "finished":
        error = future.exception()
        worker_died = type(error).__name__ == "KilledWorker"
        problem = (
            "its worker died again and again (out of memory?)" if worker_died else f"{type(error).__name__}: {error}"
        )
        return Outcome(file, output, "failed", 0.0, {}, problem)
    result = future.result()
    state: State = "failed" if "problem" in result else "done"
    return Outcome(file, output, state, result["seconds"], result.get("summary", {}), result.get("problem", ""))


def _connect(stack: ExitStack, distributed: Any, cluster: str, workers: int | None) -> Any:
    """A client of the cluster; it and what was started for it end with the stack."""
    import dask

    stack.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": DEATHS - 1}))
    if cluster == "local":
        # One thread each: the cores are shared by whole scans, which scales better than threads within one.
        stack.enter_context(_environment(OMP_NUM_THREADS="1"))
        local = distributed.LocalCluster(
            n_workers=workers or os.cpu_count(),
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=0,
        )
        return stack.enter_context(distributed.Client(stack.enter_context(local)))
    try:
        return stack.enter_context(distributed.Client(cluster, timeout=CONNECTING_SECONDS))
    except (OSError, ValueError, TimeoutError) as error:
        raise PtychoWError(f"no dask scheduler answers at {cluster} ({error})") from None


class _environment:
    """Environment variables for the processes started meanwhile."""

    def __init__(self, **values: str) -> None:
        self.values = values

    def __enter__(self) -> None:
        self.before = {name: os.environ.get(name) for name in self.values}
        os.environ.update(self.values)

    def __exit__(self, *_: object) -> None:
        for name, value in self.before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _outputs(files: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Where each file's object goes. Raises InputError for two files of one name."""
    outputs: dict[Path, Path] = {}
    for file in files:
        output = folder / f"{file.stem}.cxi"
        if output in outputs.values():
            raise InputError("two scans of one name would be written to one file", file=file, found=output.name)
        if output.resolve() == file.resolve():
            raise InputError("would overwrite the scan", file=output, remedy="Choose another folder with --output")
        outputs[file] = output
    return outputs


def _digest(file: Path, model: Path, reading: dict[str, Any], options: dict[str, Any]) -> str:
    """Changes when a file of the scan, the Model, an option, or PtychoW's version does."""
    facts = [
        (str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) if p.exists() else str(p)
        for p in (*files_of(file, reading.get("mapping")), model)
    ]
    said = json.dumps([facts, reading, options, __version__], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _read_manifest(path: Path) -> dict[str, Any]:
    """What earlier runs noted; nothing where there is no readable note."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
