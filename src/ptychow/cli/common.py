"""What the commands share: options, and one way of talking to people and to machines."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ptychow.errors import InputError
from ptychow.files import to_json

if TYPE_CHECKING:
    from ptychow.scan import Scan

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="File, or existing folder, to write to, an older result there is replaced; by default beside the input.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable summary instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but warnings and errors.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, mps or xpu.")]
EngineOption = Annotated[
    str,
    typer.Option("--engine", help="torch, torch-compiled, openvino, onnxruntime, or auto: the fastest, measured once."),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="fp32, bf16 or int8; by default fp32, and with --engine auto the fastest that costs no accuracy.",
    ),
]
Threads = Annotated[int | None, typer.Option("--threads", help="CPU threads of the network.", min=1)]
Seed = Annotated[int, typer.Option("--seed", help="Seed of all random choices.", min=0)]
Force = Annotated[bool, typer.Option("--force", help="Go on where Model and data do not match.")]
StitchingOption = Annotated[
    str, typer.Option("--stitching", help="probe (weights from the probe), or central-crop (the notebooks').")
]
Refine = Annotated[
    bool, typer.Option("--refine", help="Let an iterative reconstruction (Pty-Chi LSQML) finish the picture.")
]
RefineEpochs = Annotated[
    int | None,
    typer.Option("--refine-epochs", help="Its passes; by default until its error is on a plateau.", min=1),
]
RefineSeconds = Annotated[
    float | None, typer.Option("--refine-seconds", help="Begin no further pass after so many seconds.", min=0)
]
PixelSize = Annotated[
    float | None,
    typer.Option("--pixel-size-nm", help="Object pixel in nanometres, where the file does not say."),
]
Mapping = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="NAME=VALUE",
        help="What the file does not say (docs/formats.md): repeated, or a TOML file of such lines.",
    ),
]
Positions = Annotated[
    Path | None,
    typer.Option("--positions", metavar="FILE", help="Positions in a file of their own: text, CSV, HDF5, npy or npz."),
]
Epochs = Annotated[
    int | None,
    typer.Option("--epochs", help="Passes over all frames; by default until the error is on a plateau.", min=1),
]
ProbeModes = Annotated[
    int | None,
    typer.Option("--modes", help="Incoherent probe modes; by default as many as the scan's probe has.", min=1),
]
# Of trainings.
NetworkSize = Annotated[int | None, typer.Option("--size", help="Crop or bin the frames to this many pixels.")]
NetworkSettings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A setting of the network (docs/training.md); repeated."),
]
TrainingPrecision = Annotated[str, typer.Option("--precision", help="fp32 or bf16.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training.")]

Advance = Callable[..., None]
LINE_SECONDS = 30.0


class Report:
    """Prints for people (default), for machines (`as_json`) or not at all (`quiet`)."""

    def __init__(self, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.speaks = not (quiet or as_json)
        self.written: dict[str, str] = {}

    def line(self, text: str) -> None:
        """A line for people."""
        if self.speaks:
            typer.echo(text)

    def note(self, text: str) -> None:
        """What must be known whatever else is quiet: a line, or, where lines are not spoken, on standard error."""
        if self.speaks:
            self.line(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """A warning, on standard error, whatever else is quiet."""
        typer.secho(f"warning: {text}", fg="yellow", err=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table; columns of numbers are right-aligned, all others left-aligned."""
        if not self.speaks:
            return
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
        for index, column in enumerate(columns):
            numbers = all(_is_number(row[index]) for row in rows)
            table.add_column(column, justify="right" if numbers else "left", overflow="fold")
        for row in rows:
            table.add_row(*(format_number(cell) for cell in row))
        # Pipes and logs get the full table, not one folded to 80 columns.
        width = None if sys.stdout.isatty() else 160
        Console(width=width, highlight=False).print(table)

    @contextmanager
    def progress(self, title: str, total: float | None = None) -> Iterator[Advance]:
        """A progress bar with rate and time left; yields advance(steps=1, note="").

        In pipes and logs a line now and then; silent for people who asked for silence.
        """
        if not self.speaks:
            yield lambda steps=1, note="": None
            return
        if not sys.stderr.isatty():
            yield _progress_lines(title, total)
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=total, note="", rate="")

            def advance(steps: float = 1, note: str = "") -> None:
                speed = bar.tasks[0].speed
                bar.update(task, advance=steps, note=note, rate=f"{speed:.3g}/s" if speed else "")

            yield advance

    def wrote(self, what: str, path: Path) -> None:
        """Say, and remember for the summary, that `what` was written to `path`; another `what` as "what 2"."""
        again = (name for number in itertools.count(2) if (name := f"{what} {number}") not in self.written)
        self.written[what if what not in self.written else next(again)] = str(path)
        self.line(f"wrote {what}: {path}")

    def finish(self, summary: dict[str, Any]) -> None:
        """With --json, print the summary and what was written as one JSON object."""
        if self.as_json:
            typer.echo(to_json({**summary, "wrote": self.written}))


def tell_residuals(report: Report, summary: dict[str, Any]) -> None:
    """A line on what a reconstruction leaves unexplained of its frames, where that is known."""
    values = {"the patches": summary["median_residual"], "the stitched object": summary["object_residual"]}
    known = [f"{value:.3f} by {what}" for what, value in values.items() if value is not None]
    if known:
        report.line(f"unexplained of the diffraction (0 is perfect): {', '.join(known)}")


def _progress_lines(title: str, total: float | None) -> Advance:
    """advance(steps=1, note="") that says on standard error, every `LINE_SECONDS` at most, how far it is."""
    began = said = time.monotonic()
    done = 0.0

    def advance(steps: float = 1, note: str = "") -> None:
        nonlocal said, done
        done, now = done + steps, time.monotonic()
        if now - said < LINE_SECONDS:
            return
        said = now
        left = (
            "" if not (total and done) else f" of {total:,.0f}, about {(total / done - 1) * (now - began):,.0f} s left"
        )
        typer.echo(f"{title}: {done:,.0f}{left}{note and ', '}{note}", err=True)

    return advance


def warn_of_findings(report: Report, scan: Scan) -> None:
    """Warn of what `ptychow inspect` calls wrong with a scan, before hours are spent on it; not the quiet."""
    from ptychow.inspection import inspect_scan

    if report.quiet:
        return
    with report.progress("Looking at the frames", len(scan)) as advance:
        found = inspect_scan(scan, on_frames=advance)
    for finding in found.findings:
        report.warn(finding)


def _is_number(cell: Any) -> bool:
    """Whether a table's cell is a number, the text of one, or nothing."""
    try:
        float(cell or 0)
    except (TypeError, ValueError):
        return False
    return True


def format_number(value: Any) -> str:
    """Four significant digits for floats, thousands separated for integers, text as it is, a dash for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}"


def network_settings(given: list[str] | None) -> dict[str, Any]:
    """What --set says: numbers, true and false as such, the rest as words. Raises InputError without a "="."""
    settings: dict[str, Any] = {}
    for item in given or []:
        name, sign, value = item.partition("=")
        if not (name and sign and value) or name == "amplitude_max":  # the recipe's
            raise InputError("not a setting", field="--set", found=item, expected="NAME=VALUE, such as nconv=16")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    return settings


def require_choice(option: str, value: str, *allowed: str) -> None:
    """Raise InputError unless the option's value is one of those allowed."""
    if value not in allowed:
        raise InputError("unknown", field=option, found=value, expected=" or ".join(allowed))


def require_engine(engine: str, precision: str | None) -> None:
    """Raise InputError unless --engine and --precision exist and go together."""
    from ptychow.engines import ENGINES, PRECISIONS

    require_choice("--engine", engine, "auto", *ENGINES)
    if precision is not None:
        require_choice("--precision", precision, *(PRECISIONS if engine == "auto" else ENGINES[engine].precisions))


def warn_of_bf16(report: Report, precision: str | None, device: str) -> None:
    """Warn where PyTorch would have to imitate the precision asked for."""
    from ptychow.devices import has_bfloat16

    if precision == "bf16" and not has_bfloat16(device):
        report.warn("this processor has no instructions for bf16 and imitates it, many times slower than fp32")


def parse_mapping(entries: list[str] | None) -> dict[str, str] | None:
    """NAME=/path pairs, or TOML files of them, as one mapping. Raises InputError on anything else."""
    if not entries:
        return None
    mapping: dict[str, str] = {}
    for entry in entries:
        name, separator, value = entry.partition("=")
        if separator:
            mapping[name.strip()] = value.strip()
        elif Path(entry).is_file():
            import tomllib

            try:
                content = tomllib.loads(Path(entry).read_text(encoding="utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise InputError(f"not a TOML file ({error})", file=entry) from None
            mapping.update({key: str(value) for key, value in content.items()})
        else:
            problem = "no such file" if entry.endswith(".toml") else "neither NAME=/path nor a TOML file"
            raise InputError(problem, field="--map", found=entry)
    return mapping


def open_scan(
    file: Path, mapping: list[str] | None, pixel_size_nm: float | None, positions: Path | None = None
) -> Scan:
    """The scan in `file`, as the options --map, --pixel-size-nm and --positions explain it."""
    from ptychow.formats import read_scan

    return read_scan(file, **explanation(mapping, pixel_size_nm, positions))


def explanation(
    mapping: list[str] | None, pixel_size_nm: float | None, positions: Path | None = None
) -> dict[str, Any]:
    """Those options as the keyword arguments of `read_scan`. Raises InputError as `parse_mapping`."""
    explained = parse_mapping(mapping) or {}
    if positions is not None:
        explained["positions_file"] = str(positions)
    return {"mapping": explained, "pixel_size": None if pixel_size_nm is None else pixel_size_nm * 1e-9}


def inputs_of(file: Path, mapping: list[str] | None = None, positions: Path | None = None) -> list[Path]:
    """The files that a scan is read from with these options. Raises InputError as `parse_mapping`."""
    from ptychow.formats.companions import files_of

    return files_of(file, explanation(mapping, None, positions)["mapping"])


def named_after(source: Path, model: str, ending: str) -> str:
    """The `ending` for `output_path` of what `model` made of `source`: a Model named after the scan does not say it
    twice.
    """
    return f"_{model.removeprefix(f'{source.stem}_')}{ending}"


def output_path(output: Path | None, source: Path, ending: str, *others: Path) -> Path:
    """Where to write: `output`, or in that folder, or beside `source`; the name is then the source's stem + `ending`.

    Raises InputError for `source` or one of the `others` itself (what was put in is never overwritten), for another
    program's file (PtychoW's own are replaced) and for the name of a picture where something else is written with a
    picture beside it; for a Model, for any name that is not in .safetensors; PtychoWError where nothing can be written.
    """
    from ptychow.files import require_writable

    name = source.stem + ending
    target = source.with_name(name) if output is None else output / name if output.is_dir() else output
    if target.resolve() in {given.resolve() for given in (source, *others)}:
        raise InputError("would overwrite the input", file=target, field="--output", remedy="Choose another name")
    if target.suffix == ".png" and not ending.endswith(".png"):
        expected = f"a name in {Path(ending).suffix}; the picture goes beside it"
        raise InputError("names a picture", file=target, field="--output", expected=expected)
    require_writable(target)
    if ending.endswith(".safetensors") and target.suffix != ".safetensors":
        raise InputError("not a Model's name", file=target, field="--output", expected="a name in .safetensors")
    if target.exists() and _is_foreign(target, Path(ending).suffix):
        remedy = "Choose another name, or delete it first"
        raise InputError("would overwrite what PtychoW did not write", file=target, field="--output", remedy=remedy)
    return target


def _is_foreign(path: Path, suffix: str) -> bool:
    """Whether a file is a scan, or of another kind than `suffix`, and was not written by PtychoW."""
    from ptychow.formats import is_scan
    from ptychow.formats.new_hdf5 import is_own

    return (is_scan(path) or path.suffix.lower() != suffix) and not is_own(path)


def checkpoint_beside(target: Path, resume: bool) -> Path:
    """Where the training of this Model keeps its state. Raises InputError where it shall go on and there is none, and
    where it shall begin and there is one.
    """
    checkpoint = target.with_name(f"{target.stem}_checkpoint.safetensors")
    if resume and not checkpoint.exists():
        raise InputError("nothing to resume", file=checkpoint, remedy="Begin without --resume")
    if checkpoint.exists() and not resume:
        remedy = "Go on with --resume, write to another --output, or delete this file"
        raise InputError("an interrupted training would be lost", file=checkpoint, remedy=remedy)
    return checkpoint
