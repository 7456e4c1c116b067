"""`ptychow benchmark`: run one of the scripts that make the numbers in docs/results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychow.cli.common import Json, Quiet, Report

FOLDER = Path(__file__).parents[3] / "benchmarks"


def benchmark(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Of the script; without one they are listed.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run benchmarks/NAME.py with the options that follow its name (`ptychow benchmark NAME -- --help` lists them).

    Needs a clone of the repository, installed with `pip install --editable .`: a package has no benchmarks.
    """
    from ptychow.errors import InputError

    scripts = {path.stem: path for path in sorted(FOLDER.glob("*.py")) if _is_script(path)}
    if not scripts:
        raise InputError(
            "the benchmarks come with the source, not with the installed package",
            file=FOLDER,
            remedy="Clone the repository and install it with: pip install --editable .",
        )
    if name is None:
        report = Report(as_json, quiet)
        titles = {name: _title(path) for name, path in scripts.items()}
        report.table("Benchmarks", ["name", "what it measures"], list(titles.items()))
        report.finish({"benchmarks": titles})
        return
    if name not in scripts:
        raise InputError("no such benchmark", found=name, expected=", ".join(scripts))
    _run(scripts[name], context.args)


def _run(script: Path, arguments: list[str]) -> None:
    """As `python benchmarks/NAME.py ARGUMENTS` would; its exit code is ours."""
    import subprocess
    import sys

    finished = subprocess.run([sys.executable, str(script), *arguments], check=False)
    if finished.returncode:
        raise typer.Exit(finished.returncode)


def _is_script(path: Path) -> bool:
    return 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")


def _title(path: Path) -> str:
    """First line of the script's docstring."""
    import ast

    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
