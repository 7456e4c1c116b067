"""What the README and the docs show runs: their Python, their commands, their table of recipes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from ptychow.cli import COMMANDS, _application
from ptychow.formats import read_scan

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in BLOCK.findall(page.read_text(encoding="utf-8")) if language in languages]


def shown_commands() -> list[str]:
    """Every line of a block that calls ptychow, without the prompt."""
    lines = [
        line.removeprefix("$ ") for page in PAGES for text in blocks(page, "sh", "console") for line in text.split("\n")
    ]
    return sorted({line for line in lines if line.startswith("ptychow ")})


def test_the_readme_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(ROOT / "README.md", "python")
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    written = {path.name for path in tmp_path.iterdir()}
    assert {"twin.cxi", "w3.safetensors", "twin_w3.cxi", "twin_w3.png"} <= written


def test_a_scan_of_ones_own_arrays_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(ROOT / "docs" / "formats.md", "python")
    exec(compile(code, "formats.md", "exec"), {})
    assert read_scan("run_7.cxi").geometry.pixel_size == pytest.approx(54.6e-9, rel=1e-3)


def test_the_metrics_page_python_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "docs" / "metrics.md"
    (code,) = blocks(page, "python")
    exec(compile(code, "metrics.md", "exec"), {})
    assert f"prints `{capsys.readouterr().out.strip()}`" in page.read_text(encoding="utf-8")


def test_the_walk_through_uses_every_command_of_the_job() -> None:
    used = {shlex.split(line, comments=True)[1] for line in shown_commands()}
    assert used <= set(COMMANDS)
    assert {"fetch", "inspect", "label", "train", "reconstruct", "evaluate"} <= used


@pytest.mark.parametrize("line", shown_commands())
def test_shown_commands_exist_with_their_options(line: str) -> None:
    name, *arguments = shlex.split(line, comments=True)[1:]
    command = typer.main.get_command(_application([name])).commands[name]  # type: ignore[attr-defined]
    command.make_context(name, arguments)  # raises for an unknown option, a missing argument, a value of another type


def test_an_unknown_option_would_be_noticed() -> None:
    command = typer.main.get_command(_application(["label"])).commands["label"]  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="--no-such-option"):
        command.make_context("label", ["scan.cxi", "--no-such-option", "1"])


@pytest.mark.parametrize("name", ["ptychow", "paper"])
def test_the_table_of_recipes_is_the_code(name: str) -> None:
    from ptychow.training import RECIPES

    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    table = text.split("<!-- recipes -->")[1].split("<!-- end -->")[0]
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in table.strip().splitlines()]
    column = rows[0].index(name)
    shown = {row[0]: row[column] for row in rows[2:]}
    fields = RECIPES[name].model_dump(exclude={"name"})
    assert shown == {key: f"{value:g}" if type(value) in (int, float) else str(value) for key, value in fields.items()}


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
