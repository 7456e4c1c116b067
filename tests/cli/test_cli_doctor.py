"""`ptychow doctor`, and `ptychow reconstruct` with an engine of its own choice."""

import json
import tomllib
from pathlib import Path

import pytest

from ptychow.cli.doctor import EXTRAS
from ptychow.engines import ENGINES, choice


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PTYCHOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "SECONDS", 0.01)


def test_says_what_is_here(ptychow):
    code, shown, complaint = ptychow("doctor")
    assert (code, complaint) == (0, "")
    for word in ("CPU", "threads", "C++ compiler", "accelerators", *ENGINES):
        assert word in shown
    assert "No engine has been chosen yet" in shown
    summary = json.loads(ptychow("doctor", "--json")[1])
    assert set(summary["engines"]) == set(ENGINES) and summary["choices"] == []
    assert ptychow("doctor", "--quiet") == (0, "", "")


def test_every_library_of_an_extra_is_looked_for():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {extra: len(requirements) for extra, requirements in extras.items() if extra not in ("all", "dev")}
    assert {extra: len(libraries) for extra, (libraries, _) in EXTRAS.items()} == wanted


def test_what_auto_chose_is_shown_with_its_reasons(scan_file, model_file, ptychow):
    given = ("reconstruct", scan_file, "-m", model_file, "--device", "cpu", "--threads", "1")
    code, shown, _ = ptychow(*given, "--engine", "auto", "--json")
    used = json.loads(shown)
    assert code == 0 and used["engine"] in ENGINES
    (found,) = json.loads(ptychow("doctor", "--json")[1])["choices"]
    assert (found["engine"], found["precision"]) == (used["engine"], used["precision"])
    assert all(candidate["problem"] or candidate["rate"] > 0 for candidate in found["candidates"])
    shown = ptychow("doctor")[1]
    assert "w3 at 32, 64 frames at a time, 1 thread" in shown and "chosen" in shown


@pytest.mark.parametrize("engine", [name for name, spec in ENGINES.items() if not (spec.missing() or spec.compiles)])
def test_reconstruct_takes_every_engine(engine, scan_file, model_file, tmp_path, ptychow):
    given = ("reconstruct", scan_file, "-m", model_file, "--device", "cpu", "-o", tmp_path / "out.cxi", "--json")
    summary = json.loads(ptychow(*given, "--engine", engine)[1])
    assert (summary["engine"], summary["precision"]) == (engine, "fp32")


def test_engines_that_make_no_sense_are_code_2(scan_file, model_file, ptychow):
    for options in (["--engine", "abacus"], ["--engine", "onnxruntime", "--precision", "bf16"]):
        code, shown, complaint = ptychow("reconstruct", scan_file, "-m", model_file, *options)
        assert (code, shown) == (2, "") and complaint.count("\n") == 1 and "unknown" in complaint
